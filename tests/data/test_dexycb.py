"""DexYCB: joints, cameras and shapes come from their several files."""

import cv2
import numpy as np
import pytest
import yaml
from data_fixtures import make_hand

from hand_lib.data.crops import HandCrops
from hand_lib.data.readers import DexYcb
from hand_lib.files import SampleError
from hand_lib.hand.model import HandModel
from hand_lib.render.camera import project

CAMERA = "836212060125"


@pytest.fixture(scope="module")
def model():
    return HandModel.builtin(flat_mean=False)


@pytest.fixture
def archive(tmp_path):
    """Two subjects, a right and a left hand, three frames each; the last shows no hand."""
    (tmp_path / "calibration" / "intrinsics").mkdir(parents=True)
    text = yaml.safe_dump({"color": {"fx": 610.0, "fy": 615.0, "ppx": 312.0, "ppy": 240.5}})
    (tmp_path / "calibration" / "intrinsics" / f"{CAMERA}_640x480.yml").write_text(text)
    for number, (subject, side) in enumerate((("20200709-weiy", "right"), ("20200813-b", "left"))):
        folder = tmp_path / subject / "20200709_141754" / CAMERA
        folder.mkdir(parents=True)
        (tmp_path / "calibration" / f"mano_{number}").mkdir()
        betas = [0.1 * number] * 10
        (tmp_path / "calibration" / f"mano_{number}" / "mano.yml").write_text(
            yaml.safe_dump({"betas": betas})
        )
        meta = {"num_frames": 3, "mano_sides": [side], "mano_calib": [str(number)]}
        (folder.parent / "meta.yml").write_text(yaml.safe_dump(meta))
        for frame in range(3):
            hand = make_hand(10 * number + frame)
            joints = hand.joints + hand.root if frame < 2 else np.full((21, 3), -1.0)
            flat = project(joints, np.array([[610, 0, 312], [0, 615, 240.5], [0, 0, 1.0]]))
            pose = np.full(51, 0.1 * frame)
            np.savez(
                folder / f"labels_{frame:06d}.npz", joint_3d=joints[None], joint_2d=flat[None],
                pose_m=pose[None], seg=np.zeros((480, 640), np.uint8),
            )  # fmt: skip
            grey = np.full((480, 640, 3), 90, np.uint8)
            cv2.imwrite(str(folder / f"color_{frame:06d}.jpg"), grey)
    return tmp_path


def test_joints_and_cameras_belong_together(archive):
    hands = DexYcb(archive)
    assert len(hands) == 6 and hands.groups.tolist() == [0] * 3 + [1] * 3
    seen = list(hands)
    assert [s.index for s in seen] == [0, 1, 3, 4] and sorted(hands.skipped) == [2, 5]
    assert [s.side for s in seen] == ["right", "right", "left", "left"]
    truth = make_hand(11)
    assert np.allclose(hands[4].joints, truth.joints, atol=1e-6)
    assert np.allclose(hands[4].root, truth.root, atol=1e-6)
    pixels = project(hands[4].joints + hands[4].root, hands.intrinsics(CAMERA))
    assert np.abs(pixels - hands[4].joints_2d).max() < 0.01
    assert len(DexYcb(archive, subjects=["20200813-b"], step=2)) == 2


def test_vertices_come_from_principal_components_for_hands_of_the_models_side(archive, model):
    hands = DexYcb(archive, model=model)
    pose = model.pose_from_pca(model.template.new_full((1, 45), 0.1),
                               model.template.new_full((1, 3), 0.1))  # fmt: skip
    expected = model(pose, model.template.new_tensor(hands.betas("0"))[None])
    vertices = (expected.vertices - expected.joints[:, :1])[0].numpy()
    assert np.allclose(hands[1].vertices, vertices, atol=1e-6)
    assert np.allclose(hands[1].pose, pose.reshape(48).numpy())
    assert hands[4].vertices is None and hands[4].pose is None


def test_crops_leave_out_frames_without_a_hand(archive):
    batch = HandCrops(DexYcb(archive), 64).fetch_batch([1, 2, 4])
    assert batch["index"].tolist() == [1, 3, 4] and batch["has_camera"].all()
    points = batch["joints"].astype(float) + batch["root"][:, None]
    pixels = project(points, batch["intrinsics"].astype(float))
    assert np.abs(pixels - ((batch["joints_2d"] + 1) * 64 - 1) / 2).max() < 0.01


def test_broken_archives_say_what_is_wrong(archive):
    with pytest.raises(SampleError, match=r"DexYCB/all\[2\]: no hand in sight"):
        DexYcb(archive)[2]
    with pytest.raises(FileNotFoundError, match="dex-ycb.github.io"):
        DexYcb(archive / "nowhere")
    with pytest.raises(FileNotFoundError, match="no subject 20209999"):
        DexYcb(archive, subjects=["20209999-x"])
    with pytest.raises(FileNotFoundError, match="no frames"):
        DexYcb(archive / "calibration")
    folder = archive / "20200709-weiy" / "20200709_141754"
    (folder / CAMERA / "labels_000000.npz").write_bytes(b"PK")
    with pytest.raises(SampleError, match=r"all\[0\].*no label of DexYCB"):
        DexYcb(archive)[0]
    (folder / CAMERA / "color_000001.jpg").unlink()
    with pytest.raises(SampleError, match=r"all\[1\]: cannot read .*color_000001.jpg"):
        DexYcb(archive)[1]
    (folder / "meta.yml").write_text("num_frames: 3")
    with pytest.raises(ValueError, match="lacks \\['mano_sides', 'mano_calib'\\]"):
        DexYcb(archive)
