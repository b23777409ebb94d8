"""From the dense surface to exactly 778 vertices, 1538 faces and a rim of 16 (build time only).

Sites are placed first: rings round every digit, tight at the joints and staggered in between; the
rim; and the rest spread by Lloyd's relaxation with a density that is high where the hand bends.
The mesh is the dual of their Voronoi diagram on the dense surface, so V sites and a rim of R give
F = 2 V - 2 - R faces whatever their places. Millimetres in the rest frame of ``anatomy``.
"""

import heapq

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS
from hand_lib.mesh.topology import boundary_loops, unique_edges
from template.build import surface as build_surface

VERTICES, RIM = 778, 16
_AROUND = {"thumb": 9, "index": 8, "middle": 8, "ring": 8, "little": 8}
_SPACING = {"thumb": 7.4, "index": 6.7, "middle": 6.9, "ring": 6.7, "little": 6.1}
_START = {"thumb": 1.07, "index": 0.58, "middle": 0.56, "ring": 0.56, "little": 0.60}


def _stations(name: str) -> tuple[list[float], NDArray]:
    """Distances along a digit's chain (mm) at which a ring is placed; and the joints' distances."""
    chain = anatomy.REST_CHAIN[name] * 1000.0
    marks = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(chain, axis=0), axis=1))]
    gap = _SPACING[name]
    tight = 0.76 * gap
    knots = [_START[name] * marks[1]]
    for joint in (1, 2):
        near = [marks[joint] + k * tight for k in (-1, 0, 1)]
        knots += [s for s in near if s > knots[0] + 0.5 * gap]
    knots.append(marks[3] - 0.50 * build_surface.BREADTHS[name][3])
    stations = [knots[0]]
    for end in knots[1:]:
        parts = max(int(np.round((end - stations[-1]) / gap)), 1)
        stations += list(np.linspace(stations[-1], end, parts + 1)[1:])
    return stations, marks


def _along_chain(name: str, marks: NDArray, s: float):
    """Centre and frame (columns along, across, dorsal) of the ring at distance s."""
    chain = anatomy.REST_CHAIN[name] * 1000.0
    k = int(np.clip(np.searchsorted(marks, s, side="right") - 1, 0, 2))
    frames = [anatomy.FRAMES[j] for j in MANO_FINGERS[name]]
    centre = chain[k] + frames[k][:, 0] * (s - marks[k])
    other = k - 1 if (s - marks[k]) < 6.0 else min(k + 1, 2)
    near = marks[k] if other < k else marks[k + 1]
    blend = 0.5 * np.clip(1 - abs(s - near) / 6.0, 0, 1) if other >= 0 else 0.0
    frame = (1 - blend) * frames[k] + blend * frames[max(other, 0)]
    return centre, np.linalg.qr(frame)[0] * np.sign(np.diag(np.linalg.qr(frame)[1]))


def _cast(centre, directions, rows) -> NDArray:
    """First points where rays from inside leave the skin, by sphere tracing and bisection."""
    reach = np.linspace(1.0, 30.0, 117)
    points = centre + reach[None, :, None] * directions[:, None]
    inside = build_surface.distance(points.reshape(-1, 3), rows).reshape(len(directions), -1) < 0
    leave = np.where(inside.all(1), len(reach) - 1, np.argmin(inside, axis=1))
    high = reach[leave]
    low = np.maximum(high - 0.25, 0.0)
    for _ in range(18):
        middle = 0.5 * (low + high)
        out = build_surface.distance(centre + middle[:, None] * directions, rows) > 0
        high, low = np.where(out, middle, high), np.where(out, low, middle)
    return centre + high[:, None] * directions


def digit_sites(rows) -> tuple[NDArray, dict[str, int]]:
    """Ring points of all digits (N, 3) and, per digit, the row of its tip."""
    sites, tips = [], {}
    for name in FINGER_NAMES:
        around = _AROUND[name]
        stations, marks = _stations(name)
        for turn, s in enumerate(stations):
            centre, frame = _along_chain(name, marks, s)
            angle = (
                2 * np.pi * (np.arange(around) + 0.5 + 0.16 * (turn - len(stations) + 2)) / around
            )
            direction = np.cos(angle)[:, None] * frame[:, 2] + np.sin(angle)[:, None] * frame[:, 1]
            sites.append(_cast(centre, direction, rows))
        centre, frame = _along_chain(name, marks, stations[-1])
        count = 5
        angle = 2 * np.pi * (np.arange(count) + 0.25 + 0.5 * (len(stations) % 2)) / count
        tilt = np.deg2rad(39.0)
        ring = np.cos(angle)[:, None] * frame[:, 2] + np.sin(angle)[:, None] * frame[:, 1]
        centre = centre - frame[:, 0] * 0.35 * build_surface.BREADTHS[name][3]
        sites.append(_cast(centre, np.cos(tilt) * frame[:, 0] + np.sin(tilt) * ring, rows))
        tips[name] = sum(len(s) for s in sites)
        sites.append(_cast(centre, frame[:, :1].T, rows))
    return np.concatenate(sites), tips


def _target_edge(points: NDArray) -> NDArray:
    """Wanted edge length (mm) away from the digits' rings: short at knuckles and webs."""
    edge = np.full(len(points), 10.5)
    fingers = ("index", "middle", "ring", "little")
    chains = {n: anatomy.REST_CHAIN[n] * 1000.0 for n in FINGER_NAMES}

    def refine(centre, radius, least):
        far = np.linalg.norm(points - centre, axis=1) / radius
        np.minimum(edge, least + (10.5 - least) * np.clip(far - 0.6, 0, 1) ** 1.0, out=edge)

    for name in fingers:
        base, pip = chains[name][:2]
        refine(base, 22.0, 7.6)
        refine(base + 0.42 * (pip - base), 18.0, 6.2)
    for a, b in zip(fingers[:-1], fingers[1:], strict=True):
        web = 0.5 * (chains[a][0] + chains[b][0]) + 0.42 * 0.5 * (
            chains[a][1] - chains[a][0] + chains[b][1] - chains[b][0]
        )
        refine(web, 16.0, 5.2)
    refine(chains["thumb"][1], 26.0, 7.2)
    refine(0.5 * (chains["thumb"][1] + chains["index"][0]) + (-8, -4, 6), 26.0, 7.4)
    refine(chains["thumb"][0], 30.0, 8.6)
    return edge


@njit(cache=True)
def _grow(points, start, neighbours, sites, labels):
    """Grow cells from labelled vertices in order of the distance to their site."""
    queue = [(0.0, 0, 0)]
    queue.pop()
    done = np.zeros(len(points), np.bool_)
    for v in range(len(points)):
        if labels[v] >= 0:
            d = 0.0
            for k in range(3):
                d += (points[v, k] - sites[labels[v], k]) ** 2
            heapq.heappush(queue, (d, v, labels[v]))
    fixed = labels >= 0
    while len(queue) > 0:
        d, v, label = heapq.heappop(queue)
        if done[v] or (fixed[v] and labels[v] != label):
            continue
        done[v] = True
        labels[v] = label
        for e in range(start[v], start[v + 1]):
            w = neighbours[e]
            if not done[w] and not fixed[w]:
                dist = 0.0
                for k in range(3):
                    dist += (points[w, k] - sites[label, k]) ** 2
                heapq.heappush(queue, (dist, w, label))
    return labels


class _Voronoi:
    """Cells of sites on the dense surface; the first RIM sites own the boundary."""

    def __init__(self, vertices, faces):
        self.vertices, self.faces = vertices, faces
        edges = unique_edges(faces)
        both = np.concatenate([edges, edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        self.start = np.searchsorted(both[:, 0], np.arange(len(vertices) + 1))
        self.neighbours = np.ascontiguousarray(both[:, 1])
        self.tree = cKDTree(vertices)
        tri = vertices[faces]
        area = 0.5 * np.linalg.norm(np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]), axis=1)
        self.area = np.bincount(faces.ravel(), np.repeat(area / 3, 3), len(vertices))
        (loop,) = boundary_loops(faces)
        middle = vertices[loop].mean(0)
        turn = np.arctan2(vertices[loop][:, 2] - middle[2], vertices[loop][:, 1] - middle[1])
        loop = np.roll(loop, -int(np.argmin(np.abs(turn))))
        step = np.linalg.norm(vertices[np.roll(loop, -1)] - vertices[loop], axis=1)
        mark = np.r_[0.0, np.cumsum(step)]
        wanted = np.arange(RIM) * mark[-1] / RIM
        corner = np.searchsorted(mark, wanted - 1e-9)
        self.rim = vertices[loop[corner]]
        nearest = np.round(mark[:-1] / mark[-1] * RIM).astype(int) % RIM
        self.loop, self.rim_label = loop, nearest

    def labels(self, sites) -> NDArray[np.int64]:
        labels = np.full(len(self.vertices), -1, dtype=np.int64)
        _, near = self.tree.query(sites[RIM:])
        labels[near] = np.arange(RIM, len(sites))
        labels[self.loop] = self.rim_label
        return _grow(self.vertices, self.start, self.neighbours, sites, labels)

    def dual(self, labels) -> NDArray[np.int64]:
        corner = labels[self.faces]
        three = (
            (corner[:, 0] != corner[:, 1])
            & (corner[:, 1] != corner[:, 2])
            & (corner[:, 2] != corner[:, 0])
        )
        return corner[three]


def place_sites(cells: _Voronoi, rows, rounds: int = 60, seed: int = 3):
    """Rim, rings and relaxed sites (778, 3); fixed mask; the row of each digit's tip."""
    rings, tips = digit_sites(rows)
    rings = rings + 0.0
    free = VERTICES - RIM - len(rings)
    edge = _target_edge(cells.vertices)
    weight = cells.area * edge**-4.0
    fixed = np.concatenate([cells.rim, rings])
    labels = cells.labels(fixed)
    room = np.linalg.norm(cells.vertices - fixed[labels], axis=1) > 0.7 * edge
    rng = np.random.default_rng(seed)
    chance = np.where(room, cells.area * edge**-2.0, 0.0)
    picked = rng.choice(len(chance), size=free, replace=False, p=chance / chance.sum())
    sites = np.concatenate([fixed, cells.vertices[picked]])
    for _ in range(rounds):
        labels = cells.labels(sites)
        total = np.bincount(labels, weight, VERTICES)
        centre = np.stack(
            [np.bincount(labels, weight * cells.vertices[:, k], VERTICES) for k in range(3)], 1
        )
        centre /= total[:, None]
        moved = sites[len(fixed) :] + 1.4 * (centre - sites)[len(fixed) :]
        _, near = cells.tree.query(moved)
        sites[len(fixed) :] = cells.vertices[near]
    is_fixed = np.arange(VERTICES) < len(fixed)
    return sites, is_fixed, {name: RIM + row for name, row in tips.items()}


def flip_edges(vertices, faces, rounds: int = 6) -> NDArray[np.int64]:
    """Flip interior edges while the sum of opposite angles exceeds pi (Delaunay)."""
    faces = faces.copy()
    for _ in range(rounds):
        owner: dict[tuple[int, int], tuple[int, int]] = {}
        for f, face in enumerate(faces):
            for k in range(3):
                owner[(int(face[k]), int(face[(k + 1) % 3]))] = (f, int(face[(k + 2) % 3]))
        edges = set(owner)
        touched: set[int] = set()
        flips = 0
        for (a, b), (f, c) in sorted(owner.items()):
            if a > b or (b, a) not in owner:
                continue
            g, d = owner[(b, a)]
            if f in touched or g in touched or (c, d) in edges or (d, c) in edges:
                continue
            angle = sum(_angle(vertices, p, a, b) for p in (c, d))
            flat = _normal(vertices, a, d, c) @ _normal(vertices, d, b, c)
            if angle > np.pi + 0.01 and flat > 0.3:
                faces[f], faces[g] = (a, d, c), (d, b, c)
                edges |= {(c, d), (d, c)}
                touched |= {f, g}
                flips += 1
        if flips == 0:
            break
    return faces


def _angle(v, p, a, b):
    x, y = v[a] - v[p], v[b] - v[p]
    return np.arccos(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _normal(v, a, b, c):
    n = np.cross(v[b] - v[a], v[c] - v[a])
    return n / max(np.linalg.norm(n), 1e-12)


def relax(vertices, faces, movable, rows, rounds: int = 12) -> NDArray:
    """Tangential smoothing of the free vertices, each round projected back onto the skin."""
    edges = unique_edges(faces)
    vertices = vertices.copy()
    for _ in range(rounds):
        total, count = np.zeros_like(vertices), np.zeros(len(vertices))
        for a, b in (edges.T, edges.T[::-1]):
            np.add.at(total, a, vertices[b])
            np.add.at(count, a, 1)
        step = total / count[:, None] - vertices
        normal = build_surface.gradient(vertices, rows)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        step -= (step * normal).sum(1, keepdims=True) * normal
        vertices[movable] += 0.25 * step[movable]
        vertices[movable] = build_surface.project(vertices[movable], rows, rounds=2)
    return vertices


def build_mesh(dense_vertices, dense_faces):
    """The rest mesh: vertices (778, 3) mm, faces (1538, 3), and each digit's tip vertex."""
    rows = build_surface.primitives()
    cells = _Voronoi(dense_vertices, dense_faces)
    sites, fixed, tips = place_sites(cells, rows)
    faces = cells.dual(cells.labels(sites))
    vertices = sites.copy()
    vertices[RIM:] = build_surface.project(sites[RIM:], rows, rounds=4)
    expected = 2 * VERTICES - 2 - RIM
    edges = unique_edges(faces)
    if len(faces) != expected or len(edges) != VERTICES + expected - 1:
        raise ValueError(f"expected {expected} faces, found {len(faces)} and {len(edges)} edges")
    faces = flip_edges(vertices, faces)
    vertices = relax(vertices, faces, ~fixed, rows)
    return vertices, flip_edges(vertices, faces), tips
