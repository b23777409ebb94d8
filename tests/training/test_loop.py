"""The loop: what it computes, what it refuses, what it leaves behind."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
import torch
from toy_training import (
    ToyData,
    ToyNetwork,
    interrupted,
    quiet,
    run,
    same,
    toy_config,
    toy_loss,
    toy_setup,
    weights,
)

from hand_lib import ROOT
from hand_lib.files import write_json
from hand_lib.training import loop, run_folder, runtime
from hand_lib.training.loop import TrainingStopped, train
from hand_lib.training.run_folder import read_log
from hand_lib.training.setup import TrainingSetup


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    first, again, other = (
        run(tmp_path / name, steps=6, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_a_run_leaves_the_callers_random_numbers_and_threads_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    setup = toy_setup(toy_config())
    torch.manual_seed(5)
    before = torch.get_num_threads()
    run(tmp_path / "run", setup=setup, steps=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_the_loop_overfits_four_hands_to_under_a_millimetre(tmp_path):
    config = toy_config(
        steps=200, batch_size=4, log_every=100, validate_every=200, checkpoint_every=200,
        ema_decay=0.9, clip=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    data = ToyData(4, noise=1)
    validation = {name: torch.as_tensor(v) for name, v in data.fetch_batch(range(4)).items()}
    setup = TrainingSetup(ToyNetwork(dropout=0.0), data, validation, toy_loss)
    result = train(config, tmp_path / "run", setup=setup, say=quiet)
    assert result.metrics["validation"]["vertices_mm"] < 1


def test_pieces_of_a_batch_give_the_step_of_the_whole_batch(tmp_path):
    settings = dict(steps=5, freeze_norm=True, ema_decay=0.0, learning_rate=1e-3)
    whole = run(tmp_path / "a", **settings)
    pieces = run(tmp_path / "b", accumulate=4, **settings)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(pieces)[name], value, atol=5e-5, rtol=0)


def test_two_processes_give_the_weights_of_one_and_train_every_encoder_family(tmp_path):
    """With the doubled batch. A parameter that never gets a gradient would stop them."""
    settings = dict(steps=20, freeze_norm=True, learning_rate=1e-3)
    one = run(tmp_path / "one", **settings)
    with pytest.raises(KeyboardInterrupt):
        setup = interrupted(toy_setup(one.config), 3)
        run(tmp_path / "handed over", setup=setup, **settings)
    path = f"{ROOT / 'tests'}:{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    script = tmp_path / "pair.py"
    script.write_text(PAIR + FAMILIES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
         str(script), str(tmp_path), json.dumps(settings)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    moved = (one.network.decoder.weight - toy_setup(one.config).network.decoder.weight).abs().max()
    assert moved > 0.003  # twenty steps went somewhere
    assert json.loads((tmp_path / "two" / "provenance.json").read_text())["processes"] == 2
    logs = [read_log(tmp_path / name)[1:] for name in ("one", "two")]
    for alone, both in zip(*logs, strict=True):  # what is logged is of all processes
        for column in ("loss", "loss_joints", "gradient_norm"):
            if alone[column] is not None:
                assert both[column] == pytest.approx(alone[column], rel=1e-3)
    # what only the second process sees stops both, and is named
    reason = json.loads((tmp_path / "poisoned" / "metrics.json").read_text())["reason"]
    samples = json.loads(reason.split("on samples ")[1].split("]")[0] + "]")
    assert "nan" in reason and 13 in samples[4:] and len(samples) == 8
    # asked to stop in the second process only, both stop after the same step
    metrics = json.loads((tmp_path / "stopped" / "metrics.json").read_text())
    assert (metrics["status"], metrics["checkpoint"]) == ("interrupted", 3)
    train(resume=tmp_path / "stopped", setup=toy_setup(one.config), say=quiet)  # by one alone
    for folder in ("two", "handed over", "stopped"):
        two = run_folder.load_model(tmp_path / folder)
        for name, value in weights(one).items():
            torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)


FAMILIES = """
import torch
from network_fixtures import random_batch, small_network
from torch.nn.parallel import DistributedDataParallel
from hand_lib.training.config import make_config
from hand_lib.training.runtime import make_accelerator
from hand_lib.network.losses import total_loss

for name in ("resnet18", "regnety_002", "tf_efficientnet_lite0", "hrnet_w18_small"):
    config = make_config("small", backbone=name, device="cpu", image_size=64, loss_heatmaps=0.1,
                         loss_correspondence=0.0)
    accelerator = make_accelerator(config)
    network = small_network(backbone=name).train()
    model = accelerator.prepare_model(network)
    assert isinstance(model, DistributedDataParallel)
    batch = random_batch(network, 2, seed=accelerator.process_index)
    for _ in range(2):  # the second step finds what the first left unfinished
        total_loss(model(batch["image"]), batch, network, config)[0].backward()
    assert all(p.grad is not None for p in network.parameters()), name
torch.distributed.destroy_process_group()
"""

PAIR = """
import json, os, sys
from hand_lib.training.loop import TrainingStopped, train
from toy_training import interrupted, quiet, toy_config, toy_setup

folder, settings = sys.argv[1], json.loads(sys.argv[2])
config = toy_config(**settings)
train(config, folder + "/two", setup=toy_setup(config), say=quiet)
train(resume=folder + "/handed over", setup=toy_setup(config), say=quiet)
try:
    train(config, folder + "/poisoned", setup=toy_setup(config, poison=13), say=quiet)
    raise SystemExit("a poisoned sample went unseen")
except TrainingStopped:
    pass
setup = toy_setup(config)
if os.environ["RANK"] == "1":
    setup = interrupted(setup, 3)
try:
    train(config, folder + "/stopped", setup=setup, say=quiet)
    raise SystemExit("Ctrl-C went unheard")
except KeyboardInterrupt:
    pass
"""


def test_loader_processes_change_nothing_but_who_loads(tmp_path):
    alone = run(tmp_path / "a", steps=6)
    helped = run(tmp_path / "b", steps=6, workers=2)
    assert same(weights(alone), weights(helped))


def test_nan_stops_the_run_and_names_step_samples_and_checkpoint(tmp_path):
    setup = toy_setup(toy_config(), poison=13)
    with pytest.raises(TrainingStopped, match="the loss became nan") as error:
        run(tmp_path / "run", setup=setup)
    text = str(error.value)
    samples = text.split("samples [")[1].split("]")[0].split(", ")
    assert "13" in samples and len(samples) == 8
    step = int(text.split("step ")[1].split(":")[0])
    last = run_folder.load_state(tmp_path / "run")
    assert f"Last good checkpoint: step {last['step']}" in text and last["step"] < step
    assert all(value.isfinite().all() for value in last["network"].values())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["status"] == "failed" and "nan" in metrics["reason"]
    assert metrics["checkpoint"] == last["step"]


def test_an_exploding_loss_stops_the_run(tmp_path):
    setup = toy_setup(toy_config())
    setup.loss = lambda p, b, n, c: tuple(
        part if i else part * (1e6 if n.calls > 9 else 1.0)
        for i, part in enumerate(toy_loss(p, b, n, c))
    )
    setup.network.calls = 0
    setup.network.register_forward_pre_hook(lambda n, _: setattr(n, "calls", n.calls + n.training))
    with pytest.raises(TrainingStopped, match="step 10: the loss jumped to"):
        run(tmp_path / "run", setup=setup, ema_decay=0.0)


def test_a_time_limit_hurries_the_schedule_to_its_end(tmp_path):
    result = run(tmp_path / "run", steps=10**6, minutes=0.01, validate_every=10**6,
                 checkpoint_every=10**6)  # fmt: skip
    rates = [row["learning_rate"] for row in result.log if row["learning_rate"] is not None]
    assert 10 < result.step < 10**6
    assert rates[-1] < 0.1 * max(rates)


def test_training_again_continues_or_returns_what_is_there(tmp_path, monkeypatch):
    folder, config = tmp_path / "run", toy_config(steps=8)
    original, builds = loop.train, []

    def with_task(config, *args, **settings):
        builds.append(settings.get("resume"))
        return original(config, *args, **settings, setup=toy_setup(config))

    monkeypatch.setattr(loop, "train", with_task)
    first = loop.train_or_continue(config, folder, say=quiet)
    again = loop.train_or_continue(config, folder, say=quiet)
    assert builds == [None] and again.step == 8
    assert again.metrics == first.metrics and again.log == first.log
    write_json(folder / "metrics.json", {**first.metrics, "status": "interrupted"})
    loop.train_or_continue(config, folder, say=quiet)
    assert builds == [None, folder]
    with pytest.raises(ValueError, match="seed was 88, now 1"):
        loop.train_or_continue(toy_config(steps=8, seed=1), folder, say=quiet)


def test_several_processes_are_started_from_where_one_calls(tmp_path, monkeypatch):
    import accelerate

    begun = []

    def begin(function, num_processes):
        begun.append((function.func, function.args, function.keywords, num_processes))
        run(tmp_path / "run", steps=4)

    monkeypatch.setattr(accelerate, "debug_launcher", begin)
    config = toy_config(steps=4)
    result = loop.train_or_continue(config, tmp_path / "run", say=quiet, processes=2)
    assert begun == [(train, (config,), {"run_folder": tmp_path / "run"}, 2)]
    assert result.step == 4 and result.config == config


def test_train_asks_for_what_it_needs(tmp_path):
    for given in ({"config": toy_config()}, {"run_folder": tmp_path / "run"}):
        with pytest.raises(ValueError, match="either a config and run_folder .* or resume"):
            train(**given)
    assert not (tmp_path / "run").exists()


def test_the_second_ctrl_c_interrupts_at_once_but_an_echo_of_the_first_does_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    with runtime.stop_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        now[0] += 0.5
        signal.raise_signal(signal.SIGINT)  # passed on by a launcher
        now[0] += 1.0
        signal.raise_signal(signal.SIGTERM)  # Jupyter grows impatient
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_launchers_leave_our_options_to_us():
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    ours = ["--preset", "full", "--folder", "x", "--resume", "y", "--config", "z"]
    ours += ["--allow-changes", "steps", "3"]
    told = get_args_parser().parse_args(["--nproc_per_node=2", "-m", "x", *ours])
    assert told.training_script_args == ours
    told = launch_command_parser().parse_args(["--multi_gpu", "-m", "x", *ours])
    assert told.training_script_args == ours


def test_the_command_line_trains_and_resumes_with_other_settings_on_request(
    tmp_path, monkeypatch, capsys
):
    original, seen = loop.train, []

    def with_task(config, folder, **settings):
        seen.append((config, folder, settings["resume"]))
        return original(config, folder, **settings, setup=toy_setup(config), say=quiet)

    monkeypatch.setattr(loop, "train", with_task)
    file, folder = tmp_path / "config.json", tmp_path / "run"
    file.write_text(toy_config(steps=4).to_json())
    loop.main(["--config", str(file), "--folder", str(folder), "seed", "3"])
    assert seen == [(toy_config(steps=4, seed=3), str(folder), None)]
    with pytest.raises(SystemExit):
        loop.main(["--resume", str(folder), "steps", "6"])
    assert "steps was 4, now 6" in capsys.readouterr().err
    loop.main(["--resume", str(folder), "--allow-changes", "steps", "6"])
    assert run_folder.read_run(folder).step == 6
    for words, told in ((["steps"], "'steps' has no value"), (["--preset", "smal"], "'small'")):
        with pytest.raises(SystemExit):
            loop.main(["--folder", str(tmp_path / "other"), *words])
        assert told in capsys.readouterr().err


def test_a_run_that_fails_before_its_loop_says_why_and_leaves_its_folder_free(tmp_path):
    config = toy_config(steps=2, data=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(config, tmp_path / "run", say=quiet)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["status"] == "failed" and "nowhere" in metrics["reason"]
    assert run(tmp_path / "run", steps=2).metrics["status"] == "finished"


def test_a_run_folder_that_not_all_machines_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "mean_over_processes", lambda _, numbers: {"step": 12.5})
    with pytest.raises(FileNotFoundError, match="a disk that they share"):
        run(tmp_path / "run", steps=2)


def test_a_changed_learning_rate_takes_effect_when_resuming(tmp_path):
    run(tmp_path / "run", steps=4, schedule="constant", warmup_steps=0)
    config = toy_config(steps=6, schedule="constant", warmup_steps=0, learning_rate=0.002)
    result = train(
        config, resume=tmp_path / "run", allow_changes=True, setup=toy_setup(config), say=quiet
    )
    rates = [row["learning_rate"] for row in result.log if row["learning_rate"] is not None]
    assert rates == [0.01] * 4 + [0.002] * 2


def test_processes_share_the_cores_of_one_cpu():
    pair = types.SimpleNamespace(device=torch.device("cpu"), num_processes=2)
    before = torch.get_num_threads()
    with runtime.own_random_state(toy_config(threads=0), pair):
        assert torch.get_num_threads() == min(before, runtime.cores(2))
    assert runtime.cores() >= runtime.cores(2) == max(1, runtime.cores() // 2)
    with runtime.own_random_state(toy_config(threads=1), pair):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_what_accelerate_was_told_elsewhere_does_not_change_a_step(tmp_path, monkeypatch):
    plain = run(tmp_path / "a", steps=3)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    assert same(weights(plain), weights(run(tmp_path / "b", steps=3)))


def test_the_second_ctrl_c_ends_a_process_that_nothing_wakes():
    """One that waits in a call that begins anew after a signal, and in its cleaning up too."""

    def wait_for_ever(ready):
        runtime._PATIENCE_SECONDS = 0.2
        with runtime.stop_signals():
            ready.set()
            while True:
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()

    forks = multiprocessing.get_context("fork")
    ready = forks.Event()
    process = forks.Process(target=wait_for_ever, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(20)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1.2)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(5)
    assert process.exitcode == 128 + signal.SIGINT
