"""Knobs of the forearm, the sky and edges in the background; by default they change nothing."""

import numpy as np
import pytest

from hand_lib.data.synthetic.config import drawn_fields
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.data.synthetic.layout import ARM, ARM_STATIONS
from hand_lib.data.synthetic.scene import make_scratch, place_parts

COUNT = 200


def drawn(**knobs):
    return SyntheticHands(size=32, seed=2, count=COUNT, **knobs).parameters(range(COUNT))


def arm_rings(**knobs):
    """The forearm's rings (S, 16, 3) of a picture, and the middle of the open wrist (3,)."""
    hands = SyntheticHands(size=32, seed=2, count=4, **knobs)
    body, layout = hands.banks.body, hands.banks.layout
    scratch, joints = make_scratch(layout, 32), np.zeros((21, 3), np.float32)
    root, view = np.zeros(3, np.float32), np.zeros(3, np.float32)
    parameters = hands.parameters([1])[0]
    place_parts(parameters, body, layout, scratch, joints, joints.copy(), root, view)
    start, stop = layout.vertex_start[ARM : ARM + 2]
    rings = scratch.points[start:stop].reshape(-1, len(body.rim), 3)
    return rings, scratch.points[body.rim].mean(axis=0)


def reach(rings, wrist):
    """Metres along the forearm's middle line."""
    middles = np.concatenate([wrist[None], rings.mean(axis=1)])
    return np.linalg.norm(np.diff(middles, axis=0), axis=1).sum()


def test_by_default_the_forearm_is_whole_and_the_new_field_is_not_counted():
    whole = drawn()
    assert not whole["forearm_cut"].any() and "forearm_cut" not in drawn_fields(whole)
    short = drawn(forearm_m=(0.1, 0.2))
    assert "forearm_cut" in drawn_fields(short)
    left = ARM_STATIONS[-1] - short["forearm_cut"]
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
    cut = drawn(forearm=0.5)["forearm_cut"]
    assert 0.3 < (cut == ARM_STATIONS[-1]).mean() < 0.7 and set(cut) == {0, ARM_STATIONS[-1]}


def test_sleeves_and_watches_are_only_where_there_is_a_forearm():
    bare = drawn(forearm=0.0, sleeve=1.0, watch=1.0)
    sleeves = bare["sleeve"][:, 0] < 1
    assert 0 < sleeves.sum() < COUNT / 2 and (bare["sleeve"][sleeves, 0] <= 0).all()
    assert (bare["watch"][:, 0] > 1).all()
    short = drawn(forearm_m=(0.05, 0.05), sleeve=0.0, watch=1.0)["watch"]
    worn = short[:, 0] < 1
    assert worn.any() and (short[worn, 0] + short[worn, 1] <= 0.05 + 1e-6).all()


def test_spreads_of_the_forearm_scale_its_numbers():
    plain = drawn()["arm"]
    wide = drawn(forearm_bend_deg=48.0, forearm_side_deg=0.0, forearm_girth=0.0)["arm"]
    np.testing.assert_allclose(wide[:, 0], 2 * plain[:, 0], rtol=1e-5)
    assert not wide[:, 1].any() and (wide[:, 2] == 1).all()


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
        edges = drawn(background_edge=share)["background"][:, 11] > 0
        assert abs(edges.mean() - share) < 0.15


@pytest.mark.parametrize(
    "knobs", [{"forearm": 1.2}, {"forearm_m": (0.2, 0.1)}, {"sky_even": (1.0,)}]
)
def test_wrong_ranges_are_named(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        SyntheticHands(size=32, **knobs)
