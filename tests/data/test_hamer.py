"""HaMeR's lists: boxes, sides and parameters as the file has them."""

import io
import os
import pickle
import tarfile

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand

from hand_lib.data.crops import HandCrops
from hand_lib.data.readers import HamerList, HamerShards
from hand_lib.data.writers import encode_jpeg
from hand_lib.files import SampleError
from hand_lib.hand.model import HandModel, mirror_pose


@pytest.fixture
def listing(tmp_path):
    """Three hands; the last one is the first in a mirror."""
    hands = [make_hand(0), make_hand(1), make_hand(0)]
    flat = np.stack([np.c_[hand.joints_2d, np.ones(21)] for hand in hands])
    solid = np.stack([np.c_[hand.joints + 0.3, np.ones(21)] for hand in hands])
    pose = np.stack([hand.pose for hand in hands])
    flat[2, :, 0], solid[2, :, 0] = 223 - flat[2, :, 0], -solid[2, :, 0]
    flat[1, 5:, 2], solid[1, 3, 3] = 0, 0
    pose[2] = mirror_pose(pose[2])
    for number, hand in enumerate(hands):
        picture = hand.image[:, ::-1] if number == 2 else hand.image
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[:, :, ::-1])
    arrays = {
        "imgname": np.array(["0.png", "1.png", "2.png"]), "right": np.array([1, 1, 0]),
        "center": np.array([[100.0, 120], [90, 80], [123, 120]]), "scale": np.full((3, 2), 0.5),
        "hand_pose": pose, "betas": np.stack([hand.betas for hand in hands]),
        "hand_keypoints_2d": flat, "hand_keypoints_3d": solid,
    }  # fmt: skip
    np.savez(tmp_path / "list.npz", **arrays)
    return tmp_path, arrays


def test_boxes_joints_and_parameters_come_from_the_list(listing):
    folder, arrays = listing
    hands = HamerList(folder / "list.npz", folder)
    truth, sample = make_hand(0), hands[0]
    assert len(hands) == 3 and hands.split == "list" and hands.frame(0) == (100, 120, 100)
    assert np.allclose(sample.joints, truth.joints, atol=1e-6)
    assert np.allclose(sample.joints_2d, truth.joints_2d) and (sample.image == truth.image).all()
    assert np.allclose(sample.pose, truth.pose) and np.allclose(sample.betas, truth.betas)
    assert sample.root is None and sample.vertices is None
    assert hands[1].valid_2d.sum() == 5 and hands[1].joints is None
    assert [s.side for s in hands] == ["right", "right", "left"]


def test_a_mirrored_hand_gives_the_same_crop(listing):
    folder, _ = listing
    crops = HandCrops(HamerList(folder / "list.npz", folder, HandModel.builtin()), 64)
    right, left = crops.item(0), crops.item(2)
    for name in ("vertices", "joints", "joints_2d"):
        assert np.allclose(right[name], left[name], atol=1e-4), name
    assert right["has_vertices"] and np.abs(right["vertices"]).max() > 0.02
    assert np.abs(right["image"].astype(int) - left["image"]).max() <= 1


def test_broken_lists_say_what_is_wrong(listing):
    folder, arrays = listing
    with pytest.raises(FileNotFoundError, match="hamer_evaluation_data"):
        HamerList(folder / "none.npz", folder)
    for change, what in (
        ({"betas": np.ones((3, 9))}, r"betas .* should be \(3, 10\), found \(3, 9\)"),
        ({"center": None}, "lacks center"),
        ({"imgname": np.array(["0.png", 1, None], dtype=object)}, "not an .npz of plain arrays"),
    ):
        changed = {k: v for k, v in (arrays | change).items() if v is not None}
        np.savez(folder / "bad.npz", **changed)
        with pytest.raises(ValueError, match=what):
            HamerList(folder / "bad.npz", folder)
    (folder / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not an .npz"):
        HamerList(folder / "bad.npz", folder)
    np.savez(folder / "bad.npz", **(arrays | {"scale": np.zeros(3)}))
    with pytest.raises(SampleError, match=r"HaMeR/bad\[1\]: its box has no extent"):
        HamerList(folder / "bad.npz", folder)[1]
    (folder / "1.png").unlink()
    hands = HamerList(folder / "list.npz", folder, on_error="skip")
    assert len(list(hands)) == 2 and "1.png" in hands.skipped[1]


def test_boxes_in_pixels_and_hands_without_parameters_are_recognised(listing):
    folder, arrays = listing
    known = {"has_hand_pose": np.array([1, 0, 1]), "has_betas": np.ones(3)}
    names = np.char.encode(arrays["imgname"])
    np.savez(folder / "px.npz", **(arrays | known | {"scale": np.full(3, 100.0), "imgname": names}))
    hands = HamerList(folder / "px.npz", folder, HandModel.builtin())
    assert hands.frame(0) == (100, 120, 100) and hands[0].key == "0.png"
    assert hands[1].pose is None and hands[1].vertices is None and hands[0].pose is not None


def hand_dict(number, **changes):
    hand = make_hand(number)
    return {
        "keypoints_2d": np.c_[hand.joints_2d, np.ones(21)].astype(np.float32),
        "keypoints_3d": np.c_[hand.joints + 0.2, np.ones(21)].astype(np.float32),
        "center": np.array([100.0 + number, 120]), "scale": np.array([0.4, 0.5]),
        "hand_pose": hand.pose, "betas": hand.betas, "right": np.float32(1),
        "has_hand_pose": np.float32(1), "has_betas": np.array(1.0), "personid": number,
        "extra_info": {"fitting_loss": np.array({"reprojection_loss": 1.0})},
    } | changes  # fmt: skip


def write_shard(path, entries):
    """entries: name in the archive -> bytes."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    """Two shards; the second picture of the first holds two hands."""
    entries, groups = {}, [[0], [1, 2], [3]]
    for number, hands in enumerate(groups):
        entries[f"a/{number:03d}.jpg"] = encode_jpeg(make_hand(hands[0]).image)
        entries[f"a/{number:03d}.data.pyd"] = pickle.dumps([hand_dict(h) for h in hands], 4)
    names = list(entries)
    write_shard(tmp_path / "train" / "000000.tar", {n: entries[n] for n in names[:4]})
    write_shard(tmp_path / "train" / "000001.tar", {n: entries[n] for n in names[4:]})
    return tmp_path / "train", entries


def test_every_hand_of_every_shard_is_read_where_it_lies(shards):
    folder, _ = shards
    hands = HamerShards(folder, HandModel.builtin())
    assert len(hands) == 4 and hands.split == "train" and hands.groups.tolist() == [0, 1, 1, 2]
    for index in range(4):
        truth, sample = make_hand(index), hands[index]
        assert np.allclose(sample.joints, truth.joints, atol=1e-6)
        assert np.allclose(sample.joints_2d, truth.joints_2d)
        assert np.allclose(sample.pose, truth.pose) and sample.vertices.shape == (778, 3)
        assert hands.frame(index) == (100 + index, 120, 100)
    assert (hands[1].image == hands[2].image).all() and (hands[1].image != hands[3].image).any()
    again = pickle.loads(pickle.dumps(HamerShards(folder / "000001.tar")))
    assert len(again) == 1 and np.allclose(again[0].joints, hands[3].joints)
    assert HandCrops(hands, 64).item(3)["has_vertices"]


def test_a_pickle_in_a_shard_that_would_run_something_is_refused(shards):
    folder, entries = shards
    evil = b"\x80\x04c" + os.system.__module__.encode() + b"\nsystem\n(X\x04\x00\x00\x00truetR."
    entries |= {"a/001.data.pyd": evil}
    path = write_shard(folder / "evil.tar", entries)
    with pytest.raises(SampleError, match=r"evil\.tar:a/001\.data\.pyd.*system.*Nothing was run"):
        HamerShards(path)
    patient = HamerShards(path, on_error="skip")
    assert len(patient) == 2 and patient.missing == ["evil.tar:a/001"]


def test_broken_shards_say_what_is_wrong(shards, tmp_path):
    folder, entries = shards
    with pytest.raises(FileNotFoundError, match="hamer_training_data"):
        HamerShards(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.tar"):
        HamerShards(tmp_path / "none.tar")
    whole = (folder / "000000.tar").read_bytes()
    broken = tmp_path / "broken.tar"
    for data, what in (
        (whole[: len(whole) // 3], "cut off|not a whole"),
        (b"PK\3\4", "not a whole"),
    ):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=what):
            HamerShards(broken)
    lonely = write_shard(broken, {n: d for n, d in entries.items() if n != "a/001.jpg"})
    with pytest.raises(ValueError, match="labels but no picture of a/001"):
        HamerShards(lonely)
    assert HamerShards(lonely, on_error="skip").missing == ["broken.tar:a/001"]
    for change, what in (
        ({"betas": np.ones(9)}, r"HaMeR/train\[0\]: betas should be \(10,\), found \(9,\)"),
        ({"center": None}, "center should be"),
        ({"keypoints_2d": np.full((21, 3), [[np.nan, 1, 1]])}, "joints_2d should be finite"),
    ):
        label = pickle.dumps([hand_dict(0, **change)], 4)
        path = write_shard(folder / "bad.tar", {"0.jpg": entries["a/000.jpg"], "0.data.pyd": label})
        with pytest.raises(SampleError, match=what):
            HamerShards(path)[0]
    label = pickle.dumps({"not": "a list"}, 4)
    path = write_shard(folder / "bad.tar", {"0.jpg": entries["a/000.jpg"], "0.data.pyd": label})
    with pytest.raises(SampleError, match="list of dicts"):
        HamerShards(path)
