"""Which face a pixel sees: a z-buffer rasteriser in numba, no OpenGL.

Vertices are in camera axes (metres, x right, y down, z away) and faces run counter-clockwise seen
from outside. A buffer holds one whole number per pixel, 0 where nothing is: inverse depth in steps
of 2^-34 above, the face's id in the lowest 20 bits. So the nearer of two is the larger of two
numbers, and a row of a triangle is drawn without a branch. Rows are PAD longer than the picture.
"""

from typing import NamedTuple

import numba as nb
import numpy as np

NEAR = 4e-3
"""Metres; a triangle with a corner nearer to the camera than this (or behind it) is left out."""
PAD = 8
ID_BITS = 20
ID_MASK = (1 << ID_BITS) - 1
DEPTH_STEPS = float(1 << 34)
_TINY = 2.3e-308
_U = np.uint64  # indices known to be positive: no look whether to count from the end


class Fragments(NamedTuple):
    """What each pixel sees: one face, and how far."""

    face: np.ndarray  # (H, W) int32 index of the face in front, -1 where there is none
    depth: np.ndarray  # (H, W) float32 metres along z; inf where there is none


def make_buffer(height: int, width: int) -> np.ndarray:
    """An empty buffer for a picture of ``height`` x ``width`` pixels."""
    return np.zeros(height * (width + PAD) + PAD, np.int64)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_faces(corners, offset, faces, first_id, cull, height, width, seen):
    """Draw triangles into a buffer.

    corners: (V, C) with x, y in pixels of the buffer and 1/z (0 or less: not drawable) in three
    columns from ``offset`` on.   faces: (F, 3).   first_id: id of the first face.   cull: 1 leaves
    out faces that show their back, -1 those that show their front, 0 none.
    seen: ``make_buffer(height, width)``, updated.

    Every edge is evaluated from its lower to its higher vertex, so two faces that share an edge get
    the same number with opposite signs: a pixel on a shared edge belongs to exactly one of them,
    the one for which the edge is a left or a top edge.
    """
    for t in range(faces.shape[0]):
        a, b, c = _U(faces[t, 0]), _U(faces[t, 1]), _U(faces[t, 2])
        xa, ya = np.float64(corners[a, offset]), np.float64(corners[a, offset + 1])
        xb, yb = np.float64(corners[b, offset]), np.float64(corners[b, offset + 1])
        xc, yc = np.float64(corners[c, offset]), np.float64(corners[c, offset + 1])
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if area == 0.0 or (cull == 1 and area > 0.0) or (cull == -1 and area < 0.0):
            continue
        wa, wb = np.float64(corners[a, offset + 2]), np.float64(corners[b, offset + 2])
        wc = np.float64(corners[c, offset + 2])
        if wa <= 0.0 or wb <= 0.0 or wc <= 0.0:
            continue
        if area < 0.0:  # a front face turns the other way in a frame with y down
            b, c = c, b
            xb, yb, wb, xc, yc, wc = xc, yc, wc, xb, yb, wb
            area = -area
        left = max(0, int(np.ceil(min(xa, xb, xc))))
        right = min(width - 1, int(np.floor(max(xa, xb, xc))))
        top = max(0, int(np.ceil(min(ya, yb, yc))))
        bottom = min(height - 1, int(np.floor(max(ya, yb, yc))))
        if left > right or top > bottom:
            continue
        # what an edge's number has to reach: left and top edges own the pixels on them
        ta = 0.0 if yc < yb or (yc == yb and xc > xb) else _TINY
        tb = 0.0 if ya < yc or (ya == yc and xa > xc) else _TINY
        tc = 0.0 if yb < ya or (yb == ya and xb > xa) else _TINY
        # each edge from its lower vertex
        pax, pay, dax, day = xb, yb, xc - xb, yc - yb
        pbx, pby, dbx, dby = xc, yc, xa - xc, ya - yc
        pcx, pcy, dcx, dcy = xa, ya, xb - xa, yb - ya
        if b > c:
            pax, pay = xc, yc
        if c > a:
            pbx, pby = xa, ya
        if a > b:
            pcx, pcy = xb, yb
        scale = DEPTH_STEPS / area  # 1/z is affine on the screen
        wa, wb, wc, mark = wa * scale, wb * scale, wc * scale, first_id + t
        first, last, wide = left, right, right - left > 24
        for y in range(top, bottom + 1):
            ra, rb, rc = dax * (y - pay), dbx * (y - pby), dcx * (y - pcy)
            if wide:  # a span that is a little too wide
                low, high = np.float64(left), np.float64(right)
                for begin, reach, slope in ((pax, ra, day), (pbx, rb, dby), (pcx, rc, dcy)):
                    if slope > 1e-9:
                        high = min(high, begin + reach / slope + 1e-3)
                    elif slope < -1e-9:
                        low = max(low, begin + reach / slope - 1e-3)
                if low > high:
                    continue
                first, last = int(np.ceil(low)), int(np.floor(high))
            start = _U(y * (width + PAD) + first)
            for k in range(_U((last - first + 4) & -4)):
                x = np.float64(first + np.int64(k))
                ea = ra - day * (x - pax)
                eb = rb - dby * (x - pbx)
                ec = rc - dcy * (x - pcx)
                inside = (ea >= ta) & (eb >= tb) & (ec >= tc)
                key = (np.int64(ea * wa + eb * wb + ec * wc) << ID_BITS) | mark
                seen[start + k] = max(seen[start + k], key if inside else 0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def barycentric_at(screen, faces, face, x, y):
    """Perspective-correct barycentric coordinates of the ray through pixel (x, y) on one face."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    ax, ay = np.float64(screen[a, 0]) - x, np.float64(screen[a, 1]) - y
    bx, by = np.float64(screen[b, 0]) - x, np.float64(screen[b, 1]) - y
    cx, cy = np.float64(screen[c, 0]) - x, np.float64(screen[c, 1]) - y
    la = (bx * cy - cx * by) * screen[a, 2]
    lb = (cx * ay - ax * cy) * screen[b, 2]
    lc = (ax * by - bx * ay) * screen[c, 2]
    total = la + lb + lc
    return la / total, lb / total, lc / total


def to_screen(vertices, intrinsics, supersample: int = 1) -> np.ndarray:
    """Pixels and inverse depth of camera-space vertices.

    vertices: (V, 3) metres.   intrinsics: (3, 3) pixels.   supersample: sub-pixels per pixel side.
    returns (V, 3) float64: x, y in sub-pixels, 1/z (0 where the vertex is not in front of NEAR).
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    seen = vertices[:, 2] > NEAR
    safe = np.where(seen, vertices[:, 2], 1.0)[:, None]
    image = (vertices / safe) @ np.asarray(intrinsics, dtype=np.float64).T
    return np.concatenate([(image[:, :2] + 0.5) * supersample - 0.5, seen[:, None] / safe], axis=1)


def find_faces(vertices, faces, intrinsics, height: int, width: int, fine=1):
    """What every pixel of a checked scene sees.   fine: sub-pixels per side.

    returns the vertices of ``to_screen``, face ids (H, W) int32, -1 where nothing is, and inverse
    depths (H, W) float64, 0 there.
    """
    screen, seen = to_screen(vertices, intrinsics, fine), make_buffer(height, width)
    draw_faces(screen, 0, faces, 0, 0, height, width, seen)
    keys = seen[: height * (width + PAD)].reshape(height, -1)[:, :width]
    ids = np.where(keys > 0, keys & ID_MASK, -1).astype(np.int32)
    return screen, ids, (keys >> ID_BITS) / DEPTH_STEPS


def rasterise(vertices, faces, intrinsics, size) -> Fragments:
    """Find the face that each pixel's ray meets first, be it seen from behind.

    vertices: (V, 3) metres, camera axes.   faces: (F, 3).   intrinsics: (3, 3) pixels.
    size: side of the picture in pixels, or (H, W).   returns ``Fragments`` (face, depth).

    >>> triangle = np.array([[-1.0, -1, 2], [0, 1, 2], [1, -1, 2]])
    >>> camera = np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]])
    >>> int(rasterise(triangle, np.array([[0, 1, 2]]), camera, 16).face[8, 8])
    0
    """
    vertices, faces, *shape = check_scene(vertices, faces, intrinsics, size)
    _, ids, inverse_depth = find_faces(vertices, faces, intrinsics, *shape)
    with np.errstate(divide="ignore"):
        return Fragments(ids, (1 / inverse_depth).astype(np.float32))


def check_scene(vertices, faces, intrinsics, size):
    """Checked float64 vertices, int32 faces, height and width of what shall be drawn."""
    vertices, faces = np.ascontiguousarray(vertices, dtype=np.float64), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"expected vertices (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected faces (F, 3), found {faces.shape}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(
            f"faces name vertices {faces.min()} to {faces.max()}, but there are {len(vertices)}"
        )
    if len(faces) > ID_MASK:
        raise ValueError(f"a scene may have {ID_MASK} faces, found {len(faces)}; simplify the mesh")
    if np.shape(intrinsics) != (3, 3):
        raise ValueError(f"expected intrinsics (3, 3), found {np.shape(intrinsics)}")
    height, width = (size, size) if np.isscalar(size) else size
    if height < 1 or width < 1:
        raise ValueError(f"the picture needs at least one pixel, found size {size}")
    return vertices, np.ascontiguousarray(faces, dtype=np.int32), int(height), int(width)
