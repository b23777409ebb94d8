"""What a run needs of the machine, and notes of it: processes, random numbers, precision, signals,
provenance."""

import contextlib
import copy
import hashlib
import json
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from hand_lib import ROOT, __version__
from hand_lib.files import find_run, read_json, write_json
from hand_lib.training.run_folder import MODEL_FILE, read_config

PACKAGES = (
    "torch", "numpy", "timm", "accelerate", "safetensors", "opencv-python-headless", "numba",
)  # fmt: skip
_ECHO_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0


def make_accelerator(config):
    """Accelerate's view of the processes and devices at hand.

    Precision, pieces of a batch and compilation are the config's business: what Accelerate's own
    environment variables say of them is overruled.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(reset_partial_state=True)  # else an earlier run's device
    # fixed tables are buffers and equal everywhere: nothing to broadcast
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(
        cpu=config.device == "cpu", mixed_precision="no", dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[handler],
    )  # fmt: skip


def mean_over_processes(accelerator, numbers: dict) -> dict[str, float]:
    """Means over all processes, so that all decide and log the same.   numbers: name -> scalar."""
    values = [float(number) for number in numbers.values()]
    if accelerator.num_processes > 1:
        values = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
        values = accelerator.reduce(values, "mean").tolist()
    return dict(zip(numbers, values, strict=True))


def cores(processes: int = 1) -> int:
    """Cores that each of some processes on this machine may use, at least one."""
    known = hasattr(os, "sched_getaffinity")
    return max(1, (len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1) // processes)


@contextlib.contextmanager
def own_random_state(config, accelerator):
    """Seed torch, set its threads, let cuDNN choose on a GPU; put all back afterwards.

    Several processes on one CPU share its cores unless the config says how many threads each has.
    """
    device, processes = accelerator.device, accelerator.num_processes
    threads, choose = torch.get_num_threads(), torch.backends.cudnn.benchmark
    wanted = config.threads
    if not wanted and device.type == "cpu" and processes > 1:
        wanted = min(threads, cores(processes))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        torch.set_num_threads(wanted or threads)
        torch.backends.cudnn.benchmark = device.type == "cuda"
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = choose


def uses_bf16(config, state, network, accelerator) -> bool:
    """Whether the network runs under bf16 autocast: as asked, as before, or as measured here.

    state: of the run that goes on, or None.
    """
    if config.precision != "auto":
        return config.precision == "bf16"
    if state:
        return state["bf16"]
    size = config.view_size or config.image_size
    count = config.batch_size // config.accumulate // accelerator.num_processes
    images = torch.full((min(max(count, 2), 16), 3, size, size), 127, dtype=torch.uint8)
    images = images.to(accelerator.device, memory_format=torch.channels_last)
    faster = {"faster": faster_in_bf16(network, images)}
    return mean_over_processes(accelerator, faster)["faster"] > 0.5


def faster_in_bf16(network: torch.nn.Module, images: torch.Tensor, repeats: int = 3) -> bool:
    """Whether forward and backward of a copy of the network take a tenth less time in bf16.

    images: (B, 3, S, S) like those of a step, on the network's device. The best of some repeats
    counts; random numbers are left as they were.
    """
    device, trial = images.device, copy.deepcopy(network).train()
    best = {True: math.inf, False: math.inf}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number in range(2 * repeats + 2):  # the first of each kind warms up
            bf16, start = number % 2 == 0, time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                prediction = trial(images)
            (prediction.vertices.mean() + prediction.joints_2d.mean()).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number > 1:
                best[bf16] = min(best[bf16], time.perf_counter() - start)
    return best[True] < 0.9 * best[False]


@contextlib.contextmanager
def stop_signals():
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C interrupts at once.

    What follows within a second is still the first: launchers pass on a Ctrl-C that a terminal
    sends to everybody. So is a SIGTERM: Jupyter sends one to a kernel that takes its time to stop.
    Where the second cannot interrupt whatever blocks, the process ends five seconds later.
    """
    stop, ended, first, owner = threading.Event(), threading.Event(), [], os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def insists(number) -> bool:
        first.append(time.monotonic())
        return number == signal.SIGINT and first[-1] > first[0] + _ECHO_SECONDS

    def ask(number, frame):
        if os.getpid() != owner:  # a loader process, which was forked with this handler
            os._exit(128 + number)
        if insists(number):
            raise KeyboardInterrupt
        stop.set()

    def watch():  # bytes come here from the system's own handler, even while Python waits
        while number := receiver.recv(1):
            if insists(number[0]):
                if not ended.wait(_PATIENCE_SECONDS):
                    os._exit(128 + signal.SIGINT)
                return

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    old_wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, name="second Ctrl-C", daemon=True).start()
    try:
        yield stop
    finally:
        ended.set()
        signal.set_wakeup_fd(old_wakeup)
        for number, handler in old.items():
            signal.signal(number, handler)
        sender.close()


def write_provenance(folder, run) -> None:
    """Write ``provenance.json`` of a ``loop.Run``: where its numbers come from."""
    config, path = run.config, Path(folder) / "provenance.json"
    goes_on = run.saved_step is not None
    before = (read_json(path, optional=True) if goes_on else None) or {}
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    content = {
        "started": now(),
        "hand_lib": __version__,
        "commit": commit or "unknown",
        "dirty": None if commit is None else bool(changed),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {d.name: d.version for d in metadata.distributions() if d.name in PACKAGES},
        "device": device_name(run.accelerator.device),
        "processes": run.accelerator.num_processes,
        "bf16": run.bf16,
        "legs": before["legs"] if "legs" in before else training_legs(config.start_from),
        "continued_at_steps": before.get("continued_at_steps", []) + [run.step] * goes_on,
        "config": json.loads(config.to_json()),
        "command": " ".join(word.rsplit("/", 1)[-1] for word in sys.argv),
    }
    write_json(path, content)


def training_legs(start_from: str) -> list[dict]:
    """The runs that the weights of ``start_from`` went through, that one last; none for "".

    Of each: run, sha256 of its weights, commit, pictures it saw, minutes, backbone, pretrained,
    view_size (pixels).
    """
    if not start_from:
        return []
    folder = find_run(start_from)
    config, weights = read_config(folder), (folder / MODEL_FILE).read_bytes()
    names = "provenance.json", "metrics.json"
    told, metrics = (read_json(folder / name, optional=True) or {} for name in names)
    leg = {
        "run": start_from,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "commit": told.get("commit"),
        "pictures": metrics.get("step", 0) * config.batch_size,
        "minutes": round(metrics.get("seconds", 0) / 60, 1),
        "backbone": config.backbone,
        "pretrained": config.pretrained,
        "view_size": config.view_size or config.image_size,
    }
    return [*told.get("legs", []), leg]


def device_name(device) -> str:
    """``cuda: NVIDIA ...`` or ``cpu: <model>, 2 threads``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        lines = (line for line in file if line.startswith("model name"))
        model = next(lines, model).split(":", 1)[-1].strip()
    return f"{device.type}: {model}, {torch.get_num_threads()} threads"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments) -> str | None:
    """What git says of the working tree, None where there is no git or no repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()
