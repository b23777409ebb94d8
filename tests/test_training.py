"""The loop: what it computes, what it refuses, what it leaves behind."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training import ToyData, ToyNetwork, quiet, toy_config, toy_loss, toy_task

from hand_lib import checkpoints, feeding, manners, optimisation, provenance, training, watching
from hand_lib.config import make_config
from hand_lib.training import Task, TrainingStopped, train


def run(folder, task=None, **changes):
    config = toy_config(**changes)
    return train(config, folder, task=task or toy_task(config), say=quiet)


def weights(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


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
    task = toy_task(toy_config())
    torch.manual_seed(5)
    before = torch.get_num_threads()
    run(tmp_path / "run", task=task, steps=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_the_loop_overfits_four_hands_to_under_a_millimetre(tmp_path):
    config = toy_config(
        steps=400, batch_size=4, log_every=100, validate_every=400, checkpoint_every=400,
        ema_decay=0.9, clip=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    data = ToyData(4, noise=1)
    validation = {name: torch.as_tensor(v) for name, v in data.fetch_batch(range(4)).items()}
    task = Task(ToyNetwork(dropout=0.0), data, validation, toy_loss)
    result = train(config, tmp_path / "run", task=task, say=quiet)
    assert result.metrics["validation"]["vertices_mm"] < 1


def test_pieces_of_a_batch_give_the_step_of_the_whole_batch(tmp_path):
    settings = dict(steps=5, freeze_norm=True, ema_decay=0.0, learning_rate=1e-3)
    whole = run(tmp_path / "a", **settings)
    pieces = run(tmp_path / "b", accumulate=4, **settings)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(pieces)[name], value, atol=5e-5, rtol=0)


def test_two_processes_give_the_weights_of_one_with_the_doubled_batch(tmp_path):
    settings = dict(steps=20, freeze_norm=True, learning_rate=1e-3)
    one = run(tmp_path / "one", **settings)
    code = (
        "import sys; from toy_training import *; c = toy_config(**json.loads(sys.argv[2]));"
        "training.train(c, sys.argv[1], task=toy_task(c), say=quiet)"
    )
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    script = tmp_path / "pair.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
         str(script), str(tmp_path / "two"), json.dumps(settings)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    two = checkpoints.load_model(tmp_path / "two")
    for name, value in weights(one).items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)
    moved = (one.network.decoder.weight - toy_task(one.config).network.decoder.weight).abs().max()
    assert moved > 0.003  # twenty steps went somewhere
    assert json.loads((tmp_path / "two" / "provenance.json").read_text())["processes"] == 2


def test_every_process_takes_its_own_part_of_the_same_batches():
    whole = feeding.SharedLoader(ToyData(20), 8, seed=3)
    halves = [feeding.SharedLoader(ToyData(20), 8, p, 2, seed=3) for p in (0, 1)]
    streams = [feeding.batch_stream(loader, 1) for loader in (whole, *halves)]
    for _ in range(4):  # across an epoch's end: 20 images make two batches of 8
        batch, first, second = (next(stream)["index"] for stream in streams)
        assert torch.equal(batch, torch.cat([first, second]))
    for stream in streams:
        stream.close()


def test_loader_processes_change_nothing_but_who_loads(tmp_path):
    alone = run(tmp_path / "a", steps=6)
    helped = run(tmp_path / "b", steps=6, workers=2)
    assert same(weights(alone), weights(helped))


def test_a_training_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="7 images, fewer than batch_size 8"):
        feeding.SharedLoader(ToyData(7), 8)
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        feeding.SharedLoader(ToyData(20), 8, 0, 3)


def test_an_error_while_loading_reaches_the_loop():
    def broken():
        yield 1
        raise KeyError("sample 7")

    stream = feeding.beside(broken())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="sample 7"):
        next(stream)
    assert list(feeding.beside(iter(range(5)))) == [0, 1, 2, 3, 4]


def test_nan_stops_the_run_and_names_step_samples_and_checkpoint(tmp_path):
    task = toy_task(toy_config(), poison=13)
    with pytest.raises(TrainingStopped, match="the loss became nan") as error:
        run(tmp_path / "run", task=task)
    text = str(error.value)
    samples = text.split("samples [")[1].split("]")[0].split(", ")
    assert "13" in samples and len(samples) == 8
    step = int(text.split("step ")[1].split(":")[0])
    last = checkpoints.load_state(tmp_path / "run")
    assert f"Last good checkpoint: step {last['step']}" in text and last["step"] < step
    assert all(value.isfinite().all() for value in last["network"].values())
    report = (tmp_path / "run" / "report.txt").read_text()
    assert "failed" in report and "nan" in report
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "failed"


def test_an_exploding_loss_stops_the_run(tmp_path):
    task = toy_task(toy_config())
    task.loss = lambda p, b, n, c: tuple(
        part if i else part * (1e6 if n.calls > 9 else 1.0)
        for i, part in enumerate(toy_loss(p, b, n, c))
    )
    task.network.calls = 0
    task.network.register_forward_pre_hook(lambda n, _: setattr(n, "calls", n.calls + n.training))
    with pytest.raises(TrainingStopped, match="step 10: the loss jumped to"):
        run(tmp_path / "run", task=task, ema_decay=0.0)


def test_the_run_folder_holds_what_it_promises(tmp_path):
    result = run(tmp_path / "run", steps=12)
    names = {path.name.split(".out.")[0] for path in (tmp_path / "run").iterdir()}
    promised = {
        "config.json", "model.safetensors", "state.pt", "metrics.json", "log.csv", "report.txt",
        "provenance.json", "events", "snapshots",
    }  # fmt: skip
    assert promised <= names
    notes = json.loads((tmp_path / "run" / "provenance.json").read_text())
    for name in ("commit", "dirty", "packages", "seeds", "device", "seconds", "peak_memory_mb"):
        assert notes[name] is not None
    assert len(notes["data_fingerprint"]) == 16 and notes["validation_fingerprint"] == "toy"
    assert notes["config"] == json.loads((tmp_path / "run" / "config.json").read_text())
    assert notes["seeds"] == {"weights": 88, "data_order": 88, "augmentation": 88, "dropout": [89]}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["status"], metrics["step"]) == ("finished", 12)
    assert metrics == json.loads(json.dumps(result.metrics))
    assert [row["step"] for row in result.log if row["val_loss"] is not None] == [0, 6, 12]
    assert [row["step"] for row in result.log if row["loss"] is not None] == list(range(1, 13))
    assert result.log == checkpoints.read_log(tmp_path / "run")
    saved = checkpoints.load_model(tmp_path / "run")
    assert same(saved, weights(result))


def test_snapshots_follow_the_same_hands(tmp_path):
    run(tmp_path / "run", steps=12)
    truth, steps = watching.read_snapshots(tmp_path / "run")
    assert list(steps) == [0, 6, 12]
    first, last = steps[0], steps[12]
    assert truth["image"].shape == (watching.SHOWN_HANDS, 3, 32, 32)
    assert first["vertices"].shape == (watching.SHOWN_HANDS, 30, 3)
    assert not np.array_equal(first["vertices"], last["vertices"])
    with pytest.raises(FileNotFoundError, match="never began"):
        watching.read_snapshots(tmp_path / "else")


def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "run", steps=12)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [e.step for e in events.Scalars("training/loss")] == list(range(1, 13))
    assert [e.step for e in events.Scalars("validation/vertices_mm")] == [0, 6, 12]
    assert [e.step for e in events.Images("validation hands")] == [0, 6, 12]


def test_a_person_is_told_the_scores_and_the_time_left(tmp_path):
    lines = []
    config = toy_config(steps=12)
    train(config, tmp_path / "run", task=toy_task(config), say=lines.append)
    assert len(lines) == 3
    pattern = r"step 6/12: loss [\d.]+, \d+ images/s; validation vertices [\d.]+ mm.*1 min left"
    assert re.match(pattern, lines[1])
    assert lines[2].endswith("done")


def test_a_time_limit_hurries_the_schedule_to_its_end(tmp_path):
    result = run(tmp_path / "run", steps=10**6, minutes=0.01, validate_every=10**6,
                 checkpoint_every=10**6)  # fmt: skip
    rates = [row["learning_rate"] for row in result.log if row["learning_rate"] is not None]
    assert 10 < result.step < 10**6
    assert rates[-1] < 0.1 * max(rates)


def test_training_again_continues_or_returns_what_is_there(tmp_path, monkeypatch):
    folder, config = tmp_path / "run", toy_config(steps=8)
    original, builds = training.train, []

    def with_task(config, *args, **settings):
        builds.append(settings.get("resume"))
        return original(config, *args, **settings, task=toy_task(config))

    monkeypatch.setattr(training, "train", with_task)
    first = training.train_or_continue(config, folder, say=quiet)
    again = training.train_or_continue(config, folder, say=quiet)
    assert builds == [None] and again.step == 8
    assert again.metrics == first.metrics and again.log == first.log
    checkpoints.write_json(folder / "metrics.json", {**first.metrics, "status": "interrupted"})
    training.train_or_continue(config, folder, say=quiet)
    assert builds == [None, folder]
    with pytest.raises(ValueError, match="seed was 88, now 1"):
        training.train_or_continue(toy_config(steps=8, seed=1), folder, say=quiet)


def test_several_processes_are_started_from_where_one_calls(tmp_path, monkeypatch):
    import accelerate

    begun = []

    def begin(function, arguments, num_processes):
        begun.append((function, arguments, num_processes))
        run(tmp_path / "run", steps=4)

    monkeypatch.setattr(accelerate, "debug_launcher", begin)
    config = toy_config(steps=4)
    result = training.train_or_continue(config, tmp_path / "run", say=quiet, processes=2)
    assert begun == [(training._train_quietly, (config, {"run_folder": tmp_path / "run"}), 2)]
    assert result.step == 4 and result.config == config
    with pytest.raises(FileNotFoundError, match="no metrics.json"):
        training.read_run(tmp_path / "nothing")


def test_the_summary_puts_the_run_beside_template_only(tmp_path):
    content = {"template_only": {"vertices_mm": 50.0, "vertices_pa_mm": 16.0},
               "validation": {"vertices_mm": 20.0, "vertices_pa_mm": 12.0,
                              "joints_mm": 19.0}}  # fmt: skip
    checkpoints.write_json(tmp_path / "metrics.json", content)
    assert watching.summary(tmp_path) == {
        "template only": [50.0, 16.0, None, None], tmp_path.name: [20.0, 12.0, 19.0, None],
    }  # fmt: skip
    table = watching.summary_table(tmp_path).splitlines()
    assert len(table) == 3 and table[1].split()[-4:] == ["50.0", "16.0", "-", "-"]


def test_a_run_is_found_by_name_and_by_path(tmp_path):
    named = checkpoints.run_folder("small")
    assert (named.name, named.parent.name) == ("small", "runs")
    assert checkpoints.run_folder("runs/small") == named
    assert checkpoints.run_folder(tmp_path) == tmp_path


def test_train_asks_for_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="either run_folder .* or resume"):
        train(toy_config())
    with pytest.raises(ValueError, match="needs a config"):
        train(run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cosine_falls_to_zero_after_a_linear_warm_up():
    config = make_config("small", steps=100, warmup_steps=10)
    rates = [optimisation.rate_factor(config, step, 0, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1, abs=0.03)
    assert np.argmax(rates) == 9 and (np.diff(rates[9:]) < 0).all()
    assert optimisation.rate_factor(config, 100, 0, 1.0) == pytest.approx(0)


def test_the_published_schedule_drops_once_by_ten():
    config = make_config("youtubehand")
    factors = [optimisation.rate_factor(config, 0, epoch, 0.0) for epoch in range(38)]
    np.testing.assert_allclose(factors, [1.0] * 30 + [0.1] * 8)
    assert optimisation.planned_steps(config, 100) == 3800
    assert optimisation.planned_steps(make_config("small", steps=7), 100) == 7


def test_encoder_and_decoder_have_their_own_rates_and_vectors_do_not_decay():
    config = make_config("small", learning_rate=1e-3, encoder_learning_rate=1e-4, weight_decay=0.1)
    network = ToyNetwork()
    optimizer = optimisation.make_optimizer(network, config)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert of[id(network.encoder[0].weight)]["lr"] == 1e-4
    assert of[id(network.decoder.weight)]["lr"] == 1e-3
    assert of[id(network.decoder.weight)]["weight_decay"] == 0.1
    assert of[id(network.decoder.bias)]["weight_decay"] == 0.0
    assert optimisation.set_rate(optimizer, 0.5) in (5e-4, 5e-5)
    assert of[id(network.encoder[0].weight)]["lr"] == 5e-5
    network.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        optimisation.make_optimizer(network, config)


def test_averaged_weights_follow_their_formula():
    network = ToyNetwork()
    average = optimisation.AveragedWeights(network, 0.5)
    expected = network.decoder.bias.detach().clone()
    for count in range(20):
        with torch.no_grad():
            network.decoder.bias.add_(1.0)
            network.encoder[1].running_mean.add_(1.0)
        average.update(count)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * network.decoder.bias.detach()
    torch.testing.assert_close(average.network.decoder.bias.detach(), expected)
    assert 17 < average.network.encoder[1].running_mean[0] < 20


def test_frozen_normalisation_keeps_its_statistics(tmp_path):
    before = toy_task(toy_config(freeze_norm=True)).network.encoder[1].running_mean.clone()
    frozen = run(tmp_path / "a", steps=3, freeze_norm=True)
    free = run(tmp_path / "b", steps=3)
    assert torch.equal(frozen.network.encoder[1].running_mean, before)
    assert not torch.equal(free.network.encoder[1].running_mean, before)


def test_gradients_are_clipped(tmp_path):
    free = run(tmp_path / "a", steps=1, clip=0.0)
    assert free.log[1]["gradient_norm"] > 0.1
    run(tmp_path / "b", steps=1, clip=0.05)
    state = checkpoints.load_state(tmp_path / "b")["optimizer"]["state"]
    norm = math.sqrt(sum((s["exp_avg"] / 0.1).square().sum().item() for s in state.values()))
    assert norm == pytest.approx(0.05, rel=1e-3)


def test_scores_are_millimetres_and_per_cent():
    truth = {name: torch.as_tensor(v) for name, v in ToyData(3).fetch_batch(range(3)).items()}
    predicted = {name: truth[name].numpy().copy() for name in ("vertices", "joints", "joints_2d")}
    predicted["vertices"][..., 0] += 0.01
    predicted["joints_2d"][..., 0] += 0.2
    scores = watching.geometric_scores(predicted, truth)
    assert scores["vertices_mm"] == pytest.approx(10, rel=1e-4)
    assert scores["vertices_pa_mm"] == pytest.approx(0, abs=1e-3)
    assert scores["joints_mm"] == pytest.approx(0, abs=1e-6)
    assert scores["joints_2d_percent"] == pytest.approx(10, rel=1e-4)
    truth["has_vertices"][:] = False
    assert "vertices_mm" not in watching.geometric_scores(predicted, truth)


def test_skeletons_are_drawn_where_the_joints_are():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    joints = np.zeros((2, 21, 2))
    joints[1] = np.linspace(-0.5, 0.5, 21)[:, None]
    picture = watching.skeletons(images, {"joints_2d": joints}, side=64)
    assert picture.shape == (64, 128, 3)
    assert picture[20, 64 + 20].any() and not picture[5, 64 + 50].any()


def test_bf16_is_used_where_it_was_asked_for_only():
    cpu = torch.device("cpu")
    assert optimisation.uses_bf16("bf16", cpu) and not optimisation.uses_bf16("fp32", cpu)
    assert optimisation.uses_bf16("auto", cpu) in (True, False)


def test_fingerprints_tell_data_apart():
    one = {"a": np.arange(5), "b": np.zeros((2, 2))}
    assert provenance.fingerprint_arrays(one) == provenance.fingerprint_arrays(dict(one))
    assert provenance.fingerprint_arrays(one) != provenance.fingerprint_arrays(
        {**one, "b": np.ones((2, 2))}
    )


def test_the_second_ctrl_c_interrupts_at_once_but_an_echo_of_the_first_does_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(manners.time, "monotonic", lambda: now[0])
    with manners.stop_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        now[0] += 0.5
        signal.raise_signal(signal.SIGINT)  # passed on by a launcher
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    spent = {"waiting": 1.0}
    with manners.clock(spent, "waiting"):
        pass
    assert 1.0 < spent["waiting"] < 1.5


def test_provenance_knows_code_and_machine(tmp_path):
    assert provenance.code_version(tmp_path) == {"commit": "unknown", "dirty": None}
    assert provenance.package_versions(("torch", "no-such-package")) == {
        "torch": torch.__version__.split("+")[0]
    } or "torch" in provenance.package_versions(("torch",))
    assert provenance.device_name(torch.device("cpu")).startswith("cpu: ")
    assert provenance.peak_memory_mb(torch.device("cpu"))["cpu"] > 50
    assert provenance.now().endswith("+00:00")


def test_the_command_line_refuses_a_bad_preset(capsys):
    with pytest.raises(SystemExit):
        training.main(["--preset", "smal", "--run", "nowhere"])
    assert "did you mean 'small'" in capsys.readouterr().err
