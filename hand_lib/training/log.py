"""What one can see of a run while it goes and after it ended: log, scores, pictures, report."""

import contextlib
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from hand_lib.files import read_json, write_json, write_text, written_atomically
from hand_lib.hand.joints import BONES, FINGER_COLOURS, FINGERS
from hand_lib.metrics import mesh_errors
from hand_lib.network.second_look import predict_crops
from hand_lib.render.camera import crop_to_pixels
from hand_lib.training import checkpoints, lineage
from hand_lib.training import provenance as origin

SHOWN_HANDS = 8
"""Validation hands whose predictions are kept over time, the first ones."""

_VALIDATION_CHUNK = 64

_TOLD = {
    "vertices_mm": "vertices {:.1f} mm",
    "vertices_pa_mm": "aligned (PA) {:.1f} mm",
    "joints_2d_percent": "2-D joints {:.1f} % of the crop",
}


class Record:
    """The written side of a run: ``log.csv``, TensorBoard, ``metrics.json``, snapshots, report."""

    def __init__(self, folder, step: int, task, config):
        self.folder, self.task, self.config = Path(folder), task, config
        self.log = checkpoints.Log(folder, step)
        self.metrics = read_json(self.folder / "metrics.json", optional=True) or {}
        self.continued_at = (read_json(self.folder / "provenance.json", optional=True) or {}).get(
            "continued_at_steps", []
        )
        self._board, self._purge = None, step + 1
        self._since = (step, time.perf_counter())
        shown = {name: value[:SHOWN_HANDS].numpy() for name, value in task.validation.items()}
        self._keep("truth.npz", shown)
        if step < 0:
            lineage.keep_history(folder, config.start_from)

    @property
    def board(self):
        """The TensorBoard writer, opened when first needed."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=self._purge, flush_secs=30)
        return self._board

    def step(self, step, seconds, loss, parts, norm, rate, bar, progress) -> None:
        """Note a step: the progress bar always, a line of the log every ``log_every`` steps."""
        bar.total = max(step, round(step / progress))  # fewer steps where a time limit decides
        bar.update()
        if step % self.config.log_every:
            return
        speed = self._images_per_second(step)
        bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        row = {"step": step, "seconds": round(seconds, 3), "images_per_s": round(speed, 1)}
        row |= {"learning_rate": rate, "gradient_norm": norm, "loss": loss}
        row |= {f"loss_{name}": float(value) for name, value in parts.items()}
        self._write(row)

    def validate(self, network, step, seconds, device, say, total_steps) -> None:
        """Score the network on the fixed validation set; log, draw and keep what it says."""
        scores, prediction = evaluate(network, self.task, self.config, device)
        row = {"step": step, "seconds": round(seconds, 3), "images_per_s": None}
        row |= {"learning_rate": None, "gradient_norm": None, "loss": None}
        row |= {name: None for name in scores if name.startswith("loss_")}
        row |= {f"val_{name}": value for name, value in scores.items()}
        self._write(row)
        shown = {name: prediction[name][:SHOWN_HANDS] for name in prediction}
        self._keep(f"step_{step:07d}.npz", shown)
        images = self.task.validation["image"][:SHOWN_HANDS].permute(0, 2, 3, 1).numpy()
        self.board.add_image("validation hands", skeletons(images, shown), step, dataformats="HWC")
        self.metrics |= {"status": "running", "step": step, "steps": total_steps}
        self.metrics |= {"validation": scores, "template_only": self.task.baseline}
        write_json(self.folder / "metrics.json", self.metrics)
        known = (words.format(scores[name]) for name, words in _TOLD.items() if name in scores)
        left = _minutes(seconds, step, total_steps)
        say(f"step {step}/{total_steps}: {self._lately()}validation {', '.join(known)}, {left}")

    def flush(self) -> None:
        """Bring what TensorBoard was given onto the disk: a checkpoint is about to be written."""
        if self._board is not None:
            self._board.flush()

    def finish(self, status, reason, step, total_steps, seconds, spent, device) -> None:
        """Close the run's books: status, times, peak memory, and a report in words."""
        scores = self.metrics.get("validation", {})
        inside = max(sum(spent.values()), 1e-9)
        self.metrics |= {
            "status": status, "reason": reason, "step": step, "steps": total_steps,
            "seconds": round(seconds, 2), "peak_memory_mb": origin.peak_memory_mb(device),
            "seconds_spent": {name: round(value, 3) for name, value in spent.items()},
            "share_of_time": {name: round(value / inside, 4) for name, value in spent.items()},
        }  # fmt: skip
        lines = [
            f"run         {self.folder.name}",
            f"status      {status}" + (f": {reason}" if reason else ""),
            f"steps       {step} of {total_steps}",
            f"duration    {seconds / 60:.1f} minutes",
            "validation  " + ", ".join(f"{name} {_short(value)}" for name, value in scores.items()),
        ]
        if status != "finished":
            state = checkpoints.load_state(self.folder)
            kept = f"step {state['step']}" if state else "none"
            lines += [f"checkpoint  {kept}", "continue    train(resume=<this folder>)"]
        for name, write in (
            ("metrics.json", lambda path: write_json(path, self.metrics)),
            ("report.txt", lambda path: write_text(path, "\n".join(lines) + "\n")),
            ("provenance.json", self._close_provenance),
        ):
            try:
                write(self.folder / name)
            except OSError:
                if status == "finished":
                    raise
        if self._board is not None:
            self._board.close()

    def _close_provenance(self, path) -> None:
        notes = (read_json(path, optional=True) or {}) | {"ended": origin.now()}
        notes |= {name: self.metrics[name] for name in ("status", "seconds", "peak_memory_mb")}
        write_json(path, notes)

    def _keep(self, name, arrays) -> None:
        folder = self.folder / "snapshots"
        folder.mkdir(exist_ok=True)
        with written_atomically(folder / name) as temporary:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)

    def _write(self, row) -> None:
        self.log.add(row)
        for name, value in row.items():
            if value is not None and name != "step":
                group = "validation/" if name.startswith("val_") else "training/"
                self.board.add_scalar(group + name.removeprefix("val_"), value, row["step"])

    def _lately(self) -> str:
        """Loss and speed of the last line in the log, in words."""
        row = next((row for row in reversed(self.log.rows) if row["loss"] is not None), None)
        return f"loss {row['loss']:.4g}, {row['images_per_s']:.0f} images/s; " if row else ""

    def _images_per_second(self, step) -> float:
        before, then = self._since
        now = time.perf_counter()
        self._since = (step, now)
        return (step - before) * self.config.batch_size / max(now - then, 1e-9)


@contextlib.contextmanager
def report_of_failure(folder):
    """Leave a report of an error in the block, unless the block has written one itself."""
    path = Path(folder) / "report.txt"
    before = path.stat().st_mtime_ns if path.exists() else 0
    try:
        yield
    except BaseException as error:
        if not path.exists() or path.stat().st_mtime_ns == before:
            what = f"status      failed before the loop began: {type(error).__name__}: {error}"
            if isinstance(error, KeyboardInterrupt):  # so hasty that the loop wrote no report
                what = "status      interrupted, stopped by the user or by the system"
            with contextlib.suppress(OSError):
                write_text(path, f"run         {path.parent.name}\n{what}\n")
        raise


@torch.no_grad()
def evaluate(network, task, config, device) -> tuple[dict, dict]:
    """Scores of a network on a task's validation set, and what it predicts.

    returns scores in millimetres and per cent of the crop, and arrays ``vertices`` (N, V, 3),
    ``joints`` (N, 21, 3) metres, ``camera`` (N, 3), ``joints_2d`` (N, 21, 2) crop units.
    """
    truth, losses, kept = task.validation, {}, []
    count = len(truth["image"])
    was_training = network.training
    network.eval()
    for start in range(0, count, _VALIDATION_CHUNK):
        batch = {
            name: value[start : start + _VALIDATION_CHUNK].to(device)
            for name, value in truth.items()
        }
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        prediction = predict_crops(network, image, config.n_crops)
        total, parts = task.loss(prediction, batch, network, config)
        weight = len(image) / count
        for name, value in {"total": total, **parts}.items():
            losses[name] = losses.get(name, 0.0) + weight * float(value)
        fields = ("vertices", "joints", "camera", "joints_2d")
        kept.append({name: getattr(prediction, name).float().cpu().numpy() for name in fields})
    network.train(was_training)
    predicted = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    scores = {f"loss_{name}": value for name, value in losses.items()}
    scores = {"loss": scores.pop("loss_total")} | scores
    return scores | geometric_scores(predicted, truth), predicted


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


def skeletons(images: np.ndarray, prediction: dict, side: int = 160) -> np.ndarray:
    """Pictures in a row with the predicted 2-D joints drawn in.

    images: (N, S, S, 3) uint8.   prediction: ``joints_2d`` (at least N, 21, 2) crop units.
    returns (side, N side, 3) uint8.
    """
    row = []
    for image, joints in zip(images, prediction["joints_2d"], strict=False):
        picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        points = np.clip(crop_to_pixels(joints, side), -1e4, 1e4) * 8
        for parent, child in BONES:
            a, b = (tuple(int(round(v)) for v in points[j]) for j in (parent, child))
            cv2.line(picture, a, b, _colour(child), 2, cv2.LINE_AA, shift=3)
        row.append(picture)
    return np.concatenate(row, axis=1)


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


SUMMARY = ("vertices_mm", "vertices_pa_mm", "joints_mm", "joints_pa_mm")
"""Columns of ``summary``: plain and aligned (PA) errors in millimetres."""


def summary(*folders) -> dict[str, list[float | None]]:
    """Scores on the validation set by name: "template only", then each run; columns ``SUMMARY``."""
    rows = {}
    for folder in map(Path, folders):
        metrics = read_json(folder / "metrics.json", optional=True) or {}
        rows.setdefault("template only", metrics.get("template_only", {}))
        rows[folder.name] = metrics.get("validation", {})
    return {who: [row.get(column) for column in SUMMARY] for who, row in rows.items()}


def summary_table(*folders) -> str:
    """``summary`` as lines of text."""
    lines = ["mean error, mm     vertices      PA  joints      PA"]
    for who, values in summary(*folders).items():
        cells = ("    -   " if value is None else f"{value:8.1f}" for value in values)
        lines.append(f"{who:18s} " + "".join(cells))
    lines.append("joints: with the fingertips of the validation labels")
    return "\n".join(lines)


def _colour(joint) -> tuple[int, int, int]:
    finger = next(name for name, joints in FINGERS.items() if joint in joints)
    code = FINGER_COLOURS[finger]
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def _minutes(seconds, step, total_steps) -> str:
    if step == 0:
        return "begins"
    left = seconds / step * (total_steps - step) / 60
    return "done" if step >= total_steps else f"{math.ceil(left)} min left"


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
