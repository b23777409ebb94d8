"""The 21 joints of a hand model as a function of joint angles, with their derivatives.

Fitting needs no mesh: joints are linear in shape and rigid in the angles, so their Jacobian is
written down (a rotation about axis a through o moves p by a x (p - o)). Fingertips are skinned and
corrected exactly as the model does; only their derivative takes them as rigid with the last bone.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hand_lib.hand.anatomy import JOINT_LIMITS
from hand_lib.hand.joints import MANO_FINGERS, MANO_PARENTS, MANO_TO_21, TIPS_21
from hand_lib.hand.kinematics import matrix_to_axis_angle
from hand_lib.hand.mano import mirror_arrays
from hand_lib.hand.poses import sample_angles

FREE = np.argwhere(JOINT_LIMITS[1:, :, 1] > JOINT_LIMITS[1:, :, 0])
"""(27, 2) the angles that can move: finger joint (MANO's order less the wrist), which of three."""

TURN, WRIST, ANGLES, SHAPE = slice(0, 3), slice(3, 6), slice(6, 33), slice(33, 43)
"""The 43 parameters: a turn about the wrist, the wrist's place, the free angles, the shape."""

ORDER = np.array([*MANO_TO_21, *TIPS_21])
"""Inside the fit joints come in MANO's order, then the tips: their places in the 21 order."""

_FINGER_OF_TIP = [last // 3 - 1 for _, _, last in MANO_FINGERS.values()]
"""Row of the (5, 3) finger joints of each fingertip, thumb to little finger."""


@lru_cache(maxsize=1)
def pose_prior(count: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (27,), inverse covariance (27, 27) and draws (count, 27) of the free angles."""
    angles = sample_angles(count, np.random.default_rng(0))[:, 1:]
    draws = angles[:, FREE[:, 0], FREE[:, 1]]
    covariance = np.cov(draws.T) + np.diag(np.full(len(FREE), np.deg2rad(3.0) ** 2))
    return draws.mean(0), np.linalg.inv(covariance), draws


class Skeleton:
    """Constants of one hand model, mirrored to a right hand, ready for fitting."""

    def __init__(self, model, dtype=torch.float32):
        arrays = model.arrays()
        if model.side == "left":
            arrays = mirror_arrays(arrays)
        self.dtype, self.device, self.model = dtype, model.template.device, model
        self.mirror = -1.0 if model.side == "left" else 1.0
        put, regressor, tips = self.put, arrays["J_regressor"], arrays["fingertips"]
        rest = regressor @ arrays["v_template"]
        shaped = np.einsum("jv,vak->kja", regressor, arrays["shapedirs"])
        tip_rest, tip_shaped = arrays["v_template"][tips], arrays["shapedirs"][tips]
        tip_shaped = tip_shaped.transpose(2, 0, 1)
        bones = rest[1:] - rest[MANO_PARENTS[1:]]
        bone_shapes = shaped[:, 1:] - shaped[:, MANO_PARENTS[1:]]
        last = [joints[2] for joints in MANO_FINGERS.values()]
        tip_bones, tip_bone_shapes = tip_rest - rest[last], tip_shaped - shaped[:, last]
        self.wrist, self.wrist_shapes = put(rest[0]), put(shaped[:, 0])
        self.rest, self.rest_shapes = put(rest), put(shaped)
        self.bones, self.bone_shapes = put(bones), put(bone_shapes)  # (15, 3), (10, 15, 3)
        self.tip_shapes = put(tip_bone_shapes)  # (10, 5, 3)
        self.tip_rest, self.tip_rest_shapes = put(tip_rest), put(tip_shaped)
        lengths = [bones, tip_bones], [bone_shapes, tip_bone_shapes]
        self.proportions = put(_proportions(np.concatenate(lengths[0]), np.hstack(lengths[1])))
        self.tip_poses = put(arrays["posedirs"][tips].reshape(15, 135).T)  # (135, 15)
        self.tip_weights = put(arrays["weights"][tips])  # (5, 16)
        self.frames = put(model.frames[1:])  # (15, 3, 3)
        self.prior_mean, self.prior_precision, self.draws = map(put, pose_prior())
        self.low, self.high = put(JOINT_LIMITS[1:][FREE[:, 0], FREE[:, 1]].T)
        self.free_joint = torch.as_tensor(FREE[:, 0], device=self.device)
        self.free_slot = torch.as_tensor(3 * FREE[:, 0] + FREE[:, 1], device=self.device)
        self.moves = put(_moved_points())  # (27, 20)

    def put(self, value) -> Tensor:
        """An array with the skeleton's type, on its device."""
        return torch.as_tensor(np.ascontiguousarray(value), dtype=self.dtype, device=self.device)

    def place(self, rotation: Tensor, wrist: Tensor, angles: Tensor, betas: Tensor, slopes=True):
        """Joints, and how they move with each parameter.

        rotation: (B, 3, 3) of the whole hand.   wrist: (B, 3) metres, camera axes.
        angles: (B, 27) radians.   betas: (B, 10).
        returns joints (B, 21, 3) in the order ``ORDER`` and, with ``slopes``, three arrays
        (B, 43, 21), how x, y and z of each joint move by a turn about the wrist (3), the wrist's
        place (3), the angles (27) and the shape (10).
        """
        batch = len(angles)
        local, axes = self.local(angles)
        g0 = rotation[:, None]
        l1, l2, l3 = local.view(batch, 5, 3, 3, 3).unbind(2)
        g1 = g0 @ l1
        g2 = g1 @ l2
        g3 = g2 @ l3
        above = torch.stack([g0.expand_as(g1), g1, g2], 2).view(batch, 15, 3, 3)
        turned = torch.stack([g1, g2, g3], 2).view(batch, 15, 3, 3)
        bones = self.bones + torch.einsum("bk,kja->bja", betas, self.bone_shapes)
        steps = (above @ bones[..., None])[..., 0].view(batch, 5, 3, 3)
        joints = wrist[:, None] + steps.cumsum(2).view(batch, 15, 3)
        tips = self.skin_tips(rotation, wrist, local, turned, joints, betas)
        points = torch.cat([joints, tips], 1)  # (B, 20, 3)
        everything = torch.cat([wrist[:, None], points], 1)
        if not slopes:
            return everything, None
        world = (above[:, :, None] @ axes[..., None])[..., 0].view(batch, 45, 3)
        world = world[:, self.free_slot]  # (B, 27, 3)
        grown = torch.einsum("bjac,kjc->bkja", above, self.bone_shapes)
        grown = grown.view(batch, 10, 5, 3, 3).cumsum(3)
        last = turned.view(batch, 5, 3, 3, 3)[:, _FINGER_OF_TIP, 2]
        tip_grown = grown[:, :, _FINGER_OF_TIP, 2]
        tip_grown = tip_grown + torch.einsum("btac,ktc->bkta", last, self.tip_shapes)
        by_shape = torch.cat([grown.reshape(batch, 10, 15, 3), tip_grown], 2)
        pivots = joints[:, self.free_joint].unbind(-1)  # each (B, 27)
        lever = [p[:, None] - o[..., None] for p, o in zip(points.unbind(-1), pivots, strict=True)]
        axis = [a[..., None] * self.moves for a in world.unbind(-1)]  # each (B, 27, 20)
        arms = [a[:, None] for a in (points - wrist[:, None]).unbind(-1)]  # each (B, 1, 20)
        slopes = []
        for i in range(3):  # one coordinate at a time keeps the memory contiguous
            j, k = (i + 1) % 3, (i + 2) % 3
            slope = torch.zeros(batch, 43, 21, dtype=points.dtype, device=points.device)
            slope[:, j : j + 1, 1:] = arms[k]
            slope[:, k : k + 1, 1:] = -arms[j]
            slope[:, 3 + i] = 1
            slope[:, ANGLES, 1:] = axis[j] * lever[k] - axis[k] * lever[j]
            slope[:, SHAPE, 1:] = by_shape[..., i]
            slopes.append(slope)
        return everything, slopes

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

    def skin_tips(self, rotation, wrist, local, turned, joints, betas) -> Tensor:
        """Fingertip vertices (B, 5, 3), as the model skins them."""
        batch = len(betas)
        eye = torch.eye(3, dtype=local.dtype, device=local.device)
        rest = self.rest + torch.einsum("bk,kja->bja", betas, self.rest_shapes)
        shaped = self.tip_rest + torch.einsum("bk,kta->bta", betas, self.tip_rest_shapes)
        shaped = shaped + ((local - eye).view(batch, 135) @ self.tip_poses).view(batch, 5, 3)
        maps = torch.cat([rotation[:, None], turned], 1)  # (B, 16, 3, 3)
        placed = torch.cat([wrist[:, None], joints], 1)
        offset = placed - (maps @ rest[..., None])[..., 0]
        blended = torch.einsum("tj,bjac->btac", self.tip_weights, maps)
        shift = torch.einsum("tj,bja->bta", self.tip_weights, offset)
        return (blended @ shaped[..., None])[..., 0] + shift

    def pose(self, rotation: Tensor, angles: Tensor) -> Tensor:
        """Axis-angle pose (B, 16, 3) of the right hand, to be handed to a flat-mean model."""
        local, _ = self.local(angles)
        return matrix_to_axis_angle(torch.cat([rotation[:, None], local], 1))


def _moved_points() -> np.ndarray:
    """(27, 20) ones where an angle moves a point: later joints of its finger, and the tip."""
    moved = np.zeros((len(FREE), 20))
    for k, (joint, _) in enumerate(FREE):
        finger, level = divmod(int(joint), 3)
        moved[k, 3 * finger + level + 1 : 3 * finger + 3] = 1
        moved[k, 15 + _FINGER_OF_TIP.index(finger)] = 1
    return moved


def _proportions(bones, moves, spread: float = 0.08) -> np.ndarray:
    """Precision (10, 10) of the shape under consistent bone lengths.

    All bones of a hand are longer or shorter by about the same factor: relative lengths about
    their mean, linear in the shape, deviate by ``spread``.   bones: (20, 3) metres at rest.
    moves: (10, 20, 3), how they move with the shape.
    """
    relative = np.einsum("ja,kja->jk", bones, moves) / (bones**2).sum(1)[:, None]  # (20, 10)
    relative = (relative - relative.mean(0)) / spread
    return relative.T @ relative
