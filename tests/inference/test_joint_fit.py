"""Whose key points are whose, and predictions that follow them."""

import numpy as np
import pytest
import torch

from hand_lib.hand.model import HandModel
from hand_lib.inference import joint_fit
from hand_lib.inference.joint_fit import assign_keypoints, refine_predictions
from hand_lib.inference.predictor import HandPrediction
from hand_lib.mesh.topology import procrustes
from hand_lib.render.camera import apply_affine, crop_affine, project

PICTURE = np.zeros((200, 300, 3), np.uint8)
CAMERA = np.array([[450.0, 0, 149.5], [0, 450, 99.5], [0, 0, 1]])
SIZE = 96


def hand_at(x, y):
    return np.array([x, y]) + 20 * np.random.default_rng(0).random((21, 2))


def test_key_points_give_boxes_and_detections_find_theirs(monkeypatch):
    points = np.stack([hand_at(10, 20), hand_at(200, 100)])
    points[1, 3] = np.nan
    boxes, _, found = assign_keypoints(PICTURE, None, None, points)
    assert found.shape == (2, 21, 3) and found[1, 3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(boxes[0][:2], points[0].min(0))
    seen = [(hand_at(200, 100), "left", 0.9), (hand_at(10, 20), "right", 0.8)]
    monkeypatch.setattr(joint_fit, "find_landmarks", lambda picture: seen)
    drawn = [(2, 18, 16, 42), (100, 100, 130, 130)]  # a box may show half of the hand
    boxes, sides, found = assign_keypoints(PICTURE, drawn, None, "detect")
    assert boxes == drawn and sides is None
    np.testing.assert_allclose(found[0, :, :2], hand_at(10, 20))
    assert not found[1].any()  # nobody was detected there
    boxes, sides, found = assign_keypoints(PICTURE, "detect", None, None)
    assert sides == ["left", "right"] and len(boxes) == len(found) == 2


@pytest.mark.parametrize(
    ("keypoints", "words"),
    [
        (np.zeros((2, 21, 3)), "no two are seen"),
        (np.zeros((1, 20, 2)), r"expected \(N, 21, 2 or 3\)"),
        (np.full((1, 21, 3), 2.0), "third column a depth"),
        ("mediapipe", "'detect' or None"),
    ],
)
def test_key_points_that_are_none_are_refused(keypoints, words):
    with pytest.raises(ValueError, match=words):
        assign_keypoints(PICTURE, None, None, keypoints)


def predicted(model, said, joints_2d, **fields):
    """What a network says, a hand of the model's, and its joints in crop units."""
    joints = said.joints[0].double().numpy()
    hand = HandPrediction(
        vertices=said.vertices[0].double().numpy() - joints[0],
        faces=model.faces.numpy(), joints=joints - joints[0], joints_2d=joints_2d,
        camera=np.ones(3), translation=np.array([0, 0, 0.6]), intrinsics=CAMERA,
        affine=crop_affine((150, 100), 200, SIZE, mirror=model.side == "left"),
        box=(50, 0, 250, 199), side=model.side, **fields,
    )  # fmt: skip
    return hand, lambda read: 2 * (apply_affine(hand.affine, read)[None] + 0.5) / SIZE - 1


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_prediction_follows_its_key_points_and_carries_the_fit(side):
    model, rng = HandModel.builtin(side), np.random.default_rng(1)
    pose = torch.from_numpy(model.sample_poses(1, rng)).float()
    with torch.no_grad():
        true, said = model(pose, None, torch.tensor([0.0, 0, 0.6])), model(0.8 * pose)
    points = project(true.joints[0].double().numpy(), CAMERA)
    read = points + [6.0, -5.0] + rng.normal(0, 3, (21, 2))
    seen = np.c_[points, np.ones(21)]
    hand, in_crop = predicted(model, said, read, assumed_intrinsics=False, keypoints=seen)
    (found,) = refine_predictions([hand], in_crop(read), SIZE)
    assert found.refined and not hand.refined
    assert np.linalg.norm(found.joints_2d - points, axis=1).mean() < 2
    assert np.allclose(project(found.joints + found.translation, CAMERA), found.joints_2d)
    fitted = found.parameters
    with torch.no_grad():
        again = model(*map(torch.from_numpy, (p[None] for p in fitted[1:]))).vertices[0]
    assert np.allclose(again.numpy(), found.camera_vertices, atol=1e-5)
    assert refine_predictions([hand], None, SIZE)[0].refined  # key points alone will do


@pytest.mark.parametrize("assumed", [True, False])
def test_joints_that_a_network_reads_turn_its_hand_where_the_camera_is_known(assumed):
    model, place = HandModel.builtin(), torch.tensor([0.0, 0, 0.6])
    pose = torch.from_numpy(model.sample_poses(1, np.random.default_rng(1))).float()
    turned = pose.clone()
    turned[0, 0, 1] += 0.2
    with torch.no_grad():
        true, said = (model(p, None, place).joints[0].numpy() for p in (turned, pose))
        hand, in_crop = predicted(model, model(pose), project(said, CAMERA),
                                  assumed_intrinsics=assumed)  # fmt: skip
    read = project(true, CAMERA)
    (found,) = refine_predictions([hand], in_crop(read), SIZE)
    _, turn = procrustes(hand.joints, found.joints)
    assert (np.arccos((np.trace(turn) - 1) / 2) > 0.05) != assumed
    off, before = (np.linalg.norm(h.joints_2d - read, axis=1).mean() for h in (found, hand))
    assert off < before
