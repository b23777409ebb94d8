"""What sliders show is what they were given: the hand, collapses, spirals."""

import numpy as np
import pytest
from mesh_shapes import cut_open, icosphere

from hand_lib.hand import joints as anatomy
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import GESTURE_ANGLES
from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.mesh.simplify import collapse_edges
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import vertex_normals
from hand_lib.viewers import explorer as e
from hand_lib.viewers import figures


def test_weight_colours_follow_the_finger_that_moves_a_vertex():
    weights = np.eye(16)
    colours = e.weight_colours(weights).astype(int)
    thumb, index = colours[[13, 14, 15]], colours[[1, 2, 3]]
    assert thumb[:, 0].argmax() == 0 and (np.diff(thumb.sum(1)) < 0).all()  # darker to the tip
    assert np.abs(thumb[0] - index[0]).max() > 60
    blend = e.weight_colours((weights[:1] + weights[1:2]) / 2).astype(float)
    assert np.allclose(blend, (colours[0] + colours[1]) / 2, atol=1)


def test_explorer_hand_is_the_model_in_the_pose_of_the_sliders(model):
    angles = GESTURE_ANGLES["fist"]
    betas = np.linspace(-1, 1, 10)
    hand = e.explorer_hand(model, angles, betas)
    import torch

    pose = torch.tensor(anatomy.pose_from_angles(angles[None]), dtype=torch.float32)
    direct = model(pose, torch.tensor(betas, dtype=torch.float32)[None])
    vertices, joints = (p[0].numpy() for p in (direct.vertices, direct.joints))
    middle = (vertices.min(0) + vertices.max(0)) / 2
    assert np.allclose(hand.vertices, figures.to_camera_view(vertices - middle), atol=1e-6)
    assert np.allclose(hand.joints, figures.to_camera_view(joints - middle), atol=1e-6)
    plain = e.explorer_hand(model, angles, betas, "plain")
    assert (plain.colour == figures.PREDICTION).all()
    weights = e.explorer_hand(model, angles, betas, "skin weights").colour
    assert weights.shape == (778, 3) and len(np.unique(weights, axis=0)) > 50


def shown(panel):
    """Vertices (778, 3) and joints of fingers (25, 3) that the figure shows."""
    mesh, *fingers = ([trace[a] for a in "xyz"] for trace in panel.figure.data)
    return np.array(mesh).T, np.concatenate([np.array(finger).T for finger in fingers])


def test_sliders_gestures_and_reset_move_the_hand(model):
    panel = e.hand_explorer(model)
    rest = shown(panel)[0]
    panel.gesture.value = "fist"
    expected = e.explorer_hand(model, GESTURE_ANGLES["fist"], np.zeros(10))
    fist, joints = shown(panel)
    assert np.abs(fist - expected.vertices).max() < 1e-3 < np.abs(fist - rest).max()
    assert np.abs(joints[1:5] - expected.joints[1:5]).max() < 1e-3  # the thumb comes first
    panel.shape_sliders[0].value = 2.0
    assert np.abs(shown(panel)[0] - fist).max() > 1e-3
    panel.tone.value, panel.figure.layout.scene.camera.eye = 0.9, {"x": 1, "y": 2, "z": 3}
    panel.reset.click()
    assert panel.tone.value == e.TONE and panel.figure.layout.scene.camera.eye.z < -1
    assert np.allclose(shown(panel)[0], rest, atol=1e-6) and panel.gesture.value == ""


def test_every_joint_that_bends_has_a_slider_within_its_limits(model):
    panel = e.hand_explorer(model)
    for (joint, axis), slider in panel.sliders.items():
        if joint:
            limits = np.rad2deg(anatomy.JOINT_LIMITS[joint, axis])
            assert np.allclose((slider.min, slider.max), limits)
    assert {joint for joint, _ in panel.sliders} == set(range(16))
    assert len(panel.shape_sliders) == 10


def test_a_slider_step_moves_positions_only_and_a_colouring_repaints(model):
    panel = e.hand_explorer(model)
    sent = []
    panel.figure.observe(lambda change: sent.append(change["new"]), "_py2js_update")
    next(slider for (joint, _), slider in panel.sliders.items() if joint == 1).value = 30.0
    (message,) = (new for new in sent if new)
    assert set(message["style_data"]) == {"x", "y", "z"}
    skin = panel.figure.data[0].vertexcolor
    panel.colouring.value = "skin weights"
    assert (panel.figure.data[0].vertexcolor != skin).any()
    panel.skeleton.value = False
    assert not any(trace.visible for trace in panel.figure.data[1:])
    assert panel.figure.data[0].opacity == 1


def test_a_hand_that_is_not_the_built_in_one_has_plain_skin_and_numbered_shapes(model):
    arrays = model.arrays()
    arrays["f"] = arrays["f"][::-1, [1, 2, 0]].copy()  # the same triangles, but not in this order
    panel = e.hand_explorer(HandModel(arrays, flat_mean=True))
    assert panel.shape_sliders[0].description == "shape 1"
    assert (panel.figure.data[0].vertexcolor == figures.PREDICTION).all()
    assert e.explorer_hand(HandModel.builtin("left"), np.zeros((16, 3)), np.zeros(10)).colour.ndim


@pytest.fixture(scope="module")
def cap():
    return cut_open(*icosphere(2))


@pytest.fixture(scope="module")
def levels(cap):
    return build_hierarchy(*cap, factors=(2, 2))


def test_levels_turn_together_in_a_live_figure(levels):
    hands = [figures.DrawnHand(v, f, edges=True)
             for v, f in zip(levels.vertices, levels.faces, strict=True)]  # fmt: skip
    figure = e.LiveFigure(figures.hand_figure(hands)).link_cameras()
    assert len(figure.data) == 9  # mesh, edges and rim per level
    camera = {**figure.layout.scene.camera.to_plotly_json(), "eye": {"x": 1, "y": 2, "z": 3}}
    figure.layout.scene2.camera = camera
    assert figure.layout.scene.camera.eye.y == figure.layout.scene3.camera.eye.y == 2


def test_slider_takes_the_mesh_apart_edge_by_edge(cap):
    vertices, faces = cap
    collapses = collapse_edges(vertices, faces, 30)
    panel = e.collapse_panel(vertices, faces, collapses)
    panel.slider.value = 40
    after = e.mesh_after(vertices, faces, collapses, 40)
    assert len(panel.figure.data[0].x) == len(after.vertices) == len(vertices) - 40
    assert len(panel.figure.data[0].i) == len(after.faces)
    assert f"{len(after.vertices)} vertices" in panel.figure.layout.annotations[0].text
    mark = np.stack([panel.figure.data[3][a] for a in "xyz"], 1)
    np.testing.assert_allclose(mark, vertices[collapses[40]], atol=1e-6)
    panel.slider.value = len(collapses)
    assert len(panel.figure.data[0].x) == 30


def test_spiral_follows_the_slider_and_the_click(cap):
    vertices, faces = cap
    spirals = extract_spirals(vertices, faces, 9)
    panel = e.spiral_panel(vertices, faces, spirals, vertex=4)

    def drawn():
        return np.stack([panel.figure.data[3][a] for a in "xyz"], 1)

    for vertex in (4, 11):
        panel.slider.value = vertex
        above = drawn() - vertices[spirals[vertex]]  # so that the dots are not half sunk
        outward = (above * vertex_normals(vertices, faces)[spirals[vertex]]).sum(1)
        assert (outward > 0).all() and np.abs(above).max() < 0.03 * np.ptp(vertices, axis=0).max()
    assert panel.figure.layout.annotations[0].text == "spiral of vertex 11"
    for vertex in (0, 25, 60):  # whichever side it is on, the camera sees it
        panel.slider.value = vertex
        eye = panel.figure.layout.scene.camera.eye
        assert vertex_normals(vertices, faces)[vertex] @ [eye.x, eye.y, eye.z] >= 0.6
    assert list(panel.figure.data[3].text) == [str(n) for n in range(9)]
