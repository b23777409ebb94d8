"""The built-in hand's surface as an implicit function (build time only).

The skin is the zero level of a smooth union of round cones and ellipsoids, each fixed to one bone,
so the same function also describes the posed hand (the field of implicit skinning: Vaillant et
al. 2013). Lengths in this file are millimetres in the rest frame of ``anatomy``.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS

WRIST_CUT_MM = -24.0
"""x of the planar rim behind the wrist."""

_PALM, _JOIN_FINGER, _JOIN_THUMB = 0, 4.5, 9.0
_BLEND = np.array([9.0, 2.2, 2.2, 2.2, 2.2, 3.0])
_GROUPS = {"palm": 0, "index": 1, "middle": 2, "ring": 3, "little": 4, "thumb": 5}

BREADTHS = {name: np.array(half) * 1000.0 for name, half in anatomy.HALF_BREADTHS.items()}
_DEPTH = 0.90  # depth over breadth of a finger


class _Field:
    """Collects primitives: a round cone seen through a frame whose axes are scaled."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def cone(self, bone, group, a, b, ra, rb, frame=None, depth=1.0):
        """A round cone from a to b; ``depth`` flattens it along the frame's third axis."""
        frame = np.eye(3) if frame is None else frame
        self._add(bone, group, a, b, ra, rb, frame, (1.0, 1.0, depth))

    def ellipsoid(self, bone, group, centre, radii, frame=None):
        """An ellipsoid with semi-axes ``radii`` along the columns of ``frame``."""
        frame = np.eye(3) if frame is None else frame
        radii = np.asarray(radii, float)
        least = radii.min()
        self._add(bone, group, centre, centre, least, least, frame, radii / least)

    def _add(self, bone, group, a, b, ra, rb, frame, scale):
        scale = np.asarray(scale, float)
        matrix = (frame / scale).T  # rows: scaled axes
        a, b = np.asarray(a, float), np.asarray(b, float)
        row = np.r_[bone, _GROUPS[group], matrix.ravel(), a, matrix @ (b - a), ra, rb, scale.min()]
        self.rows.append(row)


def _digit(field: _Field, name: str) -> None:
    """Phalanges, knuckles, pads and the flattened nail bed of one digit."""
    joints = MANO_FINGERS[name]
    points = anatomy.REST_CHAIN[name] * 1000.0  # (4, 3) base, ..., tip of the bone
    radii = BREADTHS[name]
    thumb = name == "thumb"
    for i, bone in enumerate(joints):
        frame = anatomy.FRAMES[bone]
        along, across, dorsal = frame.T
        a, b = points[i], points[i + 1]
        length = np.linalg.norm(b - a)
        ra, rb = radii[i], radii[i + 1]
        if i == 2:  # the pulp ends at the tip, the bone a little before
            b = a + along * (length - rb * 0.78) - dorsal * rb * 0.10
        waist = 0.5 * (ra + rb) * (0.92, 0.93, 0.98)[i]  # a finger is thickest at its joints
        middle = 0.5 * (a + b)
        depth = _DEPTH if i < 2 else 0.86
        if thumb and i == 0:
            field.cone(bone, name, a + along * 6, b, 12.0, rb * 1.0, frame, 0.95)
            field.ellipsoid(bone, name, a + along * 24 - dorsal * 5.5, (23, 12.5, 11), frame)
            continue
        field.cone(bone, name, a, middle, ra * 0.985, waist, frame, depth)
        field.cone(bone, name, middle, b, waist, rb * 0.985, frame, depth)
        if i < 2:  # palmar pad of the phalanx
            pad = middle - dorsal * (0.30 * waist) + along * (0.02 * length)
            field.ellipsoid(bone, name, pad, (0.38 * length, 0.78 * waist, 0.74 * waist), frame)
            knuckle = b + dorsal * (0.20 * rb) - along * 0.5
            field.ellipsoid(bone, name, knuckle, (0.85 * rb, 0.80 * rb, 0.72 * rb), frame)
        else:  # finger pulp and nail bed
            pulp = a + along * (0.56 * length) - dorsal * (0.26 * rb)
            field.ellipsoid(bone, name, pulp, (0.40 * length, 1.02 * rb, 0.92 * rb), frame)
            nail = a + along * (0.58 * length) + dorsal * (0.12 * rb)
            field.ellipsoid(bone, name, nail, (0.40 * length, 1.02 * rb, 0.70 * rb), frame)


def _palm(field: _Field) -> None:
    chain = {name: anatomy.REST_CHAIN[name] * 1000.0 for name in FINGER_NAMES}
    for name in ("index", "middle", "ring", "little"):
        head = chain[name][0]
        start = np.array([10.0, head[1] * 0.52, -1.2])
        radius = BREADTHS[name][0]
        tilt = anatomy.FRAMES[MANO_FINGERS[name][0]]
        field.cone(0, "palm", start, head - (4, 0, 1.2), 15.0, radius + 0.3, tilt, 1.0)
        field.ellipsoid(0, "palm", head + (-3, 0, 2.4), (13.0, 5.8, 8.2))  # knuckle
        field.ellipsoid(0, "palm", head + (-2, 0, -6.4), (14, 8.5, 5.0))  # distal pad
    fingers = ("index", "middle", "ring", "little")
    for first, second in zip(fingers[:-1], fingers[1:], strict=True):
        a, b = chain[first], chain[second]
        low = a[0] + 0.13 * (a[1] - a[0]) - (0, 0, 2.5), b[0] + 0.13 * (b[1] - b[0]) - (0, 0, 2.5)
        field.cone(0, "palm", low[0], low[1], 6.0, 6.0)
        field.cone(0, "palm", a[0] - (7, 0, 2), b[0] - (7, 0, 2), 9.0, 9.0)
    tilt = anatomy.FRAMES[13]
    field.ellipsoid(0, "palm", (40, 20, -11), (25, 14, 11.5), tilt)  # thenar eminence
    web = 0.5 * (chain["thumb"][0] + chain["thumb"][1])
    field.cone(0, "palm", web + (6, -4, 2), chain["index"][0] + (-26, 2, -3), 9.0, 8.5)
    field.ellipsoid(0, "palm", (35, -27, -8.5), (35, 14, 12))  # hypothenar eminence
    field.cone(0, "palm", (-90, 0, -2.5), (-4, 0, -2.5), 31.0, 26.5, np.eye(3), 0.68)
    field.cone(0, "palm", (-4, 0, -2.5), (16, -1, -2.5), 26.5, 27.0, np.eye(3), 0.66)


def primitives() -> NDArray[np.float64]:
    """(P, 20): bone, blend group, 3x3 matrix, origin, axis (scaled), two radii, distance scale."""
    field = _Field()
    _palm(field)
    for name in FINGER_NAMES:
        _digit(field, name)
    return np.array(field.rows)


@njit(cache=True)
def _smooth_min(a, b, k):
    h = 0.5 + 0.5 * (b - a) / k
    if h <= 0.0:
        return b
    if h >= 1.0:
        return a
    return b + (a - b) * h - k * h * (1.0 - h)


@njit(cache=True)
def _distance(points, rows, inverse, blend, join_finger, join_thumb):
    out = np.empty(len(points))
    part = np.empty(6)
    for n in range(len(points)):
        part[:] = 1e9
        for r in rows:
            bone, group = int(r[0]), int(r[1])
            m = inverse[bone]
            px = m[0, 0] * points[n, 0] + m[0, 1] * points[n, 1] + m[0, 2] * points[n, 2] + m[0, 3]
            py = m[1, 0] * points[n, 0] + m[1, 1] * points[n, 1] + m[1, 2] * points[n, 2] + m[1, 3]
            pz = m[2, 0] * points[n, 0] + m[2, 1] * points[n, 1] + m[2, 2] * points[n, 2] + m[2, 3]
            px, py, pz = px - r[11], py - r[12], pz - r[13]
            x = r[2] * px + r[3] * py + r[4] * pz
            y = r[5] * px + r[6] * py + r[7] * pz
            z = r[8] * px + r[9] * py + r[10] * pz
            ax, ay, az = r[14], r[15], r[16]
            squared = ax * ax + ay * ay + az * az
            t = 0.0
            if squared > 1e-12:
                t = min(max((x * ax + y * ay + z * az) / squared, 0.0), 1.0)
            x, y, z = x - t * ax, y - t * ay, z - t * az
            radius = r[17] + (r[18] - r[17]) * t
            d = (np.sqrt(x * x + y * y + z * z) - radius) * r[19]
            part[group] = _smooth_min(part[group], d, blend[group])
        total = part[0]
        for group in range(1, 6):
            k = join_thumb if group == 5 else join_finger
            total = _smooth_min(total, part[group], k)
        out[n] = total
    return out


def distance(points, rows=None, transforms=None) -> NDArray[np.float64]:
    """Approximate signed distance to the skin, negative inside.

    points: (N, 3) mm.   transforms: (16, 4, 4) rest to posed, millimetres; identity when absent.
    """
    rows = primitives() if rows is None else rows
    inverse = np.tile(np.eye(4), (16, 1, 1)) if transforms is None else np.linalg.inv(transforms)
    points = np.ascontiguousarray(points, dtype=np.float64)
    return _distance(points, rows, inverse, _BLEND, _JOIN_FINGER, _JOIN_THUMB)


def gradient(points, rows=None, transforms=None, step=0.05) -> NDArray[np.float64]:
    """Central differences of ``distance``. points: (N, 3) mm; returns (N, 3)."""
    rows = primitives() if rows is None else rows
    out = np.empty((len(points), 3))
    for axis in range(3):
        offset = np.zeros(3)
        offset[axis] = step
        ahead = distance(points + offset, rows, transforms)
        out[:, axis] = (ahead - distance(points - offset, rows, transforms)) / (2 * step)
    return out


def project(points, rows=None, transforms=None, rounds=8, reach=np.inf) -> NDArray[np.float64]:
    """Move points onto the skin along the gradient by Newton steps of at most ``reach`` mm."""
    rows = primitives() if rows is None else rows
    points = np.array(points, dtype=np.float64)
    for _ in range(rounds):
        slope = gradient(points, rows, transforms)
        value = distance(points, rows, transforms)
        squared = np.maximum((slope**2).sum(1), 0.05)
        points -= slope * np.clip(value / squared, -reach, reach)[:, None]
    return points


def dense_surface(step_mm: float = 1.4) -> tuple[NDArray, NDArray]:
    """Marching cubes over the field: vertices (N, 3) mm, faces (M, 3), open at the wrist."""
    low = np.array([WRIST_CUT_MM, -75.0, -62.0])
    high = np.array([205.0, 105.0, 40.0])
    counts = np.ceil((high - low) / step_mm).astype(int) + 1
    values = _sample(low, counts, step_mm)
    values = np.where(np.abs(values) < 0.02, 0.02, values)
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(step_mm,) * 3)
    vertices, faces = vertices.astype(np.float64) + low, faces.astype(np.int64)
    vertices, faces = _weld(vertices, faces)
    tri = vertices[faces]
    normal = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    if np.einsum("ij,ij->", normal, gradient(tri.mean(1))) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces)


def _sample(low, counts, step: float, block: int = 4) -> NDArray:
    """The field on a grid; blocks that the surface cannot reach keep the value of their middle.

    The field changes by at most its argument's motion, so such a block has one sign throughout.
    """
    rows = primitives()
    padded = -(-counts // block) * block
    index = np.stack(np.meshgrid(*(np.arange(0, n, block) for n in padded), indexing="ij"), -1)
    index = index.reshape(-1, 3)
    middle = distance(low + step * (index + 0.5 * (block - 1)), rows)
    near = np.abs(middle) < np.sqrt(3.0) * step * (0.5 * (block - 1) + 1.0) + 0.5
    inner = np.stack(np.meshgrid(*[np.arange(block)] * 3, indexing="ij"), -1).reshape(-1, 3)
    values = np.empty(padded)
    place = tuple(np.moveaxis(index[:, None] + inner, -1, 0))
    values[place] = middle[:, None]
    cells = index[near][:, None] + inner
    fine = distance((low + step * cells).reshape(-1, 3), rows).reshape(cells.shape[:2])
    values[tuple(np.moveaxis(cells, -1, 0))] = fine
    return values[: counts[0], : counts[1], : counts[2]]


def _weld(vertices, faces):
    """Merge coincident vertices and drop the faces that collapse."""
    pairs = cKDTree(vertices).query_pairs(1e-6, output_type="ndarray")
    target = np.arange(len(vertices))
    for a, b in pairs:
        target[max(a, b)] = min(target[a], target[b])
    faces = target[faces]
    same = (faces == np.roll(faces, 1, axis=1)).any(1)
    faces = faces[~same]
    used = np.unique(faces)
    index = np.full(len(vertices), -1)
    index[used] = np.arange(len(used))
    return vertices[used], index[faces]
