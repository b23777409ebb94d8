"""Triangle meshes as arrays: edges, borders, normals, checks, closest points, Procrustes."""

import sys

import igl
import numpy as np


def as_mesh_arrays(mesh, faces=None) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of whatever a person calls a mesh.

    mesh: (V, 3) array with ``faces`` (F, 3) beside it, or an object with ``.v`` and ``.f`` (psbody)
    or ``.vertices`` and ``.faces`` (trimesh).
    returns vertices (V, 3) float64 and faces (F, 3) int64; the order of both is kept.
    """
    if faces is None:
        names = ("v", "f") if hasattr(mesh, "v") else ("vertices", "faces")
        if not all(hasattr(mesh, name) for name in names):
            raise TypeError(
                "expected vertices and faces, or a mesh with .v and .f or .vertices and .faces; "
                f"found {type(mesh).__name__} alone"
            )
        mesh, faces = (getattr(mesh, name) for name in names)
    vertices = np.array(mesh, dtype=np.float64)
    faces = np.asarray(faces)
    if faces.dtype.kind not in "iu":
        raise ValueError(f"faces should be whole numbers, found dtype {faces.dtype}")
    return vertices, np.ascontiguousarray(faces, dtype=np.int64)


def half_edges(faces: np.ndarray) -> np.ndarray:
    """Directed edges of all faces.   faces: (F, 3) -> (3 F, 2): ab, then bc, then ca."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def unique_edges(faces: np.ndarray) -> np.ndarray:
    """Undirected edges (E, 2), each once, smaller index first, sorted.

    >>> unique_edges(np.array([[0, 1, 2]])).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    edges = np.sort(half_edges(faces), axis=1)
    return edges[_unique_rows(edges)[0]]


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Vertex cycles along the open borders, each in the direction of its faces' half-edges.

    faces: (F, 3) of a manifold.   returns one index array per border, longest first; a closed mesh
    gives an empty list.
    """
    loops = map(np.array, igl.boundary_loop_all(np.ascontiguousarray(faces, dtype=np.int64)))
    return sorted(loops, key=lambda loop: (-len(loop), loop.min()))


def euler_characteristic(faces: np.ndarray) -> int:
    """V - E + F over the vertices that faces use: 2 for a sphere, 1 for a disc, 0 for a torus."""
    return len(np.unique(faces)) - len(unique_edges(faces)) + len(faces)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Cross product of two edges: length twice the area, outward for counter-clockwise faces.

    vertices: (..., V, 3).   faces: (F, 3).   returns (..., F, 3), not normalised.
    """
    a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals, faces weighted by area; zero where there are none.   (..., V, 3) both."""
    faces = np.ascontiguousarray(faces, dtype=np.int64)
    meshes = np.ascontiguousarray(vertices, np.float64).reshape(-1, *vertices.shape[-2:])
    by_area = igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_AREA
    normals = [igl.per_vertex_normals(mesh, faces, by_area) for mesh in meshes]
    return np.nan_to_num(np.reshape(normals, vertices.shape))


def check_mesh(vertices: np.ndarray, faces: np.ndarray) -> None:
    """Raise one ValueError that names the first offence of a mesh that is not a clean manifold.

    vertices: (V, 3).   faces: (F, 3).   Checked in this order: shapes, NaN, index range, repeated
    corners, duplicate faces, zero area, edges with more than two faces or faces of unlike winding,
    vertices without faces, vertices where two fans meet.
    """
    for what, array, letter in (("vertices", vertices, "V"), ("faces", faces, "F")):
        if array.ndim != 2 or array.shape[1] != 3 or len(array) == 0:
            raise ValueError(f"mesh: {what} should be ({letter}, 3), found {array.shape}")
    for bad, sentence in _offences(vertices, faces):
        if bad.any():
            raise ValueError(f"mesh: {sentence(int(bad.argmax()))}")


def _offences(vertices, faces):
    """Which vertices, faces or edges offend, and what to say of one, a kind after the other."""
    yield ~np.isfinite(vertices).all(1), lambda v: f"vertex {v} is not finite: {vertices[v]}"
    bad = ((faces < 0) | (faces >= len(vertices))).any(axis=1)
    there = f"but there are {len(vertices)} vertices"
    yield bad, lambda f: f"face {f} is {faces[f].tolist()}, {there}"
    bad = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    yield bad, lambda f: f"face {f} names a vertex twice: {faces[f].tolist()}"
    twice, counts = _unique_rows(np.sort(faces, axis=1))
    yield counts > 1, lambda i: f"face {twice[i]} stands there twice: {faces[twice[i]].tolist()}"
    doubled = np.linalg.norm(face_normals(vertices, faces), axis=1)
    bad = doubled <= 2e-14 * max(np.ptp(vertices, axis=0).max() ** 2, 1e-300)
    yield bad, lambda f: f"face {f} {faces[f].tolist()} has no area"
    directed = half_edges(faces)
    first, repeats = _unique_rows(directed)

    def crowded(i):
        edge = np.sort(directed[first[i]])
        count = (np.sort(directed, axis=1) == edge).all(axis=1).sum()
        if count > 2:
            return f"edge {edge.tolist()} belongs to {count} faces, at most 2 allowed"
        return f"the two faces at edge {edge.tolist()} are wound in opposite senses"

    yield repeats > 1, crowded
    used = np.bincount(faces.ravel(), minlength=len(vertices))
    yield used == 0, lambda v: f"vertex {v} belongs to no face"
    two_fans = ~np.array(igl.is_vertex_manifold(np.ascontiguousarray(faces)), bool)
    yield two_fans, lambda v: f"two separate fans of faces meet at vertex {v}"


def _unique_rows(rows) -> tuple[np.ndarray, np.ndarray]:
    """First index and count of each distinct row, in lexicographic order of the rows."""
    order = np.lexsort(rows.T[::-1])
    starts = np.append(0, 1 + np.flatnonzero((rows[order[1:]] != rows[order[:-1]]).any(axis=1)))
    return order[starts], np.diff(starts, append=len(rows))


def procrustes(source, target, reflections: bool = False, guard: float = 0.0):
    """Each source moved onto its target by the similarity motion that errs least (squared).

    source, target: (..., N, 3), the same unit, both NumPy arrays or both tensors, whose motion then
    passes no gradient on.   reflections: allow mirrored solutions, as FreiHAND's scorer does;
    otherwise det R = +1 (Umeyama, 1991).   guard: added to the size of the source before dividing.
    returns the points (..., N, 3), and the rotation R (..., 3, 3), x -> R x, in that motion.
    A source whose points coincide has scale 0 and is moved onto the target's centre.
    """
    if source.shape != target.shape or source.ndim < 2 or source.shape[-1] != 3:
        raise ValueError(
            "expected source and target (..., N, 3) alike, found "
            f"{tuple(source.shape)}, {tuple(target.shape)}"
        )
    points = source
    if not isinstance(source, np.ndarray):
        source, target = source.detach(), target.detach()
    source_center, target_center = source.mean(-2)[..., None, :], target.mean(-2)[..., None, :]
    a, b = source - source_center, target - target_center
    product = b.mT @ a
    linalg = np.linalg if isinstance(product, np.ndarray) else sys.modules["torch"].linalg
    u, _, vt = linalg.svd(product)
    if not reflections:
        u[..., 2] *= linalg.det(u @ vt).round()[..., None]
    rotation = u @ vt
    spread = (a * a).sum((-1, -2))
    if guard:
        spread = (spread**0.5 + guard) ** 2
    scale = (rotation * product).sum((-1, -2)) / (spread + (spread == 0))
    turned = (points - source_center) @ rotation.mT
    return scale[..., None, None] * turned + target_center, rotation


def procrustes_align(source, target, reflections: bool = False, guard: float = 0.0):
    """Each source (..., N, 3) moved onto its target as well as a similarity can: ``procrustes``."""
    return procrustes(source, target, reflections, guard)[0]


def closest_point_on_mesh(points, vertices, faces):
    """Nearest surface point of each query point.

    points: (N, 3).   vertices: (V, 3).   faces: (F, 3).
    returns face index (N,), barycentric (N, 3) that sum to one and are not negative, the surface
    point (N, 3) and its distance (N,).
    """
    points, vertices = (np.ascontiguousarray(x, np.float64) for x in (points, vertices))
    faces = np.ascontiguousarray(faces, np.int64)
    squared, face, nearest = igl.point_mesh_squared_distance(points, vertices, faces)
    barycentric = barycentric_at(nearest, vertices, faces[face])
    return face, barycentric, nearest, np.sqrt(np.maximum(squared, 0))


def barycentric_at(points, vertices, corners) -> np.ndarray:
    """Barycentric coordinates (N, 3), none negative, of points (N, 3) in their faces.

    vertices: (V, 3).   corners: (N, 3) indices, the face of each point.
    """
    a, b, c = (np.ascontiguousarray(vertices[corners[:, i]]) for i in range(3))
    barycentric = np.clip(igl.barycentric_coordinates(np.ascontiguousarray(points), a, b, c), 0, 1)
    return barycentric / barycentric.sum(axis=1, keepdims=True)
