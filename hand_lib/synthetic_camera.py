"""What a camera does to a picture: blur, white balance, contrast, noise, JPEG, all in numba."""

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
_K = np.arange(8)
_DCT = (0.5 * np.cos((2 * _K[None] + 1) * _K[:, None] * np.pi / 16)).astype(np.float32)
_DCT[0] *= np.sqrt(0.5)
_TURNED = np.ascontiguousarray(_DCT.T)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _block(block, table, work):
    """Round the cosine coefficients of one 8 x 8 block in place."""
    work[:] = np.float32(0)
    for i in range(8):
        for k in range(8):
            for j in range(8):
                work[i, j] += _DCT[i, k] * block[k, j]
    for i in range(8):
        for j in range(8):
            block[i, j] = np.float32(0)
        for k in range(8):
            for j in range(8):
                block[i, j] += work[i, k] * _TURNED[k, j]
        for j in range(8):
            level = np.floor(block[i, j] / table[i, j] + np.float32(0.5))
            block[i, j] = level * table[i, j]
    work[:] = np.float32(0)
    for i in range(8):
        for k in range(8):
            for j in range(8):
                work[i, j] += _TURNED[i, k] * block[k, j]
    for i in range(8):
        for j in range(8):
            block[i, j] = np.float32(0)
        for k in range(8):
            for j in range(8):
                block[i, j] += work[i, k] * _DCT[k, j]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def quantisation(base, quality):
    """A JPEG table for a quality from 1 to 100, scaled as the IJG library does."""
    scale = 5000.0 / quality if quality < 50 else 200.0 - 2.0 * quality
    out = np.empty((8, 8), np.float32)
    for i in range(8):
        for j in range(8):
            out[i, j] = min(255.0, max(1.0, np.floor((base[i, j] * scale + 50.0) / 100.0)))
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy")
def jpeg(canvas, quality):
    """What JPEG with halved colour resolution does to a picture.   canvas: (S, S, 3), changed."""
    size = canvas.shape[0]
    bright = quantisation(_LUMINANCE, quality)
    tint = quantisation(_CHROMINANCE, quality)
    block, work = np.empty((8, 8), np.float32), np.empty((8, 8), np.float32)
    colours = np.empty((2, 8, 8), np.float32)
    for y0 in range(0, size, 16):
        for x0 in range(0, size, 16):
            for i in range(8):
                for j in range(8):
                    r = g = b = np.float32(0)
                    for k in range(4):
                        y = min(y0 + 2 * i + (k >> 1), size - 1)
                        x = min(x0 + 2 * j + (k & 1), size - 1)
                        r += np.float32(0.25) * canvas[y, x, 0]
                        g += np.float32(0.25) * canvas[y, x, 1]
                        b += np.float32(0.25) * canvas[y, x, 2]
                    colours[0, i, j] = -0.168736 * r - 0.331264 * g + 0.5 * b
                    colours[1, i, j] = 0.5 * r - 0.418688 * g - 0.081312 * b
            _block(colours[0], tint, work)
            _block(colours[1], tint, work)
            for quarter in range(4):
                top, left = 8 * (quarter >> 1), 8 * (quarter & 1)
                for i in range(8):
                    for j in range(8):
                        y, x = min(y0 + top + i, size - 1), min(x0 + left + j, size - 1)
                        level = np.float32(0.299) * canvas[y, x, 0] - np.float32(128)
                        level += np.float32(0.587) * canvas[y, x, 1]
                        block[i, j] = level + np.float32(0.114) * canvas[y, x, 2]
                _block(block, bright, work)
                for i in range(8):
                    for j in range(8):
                        y, x = y0 + top + i, x0 + left + j
                        if y >= size or x >= size:
                            continue
                        level = block[i, j] + 128
                        blue, red = colours[0, (top + i) >> 1, (left + j) >> 1], np.float32(0)
                        red = colours[1, (top + i) >> 1, (left + j) >> 1]
                        canvas[y, x, 0] = level + 1.402 * red
                        canvas[y, x, 1] = level - 0.344136 * blue - 0.714136 * red
                        canvas[y, x, 2] = level + 1.772 * blue


@nb.njit(cache=True, nogil=True, error_model="numpy")
def defocus(canvas, spare, sigma):
    """Gaussian blur of spread ``sigma`` pixels, in place.   spare: a buffer of the same shape."""
    size = canvas.shape[0]
    reach = min(int(np.ceil(2.5 * sigma)), 12, size - 1)
    if reach < 1:
        return
    kernel = np.empty(reach + 1, np.float32)
    total = 0.0
    for k in range(reach + 1):
        kernel[k] = np.exp(-0.5 * (k / sigma) ** 2)
        total += kernel[k] * (1 if k == 0 else 2)
    kernel /= np.float32(total)
    for y in range(size):
        row, out = canvas[y].reshape(-1), spare[y].reshape(-1)
        for i in range(3 * size):
            out[i] = kernel[0] * row[i]
        for k in range(1, reach + 1):
            w, d = kernel[k], 3 * k
            for i in range(d, 3 * size - d):
                out[i] += w * (row[i - d] + row[i + d])
            for i in range(d):
                out[i] += w * (row[i % 3] + row[i + d])
                j = 3 * size - 1 - i
                out[j] += w * (row[j - d] + row[3 * size - 3 + j % 3])
    for y in range(size):
        out = canvas[y].reshape(-1)
        row = spare[y].reshape(-1)
        for i in range(3 * size):
            out[i] = kernel[0] * row[i]
        for k in range(1, reach + 1):
            w = kernel[k]
            up, down = spare[max(y - k, 0)].reshape(-1), spare[min(y + k, size - 1)].reshape(-1)
            for i in range(3 * size):
                out[i] += w * (up[i] + down[i])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def motion(canvas, spare, length, angle):
    """Mean along a line of ``length`` pixels, in place."""
    size = canvas.shape[0]
    taps = max(2, int(np.ceil(length)) + 1)
    spare[:] = 0.0
    share = np.float32(1.0 / taps)
    for k in range(taps):
        away = length * (k / (taps - 1) - 0.5)
        dx, dy = int(np.round(away * np.cos(angle))), int(np.round(away * np.sin(angle)))
        for y in range(size):
            row = canvas[min(max(y + dy, 0), size - 1)]
            for x in range(size):
                pixel = row[min(max(x + dx, 0), size - 1)]
                for c in range(3):
                    spare[y, x, c] += share * pixel[c]
    canvas[:] = spare


@nb.njit(cache=True, nogil=True, error_model="numpy")
def expose(p, scratch, grain, image):
    """From the painted canvas to the picture's bytes.

    p: one record of ``PARAMETERS``.   grain: (256, 256) standard normal.
    image: (3, S, S) uint8, filled.
    """
    canvas, spare, cam = scratch.canvas, scratch.spare, p.camera
    size = canvas.shape[0]
    if cam[4] == 1:
        defocus(canvas, spare, cam[5])
    elif cam[4] == 2:
        motion(canvas, spare, cam[5], cam[6])
    u0, v0 = int(cam[9]), int(cam[10])
    contrast, noise = cam[3], cam[7]
    shift = np.float32(118.0) * (1 - contrast)
    gains = cam[:3] * contrast
    side = grain.shape[0] - 1
    zero, top = np.float32(0), np.float32(255)
    rough, slope = noise * np.float32(0.6), noise * np.float32(0.003)
    for y in range(size):
        j0, j1, j2 = (y + v0) & side, (y + v0 + 71) & side, (y + v0 + 142) & side
        for x in range(size):
            i0 = (x + u0) & side
            level = canvas[y, x, 0] * gains[0] + shift
            level += (rough + slope * level) * grain[j0, i0]
            canvas[y, x, 0] = min(max(level, zero), top)
            level = canvas[y, x, 1] * gains[1] + shift
            level += (rough + slope * level) * grain[j1, i0]
            canvas[y, x, 1] = min(max(level, zero), top)
            level = canvas[y, x, 2] * gains[2] + shift
            level += (rough + slope * level) * grain[j2, i0]
            canvas[y, x, 2] = min(max(level, zero), top)
    if cam[8] > 0:
        jpeg(canvas, cam[8])
    for c in range(3):
        for y in range(size):
            for x in range(size):
                level = canvas[y, x, c] + np.float32(0.5)
                image[c, y, x] = np.uint8(min(max(level, np.float32(0)), np.float32(255)))
