"""The second look: upright squares there and back, and what is made of several crops."""

from dataclasses import replace

import numpy as np
import torch
from network_fixtures import small_network

from hand_lib.mesh.topology import procrustes_align
from hand_lib.network import model
from hand_lib.network.coarse_to_fine import cell_centres
from hand_lib.network.model import (
    LAST_CROP,
    Prediction,
    cut,
    merge_crops,
    predict_crops,
    square_to_crop,
)
from hand_lib.render.camera import (
    KNUCKLES,
    UPRIGHT_MARGIN,
    project_weak_perspective,
    upright_square,
)


def joints_2d(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-0.9, 0.9, (count, 21, 2)).astype(np.float32))


def test_a_look_turns_the_knuckles_above_the_wrist_and_fills_its_square():
    joints = joints_2d()
    square = turn, centre, half = upright_square(joints)
    seen = (joints - centre[:, None]) / half[:, None, None] @ turn.mT
    along = seen[:, list(KNUCKLES)].mean(1) - seen[:, 0]
    assert along[:, 0].abs().max() < 1e-5 and (along[:, 1] < 0).all()
    extent = (seen.amax(1) - seen.amin(1)).amax(1)
    torch.testing.assert_close(extent, torch.full((6,), 2 / UPRIGHT_MARGIN))
    torch.testing.assert_close(seen.amax(1) + seen.amin(1), torch.zeros(6, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(square_to_crop(square, seen), joints)


def test_joints_in_one_place_still_give_a_square():
    square = upright_square(torch.zeros(2, 21, 2))
    assert all(part.isfinite().all() for part in square) and (square[2] > 0).all()


def test_cutting_shows_at_each_place_what_the_crop_shows_there():
    """A picture of its own coordinates: bilinear sampling of them is exact."""
    axis = cell_centres(48)
    image = torch.stack([axis.expand(48, 48), axis[:, None].expand(48, 48), torch.ones(48, 48)])
    joints = joints_2d(3) * 0.4
    square = upright_square(joints)
    cuts = cut(image.expand(3, -1, -1, -1), 32, square)
    small = cell_centres(32)
    grid = torch.stack([small.expand(32, 32), small[:, None].expand(32, 32)], 2).reshape(1, -1, 2)
    places = square_to_crop(square, grid.expand(3, -1, -1)).unflatten(1, (32, 32))
    inside = (places.abs() < 0.95).all(3)
    assert inside.float().mean() > 0.3
    error = (cuts[:, :2].permute(0, 2, 3, 1) - places).abs().amax(3)
    assert error[inside].max() < 1e-5
    assert cut(image[None], 48) is not None and cut(image[None], 48).shape == (1, 3, 48, 48)


def test_the_last_look_undoes_a_turn_of_the_picture(monkeypatch):
    """A network that finds the joints exactly gives the same hand whichever way up the crop is."""
    monkeypatch.setattr(model, "LAST_CROP", 1.0)
    network = small_network().eval()
    forward, found = network.forward, {}
    network.forward = lambda images: replace(forward(images), joints_2d_direct=found["at"].pop(0))
    axis = cell_centres(64)
    x, y = axis.expand(64, 64), axis[:, None].expand(64, 64)
    image = torch.stack([(3 * x).sin(), (2 * y + x).cos(), x * y])[None] * 0.4 + 0.5
    joints = joints_2d(1) * 0.35
    turned, places = torch.rot90(image, -1, (2, 3)), joints.flip(2) * torch.tensor([-1.0, 1.0])
    found["at"] = [joints, joints]
    one = predict_crops(network, image)
    found["at"] = [places, places]
    other = predict_crops(network, turned)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(other.vertices, one.vertices @ quarter.T, atol=2e-4, rtol=0)


def test_the_last_look_gives_the_shape_and_both_looks_the_place():
    network = small_network(view_size=64).eval()
    rng = torch.Generator().manual_seed(2)
    hand = torch.randn(3, 162, 3, generator=rng) * 0.04
    regress = network.regressor

    def seen(vertices, joints_2d):
        joints = regress @ vertices
        fields = {"vertices": vertices - joints[:, :1], "joints": joints - joints[:, :1]}
        return Prediction(
            **fields, camera=torch.ones(3, 3), joints_2d=joints_2d, joints_2d_direct=joints_2d,
            heatmaps=torch.zeros(3, 21, 4, 4),
        )  # fmt: skip

    places = [torch.randn(3, 21, 2, generator=rng) * 0.3 for _ in range(2)]
    whole = torch.eye(2).expand(3, 2, 2), torch.zeros(3, 2), torch.ones(3)
    same = merge_crops(network, seen(hand, places[0]), seen(hand, places[0]), whole)
    torch.testing.assert_close(same.vertices, seen(hand, places[0]).vertices, atol=1e-5, rtol=1e-4)
    other = torch.randn(3, 162, 3, generator=rng) * 0.04
    both = merge_crops(network, seen(other, places[0]), seen(hand, places[1]), whole)
    shape = procrustes_align(hand, both.vertices)  # another place, turn and size, no other shape
    torch.testing.assert_close(both.vertices, shape, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        both.joints_2d_direct, (1 - LAST_CROP) * places[0] + LAST_CROP * places[1]
    )
    torch.testing.assert_close(both.joints_2d, project_weak_perspective(both.joints, both.camera))
    assert both.joints[:, 0].abs().max() < 1e-7
