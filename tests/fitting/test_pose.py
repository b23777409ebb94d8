"""The parameters of a mesh are those it was made with."""

import numpy as np
import pytest
import torch

from hand_lib.fitting.prior import fit_pose
from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.hand.model import HandModel


def known(model, count, seed=0):
    rng = np.random.default_rng(seed)
    pose = torch.from_numpy(model.sample_poses(count, rng)).float()
    pose[:, 0] = torch.from_numpy(rng.normal(size=(count, 3)) * 1.5)
    betas = torch.from_numpy(rng.normal(size=(count, 10))).float()
    place = torch.from_numpy(rng.normal(size=(count, 3))).float()
    return pose, betas, place, model(pose, betas, place).vertices


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("flat_mean", [True, False])
def test_known_hands_come_back(side, flat_mean):
    model = HandModel.builtin(side, flat_mean)
    pose, betas, place, vertices = known(model, 40)
    found = fit_pose(model, vertices)
    error = (model(*found).vertices - vertices).norm(dim=2).mean(1)
    assert error.max() < 5e-4 and error.median() < 1e-4
    turned, truth = model.rotations(found.pose), model.rotations(pose)
    assert (turned - truth).norm(dim=(2, 3)).median() < 0.02
    zero = torch.zeros_like(pose)
    apart = model(zero, found.betas).vertices - model(zero, betas).vertices
    assert (apart - apart.mean(1, keepdim=True)).norm(dim=2).mean() < 1e-3  # the same shape


def test_a_noisy_mesh_gives_nearly_its_pose():
    model = HandModel.builtin()
    pose, _, _, vertices = known(model, 20, seed=1)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.002, vertices.shape)).float()
    noisy = vertices + noise
    found = fit_pose(model, noisy.numpy())
    error = (model(*found).vertices - noisy).norm(dim=2).mean(1)
    assert error.max() < 0.004  # little more than the noise itself
    turned, truth = axis_angle_to_matrix(found.pose), axis_angle_to_matrix(pose)
    assert (turned - truth).norm(dim=(2, 3)).median() < 0.1


def test_bad_meshes_are_named():
    model = HandModel.builtin()
    with pytest.raises(ValueError, match=r"\(B, 778, 3\), found \(778, 3\)"):
        fit_pose(model, np.zeros((778, 3)))
    with pytest.raises(ValueError, match="finite"):
        fit_pose(model, np.full((1, 778, 3), np.nan))
