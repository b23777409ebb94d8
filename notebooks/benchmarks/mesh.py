"""What levels and spirals cost: ours against the field's way, side by side in one process.

The field's way is written here from its published procedure: a Python heap of edges whose collapses
scan all faces, one least-squares problem per vertex, and spirals walked on Python lists with a new
search tree for every short one. ``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio.
"""

import heapq

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from benchmarks.stopwatch import milliseconds, row
from hand_lib.mesh.hierarchy import build_hierarchy, level_sizes
from hand_lib.mesh.spirals import corners, extract_spirals, rings
from hand_lib.mesh.topology import closest_point_on_mesh, face_normals, unique_edges


def rows(model=None, repeats: int = 5, big: bool = True) -> list[dict]:
    """The table of this file.

    model: a ``HandModel``, None for the built-in one.   repeats: runs per median.
    big: also decimate a hand cut into more than 100,000 vertices (some seconds).
    returns dicts: what, ours_ms, theirs_ms (None where nobody else was run), ratio.
    """
    from hand_lib.hand.model import HIERARCHY_POSES, HandModel, posed_vertices

    model = model or HandModel.builtin()
    vertices, faces = np.asarray(model.vertices, dtype=np.float64), np.asarray(model.faces)
    poses = posed_vertices(model, HIERARCHY_POSES)
    hierarchy = build_hierarchy(vertices, faces)
    levels = list(zip(hierarchy.vertices[:4], hierarchy.faces[:4], strict=True))
    (field,) = milliseconds([lambda: field_hierarchy(vertices, faces, (2, 2, 2, 2))], 1)
    (walk,) = milliseconds([lambda: [field_spirals(v, f, 27) for v, f in levels]], 1)
    ours = (
        lambda: build_hierarchy(vertices, faces),
        lambda: build_hierarchy(vertices, faces, poses=poses),
        lambda: [extract_spirals(v, f, 27) for v, f in levels],
    )
    plain, fitted, spirals = milliseconds(ours, repeats)
    table = [
        row("four levels with up-sampling, plain mesh", plain, field),
        row(f"four levels with up-sampling, fitted on {len(poses)} poses", fitted, field),
        row("spirals of length 27 on four levels", spirals, walk),
    ]
    if big:
        fine = split_faces(vertices, faces, 12)
        (spent,) = milliseconds([lambda: build_hierarchy(*fine)], 1)
        share = spent / len(fine[0]) / (plain / len(vertices))
        what = f"{len(fine[0])} vertices to 1/16 ({share:.2f} x the hand's cost per vertex)"
        table.append(row(what, spent))
    return table


def split_faces(vertices, faces, parts: int):
    """Every edge cut into equal parts, every face into parts^2: (V', 3), (F parts^2, 3)."""
    grid = [(i, j) for i in range(parts + 1) for j in range(parts + 1 - i)]
    at = {ij: k for k, ij in enumerate(grid)}
    i, j = np.array(grid).T
    weights = np.stack([parts - i - j, i, j], axis=1) / parts
    points = np.einsum("ka,fac->fkc", weights, vertices[faces]).reshape(-1, 3)
    up = [(at[i, j], at[i + 1, j], at[i, j + 1]) for i, j in grid if i + j < parts]
    down = [(at[i + 1, j], at[i + 1, j + 1], at[i, j + 1]) for i, j in grid if i + j < parts - 1]
    corners = np.arange(len(faces))[:, None, None] * len(grid) + np.array(up + down)
    size = np.ptp(vertices, axis=0).max()
    _, first, merged = np.unique(
        np.round(points / size * 1e8).astype(np.int64),
        axis=0, return_index=True, return_inverse=True,
    )  # fmt: skip
    return points[first], merged.ravel()[corners.reshape(-1, 3)]


def field_hierarchy(vertices, faces, factors):
    """Levels by a heap in Python and scans over all faces; weights by least squares per vertex.

    returns per level vertices, faces and up matrices, as in a ``transform.pkl``.
    """
    levels, ups = [(vertices, faces)], []
    for size in level_sizes(len(vertices), factors)[1:]:
        v, f = levels[-1]
        quadrics = _field_quadrics(v, f)
        heap = [_field_entry(v, quadrics, a, b) for a, b in unique_edges(f).tolist()]
        heapq.heapify(heap)
        left = len(v)
        while left > size and heap:
            cost, a, b = heapq.heappop(heap)
            now = _field_entry(v, quadrics, a, b)
            if now[0] > cost:
                heapq.heappush(heap, now)
                continue
            keep, gone = now[1:]
            heap = [
                (c, keep if x == gone else x, keep if y == gone else y)
                for c, x, y in heap
                if {x, y} != {keep, gone}
            ]
            heapq.heapify(heap)
            quadrics[keep] = quadrics[keep] + quadrics[gone]
            f = np.where(f == gone, keep, f)
            f = f[(f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])]
            left = len(np.unique(f))
        kept = np.unique(f)
        coarse = np.searchsorted(kept, f)
        ups.append(_field_weights(v, v[kept], coarse))
        levels.append((v[kept], coarse))
    return levels, ups


def _field_quadrics(vertices, faces):
    normals = face_normals(vertices, faces)
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    planes = np.column_stack([normals, -(normals * vertices[faces[:, 0]]).sum(axis=1)])
    quadrics = np.zeros((len(vertices), 4, 4))
    for face, plane in zip(faces, planes, strict=True):
        for v in face:
            quadrics[v] += np.outer(plane, plane)
    return quadrics


def _field_entry(vertices, quadrics, a, b):
    total = quadrics[a] + quadrics[b]
    at_a, at_b = (np.append(vertices[v], 1) for v in (a, b))
    cost_a, cost_b = at_a @ total @ at_a, at_b @ total @ at_b
    return (cost_a, a, b) if cost_a < cost_b else (cost_b, b, a)


def _field_weights(points, vertices, faces):
    face, _, nearest, _ = closest_point_on_mesh(points, vertices, faces)
    rows, columns, values = [], [], []
    for v in range(len(points)):
        corners = faces[face[v]]
        weights = np.linalg.lstsq(vertices[corners].T, nearest[v], rcond=None)[0]
        rows += [v] * 3
        columns += corners.tolist()
        values += weights.tolist()
    return csr_matrix((values, (rows, columns)), shape=(len(points), len(vertices)))


def field_spirals(vertices, faces, length):
    """Spirals on Python lists, membership by search, a new tree for every short spiral."""
    starts, ends = rings(*corners(faces, len(vertices)))
    near = [ends[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]

    def next_ring(last, others):
        found = []
        for u in last:
            touch = [i for i, w in enumerate(near[u]) if w in last]
            turn = touch[0] + 1 if touch else 0
            for w in near[u][turn:] + near[u][:turn]:
                if w not in last and w not in others and w not in found:
                    found.append(w)
        return found

    spirals = []
    for v in range(len(vertices)):
        spiral, last = [v, *near[v]], near[v]
        following = next_ring(last, [v])
        while following and len(spiral) + len(following) < length:
            last = following
            spiral, following = spiral + last, next_ring(last, spiral)
        if following:
            spiral += following
        else:
            spiral = cKDTree(vertices).query(vertices[v], k=length)[1].tolist()
        spirals.append(spiral[:length])
    return np.array(spirals)
