"""What a training step costs beside the network's own forward and backward, and a plain loop.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio (theirs / ours, as in ``benchmarks``);
``gpu_table()`` is the text that belongs beside a GPU's name. The plain loop is written the way
Youtubehand's is: fp32 throughout, pictures that come as normalised floats, NCHW, spirals gathered
before the product, unfused Adam, every loss fetched each step for a meter.

    python -m benchmarks.training          # the table of this machine's GPU
"""

import copy
import dataclasses
import functools
import sys
import time

import numpy as np
import torch

from benchmarks import stopwatch as benchmarks
from hand_lib.data.crops import CELLS, HandCrops
from hand_lib.data.loader import HandLoader
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network
from hand_lib.network.spiral_conv import SpiralConv, UnpoolConv
from hand_lib.training.config import make_config
from hand_lib.training.runtime import device_name, faster_in_bf16
from hand_lib.training.setup import make_optimizer, update_average

DECODERS = ("coarse_to_fine", "youtubehand")


def rows(image_size=64, batch_size=32, backbone="regnety_002", repeats=15, device=None) -> list:
    """Both comparisons for our decoder and for Youtubehand's, medians of interleaved repeats."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = []
    for decoder in DECODERS:
        config = make_config(
            "small", image_size=image_size, batch_size=batch_size, backbone=backbone,
            pretrained=False, decoder=decoder, ema_decay=0.99,
        )  # fmt: skip
        found += step_costs(config, device, repeats)
    return found


def gpu_table(
    image_size=224, batch_size=64, backbone="resnet18", repeats=30, workers=8, device=None
) -> str:
    """Speed and memory of training on a GPU, with its name; any device may stand in for one.

    The last line is what data generation delivers: ``workers`` processes that paint pictures.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = rows(image_size, batch_size, backbone, repeats, device)
    found.append(data_rate(image_size, batch_size, workers))
    heading = f"{device_name(device)}; torch {torch.__version__}"
    if device.type != "cuda":
        heading += "; no CUDA GPU at hand"
    return f"{heading}\n{benchmarks.table(found)}"


def data_rate(image_size=224, batch_size=64, workers=0, batches=20) -> dict:
    """How fast endless synthetic pictures come out of the loader, as a row for the table."""
    hands = SyntheticHands(image_size, seed=0, count=batch_size * (batches + 4))
    data = HandCrops(hands, image_size)
    stream = HandLoader(data, batch_size, workers=workers).stream()
    next(stream)  # the loader's processes start and compile
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    seconds = (time.perf_counter() - start) / batches
    stream.close()
    what = f"data generation: {image_size} px, batch {batch_size}, {workers} processes"
    return {"what": what, "ours_ms": 1000 * seconds, "theirs_ms": None,
            "images_per_s": batch_size / seconds}  # fmt: skip


def step_costs(config, device, repeats=15) -> list[dict]:
    """Whole step against the network alone, and against the plain loop, for one config."""
    network = build_network(config, builtin_hierarchy(factors=config.factors))
    plain = plain_loop(copy.deepcopy(network).to(device), config, device)
    network = network.to(device, memory_format=torch.channels_last).train()
    batch = random_batch(config)
    if device.type == "cuda":
        batch = {name: value.pin_memory() for name, value in batch.items()}
    images = batch["image"].to(device).contiguous(memory_format=torch.channels_last)
    bf16 = faster_in_bf16(network, images)
    optimizer = make_optimizer(network, config)
    average = copy.deepcopy(network).requires_grad_(False).eval()

    def whole():  # a step of ``training.loop.fit``
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = network(moved["image"].contiguous(memory_format=torch.channels_last))
        loss, _ = total_loss(prediction, moved, network, config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, network, config.ema_decay, 1)
        return float(loss.detach())

    def alone():
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = network(images)
        sum(value.sum() for value in _outputs(prediction)).backward()
        network.zero_grad(set_to_none=True)

    peak = peak_memory_mb(whole, device)
    times = interleaved({"whole": whole, "alone": alone, "plain": plain}, repeats, device)
    name = f"{config.backbone}, {config.decoder}, {config.image_size} px, batch {config.batch_size}"
    pairs = (("step / forward + backward", "alone"), ("step / plain fp32 loop", "plain"))
    return [
        {"what": f"{what}: {name}", "ours_ms": 1000 * times["whole"],
         "theirs_ms": 1000 * times[other], "ratio": times[other] / times["whole"],
         "images_per_s": config.batch_size / times["whole"], "peak_mb": peak}
        for what, other in pairs
    ]  # fmt: skip


def _gathered(module, x):
    """A spiral convolution as Youtubehand computes it: gather, concatenate, one Linear."""
    conv = module.conv if isinstance(module, UnpoolConv) else module
    x = module.up(x) if isinstance(module, UnpoolConv) else x
    y = conv.layer(x.transpose(0, 1)[:, conv.spirals].flatten(2)).transpose(0, 1)
    return torch.relu(y) if isinstance(module, UnpoolConv) else y


def plain_loop(network, config, device):
    """A step of the plain loop on a copy of the network.   returns a function without arguments."""
    for module in network.train().modules():
        if isinstance(module, UnpoolConv | SpiralConv):
            module.forward = functools.partial(_gathered, module)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, foreach=False, fused=False)
    batch = random_batch(config)
    batch["image"] = batch["image"].contiguous().float() / 255

    def step():
        moved = {name: value.to(device) for name, value in batch.items()}
        total, parts = total_loss(network(moved["image"]), moved, network, config)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item(), {name: part.item() for name, part in parts.items()}

    return step


def peak_memory_mb(function, device) -> int | None:
    """Most GPU memory that a call takes, what was taken before included; None without a GPU."""
    if device.type != "cuda":
        function()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return round(torch.cuda.max_memory_allocated(device) / 2**20)


def random_batch(config) -> dict:
    """A batch of noise with the shapes of a real one."""
    generator = np.random.default_rng(0)
    count, size = config.batch_size, config.view_size or config.image_size
    vertices = generator.normal(0, 0.05, (count, 778, 3)).astype(np.float32)
    known = np.ones(count, bool)
    arrays = {
        "image": generator.integers(0, 255, (count, 3, size, size), dtype=np.uint8),
        "vertices": vertices, "joints": vertices[:, :21], "joints_2d": vertices[:, :21, :2] * 10,
        "has_vertices": known, "has_joints": known, "valid_2d": np.ones((count, 21), bool),
        "correspondence": generator.random((count, 4, CELLS, CELLS)).astype(np.float16),
    }  # fmt: skip
    batch = {name: torch.from_numpy(value) for name, value in arrays.items()}
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def interleaved(functions: dict, repeats: int, device) -> dict[str, float]:
    """Median seconds of each function, called in turns so that noise hits them alike."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 2):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def _wait(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _outputs(prediction) -> list:
    """Everything that a network predicts, so that its backward pass is a whole one."""
    fields = [getattr(prediction, field.name) for field in dataclasses.fields(prediction)]
    values = [value for field in fields for value in (field if type(field) is tuple else [field])]
    return [value for value in values if isinstance(value, torch.Tensor) and value.requires_grad]


if __name__ == "__main__":
    sys.stdout.write(gpu_table() + "\n")
