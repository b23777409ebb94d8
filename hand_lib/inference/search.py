"""Whether there is a hand, and where: the confidence of an answer, and the search of a picture.

The network answers for any picture. What betrays an answer about nothing is put together to a
confidence (``Calibration``). By it a whole photograph is searched: windows of several sizes are
laid over it, and the surest of them lead to boxes that are looked at twice more, as either side.

>>> find_hands(predictor, picture)          # a list of FoundHand, the surest first
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from pydantic import FiniteFloat, TypeAdapter
from torch import Tensor

from hand_lib.files import read_json
from hand_lib.network.coarse_to_fine import bilinear_sample, heatmap_spread
from hand_lib.network.model import Prediction
from hand_lib.render.camera import apply_affine, crop_affine, crop_to_pixels, invert_affine

BOX_MARGIN = 1.4
"""A crop's side over the longer side of a box drawn tightly around the hand."""

SIDES = ("right", "left")
ZOOMS = (1.0, 1.7, 2.8, 4.5)
"""The longer side of a picture over the sides of its windows, which overlap by half."""

SEARCHED_SIDE = 1024
"""Larger pictures are shrunk to so many pixels before they are searched."""

KEPT = (10, 6, 4)
"""So many boxes, those read best, are looked at again, each time where the last look saw a hand."""

STEADY = 0.4
"""The box of a hand that is looked at again is the same, by this share of the union at least."""

SMALLEST = 0.05
"""Smaller hands, over the picture's longer side, are not looked for."""

READ = 0.42
"""A hand that was looked for has to be read so well: confidence times steadiness of its box."""

MOST_HANDS, APART = 4, 0.3
"""At most so many are found; two boxes that share more are one hand."""


class FoundHand(NamedTuple):
    """Where the network sees a hand."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 pixels around the joints
    side: str  # "right" or "left"
    sureness: float  # 0 to 1


def find_hands(predictor, picture, sides=None) -> list[FoundHand]:
    """Hands of a picture, the surest first.

    predictor: a ``Predictor`` whose network reads joints from the image.   picture: (H, W, 3)
    uint8.   sides: "right" or "left" for each hand that is looked for; None: all, of either side.
    """
    size, scale = np.array(picture.shape[1::-1]), 1.0
    if size.max() > SEARCHED_SIDE:
        small = np.maximum(8, np.round(size * SEARCHED_SIDE / size.max()).astype(int))
        picture = cv2.resize(picture, small.tolist(), interpolation=cv2.INTER_AREA)
        scale = np.tile(size / small, 2)
    tried = tuple(dict.fromkeys(sides or SIDES))
    crops, affines = windows(picture, predictor.network.view_size or predictor.image_size)
    boxes, rank, _ = _look(predictor, crops, affines, n_crops=1)
    seen = []
    for count in KEPT:
        boxes = boxes[separate(boxes, rank, count)]
        places = np.repeat(boxes, len(tried), axis=0)
        mirrored = np.tile([side == "left" for side in tried], len(boxes))
        middle = (places[:, :2] + places[:, 2:]) / 2
        extent = np.maximum(BOX_MARGIN * (places[:, 2:] - places[:, :2]).max(axis=1), 16.0)
        affines = crop_affine(middle, extent, predictor.image_size, mirror=mirrored)
        crops = np.stack([cut(picture, affine, predictor.image_size) for affine in affines])
        found, sure, rank = _look(predictor, crops, affines)
        steady = overlaps(found, places)
        middle = (found[:, :2] + found[:, 2:]) / 2
        extent = (found[:, 2:] - found[:, :2]).max(axis=1)
        there = (middle < picture.shape[1::-1]).all(axis=1) & (found[:, 2:] > 0).all(axis=1)
        there &= extent > SMALLEST * max(picture.shape)
        sure, rank, read = sure * there, rank * there, rank * steady * there
        rows = np.arange(len(boxes)) * len(tried)
        rows += read.reshape(len(boxes), -1).argmax(axis=1)  # the side that is read better
        boxes, rank, steady = found[rows], rank[rows], steady[rows]
        seen.append((boxes, sure[rows] * (steady > STEADY), read[rows], mirrored[rows].astype(int)))
    boxes, sure, read, side = (np.concatenate(part) for part in zip(*seen, strict=True))
    known = predictor.calibration
    likely = (sure > known.hand.threshold) & (read > READ) if known else np.ones(len(boxes), bool)
    rows = [row for row in separate(boxes, read * likely, MOST_HANDS, nested=True) if likely[row]]
    if known is None:
        rows = rows[:1]
    elif sides is None:  # nobody says that there is a second one: it has to be read well
        good = known.well_read.threshold / 2
        rows = [row for row in rows if row == rows[0] or read[row] > good]
    hands = [
        FoundHand(tuple((scale * (boxes[row] + 0.5) - 0.5).tolist()), SIDES[side[row]], sure[row])
        for row in rows
    ]
    if sides is None:
        return hands
    named = {side: [hand for hand in hands if hand.side == side] for side in tried}
    return [named[side].pop(0) for side in sides if named[side]]


def windows(picture, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of several sizes all over a picture, a little beyond its border too.

    returns crops (N, size, size, 3) and their affines (N, 2, 3), picture -> crop.
    """
    height, width = picture.shape[:2]
    crops, affines = [], []
    for zoom in ZOOMS:
        factor = size * zoom / max(height, width)
        shape = (max(round(width * factor), 1), max(round(height * factor), 1))
        smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        level = cv2.resize(picture, shape, interpolation=smooth)
        level = cv2.copyMakeBorder(level, *[size // 2] * 4, cv2.BORDER_REPLICATE)
        columns, rows = (_starts(side, size) for side in shape)
        for y in rows:
            for x in columns:
                crops.append(level[y + size // 2 :, x + size // 2 :][:size, :size])
                middle = np.array([x + size / 2, y + size / 2]) / factor - 0.5
                affines.append(crop_affine(middle, size / factor, size))
    return np.stack(crops), np.stack(affines)


def _starts(length: int, size: int) -> np.ndarray:
    """Where windows begin along a side, at most half a one apart, a fifth outside at both ends."""
    first, last = -size // 5, length - size + size // 5
    if last <= first:
        return np.array([(length - size) // 2])
    return np.linspace(first, last, 1 + int(np.ceil(2 * (last - first) / size))).round().astype(int)


def _look(predictor, crops, affines, n_crops=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) of the joints that are read from crops, pixels, sureness and confidence (N,)."""
    out = predictor.predict_crops(crops, n_crops=n_crops)
    joints = crop_to_pixels(out["joints_2d"].astype(float), crops.shape[1])
    joints = apply_affine(invert_affine(affines), joints)
    boxes = np.concatenate([joints.min(axis=1), joints.max(axis=1)], axis=1)
    return boxes, out["sureness"], out["confidence"]


def overlaps(boxes, others, nested: bool = False) -> np.ndarray:
    """What boxes (..., 4) and others (..., 4) have in common, row by row, as a share.

    nested: of the smaller one, instead of their union.
    """
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    common, one, other = (
        np.prod(np.clip(b - a, 0, None), axis=-1)
        for a, b in ((low, high), np.split(boxes, 2, -1), np.split(others, 2, -1))
    )
    whole = np.minimum(one, other) if nested else one + other - common
    return common / np.maximum(whole, 1e-9)


def separate(boxes, sure, most: int, nested: bool = False) -> np.ndarray:
    """Numbers of the surest of boxes (N, 4), at most ``most``, that do not lie on a surer one.

    nested: boxes inside others lie on them as well.
    """
    kept: list[int] = []
    for row in np.argsort(-sure, kind="stable"):
        if len(kept) < most and (overlaps(boxes[kept], boxes[row], nested) <= APART).all():
            kept.append(int(row))
    return np.array(kept, int)


EVIDENCE = ("disagreement", "extent", "blur", "hand", "spread")
"""What confidence rests on, see ``evidence``; whether there is a hand, on the first four."""

WRONG = 0.15
"""A hand is read badly if its 2-D joints are off, on the mean, by more than this of its size."""


def evidence(prediction: Prediction) -> Tensor:
    """What speaks for a hand in each crop or against it, (B, 5): zero where a network is silent.

    disagreement: log of the mean distance, over the hand's extent, of the joints of the mesh from
    those read in the image.   extent: log of the side of the joints' bounding square, crop units.
    blur: mean over the joints' heat maps of their entropy, less that of an even map: log of the
    share of the crop where a joint may be.   hand: mean over the joints of the share of hand that
    the correspondence map shows there.   spread: log of ``heatmap_spread`` in the closest crop.
    """
    joints = prediction.joints_2d
    extent = (joints.amax(1) - joints.amin(1)).amax(1).clamp_min(1e-3)
    gap, blur, hand, spread = (torch.zeros_like(extent) for _ in range(4))
    if prediction.joints_2d_direct is not None:
        apart = (prediction.joints_2d_direct - joints).norm(dim=2).mean(1)
        gap = (apart / extent).clamp_min(1e-3).log()
    if prediction.heatmaps is not None:
        chance = prediction.heatmaps.flatten(2).log_softmax(2)
        blur = -(chance.exp() * chance).sum(2).mean(1) - math.log(chance.shape[2])
        spread = prediction.spread
        if spread is None:  # there is one crop
            spread = heatmap_spread(prediction.heatmaps, joints)
        spread = spread.clamp_min(1e-3).log()
    if prediction.correspondence is not None:
        share = prediction.correspondence[:, :1].sigmoid()
        hand = bilinear_sample(share, joints)[..., 0].mean(1)
    return torch.stack([gap, extent.log(), blur, hand, spread], 1)


class Logistic(NamedTuple):
    """A logistic regression on the first of ``EVIDENCE``."""

    weights: tuple[FiniteFloat, ...]
    offset: FiniteFloat
    threshold: FiniteFloat  # a smaller chance is a no

    def chance(self, signs) -> np.ndarray:
        """The chance of a yes, (B,) 0 to 1.   signs: (B, 5) by ``evidence``."""
        score = np.asarray(signs, float)[:, : len(self.weights)] @ self.weights + self.offset
        return 1 / (1 + np.exp(-np.clip(score, -50, 50)))


@dataclass(frozen=True)
class Calibration:
    """Two questions about an answer, and how well they are answered; a run's ``confidence.json``.

    Rates were measured on hands and backgrounds that no fit had seen; ``calibrate`` beside the
    benchmarks fits both.
    """

    hand: Logistic  # is there a hand? By it a picture is searched
    well_read: Logistic  # is there one, off by less than ``WRONG``? The confidence that is shown
    doubted: FiniteFloat  # share of held-out synthetic hands called doubtful
    doubts_wrong: FiniteFloat  # of these, the share that is read badly
    others_wrong: FiniteFloat  # the same of the others
    caught: FiniteFloat  # share of held-out backgrounds without a hand called doubtful
    count: int  # pictures of each kind that these shares were measured on


UNCALIBRATED = Calibration(
    Logistic((2.0, 5.0, -5.0, 12.0), -8.0, 0.9),
    Logistic((-0.5, 2.0, -1.5, 6.0, -4.3), -15.0, 0.7),
    1.0, 0.0, 0.0, 0.0, 0,
)  # fmt: skip
"""What boxes and sides are compared by in runs without a calibration."""


def load_calibration(run_folder) -> Calibration | None:
    """The calibration of a run, None where nobody made one; ValueError for a damaged one."""
    path = Path(run_folder) / "confidence.json"
    numbers = read_json(path, optional=True)
    try:
        found = TypeAdapter(Calibration | None).validate_python(numbers)
        if found and (len(found.hand.weights), len(found.well_read.weights)) != (4, len(EVIDENCE)):
            raise ValueError(f"expected 4 and {len(EVIDENCE)} weights")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); make it anew with python -m benchmarks.calibrate "
            f"{run_folder}, in the folder notebooks"
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
