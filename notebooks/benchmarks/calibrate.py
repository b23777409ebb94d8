"""How sure a run is of what it says: fitted on synthetic hands and on backgrounds without one.

    python -m benchmarks.calibrate runs/reference

in the folder ``notebooks``, a minute or two; it writes ``confidence.json`` beside the weights for
``Predictor``. Two questions have a logistic regression each: is there a hand, and was it read well?
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from hand_lib.data.synthetic.backgrounds import background_bank
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.files import write_text
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import WRONG, Calibration, Logistic
from hand_lib.training.run_folder import find_run

OVERLOOKED = 0.02
"""Share of synthetic hands that the search of a picture may take for nothing."""

RIGHTLY = 0.6
"""So many of the drawn hands called doubtful shall be read badly. Photographs are harder than
drawings: about half of those doubted there is what this leaves."""


def fit(yes, no) -> tuple[tuple[float, ...], float]:
    """Weights of a logistic regression by Newton's method, with a weak pull to zero.

    yes, no: (N, M) evidence for both answers.   returns weights (M,) and offset.
    """
    x = np.concatenate([yes, no])
    middle, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x = np.column_stack([(x - middle) / spread, np.ones(len(x))])
    truth = np.concatenate([np.ones(len(yes)), np.zeros(len(no))])
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        slope = x.T @ (truth - chance) - 0.01 * weights
        bend = (x * (chance * (1 - chance))[:, None]).T @ x + 0.01 * np.eye(len(weights))
        weights = weights + np.linalg.solve(bend, slope)
    *found, offset = weights
    found = found / spread
    return tuple(found.tolist()), float(offset - found @ middle)


def empty_crops(count: int, size: int, seed: int) -> np.ndarray:
    """Pieces of painted backgrounds without a hand, (count, size, size, 3) uint8."""
    tiles, rng = background_bank(96, 256, seed)[0], np.random.default_rng([seed, 5])
    crops = np.empty((count, size, size, 3), np.uint8)
    for crop in crops:
        tile, side = tiles[rng.integers(len(tiles))], int(rng.integers(64, 257))
        x, y = rng.integers(0, 257 - side, 2)
        crop[:] = cv2.resize(
            tile[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA
        )
    return crops


def calibrate(predictor, count: int = 800, seed: int = 4711) -> Calibration:
    """Fit on ``count`` synthetic hands and half as many backgrounds, measure on as many others.

    predictor: a ``Predictor``.   seed: of the pictures, which no training draws.
    """
    predictor.calibration = None
    for _ in range(2):  # what is doubted is read again, as only a calibration says
        looks = (look(predictor, count, seed + more) for more in (0, 1))
        predictor.calibration = from_evidence(*looks)
    return predictor.calibration


def look(predictor, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence (N, M) on synthetic hands, which of them are read badly (N,), and on backgrounds."""
    hands = SyntheticHands(predictor.image_size, seed, count, split="calibration")
    batch = hands.fetch_batch(np.arange(count))
    found = predictor.read_crops(batch["image"].transpose(0, 2, 3, 1))
    errors = np.linalg.norm(found["joints_2d"] - batch["joints_2d"], axis=2).mean(axis=1)
    wrong = errors > WRONG * np.ptp(batch["joints_2d"], axis=1).max(axis=1)
    nothing = predictor.read_crops(empty_crops(count // 2, predictor.image_size, seed))
    return found["evidence"], wrong, nothing["evidence"]


def from_evidence(fitted, held_out) -> Calibration:
    """The calibration that some pictures lead to, its rates on others.   Both as by ``look``."""
    signs, wrong, nothing = fitted
    hand = Logistic(*fit(signs[:, :4], nothing[:, :4]), 0.0)
    hand = hand._replace(threshold=float(np.quantile(hand.chance(signs), OVERLOOKED)))
    well_read = Logistic(*fit(signs[~wrong], signs[wrong]), 0.0)
    well_read = well_read._replace(threshold=doubt_below(well_read.chance(signs), wrong))
    signs, wrong, nothing = held_out
    doubts = well_read.chance(signs) < well_read.threshold
    return Calibration(
        hand,
        well_read,
        doubted=float(doubts.mean()),
        doubts_wrong=float(wrong[doubts].mean()) if doubts.any() else 1.0,
        others_wrong=float(wrong[~doubts].mean()) if not doubts.all() else 0.0,
        caught=float((well_read.chance(nothing) < well_read.threshold).mean()),
        count=len(signs),
    )


def doubt_below(confidence, wrong) -> float:
    """The confidence below which hands are to be doubted: the highest of which ``RIGHTLY`` holds.

    confidence, wrong: (N,).   Where it never holds, the lowest confidence of all.
    """
    order = np.argsort(confidence)
    share = np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)
    last = max(np.flatnonzero(share >= RIGHTLY), default=0)
    return float(confidence[order[last : last + 2]].mean())


def save_calibration(run_folder, calibration: Calibration) -> Path:
    """Write ``confidence.json`` into a run folder.   returns its path."""
    path = Path(run_folder) / "confidence.json"
    numbers = asdict(calibration)
    for name in ("hand", "well_read"):
        numbers[name] = getattr(calibration, name)._asdict()
    numbers = json.loads(json.dumps(numbers), parse_float=lambda text: round(float(text), 5))
    write_text(path, json.dumps(numbers, indent=1) + "\n")
    return path


def main(arguments=None) -> int:
    """``python -m benchmarks.calibrate RUN``; exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("run", help="name or folder of a run")
    parser.add_argument("--count", type=int, default=800, help="hands of each half")
    options = parser.parse_args(arguments)
    try:
        run = find_run(options.run)
        result = calibrate(Predictor.load(run), options.count)
        path = save_calibration(run, result)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(
        f"{path}: of {result.count} held-out hands {result.doubted:.0%} are doubtful, and "
        f"{result.doubts_wrong:.0%} of these are off by more than {WRONG} of their size, of the "
        f"others {result.others_wrong:.0%}; {result.caught:.0%} of the backgrounds are doubtful\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
