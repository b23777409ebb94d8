"""The search for hands by a stand-in network that knows a bright dot from nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from inference.test_predictor import DotFinder, photo_with_dot

from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import (
    BOX_MARGIN,
    Calibration,
    Logistic,
    overlaps,
    separate,
    windows,
)
from hand_lib.render.camera import apply_affine

KNOWN = Logistic((-3.0, 0.0, 0.0, 0.0), -9.0, 0.5)
KNOWN = Calibration(KNOWN, KNOWN, 0.0, 1.0, 0.0, 1.0, 1)


class DotSearcher(DotFinder):
    """Joints read from the image agree with the mesh where there is a dot, red ones on the right.

    Its hand fills what a box leaves of its crop, so that a box stays as large as it was.
    """

    def forward(self, images):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        found = super().forward(images + 1e-6)
        bright = images.amax((1, 2, 3)) > 0.6
        red = images[:, 0].sum((1, 2)) > 1.2 * images[:, 2].sum((1, 2))
        apart = torch.where(bright & red, 0.003, torch.where(bright, 0.03, 0.5))
        joints = found.joints_2d - found.joints_2d.mean(1, keepdim=True)
        size = (joints.amax(1) - joints.amin(1)).amax(1)[:, None, None]
        joints = found.joints_2d + joints * (2 / BOX_MARGIN / size - 1)
        return replace(found, joints_2d=joints, joints_2d_direct=joints + apart[:, None, None])


@pytest.fixture
def predictor():
    return Predictor(DotSearcher(), 64, device="cpu", calibration=KNOWN, n_crops=1)


def coloured(photo, red):
    return (photo * np.array([1.0, 0.5, 0.2 if red else 1.4])).clip(0, 255).astype(np.uint8)


def test_windows_show_every_place_at_several_sizes_and_say_where_they_are():
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    crops, affines = windows(picture, 32)
    assert crops.shape == (len(affines), 32, 32, 3) and 60 < len(crops) < 130
    for x, y in ((3, 3), (200, 150), (396, 297)):
        at = np.stack([apply_affine(affine, np.array([[x, y]]))[0] for affine in affines])
        inside = (np.abs(at - 15.5) < 12).all(axis=1)
        sizes = np.unique(np.round(affines[inside, 0, 0], 3))
        assert len(sizes) == 4  # well inside a window of each size
    large = crops[0].astype(float).mean()
    assert abs(large - picture.mean()) < 3


def test_boxes_share_what_they_should_and_the_surest_of_a_heap_stays():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 9.0], [40, 40, 50, 50]])
    assert np.allclose(overlaps(boxes, boxes[0]), [1, 1 / 3, 0.9, 0])
    assert separate(boxes, np.array([0.5, 0.9, 0.8, 0.1]), 4).tolist() == [1, 3]
    assert separate(boxes, np.array([0.5, 0.4, 0.8, 0.1]), 1).tolist() == [2]


@pytest.mark.parametrize("place", [(60.0, 50.0), (430.0, 300.0)])
def test_a_hand_is_found_wherever_it_is_and_its_side_with_it(predictor, place):
    photo = coloured(photo_with_dot(*place, width=480, height=360), red=True)
    (hand,) = predictor.predict(photo)
    middle = (hand.joints_2d.min(axis=0) + hand.joints_2d.max(axis=0)) / 2
    assert np.abs(middle - place).max() < 20 and (hand.box_from, hand.side_from) == ("found",) * 2
    assert hand.confidence > 0.5 and not hand.doubtful
    (named,) = predictor.predict(photo, sides=["left"])
    assert (named.side, named.side_from) == ("left", "given")


def test_nothing_is_found_where_nothing_is_and_the_whole_picture_is_read_when_asked(
    predictor,
):
    nothing = np.full((200, 300, 3), 40, np.uint8)
    assert predictor.predict(nothing) == []
    (whole,) = predictor.predict(nothing, "whole", ["right"])
    assert whole.box_from == "whole" and whole.doubtful
    predictor.calibration = None  # nobody knows what is sure: the surest place is shown
    assert len(predictor.predict(nothing)) <= 1


def test_a_network_that_cannot_tell_hands_from_nothing_takes_the_whole_picture_and_says_so():
    plain = Predictor(DotFinder(), 64, device="cpu")
    (hand,) = plain.predict(photo_with_dot(100.0, 90.0))
    assert not plain.finds and (hand.box_from, hand.side_from) == ("whole", "assumed")
    (boxed,) = plain.predict(photo_with_dot(100.0, 90.0), [(60, 50, 140, 130)])
    assert (boxed.box_from, boxed.side_from, boxed.side) == ("given", "assumed", "right")
