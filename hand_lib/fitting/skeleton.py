"""Points that hang on a hand's joints, and how they move with its pose and its shape.

Such points are linear in shape and rigid in the turns of the joints, so their Jacobian is written
down: a turn about axis a through o moves p by a x (p - o). A ``Rig`` is of a whole mesh, or of the
21 joints alone, which key points need (``Skeleton``). Points are where the model puts them; only
their derivatives take its pose corrections as rigid with the bones.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hand_lib import ROOT
from hand_lib.hand.joints import JOINT_LIMITS, MANO_FINGERS, MANO_PARENTS, MANO_TO_21, TIPS_21
from hand_lib.hand.kinematics import matrix_to_axis_angle
from hand_lib.hand.mano import mirror_arrays
from hand_lib.hand.model import HandModel

FREE = np.argwhere(JOINT_LIMITS[1:, :, 1] > JOINT_LIMITS[1:, :, 0])
"""(27, 2) the angles that can move: finger joint (MANO's order less the wrist), which of three."""

TURN, WRIST, ANGLES, SHAPE = slice(0, 3), slice(3, 6), slice(6, 33), slice(33, 43)
"""The 43 parameters: a turn about the wrist, the wrist's place, the free angles, the shape."""

ORDER = np.array([*MANO_TO_21, *TIPS_21])
"""Inside the fit joints come in MANO's order, then the tips: their places in the 21 order."""

PARENTS = [0, *MANO_PARENTS[1:].tolist()]
"""Of the 16 joints; the wrist's is itself."""

_BONE_STARTS = [*PARENTS[1:], *(last for _, _, last in MANO_FINGERS.values())]  # in ``ORDER``
_UNEVEN = 0.08  # what a bone's length over the mean of all varies by
_BELOW = torch.eye(16)  # ones where the second joint is the first or hangs on it
for _joint in range(15, 0, -1):
    _BELOW[PARENTS[_joint]] += _BELOW[_joint]


class Rig:
    """Points that hang on the 16 joints of a hand model.

    A point is where the wrist is, plus an arm per bone, turned as the bone is: its place about the
    bone's joint as far as skin ties it to the bone, and the bone itself as far as it hangs below.
    """

    def __init__(self, rest, shapes, corrections, skin, joints, joint_shapes):
        """Metres at rest, and how that moves with the shape (and with pose corrections).

        rest: (3, P).   shapes: (10, 3, P).   corrections: (135, 3, P) in ``HandModel``'s order.
        skin: (16, P).   joints: (16, 3).   joint_shapes: (10, 16, 3).
        """
        self.rest, self.shapes, self.corrections, self.skin = rest, shapes, corrections, skin
        self.joints, self.joint_shapes, self.below = joints, joint_shapes, _BELOW.to(skin)
        points = torch.cat([rest[None], shapes])
        starts = torch.cat([joints[None], joint_shapes])  # (11, 16, 3)
        arms = torch.einsum("jp,kap->kjap", skin, points)
        arms = arms - torch.einsum("jp,kja->kjap", skin, starts)
        bones = torch.einsum("jp,kja->kjap", self.below @ skin, starts - starts[:, PARENTS])
        self.arms = arms.index_add(1, torch.tensor(PARENTS, device=arms.device), bones)
        self.turned_shapes = self.arms[1:].permute(1, 2, 0, 3).reshape(48, -1)

    @classmethod
    def of_mesh(cls, model) -> "Rig":
        """All vertices of a ``HandModel``."""
        rest, directions, skin = (
            part[..., : model.count] for part in (model.template, model.directions, model.skin)
        )
        joints = model.rest_skeleton.view(3, 31)[:, :16].T
        shapes = model.skeleton_directions.view(3, 31, 10)[:, :16].permute(2, 1, 0)
        return cls(rest, *directions.split([10, 135]), skin, joints, shapes)

    def of_joints(self, tips) -> "Rig":
        """The joints themselves, then the points ``tips``: P = 21."""
        joints, shapes = self.joints.T, self.joint_shapes.mT
        own = joints, shapes, shapes.new_zeros(135, 3, 16), torch.eye(16).to(shapes)
        all_points = self.rest, self.shapes, self.corrections, self.skin
        parts = zip(own, all_points, strict=True)
        points = (torch.cat([one, other[..., tips]], -1) for one, other in parts)
        return Rig(*points, self.joints, self.joint_shapes)

    def move(self, local: Tensor, wrist: Tensor, betas: Tensor) -> tuple[Tensor, ...]:
        """Pose and shape the points.

        local: (B, 16, 3, 3) rotations against the parent.   wrist: (B, 3) where it goes.
        betas: (B, 10).
        returns points (B, 3, P), rotations of the bones (B, 16, 3, 3), levers (B, 16, 3, P), the
        arms at which turns of each joint move the points, and how these move with the shape
        (B, 10, 3, P), the wrist held.
        """
        batch, level, levels = len(local), local[:, :1], []
        for step in local[:, 1:].unflatten(1, (5, 3)).unbind(2):
            level = level @ step
            levels.append(level)
        turned = torch.cat([local[:, :1], torch.stack(levels, 2).flatten(1, 2)], 1)
        bent = (local[:, 1:] - torch.eye(3).to(local)).permute(0, 2, 3, 1).reshape(batch, 135)
        corrected = (bent @ self.corrections.flatten(1)).view(batch, 1, 3, -1)
        arms = self.arms[0] + (betas @ self.arms[1:].flatten(1)).view(batch, 16, 3, -1)
        arms = (arms + self.skin[:, None] * corrected)[:, :, None].unbind(3)
        x, y, z = (turn * arm for turn, arm in zip(turned[..., None].unbind(3), arms, strict=True))
        moved = x + y + z  # (B, 16, 3, P)
        points = wrist[..., None] + moved.sum(1)
        levers = (self.below @ moved.flatten(2)).view_as(moved)
        by_shape = turned.transpose(1, 2).reshape(batch, 3, 48) @ self.turned_shapes
        return points, turned, levers, by_shape.view(batch, 3, 10, -1).transpose(1, 2)


@lru_cache(maxsize=1)
def pose_prior() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (27,), inverse covariance (27, 27) and 20 draws (20, 27) of the free angles.

    They lie beside the built-in hand, as ``template/build/pose_prior.py`` draws them.
    """
    with np.load(ROOT / "template" / "pose_prior.npz") as file:
        return tuple(file[name] for name in ("mean", "precision", "draws"))


class Skeleton:
    """The 21 joints of one hand model, mirrored to a right hand, as functions of joint angles."""

    def __init__(self, model):
        self.model, self.mirror, right = model, 1.0, model
        if model.side == "left":
            arrays = mirror_arrays(model.arrays())
            right = HandModel(arrays, frames=model.frames, dtype=model.template.dtype)
            self.mirror, right = -1.0, right.to(model.template.device)
        self.rig = rig = Rig.of_mesh(right).of_joints(right.tips)
        bones = rig.rest[:, 1:] - rig.rest[:, _BONE_STARTS]
        growth = rig.shapes[..., 1:] - rig.shapes[..., _BONE_STARTS]
        # all bones are longer or shorter by about the same factor, linear in the shape
        relative = torch.einsum("aj,kaj->jk", bones, growth) / bones.square().sum(0)[:, None]
        relative = (relative - relative.mean(0)) / _UNEVEN
        self.proportions = relative.T @ relative  # precision of the shape, (10, 10)
        self.frames = self.put(model.frames[1:])  # (15, 3, 3)
        self.prior_mean, self.prior_precision, self.draws = map(self.put, pose_prior())
        self.low, self.high = self.put(JOINT_LIMITS[1:][FREE[:, 0], FREE[:, 1]].T)
        self.free_slot = torch.as_tensor(3 * FREE[:, 0] + FREE[:, 1], device=rig.rest.device)
        self.turning = [0, 0, 0, *(1 + FREE[:, 0]).tolist()]  # joint of each turn and angle

    def put(self, value) -> Tensor:
        """An array with the skeleton's type, on its device."""
        return torch.as_tensor(np.ascontiguousarray(value)).to(self.model.template)

    def place(self, rotation: Tensor, wrist: Tensor, angles: Tensor, betas: Tensor):
        """Joints, and how they move with each parameter.

        rotation: (B, 3, 3) of the whole hand.   wrist: (B, 3) metres, camera axes.
        angles: (B, 27) radians.   betas: (B, 10).
        returns joints (B, 3, 21) in the order ``ORDER``, and (B, 43, 3, 21), how they move by a
        turn about the wrist (3), the wrist's place (3), the angles (27) and the shape (10).
        """
        local, axes = self.local(angles)
        local = torch.cat([rotation[:, None], local], 1)
        joints, turned, levers, by_shape = self.rig.move(local, wrist, betas)
        eye, batch = torch.eye(3).to(joints), len(joints)
        axes = (axes @ turned[:, PARENTS[1:]].mT).reshape(batch, 45, 3)[:, self.free_slot]
        a, b, c = torch.cat([eye.expand(batch, 3, 3), axes], 1)[..., None].unbind(2)
        x, y, z = levers[:, self.turning].unbind(2)
        turns = torch.stack([b * z - c * y, c * x - a * z, a * y - b * x], 2)
        place = eye[..., None].expand(batch, 3, 3, 21)
        return joints, torch.cat([turns[:, :3], place, turns[:, 3:], by_shape], 1)

    def local(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation of each finger joint, and its axes in the parent's frame: (B, 15, 3, 3) each."""
        full = angles.new_zeros(len(angles), 45)
        full = full.index_copy(1, self.free_slot, angles).view(-1, 15, 3)
        (cf, ca, ct), (sf, sa, st) = full.cos().unbind(-1), full.sin().unbind(-1)
        zero, one = torch.zeros_like(cf), torch.ones_like(cf)
        rows = (
            cf * ca, sf * st - cf * sa * ct, cf * sa * st + sf * ct,
            sa, ca * ct, -ca * st,
            -sf * ca, sf * sa * ct + cf * st, cf * ct - sf * sa * st,
        )  # fmt: skip
        euler = torch.stack(rows, -1).view(*full.shape, 3)
        axes = (zero, one, zero, sf, zero, cf, cf * ca, sa, -sf * ca)
        axes = torch.stack(axes, -1).view(*full.shape, 3)  # rows: the axes in the joint's frame
        turned = self.frames @ euler @ self.frames.mT
        return turned, axes @ self.frames.mT

    def pose(self, rotation: Tensor, angles: Tensor) -> Tensor:
        """Axis-angle pose (B, 16, 3) of the right hand, to be handed to a flat-mean model."""
        local, _ = self.local(angles)
        return matrix_to_axis_angle(torch.cat([rotation[:, None], local], 1))
