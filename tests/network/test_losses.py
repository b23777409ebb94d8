"""Each loss beside a plain one; what the image head reads, and how it learns to."""

import numpy as np
import pytest
import torch
from network_fixtures import network_config, random_batch, small_network

from hand_lib.network.coarse_to_fine import ImageHead, correspondence_summary, soft_argmax
from hand_lib.network.losses import (
    correspondence_loss,
    heatmap_loss,
    joint_loss,
    surface_errors,
    total_loss,
    vertex_loss,
)
from hand_lib.training.config import FIELDS

FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 1, 4], [3, 2, 5]])


def meshes(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 6, 3, dtype=torch.float64, generator=generator)


def test_losses_of_a_perfect_prediction_are_zero_with_finite_gradients():
    true = meshes()[0]
    for loss in (vertex_loss, joint_loss, lambda p, t: sum(surface_errors(p, t, FACES)).mean()):
        predicted = true.clone().requires_grad_(True)
        value = loss(predicted, true)
        value.backward()
        assert value.item() < 1e-12 and predicted.grad.isfinite().all()
    flat = torch.zeros_like(true, requires_grad=True)
    sum(surface_errors(flat, true, FACES)).sum().backward()
    assert flat.grad.isfinite().all()


def test_what_is_not_labelled_does_not_count():
    predicted, true = meshes(3)
    known = torch.tensor([True, False, False])
    torch.testing.assert_close(
        vertex_loss(predicted, true, known), vertex_loss(predicted[:1], true[:1])
    )
    some = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    slow = (predicted - true).abs().mean(2)[some].mean()
    torch.testing.assert_close(joint_loss(predicted, true, some), slow)
    nothing = torch.zeros(3, dtype=torch.bool)
    assert vertex_loss(predicted, true, nothing) == 0


def test_the_total_is_the_weighted_sum_of_its_parts():
    network = small_network()
    torch.nn.init.normal_(network.decoder.correct.weight, std=0.01)  # it starts at zero
    batch = random_batch(network)
    batch["correspondence"] = torch.rand(4, 4, 16, 16)
    prediction = network(batch["image"])
    names = [name for name in FIELDS if name.startswith("loss_")]
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    total, parts = total_loss(prediction, batch, network, network_config(**weights))
    assert [f"loss_{name}" for name in parts] == names
    assert all(part > 0 for part in parts.values())
    expected = sum(weights[f"loss_{name}"] * part for name, part in parts.items())
    torch.testing.assert_close(total.detach(), expected)
    total.backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in silent if name.startswith("decoder") and "mix" not in name]


def test_hands_without_vertices_still_teach_joints():
    network = small_network()
    batch = random_batch(network)
    batch["has_vertices"] = torch.tensor([False] * 4)
    total, parts = total_loss(network(batch["image"]), batch, network, network_config())
    assert parts["vertices"] == parts["intermediate"] == parts["edges"] == parts["canonical"] == 0
    assert parts["joints"] > 0 and parts["rotation"] > 0 and total.isfinite()


def test_wrong_shapes_name_expected_and_found():
    network = small_network()
    batch = random_batch(network)
    prediction = network(batch["image"])
    with pytest.raises(ValueError, match=r"vertices: .*\(4, 162, 3\).*\(4, 161, 3\)"):
        short = batch | {"vertices": batch["vertices"][:, 1:]}
        total_loss(prediction, short, network, network_config())
    with pytest.raises(ValueError, match=r"flags \(4,\), found \(3,\)"):
        few = batch | {"has_vertices": batch["has_vertices"][1:]}
        total_loss(prediction, few, network, network_config())


def joints_2d(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-0.9, 0.9, (count, 21, 2)).astype(np.float32))


def test_the_soft_arg_max_finds_peaks_and_heatmap_loss_pulls_there():
    places = joints_2d(2) * 0.8
    heat = torch.zeros(2, 21, 16, 16, requires_grad=True)
    valid = torch.ones(2, 21, dtype=torch.bool)
    optimizer = torch.optim.Adam([heat], lr=0.5)
    first = heatmap_loss(heat, places, valid).item()
    assert first == pytest.approx(np.log(256), rel=1e-4)
    for _ in range(60):
        optimizer.zero_grad()
        heatmap_loss(heat, places, valid).backward()
        optimizer.step()
    assert (soft_argmax(heat) - places).abs().max() < 0.05


def test_heatmap_loss_ignores_unknown_joints_and_those_outside():
    heat = torch.randn(1, 21, 8, 8)
    places = joints_2d(1) * 0.5
    valid = torch.ones(1, 21, dtype=torch.bool)
    valid[0, 3] = False
    before = heatmap_loss(heat, places, valid)
    moved = places.clone()
    moved[0, 3] = 0.1
    assert heatmap_loss(heat, moved, valid) == before
    moved[0, 4] = 1.5
    valid_too = valid.clone()
    valid_too[0, 4] = False
    assert heatmap_loss(heat, moved, valid) == heatmap_loss(heat, places, valid_too)
    assert heatmap_loss(heat, places, torch.zeros_like(valid)) == 0


def test_the_correspondence_loss_is_zero_only_for_the_truth_and_skips_empty_maps():
    true = torch.zeros(3, 4, 16, 16)
    true[:2, 0, 4:9, 4:9] = 1
    true[:2, 1:, 4:9, 4:9] = torch.randn(2, 3, 5, 5)
    right = true.clone()
    right[:, 0] = true[:, 0] * 40 - 20
    assert correspondence_loss(right, true) < 1e-6
    wrong = right.clone()
    wrong[2] = 30.0  # the third hand has no map
    assert correspondence_loss(wrong, true) < 1e-6
    wrong[0, 1:] += 0.5
    assert correspondence_loss(wrong, true).item() == pytest.approx(0.25, abs=1e-3)
    fine = torch.nn.functional.interpolate(right, scale_factor=2)
    torch.testing.assert_close(correspondence_loss(fine, true), correspondence_loss(right, true))


def test_the_head_joins_maps_of_any_sizes():
    head = ImageHead((8, 12, 16), width=10).eval()
    maps = [torch.randn(2, c, s, s) for c, s in ((8, 28), (12, 14), (16, 7))]
    joined, heat, surface = head(maps)
    assert joined.shape == (2, 10, 28, 28)
    assert heat.shape == (2, 21, 28, 28) and surface.shape == (2, 4, 28, 28)
    assert correspondence_summary(surface).shape == (2, 4 * 64)
    moved = [m.clone() for m in maps]
    moved[2][0, :, 0, 0] += 5  # the coarsest map is heard in the finest cells below it
    assert (head(moved)[0] - joined)[0, :, :4, :4].abs().max() > 1e-3
