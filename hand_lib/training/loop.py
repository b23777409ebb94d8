"""Training: one loop on Accelerate, from a laptop to many GPUs, that can be killed and continued.

    result = train(make_config("small"), "runs/small")
    result = train(resume="runs/small")
    accelerate launch --multi_gpu -m hand_lib.training.loop --preset full --folder runs/full
    torchrun --nproc_per_node 8 -m hand_lib.training.loop --preset full --folder runs/full

What a step computes depends on the config and on its number only: the images of a batch, their
augmentation and the learning rate are functions of (seed, step), and ``state.pt`` holds the rest.
"""

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from hand_lib.data.loader import HandLoader
from hand_lib.files import read_json, write_json, write_text
from hand_lib.training import checkpoints
from hand_lib.training import log as watching
from hand_lib.training import provenance as origin
from hand_lib.training.config import (
    TrainConfig,
    config_from_json,
    differences,
    literal,
    make_config,
    replace,
)
from hand_lib.training.manners import (
    clock,
    cores,
    make_accelerator,
    own_random_state,
    shared_by_all,
    stop_signals,
)
from hand_lib.training.optimisation import (
    AveragedWeights,
    freeze_normalisation,
    make_optimizer,
    planned_steps,
    rate_factor,
    set_rate,
    uses_bf16,
)


@dataclass
class Task:
    """What a run trains, on what, and towards what."""

    network: nn.Module
    train_data: object  # one or several data sets that ``loading.HandLoader`` takes
    validation: dict  # one batch of CPU tensors, as large as the validation set
    loss: Callable  # (prediction, batch, network, config) -> total, dict of its parts
    fingerprint: str = ""  # of the validation set
    baseline: dict = field(default_factory=dict)  # scores of "template only" on the validation set
    hierarchy: object | None = None  # saved with the run where it is not the built-in hand's


@dataclass
class RunResult:
    """What ``train`` gives back; the same is in the run folder."""

    folder: Path
    config: TrainConfig
    step: int
    metrics: dict
    log: list[dict] = field(repr=False, default_factory=list)
    network: nn.Module | None = field(repr=False, default=None)  # with the weights that were saved


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says where, on which images, and what is left."""


def train(
    config: TrainConfig | None = None,
    run_folder=None,
    *,
    resume=None,
    task: Task | None = None,
    allow_changes: bool = False,
    say: Callable[[str], None] = tqdm.write,
) -> RunResult:
    """Train into a new run folder, or continue the run in an old one.

    config: may be left out when resuming.   run_folder: created; must not hold a run yet.
    resume: folder of a run to continue; a config that differs from its own is refused unless
    ``allow_changes``.   task: network and data, by default what the config names.
    say: gets one line at a time for a person to read.
    """
    if (resume is None) == (run_folder is None):
        raise ValueError("give either run_folder (a new run) or resume (the folder of an old one)")
    if resume is None and config is None:
        raise ValueError("a new run needs a config, for instance make_config('small')")
    folder = Path(resume or run_folder)
    with contextlib.ExitStack() as stack:
        accelerator = make_accelerator(config or read_config(folder))
        if accelerator.is_main_process:
            if resume is not None:
                config = _continued(config, folder, allow_changes)
            stack.enter_context(checkpoints.locked(folder))
            if resume is None and checkpoints.has_state(folder):
                raise FileExistsError(
                    f"{folder} already holds a run; continue it with resume={str(folder)!r}, "
                    "or choose another name"
                )
            write_text(folder / "config.json", config.to_json())
            stack.enter_context(watching.report_of_failure(folder))
        else:
            say = _silent
        accelerator.wait_for_everyone()
        config = config or read_config(folder)
        stack.enter_context(own_random_state(config, accelerator))
        if task is None:
            from hand_lib.training.setup import build_task

            begun = checkpoints.has_state(folder)  # then the weights are in there
            first = replace(config, pretrained=False, start_from="") if begun else config
            task = build_task(first, say)
        stop = stack.enter_context(stop_signals())
        return _fit(config, folder, task, accelerator, say, stop)


def train_or_continue(
    config: TrainConfig, run_folder, say=tqdm.write, processes: int = 0, allow_changes: bool = False
) -> RunResult:
    """Train; continue where an earlier run with this config stopped; return it if it finished.

    A run with another config in that folder is an error that says what differs, unless
    ``allow_changes``.   processes: to train in, from a notebook too; 0 is one per GPU, and one
    without.
    """
    folder, settings = Path(run_folder), {"run_folder": run_folder}
    if checkpoints.has_state(folder):
        settings = {"resume": folder, "allow_changes": allow_changes}
        same = _continued(config, folder, allow_changes) == read_config(folder)
        metrics = read_json(folder / "metrics.json", optional=True) or {}
        if same and metrics.get("status") == "finished":
            say(f"{folder.name} is trained already; for another run choose another name")
            return read_run(folder)
    gpus = torch.cuda.device_count() if config.device == "auto" else 0
    processes = processes or max(gpus, 1)
    if processes == 1:
        return train(config, say=say, **settings)
    from accelerate import debug_launcher, notebook_launcher

    begin = notebook_launcher if gpus else debug_launcher  # the latter: processes on the CPU
    begin(_train_quietly, (config, settings), num_processes=processes)
    return read_run(folder)


def read_run(folder) -> RunResult:
    """What a run left in its folder, without the network."""
    metrics = read_json(Path(folder) / "metrics.json", optional=True)
    if metrics is None:
        raise FileNotFoundError(f"{folder} holds no metrics.json: no run got as far as validating")
    log = checkpoints.read_log(folder)
    return RunResult(Path(folder), read_config(folder), metrics["step"], metrics, log)


def _train_quietly(config, settings) -> None:
    """One of several processes that a notebook starts: nothing to give back."""
    train(config, **settings)


def _fit(config, folder, task, accelerator, say, stop) -> RunResult:
    """The loop."""
    device, main = accelerator.device, accelerator.is_main_process
    loader = HandLoader(
        task.train_data, config.batch_size, config.seed, drop_last=True,
        workers=min(config.workers, cores(accelerator.num_processes)),
        pin_memory=device.type == "cuda", process=accelerator.process_index,
        processes=accelerator.num_processes,
    )  # fmt: skip
    total_steps = planned_steps(config, loader.steps_per_epoch)
    torch.manual_seed(config.seed + 1 + accelerator.process_index)
    network = task.network.to(device, memory_format=torch.channels_last)
    model, optimizer = accelerator.prepare(network, make_optimizer(network, config))
    average = AveragedWeights(network, config.ema_decay) if config.ema_decay else None
    shown = average.network if average else network
    bf16 = uses_bf16(config.precision, device)
    spent = dict.fromkeys(("waiting", "step", "logging", "validation", "checkpoint"), 0.0)

    state = checkpoints.load_state(folder, device)
    step, seconds = (state["step"], state["seconds"]) if state else (0, 0.0)
    smooth = state["smooth"] if state else None
    if shared_by_all(accelerator, {"step": step})["step"] != step:
        raise FileNotFoundError(
            f"not every process finds the same state.pt in {folder}: machines that train together "
            "need the run folder on a disk that they share"
        )
    if state:
        checkpoints.restore(state, network, optimizer, average, folder)
        if not main:  # the random state in there is the first process's
            torch.manual_seed(config.seed + 1 + accelerator.process_index + 1000 * step)
        say(f"continuing {folder.name} after step {step} of {total_steps}")
    record = watching.Record(folder, step if state else -1, task, config) if main else None
    if main:
        notes = origin.provenance(config, device, loader.datasets, accelerator.num_processes)
        notes |= {"validation_fingerprint": task.fingerprint, "bf16": bf16}
        notes["continued_at_steps"] = [*record.continued_at, step] if state else []
        write_json(folder / "provenance.json", notes)
        if task.hierarchy is not None and not (folder / "hierarchy.npz").exists():
            task.hierarchy.save(folder / "hierarchy.npz")

    def progress():  # done share of the run; on a slow machine the time limit decides
        return max(step / total_steps, seconds / 60 / config.minutes if config.minutes else 0.0)

    def validate():
        if main:
            with clock(spent, "validation"):
                planned = total_steps if step == 0 else max(step, round(step / progress()))
                record.validate(shown, step, seconds, device, say, planned)

    def save():
        if main:
            with clock(spent, "checkpoint"):
                record.flush()
                checkpoints.save_model(folder, shown.state_dict(), step=step)
                whole = checkpoints.run_state(step, seconds, smooth, network, optimizer, average)
                checkpoints.save_state(folder, whole)

    def finish(status, reason=""):
        if main:
            record.finish(status, reason, step, total_steps, seconds, spent, device)

    stream = loader.stream(step)
    bar = tqdm(
        total=total_steps, initial=step, unit="step", desc="training", disable=not main,
        mininterval=1.0, file=sys.stderr, dynamic_ncols=True,
    )  # fmt: skip
    try:
        if not state:
            validate()
            save()
        begun = time.perf_counter() - seconds
        while progress() < 1:
            with clock(spent, "waiting"):
                batch = next(stream)
            with clock(spent, "step"):
                network.train()
                if config.freeze_norm:
                    freeze_normalisation(network)
                epoch = step // loader.steps_per_epoch
                rate = set_rate(optimizer, rate_factor(config, step, epoch, progress()))
                loss, parts = _gradients(batch, model, network, task, config, accelerator, bf16)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip or math.inf)
                now = {"loss": loss, "stop": stop.is_set(), "time": time.perf_counter() - begun}
                loss, stopping, seconds = shared_by_all(accelerator, now).values()
                smooth = _check(loss, float(norm), smooth, step, batch, folder, config, accelerator)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average:
                    average.update(step)
            step += 1
            done = progress() >= 1
            with clock(spent, "logging"):
                if step % config.log_every == 0:
                    parts = shared_by_all(accelerator, parts)
                if main:
                    record.step(step, seconds, loss, parts, norm, rate, bar, progress())
            if done or step % config.validate_every == 0:
                validate()
            if done or stopping or step % config.checkpoint_every == 0:
                save()
            if stopping and not done:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        finish("interrupted", "stopped by the user or by the system")
        raise
    except BaseException as error:
        finish("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        bar.close()
        stream.close()
    finish("finished")
    accelerator.wait_for_everyone()
    metrics = record.metrics if main else {}
    return RunResult(folder, config, step, metrics, record.log.rows if main else [], shown)


def _gradients(batch, model, network, task, config, accelerator, bf16):
    """Forward and backward over the pieces of a batch.   returns the mean loss and its parts."""
    device, pieces = accelerator.device, config.accumulate
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    loss, parts = 0.0, {}
    for number in range(pieces):
        piece = {name: value.chunk(pieces)[number] for name, value in batch.items()}
        waits = number + 1 < pieces
        with accelerator.no_sync(model) if waits else contextlib.nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                prediction = model(piece["image"].contiguous(memory_format=torch.channels_last))
            total, terms = task.loss(prediction, piece, network, config)
            accelerator.backward(total / pieces)
        loss = loss + total.detach() / pieces
        for name, term in terms.items():
            parts[name] = parts.get(name, 0.0) + term / pieces
    return loss, parts


def _check(loss, norm, smooth, step, batch, folder, config, accelerator):
    """Stop the run at a loss that is not finite or explodes.   returns the loss's running mean."""
    what = None
    if not math.isfinite(loss):
        what = f"the loss became {loss}"
    elif not math.isfinite(norm):
        what = f"the gradient's norm became {norm}"
    elif smooth is not None and loss > config.explode * smooth:
        what = f"the loss jumped to {loss:.4g}, {loss / smooth:.0f} times its running mean"
    if what is None:
        return loss if smooth is None else smooth + 0.02 * (loss - smooth)
    samples = accelerator.gather(batch["index"].to(accelerator.device)).tolist()
    state = checkpoints.load_state(folder)
    saved = f"step {state['step']}" if state else "none"
    raise TrainingStopped(
        f"step {step + 1}: {what}, on samples {samples}. Last good checkpoint: "
        f"{saved}, in {folder}. Look at these samples; lower learning_rate or set clip before "
        "resuming"
    )


def read_config(folder) -> TrainConfig:
    """The configuration of the run in a folder."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: there is no run in {folder}")
    return config_from_json(path.read_text(), str(path))


def _continued(config, folder, allow_changes) -> TrainConfig:
    """The config to continue a run with."""
    old = read_config(folder)
    if config is None or allow_changes:
        return config or old
    changed = differences(old, config)
    if changed:
        lines = ", ".join(f"{name} was {a!r}, now {b!r}" for name, (a, b) in changed.items())
        raise ValueError(
            f"{folder} was begun with another config: {lines}. Resume without a config, or pass "
            "allow_changes=True (--allow-changes on the command line)"
        )
    return config


def _silent(line) -> None:
    """Say nothing: the processes other than the first."""


def main(arguments=None) -> None:
    """The command that ``accelerate launch`` and ``torchrun`` start; all processes run it.

    python -m hand_lib.training.loop --preset youtubehand --folder runs/yth data data/freihand
    python -m hand_lib.training.loop --config runs/yth/config.json --folder runs/again
    python -m hand_lib.training.loop --resume runs/yth
    python -m hand_lib.training.loop --resume runs/yth --allow-changes epochs 60
    """
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.training.loop", description=main.__doc__
    )
    parser.add_argument("--preset", default="small", help="the config to begin with")
    parser.add_argument("--config", help="a config.json, instead of a preset")
    # torchrun takes "--run" for the beginning of an option of its own
    parser.add_argument("--folder", "--run", dest="run", help="folder of a new run")
    parser.add_argument("--resume", help="folder of a run to continue")
    parser.add_argument("--allow-changes", action="store_true", help="resume with another config")
    parser.add_argument("changes", nargs="*", metavar="NAME VALUE", help="fields of the config")
    options = parser.parse_args(arguments)
    if bool(options.run) == bool(options.resume):
        parser.error("give either --folder or --resume")
    if len(options.changes) % 2:
        parser.error(f"{options.changes[-1]!r} has no value; give NAME VALUE pairs")
    pairs = zip(options.changes[::2], map(literal, options.changes[1::2]), strict=True)
    try:
        if options.resume:
            base = read_config(checkpoints.run_folder(options.resume))
        elif options.config:
            base = config_from_json(Path(options.config).read_text(), options.config)
        else:
            base = make_config(options.preset)
        config = replace(base, **dict(pairs))
        new, old = (name and checkpoints.run_folder(name) for name in (options.run, options.resume))
        train(config, new, resume=old, allow_changes=options.allow_changes)
    except KeyboardInterrupt:
        folder = options.resume or options.run
        parser.exit(130, f"{parser.prog}: stopped; go on with --resume {folder}\n")
    except (ValueError, TypeError, OSError, TrainingStopped) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
