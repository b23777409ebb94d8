import numpy as np
import pytest
import torch
from network_fixtures import small_network

from hand_lib.data.surface_maps import CELLS, SURFACE_UNIT, SurfaceMaps
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.similarity import lay_onto
from hand_lib.network.heads import (
    ImageHead,
    cell_centres,
    correspondence_loss,
    expected_places,
    heatmap_loss,
    surface_summary,
)
from hand_lib.network.model import LAST_LOOK, Prediction
from hand_lib.network.second_look import (
    Look,
    brought_back,
    cut,
    look_at,
)
from hand_lib.render.camera import KNUCKLES, project_weak_perspective, upright_square


@pytest.fixture(scope="module")
def hands():
    return SyntheticHands(64, seed=3, count=24).fetch_batch(np.arange(24))


def joints_2d(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-0.9, 0.9, (count, 21, 2)).astype(np.float32))


def test_a_look_turns_the_knuckles_above_the_wrist_and_fills_its_square():
    joints = joints_2d()
    look = look_at(joints, margin=1.25)
    seen = look.see(joints)
    along = seen[:, list(KNUCKLES)].mean(1) - seen[:, 0]
    assert along[:, 0].abs().max() < 1e-5 and (along[:, 1] < 0).all()
    extent = (seen.amax(1) - seen.amin(1)).amax(1)
    torch.testing.assert_close(extent, torch.full((6,), 2 / 1.25))
    torch.testing.assert_close(seen.amax(1) + seen.amin(1), torch.zeros(6, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(look.unsee(seen), joints)


def test_a_turned_look_is_off_upright_by_as_much_clockwise():
    joints = joints_2d()
    seen = Look(*upright_square(joints, turned=torch.full((6,), 0.4))).see(joints)
    along = seen[:, list(KNUCKLES)].mean(1) - seen[:, 0]
    angle = torch.atan2(along[:, 0], -along[:, 1])
    torch.testing.assert_close(angle, torch.full((6,), 0.4))


def test_joints_in_one_place_still_give_a_square():
    look = look_at(torch.zeros(2, 21, 2))
    assert all(part.isfinite().all() for part in look) and (look.half > 0).all()


def test_cutting_shows_at_each_place_what_the_crop_shows_there():
    """A picture of its own coordinates: bilinear sampling of them is exact."""
    axis = cell_centres(48)
    image = torch.stack([axis.expand(48, 48), axis[:, None].expand(48, 48), torch.ones(48, 48)])
    joints = joints_2d(3) * 0.4
    look = look_at(joints)
    cuts = cut(image.expand(3, -1, -1, -1), 32, look)
    small = cell_centres(32)
    grid = torch.stack([small.expand(32, 32), small[:, None].expand(32, 32)], 2).reshape(1, -1, 2)
    places = look.unsee(grid.expand(3, -1, -1)).unflatten(1, (32, 32))
    inside = (places.abs() < 0.95).all(3)
    assert inside.float().mean() > 0.3
    error = (cuts[:, :2].permute(0, 2, 3, 1) - places).abs().amax(3)
    assert error[inside].max() < 1e-5
    assert cut(image[None], 48) is not None and cut(image[None], 48).shape == (1, 3, 48, 48)


def test_what_is_brought_back_projects_where_it_did():
    generator = torch.Generator().manual_seed(1)
    joints = torch.randn(4, 21, 3, generator=generator) * 0.05
    camera = torch.tensor([[8.0, 0.01, -0.02]]).repeat(4, 1)
    turn = torch.linalg.qr(torch.randn(4, 3, 3, generator=generator))[0]
    seen = project_weak_perspective(joints, camera)
    prediction = Prediction(
        joints, joints, camera, seen, seen, intermediate=(joints,), canonical=joints, rotation=turn
    )
    look = look_at(joints_2d(4))
    back = brought_back(prediction, look)
    torch.testing.assert_close(back["joints_2d"], look.unsee(seen))
    again = project_weak_perspective(back["joints"], back["camera"])
    torch.testing.assert_close(again, back["joints_2d"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(back["joints"][..., 2], joints[..., 2])
    spin = torch.eye(3).repeat(4, 1, 1)
    spin[:, :2, :2] = look.turn
    palm = joints @ turn.transpose(1, 2) @ spin  # from the palm's frame, then back from the look
    torch.testing.assert_close(joints @ back["rotation"].transpose(1, 2), palm)
    assert (back["vertices"] == back["intermediate"][0]).all() and back["canonical"] is joints


def test_the_last_look_undoes_a_turn_of_the_picture(monkeypatch):
    """A network that finds the joints exactly gives the same hand whichever way up the crop is."""
    monkeypatch.setattr("hand_lib.network.model.LAST_LOOK", 1.0)
    network = small_network().eval()
    network.looks = 2
    found = {}

    def read(images):
        out = type(network).read(network, images)
        if len(found["at"]):
            out.joints_2d_direct = found["at"].pop(0)
        return out

    network.read = read
    axis = cell_centres(64)
    x, y = axis.expand(64, 64), axis[:, None].expand(64, 64)
    image = torch.stack([(3 * x).sin(), (2 * y + x).cos(), x * y])[None] * 0.4 + 0.5
    joints = joints_2d(1) * 0.35
    turned, places = torch.rot90(image, -1, (2, 3)), joints.flip(2) * torch.tensor([-1.0, 1.0])
    found["at"] = [joints, joints]
    one = network(image)
    found["at"] = [places, places]
    other = network(turned)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(other.vertices, one.vertices @ quarter.T, atol=2e-4, rtol=0)


def test_the_soft_arg_max_finds_peaks_and_heat_loss_pulls_there():
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
    assert (expected_places(heat) - places).abs().max() < 0.05


def test_heat_loss_ignores_unknown_joints_and_those_outside():
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


def test_surface_maps_show_the_rest_position_of_what_is_seen():
    """A palm-sized square that is its own rest mesh, seen straight on."""
    steps = np.linspace(-0.05, 0.05, 11)
    x, y = np.meshgrid(steps, steps)
    rest = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    faces = np.concatenate([np.stack([corner, corner + 11, corner + 1], 1),
                            np.stack([corner + 1, corner + 11, corner + 12], 1)])  # fmt: skip
    camera = np.array([[[320.0, 0, 31.5], [0, 320, 31.5], [0, 0, 1]]])
    maps = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, 0.5]]), camera, 64)
    assert maps.shape == (1, 4, CELLS, CELLS)
    # 0.1 m at 0.5 m and 320 px is 64 px: the square fills the crop
    centres = ((np.arange(CELLS) + 0.5) / CELLS - 0.5) * 0.1 / SURFACE_UNIT
    assert (maps[0, 0] == 1).all()
    np.testing.assert_allclose(maps[0, 1], np.tile(centres, (CELLS, 1)), atol=0.2)
    np.testing.assert_allclose(maps[0, 2], np.tile(centres[:, None], (1, CELLS)), atol=0.2)
    behind = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, -0.5]]), camera, 64)
    assert (behind == 0).all()


def test_surface_maps_cover_what_the_renderer_shows(hands):
    mesh = builtin_hierarchy()
    maps = SurfaceMaps(mesh.vertices[0], mesh.faces[0]).draw(
        hands["vertices"], hands["root"], hands["intrinsics"], 64
    )
    mask = hands["mask"].reshape(24, 16, 4, 16, 4).mean((2, 4))
    # the mask leaves out what an object hides, the map does not
    both = (maps[:, 0] > 0.5) & (mask > 0.5)
    assert both.sum() / (mask > 0.5).sum() > 0.9


def test_the_surface_loss_is_zero_only_for_the_truth_and_skips_empty_maps():
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
    assert surface_summary(surface).shape == (2, 4 * 64)
    moved = [m.clone() for m in maps]
    moved[2][0, :, 0, 0] += 5  # the coarsest map is heard in the finest cells below it
    assert (head(moved)[0] - joined)[0, :, :4, :4].abs().max() > 1e-3


def test_look_is_a_plain_tuple_of_tensors():
    assert (
        Look(torch.eye(2)[None], torch.zeros(1, 2), torch.ones(1)).see(torch.ones(1, 4, 2)).tolist()
        == torch.ones(1, 4, 2).tolist()
    )


def test_the_last_look_gives_the_shape_and_both_looks_the_place():
    network = small_network(view_size=64).eval()
    rng = torch.Generator().manual_seed(2)
    hand = torch.randn(3, 162, 3, generator=rng) * 0.04
    regress = network.regressor

    def seen(vertices, joints_2d):
        joints = regress @ vertices
        fields = {"vertices": vertices - joints[:, :1], "joints": joints - joints[:, :1]}
        return Prediction(
            **fields, camera=torch.ones(3, 3), joints_2d=joints_2d, joints_2d_direct=joints_2d
        )

    places = [torch.randn(3, 21, 2, generator=rng) * 0.3 for _ in range(2)]
    same = network._together(seen(hand, places[0]), seen(hand, places[0]))
    torch.testing.assert_close(same.vertices, seen(hand, places[0]).vertices, atol=1e-5, rtol=1e-4)
    other = torch.randn(3, 162, 3, generator=rng) * 0.04
    both = network._together(seen(other, places[0]), seen(hand, places[1]))
    shape = lay_onto(hand, both.vertices)  # another place, turn and size, no other shape
    torch.testing.assert_close(both.vertices, shape, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        both.joints_2d_direct, (1 - LAST_LOOK) * places[0] + LAST_LOOK * places[1]
    )
    torch.testing.assert_close(both.joints_2d, project_weak_perspective(both.joints, both.camera))
    assert both.joints[:, 0].abs().max() < 1e-7
