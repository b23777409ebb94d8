"""Hands and surfaces with sliders, in JupyterLab: joints and shapes, collapses and spirals.

What a slider shows is a plain function, so that it works and is tested without a browser. Surfaces
are in camera axes (x right, y down, z away), any unit.
"""

import ipywidgets as widgets
import numpy as np
import torch
from PIL import ImageColor

from hand_lib.hand.joints import (
    ANGLE_NAMES,
    FINGER_COLOURS,
    FINGER_NAMES,
    JOINT_LIMITS,
    MANO_JOINT_NAMES,
    pose_from_angles,
)
from hand_lib.hand.poses import GESTURE_ANGLES
from hand_lib.hand.skin import shape_names
from hand_lib.mesh.simplify import apply_collapses
from hand_lib.mesh.topology import vertex_normals
from hand_lib.viewers.figures import (
    PREDICTION,
    DrawnHand,
    hand_figure,
    hand_traces,
    scene_layout,
    skin_of,
    to_camera_view,
)
from hand_lib.viewers.live import LiveFigure

COLOURINGS = ("skin", "skin weights", "plain")
TONE = 0.35


def weight_colours(weights) -> np.ndarray:
    """Colours (V, 3) uint8 that show which finger moves a vertex, darker towards the fingertip.

    weights: (V, 16) skin weights in MANO's joint order.
    """
    colours = np.zeros((16, 3))
    for joint, name in enumerate(MANO_JOINT_NAMES):
        finger, _, bone = name.partition("_")
        level = {"mcp": 0.85 if finger == "thumb" else 1.12, "pip": 0.85, "dip": 0.6, "ip": 0.6}
        colours[joint] = np.array(ImageColor.getrgb(FINGER_COLOURS[finger])) * level.get(bone, 1.12)
    return np.round(np.asarray(weights, float) @ np.minimum(colours, 255)).astype(np.uint8)


@torch.inference_mode()
def explorer_hand(model, angles, betas, colouring="skin", tone=TONE) -> DrawnHand:
    """The hand that the explorer shows, the palm to the camera, its middle at the origin.

    model: a ``HandModel``.   angles: (16, 3) flexion, abduction, twist in radians.   betas: (10,).
    colouring: one of ``COLOURINGS``; a hand that is not the built-in one has no skin and is plain.
    tone: 0 (light) to 1 (dark).
    """
    pose = torch.as_tensor(pose_from_angles(np.asarray(angles, float)[None]))
    hand = model(pose.to(model.template), torch.as_tensor(betas).to(model.template)[None])
    vertices, joints = (to_camera_view(p[0].numpy()) for p in (hand.vertices, hand.joints))
    middle, faces, colour = (vertices.min(0) + vertices.max(0)) / 2, model.faces.numpy(), PREDICTION
    if colouring == "skin weights":
        colour = weight_colours(model.arrays()["weights"])
    elif colouring == "skin":
        colour = skin_of(faces, tone)
    colours = np.broadcast_to(colour, vertices.shape).astype(np.uint8)
    return DrawnHand(vertices - middle, faces, joints - middle, colours)


def _slider(name, low, high, step, form):
    return widgets.FloatSlider(
        0, min=float(low), max=float(high), step=step, readout_format=form, description=name,
        style={"description_width": "124px"}, layout={"width": "400px"},
    )  # fmt: skip


def hand_explorer(model):
    """Sliders for every joint and shape, gestures to pick, colours and skeleton to switch.

    model: a ``HandModel``.   returns a widget; ``.figure`` is the ``LiveFigure``, and
    ``.sliders``, ``.shape_sliders``, ``.gesture``, ``.colouring``, ``.tone``, ``.skeleton`` and
    ``.reset`` move it.
    """
    own = np.ndim(skin_of(model.faces.numpy())) == 2
    names = shape_names() if own else [f"shape {k + 1}" for k in range(10)]
    pick = widgets.Dropdown(options=["", *GESTURE_ANGLES], description="gesture")
    colouring = widgets.Dropdown(options=COLOURINGS, description="colour")
    tone = widgets.FloatSlider(TONE, min=0, max=1, step=0.05, description="tone")
    skeleton = widgets.Checkbox(False, description="skeleton", indent=False)
    reset = widgets.Button(description="reset")
    sliders = {}  # (joint, axis) of every angle that moves -> degrees
    for joint, axis in np.ndindex(16, 3):
        low, high = np.rad2deg(JOINT_LIMITS[joint, axis]) if joint else (-180, 180)
        if high - low >= 2:
            name = f"{MANO_JOINT_NAMES[joint].split('_')[-1]} {ANGLE_NAMES[axis]} (°)"
            sliders[joint, axis] = _slider(name, low, high, 1, ".0f")
    shapes = [_slider(name.replace("_", " "), -3, 3, 0.1, ".1f") for name in names]
    quiet = []

    def hand():
        angles, betas = np.zeros((16, 3)), [slider.value for slider in shapes]
        for place, slider in sliders.items():
            angles[place] = np.deg2rad(slider.value)
        return explorer_hand(model, angles, betas, colouring.value, tone.value)

    def redraw(_=None):
        if not quiet:
            with figure.batch_update():
                figure.move(hand_traces(hand()))

    def switch(_=None):
        with figure.batch_update():
            figure.data[0].opacity = 0.5 if skeleton.value else 1.0
            for trace in figure.data[1:]:
                trace.visible = skeleton.value

    def settle(angles, others=()):
        quiet.append(True)
        for place, slider in sliders.items():
            slider.value = float(np.rad2deg(angles[place]))
        for control, value in others:
            control.value = value
        quiet.clear()
        redraw()

    def start_again(_):
        figure.layout.scene.camera = scene_layout()["camera"]
        begin = [(slider, 0.0) for slider in shapes]
        settle(np.zeros((16, 3)), [(pick, ""), (tone, TONE), (colouring, "skin"), *begin])

    figure = hand_figure([hand()], height=440)
    layout = {"aspectmode": "manual", "aspectratio": {"x": 1.7, "y": 1.7, "z": 1.7}}
    layout |= {f"{axis}axis": {"visible": False, "range": [-0.14, 0.14]} for axis in "xyz"}
    figure.update_layout(scene=layout, width=378, margin={"t": 0})
    switch()
    figure = LiveFigure(figure)
    pick.observe(lambda c: c["new"] and settle(GESTURE_ANGLES[c["new"]]), "value")
    reset.on_click(start_again)
    skeleton.observe(switch, "value")
    for control in (*sliders.values(), *shapes, colouring, tone):
        control.observe(redraw, "value")
    pages = {
        finger: [s for (j, _), s in sliders.items() if MANO_JOINT_NAMES[j].startswith(finger)]
        for finger in (*FINGER_NAMES, "wrist")
    }
    tabs = widgets.Tab(
        [widgets.VBox(page) for page in (*pages.values(), shapes)],
        titles=[*pages, "shape"], layout={"width": "458px"},
    )  # fmt: skip
    hint = widgets.HTML("drag the hand to turn it, scroll to come nearer, right button to shift")
    controls = widgets.VBox([pick, colouring, tone, widgets.HBox([skeleton, reset]), tabs, hint])
    panel = widgets.HBox([figure, controls], layout={"flex_flow": "row wrap"})
    panel.figure, panel.sliders, panel.shape_sliders = figure, sliders, shapes
    panel.gesture, panel.colouring, panel.tone = pick, colouring, tone
    panel.skeleton, panel.reset = skeleton, reset
    return panel


def mesh_after(vertices, faces, collapses, n: int) -> DrawnHand:
    """The mesh after the first n collapses; the edge that goes next, or went last, is marked."""
    kept, left = apply_collapses(len(vertices), faces, collapses[:n])
    edge = vertices[collapses[min(n, len(collapses) - 1)]]
    left = np.searchsorted(kept, left)
    return DrawnHand(vertices[kept], left, colour=PREDICTION, edges=True, path=edge)


def slider_panel(draw, name: str, top: int, start: int = 0):
    """A slider from 0 to ``top`` above the one hand that it picks.

    draw: number -> (DrawnHand, title).   returns a widget with ``.figure`` (a ``LiveFigure``) and
    ``.slider``.
    """
    hand, title = draw(start)
    figure = hand_figure([hand], [title], height=430, widget=True)
    slider = widgets.IntSlider(start, 0, top, description=name, layout={"width": "90%"})

    def redraw(_=None):
        hand, title = draw(slider.value)
        with figure.batch_update():
            figure.move(hand_traces(hand))
            figure.layout.annotations[0].text = title

    slider.observe(redraw, "value")
    panel = widgets.VBox([slider, figure])
    panel.figure, panel.slider = figure, slider
    return panel


def collapse_panel(vertices, faces, collapses):
    """A slider that takes the mesh apart, one edge at a time; see ``slider_panel``.

    collapses: (n, 2) vertices kept and removed, in order.
    """

    def draw(n):
        hand = mesh_after(vertices, faces, collapses, n)
        return hand, f"{len(hand.vertices)} vertices, {len(hand.faces)} faces"

    return slider_panel(draw, "collapses", len(collapses))


def spiral_hand(vertices, faces, spiral) -> DrawnHand:
    """A surface with one spiral on it, a little above the skin.   spiral: (K,) vertex indices."""
    lift = 0.012 * np.ptp(vertices, axis=0).max() * vertex_normals(vertices, faces)[spiral]
    return DrawnHand(vertices, faces, edges=True, path=vertices[spiral] + lift)


def spiral_panel(vertices, faces, spirals, vertex: int = 0):
    """Pick a vertex with the slider, or click on the surface, and see its spiral.

    spirals: (V, K) vertex indices.   returns what ``slider_panel`` does.
    """
    normals = vertex_normals(vertices, faces)

    def draw(n):
        return spiral_hand(vertices, faces, spirals[n]), f"spiral of vertex {n}"

    def face_it(_=None):
        """Turn the hand until the vertex is seen."""
        normal, camera = normals[panel.slider.value], panel.figure.layout.scene.camera
        if normal @ [camera.eye[axis] for axis in "xyz"] < 0.6:
            up = {"x": 0, "y": -1, "z": 0} if abs(normal[1]) < 0.9 else {"x": 0, "y": 0, "z": -1}
            camera.update(eye=dict(zip("xyz", 1.9 * normal, strict=True)), up=up)

    def clicked(_trace, points, _state):
        if points.point_inds:
            panel.slider.value = int(points.point_inds[0])

    panel = slider_panel(draw, "vertex", len(spirals) - 1, vertex)
    panel.slider.observe(face_it, "value")
    panel.figure.data[0].on_click(clicked)
    face_it()
    return panel
