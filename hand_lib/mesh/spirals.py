"""Spiral sequences: every vertex followed by its neighbours, ring by ring in surface order.

The order is that of SpiralNet++ (Gong, Chen, Bronstein, Zafeiriou 2019), which walks OpenMesh's
half-edges; weights trained on one set of spirals only fit networks with the same one. Two facts of
OpenMesh decide the first neighbour and the direction. Around a vertex it turns clockwise (against
the winding of the faces). It starts, on a rim, at the half-edge without a face, and inside, at the
half-edge of the vertex in the last face that names it.
"""

import functools

import numpy as np
from scipy.spatial import cKDTree

from hand_lib.mesh.topology import as_mesh_arrays, check_mesh

SMALL = 1000
"""Entries of spirals up to which Python is done before Numba is even imported."""


def extract_spirals(mesh, faces=None, length: int = 27, dilation: int = 1) -> np.ndarray:
    """Spiral of every vertex: itself, its ring, the next ring, ... cut at `length`.

    mesh: (V, 3) vertices with faces (F, 3), or an object with .v and .f.   dilation: take every
    dilation-th entry of a spiral that many times as long. A vertex whose surface ends before the
    spiral is full gets the nearest vertices in space instead, itself first.
    returns (V, length) int64.

    >>> corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    >>> extract_spirals(corners, np.array([[0, 1, 2], [0, 2, 3]]), length=3).tolist()
    [[0, 3, 2], [1, 2, 0], [2, 1, 0], [3, 2, 0]]
    """
    vertices, faces = as_mesh_arrays(mesh, faces)
    check_mesh(vertices, faces)
    for name, value in (("length", length), ("dilation", dilation)):
        if value != int(value) or value < 1:
            raise ValueError(f"{name} should be a whole number of at least 1, found {value!r}")
    reach = int(length) * int(dilation)
    if reach > len(vertices):
        raise ValueError(
            f"a spiral of length {length} x dilation {dilation} needs {reach} vertices, "
            f"the mesh has {len(vertices)}: shorten it or use a finer level"
        )
    order, walk = compiled() if len(vertices) * reach > SMALL else (rings, _walk)
    spirals, short = walk(*order(*corners(faces, len(vertices))), reach)
    if short.any():  # ties by index
        queries = np.flatnonzero(short)
        distances, found = cKDTree(vertices).query(vertices[queries], k=[*range(1, reach + 1)])
        distances = np.where(found == queries[:, None], -1.0, distances)
        ranked = np.lexsort((found, distances), axis=1)
        spirals[queries] = np.take_along_axis(found, ranked, axis=1)
    return np.ascontiguousarray(spirals[:, ::dilation])


@functools.cache
def compiled():
    """``rings`` and ``_walk`` in machine code."""
    from numba import njit  # not for those who only read a network

    return njit(cache=True)(rings), njit(cache=True)(_walk)


def corners(faces, n_vertices):
    """The faces around every vertex, in their own order.   faces: (F, 3).

    returns starts (V + 1,), after (3 F,), before (3 F,): the next corner and the one before it of
    the faces at vertex v stand at starts[v]:starts[v + 1].
    """
    order = np.argsort(faces, axis=None, kind="stable")
    after, before = (np.roll(faces, turn, axis=1).ravel()[order] for turn in (-1, 1))
    counts = np.bincount(faces.ravel(), minlength=n_vertices)
    return np.append(0, np.cumsum(counts)), after, before


def rings(first, after, before):
    """Neighbours of every vertex in OpenMesh's order.

    first, after, before: ``corners`` of a manifold.   returns starts (V + 1,), neighbours (2 E,):
    those of vertex v are neighbours[starts[v]:starts[v + 1]], clockwise.
    """
    starts = np.zeros(len(first), np.int64)
    neighbours = np.empty(2 * len(after), np.int64)
    count = 0
    for v in range(len(first) - 1):
        begins, ends = after[first[v] : first[v + 1]], before[first[v] : first[v + 1]]
        if len(ends) > 0:
            here = begins[-1]  # inside: the last face's half-edge
            for w in ends:  # on a rim: the neighbour no face leads to from v
                if w not in begins:
                    here = w
            for _ in range(len(ends) + 1):
                neighbours[count] = here
                count += 1
                # clockwise: the face that ends at `here` begins at the next neighbour
                j = 0
                while j < len(ends) and ends[j] != here:
                    j += 1
                if j == len(ends) or begins[j] == neighbours[starts[v]]:
                    break
                here = begins[j]
        starts[v + 1] = count
    return starts, neighbours[:count]


def _walk(starts, neighbours, reach):
    """Ring after ring from every vertex; `short` marks spirals that ran out of surface.

    The next ring lists, for each vertex of the last ring in turn, the unseen neighbours that follow
    the first neighbour lying in the last ring itself, cyclically.
    """
    n = len(starts) - 1
    spirals = np.empty((n, reach), np.int64)
    short = np.zeros(n, np.bool_)
    ring_of = np.full(n, -1, np.int64)  # ring number of the vertices seen from the current one
    order = np.empty(n, np.int64)
    for v in range(n):
        near = neighbours[starts[v] : starts[v + 1]]
        begin, end, ring = 1, 1 + len(near), 1
        order[0], ring_of[v] = v, 0
        order[1:end], ring_of[near] = near, 1
        while True:
            size = end
            for i in range(begin, end):
                near, turn = neighbours[starts[order[i]] : starts[order[i] + 1]], 0
                while turn < len(near) - 1 and ring_of[near[turn]] != ring:
                    turn += 1
                for j in range(1, len(near) + 1):
                    w = near[(turn + j) % len(near)]
                    if ring_of[w] < 0:
                        ring_of[w] = ring + 1
                        order[size] = w
                        size += 1
            if size >= reach or size == end:
                break
            begin, end, ring = end, size, ring + 1
        short[v] = size == end
        m = min(size, reach)
        spirals[v, :m] = order[:m]
        ring_of[order[:size]] = -1
    return spirals, short
