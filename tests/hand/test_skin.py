"""Skin colours, masks and texels."""

import numpy as np
import pytest

from hand_lib.hand import joints as anatomy
from hand_lib.hand import skin as appearance
from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS
from hand_lib.mesh.topology import vertex_normals


@pytest.fixture(scope="module")
def rest():
    stored = appearance.stored()
    vertices, faces = stored["v_template"].astype(np.float64), stored["f"]
    return vertices, faces, vertex_normals(vertices, faces)


@pytest.fixture(scope="module")
def fine(rest):
    """Points, normals and masks at the texels of every second row and column."""
    vertices, faces, normals = rest
    points, weights = appearance.texel_points(vertices, faces)
    normals = np.einsum("tk,fkc->ftc", weights, normals[faces]).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points, normals = points[::3], normals[::3]
    return points, normals, appearance.skin_masks(points, normals)


def luminance(colours):
    return ((colours / 255.0) ** 2.2) @ np.array([0.2126, 0.7152, 0.0722])


def column(masks, name):
    return masks[:, appearance.MASKS.index(name)]


def test_colours_are_rgb_bytes_and_repeat_with_the_seed():
    colours = appearance.skin_colours(0.4, seed=2)
    assert colours.shape == (778, 3) and colours.dtype == np.uint8
    np.testing.assert_array_equal(colours, appearance.skin_colours(0.4, seed=2))
    assert np.abs(colours.astype(int) - appearance.skin_colours(0.4, seed=3)).max() > 3


def test_tones_run_from_pale_to_deep_without_a_step_back():
    light = [luminance(appearance.skin_colours(t)).mean() for t in np.linspace(0, 1, 11)]
    assert (np.diff(light) < 0).all()
    assert light[0] > 0.45 and light[-1] < 0.11


def test_palms_are_lighter_than_backs_most_of_all_in_deep_skin(rest):
    vertices, _, normals = rest
    palm = (vertices[:, 0] > 0.02) & (vertices[:, 0] < 0.08) & (normals[:, 2] < -0.8)
    back = (vertices[:, 0] > 0.02) & (vertices[:, 0] < 0.08) & (normals[:, 2] > 0.8)
    ratio = []
    for tone in (0.2, 0.9):
        light = luminance(appearance.skin_colours(tone))
        ratio.append(light[palm].mean() / light[back].mean())
    assert ratio[0] > 1.02 and ratio[1] > 2.0 and ratio[1] > ratio[0]


def test_stored_masks_are_those_of_the_rest_surface(rest):
    vertices, _, normals = rest
    masks = appearance.stored()["masks"]
    assert masks.shape == (778, len(appearance.MASKS))
    assert masks.min() >= 0 and masks.max() <= 1
    again = appearance.skin_masks(vertices, normals, blur_mm=2.2)
    np.testing.assert_allclose(again, masks, atol=0.02)
    assert (masks.max(0) > 0.3).all()


def test_every_digit_has_a_nail_on_its_back_and_nowhere_else(fine):
    points, normals, masks = fine
    nail = column(masks, "nail") > 0.5
    for name in FINGER_NAMES:
        joint = MANO_FINGERS[name][2]
        local = (points - anatomy.REST_JOINTS[joint]) @ anatomy.FRAMES[joint]
        length = np.linalg.norm(np.diff(anatomy.REST_CHAIN[name][2:], axis=0))
        own = (
            nail & (np.abs(local[:, 1]) < 0.0115) & (local[:, 0] > 0) & (local[:, 0] < 1.3 * length)
        )
        assert own.sum() > 20
        assert (normals[own] @ anatomy.FRAMES[joint][:, 2]).min() > 0.1
        width = np.ptp(local[own, 1])
        assert 0.008 < width < 0.018
        nail &= ~own
    assert nail.sum() == 0


def test_palm_mask_covers_the_palm_and_the_fingers_fronts_but_not_the_backs(rest):
    vertices, _, normals = rest
    palm = column(appearance.stored()["masks"], "palm")
    on_hand = (vertices[:, 0] > 0.02) & (vertices[:, 1] < 0.04)
    assert palm[on_hand & (normals[:, 2] < -0.7)].min() > 0.6
    assert palm[on_hand & (normals[:, 2] > 0.7)].max() < 0.2
    assert palm[vertices[:, 0] < -0.016].max() < 0.1


def test_creases_cross_the_palmar_side_of_finger_joints(fine):
    points, _, masks = fine
    for joint in (2, 5, 8, 11):
        local = (points - anatomy.REST_JOINTS[joint]) @ anatomy.FRAMES[joint]
        front = (np.abs(local[:, 1]) < 0.003) & (local[:, 2] < -0.004) & (local[:, 2] > -0.012)
        at = front & (np.abs(local[:, 0]) < 0.0012)
        away = front & (np.abs(local[:, 0] - 0.010) < 0.003)
        assert column(masks, "crease")[at].max() > 0.5
        assert column(masks, "crease")[away].max() < 0.2


def test_wider_blur_gives_fainter_wider_lines(fine):
    points, normals = fine[0][::5], fine[1][::5]
    sharp = column(appearance.skin_masks(points, normals, 0.3), "crease")
    soft = column(appearance.skin_masks(points, normals, 3.0), "crease")
    assert soft.max() < sharp.max() and (soft > 0.05).sum() > (sharp > 0.05).sum()


def test_fine_skin_is_the_same_hand_with_clearer_nails_on_either_side(rest):
    vertices, faces, _ = rest
    points, triangles, colours = appearance.fine_skin(vertices, faces, 0.5)
    assert colours.shape == points.shape and len(points) > 12_000 and triangles.max() < len(points)
    assert np.abs(points.max(0) - vertices.max(0)).max() < 0.0015
    left, turned, same = appearance.fine_skin(vertices * (-1, 1, 1), faces[:, ::-1], 0.5)
    for surface, corners in ((points, triangles), (left, turned)):
        a, b, c = (surface[corners[:, k]] for k in range(3))
        assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0  # outside is outside
    assert same is colours
    tip = points[:, 0] > 0.165
    coarse = luminance(appearance.skin_colours(0.5)[vertices[:, 0] > 0.165])
    assert np.ptp(luminance(colours[tip])) > 1.1 * np.ptp(coarse)


def test_bad_tones_are_refused():
    with pytest.raises(ValueError, match="tone.*1.2"):
        appearance.skin_colours(1.2)


def test_a_missing_template_says_how_to_get_it(tmp_path, monkeypatch):
    appearance.stored.cache_clear()
    monkeypatch.setattr("hand_lib.hand.mano.ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="hand.npz.*template.build"):
        appearance.shape_names()
    monkeypatch.undo()
    appearance.stored.cache_clear()
    assert appearance.shape_names()
