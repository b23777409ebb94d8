"""The hand explorer: sliders for joints and shapes, gestures, colours, in JupyterLab.

What a slider does is a plain function (``explorer_hand``), so that it works and is tested without a
browser.
"""

import functools

import ipywidgets as widgets
import numpy as np
import torch

from hand_lib.hand import anatomy
from hand_lib.hand.joints import FINGER_COLOURS, FINGERS, MANO_JOINT_NAMES
from hand_lib.hand.poses import GESTURE_ANGLES, GESTURES
from hand_lib.hand.skin import shape_names, skin_colours
from hand_lib.viewers import figures as viewers
from hand_lib.viewers.canvas import HandCanvas, fine_skin, has_builtin_skin

COLOURINGS = ("skin", "skin weights", "plain")


def weight_colours(weights) -> np.ndarray:
    """Colours (V, 3) uint8 that show which finger moves a vertex, darker towards the fingertip.

    weights: (V, 16) skin weights in MANO's joint order.
    """
    colours = []
    for name in MANO_JOINT_NAMES:
        finger = name.split("_")[0]
        rgb = np.array([int(FINGER_COLOURS[finger][i : i + 2], 16) for i in (1, 3, 5)], float)
        level = 0 if finger == "wrist" else [j for j in FINGERS[finger]].index(
            FINGERS[finger][0] + ("cmc mcp ip" if finger == "thumb" else "mcp pip dip")
            .split().index(name.split("_")[1])
        )  # fmt: skip
        colours.append(np.minimum(rgb * (1.12, 0.85, 0.6)[level], 255))
    return np.round(np.asarray(weights, float) @ np.array(colours)).astype(np.uint8)


@torch.inference_mode()
def explorer_hand(model, angles, betas, colouring="skin", skeleton=True, tone=0.35):
    """The hand that the explorer shows.

    angles: (16, 3) flexion, abduction, twist in radians.   betas: (10,).   colouring: one of
    ``COLOURINGS``; a hand that is not the built-in one has no skin and is plain.
    tone: 0 (light) to 1 (dark).   returns a ``viewers.Hand`` with the palm to the camera.
    """
    if colouring not in COLOURINGS:
        raise ValueError(f"colouring should be one of {COLOURINGS}, found {colouring!r}")
    pose = anatomy.pose_from_angles(np.asarray(angles, float)[None])
    as_batch = {"dtype": model.template.dtype}
    hand = model(torch.tensor(pose, **as_batch), torch.tensor(betas, **as_batch)[None])
    joints = viewers.stand_up(hand.joints[0].numpy()) if skeleton else None
    vertices = viewers.stand_up(hand.vertices[0].numpy())
    faces = model.faces.numpy()
    colour = viewers.PREDICTION
    if colouring == "skin weights":
        colour = weight_colours(model.skin[:, : model.count].T)
    elif colouring == "skin" and has_builtin_skin(faces):
        colour = skin_colours(tone=tone)
    return viewers.Hand(vertices, faces, joints, colour)


def _sliders(limits):
    """One slider per angle that moves: {(joint, axis): widget}, in degrees."""
    found = {}
    for joint in range(16):
        for axis, what in enumerate(anatomy.ANGLE_NAMES):
            low, high = np.rad2deg(limits[joint, axis])
            if high - low < 2 and joint:
                continue
            if not joint:
                low, high = -180, 180
            name = f"{MANO_JOINT_NAMES[joint].split('_')[-1]} {what}"
            found[joint, axis] = _slider(name, low, high, 1, ".0f")
    return found


def _slider(name, low, high, step, form):
    return widgets.FloatSlider(
        0, min=float(low), max=float(high), step=step, readout_format=form, description=name,
        style={"description_width": "112px"}, layout=widgets.Layout(width="400px"),
    )  # fmt: skip


def hand_explorer(model, height: int = 500):
    """Sliders for every joint and shape, gestures to pick, colours and skeleton to switch.

    model: a ``HandModel``.   returns a widget; ``.canvas`` is the ``HandCanvas``, and ``.sliders``,
    ``.shape_sliders``, ``.gesture``, ``.colouring``, ``.skeleton`` and ``.reset`` move it.
    """
    angles, betas = np.zeros((16, 3)), np.zeros(10)
    builtin = has_builtin_skin(model.faces.numpy())
    names = shape_names() if builtin else [f"shape {k + 1}" for k in range(10)]
    pick = widgets.Dropdown(options=["", *GESTURES], description="gesture")
    colouring = widgets.Dropdown(options=COLOURINGS, description="colour")
    tone = widgets.FloatSlider(0.35, min=0, max=1, step=0.05, description="tone")
    skeleton = widgets.Checkbox(True, description="skeleton", indent=False)
    reset = widgets.Button(description="reset")
    joint_sliders = _sliders(anatomy.JOINT_LIMITS)
    shape_sliders = [_slider(name.replace("_", " "), -3, 3, 0.1, ".1f") for name in names]
    canvas = HandCanvas(model.faces.numpy(), height=height)
    quiet = {"on": False}

    @functools.lru_cache(maxsize=4)
    def colours(colouring, tone):
        if colouring == "skin" and builtin:
            return fine_skin(tone)
        hand = explorer_hand(model, angles, betas, colouring, False, tone)
        return np.broadcast_to(hand.colour, hand.vertices.shape)

    def redraw(change=None):
        if quiet["on"]:
            return
        for (joint, axis), slider in joint_sliders.items():
            angles[joint, axis] = np.deg2rad(slider.value)
        betas[:] = [slider.value for slider in shape_sliders]
        hand = explorer_hand(model, angles, betas, "plain")
        repaint = change is None or change["owner"] in (colouring, tone)
        paint = colours(colouring.value, tone.value) if repaint else None
        canvas.show(hand.vertices, hand.joints, paint)

    def settle(values, shapes):
        quiet["on"] = True
        for (joint, axis), slider in joint_sliders.items():
            slider.value = float(np.rad2deg(values[joint, axis]))
        if shapes is not None:
            for slider, value in zip(shape_sliders, shapes, strict=True):
                slider.value = float(value)
        quiet["on"] = False
        redraw()

    def gesture(change):
        if change["new"]:
            settle(GESTURE_ANGLES[change["new"]], None)

    def start_again(_):
        pick.value = ""
        settle(np.zeros((16, 3)), np.zeros(10))

    pick.observe(gesture, "value")
    reset.on_click(start_again)
    widgets.link((skeleton, "value"), (canvas, "skeleton"))
    for control in (*joint_sliders.values(), *shape_sliders, colouring, tone):
        control.observe(redraw, "value")
    pages = {
        finger: [s for (j, _), s in joint_sliders.items() if MANO_JOINT_NAMES[j].startswith(finger)]
        for finger in ("thumb", "index", "middle", "ring", "little", "wrist")
    }
    tabs = widgets.Tab(
        [widgets.VBox(page) for page in (*pages.values(), shape_sliders)],
        titles=[*pages, "shape"], layout=widgets.Layout(width="520px"),
    )  # fmt: skip
    switches = widgets.HBox([skeleton, reset])
    controls = widgets.VBox([pick, colouring, tone, switches, tabs])
    panel = widgets.HBox([canvas, controls])
    panel.canvas, panel.sliders, panel.shape_sliders = canvas, joint_sliders, shape_sliders
    panel.gesture, panel.colouring = pick, colouring
    panel.skeleton, panel.reset = skeleton, reset
    redraw()
    return panel
