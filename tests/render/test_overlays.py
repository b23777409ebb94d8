import numpy as np
import pytest

from hand_lib.hand.model import HandModel
from hand_lib.render.camera import guessed_intrinsics, project
from hand_lib.render.render import draw_meshes, for_screen, render_mesh

MODEL = HandModel.builtin()
VERTICES, FACES = MODEL.vertices.numpy().astype(float), MODEL.faces.numpy()
PHOTO = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
MATRIX = guessed_intrinsics(200, 150)


@pytest.mark.parametrize("place", [(0, 0, 0.5), (-0.2, 0.1, 0.5), (0.26, 0, 0.45), (0, 0, 0.12)])
def test_the_window_shows_what_the_whole_picture_would(place):
    hand = VERTICES + place
    whole = render_mesh(
        hand, FACES, intrinsics=MATRIX, size=(150, 200), background=PHOTO, alpha=0.85
    ).astype(int)
    assert np.abs(draw_meshes(PHOTO, hand, FACES, MATRIX) - whole).max() <= 1


def test_a_hand_out_of_sight_leaves_the_picture_as_it_is():
    for place in ((5, 0, 0.5), (0, 0, -1.0)):
        assert np.array_equal(draw_meshes(PHOTO, VERTICES + place, FACES, MATRIX), PHOTO)


def test_a_shrunken_picture_keeps_its_points():
    small, matrix, scale = for_screen(PHOTO, MATRIX, longest=100)
    assert small.shape == (75, 100, 3) and scale == 0.5
    points = VERTICES + [0, 0, 0.5]
    assert np.allclose((project(points, MATRIX) + 0.5) * 0.5 - 0.5, project(points, matrix))
    same, matrix, scale = for_screen(PHOTO, MATRIX, longest=200)
    assert same is PHOTO and matrix is MATRIX and scale == 1
