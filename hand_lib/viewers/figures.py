"""Figures: interactive 3-D in Plotly with a still beside it.

Everything takes arrays. 3-D data is in camera axes (x right, y down, z away), so a figure shows the
hand as the picture does; ``to_camera_view`` brings a hand from its rest frame into such a view.
The named views are one fixed camera each: "front" (from the camera), "back", "left", "right",
"top". A figure and its still take the same panels:

>>> hand = DrawnHand(vertices, faces)
>>> show(hand_figure([hand], ["prediction"]), still([hand], ["prediction"]))  # to turn; for GitHub
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import plotly.graph_objects as go
from PIL import ImageColor

from hand_lib.hand.joints import FINGER_COLOURS, FINGERS
from hand_lib.hand.skin import fine_skin, skin_colours, stored
from hand_lib.mesh.topology import boundary_loops, unique_edges
from hand_lib.render.camera import project
from hand_lib.render.raster import rasterise
from hand_lib.render.render import PREDICTION, TRUTH, render_mesh  # noqa: F401
from hand_lib.viewers import flat
from hand_lib.viewers.flat import show  # noqa: F401

ERROR_SCALE = "Inferno"
LIGHTING = {"ambient": 0.5, "diffuse": 0.75, "specular": 0.12, "roughness": 0.7,
            "facenormalsepsilon": 0, "vertexnormalsepsilon": 0}  # fmt: skip
"""Of live surfaces; faces of a hand in metres are no smaller than what Plotly takes for nothing."""

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
class Stroke:
    """Lines in space, the same in a figure and in its still."""

    lines: object  # each (n, 3) places to walk through
    colour: object  # (3,), or (n, 3) along its one line
    width: float = 5
    dots: float = 0  # size of the dots at the places
    texts: tuple = ()  # beside the places of its one line
    hidden: bool = False  # by the mesh, where that is nearer
    name: str = ""


@dataclass(frozen=True)
class DrawnHand:
    """What one panel shows of a hand; what is None stays away."""

    vertices: np.ndarray | None = None  # (V, 3) metres, camera axes
    faces: np.ndarray | None = None  # (F, 3); None: the vertices are drawn as points
    joints: np.ndarray | None = None  # (21, 3) metres, drawn as a skeleton
    colour: object = None  # (3,) or (V, 3), 0 to 255; None: skin
    error_mm: np.ndarray | None = None  # (V,) painted instead of the colour
    error_max_mm: float | None = None  # end of the colour scale; default: the largest error
    opacity: float = 1.0
    name: str = "hand"
    edges: bool = False  # draw all edges, and the open borders in blue
    path: np.ndarray | None = None  # (K, 3) places to walk through, from dark to light
    more: tuple[Stroke, ...] = ()

    def error_top_mm(self) -> float:
        return self.error_max_mm or max(float(np.max(self.error_mm)), 1e-9)

    def colours(self) -> np.ndarray:
        """(3,) or (V, 3), 0 to 255: the colour, or that of the errors on the one scale for them."""
        if self.error_mm is not None:
            return mapped(ERROR_SCALE.lower(), np.clip(self.error_mm / self.error_top_mm(), 0, 1))
        return np.asarray(skin_of(self.faces) if self.colour is None else self.colour)

    def strokes(self) -> Iterator[Stroke]:
        """All lines: edges, closed borders, the skeleton finger by finger, the path, and more."""
        if self.edges:
            faces = np.asarray(self.faces)
            rims = [self.vertices[np.append(loop, loop[0])] for loop in boundary_loops(faces)]
            yield Stroke(self.vertices[unique_edges(faces)], (96, 72, 58), 1.5, hidden=True)
            yield Stroke(rims, (30, 110, 200), 6, hidden=True)
        width, dots = (2, 1.5) if self.more else (5, 4)  # beside a camera the hand is small
        for finger, chain in FINGERS.items() if self.joints is not None else ():
            line, colour = np.asarray(self.joints)[[0, *chain]], FINGER_COLOURS[finger]
            yield Stroke([line], ImageColor.getrgb(colour), width, dots, name=finger)
        if self.path is not None:
            count = len(self.path)
            texts = tuple(map(str, range(count))) if count > 2 else ()
            colours = mapped("viridis", np.linspace(0, 0.92, count))
            yield Stroke([self.path], colours, 6, 4, texts)
        yield from self.more

    def places(self) -> np.ndarray:
        """(N, 3) all that is drawn, for the frame around it."""
        lines = [line for stroke in self.strokes() for line in stroke.lines]
        return np.concatenate([*lines, *(() if self.vertices is None else (self.vertices,))])


def skin_of(faces, tone: float = 0.3):
    """Skin (V, 3) of the built-in hand, right or left; ``PREDICTION`` for any other faces."""
    own, faces = np.sort(stored()["f"], axis=1), np.sort(() if faces is None else faces)
    return skin_colours(tone) if np.array_equal(faces, own) else np.array(PREDICTION)


def mapped(scale: str, values) -> np.ndarray:
    """Colours (N, 3) uint8 of values 0 to 1 on a scale of Matplotlib."""
    from matplotlib import colormaps

    return np.round(colormaps[scale](np.asarray(values, float))[:, :3] * 255).astype(np.uint8)


def _css(colour):
    """One colour, or a list of them, as CSS writes it."""
    if np.ndim(colour) == 2:
        return [_css(one) for one in colour]
    return "rgb({},{},{})".format(*(int(c) for c in colour))


def mesh_trace(hand: DrawnHand):
    """The surface or its points for Plotly; float32 and whole numbers keep the JSON small."""
    x, y, z = np.asarray(hand.vertices, np.float32).T
    colours = hand.colours()
    if hand.faces is None:
        marker = {"size": 3, "color": _css(colours)}
        return go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name=hand.name)
    faces = np.asarray(hand.faces)
    i, j, k = faces.astype(np.uint16 if faces.max() < 2**16 else np.int32).T
    if hand.error_mm is not None:
        style = {
            "intensity": np.asarray(hand.error_mm, np.float32), "colorscale": ERROR_SCALE,
            "cmin": 0, "cmax": hand.error_top_mm(),
            "colorbar": {"title": "mm", "thickness": 12, "len": 0.7},
        }  # fmt: skip
    else:
        whole = np.ndim(colours) == 1
        style = {"color": _css(colours)} if whole else {"vertexcolor": colours.astype(np.uint8)}
    return go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, name=hand.name, opacity=hand.opacity, hoverinfo="name",
        lighting=LIGHTING, lightposition={"x": -600, "y": -1200, "z": -1500}, **style,
    )  # fmt: skip


def stroke_trace(stroke: Stroke) -> go.Scatter3d:
    """A stroke as one trace; between its lines is NaN."""
    gap = np.full((1, 3), np.nan)
    parts = [part for line in stroke.lines for part in (line, gap)]
    x, y, z = np.concatenate(parts[:-1] or [gap]).astype(np.float32).T
    colour, mode = _css(stroke.colour), "lines"
    mode += "+markers" * bool(stroke.dots) + "+text" * bool(stroke.texts)
    return go.Scatter3d(
        x=x, y=y, z=z, mode=mode, line={"color": colour, "width": stroke.width},
        marker={"color": colour, "size": stroke.dots}, name=stroke.name,
        text=list(stroke.texts) or None, textfont={"size": 11},
        hoverinfo="name" if stroke.name else "skip",
    )  # fmt: skip


def hand_traces(hand: DrawnHand) -> list:
    """Everything of a hand: its mesh, then its strokes."""
    traces = [] if hand.vertices is None else [mesh_trace(hand)]
    return traces + [stroke_trace(stroke) for stroke in hand.strokes()]


def scene_layout(view: str = "front", zoom: float = 1.0) -> dict:
    """Layout of a 3-D scene: true proportions, no axes, y down, camera of a named view."""
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; known: {', '.join(VIEWS)}")
    turned = {"eye": [0, 0, -1.9 / zoom], "up": [0, -1, 0]}
    camera = {name: dict(zip("xyz", (p @ VIEWS[view]).tolist(), strict=True))
              for name, p in turned.items()}  # fmt: skip
    camera["projection"] = {"type": "orthographic"}
    hidden = {f"{axis}axis": {"visible": False} for axis in "xyz"}
    return {"aspectmode": "data", "camera": camera, **hidden}


def _panels(panels, titles, view) -> list[tuple]:
    """(hands, title, view) of each panel; see ``hand_figure``."""
    panels = [[p] if isinstance(p, DrawnHand) else list(p) for p in panels]
    views = [view] * len(panels) if isinstance(view, str) else view
    titles = [""] * len(panels) if titles is None else titles
    if not len(panels) == len(views) == len(titles):
        raise ValueError(f"{len(panels)} panels, {len(titles)} titles and {len(views)} views")
    return list(zip(panels, titles, views, strict=True))


def hand_figure(panels, titles=None, view="front", height=380, zoom=1.0):
    """Side-by-side 3-D panels that share view and scale.

    panels: list with, per panel, one ``DrawnHand`` or a list of them.   titles: one text per panel.
    view: a name of ``VIEWS`` for all panels, or one per panel.   height: pixels.
    zoom: below 1 steps back, for narrow panels.   returns a Plotly figure, of which
    ``explorer.LiveFigure`` makes a widget.
    """
    panels = _panels(panels, titles, view)
    layout, traces = {"annotations": []}, []
    for n, (hands, title, name) in enumerate(panels):
        key, left, right = f"scene{n + 1 if n else ''}", n / len(panels), (n + 1) / len(panels)
        domain = {"x": [left + 0.005, right - 0.005], "y": [0, 1]}
        layout[key] = {**scene_layout(name, zoom), "domain": domain}
        layout["annotations"].append(
            {"text": title, "x": (left + right) / 2, "y": 1.0, "xref": "paper", "yref": "paper",
             "xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 14}}
        )  # fmt: skip
        traces += [t.update(scene=key) for hand in hands for t in hand_traces(hand)]
    figure = go.Figure(traces)
    for trace in [trace for trace in figure.data if "intensity" in trace][:-1]:
        trace.showscale = trace.intensity is None  # one bar of colours is enough
    bar = {"orientation": "v", "remove": ["toimage", "hoverclosest3d", "resetcameralastsave3d"]}
    return figure.update_layout(
        height=height, margin={"l": 0, "r": 0, "t": 34, "b": 0}, showlegend=False, modebar=bar,
        paper_bgcolor="white", template="none", **layout,
    )  # fmt: skip


def still(panels, titles=None, view="front", size: int = 300, columns: int | None = None):
    """The same panels as ``hand_figure`` as a picture, drawn without a browser or OpenGL.

    panels, titles, view: as in ``hand_figure``; panels share the scale of the largest.
    size: side of a panel in pixels.   columns: panels per row (default: all in one row).
    returns a PIL image.
    """
    panels = _panels(panels, titles, view)
    seen = [np.concatenate([h.places() for h in hands]) @ VIEWS[v].T for hands, _, v in panels]
    extent = max(max(np.ptp(points, axis=0)[:2].max() for points in seen), 1e-6)
    pictures = []
    for (hands, _, name), points in zip(panels, seen, strict=True):
        shift = [0, 0, _FAR * extent] - (points.min(axis=0) + points.max(axis=0)) / 2
        pictures.append(_still(hands, lambda x, n=name, s=shift: x @ VIEWS[n].T + s, extent, size))
    return flat.image_grid(pictures, [title for _, title, _ in panels], columns or len(pictures))


def _still(hands, place, extent, size) -> np.ndarray:
    """One panel (size, size, 3) uint8.   place: puts points before a far pinhole camera."""
    side = _FINE * size
    focal, middle = 0.86 * _FAR * side, (side - 1) / 2
    camera = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]])
    image, texts = np.full((side, side, 3), flat.PAPER, np.uint8), []
    for hand in sorted(hands, key=lambda hand: hand.opacity < 1):  # what shows through comes last
        if hand.faces is not None and hand.vertices is not None:
            vertices, *painted = hand.vertices, np.asarray(hand.faces), hand.colours()
            plain = hand.colour is not None or hand.error_mm is not None or hand.edges
            if painted[1].ndim == 2 and not plain:  # skin in detail, where no edges show
                vertices, *painted = fine_skin(hand.vertices, hand.faces, 0.3)
            image = render_mesh(place(vertices), *painted, camera, side, image, 1, hand.opacity)
    for hand in hands:
        if hand.vertices is not None and hand.faces is None:
            points = place(hand.vertices)
            pixels = np.c_[project(points, camera), points[:, 2]]
            image = flat.draw_points(image, pixels, hand.colours())
        if hand.edges:
            near = rasterise(place(hand.vertices), hand.faces, camera, side).depth
        for stroke in hand.strokes():
            width = round(stroke.width * (1 if stroke.dots else 0.5))
            for line in stroke.lines:
                points, seen = place(np.asarray(line, float)), None
                pixels = project(points, camera)
                if stroke.hidden:
                    x, y = ((pixels[1:] + pixels[:-1]) / 2).astype(int).clip(0, side - 1).T
                    seen = (points[1:, 2] + points[:-1, 2]) / 2 <= near[y, x] + 0.02 * extent
                flat.draw_walk(image, pixels, stroke.colour, width, 2.2 * stroke.dots, seen)
                texts += zip(pixels / _FINE, stroke.texts, strict=False)
    return flat.write(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), texts)
