"""The hand explorer: sliders for joints and shapes, gestures, colours, in JupyterLab.

What a slider does is a plain function (``explorer_hand``), so that it works and is tested without a
browser.
"""

import ipywidgets as widgets
import numpy as np
import torch

from hand_lib.hand.anatomy import ANGLE_NAMES, JOINT_LIMITS, pose_from_angles
from hand_lib.hand.joints import FINGER_COLOURS, MANO_JOINT_NAMES
from hand_lib.hand.poses import GESTURE_ANGLES
from hand_lib.hand.skin import shape_names, skin_colours, stored_faces
from hand_lib.viewers import figures

COLOURINGS = ("skin", "skin weights", "plain")


def weight_colours(weights) -> np.ndarray:
    """Colours (V, 3) uint8 that show which finger moves a vertex, darker towards the fingertip.

    weights: (V, 16) skin weights in MANO's joint order.
    """
    colours = np.zeros((16, 3))
    for joint, name in enumerate(MANO_JOINT_NAMES):
        finger, _, bone = name.partition("_")
        rgb = np.array([int(FINGER_COLOURS[finger][i : i + 2], 16) for i in (1, 3, 5)])
        level = {"mcp": 0.85 if finger == "thumb" else 1.12, "pip": 0.85, "dip": 0.6, "ip": 0.6}
        colours[joint] = np.minimum(rgb * level.get(bone, 1.12), 255)
    return np.round(np.asarray(weights, float) @ colours).astype(np.uint8)


@torch.inference_mode()
def explorer_hand(model, angles, betas, colouring="skin", tone=0.35):
    """The hand that the explorer shows.

    model: a ``HandModel``.   angles: (16, 3) flexion, abduction, twist in radians.   betas: (10,).
    colouring: one of ``COLOURINGS``; a hand that is not the built-in one has no skin and is plain.
    tone: 0 (light) to 1 (dark).   returns a ``figures.DrawnHand`` with the palm to the camera.
    """
    if colouring not in COLOURINGS:
        raise ValueError(f"colouring should be one of {COLOURINGS}, found {colouring!r}")
    pose = torch.as_tensor(pose_from_angles(np.asarray(angles, float)[None]))
    hand = model(pose.to(model.template), torch.as_tensor(betas).to(model.template)[None])
    vertices, joints = (figures.to_camera_view(p[0].numpy()) for p in (hand.vertices, hand.joints))
    faces, colour = model.faces.numpy(), figures.PREDICTION
    if colouring == "skin weights":
        colour = weight_colours(model.arrays()["weights"])
    elif colouring == "skin" and _has_builtin_skin(faces):
        colour = skin_colours(tone=tone)
    colours = np.broadcast_to(colour, vertices.shape).astype(np.uint8)
    return figures.DrawnHand(vertices, faces, joints, colours)


def _has_builtin_skin(faces) -> bool:
    """Whether faces (F, 3) are the built-in hand's, right or left, so that its nails fit."""
    faces, own = np.sort(faces, axis=1), np.sort(stored_faces(), axis=1)
    return faces.shape == own.shape and bool((faces == own).all())


def _slider(name, low, high, step, form):
    return widgets.FloatSlider(
        0, min=float(low), max=float(high), step=step, readout_format=form, description=name,
        style={"description_width": "112px"}, layout=widgets.Layout(width="400px"),
    )  # fmt: skip


def _joint_sliders() -> dict:
    """One slider in degrees per angle that moves: (joint, axis) -> widget."""
    found = {}
    for joint, axis in np.ndindex(16, 3):
        low, high = np.rad2deg(JOINT_LIMITS[joint, axis]) if joint else (-180, 180)
        if high - low >= 2:
            name = f"{MANO_JOINT_NAMES[joint].split('_')[-1]} {ANGLE_NAMES[axis]}"
            found[joint, axis] = _slider(name, low, high, 1, ".0f")
    return found


def hand_explorer(model, height: int = 500):
    """Sliders for every joint and shape, gestures to pick, colours and skeleton to switch.

    model: a ``HandModel``.   returns a widget; ``.figure`` is the Plotly ``FigureWidget``, and
    ``.sliders``, ``.shape_sliders``, ``.gesture``, ``.colouring``, ``.skeleton`` and ``.reset``
    move it.
    """
    builtin = _has_builtin_skin(model.faces.numpy())
    names = shape_names() if builtin else [f"shape {k + 1}" for k in range(10)]
    pick = widgets.Dropdown(options=["", *GESTURE_ANGLES], description="gesture")
    colouring = widgets.Dropdown(options=COLOURINGS, description="colour")
    tone = widgets.FloatSlider(0.35, min=0, max=1, step=0.05, description="tone")
    skeleton = widgets.Checkbox(True, description="skeleton", indent=False)
    reset = widgets.Button(description="reset")
    sliders = _joint_sliders()
    shapes = [_slider(name.replace("_", " "), -3, 3, 0.1, ".1f") for name in names]
    quiet = []

    def hand():
        angles, betas = np.zeros((16, 3)), [slider.value for slider in shapes]
        for place, slider in sliders.items():
            angles[place] = np.deg2rad(slider.value)
        return explorer_hand(model, angles, betas, colouring.value, tone=tone.value)

    def redraw(_=None):
        if not quiet:
            with figure.batch_update():
                figures.move_traces(figure, figures.hand_traces(hand()))

    def switch(_=None):
        with figure.batch_update():
            figure.data[0].opacity = 0.5 if skeleton.value else 1.0
            for trace in figure.data[1:]:
                trace.visible = skeleton.value

    def settle(angles, to_zero=()):
        quiet.append(True)
        for slider in to_zero:
            slider.value = 0.0
        for place, slider in sliders.items():
            slider.value = float(np.rad2deg(angles[place]))
        quiet.clear()
        redraw()

    def start_again(_):
        pick.value = ""
        settle(np.zeros((16, 3)), shapes)

    figure = figures.hand_figure([hand()], height=height, widget=True)
    layout = {"aspectmode": "manual", "aspectratio": {"x": 2.4, "y": 2.4, "z": 2.4}}
    for axis, middle in zip("xyz", (0, -0.09, 0), strict=True):
        layout[f"{axis}axis"] = {"visible": False, "range": [middle - 0.21, middle + 0.21]}
    figure.update_layout(scene=layout, width=round(0.86 * height), margin={"t": 0})
    switch()
    pick.observe(lambda c: c["new"] and settle(GESTURE_ANGLES[c["new"]]), "value")
    reset.on_click(start_again)
    skeleton.observe(switch, "value")
    for control in (*sliders.values(), *shapes, colouring, tone):
        control.observe(redraw, "value")
    pages = {
        finger: [s for (j, _), s in sliders.items() if MANO_JOINT_NAMES[j].startswith(finger)]
        for finger in ("thumb", "index", "middle", "ring", "little", "wrist")
    }
    tabs = widgets.Tab(
        [widgets.VBox(page) for page in (*pages.values(), shapes)],
        titles=[*pages, "shape"], layout=widgets.Layout(width="520px"),
    )  # fmt: skip
    controls = widgets.VBox([pick, colouring, tone, widgets.HBox([skeleton, reset]), tabs])
    panel = widgets.HBox([figure, controls])
    panel.figure, panel.sliders, panel.shape_sliders = figure, sliders, shapes
    panel.gesture, panel.colouring = pick, colouring
    panel.skeleton, panel.reset = skeleton, reset
    return panel
