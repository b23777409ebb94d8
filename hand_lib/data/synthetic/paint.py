"""One picture's pixels: skin, cloth, light and shadow over a background."""

import numba as nb
import numpy as np

from hand_lib.data.synthetic.effects import blend, cloth_colour
from hand_lib.data.synthetic.layout import ARM, ARM2, HAND2, OBJECT, OCCLUDER, SLEEVE, SLEEVE2
from hand_lib.data.synthetic.scene import LAMP, NORMAL, POINT, SCREEN, SKY, share_lit
from hand_lib.hand.skin import TEXELS
from hand_lib.render.raster import DEPTH_STEPS, ID_BITS, ID_MASK, PAD

_F = np.float32
_U = np.uint64  # indices known to be positive: no look whether to count from the end
_ANGLES = np.pi * (np.arange(3) / 3 + np.arange(8)[:, None] / 24)
_FAR = np.array([0.95, 0.65, 0.35], np.float32)
_CIRCLE = (_FAR[:, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)).astype(np.float32)
_STEP = _F(1 / DEPTH_STEPS)
_JUMP = _F(0.012)
"""Share of the inverse depth that two neighbours on one smooth surface may differ by."""
SHARED_SIZE = 160
BAND = 16
"""Rows whose pixels are shaded together; even, so that squares lie within a band."""


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _nearness(seen, side, x, y, w, reach, focal):
    """How much nearer surface surrounds a point, 0 to 1, by three pairs of opposite looks."""
    z2 = _F(1) / (w * w)
    steep = focal * w / reach
    hidden = _F(0)
    turn = _U((x * 5 + y * 9) & 7)
    for k in range(3):
        dx, dy = int(reach * _CIRCLE[turn, k, 0]), int(reach * _CIRCLE[turn, k, 1])
        both = near = _F(0)
        for sign in (1, -1):
            u, v = x + sign * dx, y + sign * dy
            column, row = min(max(u, 0), side - 1), min(max(v, 0), side - 1)
            key = seen[_U(row * (side + PAD) + column)] >> ID_BITS
            rise = (_F(key) * _STEP - w) * z2  # metres nearer, to first order; empty: farthest
            both, near = both + max(rise * steep / _FAR[k], _F(-2.5)), max(near, rise)
        both = min(_F(1), max(_F(0), _F(0.7) * (both - _F(0.3))))
        hidden += both * max(_F(0), _F(1) - near * _F(22))
    return hidden * _F(1 / 3)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def place_on(corners, a, b, c, x, y):
    """Barycentric coordinates on face a, b, c of sub-pixel (x, y), kept inside the face.

    A pixel's middle may lie a little outside the face that one of its quarters sees.
    """
    ax, ay = corners[a, SCREEN] - x, corners[a, SCREEN + 1] - y
    bx, by = corners[b, SCREEN] - x, corners[b, SCREEN + 1] - y
    cx, cy = corners[c, SCREEN] - x, corners[c, SCREEN + 1] - y
    la = (bx * cy - cx * by) * corners[a, SCREEN + 2]
    lb = (cx * ay - ax * cy) * corners[b, SCREEN + 2]
    lc = (ax * by - bx * ay) * corners[c, SCREEN + 2]
    if la + lb + lc < _F(0):
        la, lb, lc = -la, -lb, -lc
    la, lb, lc = max(la, _F(0)), max(lb, _F(0)), max(lc, _F(0))
    total = _F(1) / (la + lb + lc + _F(1e-30))
    return la * total, lb * total, lc * total


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _colour_skin(p, texels, count, texel, second, words, colour):
    """Red, green, blue and gloss of skin at many points, whether they are skin or not.

    texels: (N,) uint64, a byte for each channel.   texel: (count,) indices into it.
    second: (count,) 1 for the second hand.   colour: (4, count), filled.
    """
    for n in range(count):
        words[n] = texels[texel[n]]
    one, byte, d = _F(1), 255, p.detail
    s0, s1, s2 = _F(1 / 255) * d.palm, _F(1.15 / 255), _F(1 / 255) * d.crease  # bytes to strengths
    s3, s4, s5 = _F(1 / 85) * d.red, _F(1 / 255) * d.vein, _F(1 / 51) * d.mottle
    s6, s7 = _F(1 / 51) * d.fine, _F(1 / 255) * d.knuckle
    b3, b5, b6 = _F(-128) * s3, _F(-128) * s5, _F(-128) * s6  # these are neutral at 128
    red0, green0, blue0 = p.skin[0], p.skin[1], p.skin[2]
    red1, green1 = p.second_skin[0] - red0, p.second_skin[1] - green0
    blue1 = p.second_skin[2] - blue0
    nail_r, nail_g, nail_b = p.nail[0], p.nail[1], p.nail[2]
    for n in range(count):
        word = np.int64(words[n])
        palm, nail = _F(word & byte) * s0, min(one, _F(word >> 8 & byte) * s1)
        crease, flush = _F(word >> 16 & byte) * s2, _F(word >> 24 & byte) * s3 + b3
        vein, mottle = _F(word >> 32 & byte) * s4, _F(word >> 40 & byte) * s5 + b5
        fine, knuckle = _F(word >> 48 & byte) * s6 + b6, _F(word >> 56 & byte) * s7
        shade = (one + _F(0.03) * (mottle + fine)) * (one - _F(0.20) * knuckle)
        palm, other = min(palm, _F(0.9)), second[n]
        red, green, blue = red0 + other * red1, green0 + other * green1, blue0 + other * blue1
        red += palm * (_F(0.30) - _F(0.38) * red)
        green += palm * (_F(0.165) - _F(0.38) * green)
        blue += palm * (_F(0.125) - _F(0.38) * blue)
        red *= shade * (one + _F(0.05) * flush) * (one - _F(0.13) * vein)
        red *= (one - _F(0.32) * crease) * (one + _F(0.02) * mottle)
        green *= shade * (one - _F(0.055) * flush) * (one - _F(0.05) * vein)
        green *= one - _F(0.44) * crease
        blue *= shade * (one - _F(0.05) * flush) * (one - _F(0.46) * crease)
        dark = one - _F(0.1) * crease
        colour[0, n] = red + nail * (nail_r * dark - red)
        colour[1, n] = green + nail * (nail_g * dark - green)
        colour[2, n] = blue + nail * (nail_b * dark - blue)
        colour[3, n] = one + _F(2.5) * nail - _F(0.4) * palm


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def light_points(p, seen, side, lamp_seen, focal, count, mixes, lights):
    """Light that arrives (red, green, blue) and that glances off (red, green, blue) at points.

    mixes: (N, 20), columns of ``Scratch.corners`` there, then sub-pixel x, y, 1/z and 1 for cloth.
    lights: (N, 6), filled.
    """
    one, none = _F(1), _F(0)
    kx, ky, kz = p.key[0], p.key[1], p.key[2]
    gloss, power, shadow, occlusion = p.gloss, p.gloss_power, p.shadow, p.occlusion
    step = 1 + int(p.shadow_m * _F(200))
    for j in range(count):
        x, y = int(mixes[j, 16]), int(mixes[j, 17])
        w, cloth = mixes[j, 18], mixes[j, 19] > none
        nx, ny, nz = mixes[j, NORMAL], mixes[j, NORMAL + 1], mixes[j, NORMAL + 2]
        px, py, pz = mixes[j, POINT], mixes[j, POINT + 1], mixes[j, POINT + 2]
        length = one / np.sqrt(nx * nx + ny * ny + nz * nz + _F(1e-12))
        nx, ny, nz = nx * length, ny * length, nz * length
        length = -one / np.sqrt(px * px + py * py + pz * pz)
        px, py, pz = px * length, py * length, pz * length
        facing = nx * px + ny * py + nz * pz
        inside = one
        if facing < none and cloth:
            nx, ny, nz, facing, inside = -nx, -ny, -nz, -facing, _F(0.45)
        towards = nx * kx + ny * ky + nz * kz
        lit = one
        if towards > _F(-0.3) and shadow > none:
            bias = _F(0.0035) + _F(0.0035) * _F(step) * (_F(1.2) - abs(towards))
            u, v, s = mixes[j, LAMP], mixes[j, LAMP + 1], mixes[j, LAMP + 2]
            lit -= shadow * (one - share_lit(lamp_seen, u, v, s, step, bias))
        reach = max(_F(2), _F(0.013) * focal * w)
        hidden = _nearness(seen, side, x, y, w, reach, focal)
        open_ = one - occlusion * min(one, _F(1.7) * hidden)
        hx, hy, hz = kx + px, ky + py, kz + pz
        half = nx * hx + ny * hy + nz * hz
        shine = none
        if half > none and towards > none:
            half /= np.sqrt(hx * hx + hy * hy + hz * hz + _F(1e-9))
            half = half / (power - power * half + half)  # half ** power (Schlick 1994)
            shine = gloss * half * (power + _F(8)) * _F(0.06) * lit * towards
        edge = (one - min(one, max(facing, none))) ** 2
        rim = gloss * (_F(0.10) + edge * edge)
        lit *= inside * (_F(0.5) + _F(0.5) * open_)
        # light that entered the skin comes out past the edge, redder
        wrap, less = (_F(0.05), _F(0.05)) if cloth else (_F(0.30), _F(0.15))
        direct = max(none, (towards + wrap) / (one + wrap)) * lit
        cold = max(none, (towards + less) / (one + less)) * lit
        for c in range(3):
            sky, lamp = mixes[j, SKY + c] * open_, p.key_colour[c]
            lights[j, c] = inside * sky + (direct if c == 0 else cold) * lamp
            lights[j, 3 + c] = shine * lamp + rim * sky


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _list_points(layout, seen, size, first, stop, kept, whole_numbers, floats, canvas, mask):
    """Which points of the rows from first to stop have to be shaded.

    whole_numbers: (4, N) pixel, face, light and whether the light starts there.   floats: (7, N)
    x, y in sub-pixels, share of the pixel, 1/z.   kept: light, its part and row, its depth for each
    square of a row; all filled.   returns how many points and how many lights.
    """
    kept_light, kept_at, kept_depth = kept
    side = 2 * size
    face_part, shift = layout.face_part, 1 if size <= SHARED_SIZE else 0
    hand_faces, arm_faces = layout.face_start[1], layout.face_start[2]
    count = lights = 0
    for y in range(first, stop):
        for x in range(size):
            at = _U(2 * y * (side + PAD) + 2 * x)
            below = at + _U(side + PAD)
            k0, k1, k2, k3 = seen[at], seen[at + _U(1)], seen[below], seen[below + _U(1)]
            mask[y, x] = False
            high = max(max(k0, k1), max(k2, k3))
            if high == 0:
                continue
            low = min(min(k0, k1), min(k2, k3))
            t0, t1, t2, t3 = k0 & ID_MASK, k1 & ID_MASK, k2 & ID_MASK, k3 & ID_MASK
            hits = int(k0 > 0 and t0 < hand_faces) + int(k1 > 0 and t1 < hand_faces)
            hits += int(k2 > 0 and t2 < hand_faces) + int(k3 > 0 and t3 < hand_faces)
            mask[y, x] = hits >= 2
            near, far = _F(high >> ID_BITS), _F(low >> ID_BITS)
            whole = low > 0 and near - far < _JUMP * near
            whole = whole and (max(t0, t1, t2, t3) < arm_faces or t0 == t1 == t2 == t3)
            square, share = _U(x >> shift), _F(1) if whole else _F(0.25)
            covered = before = _F(0)
            part_before = -1
            for turn in range(1 if whole else 4):
                k = turn ^ (turn >> 1)  # neighbours follow each other: 0, 1, 3, 2
                key = k0 if k == 0 else k1 if k == 1 else k2 if k == 2 else k3
                if key == 0:
                    continue
                covered += share
                t, w = key & ID_MASK, _F(key >> ID_BITS) * _STEP
                part = np.int64(face_part[_U(t)])
                n = _U(count)
                if part == part_before and abs(w - before) <= _JUMP * w:
                    floats[2, n - _U(1)] += share
                    continue
                place = 1 + (y >> shift) * 16 + part
                starts = kept_at[square] != place or abs(kept_depth[square] - w) > _JUMP * w
                if starts:
                    kept_light[square], kept_at[square], kept_depth[square] = lights, place, w
                    lights += 1
                whole_numbers[0, n], whole_numbers[1, n] = y * size + x, t
                whole_numbers[2, n], whole_numbers[3, n] = kept_light[square], int(starts)
                middle = _F(0.5) if whole else _F(0)
                floats[0, n], floats[1, n] = _F(2 * x + (k & 1)), _F(2 * y + (k >> 1))
                floats[2, n], floats[3, n], floats[4, n] = share, w, middle
                before, part_before = w, part
                count += 1
            for c in range(3):
                canvas[c, y, x] *= _F(1) - covered
    return count, lights


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _place_all(layout, corners, count, whole_numbers, floats, texel, second, mixes):
    """Where on their faces the listed points lie: the skin's texel, what the light needs.

    floats: rows 4 to 6 become barycentric coordinates.   second: 1 on the second hand's parts.
    mixes: see ``light_points``.
    """
    faces, face_part = layout.faces, layout.face_part
    second_first, size = layout.face_start[HAND2], _F(TEXELS - 0.01)
    for n in range(count):
        t = whole_numbers[1, n]
        a, b, c = _U(faces[_U(t), 0]), _U(faces[_U(t), 1]), _U(faces[_U(t), 2])
        x, y, middle = floats[0, n], floats[1, n], floats[4, n]
        la, lb, lc = place_on(corners, a, b, c, x + middle, y + middle)
        floats[4, n], floats[5, n], floats[6, n] = la, lb, lc
        part = face_part[_U(t)]
        second[n] = _F(part >= HAND2)
        same = t - second_first if part >= HAND2 else t
        same = same if part <= ARM or part == HAND2 or part == ARM2 else 0
        texel[n] = (same * TEXELS + int(la * size)) * TEXELS + int(lb * size)
        if whole_numbers[3, n]:
            j = _U(whole_numbers[2, n])
            for m in range(16):
                mixes[j, m] = la * corners[a, m] + lb * corners[b, m] + lc * corners[c, m]
            mixes[j, 16], mixes[j, 17], mixes[j, 18] = x, y, floats[3, n]
            mixes[j, 19] = _F(1) if part == SLEEVE or part == SLEEVE2 else _F(0)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def paint(p, materials, scratch, canvas, focal, mask):
    """Shade every pixel that the scene covers, blended over the canvas by coverage.

    A pixel's four sub-pixels are shaded together where they see one smooth surface; up to
    SHARED_SIZE pixels a side, four pixels of one share their light (not their colour). BAND rows at
    a time, points are listed, looked up, coloured, lit and blended, each step for all of them: so
    the processor waits for many pieces of memory at once.   canvas: (3, S, S).   focal: pixels.
    mask: (S, S) bool, filled.
    """
    layout, tiles = materials.layout, materials.tiles
    seen, size, most = scratch.seen, canvas.shape[1], 4 * BAND * canvas.shape[1]
    kept = (np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.float32))
    whole_numbers, floats = np.empty((4, most), np.int32), np.empty((7, most), np.float32)
    texel, words = np.empty(most, np.uint32), np.empty(most, np.uint64)
    second, colour = np.empty(most, np.float32), np.empty((4, most), np.float32)
    mixes, lights = np.empty((most, 20), np.float32), np.empty((most, 6), np.float32)
    for first in range(0, size, BAND):
        stop = min(size, first + BAND)
        count, lit = _list_points(
            layout, seen, size, first, stop, kept, whole_numbers, floats, canvas, mask
        )
        if count == 0:
            continue
        _place_all(layout, scratch.corners, count, whole_numbers, floats, texel, second, mixes)
        _colour_skin(p, materials.texels, count, texel, second, words, colour)
        for n in range(count):
            t = _U(whole_numbers[1, n])
            part = layout.face_part[t]
            solid = part == OBJECT or part == OCCLUDER
            if solid or part == SLEEVE or part == SLEEVE2:
                a, b, c = layout.faces[t, 0], layout.faces[t, 1], layout.faces[t, 2]
                la, lb, lc = floats[4, n], floats[5, n], floats[6, n]
                u = la * layout.uv[a, 0] + lb * layout.uv[b, 0] + lc * layout.uv[c, 0]
                v = la * layout.uv[a, 1] + lb * layout.uv[b, 1] + lc * layout.uv[c, 1]
                cloth = p.object.cloth if part == OBJECT else p.occluder.cloth
                cloth = cloth if solid else p.sleeve_cloth
                cloth_colour(cloth, u, v, tiles, colour[:, n])
                colour[3, n] = _F(1) if solid else _F(0.1)
        light_points(p, seen, 2 * size, scratch.lamp_seen, _F(2) * focal, lit, mixes, lights)
        blend(count, whole_numbers, floats, colour, lights, canvas)
