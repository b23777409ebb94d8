"""A training killed at random moments ends with the weights of an undisturbed one, bit for bit.

    python -m benchmarks.kill_test 20
    python -m benchmarks.kill_test 20 --processes 2

in the folder ``notebooks``; it needs an operating system that can fork. Each run trains the real
network, small, until the log has grown by some lines, and is then killed with SIGKILL: every second
one while a file of the run is being written. Of two processes either is killed, by chance, and the
other ended as ``torchrun`` ends it.
"""

import argparse
import importlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import torch

from hand_lib.hand.model import builtin_hierarchy
from hand_lib.training.config import TrainConfig, make_config
from hand_lib.training.loop import train
from hand_lib.training.run_folder import has_state, load_model, load_state
from hand_lib.training.setup import build_setup

STEPS_BETWEEN = 3
"""Steps from one checkpoint to the next, and about as many from one kill to the next."""


def small_config(kills: int) -> TrainConfig:
    """A network and pictures as small as they may be, long enough for so many kills."""
    return make_config(
        "quick", backbone="regnety_002", pretrained=False, image_size=32, view_size=32,
        batch_size=4, train_images=64, validation_images=4, steps=4 * STEPS_BETWEEN * (kills + 1),
        checkpoint_every=STEPS_BETWEEN, validate_every=4 * STEPS_BETWEEN, log_every=1,
        precision="fp32", device="cpu", threads=1,
    )  # fmt: skip


def start(config: TrainConfig, folder: Path, processes: int = 1) -> list[int]:
    """Fork processes that begin the run or go on with it; their numbers."""
    how = {"resume": folder} if has_state(folder) else {"config": config, "run_folder": folder}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    for rank in range(processes):
        children.append(os.fork())
        if children[-1]:
            continue
        code = 1
        try:
            if processes > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes,
                         "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}  # fmt: skip
                os.environ |= {name: str(number) for name, number in place.items()}
                os.environ["MASTER_ADDR"] = "127.0.0.1"
            train(**how, say=lambda line: None)
            code = 0
        finally:
            os._exit(code)
    return children


def finish(children: list[int]) -> None:
    """Wait until all have ended."""
    for child in children:
        os.waitpid(child, 0)


def kill(children: list[int], victim: int, folder: Path, lines: int, writing, delay: float) -> bool:
    """Kill one once the log has so many lines; whether it was caught while writing a file."""
    log = folder / "log.csv"
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        if os.waitpid(children[0], os.WNOHANG)[0]:
            raise RuntimeError(f"the training in {folder} ended by itself")
        time.sleep(0.001)
    deadline = time.monotonic() + 5
    while writing and time.monotonic() < deadline and not any(folder.glob(".*.tmp")):
        time.sleep(0.0002)
    time.sleep(0 if writing else delay)
    os.kill(children[victim], signal.SIGKILL)
    caught = any(folder.glob(".*.tmp"))
    for other in set(children) - {children[victim]}:  # as torchrun does: it may wait for the dead
        os.kill(other, signal.SIGTERM)
        time.sleep(0.5)
        os.kill(other, signal.SIGKILL)
    finish(children)
    return caught or any(folder.glob(".*.tmp"))


def survive(kills: int, seed: int, say, processes: int = 1) -> bool:
    """Train once undisturbed and once killed so often; whether both left the same, bit for bit."""
    config, moments = small_config(kills), random.Random(seed)
    torch.set_num_threads(1)
    build_setup(config, lambda line: None)  # what the processes share is made before they fork
    builtin_hierarchy()
    for module in ("accelerate", "torch.utils.tensorboard"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as scratch:
        whole, run = Path(scratch) / "whole", Path(scratch) / "run"
        finish(start(config, whole, processes))
        caught = 0
        for number in range(kills):
            state = load_state(run) if number else None
            lines = (state["step"] if state else 0) + 2 + moments.randrange(2 * STEPS_BETWEEN)
            half = number % 2 == 0
            victim = moments.randrange(processes)
            delay = moments.uniform(0, 0.1)
            caught += kill(start(config, run, processes), victim, run, lines, half, delay)
        finish(start(config, run, processes))
        state, other = load_state(run), load_state(whole)
        same = [_same(load_model(run), load_model(whole))]
        same += [_same(state["network"], other["network"])]
        same += [_same(state["optimizer"]["state"], other["optimizer"]["state"])]
        say(f"{kills} kills of {processes} process(es), {caught} while a file was being written; "
            f"{state['step']} of {config.steps} steps; weights, averages and optimiser equal those "
            f"of an undisturbed run: {all(same)}")  # fmt: skip
    return all(same) and state["step"] == config.steps


def _same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return torch.equal(one, other)


def main(arguments=None) -> int:
    """The command line; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_test", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    given = parser.parse_args(arguments)
    say = lambda line: sys.stdout.write(line + "\n")  # noqa: E731
    return 0 if survive(given.kills, given.seed, say, given.processes) else 1


if __name__ == "__main__":
    sys.exit(main())
