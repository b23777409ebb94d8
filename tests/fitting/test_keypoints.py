"""Keypoints of other detectors arrive in one form; broken entries are named, the rest goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hand_lib.fitting.keypoints import (
    from_arrays,
    from_mediapipe,
    read_coco_wholebody,
    read_keypoints,
    read_openpose,
)


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
    assert found.frames.tolist() == [1] and found.sides == ["left"]  # as the picture shows it
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    assert (found.confidence == 0.9).all() and "5 landmarks" in found.problems[0]
    assert from_mediapipe([result], 640, 480, mirrored=True).sides == ["right"]


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


def test_malformed_people_and_hands_are_named_not_raised(hand, tmp_path):
    for number, people in enumerate(
        ("nobody", [3], [{"hand_left_keypoints_2d": ["x"] * 63}],
         [{"hand_left_keypoints_2d": [[1.0, 2.0], [3.0]]}],
         [person(right=hand * (1, 1, -1))], [person(right=hand)])
    ):  # fmt: skip
        (tmp_path / f"f_{number}.json").write_text(json.dumps({"people": people}))
    (tmp_path / "f_6.json").write_bytes(b"\xff\xfe\x00")
    found = read_openpose(tmp_path)
    assert found.frames.tolist() == [5]
    for number, part in enumerate(
        ("people is no list", "people is no list", "not a list of numbers",
         "not a list of numbers", "confidence below 0")
    ):  # fmt: skip
        assert any(f"f_{number}.json" in p and part in p for p in found.problems), (number, part)
    assert any("f_6.json" in problem for problem in found.problems)


def test_frames_without_a_hand_are_named(hand, tmp_path):
    (tmp_path / "a_0.json").write_text(json.dumps({"people": [person()]}))
    (tmp_path / "a_1.json").write_text(json.dumps({"people": []}))
    (tmp_path / "a_2.json").write_text(json.dumps({"people": [person(left=hand)]}))
    found = read_openpose(tmp_path)
    assert found.empty == ["a_0.json", "a_1.json"] and len(found) == 1
    assert found.of_side("right").empty == found.empty
    assert from_mediapipe([None, None], 9, 9).empty == ["frame 0", "frame 1"]


def legacy(hand, label="Right"):
    """A result of MediaPipe's older interface."""
    landmarks = [SimpleNamespace(x=(x + 0.5) / 64, y=(y + 0.5) / 48) for x, y, _ in hand]
    group = SimpleNamespace(classification=[SimpleNamespace(label=label, score=0.8)])
    return SimpleNamespace(
        multi_hand_landmarks=[SimpleNamespace(landmark=landmarks)], multi_handedness=[group]
    )


def test_both_interfaces_of_mediapipe_are_understood(hand):
    found = from_mediapipe([legacy(hand), legacy(hand, "Neither")], 64, 48)
    assert found.sides == ["left"] and "Neither" in found.problems[0]
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    assert (found.confidence == 0.8).all()


def test_mediapipe_needs_frames():
    with pytest.raises(ValueError, match="give the frames"):
        read_keypoints("mediapipe")


def test_malformed_coco_entries_are_named(hand, tmp_path):
    path = tmp_path / "coco.json"
    flat = np.ravel(hand).tolist()
    path.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": ["x", {"image_id": 1, "lefthand_kpts": flat},
                        {"image_id": 2, "lefthand_kpts": "abc"}],
    }))  # fmt: skip
    found = read_coco_wholebody(path)
    assert len(found) == 1 and found.empty == ["2.jpg"]
    assert "not an object" in found.problems[0] and "2.jpg" in found.problems[1]
    for text in ('{"annotations": 3}', '{"annotations": [], "images": [4]}', "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="COCO-WholeBody"):
            read_coco_wholebody(path)


def test_the_place_decides_how_keypoints_are_read(hand, tmp_path):
    (tmp_path / "op").mkdir()
    (tmp_path / "op" / "a_3.json").write_text(json.dumps({"people": [person(right=hand)]}))
    assert read_keypoints(tmp_path / "op").frames.tolist() == [3]
    coco = {"annotations": [{"image_id": 7, "lefthand_kpts": np.ravel(hand).tolist()}]}
    (tmp_path / "c.json").write_text(json.dumps(coco))
    assert read_keypoints(tmp_path / "c.json").frames.tolist() == [7]
    np.save(tmp_path / "k.npy", hand[None])
    np.testing.assert_allclose(read_keypoints(tmp_path / "k.npy").confidence[0], hand[:, 2])
    np.savez(tmp_path / "k.npz", points=hand[None, :, :2], confidence=hand[None, :, 2],
             sides=["left"], frames=[4])  # fmt: skip
    found = read_keypoints(str(tmp_path / "k.npz"))
    assert found.sides == ["left"] and found.frames.tolist() == [4]
    np.testing.assert_allclose(found.confidence[0], hand[:, 2])
    np.savez(tmp_path / "other.npz", joints=hand)
    for name, kind, message in (
        ("k.txt", ValueError, r"k\.txt"), ("gone.npz", FileNotFoundError, "no such file"),
        ("other.npz", ValueError, r"named points, found \['joints'\]"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            read_keypoints(tmp_path / name)
    with pytest.raises(ValueError, match="sides"):
        from_arrays(hand[None], side=["right", "left"])
