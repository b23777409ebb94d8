"""Is there a hand at all? What a prediction itself gives away, and what that is worth.

The network answers for any picture. Two things betray an answer about nothing: the joints read
from the image and those of the mesh fall apart, and both huddle in the middle of the crop. A
logistic regression on these two, fitted on synthetic hands and on backgrounds without one, gives
the confidence; ``python -m hand_lib.inference.confidence runs/reference`` fits it for a run and
writes ``confidence.json`` beside the weights.

>>> predictor.predict("wall.jpg")[0].doubtful
True
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

FILE = "confidence.json"
FALSE_ALARMS = 0.05
"""Share of synthetic hands that the warning may hit by mistake; the threshold is set by it."""


@dataclass(frozen=True)
class Calibration:
    """A run's confidence and what it is worth, on hands and backgrounds that no fit has seen."""

    disagreement: float  # weight of the logarithm of what the joints disagree by
    extent: float  # weight of the logarithm of the hand's extent in the crop
    offset: float
    threshold: float  # below this confidence a prediction is called doubtful
    false_alarms: float  # share of held-out synthetic hands called doubtful
    caught: float  # share of held-out backgrounds without a hand called doubtful
    count: int  # pictures of each kind that these two shares were measured on


def evidence(joints_2d, direct=None) -> np.ndarray:
    """The two numbers that confidence rests on.

    joints_2d: (B, 21, 2) crop units, joints of the mesh.   direct: (B, 21, 2) crop units, joints
    read from the image; None for networks that read none.
    returns (B, 2): log of the mean distance between the two over the hand's extent, log of the
    extent, the side of the joints' bounding square in crop units.
    """
    joints_2d = np.asarray(joints_2d, float)
    extent = np.maximum(np.ptp(joints_2d, axis=1).max(axis=1), 1e-3)
    gap = np.zeros(len(joints_2d))
    if direct is not None:
        apart = np.linalg.norm(np.asarray(direct, float) - joints_2d, axis=-1).mean(axis=1)
        gap = np.log(np.maximum(apart / extent, 1e-3))
    return np.stack([gap, np.log(extent)], axis=1)


def confidence(calibration: Calibration, joints_2d, direct=None) -> np.ndarray:
    """How sure it is that there is a hand, (B,) from 0 to 1; arguments as in ``evidence``."""
    gap, extent = evidence(joints_2d, direct).T
    sum_ = calibration.disagreement * gap + calibration.extent * extent + calibration.offset
    return 1 / (1 + np.exp(-np.clip(sum_, -50, 50)))


def fit(hands, nothing) -> tuple[float, float, float]:
    """Weights of a logistic regression by Newton's method, with a weak pull to zero.

    hands, nothing: (N, 2) of ``evidence``.   returns disagreement, extent, offset.
    """
    x = np.concatenate([hands, nothing])
    middle, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x = np.column_stack([(x - middle) / spread, np.ones(len(x))])
    truth = np.concatenate([np.ones(len(hands)), np.zeros(len(nothing))])
    weights = np.zeros(3)
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        slope = x.T @ (truth - chance) - 0.01 * weights
        bend = (x * (chance * (1 - chance))[:, None]).T @ x + 0.01 * np.eye(3)
        weights = weights + np.linalg.solve(bend, slope)
    gap, extent = weights[:2] / spread
    return float(gap), float(extent), float(weights[2] - weights[:2] @ (middle / spread))


def empty_crops(count: int, size: int, seed: int) -> np.ndarray:
    """Pieces of painted backgrounds without a hand, (count, size, size, 3) uint8."""
    import cv2

    from hand_lib.data.synthetic.backgrounds import background_bank

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

    predictor: ``inference.Predictor``.   seed: of the pictures, which no training draws.
    """
    from hand_lib.data.synthetic.hands import SyntheticHands

    def seen(crops):
        parts = [predictor.predict_crops(crops[at : at + 50]) for at in range(0, len(crops), 50)]
        direct = parts[0].get("joints_2d_direct") is not None
        return evidence(
            np.concatenate([p["joints_2d"] for p in parts]),
            np.concatenate([p["joints_2d_direct"] for p in parts]) if direct else None,
        )

    def pictures(seed):
        hands = SyntheticHands(predictor.image_size, seed, count, split="calibration")
        images = hands.render_batch(np.arange(count))["image"].transpose(0, 2, 3, 1)
        return seen(images), seen(empty_crops(count, predictor.image_size, seed))

    (hands, nothing), (others, more) = pictures(seed), pictures(seed + 1)
    weights = fit(hands, nothing)
    score = [x @ weights[:2] + weights[2] for x in (hands, others, more)]
    limit = float(np.quantile(score[0], FALSE_ALARMS))
    return Calibration(
        *weights,
        threshold=float(1 / (1 + np.exp(-limit))),
        false_alarms=float((score[1] < limit).mean()),
        caught=float((score[2] < limit).mean()),
        count=count,
    )


def save_calibration(run_folder, calibration: Calibration) -> Path:
    """Write ``confidence.json`` into a run folder.   returns its path."""
    from hand_lib.files import write_text

    path = Path(run_folder) / FILE
    numbers = {
        name: value if isinstance(value, int) else round(value, 5)
        for name, value in asdict(calibration).items()
    }
    write_text(path, json.dumps(numbers, indent=1) + "\n")
    return path


def load_calibration(run_folder) -> Calibration | None:
    """The calibration of a run, None where nobody made one; ValueError for a damaged one."""
    path = Path(run_folder) / FILE
    if not path.is_file():
        return None
    names = {field.name for field in fields(Calibration)}
    try:
        numbers = json.loads(path.read_text())
        if set(numbers) != names or not np.isfinite(list(numbers.values())).all():
            raise ValueError(f"expected finite numbers {sorted(names)}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); make it anew with "
            f"python -m hand_lib.inference.confidence {run_folder}"
        ) from None
    return Calibration(**numbers)


def main(arguments=None) -> int:
    """``python -m hand_lib.inference.confidence RUN``; exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.inference.confidence", description=__doc__
    )
    parser.add_argument("run", help="folder of a run: config.json and model.safetensors")
    parser.add_argument("--count", type=int, default=600, help="hands and backgrounds of each half")
    options = parser.parse_args(arguments)
    from hand_lib.inference.predictor import Predictor

    try:
        result = calibrate(Predictor.load(options.run), options.count)
        path = save_calibration(options.run, result)
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
