"""The hand model against smplx's MANO class, in one process, on one thread and the same file."""

import contextlib
import functools
import io
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.stopwatch import few_threads, milliseconds, row
from hand_lib.hand.model import HandModel


def measure_hand_model(
    batch: int = 64, repeats: int = 30, threads: int = 1, clock=time.perf_counter
) -> list[dict]:
    """Time forward, and forward + backward, of ours and smplx's model, taking turns.

    returns rows of medians. Needs smplx.
    """
    import smplx

    model = HandModel.builtin(flat_mean=False)
    with tempfile.TemporaryDirectory() as folder:
        path = model.save_mano(Path(folder) / "MANO_RIGHT.npz")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a warning
            theirs = smplx.MANO(str(path), use_pca=False, ext="npz", batch_size=batch)
    generator = torch.Generator().manual_seed(0)
    pose = 0.4 * torch.randn(batch, 48, generator=generator)
    betas = torch.randn(batch, 10, generator=generator)
    place = 0.2 * torch.randn(batch, 3, generator=generator)

    def run_ours(pose, betas, place):
        return model(pose, betas, place)

    def run_theirs(pose, betas, place):
        return theirs(betas=betas, global_orient=pose[:, :3], hand_pose=pose[:, 3:], transl=place)

    def forward(run):
        with torch.no_grad():
            run(pose, betas, place)

    def both(run):
        inputs = [tensor.clone().requires_grad_() for tensor in (pose, betas, place)]
        hand = run(*inputs)
        (hand.vertices.sum() + hand.joints.sum()).backward()

    rows = []
    with few_threads(threads):
        for what, step in (("forward", forward), ("forward + backward", both)):
            works = [functools.partial(step, run) for run in (run_ours, run_theirs)]
            times = milliseconds(works, repeats, clock)
            rows.append(row(f"hand model, batch {batch}, {what}", *times))
    return rows
