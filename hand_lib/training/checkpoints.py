"""The run folder: files that appear whole or not at all, one run at a time, nothing pickled.

    config.json        the configuration, written once
    state.pt           all that is needed to go on: weights, optimiser, averages, random state, step
    model.safetensors  the weights to use (the averaged ones where there are any)
    log.csv            one line every ``log_every`` steps
    metrics.json       status, scores and times
    report.txt         how the run ended, in words

``state.pt`` alone decides where a run goes on. Every file is written beside its place and renamed,
so a kill at any instant leaves either the old or the new one; leftovers end in ``.tmp``.
"""

import contextlib
import csv
import fcntl
import io
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hand_lib import ROOT
from hand_lib.files import write_text, written_atomically

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
RATES = ("base_lr", "weight_decay")


def run_folder(name) -> Path:
    """The folder of a run by its name in ``runs/`` or by its path.

    >>> run_folder("small") == run_folder("runs/small") == ROOT / "runs" / "small"
    True
    """
    path = Path(name)
    if not path.is_absolute() and path.parts[:1] == ("runs",):
        return ROOT / path
    return ROOT / "runs" / path


def save_state(folder, state: dict) -> None:
    """Write ``state.pt``: tensors, numbers, strings, lists and dicts only."""
    with written_atomically(Path(folder) / STATE_FILE) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a full disk
            raise OSError(f"is the disk full? {str(error).splitlines()[0]}") from error


def load_state(folder, device="cpu") -> dict | None:
    """Read ``state.pt`` without running code from it; ``None`` where there is none yet."""
    path = Path(folder) / STATE_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or not one of our checkpoints ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); delete it to start this run from the beginning"
        ) from error


def run_state(step, seconds, smooth, network, optimizer, average) -> dict:
    """Everything the rest of the run depends on."""
    random = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    return {
        "step": step,
        "seconds": seconds,
        "smooth": smooth,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.network.state_dict() if average else None,
        "random": random,
    }


def restore(state, network, optimizer, average, folder) -> None:
    """Put what ``run_state`` gave back in its place.   folder: for the error message."""
    try:
        network.load_state_dict(state["network"])
        if average:
            average.network.load_state_dict(state["average"] or state["network"])
    except RuntimeError as error:
        raise ValueError(f"{folder / STATE_FILE} belongs to another network: {error}") from error
    chosen = [{name: group[name] for name in RATES} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, rates in zip(optimizer.param_groups, chosen, strict=True):
        group.update(rates)  # they may have been changed on purpose
    torch.set_rng_state(state["random"]["torch"].cpu())
    if torch.cuda.is_available() and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"].cpu())


def has_state(folder) -> bool:
    """Whether a run got as far as a checkpoint in this folder."""
    return (Path(folder) / STATE_FILE).exists()


def save_model(folder, state_dict: dict, **notes: str) -> None:
    """Write ``model.safetensors``.   state_dict: name -> tensor.   notes: kept in its header."""
    tensors, seen = {}, {}
    for name, tensor in state_dict.items():  # safetensors wants no two names on one storage
        shared = seen.setdefault((tensor.data_ptr(), tensor.shape), name) != name
        tensors[name] = tensor.detach().cpu().clone() if shared else tensor.detach().cpu()
        tensors[name] = tensors[name].contiguous()
    with written_atomically(Path(folder) / MODEL_FILE) as temporary:
        save_file(tensors, temporary, metadata={key: str(value) for key, value in notes.items()})


def load_model(folder) -> dict:
    """Read ``model.safetensors`` of a run folder.   returns name -> tensor."""
    path = Path(folder) / MODEL_FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {folder} is not the folder of a run")
    return load_file(path)


@contextlib.contextmanager
def locked(folder):
    """Hold a run folder; a second run into it is refused. A killed process lets go by itself."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RuntimeError(
                f"{folder} is in use by {holder}; wait for it or choose another run name"
            ) from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}")
        file.flush()
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield


class Log:
    """``log.csv``: appended line by line, cut back to the checkpoint when a run goes on."""

    def __init__(self, folder, upto_step: int):
        """Open for appending after dropping lines later than ``upto_step`` and a torn last one."""
        self.path = Path(folder) / "log.csv"
        self.rows = [row for row in read_log(folder) if row["step"] <= upto_step]
        self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def add(self, row: dict) -> None:
        """Append one line; a new column is added at the end.   row: column -> number or None."""
        new = [column for column in row if column not in self.columns]
        if new:
            self.columns += new
            for old in self.rows:
                old.update(dict.fromkeys(new))
            self._rewrite()
        row = {column: row.get(column) for column in self.columns}
        self.rows.append(row)
        with open(self.path, "a", newline="") as file:
            file.write(_csv([map(_cell, row.values())]))

    def _rewrite(self) -> None:
        lines = [map(_cell, row.values()) for row in self.rows]
        write_text(self.path, _csv([self.columns, *lines]) if self.columns else "")


def read_log(folder) -> list[dict]:
    """Lines of ``log.csv`` as dicts of numbers, ``None`` where empty; without a torn last one."""
    path = Path(folder) / "log.csv"
    if not path.exists():
        return []
    text = path.read_text()
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not lines:
        return []
    columns, rows = lines[0], []
    for line in lines[1:]:
        if len(line) == len(columns):
            numbers = (float(cell) if cell else None for cell in line)
            rows.append(dict(zip(columns, numbers, strict=True)))
            rows[-1]["step"] = int(rows[-1]["step"])
    return rows


def _csv(rows) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _cell(value) -> str:
    """Shortest text that reads back to the same number."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))
