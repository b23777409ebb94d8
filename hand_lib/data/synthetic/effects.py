"""Around the painting: cloth and tones, a background and the shadow on it; what a camera does.

The camera turns light into tones, blurs, balances white, adds grain and makes a JPEG. Canvases are
(3, S, S) float32, sRGB 0 to 255: one plane per colour, so that rows are contiguous.
"""

import cv2
import numba as nb
import numpy as np
import simplejpeg

from hand_lib.data.synthetic.layout import SLEEVE
from hand_lib.render.raster import ID_MASK, PAD

_F = np.float32
_U = np.uint64  # indices known to be positive: no look whether to count from the end


CAST_CELLS = 32
"""Cells along a side of the shadow that falls on the background."""
TONE_TOP = 4.0
"""Linear light up to this is looked up; brighter is white."""
_LIGHT, _KNEE = np.linspace(0, TONE_TOP, 2048), 0.72
_SHOULDER = _KNEE + (1 - _KNEE) * (1 - np.exp(-(_LIGHT - _KNEE) / (1 - _KNEE)))
_ROLLED = np.where(_LIGHT < _KNEE, _LIGHT, _SHOULDER)
TONE = (255 * np.clip(_ROLLED, 0, 1) ** (1 / 2.2)).astype(np.float32)
"""Linear light from 0 to TONE_TOP -> sRGB 0 to 255, with a soft shoulder."""
INVERSE_TONE = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
"""An sRGB byte -> linear light."""


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def cloth_colour(cloth, u, v, tiles, colour):
    """Red, green and blue of a cloth or an object at texture coordinates u, v.   colour: filled."""
    side = tiles.shape[1]
    period = 2 * side - 1
    i = int((u * cloth.scale + cloth.shift) * side) & period
    j = int((v * cloth.scale + cloth.shift * _F(3.7)) * side) & period
    texel = tiles[cloth.tile, min(j, period - j), min(i, period - i)]
    for c in range(3):
        plain = cloth.colour[c]
        colour[c] = plain + cloth.pattern * (INVERSE_TONE[texel >> 8 * c & 255] - plain)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def blend(count, whole_numbers, floats, colour, lights, canvas):
    """Add the listed points, lit, to their pixels."""
    scale, top = _F((len(TONE) - 1) / TONE_TOP), len(TONE) - 1
    pixels = canvas.reshape(3, -1)
    for n in range(count):
        pixel, j, share = _U(whole_numbers[0, n]), _U(whole_numbers[2, n]), floats[2, n]
        for c in range(3):
            light = colour[c, n] * lights[j, c] + colour[3, n] * lights[j, 3 + c]
            k = min(max(int(light * scale), 0), top)
            pixels[c, pixel] += share * TONE[_U(k)]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def lay_background(ground, tiles, canvas):
    """Cut, turn, flip and tint a piece of a tile onto the canvas.

    ground: a record of ``config.BACKGROUND``.   tiles: (N, T, T) uint32, the bytes red, green,
    blue, unused; T a power of two. They repeat mirrored for ever; positions are whole numbers of
    1/256 texel.   canvas: (3, S, S), filled.
    """
    size, side = canvas.shape[1], tiles.shape[1]
    texels = tiles.reshape(-1)
    step = ground.zoom * side / size * 256
    cos, sin = np.cos(ground.angle) * step, np.sin(ground.angle) * step
    middle = (size - 1) / 2
    period = 2 * side - 1
    first, second = ground.tile * side * side, ground.second_tile * side * side
    edge, flip, left, top = ground.edge, ground.flip, ground.u, ground.v
    ex, ey, far = np.cos(edge * 1.7), np.sin(edge * 1.7), (left - 0.3) * size
    gain, bias = ground.gain * _F(1 / 65536), ground.bias
    wide = 2 * side * 65536  # keeps places positive: the pattern repeats after 2 side
    places, parts = np.empty((4, size), np.uint32), np.empty((2, size), np.float32)
    for y in range(size):
        dy = y - middle
        for x in range(size):
            dx = (x - middle) * flip
            u = int(left * side * 256 + cos * dx - sin * dy) + wide
            v = int(top * side * 256 + sin * dx + cos * dy) + wide
            i0, j0 = (u >> 8) & period, (v >> 8) & period
            i1, j1 = (i0 + 1) & period, (j0 + 1) & period
            i0, i1 = min(i0, period - i0), min(i1, period - i1)
            j0, j1 = min(j0, period - j0) * side, min(j1, period - j1) * side
            tile = second if (edge > 0) & (ex * dx + ey * dy > far) else first
            places[0, x], places[1, x] = tile + j0 + i0, tile + j0 + i1
            places[2, x], places[3, x] = tile + j1 + i0, tile + j1 + i1
            parts[0, x], parts[1, x] = u & 255, v & 255
        found = np.take(texels, places)
        for x in range(size):
            a, b = parts[0, x], parts[1, x]  # whole numbers below 2^24: these sums are exact
            w11 = a * b
            w01, w10 = _F(256) * a - w11, _F(256) * b - w11
            w00 = _F(65536) - _F(256) * a - w10
            for c in range(3):
                level = w00 * _F(found[0, x] >> 8 * c & 255) + w01 * _F(found[1, x] >> 8 * c & 255)
                level += w10 * _F(found[2, x] >> 8 * c & 255) + w11 * _F(found[3, x] >> 8 * c & 255)
                canvas[c, y, x] = level * gain[c] + bias


@nb.njit(cache=True, nogil=True, error_model="numpy")
def cast_on_background(p, layout, scratch, canvas):
    """Darken the background behind the hand, moved away from the lamp and blurred."""
    strength = p.cast
    if strength <= 0:
        return
    size, cells = canvas.shape[1], CAST_CELLS
    cast, wide = np.zeros((cells + 2, cells + 2), np.float32), 2 * size + PAD
    last = layout.face_start[SLEEVE + 1]
    for cy in range(cells):
        for cx in range(cells):
            hits = 0
            for k in range(4):
                y = int((cy + 0.25 + 0.5 * (k // 2)) * 2 * size / cells)
                x = int((cx + 0.25 + 0.5 * (k % 2)) * 2 * size / cells)
                key = scratch.seen[y * wide + x]
                if key > 0 and key & ID_MASK < last:
                    hits += 1
            cast[cy + 1, cx + 1] = hits / 4.0
    quarter, half = _F(0.25), _F(0.5)
    for _ in range(1 + int(p.cast_spread * cells * 1.2)):
        for y in range(1, cells + 1):
            for x in range(1, cells + 1):
                cast[y, x] = half * cast[y, x] + quarter * (cast[y, x - 1] + cast[y, x + 1])
        for y in range(1, cells + 1):
            for x in range(1, cells + 1):
                cast[y, x] = half * cast[y, x] + quarter * (cast[y - 1, x] + cast[y + 1, x])
    row, keep = np.empty(cells + 2, np.float32), np.empty(size, np.float32)
    for y in range(size):
        v = (y + 0.5) * cells / size + 0.5 - p.cast_offset[1] * cells
        j = int(np.floor(v))
        if j < 0 or j >= cells + 1:
            continue
        b = _F(v - j)
        for i in range(cells + 2):
            row[i] = strength * ((_F(1) - b) * cast[j, i] + b * cast[j + 1, i])
        for x in range(size):
            u = (x + 0.5) * cells / size + 0.5 - p.cast_offset[0] * cells
            i = int(np.floor(u))
            keep[x] = _F(1)
            if 0 <= i <= cells:
                a = _F(u - i)
                keep[x] -= (_F(1) - a) * row[_U(i)] + a * row[_U(i + 1)]
        for c in range(3):
            for x in range(size):
                canvas[c, y, x] *= keep[x]


def defocus(canvas: np.ndarray, sigma: float) -> None:
    """Gaussian blur of spread ``sigma`` pixels, in place."""
    side = 2 * max(1, int(np.ceil(2.5 * sigma))) + 1
    for plane in canvas:
        cv2.GaussianBlur(plane, (side, side), sigma, plane, borderType=cv2.BORDER_REPLICATE)


def motion(canvas: np.ndarray, length: float, angle: float) -> None:
    """Mean along a line of ``length`` pixels, ``angle`` radians from x, in place."""
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    steps = np.linspace(-length / 2, length / 2, 2 * reach + 1)
    rows, columns = (np.rint(reach + steps * f(angle)).astype(int) for f in (np.sin, np.cos))
    np.add.at(kernel, (rows, columns), 1 / len(steps))
    for plane in canvas:
        cv2.filter2D(plane, -1, kernel, plane, borderType=cv2.BORDER_REPLICATE)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _develop(canvas, gain, contrast, noise, grain, u, v, image):
    """White balance, contrast and grain.   image: (S, S, 3) uint8, filled."""
    size, side = canvas.shape[1], grain.shape[0] - 1
    shift, rough, slope = _F(118) * (_F(1) - contrast), noise * _F(0.6), noise * _F(0.003)
    for y in range(size):
        for c in range(3):
            film, factor = (y + v + 71 * c) & side, gain[c] * contrast
            for x in range(size):
                level = canvas[c, y, x] * factor + shift
                level += (rough + slope * level) * grain[film, _U((x + u) & side)]
                level = min(max(level + _F(0.5), _F(0)), _F(255))
                image[y, x, c] = np.uint8(np.int32(level))


def expose(camera: np.void, canvas: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """From a painted canvas, which is changed, to the picture (S, S, 3) uint8.

    camera: a record of ``config.CAMERA``.   grain: (256, 256) standard normal.
    """
    if camera["defocus_px"] > 0:
        defocus(canvas, float(camera["defocus_px"]))
    if camera["motion_px"] > 0:
        motion(canvas, float(camera["motion_px"]), float(camera["motion_angle"]))
    image = np.empty((*canvas.shape[1:], 3), np.uint8)
    _develop(
        canvas, camera["gain"], _F(camera["contrast"]), _F(camera["noise"]), grain,
        int(camera["grain_u"]), int(camera["grain_v"]), image,
    )  # fmt: skip
    if camera["jpeg_quality"] > 0:
        data = simplejpeg.encode_jpeg(image, int(camera["jpeg_quality"]), "RGB", "420")
        image = simplejpeg.decode_jpeg(data, "RGB")
    return image
