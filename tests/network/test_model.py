import numpy as np
import pytest
import torch
from network_fixtures import (
    ball_hierarchy,
    ball_regressor,
    network_config,
    random_batch,
    small_network,
)
from torch.nn import functional

from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.network.coarse_to_fine import SpiralMix, bilinear_sample, palm_frame, vertex_matmul
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network, cut, predict_crops, settle
from hand_lib.network.spiral_conv import SpiralConv, UnpoolConv
from hand_lib.render.camera import project_weak_perspective

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


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
@BOTH
def test_a_settled_network_says_the_same_with_fewer_layers(decoder, backbone):
    network = small_network(decoder, backbone=backbone).eval()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.running_mean, 0, 0.1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    images = torch.rand(2, 3, 64, 64)
    before = network(images)
    settle(network, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).vertices, before.vertices, atol=1e-5, rtol=1e-4)
    left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert len(norms) > 15 and left <= 1  # the sum of several maps is no convolution's output


@pytest.mark.parametrize("subdivisions, factors", [(2, (2,)), (2, (2, 2, 2)), (3, (3, 2))])
def test_any_hierarchy_will_do(subdivisions, factors):
    hierarchy = ball_hierarchy(subdivisions, factors)
    count = len(hierarchy.vertices[0])
    for decoder, channels in (("coarse_to_fine", None), ("youtubehand", (4,) * len(factors))):
        config = network_config(decoder, channels=channels, spiral_length=7)
        network = build_network(config, hierarchy, ball_regressor(count))
        batch = random_batch(small_network(), 2)
        assert network(batch["image"]).vertices.shape == (2, count, 3)


@pytest.mark.parametrize(
    ("size", "encoder"), [(96, "mobilenetv3_small_050"), (128, "resnet18d"), (130, "convnext_atto")]
)
def test_any_image_size_and_timm_encoder_will_do(size, encoder):
    for decoder in ("coarse_to_fine", "youtubehand"):
        network = small_network(decoder, encoder, size=size).eval()
        for other in (64, size):
            assert network(torch.rand(2, 3, other, other)).vertices.isfinite().all()


@BOTH
def test_training_and_use_compute_the_same(decoder):
    """Batch normalisation put aside, which keeps other statistics in training."""
    network = small_network(decoder)
    images = random_batch(network)["image"]
    network.eval()
    used = network(images)
    for module in network.train().modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    trained = network(images)
    for name, value in vars(used).items():
        for one, other in zip(
            *((v if isinstance(v, tuple) else (v,)) for v in (value, vars(trained)[name])),
            strict=True,
        ):
            assert (one is None and other is None) or torch.equal(one, other), name


@BOTH
def test_a_smaller_view_is_what_the_network_was_trained_on(decoder):
    """Pictures of 96 px seen at 64: the answer is that to the same pictures made 64 px wide."""
    network = small_network(decoder, view_size=64).eval()
    images = random_batch(network, size=96)["image"]
    small = cut(images.float() / 255, 64)
    with torch.no_grad():
        whole, same = predict_crops(network, images, 1), predict_crops(network, small, 1)
    torch.testing.assert_close(whole.vertices, same.vertices)


def test_wrong_names_and_shapes_are_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="unknown encoder 'resnet_18'.*resnet18"):
        small_network(backbone="resnet_18")
    with pytest.raises(ValueError, match="channels should be 2 numbers"):
        small_network("youtubehand", channels=(4, 8, 16))
    with pytest.raises(ValueError, match=r"joint_regressor \(21, 162\).*found \(21, 161\)"):
        build_network(network_config(), ball_hierarchy(), np.zeros((21, 161)))


def test_spiral_convolutions_equal_loops():
    torch.manual_seed(0)
    hierarchy = ball_hierarchy()
    spirals = hierarchy.spirals(5)[2]
    x = torch.randn(2, len(spirals), 4)
    for channels in (3, 6):  # fewer and more than come in
        conv = SpiralConv(4, channels, spirals)
        slow = torch.stack([conv.layer(x[:, row].flatten(1)) for row in spirals], 1)
        torch.testing.assert_close(conv(x.transpose(0, 1)).transpose(0, 1), slow)
        ours, theirs = (
            torch.autograd.grad(y.square().sum(), conv.layer.weight)[0]
            for y in (conv(x.transpose(0, 1)), slow)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
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
    with torch.no_grad():
        torch.testing.assert_close(mix(x.transpose(0, 1)).transpose(0, 1), slow)


def test_a_convolution_on_the_coarse_mesh_equals_up_sampling_first():
    hierarchy = ball_hierarchy()
    matrix = hierarchy.up[0].tocsr()
    x = torch.randn(matrix.shape[1], 8, 6, requires_grad=True)
    dense = torch.tensor(matrix.toarray(), dtype=torch.float32)
    block = UnpoolConv(6, 4, matrix, hierarchy.spirals(5)[0])
    y, slow = block(x), functional.relu(block.conv(torch.einsum("vu,ubc->vbc", dense, x)))
    torch.testing.assert_close(y, slow, atol=1e-5, rtol=1e-4)
    for leaf in (x, block.conv.layer.weight):
        fast, other = (torch.autograd.grad(z.square().sum(), leaf, retain_graph=True)[0]
                       for z in (y, slow))  # fmt: skip
        torch.testing.assert_close(fast, other, atol=1e-4, rtol=1e-4)


def test_mesh_products_stay_in_float32_under_autocast():
    x, matrix = torch.randn(2, 30, 3), torch.randn(7, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert (vertex_matmul(matrix, x).double() - matrix.double() @ x.double()).abs().max() < 1e-5


def test_bilinear_sampling_is_interpolation_with_borders():
    grid, places = torch.randn(2, 5, 4, 7), torch.rand(2, 30, 2) * 3 - 1.5
    expected = functional.grid_sample(
        grid, places[:, :, None], padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(bilinear_sample(grid, places), expected[..., 0].transpose(1, 2))


def test_the_palm_frame_turns_with_the_hand():
    joints = torch.randn(5, 21, 3)
    turn = axis_angle_to_matrix(torch.randn(5, 3))
    frame = palm_frame(joints @ turn.transpose(1, 2) * 3 + 1)
    torch.testing.assert_close(frame, turn @ palm_frame(joints), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(5))


def test_everything_after_the_encoder_has_under_four_million_parameters():
    for encoder, size in (("resnet18", 224), ("resnet50", 224), ("regnety_002", 64)):
        config = network_config(backbone=encoder, size=size)
        with torch.device("meta"):  # counted, not made
            network = build_network(config, builtin_hierarchy(), np.ones((21, 778)))
        assert sum(p.numel() for p in network.decoder.parameters()) < 4_000_000


def test_use_is_in_full_precision_whatever_surrounds_it():
    network = small_network(view_size=64).eval()
    images = random_batch(network, size=96)["image"]
    with torch.no_grad():
        exact = predict_crops(network, images)
        with torch.autocast("cpu", torch.bfloat16):
            same = predict_crops(network, images)
    for name in ("vertices", "joints_2d", "camera", "joints_2d_direct"):
        assert torch.equal(getattr(same, name), getattr(exact, name)), name


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
