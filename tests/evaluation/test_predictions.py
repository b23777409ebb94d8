import json
import zipfile

import numpy as np
import pytest

from hand_lib.evaluation import predictions


@pytest.fixture
def hands():
    rng = np.random.default_rng(2)
    return rng.normal(size=(4, 21, 3)) * 0.05 + 0.6, rng.normal(size=(4, 30, 3)) * 0.05 + 0.6


def test_the_file_and_its_zip_come_back_and_are_what_the_competition_reads(hands, tmp_path):
    path = predictions.write_predictions(tmp_path / "pred.json", *hands)
    packed = predictions.write_predictions(tmp_path / "a.zip", *hands)
    for one in (path, packed):
        for found, expected in zip(predictions.read_predictions(one), hands, strict=True):
            np.testing.assert_allclose(found, expected, atol=5.1e-8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "pred.json"]
    content = json.loads(path.read_text())
    assert [np.shape(points) for points in content] == [(4, 21, 3), (4, 30, 3)]
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["pred.json"]
        assert json.loads(archive.read("pred.json")) == content


def test_a_zip_without_a_json_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "no predictions")
    with pytest.raises(ValueError, match="single json file, found 0"):
        predictions.read_predictions(tmp_path / "a.zip")
    with pytest.raises(FileNotFoundError, match="nothing.json"):
        predictions.read_predictions(tmp_path / "nothing.json")


def test_a_file_without_vertices_gives_joints_alone(hands, tmp_path):
    for empty in ([], [[], [], [], []]):
        (tmp_path / "pred.json").write_text(json.dumps([hands[0].tolist(), empty]))
        joints, vertices = predictions.read_predictions(tmp_path / "pred.json")
        assert joints.shape == (4, 21, 3) and vertices is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda j, v: j, "two lists.*found 4"),
        (lambda j, v: [j, v, v], "two lists.*found 3"),
        (lambda j, v: [[], v], "no joints"),
        (lambda j, v: [j, v[:3]], "4 hands have joints, but 3"),
        (lambda j, v: [j[:2] + [j[2][:19]] + j[3:], v], "joints: hand 2 has 19 points.*others 21"),
        (lambda j, v: [[h[:20] for h in j], v], "21 joints a hand.*found 20"),
        (lambda j, v: [[[p[:2] for p in h] for h in j], v], "three numbers"),
        (lambda j, v: [[sum(h, []) for h in j], v], "three numbers"),
        (lambda j, v: [[1.0, 2.0], v], "list of hands"),
        (lambda j, v: {"xyz": j}, "two lists.*found names"),
    ],
)
def test_wrong_nesting_is_refused_with_the_hand(hands, tmp_path, change, message):
    content = change(*(points.tolist() for points in hands))
    (tmp_path / "pred.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="pred.json.*" + message):
        predictions.read_predictions(tmp_path / "pred.json")


def test_truth_is_read_with_or_without_vertices(hands, tmp_path):
    with pytest.raises(FileNotFoundError, match="evaluation_xyz.json"):
        predictions.read_truth(tmp_path)
    (tmp_path / "training_xyz.json").write_text(json.dumps(hands[0].tolist()))
    joints, vertices = predictions.read_truth(tmp_path, "training")
    np.testing.assert_allclose(joints, hands[0], rtol=1e-15)
    assert vertices is None
    with pytest.raises(FileNotFoundError, match="there is training_xyz.json: give --set training"):
        predictions.read_truth(tmp_path)
    (tmp_path / "training_verts.json").write_text(json.dumps(hands[1].tolist()))
    assert predictions.read_truth(tmp_path, "training")[1].shape == (4, 30, 3)
    (tmp_path / "training_verts.json").write_text("[]")
    with pytest.raises(ValueError, match="training_verts.json: holds no points"):
        predictions.read_truth(tmp_path, "training")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda j, v: (j, v[:2]), "vertices: expected 4 hands, .*found 2"),
        (lambda j, v: (j[:, :16], v), "joints: expected 21 points per hand, found 16"),
        (lambda j, v: (j, v * np.nan), "vertices: hand 0 has a NaN"),
        (lambda j, v: (j * 1000, v * 1000), "file is in metres"),
    ],
)
def test_what_the_competition_would_reject_is_not_written(hands, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        predictions.write_predictions(tmp_path / "pred.json", *change(*hands))
    assert not list(tmp_path.iterdir())
