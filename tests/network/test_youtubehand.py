import json

import numpy as np
import pytest
import torch
from network_fixtures import (
    ball_hierarchy,
    ball_regressor,
    hand_shapes,
    network_config,
    small_network,
)
from torch.nn import functional

from hand_lib.network import youtubehand
from hand_lib.network.model import build_network
from hand_lib.network.spiral_conv import PUBLISHED_CHANNELS
from hand_lib.network.youtubehand import load_youtubehand_state_dict, youtubehand_names
from hand_lib.training.run_folder import load_network


def youtubehand_state_dict(network):
    """The weights under Youtubehand's names, encoder entries doubled as in its own files."""
    own = network.state_dict()
    return {name: own[ours] for ours, both in youtubehand_names(network).items() for name in both}


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("resnet18", 36_405_862), ("resnet50", 418_884_198), ("hrnet_w64", 519_338_110)],
)
def test_parameter_counts_are_the_published_ones_and_tell_which_network_it_is(backbone, count):
    """The ResNets count their unused ImageNet classifier; HRNet has none."""
    with torch.device("meta"):  # without using memory
        config = network_config("youtubehand", backbone)
        network = build_network(config, hand_shapes(), np.zeros((21, 778)))
    assert sum(p.numel() for p in network.parameters()) == count
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {f"encoder.net.fc.{part}" for part in ("weight", "bias") if "res" in backbone}
    channels = list(PUBLISHED_CHANNELS[backbone])
    found = youtubehand.settings_of(youtubehand_state_dict(network))
    assert found == {"backbone": backbone, "channels": channels, "spiral_length": 27}
    with pytest.raises(ValueError, match="no checkpoint of Youtubehand.*holds conv1.weight"):
        youtubehand.settings_of({"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2)])
def test_the_decoder_equals_gather_concatenate_linear(factors):
    torch.manual_seed(0)
    hierarchy = ball_hierarchy(2, factors)
    channels, steps = (4, 8, 16)[: len(factors)], len(factors)
    config = network_config("youtubehand", "resnet18", channels=channels, spiral_length=9)
    network = build_network(config, hierarchy, ball_regressor()).eval()
    images = torch.rand(2, 3, 64, 64)
    state = youtubehand_state_dict(network)
    spirals = hierarchy.spirals(9, 1)

    x = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    net = network.encoder.net
    x = net.maxpool(functional.relu(net.bn1(net.conv1(x))))
    latent = net.layer4(net.layer3(net.layer2(net.layer1(x)))).mean((2, 3)).double()

    def linear(x, name):
        return x @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()

    def spiral(x, level, name):
        rows = [torch.cat([x[:, j] for j in spirals[level][v]], dim=1) for v in range(x.shape[1])]
        return linear(torch.stack(rows, 1), f"{name}.layer")

    x = linear(latent, "de_layers.0").view(2, -1, channels[-1])
    for i in range(steps):
        level = steps - 1 - i
        x = torch.tensor(hierarchy.up[level].toarray()) @ x
        x = functional.relu(spiral(x, level, f"de_layers.{i + 1}.conv"))
    vertices = spiral(x, 0, f"de_layers.{steps + 1}")
    camera = vertices.transpose(1, 2)
    for i in (1, 2, 3):
        camera = linear(camera, f"cam_pred_{i}")

    prediction = network(images)
    torch.testing.assert_close(prediction.vertices.double(), vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.camera.double(), camera[..., 0], atol=1e-5, rtol=0)
    joints = torch.tensor(ball_regressor(), dtype=torch.float64) @ vertices
    torch.testing.assert_close(prediction.joints.double(), joints, atol=1e-5, rtol=0)
    flat = camera[:, None, 0, 0, None] * (joints[..., :2] + camera[:, None, 1:, 0])
    torch.testing.assert_close(prediction.joints_2d.double(), flat, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["plain", "wrapped", "data_parallel", "one_encoder", "file"])
def test_a_checkpoint_is_loaded_in_every_form(form, tmp_path):
    source, target = resnet(1), resnet(2)
    state = {name: value.clone() for name, value in youtubehand_state_dict(source).items()}
    if form == "wrapped":
        state = {"model_state_dict": state, "epoch": 3}
    elif form == "data_parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    elif form == "one_encoder":
        state = {name: value for name, value in state.items() if "backbone" not in name}
    elif form == "file":
        torch.save(state, tmp_path / "state_dict.bin")
        state = tmp_path / "state_dict.bin"
    images = torch.rand(2, 3, 64, 64)
    source.eval(), target.eval()
    assert (source(images).vertices - target(images).vertices).abs().max() > 1e-4
    assert load_youtubehand_state_dict(target, state) == []
    assert torch.equal(source(images).vertices, target(images).vertices)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("cam_pred_2.bias"), "1 missing: cam_pred_2.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 surplus: extra"),
        (
            lambda s: s.update({"de_layers.0.bias": torch.zeros(7)}),
            r"de_layers.0.bias: expected \(328,\), found \(7,\)",
        ),
        (
            lambda s: s.update({"backbone.conv1.weight": s["backbone.conv1.weight"] + 1}),
            "backbone.conv1.weight and en_layer.conv1.weight should be the same",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing_and_says_why(spoil, words):
    network = resnet(1)
    state = {name: value.clone() for name, value in youtubehand_state_dict(resnet(2)).items()}
    spoil(state)
    before = network.decoder.latent.weight.clone()
    with pytest.raises(ValueError, match=words):
        load_youtubehand_state_dict(network, state)
    assert torch.equal(before, network.decoder.latent.weight)


def test_a_checkpoint_refuses_our_decoder():
    with pytest.raises(TypeError, match="decoder='youtubehand'"):
        load_youtubehand_state_dict(small_network(), {})


def resnet(seed=0):
    return small_network("youtubehand", "resnet18", seed=seed)


def test_a_checkpoint_becomes_a_run_that_says_the_same(tmp_path, capsys):
    source = resnet(1).eval()
    state = {f"module.{name}": value for name, value in youtubehand_state_dict(source).items()}
    torch.save({"model_state_dict": state}, tmp_path / "state_dict.bin")
    ball_hierarchy().save(tmp_path / "transform.npz")
    command = [str(tmp_path / "state_dict.bin"), "--transform", str(tmp_path / "transform.npz"),
               "--folder", str(tmp_path / "yth")]  # fmt: skip
    with pytest.raises(SystemExit):
        youtubehand.main(command)
    assert "give --mano" in capsys.readouterr().err and not (tmp_path / "yth").exists()
    np.save(tmp_path / "j_reg.npy", ball_regressor())
    assert youtubehand.main(command) == 0
    assert "backbone resnet18, channels [4, 8], spiral_length 7" in capsys.readouterr().out
    network, config = load_network(tmp_path / "yth")
    images = torch.rand(2, 3, 64, 64)
    for name in ("vertices", "joints", "camera"):
        ours, theirs = (getattr(net.eval()(images), name) for net in (network, source))
        assert torch.equal(ours, theirs)
    assert config.preset == "youtubehand" and config.image_size == 224
    notes = json.loads((tmp_path / "yth" / "provenance.json").read_text())
    assert len(notes["checkpoint"]["sha256"]) == 64
    with pytest.raises(FileExistsError, match="already holds a run"):
        youtubehand.convert_checkpoint(command[0], command[2], command[4])
