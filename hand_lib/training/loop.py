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
import copy
import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from hand_lib.data.loader import HandLoader
from hand_lib.files import write_text
from hand_lib.training import runtime
from hand_lib.training.config import TrainConfig, changes_from_words, make_config, replace
from hand_lib.training.log import RunLogger, TrainingStopped, check
from hand_lib.training.run_folder import (
    RunResult,
    config_to_continue,
    find_run,
    has_state,
    load_state,
    locked,
    read_config,
    read_log,
    read_run,
    restore,
    save_run,
)
from hand_lib.training.setup import (
    TrainingSetup,
    build_setup,
    learning_rate_factor,
    make_optimizer,
    set_train_mode,
    update_average,
)


@dataclass
class Run:
    """What one process of a run holds while the loop goes."""

    config: TrainConfig
    setup: TrainingSetup
    logger: RunLogger
    accelerator: object
    loader: HandLoader
    network: nn.Module
    model: nn.Module  # the network, or what shares its gradients with other processes
    optimizer: torch.optim.Optimizer
    average: nn.Module | None  # its weights' moving average, where there is one
    bf16: bool  # the network runs under autocast
    total_steps: int
    step: int = 0  # steps done
    seconds: float = 0.0  # since the run began, interruptions left out
    smooth: float | None = None  # running mean of the loss
    saved_step: int | None = None  # of the last checkpoint

    @property
    def best_network(self) -> nn.Module:
        """The averaged network where there is one: it is validated and saved."""
        return self.network if self.average is None else self.average

    @property
    def progress(self) -> float:
        """Fraction of the run that is done; on a slow machine the time limit decides."""
        minutes = self.config.minutes
        return max(self.step / self.total_steps, self.seconds / 60 / minutes if minutes else 0.0)

    @property
    def expected_steps(self) -> int:
        """Steps of the whole run: fewer than planned where the time limit decides."""
        return max(self.step, round(self.step / self.progress)) if self.step else self.total_steps


def fit(run: Run, stop: threading.Event) -> None:
    """The loop: batch, forward, loss, backward, step, validation, checkpoint.

    stop: set by somebody who asks to end after the step that is going on.
    """
    config, network, logger, accelerator = run.config, run.network, run.logger, run.accelerator
    device, pieces = accelerator.device, config.accumulate
    with contextlib.closing(run.loader.stream(run.step)) as batches, logger.bar(run) as bar:
        if run.saved_step is None:  # it begins
            logger.validate(run)
            save_run(run)
        begun = time.perf_counter() - run.seconds
        while run.progress < 1:
            batch = {k: value.to(device, non_blocking=True) for k, value in next(batches).items()}
            set_train_mode(network, config)
            epoch = run.step // run.loader.steps_per_epoch
            factor = learning_rate_factor(config, run.step, epoch, run.progress)
            for group in run.optimizer.param_groups:
                group["lr"] = rate = group["base_lr"] * factor

            loss, parts = 0.0, {}
            for number in range(pieces):
                piece = {name: value.chunk(pieces)[number] for name, value in batch.items()}
                last = number == pieces - 1  # processes share their gradients once
                with contextlib.nullcontext() if last else accelerator.no_sync(run.model):
                    images = piece["image"].contiguous(memory_format=torch.channels_last)
                    with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
                        prediction = run.model(images)
                    total, terms = run.setup.loss(prediction, piece, network, config)
                    (total / pieces).backward()
                loss = loss + total.detach() / pieces
                for name, term in terms.items():
                    parts[name] = parts.get(name, 0.0) + term / pieces

            norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip or math.inf)
            now = {"loss": loss, "stop": stop.is_set(), "time": time.perf_counter() - begun}
            loss, stopping, run.seconds = runtime.mean_over_processes(accelerator, now).values()
            check(run, loss, float(norm), batch)
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)
            if run.average is not None:
                update_average(run.average, network, config.ema_decay, run.step)
            run.step += 1
            done = run.progress >= 1
            if run.step % config.log_every == 0:
                parts = runtime.mean_over_processes(accelerator, parts)
            logger.step(run, loss, parts, norm, rate, bar)
            if done or run.step % config.validate_every == 0:
                logger.validate(run)
            if done or stopping or run.step % config.checkpoint_every == 0:
                save_run(run)
            if stopping and not done:
                raise KeyboardInterrupt


def train(
    config: TrainConfig | None = None,
    run_folder=None,
    *,
    resume=None,
    setup: TrainingSetup | None = None,
    allow_changes: bool = False,
    say: Callable[[str], None] = tqdm.write,
) -> RunResult:
    """Train into a new run folder, or continue the run in an old one.

    config: may be left out when resuming.   run_folder: created; must not hold a run yet.
    resume: name or folder of a run to continue; a config that differs from its own is refused
    unless ``allow_changes``.   setup: network and data, by default what the config names.
    say: gets one line at a time for a person to read.
    """
    if (resume is None) == (run_folder is None) or (resume is None and config is None):
        raise ValueError(
            "give either a config and run_folder (--folder, new) or resume (--resume, an old run)"
        )
    folder = find_run(resume or run_folder)
    with contextlib.ExitStack() as stack:
        accelerator = runtime.make_accelerator(config or read_config(folder))
        if accelerator.is_main_process:
            if resume is not None:
                config = config_to_continue(config, folder, allow_changes)
            stack.enter_context(locked(folder))
            if resume is None and has_state(folder):
                raise FileExistsError(
                    f"{folder} already holds a run; continue it with resume={str(folder)!r}, "
                    "or choose another name"
                )
            write_text(folder / "config.json", config.to_json())
        accelerator.wait_for_everyone()
        config = config or read_config(folder)
        logger = stack.enter_context(RunLogger(folder, config, say, accelerator.is_main_process))
        stack.enter_context(runtime.own_random_state(config, accelerator))
        if setup is None:
            begun = has_state(folder)  # then the weights are in there
            first = replace(config, pretrained=False, start_from="") if begun else config
            setup = build_setup(first, logger.say)
        stop = stack.enter_context(runtime.stop_signals())
        run = _prepare(config, setup, logger, accelerator)
        fit(run, stop)
    accelerator.wait_for_everyone()
    return RunResult(folder, config, run.step, logger.metrics, read_log(folder), run.best_network)


def _prepare(config, setup, logger, accelerator) -> Run:
    """The run as it begins, or as its ``state.pt`` says."""
    device, folder = accelerator.device, logger.folder
    number, processes = accelerator.process_index, accelerator.num_processes
    loader = HandLoader(
        setup.train_data, config.batch_size, config.seed, drop_last=True,
        workers=min(config.workers, runtime.cores(processes)), pin_memory=device.type == "cuda",
        process=number, processes=processes,
    )  # fmt: skip
    state = load_state(folder, device)
    step = state["step"] if state else 0
    if runtime.mean_over_processes(accelerator, {"step": step})["step"] != step:
        raise FileNotFoundError(
            f"not every process finds the same state.pt in {folder}: machines that train together "
            "need the run folder on a disk that they share"
        )
    network = setup.network.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval() if config.ema_decay else None
    run = Run(
        config, setup, logger, accelerator, loader, network,
        model=accelerator.prepare_model(network),
        optimizer=make_optimizer(network, config),
        average=average,
        bf16=runtime.uses_bf16(config, state, network, accelerator),
        total_steps=config.steps or config.epochs * loader.steps_per_epoch,
    )  # fmt: skip
    torch.manual_seed(config.seed + 1 + number)
    if state:
        restore(run, state)
        logger.say(f"continuing {folder.name} after step {step} of {run.total_steps}")
        if number:  # the random state in there is the first process's
            torch.manual_seed(config.seed + 1 + number + 1000 * step)
    logger.begin(run)
    return run


def train_or_continue(
    config: TrainConfig, run_folder, say=tqdm.write, processes: int = 0, allow_changes: bool = False
) -> RunResult:
    """Train; continue where an earlier run with this config stopped; return it if it finished.

    A run with another config in that folder is an error that says what differs, unless
    ``allow_changes``.   processes: to train in; 0 is one per GPU, and one without.
    """
    folder, settings = find_run(run_folder), {"run_folder": run_folder}
    if has_state(folder):
        settings = {"resume": folder, "allow_changes": allow_changes}
        same = config_to_continue(config, folder, allow_changes) == read_config(folder)
        before = read_run(folder)
        if same and before.metrics.get("status") == "finished":
            say(f"{folder.name} is trained already; for another run choose another name")
            return before
    gpus = torch.cuda.device_count() if config.device == "auto" else 0
    processes = processes or max(gpus, 1)
    if processes == 1:
        return train(config, say=say, **settings)
    from accelerate import debug_launcher, notebook_launcher

    begin = notebook_launcher if gpus else debug_launcher  # the latter: processes on the CPU
    begin(functools.partial(train, config, **settings), num_processes=processes)
    return read_run(folder)


def main(arguments=None) -> None:
    """The command that ``accelerate launch`` and ``torchrun`` start; all processes run it.

    python -m hand_lib.training.loop --preset youtubehand --folder runs/yth data data/freihand
    python -m hand_lib.training.loop --config runs/yth/config.json --folder runs/again
    python -m hand_lib.training.loop --resume runs/yth --allow-changes epochs 60
    """
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.training.loop", description=main.__doc__
    )
    parser.add_argument("--preset", default="small", help="the config to begin with")
    parser.add_argument("--config", help="a config.json, instead of a preset")
    parser.add_argument("--folder", help="folder of a new run")
    parser.add_argument("--resume", help="folder of a run to continue")
    parser.add_argument("--allow-changes", action="store_true", help="resume with another config")
    parser.add_argument("changes", nargs="*", metavar="NAME VALUE", help="fields of the config")
    given = parser.parse_args(arguments)
    try:
        old = given.resume or given.config
        base = read_config(old) if old else make_config(given.preset)
        config = replace(base, **changes_from_words(given.changes))
        train(config, given.folder, resume=given.resume, allow_changes=given.allow_changes)
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: go on with --resume {given.resume or given.folder}\n")
    except (ValueError, TypeError, OSError, TrainingStopped) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
