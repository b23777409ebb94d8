import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from network_fixtures import random_batch, small_network
from toy_training import toy_config, toy_setup

from hand_lib.files import write_json, write_text
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.network.model import build_network, carry_over
from hand_lib.training.config import RENAMED, make_config
from hand_lib.training.loop import train
from hand_lib.training.run_folder import load_network, save_model
from hand_lib.training.runtime import training_legs
from hand_lib.training.setup import build_setup, start_from

FEW = dict(
    backbone="regnety_002", pretrained=False, image_size=64, train_images=64, validation_images=8
)


def shaken(network, seed=1):
    """The network with every weight moved, as if it had learned something."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return network.eval()


def test_on_another_mesh_the_first_guess_lies_on_the_old_one():
    """The same ball with its vertices in another order: the same guess, in that order."""
    source, target = shaken(small_network()), small_network(seed=5)
    order = torch.from_numpy(np.random.default_rng(0).permutation(162))
    for name in ("mean", "mean_canonical"):
        getattr(target.decoder, name).copy_(getattr(source.decoder, name)[order])
    assert carry_over(source, target) == []
    with torch.no_grad():
        maps = source.encoder(source.normalize(random_batch(source)["image"]))
        ours, theirs = (net.decoder.eval()(maps)["intermediate"][0] for net in (target, source))
    torch.testing.assert_close(ours, theirs[:, order], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of the smallest kind, its weights shaken."""
    folder = tmp_path_factory.mktemp("run")
    config = make_config("quick", **FEW)
    network = shaken(build_network(config, builtin_hierarchy()))
    write_text(folder / "config.json", config.to_json())
    save_model(folder, network.state_dict(), step=1)
    return folder, config, network


def test_a_run_begins_with_the_weights_of_another(run_folder):
    folder, config, network = run_folder
    said = []
    setup = build_setup(make_config("quick", **FEW, start_from=str(folder)), said.append)
    assert any(str(folder) in line and "fresh: none" in line for line in said)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(setup.network.get_parameter(name), weight, atol=1e-5, rtol=1e-4)


def test_provenance_names_every_leg_of_a_training(run_folder, tmp_path):
    """Of a run that began with one which began with another."""
    folder, config, network = run_folder
    assert training_legs("") == []
    first, second = str(folder), str(tmp_path / "second")
    write_json(folder / "metrics.json", {"step": 50, "seconds": 90.0})
    setup = toy_setup(toy_config())
    train(toy_config(steps=2, start_from=first), second, setup=setup, say=lambda line: None)
    legs = training_legs(second)
    weights = [Path(run, "model.safetensors").read_bytes() for run in (first, second)]
    assert [leg["run"] for leg in legs] == [first, second]
    assert [leg["sha256"] for leg in legs] == [hashlib.sha256(w).hexdigest() for w in weights]
    assert [leg["pictures"] for leg in legs] == [50 * config.batch_size, 16]
    assert (legs[0]["minutes"], legs[0]["view_size"]) == (1.5, 64)
    assert legs[0]["commit"] is None and legs[1]["commit"]


def test_a_run_loads_as_it_was_and_weights_of_another_network_are_refused(run_folder, tmp_path):
    folder, config, network = run_folder
    again, same = load_network(folder)
    assert same == config
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    write_text(tmp_path / "config.json", config.to_json())
    save_model(tmp_path, network.state_dict() | {"decoder.whoever": torch.zeros(3)})
    with pytest.raises(ValueError, match="decoder.whoever"):
        load_network(tmp_path)


def test_a_run_of_earlier_names_loads_as_it_was(run_folder, tmp_path):
    _, config, network = run_folder
    fields, tensors = json.loads(config.to_json()), dict(network.state_dict())
    for before, now in RENAMED.items():
        fields[before] = fields.pop(now)
    for now, before in {
        "decoder.head.heatmaps.bias": "decoder.head.heat.bias", "decoder.up": "decoder.up.matrix",
        "decoder.vertex_embedding": "decoder.who",
    }.items():  # fmt: skip
        tensors[before] = tensors.pop(now)
    write_json(tmp_path / "config.json", fields)
    save_model(tmp_path, tensors)
    again, same = load_network(tmp_path)
    assert same == config
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_coarser_mesh_takes_what_it_can(run_folder):
    folder, config, network = run_folder
    target = build_network(config, builtin_hierarchy(factors=(3, 3, 2))).eval()
    assert start_from(target, folder) == []
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        gap = (target(images).vertices - network(images).vertices).norm(dim=2).mean()
    fresh = build_network(config, builtin_hierarchy(factors=(3, 3, 2))).eval()
    with torch.no_grad():
        apart = (fresh(images).vertices - network(images).vertices).norm(dim=2).mean()
    assert gap < 0.3 * apart


def test_a_run_on_an_earlier_hand_is_loaded_with_a_warning_and_can_be_gone_on_from(tmp_path):
    config = make_config("quick", **FEW)
    network = build_network(config, builtin_hierarchy())
    write_text(tmp_path / "config.json", config.to_json())
    save_model(tmp_path, network.state_dict(), step=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(tmp_path)
    network.faces = network.faces.roll(1, 0)
    save_model(tmp_path, network.state_dict(), step=1)
    with pytest.warns(UserWarning, match="earlier built-in hand.*start_from"):
        load_network(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start_from(build_network(config, builtin_hierarchy()), tmp_path) == []


def test_another_network_is_refused(run_folder):
    folder, _, _ = run_folder
    other = small_network("youtubehand", "resnet18")
    with pytest.raises(ValueError, match="regnety_002.*do not fit"):
        start_from(other, folder)
    with pytest.raises(FileNotFoundError, match="config.json"):
        start_from(small_network(), folder / "nowhere")
