"""What scoring found, as one object, as text and as files."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class ScoreReport:
    """What was measured and what was done to the predictions before; ``str(report)`` says it."""

    official: dict[str, float]  # FreiHAND's keys and units (cm); alignment may mirror
    proper: dict[str, float]  # the same keys with rotations only
    millimetres: dict[str, float]  # PA and the other means in mm, AUC and F-scores of rotation only
    joint_errors: dict[str, np.ndarray]  # alignment -> (N, 21) metres
    vertex_errors: dict[str, np.ndarray]  # alignment -> (N, V) metres; empty without vertices
    f_scores: dict[str, np.ndarray]  # alignment -> (N, 2), F@5 and F@15; empty without vertices
    mirrored: np.ndarray  # (M,) indices where the two alignments differ
    missing: np.ndarray  # indices of hands with NaN or infinity, scored as zeros
    collapsed: np.ndarray  # indices of hands whose joints all coincide
    notes: tuple[str, ...]  # sentences: all that a reader should know
    fingertips: str = "as their makers took them"  # which tables the joints' fingertips are from

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(scores: ScoreReport):
    hands = len(scores.joint_errors["none"])
    vertices = scores.vertex_errors["none"].shape[1] if scores.vertex_errors else 0
    yield f"{hands} hands, 21 joints" + (f", {vertices} vertices" if vertices else "")
    yield f"fingertips: {scores.fingertips}"
    yield from (f"note: {note}" for note in scores.notes)
    yield ""
    yield "FreiHAND's keys (means in cm)         mirroring allowed = official      rotation only"
    for key, value in scores.official.items():
        yield f"  {key:<34} {value:>26.6f} {scores.proper[key]:>18.6f}"
    yield ""
    yield "mean error in mm                                      joints        vertices"
    words = {
        "none": "as given, camera space",
        "root": "wrists brought together",
        "scale": "wrists brought together, best scale",
        "rotation": "PA: rotation only (METRO, HaMeR, WiLoR)",
        "reflection": "PA: mirroring allowed (FreiHAND's scorer)",
    }
    for kind, word in words.items():
        values = [1000 * scores.joint_errors[kind].mean()]
        values += [1000 * scores.vertex_errors[kind].mean()] if vertices else []
        yield f"  {word:<42}" + "".join(f"{value:>16.3f}" for value in values)


def write_scores(folder, scores: ScoreReport) -> None:
    """``scores.txt`` as the official script writes it, and ``scores.json`` with everything."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {value:f}\n" for key, value in scores.official.items()]
    (folder / "scores.txt").write_text("".join(lines))
    everything = {
        "official, alignment may mirror": scores.official,
        "rotation only": scores.proper,
        "millimetres": scores.millimetres,
        "mirrored": scores.mirrored.tolist(),
        "missing": scores.missing.tolist(),
        "collapsed": scores.collapsed.tolist(),
        "notes": list(scores.notes),
        "fingertips": scores.fingertips,
    }
    (folder / "scores.json").write_text(json.dumps(everything, indent=1))
