"""HaMeR's lists: boxes, sides and parameters as the file has them."""

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand

from hand_lib.data import HandCrops
from hand_lib.files import SampleError
from hand_lib.hand_model import HandModel, mirror_pose
from hand_lib.readers import HamerList


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
