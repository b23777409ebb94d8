"""What a training step costs beside the network's own forward and backward; both in one process.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio. ``theirs`` is a plain fp32 eager loop
written the way Youtubehand's is: no autocast, unfused Adam, its losses one after another.
"""

import tempfile
import time

import numpy as np
import torch

from hand_lib import manners, optimisation, training
from hand_lib.config import make_config
from hand_lib.losses import total_loss
from hand_lib.network import build_network
from hand_lib.sampling import builtin_hierarchy


def rows(image_size=64, batch_size=32, backbone="regnety_002", repeats=15, device=None) -> list:
    """Both comparisons for our decoder and for Youtubehand's, medians of interleaved repeats."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = []
    for decoder in ("coarse_to_fine", "youtubehand"):
        config = make_config(
            "small", image_size=image_size, batch_size=batch_size, backbone=backbone,
            decoder=decoder, ema_decay=0.99,
        )  # fmt: skip
        found += step_costs(config, device, repeats)
    return found


def step_costs(config, device, repeats=15) -> list[dict]:
    """Whole step against the network alone, and against the plain loop, for one config."""
    network = build_network(config, builtin_hierarchy(factors=config.factors))
    network = network.to(device, memory_format=torch.channels_last).train()
    batch = random_batch(config, device)
    bf16 = optimisation.uses_bf16(config.precision, device)
    optimizer = optimisation.make_optimizer(network, config)
    average = optimisation.AveragedWeights(network, config.ema_decay)
    plain = torch.optim.Adam(network.parameters(), lr=1e-4, foreach=False, fused=False)
    accelerator = manners.make_accelerator(config)
    task = training.Task(network, None, {}, lambda p, b, n, c: total_loss(p, b, n.mesh, c))

    def whole():
        loss, _ = training._gradients(batch, network, network, task, config, accelerator, bf16)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(1)
        return float(loss)

    def alone():
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = network(batch["image"])
        sum(value.sum() for value in _outputs(prediction)).backward()
        network.zero_grad(set_to_none=True)

    def eager():
        total, _ = total_loss(network(batch["image"]), batch, network.mesh, config)
        plain.zero_grad()
        total.backward()
        plain.step()
        return total.item()

    times = interleaved({"whole": whole, "alone": alone, "eager": eager}, repeats, device)
    name = f"{config.backbone}, {config.decoder}, {config.image_size} px, batch {config.batch_size}"
    pairs = (("step / forward + backward", "alone"), ("step / plain fp32 loop", "eager"))
    return [
        {"what": f"{what}: {name}", "ours_ms": 1000 * times["whole"],
         "theirs_ms": 1000 * times[other], "ratio": times["whole"] / times[other],
         "images_per_s": config.batch_size / times["whole"], "device": device.type}
        for what, other in pairs
    ]  # fmt: skip


def loop_shares(config, task) -> dict:
    """Share of a real run's time that goes into waiting for data, logging and the step itself."""
    with tempfile.TemporaryDirectory() as folder:
        result = training.train(config, f"{folder}/run", task=task, say=lambda line: None)
    spent = result.metrics["seconds_spent"]
    loop = spent["waiting"] + spent["step"] + spent["logging"]
    return {name: spent[name] / loop for name in ("waiting", "logging", "step")}


def random_batch(config, device) -> dict:
    """A batch of noise with the shapes of a real one, on the device."""
    generator = np.random.default_rng(0)
    count, size = config.batch_size, config.image_size
    vertices = generator.normal(0, 0.05, (count, 778, 3)).astype(np.float32)
    known = np.ones(count, bool)
    arrays = {
        "image": generator.integers(0, 255, (count, 3, size, size), dtype=np.uint8),
        "vertices": vertices, "joints": vertices[:, :21], "joints_2d": vertices[:, :21, :2] * 10,
        "has_vertices": known, "has_joints": known, "valid_2d": np.ones((count, 21), bool),
    }  # fmt: skip
    batch = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
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


def _outputs(prediction):
    values = [prediction.vertices, prediction.joints_2d, *prediction.levels]
    return values + ([] if prediction.joints_2d_direct is None else [prediction.joints_2d_direct])
