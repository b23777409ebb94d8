"""What a network says of hands, as parameters of a hand model and as the prior of a fit.

The network knows depth, the detector the picture. The network's mesh becomes pose and shape of the
hand model (``fit_pose``: each bone's rotation from the vertices it moves by weighted Procrustes,
then Gauss-Newton steps of everything, hinges held from turning aside) and is laid onto the key
points; from there the solver moves it onto them, pulled back towards the network's angles, shape,
places of the joints about the wrist, and 2-D joints.

>>> prior = network_prior(vertices, joints_2d, read)
>>> fit = fit_hands(HandModel.builtin(), keypoints, confidence, intrinsics, prior=prior)
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hand_lib.fitting.skeleton import ANGLES, FREE, ORDER, PARENTS, SHAPE, TURN, Rig
from hand_lib.fitting.solver import JointPrior, Problem, State, make_problem
from hand_lib.hand.joints import JOINT_LIMITS, angles_from_pose
from hand_lib.hand.kinematics import axis_angle_to_matrix, matrix_to_axis_angle
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
    noise = np.maximum(prior.noise * abs(factor), 0.01 * size)
    own = NOISE * size / noise  # beside a key point's 1
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
    precision = torch.block_diag(POSE_WEIGHT * skeleton.prior_precision, 0 * skeleton.proportions)
    problem = problem._replace(
        weights=put(weights[:, ORDER]), precision=precision, near=start, pull=put(pull),
        joints=JointPrior(rays, put(own**2), put((joints * mirror)[:, ORDER]).mT, place),
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


SHAPE_RIDGE = 1e-6
"""Square metres, summed over the vertices, that one standard deviation of shape costs."""

HINGE_RIDGE = 4e-4
"""The same for a radian that a hinge turns aside or twists."""

_CHUNK = 32  # hands at a time: their Jacobians take half a megabyte each


class FittedPose(NamedTuple):
    """Parameters to be handed to the same model."""

    pose: Tensor  # (B, 16, 3) axis-angle
    betas: Tensor  # (B, 10)
    translation: Tensor  # (B, 3) metres


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
    return FittedPose(*(torch.cat(part) for part in zip(*parts, strict=True)))


@lru_cache(maxsize=4)
def _rig(model, _device) -> Rig:
    return Rig.of_mesh(model)


def _fit(model, target, rounds):
    rig, target = _rig(model, target.device), target.mT  # (B, 3, V)
    local, eye = _first_rotations(rig, target), torch.eye(3).to(target)
    betas = target.new_zeros(len(target), 10)
    wrist = target.mean(2) - rig.rest.mean(1) + rig.joints[0]
    place = eye[..., None].expand(len(target), 3, *target.shape[1:])
    mirror = (1, -1, -1) if model.side == "left" else (1, 1, 1)
    frames = torch.from_numpy(model.frames * np.reshape(mirror, (3, 1))).to(target)
    stiff = torch.from_numpy(HINGE_RIDGE * (np.ptp(JOINT_LIMITS, axis=2) == 0)).to(target)
    stiff = stiff.roll(1, 1)[:, None]  # (16, 1, 3) from flexion, abduction, twist to the columns
    stiff[0] = 0
    for _ in range(rounds):
        found, turned, levers, by_shape = rig.move(local, wrist, betas)
        above = torch.cat([eye.expand(len(target), 1, 3, 3), turned[:, PARENTS[1:]]], 1)
        x, y, z = levers.unbind(2)
        zero = torch.zeros_like(x)
        turns = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 2)  # e_a x lever, row by row
        jacobian = torch.cat([turns.view(-1, 48, *found.shape[1:]), by_shape, place], 1).flatten(2)
        gradient = (jacobian @ (target - found).flatten(1)[..., None])[..., 0]
        gradient[:, 48:58] -= SHAPE_RIDGE * betas
        matrix = jacobian @ jacobian.mT + 1e-6 * torch.eye(61).to(target)
        matrix.diagonal(dim1=1, dim2=2)[:, 48:58] += SHAPE_RIDGE
        axes = above @ frames * stiff  # about which a hinge should not turn, (B, 16, 3, 3)
        angles = frames.mT @ matrix_to_axis_angle(local)[..., None]
        gradient[:, :48] -= (axes @ angles).flatten(1)
        hinges = axes @ (above @ frames).mT
        blocks = matrix[:, :48, :48].unflatten(1, (16, 3)).unflatten(3, (16, 3))
        blocks.diagonal(dim1=1, dim2=3).add_(hinges.permute(0, 2, 3, 1))
        move = torch.linalg.solve(matrix, gradient)
        turn, shape, shift = move.split([48, 10, 3], 1)
        turn = above.mT @ turn.view(-1, 16, 3, 1).clamp(-1, 1)  # in the parents' frames
        local = axis_angle_to_matrix(turn[..., 0]) @ local
        betas, wrist = (betas + shape).clamp(-5, 5), wrist + shift
    pose = matrix_to_axis_angle(local)
    if not model.flat_mean:
        pose[:, 1:] -= model.pose_mean.view(15, 3)
    return pose, betas, wrist - rig.joints[0] - betas @ rig.joint_shapes[:, 0]


def _first_rotations(rig, target) -> Tensor:
    """Rotation of each bone against its parent (B, 16, 3, 3), from the vertices it moves."""
    skin, rest = rig.skin / rig.skin.sum(1, keepdim=True), rig.rest
    middle = target @ skin.T  # (B, 3, 16)
    cross = torch.einsum("bav,jv,cv->bjac", target, skin, rest)
    cross = cross - torch.einsum("baj,cj->bjac", middle, rest @ skin.T)
    left, _, right = torch.linalg.svd(cross)
    flip = torch.ones_like(cross[..., 0])
    flip[..., 2] = torch.linalg.det(left @ right)
    turned = (left * flip[..., None, :]) @ right
    return torch.cat([turned[:, :1], turned[:, PARENTS[1:]].mT @ turned[:, 1:]], 1)
