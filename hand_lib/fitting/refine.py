"""A network's mesh held by 2-D key points: the network knows depth, the detector the picture.

The network's mesh becomes pose and shape of the hand model, is laid onto the key points, and then
moved onto them by the solver of ``fit_hands``. The prior is the network's: its joint angles, its
shape, the places of its joints about the wrist, and what it read from the picture. Joint limits
hold, and key points that the others contradict count little.

>>> found = refine_hands(model, vertices, keypoints, confidence, intrinsics, read, read_noise)
>>> model(found.pose, found.betas, found.translation).vertices       # (B, V, 3) metres, in place
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hand_lib.fitting.fit import MIN_JOINTS, fit_hands, hand_size, model_parameters
from hand_lib.fitting.pose import fit_pose
from hand_lib.fitting.skeleton import ANGLES, FREE, ORDER, SHAPE, TURN, Skeleton
from hand_lib.fitting.solver import Prior, State, make_problem, minimise
from hand_lib.hand.anatomy import angles_from_pose
from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.hand.model import mirror_pose
from hand_lib.render.camera import solve_translation

NOISE = 0.012
"""Expected noise of key points, as a fraction of the hand's size in the picture."""

SPREADS = 0.3, 0.3, 0.5
"""What a network is off by: radians of the whole hand and of each joint, deviations of shape."""

ALONE = 5.0
"""So much more its joint angles and shape count where no key points are: what it read itself tells
where the hand is and how it lies rather than what its fingers do."""

PLACE_SPREAD = (0.03, 0.03, 0.03)
"""The same for its joints less the wrist: metres along x, y and z."""

POSE_WEIGHT = 0.5
"""Of the pose prior of ``fit_hands``: the network's angles say more."""

STRAY = (0.4, 0.4, 0.3, 0.25, 0.2, 0.2)
"""Hand sizes by which a key point lies off the network's joints that halves what it counts in
laying them onto each other, round by round."""

AGREE, FAR, SLIP = 0.4, 0.45, (0.9, 1.3)
"""At least so much of the confidence must agree then; the middle may move by ``FAR`` hand sizes,
the logarithm of the size and the turn in the picture (radians) by ``SLIP``."""

_ROUNDS, _CHUNK = 6, 32


class RefinedHands(NamedTuple):
    """Parameters for the same model, and which hands had key points to follow."""

    pose: Tensor  # (B, 16, 3) axis-angle
    betas: Tensor  # (B, 10)
    translation: Tensor  # (B, 3) metres
    used: np.ndarray  # (B,) bool: False where the fit has the network alone


def refine_hands(
    model, vertices, keypoints, confidence, intrinsics, read, read_noise
) -> RefinedHands:
    """Joint fit of networks' meshes and 2-D key points.

    model: a ``HandModel`` of the meshes' topology and side.   vertices: (B, V, 3) metres, camera
    axes.   keypoints: (B, 21, 2) px, NaN where there is none.   confidence: (B, 21), 0 to 1; 0 and
    NaN leave out.   intrinsics: (B, 3, 3) px.   read: (B, 21, 2) px, the network's own 2-D joints.
    read_noise: (B,) px that they are expected to be off by.
    Key points that contradict the network but lie where it found the hand are fitted alone, and
    believed if ``fit_hands`` accepts them. Otherwise, and where fewer than ``MIN_JOINTS`` are seen,
    the hand is fitted to the network's mesh and its own 2-D joints.
    """
    given = (vertices, keypoints, confidence, intrinsics, read, read_noise)
    given = [np.asarray(part, np.float64) for part in given]
    skeleton = Skeleton(model)
    parts = [
        _refine(skeleton, *(part[at : at + _CHUNK] for part in given))
        for at in range(0, len(given[0]), _CHUNK)
    ]
    pose, betas, translation, used = zip(*parts, strict=True)
    return RefinedHands(*map(torch.cat, (pose, betas, translation)), np.concatenate(used))


def _refine(skeleton, vertices, keypoints, confidence, cameras, read, read_noise) -> tuple:
    model = skeleton.model
    known = np.isfinite(keypoints).all(2) & (np.nan_to_num(confidence) > 0)
    weights = np.where(known, np.clip(np.nan_to_num(confidence), 0, 1), 0)
    points = np.where(known[..., None], keypoints, 0)
    size = hand_size(read, np.ones(read.shape[:2]))
    factor, shift, agree, near = lay_onto(points, weights, read, size)
    alone = np.flatnonzero(near & ~agree)
    weights = weights * agree[:, None]
    read = (read @ [1, 1j]) * factor[:, None] + shift[:, None]
    read = np.stack([read.real, read.imag], 2)
    size, read_noise = size * abs(factor), read_noise * abs(factor)
    turn = Rotation.from_rotvec(np.angle(factor)[:, None] * [0, 0, 1])
    joints = model.regress_joints(torch.as_tensor(vertices).to(model.template)).double().numpy()
    joints = (joints - joints[:, :1]) @ turn.as_matrix().swapaxes(1, 2)
    own = NOISE * size / np.maximum(read_noise, 0.01 * size)  # beside a key point's weight of 1
    wrist = solve_translation(joints, read, cameras)
    found = fit_pose(model, vertices, rounds=2)
    pose = found.pose.double().numpy()
    pose[:, 0] = (turn * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    if not model.flat_mean:
        pose[:, 1:] += model.pose_mean.view(15, 3).numpy()
    if model.side == "left":
        pose = mirror_pose(pose)
    angles = angles_from_pose(pose, model.frames)[:, FREE[:, 0] + 1, FREE[:, 1]]
    put, mirror = skeleton.put, (skeleton.mirror, 1, 1)
    start = State(
        axis_angle_to_matrix(put(pose[:, 0])), put(wrist * mirror),
        put(angles).clamp(skeleton.low, skeleton.high), found.betas.to(skeleton.low),
    )  # fmt: skip
    used = weights.any(1)
    pull = np.zeros((len(weights), 43))
    pull[:, TURN], pull[:, ANGLES], pull[:, SHAPE] = np.power(SPREADS, -2)
    pull[~used, ANGLES.start :] *= ALONE
    problem = make_problem(skeleton, points, weights, cameras, size, NOISE, 0.0)
    rays = make_problem(skeleton, read, 1 + 0 * weights, cameras, size, NOISE, 0.0).rays
    prior = Prior(rays, put(own**2), put((joints * mirror)[:, ORDER]), put(PLACE_SPREAD))
    problem = problem._replace(
        weights=put(weights[:, ORDER]), shape_precision=0 * problem.shape_precision,
        pose_weight=POSE_WEIGHT, near=start, pull=put(pull), prior=prior,
    )  # fmt: skip
    state, _ = minimise(problem, start, _ROUNDS)
    fitted = model_parameters(skeleton, state)
    if len(alone):
        fit = fit_hands(model, keypoints[alone], confidence[alone], cameras[alone])
        rows = alone[fit.accepted]
        for part, other in zip(fitted, (fit.pose, fit.betas, fit.translation), strict=True):
            part[rows] = torch.from_numpy(other[fit.accepted]).to(part)
        used[rows] = True
    return *fitted, used


def lay_onto(points, weights, read, size) -> tuple:
    """The network's 2-D joints, laid onto key points by shift, turn and scale, robustly.

    points, read: (B, 21, 2) px.   weights: (B, 21).   size: (B,) px of the hand.
    returns the map as complex numbers (B,), factor and shift; whether enough of the key points
    agrees with it, (B,) bool; and whether they lie where the network found the hand, (B,) bool.
    Where they do not agree the factor is 1 and the shift 0.
    """
    p, q = points @ [1, 1j], read @ [1, 1j]
    counted = weights
    for stray in STRAY:
        total = np.maximum(counted.sum(1), 1e-9)
        middle, other = ((counted * x).sum(1) / total for x in (p, q))
        about = q - other[:, None]
        power = (counted * abs(about) ** 2).sum(1) + 1e-9
        factor = (counted * (p - middle[:, None]) * about.conj()).sum(1) / power
        shift = middle - factor * other
        apart = abs(p - factor[:, None] * q - shift[:, None]) / (stray * size[:, None])
        counted = weights / (1 + apart**2) ** 2
    total = weights.sum(1) + 1e-9
    near = (weights > 0).sum(1) >= MIN_JOINTS
    near &= abs((weights * (p - q)).sum(1)) < FAR * total * size
    agree = near & (counted.sum(1) >= AGREE * total) & (abs(np.angle(factor)) < SLIP[1])
    agree &= abs(np.log(abs(factor) + 1e-9)) < SLIP[0]
    return np.where(agree, factor, 1), np.where(agree, shift, 0), agree, near
