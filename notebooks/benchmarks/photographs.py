"""Errors on one's own annotated photographs: the network alone, and held by key points.

    python -m benchmarks.photographs photos/annotated.json --run reference --detect

The JSON is a list with an entry per hand: ``file`` (beside it, or in the folder of its own name
without the ending), ``side``, ``joints_2d`` (21 pairs of pixels, null where unknown) and, where
known, ``joints_3d`` (21, 3) metres, and ``source``, a name to group
by. Nothing is kept of the photographs.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.fitting import joint_errors_mm
from hand_lib.files import read_json
from hand_lib.inference.predictor import Predictor
from hand_lib.render.images import read_image

MARGIN = 1.3
"""Side of a hand's box over that of the square around its labelled joints."""

LOST = 0.5
"""A 2-D error as large as this share of the hand counts as not found."""


def score_photographs(predictor, labels, keypoints=None, **options) -> dict:
    """2-D errors over the hand's size, and joint errors in mm after alignment.

    labels: path of the JSON.   keypoints: None, "detect", or (21, 3) arrays, one an entry or None.
    options: of ``Predictor.predict``, such as ``refined=False``.
    returns source -> {"flat": (N,), "given": (N,), "aligned_mm": (M,)}: 2-D errors of the answer
    and of the key points it was held by, and the 3-D one of hands with 3-D truth.
    """
    labels, found = Path(labels), defaultdict(lambda: {"flat": [], "given": [], "aligned_mm": []})
    folders = labels.parent, labels.with_suffix("")
    for n, entry in enumerate(read_json(labels)):
        places = [folder / entry["file"] for folder in folders]
        image = read_image(next((path for path in places if path.is_file()), places[0]))
        true = np.array([pair or (np.nan, np.nan) for pair in entry["joints_2d"]], float)
        low, high = np.nanmin(true, 0), np.nanmax(true, 0)
        size, middle, edge = (high - low).max(), (low + high) / 2, np.array(image.shape[1::-1]) - 1
        half = MARGIN * size / 2
        box = (*np.clip(middle - half, 0, edge), *np.clip(middle + half, 0, edge))
        points = keypoints
        if not (keypoints is None or isinstance(keypoints, str)):
            points = None if keypoints[n] is None else np.asarray(keypoints[n])[None]
        hand = predictor.predict(image, [box], [entry["side"]], keypoints=points, **options)[0]
        row = found[entry.get("source", "all")]
        held = hand.keypoints if hand.keypoints is not None else np.zeros((21, 3))
        for name, flat in (("flat", hand.joints_2d), ("given", held[:, :2])):
            apart = np.nanmean(np.linalg.norm(flat - true, axis=1)) / size
            row[name].append(min(apart, LOST) if name == "flat" or held[:, 2].any() else LOST)
        if entry.get("joints_3d") is not None:
            row["aligned_mm"].append(
                joint_errors_mm(hand.joints[None], np.array(entry["joints_3d"], float)[None])[0]
            )
    return dict(found)


def table(found: dict) -> str:
    """The result of ``score_photographs`` as text."""
    names = ("flat", "given", "aligned_mm")
    everything = {name: [x for row in found.values() for x in row[name]] for name in names}
    lines = [f"{'source':24}{'hands':>6}{'2-D mean':>10}{'median':>8}{'PA mean':>9}{'median':>8}"]
    held = bool(min(everything["given"]) < LOST)
    lines[0] += "   key points' own mean, median" * held
    for name, row in [*sorted(found.items()), ("all hands", everything)]:
        flat, aligned = row["flat"], row["aligned_mm"] or [np.nan]
        lines.append(
            f"{name:24}{len(flat):6}{np.mean(flat):10.3f}{np.median(flat):8.3f}"
            f"{np.mean(aligned):9.1f}{np.median(aligned):8.1f}"
        )
        lines[-1] += f"{np.mean(row['given']):22.3f}{np.median(row['given']):8.3f}" * held
    return "\n".join(lines)


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("labels", help="the JSON of annotated photographs")
    parser.add_argument("--run", default="reference", help="name or folder of a run")
    parser.add_argument("--detect", action="store_true", help="also with MediaPipe's key points")
    given = parser.parse_args(arguments)
    predictor = Predictor.load(given.run)
    ways = {"network alone": {"refined": False}, "fitted to its own 2-D joints": {}}
    if given.detect:
        ways["held by MediaPipe's key points"] = {"keypoints": "detect"}
    for name, options in ways.items():
        sys.stdout.write(
            f"{name}\n{table(score_photographs(predictor, given.labels, **options))}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
