"""What a run changes in the process that it runs in, and puts back when it ends."""

import contextlib
import os
import signal
import threading
import time

import torch


def cores(processes: int = 1) -> int:
    """Cores that each of some processes on this machine may use, at least one."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)) // processes)
    return max(1, (os.cpu_count() or 1) // processes)


@contextlib.contextmanager
def own_random_state(config, accelerator):
    """Seed torch, set its threads, let cuDNN choose on a GPU; put all back afterwards.

    Several processes on one CPU share its cores unless the config says how many threads each has.
    """
    device, processes = accelerator.device, accelerator.num_processes
    devices = [device] if device.type == "cuda" else []
    threads, choose = torch.get_num_threads(), torch.backends.cudnn.benchmark
    wanted = config.threads
    if not wanted and device.type == "cpu" and processes > 1:
        wanted = min(threads, cores(processes))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        if wanted:
            torch.set_num_threads(wanted)
        torch.backends.cudnn.benchmark = device.type == "cuda"
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = choose


@contextlib.contextmanager
def stop_signals():
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C interrupts at once.

    What follows within a second is still the first: launchers pass on a Ctrl-C that a terminal
    sends to everybody. So is a SIGTERM: Jupyter sends one to a kernel that takes its time to stop.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    owner, asked = os.getpid(), 0.0

    def ask(number, frame):
        nonlocal asked
        if os.getpid() != owner:  # a loader process, which was forked with this handler
            os._exit(128 + number)
        if number == signal.SIGINT and stop.is_set() and time.monotonic() > asked + 1:
            raise KeyboardInterrupt
        if not stop.is_set():
            asked = time.monotonic()
            stop.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def clock(spent: dict, name: str):
    """Add the seconds that the block takes to ``spent[name]``."""
    start = time.perf_counter()
    try:
        yield
    finally:
        spent[name] += time.perf_counter() - start


def make_accelerator(config):
    """Accelerate's view of the processes and devices at hand."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(reset_partial_state=True)  # else an earlier run's device
    # fixed tables are buffers and equal everywhere: nothing to broadcast
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(cpu=config.device == "cpu", kwargs_handlers=[handler])


def shared_by_all(accelerator, numbers: dict) -> dict[str, float]:
    """Means over all processes, so that all decide and tell the same.   numbers: name -> scalar."""
    values = [float(number) for number in numbers.values()]
    if accelerator.num_processes > 1:
        values = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
        values = accelerator.reduce(values, "mean").tolist()
    return dict(zip(numbers, values, strict=True))
