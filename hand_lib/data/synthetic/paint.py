"""One picture's pixels: skin, cloth, light and shadow over a background."""

import numba as nb
import numpy as np

from hand_lib.data.synthetic.atlas import TEXELS
from hand_lib.data.synthetic.layout import (
    ARM,
    ARM2,
    HAND2,
    OBJECT,
    OCCLUDER,
    RING,
    SLEEVE,
    SLEEVE2,
    WATCH,
)
from hand_lib.data.synthetic.scene import LAMP, NORMAL, POINT, SCREEN, SHADOW_SIDE, SKY
from hand_lib.render.raster import DEPTH_STEPS, ID_BITS, ID_MASK, PAD

# places in ``look``: skin 0, second skin 3, nail 6, details 9, then these; cloth of sleeve 28,
# object 35 and occluder 42, watch 49, ring 52
KEY, GLOSS, SHADE = 17, 23, 25
_F = np.float32
_U = np.uint64  # places known to be positive: no look whether to count from the end
_ANGLES = 2 * np.pi * (np.arange(6) / 6 + np.arange(8)[:, None] * 0.618)
_FAR = np.array([0.95, 0.4] * 3)
_CIRCLE = (_FAR[:, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)).astype(np.float32)
_LAMP_ROW = SHADOW_SIDE + PAD
_STEP = _F(1 / DEPTH_STEPS)
_JUMP = _F(0.012)
"""Share of the inverse depth that two neighbours on one smooth surface may differ by."""
SHARED_SIZE = 160
BAND = 16
"""Rows whose pixels are shaded together; even, so that squares lie within a band."""
TONE_STEPS = 2048
TONE_TOP = 4.0
"""Linear light up to this is looked up; brighter is white."""


def tone_curve() -> np.ndarray:
    """Linear light in steps of TONE_TOP / TONE_STEPS -> sRGB 0 to 255, with a soft shoulder."""
    light = np.linspace(0, TONE_TOP, TONE_STEPS)
    knee = 0.72
    rolled = np.where(
        light < knee, light, knee + (1 - knee) * (1 - np.exp(-(light - knee) / (1 - knee)))
    )
    return (255 * np.clip(rolled, 0, 1) ** (1 / 2.2)).astype(np.float32)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def read_look(p, look):
    """Colours and strengths of one record into (56,) floats, the order of the names above."""
    for k in range(3):
        look[k], look[3 + k], look[6 + k] = p.skin[k], p.second_skin[k], p.nail[k]
        look[KEY + k], look[KEY + 3 + k], look[SHADE + k] = p.key[k], p.key_colour[k], p.shadow[k]
        look[49 + k], look[52 + k] = p.watch_colour[k], p.ring_colour[k]
    for k in range(7):
        look[28 + k], look[35 + k] = p.sleeve_cloth[k], p.object_cloth[k]
        look[42 + k] = p.occluder_cloth[k]
    for k in range(8):
        look[9 + k] = p.skin_detail[k]
    look[GLOSS], look[GLOSS + 1] = p.gloss[0], p.gloss[1]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def read_scale(look, scale, bias):
    """From the atlas's bytes to strengths, for the eight channels of the skin."""
    byte = _F(1 / 255)
    scale[0], scale[1], scale[2] = byte * look[9], _F(1.15 / 255), byte * look[11]
    scale[3], scale[4], scale[5] = _F(1 / 85) * look[12], byte * look[13], _F(1 / 51) * look[14]
    scale[6], scale[7] = _F(1 / 51) * look[15], byte * look[16]
    for k in (3, 5, 6):
        bias[k] = _F(-128) * scale[k]


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _share_lit(lamp_seen, u, v, w, step, bias):
    """Share of the lamp that reaches a point: nine looks into its depth map."""
    i, j = int(u), int(v)
    if i < step or j < step or i >= SHADOW_SIDE - step - 1 or j >= SHADOW_SIDE - step - 1:
        return _F(1)
    a, b = u - _F(i), v - _F(j)
    top = np.int64((w + bias) * DEPTH_STEPS) << ID_BITS
    one, none, d = _F(0.5), _F(0), _U(step)
    at, down = _U(j * _LAMP_ROW + i), _U(step * _LAMP_ROW)
    total = none
    for k in range(3):
        m = at + _U(k) * down - down
        line = one if lamp_seen[m] < top else none
        line += (one if lamp_seen[m - d] < top else none) * (_F(1) - a)
        line += (one if lamp_seen[m + d] < top else none) * a
        total += line * (_F(0.5) if k == 1 else _F(0.5) * b if k == 2 else _F(0.5) * (_F(1) - b))
    return total


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _nook(seen, side, x, y, w, reach, focal):
    """How much nearer surface surrounds a point, 0 to 1."""
    z2 = _F(1) / (w * w)
    steep = focal * w / reach
    hidden = _F(0)
    turn = _U((x * 5 + y * 9) & 7)
    for k in range(6):
        u, v = x + int(reach * _CIRCLE[turn, k, 0]), y + int(reach * _CIRCLE[turn, k, 1])
        column, row = min(max(u, 0), side - 1), min(max(v, 0), side - 1)
        key = seen[_U(row * (side + PAD) + column)] >> ID_BITS
        rise = (_F(key) * _STEP - w) * z2  # metres nearer, to first order; empty: farthest
        slope = rise * steep * (_F(1 / 0.4) if k & 1 else _F(1 / 0.95))
        slope = min(_F(1), max(_F(0), slope - _F(0.3))) * max(_F(0), _F(1) - rise * _F(22))
        hidden += slope if (u == column) & (v == row) else _F(0)
    return hidden * _F(1 / 6)


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
def _colour_skin(look, scale, bias, atlas, count, texel, second, words, colour):
    """Red, green, blue and gloss of skin at many places, whether they are skin or not.

    atlas: (texels,) uint64, a byte per channel.   texel: (N,) places in it.   second: (N,) 1 for
    the second hand.   scale, bias: (8,) from bytes to strengths.   colour: (4, N), filled.
    """
    for n in range(count):
        words[n] = atlas[texel[n]]
    one, byte = _F(1), 255
    s0, s1, s2, s3, s4, s5, s6, s7 = (
        scale[0], scale[1], scale[2], scale[3], scale[4], scale[5], scale[6], scale[7],
    )  # fmt: skip
    b3, b5, b6 = bias[3], bias[5], bias[6]
    red0, green0, blue0 = look[0], look[1], look[2]
    red1, green1, blue1 = look[3] - red0, look[4] - green0, look[5] - blue0
    nail_r, nail_g, nail_b = look[6], look[7], look[8]
    for n in range(count):
        word = np.int64(words[n])
        palm, nail = _F(word & byte) * s0, min(one, _F(word >> 8 & byte) * s1)
        crease, flush = _F(word >> 16 & byte) * s2, _F(word >> 24 & byte) * s3 + b3
        vein, mottle = _F(word >> 32 & byte) * s4, _F(word >> 40 & byte) * s5 + b5
        fine, knuckle = _F(word >> 48 & byte) * s6 + b6, _F(word >> 56 & byte) * s7
        shade = (one + _F(0.03) * (mottle + fine)) * (one - _F(0.20) * knuckle)
        palm = min(palm, _F(0.9))
        red, green = red0 + second[n] * red1, green0 + second[n] * green1
        blue = blue0 + second[n] * blue1
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
def _thing_at(look, part, uv, tiles, inverse_tone, a, b, c, la, lb, lc):
    """Red, green, blue and gloss of cloth, metal and objects."""
    if part == WATCH or part == RING:
        k = 49 if part == WATCH else 52
        return look[k], look[k + 1], look[k + 2], _F(4)
    u = la * uv[a, 0] + lb * uv[b, 0] + lc * uv[c, 0]
    v = la * uv[a, 1] + lb * uv[b, 1] + lc * uv[c, 1]
    k = 35 if part == OBJECT else 42 if part == OCCLUDER else 28
    side = tiles.shape[1]
    period = 2 * side - 1
    i = int((u * look[k + 4] + look[k + 6]) * side) & period
    j = int((v * look[k + 4] + look[k + 6] * _F(3.7)) * side) & period
    i, j = min(i, period - i), min(j, period - j)
    texel, share = tiles[int(look[k + 3]), j, i], look[k + 5]
    red = look[k] + share * (inverse_tone[texel & 255] - look[k])
    green = look[k + 1] + share * (inverse_tone[texel >> 8 & 255] - look[k + 1])
    blue = look[k + 2] + share * (inverse_tone[texel >> 16 & 255] - look[k + 2])
    return red, green, blue, _F(0.1) if k == 28 else _F(1)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def light_places(look, seen, side, lamp_seen, focal, count, mixes, lights):
    """Light that arrives (red, green, blue) and that glances off (red, green, blue) at places.

    mixes: (N, 20), columns of ``Scratch.corners`` there, then sub-pixel x, y, 1/z and 1 for cloth.
    lights: (N, 6), filled.
    """
    one, none = _F(1), _F(0)
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
        kx, ky, kz = look[KEY], look[KEY + 1], look[KEY + 2]
        towards = nx * kx + ny * ky + nz * kz
        lit = one
        if towards > _F(-0.3) and look[SHADE] > none:
            step = 1 + int(look[SHADE + 1] * _F(200))
            bias = _F(0.0035) + _F(0.0035) * _F(step) * (_F(1.2) - abs(towards))
            u, v, s = mixes[j, LAMP], mixes[j, LAMP + 1], mixes[j, LAMP + 2]
            lit -= look[SHADE] * (one - _share_lit(lamp_seen, u, v, s, step, bias))
        reach = max(_F(2), _F(0.013) * focal * w)
        hidden = _nook(seen, side, x, y, w, reach, focal)
        open_ = one - look[SHADE + 2] * min(one, _F(1.7) * hidden)
        hx, hy, hz = kx + px, ky + py, kz + pz
        half = nx * hx + ny * hy + nz * hz
        shine = none
        if half > none and towards > none:
            half /= np.sqrt(hx * hx + hy * hy + hz * hz + _F(1e-9))
            power = look[GLOSS + 1]
            half = half / (power - power * half + half)  # half ** power (Schlick 1994)
            shine = look[GLOSS] * half * (power + _F(8)) * _F(0.06) * lit * towards
        edge = one - min(one, max(facing, none))
        edge *= edge
        rim = look[GLOSS] * (_F(0.10) + edge * edge)
        lit *= inside * (_F(0.5) + _F(0.5) * open_)
        # light that entered the skin comes out past the edge, redder
        wrap = _F(0.05) if cloth else _F(0.30)
        direct = max(none, (towards + wrap) / (one + wrap)) * lit
        wrap = _F(0.05) if cloth else _F(0.15)
        cold = max(none, (towards + wrap) / (one + wrap)) * lit
        sky_r, sky_g = mixes[j, SKY] * open_, mixes[j, SKY + 1] * open_
        sky_b = mixes[j, SKY + 2] * open_
        lamp_r, lamp_g, lamp_b = look[KEY + 3], look[KEY + 4], look[KEY + 5]
        lights[j, 0] = inside * sky_r + direct * lamp_r
        lights[j, 1] = inside * sky_g + cold * lamp_g
        lights[j, 2] = inside * sky_b + cold * lamp_b
        lights[j, 3] = shine * lamp_r + rim * sky_r
        lights[j, 4] = shine * lamp_g + rim * sky_g
        lights[j, 5] = shine * lamp_b + rim * sky_b


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _list_places(layout, seen, size, first, stop, kept, whole_numbers, floats, canvas, mask):
    """Which places of the rows from first to stop have to be shaded.

    whole_numbers: (4, N) pixel, face, light and whether the light starts there.   floats: (7, N)
    x, y in sub-pixels, share of the pixel, 1/z.   kept: light, its part and row, its depth for each
    square of a row; all filled.   returns how many places and how many lights.
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
            rest = _F(1) - covered
            for c in range(3):
                canvas[c, y, x] *= rest
    return count, lights


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _place_all(layout, corners, count, whole_numbers, floats, texel, mixes):
    """Where on their faces the listed places lie: the atlas's texel, what the light needs.

    floats: rows 4 to 6 become barycentric coordinates.   mixes: see ``light_places``.
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
def _blend(count, whole_numbers, floats, colour, lights, tone, canvas):
    """Add the listed places, lit, to their pixels."""
    scale, top = _F((TONE_STEPS - 1) / TONE_TOP), TONE_STEPS - 1
    pixels = canvas.reshape(3, -1)
    for n in range(count):
        pixel, j, share = _U(whole_numbers[0, n]), _U(whole_numbers[2, n]), floats[2, n]
        gloss = colour[3, n]
        for c in range(3):
            light = colour[c, n] * lights[j, c] + gloss * lights[j, 3 + c]
            k = min(max(int(light * scale), 0), top)
            pixels[c, pixel] += share * tone[_U(k)]


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def paint(p, layout, scratch, atlas, tiles, tone, inverse_tone, focal, mask):
    """Shade every pixel that the scene covers, blended over the canvas by coverage.

    The four sub-pixels of a pixel are shaded together where they see one smooth surface, apart
    where a silhouette passes. Up to SHARED_SIZE pixels a side, the four pixels of a square share
    their light (not their colour) where they lie on one smooth surface. BAND rows at a time, places
    are listed, looked up, coloured, lit and blended, each step for all of them: so that the
    processor waits for many pieces of memory at once.   focal: pixels.
    mask: (S, S) bool, filled: the hand covers at least half a pixel.
    """
    canvas, seen, lamp_seen = scratch.canvas, scratch.seen, scratch.lamp_seen
    size = canvas.shape[1]
    most = 4 * BAND * size
    look, scale, bias = np.zeros(56, np.float32), np.empty(8, np.float32), np.zeros(8, np.float32)
    read_look(p, look)
    read_scale(look, scale, bias)
    kept = (np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.float32))
    whole_numbers, floats = np.empty((4, most), np.int32), np.empty((7, most), np.float32)
    texel, words = np.empty(most, np.uint32), np.empty(most, np.uint64)
    second, colour = np.empty(most, np.float32), np.empty((4, most), np.float32)
    mixes, lights = np.empty((most, 20), np.float32), np.empty((most, 6), np.float32)
    for first in range(0, size, BAND):
        stop = min(size, first + BAND)
        count, lit = _list_places(
            layout, seen, size, first, stop, kept, whole_numbers, floats, canvas, mask
        )
        if count == 0:
            continue
        _place_all(layout, scratch.corners, count, whole_numbers, floats, texel, mixes)
        for n in range(count):
            second[n] = _F(whole_numbers[1, n] >= layout.face_start[HAND2])
        _colour_skin(look, scale, bias, atlas, count, texel, second, words, colour)
        for n in range(count):
            t = _U(whole_numbers[1, n])
            part = layout.face_part[t]
            if ARM < part < HAND2 or part == SLEEVE2:
                a, b, c = layout.faces[t, 0], layout.faces[t, 1], layout.faces[t, 2]
                la, lb, lc = floats[4, n], floats[5, n], floats[6, n]
                r, g, h, gloss = _thing_at(
                    look, part, layout.uv, tiles, inverse_tone, a, b, c, la, lb, lc
                )
                colour[0, n], colour[1, n], colour[2, n], colour[3, n] = r, g, h, gloss
        light_places(look, seen, 2 * size, lamp_seen, _F(2) * focal, lit, mixes, lights)
        _blend(count, whole_numbers, floats, colour, lights, tone, canvas)
