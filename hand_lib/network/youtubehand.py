"""Youtubehand: spiral convolution, mesh un-pooling, its decoder, and its published checkpoints.

Features of vertices are (V, B, C), vertices first, so that a gather copies long rows. Spirals
(V, K) hold for each vertex itself and the next K - 1 vertices around it; a spiral convolution is a
gather and one Linear (SpiralNet++, Gong 2019). FORMATS of its files: its model/network.py.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hand_lib.network.encoders import find_tensors, read_state_dict, without_prefix


class Unpooling(nn.Module):
    """A sparse up-sampling matrix as padded rows: which E coarse vertices, how much of each.

    matrix: SciPy sparse (V, M).   forward: (M, B, C) -> (V, B, C).
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

    def forward(self, x: Tensor) -> Tensor:
        return (x[self.index] * self.weight[..., None, None].to(x.dtype)).sum(1)


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


def load_youtubehand_state_dict(network: nn.Module, state_dict: dict | str | Path) -> list[str]:
    """Copy a Youtubehand checkpoint into a ``decoder="youtubehand"`` network.

    state_dict: its names to tensors, maybe under ``model_state_dict``, or the path of
    ``state_dict.bin``.   The encoder may stand under ``backbone.``, ``en_layer.`` or both.
    returns the names of the file that have no place here (batch counters, a classifier that this
    encoder does not keep), so that nothing vanishes unsaid.
    raises ValueError listing what is missing, surplus or of the wrong shape; then nothing changes.
    """
    if not hasattr(network.decoder, "cam_pred_1"):
        raise TypeError(
            "Youtubehand checkpoints fit networks with decoder='youtubehand', "
            f"found {type(network.decoder).__name__}"
        )
    if isinstance(state_dict, str | Path):
        state_dict = read_state_dict(state_dict)
    given = without_prefix(find_tensors(state_dict, "checkpoint"), ["de_layers.0.weight"])
    names = youtubehand_names(network)
    own = network.state_dict()
    loaded, missing, wrong, used = {}, [], [], set()
    for ours, theirs in names.items():
        found = [name for name in theirs if name in given]
        used.update(found)
        if not found:
            if not ours.endswith("num_batches_tracked") and ".net.fc." not in ours:
                missing.append(theirs[0])
            continue
        for name in found:
            if given[name].shape != own[ours].shape:
                expected, shape = tuple(own[ours].shape), tuple(given[name].shape)
                wrong.append(f"{name}: expected {expected}, found {shape}")
        if len(found) == 2 and not _equal(given[found[0]], given[found[1]]):
            wrong.append(f"{found[0]} and {found[1]} should be the same tensor, and differ")
        loaded[ours] = given[found[0]]
    surplus = [name for name in given if name not in used]
    ignored = [name for name in surplus if _is_classifier(name)]
    surplus = [name for name in surplus if name not in ignored]
    problems = [
        f"{len(list_)} {title}: {', '.join(list_[:5])}{', ...' if len(list_) > 5 else ''}"
        for title, list_ in (
            ("missing", missing), ("surplus", surplus), ("wrong", wrong),
        )
        if list_
    ]  # fmt: skip
    if problems:
        raise ValueError(
            "the checkpoint does not fit this network: " + "; ".join(problems) + ". Channels, "
            "encoder, spiral length and hierarchy must be those it was trained with"
        )
    network.load_state_dict(loaded, strict=False)
    return ignored


def youtubehand_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The weights under Youtubehand's names, encoder entries doubled as in its own files."""
    own = network.state_dict()
    return {name: own[ours] for ours, both in youtubehand_names(network).items() for name in both}


def youtubehand_names(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Our name of each learnt tensor (and batch statistic) -> its names in a checkpoint.

    The fixed arrays (spirals, sampling matrices, regressor) are in no checkpoint of Youtubehand.
    """
    learnt = set(dict(network.named_parameters()))
    names = {}
    for ours in network.state_dict():
        if ours.startswith("encoder.net."):
            rest = ours.removeprefix("encoder.net.")
            names[ours] = (f"backbone.{rest}", f"en_layer.{rest}")
        elif ours.startswith("decoder.") and ours in learnt:
            names[ours] = (_decoder_name(ours.removeprefix("decoder."), network),)
    return names


def _decoder_name(name: str, network: nn.Module) -> str:
    if name.startswith("latent."):
        return name.replace("latent", "de_layers.0")
    if name.startswith("blocks."):
        _, block, rest = name.split(".", 2)
        return f"de_layers.{int(block) + 1}.{rest}"
    if name.startswith("last."):
        return name.replace("last", f"de_layers.{len(network.decoder.blocks) + 1}")
    return name


def _is_classifier(name: str) -> bool:
    return name.endswith(("classifier.weight", "classifier.bias", "fc.weight", "fc.bias"))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))
