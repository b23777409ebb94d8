"""The hand explorer: sliders for joints and shapes, gestures, colours, in JupyterLab.

What a slider does is a plain function (``explorer_hand``, ``update_figure``), so that it works and
is tested without a browser.
"""

import ipywidgets as widgets
import numpy as np
import torch

from hand_lib import anatomy, viewers
from hand_lib.appearance import shape_names, skin_colours
from hand_lib.joints import FINGER_COLOURS, FINGERS, MANO_JOINT_NAMES

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
    return np.round(np.asarray(weights) @ np.array(colours)).astype(np.uint8)


@torch.inference_mode()
def explorer_hand(model, angles, betas, colouring="skin", skeleton=True, tone=0.35):
    """The hand that the explorer shows.

    angles: (16, 3) flexion, abduction, twist in radians.   betas: (10,).   colouring: one of
    ``COLOURINGS``.   tone: 0 (light) to 1 (dark).   returns a ``viewers.Hand`` with the palm to the
    camera.
    """
    angles = np.asarray(angles, float)
    pose = anatomy.pose_from_angles(angles[None])[0]
    as_batch = {"dtype": model.template.dtype}
    hand = model(torch.tensor(pose[None], **as_batch), torch.tensor(betas, **as_batch)[None])
    if colouring not in COLOURINGS:
        raise ValueError(f"colouring should be one of {COLOURINGS}, found {colouring!r}")
    colour = viewers.PREDICTION
    if colouring == "skin":
        colour = skin_colours(tone=tone)
    elif colouring == "skin weights":
        colour = weight_colours(model.arrays()["weights"])
    joints = viewers.stand_up(hand.joints[0].numpy()) if skeleton else None
    vertices = viewers.stand_up(hand.vertices[0].numpy())
    return viewers.Hand(vertices, model.faces.numpy(), joints, colour)


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
            found[joint, axis] = widgets.FloatSlider(
                0, min=float(low), max=float(high), step=1, readout_format=".0f",
                description=f"{MANO_JOINT_NAMES[joint].split('_')[-1]} {what[:7]}",
                layout=widgets.Layout(width="310px"),
            )  # fmt: skip
    return found


def hand_explorer(model, height: int = 560):
    """Sliders for every joint and shape, gestures to pick, colours and skeleton to switch.

    model: a ``HandModel``.   returns a widget; ``.figure`` is the Plotly ``FigureWidget``.
    """
    angles, betas = np.zeros((16, 3)), np.zeros(10)
    names = shape_names()
    pick = widgets.Dropdown(options=["", *anatomy.GESTURES], description="gesture")
    colouring = widgets.Dropdown(options=COLOURINGS, description="colour")
    tone = widgets.FloatSlider(0.35, min=0, max=1, step=0.05, description="tone")
    skeleton = widgets.Checkbox(True, description="skeleton", indent=False)
    reset = widgets.Button(description="reset")
    joint_sliders = _sliders(anatomy.JOINT_LIMITS)
    shape_sliders = [
        widgets.FloatSlider(0, min=-3, max=3, step=0.1, description=name, style=_WIDE,
                            layout=widgets.Layout(width="310px"))
        for name in names
    ]  # fmt: skip

    def current():
        return explorer_hand(model, angles, betas, colouring.value, True, tone.value)

    figure = viewers.hand_figure([current()], height=height, widget=True)
    figure.layout.scene.aspectmode = "manual"  # a moving hand must not change the zoom
    half = 0.15
    ranges = {a: {"visible": False, "range": [-half, half], "autorange": False} for a in "xz"}
    figure.update_layout(scene={f"{a}axis": ranges[a] for a in "xz"})
    figure.update_layout(
        scene={"yaxis": {"visible": False, "range": [-0.24, 0.06]},
               "aspectratio": {"x": 1, "y": 1, "z": 1}}
    )  # fmt: skip

    quiet = {"on": False}

    def redraw(_=None):
        if quiet["on"]:
            return
        for (joint, axis), slider in joint_sliders.items():
            angles[joint, axis] = np.deg2rad(slider.value)
        betas[:] = [slider.value for slider in shape_sliders]
        update_figure(figure, current(), skeleton.value)

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
            settle(anatomy.GESTURE_ANGLES[change["new"]], None)

    pick.observe(gesture, "value")
    reset.on_click(lambda _: settle(np.zeros((16, 3)), np.zeros(10)))
    for control in (*joint_sliders.values(), *shape_sliders, colouring, tone, skeleton):
        control.observe(redraw, "value")
    pages = {
        finger: [s for (j, _), s in joint_sliders.items() if MANO_JOINT_NAMES[j].startswith(finger)]
        for finger in ("thumb", "index", "middle", "ring", "little", "wrist")
    }
    tabs = widgets.Tab([widgets.VBox(page) for page in (*pages.values(), shape_sliders)])
    for n, title in enumerate((*pages, "shape")):
        tabs.set_title(n, title)
    controls = widgets.VBox([pick, colouring, tone, widgets.HBox([skeleton, reset]), tabs])
    panel = widgets.HBox([figure, controls])
    panel.figure, panel.sliders, panel.shape_sliders = figure, joint_sliders, shape_sliders
    panel.gesture = pick
    return panel


_WIDE = {"description_width": "110px"}


def update_figure(figure, hand, skeleton: bool = True) -> None:
    """Move the one hand of a live figure: mesh first, then its five finger traces."""
    mesh, *fingers = figure.data
    new = viewers.mesh_trace(hand)
    with figure.batch_update():
        mesh.x, mesh.y, mesh.z = new.x, new.y, new.z
        mesh.opacity = 0.55 if skeleton else 1.0
        if new.vertexcolor is None:
            mesh.vertexcolor, mesh.color = None, new.color
        elif not np.array_equal(mesh.vertexcolor, new.vertexcolor):  # as large as the mesh
            mesh.vertexcolor = new.vertexcolor
        for trace, moved in zip(fingers, viewers.skeleton_traces(hand.joints), strict=True):
            trace.x, trace.y, trace.z, trace.visible = moved.x, moved.y, moved.z, skeleton
