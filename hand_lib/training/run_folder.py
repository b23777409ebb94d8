"""The run folder: files that appear whole or not at all, one run at a time, nothing pickled.

    config.json        the configuration, written once
    state.pt           all that is needed to go on: weights, optimiser, averages, random state, step
    previous.pt        the one before it, for the day when state.pt is damaged
    model.safetensors  the weights to use (the averaged ones where there are any)
    log.csv            one line every ``log_every`` steps
    metrics.json       status, scores and times
    provenance.json    where its numbers come from (``runtime.write_provenance``)

``state.pt`` alone decides where a run goes on. Every file is written beside its place and renamed,
so a kill at any instant leaves either the old or the new one; leftovers end in ``.tmp``.
"""

import contextlib
import csv
import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from hand_lib.files import find_run, read_json, write_text, written_atomically
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.hierarchy import load_hierarchy
from hand_lib.network.model import build_network
from hand_lib.training.config import FIELDS, TrainConfig, config_from_json, replace

STATE_FILE, PREVIOUS_FILE, MODEL_FILE = "state.pt", "previous.pt", "model.safetensors"
_RENAMED = {
    "context": "global_features", "heat": "heatmaps", "surface": "correspondence",
    "place": "position_embedding", "seen": "image_features", "trust": "blend_gate",
    "who": "vertex_embedding",
}  # fmt: skip
"""Parts of the names of a decoder's tensors in earlier runs, and what they are called now."""


def read_config(folder) -> TrainConfig:
    """The configuration of a run, given its name, its folder or its ``config.json``."""
    path = find_run(folder)
    path = path if path.suffix == ".json" else path / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: there is no run in {path.parent}")
    return config_from_json(path.read_text(encoding="utf-8"), str(path))


def config_to_continue(config, folder, allow_changes: bool) -> TrainConfig:
    """The config to go on with: the run's own for None; one that differs must be allowed to."""
    old = read_config(folder)
    if config is None or allow_changes:
        return config or old
    pairs = ((name, getattr(old, name), getattr(config, name)) for name in FIELDS)
    changed = ", ".join(f"{name} was {a!r}, now {b!r}" for name, a, b in pairs if a != b)
    if changed:
        raise ValueError(
            f"{folder} was begun with another config: {changed}. Resume without a config, or pass "
            "allow_changes=True (--allow-changes on the command line)"
        )
    return config


def load_network(run_folder, device="cpu"):
    """The network of a run with its weights, and its ``TrainConfig``.

    run_folder: holds ``config.json`` and ``model.safetensors``, and ``hierarchy.npz`` if its hand
    is not the built-in one; nothing in it is executed.
    raises FileNotFoundError for a file that is missing, ValueError where weights and config differ.
    """
    folder = find_run(run_folder)
    config, weights = read_config(folder), load_model(folder)
    own = folder / "hierarchy.npz"  # a run on another hand than the built-in one
    hierarchy = load_hierarchy(own) if own.is_file() else builtin_hierarchy(factors=config.factors)
    regressor = weights.get("regressor") if own.is_file() else None
    network = build_network(replace(config, pretrained=False), hierarchy, regressor, weights)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{folder / MODEL_FILE} does not fit {folder / 'config.json'}: {error}"
        ) from error
    if not np.array_equal(network.faces.numpy(), hierarchy.faces[0]):
        warnings.warn(
            f"{folder.name} was trained on an earlier built-in hand, whose vertices are others:"
            " show it, or go on from it with start_from, but do not score it against today's hand",
            stacklevel=2,
        )
    return network.to(device), config


def save_model(folder, state_dict: dict, **notes: str) -> None:
    """Write ``model.safetensors``.   state_dict: name -> tensor.   notes: kept in its header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with written_atomically(Path(folder) / MODEL_FILE) as temporary:
        temporary.write_bytes(save(tensors, {key: str(value) for key, value in notes.items()}))


def load_model(folder) -> dict:
    """Read ``model.safetensors`` of a run folder.   returns today's name -> tensor."""
    path = Path(folder) / MODEL_FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {folder} is not the folder of a run")
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors' own kind of error has no better base
        raise ValueError(f"{path} is damaged ({error}); copy or write it again") from error
    return {_current_name(name): tensor for name, tensor in weights.items()}


def _current_name(name: str) -> str:
    parts = name.split(".") if name.startswith("decoder.") else [name]
    return ".".join(_RENAMED.get(part, part) for part in parts).removesuffix(".matrix")


def save_run(run) -> None:
    """Write, in the first process, the weights and all that a ``loop.Run`` goes on with."""
    if run.logger.main:
        run.logger.board.flush()
        save_model(run.logger.folder, run.best_network.state_dict(), step=run.step)
        state = {name: getattr(run, name) for name in ("step", "seconds", "smooth", "bf16")}
        state |= {name: getattr(run, name).state_dict() for name in ("network", "optimizer")}
        state["average"] = None if run.average is None else run.average.state_dict()
        state["random"] = {"torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["random"]["cuda"] = torch.cuda.get_rng_state()
        save_state(run.logger.folder, state)
    run.saved_step = run.step


def save_state(folder, state: dict) -> None:
    """Write ``state.pt``: tensors, numbers, strings, lists and dicts only; keep the one before."""
    path = Path(folder) / STATE_FILE
    with written_atomically(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a full disk
            raise OSError(f"is the disk full? {str(error).splitlines()[0]}") from error
        if path.exists():
            os.replace(path, path.with_name(PREVIOUS_FILE))


def load_state(folder, device="cpu") -> dict | None:
    """Read ``state.pt`` without running code from it; ``None`` where there is none yet.

    Where it is damaged or a kill came between two renames, ``previous.pt`` is read in its place.
    """
    path, problem = Path(folder) / STATE_FILE, None
    if torch.device(device).type == "cpu":  # "cpu:0" of several processes is nothing to torch.load
        device = "cpu"
    for place in (path, path.with_name(PREVIOUS_FILE)):
        try:
            state = torch.load(place, map_location=device, weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:
            problem = problem or error
            continue
        if problem:
            warnings.warn(f"{path} is damaged: going on from {PREVIOUS_FILE}", stacklevel=2)
        return state
    if problem:
        raise ValueError(
            f"{path} is damaged or not one of our checkpoints ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0]}); delete it to start this run from the beginning"
        ) from problem
    return None


def has_state(folder) -> bool:
    """Whether a run got as far as a checkpoint in this folder."""
    return any((Path(folder) / name).exists() for name in (STATE_FILE, PREVIOUS_FILE))


def restore(run, state: dict) -> None:
    """Put what ``save_run`` kept back in its place, in a fresh ``loop.Run``."""
    run.step, run.seconds, run.smooth = (state[name] for name in ("step", "seconds", "smooth"))
    run.saved_step = run.step
    try:
        run.network.load_state_dict(state["network"])
        if run.average is not None:
            run.average.load_state_dict(state["average"] or state["network"])
    except RuntimeError as error:
        raise ValueError(f"{STATE_FILE} belongs to another network: {error}") from error
    rates = "base_lr", "weight_decay"
    chosen = [{name: group[name] for name in rates} for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(state["optimizer"])
    for group, own in zip(run.optimizer.param_groups, chosen, strict=True):
        group.update(own)  # they may have been changed on purpose
    torch.set_rng_state(state["random"]["torch"].cpu())
    if torch.cuda.is_available() and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"].cpu())


@contextlib.contextmanager
def locked(folder):
    """Hold a run folder; a second run into it is refused. A killed process lets go by itself.

    Where the file system knows no locks, one warning says that nobody guards the folder.
    """
    path = Path(folder) / ".lock"
    lock = filelock.FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(".probe.tmp").touch()
    except OSError as error:
        reason = f"cannot be written ({error.strerror}); choose another place for the run"
        raise OSError(f"the run folder {folder} {reason}") from error
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RuntimeError(
            f"{folder} is in use by another process; wait for it or choose another run name"
        ) from None
    except OSError as error:
        found = f"{folder} lies where files cannot be locked ({error})"
        warnings.warn(f"{found}: nothing keeps a second run out of it", stacklevel=3)
    try:
        for leftover in path.parent.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def write_log(folder, rows: list[dict]) -> None:
    """Write ``log.csv``: a line for each of some dicts of numbers or None, a column for each name.

    Numbers become the shortest text that reads back to the same.
    """
    out = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path(folder) / "log.csv", out.getvalue())


def read_log(folder) -> list[dict]:
    """Lines of ``log.csv`` as dicts of numbers, ``None`` where empty; none without the file."""
    path = Path(folder) / "log.csv"
    lines = csv.DictReader(path.read_text().splitlines() if path.exists() else [])
    rows = [{name: float(cell) if cell else None for name, cell in line.items()} for line in lines]
    return [row | {"step": int(row["step"])} for row in rows]


@dataclass
class RunResult:
    """What ``train`` gives back; the same is in the run folder."""

    folder: Path
    config: TrainConfig
    step: int
    metrics: dict
    log: list[dict] = field(repr=False, default_factory=list)
    network: nn.Module | None = field(repr=False, default=None)  # with the weights that were saved


def read_run(folder) -> RunResult:
    """What a run left in its folder, without the network."""
    if (metrics := read_json(Path(folder) / "metrics.json", optional=True)) is None:
        raise FileNotFoundError(f"{folder} holds no metrics.json: no run got as far as validating")
    return RunResult(Path(folder), read_config(folder), metrics["step"], metrics, read_log(folder))
