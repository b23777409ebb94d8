import numpy as np
import pytest

from hand_lib import anatomy, viewers
from hand_lib import viewers_explorer as e
from hand_lib.hand_model import HandModel


@pytest.fixture(scope="module")
def model():
    return HandModel.builtin()


def test_weight_colours_follow_the_finger_that_moves_a_vertex():
    weights = np.eye(16)
    colours = e.weight_colours(weights).astype(int)
    thumb, index = colours[[13, 14, 15]], colours[[1, 2, 3]]
    assert thumb[:, 0].argmax() == 0 and (np.diff(thumb.sum(1)) < 0).all()  # darker to the tip
    assert np.abs(thumb[0] - index[0]).max() > 60
    blend = e.weight_colours((weights[:1] + weights[1:2]) / 2).astype(float)
    assert np.allclose(blend, (colours[0] + colours[1]) / 2, atol=1)


def test_explorer_hand_is_the_model_in_the_pose_of_the_sliders(model):
    angles = anatomy.GESTURE_ANGLES["fist"]
    betas = np.linspace(-1, 1, 10)
    hand = e.explorer_hand(model, angles, betas)
    import torch

    pose = torch.tensor(anatomy.pose_from_angles(angles[None]), dtype=torch.float32)
    direct = model(pose, torch.tensor(betas, dtype=torch.float32)[None])
    assert np.allclose(hand.vertices, viewers.stand_up(direct.vertices[0].numpy()), atol=1e-6)
    assert np.allclose(hand.joints, viewers.stand_up(direct.joints[0].numpy()), atol=1e-6)
    plain = e.explorer_hand(model, angles, betas, "plain", skeleton=False)
    assert plain.joints is None and plain.colour == viewers.PREDICTION
    weights = e.explorer_hand(model, angles, betas, "skin weights").colour
    assert weights.shape == (778, 3) and len(np.unique(weights, axis=0)) > 50
    with pytest.raises(ValueError, match="skin weights"):
        e.explorer_hand(model, angles, betas, "weights")


def test_sliders_gestures_and_reset_move_the_figure(model):
    panel = e.hand_explorer(model)
    mesh = panel.figure.data[0]
    rest = np.array(mesh.x)
    panel.gesture.value = "fist"
    fist = np.array(mesh.x)
    expected = e.explorer_hand(model, anatomy.GESTURE_ANGLES["fist"], np.zeros(10))
    assert np.abs(fist - expected.vertices[:, 0]).max() < 1e-3 < np.abs(fist - rest).max()
    panel.shape_sliders[0].value = 2.0
    assert np.abs(np.array(mesh.x) - fist).max() > 1e-3
    reset = panel.children[1].children[3].children[1]
    reset.click()
    assert np.allclose(np.array(mesh.x), rest, atol=1e-6)


def test_every_joint_that_bends_has_a_slider_within_its_limits(model):
    panel = e.hand_explorer(model)
    for (joint, axis), slider in panel.sliders.items():
        if joint:
            limits = np.rad2deg(anatomy.JOINT_LIMITS[joint, axis])
            assert np.allclose((slider.min, slider.max), limits)
    assert {joint for joint, _ in panel.sliders} == set(range(16))
    assert len(panel.shape_sliders) == 10


def test_a_slider_step_sends_positions_only(model):
    panel = e.hand_explorer(model)
    sent = []
    panel.figure.observe(lambda change: sent.append(change["new"]), "_py2js_update")
    next(slider for (joint, _), slider in panel.sliders.items() if joint == 1).value = 30.0
    styles = next(message["style_data"] for message in sent if message)
    assert {"x", "y", "z"} <= set(styles) and "vertexcolor" not in styles
