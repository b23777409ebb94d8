"""Figures: interactive 3-D in Plotly with a still beside it, overlays, grids, curves.

Everything takes arrays. 3-D data is in camera axes (x right, y down, z away), so a figure shows the
hand as the picture does; ``to_camera_view`` brings a hand from its rest frame into such a view.
The named views are one fixed camera each: "front" (from the camera), "back", "left", "right",
"top".

>>> hand = DrawnHand(vertices, faces)
>>> show(hand_figure([hand], ["prediction"]), still([hand], ["prediction"]))  # to turn; for GitHub
"""

import io
import json
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont

from hand_lib.hand.joints import BONES, FINGER_COLOURS, FINGERS
from hand_lib.render.camera import project
from hand_lib.render.render import PREDICTION, TRUTH, render_mesh  # noqa: F401

INK = (40, 44, 52)
PAPER = (255, 255, 255)
ERROR_SCALE = "Inferno"
JPEG_BELOW = 0.7
"""A still is stored as JPEG when that takes less than this share of the PNG's bytes."""

VIEWS = {
    "front": np.eye(3),
    "back": np.diag([-1.0, 1.0, -1.0]),
    "left": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "right": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "top": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}
"""Rotations from camera axes into the axes of a viewer who stands at the named place."""

_REST_TO_CAMERA = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])


def to_camera_view(points, view: str = "palm"):
    """Turn points from the hand's rest frame so that the fingers point up.

    points: (..., 3) metres; x distal, y radial, z dorsal.   view: "palm" or "back", the side that
    then faces the camera.   returns (..., 3) in camera axes.
    """
    if view not in ("palm", "back"):
        raise ValueError(f"view should be 'palm' or 'back', found {view!r}")
    turn = _REST_TO_CAMERA if view == "palm" else VIEWS["back"] @ _REST_TO_CAMERA
    return points @ turn.T


@dataclass(frozen=True)
class DrawnHand:
    """What one panel shows of a hand; every field but the mesh may stay away."""

    vertices: np.ndarray | None = None  # (V, 3) metres, camera axes
    faces: np.ndarray | None = None  # (F, 3)
    joints: np.ndarray | None = None  # (21, 3) metres, drawn as a skeleton
    colour: object = PREDICTION  # (3,) or (V, 3), 0 to 255
    error_mm: np.ndarray | None = None  # (V,) painted instead of the colour
    error_max_mm: float | None = None  # end of the colour scale; default: the largest error
    opacity: float = 1.0
    name: str = "hand"


def error_colours(error_mm, error_max_mm: float | None = None) -> np.ndarray:
    """Colours (V, 3) uint8 of errors in mm on the one scale for errors, 0 to ``error_max_mm``."""
    from matplotlib import colormaps

    top = error_max_mm or max(float(np.max(error_mm)), 1e-9)
    mapped = colormaps[ERROR_SCALE.lower()](np.clip(np.asarray(error_mm) / top, 0, 1))
    return np.round(mapped[:, :3] * 255).astype(np.uint8)


def mesh_trace(hand: DrawnHand) -> go.Mesh3d:
    """The surface as a Plotly trace; float32 and whole numbers keep the JSON small."""
    x, y, z = np.asarray(hand.vertices, np.float32).T
    faces = np.asarray(hand.faces)
    kind = np.uint16 if faces.max() < 2**16 else np.int32
    i, j, k = faces.astype(kind).T
    style = {}
    if hand.error_mm is not None:
        top = hand.error_max_mm or float(np.max(hand.error_mm))
        style = {
            "intensity": np.asarray(hand.error_mm, np.float32),
            "colorscale": ERROR_SCALE,
            "cmin": 0,
            "cmax": top,
            "colorbar": {"title": "mm", "thickness": 12, "len": 0.7},
        }
    elif np.ndim(hand.colour) == 2:
        style = {"vertexcolor": np.asarray(hand.colour, np.uint8)}
    else:
        style = {"color": "rgb({},{},{})".format(*(int(c) for c in hand.colour))}
    return go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, name=hand.name, opacity=hand.opacity, hoverinfo="name",
        lighting={"ambient": 0.45, "diffuse": 0.75, "specular": 0.12, "roughness": 0.7},
        lightposition={"x": -600, "y": -1200, "z": -1500}, **style,
    )  # fmt: skip


def skeleton_traces(joints, size: float = 4) -> list[go.Scatter3d]:
    """One trace per finger (wrist to tip) in its own colour.   joints: (21, 3)."""
    traces = []
    for finger, chain in FINGERS.items():
        x, y, z = np.asarray(joints, np.float32)[[0, *chain]].T
        colour = FINGER_COLOURS[finger]
        traces.append(
            go.Scatter3d(
                x=x, y=y, z=z, mode="lines+markers", name=finger, showlegend=False,
                line={"color": colour, "width": 5}, marker={"color": colour, "size": size},
            )
        )  # fmt: skip
    return traces


def scene_layout(view: str = "front", zoom: float = 1.0) -> dict:
    """Layout of a 3-D scene: true proportions, no axes, y down, camera of a named view."""
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; known: {', '.join(VIEWS)}")
    hidden = {"visible": False}
    eye = VIEWS[view].T @ np.array([0.0, 0.0, -1.9 / zoom])
    up = VIEWS[view].T @ np.array([0.0, -1.0, 0.0])
    return {
        "aspectmode": "data",
        "xaxis": hidden,
        "yaxis": hidden,
        "zaxis": hidden,
        "camera": {
            "eye": dict(zip("xyz", (float(e) for e in eye), strict=True)),
            "up": dict(zip("xyz", (float(u) for u in up), strict=True)),
            "projection": {"type": "orthographic"},
        },
    }


def hand_figure(panels, titles=None, view="front", height: int = 380, widget: bool = False):
    """Side-by-side 3-D panels that share view and scale.

    panels: list with, per panel, one ``DrawnHand`` or a list of them.   titles: one text per panel.
    view: a name of ``VIEWS`` for all panels, or one per panel.   widget: a ``FigureWidget``.
    returns a Plotly figure.
    """
    panels = [[p] if isinstance(p, DrawnHand) else list(p) for p in panels]
    views = [view] * len(panels) if isinstance(view, str) else list(view)
    titles = [""] * len(panels) if titles is None else list(titles)
    if not len(panels) == len(views) == len(titles):
        raise ValueError(f"{len(panels)} panels, {len(titles)} titles and {len(views)} views")
    count, gap = len(panels), 0.01
    figure = go.FigureWidget() if widget else go.Figure()
    layout = {"height": height, "margin": {"l": 0, "r": 0, "t": 34, "b": 0}, "showlegend": False}
    annotations = []
    for n, (hands, name, title) in enumerate(zip(panels, views, titles, strict=True)):
        key = "scene" if n == 0 else f"scene{n + 1}"
        left, right = n / count + gap / 2, (n + 1) / count - gap / 2
        layout[key] = {**scene_layout(name), "domain": {"x": [left, right], "y": [0, 1]}}
        annotations.append(
            {"text": title, "x": (left + right) / 2, "y": 1.0, "xref": "paper", "yref": "paper",
             "yanchor": "bottom", "showarrow": False, "font": {"size": 14}}
        )  # fmt: skip
        for hand in hands:
            traces = [] if hand.vertices is None else [mesh_trace(hand)]
            traces += [] if hand.joints is None else skeleton_traces(hand.joints)
            for trace in traces:
                trace.scene = key
            figure.add_traces(traces)
    figure.update_layout(annotations=annotations, paper_bgcolor="white", **layout)
    return figure


def link_cameras(figure):
    """Let every 3-D panel of a ``FigureWidget`` follow the one that is being turned."""
    scenes = [name for name in figure.layout if name.startswith("scene")]
    busy = []

    def follow(_scene, camera):
        if busy:
            return
        busy.append(True)
        with figure.batch_update():
            for name in scenes:
                if figure.layout[name].camera != camera:
                    figure.layout[name].camera = camera
        busy.clear()

    for name in scenes:
        figure.layout[name].on_change(follow, "camera")
    return figure


def move_traces(figure, traces) -> None:
    """Put the traces of a ``FigureWidget`` where others are, without a flicker.

    traces: as many as the figure has, of the same kinds, already in ``figure.batch_update()`` or
    not; places, faces and colours of vertices are taken over.
    """
    for old, new in zip(figure.data, traces, strict=True):
        for name in ("x", "y", "z", "i", "j", "k", "vertexcolor", "hovertext"):
            if name in new and new[name] is not None and new[name] is not old[name]:
                old[name] = new[name]


def _still_camera(points, size, fill=0.86):
    """A far pinhole camera that sees all points: offset (3,) to add to them and intrinsics."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = max((high - low)[:2].max(), 1e-6)
    distance = 12 * extent
    focal = fill * min(size) * distance / extent
    offset = -(low + high) / 2 + [0, 0, distance]
    return offset, np.array(
        [[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]]
    )


def still(panels, titles=None, view="front", size: int = 300, columns: int | None = None):
    """The same panels as ``hand_figure`` as a picture, drawn without a browser or OpenGL.

    panels, titles, view: as in ``hand_figure``; panels share the scale of the largest.
    size: side of a panel in pixels.   columns: panels per row (default: all in one row).
    returns a PIL image.
    """
    panels = [[p] if isinstance(p, DrawnHand) else list(p) for p in panels]
    views = [view] * len(panels) if isinstance(view, str) else list(view)
    points = []
    for hands, name in zip(panels, views, strict=True):
        parts = [part for h in hands for part in (h.vertices, h.joints) if part is not None]
        points.append(np.concatenate(parts) @ VIEWS[name].T)
    extent = max(np.ptp(p, axis=0)[:2].max() for p in points)
    pictures = []
    for hands, name, seen in zip(panels, views, points, strict=True):
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
        box = np.stack([middle - extent / 2, middle + extent / 2])
        box[:, 2] = seen[:, 2].min(), seen[:, 2].max()
        offset, intrinsics = _still_camera(box, (size, size))
        image = np.full((size, size, 3), PAPER, np.uint8)
        solid = [h for h in hands if h.vertices is not None and h.opacity == 1]
        clear = [h for h in hands if h.vertices is not None and h.opacity < 1]
        for group in ([solid] if solid else []) + [[h] for h in clear]:
            image = render_mesh(
                [h.vertices @ VIEWS[name].T + offset for h in group],
                [np.asarray(h.faces) for h in group],
                [_colours(h) for h in group],
                intrinsics, size, background=image, alpha=group[0].opacity,
            )  # fmt: skip
        for hand in hands:
            if hand.joints is not None:
                joints_2d = project(hand.joints @ VIEWS[name].T + offset, intrinsics)
                image = draw_joints(image, joints_2d)
        pictures.append(image)
    return image_grid(pictures, titles, columns or len(pictures))


def _colours(hand: DrawnHand):
    if hand.error_mm is not None:
        return error_colours(hand.error_mm, hand.error_max_mm)
    return np.asarray(hand.colour)


def show(figure, picture, text: str = "figure") -> None:
    """Display one output: the live figure where somebody can turn it, its still anywhere else.

    figure: a Plotly figure or None.   picture: a PIL image or (H, W, 3) uint8.
    A cell run in JupyterLab gets the live figure alone, because Lab prefers a PNG to Plotly's JSON;
    a cell run headless (papermill, nbval) gets both, so that GitHub shows the PNG.
    """
    from IPython.display import display

    bundle = {"text/plain": text}
    if figure is not None:
        bundle["application/vnd.plotly.v1+json"] = json.loads(figure.to_json())
    if figure is None:
        bundle |= still_bundle(picture)
    elif not in_live_frontend():
        bundle["image/png"] = png_bytes(picture)
    display(bundle, raw=True)


def in_live_frontend() -> bool:
    """True when the running cell was sent by JupyterLab (whose requests name the cell)."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return "cellId" in (request or {}).get("metadata", {})


def png_bytes(picture, colours: int = 64) -> bytes:
    """A small PNG: reduced to a palette where that loses next to nothing.   -> bytes."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    palette = picture.convert("RGB").quantize(colours, kmeans=1, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def still_bundle(picture) -> dict[str, bytes]:
    """MIME type and bytes of a still: a PNG, or a JPEG where that is much smaller (photographs)."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=72, optimize=True)
    drawn, photo = png_bytes(picture), buffer.getvalue()
    small = len(photo) < JPEG_BELOW * len(drawn)
    return {"image/jpeg": photo} if small else {"image/png": drawn}


def draw_joints(image, joints_2d, valid=None, scale: float | None = None) -> np.ndarray:
    """Skeleton over a picture, one colour per finger.

    image: (H, W, 3) uint8.   joints_2d: (21, 2) pixels.   valid: (21,) bool, others are left out.
    scale: line width in pixels (default grows with the picture).   returns (H, W, 3) uint8.
    """
    joints_2d = np.asarray(joints_2d, float)
    if joints_2d.shape != (21, 2):
        raise ValueError(f"expected joints_2d (21, 2), found {joints_2d.shape}")
    valid = np.ones(21, bool) if valid is None else np.asarray(valid, bool)
    width = scale or max(1.0, min(image.shape[:2]) / 110)
    fine = 3  # draw large, shrink: smooth lines
    height, length = image.shape[:2]
    canvas = Image.fromarray(image).resize((length * fine, height * fine), Image.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    at = [tuple((p + 0.5) * fine) for p in joints_2d]
    for finger, chain in FINGERS.items():
        for parent, child in BONES:
            if child in chain and valid[parent] and valid[child]:
                pen.line([at[parent], at[child]], FINGER_COLOURS[finger], round(width * fine))
        for joint in chain:
            if valid[joint]:
                _dot(pen, at[joint], width * fine * 1.1, FINGER_COLOURS[finger])
    if valid[0]:
        _dot(pen, at[0], width * fine * 1.3, FINGER_COLOURS["wrist"])
    return np.asarray(canvas.resize((length, height), Image.LANCZOS))


def _dot(pen, centre, radius, colour):
    x, y = centre
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], colour, "white")


def image_grid(pictures, titles=None, columns: int = 8, gap: int = 4):
    """Pictures of one size in rows, each with an optional line of text above it.  -> PIL image."""
    pictures = [np.asarray(p) for p in pictures]
    if not pictures:
        raise ValueError("image_grid needs at least one picture")
    titles = [""] * len(pictures) if titles is None else [str(t) for t in titles]
    if len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures and {len(titles)} titles")
    height, width = pictures[0].shape[:2]
    font = ImageFont.load_default(size=13)
    lines = max(t.count("\n") + 1 for t in titles)
    head = 17 * lines + 3 if any(titles) else 0
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    sheet = Image.new(
        "RGB", (columns * (width + gap) - gap, rows * (height + head + gap) - gap), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for n, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = n % columns * (width + gap), n // columns * (height + head + gap)
        if title:
            middle = (x + width / 2, y + head / 2)
            pen.multiline_text(middle, title, INK, font, anchor="mm", align="center")
        sheet.paste(Image.fromarray(picture).resize((width, height)), (x, y + head))
    return sheet


def fit_square(picture, size: int) -> np.ndarray:
    """A picture resized to fit a white square of ``size`` pixels.   returns (size, size, 3)."""
    picture = Image.fromarray(np.asarray(picture))
    scale = size / max(picture.size)
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.LANCZOS)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(square)


def curves(series: dict, x_label: str, y_label: str, log_y: bool = False, title: str = ""):
    """Line chart as a Matplotlib figure.   series: name -> (x, y) arrays.

    The figure is returned closed; a notebook shows it as the value of a cell.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, (x, y) in series.items():
        axis.plot(x, y, label=name, linewidth=1.8)
    axis.set(xlabel=x_label, ylabel=y_label, title=title)
    if log_y:
        axis.set_yscale("log")
    if len(series) > 1:
        axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    plt.close(figure)
    return figure
