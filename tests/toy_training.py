"""A tiny network and data set for tests of the loop, and a server that forks runs to be killed.

python toy_training.py        # reads one JSON job per line, answers with JSON lines
"""

import json
import os
import signal
import sys

import numpy as np
import torch
from torch import nn

from hand_lib.network.model import Prediction
from hand_lib.training import log, loop, run_folder
from hand_lib.training.config import make_config
from hand_lib.training.setup import TrainingSetup

VERTICES = 30


class ToyNetwork(nn.Module):
    """Convolution, batch normalisation and dropout: everything that has state or draws numbers."""

    view_size = 0

    def __init__(self, dropout=0.1):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)
        )
        self.decoder = nn.Linear(8 * 8 * 8, VERTICES * 3 + 21 * 3 + 21 * 2)

    def forward(self, images):
        count = len(images)
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        out = self.decoder(self.encoder(images)).float()
        vertices, joints, joints_2d = out.split([VERTICES * 3, 63, 42], dim=1)
        return Prediction(
            vertices.view(count, -1, 3), joints.view(count, 21, 3), out[:, :3],
            joints_2d.view(count, 21, 2),
        )  # fmt: skip


class ToyData:
    """Random pictures and hands; the picture's noise depends on (epoch, index)."""

    def __init__(self, count=20, first=0, poison=None, noise=15):
        self.count, self.first, self.poison, self.noise = count, first, poison, noise

    def __len__(self):
        return self.count

    def fetch_batch(self, indices, epochs=0):
        rows = []
        for index, epoch in zip(indices, np.broadcast_to(epochs, len(indices)), strict=True):
            rng = np.random.default_rng(self.first + int(index))
            vertices = rng.normal(0, 0.05, (VERTICES, 3)).astype(np.float32)
            image = rng.integers(0, 240, (3, 32, 32), dtype=np.uint8)
            noise = np.random.default_rng([int(index), int(epoch)])
            noise = noise.integers(0, self.noise, image.shape)
            if index == self.poison:
                vertices[:] = np.nan
            rows.append((image + noise.astype(np.uint8), vertices, vertices[:21]))
        image, vertices, joints = (np.stack(column) for column in zip(*rows, strict=True))
        known = np.ones(len(rows), bool)
        return {
            "image": image, "vertices": vertices, "joints": joints, "index": np.array(indices),
            "joints_2d": joints[..., :2] * 10, "valid_2d": np.ones((len(rows), 21), bool),
            "has_vertices": known, "has_joints": known,
        }  # fmt: skip


def toy_loss(prediction, batch, network, config):
    parts = {
        name: (getattr(prediction, name) - batch[name]).abs().mean()
        for name in ("vertices", "joints", "joints_2d")
    }
    return sum(parts.values()), {name: part.detach() for name, part in parts.items()}


def toy_setup(config, **data):
    torch.manual_seed(config.seed)
    validation = ToyData(12, first=1000).fetch_batch(range(12))
    validation = {name: torch.as_tensor(value) for name, value in validation.items()}
    dropout = 0.0 if config.freeze_norm else 0.1
    return TrainingSetup(ToyNetwork(dropout), ToyData(**data), validation, toy_loss)


def interrupted(setup, call):
    """The setup, with a Ctrl-C in the n-th call of its loss."""
    loss, calls = setup.loss, []

    def interrupting(*arguments):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    setup.loss = interrupting
    return setup


def toy_config(**changes):
    settings = dict(
        steps=24, batch_size=8, image_size=32, log_every=1, validate_every=6, checkpoint_every=4,
        ema_decay=0.9, precision="fp32", device="cpu", threads=1, learning_rate=0.01,
        encoder_learning_rate=0.0,
        warmup_steps=5, weight_decay=0.01,
    )  # fmt: skip
    return make_config("small", **(settings | changes))


def quiet(line):
    """Nobody reads what a test's run says."""


def run(folder, setup=None, **changes):
    """Train the toy network in this process."""
    config = toy_config(**changes)
    return loop.train(config, folder, setup=setup or toy_setup(config), say=quiet)


def weights(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def run_job(job):
    """Train or resume as the job says, and die where it says."""
    config = toy_config(**job.get("config", {}))
    _arm(job.get("die"))
    folder = job["folder"]
    if os.path.exists(os.path.join(folder, "config.json")):
        loop.train(resume=folder, setup=toy_setup(config), say=quiet)
    else:
        loop.train(config, folder, setup=toy_setup(config), say=quiet)


def _arm(die):
    """Make the n-th call of a function kill this process: before it, or in the middle of it.

    "disk": from the n-th checkpoint on, the kernel lets no file grow beyond 100 kB.
    """
    if not die:
        return
    module, name = {
        "rename": (run_folder.os, "replace"),
        "sync": (run_folder.os, "fsync"),
        "validation": (log, "geometric_scores"),
        "backward": (loop, "check"),
        "disk": (run_folder, "save_state"),
    }[die["where"]]
    original, calls = getattr(module, name), [0]

    def deadly(*args, **kwargs):
        calls[0] += 1
        if calls[0] == die["call"] and die["where"] == "disk":
            import resource  # there is none on Windows

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        elif calls[0] == die["call"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, name, deadly)


def serve():
    """Fork a child for every job; say when it was born and how it ended."""
    import accelerate  # noqa: F401  children find it imported
    import torch.utils.tensorboard

    import hand_lib.data.crops  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # imports more on its first use
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_job(json.loads(line))
                code = 0
            finally:
                os._exit(code)
        sys.stdout.write(json.dumps({"pid": child}) + "\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"status": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
