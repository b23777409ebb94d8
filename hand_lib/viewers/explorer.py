"""Live figures and panels with sliders, in JupyterLab: joints and shapes, collapses and spirals.

What a slider shows is a plain function, so that it works and is tested without a browser. Surfaces
are in camera axes (x right, y down, z away), any unit.
"""

from pathlib import Path

import ipywidgets as widgets
import numpy as np
import plotly
import plotly.graph_objects as go
import torch
import traitlets
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
from hand_lib.viewers import figures
from hand_lib.viewers.figures import DrawnHand

COLOURINGS = ("skin", "skin weights", "plain")
TONE = 0.35


class LiveFigure(go.FigureWidget):
    """Plotly's ``FigureWidget`` with its JavaScript sent once a kernel and loaded once a page.

    Plotly gives every figure its own copy of five megabytes of code, and the browser's side of a
    widget drops all that it is told when its code needs more than two seconds to load: on a busy
    machine figures stayed empty. Here each brings a few lines, which wait until it can be drawn.
    """

    _esm = Path(__file__).with_name("live.js")
    _code = traitlets.Unicode().tag(sync=True)
    _drops = traitlets.Bool(False).tag(sync=True)
    _sent = False

    @traitlets.default("_code")
    def _first_brings_it(self) -> str:
        first, LiveFigure._sent = not LiveFigure._sent, True
        code = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
        return code.read_text(encoding="utf-8") if first else ""

    def on_drop(self, take) -> None:
        """Call ``take`` with {name: bytes} of the files that somebody drops onto the figure."""

        def heard(_figure, message, buffers):
            if names := message.get("dropped"):
                take(dict(zip(names, map(bytes, buffers), strict=True)))

        self._drops = True
        self.on_msg(heard)

    def link_cameras(self):
        """Let every 3-D panel follow the one that is being turned.   returns the figure."""
        scenes = [self.layout[name] for name in self.layout if name.startswith("scene")]

        def follow(_scene, camera):
            with self.batch_update():
                for scene in scenes:
                    if scene.camera != camera:
                        scene.camera = camera

        for scene in scenes:
            scene.on_change(follow, "camera")
        return self

    def draw(self, traces) -> None:
        """Show traces in the place of what is there.

        Those of the same kinds and names move without a flicker: places, faces and colours of
        vertices are taken over.
        """
        with self.batch_update():
            there, wanted = ([(t.type, t.name) for t in some] for some in (self.data, traces))
            if there != wanted:
                self.data = []
                self.add_traces(traces)
            for old, new in zip(self.data, traces, strict=True):
                for name in ("x", "y", "z", "i", "j", "k", "vertexcolor"):
                    if name in new and new[name] is not None and new[name] is not old[name]:
                        old[name] = new[name]


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
    vertices, joints = (figures.to_camera_view(p[0].numpy()) for p in (hand.vertices, hand.joints))
    middle, faces = (vertices.min(0) + vertices.max(0)) / 2, model.faces.numpy()
    colour = figures.PREDICTION
    if colouring == "skin weights":
        colour = weight_colours(model.arrays()["weights"])
    elif colouring == "skin":
        colour = figures.skin_of(faces, tone)
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
    panel = widgets.HBox(layout={"flex_flow": "row wrap"})
    own = np.ndim(figures.skin_of(model.faces.numpy())) == 2
    names = shape_names() if own else [f"shape {k + 1}" for k in range(10)]
    panel.shape_sliders = [_slider(name.replace("_", " "), -3, 3, 0.1, ".1f") for name in names]
    panel.gesture = widgets.Dropdown(options=["", *GESTURE_ANGLES], description="gesture")
    panel.colouring = widgets.Dropdown(options=COLOURINGS, description="colour")
    panel.tone = widgets.FloatSlider(TONE, min=0, max=1, step=0.05, description="tone")
    panel.skeleton = widgets.Checkbox(False, description="skeleton", indent=False)
    panel.reset = widgets.Button(description="reset")
    panel.sliders, quiet = {}, []  # (joint, axis) of every angle that moves -> degrees
    pages = {name: [] for name in (*FINGER_NAMES, "wrist")}
    for joint, axis in np.ndindex(16, 3):
        low, high = np.rad2deg(JOINT_LIMITS[joint, axis]) if joint else (-180, 180)
        if high - low >= 2:
            finger, _, bone = MANO_JOINT_NAMES[joint].partition("_")
            slider = _slider(f"{bone or finger} {ANGLE_NAMES[axis]} (°)", low, high, 1, ".0f")
            panel.sliders[joint, axis] = slider
            pages[finger].append(slider)

    def hand():
        angles, betas = np.zeros((16, 3)), [slider.value for slider in panel.shape_sliders]
        for place, slider in panel.sliders.items():
            angles[place] = np.deg2rad(slider.value)
        return explorer_hand(model, angles, betas, panel.colouring.value, panel.tone.value)

    def redraw(_=None):
        if not quiet:
            panel.figure.draw(figures.hand_traces(hand()))

    def switch(_=None):
        with panel.figure.batch_update():
            panel.figure.data[0].opacity = 0.5 if panel.skeleton.value else 1.0
            for trace in panel.figure.data[1:]:
                trace.visible = panel.skeleton.value

    def settle(angles, others=()):
        quiet.append(True)
        for place, slider in panel.sliders.items():
            slider.value = float(np.rad2deg(angles[place]))
        for control, value in others:
            control.value = value
        quiet.clear()
        redraw()

    def start_again(_):
        panel.figure.layout.scene.camera = figures.scene_layout()["camera"]
        begin = [(panel.gesture, ""), (panel.tone, TONE), (panel.colouring, "skin")]
        settle(np.zeros((16, 3)), begin + [(slider, 0.0) for slider in panel.shape_sliders])

    figure = figures.hand_figure([hand()], height=440)
    layout = {"aspectmode": "manual", "aspectratio": dict.fromkeys("xyz", 1.7)}
    layout |= {f"{axis}axis": {"visible": False, "range": [-0.14, 0.14]} for axis in "xyz"}
    panel.figure = LiveFigure(figure.update_layout(scene=layout, width=378, margin={"t": 0}))
    switch()
    panel.gesture.observe(lambda c: c["new"] and settle(GESTURE_ANGLES[c["new"]]), "value")
    panel.reset.on_click(start_again)
    panel.skeleton.observe(switch, "value")
    shapes = panel.shape_sliders
    for control in (*panel.sliders.values(), *shapes, panel.colouring, panel.tone):
        control.observe(redraw, "value")
    tabs = widgets.Tab(
        [widgets.VBox(page) for page in (*pages.values(), shapes)],
        titles=[*pages, "shape"], layout={"width": "458px"},
    )  # fmt: skip
    hint = widgets.HTML("drag the hand to turn it, scroll to come nearer, right button to shift")
    switches = widgets.HBox([panel.skeleton, panel.reset])
    controls = [panel.gesture, panel.colouring, panel.tone, switches, tabs, hint]
    panel.children = [panel.figure, widgets.VBox(controls)]
    return panel


def mesh_after(vertices, faces, collapses, n: int) -> DrawnHand:
    """The mesh after the first n collapses; the edge that goes next, or went last, is marked."""
    kept, left = apply_collapses(len(vertices), faces, collapses[:n])
    edge = vertices[collapses[min(n, len(collapses) - 1)]]
    left = np.searchsorted(kept, left)
    return DrawnHand(vertices[kept], left, colour=figures.PREDICTION, edges=True, path=edge)


def slider_panel(draw, name: str, top: int, start: int = 0):
    """A slider from 0 to ``top`` above the one hand that it picks.

    draw: number -> (DrawnHand, title).   returns a widget with ``.figure`` (a ``LiveFigure``) and
    ``.slider``.
    """
    hand, title = draw(start)
    panel = widgets.VBox()
    panel.figure = LiveFigure(figures.hand_figure([hand], [title], height=430))
    panel.slider = widgets.IntSlider(start, 0, top, description=name, layout={"width": "90%"})

    def redraw(_=None):
        hand, title = draw(panel.slider.value)
        with panel.figure.batch_update():
            panel.figure.draw(figures.hand_traces(hand))
            panel.figure.layout.annotations[0].text = title

    panel.slider.observe(redraw, "value")
    panel.children = [panel.slider, panel.figure]
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
