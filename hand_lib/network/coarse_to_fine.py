"""Our decoder: from feature maps of the image to a coarse mesh and to finer ones.

What is read cell by cell comes first. Feature maps of several strides are joined top down (Lin et
al. 2017, feature pyramids). From the joined map come one heat map per joint, whose soft arg-max is
the joint's place (Sun et al. 2018, integral regression), and a dense correspondence map: in each
cell, how much of it shows the hand, and the rest position of the piece of skin that is seen there
(as in DensePose, Guler et al. 2018). Both are learnt from labels in every cell, which teaches a
fresh encoder far faster than the mesh alone does.
"""

import functools
import operator

import numpy as np
import torch
from scipy.sparse import identity
from torch import Tensor, nn
from torch.nn import functional

from hand_lib.hand.kinematics import rotation_6d_to_matrix
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.render.camera import fit_weak_perspective, project_weak_perspective


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
    share = heatmaps.flatten(2).softmax(2).unflatten(2, heatmaps.shape[2:])
    across, down = (cell_centres(n, heatmaps.device) for n in heatmaps.shape[:1:-1])
    return torch.stack([share.sum(2) @ across, share.sum(3) @ down], 2)


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


class SpiralMix(nn.Module):
    """Residual block on vertices: normalise, depthwise spiral, pointwise expansion.

    x + W2 gelu(W1 sum_k w_k * norm(x)_s(v,k)): the separable form of a spiral convolution
    (``spiral_conv.SpiralConv``) costs K C + 2 r C^2 multiplications per vertex instead of K C^2.
    A coarse mesh has so few vertices that one small matrix per channel, M_c(v, u) = the sum of
    w_kc over the k with s(v,k) = u, beats gathering K neighbours where there are gradients.
    forward: (V, B, C) -> (V, B, C).
    """

    def __init__(self, channels: int, spirals: np.ndarray, expansion: int = 2):
        super().__init__()
        self.register_buffer("spirals", torch.tensor(np.asarray(spirals, np.int64)))
        length = spirals.shape[1]
        self.norm = nn.LayerNorm(channels)
        self.taps = nn.Parameter(torch.randn(length, channels) / length**0.5)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if torch.is_grad_enabled():
            vertices = torch.arange(len(self.spirals), device=x.device)
            taken = self.spirals.T[..., None] == vertices  # (K, V, V): whose neighbour k is whom
            mixing = torch.einsum("kc,kvu->cvu", self.taps, taken.to(self.taps.dtype))
            y = (mixing @ y.permute(2, 0, 1)).permute(1, 2, 0)
        else:
            y = (y[self.spirals] * self.taps[:, None]).sum(1)
        return x + self.narrow(functional.gelu(self.widen(y)))


class CoarseToFineDecoder(nn.Module):
    """Feature maps -> heat and correspondence maps -> 2-D joints, a coarse mesh, finer meshes.

    The image head reads the joints' places and the visible skin cell by cell. Its answers, features
    sampled at the joints, and the coarsest map, flattened and not averaged so that places in the
    image stay apart, make a latent; from it come the vertices of a coarse level as offsets from the
    mean mesh: directly, and as a canonical hand in the palm's own frame with its rotation, which a
    gate blends. Features sampled where those vertices project, mixed along spirals, correct them;
    a fixed affine matrix brings them to the finest level.   spiral: its length and dilation.
    """

    def __init__(self, channels_in, hierarchy, regressor: Tensor, spiral, channels):
        super().__init__()
        reduced, latent, width = channels
        sizes = [len(v) for v in hierarchy.vertices]
        level = max((i for i, n in enumerate(sizes) if n >= 90), default=0)
        self.level, count = level, sizes[level]
        self.register_buffer("mean", _tensor(hierarchy.vertices[level]))
        self.head = ImageHead(channels_in)
        self.at_joints = nn.Linear(self.head.width, 24)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels_in[-1], reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        known = reduced * 4 * 4 + 21 * (24 + 2) + 4 * 64
        self.trunk = nn.Sequential(
            nn.Linear(known, latent, bias=False),
            nn.BatchNorm1d(latent),
            nn.ReLU(),
            nn.Linear(latent, latent),
            nn.ReLU(),
        )
        self.coarse = nn.Linear(latent, count * 3)
        self.joints_2d = nn.Linear(latent, 42)
        self.canonical = nn.Linear(latent, count * 3)
        self.turn = nn.Linear(latent, 6)
        self.blend_gate = nn.Linear(latent, 1)
        joints = regressor @ _tensor(hierarchy.vertices[0])
        self.register_buffer("mean_canonical", self.mean @ palm_frame(joints))
        up = functools.reduce(operator.matmul, hierarchy.up[:level], identity(sizes[0]))
        self.register_buffer("up", _tensor(up.toarray()))
        self.global_features = nn.Linear(latent, width)
        self.image_features = nn.Linear(reduced, width)
        self.position_embedding = nn.Linear(5, width)
        self.vertex_embedding = nn.Parameter(torch.randn(count, width) * 0.5)
        spirals = extract_spirals(hierarchy.vertices[level], hierarchy.faces[level], *spiral)
        self.mix = nn.Sequential(*(SpiralMix(width, spirals) for _ in range(2)))
        self.correct = nn.Linear(width, 3)
        self.register_buffer("regressor", regressor.clone(), persistent=False)
        for layer in (self.coarse, self.canonical):
            nn.init.normal_(layer.weight, std=1e-3)
        for layer in (self.correct, self.joints_2d):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.joints_2d.bias)

    def forward(self, maps) -> dict[str, Tensor]:
        """maps: (B, C, h, w) each, fine to coarse.   returns fields of ``Prediction``."""
        joined, heatmaps, correspondence = self.head(maps)
        peaks = soft_argmax(heatmaps)
        at_joints = self.at_joints(bilinear_sample(joined, peaks.detach()))
        grid = self.reduce(maps[-1])
        known = [self.pool(grid).flatten(1), at_joints.flatten(1), peaks.flatten(1).detach()]
        known.append(correspondence_summary(correspondence).detach())
        latent = self.trunk(torch.cat([k.to(grid.dtype) for k in known], 1))
        # the heat maps end at the border of the crop, the correction from the latent does not
        joints_2d = peaks + self.joints_2d(latent).float().unflatten(1, (21, 2))
        direct = self.mean + 0.1 * self.coarse(latent).float().unflatten(1, (-1, 3))
        canonical = self.canonical(latent).float().unflatten(1, (-1, 3))
        canonical = self.mean_canonical + 0.1 * canonical
        rotation = rotation_6d_to_matrix(self.turn(latent).float())
        with torch.autocast(direct.device.type, enabled=False):
            placed = canonical @ rotation.transpose(1, 2)
        gate = self.blend_gate(latent).float().sigmoid()[:, None]
        coarse = torch.lerp(direct, placed, gate)
        finer = coarse + 0.1 * self._correction(coarse, joints_2d, grid, latent).float()
        return {
            "vertices": vertex_matmul(self.up, finer),
            "joints_2d_direct": joints_2d,
            "intermediate": (direct, coarse, finer),
            "canonical": canonical,
            "rotation": rotation,
            "heatmaps": heatmaps,
            "correspondence": correspondence,
        }

    def _correction(self, coarse, joints_2d, grid, latent) -> Tensor:
        """What the image says of each coarse vertex where it projects.   returns (B, Vi, 3) dm."""
        joints = vertex_matmul(self.regressor, vertex_matmul(self.up, coarse))
        camera = fit_weak_perspective(joints, joints_2d)
        projected = project_weak_perspective(coarse, camera)
        position = torch.cat([10 * coarse, projected], 2).detach()
        x = self.image_features(bilinear_sample(grid, projected.detach()))
        x = x + self.position_embedding(position)
        x = x + self.global_features(latent)[:, None] + self.vertex_embedding
        return self.correct(self.mix(x.transpose(0, 1).contiguous())).transpose(0, 1)


def palm_frame(joints: Tensor) -> Tensor:
    """Axes of the palm: wrist to middle knuckle, towards the index side, out of the palm.

    joints: (..., 21, 3), any unit.   returns (..., 3, 3), the axes as columns: a rotation that
    turns palm coordinates into those of ``joints``.
    """
    along = joints[..., 9, :] - joints[..., 0, :]
    across = joints[..., 5, :] - joints[..., 17, :]
    return rotation_6d_to_matrix(torch.cat([along, across], -1))


def vertex_matmul(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (rows, columns) times each of x (B, columns, C) -> (B, rows, C), never in bf16."""
    with torch.autocast(x.device.type, enabled=False):
        flat = x.float().transpose(1, 2).reshape(-1, x.shape[1])
        return (flat @ matrix.T).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def _tensor(array) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))
