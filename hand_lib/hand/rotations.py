"""Rotations in torch: axis-angle, matrices, the continuous 6-D form; finite gradients."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, R = I + a [v] + b [v]^2 with a = sin t / t and b = (1 - cos t) / t^2.

    axis_angle: (..., 3) radians.   returns (..., 3, 3).
    Below 1e-2 rad (float64: 1e-4) a and b come from their Taylor series, so that value and
    gradient are exact at zero.
    """
    squared = (axis_angle * axis_angle).sum(-1, keepdim=True)
    small = squared < (1e-4 if axis_angle.dtype != torch.float64 else 1e-8)
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    a = torch.where(small, 1 - squared / 6 + squared * squared / 120, angle.sin() / angle)
    b = torch.where(small, 0.5 - squared / 24 + squared * squared / 720, (1 - angle.cos()) / safe)
    x, y, z = axis_angle.unbind(-1)
    a, b = a[..., 0], b[..., 0]
    bx, by, bz = b * x, b * y, b * z
    ax, ay, az = a * x, a * y, a * z
    bxy, bxz, byz = bx * y, bx * z, by * z
    bxx, byy, bzz = bx * x, by * y, bz * z
    rows = (
        1 - byy - bzz, bxy - az, bxz + ay,
        bxy + az, 1 - bxx - bzz, byz - ax,
        bxz - ay, byz + ax, 1 - bxx - byy,
    )  # fmt: skip
    return torch.stack(rows, -1).reshape(*axis_angle.shape[:-1], 3, 3)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle of rotation matrices, through the quaternion with the largest component.

    matrix: (..., 3, 3).   returns (..., 3) radians, angle in [0, pi].
    """
    m = matrix.reshape(-1, 3, 3)
    d0, d1, d2 = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    # four times the outer product of the quaternion (w, x, y, z) with itself, rows
    w = torch.stack(
        [
            1 + d0 + d1 + d2,
            m[:, 2, 1] - m[:, 1, 2],
            m[:, 0, 2] - m[:, 2, 0],
            m[:, 1, 0] - m[:, 0, 1],
        ],
        1,
    )
    x = torch.stack(
        [w[:, 1], 1 + d0 - d1 - d2, m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0]], 1
    )
    y = torch.stack([w[:, 2], x[:, 2], 1 - d0 + d1 - d2, m[:, 1, 2] + m[:, 2, 1]], 1)
    z = torch.stack([w[:, 3], x[:, 3], y[:, 3], 1 - d0 - d1 + d2], 1)
    outer = torch.stack([w, x, y, z], 1)  # (N, 4, 4)
    best = outer.diagonal(dim1=1, dim2=2).argmax(1)
    quaternion = normalize(outer[torch.arange(len(m), device=m.device), best], dim=1)
    quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
    vector = quaternion[:, 1:]
    sine = vector.norm(dim=1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[:, :1])
    small = sine < 1e-6
    factor = torch.where(small, torch.full_like(sine, 2.0), angle / sine.clamp_min(1e-12))
    return (vector * factor).reshape(*matrix.shape[:-2], 3)


def rotation_6d_to_matrix(six: Tensor) -> Tensor:
    """First two columns, orthonormalised (Zhou et al., CVPR 2019).   (..., 6) -> (..., 3, 3)."""
    first = normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """The first two columns, one after the other.   matrix: (..., 3, 3) -> (..., 6)."""
    return matrix[..., :2].swapaxes(-1, -2).reshape(*matrix.shape[:-2], 6)
