"""What notebooks share: the data, the run and the pictures that an earlier one would have made.

``python -m hand_lib.workbook`` is ``make run``: notebooks 01 to 05 in order, then one table.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hand_lib import ROOT
from hand_lib.hand.joints import OWN_FINGERTIPS

DATA_FOLDER = ROOT / "data" / "synthetic"
"""The synthetic hands in FreiHAND's own layout that notebooks look at and are tested on."""

DATA_COUNT, DATA_SIZE, DATA_SEED = 600, 224, 11
NOTEBOOKS = ("01_data_exploration", "02_mesh_sampling", "03_train", "04_evaluation", "05_demo")

EXAMPLE_INTRINSICS = np.array([[250.0, 0, 111.5], [0, 250, 111.5], [0, 0, 1]])
"""A camera for the examples' 224-pixel pictures that sees about 48 degrees."""


def ensure_data(folder=None) -> Path:
    """Folder of the small synthetic data set in FreiHAND's layout; made when it is not there.

    returns its path. Takes seconds the first time, with progress. A set that an older version of
    the workbook made there is replaced; a folder that holds anything else is refused.
    """
    from hand_lib.data.synthetic.freihand import STAMP, write_synthetic_freihand
    from hand_lib.data.synthetic.hands import SyntheticHands

    folder = Path(folder) if folder else DATA_FOLDER
    stamp = folder / STAMP
    if stamp.is_file():
        now = SyntheticHands(DATA_SIZE, DATA_SEED, DATA_COUNT, split="training").fingerprint()
        if json.loads(stamp.read_text()).get("fingerprint") != now:
            shutil.rmtree(folder)
    return write_synthetic_freihand(folder, DATA_COUNT, DATA_SIZE, DATA_SEED)


def open_data(place, split: str = "training"):
    """A data set by its place: a folder in FreiHAND's layout, a METRO .yaml, a YouTube .json."""
    from hand_lib.data.readers import FreiHand
    from hand_lib.training.setup import open_dataset

    return FreiHand(place, split) if Path(place).is_dir() else open_dataset(Path(place).resolve())


def ensure_run(run="") -> Path:
    """A finished run: the one named, else the reference model, else the newest, else a quick one.

    run: name in ``runs/``, or folder, absolute or from the workbook's folder, or "".
    """
    from hand_lib.evaluation.runs import find_runs

    if run:
        folders = (ROOT / run, ROOT / "runs" / run)
        folder = next((f for f in folders if (f / "model.safetensors").is_file()), None)
        if folder is None:
            known = sorted(p.parent.name for p in (ROOT / "runs").glob("*/model.safetensors"))
            raise FileNotFoundError(
                f"{run} holds no model.safetensors; finished runs in runs/: "
                f"{', '.join(known) or 'none yet'}"
            )
        return folder
    found = find_runs(ROOT / "runs")
    if found:
        return found[-1]
    from hand_lib.training.config import make_config
    from hand_lib.training.loop import train

    return train(make_config("quick"), ROOT / "runs" / "quick").folder


def example_pictures(count: int = 6, size: int = 224) -> dict[str, np.ndarray]:
    """Synthetic photographs to demonstrate on: name -> (size, size, 3) uint8, always the same.

    Whole hands with nothing in front of them, as one would hold a hand into a camera.
    """
    from hand_lib.data.synthetic.hands import SyntheticHands

    clear = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0}
    hands = SyntheticHands(size, seed=2024, count=count, **clear)
    return {f"synthetic {n}": hands[n].image for n in range(count)}


TABLE_KEYS = {
    "vertices": "root_mpvpe_mm",
    "joints": "root_mpjpe_mm",
    "vertices PA": "pa_mpvpe_mm",
    "joints PA": "pa_mpjpe_mm",
}
"""Columns of the closing table: errors with the wrists brought together, then aligned ones."""


def template_row(test, count: int = 2000) -> dict[str, float]:
    """Scores of the best single mesh for the training set, shown for every picture of a test set.

    test: ``evaluation.TestSet`` of synthetic hands.   count: synthetic training hands that the mesh
    is averaged from.   returns the keys of ``TABLE_KEYS``; see ``tasks.single_mesh_scores``.
    """
    from hand_lib.data.synthetic.hands import SyntheticHands
    from hand_lib.training.setup import single_mesh_scores

    batches = [np.arange(count)[at : at + 250] for at in range(0, count, 250)]
    training = SyntheticHands(32, seed=0, count=count)
    known = [training.render_batch(batch) for batch in batches]
    hands = {key: np.concatenate([k[key] for k in known]) for key in ("vertices", "joints")}
    truth = _truth(test)
    scores = single_mesh_scores(hands, truth)
    names = {"root_mpvpe_mm": "vertices_mm", "root_mpjpe_mm": "joints_mm"}
    names |= {"pa_mpvpe_mm": "vertices_pa_mm", "pa_mpjpe_mm": "joints_pa_mm"}
    return {key: scores[name] for key, name in names.items()}


def _truth(test) -> dict:
    """Labels of a test set as one batch of tensors; pictures as small as they come."""
    import torch

    batches = list(test.batches(32))
    keys = ("image", "vertices", "joints", "has_vertices", "has_joints", "joints_2d", "valid_2d")
    return {key: torch.from_numpy(np.concatenate([b[key] for b in batches])) for key in keys}


def comparison(runs, count: int = 0, progress: bool = True) -> dict[str, dict]:
    """Scores in mm on ``synthetic-test`` of "template only" and of each run.

    runs: name -> folder.   count: the first so many hands; 0: all 2,000.
    """
    from hand_lib.evaluation.runs import evaluate_run, open_test_set

    test = open_test_set("synthetic-test", count)
    rows = {"template only": template_row(test)}
    for name, folder in runs.items():
        rows[name] = evaluate_run(folder, test, progress=progress).scores.millimetres
    return rows


def table(rows: dict[str, dict]) -> str:
    """The closing table as text: one line per row, errors in mm, and the share below the first."""
    width = max(len(name) for name in rows) + 2
    lines = [" " * width + "".join(f"{head:>13}" for head in TABLE_KEYS)]
    base = next(iter(rows.values()))
    for name, scores in rows.items():
        cells = ""
        for key in TABLE_KEYS.values():
            below = "" if scores is base else f" ({100 * (scores[key] / base[key] - 1):+.0f} %)"
            cells += f"{scores[key]:.1f}{below}".rjust(13)
        lines.append(name.ljust(width) + cells)
    return "\n".join(lines)


def train_parameters(run: str, preset: str = "small") -> dict | None:
    """Parameters for notebook 03 so that ``runs/<run>`` ends up finished; None when it is.

    A run that was interrupted is resumed.
    """
    folder = ROOT / "runs" / run
    if not (folder / "config.json").is_file():
        return {"preset": preset, "run": run}
    report = folder / "metrics.json"
    status = json.loads(report.read_text()).get("status") if report.is_file() else ""
    if status == "finished" and (folder / "model.safetensors").is_file():
        return None
    return {"resume": run, "run": run}


def run_all(run: str = "small", say=None) -> dict[str, dict]:
    """Notebooks 01 to 05 headless, then the comparison; what is there already is kept.

    run: name of the training run below ``runs/``.   returns the rows of the closing table.
    """
    from hand_lib.launch import launch

    say = say or (lambda line: sys.stderr.write(line + "\n"))
    started = time.perf_counter()
    executed = []
    for number, name in enumerate(NOTEBOOKS, start=1):
        parameters = {}
        if name == "03_train":
            parameters = train_parameters(run)
        elif name == "04_evaluation":
            parameters = {"runs": f"runs/{run}"}
        elif name == "05_demo" and not (ROOT / "runs" / "reference").is_dir():
            parameters = {"run": f"runs/{run}"}
        say(f"[{number}/{len(NOTEBOOKS)}] {name}, {time.perf_counter() - started:.0f} s so far")
        if parameters is None:
            say(f"    runs/{run} is finished and kept; delete that folder to train again")
            executed.append(ROOT / "runs" / run / f"{name}.ipynb")
            continue
        output = ROOT / "runs" / (run if name == "03_train" else "notebooks") / f"{name}.ipynb"
        executed.append(launch(name, output, parameters, log=sys.stderr))
    runs = {"this run": ROOT / "runs" / run}
    if (ROOT / "runs" / "reference" / "model.safetensors").is_file():
        runs["reference model"] = ROOT / "runs" / "reference"
    say("scoring on synthetic-test ...")
    rows = comparison(runs)
    say("")
    say("errors in mm on 2,000 synthetic pictures that no training saw (PA: after alignment);")
    say(f"joints with the fingertips of {OWN_FINGERTIPS}")
    say(table(rows))
    say("")
    say("executed notebooks, with all pictures and curves in them (to open them: make lab):")
    for path in executed:
        say(f"    {path.relative_to(ROOT)}")
    say(_elapsed(started))
    return rows


PUBLISHED = ("config.json", "model.safetensors", "metrics.json", "log.csv", "provenance.json")
"""What a run leaves in ``runs/reference`` when it becomes the model that ships."""


def overview(run) -> Image.Image:
    """One picture of it all, for the README: gestures, synthetic photographs, predictions.

    run: folder of a finished run.   returns a PIL image, 1200 pixels wide.
    """
    import torch

    from hand_lib.hand.model import HandModel
    from hand_lib.hand.poses import GESTURES
    from hand_lib.hand.skin import skin_colours
    from hand_lib.inference.predictor import Predictor
    from hand_lib.viewers import figures as viewers

    model = HandModel.builtin()
    names = ("spread", "point", "victory", "ok", "fist", "thumbs_up", "grasp", "call_me")
    pose = torch.tensor(np.stack([GESTURES[n] for n in names]), dtype=torch.float32)
    posed = viewers.stand_up(model(pose).vertices.numpy())
    faces, tones = model.faces.numpy(), np.linspace(0.05, 0.95, len(names))
    hands = [
        viewers.Hand(v, faces, colour=skin_colours(tone=t, seed=n))
        for n, (v, t) in enumerate(zip(posed, tones, strict=True))
    ]
    rows = [np.asarray(viewers.still(hands, size=148, columns=8))]
    photos = list(example_pictures(8).values())
    found = Predictor.load(run).predict_many(photos)
    drawn = [
        viewers.overlay(photo, hand.camera_vertices, hand.faces, hand.intrinsics)
        for photo, (hand,) in zip(photos, found, strict=True)
    ]
    for pictures in (photos, drawn):
        small = [viewers.fit_square(p, 146) for p in pictures]
        rows.append(np.asarray(viewers.image_grid(small, columns=8, gap=6)))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(r, ((0, 6), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return Image.fromarray(np.concatenate(rows))


def publish(run) -> Path:
    """Make a finished run the reference model that ships: ``runs/reference``.

    run: folder of the run.   returns the new folder, with weights, config, scores, curves,
    ``confidence.json`` and ``overview.jpg``. What was there is replaced.
    """
    from hand_lib.inference.confidence import calibrate, save_calibration
    from hand_lib.inference.predictor import Predictor
    from hand_lib.training.lineage import HISTORY_FILE

    run, target = ensure_run(str(run)), ROOT / "runs" / "reference"
    target.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        shutil.copyfile(run / name, target / name)
    for name in ("confidence.json", HISTORY_FILE):
        (target / name).unlink(missing_ok=True)
    if (run / HISTORY_FILE).exists():
        shutil.copyfile(run / HISTORY_FILE, target / HISTORY_FILE)
    save_calibration(target, calibrate(Predictor.load(target)))
    overview(target).save(target / "overview.jpg", quality=90, optimize=True)
    return target


def _elapsed(started) -> str:
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    return f"({minutes} min {seconds:02d} s)"


def main(arguments=None) -> int:
    """The command line of ``make run``."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.workbook", description=__doc__)
    parser.add_argument("--run", default="small", help="name of the run below runs/")
    parser.add_argument("--publish", metavar="RUN", help="make this finished run runs/reference")
    options = parser.parse_args(arguments)
    from papermill.exceptions import PapermillExecutionError

    try:
        if options.publish:
            sys.stdout.write(f"{publish(options.publish).relative_to(ROOT)}\n")
        else:
            run_all(options.run)
    except PapermillExecutionError as error:
        sys.stderr.write(f"\nstopped: {error.ename}: {error.evalue}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        return 130
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
