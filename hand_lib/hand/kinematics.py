"""Rotations, kinematic chain and skinning of a hand in PyTorch, with finite gradients.

Rotations are axis-angle, matrices or the continuous 6-D form. What ``HandModel`` needs of a whole
batch is laid out for speed: what is small has the batch last, (3, 4, 16, B), so that a product of
two matrices is three long multiplications, not hundreds of tiny ones; what is large, the skin, has
the vertices last.
"""

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import normalize


def axis_angle_to_matrix(axis_angle: Tensor, dim: int = -1) -> Tensor:
    """Rodrigues' formula, R = I + a [v] + b [v]^2 with a = sin t / t and b = (1 - cos t) / t^2.

    axis_angle: (..., 3) radians, its coordinates along ``dim``.   returns (..., 3, 3) in its place.
    Below 1e-2 rad (float64: 1e-4) a and b come from their Taylor series, so that value and
    gradient are exact at zero.
    """
    x, y, z = axis_angle.unbind(dim)
    squared = x * x + y * y + z * z
    small = squared < (1e-4 if axis_angle.dtype != torch.float64 else 1e-8)
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    a = torch.where(small, 1 - squared / 6 + squared * squared / 120, angle.sin() / angle)
    b = torch.where(small, 0.5 - squared / 24 + squared * squared / 720, (1 - angle.cos()) / safe)
    bx, by, bz = b * x, b * y, b * z
    ax, ay, az = a * x, a * y, a * z
    bxy, bxz, byz = bx * y, bx * z, by * z
    bxx, byy, bzz = bx * x, by * y, bz * z
    rows = (
        1 - byy - bzz, bxy - az, bxz + ay,
        bxy + az, 1 - bxx - bzz, byz - ax,
        bxz - ay, byz + ax, 1 - bxx - byy,
    )  # fmt: skip
    return torch.stack(rows, dim).unflatten(dim, (3, 3))


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle of rotation matrices (..., 3, 3): (..., 3) radians, angle in [0, pi], detached."""
    found = Rotation.from_matrix(matrix.detach().double().cpu().reshape(-1, 3, 3).numpy())
    return torch.from_numpy(found.as_rotvec()).to(matrix).view(matrix.shape[:-1])


def rotation_6d_to_matrix(six: Tensor) -> Tensor:
    """First two columns, orthonormalised (Zhou et al., CVPR 2019).   (..., 6) -> (..., 3, 3)."""
    first = normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def chain(root: Tensor, rotations: Tensor, bones: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Forward kinematics of the five fingers at once, three levels deep.

    root: (3, 3, 1, B) rotation of the wrist.   rotations: (3, 3, 15, B) of the others against their
    parents.   bones: (3, 15, B) each joint minus its parent at rest, metres.   start: (3, 1, B)
    where the wrist goes.
    returns rotations (3, 3, 16, B) and joints (3, 16, B) in the frame of the wrist's parent.
    G_j = G_parent R_j,   p_j = p_parent + G_parent (J_j - J_parent).
    """
    batch = rotations.shape[-1]
    # each product also carries the bone to its own joint as the fourth column
    steps = torch.cat([rotations, bones[:, None]], 1).view(3, 4, 5, 3, batch)
    level, levels = root, []
    for step in steps.unbind(3):
        x, y, z = level[:, :3, None].unbind(1)  # columns of the parents' rotations
        a, b, c = step.unbind(0)
        level = torch.addcmul(torch.addcmul(x * a, y, b), z, c)  # (3, 4, 5, B)
        levels.append(level)
    turned, moved = torch.stack(levels, 3).split([3, 1], 1)  # (3, ., 5, 3, B), finger, level
    placed = start[:, None] + moved[:, 0].cumsum(2)
    turned = torch.cat([root, turned.reshape(3, 3, 15, batch)], 2)
    return turned, torch.cat([start, placed.view(3, 15, batch)], 1)


def skin_vertices(maps: Tensor, shaped: Tensor, skin: Tensor) -> Tensor:
    """v = sum_j w_vj (A_j v' + t_j): (B, 3, V).

    maps: (3, 4, 16, B), rows of [A_j | t_j].   shaped: (B, 3, V).   skin: (16, V).
    """
    rows = maps.permute(3, 0, 1, 2).reshape(-1, 16)
    mx, my, mz, points = (rows @ skin).view(len(shaped), 3, 4, -1).unbind(2)  # each (B, 3, V)
    for blend, along in zip((mx, my, mz), shaped[:, :, None].unbind(1), strict=True):
        points = torch.addcmul(points, blend, along)
    return points
