"""What a camera does to a picture: blur, white balance, contrast, noise, JPEG, all in numba.

Canvases are (3, S, S) float32, sRGB 0 to 255: one plane per colour, so that rows are contiguous.
"""

import numba as nb
import numpy as np

_LUMINANCE = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
     14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
     92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99], np.float32
).reshape(8, 8)  # fmt: skip
_CHROMINANCE = np.full((8, 8), 99, np.float32)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# ITU T.81, annex K: the tables that almost every encoder scales
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(0.5 * np.cos(k * np.pi / 16)) for k in range(1, 8))
_F = np.float32
_U = np.uint64  # places known to be positive: no look whether to count from the end
_NEAR = 4
"""Reach of the blur that is summed in one go, pixels."""


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _forward(a, count):
    """Cosine transform of each column of a (8, count), in place."""
    for i in range(count):
        s0, d0 = a[0, i] + a[7, i], a[0, i] - a[7, i]
        s1, d1 = a[1, i] + a[6, i], a[1, i] - a[6, i]
        s2, d2 = a[2, i] + a[5, i], a[2, i] - a[5, i]
        s3, d3 = a[3, i] + a[4, i], a[3, i] - a[4, i]
        e0, e1, e2, e3 = s0 + s3, s1 + s2, s1 - s2, s0 - s3
        a[0, i], a[4, i] = _C4 * (e0 + e1), _C4 * (e0 - e1)
        a[2, i], a[6, i] = _C2 * e3 + _C6 * e2, _C6 * e3 - _C2 * e2
        a[1, i] = _C1 * d0 + _C3 * d1 + _C5 * d2 + _C7 * d3
        a[3, i] = _C3 * d0 - _C7 * d1 - _C1 * d2 - _C5 * d3
        a[5, i] = _C5 * d0 - _C1 * d1 + _C7 * d2 + _C3 * d3
        a[7, i] = _C7 * d0 - _C5 * d1 + _C3 * d2 - _C1 * d3


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _inverse(a, count):
    """Undo ``_forward``."""
    for i in range(count):
        p, q = _C4 * (a[0, i] + a[4, i]), _C4 * (a[0, i] - a[4, i])
        r, s = _C2 * a[2, i] + _C6 * a[6, i], _C6 * a[2, i] - _C2 * a[6, i]
        b1, b3, b5, b7 = a[1, i], a[3, i], a[5, i], a[7, i]
        d0 = _C1 * b1 + _C3 * b3 + _C5 * b5 + _C7 * b7
        d1 = _C3 * b1 - _C7 * b3 - _C1 * b5 - _C5 * b7
        d2 = _C5 * b1 - _C1 * b3 + _C7 * b5 + _C3 * b7
        d3 = _C7 * b1 - _C5 * b3 + _C3 * b5 - _C1 * b7
        a[0, i], a[7, i] = p + r + d0, p + r - d0
        a[1, i], a[6, i] = q + s + d1, q + s - d1
        a[2, i], a[5, i] = q - s + d2, q - s - d2
        a[3, i], a[4, i] = p - r + d3, p - r - d3


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _round_coefficients(blocks, table):
    """Round the cosine coefficients of all blocks.   blocks: (8 columns, 8 rows, N), changed."""
    count = blocks.shape[2]
    _forward(blocks.reshape(8, 8 * count), 8 * count)
    for j in range(8):
        _forward(blocks[j], count)
        for i in range(8):
            step, row = table[i, j], blocks[j, i]
            part = _F(1) / step
            for k in range(count):
                row[k] = np.floor(row[k] * part + _F(0.5)) * step
        _inverse(blocks[j], count)
    _inverse(blocks.reshape(8, 8 * count), 8 * count)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def quantisation(base, quality):
    """A JPEG table for a quality from 1 to 100, scaled as the IJG library does."""
    scale = 5000.0 / quality if quality < 50 else 200.0 - 2.0 * quality
    out = np.empty((8, 8), np.float32)
    for i in range(8):
        for j in range(8):
            out[i, j] = min(255.0, max(1.0, np.floor((base[i, j] * scale + 50.0) / 100.0)))
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _to_blocks(canvas, bright, blue, red):
    """Luminance and halved colour differences, block by block; the last pixels are repeated."""
    size, last = canvas.shape[1], canvas.shape[1] - 1
    across = (size + 15) // 16
    line = np.empty((4, 16 * across), np.float32)
    one, two, tint_b, tint_r = line[0], line[1], line[2], line[3]
    for y in range(0, 16 * across, 2):
        u, v = min(y, last), min(y + 1, last)
        for x in range(size):
            r, g, b = canvas[0, u, x], canvas[1, u, x], canvas[2, u, x]
            s, t, w = canvas[0, v, x], canvas[1, v, x], canvas[2, v, x]
            one[x] = _F(0.299) * r + _F(0.587) * g + _F(0.114) * b - _F(128)
            two[x] = _F(0.299) * s + _F(0.587) * t + _F(0.114) * w - _F(128)
            r, g, b = r + s, g + t, b + w
            tint_b[x] = _F(-0.042184) * r - _F(0.082816) * g + _F(0.125) * b
            tint_r[x] = _F(0.125) * r - _F(0.1046720) * g - _F(0.020328) * b
        for k in range(4):
            for x in range(size, 16 * across):
                line[k, x] = line[k, last]
        i, first = y & 7, (y >> 3) * 2 * across
        for k in range(2 * across):
            for j in range(8):
                bright[j, i, first + k] = one[8 * k + j]
                bright[j, i + 1, first + k] = two[8 * k + j]
        i, first = (y >> 1) & 7, (y >> 4) * across
        for k in range(across):
            for j in range(8):
                x = 16 * k + 2 * j
                blue[j, i, first + k] = tint_b[x] + tint_b[x + 1]
                red[j, i, first + k] = tint_r[x] + tint_r[x + 1]


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _from_blocks(bright, blue, red, canvas):
    size = canvas.shape[1]
    across = (size + 15) // 16
    line = np.empty((3, 16 * across), np.float32)
    level, tint_b, tint_r = line[0], line[1], line[2]
    for y in range(size):
        i, first = y & 7, (y >> 3) * 2 * across
        for k in range(2 * across):
            for j in range(8):
                level[8 * k + j] = bright[j, i, first + k] + _F(128)
        if not y & 1:
            i, first = (y >> 1) & 7, (y >> 4) * across
            for k in range(across):
                for j in range(8):
                    x = 16 * k + 2 * j
                    tint_b[x] = tint_b[x + 1] = blue[j, i, first + k]
                    tint_r[x] = tint_r[x + 1] = red[j, i, first + k]
        for x in range(size):
            canvas[0, y, x] = level[x] + _F(1.402) * tint_r[x]
            canvas[1, y, x] = level[x] - _F(0.344136) * tint_b[x] - _F(0.714136) * tint_r[x]
            canvas[2, y, x] = level[x] + _F(1.772) * tint_b[x]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def jpeg(canvas, quality):
    """What JPEG with halved colour resolution does to a picture.   canvas: (3, S, S), changed."""
    blocks = ((canvas.shape[1] + 15) // 16) ** 2
    bright = np.empty((8, 8, 4 * blocks), np.float32)
    blue, red = np.empty((8, 8, blocks), np.float32), np.empty((8, 8, blocks), np.float32)
    _to_blocks(canvas, bright, blue, red)
    _round_coefficients(bright, quantisation(_LUMINANCE, quality))
    table = quantisation(_CHROMINANCE, quality)
    _round_coefficients(blue, table)
    _round_coefficients(red, table)
    _from_blocks(bright, blue, red, canvas)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _prolong(row, line, reach):
    """Copy a row of pixels into the middle of a line, its ends repeated ``reach`` times."""
    size = row.shape[0]
    for x in range(reach):
        line[x] = row[0]
        line[reach + size + x] = row[size - 1]
    for x in range(size):
        line[reach + x] = row[x]


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _blur_near(canvas, spare, kernel):
    """Blur by a kernel of _NEAR + 1 weights, each pass in one go."""
    size, last, reach = canvas.shape[1], canvas.shape[1] - 1, _NEAR
    k0, k1, k2, k3, k4 = kernel[0], kernel[1], kernel[2], kernel[3], kernel[4]
    line = np.empty(size + 2 * _NEAR, np.float32)
    for c in range(3):
        for y in range(size):
            _prolong(canvas[c, y], line, reach)
            for x in range(size):
                near = k1 * (line[x + 3] + line[x + 5]) + k2 * (line[x + 2] + line[x + 6])
                far = k3 * (line[x + 1] + line[x + 7]) + k4 * (line[x] + line[x + 8])
                spare[c, y, x] = k0 * line[x + 4] + near + far
        for y in range(size):
            a1, b1, a2, b2 = max(y - 1, 0), min(y + 1, last), max(y - 2, 0), min(y + 2, last)
            a3, b3, a4, b4 = max(y - 3, 0), min(y + 3, last), max(y - 4, 0), min(y + 4, last)
            for x in range(size):
                near = k0 * spare[c, y, x] + k1 * (spare[c, a1, x] + spare[c, b1, x])
                near += k2 * (spare[c, a2, x] + spare[c, b2, x])
                far = k3 * (spare[c, a3, x] + spare[c, b3, x])
                canvas[c, y, x] = near + far + k4 * (spare[c, a4, x] + spare[c, b4, x])


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _blur_far(canvas, spare, kernel):
    """Blur by a kernel of any length."""
    size, last, reach = canvas.shape[1], canvas.shape[1] - 1, kernel.shape[0] - 1
    line = np.empty(size + 2 * reach, np.float32)
    for c in range(3):
        for y in range(size):
            _prolong(canvas[c, y], line, reach)
            for x in range(size):
                spare[c, y, x] = kernel[0] * canvas[c, y, x]
            for k in range(1, reach + 1):
                left, right = _U(reach - k), _U(reach + k)
                for x in range(_U(size)):
                    spare[c, y, x] += kernel[k] * (line[x + left] + line[x + right])
        for y in range(size):
            for x in range(size):
                canvas[c, y, x] = kernel[0] * spare[c, y, x]
            for k in range(1, reach + 1):
                up, down = max(y - k, 0), min(y + k, last)
                for x in range(size):
                    canvas[c, y, x] += kernel[k] * (spare[c, up, x] + spare[c, down, x])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def defocus(canvas, spare, sigma):
    """Gaussian blur of spread ``sigma`` pixels, in place.   spare: a buffer of the same shape."""
    reach = min(int(np.ceil(2.5 * sigma)), 12, canvas.shape[1] - 1)
    if reach < 1:
        return
    kernel = np.zeros(max(reach, _NEAR) + 1, np.float32)  # a short one is filled up with zeros
    total = 0.0
    for k in range(reach + 1):
        kernel[k] = np.exp(-0.5 * (k / sigma) ** 2)
        total += kernel[k] * (1 if k == 0 else 2)
    for k in range(reach + 1):
        kernel[k] /= np.float32(total)
    if reach <= _NEAR:
        _blur_near(canvas, spare, kernel)
    else:
        _blur_far(canvas, spare, kernel)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def motion(canvas, spare, length, angle):
    """Mean along a line of ``length`` pixels, in place."""
    size, last = canvas.shape[1], canvas.shape[1] - 1
    taps = max(2, int(np.ceil(length)) + 1)
    share = _F(1) / _F(taps)
    spare[:] = _F(0)
    for k in range(taps):
        away = length * (k / (taps - 1) - 0.5)
        dx = int(np.floor(away * np.cos(angle) + 0.5))
        dy = int(np.floor(away * np.sin(angle) + 0.5))
        first, stop = min(size, max(0, -dx)), max(0, min(size, size - dx))
        for c in range(3):
            for y in range(size):
                v = min(max(y + dy, 0), last)
                for x in range(first):
                    spare[c, y, x] += share * canvas[c, v, 0]
                to, start = _U(first), _U(first + dx)
                for x in range(_U(max(stop - first, 0))):
                    spare[c, y, to + x] += share * canvas[c, v, start + x]
                for x in range(max(first, stop), size):
                    spare[c, y, x] += share * canvas[c, v, last]
    for c in range(3):
        for y in range(size):
            for x in range(size):
                canvas[c, y, x] = spare[c, y, x]


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _develop(canvas, cam, grain):
    """White balance, contrast and grain, in place."""
    size, side = canvas.shape[1], grain.shape[0] - 1
    contrast, noise, u0 = cam[3], cam[7], int(cam[9])
    shift = _F(118) * (_F(1) - contrast)
    rough, slope = noise * _F(0.6), noise * _F(0.003)
    for c in range(3):
        gain = cam[c] * contrast
        for y in range(size):
            film = (y + int(cam[10]) + 71 * c) & side
            x = 0
            while x < size:  # the film repeats: run to its edge
                first, start = _U(x), _U((x + u0) & side)
                x += side + 1 - ((x + u0) & side)
                for i in range(_U(min(size, x)) - first):
                    level = canvas[c, y, first + i] * gain + shift
                    level += (rough + slope * level) * grain[film, start + i]
                    canvas[c, y, first + i] = min(max(level, _F(0)), _F(255))


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _to_bytes(canvas, image):
    for c in range(3):
        for y in range(canvas.shape[1]):
            for x in range(canvas.shape[2]):
                level = min(max(canvas[c, y, x] + _F(0.5), _F(0)), _F(255))
                image[c, y, x] = np.uint8(np.int32(level))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def expose(p, scratch, grain, image):
    """From the painted canvas to the picture's bytes.

    p: one record of ``PARAMETERS``.   grain: (256, 256) standard normal.
    image: (3, S, S) uint8, filled.
    """
    canvas, spare, cam = scratch.canvas, scratch.spare, p.camera
    if cam[4] == 1:
        defocus(canvas, spare, cam[5])
    elif cam[4] == 2:
        motion(canvas, spare, cam[5], cam[6])
    _develop(canvas, cam, grain)
    if cam[8] > 0:
        jpeg(canvas, cam[8])
    _to_bytes(canvas, image)
