"""Spiral convolution, mesh un-pooling, and Youtubehand's decoder that is made of them.

Features of vertices are (V, B, C), vertices first, so that a gather copies long rows. Spirals
(V, K) hold for each vertex itself and the next K - 1 vertices around it; a spiral convolution is a
gather and one Linear (SpiralNet++, Gong 2019).
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Unpooling(nn.Module):
    """A sparse up-sampling matrix as padded rows: which E coarse vertices, how much of each.

    matrix: SciPy sparse (V, M), for ``SpiralConv``.
    """

    def __init__(self, matrix):
        super().__init__()
        matrix = matrix.tocsr()
        matrix.sort_indices()
        counts = np.diff(matrix.indptr)
        index = np.zeros((matrix.shape[0], max(int(counts.max()), 1)), np.int64)
        weight = np.zeros(index.shape, np.float32)
        row = np.repeat(np.arange(matrix.shape[0]), counts)
        column = np.arange(len(row)) - np.repeat(matrix.indptr[:-1], counts)
        index[row, column], weight[row, column] = matrix.indices, matrix.data
        self.register_buffer("index", torch.from_numpy(index))  # (V, E)
        self.register_buffer("weight", torch.from_numpy(weight))  # (V, E)


class SpiralConv(nn.Module):
    """Linear over the concatenated features of a vertex's spiral, neighbour 0 first.

    y_v = W [x_s(v,0), ..., x_s(v,K-1)] + b = sum_k (W_k x)_s(v,k) + b, computed as the second form:
    every vertex times every W_k, then one gather that sums for each vertex the products of its
    spiral. Where channels shrink, as in decoders, that moves far less memory than the first form.
    """

    def __init__(self, channels_in: int, channels_out: int, spirals: np.ndarray):
        super().__init__()
        spirals = np.asarray(spirals, np.int64)
        self.register_buffer("spirals", torch.tensor(spirals))
        self.layer = nn.Linear(spirals.shape[1] * channels_in, channels_out)

    def forward(self, x: Tensor, unpooling: Unpooling | None = None) -> Tensor:
        """x: (V, B, C_in) -> (V, B, C_out).

        unpooling: then x is (M, B, C_in) on the coarser mesh, a neighbour is its blend of coarse
        vertices, and the products are made on that mesh, half as many as after up-sampling.
        """
        coarse, hands, channels = x.shape
        vertices, length = self.spirals.shape
        taps = self.layer.weight.unflatten(1, (length, channels)).permute(
            1, 2, 0
        )  # W_k, transposed
        products = x.reshape(1, -1, channels) @ taps  # (K, M B, C_out)
        products = products.float().reshape(length * coarse, -1)
        index, blend = self.spirals[..., None], None
        if unpooling is not None:
            index, blend = unpooling.index[self.spirals], unpooling.weight[self.spirals].flatten(1)
        index = index + coarse * torch.arange(length, device=x.device)[:, None]  # (V, K, E)
        y = functional.embedding_bag(
            index.flatten(1), products, mode="sum", per_sample_weights=blend
        )
        return y.unflatten(1, (hands, -1)) + self.layer.bias


class UnpoolConv(nn.Module):
    """Up-sample, spiral convolution, ReLU: one step of Youtubehand's decoder."""

    def __init__(self, channels_in: int, channels_out: int, up, spirals: np.ndarray):
        super().__init__()
        self.up = Unpooling(up)
        self.conv = SpiralConv(channels_in, channels_out, spirals)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x, self.up))


PUBLISHED_CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "hrnet_w64": (256, 512, 1024, 2048),
}
"""Channel widths, fine to coarse, of the three networks that Youtubehand publishes."""


class YoutubehandDecoder(nn.Module):
    """Youtubehand's decoder and camera head, layer for layer.

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
            UnpoolConv(wide[i], wide[i + 1], hierarchy.up[-1 - i], spirals[steps - 1 - i])
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
        vertices = self.last(x).transpose(0, 1)
        camera = self.cam_pred_3(self.cam_pred_2(self.cam_pred_1(vertices.transpose(1, 2))))
        return {"vertices": vertices, "camera": camera.squeeze(2).float()}
