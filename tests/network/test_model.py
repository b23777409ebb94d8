import copy
import warnings

import numpy as np
import pytest
import torch
from network_fixtures import (
    ball_hierarchy,
    ball_regressor,
    hand_shapes,
    network_config,
    random_batch,
    small_network,
)
from scipy.sparse import random as random_sparse
from torch.nn import functional

from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.network import coarse_to_fine
from hand_lib.network.coarse_to_fine import SpiralMix, look_up, palm_frame
from hand_lib.network.decoders import (
    DenseRows,
    SparseRows,
    SpiralConv,
    UpsampleBlock,
    apply_rows,
    spiral_project,
)
from hand_lib.network.encoders import (
    GridEncoder,
    NormalizeImages,
    PooledEncoder,
    load_encoder_weights,
)
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network
from hand_lib.network.second_look import cut
from hand_lib.network.youtubehand import parameter_counts
from hand_lib.render.camera import fit_weak_perspective, project_weak_perspective

BOTH = pytest.mark.parametrize("decoder", ["coarse_to_fine", "youtubehand"])


@BOTH
def test_the_camera_projects_the_joints_and_the_joints_are_those_of_the_vertices(decoder):
    network = small_network(decoder).eval()
    out = network(torch.rand(3, 3, 64, 64))
    assert out.vertices.shape == (3, 162, 3) and out.camera.shape == (3, 3)
    torch.testing.assert_close(out.joints_2d, project_weak_perspective(out.joints, out.camera))
    torch.testing.assert_close(out.joints, network.regressor @ out.vertices, atol=1e-6, rtol=0)
    if decoder == "coarse_to_fine":
        assert out.joints[:, 0].abs().max() < 1e-6
        assert (out.camera[:, 0] > 0).all()
        assert all(level.shape == (3, 162, 3) for level in out.intermediate)


@BOTH
def test_bytes_and_fractions_give_the_same_hand(decoder):
    network = small_network(decoder).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    a, b = network(images), network(images.float() / 255)
    torch.testing.assert_close(a.vertices, b.vertices, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), found \(2, 64, 64, 3\)"):
        network(images.permute(0, 2, 3, 1))


def test_normalisation_is_imagenets():
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    assert NormalizeImages()(image).abs().max() < 1e-6
    assert NormalizeImages()(image + 0.229)[0, 0, 0, 0].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("subdivisions, factors", [(2, (2,)), (2, (2, 2, 2)), (3, (3, 2))])
def test_any_hierarchy_will_do(subdivisions, factors):
    hierarchy = ball_hierarchy(subdivisions, factors)
    count = len(hierarchy.vertices[0])
    for decoder, channels in (("coarse_to_fine", None), ("youtubehand", (4,) * len(factors))):
        config = network_config(decoder, channels=channels, spiral_length=7)
        network = build_network(config, hierarchy, ball_regressor(count))
        batch = random_batch(small_network(), 2)
        assert network(batch["image"]).vertices.shape == (2, count, 3)


@pytest.mark.parametrize("size", [64, 96, 128, 130])
def test_any_image_size_will_do(size):
    for decoder in ("coarse_to_fine", "youtubehand"):
        network = small_network(decoder, size=size).eval()
        for other in (64, size):
            assert network(torch.rand(2, 3, other, other)).vertices.isfinite().all()


@BOTH
def test_a_smaller_view_is_what_the_network_was_trained_on(decoder):
    """Pictures of 96 px seen at 64: the answer is that to the same pictures made 64 px wide."""
    network = small_network(decoder, view_size=64, n_crops=1).eval()
    images = random_batch(network, size=96)["image"].float() / 255
    small = cut(network.normalize(images), 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).vertices, network.read(small).vertices)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18d", "convnext_atto"])
def test_any_timm_encoder_will_do(name):
    for decoder in ("coarse_to_fine", "youtubehand"):
        network = small_network(decoder, name).eval()
        assert network(torch.rand(1, 3, 64, 64)).joints.shape == (1, 21, 3)


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


def test_wrong_names_and_shapes_are_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="unknown encoder 'resnet_18'.*resnet18"):
        small_network(backbone="resnet_18")
    with pytest.raises(ValueError, match="channels should be 2 numbers"):
        small_network("youtubehand", channels=(4, 8, 16))
    with pytest.raises(ValueError, match=r"joint_regressor \(21, 162\).*found \(21, 161\)"):
        build_network(network_config(), ball_hierarchy(), np.zeros((21, 161)))
    with pytest.raises(ValueError, match=r"\(162, B, C\), found \(161, 1, 2\)"):
        SpiralConv(2, 3, ball_hierarchy().spirals(5)[0])(torch.zeros(161, 1, 2))


def test_weights_out_of_reach_leave_a_random_encoder_and_one_warning(monkeypatch):
    import timm

    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small_network(pretrained=True)
    assert [str(w.message) for w in caught if "random weights" in str(w.message)] == [
        "ImageNet weights of 'regnety_002' cannot be had (no route to host); "
        "the encoder starts from random weights"
    ]


def test_without_a_network_only_the_cache_is_asked(monkeypatch):
    from huggingface_hub import constants

    seen = []

    def refuse(address, timeout):
        raise OSError("no network")

    def create(name, pretrained=False, **options):
        seen.append(constants.HF_HUB_OFFLINE)
        raise RuntimeError("not in the cache")

    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("timm.create_model", create)
    before = constants.HF_HUB_OFFLINE
    with pytest.warns(UserWarning, match="not in the cache"):
        assert load_encoder_weights(torch.nn.Linear(1, 1), "resnet18", True) == "random"
    assert seen == [True] and before == constants.HF_HUB_OFFLINE


def test_weights_from_a_local_file_fill_the_cut_encoder(tmp_path):
    import timm

    whole = timm.create_model("regnety_002")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = small_network(pretrained=str(tmp_path / "weights.pth"))
    own = network.encoder.net.state_dict()
    assert own and all(torch.equal(value, whole.state_dict()[name]) for name, value in own.items())


def test_sparse_matrices_equal_scipy():
    matrix = random_sparse(9, 6, density=0.4, random_state=1, format="csr", dtype=np.float32)
    x = torch.randn(2, 6, 5)
    expected = torch.tensor(np.stack([matrix @ one.numpy() for one in x]))
    torch.testing.assert_close(DenseRows(matrix)(x), expected)
    torch.testing.assert_close(SparseRows(matrix)(x.transpose(0, 1)).transpose(0, 1), expected)
    with pytest.raises(ValueError, match=r"\(6, B, C\), found \(5, 2, 5\)"):
        SparseRows(matrix)(torch.randn(5, 2, 5))


def test_mesh_products_stay_in_float32_under_autocast():
    x, matrix = torch.randn(2, 30, 3), torch.randn(7, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert (apply_rows(matrix, x).double() - matrix.double() @ x.double()).abs().max() < 1e-5


def test_spiral_convolutions_equal_loops(monkeypatch):
    torch.manual_seed(0)
    spirals = ball_hierarchy().spirals(5)[2]
    x = torch.randn(2, len(spirals), 4)
    for channels in (3, 6):  # fewer and more than come in: both ways of computing it
        conv = SpiralConv(4, channels, spirals)
        slow = torch.stack([conv.layer(x[:, row].flatten(1)) for row in spirals], 1)
        torch.testing.assert_close(conv(x.transpose(0, 1)).transpose(0, 1), slow)
        fast = torch.autograd.grad(conv(x.transpose(0, 1)).square().sum(), conv.layer.weight)[0]
        torch.testing.assert_close(
            fast,
            torch.autograd.grad(slow.square().sum(), conv.layer.weight)[0],
            rtol=1e-4,
            atol=1e-4,
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = conv(x.transpose(0, 1)).transpose(0, 1)
        torch.testing.assert_close(half.float(), slow, atol=0.05, rtol=0.05)
    mix = SpiralMix(4, spirals)
    torch.testing.assert_close(mix(x.transpose(0, 1)), x.transpose(0, 1))  # starts as identity
    torch.nn.init.normal_(mix.narrow.weight)
    normed = functional.layer_norm(x, (4,), mix.norm.weight, mix.norm.bias)
    gathered = torch.stack([(normed[:, row] * mix.taps).sum(1) for row in spirals], 1)
    slow = x + mix.narrow(functional.gelu(mix.widen(gathered)))
    torch.testing.assert_close(mix(x.transpose(0, 1)).transpose(0, 1), slow)
    torch.testing.assert_close(mix.eval()(x.transpose(0, 1)).transpose(0, 1), slow)
    monkeypatch.setattr(coarse_to_fine, "MOST_MIXED", 0)  # what larger meshes get
    mix.train()
    torch.testing.assert_close(mix(x.transpose(0, 1)).transpose(0, 1), slow)


def test_up_sampling_folded_into_the_convolution_equals_one_after_the_other():
    hierarchy = ball_hierarchy()
    block = UpsampleBlock(6, 4, hierarchy.up[0], hierarchy.spirals(5)[0])
    for hands in (1, 8):  # too few to fold, and folded
        x = torch.randn(81, hands, 6, requires_grad=True)
        y = block(x)
        slow = functional.relu(block.conv(block.up(x)))
        torch.testing.assert_close(y, slow, atol=1e-5, rtol=1e-4)
        for leaf in (x, block.conv.layer.weight):
            fast, other = (torch.autograd.grad(z.square().sum(), leaf, retain_graph=True)[0]
                           for z in (y, slow))  # fmt: skip
            torch.testing.assert_close(fast, other, atol=1e-4, rtol=1e-4)
    assert not any("fold" in name or "blend" in name for name in block.state_dict())
    with torch.no_grad():  # what GPUs and bfloat16 get: the same without embedding_bag
        weight = block.conv.layer.weight
        wide = [x.double(), block.folded, weight.double(), block.blend.double()]
        torch.testing.assert_close(
            spiral_project(*wide), spiral_project(x, block.folded, weight, block.blend).double(),
            atol=1e-5, rtol=1e-4,
        )  # fmt: skip


def test_look_up_is_bilinear_interpolation_with_borders():
    grid, places = torch.randn(2, 5, 4, 7), torch.rand(2, 30, 2) * 3 - 1.5
    expected = functional.grid_sample(
        grid, places[:, :, None], padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(look_up(grid, places), expected[..., 0].transpose(1, 2))


def test_the_fitted_camera_recovers_one_that_exists_and_survives_nonsense():
    points, camera = torch.randn(4, 21, 3) * 0.05, torch.tensor([[6.0, 0.02, -0.01]]).repeat(4, 1)
    found = fit_weak_perspective(points, project_weak_perspective(points, camera))
    torch.testing.assert_close(found, camera)
    point = torch.zeros(1, 21, 3, requires_grad=True)
    fit_weak_perspective(point, torch.zeros(1, 21, 2)).sum().backward()
    assert point.grad.isfinite().all()


def test_the_palm_frame_turns_with_the_hand():
    joints = torch.randn(5, 21, 3)
    turn = axis_angle_to_matrix(torch.randn(5, 3))
    frame = palm_frame(joints @ turn.transpose(1, 2) * 3 + 1)
    torch.testing.assert_close(frame, turn @ palm_frame(joints), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(5))


def test_everything_after_the_encoder_has_under_four_million_parameters():
    for encoder, size in (("resnet18", 224), ("resnet50", 224), ("regnety_002", 64)):
        config = network_config(backbone=encoder, size=size)
        count = parameter_counts(build_network(config, hand_shapes(), np.ones((21, 778))))
        assert count["decoder"] < 4_000_000


@BOTH
def test_state_dict_safetensors_and_deepcopy_keep_the_answer(decoder, tmp_path):
    from safetensors.torch import load_file, save_file

    network, other = small_network(decoder).eval(), small_network(decoder, seed=1).eval()
    images = torch.rand(2, 3, 64, 64)
    expected = network(images).vertices
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    assert not torch.equal(other(images).vertices, expected)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(images).vertices, expected)
    assert torch.equal(copy.deepcopy(network)(images).vertices, expected)


@BOTH
def test_to_carries_every_array(decoder):
    network = small_network(decoder)
    assert {v.device.type for v in [*network.parameters(), *network.buffers()]} == {"cpu"}
    moved = copy.deepcopy(network).to("meta")
    assert {v.device.type for v in [*moved.parameters(), *moved.buffers()]} == {"meta"}
    loose = [
        name
        for module in network.modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor | np.ndarray)
    ]
    assert loose == []


@BOTH
def test_export_and_compile_give_the_same_hand(decoder):
    network = small_network(decoder, "resnet10t").eval()
    images = torch.rand(2, 3, 64, 64)
    expected = network(images)
    program = torch.export.export(network, (images,))
    torch.testing.assert_close(program.module()(images).joints, expected.joints)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).vertices, expected.vertices)


def test_onnx_gives_the_same_hand(tmp_path):
    import onnxruntime

    network = small_network(backbone="resnet10t").eval()
    images = torch.rand(2, 3, 64, 64)
    expected = network(images)
    path = tmp_path / "hand.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), path, dynamo=True, optimize=False, verbose=False)
    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    for found, want in zip(outputs, (expected.vertices, expected.joints), strict=False):
        np.testing.assert_allclose(found, want.detach().numpy(), atol=1e-5)


def test_the_second_look_is_placed_and_turned_back_in_full_precision():
    """Under autocast only what the encoder sees is rounded, not where it looks nor the way back."""
    network = small_network(view_size=64).eval()
    with torch.no_grad():
        for weight in network.decoder.joints_2d.parameters():
            weight.normal_(0, 0.1)
        images = random_batch(network, size=96)["image"]
        exact = network(images)
        network.encoder = _InFullPrecision(network.encoder)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(images)
    for name in ("vertices", "joints_2d", "camera", "rotation"):
        torch.testing.assert_close(getattr(rounded, name), getattr(exact, name), msg=name)


class _InFullPrecision(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        with torch.autocast(images.device.type, enabled=False):
            return self.encoder(images)


def test_it_learns_four_hands_by_heart_and_bfloat16_then_agrees_within_half_a_millimetre():
    network = small_network()
    batch = random_batch(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(60):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 60)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = network(batch["image"])
        loss, _ = total_loss(prediction, batch, network, network_config())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        single = network(batch["image"]).vertices
        with torch.autocast("cpu", torch.bfloat16):
            half = network(batch["image"]).vertices
    assert (single - batch["vertices"]).norm(dim=2).mean() < 0.01
    assert half.dtype == torch.float32
    assert (single - half).norm(dim=2).mean() < 5e-4
