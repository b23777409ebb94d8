"""Where a result came from: commit, versions, device, time, memory, data."""

import hashlib
import json
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

import numpy as np

from hand_lib import ROOT, __version__

PACKAGES = (
    "torch", "numpy", "timm", "accelerate", "safetensors", "opencv-python-headless", "numba",
)  # fmt: skip


def provenance(config, device, datasets, processes: int = 1) -> dict:
    """What is worth knowing about a run when it starts, as a dict for ``provenance.json``.

    config: dataclass with ``to_json`` and ``seed``.   device: torch device.   datasets: to train
    on.   processes: that train together; each has random numbers of its own for dropout.
    """
    seeds = {"weights": config.seed, "data_order": config.seed, "augmentation": config.seed}
    seeds["dropout"] = [config.seed + 1 + number for number in range(processes)]
    return {
        "started": now(),
        "hand_lib": __version__,
        **code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device_name(device),
        "processes": processes,
        "seeds": seeds,
        "data_fingerprint": fingerprint_data(datasets),
        "started_from": _first_weights(getattr(config, "start_from", "")),
        "config": json.loads(config.to_json()),
        "config_sha256": hashlib.sha256(config.to_json().encode()).hexdigest(),
        "command": " ".join(word.rsplit("/", 1)[-1] for word in sys.argv),
    }


def _first_weights(run: str) -> dict | None:
    """Which weights a run began with, so that they can be told from later ones of that name."""
    from hand_lib.training.checkpoints import MODEL_FILE, run_folder

    if not run:
        return None
    path = run_folder(run) / MODEL_FILE
    known = path.is_file()  # a run that is continued may outlive the one that it began with
    return {"run": run, "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if known else None}


def code_version(root=ROOT) -> dict:
    """Commit of the working tree and whether files under version control differ from it."""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or "unknown", "dirty": None if commit is None else bool(changed)}


def package_versions(names=PACKAGES) -> dict:
    """Installed versions; a package that is missing is left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device) -> str:
    """``cuda: NVIDIA ...`` or ``cpu: <model>, 2 cores``."""
    import torch

    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {_cpu_model()}, {torch.get_num_threads()} threads"


def peak_memory_mb(device) -> dict:
    """Largest memory of this process so far, in MB, and on the GPU where there is one."""
    import torch

    # Linux counts in KB, macOS in bytes
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / 2**20
    return {name: round(value) for name, value in peak.items()}


def fingerprint_data(datasets, items: int = 32) -> str:
    """Hash of data sets of crops: their lengths, and pictures and labels of some items of each.

    Items are evenly spread and taken without augmentation, so equal data give equal hashes in any
    run that crops to the same size.
    """
    from hand_lib.data.crops import HandCrops

    digest = hashlib.sha256()
    for data in datasets:
        plain = HandCrops(data.dataset, data.image_size) if isinstance(data, HandCrops) else data
        picks = np.linspace(0, len(plain) - 1, min(items, len(plain))).astype(int)
        digest.update(f"{len(plain)} {fingerprint_arrays(plain.fetch_batch(picks))} ".encode())
    return digest.hexdigest()[:16]


def fingerprint_arrays(arrays: dict) -> str:
    """Hash of named arrays: names, types, shapes and at most about a thousand rows of each.

    arrays: name -> NumPy array.   returns 16 hexadecimal digits; equal data give equal ones.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        rows = array[:: max(1, len(array) // 1000)] if array.ndim else array
        digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()[:16]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(root, *arguments) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.machine()
