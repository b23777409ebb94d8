"""Spirals are OpenMesh's half-edge walk, checked against recorded ones and a slow walk."""

import numpy as np
import pytest
from mesh_shapes import SHAPES

from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.simplify import apply_collapses, collapse_edges
from hand_lib.mesh.spirals import extract_spirals

GRID_FACES = [
    [0, 4, 5], [0, 5, 1], [1, 5, 6], [1, 6, 2], [2, 6, 7], [2, 7, 3], [4, 8, 9], [4, 9, 5],
    [6, 10, 11], [6, 11, 7], [8, 12, 13], [8, 13, 9], [9, 13, 14], [9, 14, 10], [10, 14, 15],
    [10, 15, 11],
]  # fmt: skip
GRID_SPIRALS = [
    [0, 1, 5, 4, 2, 6, 9, 8, 3], [1, 2, 6, 5, 0, 3, 7, 11, 10], [2, 3, 7, 6, 1, 11, 10, 5, 0],
    [3, 7, 2, 11, 6, 1, 15, 10, 5], [4, 0, 5, 9, 8, 1, 6, 10, 14], [5, 9, 4, 0, 1, 6, 10, 14, 13],
    [6, 5, 1, 2, 7, 11, 10, 9, 4], [7, 11, 6, 2, 3, 15, 10, 5, 1], [8, 4, 9, 13, 12, 0, 5, 10, 14],
    [9, 10, 14, 13, 8, 4, 5, 6, 11], [10, 6, 11, 15, 14, 9, 5, 1, 2],
    [11, 15, 10, 6, 7, 14, 9, 5, 1], [12, 8, 13, 4, 9, 14, 0, 5, 10],
    [13, 12, 8, 9, 14, 4, 5, 10, 15], [14, 13, 9, 10, 15, 12, 8, 4, 5],
    [15, 14, 10, 11, 13, 9, 6, 7, 12],
]  # fmt: skip
"""What openmesh 1.2.1 with SpiralNet++'s procedure gave for the grid below."""


def grid():
    """A bent 4 x 4 grid with a hole in the middle."""
    vertices = [(x, y, 0.1 * x * y + 0.03 * x * x) for x in range(4) for y in range(4)]
    return np.array(vertices, float), np.array(GRID_FACES)


def slow_spirals(vertices, faces, length, dilation=1):
    """The same sequences from a table of half-edges, one vertex and one step at a time."""
    apex = {}  # directed edge -> third corner of its face
    start = {}
    for a, b, c in faces.tolist():
        for u, v, w in ((a, b, c), (b, c, a), (c, a, b)):
            apex[u, v] = w
            start[u] = v  # the last face naming u wins
    for u, v in list(apex):
        if (v, u) not in apex:
            start[v] = u  # on a rim, the half-edge without a face

    def ring_around(v):
        out, w = [], start[v]
        while w not in out:
            out.append(w)
            if (w, v) not in apex:
                break
            w = apex[w, v]
        return out

    neighbours = {v: ring_around(v) for v in start}
    spirals = []
    for v in range(len(vertices)):
        spiral, ring = [v, *neighbours[v]], neighbours[v]
        while True:
            following = []
            for u in ring:
                near = neighbours[u]
                touch = [i for i, w in enumerate(near) if w in ring]
                turn = touch[0] + 1 if touch else 0
                for w in near[turn:] + near[:turn]:
                    if w not in spiral and w not in following:
                        following.append(w)
            if not following:
                away = np.linalg.norm(vertices - vertices[v], axis=1)
                spiral = np.argsort(away, kind="stable").tolist()
                break
            spiral += following
            ring = following
            if len(spiral) >= length * dilation:
                break
        spirals.append(spiral[: length * dilation : dilation])
    return np.array(spirals)


def test_spirals_of_a_grid_with_a_hole_are_those_openmesh_gave():
    assert extract_spirals(*grid(), length=9).tolist() == GRID_SPIRALS


@pytest.mark.parametrize("length, dilation", [(9, 1), (27, 1), (9, 2)])
def test_spirals_of_every_level_of_the_hand_equal_the_slow_walk(length, dilation):
    hierarchy = builtin_hierarchy()
    for i, spirals in enumerate(hierarchy.spirals(length, dilation)):
        slow = slow_spirals(hierarchy.vertices[i], hierarchy.faces[i], length, dilation)
        np.testing.assert_array_equal(spirals, slow)


def test_spirals_of_random_decimated_meshes_equal_the_slow_walk():
    rng = np.random.default_rng(0)
    shapes = [shape() for shape in SHAPES.values()]
    for i in range(24):
        vertices, faces = shapes[i % len(shapes)]
        vertices = vertices + rng.normal(0, 0.02, vertices.shape)
        order, turn = rng.permutation(len(faces)), rng.integers(0, 3, len(faces))
        faces = np.take_along_axis(faces[order], (np.arange(3) + turn[:, None]) % 3, axis=1)
        collapses = collapse_edges(vertices, faces, int(rng.integers(30, 200)))
        kept, faces = apply_collapses(len(vertices), faces, collapses)
        vertices, faces = vertices[kept], np.searchsorted(kept, faces)
        length, dilation = ((9, 1), (27, 1), (9, 2))[i % 3]
        fast = extract_spirals(vertices, faces, length, dilation)
        np.testing.assert_array_equal(fast, slow_spirals(vertices, faces, length, dilation))


def test_spiral_longer_than_the_mesh_raises_with_both_numbers():
    with pytest.raises(ValueError, match="27 x dilation 1 needs 27 vertices, the mesh has 16"):
        extract_spirals(*grid(), length=27)
    with pytest.raises(ValueError, match="length should be a whole number of at least 1, found 0"):
        extract_spirals(*grid(), length=0)
    with pytest.raises(ValueError, match="dilation should be .* found 1.5"):
        extract_spirals(*grid(), length=3, dilation=1.5)
