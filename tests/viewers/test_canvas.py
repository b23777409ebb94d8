"""What the canvas sends to the browser."""

import numpy as np
import pytest

from hand_lib.hand.model import HandModel
from hand_lib.hand.skin import skin_colours, stored_faces
from hand_lib.viewers import canvas as c


@pytest.fixture(scope="module")
def model():
    return HandModel.builtin()


def test_the_browser_is_sent_all_it_needs_to_refine_and_draw_the_hand(model):
    faces = model.faces.numpy()
    canvas = c.HandCanvas(faces, height=300)
    vertices, joints = model.vertices.numpy(), np.zeros((21, 3))
    canvas.show(vertices, joints, skin_colours(0.5))
    corners = np.frombuffer(canvas.corners, np.uint16).reshape(-1, 3)
    weights = np.frombuffer(canvas.weights, np.float32).reshape(-1, 3)
    fine = np.frombuffer(canvas.faces, np.uint16).reshape(-1, 3)
    assert len(fine) == len(faces) * c.PARTS**2 and fine.max() == len(corners) - 1
    assert np.allclose(weights.sum(1), 1)
    assert (np.frombuffer(canvas.coarse_faces, np.uint16).reshape(-1, 3) == faces).all()
    flat = (weights[..., None] * vertices[corners]).sum(1)
    assert np.abs(flat - canvas.fine.vertices(vertices)).max() < 0.004
    colours = np.frombuffer(canvas.colours, np.uint8).reshape(-1, 3)
    assert (colours[:778] == skin_colours(0.5)).all() and len(colours) == len(corners)
    assert len(canvas.bones) == 20 and canvas.bones[0][2].startswith("#")


def test_showing_without_colours_keeps_them(model):
    canvas = c.HandCanvas(model.faces.numpy())
    canvas.show(model.vertices.numpy(), np.zeros((21, 3)), c.fine_skin(0.2))
    before = canvas.colours
    canvas.show(model.vertices.numpy() * 0.9, np.ones((21, 3)))
    assert canvas.colours == before
    assert np.frombuffer(canvas.frame, np.float32)[-1] == 1.0


def test_fine_skin_is_darker_for_a_deeper_tone_and_has_a_colour_per_fine_vertex(model):
    fine = c.HandCanvas(model.faces.numpy()).fine
    light, dark = c.fine_skin(0.1), c.fine_skin(0.9)
    assert len(light) == len(fine.corners) and light.mean() > dark.mean() + 40


def test_only_the_built_in_mesh_right_or_left_has_its_skin():
    faces = stored_faces()
    assert c.has_builtin_skin(faces) and c.has_builtin_skin(faces[:, ::-1])
    assert not c.has_builtin_skin(faces[1:]) and not c.has_builtin_skin(faces[::-1])


def test_a_mesh_too_large_for_the_browser_is_refused():
    steps = np.arange(20_000)
    with pytest.raises(ValueError, match="20000 faces are too many"):
        c.HandCanvas(np.stack([steps, steps + 1, steps + 2], 1))
