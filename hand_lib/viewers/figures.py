"""Figures: interactive 3-D in Plotly with a still beside it.

Everything takes arrays. 3-D data is in camera axes (x right, y down, z away), so a figure shows the
hand as the picture does; ``to_camera_view`` brings a hand from its rest frame into such a view.
The named views are one fixed camera each: "front" (from the camera), "back", "left", "right",
"top". A figure and its still take the same panels:

>>> hand = DrawnHand(vertices, faces)
>>> show(hand_figure([hand], ["prediction"]), still([hand], ["prediction"]))  # to turn; for GitHub
"""

import json
from dataclasses import dataclass

import cv2
import numpy as np
import plotly.graph_objects as go

from hand_lib.hand.joints import FINGER_COLOURS, FINGERS
from hand_lib.mesh.topology import boundary_loops, unique_edges
from hand_lib.render.camera import project
from hand_lib.render.raster import rasterise
from hand_lib.render.render import PREDICTION, TRUTH, render_mesh  # noqa: F401
from hand_lib.viewers.flat import (
    PAPER,
    draw_joints,
    draw_points,
    image_grid,
    png_bytes,
    still_bundle,
)

EDGE = (96, 72, 58)
RIM = (30, 110, 200)
"""Colours of edges and of open borders."""
ERROR_SCALE = "Inferno"

VIEWS = {
    "front": np.eye(3),
    "back": np.diag([-1.0, 1.0, -1.0]),
    "left": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "right": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "top": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}
"""Rotations from camera axes into the axes of a viewer who stands at the named place."""

_REST_TO_CAMERA = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
_FINE = 3  # stills are drawn this many times as large, then shrunk
_FAR = 12  # their camera stands so many times the hand's extent away


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
    """What one panel shows of a hand; what is None stays away."""

    vertices: np.ndarray | None = None  # (V, 3) metres, camera axes
    faces: np.ndarray | None = None  # (F, 3); None: the vertices are drawn as points
    joints: np.ndarray | None = None  # (21, 3) metres, drawn as a skeleton
    colour: object = PREDICTION  # (3,) or (V, 3), 0 to 255
    error_mm: np.ndarray | None = None  # (V,) painted instead of the colour
    error_max_mm: float | None = None  # end of the colour scale; default: the largest error
    opacity: float = 1.0
    name: str = "hand"
    edges: bool = False  # draw all edges, and the open borders in blue
    path: np.ndarray | None = None  # (K, 3) places to walk through, from dark to light

    def error_top_mm(self) -> float:
        return self.error_max_mm or max(float(np.max(self.error_mm)), 1e-9)

    def colours(self) -> np.ndarray:
        """(3,) or (V, 3), 0 to 255: the colour, or that of the errors on the one scale for them."""
        if self.error_mm is None:
            return np.asarray(self.colour)
        return _mapped(ERROR_SCALE.lower(), np.clip(self.error_mm / self.error_top_mm(), 0, 1))

    def lines(self):
        """Edges, then closed borders, each a list of (n, 3) places with its colour and width."""
        rims = [np.append(loop, loop[0]) for loop in boundary_loops(np.asarray(self.faces))]
        yield self.vertices[unique_edges(np.asarray(self.faces))], EDGE, 1.5
        yield [self.vertices[rim] for rim in rims], RIM, 6


def _mapped(scale: str, values) -> np.ndarray:
    """Colours (N, 3) uint8 of values 0 to 1 on a scale of Matplotlib."""
    from matplotlib import colormaps

    return np.round(colormaps[scale](np.asarray(values, float))[:, :3] * 255).astype(np.uint8)


def _path_colours(path) -> np.ndarray:
    return _mapped("viridis", np.linspace(0, 0.92, len(path)))


def mesh_trace(hand: DrawnHand):
    """The surface or its points for Plotly; float32 and whole numbers keep the JSON small."""
    x, y, z = np.asarray(hand.vertices, np.float32).T
    if hand.faces is None:
        marker = {"size": 3, "color": _css(hand.colours())}
        return go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name=hand.name)
    faces = np.asarray(hand.faces)
    i, j, k = faces.astype(np.uint16 if faces.max() < 2**16 else np.int32).T
    if hand.error_mm is not None:
        style = {
            "intensity": np.asarray(hand.error_mm, np.float32), "colorscale": ERROR_SCALE,
            "cmin": 0, "cmax": hand.error_top_mm(),
            "colorbar": {"title": "mm", "thickness": 12, "len": 0.7},
        }  # fmt: skip
    elif np.ndim(hand.colour) == 2:
        style = {"vertexcolor": np.asarray(hand.colour, np.uint8)}
    else:
        style = {"color": _css(hand.colour)}
    return go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, name=hand.name, opacity=hand.opacity, hoverinfo="name",
        lighting={"ambient": 0.45, "diffuse": 0.75, "specular": 0.12, "roughness": 0.7},
        lightposition={"x": -600, "y": -1200, "z": -1500}, **style,
    )  # fmt: skip


def _css(colour):
    """One colour, or a list of them, as CSS writes it."""
    if np.ndim(colour) == 2:
        return [_css(one) for one in colour]
    return "rgb({},{},{})".format(*(int(c) for c in colour))


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


def _line_trace(lines, colour, width) -> go.Scatter3d:
    """Lines as one trace; between them is NaN."""
    gap = np.full((1, 3), np.nan)
    x, y, z = np.concatenate([gap, *(part for line in lines for part in (line, gap))]).T
    return go.Scatter3d(
        x=np.float32(x), y=np.float32(y), z=np.float32(z), mode="lines", hoverinfo="skip",
        line={"color": _css(colour), "width": width},
    )  # fmt: skip


def hand_traces(hand: DrawnHand) -> list:
    """Everything of a hand: its mesh, then edges and borders, skeleton, path."""
    traces = [] if hand.vertices is None else [mesh_trace(hand)]
    traces += [_line_trace(*one) for one in hand.lines()] if hand.edges else []
    traces += [] if hand.joints is None else skeleton_traces(hand.joints)
    if hand.path is not None:
        x, y, z = np.asarray(hand.path, np.float32).T
        colours = _css(_path_colours(hand.path))
        traces.append(
            go.Scatter3d(
                x=x, y=y, z=z, mode="lines+markers+text", text=[str(n) for n in range(len(x))],
                hoverinfo="text", textfont={"size": 10},
                line={"color": colours, "width": 6}, marker={"color": colours, "size": 4},
            )
        )  # fmt: skip
    return traces


def scene_layout(view: str = "front", zoom: float = 1.0) -> dict:
    """Layout of a 3-D scene: true proportions, no axes, y down, camera of a named view."""
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; known: {', '.join(VIEWS)}")
    eye, up = ([0.0, 0.0, -1.9 / zoom] @ VIEWS[view], [0.0, -1.0, 0.0] @ VIEWS[view])
    return {
        "aspectmode": "data",
        **{f"{axis}axis": {"visible": False} for axis in "xyz"},
        "camera": {
            "eye": dict(zip("xyz", eye.tolist(), strict=True)),
            "up": dict(zip("xyz", up.tolist(), strict=True)),
            "projection": {"type": "orthographic"},
        },
    }


def _panels(panels, titles, view) -> list[tuple]:
    """(hands, title, view) of each panel; see ``hand_figure``."""
    panels = [[p] if isinstance(p, DrawnHand) else list(p) for p in panels]
    views = [view] * len(panels) if isinstance(view, str) else list(view)
    titles = [""] * len(panels) if titles is None else list(titles)
    if not len(panels) == len(views) == len(titles):
        raise ValueError(f"{len(panels)} panels, {len(titles)} titles and {len(views)} views")
    return list(zip(panels, titles, views, strict=True))


def hand_figure(panels, titles=None, view="front", height=380, widget=False, zoom=1.0):
    """Side-by-side 3-D panels that share view and scale.

    panels: list with, per panel, one ``DrawnHand`` or a list of them.   titles: one text per panel.
    view: a name of ``VIEWS`` for all panels, or one per panel.   height: pixels.
    widget: a ``FigureWidget``.   zoom: below 1 steps back, for narrow panels.
    returns a Plotly figure.
    """
    panels, gap = _panels(panels, titles, view), 0.01
    figure = go.FigureWidget() if widget else go.Figure()
    layout = {"height": height, "margin": {"l": 0, "r": 0, "t": 34, "b": 0}, "showlegend": False}
    annotations = []
    for n, (hands, title, name) in enumerate(panels):
        key = "scene" if n == 0 else f"scene{n + 1}"
        left, right = n / len(panels) + gap / 2, (n + 1) / len(panels) - gap / 2
        layout[key] = {**scene_layout(name, zoom), "domain": {"x": [left, right], "y": [0, 1]}}
        annotations.append(
            {"text": title, "x": (left + right) / 2, "y": 1.0, "xref": "paper", "yref": "paper",
             "yanchor": "bottom", "showarrow": False, "font": {"size": 14}}
        )  # fmt: skip
        for trace in [trace for hand in hands for trace in hand_traces(hand)]:
            trace.scene = key
            figure.add_trace(trace)
    for trace in [trace for trace in figure.data if "intensity" in trace][:-1]:
        trace.showscale = trace.intensity is None  # one bar of colours is enough
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
        for name in ("x", "y", "z", "i", "j", "k", "vertexcolor"):
            if name in new and new[name] is not None and new[name] is not old[name]:
                old[name] = new[name]


def still(panels, titles=None, view="front", size: int = 300, columns: int | None = None):
    """The same panels as ``hand_figure`` as a picture, drawn without a browser or OpenGL.

    panels, titles, view: as in ``hand_figure``; panels share the scale of the largest.
    size: side of a panel in pixels.   columns: panels per row (default: all in one row).
    returns a PIL image.
    """
    panels, seen = _panels(panels, titles, view), []
    for hands, _, name in panels:
        parts = [part for h in hands for part in (h.vertices, h.joints, h.path) if part is not None]
        seen.append(np.concatenate(parts) @ VIEWS[name].T)
    extent = max(max(np.ptp(points, axis=0)[:2].max() for points in seen), 1e-6)
    pictures = []
    for (hands, _, name), points in zip(panels, seen, strict=True):
        shift = [0, 0, _FAR * extent] - (points.min(axis=0) + points.max(axis=0)) / 2
        pictures.append(_still(hands, lambda x, n=name, s=shift: x @ VIEWS[n].T + s, extent, size))
    return image_grid(pictures, [title for _, title, _ in panels], columns or len(pictures))


def _still(hands, place, extent, size) -> np.ndarray:
    """One panel (size, size, 3) uint8.   place: puts points before a far pinhole camera."""
    side = _FINE * size
    focal, middle = 0.86 * _FAR * side, (side - 1) / 2
    camera = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]])
    image, depth = np.full((side, side, 3), PAPER, np.uint8), np.full((side, side), np.inf)
    meshes = [h for h in hands if h.faces is not None and h.vertices is not None]
    solid, clear = ([h for h in meshes if (h.opacity == 1) == whole] for whole in (True, False))
    edged = any(hand.edges for hand in hands)
    for group in ([solid] if solid else []) + [[h] for h in clear]:
        image = render_mesh(
            [place(h.vertices) for h in group], [np.asarray(h.faces) for h in group],
            [h.colours() for h in group], camera, side, background=image,
            alpha=group[0].opacity, supersample=1,
        )  # fmt: skip
        for hand in [hand for hand in group if edged]:
            near = rasterise(place(hand.vertices), np.asarray(hand.faces), camera, (side, side))
            depth = np.minimum(depth, near.depth)
    for hand in hands:
        if hand.vertices is not None and hand.faces is None:
            points = place(hand.vertices)
            pixels = np.c_[project(points, camera), points[:, 2]]
            image = draw_points(image, pixels, hand.colours())
        for lines, colour, width in hand.lines() if hand.edges else []:
            _draw_lines(image, [place(line) for line in lines], camera, colour, round(width / 2),
                        depth + 0.02 * extent)  # fmt: skip
        if hand.path is not None:
            walk, colours = place(np.asarray(hand.path, float)), _path_colours(hand.path).tolist()
            for n, colour in enumerate(colours):
                _draw_lines(image, [walk[n : n + 2]], camera, colour, 2 * _FINE)
            for (x, y), colour in zip(project(walk, camera), colours, strict=True):
                cv2.circle(image, (round(x), round(y)), 3 * _FINE, colour, cv2.FILLED, cv2.LINE_AA)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    camera[:2] = camera[:2] / _FINE - [[0, 0, (1 - 1 / _FINE) / 2]]
    for hand in hands:
        if hand.joints is not None:
            image = draw_joints(image, project(place(hand.joints), camera))
    return image


def _draw_lines(image, lines, camera, colour, width, depth=None) -> None:
    """Lines of (n, 3) places onto ``image``, in place; where ``depth`` (H, W) is nearer, not."""
    for line in lines:
        ends = np.round(16 * project(line, camera)).astype(int)
        for n in range(len(line) - 1):
            x, y = np.clip((ends[n] + ends[n + 1]) // 32, 0, len(image) - 1)
            if depth is None or line[n : n + 2, 2].mean() <= depth[y, x]:
                cv2.line(image, ends[n], ends[n + 1], colour, width, cv2.LINE_AA, 4)


def show(figure, picture, text: str = "figure") -> None:
    """Display one output: the live figure where somebody can turn it, its still anywhere else.

    figure: a Plotly figure or None.   picture: a PIL image or (H, W, 3) uint8.
    A cell run in JupyterLab gets the live figure alone, because Lab prefers a PNG to Plotly's JSON;
    a cell run headless (papermill, nbval) gets both, so that GitHub shows the PNG.
    """
    from IPython.display import display

    bundle = {"text/plain": text}
    if figure is None:
        bundle |= still_bundle(picture)
    else:
        bundle["application/vnd.plotly.v1+json"] = json.loads(figure.to_json())
        if not in_live_frontend():
            bundle["image/png"] = png_bytes(picture)
    display(bundle, raw=True)


def in_live_frontend() -> bool:
    """True when the running cell was sent by JupyterLab (whose requests name the cell)."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return "cellId" in (request or {}).get("metadata", {})
