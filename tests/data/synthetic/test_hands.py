"""Synthetic pictures: labels are exact, every picture depends on (seed, index) alone."""

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.render import naive_sample
from scipy.spatial.transform import Rotation

from hand_lib.data.freihand import FreiHand
from hand_lib.data.synthetic import hands as synthetic_hands
from hand_lib.data.synthetic.backgrounds import KINDS, background_bank, paint_background, spectrum
from hand_lib.data.synthetic.config import Draws, SyntheticConfig
from hand_lib.data.synthetic.draw import sample_viewpoints
from hand_lib.data.synthetic.hands import CLEAR, STAMP, SyntheticHands, write_synthetic_freihand
from hand_lib.data.synthetic.layout import ARM, OBJECT, superquadric
from hand_lib.data.synthetic.scene import light_vertices, make_scratch, place_parts
from hand_lib.hand.model import HandModel
from hand_lib.hand.skin import CHANNELS, texel_points, to_builtin_rest, waves
from hand_lib.mesh.topology import face_normals
from hand_lib.render.camera import crop_to_pixels, project
from hand_lib.render.raster import rasterise

PLAIN = CLEAR | {"sleeve": 0.0}


@pytest.fixture(scope="module")
def hands():
    return SyntheticHands(size=96, seed=3, count=400)


def test_joints_2d_are_the_projection_of_the_joints(hands):
    batch = hands.fetch_batch(range(24))
    camera_space = batch["joints"].astype(float) + batch["root"][:, None]
    pixels = project(camera_space, batch["intrinsics"].astype(float))
    np.testing.assert_allclose(crop_to_pixels(batch["joints_2d"], 96), pixels, atol=1e-3)
    assert np.abs(batch["joints"][:, 0]).max() < 1e-7
    assert (batch["root"][:, 2] > 0.2).all()


def test_vertices_and_joints_are_those_of_the_hand_model(hands):
    batch = hands.fetch_batch(range(16))
    model = HandModel.builtin(flat_mean=False)
    expected = model(torch.from_numpy(batch["pose"]), torch.from_numpy(batch["betas"]))
    wrist = expected.joints[:, :1]
    np.testing.assert_allclose(batch["joints"], (expected.joints - wrist).numpy(), atol=2e-6)
    np.testing.assert_allclose(batch["vertices"], (expected.vertices - wrist).numpy(), atol=2e-6)


def test_mask_is_where_the_mesh_is_when_nothing_hides_it():
    hands = SyntheticHands(size=96, seed=5, count=8, **PLAIN)
    batch, faces = hands.fetch_batch(range(8)), HandModel.builtin().faces.numpy()
    for k in range(8):
        points = batch["vertices"][k] + batch["root"][k]
        a, b, c = points[faces].swapaxes(0, 1)
        front = faces[(np.cross(b - a, c - a) * a).sum(1) < 0]
        seen = rasterise(points, front, batch["intrinsics"][k], 96).face >= 0
        differ = (seen != batch["mask"][k]).sum()
        assert seen.sum() > 300 and differ < 0.1 * seen.sum()  # silhouettes, own forearm in front


def test_a_picture_is_the_same_alone_in_a_batch_and_in_another_worker(hands):
    batch = hands.fetch_batch([5, 6, 7, 8])
    alone = hands.fetch_batch([7])
    other = pickle.loads(pickle.dumps(hands)).fetch_batch([7, 5])
    for key in batch:
        np.testing.assert_array_equal(batch[key][2], alone[key][0], err_msg=key)
        np.testing.assert_array_equal(batch[key][2], other[key][0], err_msg=key)
    assert (batch["image"][0] != batch["image"][1]).mean() > 0.5
    again = SyntheticHands(size=96, seed=4, count=400).fetch_batch([7])
    assert (again["image"] != alone["image"]).mean() > 0.5


def test_a_sample_holds_what_the_batch_holds(hands):
    sample, batch = hands[9], hands.fetch_batch([9])
    np.testing.assert_array_equal(sample.image, batch["image"][0].transpose(1, 2, 0))
    expected = crop_to_pixels(batch["joints_2d"][0], 96)
    np.testing.assert_allclose(sample.joints_2d, expected, atol=1e-4)
    np.testing.assert_array_equal(sample.mask, batch["mask"][0])
    assert sample.index == 9 and sample.side == "right" and len(hands) == 400
    assert hands[-1].index == 399


def test_pictures_of_all_sizes_show_the_same_scene():
    small = SyntheticHands(size=64, seed=8, count=4).fetch_batch([2])
    large = SyntheticHands(size=320, seed=8, count=4).fetch_batch([2])
    np.testing.assert_allclose(small["joints_2d"], large["joints_2d"], atol=1e-5)
    np.testing.assert_allclose(small["joints"], large["joints"])
    assert abs(small["mask"].mean() - large["mask"].mean()) < 0.01
    mean = large["image"].reshape(3, 64, 5, 64, 5).mean(axis=(2, 4))
    assert np.abs(mean - small["image"][0]).mean() < 25


def test_the_hand_stands_out_of_the_background_and_is_lit():
    hands = SyntheticHands(size=64, seed=1, count=64)
    batch = hands.fetch_batch(range(64))
    spread = [batch["image"][k][:, batch["mask"][k]].std() for k in range(64)]
    assert np.median(spread) > 12
    grey = batch["image"].mean(axis=(1, 2, 3))
    assert grey.min() > 5 and grey.max() < 250 and grey.std() > 15


def test_each_chance_switches_what_it_names():
    def share(**knobs):
        hands = SyntheticHands(size=32, seed=2, count=300, **knobs)
        return hands.parameters(range(300))

    present = {
        "sleeve": lambda p: p["sleeve_start"] < 1,
        "object_in_hand": lambda p: p["object"]["on"] > 0,
        "jpeg": lambda p: p["camera"]["jpeg_quality"] > 0,
        "occluder": lambda p: p["occluder"]["on"] > 0,
        "motion_blur": lambda p: p["camera"]["motion_px"] > 0,
        "second_hand": lambda p: p["second"] != 0, "drop_shadow": lambda p: p["cast"] > 0,
    }  # fmt: skip
    for name, shows in present.items():
        assert not shows(share(**{name: 0.0})).any(), name
        assert shows(share(**{name: 1.0})).all(), name
        assert 0.3 < shows(share(**{name: 0.5})).mean() < 0.7, name


def nearest_gesture(hands, **knobs):
    """How far poses are from the nearest of the named ones, radians."""
    some = SyntheticHands(size=32, seed=2, count=60, gestures=1.0, **knobs)
    poses = some.parameters(range(60))["pose"][:, None, 1:]
    return np.abs(poses - hands.banks.gestures[None, :, 1:]).mean(axis=(2, 3)).min(axis=1)


def test_backgrounds_and_mixed_poses_are_what_is_asked_for(hands):
    kinds = hands.banks.kinds
    assert set(kinds) == set(KINDS) and len(kinds) == len(hands.banks.materials.tiles)
    some = SyntheticHands(size=32, seed=2, count=200, backgrounds=("desk", "bokeh"))
    ground = some.parameters(range(200))["background"]
    assert set(kinds[ground["tile"]]) == {"desk", "bokeh"}
    assert set(kinds[ground["second_tile"]]) == {"desk", "bokeh"}
    nearest = nearest_gesture(hands, between=0.0)
    assert nearest.max() < np.deg2rad(2)  # what the jitter adds
    away = nearest_gesture(hands, between=1.0)
    assert np.median(away) > 2 * np.median(nearest)


def test_things_are_visible():
    still = dict.fromkeys(("jpeg", "defocus", "motion_blur", "drop_shadow"), 0.0)
    still["noise"] = (0.0, 0.0)
    base = SyntheticHands(size=96, seed=6, count=12, **{**PLAIN, **still}).fetch_batch(range(12))
    for name in ("sleeve", "object_in_hand", "occluder", "second_hand"):
        knobs = {**PLAIN, **still, name: 1.0}
        other = SyntheticHands(size=96, seed=6, count=12, **knobs).fetch_batch(range(12))
        changed = (other["image"] != base["image"]).any(axis=1).mean(axis=(1, 2))
        assert (changed > 0.001).mean() > 0.4, name
        np.testing.assert_array_equal(other["joints"], base["joints"])


def test_viewpoints_like_photographs_point_up_more_than_down_and_the_sphere_does_not():
    draws = Draws(0, np.arange(4000))
    photographs = sample_viewpoints(SyntheticConfig(), draws)
    sphere = sample_viewpoints(SyntheticConfig(viewpoints="sphere"), draws)
    for rotations in (photographs, sphere):
        np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)
        assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
    up, down = (photographs[:, 1, 0] < -0.5).mean(), (photographs[:, 1, 0] > 0.5).mean()
    assert up > 0.35 and up > 2 * down > 0.1
    assert np.abs(sphere.mean(axis=0)).max() < 0.03
    assert np.abs((sphere**2).mean(axis=0) - 1 / 3).max() < 0.03


def test_draws_are_uniform_independent_and_normal():
    draws = Draws(1, np.arange(20000))
    unit = draws.uniform(3)
    assert abs(unit.mean() - 0.5) < 0.005 and abs(unit.var() - 1 / 12) < 0.002
    both = np.column_stack([unit, draws.uniform(2)])
    assert np.abs(np.corrcoef(both.T) - np.eye(5)).max() < 0.03
    assert abs(np.corrcoef(unit[1:, 0], unit[:-1, 0])[0, 1]) < 0.03
    normal = draws.normal(2)
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    assert set(np.unique(draws.whole(5))) == set(range(5))
    assert abs(draws.chance(0.3).mean() - 0.3) < 0.02
    assert draws.uniform(None, 2.0, 3.0).min() >= 2


def test_framing_keeps_the_hand_in_the_picture_unless_truncated():
    inside = SyntheticHands(size=32, seed=9, count=200, truncated=0.0, shift=0.0)
    batch = inside.fetch_batch(range(200))
    assert np.abs(batch["joints_2d"]).max() < 1.0
    spread = np.ptp(batch["joints_2d"], axis=1).max(axis=1)
    np.testing.assert_allclose(2 / spread, inside.parameters(range(200))["framing"], rtol=1e-3)
    cut = SyntheticHands(size=32, seed=9, count=200, truncated=1.0).fetch_batch(range(200))
    assert (np.abs(cut["joints_2d"]).max(axis=(1, 2)) > 1).mean() > 0.3


def test_the_skin_has_nails_on_fingertips_and_creases_in_the_palm(hands):
    model, materials = HandModel.builtin(), hands.banks.materials
    faces, rest = model.faces.numpy(), model.vertices.numpy().astype(float)
    points, weights = texel_points(rest, faces)
    texels = materials.texels.view(np.uint8).reshape(-1, 8)[: len(points)]
    normals = face_normals(rest, faces)
    normals = np.repeat(normals[:, 2] / np.linalg.norm(normals, axis=1), len(weights))
    nail = texels[:, CHANNELS.index("nail")] > 128
    tips = rest[model.tips.numpy()]
    near = np.linalg.norm(points[nail][:, None] - tips, axis=2)
    assert near.min(axis=1).max() < 0.025 and set(near.argmin(axis=1)) == set(range(5))
    palm = normals[texels[:, CHANNELS.index("palm")] > 200]
    assert palm.mean() < -0.4 and (palm > 0.5).mean() < 0.15  # the thumb lies on its side
    crease = texels[:, CHANNELS.index("crease")] > 128
    assert 0.005 < crease.mean() < 0.1
    noise = waves(points, (0.003, 0.009), np.random.default_rng(0))
    assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.15


def test_the_skin_of_another_hand_lies_where_the_builtin_ones_does():
    arrays = HandModel.builtin(dtype=torch.float64).arrays()
    rest, template = arrays["J_regressor"] @ arrays["v_template"], arrays["v_template"]
    turn = Rotation.from_rotvec([0.4, -0.2, 1.0])
    moved = to_builtin_rest(1.1 * turn.apply(template), arrays["weights"], 1.1 * turn.apply(rest))
    np.testing.assert_allclose(moved, template, atol=2e-4)


def test_forearms_and_objects_look_outwards(hands):
    some, layout = SyntheticHands(32, 2, 4, object_in_hand=1.0), hands.banks.materials.layout
    parameters, scratch = some.parameters([0]), make_scratch(layout, 32)
    root, lens = np.zeros(3, np.float32), np.zeros(3, np.float32)
    place_parts(parameters[0], 0, some.posed(parameters), layout, scratch, 32, root, lens)
    light_vertices(parameters[0], layout, scratch, root, lens)
    for part in (ARM, OBJECT):
        start, stop = layout.vertex_start[part : part + 2]
        ring = 16 if part == ARM else 18
        points = scratch.points[start:stop].reshape(-1, ring, 3)[1:-1]
        normals = scratch.normals[start:stop].reshape(-1, ring, 3)[1:-1]
        outward = points - points.mean(axis=1, keepdims=True)
        assert ((normals * outward).sum(axis=2) > 0).mean() > 0.95


def test_a_ball_is_a_superquadric():
    grid = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 2)).astype(np.float32)
    out = np.zeros((50, 3), np.float32)
    superquadric(grid, np.ones(3), np.eye(3), np.full(3, 2.0), np.ones(2), out)
    np.testing.assert_allclose(np.linalg.norm(out - 1, axis=1), 2, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_background_is_a_picture(kind):
    tile = paint_background(kind, 64, np.random.default_rng(0))
    assert tile.shape == (64, 64, 3) and tile.dtype == np.uint8 and tile.std() > 1
    np.testing.assert_array_equal(tile, paint_background(kind, 64, np.random.default_rng(0)))


def test_a_bank_mixes_kinds_and_spectra_fall_as_stated():
    bank, kinds = background_bank(12, 32, 1)
    assert bank.shape == (12, 32, 32, 3) and len(kinds) == 12
    assert len({tile.tobytes() for tile in bank}) == 12
    noise = spectrum(np.random.default_rng(0), 256, 1.0, 1)[..., 0]
    power = np.abs(np.fft.rfft2(noise)) ** 2
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    ends = ((0.03, 0.05), (0.3, 0.5))
    low, high = (power[(radius > near) & (radius < far)].mean() for near, far in ends)
    assert 0.5 < (low / high) / 100 < 2  # ten times the frequency, a hundredth of the power


def test_freihand_layout_reads_back(tmp_path):
    folder = write_synthetic_freihand(tmp_path / "set", count=3, size=64, seed=2)
    hands, read = SyntheticHands(size=64, seed=2, count=3), FreiHand(folder, "training")
    for k in range(3):
        mine, theirs = hands[k], read[k]
        np.testing.assert_allclose(theirs.joints, mine.joints, atol=1e-6)
        np.testing.assert_allclose(theirs.vertices, mine.vertices, atol=1e-6)
        np.testing.assert_allclose(theirs.joints_2d, mine.joints_2d, atol=1e-2)
        np.testing.assert_allclose(theirs.pose, mine.pose, atol=1e-6)
        assert np.abs(theirs.image.astype(float) - mine.image).mean() < 6
    stamp = (folder / STAMP).stat().st_mtime_ns
    write_synthetic_freihand(folder, count=3, size=64, seed=2)
    assert (folder / STAMP).stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="seed"):
        write_synthetic_freihand(folder, count=3, size=64, seed=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        write_synthetic_freihand(tmp_path / "full", count=2, size=64)


def test_a_disk_that_fills_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def write(folder, *_, **__):
        (folder / "half.jpg").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic_hands, "write_freihand", write)
    with pytest.raises(OSError, match="No space"):
        write_synthetic_freihand(tmp_path / "set", count=2, size=64)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(ValueError, match="choose another folder"):
        write_synthetic_freihand(tmp_path / "set", count=2, size=64)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"size": 8}, "size"), ({"count": 0}, "count"), ({"viewpoints": "moon"}, "moon"),
        ({"sleeve": 1.5}, "sleeve"), ({"framing": (2.0, 1.0)}, "framing"),
        ({"palm_share": 0.9}, "back_share"), ({"backgrounds": ("sea",)}, "sea"),
        ({"backgrounds": ()}, "backgrounds"), ({"exposure": float("nan")}, "exposure"),
        ({"forearm_m": (0.2, 0.1)}, "forearm_m"), ({"sky_even": (1.0,)}, "sky_even"),
    ],
)  # fmt: skip
def test_wrong_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticHands(**{"size": 32, **knobs})


def test_unknown_knobs_and_indices_are_refused(hands):
    with pytest.raises(ValueError, match="sleves"):
        SyntheticHands(size=32, sleves=1.0)
    with pytest.raises(IndexError, match="400"):
        hands.fetch_batch([400])
    with pytest.raises(TypeError, match="whole"):
        hands.fetch_batch([0.5])


def test_the_other_side_of_the_benchmark_draws_a_picture():
    hands = SyntheticHands(size=48, seed=5, count=2, **PLAIN)
    faces = HandModel.builtin().faces.numpy()
    picture = naive_sample(hands.fetch_batch([0]), faces, 48, np.random.default_rng(0))
    assert picture.shape == (48, 48, 3) and picture.std() > 20
