"""Figures of levels, collapses, spirals, matrices and errors show what they were given."""

import numpy as np
import pytest
from mesh_shapes import cut_open, icosphere

from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.hierarchy import MeshHierarchy, build_hierarchy
from hand_lib.mesh.simplify import collapse_edges
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import vertex_normals
from hand_lib.viewers import mesh as viewers_mesh


@pytest.fixture(scope="module")
def cap():
    return cut_open(*icosphere(2))


@pytest.fixture(scope="module")
def levels(cap):
    return build_hierarchy(*cap, factors=(2, 2))


def test_levels_turn_together_in_a_live_figure(levels):
    figure = viewers_mesh.levels_figure(viewers_mesh.levels(levels.vertices, levels.faces))
    assert len(figure.data) == 9  # mesh, edges and rim per level
    camera = {**figure.layout.scene.camera.to_plotly_json(), "eye": {"x": 1, "y": 2, "z": 3}}
    figure.layout.scene2.camera = camera
    assert figure.layout.scene.camera.eye.y == figure.layout.scene3.camera.eye.y == 2


def test_slider_takes_the_mesh_apart_edge_by_edge(cap):
    vertices, faces = cap
    collapses = collapse_edges(vertices, faces, 30)
    panel = viewers_mesh.collapse_panel(vertices, faces, collapses)
    panel.slider.value = 40
    after = viewers_mesh.mesh_after(vertices, faces, collapses, 40)
    assert len(panel.figure.data[0].x) == len(after.vertices) == len(vertices) - 40
    assert len(panel.figure.data[0].i) == len(after.faces)
    assert f"{len(after.vertices)} vertices" in panel.figure.layout.annotations[0].text
    mark = np.stack([panel.figure.data[3][a] for a in "xyz"], 1)
    np.testing.assert_allclose(mark, vertices[collapses[40]], atol=1e-6)
    panel.slider.value = len(collapses)
    assert len(panel.figure.data[0].x) == 30


def test_spiral_follows_the_slider_and_the_click(cap):
    vertices, faces = cap
    spirals = extract_spirals(vertices, faces, 9)
    panel = viewers_mesh.spiral_panel(vertices, faces, spirals, vertex=4)

    def drawn():
        return np.stack([panel.figure.data[3][a] for a in "xyz"], 1)

    np.testing.assert_allclose(drawn(), vertices[spirals[4]], atol=1e-6)
    panel.slider.value = 11
    np.testing.assert_allclose(drawn(), vertices[spirals[11]], atol=1e-6)
    assert panel.figure.layout.annotations[0].text == "spiral of vertex 11"
    for vertex in (0, 25, 60):  # whichever side it is on, the camera sees it
        panel.slider.value = vertex
        eye = panel.figure.layout.scene.camera.eye
        assert vertex_normals(vertices, faces)[vertex] @ [eye.x, eye.y, eye.z] >= 0.6
    assert list(panel.figure.data[3].text) == [str(n) for n in range(9)]


def test_sparsity_shows_every_entry(levels):
    figure = viewers_mesh.sparsity_figure(levels.down[0], levels.up[0])
    counts = [len(axis.collections[0].get_offsets()) for axis in figure.axes[:2]]
    assert counts == [levels.down[0].nnz, levels.up[0].nnz]


def test_topology_table_says_that_nothing_changes_from_level_to_level():
    lines = viewers_mesh.topology_table(builtin_hierarchy()).splitlines()[1:]
    rows = [line.split() for line in lines]
    assert [r[1] for r in rows] == ["778", "389", "195", "98", "49"]
    assert {(r[4], r[5]) for r in rows} == {("1", "1")}


def test_surfaces_open_from_the_built_in_hand_or_a_mesh_file(tmp_path, cap):
    hierarchy, posed = viewers_mesh.open_surface(n_poses=5)
    assert posed.shape == (5, 778, 3)
    order = viewers_mesh.collapse_order(hierarchy, posed)
    assert len(order) == 729
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in cap[0])
    text += "".join(f"f {a} {b} {c}\n" for a, b, c in cap[1] + 1)
    (tmp_path / "cap.obj").write_text(text)
    own, alone = viewers_mesh.open_surface(str(tmp_path / "cap.obj"))
    assert own.sizes[0] == len(cap[0]) and alone.shape == (1, len(cap[0]), 3)
    with pytest.raises(FileNotFoundError, match="nothing.obj: there is no"):
        viewers_mesh.open_surface("nothing.obj")


def test_barycentric_twin_has_the_same_levels_and_convex_weights(levels):
    twin = viewers_mesh.with_barycentric(levels)
    assert isinstance(twin, MeshHierarchy) and twin.vertices is levels.vertices
    assert all(u.data.min() >= 0 and np.diff(u.indptr).max() <= 3 for u in twin.up)
