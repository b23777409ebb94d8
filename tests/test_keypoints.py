"""Keypoints of other detectors arrive in one form; broken entries are named, the rest goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hand_lib.keypoints import from_arrays, from_mediapipe, read_coco_wholebody, read_openpose


@pytest.fixture
def hand():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0, 200, (21, 2)), rng.uniform(0.3, 1, (21, 1))], 1)


def person(left=None, right=None):
    empty = [0.0] * 63
    return {
        "hand_left_keypoints_2d": empty if left is None else np.ravel(left).tolist(),
        "hand_right_keypoints_2d": empty if right is None else np.ravel(right).tolist(),
    }


def test_an_openpose_folder_gives_every_hand_with_its_frame(hand, tmp_path):
    for frame, people in ((7, [person(right=hand)]), (8, []), (9, [person(hand + 1, hand)])):
        text = json.dumps({"version": 1.3, "people": people})
        (tmp_path / f"clip2_{frame:012d}_keypoints.json").write_text(text)
    found = read_openpose(tmp_path)
    assert found.frames.tolist() == [7, 9, 9] and found.sides == ["right", "left", "right"]
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    np.testing.assert_allclose(found.confidence[0], hand[:, 2])
    left = found.of_side("left")
    assert len(left) == 1 and left.frames.tolist() == [9] and not found.problems
    np.testing.assert_allclose(left.points[0], hand[:, :2] + 1)
    with pytest.raises(ValueError, match="both"):
        found.of_side("both")


def test_broken_openpose_files_are_named_and_the_rest_is_read(hand, tmp_path):
    (tmp_path / "a_1.json").write_text(json.dumps({"people": [person(right=hand)]}))
    (tmp_path / "a_2.json").write_text("{ not json")
    (tmp_path / "a_3.json").write_text("[]")
    short = {"hand_right_keypoints_2d": [0.5] * 60}
    (tmp_path / "a_4.json").write_text(json.dumps({"people": [short]}))
    bad = hand.copy()
    bad[3, 0] = np.nan
    (tmp_path / "a_5.json").write_text(json.dumps({"people": [person(left=bad)]}))
    found = read_openpose(tmp_path)
    assert len(found) == 1
    for name in ("a_2.json", "a_3.json", "a_4.json: right hand has 60 numbers", "a_5.json: left"):
        assert any(name in problem for problem in found.problems), name


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_openpose(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="--write_json"):
        read_openpose(tmp_path)
    with pytest.raises(FileNotFoundError, match="coco.json"):
        read_coco_wholebody(tmp_path / "coco.json")
    (tmp_path / "coco.json").write_text("{}")
    with pytest.raises(ValueError, match="COCO-WholeBody"):
        read_coco_wholebody(tmp_path / "coco.json")


def test_a_folder_without_hands_is_no_hands(tmp_path):
    (tmp_path / "x_0.json").write_text(json.dumps({"people": [person()]}))
    found = read_openpose(tmp_path)
    assert len(found) == 0 and found.points.shape == (0, 21, 2)


def test_mediapipe_results_become_pixels_and_sides_are_those_of_the_picture(hand):
    landmarks = [SimpleNamespace(x=(x + 0.5) / 640, y=(y + 0.5) / 480) for x, y, _ in hand]
    label = [SimpleNamespace(category_name="Left", score=0.9)]
    result = SimpleNamespace(hand_landmarks=[landmarks, landmarks[:5]], handedness=[label, label])
    empty = SimpleNamespace(hand_landmarks=[], handedness=[])
    found = from_mediapipe([empty, result], 640, 480)
    assert found.frames.tolist() == [1] and found.sides == ["right"]
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    assert (found.confidence == 0.9).all() and "5 landmarks" in found.problems[0]
    assert from_mediapipe([result], 640, 480, mirrored=True).sides == ["left"]


def test_coco_wholebody_hands_are_read(hand, tmp_path):
    flat = np.ravel(hand).tolist()
    data = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "annotations": [
            {"image_id": 5, "lefthand_kpts": flat, "lefthand_valid": True},
            {"image_id": 5, "righthand_kpts": flat, "righthand_valid": False},
            {"image_id": 5, "righthand_kpts": flat[:60], "righthand_valid": True},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data))
    found = read_coco_wholebody(tmp_path / "coco.json")
    assert found.sides == ["left"] and found.names == ["5.jpg"] and found.frames.tolist() == [5]
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    assert "60 numbers" in found.problems[0]


def test_plain_arrays_keep_their_confidence_and_drop_empty_rows(hand):
    two = np.stack([hand, hand * (1, 1, 0)])
    found = from_arrays(two, side="left")
    assert len(found) == 1 and found.sides == ["left"]
    np.testing.assert_allclose(found.confidence[0], hand[:, 2])
    assert len(from_arrays(two[..., :2])) == 2
    with pytest.raises(ValueError, match=r"\(1, 20, 2\)"):
        from_arrays(np.zeros((1, 20, 2)))
    with pytest.raises(ValueError, match="confidence"):
        from_arrays(two, np.ones((1, 21)))
