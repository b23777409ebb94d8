"""Whether there is a hand, and where: the confidence of an answer, and the search of a picture."""

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from hand_lib.files import read_json


@dataclass(frozen=True)
class Calibration:
    """A logistic regression for "is there a hand?", kept in a run's ``confidence.json``.

    The network answers for any picture. Two things betray an answer about nothing: the joints read
    from the image and those of the mesh fall apart, and both huddle in the middle of the crop.
    Rates were measured on hands and backgrounds that no fit had seen; ``calibrate`` beside the
    benchmarks fits it.
    """

    disagreement: float  # weight of the logarithm of what the joints disagree by
    extent: float  # weight of the logarithm of the hand's extent in the crop
    offset: float
    threshold: float  # below this confidence a prediction is called doubtful
    false_alarms: float  # share of held-out synthetic hands called doubtful
    caught: float  # share of held-out backgrounds without a hand called doubtful
    count: int  # pictures of each kind that these two shares were measured on

    def confidence(self, joints_2d, direct=None) -> np.ndarray:
        """How sure it is that there is a hand, (B,) 0 to 1; see ``confidence_features``."""
        gap, extent = confidence_features(joints_2d, direct).T
        score = self.disagreement * gap + self.extent * extent + self.offset
        return 1 / (1 + np.exp(-np.clip(score, -50, 50)))


def confidence_features(joints_2d, direct=None) -> np.ndarray:
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


def load_calibration(run_folder) -> Calibration | None:
    """The calibration of a run, None where nobody made one; ValueError for a damaged one."""
    path, names = Path(run_folder) / "confidence.json", [f.name for f in fields(Calibration)]
    numbers = read_json(path, optional=True)
    if numbers is None:
        return None
    try:
        found = Calibration(**numbers)
        if not np.isfinite([getattr(found, name) for name in names]).all():
            raise TypeError("a number is not finite")
    except TypeError as error:
        raise ValueError(
            f"{path} is damaged ({error}): expected finite numbers {names}; make it anew with "
            f"python -m benchmarks.calibrate {run_folder}, in the folder notebooks"
        ) from None
    return found


def cut(picture, affine, size: int) -> np.ndarray:
    """The crop (size, size, 3) of a picture, averaged where it shrinks the picture."""
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    while shrink >= 2:  # halve first: one bilinear sample would skip pixels
        height, width = picture.shape[:2]
        half = (max(width // 2, 1), max(height // 2, 1))
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
        sx, sy = width / half[0], height / half[1]
        affine = affine @ np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1.0]])
        shrink /= 2
    return cv2.warpAffine(
        picture, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
