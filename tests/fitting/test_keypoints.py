"""Keypoints of other detectors arrive in one form; broken entries are named, the rest goes on."""

import json

import numpy as np
import pytest

from hand_lib.fitting.keypoints import from_arrays, read_keypoints, read_openpose
from hand_lib.hand.joints import JOINT_NAMES


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
    np.testing.assert_allclose(found.points[1], hand[:, :2] + 1)
    assert not found.problems


def test_broken_openpose_files_are_named_and_the_rest_is_read(hand, tmp_path):
    infinite = hand + np.where(np.arange(63).reshape(21, 3) == 9, np.inf, 0)
    of_people = {
        "people is no list": "nobody", "people is no list ": [3], "": [person(right=hand)],
        "right hand has 60 numbers": [{"hand_right_keypoints_2d": [0.5] * 60}],
        "not a list of numbers": [{"hand_left_keypoints_2d": ["x"] * 63}],
        "not a list of numbers ": [{"hand_left_keypoints_2d": [[1.0, 2.0], [3.0]]}],
        "confidence below 0": [person(right=hand * (1, 1, -1))], "left": [person(left=infinite)],
    }  # fmt: skip
    files = {words: json.dumps({"people": people}).encode() for words, people in of_people.items()}
    files |= {"a_8": b"{ not json", "a_9": b"[]", "a_10": b"\xff\xfe\x00"}
    for number, content in enumerate(files.values()):
        (tmp_path / f"a_{number}.json").write_bytes(content)
    found = read_openpose(tmp_path)
    assert found.frames.tolist() == [2] and len(found.problems) == len(files) - 1
    for number, words in enumerate(files):
        told = [one for one in found.problems if f"a_{number}.json" in one]
        assert len(told) == (words != "") and all(words.strip() in one for one in told), words


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_openpose(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="--write_json"):
        read_openpose(tmp_path)


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


def test_frames_without_a_hand_are_named_and_may_be_all(hand, tmp_path):
    (tmp_path / "a_0.json").write_text(json.dumps({"people": [person()]}))
    (tmp_path / "a_1.json").write_text(json.dumps({"people": []}))
    assert read_openpose(tmp_path).points.shape == (0, 21, 2)
    (tmp_path / "a_2.json").write_text(json.dumps({"people": [person(left=hand)]}))
    found = read_openpose(tmp_path)
    assert found.empty == ["a_0.json", "a_1.json"] and len(found) == 1


def test_mediapipe_needs_frames():
    with pytest.raises(ValueError, match="give the frames"):
        read_keypoints("mediapipe")


def test_the_place_decides_how_keypoints_are_read(hand, tmp_path):
    (tmp_path / "op").mkdir()
    (tmp_path / "op" / "a_3.json").write_text(json.dumps({"people": [person(right=hand)]}))
    assert read_keypoints(tmp_path / "op").frames.tolist() == [3]
    one = read_keypoints(tmp_path / "op" / "a_3.json")  # a single file is one frame
    assert one.frames.tolist() == [0] and one.names == ["a_3.json"]
    (tmp_path / "c.json").write_text(json.dumps([hand.tolist()]))
    np.testing.assert_allclose(read_keypoints(tmp_path / "c.json").points[0], hand[:, :2])
    np.save(tmp_path / "k.npy", hand[None])
    np.testing.assert_allclose(read_keypoints(tmp_path / "k.npy").confidence[0], hand[:, 2])
    np.savez(tmp_path / "k.npz", points=hand[None, :, :2], sides=["left"], frames=[7])
    found = read_keypoints(tmp_path / "k.npz")
    assert found.sides == ["left"] and found.frames.tolist() == [7] and found.confidence.all()
    np.savez(tmp_path / "k.npz", hands=hand[None])
    with pytest.raises(ValueError, match=r"k\.npz: expected an array named points"):
        read_keypoints(tmp_path / "k.npz")
    with pytest.raises(ValueError, match=r"k\.txt: expected a folder or \.json"):
        read_keypoints(tmp_path / "k.txt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_keypoints(str(tmp_path / "gone.npy"))
    with pytest.raises(ValueError, match="sides"):
        from_arrays(hand[None], side=["right", "left"])


def test_nan_is_a_joint_that_was_not_seen(hand):
    hand[3] = np.nan
    for points in (hand[None], hand[None, :, :2]):
        found = from_arrays(points)
        assert (found.confidence[0] == 0).nonzero()[0].tolist() == [3]
        assert np.isfinite(found.points).all()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_from_windows_is_read(hand, tmp_path, encoding):
    (tmp_path / "a_0.json").write_text(json.dumps({"people": [person(right=hand)]}), encoding)
    assert len(read_openpose(tmp_path)) == 1


def test_coordinates_in_fractions_of_the_picture_become_pixels_or_are_refused(hand, tmp_path):
    small = hand / (400, 300, 1)
    (tmp_path / "a_0.json").write_text(json.dumps({"people": [person(right=small)]}))
    with pytest.raises(ValueError, match=r"not pixels.*--keypoint_scale 0"):
        read_keypoints(tmp_path)

    class Frames:
        size = (400, 300)

    found = read_keypoints(tmp_path, Frames())
    np.testing.assert_allclose(found.points[0], hand[:, :2] - 0.5)
    centred = np.concatenate([2 * small[:, :2] - 1, small[:, 2:]], 1)
    with pytest.raises(ValueError, match="fractions of the picture"):
        from_arrays(centred[None], size=Frames.size)


def test_a_third_column_that_is_no_confidence_is_refused(hand):
    for column in (np.linspace(-20, 20, 21), np.full(21, 90.0)):
        hand[:, 2] = column
        with pytest.raises(ValueError, match="confidence should go from 0 to 1"):
            from_arrays(hand[None])


def test_arrays_of_objects_and_damaged_files_are_refused_by_name(hand, tmp_path):
    np.save(tmp_path / "o.npy", np.array([[hand.tolist()]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy: .* makes numbers"):
        read_keypoints(tmp_path / "o.npy")
    for name in ("a.npy", "b.npz", "c.csv"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=name):
            read_keypoints(tmp_path / name)
    with pytest.raises(ValueError, match="object"):
        from_arrays(np.array([hand.tolist()], object))


def test_a_table_is_read_with_joints_by_number_or_name(hand, tmp_path):
    names = ["frame", "side", *(f"{what}{n}" for n in range(21) for what in "xyc")]
    row = ["7", "left", *np.ravel(hand).tolist()]
    (tmp_path / "a.csv").write_text("\ufeff" + ",".join(names) + "\n" + ",".join(map(str, row)))
    found = read_keypoints(tmp_path / "a.csv")
    assert found.frames.tolist() == [7] and found.sides == ["left"] and not found.problems
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    np.testing.assert_allclose(found.confidence[0], hand[:, 2])
    names, row = "wrist_x;wrist_y;index_tip.x;index_tip.y;mood\n", "1,5;2;30;40;5\n"
    (tmp_path / "b.CSV").write_text(names + row, "utf-16")  # as Excel writes it in Germany
    found = read_keypoints(tmp_path / "b.CSV")
    assert found.points[0, 0].tolist() == [1.5, 2]
    assert found.confidence[0].nonzero()[0].tolist() == [0, 8] and "mood" in found.problems[0]
    (tmp_path / "c.csv").write_text("frame,x0,y0\n0,1,2\n")
    with pytest.raises(ValueError, match=r"c\.csv: expected the columns x0, y0"):
        read_keypoints(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("x0,y0,c0,x1,y1,c1\n10,20,90,30,40,95\n")
    with pytest.raises(ValueError, match="percent be divided"):
        read_keypoints(tmp_path / "d.csv")


@pytest.mark.parametrize("many", [False, True])
def test_a_table_of_deeplabcut_is_read(hand, tmp_path, many):
    lines = [["scorer", *["net"] * 63], ["bodyparts", *np.repeat(JOINT_NAMES, 3)],
             ["coords", *["x", "y", "likelihood"] * 21]]  # fmt: skip
    if many:
        lines.insert(1, ["individuals", *["left hand"] * 63])
    for frame in (0, 1):
        lines.append([f"video/img{frame:03d}.png", *map(str, np.ravel(hand))])
    lines[-1][1:3] = ["", ""]
    if many:  # newer tables have folders and names apart
        lines = [[*(line[0].split("/") if "/" in line[0] else [line[0], ""]), *line[1:]]
                 for line in lines]  # fmt: skip
    (tmp_path / "dlc.csv").write_text("\n".join(",".join(line) for line in lines))
    found = read_keypoints(tmp_path / "dlc.csv")
    assert found.frames.tolist() == [0, 1] and found.sides == ["left" if many else "right"] * 2
    np.testing.assert_allclose(found.points[0], hand[:, :2])
    assert found.confidence[1, 0] == 0 and found.confidence[1, 1:].all() and not found.problems
    with pytest.raises(ValueError, match="as CSV"):
        read_keypoints(tmp_path / "dlc.h5")
