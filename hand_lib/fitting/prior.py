"""What a network says of hands, as the prior of a fit to 2-D key points.

The network knows depth, the detector the picture. The network's mesh becomes pose and shape of the
hand model and is laid onto the key points; from there the solver moves it onto them, pulled back
towards the network's angles, shape, places of the joints about the wrist, and 2-D joints.

>>> prior = network_prior(vertices, joints_2d, read)
>>> fit = fit_hands(HandModel.builtin(), keypoints, confidence, intrinsics, prior=prior)
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.fitting.pose import fit_pose
from hand_lib.fitting.skeleton import ANGLES, FREE, ORDER, SHAPE, TURN
from hand_lib.fitting.solver import JointPrior, Problem, State, make_problem
from hand_lib.hand.anatomy import angles_from_pose
from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.hand.model import mirror_pose
from hand_lib.render.camera import solve_translation

NOISE = 0.010
"""Expected noise of key points, as a fraction of the hand's size in the picture."""

READ_NOISE = 1.5
"""What the network's 2-D joints are off by, over what they and those of its mesh disagree by."""

SPREADS, WARY_SPREADS = (1.0, 0.6, 1.0, 0.06), (0.3, 0.3, 0.5, 0.03)
"""What a network is off by: radians of the whole hand and of each joint, deviations of shape,
metres of its joints along each axis, less the wrist; and where key points may be wrong."""

ALONE = 20.0
"""So much more its joint angles and shape count where no key points are: what it read itself tells
where the hand is and how it lies rather than what its fingers do."""

POSE_WEIGHT = 0.5
"""Of the prior on poses: the network's angles say more."""

STRAY = (0.4, 0.4, 0.3, 0.25, 0.2, 0.2)
"""Hand sizes by which a key point lies off the network's joints that halves what it counts in
laying them onto each other, round by round."""

AGREE, FAR, SLIP = 0.4, 0.45, (0.9, 1.3)
"""At least so much of the confidence must agree then; the middle may move by ``FAR`` hand sizes,
the logarithm of the size and the turn in the picture (radians) by ``SLIP``."""


class NetworkPrior(NamedTuple):
    """What a network says of B hands; see ``network_prior``."""

    vertices: np.ndarray  # (B, V, 3) metres, camera axes, of the model's topology and side
    read: np.ndarray  # (B, 21, 2) px, its 2-D joints
    noise: np.ndarray  # (B,) px that these are expected to be off by
    doubted: np.ndarray  # (B,) bool, by the network itself: key points may contradict it
    wary: bool = False  # hold it tightly, and doubt key points that lie off its joints

    def rows(self, index) -> "NetworkPrior":
        """Some of the hands."""
        return NetworkPrior(*(np.asarray(part)[index] for part in self[:4]), self.wary)


def network_prior(vertices, joints_2d, read=None, doubted=False) -> NetworkPrior:
    """The prior of a network's meshes.

    vertices: (B, V, 3) metres, camera axes.   joints_2d: (B, 21, 2) px, joints of the mesh.
    read: (B, 21, 2) px, joints read from the image; None: those of the mesh, of unknown merit.
    doubted: (B,) bool, whether the network doubts what it read while key points lie where the hand
    is: they may then lie off what it says, and one of them off the hand.
    """
    noise = 0.1 * np.ptp(joints_2d, axis=1).max(1)
    if read is not None:
        noise = READ_NOISE * np.linalg.norm(read - joints_2d, axis=2).mean(1)
    doubted = np.broadcast_to(doubted, noise.shape)
    return NetworkPrior(vertices, joints_2d if read is None else read, noise, doubted)


def hold(skeleton, prior: NetworkPrior, points, weights, cameras) -> tuple[Problem, State, tuple]:
    """What to solve, and from where, for hands that a network has seen too.

    points: (B, 21, 2) px.   weights: (B, 21), 0 where not seen.   cameras: (B, 3, 3) px.
    returns the problem, the start, and two arrays (B,) bool: whether the key points agree with the
    network, and whether they at least lie where it found the hand. Where they do not agree, the
    problem is about the network alone.
    """
    model, put, mirror = skeleton.model, skeleton.put, (skeleton.mirror, 1, 1)
    size = np.ptp(prior.read, axis=1).max(1) + 1e-6
    factor, shift, apart, agree, near = lay_onto(points, weights, prior.read, size)
    weights = weights * agree[:, None] / (1 + (apart**2 if prior.wary else 0))
    read = (prior.read @ [1, 1j]) * factor[:, None] + shift[:, None]
    read, size = np.stack([read.real, read.imag], 2), size * abs(factor)
    own = (
        NOISE * size / np.maximum(prior.noise * abs(factor), 0.01 * size)
    )  # beside a key point's 1
    turn = Rotation.from_rotvec(np.angle(factor)[:, None] * [0, 0, 1])
    vertices = torch.as_tensor(prior.vertices).to(model.template)
    joints = model.regress_joints(vertices).double().cpu().numpy()
    joints = (joints - joints[:, :1]) @ turn.as_matrix().swapaxes(1, 2)
    found = fit_pose(model, vertices, rounds=1)
    pose = found.pose.double().cpu().numpy()
    pose[:, 0] = (turn * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    if not model.flat_mean:
        pose[:, 1:] += model.pose_mean.view(15, 3).cpu().numpy()
    if model.side == "left":
        pose = mirror_pose(pose)
    angles = angles_from_pose(pose, model.frames)[:, FREE[:, 0] + 1, FREE[:, 1]]
    start = State(
        axis_angle_to_matrix(put(pose[:, 0])),
        put(solve_translation(joints, read, cameras) * mirror),
        put(angles).clamp(skeleton.low, skeleton.high),
        found.betas.to(skeleton.low),
    )
    pull = np.zeros((len(size), 43))
    *spreads, place = WARY_SPREADS if prior.wary else SPREADS
    pull[:, TURN], pull[:, ANGLES], pull[:, SHAPE] = np.power(spreads, -2)
    pull[~weights.any(1), ANGLES.start :] *= ALONE
    problem = make_problem(skeleton, points, weights, cameras, size, NOISE, 0.0)
    rays = make_problem(skeleton, read, 1 + 0 * weights, cameras, size, NOISE, 0.0).rays
    problem = problem._replace(
        weights=put(weights[:, ORDER]), shape_precision=0 * problem.shape_precision,
        pose_weight=POSE_WEIGHT, near=start, pull=put(pull),
        joints=JointPrior(rays, put(own**2), put((joints * mirror)[:, ORDER]), place),
    )  # fmt: skip
    return problem, start, (agree, near | prior.doubted)


def lay_onto(points, weights, read, size) -> tuple:
    """The network's 2-D joints, laid onto key points by shift, turn and scale, robustly.

    points, read: (B, 21, 2) px.   weights: (B, 21).   size: (B,) px of the hand.
    returns the map as complex numbers (B,), factor and shift; how far each key point then lies off,
    (B, 21) over the last ``STRAY``; whether enough of them agrees, (B,) bool; and whether they lie
    where the network found the hand, (B,) bool.
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
    near = weights.any(1) & (abs((weights * (p - q)).sum(1)) < FAR * total * size)
    agree = near & (counted.sum(1) >= AGREE * total) & (abs(np.angle(factor)) < SLIP[1])
    agree &= abs(np.log(abs(factor) + 1e-9)) < SLIP[0]
    return np.where(agree, factor, 1), np.where(agree, shift, 0), apart, agree, near
