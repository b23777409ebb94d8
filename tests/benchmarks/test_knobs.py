"""The wall of knobs: every knob has its picture, and its picture shows it."""

import dataclasses

import numpy as np
from benchmarks import knobs
from benchmarks.knobs import PLAIN, VARIATIONS, variations

from hand_lib.data.synthetic.backgrounds import KINDS
from hand_lib.data.synthetic.config import SyntheticConfig

RANGES_OF_ANOTHER = {"blur_px", "jpeg_quality"}
VIEWPOINT = {
    "up_share", "side_share", "down_share", "in_plane_deg", "palm_share", "back_share", "turn_deg",
    "tilt_deg", "off_axis_deg", "shift",
}  # fmt: skip


def test_every_knob_is_on_the_wall():
    known = {field.name for field in dataclasses.fields(SyntheticConfig)}
    shown = set(VARIATIONS)
    assert shown < known and set(PLAIN) <= known
    assert known - shown == RANGES_OF_ANOTHER | VIEWPOINT | {"backgrounds", "background_folder"}


def test_a_turned_knob_changes_the_picture():
    pictures = variations(48)
    plain = pictures["none of them"].astype(int)
    assert len(pictures) == 1 + len(VARIATIONS) + len(KINDS)
    for name, picture in pictures.items():
        if name not in ("none of them", "on smooth"):
            assert (np.abs(picture - plain).max(axis=2) > 6).sum() >= 3, name


def test_the_wall_is_one_picture_with_titles(monkeypatch):
    made = {name: np.full((32, 32, 3), 90, np.uint8) for name in ("none of them", *VARIATIONS)}
    monkeypatch.setattr(knobs, "variations", lambda size: made)
    wall = np.asarray(knobs.variation_grid(32, names=list(made)[:18]))
    assert wall.shape[1] == 6 * 36 - 4 and wall.shape[0] > 3 * 36
    assert set(knobs.SEEN) <= set(made) | {f"on {kind}" for kind in KINDS}
    assert (wall[:20] < 80).any()  # words
