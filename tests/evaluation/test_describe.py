import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_lib import metrics
from hand_lib.evaluation import describe, runs


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says(rng):
    inside = 0
    for trial in range(100):
        _, low, high = metrics.bootstrap_interval(rng.exponential(size=60), draws=400, seed=trial)
        inside += low <= 1 <= high
    assert 85 <= inside <= 99


def toy(name, errors):
    """An evaluation as far as a comparison looks at it.   errors: (N,) mm."""
    test = SimpleNamespace(name="toy", words=f"{len(errors)} hands")
    return SimpleNamespace(name=name, test=test, pa_mm=np.asarray(errors))


def test_a_paired_comparison_finds_a_gain_far_below_the_spread(rng):
    first = rng.exponential(10, 500)
    second = first - 0.4 + rng.normal(size=500) * 0.3
    found = runs.compare_runs(toy("small", first), toy("reference", second))
    assert found.startswith("reference is better than small by 0.")
    assert "(PA-MPVPE, 500 hands" in found
    gain, _, low, high = (float(number) for number in re.findall(r"[+ ](0\.\d+)", found))
    assert gain == pytest.approx(0.4, abs=0.05) and low < 0.4 < high < low + 0.1
    back = runs.compare_runs(toy("reference", second), toy("small", first))
    assert back.startswith("small is worse than reference by 0.")


def test_runs_that_differ_by_noise_cannot_be_told_apart(rng):
    first = rng.exponential(10, 50)
    found = runs.compare_runs(toy("A", first), toy("B", first + rng.normal(size=50)))
    assert "cannot be told apart" in found
    with pytest.raises(ValueError, match="same hands"):
        runs.compare_runs(toy("A", first), toy("B", first[:-1]))


def test_bins_share_out_every_hand_once():
    rows = metrics.mean_by_bin([1.0, 3.0, 5.0, 7.0], [0, 10, 20, 30], [0, 10, 15, 30])
    assert [row[2:4] for row in rows] == [(1, 1.0), (1, 3.0), (2, 6.0)]
    assert rows[2][4] <= 6.0 <= rows[2][5]
    assert [row[0] for row in metrics.mean_by_bin([1.0], [5], [0, 1, 9])] == [1]


@pytest.fixture
def open_hand():
    """Joints of a right hand, fingers up, palm to the camera: its thumb is right in the picture."""
    joints = np.zeros((21, 3))
    for finger, x in enumerate((0.05, 0.025, 0.0, -0.02, -0.04)):
        joints[1 + 4 * finger : 5 + 4 * finger, 0] = x
        joints[1 + 4 * finger : 5 + 4 * finger, 1] = -0.09 - 0.02 * np.arange(4)
    return joints


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 150.0, 180.0])
def test_palm_angle_is_the_turn_away_from_the_camera(open_hand, angle):
    turn = Rotation.from_euler("y", angle, degrees=True)
    found = describe.palm_angles_deg(turn.apply(open_hand)[None])
    assert found[0] == pytest.approx(angle, abs=1e-3)


def test_palm_angle_follows_the_ray_to_the_wrist(open_hand):
    turn = Rotation.from_euler("y", 40, degrees=True)  # the whole scene turned about the camera
    root = turn.apply([0, 0, 0.7])
    found = describe.palm_angles_deg(turn.apply(open_hand)[None], root[None])
    assert found[0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("angle", [-120.0, 0.0, 90.0, 179.0])
def test_in_plane_angle_is_clockwise_from_fingers_up(open_hand, angle):
    turn = Rotation.from_euler("z", angle, degrees=True)  # y is down: positive is clockwise
    assert describe.in_plane_angles_deg(turn.apply(open_hand)[None])[0] == pytest.approx(angle)


def test_the_mean_pose_ignores_place_size_and_viewpoint(open_hand):
    turn = Rotation.random(6, random_state=0).as_matrix()
    joints = 1.3 * open_hand @ turn.swapaxes(1, 2) + 0.4
    assert np.ptp(metrics.align_together(joints)[0], axis=0).max() < 1e-6
    joints[5, 5:9] += 0.03 * turn[5, :, 2]
    mean = np.broadcast_to(metrics.align_together(joints)[1], joints.shape)
    found = metrics.mesh_errors(joints, mean)["pa"]
    assert found[5] > 0.002 and found[5] > 3 * found[:5].max()
