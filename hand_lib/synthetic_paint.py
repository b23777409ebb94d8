"""One picture's pixels: skin, cloth, light and shadow over a background."""

import numba as nb
import numpy as np

from hand_lib.render import barycentric_at
from hand_lib.synthetic_atlas import TEXELS
from hand_lib.synthetic_body import (
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


@nb.njit(cache=True, nogil=True)
def _folded(t, side):
    """Index of a tile that repeats mirrored for ever."""
    t = t % (2 * side)
    return t if t < side else 2 * side - 1 - t


@nb.njit(cache=True, nogil=True)
def lay_background(p, tiles, canvas):
    """Cut, turn, flip and tint a piece of a tile onto the canvas."""
    size, side = canvas.shape[0], tiles.shape[1]
    g = p.background
    step = g[3] * side / size
    cos, sin = np.cos(g[4]) * step, np.sin(g[4]) * step
    middle = (size - 1) / 2
    u0, v0 = g[1] * side, g[2] * side
    first, second = tiles[int(g[0])], tiles[int(g[10])]
    turn = g[11]
    ex, ey = np.cos(turn * 1.7), np.sin(turn * 1.7)
    for y in range(size):
        for x in range(size):
            dx, dy = (x - middle) * g[5], y - middle
            u, v = u0 + cos * dx - sin * dy, v0 + sin * dx + cos * dy
            tile = first
            if turn > 0 and ex * dx + ey * dy > (g[1] - 0.3) * size:
                tile = second
            fu, fv = np.floor(u), np.floor(v)
            a, b = np.float32(u - fu), np.float32(v - fv)
            i0, j0 = _folded(int(fu), side), _folded(int(fv), side)
            i1, j1 = _folded(int(fu) + 1, side), _folded(int(fv) + 1, side)
            w00, w01, w10, w11 = (1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b
            for c in range(3):
                level = w00 * tile[j0, i0, c] + w01 * tile[j0, i1, c]
                level += w10 * tile[j1, i0, c] + w11 * tile[j1, i1, c]
                canvas[y, x, c] = level * g[6 + c] + g[9]


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def _lit(lamp_depth, u, v, w, spread, bias):
    """Share of the lamp that reaches a point: four soft-edged looks into its depth map."""
    total = 0.0
    for k in range(4):
        x = u + spread * (-0.5 if k & 1 else 0.5)
        y = v + spread * (-0.5 if k & 2 else 0.5)
        i, j = int(np.floor(x)), int(np.floor(y))
        if i < 0 or j < 0 or i >= SHADOW_SIDE - 1 or j >= SHADOW_SIDE - 1:
            total += 1.0
            continue
        a, b = x - i, y - j
        open_ = (1 - a) * (1 - b) * (lamp_depth[j, i] < w + bias)
        open_ += a * (1 - b) * (lamp_depth[j, i + 1] < w + bias)
        open_ += (1 - a) * b * (lamp_depth[j + 1, i] < w + bias)
        open_ += a * b * (lamp_depth[j + 1, i + 1] < w + bias)
        total += open_
    return 0.25 * total


@nb.njit(cache=True, nogil=True)
def _nook(inverse_depth, x, y, w, reach, focal):
    """How much nearer surface surrounds a point, 0 to 1."""
    side = inverse_depth.shape[0]
    z = 1.0 / w
    hidden = 0.0
    turn = ((x * 5 + y * 9) & 7) * 0.11
    for k in range(8):
        angle = turn + 0.785398 * k
        far = reach * (0.35 if k & 1 else 0.9)
        u, v = int(x + far * np.cos(angle)), int(y + far * np.sin(angle))
        if u < 0 or v < 0 or u >= side or v >= side:
            continue
        other = inverse_depth[v, u]
        if other > w:
            rise = z - 1.0 / other
            slope = rise * focal * w / far
            hidden += min(1.0, max(0.0, slope - 0.3)) * max(0.0, 1.0 - rise * 22.0)
    return hidden * 0.125


@nb.njit(cache=True, nogil=True)
def _cloth(cloth, tiles, uv0, uv1, inverse_tone, out):
    """Albedo of cloth, paint or print."""
    side = tiles.shape[1]
    u = _folded(int((uv0 * cloth[4] + cloth[6]) * side), side)
    v = _folded(int((uv1 * cloth[4] + cloth[6] * 3.7) * side), side)
    tile, share = tiles[int(cloth[3])], cloth[5]
    for c in range(3):
        out[c] = cloth[c] * (1 - share) + inverse_tone[tile[v, u, c]] * share


@nb.njit(cache=True, nogil=True)
def _skin(p, second, spot, out):
    """Albedo of skin at a spot of the atlas; returns how glossy it is."""
    d = p.skin_detail
    palm, nail = spot[0] / 255.0 * d[0], min(1.0, spot[1] / 255.0 * 1.15)
    crease, red = spot[2] / 255.0 * d[2], (spot[3] - 128.0) / 85.0 * d[3]
    vein, mottle = spot[4] / 255.0 * d[4], (spot[5] - 128.0) / 51.0 * d[5]
    fine, knuckle = (spot[6] - 128.0) / 51.0 * d[6], spot[7] / 255.0 * d[7]
    shade = (1 + 0.035 * mottle + 0.045 * fine) * (1 - 0.20 * knuckle)
    palm = min(palm, 0.9)
    for c in range(3):
        base = second[c]
        pale = base * 0.62 + (0.30, 0.165, 0.125)[c]
        colour = base + palm * (pale - base)
        colour *= shade * (1 + red * (0.05, -0.055, -0.05)[c]) * (1 - vein * (0.13, 0.05, 0.0)[c])
        colour *= 1 - crease * (0.32, 0.44, 0.46)[c]
        colour *= 1 + 0.02 * mottle * (1.0, -0.5, -0.5)[c]
        out[c] = colour + nail * (p.nail[c] * (1 - 0.1 * crease) - colour)
    return 1.0 + 2.5 * nail - 0.4 * palm


@nb.njit(cache=True, nogil=True)
def shade_point(p, layout, scratch, atlas, tiles, inverse_tone, root, view, t, x, y, out):
    """Linear light (3,) from face t at sub-pixel (x, y)."""
    faces = layout.faces
    la, lb, lc = barycentric_at(scratch.screen, faces, t, x, y)
    # a pixel's middle may lie a little outside the face that one of its quarters sees
    la, lb, lc = max(la, 0.0), max(lb, 0.0), max(lc, 0.0)
    total = la + lb + lc
    la, lb, lc = np.float32(la / total), np.float32(lb / total), np.float32(lc / total)
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    starts = layout.face_start
    part = 0
    while t >= starts[part + 1]:
        part += 1
    albedo = np.empty(3, np.float32)
    gloss = 1.0
    if part <= 1:
        spot = (t * TEXELS + int(la * (TEXELS - 0.01))) * TEXELS + int(lb * (TEXELS - 0.01))
        gloss = _skin(p, p.skin, atlas[spot], albedo)
    elif part == HAND2 or part == ARM2:
        same = t - starts[HAND2]
        spot = (same * TEXELS + int(la * (TEXELS - 0.01))) * TEXELS + int(lb * (TEXELS - 0.01))
        gloss = _skin(p, p.second_skin, atlas[spot], albedo)
    elif part == WATCH:
        albedo[:] = p.watch_colour
        gloss = 3.0
    elif part == RING:
        albedo[:] = p.ring_colour
        gloss = 5.0
    else:
        uv = layout.uv
        u = la * uv[a, 0] + lb * uv[b, 0] + lc * uv[c, 0]
        v = la * uv[a, 1] + lb * uv[b, 1] + lc * uv[c, 1]
        if part == OBJECT:
            _cloth(p.object_cloth, tiles, u, v, inverse_tone, albedo)
        elif part == OCCLUDER:
            _cloth(p.occluder_cloth, tiles, u, v, inverse_tone, albedo)
        else:
            _cloth(p.sleeve_cloth, tiles, u, v, inverse_tone, albedo)
            gloss = 0.1
    n, q, s = scratch.normals, scratch.points, scratch.sky
    nx = la * n[a, 0] + lb * n[b, 0] + lc * n[c, 0]
    ny = la * n[a, 1] + lb * n[b, 1] + lc * n[c, 1]
    nz = la * n[a, 2] + lb * n[b, 2] + lc * n[c, 2]
    px = -(la * q[a, 0] + lb * q[b, 0] + lc * q[c, 0] + root[0])
    py = -(la * q[a, 1] + lb * q[b, 1] + lc * q[c, 1] + root[1])
    pz = -(la * q[a, 2] + lb * q[b, 2] + lc * q[c, 2] + root[2])
    length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * length, ny * length, nz * length
    length = 1 / np.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px * length, py * length, pz * length
    facing = nx * px + ny * py + nz * pz
    inside = 1.0
    if facing < 0 and (part == SLEEVE or part == SLEEVE2):
        nx, ny, nz, facing, inside = -nx, -ny, -nz, -facing, 0.45
    kx, ky, kz = p.key
    towards = nx * kx + ny * ky + nz * kz
    lit = 1.0
    if towards > -0.3 and p.shadow[0] > 0:
        g = scratch.lamp
        u = la * g[a, 0] + lb * g[b, 0] + lc * g[c, 0]
        v = la * g[a, 1] + lb * g[b, 1] + lc * g[c, 1]
        w = la * g[a, 2] + lb * g[b, 2] + lc * g[c, 2]
        spread = p.shadow[1] * 282.0
        bias = 0.0035 + 0.6 * p.shadow[1] + 0.004 * (1 - abs(towards))
        lit = 1 - p.shadow[0] * (1 - _lit(scratch.lamp_depth, u, v, w, spread, bias))
    w = scratch.inverse_depth[int(y), int(x)]
    open_ = 1.0
    if w > 0:
        reach = max(2.0, 0.013 * 2 * view[0] * w)
        hidden = _nook(scratch.inverse_depth, int(x), int(y), w, reach, 2 * view[0])
        open_ = 1 - p.shadow[2] * min(1.0, 1.7 * hidden)
    hx, hy, hz = kx + px, ky + py, kz + pz
    half = nx * hx + ny * hy + nz * hz
    half = half / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
    shine = 0.0
    if half > 0.5 and towards > 0:
        shine = p.gloss[0] * gloss * half ** p.gloss[1] * (p.gloss[1] + 8) * 0.06 * lit * towards
    edge = 1 - min(1.0, max(facing, 0.0))
    rim = 0.10 * gloss * p.gloss[0] + 0.25 * min(gloss, 1.0) * p.gloss[0] * edge**4 * 4
    for k in range(3):
        wrap = (0.30, 0.17, 0.12)[k] if gloss != 0.1 else 0.05
        direct = max(0.0, (towards + wrap) / (1 + wrap)) * lit
        ambient = (la * s[a, k] + lb * s[b, k] + lc * s[c, k]) * open_
        light = (ambient + direct * p.key_colour[k] * (0.5 + 0.5 * open_)) * inside
        out[k] = albedo[k] * light + shine * p.key_colour[k] + rim * ambient


@nb.njit(cache=True, nogil=True)
def paint(p, layout, scratch, atlas, tiles, tone, inverse_tone, root, view, mask):
    """Shade every pixel that the scene covers, blended over the canvas by coverage.

    The four sub-pixels of a pixel are shaded together where they see one smooth surface, apart
    where a silhouette passes.   mask: (S, S) bool, filled: the hand covers at least half a pixel.
    """
    size = scratch.canvas.shape[0]
    ids, depth = scratch.ids, scratch.inverse_depth
    hand_faces = layout.face_start[1]
    arm_faces = layout.face_start[2]
    colour = np.empty(3, np.float64)
    mixed = np.empty(3, np.float64)
    scale = (TONE_STEPS - 1) / TONE_TOP
    for y in range(size):
        for x in range(size):
            t0, t1 = ids[2 * y, 2 * x], ids[2 * y, 2 * x + 1]
            t2, t3 = ids[2 * y + 1, 2 * x], ids[2 * y + 1, 2 * x + 1]
            mask[y, x] = False
            if t0 < 0 and t1 < 0 and t2 < 0 and t3 < 0:
                continue
            hits = 0
            for t in (t0, t1, t2, t3):
                hits += 0 <= t < hand_faces
            mask[y, x] = hits >= 2
            w0, w1 = depth[2 * y, 2 * x], depth[2 * y, 2 * x + 1]
            w2, w3 = depth[2 * y + 1, 2 * x], depth[2 * y + 1, 2 * x + 1]
            low, high = min(w0, w1, w2, w3), max(w0, w1, w2, w3)
            skin_only = max(t0, t1, t2, t3) < arm_faces
            if low > 0 and high - low < 0.012 * high and (skin_only or t0 == t3 == t1 == t2):
                shade_point(
                    p, layout, scratch, atlas, tiles, inverse_tone, root, view, t0,
                    2 * x + 0.5, 2 * y + 0.5, colour,
                )  # fmt: skip
                for c in range(3):
                    k = int(min(colour[c] * scale, TONE_STEPS - 1.0))
                    scratch.canvas[y, x, c] = tone[max(k, 0)]
                continue
            mixed[:] = 0.0
            covered = 0.0
            for q in range(4):
                t = (t0, t1, t2, t3)[q]
                if t < 0:
                    continue
                covered += 0.25
                shade_point(
                    p, layout, scratch, atlas, tiles, inverse_tone, root, view, t,
                    2.0 * x + (q & 1), 2.0 * y + (q >> 1), colour,
                )  # fmt: skip
                for c in range(3):
                    k = int(min(colour[c] * scale, TONE_STEPS - 1.0))
                    mixed[c] += 0.25 * tone[max(k, 0)]
            for c in range(3):
                scratch.canvas[y, x, c] = scratch.canvas[y, x, c] * (1 - covered) + mixed[c]
