"""The benchmark of the training step measures what it says, on tiny settings."""

import time

import numpy as np
import torch
from toy_training import toy_config, toy_task

from hand_lib import benchmarks_training as benchmarks
from hand_lib.config import make_config

CPU = torch.device("cpu")


def test_a_step_is_compared_with_the_network_alone_and_with_a_plain_loop():
    found = benchmarks.rows(image_size=64, batch_size=4, repeats=1, device="cpu")
    assert [row["what"].split(":")[0] for row in found] == [
        "step / forward + backward", "step / plain fp32 loop",
    ] * 2  # fmt: skip
    for row in found:
        assert row["ratio"] == row["ours_ms"] / row["theirs_ms"] > 0
        assert np.isclose(row["images_per_s"], 4000 / row["ours_ms"])
    assert "coarse_to_fine" in found[0]["what"] and "youtubehand" in found[2]["what"]


def test_the_whole_step_learns_from_the_batch_it_measures():
    config = make_config("small", image_size=64, batch_size=4)
    batch = benchmarks.random_batch(config, CPU)
    assert batch["image"].shape == (4, 3, 64, 64) and batch["image"].dtype == torch.uint8
    assert batch["vertices"].shape == (4, 778, 3) and batch["valid_2d"].all()
    (row, _) = benchmarks.step_costs(config, CPU, repeats=1)
    assert row["device"] == "cpu"


def test_interleaved_times_are_medians_of_each_function():
    times = benchmarks.interleaved(
        {"slow": lambda: time.sleep(0.02), "fast": lambda: None}, repeats=3, device=CPU
    )
    assert 0.02 <= times["slow"] < 0.2 and times["fast"] < 0.01


def test_the_shares_of_the_loop_add_up_to_one():
    config = toy_config(steps=4)
    shares = benchmarks.loop_shares(config, toy_task(config))
    assert abs(sum(shares.values()) - 1) < 1e-9 and set(shares) == {"waiting", "logging", "step"}
