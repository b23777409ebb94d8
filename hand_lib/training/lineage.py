"""How far a run has come: error against pictures seen, through the runs that it began with.

A run that starts from another's weights (``start_from``) keeps that one's curve in ``history.csv``,
which holds the curve of the one before it in turn.

curve = learning_curve("runs/reference")
curve[-1]["pictures"]                                # 2460320
trend(curve, "vertices_mm").pictures_for(14.0)       # some 20 million, if the trend goes on
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hand_lib.files import write_text
from hand_lib.training import checkpoints
from hand_lib.training.config import config_from_json

HISTORY_FILE = "history.csv"
SCORES = ("vertices_mm", "vertices_pa_mm", "joints_2d_percent")
_WHOLE = ("run", "pictures", "view_size")
COLUMNS = ("run", "pictures", "minutes", "view_size", *SCORES)
"""Of a curve: number of the run, pictures and minutes since the first began, pixels that the
encoder sees, and the scores on the validation set of that run."""


class Trend(NamedTuple):
    """error = scale * pictures ** -exponent, through the ends of runs."""

    scale: float
    exponent: float

    def pictures_for(self, error: float) -> float:
        """Pictures after which the trend reaches ``error``; infinite where it does not fall."""
        if self.exponent <= 0:
            return float("inf")
        return float((self.scale / error) ** (1 / self.exponent))


def learning_curve(run_folder) -> list[dict]:
    """Validations of a run, after those of the runs that it began with; rows of ``COLUMNS``.

    The scores of different runs are of their own validation sets: where the hand or the pictures
    were changed between two runs, the curve jumps.   raises FileNotFoundError without a config.
    """
    folder = Path(run_folder)
    config = config_from_json((folder / "config.json").read_text(), folder / "config.json")
    before = read_history(folder)
    number, pictures, minutes = 0, 0, 0.0
    if before:
        number, pictures, minutes = (before[-1][name] for name in ("run", "pictures", "minutes"))
        number += 1
    rows = []
    for line in checkpoints.read_log(folder):
        if line.get("val_vertices_mm") is None:
            continue
        row = {"run": number, "pictures": pictures + line["step"] * config.batch_size}
        row["minutes"] = round(minutes + line["seconds"] / 60, 1)
        row["view_size"] = config.view_size or config.image_size
        rows.append(row | {name: line.get(f"val_{name}") for name in SCORES})
    return before + rows


def keep_history(folder, start_from: str) -> None:
    """Write the curve of the run ``start_from`` into the folder of the run that begins with it.

    Nothing is written where that run left no curve.
    """
    if not start_from:
        return
    before = checkpoints.run_folder(start_from)
    rows = learning_curve(before) if (before / "config.json").is_file() else []
    if rows:
        out = io.StringIO()
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(Path(folder) / HISTORY_FILE, out.getvalue())


def read_history(folder) -> list[dict]:
    """Rows of ``history.csv``; none where a run began from nothing.

    raises ValueError, naming file and line, where it holds something else than a curve.
    """
    path = Path(folder) / HISTORY_FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}")
        return [_numbers(row, f"{path}, line {table.line_num}") for row in table]


def _numbers(row: dict, place: str) -> dict:
    """Cells as numbers, None where a score is empty."""
    try:
        return {
            name: int(cell) if name in _WHOLE else float(cell) if cell else None
            for name, cell in row.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: expected {len(COLUMNS)} numbers ({error})") from error


def run_ends(curve) -> list[dict]:
    """The last row of each run in a curve: there a finished run's learning rate is at rest."""
    return [row for row, after in zip(curve, [*curve[1:], None], strict=True)
            if after is None or after["run"] != row["run"]]  # fmt: skip


def trend(curve, score: str) -> Trend | None:
    """Power law of ``score`` through the ends of the runs; None where there are fewer than two.

    It knows of nothing but the number of pictures: larger views or another hand go into it as if
    they were more training.
    """
    ends = [row for row in run_ends(curve) if row["pictures"] and row[score]]
    if len(ends) < 2:
        return None
    pictures, errors = (np.log([row[name] for row in ends]) for name in ("pictures", score))
    slope, offset = np.polyfit(pictures, errors, 1)
    return Trend(float(np.exp(offset)), float(-slope))
