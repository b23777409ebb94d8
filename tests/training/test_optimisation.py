"""Batches, learning rates, averages: what a step is made of."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from toy_training import ToyNetwork, quiet, run, same, toy_config, toy_setup

from hand_lib.network.encoders import GridEncoder
from hand_lib.training import run_folder, runtime
from hand_lib.training import setup as setups
from hand_lib.training.config import make_config, replace
from hand_lib.training.loop import train


def test_cosine_falls_to_zero_after_a_linear_warm_up():
    config = make_config("small", steps=100, warmup_steps=10)
    rates = [setups.learning_rate_factor(config, step, 0, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1, abs=0.03)
    assert np.argmax(rates) == 9 and (np.diff(rates[9:]) < 0).all()
    assert setups.learning_rate_factor(config, 100, 0, 1.0) == pytest.approx(0)


def test_the_published_schedule_drops_once_by_ten():
    config = make_config("youtubehand")
    factors = [setups.learning_rate_factor(config, 0, epoch, 0.0) for epoch in range(38)]
    np.testing.assert_allclose(factors, [1.0] * 30 + [0.1] * 8)


def test_encoder_and_decoder_have_their_own_rates_and_vectors_do_not_decay():
    config = make_config("small", learning_rate=1e-3, encoder_learning_rate=1e-4, weight_decay=0.1)
    network = ToyNetwork()
    optimizer = setups.make_optimizer(network, config)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert of[id(network.encoder[0].weight)]["lr"] == 1e-4
    assert of[id(network.decoder.weight)]["lr"] == 1e-3
    assert of[id(network.decoder.weight)]["weight_decay"] == 0.1
    assert of[id(network.decoder.bias)]["weight_decay"] == 0.0
    assert [group["base_lr"] for group in optimizer.param_groups] == [1e-4, 1e-4, 1e-3, 1e-3]


def test_averaged_weights_follow_their_formula():
    network = ToyNetwork()
    average = copy.deepcopy(network)
    expected = network.decoder.bias.detach().clone()
    for count in range(20):
        with torch.no_grad():
            network.decoder.bias.add_(1.0)
            network.encoder[1].running_mean.add_(1.0)
        setups.update_average(average, network, 0.5, count)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * network.decoder.bias.detach()
    torch.testing.assert_close(average.decoder.bias.detach(), expected)
    assert 17 < average.encoder[1].running_mean[0] < 20


def test_frozen_normalisation_keeps_its_statistics(tmp_path):
    before = toy_setup(toy_config(freeze_norm=True)).network.encoder[1].running_mean.clone()
    frozen = run(tmp_path / "a", steps=3, freeze_norm=True)
    free = run(tmp_path / "b", steps=3)
    assert torch.equal(frozen.network.encoder[1].running_mean, before)
    assert not torch.equal(free.network.encoder[1].running_mean, before)


def test_frozen_modules_of_the_encoder_stay_as_they_are():
    config = make_config(
        "quick", backbone="regnety_002", image_size=32, view_size=32, frozen=("stem", "s1")
    )
    network = torch.nn.Module()
    network.encoder = GridEncoder(config.backbone, 32)
    setups.set_train_mode(network, config)
    parts = network.encoder.net
    assert not any(m.training for m in [*parts.stem.modules(), *parts.s1.modules()])
    assert parts.s2.training
    with pytest.raises(ValueError, match="frozen: 'stemm'; did you mean 'stem'"):
        setups.frozen_modules(network, replace(config, frozen=("stemm",)))


def test_gradients_are_clipped(tmp_path):
    free = run(tmp_path / "a", steps=1, clip=0.0)
    assert free.log[1]["gradient_norm"] > 0.1
    run(tmp_path / "b", steps=1, clip=0.05)
    state = run_folder.load_state(tmp_path / "b")["optimizer"]["state"]
    norm = math.sqrt(sum((s["exp_avg"] / 0.1).square().sum().item() for s in state.values()))
    assert norm == pytest.approx(0.05, rel=1e-3)


def test_the_faster_precision_is_measured_kept_and_told(tmp_path, monkeypatch):
    answers = iter([True])
    monkeypatch.setattr(runtime, "faster_in_bf16", lambda network, images: next(answers))
    run(tmp_path / "a", steps=4, precision="auto")
    assert json.loads((tmp_path / "a" / "provenance.json").read_text())["bf16"] is True
    config = toy_config(steps=6, precision="auto")  # asked once: going on keeps the answer
    train(config, resume=tmp_path / "a", allow_changes=True, setup=toy_setup(config), say=quiet)
    assert run_folder.load_state(tmp_path / "a")["bf16"] is True


def test_measuring_changes_neither_weights_nor_random_numbers():
    network, images = ToyNetwork(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    assert runtime.faster_in_bf16(network, images, repeats=1) in (True, False)
    assert torch.equal(torch.get_rng_state(), random) and same(network.state_dict(), before)
