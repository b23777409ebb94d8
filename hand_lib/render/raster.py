"""Which face a pixel sees: a z-buffer rasteriser in numba, no OpenGL.

Vertices are in camera axes (metres, x right, y down, z away) and faces run counter-clockwise seen
from outside.
"""

from typing import NamedTuple

import numba as nb
import numpy as np

NEAR = 1e-3
"""Metres; a triangle with a corner nearer to the camera than this (or behind it) is left out."""


class Fragments(NamedTuple):
    """What each pixel sees: one face, where on it, how far."""

    face: np.ndarray  # (H, W) int32 index of the face in front, -1 where there is none
    barycentric: np.ndarray  # (H, W, 3) float32, perspective-correct, rows sum to 1; 0 where none
    depth: np.ndarray  # (H, W) float32 metres along z; inf where there is none


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_faces(screen, faces, first_id, cull, inverse_depth, ids):
    """Draw triangles into a buffer of inverse depth and face ids.

    screen: (V, 3) x_px, y_px, 1/z (0 or less: not drawable).   faces: (F, 3).
    first_id: id of the first face.   cull: 1 leaves out faces that show their back, -1 those that
    show their front, 0 none.   inverse_depth: (H, W), 0 where empty; ids: (H, W) int32; both are
    updated.

    Every edge is evaluated from its lower to its higher vertex, so two faces that share an edge get
    the same number with opposite signs: a pixel on a shared edge belongs to exactly one of them,
    the one for which the edge is a left or a top edge.
    """
    height, width = ids.shape
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        wa, wb, wc = np.float64(screen[a, 2]), np.float64(screen[b, 2]), np.float64(screen[c, 2])
        if wa <= 0.0 or wb <= 0.0 or wc <= 0.0:
            continue
        xa, ya = np.float64(screen[a, 0]), np.float64(screen[a, 1])
        xb, yb = np.float64(screen[b, 0]), np.float64(screen[b, 1])
        xc, yc = np.float64(screen[c, 0]), np.float64(screen[c, 1])
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if area == 0.0 or (cull == 1 and area > 0.0) or (cull == -1 and area < 0.0):
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
        # an edge p -> q: inside where (q - p) x (pixel - p) > 0; on it only for left and top edges
        own_a = yc < yb or (yc == yb and xc > xb)
        own_b = ya < yc or (ya == yc and xa > xc)
        own_c = yb < ya or (yb == ya and xb > xa)
        sa, sb, sc = 1.0, 1.0, 1.0
        pax, pay, qax, qay = xb, yb, xc, yc
        if b > c:
            pax, pay, qax, qay, sa = xc, yc, xb, yb, -1.0
        pbx, pby, qbx, qby = xc, yc, xa, ya
        if c > a:
            pbx, pby, qbx, qby, sb = xa, ya, xc, yc, -1.0
        pcx, pcy, qcx, qcy = xa, ya, xb, yb
        if a > b:
            pcx, pcy, qcx, qcy, sc = xb, yb, xa, ya, -1.0
        dax, day = (qax - pax) * sa, (qay - pay) * sa
        dbx, dby = (qbx - pbx) * sb, (qby - pby) * sb
        dcx, dcy = (qcx - pcx) * sc, (qcy - pcy) * sc
        # 1/z is affine on the screen
        scale = 1.0 / area
        w_right = -(day * wa + dby * wb + dcy * wc) * scale
        ia = 1.0 / day if abs(day) > 1e-9 else 0.0
        ib = 1.0 / dby if abs(dby) > 1e-9 else 0.0
        ic = 1.0 / dcy if abs(dcy) > 1e-9 else 0.0
        for y in range(top, bottom + 1):
            ra, rb, rc = dax * (y - pay), dbx * (y - pby), dcx * (y - pcy)
            # a span that is a little too wide, then the exact test from both ends
            low, high = np.float64(left), np.float64(right)
            if ia > 0.0:
                high = min(high, pax + ra * ia + 1e-3)
            elif ia < 0.0:
                low = max(low, pax + ra * ia - 1e-3)
            if ib > 0.0:
                high = min(high, pbx + rb * ib + 1e-3)
            elif ib < 0.0:
                low = max(low, pbx + rb * ib - 1e-3)
            if ic > 0.0:
                high = min(high, pcx + rc * ic + 1e-3)
            elif ic < 0.0:
                low = max(low, pcx + rc * ic - 1e-3)
            if low > high:
                continue
            first, last = int(np.ceil(low)), int(np.floor(high))
            while first <= last:
                ea, eb, ec = (
                    ra - day * (first - pax),
                    rb - dby * (first - pbx),
                    rc - dcy * (first - pcx),
                )
                if (
                    (ea > 0.0 or (ea == 0.0 and own_a))
                    and (eb > 0.0 or (eb == 0.0 and own_b))
                    and (ec > 0.0 or (ec == 0.0 and own_c))
                ):
                    break
                first += 1
            while first < last:
                ea, eb, ec = (
                    ra - day * (last - pax),
                    rb - dby * (last - pbx),
                    rc - dcy * (last - pcx),
                )
                if (
                    (ea > 0.0 or (ea == 0.0 and own_a))
                    and (eb > 0.0 or (eb == 0.0 and own_b))
                    and (ec > 0.0 or (ec == 0.0 and own_c))
                ):
                    break
                last -= 1
            if first > last:
                continue
            ea, eb, ec = (
                ra - day * (first - pax),
                rb - dby * (first - pbx),
                rc - dcy * (first - pcx),
            )
            w = (ea * wa + eb * wb + ec * wc) * scale
            for x in range(first, last + 1):
                if w > inverse_depth[y, x]:
                    inverse_depth[y, x] = w
                    ids[y, x] = first_id + t
                w += w_right


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


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(screen, faces, inverse_depth, ids, barycentric, depth):
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            if ids[y, x] >= 0:
                la, lb, lc = barycentric_at(screen, faces, ids[y, x], x, y)
                barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2] = la, lb, lc
                depth[y, x] = 1.0 / inverse_depth[y, x]


def to_screen(vertices, intrinsics, supersample: int = 1) -> np.ndarray:
    """Pixels and inverse depth of camera-space vertices.

    vertices: (V, 3) metres.   intrinsics: (3, 3) pixels.   supersample: sub-pixels per pixel side.
    returns (V, 3) float64: x, y in sub-pixels, 1/z (0 where the vertex is not in front of NEAR).
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    depth = vertices[:, 2]
    seen = depth > NEAR
    safe = np.where(seen, depth, 1.0)
    image = (vertices / safe[:, None]) @ np.asarray(intrinsics, dtype=np.float64).T
    xy = (image[:, :2] + 0.5) * supersample - 0.5
    return np.ascontiguousarray(np.concatenate([xy, (seen / safe)[:, None]], axis=1))


def rasterise(vertices, faces, intrinsics, size, two_sided: bool = True) -> Fragments:
    """Find the face that each pixel's ray meets first.

    vertices: (V, 3) metres, camera axes.   faces: (F, 3).   intrinsics: (3, 3) pixels.
    size: side of the picture in pixels, or (H, W).   two_sided: draw faces seen from behind too.
    returns ``Fragments`` (face, barycentric, depth).

    >>> triangle = np.array([[-1.0, -1, 2], [0, 1, 2], [1, -1, 2]])
    >>> camera = np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]])
    >>> int(rasterise(triangle, np.array([[0, 1, 2]]), camera, 16).face[8, 8])
    0
    """
    vertices, faces, height, width = check_scene(vertices, faces, intrinsics, size)
    screen = to_screen(vertices, intrinsics)
    inverse_depth = np.zeros((height, width))
    ids = np.full((height, width), -1, dtype=np.int32)
    draw_faces(screen, faces, 0, 0 if two_sided else 1, inverse_depth, ids)
    barycentric = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    _resolve(screen, faces, inverse_depth, ids, barycentric, depth)
    return Fragments(ids, barycentric, depth)


def check_scene(vertices, faces, intrinsics, size):
    """Checked float64 vertices, int32 faces, height and width of what shall be drawn."""
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"expected vertices (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected faces (F, 3), found {faces.shape}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(
            f"faces name vertices {faces.min()} to {faces.max()}, but there are {len(vertices)}"
        )
    if np.shape(intrinsics) != (3, 3):
        raise ValueError(f"expected intrinsics (3, 3), found {np.shape(intrinsics)}")
    height, width = (size, size) if np.isscalar(size) else size
    if height < 1 or width < 1:
        raise ValueError(f"the picture needs at least one pixel, found size {size}")
    return vertices, np.ascontiguousarray(faces, dtype=np.int32), int(height), int(width)
