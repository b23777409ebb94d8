"""Quadric edge collapse onto one of the two end points, with the topology kept.

Every surviving vertex is a vertex of the input, so a coarse level is a selection of a fine one. An
edge is collapsed only when the link condition holds (Dey, Edelsbrunner, Guha and Nekhayev 1999), so
each intermediate mesh is manifold with the Euler characteristic and the boundary loops of the
input. Costs are the quadrics of Garland and Heckbert 1997, area weighted, with planes that hold the
boundary, plus a small term that grows with the length of the edge and keeps vertices spread out.
"""

import heapq

import numpy as np
from numba import njit

from hand_lib.mesh.topology import unique_edges

LENGTH_WEIGHT = 0.3
"""Share of edge length squared (times area) in the cost; 0 is the pure quadric."""
POSED_LENGTH_WEIGHT = 2.0
"""The same with an importance, of poses: what moves matters more than what curves."""
BOUNDARY_WEIGHT = 10.0
"""Weight of the planes through boundary edges, relative to the planes of the faces."""
STRETCH_POWER = 1.5
"""Importance of a vertex grows with this power of how much the skin about it stretches."""
STRETCH_POSES = 60
"""Poses looked at to measure the stretch, evenly taken from those given."""
PASSES = np.array([[0.5, 0.15, -0.5], [0.2, 0.05, -0.8], [0.0, 0.01, -0.95], [0.0, 1e-3, -0.999]])
"""Per pass: least cosine between a face's normal before and after a collapse, least quality of a
triangle after, least cosine between neighbouring faces after (-1 is a fold). A later pass starts
only when the former finds no edge to collapse."""


def collapse_edges(vertices, faces, target: int, importance=None) -> np.ndarray:
    """Order in which edges collapse until `target` vertices are left.

    vertices: (V, 3) any unit, a manifold mesh.   faces: (F, 3) vertex indices.
    importance: (V,) factors on the cost of losing each vertex, which then also grows more with the
    length of an edge; None for ones.
    returns (n, 2) int64, one row (kept, removed) per collapse; n < V - target when the topology
    allows no further collapse.
    """
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    faces = np.ascontiguousarray(faces, dtype=np.int64)
    length_weight = LENGTH_WEIGHT if importance is None else POSED_LENGTH_WEIGHT
    importance = np.ones(len(vertices)) if importance is None else np.asarray(importance, float)
    centred = vertices - vertices.mean(axis=0)
    centred /= np.sqrt((centred**2).sum(axis=1).mean())
    return _collapse(centred, faces, target, importance, length_weight)


def stretch_importance(faces: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Importance of vertices that grows where edges change their length over poses.

    faces: (F, 3).   poses: (P, V, 3) any unit.   returns (V,) with mean one; ones if all is rigid.
    """
    poses = poses[:: max(len(poses) // STRETCH_POSES, 1)]
    edges = unique_edges(faces)
    lengths = np.linalg.norm(poses[:, edges[:, 0]] - poses[:, edges[:, 1]], axis=2)
    stretch = (lengths / lengths.mean(axis=0)).std(axis=0)  # (E,)
    degree = np.bincount(edges.ravel(), minlength=poses.shape[1])

    def gather(per_edge):  # mean over the edges at each vertex
        return np.bincount(edges.ravel(), per_edge.ravel(), len(degree)) / degree

    about = gather(np.repeat(stretch, 2))
    about = (about + gather(about[edges[:, ::-1]])) / 2  # half the neighbours' mean: no specks
    if about.mean() < 1e-6:
        return np.ones(len(about))
    importance = (about / about.mean()) ** STRETCH_POWER + 0.05
    return importance / importance.mean()


def apply_collapses(n_vertices: int, faces: np.ndarray, collapses: np.ndarray):
    """Mesh left after a sequence of collapses, in the numbering of the input.

    faces: (F, 3).   collapses: (n, 2) rows (kept, removed), in order.
    returns kept (V - n,) ascending vertex indices, faces (F', 3) in the input's numbering.
    """
    stands_for = np.arange(n_vertices)
    stands_for[collapses[:, 1]] = collapses[:, 0]
    for _ in range(n_vertices.bit_length()):  # until it is the last one that each was merged into
        stands_for = stands_for[stands_for]
    kept = np.flatnonzero(stands_for == np.arange(n_vertices))
    f = stands_for[faces]
    alive = (f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])
    return kept, f[alive]


@njit(cache=True)
def _add_plane(quadric, n, p, weight):
    """Add weight * (n . (x - p))^2 to a quadric (4, 4) over (x, y, z, 1)."""
    plane = np.array((n[0], n[1], n[2], -(n[0] * p[0] + n[1] * p[1] + n[2] * p[2])))
    quadric += (weight * plane)[:, None] * plane


@njit(cache=True)
def _cost(quadrics, areas, points, keep, remove, length_weight):
    """Quadric of both vertices at the kept one, plus the length term."""
    x = (points[keep, 0], points[keep, 1], points[keep, 2], 1.0)
    total = 0.0
    for i in range(4):
        for j in range(4):
            total += (quadrics[keep, i, j] + quadrics[remove, i, j]) * x[i] * x[j]
    dx, dy, dz = points[remove] - points[keep]
    length = dx * dx + dy * dy + dz * dz
    return max(total, 0.0) + length_weight * (areas[keep] + areas[remove]) * length


@njit(cache=True)
def _setup(points, faces):
    """Quadrics, vertex areas, boundary flags and the corners around every vertex.

    Corner k of face t is 3 t + k. Those around vertex v are a list: the first one follows entry
    3 F + v, the next one that corner, and so on until -1.
    """
    n_vertices = len(points)
    quadrics = np.zeros((n_vertices, 4, 4))
    areas = np.zeros(n_vertices)
    following = np.full(faces.size + n_vertices, -1, np.int64)
    for c in range(faces.size - 1, -1, -1):
        v = faces.size + faces[c // 3, c % 3]
        following[c], following[v] = following[v], c
    boundary = np.zeros(n_vertices, np.bool_)
    for t in range(len(faces)):
        a, b, c = faces[t]
        normal = np.cross(points[b] - points[a], points[c] - points[a])
        length = np.sqrt((normal**2).sum())
        normal /= length
        for k in range(3):
            u, w = faces[t, k], faces[t, (k + 1) % 3]
            _add_plane(quadrics[u], normal, points[a], length / 2)
            areas[u] += length / 6
            shared = 0
            corner = following[faces.size + u]
            while corner >= 0:
                shared += (faces[corner // 3] == w).sum()
                corner = following[corner]
            if shared == 1:
                boundary[u] = boundary[w] = True
                across = np.cross(points[w] - points[u], normal)
                squared = (across**2).sum()
                across /= np.sqrt(squared)
                _add_plane(quadrics[u], across, points[u], BOUNDARY_WEIGHT * squared)
                _add_plane(quadrics[w], across, points[u], BOUNDARY_WEIGHT * squared)
    return quadrics, areas, boundary, following


@njit(cache=True)
def _normal_and_quality(p, q, r):
    """Twice the area vector of a triangle, its length, and 2 sqrt(3) |n| / sum of squared edges."""
    ux, uy, uz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    vx, vy, vz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    wx, wy, wz = vx - ux, vy - uy, vz - uz
    edges = ux * ux + uy * uy + uz * uz + vx * vx + vy * vy + vz * vz + wx * wx + wy * wy + wz * wz
    return nx, ny, nz, length, 2.0 * np.sqrt(3.0) * length / max(edges, 1e-300)


@njit(cache=True)
def _allowed(points, faces, following, boundary, marks, mark, keep, remove, limits):
    """Whether moving `remove` onto `keep` leaves the same kind of manifold and flips no face."""
    if boundary[remove] and not boundary[keep]:
        return False
    shared, n_remove, n_keep, common = 0, 0, 0, 0
    corner = following[faces.size + remove]
    while corner >= 0:
        t, k = corner // 3, corner % 3
        n_remove += 1
        for m in (1, 2):
            w = faces[t, (k + m) % 3]
            marks[w] = mark
            shared += w == keep
        corner = following[corner]
    corner = following[faces.size + keep]
    while corner >= 0:
        t, k = corner // 3, corner % 3
        n_keep += 1
        for m in (1, 2):
            w = faces[t, (k + m) % 3]
            if marks[w] == mark and w != remove:
                marks[w] = mark - 1
                common += 1
        corner = following[corner]
    if common != shared or (boundary[keep] and boundary[remove] and shared != 1):
        return False
    if (shared == 2 and n_keep == 3 and n_remove == 3) or n_remove == shared == n_keep:
        return False
    corner = following[faces.size + remove]
    while corner >= 0:
        t, k = corner // 3, corner % 3
        b, c = faces[t, (k + 1) % 3], faces[t, (k + 2) % 3]
        if b != keep and c != keep:
            ox, oy, oz, old, old_quality = _normal_and_quality(points[remove], points[b], points[c])
            x, y, z, new, quality = _normal_and_quality(points[keep], points[b], points[c])
            if quality < limits[1] and quality < 0.99 * old_quality or quality < 1e-4:
                return False
            if ox * x + oy * y + oz * z < limits[0] * old * new:
                return False
            for v in (b, c):  # the faces that will share an edge with this one
                other = following[faces.size + v]
                while other >= 0:
                    o, m = other // 3, other % 3
                    p, q = faces[o, (m + 1) % 3], faces[o, (m + 2) % 3]
                    at_keep = (p == keep or q == keep) != (p == remove or q == remove)
                    if o != t and (at_keep or (v == b and (p == c or q == c))):
                        p, q = keep if p == remove else p, keep if q == remove else q
                        ox, oy, oz, norm, _ = _normal_and_quality(points[v], points[p], points[q])
                        if ox * x + oy * y + oz * z <= limits[2] * max(norm * new, 1e-300):
                            return False
                    other = following[other]
        corner = following[corner]
    return True


@njit(cache=True)
def _merge(faces, following, keep, remove):
    """Drop the faces that hold both vertices and hand the other corners of `remove` to `keep`."""
    corner = following[faces.size + remove]
    while corner >= 0:
        after, t = following[corner], corner // 3
        if (faces[t] == keep).any():
            for v in faces[t]:  # the face leaves the list of corners around v
                before = faces.size + v
                while following[before] // 3 != t:
                    before = following[before]
                following[before] = following[following[before]]
        else:
            faces[t, corner % 3] = keep
        corner = after
    last = faces.size + keep
    while following[last] >= 0:
        last = following[last]
    following[last] = following[faces.size + remove]
    following[faces.size + remove] = -1


@njit(cache=True)
def _push_edges(heap, v, both_ways, faces, following, boundary, stamps, costs):
    """Queue the collapses of the neighbours onto `v`, and of `v` onto them if `both_ways`."""
    quadrics, areas, points, weight = costs
    corner = following[faces.size + v]
    while corner >= 0:
        t, k = corner // 3, corner % 3
        # around an inner vertex the next corners are all neighbours; on a rim one is missing
        for m in range(1, 3 if boundary[v] else 2):
            w = faces[t, (k + m) % 3]
            stamp = stamps[v] + stamps[w]
            heapq.heappush(heap, (_cost(quadrics, areas, points, v, w, weight), v, w, stamp))
            if both_ways:
                heapq.heappush(heap, (_cost(quadrics, areas, points, w, v, weight), w, v, stamp))
        corner = following[corner]


@njit(cache=True)
def _collapse(points, faces, target, importance, length_weight):
    """Greedy loop: cheapest allowed collapse first; stamps tell stale queue entries."""
    faces = faces.copy()
    n = len(points)
    quadrics, areas, boundary, following = _setup(points, faces)
    for v in range(n):
        areas[v] *= importance[v]
        quadrics[v] *= importance[v]
    costs = (quadrics, areas, points, length_weight)
    stamps, marks = np.zeros(n, np.int64), np.zeros(n, np.int64)
    alive = np.ones(n, np.bool_)
    collapses = np.empty((max(n - target, 0), 2), np.int64)
    done, mark, level = 0, 0, 0
    while done < n - target and level < len(PASSES):
        heap = [(0.0, np.int64(0), np.int64(0), np.int64(-1))]  # never valid: tells numba the type
        for v in range(n):
            if alive[v]:
                _push_edges(heap, v, False, faces, following, boundary, stamps, costs)
        before = done
        while done < n - target and len(heap) > 0:
            _, keep, remove, stamp = heapq.heappop(heap)
            if not (alive[keep] and alive[remove]) or stamps[keep] + stamps[remove] != stamp:
                continue
            mark += 2
            limits = PASSES[level]
            if not _allowed(points, faces, following, boundary, marks, mark, keep, remove, limits):
                continue
            _merge(faces, following, keep, remove)
            quadrics[keep] += quadrics[remove]
            areas[keep] += areas[remove]
            alive[remove] = False
            stamps[keep] += 1
            collapses[done, 0], collapses[done, 1] = keep, remove
            done += 1
            _push_edges(heap, keep, True, faces, following, boundary, stamps, costs)
        if done == before:
            level += 1
    return collapses[:done]
