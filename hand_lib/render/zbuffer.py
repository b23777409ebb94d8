"""Which face of a synthetic scene is in front, as the camera and as the lamp see it.

A buffer holds one whole number per sub-pixel, 0 where nothing is: inverse depth in steps of 2^-38
above, the face's id in the lowest 16 bits. So the nearer of two is the larger of two numbers, and a
row of a triangle is drawn without a branch. Rows are PAD longer than the picture is wide.
"""

import numba as nb
import numpy as np

PAD = 8
ID_BITS = 16
ID_MASK = (1 << ID_BITS) - 1
DEPTH_STEPS = float(1 << 38)
_TINY = 2.3e-308
_U = np.uint64  # places known to be positive: no look whether to count from the end


def make_buffer(side: int) -> np.ndarray:
    """An empty buffer for a square of ``side`` sub-pixels."""
    return np.zeros(side * (side + PAD) + PAD, np.int64)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_seen(corners, offset, faces, first_id, cull, side, seen):
    """Draw triangles into a buffer.

    corners: (V, C) with x, y in sub-pixels and 1/z (0 or less: not drawable) in three columns from
    ``offset`` on.   faces: (F, 3).   first_id: id of the first face.   cull: 1 leaves out faces
    that show their back, -1 those that show their front, 0 none.   seen: ``make_buffer(side)``,
    updated. Which pixels a face covers is decided as in ``render.draw_faces``.
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
        right = min(side - 1, int(np.floor(max(xa, xb, xc))))
        top = max(0, int(np.ceil(min(ya, yb, yc))))
        bottom = min(side - 1, int(np.floor(max(ya, yb, yc))))
        if left > right or top > bottom:
            continue
        # what an edge's number has to reach: left and top edges own the pixels on them
        ta = 0.0 if yc < yb or (yc == yb and xc > xb) else _TINY
        tb = 0.0 if ya < yc or (ya == yc and xa > xc) else _TINY
        tc = 0.0 if yb < ya or (yb == ya and xb > xa) else _TINY
        # each edge from its lower to its higher vertex
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
        scale = DEPTH_STEPS / area  # 1/z is affine on the screen
        wa, wb, wc, mark = wa * scale, wb * scale, wc * scale, first_id + t
        first, last, wide = left, right, right - left > 24
        for y in range(top, bottom + 1):
            ra, rb, rc = dax * (y - pay), dbx * (y - pby), dcx * (y - pcy)
            if wide:  # a span that is a little too wide
                low, high = np.float64(left), np.float64(right)
                if day > 1e-9:
                    high = min(high, pax + ra / day + 1e-3)
                elif day < -1e-9:
                    low = max(low, pax + ra / day - 1e-3)
                if dby > 1e-9:
                    high = min(high, pbx + rb / dby + 1e-3)
                elif dby < -1e-9:
                    low = max(low, pbx + rb / dby - 1e-3)
                if dcy > 1e-9:
                    high = min(high, pcx + rc / dcy + 1e-3)
                elif dcy < -1e-9:
                    low = max(low, pcx + rc / dcy - 1e-3)
                if low > high:
                    continue
                first, last = int(np.ceil(low)), int(np.floor(high))
            start = _U(y * (side + PAD) + first)
            for k in range(_U((last - first + 4) & -4)):
                x = np.float64(first + np.int64(k))
                ea = ra - day * (x - pax)
                eb = rb - dby * (x - pbx)
                ec = rc - dcy * (x - pcx)
                inside = (ea >= ta) & (eb >= tb) & (ec >= tc)
                key = (np.int64(ea * wa + eb * wb + ec * wc) << ID_BITS) | mark
                seen[start + k] = max(seen[start + k], key if inside else 0)
