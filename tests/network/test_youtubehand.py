"""Youtubehand's network, its checkpoints and all one does with them, its recipe."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from data_fixtures import foreign_hand
from network_fixtures import (
    ball_hierarchy,
    ball_regressor,
    hand_hierarchy,
    network_config,
    random_batch,
    small_network,
    youtubehand_state_dict,
)
from PIL import Image
from torch.nn import functional

from hand_lib.hand.joints import fingertip_vertices
from hand_lib.hand.mano import builtin_path, read_mano, write_mano
from hand_lib.hand.model import HandModel, builtin_hierarchy
from hand_lib.inference.__main__ import process_pictures
from hand_lib.inference.predictor import Predictor
from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.network import youtubehand
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network, regressor_of
from hand_lib.network.spiral_conv import PUBLISHED_CHANNELS
from hand_lib.network.youtubehand import load_youtubehand_state_dict
from hand_lib.training.config import make_config
from hand_lib.training.loop import train
from hand_lib.training.run_folder import load_network
from hand_lib.training.setup import (
    TrainingSetup,
    hierarchy_of,
    learning_rate_factor,
    start_from,
)


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("resnet18", 36_405_862), ("resnet50", 418_884_198), ("hrnet_w64", 519_338_110)],
)
def test_parameter_counts_are_the_published_ones_and_tell_which_network_it_is(backbone, count):
    """The ResNets count their unused ImageNet classifier; HRNet has none."""
    with torch.device("meta"):  # without using memory
        config = network_config("youtubehand", backbone)
        network = build_network(config, builtin_hierarchy(), np.zeros((21, 778)))
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
    joints = torch.tensor(ball_regressor(), dtype=torch.float64) @ vertices
    vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]  # as its losses and demo
    torch.testing.assert_close(prediction.vertices.double(), vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.camera.double(), camera[..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.joints.double(), joints, atol=1e-5, rtol=0)
    flat = camera[:, None, 0, 0, None] * (joints[..., :2] + camera[:, None, 1:, 0])
    torch.testing.assert_close(prediction.joints_2d.double(), flat, atol=1e-5, rtol=0)


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


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with what its users have, of a hand in another vertex order; and its network."""
    folder = tmp_path_factory.mktemp("published")
    arrays = foreign_hand(read_mano(builtin_path()))[0]
    write_mano(folder / "MANO_RIGHT.pkl", arrays)
    hierarchy = build_hierarchy(arrays["v_template"], arrays["f"], (2, 2), method="barycentric")
    hierarchy.save(folder / "transform.npz")
    regressor = regressor_of(HandModel.from_mano(folder / "MANO_RIGHT.pkl", fingertips="metro"))
    config = network_config("youtubehand", "resnet18", channels=(4, 8))
    torch.manual_seed(5)
    network = build_network(config, hierarchy, regressor).eval()
    state = youtubehand_state_dict(network)  # a wrapped file, its encoder under one name alone
    state = {f"module.{name}": value for name, value in state.items() if "backbone" not in name}
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "state_dict.bin")
    tips = np.eye(778)[list(fingertip_vertices("handmesh")[i] for i in (1, 2, 4, 3, 0))]
    np.save(folder / "other.npy", np.concatenate([arrays["J_regressor"], tips]))
    return folder, network


def convert(folder, run, *more):
    names = [str(folder / name) for name in ("state_dict.bin", "transform.npz")]
    return youtubehand.main([names[0], "--transform", names[1], "--folder", str(run), *more])


def test_a_checkpoint_becomes_a_run_that_says_the_same(published, tmp_path, capsys):
    folder, source = published
    with pytest.raises(SystemExit):
        convert(folder, tmp_path / "yth")
    assert "give --mano" in capsys.readouterr().err and not (tmp_path / "yth").exists()
    assert convert(folder, tmp_path / "yth", "--mano", str(folder / "MANO_RIGHT.pkl")) == 0
    assert "backbone resnet18, channels [4, 8], spiral_length 27" in capsys.readouterr().out
    (folder / "other.npy").rename(folder / "j_reg.npy")
    assert convert(folder, tmp_path / "by_hand_mesh") == 0
    images = torch.rand(2, 3, 64, 64)
    for run in ("yth", "by_hand_mesh"):
        network, config = load_network(tmp_path / run)
        for name in ("vertices", "joints", "camera"):
            ours, theirs = (getattr(net.eval()(images), name) for net in (network, source))
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert (config.preset, config.image_size, config.factors) == ("youtubehand", 224, (2, 2))
    notes = json.loads((tmp_path / "yth" / "provenance.json").read_text())
    for name, file in (("checkpoint", "state_dict.bin"), ("joints", "MANO_RIGHT.pkl")):
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        assert notes[name] == {"file": file, "sha256": digest}
    with pytest.raises(SystemExit):
        convert(folder, tmp_path / "yth")
    assert "already holds a run" in capsys.readouterr().err
    builtin = str(builtin_path())
    with pytest.raises(SystemExit):
        convert(folder, tmp_path / "mixed", "--mano", builtin)
    assert "other triangles: not of one hand" in capsys.readouterr().err


def test_what_starts_from_the_run_of_a_checkpoint_has_its_network_and_its_levels(
    published, tmp_path
):
    folder, source = published
    convert(folder, tmp_path / "yth", "--mano", str(folder / "MANO_RIGHT.pkl"))
    config = make_config("quick", start_from=str(tmp_path / "yth"), image_size=96)
    taken = config.decoder, config.channels, config.view_size, config.image_size, config.n_crops
    assert taken == ("youtubehand", (4, 8), 0, 96, 1) and config.pretrained is False
    mano = HandModel.from_mano(folder / "MANO_RIGHT.pkl")
    for hierarchy in (hierarchy_of(mano, config), hand_hierarchy()):
        network = build_network(config, hierarchy)
        before = network.decoder.blocks[0].up.index.clone()
        assert start_from(network, tmp_path / "yth") == []
        assert torch.equal(network.decoder.latent.weight, source.decoder.latent.weight)
        assert torch.equal(network.decoder.blocks[0].up.index, before)  # the mesh's own
        same = torch.equal(network.decoder.last.spirals, source.decoder.last.spirals)
        assert same == (hierarchy is not hand_hierarchy())


def test_the_demo_draws_what_a_checkpoint_says(published, tmp_path):
    convert(published[0], tmp_path / "yth", "--mano", str(published[0] / "MANO_RIGHT.pkl"))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (120, 90), (90, 60, 40)).save(tmp_path / "images" / "photo.png")
    written, left_out = process_pictures(
        Predictor.load(tmp_path / "yth"), tmp_path / "images", tmp_path / "out", progress=False
    )
    assert written == [tmp_path / "out" / "photo_img.jpg"] and not left_out
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"photo.json", "photo.ply", "photo_img.jpg"}


def test_one_step_of_the_preset_is_that_of_the_published_recipe(tmp_path):
    """Losses and parameters after one step of ``preset youtubehand``, restated plainly."""
    network = resnet(3)
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter *= 3  # so that the encoder's gradients are far from zero
        for name, parameter in network.encoder.named_parameters():
            if name.endswith("bn2.weight"):  # zero at first, which keeps gradients out of a block
                parameter.fill_(1.0)
    batch = random_batch(network, 4)
    start = copy.deepcopy(network).train()
    config = make_config(
        "youtubehand", backbone="resnet18", pretrained=False, steps=1, batch_size=4, log_every=1,
        workers=0, device="cpu", image_size=64,
    )  # fmt: skip
    whole = batch | {"index": torch.arange(4)}

    class Data:
        def __len__(self):
            return 4

        def fetch_batch(self, rows, epochs=0):
            return {name: value[rows].numpy() for name, value in whole.items()}

    setup = TrainingSetup(network, Data(), whole, total_loss)
    result = train(config, tmp_path / "run", setup=setup, say=lambda line: None)
    row = next(row for row in result.log if row["loss"] is not None)

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    out = start.decoder(start.encoder((batch["image"] / 255 - mean) / std))
    joints = start.regressor @ out["vertices"]
    vertices, joints = out["vertices"] - joints[:, :1], joints - joints[:, :1]
    scale, shift = out["camera"][:, None, :1], out["camera"][:, None, 1:]
    flat = scale * (joints[..., :2] + shift)
    true, faces = batch["vertices"], start.faces
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    u, v, w = (true[:, faces[:, i]] for i in range(3))
    normal = functional.normalize(torch.linalg.cross(v - u, w - u), dim=2)
    edges, lengths, cosines = ((a, b, u, v), (b, c, v, w), (c, a, w, u)), [], []
    for p, q, r, s in edges:
        lengths.append(((p - q).norm(dim=2) - (r - s).norm(dim=2)).abs())
        cosines.append((functional.normalize(q - p, dim=2) * normal).sum(2).abs())
    terms = {
        "vertices": (1.0, (vertices - true).abs().mean()),
        "joints": (1.0, (joints - batch["joints"]).square().mean()),
        "joints_2d": (0.1, (flat - batch["joints_2d"]).square().mean()),
        "edges": (1.0, torch.stack(lengths).mean()),
        "normals": (0.1, torch.stack(cosines).mean()),
    }
    total = sum(weight * term for weight, term in terms.values())
    for name, (_, term) in terms.items():
        assert row[f"loss_{name}"] == pytest.approx(term.item(), rel=1e-5), name
    assert row["loss"] == pytest.approx(total.item(), rel=1e-5) and row["learning_rate"] == 1e-4
    learnt = [p for p in start.parameters() if p.requires_grad]
    total.backward()
    torch.optim.Adam(learnt, 1e-4, (0.9, 0.999)).step()
    found = [p for p in result.network.parameters() if p.requires_grad]
    pairs = zip(found, learnt, strict=True)
    gaps = torch.cat([(ours - theirs).detach().abs().flatten() for ours, theirs in pairs])
    slopes = torch.cat([(p.grad.abs() / p.grad.abs().max()).flatten() for p in learnt])
    # Adam's first step is the gradient's sign, which rounding decides where it is all but zero
    clear = slopes > 1e-5
    assert clear.float().mean() > 0.95 and gaps[clear].max() < 1e-5 and gaps.max() < 2.1e-4
    rates = [learning_rate_factor(config, 0, epoch, 0.0) for epoch in (0, 29, 30, 37)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1])
