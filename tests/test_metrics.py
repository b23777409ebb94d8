import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hand_lib import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def clouds(rng):
    """Truth (5, 40, 3) metres and a prediction some millimetres off, elsewhere and turned."""
    true = rng.normal(size=(5, 40, 3)) * [0.02, 0.05, 0.03] + [0, 0, 0.7]
    turn = Rotation.random(5, random_state=1).as_matrix()
    pred = 1.2 * (true + rng.normal(size=true.shape) * 0.004) @ turn.swapaxes(1, 2) + 0.1
    return pred, true


def errors_after(pred, true):
    """Distances after each alignment: kind -> (N, P) metres."""
    return {k: metrics.point_errors(metrics.align(pred, true, k), true) for k in metrics.ALIGNMENTS}


def test_rotation_alignment_agrees_with_scipy_rotations_and_the_least_squares_scale(clouds):
    pred, true = clouds
    pred = pred * [-1, 1, 1]  # mirrored, so that the two alignments differ
    aligned = metrics.align(pred, true, "rotation")
    for p, t, found in zip(pred, true, aligned, strict=True):
        a, b = p - p.mean(0), t - t.mean(0)
        turned = Rotation.align_vectors(b, a)[0].apply(a)
        expected = (turned * b).sum() / (a * a).sum() * turned + t.mean(0)
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_mirrored_cloud_fits_exactly_only_when_mirroring_is_allowed(clouds):
    _, true = clouds
    pred = true * [-1, 1, 1]
    errors = errors_after(pred, true)
    assert errors["reflection"].max() < 1e-7
    assert (errors["rotation"].mean(1) > 0.005).all()


def test_each_alignment_never_raises_the_squared_error_of_the_stricter_one(clouds):
    pred, true = clouds
    squared = {k: (e**2).sum(1) for k, e in errors_after(pred, true).items()}
    assert (squared["scale"] <= squared["root"] + 1e-12).all()
    assert (squared["rotation"] <= squared["none"]).all()
    assert (squared["rotation"] <= squared["scale"]).all()
    assert (squared["reflection"] <= squared["rotation"] + 1e-12).all()


def test_root_alignment_brings_the_roots_together_and_keeps_the_shape(clouds):
    pred, true = clouds
    for point, roots in ((0, {}), (7, {"pred_root": pred[:, 7], "true_root": true[:, 7]})):
        moved = metrics.align(pred, true, "root", **roots)
        np.testing.assert_allclose(moved[:, point], true[:, point])
        np.testing.assert_allclose(moved - moved[:, :1], pred - pred[:, :1])


def test_scale_alignment_undoes_a_change_of_size_about_the_root(clouds):
    _, true = clouds
    pred = true[:, :1] + 0.4 * (true - true[:, :1]) + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(metrics.align(pred, true, "scale"), true, atol=1e-12)
    assert np.isfinite(metrics.align(np.zeros_like(true), true, "scale")).all()


def test_points_that_coincide_land_on_the_centre_of_the_truth(clouds):
    _, true = clouds
    for kind in ("rotation", "reflection"):
        aligned = metrics.align(np.full_like(true, 0.3), true, kind)
        np.testing.assert_allclose(
            aligned, np.broadcast_to(true.mean(1, keepdims=True), true.shape)
        )


def test_mesh_errors_are_the_means_before_and_after_alignment(rng):
    true = rng.normal(size=(150, 30, 3)) * 0.05  # more than one chunk
    pred = true + [0.003, 0.0, 0.004]
    pred[:, 0] += 0.02
    errors = metrics.mesh_errors(pred, true)
    np.testing.assert_allclose(errors["plain"], metrics.point_errors(pred, true).mean(1))
    expected = metrics.point_errors(metrics.align(pred, true, "rotation"), true).mean(1)
    np.testing.assert_allclose(errors["pa"], expected)
    assert (errors["pa"] < errors["plain"]).all()


def test_pck_counts_points_on_the_threshold_and_leaves_out_nan(rng):
    np.testing.assert_allclose(metrics.pck([0.1, 0.2, 0.3, np.nan], [0.1, 0.25]), [0.25, 0.5])
    errors = np.concatenate([rng.uniform(-0.01, 0.07, 999), np.linspace(0, 0.05, 100)])
    for thresholds in (np.linspace(0, 0.05, 100), np.array([0.001, 0.002, 0.04]), np.array([0.01])):
        expected = [(errors <= threshold).mean() for threshold in thresholds]
        np.testing.assert_allclose(metrics.pck(errors, thresholds), expected)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.05), (0.02, 0.05)])
def test_auc_of_one_constant_error_is_the_area_right_of_it(low, high):
    step = (high - low) / 99
    value = low + 40.5 * step  # the curve rises from 0 to 1 between threshold 40 and 41
    expected = 1 - 40.5 / 99
    assert metrics.auc(np.full((7, 21), value), low, high) == pytest.approx(expected, abs=1e-12)
    assert metrics.auc([0.0], low, high) == pytest.approx(1.0)
    assert metrics.auc([9.0], low, high) == 0.0


@pytest.mark.parametrize(("count_p", "count_q"), [(1, 6), (40, 17), (23, 64)])
def test_f_scores_agree_with_a_search_tree(rng, count_p, count_q):
    pred, true = rng.normal(size=(3, count_p, 3)), rng.normal(size=(3, count_q, 3))
    radii = np.linspace(0.1, 3, 30)
    for p, t, found in zip(pred, true, metrics.f_scores(pred, true, radii), strict=True):
        near, far = cKDTree(t).query(p)[0], cKDTree(p).query(t)[0]
        a, b = ((d[:, None] < radii).mean(0) for d in (near, far))
        np.testing.assert_allclose(found, 2 * a * b / np.maximum(a + b, 1e-9), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: metrics.point_errors(p, p[:, :3]), r"\(2, 4, 3\) and \(2, 3, 3\)"),
        (lambda p: metrics.point_errors(p[..., 0], p[..., 0]), r"P, 2.*\(2, 4\)"),
        (lambda p: metrics.align(p, p, "icp"), "'icp'.*none, root, scale"),
        (lambda p: metrics.pck([], [1.0]), "no errors"),
        (lambda p: metrics.f_scores(p * np.nan, p), "NaN"),
        (lambda p: metrics.f_scores(p[:, :0], p), r"\(2, 0, 3\)"),
        (lambda p: metrics.f_scores(p[:1], p), r"\(1, 4, 3\)"),
    ],
)
def test_wrong_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.zeros((2, 4, 3)))


def test_f_score_is_strict_at_the_threshold_and_harmonic_between_the_clouds():
    true = np.array([[[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0]]])
    pred = np.array([[[0.0, 0.25, 0]]])  # one point, 0.25 from one of four
    found = metrics.f_scores(pred, true, thresholds=(0.25, 0.2500001))
    np.testing.assert_allclose(found, [[0.0, 2 * 1 * 0.25 / 1.25]])


def test_f_score_does_not_change_when_vertices_are_relabelled(clouds, rng):
    pred, true = clouds
    pred = metrics.align(pred, true, "rotation")
    found = metrics.f_scores(pred, true)
    assert 0 < found[0, 0] < found[0, 1] <= 1
    np.testing.assert_allclose(metrics.f_scores(pred[:, rng.permutation(40)], true), found)


def test_finger_means_cover_every_joint_once():
    errors = np.arange(21.0)[None].repeat(3, 0)
    found = metrics.mean_per_finger(errors)
    assert list(found) == ["wrist", "thumb", "index", "middle", "ring", "little"]
    assert found["wrist"] == 0 and found["little"] == 18.5
    assert found["wrist"] / 21 + sum(list(found.values())[1:]) * 4 / 21 == pytest.approx(10)
