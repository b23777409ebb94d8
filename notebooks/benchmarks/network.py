"""What the networks cost: ours beside Youtubehand's.

What the two learn from the same images is measured by ``accuracy``.
"""

import functools

import torch

from benchmarks.stopwatch import few_threads, milliseconds, row
from hand_lib.hand.model import builtin_hierarchy
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
    hierarchy = hierarchy or builtin_hierarchy()
    with few_threads():
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
            table.append(row(what, *milliseconds(calls, repeats)))
        calls = [functools.partial(run, ours, images) for run in (_step, _encoder_step)]
        step_ms, encoder_ms = milliseconds(calls, repeats)
        table[-1]["encoder_ratio"] = step_ms / encoder_ms
    return table


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
