"""What a run changes in the process that it runs in, and puts back when it ends."""

import contextlib
import os
import signal
import threading
import time

import torch


@contextlib.contextmanager
def own_random_state(config, device):
    """Seed torch, set its threads, let cuDNN choose on a GPU; put all back afterwards."""
    devices = [device] if device.type == "cuda" else []
    threads, choose = torch.get_num_threads(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.backends.cudnn.benchmark = device.type == "cuda"
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = choose


@contextlib.contextmanager
def stop_signals():
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    owner = os.getpid()

    def ask(number, frame):
        if os.getpid() != owner:  # a loader process, which was forked with this handler
            os._exit(128 + number)
        if stop.is_set():
            raise KeyboardInterrupt
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
