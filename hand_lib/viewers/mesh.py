"""Notebook 02's figures: levels, collapses, spirals and sparsity of a surface.

Vertices are in camera axes (x right, y down, z away), any unit.
"""

from dataclasses import replace

import numpy as np

from hand_lib import ROOT
from hand_lib.files import resolve
from hand_lib.hand.model import HandModel, builtin_hierarchy, posed_vertices
from hand_lib.mesh.hierarchy import MeshHierarchy, build_hierarchy
from hand_lib.mesh.simplify import apply_collapses, collapse_edges, stretch_importance
from hand_lib.mesh.topology import (
    boundary_loops,
    euler_characteristic,
    unique_edges,
    vertex_normals,
)
from hand_lib.mesh.upsample import barycentric_upsampling
from hand_lib.viewers.figures import DrawnHand, hand_figure, hand_traces, link_cameras, move_traces
from hand_lib.viewers.flat import finished

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


def levels(vertices, faces) -> list[DrawnHand]:
    """Each level with its edges and rims.   vertices, faces: lists over levels."""
    return [DrawnHand(v, f, edges=True) for v, f in zip(vertices, faces, strict=True)]


def levels_figure(hands, titles=None, height: int = 340):
    """Levels side by side as a widget; turning one turns all.   hands: of ``levels``."""
    figure = hand_figure(hands, titles, height=height, widget=True, zoom=0.6)
    figure.update_layout(width=200 * len(hands))
    return link_cameras(figure)


def mesh_after(vertices, faces, collapses, n: int) -> DrawnHand:
    """The mesh after the first n collapses; the edge that goes next, or went last, is marked."""
    kept, left = apply_collapses(len(vertices), faces, collapses[:n])
    edge = vertices[collapses[min(n, len(collapses) - 1)]]
    return DrawnHand(vertices[kept], np.searchsorted(kept, left), edges=True, path=edge)


def _slider_panel(draw, name: str, top: int, start: int = 0, height: int = 430):
    """A slider from 0 to ``top`` above the one hand that it picks.

    draw: number -> (DrawnHand, title).   returns a widget with ``.figure`` (a ``FigureWidget``) and
    ``.slider``.
    """
    import ipywidgets as widgets

    hand, title = draw(start)
    figure = hand_figure([hand], [title], height=height, widget=True)
    slider = widgets.IntSlider(start, 0, top, description=name, layout={"width": "90%"})

    def redraw(_=None):
        hand, title = draw(slider.value)
        with figure.batch_update():
            move_traces(figure, hand_traces(hand))
            figure.layout.annotations[0].text = title

    slider.observe(redraw, "value")
    panel = widgets.VBox([slider, figure])
    panel.figure, panel.slider = figure, slider
    return panel


def collapse_panel(vertices, faces, collapses):
    """A slider that takes the mesh apart, one edge at a time; see ``_slider_panel``.

    collapses: (n, 2) of ``collapse_order``.
    """

    def draw(n):
        hand = mesh_after(vertices, faces, collapses, n)
        return hand, f"{len(hand.vertices)} vertices, {len(hand.faces)} faces"

    return _slider_panel(draw, "collapses", len(collapses))


def spiral_panel(vertices, faces, spirals, vertex: int = 0):
    """Pick a vertex with the slider, or click on the surface, and see its spiral.

    spirals: (V, K) vertex indices.   returns what ``_slider_panel`` does.
    """
    normals = vertex_normals(vertices, faces)

    def draw(n):
        hand = DrawnHand(vertices, faces, edges=True, path=vertices[spirals[n]])
        return hand, f"spiral of vertex {n}"

    def face_it(_=None):
        """Turn the hand until the vertex is seen."""
        normal, camera = normals[panel.slider.value], panel.figure.layout.scene.camera
        if normal @ [camera.eye[axis] for axis in "xyz"] < 0.6:
            up = [0.0, -1.0, 0.0] if abs(normal[1]) < 0.9 else [0.0, 0.0, -1.0]
            camera.update(
                eye=dict(zip("xyz", 1.9 * normal, strict=True)),
                up=dict(zip("xyz", up, strict=True)),
            )

    def clicked(_trace, points, _state):
        if points.point_inds:
            panel.slider.value = int(points.point_inds[0])

    panel = _slider_panel(draw, "vertex", len(spirals) - 1, vertex)
    panel.slider.observe(face_it, "value")
    panel.figure.data[0].on_click(clicked)
    face_it()
    return panel


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
    return finished(figure, grid=False)
