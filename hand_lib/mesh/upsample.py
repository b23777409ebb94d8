"""Matrices that carry a coarse level of a mesh back to the finer one.

Fitted: every fine vertex is a combination of at most 8 coarse vertices whose weights sum to one
(so any affine motion of the mesh commutes with the matrix), put the vertex exactly where it rests,
and err least over a set of poses. Barycentric: the closest point on the coarse surface, the field's
habit since Ranjan, Bolkart, Sanyal and Black 2018.
"""

import heapq

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix

from hand_lib.mesh.topology import barycentric_at, closest_point_on_mesh, half_edges

STENCIL = 8
"""Most coarse vertices that one fine vertex may use."""
CANDIDATES = 20
"""Geodesically nearest coarse vertices from which poses choose the stencil."""
RIDGE = 1e-4
"""Cost of weight squared times geodesic distance squared, beside the mean squared error."""


def fitted_upsampling(vertices, faces, kept, poses=None) -> csr_matrix:
    """Affine weights of the fine vertices, for each the minimum over w of

        mean over poses |x_p - sum_j w_j c_jp|^2 + RIDGE sum_j w_j^2 d_j^2
        subject to  sum_j w_j = 1  and  sum_j w_j c_j = x  at rest,

    with j over the coarse vertices c nearest along edges (d): CANDIDATES of them, thinned to
    STENCIL by dropping, one at a time, the one whose loss raises the minimum least. Without poses
    the nearest STENCIL.

    vertices: (V, 3) at rest, any unit.   faces: (F, 3).   kept: (V',) indices of the coarse ones.
    poses: (V, P, 3) float32, vertex first, or None for the ridge alone.
    returns (V, V') CSR; kept rows are one-hot.
    """
    n = len(vertices)
    directed = half_edges(faces)
    directed = np.concatenate([directed, directed[:, ::-1]])
    graph = csr_matrix((np.ones(len(directed)), directed.T), shape=(n, n))
    row = np.repeat(np.arange(n), np.diff(graph.indptr))
    lengths = np.linalg.norm(vertices[row] - vertices[graph.indices], axis=1)
    coarse = np.full(n, -1, np.int64)
    coarse[kept] = np.arange(len(kept))
    moving = np.zeros((n, 0), np.float32) if poses is None else poses.reshape(n, -1)
    starts, ends = graph.indptr.astype(np.int64), graph.indices.astype(np.int64)
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    candidates = STENCIL if poses is None else CANDIDATES
    counts, columns, weights = _fit(vertices, moving, starts, ends, lengths, coarse, candidates)
    used = np.arange(STENCIL) < counts[:, None]
    starts = np.concatenate([[0], np.cumsum(counts)])
    up = csr_matrix((weights[used], columns[used], starts), shape=(n, len(kept)))
    up.sort_indices()
    return up


def barycentric_upsampling(points, coarse_vertices, coarse_faces, nearest=closest_point_on_mesh):
    """Weights of each point's closest point on the coarse surface.

    points: (V, 3).   coarse_vertices: (V', 3).   coarse_faces: (F', 3).   nearest: who answers the
    query, with the signature of ``closest_point_on_mesh``.
    returns (V, V') CSR, at most 3 non-zeros a row.
    """
    face, barycentric = nearest(points, coarse_vertices, coarse_faces)[:2]
    barycentric = np.where(barycentric < 1e-9, 0.0, barycentric)
    barycentric = barycentric / barycentric.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), 3)
    shape = (len(points), len(coarse_vertices))
    up = csr_matrix((barycentric.ravel(), (rows, coarse_faces[face].ravel())), shape=shape)
    up.eliminate_zeros()
    up.sort_indices()
    return up


def psbody_closest_point():
    """psbody-mesh's AABB tree, called as ``closest_point_on_mesh`` is; without distances."""
    try:
        from psbody.mesh import Mesh
    except ImportError as error:
        raise ImportError(
            'backend="psbody" needs psbody-mesh, which is not importable here; install it with '
            '"pip install git+https://github.com/MarilynKeller/mesh" (data/README.md says more), '
            'or leave backend="native", which needs nothing and gives the same matrices'
        ) from error

    def nearest(points, vertices, faces):
        tree = Mesh(v=vertices, f=faces.astype(np.uint32)).compute_aabb_tree()
        face, _, found = tree.nearest(points, nearest_part=True)
        face = np.asarray(face).ravel().astype(np.int64)
        return face, barycentric_at(found, vertices, faces[face]), found

    return nearest


@njit(cache=True)
def _nearest_coarse(source, starts, ends, lengths, coarse, wanted, distance, touched):
    """Dijkstra from `source` until `wanted` coarse vertices are settled: indices, distances."""
    found = np.empty(wanted, np.int64)
    reached = np.empty(wanted)
    count, n_touched = 0, 1
    distance[source] = 0.0
    touched[0] = source
    heap = [(0.0, source)]
    while len(heap) > 0 and count < wanted:
        d, v = heapq.heappop(heap)
        if d > distance[v]:
            continue
        if coarse[v] >= 0:
            found[count], reached[count] = v, d
            count += 1
        for e in range(starts[v], starts[v + 1]):
            w = ends[e]
            if d + lengths[e] < distance[w]:
                if distance[w] == np.inf:
                    touched[n_touched] = w
                    n_touched += 1
                distance[w] = d + lengths[e]
                heapq.heappush(heap, (distance[w], w))
    for i in range(n_touched):
        distance[touched[i]] = np.inf
    return found[:count], reached[:count]


@njit(cache=True)
def _solve(gram, offsets, distances):
    """Weights by the inverse of the optimality conditions, which loses one row per dropped vertex.

    With M the matrix of the conditions, dropping candidate j turns the inverse N of M into
    N - N_j N_j^T / N_jj and raises the minimum by w_j^2 / N_jj.
    """
    k = len(distances)
    reach = distances.max()
    system = np.zeros((k + 4, k + 4))
    system[:k, :k] = gram / (reach * reach)
    for a in range(k):
        system[a, a] += RIDGE * (distances[a] / reach) ** 2 + 1e-12
    system[:k, k], system[:k, k + 1 :] = 1.0, offsets / reach
    system[k:, :k] = system[:k, k:].T
    for c in range(k + 1, k + 4):  # a plane of candidates cannot reach off it: then least squares
        system[c, c] = -1e-11
    inverse = np.linalg.inv(system)
    solution = inverse[:k, k].copy()
    used = np.ones(k, np.bool_)
    for _ in range(k - STENCIL):
        losses = solution * solution / np.diag(inverse)[:k]
        worst = np.where(used, losses, np.inf).argmin()
        used[worst] = False
        pivot = inverse[worst, worst]
        moved = solution[worst] / pivot
        for a in range(k):
            if used[a]:
                share = inverse[a, worst] / pivot
                solution[a] -= inverse[a, worst] * moved
                for b in range(k):
                    inverse[a, b] -= share * inverse[worst, b]
    weights = np.where(used, solution, 0.0)
    return used, weights / weights.sum()


@njit(cache=True)
def _fit(vertices, moving, starts, ends, lengths, coarse, candidates):
    n = len(vertices)
    counts = np.zeros(n, np.int64)
    columns = np.zeros((n, STENCIL), np.int64)
    all_weights = np.zeros((n, STENCIL))
    distance = np.full(n, np.inf)
    touched = np.empty(n, np.int64)
    for v in range(n):
        if coarse[v] >= 0:
            counts[v], columns[v, 0], all_weights[v, 0] = 1, coarse[v], 1.0
            continue
        found, reached = _nearest_coarse(
            v, starts, ends, lengths, coarse, candidates, distance, touched
        )
        moves = moving[found] - moving[v]
        gram = moves @ moves.T / max(moves.shape[1] // 3, 1)  # mean over poses
        offsets = vertices[found] - vertices[v]
        used, weights = _solve(gram, offsets, reached)
        counts[v] = used.sum()
        columns[v, : counts[v]] = coarse[found[used]]
        all_weights[v, : counts[v]] = weights[used]
    return counts, columns, all_weights
