"""Studies measure what they say: photographs with labels, hands looked for, fits."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import fitting as study
from benchmarks.finding import HEIGHT, WIDTH, empty_photographs, measure, photographs
from benchmarks.photographs import score_photographs, table
from PIL import Image


def test_labels_and_predictions_that_agree_have_no_error(tmp_path):
    rng = np.random.default_rng(0)
    flat, joints = rng.uniform(20, 80, (21, 2)), rng.normal(0, 0.04, (21, 3))
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "labels" / "a.png")
    entry = {"file": "a.png", "side": "left", "joints_2d": [None, *flat[1:].tolist()]}
    entries = [entry | {"source": "x", "joints_3d": joints.tolist()}, entry | {"source": "y"}]
    (tmp_path / "labels.json").write_text(json.dumps(entries))
    seen = []

    def predict(image, boxes, sides, keypoints=None):
        seen.append((sides, keypoints))
        held = None if keypoints is None else np.c_[flat, np.ones(21)]
        return [SimpleNamespace(joints_2d=flat + len(seen) - 1, joints=2 * joints, keypoints=held)]

    predictor = SimpleNamespace(predict=predict)
    found = score_photographs(predictor, tmp_path / "labels.json", [np.ones((21, 3)), None])
    assert found["x"]["flat"] == [0] and found["x"]["aligned_mm"] == pytest.approx([0], abs=1e-6)
    assert 0.02 < found["y"]["flat"][0] < 0.05 and found["y"]["aligned_mm"] == []
    assert seen[0][0] == ["left"] and seen[0][1].shape == (1, 21, 3) and seen[1][1] is None
    assert found["x"]["given"] == [0] and found["y"]["given"] == [0.5]  # none found counts as lost
    assert "all hands" in table(found) and "key points' own" in table(found)


def test_a_hand_lies_inside_its_photograph_and_whoever_knows_the_truth_scores_fully():
    truth = list(photographs(2, seed=5))
    for picture, box, _ in truth:
        assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
        assert 60 < (box[2:] - box[:2]).max() < 500 and box[2] < WIDTH + 200
    assert [side for *_, side in truth] == ["right", "left"]
    known = {picture.tobytes(): (box, side) for picture, box, side in truth}

    def predict(picture):
        box, side = known.get(picture.tobytes(), (None, ""))
        return [] if box is None else [SimpleNamespace(box=tuple(box), side=side)]

    found = measure(SimpleNamespace(predict=predict), hands=2, empty=1, seed=5)
    assert (found["found"], found["side"], found["false finds"]) == (1.0, 1.0, 0.0)
    (nothing,) = empty_photographs(1, seed=5)
    assert nothing.shape == (HEIGHT, WIDTH, 3) and nothing.std() > 3


def test_a_hand_mirrored_in_depth_is_flipped_and_itself_is_not():
    joints = study.known_hands(8).joints
    assert not study.depth_flipped(joints, joints).any()
    mirrored = joints * (1, 1, -1) + (0, 0, 1)
    assert study.depth_flipped(mirrored, joints).all()
