"""Figures of levels, collapses and spirals show what they were given."""

import numpy as np
import pytest
from mesh_shapes import cut_open, icosphere

from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.mesh.simplify import collapse_edges
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import vertex_normals
from hand_lib.viewers import explorer, figures


@pytest.fixture(scope="module")
def cap():
    return cut_open(*icosphere(2))


@pytest.fixture(scope="module")
def levels(cap):
    return build_hierarchy(*cap, factors=(2, 2))


def test_levels_turn_together_in_a_live_figure(levels):
    hands = [figures.DrawnHand(v, f, edges=True)
             for v, f in zip(levels.vertices, levels.faces, strict=True)]  # fmt: skip
    figure = explorer.LiveFigure(figures.hand_figure(hands)).link_cameras()
    assert len(figure.data) == 9  # mesh, edges and rim per level
    camera = {**figure.layout.scene.camera.to_plotly_json(), "eye": {"x": 1, "y": 2, "z": 3}}
    figure.layout.scene2.camera = camera
    assert figure.layout.scene.camera.eye.y == figure.layout.scene3.camera.eye.y == 2


def test_slider_takes_the_mesh_apart_edge_by_edge(cap):
    vertices, faces = cap
    collapses = collapse_edges(vertices, faces, 30)
    panel = explorer.collapse_panel(vertices, faces, collapses)
    panel.slider.value = 40
    after = explorer.mesh_after(vertices, faces, collapses, 40)
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
    panel = explorer.spiral_panel(vertices, faces, spirals, vertex=4)

    def drawn():
        return np.stack([panel.figure.data[3][a] for a in "xyz"], 1)

    for vertex in (4, 11):
        panel.slider.value = vertex
        above = drawn() - vertices[spirals[vertex]]  # so that the dots are not half sunk
        outward = (above * vertex_normals(vertices, faces)[spirals[vertex]]).sum(1)
        assert (outward > 0).all() and np.abs(above).max() < 0.03 * np.ptp(vertices, axis=0).max()
    assert panel.figure.layout.annotations[0].text == "spiral of vertex 11"
    for vertex in (0, 25, 60):  # whichever side it is on, the camera sees it
        panel.slider.value = vertex
        eye = panel.figure.layout.scene.camera.eye
        assert vertex_normals(vertices, faces)[vertex] @ [eye.x, eye.y, eye.z] >= 0.6
    assert list(panel.figure.data[3].text) == [str(n) for n in range(9)]
