"""What one can see of a run while it goes and after it ended: log, scores, pictures, reasons."""

import contextlib
import csv
import io
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from hand_lib.files import read_json, write_json, write_text, written_atomically
from hand_lib.hand.joints import BONES, FINGER_COLOURS, FINGERS
from hand_lib.metrics import mesh_errors
from hand_lib.network.second_look import predict_crops
from hand_lib.render.camera import crop_to_pixels
from hand_lib.training.run_folder import now, write_provenance

SHOWN_HANDS = 8
"""Validation hands whose predictions are kept over time, the first ones."""

_VALIDATION_CHUNK = 64

_IN_WORDS = {
    "vertices_mm": "vertices {:.1f} mm",
    "vertices_pa_mm": "aligned (PA) {:.1f} mm",
    "joints_2d_percent": "2-D joints {:.1f} % of the crop",
}


class RunLogger:
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
        self.seconds_spent = dict.fromkeys(
            ("waiting", "step", "logging", "validation", "checkpoint"), 0.0
        )
        self._run = self._csv = self._board = None
        self._since, self._peak_memory = (0, time.perf_counter()), 0

    def begin(self, run) -> None:
        """Go on after the step of a ``loop.Run``: what was logged later is dropped."""
        self._run, self._since = run, (run.step, time.perf_counter())
        self._first = 0 if run.saved_step is None else run.step + 1  # to be logged
        if self.main:
            self._csv = Log(self.folder, self._first - 1)
            write_provenance(self.folder, run)
            truth = run.setup.validation
            self._keep("truth.npz", {name: truth[name][:SHOWN_HANDS].numpy() for name in truth})
            if run.setup.hierarchy is not None and not (self.folder / "hierarchy.npz").exists():
                run.setup.hierarchy.save(self.folder / "hierarchy.npz")

    @property
    def rows(self) -> list[dict]:
        """Lines of ``log.csv``, as ``read_log`` gives them."""
        return self._csv.rows if self._csv else []

    @property
    def board(self):
        """The TensorBoard writer, opened when first needed."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=self._first, flush_secs=30)
        return self._board

    @contextlib.contextmanager
    def clock(self, name: str):
        """Count the seconds that the block takes as ``seconds_spent[name]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_spent[name] += time.perf_counter() - start

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
        bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        row = {"learning_rate": rate, "gradient_norm": norm, "loss": loss}
        row |= {f"loss_{name}": float(value) for name, value in parts.items()}
        self._write(run, row, round(speed, 1))

    def validate(self, run) -> None:
        """Score the network on the fixed validation set; log, draw and keep what it predicts."""
        if not self.main:
            return
        with self.clock("validation"):
            device, total = run.accelerator.device, run.expected_steps
            scores, prediction = evaluate(run.best_network, run.setup, self.config, device)
            row = dict.fromkeys(("learning_rate", "gradient_norm", "loss"))
            row |= {name: None for name in scores if name.startswith("loss_")}
            self._write(run, row | {f"val_{name}": value for name, value in scores.items()})
            shown = {name: prediction[name][:SHOWN_HANDS] for name in prediction}
            self._keep(f"step_{run.step:07d}.npz", shown)
            images = run.setup.validation["image"][:SHOWN_HANDS].permute(0, 2, 3, 1).numpy()
            picture = skeletons(images, shown)
            self.board.add_image("validation hands", picture, run.step, dataformats="HWC")
            self.metrics |= {"status": "running", "step": run.step, "steps": total}
            self.metrics |= {"validation": scores, "template_only": run.setup.baseline}
            write_json(self.folder / "metrics.json", self.metrics)
            known = (_IN_WORDS[name].format(scores[name]) for name in _IN_WORDS if name in scores)
            last = next((row for row in reversed(self.rows) if row["loss"] is not None), None)
            before = ""
            if last:
                before = f"loss {last['loss']:.4g}, {last['images_per_s']:.0f} images/s; "
            left = _time_left(run.seconds, run.step, total)
            self.say(f"step {run.step}/{total}: {before}validation {', '.join(known)}, {left}")

    def flush(self) -> None:
        """Bring what TensorBoard was given onto the disk: a checkpoint is about to be written."""
        if self._board is not None:
            self._board.flush()

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind, error, _trace) -> None:
        """Close the run's books: status and reason, last checkpoint, times, largest memory."""
        idle = self._run is None and self.metrics.get("status") == "finished"
        if idle or not self.main:
            return
        status, reason = "finished", ""
        if error is not None:
            status, reason = "failed", f"{kind.__name__}: {error}"
        if kind is KeyboardInterrupt:
            status, reason = "interrupted", "stopped by the user or by the system"
        self.metrics |= {"status": status, "reason": reason}
        origin = read_json(self.folder / "provenance.json", optional=True) or {}
        if self._run is not None:
            self.metrics |= self._summary(self._run)
            origin |= {name: self.metrics[name] for name in ("status", "seconds", "memory_mb")}
        try:
            write_json(self.folder / "metrics.json", self.metrics)
            if self._run is not None:
                write_json(self.folder / "provenance.json", origin | {"ended": now()})
        except OSError:  # the disk being full is the reason already
            if error is None:
                raise
        if self._board is not None:
            self._board.close()

    def _summary(self, run) -> dict:
        """Where the run stands and what it took."""
        memory = {"cpu": round(max(self._peak_memory, _memory()) / 2**20)}
        if run.accelerator.device.type == "cuda":
            memory["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20)
        spent, inside = self.seconds_spent, max(sum(self.seconds_spent.values()), 1e-9)
        return {
            "step": run.step,
            "steps": run.total_steps,
            "checkpoint": run.saved_step,
            "seconds": round(run.seconds, 2),
            "memory_mb": memory,
            "seconds_spent": {name: round(value, 3) for name, value in spent.items()},
            "share_of_time": {name: round(value / inside, 4) for name, value in spent.items()},
        }

    def _keep(self, name, arrays) -> None:
        folder = self.folder / "snapshots"
        folder.mkdir(exist_ok=True)
        with written_atomically(folder / name) as temporary:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)

    def _write(self, run, values: dict, speed: float | None = None) -> None:
        row = {"step": run.step, "seconds": round(run.seconds, 3), "images_per_s": speed} | values
        self._csv.add(row)
        for name, value in row.items():
            if value is not None and name != "step":
                group = "validation/" if name.startswith("val_") else "training/"
                self.board.add_scalar(group + name.removeprefix("val_"), value, run.step)


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
    text = path.read_text() if path.exists() else ""
    rows = []
    for line in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        if None not in line and None not in line.values():  # as long as the heading
            row = {name: float(cell) if cell else None for name, cell in line.items()}
            rows.append(row | {"step": int(row["step"])})
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


@torch.no_grad()
def evaluate(network, setup, config, device) -> tuple[dict, dict]:
    """Scores of a network on a setup's validation set, and what it predicts.

    returns scores in millimetres and per cent of the crop, and arrays ``vertices`` (N, V, 3),
    ``joints`` (N, 21, 3) metres, ``camera`` (N, 3), ``joints_2d`` (N, 21, 2) crop units.
    """
    truth, losses, kept = setup.validation, {}, []
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
        total, parts = setup.loss(prediction, batch, network, config)
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


def summary_table(*folders) -> str:
    """Scores on the validation set as lines of text: "template only", then each run."""
    names, rows = ("vertices_mm", "vertices_pa_mm", "joints_mm", "joints_pa_mm"), {}
    for folder in map(Path, folders):
        metrics = read_json(folder / "metrics.json", optional=True) or {}
        rows.setdefault("template only", metrics.get("template_only", {}))
        rows[folder.name] = metrics.get("validation", {})
    lines = ["mean error, mm     vertices      PA  joints      PA"]
    for run, scores in rows.items():
        cells = (f"{scores[name]:8.1f}" if name in scores else "    -   " for name in names)
        lines.append(f"{run:18s} " + "".join(cells))
    return "\n".join([*lines, "joints: with the fingertips of the validation labels"])


def _memory() -> int:
    """Bytes of memory that this process holds; 0 where nobody can tell."""
    with contextlib.suppress(ImportError):
        import psutil

        return psutil.Process().memory_info().rss
    return 0


def _colour(joint) -> tuple[int, int, int]:
    finger = next(name for name, joints in FINGERS.items() if joint in joints)
    code = FINGER_COLOURS[finger]
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def _time_left(seconds, step, total_steps) -> str:
    if step == 0:
        return "begins"
    left = seconds / step * (total_steps - step) / 60
    return "done" if step >= total_steps else f"{math.ceil(left)} min left"
