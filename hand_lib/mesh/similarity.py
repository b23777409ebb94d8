"""Best similarity motion between point sets as tensors: differentiable, without an SVD.

The rotation is Horn's unit quaternion (1987): the eigenvector of a symmetric 4 x 4 matrix with the
largest eigenvalue, found by squaring the shifted matrix until only that eigenvector is left. It is
a proper rotation for any input, and only products, so it exports and runs on any device.
"""

import torch
from torch import Tensor

_SQUARINGS = 7


def lay_onto(source: Tensor, target: Tensor) -> Tensor:
    """Rotate, scale and shift each source so that it lies best on its target (least squares).

    source, target: (B, N, 3), the same unit.   returns (B, N, 3). Equals
    ``geometry.align_similarity`` without reflections, wherever the best rotation is unique.
    """
    if source.shape != target.shape or source.shape[-1] != 3:
        raise ValueError(
            f"expected two tensors (B, N, 3) alike, found {tuple(source.shape)} "
            f"and {tuple(target.shape)}"
        )
    with torch.autocast(source.device.type, enabled=False):
        source, target = source.float(), target.float()
        center_s, center_t = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
        a, b = source - center_s, target - center_t
        products = a.transpose(1, 2) @ b  # (B, 3, 3): sum over points of a_i b_j
        rotation = horn_rotation(products)
        spread = a.square().sum((1, 2)).clamp_min(1e-12)
        scale = (rotation * products.transpose(1, 2)).sum((1, 2)) / spread
        return scale[:, None, None] * (a @ rotation.transpose(1, 2)) + center_t


def horn_rotation(products: Tensor) -> Tensor:
    """The rotation R that maximises sum_i b_i . R a_i, from products[j, k] = sum_i a_ij b_ik.

    products: (B, 3, 3).   returns (B, 3, 3), det +1.
    """
    s = products / products.square().sum((1, 2), keepdim=True).clamp_min(1e-24).sqrt()
    trace = s.diagonal(dim1=1, dim2=2).sum(1)
    twist = torch.stack(
        [s[:, 1, 2] - s[:, 2, 1], s[:, 2, 0] - s[:, 0, 2], s[:, 0, 1] - s[:, 1, 0]], 1
    )
    eye = torch.eye(3, device=s.device, dtype=s.dtype)
    lower = s + s.transpose(1, 2) - trace[:, None, None] * eye
    top = torch.cat([trace[:, None], twist], 1)[:, None]
    n = torch.cat([top, torch.cat([twist[:, :, None], lower], 2)], 1)  # (B, 4, 4) symmetric
    power = n + 2 * torch.eye(4, device=s.device, dtype=s.dtype)  # its eigenvalues are positive
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    norms = power.square().sum(1)
    column = norms.argmax(1)[:, None, None].expand(-1, 4, 1)
    quaternion = power.gather(2, column)[..., 0]
    w, x, y, z = (quaternion / quaternion.square().sum(1, keepdim=True).sqrt()).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
