"""Pose, shape and place of a mesh: the parameters of a hand model that lies nearest to it.

Animators and robot hands need angles, a network predicts vertices. Each bone's rotation comes from
the vertices it moves in closed form (weighted Procrustes); a few Gauss-Newton steps then move all
bones, the shape and the place together. Hinges are held from turning aside.

>>> found = fit_pose(HandModel.builtin(), prediction.vertices[None])     # doctest: +SKIP
>>> model(*found[:3]).vertices                                            # doctest: +SKIP
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hand_lib.hand.anatomy import JOINT_LIMITS
from hand_lib.hand.joints import MANO_PARENTS
from hand_lib.hand.kinematics import axis_angle_to_matrix, chain, matrix_to_axis_angle

SHAPE_RIDGE = 1e-6
"""Square metres, summed over the vertices, that one standard deviation of shape costs."""

HINGE_RIDGE = 4e-4
"""The same for a radian that a hinge turns aside or twists."""

_CHUNK = 32  # hands at a time: their Jacobians take half a megabyte each
_PARENTS = [0, *MANO_PARENTS[1:].tolist()]
_BELOW = torch.eye(16)  # (16, 16) ones where the second joint is the first or hangs on it
for _joint in range(15, 0, -1):
    _BELOW[_PARENTS[_joint]] += _BELOW[_joint]


class FittedPose(NamedTuple):
    """Parameters to be handed to the same model, and how near its mesh then lies."""

    pose: Tensor  # (B, 16, 3) axis-angle
    betas: Tensor  # (B, 10)
    translation: Tensor  # (B, 3) metres
    error: Tensor  # (B,) metres, mean distance of the vertices


def fit_pose(model, vertices, rounds: int = 4) -> FittedPose:
    """Parameters of the hand model whose mesh lies nearest to given ones, in least squares.

    model: a ``HandModel`` of the meshes' side.   vertices: (B, V, 3) metres, anywhere.
    rounds: Gauss-Newton steps. What a mesh hardly tells (how the thumb's first two joints share a
    twist) stays near the closed form.
    """
    target = torch.as_tensor(np.asarray(vertices) if not torch.is_tensor(vertices) else vertices)
    if target.ndim != 3 or target.shape[1:] != (model.count, 3):
        raise ValueError(f"expected vertices (B, {model.count}, 3), found {tuple(target.shape)}")
    if not torch.isfinite(target).all():
        raise ValueError("vertices must be finite")
    target = target.detach().to(model.template)
    with torch.no_grad():
        parts = [_fit(model, some, rounds) for some in target.split(_CHUNK)]
        pose, betas, translation = (torch.cat(part) for part in zip(*parts, strict=True))
        error = (model(pose, betas, translation).vertices - target).norm(dim=2).mean(1)
    return FittedPose(pose, betas, translation, error)


def _fit(model, target, rounds):
    target = target.mT  # (B, 3, V)
    local = _first_rotations(model, target)
    betas = target.new_zeros(len(target), 10)
    translation = target.mean(2) - model.vertices.mean(0)
    mirror = (1, -1, -1) if model.side == "left" else (1, 1, 1)
    frames = torch.from_numpy(model.frames * np.reshape(mirror, (3, 1))).to(target)
    stiff = torch.from_numpy(HINGE_RIDGE * (np.ptp(JOINT_LIMITS, axis=2) == 0)).to(target)
    stiff = stiff.roll(1, 1)[:, None]  # (16, 1, 3) from flexion, abduction, twist to the columns
    stiff[0] = 0
    for _ in range(rounds):
        above, found, jacobian = _mesh_and_slopes(model, local, betas, translation)
        gradient = (jacobian @ (target - found).flatten(1)[..., None])[..., 0]
        gradient[:, 48:58] -= SHAPE_RIDGE * betas
        matrix = jacobian @ jacobian.mT + 1e-6 * torch.eye(61).to(target)
        matrix.diagonal(dim1=1, dim2=2)[:, 48:58] += SHAPE_RIDGE
        axes = above @ frames * stiff  # about which a hinge should not turn, (B, 16, 3, 3)
        angles = frames.mT @ matrix_to_axis_angle(local)[..., None]
        gradient[:, :48] -= (axes @ angles).flatten(1)
        hinges = axes @ (above @ frames).mT
        for joint in range(16):
            rows = slice(3 * joint, 3 * joint + 3)
            matrix[:, rows, rows] += hinges[:, joint]
        move = torch.linalg.solve(matrix, gradient)
        turn, shape, shift = move.split([48, 10, 3], 1)
        turn = above.mT @ turn.view(-1, 16, 3, 1).clamp(-1, 1)  # in the parents' frames
        local = axis_angle_to_matrix(turn[..., 0]) @ local
        betas, translation = (betas + shape).clamp(-5, 5), translation + shift
    pose = matrix_to_axis_angle(local)
    if not model.flat_mean:
        pose[:, 1:] -= model.pose_mean.view(15, 3)
    return pose, betas, translation


def _first_rotations(model, target) -> Tensor:
    """Rotation of each bone against its parent (B, 16, 3, 3), from the vertices it moves."""
    skin, rest = model.skin[:, : model.count], model.template[:, : model.count]
    skin = skin / skin.sum(1, keepdim=True)
    middle = target @ skin.T  # (B, 3, 16)
    cross = torch.einsum("bav,jv,cv->bjac", target, skin, rest)
    cross = cross - torch.einsum("baj,cj->bjac", middle, rest @ skin.T)
    left, _, right = torch.linalg.svd(cross)
    flip = torch.ones_like(cross[..., 0])
    flip[..., 2] = torch.linalg.det(left @ right)
    turned = (left * flip[..., None, :]) @ right
    local = turned[:, _PARENTS].mT @ turned
    local[:, 0] = turned[:, 0]
    return local


def _mesh_and_slopes(model, local, betas, translation):
    """Frame above each joint (B, 16, 3, 3), mesh (B, 3, V) and its Jacobian (B, 61, 3 V).

    The 61 are a turn of each joint about the axes of the camera (48), shape (10) and place (3).
    Pose corrections count as rigid with their bones, which costs a step or two.
    """
    batch, count, skin = len(local), model.count, model.skin[:, : model.count]
    shapes = model.directions[:10, :, :count]  # (10, 3, V)
    shaped = model.template[:, :count] + torch.einsum("bk,kav->bav", betas, shapes)
    rest = shaped @ model.joint_regressor.T  # (B, 3, 16)
    features = local[:, 1:].permute(2, 3, 1, 0).reshape(135, batch) - model.identity
    corrections = features.T @ model.directions[10:].flatten(1)
    shaped = shaped + corrections.view(batch, 3, -1)[..., :count]
    root, others = local.permute(2, 3, 1, 0).split([1, 15], 2)
    bones = (rest[..., 1:] - rest[..., _PARENTS[1:]]).permute(1, 2, 0)
    start = (rest[..., :1] + translation[..., None]).permute(1, 2, 0)
    turned, placed = chain(root, others, bones, start)
    turned, placed = turned.permute(3, 2, 0, 1), placed.permute(2, 1, 0)  # (B, 16, ...)
    above = turned[:, _PARENTS].clone()
    above[:, 0] = torch.eye(3).to(above)
    offset = placed - (turned @ rest.mT[..., None])[..., 0]
    moved = turned @ shaped[:, None] + offset[..., None]  # (B, 16, 3, V) by each bone alone
    below = _BELOW.to(skin)
    lever = torch.einsum("jk,kv,bkav->bjav", below, skin, moved)
    lever = lever - placed[..., None] * (below @ skin)[:, None]
    found = (skin[:, None] * moved).sum(1)
    zero = torch.zeros_like(lever[:, :, 0])
    x, y, z = lever.unbind(2)
    turns = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 2)  # e_a x lever, row by row
    joint_shapes = shapes @ model.joint_regressor.T  # (10, 3, 16)
    steps = torch.einsum(
        "bjac,kcj->bkja", above, joint_shapes - joint_shapes[..., _PARENTS]
    )  # how far each joint moves away from its parent
    steps[:, :, 0] = joint_shapes[:, :, 0]
    shifts = torch.einsum("jm,bkma->bkja", below.T, steps)
    shifts = shifts - torch.einsum("bjac,kcj->bkja", turned, joint_shapes)
    blended = torch.einsum("jv,bjac->bacv", skin, turned)
    by_shape = torch.einsum("bacv,kcv->bkav", blended, shapes)
    by_shape = by_shape + torch.einsum("bkja,jv->bkav", shifts, skin)
    place = torch.eye(3).to(skin)[None, ..., None].expand(batch, 3, 3, count)
    jacobian = torch.cat([turns.reshape(batch, 48, -1), by_shape.flatten(2), place.flatten(2)], 1)
    return above, found, jacobian
