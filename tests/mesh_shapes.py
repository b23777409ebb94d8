"""Small meshes of known topology for tests."""

import numpy as np

from hand_lib.mesh.topology import half_edges, unique_edges


def torus(n=24, m=14, radius=1.0, tube=0.4):
    """(V, 3), (F, 3) of a torus: Euler characteristic 0, closed."""
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    a, b = 2 * np.pi * i / n, 2 * np.pi * (j + 0.5 * (i % 2)) / m
    around = radius + tube * np.cos(b)
    vertices = np.stack([around * np.cos(a), around * np.sin(a), tube * np.sin(b)], -1)

    def at(i, j):
        return ((i % n) * m + j % m).ravel()

    corners = at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)
    faces = np.concatenate([np.stack(corners[:3], 1), np.stack([*corners[0::2], corners[3]], 1)])
    return vertices.reshape(-1, 3), faces


def icosphere(levels=3):
    """(V, 3), (F, 3) of a sphere: Euler characteristic 2, closed."""
    g = (1 + 5**0.5) / 2
    vertices = np.array(
        [[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0], [0, -1, g], [0, 1, g]]
        + [[0, -1, -g], [0, 1, -g], [g, 0, -1], [g, 0, 1], [-g, 0, -1], [-g, 0, 1]]
    )
    near = np.linalg.norm(vertices[:, None] - vertices, axis=2) < 2.1
    faces = [
        (i, j, k)
        for i in range(12)
        for j in range(i)
        for k in range(j)
        if near[i, j] and near[j, k] and near[k, i]
    ]
    faces = np.array(faces)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inward = (np.cross(b - a, c - a) * a).sum(1) < 0
    faces[inward] = faces[inward][:, ::-1]
    for _ in range(levels):
        vertices, faces = subdivide(vertices / np.linalg.norm(vertices, axis=1)[:, None], faces)
    return vertices / np.linalg.norm(vertices, axis=1)[:, None], faces


def subdivide(vertices, faces):
    """Every face cut into four at the middles of its edges."""
    edges = unique_edges(faces)
    keys = edges[:, 0] * len(vertices) + edges[:, 1]
    sides = np.sort(half_edges(faces), axis=1)
    middle = len(vertices) + np.searchsorted(keys, sides[:, 0] * len(vertices) + sides[:, 1])
    ab, bc, ca = middle.reshape(3, -1)
    a, b, c = faces.T
    faces = np.concatenate(
        [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    )
    return np.concatenate([vertices, vertices[edges].mean(axis=1)]), faces


def cut_open(vertices, faces, direction=(0.3, 0.2, 1.0), share=0.85):
    """The mesh without the faces furthest along a direction: one more border."""
    height = vertices @ np.asarray(direction)
    faces = faces[(height[faces] < np.quantile(height, share)).all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


def tube(n=16, m=14):
    """An open cylinder: Euler characteristic 0, two borders."""
    vertices, faces = torus(n, m)
    i, j = np.divmod(np.arange(len(vertices)), m)
    angle = 2 * np.pi * (j + 0.5 * (i % 2)) / m
    vertices = np.stack([0.3 * i, np.cos(angle), np.sin(angle)], -1)
    ends = np.isin(faces // m, (0,)).any(1) & np.isin(faces // m, (n - 1,)).any(1)
    return vertices, faces[~ends]


SHAPES = {
    "sphere": icosphere,
    "torus": torus,
    "cap": lambda: cut_open(*icosphere()),
    "tube": tube,
    "cut torus": lambda: cut_open(*torus(), share=0.9),
}
