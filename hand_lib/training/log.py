"""What one can see of a run while it goes and after it ended: log, scores, pictures, reasons."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hand_lib.files import read_json, write_json, written_atomically
from hand_lib.metrics import mesh_errors
from hand_lib.network.model import predict_crops
from hand_lib.training.run_folder import read_log, write_log
from hand_lib.training.runtime import now, write_provenance

SHOWN_HANDS = 8
"""Validation hands whose predictions are kept over time, the first ones."""

_VALIDATION_CHUNK = 64

_IN_WORDS = {
    "vertices_mm": "vertices {:.1f} mm",
    "vertices_pa_mm": "aligned (PA) {:.1f} mm",
    "joints_2d_percent": "2-D joints {:.1f} % of the crop",
}


class RunLogger(contextlib.AbstractContextManager):
    """The written side of a run: ``log.csv``, TensorBoard, ``metrics.json``, snapshots.

    Used as a context: when the block ends, ``metrics.json`` says how and why.
    folder: of the run.   say: gets one line at a time for a person to read.   main: whether this is
    the first process; the others write nothing.
    """

    def __init__(self, folder, config, say: Callable[[str], None], main: bool = True):
        self.folder, self.config, self.main = Path(folder), config, main
        self.say = say if main else lambda line: None
        self.metrics = read_json(self.folder / "metrics.json", optional=True) if main else None
        self.metrics = self.metrics or {"step": 0}
        self._run = self.board = None
        self._last = ""  # loss and speed in words
        self._since, self._peak_memory = (0, time.perf_counter()), 0

    def begin(self, run) -> None:
        """Go on after the step of a ``loop.Run``: what was logged later is dropped."""
        self._run, self._since = run, (run.step, time.perf_counter())
        if not self.main:
            return
        from torch.utils.tensorboard import SummaryWriter

        first = 0 if run.saved_step is None else run.step + 1  # to be logged
        self.rows = [row for row in read_log(self.folder) if row["step"] < first]
        self.board = SummaryWriter(str(self.folder), purge_step=first, flush_secs=30)
        write_provenance(self.folder, run)
        self._keep("truth.npz", run.setup.validation)
        if run.setup.hierarchy is not None and not (self.folder / "hierarchy.npz").exists():
            run.setup.hierarchy.save(self.folder / "hierarchy.npz")

    def bar(self, run) -> tqdm:
        """A progress bar for the steps of the run."""
        return tqdm(
            total=run.total_steps, initial=run.step, unit="step", desc="training",
            disable=not self.main, mininterval=1.0, file=sys.stderr, dynamic_ncols=True,
        )  # fmt: skip

    def step(self, run, loss, parts, norm, rate, bar) -> None:
        """Note a step: the progress bar always, a line of the log every ``log_every`` steps."""
        if not self.main:
            return
        bar.total = run.expected_steps
        bar.update()
        if run.step % self.config.log_every:
            return
        self._peak_memory = max(self._peak_memory, _memory())
        before, then = self._since
        self._since = run.step, time.perf_counter()
        speed = (run.step - before) * self.config.batch_size / max(self._since[1] - then, 1e-9)
        self._last = f"loss {loss:.4g}, {speed:.0f} images/s"
        bar.set_postfix_str(self._last, refresh=False)
        row = {"learning_rate": rate, "gradient_norm": float(norm), "loss": loss}
        row |= {f"loss_{name}": float(value) for name, value in parts.items()}
        self._write(run, row, round(speed, 1))

    def validate(self, run) -> None:
        """Score the network on the fixed validation set; log, draw and keep what it predicts."""
        if not self.main:
            return
        device, total = run.accelerator.device, run.expected_steps
        scores, prediction = evaluate(run.best_network, run.setup, self.config, device)
        row = dict.fromkeys(("learning_rate", "gradient_norm", "loss"))
        row |= {name: None for name in scores if name.startswith("loss_")}
        self._write(run, row | {f"val_{name}": value for name, value in scores.items()})
        self._keep(f"step_{run.step:07d}.npz", prediction)
        self.metrics |= {"status": "running", "step": run.step, "steps": total}
        self.metrics |= {"validation": scores, "template_only": run.setup.baseline}
        write_json(self.folder / "metrics.json", self.metrics)
        known = [_IN_WORDS[name].format(scores[name]) for name in _IN_WORDS if name in scores]
        left = "begins"
        if run.step:
            minutes = math.ceil(run.seconds / run.step * (total - run.step) / 60)
            left = f"{minutes} min left" if run.step < total else "done"
        before = f"{self._last}; " if self._last else ""
        self.say(f"step {run.step}/{total}: {before}validation {', '.join(known)}, {left}")

    def __exit__(self, kind, error, _trace) -> None:
        """Close the run's books: status and reason, last checkpoint, times, largest memory."""
        run, metrics = self._run, self.metrics
        if not self.main or (run is None and metrics.get("status") == "finished"):
            return
        metrics |= {"status": "finished", "reason": ""}
        if kind is KeyboardInterrupt:
            metrics |= {"status": "interrupted", "reason": "stopped by the user or by the system"}
        elif error is not None:
            metrics |= {"status": "failed", "reason": f"{kind.__name__}: {error}"}
        try:
            if run is not None:
                memory = {"cpu": max(self._peak_memory, _memory())}
                if run.accelerator.device.type == "cuda":
                    memory["gpu"] = torch.cuda.max_memory_allocated()
                metrics |= {"step": run.step, "steps": run.total_steps}
                metrics |= {"checkpoint": run.saved_step, "seconds": round(run.seconds, 2)}
                metrics["memory_mb"] = {name: round(n / 2**20) for name, n in memory.items()}
                path = self.folder / "provenance.json"
                told = {name: metrics[name] for name in ("status", "seconds", "memory_mb")}
                write_json(path, (read_json(path, optional=True) or {}) | told | {"ended": now()})
            write_json(self.folder / "metrics.json", metrics)
        except OSError:  # the disk being full is the reason already
            if error is None:
                raise
        if self.board is not None:
            self.board.close()

    def _keep(self, name, arrays) -> None:
        """A snapshot of the first validation hands.   arrays: name -> (N, ...) of all of them."""
        path = self.folder / "snapshots" / name
        path.parent.mkdir(exist_ok=True)
        with written_atomically(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{key: array[:SHOWN_HANDS] for key, array in arrays.items()})

    def _write(self, run, values: dict, speed: float | None = None) -> None:
        row = {"step": run.step, "seconds": round(run.seconds, 3), "images_per_s": speed} | values
        self.rows.append(row)
        write_log(self.folder, self.rows)
        for name, value in row.items():
            if value is not None and name != "step":
                group = "validation/" if name.startswith("val_") else "training/"
                self.board.add_scalar(group + name.removeprefix("val_"), value, run.step)


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says where, on which images, and what is left."""


def check(run, loss: float, norm: float, batch: dict) -> None:
    """Stop at a loss or a gradient that is not finite, or at a loss that explodes."""
    usual = loss if run.smooth is None else run.smooth  # running mean
    if not math.isfinite(loss):
        problem = f"the loss became {loss}"
    elif not math.isfinite(norm):
        problem = f"the gradient's norm became {norm}"
    elif loss > run.config.divergence_factor * usual:
        problem = f"the loss jumped to {loss:.4g}, {loss / usual:.0f} times its running mean"
    else:
        run.smooth = usual + 0.02 * (loss - usual)
        return
    samples = run.accelerator.gather(batch["index"]).tolist()
    saved = "none" if run.saved_step is None else f"step {run.saved_step}"
    raise TrainingStopped(
        f"step {run.step + 1}: {problem}, on samples {samples}. Last good checkpoint: {saved}, in "
        f"{run.logger.folder}. Look at these samples; lower learning_rate or set clip to resume"
    )


def read_snapshots(folder) -> tuple[dict, dict[int, dict]]:
    """The validation hands that a run shows, and what it predicted for them over time.

    returns their labels (as a batch of arrays) and step -> predictions (see ``evaluate``).
    """
    files = sorted((Path(folder) / "snapshots").glob("*.npz"))
    arrays = {path.stem: dict(np.load(path)) for path in files}
    if "truth" not in arrays:
        raise FileNotFoundError(f"{folder} has no snapshots: its run never began")
    truth = arrays.pop("truth")
    return truth, {int(name.removeprefix("step_")): value for name, value in arrays.items()}


@torch.no_grad()
def evaluate(network, setup, config, device) -> tuple[dict, dict]:
    """Scores of a network on a setup's validation set, and what it predicts.

    returns scores in millimetres and per cent of the crop, and arrays ``vertices`` (N, V, 3),
    ``joints`` (N, 21, 3) metres, ``camera`` (N, 3), ``joints_2d`` (N, 21, 2) crop units.
    """
    truth, losses, kept = setup.validation, {}, []
    count, was_training = len(truth["image"]), network.training
    network.eval()
    for start in range(0, count, _VALIDATION_CHUNK):
        rows = slice(start, start + _VALIDATION_CHUNK)
        batch = {name: value[rows].to(device) for name, value in truth.items()}
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        prediction = predict_crops(network, image, config.n_crops)
        total, parts = setup.loss(prediction, batch, network, config)
        parts = {"loss": total} | {f"loss_{name}": value for name, value in parts.items()}
        for name, value in parts.items():
            losses[name] = losses.get(name, 0.0) + len(image) / count * float(value)
        fields = ("vertices", "joints", "camera", "joints_2d")
        kept.append({name: getattr(prediction, name).float().cpu().numpy() for name in fields})
    network.train(was_training)
    predicted = {name: np.concatenate([part[name] for part in kept]) for name in fields}
    return losses | geometric_scores(predicted, truth), predicted


def geometric_scores(predicted: dict, truth: dict) -> dict:
    """Mean errors over what is labelled: ``vertices_mm``, ``vertices_pa_mm``, the same of joints,
    and ``joints_2d_percent`` of the crop's side; a kind of label nobody has is left out.

    predicted: arrays as ``evaluate`` returns.   truth: a batch of tensors.
    """
    scores = {}
    for name in ("vertices", "joints"):
        known = truth[f"has_{name}"].numpy()
        if name in predicted and known.any():
            errors = mesh_errors(predicted[name][known], truth[name].numpy()[known])
            scores[f"{name}_mm"] = 1000 * float(errors["plain"].mean())
            scores[f"{name}_pa_mm"] = 1000 * float(errors["pa"].mean())
    known = truth["valid_2d"].numpy()
    if "joints_2d" in predicted and known.any():
        distance = np.linalg.norm(predicted["joints_2d"] - truth["joints_2d"].numpy(), axis=-1)
        scores["joints_2d_percent"] = 50 * float(distance[known].mean())
    return scores


def _memory() -> int:
    """Bytes of memory that this process holds."""
    import psutil  # Unix alone has what it asks there

    return psutil.Process().memory_info().rss
