import json
import warnings

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from hand_lib.evaluation import freihand as scoring
from hand_lib.evaluation.predictions import write_predictions
from hand_lib.hand.joints import JOINT_SOURCES

KEYS = [
    "xyz_mean3d", "xyz_auc3d", "xyz_al_mean3d", "xyz_al_auc3d",
    "mesh_mean3d", "mesh_auc3d", "mesh_al_mean3d", "mesh_al_auc3d",
    "f_score_5", "f_al_score_5", "f_score_15", "f_al_score_15",
]  # fmt: skip


@pytest.fixture
def truth():
    """Joints (70, 21, 3) and vertices (70, 120, 3) of random hand-sized clouds, camera frame."""
    rng = np.random.default_rng(5)
    shape = rng.normal(size=(120, 3)) * [0.02, 0.05, 0.015]
    turn = Rotation.random(70, random_state=4).as_matrix()
    place = rng.uniform([-0.1, -0.1, 0.6], [0.1, 0.1, 0.9], (70, 3))[:, None]
    vertices = (shape + rng.normal(size=(70, 120, 3)) * 0.003) @ turn.swapaxes(1, 2)
    return vertices[:, :21] * 1.1 + place, vertices + place


@pytest.fixture
def guess(truth):
    """A plausible prediction of ``truth``: jitter per point, offset, size and turn per hand."""
    rng = np.random.default_rng(6)
    turn = Rotation.from_rotvec(rng.normal(size=(70, 3)) * 0.05).as_matrix()
    size, shift = rng.uniform(0.9, 1.1, (70, 1, 1)), rng.normal(size=(70, 1, 3)) * 0.01
    found = []
    for points in truth:
        centre = points.mean(1, keepdims=True)
        noisy = points - centre + rng.normal(size=points.shape) * 0.004
        found.append(size * noisy @ turn.swapaxes(1, 2) + centre + shift)
    return found


def by_the_description(pred_joints, pred_vertices, true_joints, true_vertices, reflections=True):
    """FreiHAND's scores by one plain loop over hands, points and thresholds."""

    def fit(pred, true):
        mean_t, mean_p = true.mean(0), pred.mean(0)
        size_t = np.sqrt(((true - mean_t) ** 2).sum()) + 1e-8
        size_p = np.sqrt(((pred - mean_p) ** 2).sum()) + 1e-8
        a, b = (true - mean_t) / size_t, (pred - mean_p) / size_p
        matrix, scale = orthogonal_procrustes(a, b)
        if not reflections and np.linalg.det(matrix) < 0:
            rotation = Rotation.align_vectors(a, b)[0].as_matrix()
            matrix, scale = rotation, (a * (b @ rotation.T)).sum()
        return b @ matrix.T * scale * size_t + mean_t

    def f_score(pred, true, threshold):
        precision = np.mean(cKDTree(true).query(pred)[0] < threshold)
        recall = np.mean(cKDTree(pred).query(true)[0] < threshold)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    result, thresholds = {}, np.linspace(0, 0.05, 100)
    for name, pred, true in (
        ("xyz", pred_joints, true_joints),
        ("mesh", pred_vertices, true_vertices),
    ):
        aligned = [fit(p, t) for p, t in zip(pred, true, strict=True)]
        for infix, points in (("", pred), ("al_", np.array(aligned))):
            means, areas = [], []
            for point in range(true.shape[1]):
                distance = np.sqrt(((points[:, point] - true[:, point]) ** 2).sum(1))
                curve = [np.mean(distance <= threshold) for threshold in thresholds]
                means.append(distance.mean())
                areas.append(np.trapezoid(curve, thresholds) / 0.05)
            result[f"{name}_{infix}mean3d"] = 100 * np.mean(means)
            result[f"{name}_{infix}auc3d"] = np.mean(areas)
            for threshold in (5, 15) if name == "mesh" else ():
                pairs = zip(points, true, strict=True)
                values = [f_score(p, t, threshold / 1000) for p, t in pairs]
                result[f"f_{infix}score_{threshold}"] = np.mean(values)
    return result


@pytest.mark.parametrize("reflections", [True, False])
@pytest.mark.parametrize("factor", [1, [-1, 1, 1], 0], ids=["as it is", "mirrored", "zeros"])
def test_scores_equal_the_written_description(guess, truth, reflections, factor):
    joints, vertices = (points.copy() for points in guess)
    joints[::3] *= factor
    vertices[::3] *= factor
    found = scoring.freihand_scores(joints, vertices, *truth, reflections=reflections)
    expected = by_the_description(joints, vertices, *truth, reflections)
    assert list(found) == KEYS
    assert {type(value) for value in found.values()} == {float}
    for key in KEYS:
        assert found[key] == pytest.approx(expected[key], abs=1e-6), key


def test_a_perfect_prediction_has_no_error_and_full_scores(truth):
    found = scoring.freihand_scores(*truth, *truth)
    for key, value in found.items():
        # the guard of 1e-8 m in the norms keeps aligned errors just above the threshold of 0 mm
        best = 1 - 0.5 / 99 if "al_auc" in key else 1.0
        assert value == pytest.approx(0.0 if "mean" in key else best, abs=1e-5), key
    assert scoring.report(*truth, *truth).notes == ()


def test_a_mirrored_prediction_is_perfect_officially_and_flagged(truth):
    joints, vertices = (points.copy() for points in truth)
    joints[10, :, 0] *= -1
    vertices[10, :, 0] *= -1
    scores = scoring.report(joints, vertices, *truth)
    assert scores.mirrored.tolist() == [10]
    assert scores.official["xyz_al_mean3d"] == pytest.approx(0, abs=1e-5)
    assert scores.proper["xyz_al_mean3d"] > 0.01
    assert scores.millimetres["pa_mpjpe_mm"] == pytest.approx(10 * scores.proper["xyz_al_mean3d"])
    assert scores.millimetres["pa_reflection_mpvpe_mm"] == pytest.approx(0, abs=1e-4)
    assert any("1 hand(s) (10) fit better mirrored" in note for note in scores.notes)
    assert not any("left hands" in note for note in scores.notes)


def test_left_hands_are_recognised_and_mirrored_when_told(guess, truth):
    left = [points * [-1, 1, 1] for points in guess]
    assert any("left hands" in note for note in scoring.report(*left, *truth).notes)
    scores = scoring.report(*left, *truth, mirror=True)
    assert scores.official == pytest.approx(scoring.freihand_scores(*guess, *truth))
    assert any("negated" in note for note in scores.notes)


def test_the_report_gives_the_official_and_the_proper_scores(guess, truth):
    scores = scoring.report(*guess, *truth)
    assert scores.official == pytest.approx(scoring.freihand_scores(*guess, *truth))
    proper = scoring.freihand_scores(*guess, *truth, reflections=False)
    assert scores.proper == pytest.approx(proper)
    assert scores.notes == () and len(scores.mirrored) == 0
    assert scores.joint_errors["none"].shape == (70, 21)
    assert scores.millimetres["mpvpe_mm"] == pytest.approx(10 * proper["mesh_mean3d"])
    assert scores.millimetres["pa_mpvpe_auc_0_50"] == pytest.approx(proper["mesh_al_auc3d"])
    assert scores.millimetres["pa_f_5"] == pytest.approx(proper["f_al_score_5"])
    wrist = guess[1] - guess[0][:, :1] - truth[1] + truth[0][:, :1]
    expected = 1000 * np.linalg.norm(wrist, axis=2).mean()
    assert scores.millimetres["root_mpvpe_mm"] == pytest.approx(expected)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1000.0), ("cm", 100.0)])
def test_other_units_are_said_and_converted_when_told(guess, truth, unit, factor):
    other = [points * factor for points in guess]
    said = scoring.report(*other, *truth)
    assert said.official["xyz_mean3d"] > 100 and f"--units {unit}" in said.notes[0]
    scores = scoring.report(*other, *truth, units=unit)
    assert scores.official == pytest.approx(scoring.freihand_scores(*guess, *truth))
    assert scores.notes == ()


def test_a_hand_with_nan_counts_as_no_prediction_and_is_said(guess, truth):
    joints, vertices = (points.copy() for points in guess)
    vertices[3, 5, 1] = np.nan
    joints[8, 0] = np.inf
    zeroed = [points.copy() for points in guess]
    for points in zeroed:
        points[[3, 8]] = 0
    with pytest.warns(UserWarning, match="2 hand.*3, 8"):
        found = scoring.freihand_scores(joints, vertices, *truth)
    assert found == pytest.approx(scoring.freihand_scores(*zeroed, *truth))
    scores = scoring.report(joints, vertices, *truth)
    assert scores.missing.tolist() == [3, 8] and scores.official == pytest.approx(found)
    assert any("2 hand(s) (3, 8) hold a NaN" in note for note in scores.notes)


def test_hands_that_are_one_point_are_said(guess, truth):
    joints, vertices = (points.copy() for points in guess)
    joints[4], vertices[4] = 0.3, 0.3
    scores = scoring.report(joints, vertices, *truth)
    assert any("1 hand(s) (4) are a single point" in note for note in scores.notes)


def test_only_degenerate_predictions_still_give_numbers(truth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = scoring.freihand_scores(*(points * np.nan for points in truth), *truth)
    assert np.isfinite(list(found.values())).all()
    assert np.isfinite(
        list(scoring.report(*(0 * p for p in truth), *truth).millimetres.values())
    ).all()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda j, v: (j - j[:, :1], v - j[:, :1]), "wrist is at the origin"),
        (lambda j, v: (j - j[:, 9:10], v - j[:, 9:10]), "hand stands around the origin"),
        (lambda j, v: (j * [1, -1, -1], v * [1, -1, -1]), "OpenGL's axes"),
        (lambda j, v: (j[::-1], v[::-1]), "order shuffled"),
        (lambda j, v: (j[:, np.argsort(JOINT_SOURCES["interhand"])], v), "'interhand'"),
    ],
)
def test_predictions_of_another_kind_are_scored_as_they_are_with_one_note(
    guess, truth, change, note
):
    scores = scoring.report(*change(*guess), *truth)
    assert note in scores.notes[0]
    assert [n for n in scores.notes[1:] if "fit better mirrored" not in n] == []
    assert scores.official == pytest.approx(scoring.freihand_scores(*change(*guess), *truth))


def test_one_mean_hand_for_all_is_not_called_shuffled(truth):
    mean = [np.repeat(points[:1], len(points), 0) for points in truth]
    assert scoring.report(*mean, *truth).notes == ()


def test_another_vertex_count_scores_joints_and_refuses_vertices(guess, truth):
    joints, vertices = guess
    with pytest.warns(UserWarning, match="vertices refused: 50 .* 120"):
        found = scoring.freihand_scores(joints, vertices[:, :50], *truth)
    assert list(found) == KEYS[:4]
    scores = scoring.report(joints, vertices[:, :50], *truth)
    assert "vertices refused" in scores.notes[0] and not scores.vertex_errors
    assert scores.official == pytest.approx(found)
    assert "vertices refused" in str(scores)
    assert list(scoring.freihand_scores(joints, None, *truth)) == KEYS[:4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pj, pv, tj, tv: (pj[:-1], pv, tj, tv), "predicted joints: expected 70 hands.*69"),
        (lambda pj, pv, tj, tv: (pj, pv[1:], tj, tv), "predicted vertices: expected 70 hands"),
        (lambda pj, pv, tj, tv: (pj[:, :20], pv, tj, tv), "expected 21 points.*20"),
        (lambda pj, pv, tj, tv: (pj[..., :2], pv, tj, tv), r"expected numbers \(N, P, 3\)"),
        (lambda pj, pv, tj, tv: (pj, pv, tj * np.nan, tv), "true joints: hand 0 has a NaN"),
        (lambda pj, pv, tj, tv: (pj[:0], pv[:0], tj[:0], tv[:0]), "truth is empty"),
        (lambda pj, pv, tj, tv: ([["a"]], pv, tj, tv), "expected numbers"),
    ],
)
def test_wrong_counts_and_shapes_are_refused(guess, truth, change, message):
    with pytest.raises(ValueError, match=message):
        scoring.report(*change(*guess, *truth))


def test_the_command_line_scores_a_file_and_writes_the_official_lines(
    guess, truth, tmp_path, capsys
):
    write_predictions(tmp_path / "pred.json", *guess)
    for name, points in zip(("xyz", "verts"), truth, strict=True):
        (tmp_path / f"evaluation_{name}.json").write_text(json.dumps(points.tolist()))
    scored = scoring.score_file(tmp_path / "pred.json", tmp_path)
    assert scored.official == pytest.approx(scoring.freihand_scores(*guess, *truth), abs=2e-5)
    arguments = [tmp_path / "pred.json", "--truth", tmp_path, "--out", tmp_path / "o"]
    assert scoring.main([str(argument) for argument in arguments]) == 0
    expected = scoring.freihand_scores(*guess, *truth)
    lines = (tmp_path / "o" / "scores.txt").read_text().splitlines()
    found = {line.split(": ")[0]: float(line.split(": ")[1]) for line in lines}
    assert list(found) == KEYS
    assert found == pytest.approx(expected, abs=2e-5)
    written = json.loads((tmp_path / "o" / "scores.json").read_text())
    assert written["rotation only"].keys() == expected.keys() and written["notes"] == []
    assert written["fingertips"].startswith("truth freihand")
    assert f"{expected['mesh_al_mean3d']:.4f}" in capsys.readouterr().out


def test_the_command_line_answers_a_wrong_count_with_one_sentence(guess, truth, tmp_path, capsys):
    write_predictions(tmp_path / "pred.json", *(points[:60] for points in guess))
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(truth[0].tolist()))
    assert scoring.main([str(tmp_path / "pred.json"), "--truth", str(tmp_path)]) == 2
    assert "expected 70 hands, in the order of the truth, found 60" in capsys.readouterr().err
