"""Knobs of the forearm, second hands, the sky and the background."""

import numpy as np
import pytest
from PIL import Image

from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.data.synthetic.layout import ARM, ARM_STATIONS
from hand_lib.data.synthetic.scene import make_scratch, place_parts
from hand_lib.hand.joints import angles_from_pose

COUNT = 200


def drawn(**knobs):
    return SyntheticHands(size=32, seed=2, count=COUNT, **knobs).parameters(range(COUNT))


def arm_rings(**knobs):
    """The forearm's rings (S, 16, 3) of a picture, and the middle of the open wrist (3,)."""
    hands = SyntheticHands(size=32, seed=2, count=4, **knobs)
    layout = hands.banks.materials.layout
    scratch, parameters = make_scratch(layout, 32), hands.parameters([1])
    root, lens = np.zeros(3, np.float32), np.zeros(3, np.float32)
    place_parts(parameters[0], 0, hands.posed(parameters), layout, scratch, 32, root, lens)
    start, stop = layout.vertex_start[ARM : ARM + 2]
    rings = scratch.points[start:stop].reshape(-1, len(layout.rim), 3)
    return rings, scratch.points[layout.rim].mean(axis=0)


def reach(rings, wrist):
    """Metres along the forearm's middle line."""
    middles = np.concatenate([wrist[None], rings.mean(axis=1)])
    return np.linalg.norm(np.diff(middles, axis=0), axis=1).sum()


def test_forearms_are_whole_unless_asked_for_shorter():
    assert not drawn()["arm_cut"].any()
    left = ARM_STATIONS[-1] - drawn(forearm_m=(0.1, 0.2))["arm_cut"]
    assert left.min() >= 0.1 - 1e-6 and left.max() <= 0.2 + 1e-6 and np.ptp(left) > 0.08
    hands = SyntheticHands(size=32, seed=2, count=COUNT)
    assert hands.fingerprint() != SyntheticHands(32, 2, COUNT, forearm=0.0).fingerprint()


@pytest.mark.parametrize("length", [0.0, 0.03, 0.12, 0.4])
def test_a_forearm_is_as_long_as_asked_for_and_closed(length):
    rings, wrist = arm_rings(forearm_m=(length, length))
    assert reach(rings, wrist) == pytest.approx(length, abs=2e-3)
    if length < 0.4:
        assert np.ptp(rings[-1], axis=0).max() < 1e-6  # the last ring is one point
    whole, _ = arm_rings()
    kept = int((ARM_STATIONS[1:] < length).sum())
    np.testing.assert_array_equal(rings[:kept], whole[:kept])


def test_without_a_forearm_the_hand_ends_at_the_wrist():
    rings, wrist = arm_rings(forearm=0.0)
    assert np.linalg.norm(rings - wrist, axis=2).max() < 0.05 and reach(rings, wrist) < 1e-3
    cut = drawn(forearm=0.5)["arm_cut"]
    assert 0.3 < (cut == ARM_STATIONS[-1]).mean() < 0.7 and set(cut) == {0, ARM_STATIONS[-1]}


def test_sleeves_are_only_where_there_is_a_forearm():
    start = drawn(forearm=0.0, sleeve=1.0)["sleeve_start"]
    worn = start < 1
    assert 0 < worn.sum() < COUNT / 2 and (start[worn] <= 0).all()


def test_spreads_of_the_forearm_scale_its_numbers():
    plain = drawn()
    wide = drawn(forearm_bend_deg=48.0, forearm_side_deg=0.0, forearm_girth=0.0)
    np.testing.assert_allclose(wide["arm_bend"], 2 * plain["arm_bend"], rtol=1e-5)
    assert not wide["arm_side"].any() and (wide["arm_girth"] == 1).all()


def test_a_hand_that_touches_lies_against_the_first():
    hands = SyntheticHands(size=32, seed=2, count=60, second_hand=1.0, touching=1.0)
    parameters = hands.parameters(range(60))
    assert (parameters["second"] == -1).all()
    posed, gaps = hands.posed(parameters), []
    for k, p in enumerate(parameters):
        other = posed.second[posed.second_row[k]] * [-1, 1, 1] + p["second_place"]
        gaps.append(np.linalg.norm(posed.vertices[k][:, None] - other[None, ::4], axis=2).min())
    assert np.median(gaps) < 0.006 and np.quantile(gaps, 0.9) < 0.05


def test_many_hands_have_some_fingers_straight_and_others_folded():
    pose = SyntheticHands(size=32, seed=2, count=2000).parameters(range(2000))["pose"]
    angles = np.rad2deg(angles_from_pose(pose.astype(float))[:, 1:13, 0])
    knuckle, middle = angles[:, 0::3], angles[:, 1::3]
    straight, folded = (knuckle < 40) & (middle < 35), middle > 70
    assert (straight.any(axis=1) & folded.any(axis=1)).mean() > 0.38


def test_the_sky_is_even_without_its_lobes_and_grey_without_warmth():
    none = {"sky_above": (0.0, 0.0), "sky_anywhere": (0.0, 0.0), "sky_below": (0.0, 0.0)}
    even = drawn(**none)
    assert not even["sky"][:, 1:].any() and (even["sky"][:, 0] > 0).all()
    grey = drawn(sky_warmth=0.0, lamp_warmth=0.0)
    for name in ("sky", "key_colour"):
        np.testing.assert_array_equal(grey[name][..., 0], grey[name][..., 2])
    assert np.abs(np.diff(drawn()["sky"][:, 0])).min() > 0

    def towards(sign, **knobs):  # order-1 part along y; y points down
        return (sign * drawn(**none | knobs)["sky"][:, 1].mean(axis=1)).min()

    assert towards(-1, sky_above=(1.0, 1.0)) > 0 and towards(1, sky_below=(1.0, 1.0)) > 0


def test_edges_in_the_background_come_as_often_as_asked_for():
    for share in (0.0, 0.5, 1.0):
        edges = drawn(background_edge=share)["background"]["edge"] > 0
        assert abs(edges.mean() - share) < 0.15


def test_photographs_of_a_folder_are_one_more_background(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        SyntheticHands(size=32, background_folder=str(tmp_path))
    picture = np.full((40, 60, 3), (250, 0, 250), np.uint8)
    Image.fromarray(picture).save(tmp_path / "mine.png")
    (tmp_path / "notes.txt").write_text("no picture")
    hands = SyntheticHands(size=32, background_folder=str(tmp_path))
    kinds, tiles = hands.banks.kinds, hands.banks.materials.tiles
    assert (kinds == "photographs").sum() == 1 and len(kinds) == len(tiles)
    assert (tiles[-1] == 250 + (250 << 16)).all()
    with pytest.raises(FileNotFoundError, match="there is no"):
        SyntheticHands(size=32, background_folder=str(tmp_path / "nowhere"))
