"""What the networks cost and learn: ours beside Youtubehand's, and ways to convolve on spirals.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio (theirs over ours).
``compare_decoders()`` trains both on the same images in the same order; from a shell:

    python -m hand_lib.benchmarks_network 100000 0 1        # images, then seeds
"""

import functools
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hand_lib.decoders import SparseRows, apply_rows, spiral_project
from hand_lib.geometry import align_similarity
from hand_lib.losses import YOUTUBEHAND_LOSSES, LossConfig, total_loss
from hand_lib.network import NetworkConfig, build_network
from hand_lib.synthetic import SyntheticHands

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
            decoder: build_network(
                NetworkConfig(encoder, False, decoder, widths, image_size=image_size), hierarchy
            )
            for decoder, widths in (("coarse_to_fine", None), ("youtubehand", channels))
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

    returns dicts of what and one column per pair of channels; all ways agree to 1e-4.
    """
    hierarchy = hierarchy or _hierarchy()
    spirals = torch.as_tensor(hierarchy.spirals(27)[0])
    table = [{"what": what} for what in _SPIRAL_WAYS]
    for channels in ((128, 64), (64, 3), (64, 64)):
        x = torch.randn(len(spirals), batch, channels[0], requires_grad=True)
        weight = torch.randn(channels[1], 27 * channels[0]) / 40
        weight.requires_grad_(True)
        answers = [way(x, spirals, weight) for way in _SPIRAL_WAYS.values()]
        for answer in answers[1:]:
            torch.testing.assert_close(answer, answers[0], atol=1e-4, rtol=1e-4)
        for row, way in zip(table, _SPIRAL_WAYS.values(), strict=True):
            spent = []
            for _ in range(repeats):
                start = time.perf_counter()
                way(x, spirals, weight).sum().backward()
                spent.append(1000 * (time.perf_counter() - start))
            row[f"{channels[0]} to {channels[1]} channels"] = statistics.median(spent)
    return table


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


def compare_decoders(
    images: int = 100_000,
    seeds=(0, 1),
    encoder: str = "regnety_002",
    image_size: int = 64,
    channels=QUARTER_CHANNELS,
    batch_size: int = 32,
    learning_rates=(2e-3, 1e-3),
    test_images: int = 1000,
    reports: int = 5,
    hierarchy=None,
    device: str = "cpu",
    say=None,
) -> list[dict]:
    """Train our decoder and Youtubehand's side by side: same encoder, images and order.

    Each batch is drawn once and taken by both. Each has its own losses and the learning rate of
    ``learning_rates`` (ours, Youtubehand's), AdamW, 100 warm-up steps and a cosine to zero, bf16
    autocast; errors are measured on other hands: wrist-relative as they come (plain), after
    similarity alignment (PA), and of the projected joints in pixels.
    returns ``reports`` dicts per run: decoder, seed, images, plain_mm, pa_mm, joints_px, seconds.
    """
    hierarchy = hierarchy or _hierarchy()
    makers = {}
    for decoder, widths, losses, rate in (
        ("coarse_to_fine", None, LossConfig(), learning_rates[0]),
        ("youtubehand", channels, YOUTUBEHAND_LOSSES, learning_rates[1]),
    ):
        config = NetworkConfig(encoder, False, decoder, widths, image_size=image_size)
        makers[decoder] = (functools.partial(build_network, config, hierarchy), losses, rate)
    return _side_by_side(
        makers, images, seeds, image_size, batch_size, test_images, reports, device, say
    )


def ablate_decoder(
    images: int = 100_000,
    seeds=(0,),
    encoder: str = "regnety_002",
    image_size: int = 64,
    parts=None,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    test_images: int = 1000,
    reports: int = 1,
    hierarchy=None,
    device: str = "cpu",
    say=None,
) -> list[dict]:
    """Train our decoder whole and with one part taken out, on the same images in the same order.

    parts: names of ``ABLATIONS``, by default all.   returns what ``compare_decoders`` returns, with
    the part's name as ``decoder``.
    """
    hierarchy = hierarchy or _hierarchy()
    config = NetworkConfig(encoder, image_size=image_size)
    unknown = set(parts or ()) - set(ABLATIONS)
    if unknown:
        raise ValueError(f"unknown parts {sorted(unknown)}; known: {', '.join(ABLATIONS)}")

    def build(change):
        network = build_network(config, hierarchy)
        change(network.decoder)
        return network

    makers = {
        name: (functools.partial(build, change), losses, learning_rate)
        for name, (change, losses) in ABLATIONS.items()
        if parts is None or name in parts
    }
    return _side_by_side(
        makers, images, seeds, image_size, batch_size, test_images, reports, device, say
    )


def _side_by_side(
    makers, images, seeds, image_size, batch_size, test_images, reports, device, say
) -> list[dict]:
    """Train several networks in step.   makers: name -> (builder, losses, learning rate)."""
    test = SyntheticHands(image_size, 1_000_003, test_images)
    test = test.render_batch(np.arange(test_images))
    steps, table = max(images // batch_size, 1), []
    for seed in seeds:
        data = SyntheticHands(image_size, seed, steps * batch_size)
        runs = []
        for name, (build, losses, rate) in makers.items():
            torch.manual_seed(seed)
            network = build().to(device, memory_format=torch.channels_last)
            learnt = [p for p in network.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=1e-2)
            runs.append({"decoder": name, "network": network, "optimizer": optimizer,
                         "losses": losses, "rate": rate, "seconds": 0.0})  # fmt: skip
        for step in range(steps):
            batch = data.render_batch(np.arange(step * batch_size, (step + 1) * batch_size))
            batch = {k: torch.as_tensor(v).to(device) for k, v in batch.items()}
            pace = min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
            for run in runs:
                _learn(run, batch, pace)
            if (step + 1) * reports // steps > step * reports // steps:
                for run in runs:
                    row = {
                        "decoder": run["decoder"],
                        "seed": seed,
                        "images": (step + 1) * batch_size,
                    }
                    row |= evaluate(run["network"], test) | {"seconds": run["seconds"]}
                    table.append(row)
                    if say:
                        say(row)
    return table


def evaluate(network, test: dict, batch_size: int = 100) -> dict:
    """Vertex errors in mm, plain and aligned, and of the projected joints in px.   test: arrays."""
    was_training = network.training
    network.eval()
    vertices, joints_2d = [], []
    with torch.no_grad():
        for i in range(0, len(test["image"]), batch_size):
            images = torch.as_tensor(test["image"][i : i + batch_size]).to(network.faces.device)
            out = network(images)
            vertices.append(out.vertices.cpu().double().numpy())
            joints_2d.append(out.joints_2d.cpu().numpy())
    network.train(was_training)
    vertices, joints_2d = np.concatenate(vertices), np.concatenate(joints_2d)
    true = test["vertices"].astype(np.float64)
    aligned = align_similarity(vertices, true)[0]
    pixels = np.linalg.norm(joints_2d - test["joints_2d"], axis=2) * test["image"].shape[-1] / 2
    return {
        "plain_mm": 1000 * float(np.linalg.norm(vertices - true, axis=2).mean()),
        "pa_mm": 1000 * float(np.linalg.norm(aligned - true, axis=2).mean()),
        "joints_px": float(pixels.mean()),
    }


def _learn(run, batch, pace):
    start = time.perf_counter()
    network, optimizer = run["network"], run["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = run["rate"] * pace
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16):
        prediction = network(images)
    loss, _ = total_loss(prediction, batch, network.mesh, run["losses"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run["seconds"] += time.perf_counter() - start


def _nothing(decoder):
    """The whole decoder."""


def _average_grid(decoder):
    decoder.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=4))


@torch.no_grad()
def _no_look_up(decoder):
    decoder.seen.requires_grad_(False).weight.zero_()


@torch.no_grad()
def _no_correction(decoder):
    decoder.correct.requires_grad_(False).weight.zero_()
    decoder.correct.bias.zero_()


@torch.no_grad()
def _no_canonical(decoder):
    decoder.trust.requires_grad_(False).weight.zero_()
    decoder.trust.bias.fill_(-30.0)


ABLATIONS = {
    "whole": (_nothing, LossConfig()),
    "image averaged, not a grid": (_average_grid, LossConfig()),
    "no features looked up in the image": (_no_look_up, LossConfig()),
    "no correction along spirals": (_no_correction, LossConfig()),
    "no canonical hand": (_no_canonical, LossConfig(loss_canonical=0.0, loss_rotation=0.0)),
    "no losses at coarse levels": (_nothing, LossConfig(loss_levels=0.0)),
    "no edge and normal losses": (_nothing, LossConfig(loss_edges=0.0, loss_normals=0.0)),
}
"""Part taken out -> what is done to the decoder, and the losses."""


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
    from hand_lib.hand_model import HandModel
    from hand_lib.sampling import builtin_hierarchy

    return builtin_hierarchy(HandModel.builtin(), (2, 2, 2, 2))


def _decoder_forward(network, images):
    if not hasattr(network, "bench_features"):
        network.bench_features = network.encoder(network.normalize(images)).detach()
    with torch.no_grad():
        network.decoder(network.bench_features)


def _forward(network, images):
    with torch.no_grad():
        network(images)


def _encoder_step(network, images):
    network.encoder(network.normalize(images)).sum().backward()


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
    losses = LossConfig() if ours else YOUTUBEHAND_LOSSES
    total_loss(network(images), batch, network.mesh, losses)[0].backward()


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


if __name__ == "__main__":
    count, *given = (int(value) for value in sys.argv[1:]) if sys.argv[1:] else (100_000,)
    compare_decoders(count, given or (0, 1), say=lambda row: sys.stdout.write(f"{row}\n"))
