"""YouTube 3D Hands: what the file leaves out is derived, what is missing is counted once."""

import json
import pickle

import cv2
import numpy as np
import pytest

from hand_lib.data import youtube as readers_youtube
from hand_lib.data.crops import HandCrops
from hand_lib.data.sample import split_unique
from hand_lib.data.youtube import YouTubeHands, split_vertices
from hand_lib.files import SampleError
from hand_lib.hand.joints import fingertip_vertices
from hand_lib.render.camera import crop_to_pixels


def write_youtube(folder, model, frames=(0, 1, 2), indent=None):
    """Four hands in three frames of two videos; the second one is a mirrored copy of the first."""
    template = model.vertices.numpy()
    names = [f"youtube/{v}/video/frames/{n}.png" for v, n in (("ab", 7), ("ab", 30), ("c-d", 0))]
    document = {"images": [], "annotations": []}
    for number, name in enumerate(names):
        document["images"].append({"name": name, "width": 320, "height": 240, "id": number + 50})
        if number in frames:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.full((240, 320, 3), 40 + number, np.uint8)
            picture[:, :160] += 100
            if number == 1:
                picture = picture[:, ::-1]
            cv2.imwrite(str(path), picture)
    base = template * 800 + [120.3, 100.6, 5]
    mirrored = base * [-1, 1, 1] + [319, 0, 0]
    for number, (image, vertices) in enumerate(
        [(50, base), (51, mirrored), (52, base * 0.7), (52, base * 0.9)]
    ):
        document["annotations"].append({
            "vertices": vertices.tolist(), "is_left": int(number == 1), "image_id": image,
            "id": number,
        })  # fmt: skip
    path = folder / "youtube_val.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=indent))
    return path


def test_joints_boxes_and_metres_are_derived(tmp_path, model):
    hands = YouTubeHands(write_youtube(tmp_path, model), tmp_path, model)
    assert len(hands) == 4 and hands.split == "val" and hands.missing == []
    rest = model.vertices.numpy()
    joints = model.regress_joints(rest)
    for index in (0, 2):
        sample = hands[index]
        assert np.allclose(sample.joints, joints - joints[0], atol=1e-6)
        assert np.allclose(sample.vertices, rest - joints[0], atol=1e-6)
        assert sample.root is None and sample.intrinsics is None and sample.side == "right"
    assert np.allclose(hands[0].joints_2d, joints[:, :2] * 800 + [120.3, 100.6], atol=1e-3)
    x, y, side = hands.crop_square(0)
    flat = hands.vertices_px(0)[:, :2]
    assert side == pytest.approx(1.3 * np.ptp(flat, axis=0).max())
    assert np.allclose([x, y], (flat.min(0) + flat.max(0)) / 2)


def test_left_hands_arrive_mirrored_in_the_crop(tmp_path, model):
    crops = HandCrops(YouTubeHands(write_youtube(tmp_path, model), tmp_path, model), 64)
    right, left = crops.item(0), crops.item(1)
    assert crops.dataset[1].side == "left" and crops.dataset[0].side == "right"
    for name in ("vertices", "joints", "joints_2d"):
        assert np.allclose(right[name], left[name], atol=1e-3), name
    assert np.abs(right["image"].astype(int) - left["image"]).max() <= 1
    assert not left["has_camera"] and left["has_vertices"]
    pixels = crop_to_pixels(left["joints_2d"], 64)
    assert pixels.min() > -1 and pixels.max() < 65


def test_without_a_hand_model_only_fingertips_are_known(tmp_path, model):
    hands = YouTubeHands(write_youtube(tmp_path, model), tmp_path)
    sample = hands[0]
    assert sample.vertices is None and sample.joints is None
    assert np.flatnonzero(sample.valid_2d).tolist() == [4, 8, 12, 16, 20]
    tips = hands.vertices_px(0)[list(fingertip_vertices("smplx")), :2]
    assert np.allclose(sample.joints_2d[[4, 8, 12, 16, 20]], tips)


def test_missing_frames_are_named_once_and_left_out(tmp_path, model):
    path = write_youtube(tmp_path, model, frames=(0, 1))
    with pytest.warns(UserWarning, match=r"1 of 3 frames are missing \(2 hands left out\)") as log:
        hands = YouTubeHands(path, tmp_path, model)
    assert len(hands) == 2 and hands.missing == ["youtube/c-d/video/frames/0.png"] and len(log) == 1
    assert len(list(hands)) == 2
    with pytest.raises(FileNotFoundError, match="none of 3 frames"):
        YouTubeHands(write_youtube(tmp_path / "x", model, frames=()), tmp_path / "x")


def test_people_never_straddle_a_split(tmp_path, model):
    hands = YouTubeHands(write_youtube(tmp_path, model), tmp_path)
    assert hands.groups.tolist() == [0, 0, 1, 1]
    training, validation = split_unique(hands, 0.5)
    assert not set(training.groups) & set(validation.groups)


def test_labels_are_scaled_to_frames_of_another_resolution_and_jpegs_are_found(tmp_path, model):
    whole = YouTubeHands(write_youtube(tmp_path / "a", model), tmp_path / "a", model)
    path = write_youtube(tmp_path / "b", model)
    for frame in (tmp_path / "b").rglob("*.png"):
        half = cv2.resize(cv2.imread(str(frame)), (160, 120), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(frame.with_suffix(".jpg")), half, [cv2.IMWRITE_JPEG_QUALITY, 100])
        frame.unlink()
    small = YouTubeHands(path, tmp_path / "b", model)
    assert len(small) == 4 and small[1].image.shape == (120, 160, 3)
    for one, other in zip(whole, small, strict=True):
        assert np.allclose((one.joints_2d + 0.5) / 2 - 0.5, other.joints_2d, atol=1e-4)
        assert np.allclose(one.vertices, other.vertices, atol=1e-6)
    one, other = (HandCrops(data, 64).item(0) for data in (whole, small))
    assert np.abs(one["image"].astype(int) - other["image"]).max() <= 12
    assert np.allclose(one["joints_2d"], other["joints_2d"], atol=1e-4)


def test_frames_of_another_aspect_ratio_and_broken_ones_are_named(tmp_path, model):
    path = write_youtube(tmp_path, model)
    frame = tmp_path / "youtube/ab/video/frames/30.png"
    cv2.imwrite(str(frame), np.zeros((120, 200, 3), np.uint8))
    hands = YouTubeHands(path, tmp_path, on_error="skip")
    with pytest.raises(SampleError, match=r"YouTube3D/val\[1\].*200 x 120.*320 x 240"):
        hands[1]
    assert len(list(hands)) == 3 and list(hands.skipped) == [1]
    frame.write_bytes(b"nothing")
    with pytest.raises(SampleError, match=r"val\[1\].*not a readable picture"):
        hands[1]


def test_a_big_document_is_parsed_once(tmp_path, model, monkeypatch):
    path = write_youtube(tmp_path, model, indent=1)
    document = json.loads(path.read_text())
    document["annotations"] *= 6
    path.write_text(json.dumps(document))
    assert path.stat().st_size > 1 << 20
    first = YouTubeHands(path, tmp_path)
    before = first[3].joints_2d
    monkeypatch.setattr(readers_youtube, "split_vertices", None)
    hands = YouTubeHands(path, tmp_path)
    assert len(hands) == 24 and np.allclose(hands[3].joints_2d, before)
    assert np.allclose(hands.vertices_px(23), document["annotations"][3]["vertices"], rtol=1e-6)
    assert len(pickle.dumps(hands)) < 20_000
    assert np.allclose(pickle.loads(pickle.dumps(hands))[3].joints_2d, before)


def test_broken_documents_say_what_is_wrong(tmp_path, model):
    path = write_youtube(tmp_path, model)
    text = path.read_text()
    with pytest.raises(FileNotFoundError, match="academic"):
        YouTubeHands(tmp_path / "no.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="Extract the frames"):
        YouTubeHands(path, tmp_path / "nowhere")
    for broken, what in (
        (text[:20_000], "cut off inside mesh 0|not whole JSON"),
        (text[:-20], "not whole JSON"),
        (text.replace('"vertices": [[', '"vertices": [[1.5, ', 1), "numbers, expected"),
        (text.replace('"vertices"', '"mesh"', 1), "4 annotations, but 3"),
        (text.replace('"is_left"', '"left"'), "is_left"),
    ):
        path.write_text(broken)
        with pytest.raises(ValueError, match=what):
            YouTubeHands(path, tmp_path)
    document = json.loads(text)
    document["annotations"][2]["vertices"][5][1] = float("nan")
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="mesh 2 should be rows of three finite"):
        YouTubeHands(path, tmp_path, model)


def test_meshes_are_taken_out_of_any_layout():
    text = b'{"annotations": [{"vertices" : [ [1, 2,3] , [4,5,6] ] , "id": 1}]}'
    meshes, rest = split_vertices(text, "text")
    assert meshes.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert json.loads(rest) == {"annotations": [{"vertices": None, "id": 1}]}
    with pytest.raises(ValueError, match="mesh 0 should be rows"):
        split_vertices(text.replace(b"4", b"four"), "text")
