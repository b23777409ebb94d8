"""Run notebooks without a screen, with parameters that exist; and what notebooks share.

``python -m hand_lib.workbook`` is ``make run``: notebooks 00 to 05 in order, then one table.
``python -m hand_lib.workbook 03_train -p preset small`` runs one: papermill does the work; before
it, names and types of parameters are checked, and the executed copy goes to the run's folder.
"""

import argparse
import functools
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from hand_lib import ROOT
from hand_lib.files import find_run, read_json, resolve
from hand_lib.hand.joints import OWN_FINGERTIPS
from hand_lib.training.config import check_name, literal

NOTEBOOKS = ROOT / "notebooks"
IN_ORDER = (
    "00_start_here", "01_data_exploration", "02_mesh_sampling", "03_train", "04_evaluation",
    "05_demo",
)  # fmt: skip
DATA_COUNT, DATA_SIZE, DATA_SEED = 600, 224, 11
"""The synthetic hands in FreiHAND's own layout that notebooks look at and are tested on."""
TABLE_KEYS = {
    "vertices": ("root_mpvpe_mm", "vertices_mm"),
    "joints": ("root_mpjpe_mm", "joints_mm"),
    "vertices PA": ("pa_mpvpe_mm", "vertices_pa_mm"),
    "joints PA": ("pa_mpjpe_mm", "joints_pa_mm"),
}
"""Columns of the closing table: their names in an evaluation and in a run's metrics.json."""


def ensure_data(folder=None) -> Path:
    """Folder of the small synthetic data set in FreiHAND's layout; made when it is not there.

    returns its path. Takes seconds the first time, with progress. A set that an older version of
    the workbook made there is replaced; a folder that holds anything else is refused.
    """
    from hand_lib.data.synthetic.hands import STAMP, SyntheticHands, write_synthetic_freihand

    folder = Path(folder) if folder else ROOT / "data" / "synthetic"
    stamp = read_json(folder / STAMP, optional=True)
    if stamp is not None:
        now = SyntheticHands(DATA_SIZE, DATA_SEED, DATA_COUNT, split="training").fingerprint()
        if stamp.get("fingerprint") != now:
            shutil.rmtree(folder)
    bar = functools.partial(tqdm, desc="synthetic training", unit="hand")
    return write_synthetic_freihand(folder, DATA_COUNT, DATA_SIZE, DATA_SEED, progress=bar)


def ensure_run(run="") -> Path:
    """A finished run: the one named, else the reference model, else the newest, else a quick one.

    run: name in ``runs/``, or folder, absolute or from the workbook's folder, or "".
    """
    from hand_lib.evaluation.runs import find_runs
    from hand_lib.training.config import make_config
    from hand_lib.training.loop import train

    if not run:
        found = find_runs(ROOT / "runs")
        return found[-1] if found else train(make_config("quick"), ROOT / "runs" / "quick").folder
    folder = find_run(run)
    if not (folder / "model.safetensors").is_file():
        known = sorted(path.parent.name for path in (ROOT / "runs").glob("*/model.safetensors"))
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors; finished runs in runs/: "
            f"{', '.join(known) or 'none yet'}"
        )
    return folder


def notebook_path(name) -> Path:
    """A notebook by its path or, within ``notebooks/``, by the beginning of its name.

    >>> notebook_path("03").name
    '03_train.ipynb'
    """
    if Path(name).suffix == ".ipynb":
        return resolve(name)
    known = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if path.stem.startswith(str(name)))
    if len(known) != 1:
        names = ", ".join(sorted(path.stem for path in known or NOTEBOOKS.glob("*.ipynb")))
        raise FileNotFoundError(f"no notebook {name!r}; in {NOTEBOOKS.name}/ there are: {names}")
    return known[0]


def parameters_of(notebook) -> dict[str, tuple[str, object]]:
    """Parameters of a notebook: name -> (type as its cell writes it, default)."""
    from papermill.inspection import inspect_notebook

    found = inspect_notebook(str(notebook))
    return {n: (one["inferred_type_name"], literal(one["default"])) for n, one in found.items()}


def checked_parameters(notebook, given: dict) -> dict:
    """The parameters given, or an error that names the first wrong one and what is right.

    given: name -> value, or text that is read as the type that the parameters cell writes beside
    the name (``run: str``), so that a run may be called 2024_05_01.
    """
    known, checked = parameters_of(notebook), {}
    for name, value in given.items():
        check_name(name, list(known))
        kind, default = known[name]
        kind = kind.split("|")[0].strip()
        if kind == "str":
            value = str(value)
        elif isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), literal(value))
        value = float(value) if kind == "float" and type(value) is int else value
        if kind in ("int", "float", "bool") and type(value).__name__ not in (kind, "NoneType"):
            wanted = f"{kind} like its default {default!r}"
            raise TypeError(f"parameter {name} should be {wanted}, found {value!r}")
        checked[name] = value
    return checked


def run_notebook(notebook, parameters=None, output=None, log=None, refresh=False) -> Path:
    """Execute a notebook from a fresh kernel and return where its executed copy is.

    notebook: see ``notebook_path``.   parameters: dict of name -> value.   output: .ipynb to write;
    by default of the same name in the folder of the run that the parameters name, or in
    ``runs/notebooks``.   log: text stream for what the notebook prints, None for nothing.
    refresh: the result takes the notebook's own place, fit for git.
    When a cell fails, what ran until then is kept as ``<name>.failed.ipynb``, an earlier good copy
    stays, and no folder is made for it.
    """
    import papermill

    notebook = notebook_path(notebook)
    parameters = checked_parameters(notebook, parameters or {})
    if output is None:
        known = {name: default for name, (_, default) in parameters_of(notebook).items()}
        named = ((known | parameters).get(name) for name in ("resume", "run", "preset"))
        output = find_run(next(filter(None, named), "notebooks")) / notebook.name
    output = notebook if refresh else Path(output)
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / notebook.name
        try:
            papermill.execute_notebook(
                str(notebook), str(executed), parameters=parameters, cwd=str(notebook.parent),
                progress_bar=False, stdout_file=log, stderr_file=log, kernel_name="python3",
                extra_arguments=["--log-level=CRITICAL"],  # nobody cares for its sockets
            )  # fmt: skip
        except BaseException:
            beside = output.parent.is_dir() and not refresh
            place = output.parent if beside else ROOT / "runs" / "notebooks"
            if executed.exists():
                _keep(executed, place / f"{output.stem}.failed.ipynb")
            raise
        _keep(executed, output, for_git=refresh)
    return output


def _keep(executed: Path, output: Path, for_git: bool = False) -> None:
    """Write an executed notebook without papermill's stamps, of progress bars the end alone.

    for_git: standard error goes too, and a line stands for every widget, whose state no file keeps,
    and for everything that was shown as private.
    """
    import nbformat
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    book, _ = CoalesceStreamsPreprocessor(enabled=True)(nbformat.read(executed, as_version=4), {})
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in book.cells:
        kept = {"tags", "jupyter"} & set(cell.metadata)  # the latter hides a cell's source
        cell.metadata = {key: cell.metadata[key] for key in sorted(kept)}
        if for_git and cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for out in cell.outputs:
                if "application/vnd.jupyter.widget-view+json" in out.get("data", {}):
                    out.data = {"text/plain": "a panel to play with: run this in JupyterLab"}
                if out.get("metadata", {}).get("private"):
                    out.data = {"text/plain": "your own pictures: shown where this is run"}
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, output)


def comparison(runs: dict, count: int = 0, progress: bool = True) -> dict[str, dict]:
    """Scores in mm on ``synthetic-test`` of each run, below those of "template only".

    runs: name -> folder; the first one's metrics.json knows the best single mesh of its training
    set, scored on its validation hands.   count: the first so many hands; 0: all 2,000.
    """
    from hand_lib.evaluation.runs import evaluate_run, open_test_set

    test, rows = open_test_set("synthetic-test", count), {}
    alone = read_json(next(iter(runs.values())) / "metrics.json").get("template_only")
    if alone:
        rows["template only"] = {key: alone[name] for key, name in TABLE_KEYS.values()}
    for name, folder in runs.items():
        rows[name] = evaluate_run(folder, test, progress=progress).scores.millimetres
    return rows


def table(rows: dict[str, dict]) -> str:
    """The closing table as text: one line per row, errors in mm, and how far below the first."""
    width = max(len(name) for name in rows) + 2
    lines = [" " * width + "".join(f"{head:>13}" for head in TABLE_KEYS)]
    base = next(iter(rows.values()))
    for name, scores in rows.items():
        cells = ""
        for key, _ in TABLE_KEYS.values():
            below = "" if scores is base else f" ({100 * (scores[key] / base[key] - 1):+.0f} %)"
            cells += f"{scores[key]:.1f}{below}".rjust(13)
        lines.append(name.ljust(width) + cells)
    return "\n".join(lines)


def run_all(run: str = "small", log=sys.stderr) -> dict[str, dict]:
    """Notebooks 00 to 05 headless, then the comparison; what is there already is kept.

    run: name of the training run below ``runs/``.   returns the rows of the closing table.
    """
    started, executed = time.perf_counter(), []
    folder, reference = ROOT / "runs" / run, ROOT / "runs" / "reference"
    shipped = (reference / "model.safetensors").is_file()
    status = (read_json(folder / "metrics.json", optional=True) or {}).get("status")
    finished = status == "finished" and (folder / "model.safetensors").is_file()
    begun = (folder / "config.json").is_file()
    chosen = {
        "03_train": None if finished else {"preset": "small", "resume" if begun else "run": run},
        "04_evaluation": {"runs": f"runs/{run}"},
        "05_demo": {} if shipped else {"run": f"runs/{run}"},
    }
    for number, name in enumerate(IN_ORDER, start=1):
        seconds, parameters = time.perf_counter() - started, chosen.get(name, {})
        log.write(f"[{number}/{len(IN_ORDER)}] {name}, {seconds:.0f} s so far\n")
        place = (folder if name == "03_train" else folder.parent / "notebooks") / f"{name}.ipynb"
        executed.append(f"    {place.relative_to(ROOT)}\n")
        if parameters is None:
            log.write(f"    runs/{run} is finished and kept; delete that folder to train again\n")
        else:
            run_notebook(name, parameters, place, log)
    log.write("scoring on synthetic-test ...\n")
    rows = comparison({"this run": folder} | ({"reference model": reference} if shipped else {}))
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    log.write(
        "\nerrors in mm on 2,000 synthetic pictures that no training saw (PA: after alignment);\n"
        f"joints with the fingertips of {OWN_FINGERTIPS}; template only: one mesh for every\n"
        f"picture, on the run's validation hands\n{table(rows)}\n\n"
        "executed notebooks, with all pictures and curves in them (to open them: make lab):\n"
        f"{''.join(executed)}({minutes} min {seconds:02d} s)\n"
    )
    return rows


def main(arguments=None) -> int:
    """The command line; the exit code: 0, 1 a failing cell, 2 a wrong request, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.workbook", description=__doc__)
    parser.add_argument("notebook", nargs="?", help="name, its beginning, or path; none: 00 to 05")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    parser.add_argument("-o", "--output", help="where the executed notebook goes")
    parser.add_argument("--run", default="small", help="of 00 to 05: the run's name in runs/")
    parser.add_argument("--refresh", action="store_true", help="execute it in its place, for git")
    parser.add_argument("--list", action="store_true", help="show its parameters and stop")
    options = parser.parse_args(arguments)
    name, given = options.notebook, dict(options.parameter)
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        if name is None:
            run_all(options.run)
        elif options.list:
            for key, (_, default) in parameters_of(notebook_path(name)).items():
                sys.stdout.write(f"{key} = {default!r}\n")
        else:
            done = run_notebook(name, given, options.output, sys.stderr, options.refresh)
            sys.stdout.write(f"{done}\n")
        return 0
    except PapermillExecutionError as error:
        problem, code = f"stopped: {error.ename}: {error.evalue}", 1
    except DeadKernelError:
        problem, code = "stopped: its kernel died, as it does where memory runs out", 1
    except KeyboardInterrupt:
        problem, code = "stopped; the same command goes on from here", 130
    except (ValueError, TypeError, OSError) as error:
        problem, code = str(error), 2
    sys.stderr.write(f"\n{parser.prog} {name or ''}: {problem}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
