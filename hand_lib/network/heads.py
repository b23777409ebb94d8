"""What is read cell by cell from the image: where each joint is, and which piece of hand is where.

Feature maps of several strides are joined top down (Lin et al. 2017, feature pyramids). From the
joined map come one heat map per joint, whose soft arg-max is the joint's place (Sun et al. 2018,
integral regression), and a dense correspondence map: in each cell, how much of it shows the hand,
and the rest position of the piece of skin that is seen there (as in DensePose, Guler et al. 2018).
Both are learnt from labels in every cell, which teaches a fresh encoder far faster than the mesh
alone does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ImageHead(nn.Module):
    """Feature maps, fine to coarse -> joined map, heat maps, correspondence map.

    channels: of the feature maps.   width: of the joined map.
    """

    def __init__(self, channels, width: int = 64, joints: int = 21):
        super().__init__()
        self.width = width
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.heatmaps = nn.Conv2d(width, joints, 1)
        self.correspondence = nn.Conv2d(width, 4, 1)

    def forward(self, maps) -> tuple[Tensor, Tensor, Tensor]:
        """maps: (B, C, h, w) each, fine to coarse.

        returns the joined map (B, width, h, w), heat maps (B, J, h, w), logits over the cells, and
        correspondence (B, 4, h, w): logit of the hand's share, then the rest position.
        """
        x = self.lateral[-1](maps[-1])
        for layer, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            x = functional.interpolate(x, size=finer.shape[2:]) + layer(finer)
        x = self.smooth(x)
        return x, self.heatmaps(x).float(), self.correspondence(x).float()


def cell_centres(count: int, device=None) -> Tensor:
    """(count,) crop units: the middles of ``count`` cells across the crop."""
    return (torch.arange(count, device=device, dtype=torch.float32) * 2 + 1) / count - 1


def soft_argmax(heatmaps: Tensor) -> Tensor:
    """u = sum_c softmax(heatmap)_c u_c over the middles u_c of the cells.

    heatmaps: (B, J, h, w) logits.   returns (B, J, 2) crop units.
    """
    height, width = heatmaps.shape[2:]
    share = heatmaps.flatten(2).softmax(2).unflatten(2, (height, width))
    x = share.sum(2) @ cell_centres(width, heatmaps.device)
    y = share.sum(3) @ cell_centres(height, heatmaps.device)
    return torch.stack([x, y], 2)


def heatmap_spread(heatmaps: Tensor, joints_2d: Tensor) -> Tensor:
    """How far the heat maps leave a joint open: mean standard deviation over the hand's extent.

    heatmaps: (B, J, h, w) logits.   joints_2d: (B, J, 2), in units of the same crop.
    returns (B,); no unit, so that crops of any size and turn compare.
    """
    share = heatmaps.flatten(2).softmax(2).unflatten(2, heatmaps.shape[2:])
    across, down = (cell_centres(n, heatmaps.device).square() for n in heatmaps.shape[:1:-1])
    variance = share.sum(2) @ across + share.sum(3) @ down - soft_argmax(heatmaps).square().sum(2)
    extent = (joints_2d.amax(1) - joints_2d.amin(1)).amax(1).clamp_min(1e-3)
    return variance.clamp_min(0).sqrt().mean(1) / extent


def bilinear_sample(grid: Tensor, points: Tensor) -> Tensor:
    """Bilinear look-up in a feature map, as two hat functions and one product.

    grid: (B, C, H, W) covering the crop.   points: (B, N, 2) crop units; outside gives the border.
    returns (B, N, C).
    """
    height, width = grid.shape[2:]
    x = ((points[..., 0] + 1) * width - 1) / 2
    y = ((points[..., 1] + 1) * height - 1) / 2
    columns = torch.arange(width, device=grid.device, dtype=x.dtype)
    rows = torch.arange(height, device=grid.device, dtype=y.dtype)
    hat_x = (1 - (x.clamp(0, width - 1)[..., None] - columns).abs()).clamp_min(0)
    hat_y = (1 - (y.clamp(0, height - 1)[..., None] - rows).abs()).clamp_min(0)
    weight = (hat_y[..., :, None] * hat_x[..., None, :]).flatten(2)
    return weight.to(grid.dtype) @ grid.flatten(2).transpose(1, 2)


def correspondence_summary(correspondence: Tensor, cells: int = 8) -> Tensor:
    """What the correspondence map says, on a coarse grid: (B, 4, h, w) -> (B, 4 cells^2)."""
    share = correspondence[:, :1].sigmoid()
    visible = torch.cat([share, share * correspondence[:, 1:]], 1)
    return functional.adaptive_avg_pool2d(visible, cells).flatten(1)


def heatmap_loss(heatmaps: Tensor, joints_2d: Tensor, valid: Tensor, spread: float = 0.1) -> Tensor:
    """Cross entropy -sum_c t_c log softmax(heatmap)_c with Gaussians t at the joints.

    heatmaps: (B, J, h, w) logits.   joints_2d: (B, J, 2) crop units.   valid: (B, J) bool; joints
    outside the crop do not count.   spread: standard deviation of the Gaussian, crop units.
    """
    height, width = heatmaps.shape[2:]
    x = (joints_2d[..., :1] - cell_centres(width, heatmaps.device)) / spread
    y = (joints_2d[..., 1:] - cell_centres(height, heatmaps.device)) / spread
    target = torch.exp(-0.5 * (y.square()[..., :, None] + x.square()[..., None, :])).flatten(2)
    target = target / target.sum(2, keepdim=True).clamp_min(1e-8)
    entropy = -(target * heatmaps.flatten(2).log_softmax(2)).sum(2)
    inside = valid & (joints_2d.abs() < 1).all(2)
    return torch.where(inside, entropy, 0.0).sum() / inside.sum().clamp_min(1)


def correspondence_loss(correspondence: Tensor, true: Tensor | None) -> Tensor:
    """Binary cross entropy of the hand's share plus L1 between rest positions where the hand is.

    correspondence: (B, 4, h, w) as ``ImageHead`` gives it.   true: (B, 4, n, n), labels of the same
    kind; a hand whose map is empty has none and does not count. None: zero, and so is its
    gradient, which processes that train together wait for.
    """
    if true is None:
        return 0 * correspondence.sum()
    true = true.float()
    if correspondence.shape[2:] != true.shape[2:]:
        correspondence = functional.adaptive_avg_pool2d(correspondence, true.shape[2:])
    share = true[:, 0]
    known = (share.flatten(1).amax(1) > 0).float()
    entropy = functional.binary_cross_entropy_with_logits(
        correspondence[:, 0], share, reduction="none"
    )
    entropy = (entropy.mean((1, 2)) * known).sum() / known.sum().clamp_min(1)
    distance = (correspondence[:, 1:] - true[:, 1:]).abs().mean(1) * share
    return entropy + distance.sum() / share.sum().clamp_min(1)
