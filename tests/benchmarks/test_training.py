"""The benchmark of the training step measures what it says, on tiny settings."""

import time

import torch
from benchmarks import training as benchmarks

from hand_lib.hand.model import builtin_hierarchy
from hand_lib.network.model import build_network
from hand_lib.training.config import make_config

CPU = torch.device("cpu")


def test_the_plain_loop_learns_from_the_batch_it_measures():
    some = {"image_size": 64, "batch_size": 4, "backbone": "regnety_002", "pretrained": False}
    config = make_config("small", **some)
    batch = benchmarks.random_batch(config)
    assert batch["image"].shape == (4, 3, 64, 64) and batch["image"].dtype == torch.uint8
    assert batch["vertices"].shape == (4, 778, 3) and batch["valid_2d"].all()
    network = build_network(config, builtin_hierarchy(factors=config.factors))
    step = benchmarks.plain_loop(network, config, CPU)
    losses = [step()[0] for _ in range(6)]
    assert losses[-1] < losses[0] and set(step()[1]) >= {"vertices", "joints", "edges"}


def test_a_table_names_the_device_and_what_data_generation_delivers(monkeypatch):
    row = {"what": "step", "ours_ms": 1.0, "theirs_ms": 4.0, "images_per_s": 4000.0, "peak_mb": 7}
    monkeypatch.setattr(benchmarks, "rows", lambda *options: [row])
    text = benchmarks.gpu_table(64, 4, "regnety_002", repeats=1, workers=0, device="cpu")
    name, heads, step, *generation = text.splitlines()
    assert name.startswith("cpu: ") and name.endswith("no CUDA GPU at hand")
    assert "images per s" in heads and "peak mb" in heads and "4.00 x" in step
    assert "data generation: 64 px, batch 4, 0 processes" in generation[0]


def test_only_a_gpu_has_a_peak_of_its_own(monkeypatch):
    calls = []
    assert benchmarks.peak_memory_mb(lambda: calls.append(1), CPU) is None and calls == [1]
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.clear())
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    gpu = torch.device("cuda")
    assert benchmarks.peak_memory_mb(lambda: calls.append(2), gpu) == 3 and calls == [2]


def test_interleaved_times_are_medians_of_each_function():
    times = benchmarks.interleaved(
        {"slow": lambda: time.sleep(0.02), "fast": lambda: None}, repeats=3, device=CPU
    )
    assert 0.02 <= times["slow"] < 0.2 and times["fast"] < 0.01
