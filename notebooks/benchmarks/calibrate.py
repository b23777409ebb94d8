"""Whether there is a hand at all: fits a run's confidence on synthetic hands and on backgrounds.

    python -m benchmarks.calibrate runs/reference

in the folder ``notebooks``; it writes ``confidence.json`` beside the weights for ``Predictor``.
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
from hand_lib.files import resolve, write_text
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import Calibration

FALSE_ALARMS = 0.05
"""Share of synthetic hands that the warning may hit by mistake; the threshold is set by it."""


def fit(hands, nothing) -> tuple[tuple[float, ...], float]:
    """Weights of a logistic regression by Newton's method, with a weak pull to zero.

    hands, nothing: (N, 4) by ``search.evidence``.   returns weights and offset.
    """
    x = np.concatenate([hands, nothing])
    middle, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x = np.column_stack([(x - middle) / spread, np.ones(len(x))])
    truth = np.concatenate([np.ones(len(hands)), np.zeros(len(nothing))])
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
    tiles, rng = background_bank(96, 256, seed), np.random.default_rng([seed, 5])
    crops = np.empty((count, size, size, 3), np.uint8)
    for crop in crops:
        tile, side = tiles[rng.integers(len(tiles))], int(rng.integers(64, 257))
        x, y = rng.integers(0, 257 - side, 2)
        crop[:] = cv2.resize(
            tile[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA
        )
    return crops


def calibrate(predictor, count: int = 600, seed: int = 4711) -> Calibration:
    """Fit on ``count`` synthetic hands and as many backgrounds, measure on as many others.

    predictor: a ``Predictor``.   seed: of the pictures, which no training draws.
    """

    def pictures(seed):
        hands = SyntheticHands(predictor.image_size, seed, count, split="calibration")
        images = hands.fetch_batch(np.arange(count))["image"].transpose(0, 2, 3, 1)
        empty = empty_crops(count, predictor.image_size, seed)
        return [predictor.predict_crops(crops)["evidence"] for crops in (images, empty)]

    (hands, nothing), (others, more) = pictures(seed), pictures(seed + 1)
    weights, offset = fit(hands, nothing)
    score = [x @ weights + offset for x in (hands, others, more)]
    limit = float(np.quantile(score[0], FALSE_ALARMS))
    return Calibration(
        weights,
        offset,
        threshold=float(1 / (1 + np.exp(-limit))),
        false_alarms=float((score[1] < limit).mean()),
        caught=float((score[2] < limit).mean()),
        count=count,
    )


def save_calibration(run_folder, calibration: Calibration) -> Path:
    """Write ``confidence.json`` into a run folder.   returns its path."""
    path = Path(run_folder) / "confidence.json"
    numbers = {
        name: np.round(value, 5).tolist() if name != "count" else value
        for name, value in asdict(calibration).items()
    }
    write_text(path, json.dumps(numbers, indent=1) + "\n")
    return path


def main(arguments=None) -> int:
    """``python -m benchmarks.calibrate RUN``; exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("run", help="folder of a run: config.json and model.safetensors")
    parser.add_argument("--count", type=int, default=600, help="hands and backgrounds of each half")
    options = parser.parse_args(arguments)
    try:
        run = resolve(options.run)
        result = calibrate(Predictor.load(run), options.count)
        path = save_calibration(run, result)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(
        f"{path}: below {result.threshold:.2f} is doubtful; that is {100 * result.false_alarms:.1f}"
        f" % of {result.count} held-out hands and {100 * result.caught:.1f} % of as many"
        " backgrounds without one\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
