"""What the networks cost: ours beside Youtubehand's, and ways to convolve on spirals.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio (theirs over ours); what the two learn
from the same images is measured by ``benchmarks_accuracy``.
"""

import functools
import statistics
import time
import warnings

import numpy as np
import torch
from torch.nn import functional as F

from hand_lib.network.decoders import SparseRows, apply_rows, spiral_project
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network
from hand_lib.training.config import make_config

QUARTER_CHANNELS = (16, 32, 64, 128)
"""Youtubehand's channel widths by four: its full decoder learns from 5 images/s on a CPU."""


def rows(
    hierarchy=None,
    batch: int = 16,
    image_size: int = 224,
    repeats: int = 5,
    encoder: str = "resnet18",
    channels=(64, 128, 256, 512),
) -> list[dict]:
    """Decoder forward, network forward and training step, ours against Youtubehand's; milliseconds.

    Both have the same encoder and run on one thread of one process; channels are Youtubehand's. The
    training step's row holds as ``encoder_ratio`` our step over the encoder's own.
    """
    hierarchy = hierarchy or _hierarchy()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images = torch.randint(0, 256, (batch, 3, image_size, image_size), dtype=torch.uint8)
        networks = {
            preset: build_network(
                make_config(
                    preset,
                    backbone=encoder,
                    pretrained=False,
                    channels=widths,
                    image_size=image_size,
                    view_size=0,
                ),
                hierarchy,
            )
            for preset, widths in (("full", None), ("youtubehand", channels))
        }
        ours, theirs = networks.values()
        table = []
        for what, run in (
            ("decoder forward", _decoder_forward),
            ("network forward", _forward),
            ("training step: forward, loss, backward", _step),
        ):
            calls = [functools.partial(run, network, images) for network in (ours, theirs)]
            ours_ms, theirs_ms = _milliseconds(calls, repeats)
            ratio = theirs_ms / ours_ms
            row = {"what": what, "ours_ms": ours_ms, "theirs_ms": theirs_ms, "ratio": ratio}
            table.append(row)
        calls = [functools.partial(run, ours, images) for run in (_step, _encoder_step)]
        step_ms, encoder_ms = _milliseconds(calls, repeats)
        table[-1]["encoder_ratio"] = step_ms / encoder_ms
    finally:
        torch.set_num_threads(threads)
    return table


def spiral_variants(hierarchy=None, batch: int = 16, repeats: int = 5) -> list[dict]:
    """Ways to compute one spiral convolution (length 27, finest level), forward + backward, ms.

    returns dicts of what and one column per pair of channels; all ways agree to 1e-4. The column of
    MB is what the way with 64 to 64 channels keeps from forward to backward.
    """
    hierarchy = hierarchy or _hierarchy()
    spirals = torch.as_tensor(hierarchy.spirals(27)[0])
    ways = {what: functools.partial(way, spirals=spirals) for what, way in _SPIRAL_WAYS.items()}
    return _time_convolutions(ways, len(spirals), batch, repeats)


def folded_variants(hierarchy=None, batch: int = 16, repeats: int = 5) -> list[dict]:
    """Ways to up-sample and convolve, from the finest but one level to the finest, as above.

    Folded: the products are made on the coarse level, where there are half as many vertices, and
    one gather weights and sums what up-sampling and spirals would.
    """
    hierarchy = hierarchy or _hierarchy()
    spirals = torch.as_tensor(hierarchy.spirals(27)[0])
    up = SparseRows(hierarchy.up[0].tocsr())
    folded, blend = up.index[spirals], up.weight[spirals]
    ways = {
        "up-sample, then gather, concatenate, one Linear": lambda x, weight: _gather_linear(
            up(x), spirals, weight
        ),
        "up-sample, then products and a summing gather": lambda x, weight: spiral_project(
            up(x), spirals, weight
        ),
        "up-sampling folded into the summing gather": lambda x, weight: spiral_project(
            x, folded, weight, blend
        ),
    }
    return _time_convolutions(ways, hierarchy.up[0].shape[1], batch, repeats)


def _time_convolutions(ways, vertices: int, batch: int, repeats: int) -> list[dict]:
    """Forward + backward of ways (x, weight) -> y that agree, for three pairs of channels."""
    table = [{"what": what} for what in ways]
    for channels in ((128, 64), (64, 3), (64, 64)):
        x = torch.randn(vertices, batch, channels[0], requires_grad=True)
        weight = torch.randn(channels[1], 27 * channels[0]) / 40
        weight.requires_grad_(True)
        calls = [functools.partial(way, x=x, weight=weight) for way in ways.values()]
        answers = [call() for call in calls]
        for answer in answers[1:]:
            torch.testing.assert_close(answer, answers[0], atol=1e-4, rtol=1e-4)
        there_and_back = [lambda call=call: call().sum().backward() for call in calls]
        spent = _milliseconds(there_and_back, repeats)
        for row, call, milliseconds in zip(table, calls, spent, strict=True):
            row[f"{channels[0]} to {channels[1]} channels"] = milliseconds
            row[KEPT_MB] = kept_megabytes(call)  # of the last pair in the end
    return [row | {KEPT_MB: row.pop(KEPT_MB)} for row in table]


KEPT_MB = "kept for backward, MB"


def kept_megabytes(call) -> float:
    """Memory of the tensors that a computation keeps for its backward pass, each counted once."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = call()
    del result
    return sum(kept.values()) / 1e6


def upsampling_variants(hierarchy=None, batch: int = 16, repeats: int = 9) -> list[dict]:
    """Ways to up-sample from the finest but one level, forward, ms, for 3 and for 128 channels."""
    hierarchy = hierarchy or _hierarchy()
    matrix = hierarchy.up[0].tocsr()
    dense = torch.as_tensor(matrix.toarray().astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its CSR tensors beta
        sparse = dense.to_sparse_csr()
    gather = SparseRows(matrix)
    ways = {
        "gather and weight": gather,
        "dense product": lambda x: apply_rows(dense, x.transpose(0, 1)),
        "sparse product (CSR)": lambda x: sparse @ x.flatten(1),
    }
    table = [{"what": what} for what in ways]
    for channels in (3, 128):
        x = torch.randn(matrix.shape[1], batch, channels)
        for row, way in zip(table, ways.values(), strict=True):
            spent = []
            for _ in range(repeats):
                start = time.perf_counter()
                way(x)
                spent.append(1000 * (time.perf_counter() - start))
            row[f"{channels} channels"] = statistics.median(spent)
    return table


def _gather_linear(x, spirals, weight):
    gathered = x.transpose(0, 1).index_select(1, spirals.reshape(-1))
    gathered = gathered.unflatten(1, tuple(spirals.shape)).flatten(2)
    return F.linear(gathered, weight).transpose(0, 1)


def _sum_of_products(x, spirals, weight):
    length = spirals.shape[1]
    taps = weight.unflatten(1, (length, -1))
    return sum(F.linear(x.index_select(0, spirals[:, k]), taps[:, k]) for k in range(length))


_SPIRAL_WAYS = {
    "gather, concatenate, one Linear": _gather_linear,
    "sum over neighbours of products": _sum_of_products,
    "products first, then a summing gather": spiral_project,
}


def _hierarchy():
    from hand_lib.hand.model import HandModel, builtin_hierarchy

    return builtin_hierarchy(HandModel.builtin(), (2, 2, 2, 2))


def _decoder_forward(network, images):
    if not hasattr(network, "bench_features"):
        features = network.encoder(network.normalize(images))
        whole = isinstance(features, torch.Tensor)
        network.bench_features = (
            features.detach() if whole else tuple(part.detach() for part in features)
        )
    with torch.no_grad():
        network.decoder(network.bench_features)


def _forward(network, images):
    with torch.no_grad():
        network(images)


def _encoder_step(network, images):
    features = network.encoder(network.normalize(images))
    (features if isinstance(features, torch.Tensor) else features[-1]).sum().backward()


def _step(network, images):
    count, vertices = len(images), network.regressor.shape[1]
    batch = {
        "vertices": torch.zeros(count, vertices, 3)
        + torch.linspace(0, 0.1, 3 * vertices).view(-1, 3),
        "joints": torch.zeros(count, 21, 3) + torch.linspace(0, 0.1, 63).view(21, 3),
        "joints_2d": torch.zeros(count, 21, 2),
        "has_vertices": torch.ones(count, dtype=torch.bool),
        "has_joints": torch.ones(count, dtype=torch.bool),
        "valid_2d": torch.ones(count, 21, dtype=torch.bool),
    }
    ours = type(network.decoder).__name__ == "CoarseToFineDecoder"
    config = make_config("full" if ours else "youtubehand")
    total_loss(network(images), batch, network, config)[0].backward()


def _milliseconds(calls, repeats) -> list[float]:
    """Median time of each call, taken in turns so that a busy machine slows all of them alike."""
    for call in calls:
        call()
    spent = [[] for _ in calls]
    for _ in range(repeats):
        for times, call in zip(spent, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))
    return [statistics.median(times) for times in spent]
