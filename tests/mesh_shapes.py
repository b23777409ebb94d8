"""Small meshes of known topology for tests."""

import numpy as np
import trimesh


def icosphere(levels=3):
    """(V, 3), (F, 3) of a sphere: Euler characteristic 2, closed."""
    ball = trimesh.creation.icosphere(levels)
    return np.array(ball.vertices), np.array(ball.faces)


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
