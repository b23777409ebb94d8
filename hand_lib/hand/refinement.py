"""A finer, rounder mesh for pictures: Phong tessellation of any triangle mesh (numpy only).

Boubekeur and Alexa 2008: a point inside a triangle is moved towards its projections onto the
tangent planes of the three corners, p* = (1 - a) p + a sum_i b_i project_i(p). Vertices stay put,
so what is measured on the coarse mesh stays true; only what lies between them becomes round.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hand_lib.mesh.topology import as_mesh_arrays, vertex_normals


@dataclass(frozen=True)
class Refinement:
    """Where every fine vertex lies on the coarse mesh; made once per topology.

    corners: (N, 3) coarse vertices.   weights: (N, 3) barycentric, rows sum to 1.
    faces: (F * parts^2, 3) fine triangles.   coarse_faces: (F, 3).
    The first V fine vertices are the coarse ones.
    """

    corners: NDArray[np.int64]
    weights: NDArray[np.float64]
    faces: NDArray[np.int64]
    coarse_faces: NDArray[np.int64]

    def interpolate(self, values: NDArray) -> NDArray:
        """Carry values (V, C) of the coarse vertices to the fine ones (N, C), linearly."""
        values = np.asarray(values)
        return (self.weights[..., None] * values[self.corners]).sum(1)

    def vertices(self, vertices: NDArray, roundness: float = 0.7) -> NDArray[np.float64]:
        """Fine vertices (N, 3) of the posed coarse mesh (V, 3), in its unit and frame."""
        vertices = np.asarray(vertices, dtype=np.float64)
        normals = vertex_normals(vertices, self.coarse_faces)
        flat = self.interpolate(vertices)
        at, normal = vertices[self.corners], normals[self.corners]
        height = ((flat[:, None] - at) * normal).sum(-1, keepdims=True)
        return flat - roundness * (self.weights[..., None] * height * normal).sum(1)


def refine_mesh(faces: NDArray, parts: int = 3, vertex_count: int | None = None) -> Refinement:
    """Cut every face into parts^2 triangles.

    faces: (F, 3).   vertex_count: of the coarse mesh, when its last vertices have no face.

    >>> refine_mesh(np.array([[0, 1, 2]]), parts=2).faces.shape
    (4, 3)
    """
    faces = np.asarray(faces, dtype=np.int64)
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected faces (F, 3), found {faces.shape}")
    if parts < 1:
        raise ValueError(f"parts must be 1 or more, found {parts}")
    count = int(faces.max()) + 1 if vertex_count is None else vertex_count
    steps = [(i, j, parts - i - j) for i in range(parts + 1) for j in range(parts + 1 - i)]
    place = {step[:2]: k for k, step in enumerate(steps)}
    shares = np.array(steps) / parts
    inner = []
    for i in range(parts):
        for j in range(parts - i):
            a, b, c = place[i + 1, j], place[i, j + 1], place[i, j]
            inner.append((a, b, c))
            if i + j + 2 <= parts:
                inner.append((a, place[i + 1, j + 1], b))
    # one key per place: the corners that count, in order of their index, with their shares
    ids = np.repeat(faces[:, None], len(steps), axis=1)
    numbers = np.broadcast_to((shares * parts).round().astype(np.int64), ids.shape)
    hidden = np.where(numbers > 0, ids, count)
    order = np.argsort(hidden, axis=2, kind="stable")
    key = np.concatenate(
        [np.take_along_axis(hidden, order, 2), np.take_along_axis(numbers, order, 2)], axis=2
    ).reshape(-1, 6)
    own = np.zeros((count, 6), dtype=np.int64)
    own[:, 0], own[:, 1:3], own[:, 3] = np.arange(count), count, parts
    unique, first, inverse = np.unique(
        np.concatenate([own, key]), axis=0, return_index=True, return_inverse=True
    )
    rank = np.empty(len(unique), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(unique))
    fine = rank[inverse.ravel()][count:].reshape(len(faces), len(steps))
    listed = unique[np.argsort(first, kind="stable")]
    weights = listed[:, 3:] / parts
    corners = np.where(weights > 0, listed[:, :3], listed[:, :1])
    triangles = fine[:, np.array(inner)].reshape(-1, 3)
    return Refinement(corners, weights, triangles, faces)


def refine(mesh, faces=None, parts: int = 3, roundness: float = 0.7) -> tuple[NDArray, NDArray]:
    """Fine vertices (N, 3) and faces of one mesh: vertices and faces, or anything that has both."""
    vertices, faces = as_mesh_arrays(mesh, faces)
    fine = refine_mesh(faces, parts, len(vertices))
    return fine.vertices(vertices, roundness), fine.faces
