"""What the image head reads: soft arg-max, heat maps, correspondence, and their losses."""

import numpy as np
import pytest
import torch

from hand_lib.network.heads import (
    ImageHead,
    correspondence_loss,
    correspondence_summary,
    heatmap_loss,
    soft_argmax,
)

CELLS = 16


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
    true = torch.zeros(3, 4, CELLS, CELLS)
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
