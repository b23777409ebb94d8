"""One picture's pixels: skin, cloth, light and shadow over a background."""

import numba as nb
import numpy as np

from hand_lib.synthetic_atlas import TEXELS
from hand_lib.synthetic_body import (
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
from hand_lib.synthetic_scene import SHADOW_SIDE

# places in ``look``: skin 0, second skin 3, nail 6, details 9, then these; cloth of sleeve 28,
# object 35 and occluder 42, watch 49, ring 52
KEY, GLOSS, SHADE = 17, 23, 25
_ANGLES = 2 * np.pi * (np.arange(6) / 6 + np.arange(8)[:, None] * 0.618)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
SHARED_SIZE = 160
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
def lay_background(p, tiles, canvas):
    """Cut, turn, flip and tint a piece of a tile onto the canvas.

    Tiles (a power of two wide) repeat mirrored for ever; places are whole numbers of 1/256 texel.
    """
    size, side = canvas.shape[0], tiles.shape[1]
    g = p.background
    step = g[3] * side / size * 256
    cos, sin = np.cos(g[4]) * step, np.sin(g[4]) * step
    middle = (size - 1) / 2
    period = 2 * side - 1
    first, second = int(g[0]), int(g[10])
    turn, flip = g[11], g[5]
    ex, ey, far = np.cos(turn * 1.7), np.sin(turn * 1.7), (g[1] - 0.3) * size
    gain0, gain1, gain2 = (
        g[6] / np.float32(65536),
        g[7] / np.float32(65536),
        g[8] / np.float32(65536),
    )
    bias = g[9]
    wide = 2 * side * 65536  # keeps places positive: the pattern repeats after 2 side
    for y in range(size):
        dy = y - middle
        for x in range(size):
            dx = (x - middle) * flip
            u = int(g[1] * side * 256 + cos * dx - sin * dy) + wide
            v = int(g[2] * side * 256 + sin * dx + cos * dy) + wide
            a, b = u & 255, v & 255
            i0, j0 = (u >> 8) & period, (v >> 8) & period
            i1, j1 = (i0 + 1) & period, (j0 + 1) & period
            i0, i1 = min(i0, period - i0), min(i1, period - i1)
            j0, j1 = min(j0, period - j0), min(j1, period - j1)
            tile = second if turn > 0 and ex * dx + ey * dy > far else first
            w00, w01, w10, w11 = (256 - a) * (256 - b), a * (256 - b), (256 - a) * b, a * b
            level = (
                w00 * tiles[tile, j0, i0, 0]
                + w01 * tiles[tile, j0, i1, 0]
                + w10 * tiles[tile, j1, i0, 0]
                + w11 * tiles[tile, j1, i1, 0]
            )
            canvas[y, x, 0] = np.float32(level) * gain0 + bias
            level = (
                w00 * tiles[tile, j0, i0, 1]
                + w01 * tiles[tile, j0, i1, 1]
                + w10 * tiles[tile, j1, i0, 1]
                + w11 * tiles[tile, j1, i1, 1]
            )
            canvas[y, x, 1] = np.float32(level) * gain1 + bias
            level = (
                w00 * tiles[tile, j0, i0, 2]
                + w01 * tiles[tile, j0, i1, 2]
                + w10 * tiles[tile, j1, i0, 2]
                + w11 * tiles[tile, j1, i1, 2]
            )
            canvas[y, x, 2] = np.float32(level) * gain2 + bias


@nb.njit(cache=True, nogil=True, error_model="numpy")
def cast_on_background(p, layout, scratch):
    """Darken the background behind the hand, moved away from the lamp and blurred."""
    strength = p.drop_shadow[0]
    if strength <= 0:
        return
    cast, size = scratch.cast, scratch.canvas.shape[0]
    cells = cast.shape[0] - 2
    cast[:] = 0.0
    last = layout.face_start[SLEEVE + 1]
    for cy in range(cells):
        for cx in range(cells):
            hits = 0
            for k in range(4):
                y = int((cy + 0.25 + 0.5 * (k // 2)) * 2 * size / cells)
                x = int((cx + 0.25 + 0.5 * (k % 2)) * 2 * size / cells)
                t = scratch.ids[y, x]
                if 0 <= t < last:
                    hits += 1
            cast[cy + 1, cx + 1] = hits / 4.0
    rounds = 1 + int(p.drop_shadow[3] * cells * 1.2)
    for _ in range(rounds):
        for y in range(1, cells + 1):
            for x in range(1, cells + 1):
                cast[y, x] = 0.5 * cast[y, x] + 0.25 * (cast[y, x - 1] + cast[y, x + 1])
        for y in range(1, cells + 1):
            for x in range(1, cells + 1):
                cast[y, x] = 0.5 * cast[y, x] + 0.25 * (cast[y - 1, x] + cast[y + 1, x])
    for y in range(size):
        v = (y + 0.5) * cells / size + 0.5 - p.drop_shadow[2] * cells
        j = int(np.floor(v))
        if j < 0 or j >= cells + 1:
            continue
        b = np.float32(v - j)
        for x in range(size):
            u = (x + 0.5) * cells / size + 0.5 - p.drop_shadow[1] * cells
            i = int(np.floor(u))
            if i < 0 or i >= cells + 1:
                continue
            a = np.float32(u - i)
            dark = (1 - b) * ((1 - a) * cast[j, i] + a * cast[j, i + 1])
            dark += b * ((1 - a) * cast[j + 1, i] + a * cast[j + 1, i + 1])
            keep = 1 - np.float32(strength) * dark
            for c in range(3):
                scratch.canvas[y, x, c] *= keep


@nb.njit(cache=True, nogil=True, error_model="numpy")
def read_look(p, look):
    """Colours and strengths of one record into (56,) floats, the order of the names above."""
    look[0:3], look[3:6], look[6:9] = p.skin, p.second_skin, p.nail
    look[9:17] = p.skin_detail
    look[KEY : KEY + 3], look[KEY + 3 : KEY + 6] = p.key, p.key_colour
    look[GLOSS : GLOSS + 2], look[SHADE : SHADE + 3] = p.gloss, p.shadow
    look[28:35], look[35:42], look[42:49] = p.sleeve_cloth, p.object_cloth, p.occluder_cloth
    look[49:52], look[52:55] = p.watch_colour, p.ring_colour


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _lit(lamp_depth, u, v, w, step, bias):
    """Share of the lamp that reaches a point: nine looks into its depth map."""
    i, j = int(u), int(v)
    if i < step or j < step or i >= SHADOW_SIDE - step - 1 or j >= SHADOW_SIDE - step - 1:
        return 1.0
    a, b = u - i, v - j
    total = 0.0
    top = w + bias
    for k in range(3):
        m = j + step * (k - 1)
        line = 0.0
        if lamp_depth[m, i - step] < top:
            line += 0.5 * (1 - a)
        if lamp_depth[m, i] < top:
            line += 0.5
        if lamp_depth[m, i + step] < top:
            line += 0.5 * a
        total += line * (0.5 if k == 1 else 0.5 * b if k == 2 else 0.5 * (1 - b))
    return total


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _nook(inverse_depth, x, y, w, reach, focal):
    """How much nearer surface surrounds a point, 0 to 1."""
    side = inverse_depth.shape[0]
    z2, steep = 1.0 / (w * w), focal * w
    near, wide = 1 / (0.4 * reach), 1 / (0.95 * reach)
    hidden = 0.0
    turn = (x * 5 + y * 9) & 7
    for k in range(6):
        far = reach * (0.4 if k & 1 else 0.95)
        u, v = x + int(far * _CIRCLE[turn, k, 0]), y + int(far * _CIRCLE[turn, k, 1])
        if u < 0 or v < 0 or u >= side or v >= side:
            continue
        other = inverse_depth[v, u]
        if other > w:
            rise = (other - w) * z2  # metres nearer, to first order
            slope = rise * steep * (near if k & 1 else wide)
            hidden += min(1.0, max(0.0, slope - 0.3)) * max(0.0, 1.0 - rise * 22.0)
    return hidden * (1 / 6)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def place_on(faces, e, t, x, y):
    """Barycentric coordinates on face t of sub-pixel (x, y), kept inside the face.

    A pixel's middle may lie a little outside the face that one of its quarters sees.
    e: (V, 3) places on the screen.
    """
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    ax, ay, bx, by = e[a, 0] - x, e[a, 1] - y, e[b, 0] - x, e[b, 1] - y
    cx, cy = e[c, 0] - x, e[c, 1] - y
    la, lb = (bx * cy - cx * by) * e[a, 2], (cx * ay - ax * cy) * e[b, 2]
    lc = (ax * by - bx * ay) * e[c, 2]
    if la + lb + lc < 0:
        la, lb, lc = -la, -lb, -lc
    la, lb, lc = max(la, 0.0), max(lb, 0.0), max(lc, 0.0)
    total = 1 / (la + lb + lc + 1e-30)
    return la * total, lb * total, lc * total


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def albedo_at(look, faces, part, uv, atlas, tiles, inverse_tone, second_first, t, la, lb, lc):
    """Red, green, blue that the surface sends back, and how glossy it is."""
    gloss = 1.0
    if part <= ARM or part == HAND2 or part == ARM2:
        second = 0
        same = t
        if part > ARM:
            second, same = 3, t - second_first
        m = (same * TEXELS + int(la * (TEXELS - 0.01))) * TEXELS + int(lb * (TEXELS - 0.01))
        palm, nail = atlas[m, 0] * (1 / 255) * look[9], min(1.0, atlas[m, 1] * (1.15 / 255))
        crease, flush = atlas[m, 2] * (1 / 255) * look[11], (atlas[m, 3] - 128.0) * (1 / 85)
        vein, mottle = atlas[m, 4] * (1 / 255) * look[13], (atlas[m, 5] - 128.0) * (1 / 51)
        fine, knuckle = (atlas[m, 6] - 128.0) * (1 / 51), atlas[m, 7] * (1 / 255) * look[16]
        flush, mottle, fine = flush * look[12], mottle * look[14], fine * look[15]
        shade = (1 + 0.03 * mottle + 0.03 * fine) * (1 - 0.20 * knuckle)
        palm = min(palm, 0.9)
        red, green, blue = look[second], look[second + 1], look[second + 2]
        red += palm * (0.30 - 0.38 * red)
        green += palm * (0.165 - 0.38 * green)
        blue += palm * (0.125 - 0.38 * blue)
        red *= shade * (1 + 0.05 * flush) * (1 - 0.13 * vein) * (1 - 0.32 * crease)
        green *= shade * (1 - 0.055 * flush) * (1 - 0.05 * vein) * (1 - 0.44 * crease)
        blue *= shade * (1 - 0.05 * flush) * (1 - 0.46 * crease)
        red *= 1 + 0.02 * mottle
        dark = 1 - 0.1 * crease
        red += nail * (look[6] * dark - red)
        green += nail * (look[7] * dark - green)
        blue += nail * (look[8] * dark - blue)
        gloss = 1.0 + 2.5 * nail - 0.4 * palm
    elif part == WATCH or part == RING:
        k = 49 if part == WATCH else 52
        red, green, blue, gloss = look[k], look[k + 1], look[k + 2], 4.0
    else:
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        u = la * uv[a, 0] + lb * uv[b, 0] + lc * uv[c, 0]
        v = la * uv[a, 1] + lb * uv[b, 1] + lc * uv[c, 1]
        k = 35 if part == OBJECT else 42 if part == OCCLUDER else 28
        side = tiles.shape[1]
        period = 2 * side - 1
        i = int((u * look[k + 4] + look[k + 6]) * side) & period
        j = int((v * look[k + 4] + look[k + 6] * 3.7) * side) & period
        m, i, j = int(look[k + 3]), min(i, period - i), min(j, period - j)
        share = look[k + 5]
        red = look[k] + share * (inverse_tone[tiles[m, j, i, 0]] - look[k])
        green = look[k + 1] + share * (inverse_tone[tiles[m, j, i, 1]] - look[k + 1])
        blue = look[k + 2] + share * (inverse_tone[tiles[m, j, i, 2]] - look[k + 2])
        if k == 28:
            gloss = 0.1
    return red, green, blue, gloss


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def light_at(
    look, faces, part, n, q, s, g, inverse_depth, lamp_depth, root_x, root_y, root_z, focal,
    t, la, lb, lc, x, y,
):  # fmt: skip
    """Light that arrives (red, green, blue) and that glances off (red, green, blue) at a point.

    Arrays come one by one (n normals, q points, s sky, g lamp; see ``Scratch``) because handing
    over a tuple of them for every pixel costs more than the shading.
    """
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    nx = la * n[a, 0] + lb * n[b, 0] + lc * n[c, 0]
    ny = la * n[a, 1] + lb * n[b, 1] + lc * n[c, 1]
    nz = la * n[a, 2] + lb * n[b, 2] + lc * n[c, 2]
    px = -(la * q[a, 0] + lb * q[b, 0] + lc * q[c, 0] + root_x)
    py = -(la * q[a, 1] + lb * q[b, 1] + lc * q[c, 1] + root_y)
    pz = -(la * q[a, 2] + lb * q[b, 2] + lc * q[c, 2] + root_z)
    length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * length, ny * length, nz * length
    length = 1 / np.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px * length, py * length, pz * length
    facing = nx * px + ny * py + nz * pz
    cloth, inside = part == SLEEVE or part == SLEEVE2, 1.0
    if facing < 0 and cloth:
        nx, ny, nz, facing, inside = -nx, -ny, -nz, -facing, 0.45
    kx, ky, kz = look[KEY], look[KEY + 1], look[KEY + 2]
    towards = nx * kx + ny * ky + nz * kz
    lit = 1.0
    if towards > -0.3 and look[SHADE] > 0:
        u = la * g[a, 0] + lb * g[b, 0] + lc * g[c, 0]
        v = la * g[a, 1] + lb * g[b, 1] + lc * g[c, 1]
        w = la * g[a, 2] + lb * g[b, 2] + lc * g[c, 2]
        step = 1 + int(look[SHADE + 1] * 200)
        bias = 0.0035 + 0.0035 * step * (1.2 - abs(towards))
        lit = 1 - look[SHADE] * (1 - _lit(lamp_depth, u, v, w, step, bias))
    w = inverse_depth[int(y), int(x)]
    open_ = 1.0
    if w > 0:
        reach = max(2.0, 0.013 * focal * w)
        hidden = _nook(inverse_depth, int(x), int(y), w, reach, focal)
        open_ -= look[SHADE + 2] * min(1.0, 1.7 * hidden)
    hx, hy, hz = kx + px, ky + py, kz + pz
    half = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
    shine = 0.0
    if half > 0 and towards > 0:
        power = look[GLOSS + 1]
        half = half / (power - power * half + half)  # half ** power (Schlick 1994)
        shine = look[GLOSS] * half * (power + 8) * 0.06 * lit * towards
    edge = 1 - min(1.0, max(facing, 0.0))
    edge *= edge
    rim = look[GLOSS] * (0.10 + edge * edge)
    lit *= inside * (0.5 + 0.5 * open_)
    wrap = 0.05 if cloth else 0.30  # light that entered the skin comes out past the edge, redder
    direct = max(0.0, (towards + wrap) / (1 + wrap)) * lit
    sky = (la * s[a, 0] + lb * s[b, 0] + lc * s[c, 0]) * open_
    red, red_off = inside * sky + direct * look[KEY + 3], shine * look[KEY + 3] + rim * sky
    wrap = 0.05 if cloth else 0.15
    direct = max(0.0, (towards + wrap) / (1 + wrap)) * lit
    sky = (la * s[a, 1] + lb * s[b, 1] + lc * s[c, 1]) * open_
    green, green_off = inside * sky + direct * look[KEY + 4], shine * look[KEY + 4] + rim * sky
    sky = (la * s[a, 2] + lb * s[b, 2] + lc * s[c, 2]) * open_
    blue, blue_off = inside * sky + direct * look[KEY + 5], shine * look[KEY + 5] + rim * sky
    return red, green, blue, red_off, green_off, blue_off


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _toned(tone, light):
    """sRGB of linear light, by table."""
    k = int(light * ((TONE_STEPS - 1) / TONE_TOP))
    return tone[min(max(k, 0), TONE_STEPS - 1)]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def paint(p, layout, scratch, atlas, tiles, tone, inverse_tone, root, focal, mask):
    """Shade every pixel that the scene covers, blended over the canvas by coverage.

    The four sub-pixels of a pixel are shaded together where they see one smooth surface, apart
    where a silhouette passes. Up to SHARED_SIZE pixels a side, the four pixels of a square share
    their light (not their colour) where they lie on one smooth surface.   focal: pixels.
    mask: (S, S) bool, filled: the hand covers at least half a pixel.
    """
    size = scratch.canvas.shape[0]
    ids, depth, canvas = scratch.ids, scratch.inverse_depth, scratch.canvas
    faces, face_part, uv, lamp_depth = layout.faces, layout.face_part, layout.uv, scratch.lamp_depth
    e, n, q, s, g = scratch.screen, scratch.normals, scratch.points, scratch.sky, scratch.lamp
    second_first = layout.face_start[HAND2]
    hand_faces, arm_faces = layout.face_start[1], layout.face_start[2]
    look = np.zeros(56, np.float32)
    read_look(p, look)
    rx, ry, rz, fine = root[0], root[1], root[2], 2 * focal
    shift = 1 if size <= SHARED_SIZE else 0
    kept = np.zeros((size, 6), np.float32)
    kept_at = np.full((size, 2), -1, np.int32)  # row of squares, part
    kept_depth = np.zeros(size, np.float32)
    for y in range(size):
        for x in range(size):
            t0, t1 = ids[2 * y, 2 * x], ids[2 * y, 2 * x + 1]
            t2, t3 = ids[2 * y + 1, 2 * x], ids[2 * y + 1, 2 * x + 1]
            top = max(t0, t1, t2, t3)
            if top < 0:
                mask[y, x] = False
                continue
            hits = (0 <= t0 < hand_faces) + (0 <= t1 < hand_faces)
            mask[y, x] = hits + (0 <= t2 < hand_faces) + (0 <= t3 < hand_faces) >= 2
            w0, w1 = depth[2 * y, 2 * x], depth[2 * y, 2 * x + 1]
            w2, w3 = depth[2 * y + 1, 2 * x], depth[2 * y + 1, 2 * x + 1]
            low, high = min(w0, w1, w2, w3), max(w0, w1, w2, w3)
            if low > 0 and high - low < 0.012 * high and (top < arm_faces or t0 == t1 == t2 == t3):
                part = int(face_part[t0])
                la, lb, lc = place_on(faces, e, t0, 2 * x + 0.5, 2 * y + 0.5)
                r, v, b, gloss = albedo_at(
                    look, faces, part, uv, atlas, tiles, inverse_tone, second_first, t0, la, lb, lc
                )
                k = x >> shift
                fits = kept_at[k, 0] == y >> shift and kept_at[k, 1] == part
                if not fits or abs(kept_depth[k] - w0) > 0.012 * w0:
                    l0, l1, l2, s0, s1, s2 = light_at(
                        look, faces, part, n, q, s, g, depth, lamp_depth, rx, ry, rz, fine,
                        t0, la, lb, lc, 2 * x + 0.5, 2 * y + 0.5,
                    )  # fmt: skip
                    kept[k, 0], kept[k, 1], kept[k, 2] = l0, l1, l2
                    kept[k, 3], kept[k, 4], kept[k, 5] = s0, s1, s2
                    kept_at[k, 0], kept_at[k, 1], kept_depth[k] = y >> shift, part, w0
                canvas[y, x, 0] = _toned(tone, r * kept[k, 0] + gloss * kept[k, 3])
                canvas[y, x, 1] = _toned(tone, v * kept[k, 1] + gloss * kept[k, 4])
                canvas[y, x, 2] = _toned(tone, b * kept[k, 2] + gloss * kept[k, 5])
                continue
            red = green = blue = covered = np.float32(0)
            c0 = c1 = c2 = before = np.float32(0)
            part_before = -1
            for turn in range(4):
                k = turn ^ (turn >> 1)  # neighbours follow each other: 0, 1, 3, 2
                t = ids[2 * y + (k >> 1), 2 * x + (k & 1)]
                if t < 0:
                    continue
                covered += np.float32(0.25)
                w, part = depth[2 * y + (k >> 1), 2 * x + (k & 1)], int(face_part[t])
                if part != part_before or abs(w - before) > 0.012 * w:
                    fx, fy = 2.0 * x + (k & 1), 2.0 * y + (k >> 1)
                    la, lb, lc = place_on(faces, e, t, fx, fy)
                    r, v, b, gloss = albedo_at(
                        look, faces, part, uv, atlas, tiles, inverse_tone, second_first, t,
                        la, lb, lc,
                    )  # fmt: skip
                    m = x >> shift
                    fits = kept_at[m, 0] == y >> shift and kept_at[m, 1] == part
                    if not fits or abs(kept_depth[m] - w) > 0.012 * w:
                        l0, l1, l2, s0, s1, s2 = light_at(
                            look, faces, part, n, q, s, g, depth, lamp_depth, rx, ry, rz, fine,
                            t, la, lb, lc, fx, fy,
                        )  # fmt: skip
                        kept[m, 0], kept[m, 1], kept[m, 2] = l0, l1, l2
                        kept[m, 3], kept[m, 4], kept[m, 5] = s0, s1, s2
                        kept_at[m, 0], kept_at[m, 1], kept_depth[m] = y >> shift, part, w
                    l0, l1, l2 = kept[m, 0], kept[m, 1], kept[m, 2]
                    s0, s1, s2 = kept[m, 3], kept[m, 4], kept[m, 5]
                    c0, c1 = _toned(tone, r * l0 + gloss * s0), _toned(tone, v * l1 + gloss * s1)
                    c2, before, part_before = _toned(tone, b * l2 + gloss * s2), w, part
                red += np.float32(0.25) * c0
                green += np.float32(0.25) * c1
                blue += np.float32(0.25) * c2
            rest = np.float32(1) - covered
            canvas[y, x, 0] = canvas[y, x, 0] * rest + red
            canvas[y, x, 1] = canvas[y, x, 1] * rest + green
            canvas[y, x, 2] = canvas[y, x, 2] * rest + blue
