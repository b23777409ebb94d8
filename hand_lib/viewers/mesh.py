"""Figures of mesh levels, collapses, spirals, sparsity and round-trip errors.

Each interactive figure has a still: faces painted from far to near with their edges, so that the
triangles can be counted. Vertices are in camera axes (x right, y down, z away), any unit.

>>> figure = levels_figure(vertices, faces, titles)         # turn one, all turn when live
>>> figures.show(figure, levels_still(vertices, faces, titles))
"""

from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw

from hand_lib import ROOT
from hand_lib.files import resolve
from hand_lib.hand.model import HandModel, builtin_hierarchy, posed_vertices
from hand_lib.mesh.hierarchy import MeshHierarchy, build_hierarchy
from hand_lib.mesh.simplify import apply_collapses, collapse_edges, stretch_importance
from hand_lib.mesh.topology import (
    boundary_loops,
    euler_characteristic,
    face_normals,
    unique_edges,
    vertex_normals,
)
from hand_lib.mesh.upsample import barycentric_upsampling
from hand_lib.viewers import figures

EDGE = (96, 72, 58)
RIM = (30, 110, 200)
"""Colour of open borders."""
_FINE = 3  # stills are drawn this many times as large, then shrunk


UNSEEN_SEED = 987
"""Seed of the poses on which round trips are measured; the fit uses another."""


def open_surface(source: str = "builtin", n_poses: int = 1000, factors=(2, 2, 2, 2)):
    """Hierarchy and unseen poses of a hand model, or of a mesh file, whose one pose is its own.

    source: "builtin", a MANO .pkl or .npz, or a mesh file that trimesh reads.
    returns a ``MeshHierarchy`` and poses (P, V, 3) in the unit of the mesh.
    """
    if source == "builtin":
        model = HandModel.builtin()
    else:
        path = resolve(source, ROOT)
        if path.suffix not in (".pkl", ".npz"):
            import trimesh

            mesh = trimesh.load(path, process=False, force="mesh")
            hierarchy = build_hierarchy(mesh, factors=factors)
            return hierarchy, hierarchy.vertices[0][None]
        model = HandModel.from_mano(path)
    return builtin_hierarchy(model, factors), posed_vertices(model, n_poses, UNSEEN_SEED)


def collapse_order(hierarchy: MeshHierarchy, poses) -> np.ndarray:
    """The collapses (n, 2), rows (kept, removed), from the finest level to the coarsest size."""
    vertices, faces = hierarchy.vertices[0], hierarchy.faces[0]
    importance = stretch_importance(faces, poses)
    return collapse_edges(vertices, faces, hierarchy.sizes[-1], importance)


def with_barycentric(hierarchy: MeshHierarchy) -> MeshHierarchy:
    """The same levels with closest-point weights, as psbody-mesh would give them."""
    fine, coarse = hierarchy.vertices[:-1], hierarchy.vertices[1:]
    levels = zip(fine, coarse, hierarchy.faces[1:], strict=True)
    up = [barycentric_upsampling(x, v, f) for x, v, f in levels]
    return replace(hierarchy, up=up, method="barycentric", key="")


def topology_table(hierarchy: MeshHierarchy) -> str:
    """Vertices, edges, faces, V - E + F and the rim of every level as text."""
    lines = ["level  vertices  edges  faces  V-E+F  borders  rim vertices"]
    for i, (v, f) in enumerate(zip(hierarchy.vertices, hierarchy.faces, strict=True)):
        loops = boundary_loops(f)
        rim = "+".join(str(len(loop)) for loop in loops) or "-"
        numbers = f"{i:5d}{len(v):10d}{len(unique_edges(f)):7d}{len(f):7d}"
        lines.append(f"{numbers}{euler_characteristic(f):7d}{len(loops):9d}{rim:>14s}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Panel:
    """One mesh of a still, its face or vertex colours, a path and dots drawn upon it."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    colours: object = figures.PREDICTION  # (3,), (V, 3) or (F, 3), 0 to 255
    path: np.ndarray | None = None  # (K,) vertex indices, drawn as a line through them
    edges: bool = True


def mesh_still(panels, titles=None, view="front", size: int = 260, columns=None) -> Image.Image:
    """Panels drawn by painter's order at one common scale, without a browser or OpenGL.

    panels: list of ``Panel``.   view: a name of ``figures.VIEWS``.   returns a PIL image.
    """
    seen = [panel.vertices @ figures.VIEWS[view].T for panel in panels]
    low = np.min([s.min(axis=0) for s in seen], axis=0)
    high = np.max([s.max(axis=0) for s in seen], axis=0)
    scale = 0.92 * size * _FINE / max(high[:2] - low[:2])
    middle = size * _FINE / 2 - scale * (low + high)[:2] / 2
    pictures = [
        np.asarray(_paint(panel, points, points[:, :2] * scale + middle, size))
        for panel, points in zip(panels, seen, strict=True)
    ]
    return figures.image_grid(pictures, titles, columns or len(pictures))


def _paint(panel, points, screen, size):
    canvas = Image.new("RGB", (size * _FINE,) * 2, figures.PAPER)
    pen = ImageDraw.Draw(canvas)
    faces = np.asarray(panel.faces)
    normals = face_normals(points, faces)
    facing = -normals[:, 2] / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    colours = np.asarray(panel.colours, float)
    if colours.shape == points.shape and len(points) != len(faces):
        colours = colours[faces].mean(axis=1)
    shaded = np.broadcast_to(colours, (len(faces), 3)) * (0.45 + 0.55 * np.abs(facing))[:, None]
    for t in np.argsort(-points[faces, 2].mean(axis=1), kind="stable"):
        corners = [tuple(p) for p in screen[faces[t]]]
        colour = tuple(int(c) for c in shaded[t])
        pen.polygon(corners, colour, EDGE if panel.edges else colour)
    if panel.path is not None:
        line = [tuple(p) for p in screen[panel.path]]
        for n, (start, end) in enumerate(zip(line, line[1:], strict=False)):
            pen.line([start, end], _along(n, len(line)), 2 * _FINE)
        for n, (x, y) in enumerate(line):
            r = (4 if n == 0 else 2.2) * _FINE
            pen.ellipse([x - r, y - r, x + r, y + r], _along(n, len(line)), figures.PAPER)
    return canvas.resize((size, size), Image.LANCZOS)


def _along(n, count):
    """Colour of the n-th place of a spiral, from the first to the last."""
    from matplotlib import colormaps

    return tuple(int(255 * c) for c in colormaps["viridis"](0.92 * n / max(count - 1, 1))[:3])


def edge_trace(vertices, faces, colour=EDGE) -> go.Scatter3d:
    """All edges as one line trace; gaps between them are NaN."""
    edges = unique_edges(np.asarray(faces))
    points = np.full((len(edges), 3, 3), np.nan, np.float32)
    points[:, :2] = np.asarray(vertices)[edges]
    x, y, z = points.reshape(-1, 3).T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": "rgb({},{},{})".format(*colour), "width": 1.5},
    )  # fmt: skip


def rim_trace(vertices, faces) -> go.Scatter3d:
    """The open borders as closed lines."""
    loops = [np.append(loop, loop[0]) for loop in boundary_loops(np.asarray(faces))]
    points = [np.concatenate([vertices[loop], [[np.nan] * 3]]) for loop in loops]
    x, y, z = np.concatenate([np.zeros((0, 3)), *points]).astype(np.float32).T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": "rgb({},{},{})".format(*RIM), "width": 6},
    )  # fmt: skip


def levels_figure(vertices, faces, titles=None, view="front", widget=False, height: int = 340):
    """Levels side by side with their edges and rims; in a widget, turning one turns all.

    vertices, faces: lists over levels.   returns a Plotly figure.
    """
    hands = [figures.DrawnHand(v, f) for v, f in zip(vertices, faces, strict=True)]
    figure = figures.hand_figure(hands, titles, view, height, widget)
    for n, (v, f) in enumerate(zip(vertices, faces, strict=True)):
        for trace in (edge_trace(v, f), rim_trace(v, f)):
            trace.scene = "scene" if n == 0 else f"scene{n + 1}"
            figure.add_trace(trace)
        eye = figure.layout[trace.scene].camera.eye  # narrow panels: step back
        figure.layout[trace.scene].camera.eye = {a: 1.7 * eye[a] for a in "xyz"}
    figure.update_layout(width=200 * len(hands))
    return figures.link_cameras(figure) if widget else figure


def levels_still(vertices, faces, titles=None, view="front", size: int = 150) -> Image.Image:
    """The same levels as a picture."""
    panels = [Panel(v, f) for v, f in zip(vertices, faces, strict=True)]
    return mesh_still(panels, titles, view, size)


def mesh_after(vertices, faces, collapses, n: int):
    """Mesh after the first n collapses: vertices (V - n, 3), faces (F', 3)."""
    kept, left = apply_collapses(len(vertices), faces, collapses[:n])
    return vertices[kept], np.searchsorted(kept, left)


def collapse_panel(vertices, faces, collapses, view="front", height: int = 420):
    """A slider that takes the mesh apart, one edge at a time; the next edge is marked.

    returns a widget; ``.figure`` is the Plotly ``FigureWidget``, ``.slider`` the slider.
    """
    import ipywidgets as widgets

    figure = figures.hand_figure([figures.DrawnHand(vertices, faces)], [""], view, height, True)
    figure.add_traces([edge_trace(vertices, faces), rim_trace(vertices, faces)])
    figure.add_trace(_mark(vertices[collapses[0]]))
    slider = widgets.IntSlider(
        0, 0, len(collapses), description="collapses", layout=widgets.Layout(width="90%")
    )

    def redraw(_=None):
        n = slider.value
        v, f = mesh_after(vertices, faces, collapses, n)
        new = [
            figures.mesh_trace(figures.DrawnHand(v, f)),
            edge_trace(v, f),
            rim_trace(v, f),
            _mark(vertices[collapses[min(n, len(collapses) - 1)]]),
        ]
        with figure.batch_update():
            figures.move_traces(figure, new)
            figure.layout.annotations[0].text = f"{len(v)} vertices, {len(f)} faces"

    slider.observe(redraw, "value")
    redraw()
    panel = widgets.VBox([slider, figure])
    panel.figure, panel.slider = figure, slider
    return panel


def _mark(points):
    x, y, z = np.asarray(points, np.float32).T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines+markers", showlegend=False, hoverinfo="skip",
        line={"color": "rgb(200,30,60)", "width": 8}, marker={"size": [3, 5]},
    )  # fmt: skip


def spiral_traces(vertices, spiral) -> list[go.Scatter3d]:
    """The walk from the first vertex of a spiral to its last, with places written at the dots."""
    x, y, z = np.asarray(vertices, np.float32)[spiral].T
    places = list(range(len(spiral)))
    colours = ["rgb({},{},{})".format(*_along(n, len(places))) for n in places]
    return [
        go.Scatter3d(
            x=x, y=y, z=z, mode="lines+markers+text", text=[str(n) for n in places],
            showlegend=False, hovertext=[f"vertex {v}" for v in spiral], hoverinfo="text",
            line={"color": colours, "width": 6}, marker={"color": colours, "size": 4},
            textfont={"size": 10},
        )
    ]  # fmt: skip


def spiral_figure(vertices, faces, spiral, title="", view="front", widget=False, height: int = 440):
    """One spiral drawn on the surface.   spiral: (K,) vertex indices."""
    figure = figures.hand_figure(
        [figures.DrawnHand(vertices, faces)], [title], view, height, widget=widget
    )
    figure.add_trace(edge_trace(vertices, faces))
    figure.add_traces(spiral_traces(vertices, spiral))
    return figure


def spiral_panel(vertices, faces, spirals, vertex: int = 0, view="front", height: int = 440):
    """Pick a vertex with the slider, or click on the surface, and see its spiral.

    spirals: (V, K).   returns a widget with ``.figure`` and ``.slider``.
    """
    import ipywidgets as widgets

    normals = vertex_normals(vertices, faces)
    figure = spiral_figure(vertices, faces, spirals[vertex], " ", view, True, height)
    slider = widgets.IntSlider(
        vertex, 0, len(spirals) - 1, description="vertex", layout=widgets.Layout(width="90%")
    )

    def redraw(_=None):
        (new,) = spiral_traces(vertices, spirals[slider.value])
        eye = figure.layout.scene.camera.eye
        away = normals[slider.value] @ [eye.x, eye.y, eye.z] < 0.6
        with figure.batch_update():
            if away:  # turn the hand until the vertex is seen
                figure.layout.scene.camera = _camera_along(normals[slider.value])
            walk = figure.data[2]
            walk.x, walk.y, walk.z, walk.hovertext = new.x, new.y, new.z, new.hovertext
            figure.layout.annotations[0].text = f"spiral of vertex {slider.value}"

    def clicked(trace, points, state):
        if points.point_inds:
            slider.value = int(points.point_inds[0])

    slider.observe(redraw, "value")
    figure.data[0].on_click(clicked)
    redraw()
    panel = widgets.VBox([slider, figure])
    panel.figure, panel.slider = figure, slider
    return panel


def _camera_along(normal):
    """Camera that looks at the surface against a normal, y down unless that is the view."""
    up = [0.0, -1.0, 0.0] if abs(normal[1]) < 0.9 else [0.0, 0.0, -1.0]
    return {
        "eye": {a: 1.9 * float(n) for a, n in zip("xyz", normal, strict=True)},
        "up": dict(zip("xyz", up, strict=True)),
        "projection": {"type": "orthographic"},
    }


def sparsity_figure(down, up, titles=("D", "U")):
    """Non-zeros of a selection and of an up-sampling matrix; colour is the weight.

    down: (V', V), up: (V, V') SciPy sparse.   returns a closed Matplotlib figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.0), dpi=66, layout="constrained")
    for axis, matrix, title in zip(axes, (down, up), titles, strict=True):
        entries = matrix.tocoo()
        dots = axis.scatter(
            entries.col, entries.row, c=entries.data, s=1.5, cmap="coolwarm", vmin=-1, vmax=1
        )
        axis.set(
            xlim=(-2, matrix.shape[1] + 1), ylim=(matrix.shape[0] + 1, -2),
            title=f"{title}: {matrix.shape[0]} x {matrix.shape[1]}, {entries.nnz} entries",
            xlabel="from vertex", ylabel="to vertex",
        )  # fmt: skip
        axis.set_aspect("auto")
    figure.colorbar(dots, ax=axes, label="weight", shrink=0.8)
    plt.close(figure)
    return figure


def error_figure(vertices, faces, errors_mm, titles, view="front", top_mm=None, height: int = 360):
    """Errors painted on one mesh, one panel per set of errors, on a shared scale.

    errors_mm: list of (V,).   returns (Plotly figure, still).
    """
    top_mm = top_mm or float(max(np.max(e) for e in errors_mm))
    hands = [figures.DrawnHand(vertices, faces, error_mm=e, error_max_mm=top_mm) for e in errors_mm]
    figure = figures.hand_figure(hands, titles, view, height)
    for trace in figure.data[:-1]:
        trace.showscale = False
    colours = [figures.error_colours(e, top_mm) for e in errors_mm]
    panels = [Panel(vertices, faces, c, edges=False) for c in colours]
    return figure, _with_scale(mesh_still(panels, titles, view, 300), top_mm)


def _with_scale(picture, top_mm):
    """A bar of the error colours under a still, with its two ends in mm."""
    width = picture.width
    bar = figures.error_colours(np.linspace(0, top_mm, width - 120), top_mm)
    sheet = Image.new("RGB", (width, picture.height + 22), figures.PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(Image.fromarray(np.tile(bar[None], (10, 1, 1))), (60, picture.height + 6))
    pen = ImageDraw.Draw(sheet)
    pen.text((8, picture.height + 4), "0 mm", figures.INK)
    pen.text((width - 54, picture.height + 4), f"{top_mm:.1f} mm", figures.INK)
    return sheet
