"""Meshes held by key points, on hands whose truth is known and a network that errs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks.detections import CORRUPTIONS, corrupt, spoil
from benchmarks.fitting import CAMERA, joint_errors_mm

from hand_lib.fitting.fit import Reason, fit_hands
from hand_lib.fitting.prior import NetworkPrior
from hand_lib.hand.joints import JOINT_LIMITS, angles_from_pose
from hand_lib.hand.model import HandModel, mirror_pose
from hand_lib.render.camera import project

COUNT = 24
NOISE_PX = 6.0  # of what the network reads


@pytest.fixture(scope="module", params=["right", "left"])
def hands(request):
    """A model, the truth, and what the network says: angles, direction, shape and places err."""
    model, rng = HandModel.builtin(request.param), np.random.default_rng(3)

    def draw(*shape, scale=1.0):
        return torch.from_numpy(rng.normal(0, scale, shape)).to(model.template)

    pose, betas = torch.from_numpy(model.sample_poses(COUNT, rng)).float(), draw(COUNT, 10)
    pose[:, 0] = draw(COUNT, 3)
    place = torch.tensor([0.0, 0, 0.5])
    wrong = torch.cat([pose[:, :1] + draw(COUNT, 1, 3, scale=0.2), 0.75 * pose[:, 1:]], 1)
    with torch.no_grad():
        true, said = model(pose, betas, place), model(wrong, 0.5 * betas)
    joints = true.joints.double().numpy()
    points = project(joints, CAMERA)
    read = points + rng.normal(0, NOISE_PX, (COUNT, 1, 2)) + rng.normal(0, NOISE_PX, points.shape)
    return SimpleNamespace(
        model=model, joints=joints, points=points, read=read, said=said.vertices.numpy(),
        said_joints=said.joints.double().numpy(),
    )  # fmt: skip


def refine(hands, points, confidence, read=None, doubted=False):
    prior = NetworkPrior(
        hands.said, hands.read if read is None else read, np.full(COUNT, 1.5 * NOISE_PX),
        np.full(COUNT, doubted),
    )  # fmt: skip
    found = fit_hands(hands.model, points, confidence, CAMERA, prior=prior)
    return found, found.joints


def errors(hands, joints, flat):
    """Mean errors in 3-D, mm after alignment and of the joints about the wrist, and in 2-D, px."""
    about = joints - joints[:, :1] - hands.joints + hands.joints[:, :1]
    apart = np.linalg.norm(flat - hands.points, axis=2)
    aligned = joint_errors_mm(joints, hands.joints)
    return np.array([aligned.mean(), 1000 * np.linalg.norm(about, axis=2).mean(), apart.mean()])


def test_key_points_pull_the_mesh_onto_the_hand_and_missing_ones_do_not_matter(hands):
    points, confidence = spoil(hands.points, np.random.default_rng(1), 2.0, 0.15)
    found, joints = refine(hands, points, confidence)
    network = errors(hands, hands.said_joints, hands.read)
    assert found.accepted.mean() > 0.9
    assert (errors(hands, joints, project(joints, CAMERA)) < 0.7 * network).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_wrong_key_points_never_raise_the_error(hands, kind):
    rng = np.random.default_rng(2)
    points, _, kinds = corrupt(hands.points, rng, 1.0)
    points, confidence = spoil(points, rng, 2.0, 0.1)
    confidence = confidence * (kinds == kind)[:, None]
    _, joints = refine(hands, points, confidence)
    rows = kinds == kind
    part = SimpleNamespace(joints=hands.joints[rows], points=hands.points[rows])
    network = errors(part, hands.said_joints[rows], hands.read[rows])
    assert (errors(part, joints[rows], project(joints[rows], CAMERA)) <= network).all()


def test_without_confidence_the_network_is_as_good_as_before(hands):
    found, joints = refine(hands, hands.points * np.nan, np.zeros((COUNT, 21)))
    network = errors(hands, hands.said_joints, hands.read)
    assert (found.reason == Reason.NO_HAND).all()
    assert (errors(hands, joints, project(joints, CAMERA)) <= 1.01 * network).all()
    assert np.isfinite(joints).all()


def test_key_points_are_believed_where_the_network_doubts_that_it_looked_at_the_hand(hands):
    points, confidence = spoil(hands.points, np.random.default_rng(5), 1.0, 0.0)
    elsewhere = hands.read[:, :1] + (hands.read - hands.read[:, :1])[:, ::-1] + 150  # another hand
    apart = []
    for doubted in (False, True):
        _, joints = refine(hands, points, confidence, elsewhere, doubted)
        apart.append(np.linalg.norm(project(joints, CAMERA) - hands.points, axis=2).mean())
    assert apart[1] < 0.1 * apart[0]


def test_joint_limits_hold(hands):
    rng = np.random.default_rng(4)
    points = hands.points + rng.normal(0, 15, hands.points.shape)
    found, _ = refine(hands, points, np.ones((COUNT, 21)))
    pose = mirror_pose(found.pose) if hands.model.side == "left" else found.pose
    angles = angles_from_pose(pose, hands.model.frames)[:, 1:]
    assert (angles > JOINT_LIMITS[1:, :, 0] - 1e-3).all()
    assert (angles < JOINT_LIMITS[1:, :, 1] + 1e-3).all()
