"""Triangle meshes as NumPy arrays: edges, borders, normals, checks, alignment, closest points."""

import numpy as np


def as_mesh_arrays(mesh, faces=None) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of whatever a person calls a mesh.

    mesh: (V, 3) array with ``faces`` (F, 3) beside it, or an object with ``.v`` and ``.f`` (psbody)
    or ``.vertices`` and ``.faces`` (trimesh).
    returns vertices (V, 3) float64 and faces (F, 3) int64; the order of both is kept.
    """
    if faces is None:
        for v_name, f_name in (("v", "f"), ("vertices", "faces")):
            if hasattr(mesh, v_name) and hasattr(mesh, f_name):
                mesh, faces = getattr(mesh, v_name), getattr(mesh, f_name)
                break
        else:
            raise TypeError(
                "expected vertices and faces, or a mesh with .v and .f or .vertices and .faces; "
                f"found {type(mesh).__name__} alone"
            )
    vertices = np.array(mesh, dtype=np.float64)
    faces = np.asarray(faces)
    if faces.dtype.kind not in "iu":
        raise ValueError(f"faces should be whole numbers, found dtype {faces.dtype}")
    return vertices, faces.astype(np.int64)


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
    directed = half_edges(faces)
    size = int(faces.max()) + 1
    key, back = directed[:, 0] * size + directed[:, 1], directed[:, 1] * size + directed[:, 0]
    border = directed[~np.isin(key, back)]
    following = dict(border.tolist())
    loops = []
    while following:
        start, here = following.popitem()
        loop = [start]
        while here != start:
            loop.append(here)
            here = following.pop(here)
        loops.append(np.array(loop))
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


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Areas (..., F) in the square of the vertices' unit."""
    return np.linalg.norm(face_normals(vertices, faces), axis=-1) / 2


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals, faces weighted by area.   vertices: (..., V, 3) -> (..., V, 3)."""
    from scipy.sparse import csr_matrix

    normals = face_normals(vertices, faces)
    count = vertices.shape[-2]
    columns = np.tile(np.arange(len(faces)), 3)
    shape = (count, len(faces))
    gather = csr_matrix((np.ones(3 * len(faces)), (faces.T.ravel(), columns)), shape=shape)
    flat = np.moveaxis(normals, -2, 0).reshape(len(faces), -1)
    summed = np.moveaxis((gather @ flat).reshape(count, *vertices.shape[:-2], 3), 0, -2)
    return summed / np.maximum(np.linalg.norm(summed, axis=-1, keepdims=True), 1e-12)


def enclosed_volume(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Volume inside the mesh, its open borders closed by fans about their centres.

    vertices: (..., V, 3).   returns (...,) in the cube of the unit; positive if normals point out.
    """
    a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
    volume = np.einsum("...fi,...fi->...", a, np.cross(b, c)) / 6
    for loop in boundary_loops(faces):
        rim = vertices[..., loop, :]
        following = np.roll(rim, -1, axis=-2)
        middle = np.broadcast_to(rim.mean(axis=-2, keepdims=True), rim.shape)
        volume = volume + np.einsum("...fi,...fi->...", middle, np.cross(following, rim)) / 6
    return volume


def check_mesh(vertices: np.ndarray, faces: np.ndarray, name: str = "mesh") -> None:
    """Raise one ValueError that names the first offence of a mesh that is not a clean manifold.

    vertices: (V, 3).   faces: (F, 3).   Checked in this order: shapes, NaN, index range, repeated
    corners, duplicate faces, zero area, edges with more than two faces or faces of unlike winding,
    vertices without faces, vertices where two fans meet.
    """

    def refuse(what):
        raise ValueError(f"{name}: {what}")

    if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) == 0:
        refuse(f"vertices should be (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        refuse(f"faces should be (F, 3), found {faces.shape}")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        refuse(f"vertex {bad.argmax()} is not finite: {vertices[bad.argmax()]}")
    bad = ((faces < 0) | (faces >= len(vertices))).any(axis=1)
    if bad.any():
        face = bad.argmax()
        refuse(f"face {face} is {faces[face].tolist()}, but there are {len(vertices)} vertices")
    bad = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    if bad.any():
        refuse(f"face {bad.argmax()} names a vertex twice: {faces[bad.argmax()].tolist()}")
    first, counts = _unique_rows(np.sort(faces, axis=1))
    if (counts > 1).any():
        refuse(
            f"face {first[counts > 1][0]} stands there twice: "
            f"{faces[first[counts > 1][0]].tolist()}"
        )
    areas = face_areas(vertices, faces)
    bad = areas <= 1e-14 * max(np.ptp(vertices, axis=0).max() ** 2, 1e-300)
    if bad.any():
        refuse(f"face {bad.argmax()} {faces[bad.argmax()].tolist()} has no area")
    directed = half_edges(faces)
    undirected = np.sort(directed, axis=1)
    first, counts = _unique_rows(undirected)
    undirected = undirected[first]
    if (counts > 2).any():
        edge = counts.argmax()
        refuse(
            f"edge {undirected[edge].tolist()} belongs to {counts[edge]} faces, at most 2 allowed"
        )
    first, repeats = _unique_rows(directed)
    if (repeats > 1).any():
        edge = directed[first[repeats.argmax()]]
        refuse(f"the two faces at edge {edge.tolist()} are wound in opposite senses")
    used = np.bincount(faces.ravel(), minlength=len(vertices))
    if (used == 0).any():
        refuse(f"vertex {(used == 0).argmax()} belongs to no face")
    on_border = np.bincount(undirected[counts == 1].ravel(), minlength=len(vertices))
    split = (on_border > 2) | _has_two_fans(faces, len(vertices))
    if split.any():
        refuse(f"two separate fans of faces meet at vertex {split.argmax()}")


def _unique_rows(rows) -> tuple[np.ndarray, np.ndarray]:
    """First index and count of each distinct row, in lexicographic order of the rows.

    rows: (N, C) not negative. One whole number per row sorts many times faster than rows do.
    """
    base = int(rows.max()) + 1
    if base ** rows.shape[1] >= 2**63:
        return np.unique(rows, axis=0, return_index=True, return_counts=True)[1:]
    keys = rows @ base ** np.arange(rows.shape[1])[::-1]
    return np.unique(keys, return_index=True, return_counts=True)[1:]


def _has_two_fans(faces, count) -> np.ndarray:
    """(V,) True where the faces around a vertex do not form one fan (components of corners)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    corner = np.arange(faces.size).reshape(faces.shape)  # corner id of (face, slot)
    tail, head = half_edges(faces).T
    order = np.concatenate([corner[:, 0], corner[:, 1], corner[:, 2]])
    after = np.concatenate([corner[:, 1], corner[:, 2], corner[:, 0]])
    key, back = tail * count + head, head * count + tail
    place = np.argsort(key)
    at = np.minimum(np.searchsorted(key[place], back), len(key) - 1)
    twin = place[at]
    has_twin = key[twin] == back
    # corners at the same vertex across a shared edge are joined
    left = np.concatenate([order[has_twin], after[has_twin]])
    right = np.concatenate([after[twin[has_twin]], order[twin[has_twin]]])
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(faces.size, faces.size))
    _, label = connected_components(graph, directed=False)
    pairs = np.unique(np.stack([faces.ravel(), label], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=count) > 1


def align_similarity(source, target, reflections: bool = False, scale: bool = True):
    """Best similarity motion of each source onto its target, in the least-squares sense.

    source, target: (..., N, 3), the same unit.   reflections: allow mirrored solutions, as
    FreiHAND's scorer does; otherwise det R = +1 (Umeyama, 1991).   scale: solve for it too.
    returns aligned (..., N, 3) = s source R^T + t and (s (...), R (..., 3, 3), t (..., 3)).
    A source whose points coincide is moved onto the target's centre (s = 0 with ``scale``).
    """
    source, target = np.asarray(source), np.asarray(target)
    if source.shape != target.shape or source.ndim < 2 or source.shape[-1] != 3:
        raise ValueError(
            f"expected two arrays (..., N, 3) alike, found {source.shape}, {target.shape}"
        )
    center_s = source.mean(axis=-2, keepdims=True)
    center_t = target.mean(axis=-2, keepdims=True)
    a, b = source - center_s, target - center_t
    u, singular, vt = np.linalg.svd(b.swapaxes(-1, -2) @ a)
    if not reflections:
        sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
        u = u.copy()
        u[..., :, 2] *= sign[..., None]
        singular = singular.copy()
        singular[..., 2] *= sign
    rotation = u @ vt
    spread = (a * a).sum(axis=(-1, -2))
    if scale:
        factor = singular.sum(axis=-1) / np.where(spread > 0, spread, 1.0)
    else:
        factor = np.ones(spread.shape)
    aligned = factor[..., None, None] * (a @ rotation.swapaxes(-1, -2)) + center_t
    shift = center_t[..., 0, :] - factor[..., None] * (
        rotation @ center_s.swapaxes(-1, -2)
    ).squeeze(-1)
    return aligned, (factor, rotation, shift)


def closest_point_on_mesh(points, vertices, faces):
    """Nearest surface point of each query point.

    points: (N, 3).   vertices: (V, 3).   faces: (F, 3).
    returns face index (N,), barycentric (N, 3) that sum to one and are not negative, the surface
    point (N, 3) and its distance (N,).
    """
    import igl

    points = np.ascontiguousarray(points, dtype=np.float64)
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    faces = np.ascontiguousarray(faces, dtype=np.int64)
    squared, face, nearest = igl.point_mesh_squared_distance(points, vertices, faces)
    a, b, c = (vertices[faces[face, i]] for i in range(3))
    e0, e1, e2 = b - a, c - a, nearest - a
    d00, d01, d11 = (e0 * e0).sum(1), (e0 * e1).sum(1), (e1 * e1).sum(1)
    d20, d21 = (e2 * e0).sum(1), (e2 * e1).sum(1)
    determinant = d00 * d11 - d01 * d01
    v = (d11 * d20 - d01 * d21) / determinant
    w = (d00 * d21 - d01 * d20) / determinant
    barycentric = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, 1)
    barycentric /= barycentric.sum(axis=1, keepdims=True)
    return face, barycentric, nearest, np.sqrt(np.maximum(squared, 0))
