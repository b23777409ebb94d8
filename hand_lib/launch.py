"""Run a notebook without a screen: ``python -m hand_lib.launch 03_train -p preset small``.

Papermill does the work; around it, names of parameters are checked before anything starts, the
folder of the result is made, progress reaches the terminal, and papermill's stamps are removed.
"""

import argparse
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from hand_lib import ROOT
from hand_lib.training.config import check_parameter_name, literal

NOTEBOOKS = ROOT / "notebooks"


def notebook_path(name) -> Path:
    """A notebook by its path or, within ``notebooks/``, by name or the beginning of its name.

    >>> notebook_path("03").name
    '03_train.ipynb'
    """
    name = str(name)
    for place in (Path(name), NOTEBOOKS / name, NOTEBOOKS / f"{name}.ipynb"):
        if place.is_file() and place.suffix == ".ipynb":
            return place
    found = sorted(NOTEBOOKS.glob(f"{name}*.ipynb")) if re.fullmatch(r"[\w-]+", name) else []
    if len(found) != 1:
        known = ", ".join(sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
        raise FileNotFoundError(f"no notebook {name!r}; in {NOTEBOOKS.name}/ there are: {known}")
    return found[0]


def parameters_of(notebook) -> dict:
    """Parameters of a notebook and their defaults as papermill reads them."""
    from papermill.inspection import inspect_notebook

    found = inspect_notebook(str(notebook))
    return {name: literal(entry["default"]) for name, entry in found.items()}


def checked_parameters(notebook, given: dict) -> dict:
    """The parameters given, or an error that names the first wrong one and what is right.

    A value's type must be that of the default; a whole number passes for a float.
    """
    defaults = parameters_of(notebook)
    checked = {}
    for name, value in given.items():
        check_parameter_name(name, list(defaults))
        default = defaults[name]
        if isinstance(default, str):
            value = str(value)
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise TypeError(
                f"parameter {name} should be {type(default).__name__} like its default "
                f"{default!r}, found {value!r}"
            )
        checked[name] = value
    return checked


def launch(notebook, output=None, parameters: dict | None = None, log=None) -> Path:
    """Execute a notebook from a fresh kernel and return where its executed copy is.

    notebook: see ``notebook_path``.   output: .ipynb to write; by default the notebook of the same
    name in the folder of the run that its parameters name, or in ``runs/notebooks``.
    parameters: name -> value.   log: text stream for what the notebook prints, None for nothing.
    The copy exists, with everything up to the error, also when a cell fails.
    """
    import papermill

    from hand_lib.training.checkpoints import run_folder

    notebook = notebook_path(notebook)
    parameters = checked_parameters(notebook, parameters or {})
    if output is None:
        known = {**parameters_of(notebook), **parameters}
        named = (known.get(name) for name in ("resume", "run", "preset"))
        run = next(filter(None, named), "notebooks")
        output = run_folder(run) / notebook.name
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    screen = log and _Screen(log)
    try:
        papermill.execute_notebook(
            str(notebook), str(output), parameters=parameters, cwd=str(notebook.parent),
            progress_bar=False, stdout_file=screen and screen.lines, stderr_file=screen,
            kernel_name="python3",
            extra_arguments=["--log-level=CRITICAL"],  # what it says of its sockets concerns nobody
        )  # fmt: skip
    finally:
        if output.exists():
            strip_stamps(output)
    return output


class _Screen:
    """A text stream for a notebook's standard error; ``lines`` is the one for standard output.

    A progress bar leaves its line open, and its erasure can arrive late: what is printed meanwhile
    starts a line of its own.
    """

    def __init__(self, stream):
        self.stream, self.open_line = stream, False
        self.lines = SimpleNamespace(write=self._print, flush=stream.flush)

    def write(self, text: str) -> None:
        if text:
            self.stream.write(text)
            self.open_line = bool(re.split(r"[\r\n]", text)[-1].strip())

    def flush(self) -> None:
        self.stream.flush()

    def _print(self, text: str) -> None:
        self.stream.write("\n" * self.open_line + text)
        self.open_line = False


def strip_stamps(path) -> None:
    """Remove what papermill notes in a notebook and all but the last state of progress bars."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs = _without_progress(cell.outputs)
    nbformat.write(notebook, path)


WIDGET = "application/vnd.jupyter.widget-view+json"


def refresh(notebook, log=None) -> Path:
    """Execute a notebook with its defaults and keep the result in its place, fit for git.

    Beside ``launch``'s cleaning, standard error goes and a widget, whose state no file keeps,
    leaves one line of text. The notebook changes only when every cell ran.
    """
    notebook = notebook_path(notebook)
    executed = notebook.with_suffix(".executed.ipynb")
    try:
        launch(notebook, executed, log=log)
        tidy(executed)
        executed.replace(notebook)
    finally:
        executed.unlink(missing_ok=True)
    return notebook


def tidy(path) -> None:
    """Leave out of a notebook what is of no use in a repository: stderr and dead widgets."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                output.data = {"text/plain": "a panel to play with: run this cell in JupyterLab"}
    nbformat.write(book, path)


def _without_progress(outputs: list) -> list:
    """Outputs in which standard output is one text and of a progress bar only its end is left."""
    kept, printed, bar = [], None, None
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout":
            if printed is None:
                printed = output
                kept.append(output)
            else:
                printed.text += output.text
        else:
            lines = [line.rsplit("\r", 1)[-1].rstrip() for line in output.text.split("\n")]
            lines = [line for line in lines if line]
            if "%|" not in output.text:
                kept += [output] if lines else []
            elif lines:
                bar, output.text = output, lines[-1] + "\n"
    return kept + ([bar] if bar is not None else [])


def main(arguments=None) -> int:
    """The command line; the exit code: 0, 1 a failing cell, 2 a wrong request, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.launch", description=__doc__)
    parser.add_argument("notebook", help="name, beginning of a name, or path")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    parser.add_argument("-o", "--output", help="where the executed notebook goes")
    parser.add_argument(
        "--refresh", action="store_true", help="keep the result in the notebook's place, for git"
    )
    parser.add_argument("--list", action="store_true", help="show the parameters and stop")
    options = parser.parse_args(arguments)
    from papermill.exceptions import PapermillExecutionError

    try:
        if options.list:
            for name, default in parameters_of(notebook_path(options.notebook)).items():
                sys.stdout.write(f"{name} = {default!r}\n")
            return 0
        if options.refresh:
            sys.stdout.write(f"{refresh(options.notebook, log=sys.stderr)}\n")
            return 0
        given = {name: literal(value) for name, value in options.parameter}
        output = launch(options.notebook, options.output, given, log=sys.stderr)
    except PapermillExecutionError as error:
        sys.stderr.write(f"\n{options.notebook} stopped: {error.ename}: {error.evalue}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; a training goes on with: -p resume NAME_OF_THE_RUN\n")
        return 130
    except (ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(f"{output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
