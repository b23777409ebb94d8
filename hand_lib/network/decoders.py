"""Layers on meshes (spiral convolution, up-sampling) and Youtubehand's decoder.

Features of vertices are (V, B, C), vertices first, so that a gather copies long rows. Spirals
(V, K) hold for each vertex itself and the next K - 1 vertices around it, so a spiral convolution
is a gather and one Linear (SpiralNet++, Gong 2019).
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


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


def spiral_project(
    x: Tensor, spirals: Tensor, weight: Tensor, blend: Tensor | None = None
) -> Tensor:
    """sum_k (x W_k)_s(v,k): products first, then one gather that sums.

    x: (M, B, C_in).   spirals: (V, K) vertices of x; or (V, K, E) with ``blend`` (V, K, E), where a
    neighbour is the sum of E vertices of x times their blend, as up-sampling makes it.
    weight: (C_out, K C_in).   returns (V, B, C_out).
    """
    length = spirals.shape[1]
    vertices, batch, channels_in = x.shape
    per_tap = weight.unflatten(1, (length, channels_in)).permute(1, 0, 2).flatten(0, 1)
    products = functional.linear(x, per_tap).unflatten(2, (length, -1))
    products = products.permute(2, 0, 1, 3).reshape(length * vertices, -1)
    tap = vertices * torch.arange(length, device=spirals.device)
    index = spirals + (tap if blend is None else tap[:, None])
    index, blend = index.flatten(1), None if blend is None else blend.flatten(1)
    if _can_sum_bags(products):
        summed = functional.embedding_bag(index, products, mode="sum", per_sample_weights=blend)
    else:
        gathered = products[index.T]
        summed = (gathered if blend is None else gathered * blend.T[..., None]).sum(0)
    return summed.unflatten(1, (batch, -1))


def _can_sum_bags(x: Tensor) -> bool:
    """Whether ``embedding_bag`` gathers and sums best: in float32 on a CPU, not while compiling."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype == torch.float32


class UpsampleBlock(nn.Module):
    """Up-sample, spiral convolution, ReLU: one step of Youtubehand's decoder.

    From four hands on, on a CPU in float32, up-sampling is folded into the convolution's gather:
    the products are made on the coarse level, half as many, and no up-sampled features are kept;
    about twice as fast (``benchmarks_network.folded_variants``).
    """

    def __init__(self, channels_in, channels_out, up, spirals):
        super().__init__()
        self.up = SparseRows(up)
        self.conv = SpiralConv(channels_in, channels_out, spirals)
        for name, array in (("folded", self.up.index), ("blend", self.up.weight)):
            self.register_buffer(name, array[self.conv.spirals], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        autocast = torch.is_autocast_enabled(x.device.type)
        if x.shape[1] < 4 or autocast or not _can_sum_bags(x):
            return functional.relu(self.conv(self.up(x)))
        y = spiral_project(x, self.folded, self.conv.layer.weight, self.blend)
        return functional.relu(y + self.conv.layer.bias)


def published_channels(encoder: str) -> tuple[int, ...]:
    """Channel widths, fine to coarse, that Youtubehand published with an encoder."""
    wide = encoder in ("resnet50", "hrnet_w64")
    return (256, 512, 1024, 2048) if wide else (64, 128, 256, 512)


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
