"""Mesh decoders: spiral convolution, up-sampling, Youtubehand's decoder and ours.

Features of vertices are (V, B, C), vertices first, so that a gather copies long rows. Spirals
(V, K) hold for each vertex itself and the next K - 1 vertices around it, so a spiral convolution
is a gather and one Linear (SpiralNet++, Gong 2019).
"""

import numpy as np
import torch
from scipy.sparse import identity
from torch import Tensor, nn
from torch.nn import functional

from .rotations import rotation_6d_to_matrix
from .similarity import lay_onto


class SparseRows(nn.Module):
    """A fixed sparse matrix applied to vertices: few entries per row, as gather and weight.

    matrix: SciPy sparse (rows, columns).   forward: (columns, B, C) -> (rows, B, C).
    """

    def __init__(self, matrix):
        super().__init__()
        matrix = matrix.tocsr()
        matrix.sort_indices()
        counts = np.diff(matrix.indptr)
        index = np.zeros((matrix.shape[0], max(int(counts.max()), 1)), np.int64)
        weight = np.zeros(index.shape, np.float32)
        row = np.repeat(np.arange(matrix.shape[0]), counts)
        place = np.arange(len(row)) - np.repeat(matrix.indptr[:-1], counts)
        index[row, place], weight[row, place] = matrix.indices, matrix.data
        self.columns = matrix.shape[1]
        self.register_buffer("index", torch.from_numpy(index))
        self.register_buffer("weight", torch.from_numpy(weight))

    def forward(self, x: Tensor) -> Tensor:
        rows, entries = self.index.shape
        if x.shape[0] != self.columns:
            raise ValueError(f"expected ({self.columns}, B, C), found {tuple(x.shape)}")
        gathered = x.index_select(0, self.index.T.reshape(-1)).unflatten(0, (entries, rows))
        return (gathered * self.weight.T[:, :, None, None].to(x.dtype)).sum(0)


class DenseRows(nn.Module):
    """The same for a matrix with many entries per row and few channels: one product.

    matrix: SciPy sparse (rows, columns).   forward: (B, columns, C) -> (B, rows, C), in float32.
    """

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", torch.as_tensor(matrix.toarray().astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        return apply_rows(self.matrix, x)


def apply_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (rows, columns) times each of x (B, columns, C) -> (B, rows, C), never in bf16."""
    with torch.autocast(x.device.type, enabled=False):
        flat = x.float().transpose(1, 2).reshape(-1, x.shape[1])
        return (flat @ matrix.T).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


class SpiralConv(nn.Module):
    """Linear over the concatenated features of a vertex's spiral, neighbour 0 first.

    y_v = W [x_s(v,0), ..., x_s(v,K-1)] + b = sum_k (x W_k)_s(v,k) + b.   forward: (V, B, C_in) ->
    (V, B, C_out). Where channels shrink, the second form is faster: multiply every vertex by all
    W_k, then gather and sum the smaller products (``benchmarks_network.spiral_variants``).
    """

    def __init__(self, channels_in: int, channels_out: int, spirals: np.ndarray):
        super().__init__()
        spirals = np.asarray(spirals, np.int64)
        self.register_buffer("spirals", torch.tensor(spirals))
        self.layer = nn.Linear(spirals.shape[1] * channels_in, channels_out)
        self.project_first = channels_out < channels_in

    def forward(self, x: Tensor) -> Tensor:
        vertices, length = self.spirals.shape
        if x.shape[0] != vertices:
            raise ValueError(f"expected ({vertices}, B, C), found {tuple(x.shape)}")
        if self.project_first:
            return spiral_project(x, self.spirals, self.layer.weight) + self.layer.bias
        gathered = x.transpose(0, 1).index_select(1, self.spirals.reshape(-1))
        return self.layer(gathered.unflatten(1, (vertices, length)).flatten(2)).transpose(0, 1)


def spiral_project(x: Tensor, spirals: Tensor, weight: Tensor) -> Tensor:
    """sum_k (x W_k)_s(v,k): products first, then one gather that sums.

    x: (V, B, C_in).   spirals: (V, K).   weight: (C_out, K C_in).   returns (V, B, C_out).
    """
    vertices, length = spirals.shape
    batch, channels_in = x.shape[1:]
    per_tap = weight.unflatten(1, (length, channels_in)).permute(1, 0, 2).flatten(0, 1)
    products = functional.linear(x, per_tap).unflatten(2, (length, -1))
    products = products.permute(2, 0, 1, 3).reshape(length * vertices, -1)
    index = spirals + vertices * torch.arange(length, device=spirals.device)
    if torch.compiler.is_compiling() or x.device.type != "cpu" or products.dtype != torch.float32:
        summed = products[index.T].sum(0)
    else:
        summed = functional.embedding_bag(index, products, mode="sum")
    return summed.unflatten(1, (batch, -1))


class UpsampleBlock(nn.Module):
    """Up-sample, spiral convolution, ReLU: one step of Youtubehand's decoder."""

    def __init__(self, channels_in, channels_out, up, spirals):
        super().__init__()
        self.up = SparseRows(up)
        self.conv = SpiralConv(channels_in, channels_out, spirals)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(self.up(x)))


class YoutubehandDecoder(nn.Module):
    """Youtubehand's decoder and camera head, layer for layer (its model/network.py).

    latent (B, C) -> Linear -> coarsest level, then per level up-sample, spiral convolution, ReLU,
    and a last spiral convolution to coordinates; the camera is three Linears on the vertices.
    channels: fine to coarse, one per step.
    """

    def __init__(self, latent: int, hierarchy, channels, spirals):
        super().__init__()
        steps = len(hierarchy.up)
        if len(channels) != steps:
            raise ValueError(
                f"the hierarchy has {steps} up-sampling steps, so channels should be {steps} "
                f"numbers, fine to coarse; found {tuple(channels)}"
            )
        wide = [channels[-1], *reversed(channels)]
        self.coarsest = hierarchy.up[-1].shape[1]
        self.latent = nn.Linear(latent, self.coarsest * channels[-1])
        self.blocks = nn.ModuleList(
            UpsampleBlock(wide[i], wide[i + 1], hierarchy.up[-1 - i], spirals[steps - 1 - i])
            for i in range(steps)
        )
        self.last = SpiralConv(channels[0], 3, spirals[0])
        self.cam_pred_1 = nn.Linear(hierarchy.up[0].shape[0], 150)
        self.cam_pred_2 = nn.Linear(150, 3)
        self.cam_pred_3 = nn.Linear(3, 1)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """latent: (B, C).   returns vertices (B, V, 3) metres and camera (B, 3) s, tx, ty."""
        x = self.latent(latent).unflatten(1, (self.coarsest, -1)).transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        vertices = self.last(x).transpose(0, 1).float()
        camera = self.cam_pred_3(self.cam_pred_2(self.cam_pred_1(vertices.transpose(1, 2))))
        return {"vertices": vertices, "camera": camera.squeeze(2).float()}


class SpiralMix(nn.Module):
    """Residual block on vertices: normalise, depthwise spiral, pointwise expansion.

    x + W2 gelu(W1 sum_k w_k * norm(x)_s(v,k)): the separable form of a spiral convolution costs
    K C + 2 r C^2 multiplications per vertex instead of K C^2.
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
        vertices, length = self.spirals.shape
        y = self.norm(x).index_select(0, self.spirals.T.reshape(-1))
        y = (y.unflatten(0, (length, vertices)) * self.taps.to(y.dtype)[:, None, None]).sum(0)
        return x + self.narrow(functional.gelu(self.widen(y)))


class CoarseToFineDecoder(nn.Module):
    """Our decoder: an image grid to 2-D joints, a coarse mesh, and finer meshes, each a correction.

    The grid (B, C, h, w) is reduced to ``grid`` x ``grid`` cells and flattened, not averaged, so
    that places in the image stay apart. Two Linears make a latent; from it come the 2-D joints and
    the vertices of a coarse level as offsets from the mean mesh. Features looked up in the grid
    where those vertices project, mixed along spirals, correct them; fixed affine matrices bring
    them to the finest level.

    In training the corrected mesh is what the losses see. In use the canonical hand, which knows
    no direction and so keeps its shape where the direction is in doubt, is laid onto the corrected
    mesh by the best similarity motion: place, turn and size from one, shape from the other.
    """

    def __init__(
        self,
        channels_in: int,
        hierarchy,
        regressor: Tensor,
        spirals,
        channels=(128, 512, 64),
        grid: int = 4,
    ):
        super().__init__()
        reduced, latent, width = channels
        sizes = [len(v) for v in hierarchy.vertices]
        start = max((i for i, n in enumerate(sizes) if n >= 90), default=0)
        self.register_buffer("mean", _tensor(hierarchy.vertices[start]))
        self.reduce = nn.Sequential(
            nn.Conv2d(channels_in, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.trunk = nn.Sequential(
            nn.Linear(reduced * grid * grid, latent, bias=False),
            nn.BatchNorm1d(latent),
            nn.ReLU(),
            nn.Linear(latent, latent),
            nn.ReLU(),
        )
        self.coarse = nn.Linear(latent, sizes[start] * 3)
        self.joints_2d = nn.Linear(latent, 42)
        self.canonical = nn.Linear(latent, sizes[start] * 3)
        self.turn = nn.Linear(latent, 6)
        self.trust = nn.Linear(latent, 1)
        joints = regressor @ _tensor(hierarchy.vertices[0])
        self.register_buffer("mean_canonical", self.mean @ palm_frame(joints))
        up = identity(sizes[0], format="csr")
        for i in range(start):
            up = up @ hierarchy.up[i]
        self.up = DenseRows(up)
        self.level = start
        self.context = nn.Linear(latent, width)
        self.seen = nn.Linear(reduced, width)
        self.place = nn.Linear(5, width)
        self.who = nn.Parameter(torch.randn(sizes[start], width) * 0.5)
        self.mix = nn.Sequential(*(SpiralMix(width, spirals[start]) for _ in range(2)))
        self.correct = nn.Linear(width, 3)
        self.register_buffer("regressor", regressor.clone(), persistent=False)
        for layer in (self.coarse, self.canonical):
            nn.init.normal_(layer.weight, std=1e-3)
        nn.init.zeros_(self.correct.weight)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        grid = self.reduce(features)
        latent = self.trunk(self.pool(grid).flatten(1))
        joints_2d = self.joints_2d(latent).float().unflatten(1, (21, 2))
        direct = self.mean + 0.1 * self.coarse(latent).float().unflatten(1, (-1, 3))
        canonical = self.canonical(latent).float().unflatten(1, (-1, 3))
        canonical = self.mean_canonical + 0.1 * canonical
        rotation = rotation_6d_to_matrix(self.turn(latent).float())
        with torch.autocast(direct.device.type, enabled=False):
            placed = canonical @ rotation.transpose(1, 2)
        coarse = torch.lerp(direct, placed, self.trust(latent).float().sigmoid()[:, None])
        camera = fit_weak_perspective(apply_rows(self.regressor, self.up(coarse)), joints_2d)
        seen_at = camera[:, None, :1] * (coarse[..., :2] + camera[:, None, 1:])
        seen = look_up(grid, seen_at.detach())
        place = torch.cat([10 * coarse, seen_at], 2).detach()
        x = self.seen(seen) + self.place(place) + self.context(latent)[:, None] + self.who
        x = self.correct(self.mix(x.transpose(0, 1).contiguous())).transpose(0, 1)
        finer = coarse + 0.1 * x.float()
        shown = finer if self.training else lay_onto(canonical, finer)
        return {
            "vertices": self.up(shown),
            "camera": None,
            "joints_2d_direct": joints_2d,
            "levels": (direct, coarse, finer),
            "canonical": canonical,
            "rotation": rotation,
        }


def palm_frame(joints: Tensor) -> Tensor:
    """Axes of the palm: wrist to middle knuckle, towards the index side, out of the palm.

    joints: (..., 21, 3), any unit.   returns (..., 3, 3), the axes as columns: a rotation that
    turns palm coordinates into those of ``joints``.
    """
    along = joints[..., 9, :] - joints[..., 0, :]
    across = joints[..., 5, :] - joints[..., 17, :]
    return rotation_6d_to_matrix(torch.cat([along, across], -1))


def look_up(grid: Tensor, places: Tensor) -> Tensor:
    """Bilinear look-up in a feature map, as two hat functions and one product.

    grid: (B, C, H, W) covering the crop.   places: (B, N, 2) crop units; outside gives the border.
    returns (B, N, C).
    """
    height, width = grid.shape[2:]
    x = ((places[..., 0] + 1) * width - 1) / 2
    y = ((places[..., 1] + 1) * height - 1) / 2
    columns = torch.arange(width, device=grid.device, dtype=x.dtype)
    rows = torch.arange(height, device=grid.device, dtype=y.dtype)
    hat_x = (1 - (x.clamp(0, width - 1)[..., None] - columns).abs()).clamp_min(0)
    hat_y = (1 - (y.clamp(0, height - 1)[..., None] - rows).abs()).clamp_min(0)
    weight = (hat_y[..., :, None] * hat_x[..., None, :]).flatten(2)
    return weight.to(grid.dtype) @ grid.flatten(2).transpose(1, 2)


def fit_weak_perspective(points: Tensor, points_2d: Tensor) -> Tensor:
    """Camera that carries the centre and the spread of 3-D points onto those of 2-D points.

    s = sqrt(sum |u - mean u|^2 / sum |x - mean x|^2), t = mean u / s - mean x: positive and finite
    for any prediction, and the least-squares camera wherever one fits exactly.
    points: (B, N, 3) metres.   points_2d: (B, N, 2) crop units.   returns (B, 3) s, tx, ty.
    """
    flat = points[..., :2]
    center, center_2d = flat.mean(1, keepdim=True), points_2d.mean(1, keepdim=True)
    spread = (flat - center).square().sum((1, 2)).clamp_min(1e-6)
    spread_2d = (points_2d - center_2d).square().sum((1, 2)).clamp_min(1e-6)
    scale = (spread_2d / spread).sqrt()
    shift = center_2d[:, 0] / scale[:, None] - center[:, 0]
    return torch.cat([scale[:, None], shift], 1)


def _tensor(array) -> Tensor:
    return torch.as_tensor(np.asarray(array, np.float32))
