"""One pass from a picture to a coloured crop: affine map, bilinear samples, colour table.

The three channels of a pixel travel in one 64-bit word, 21 bits each, so that one multiplication
weighs all of them (weights are whole 64ths of a pixel along either axis).
"""

import numba
import numpy as np

_LANE = 21


@numba.njit(cache=True, nogil=True)
def _pack(image, packed):
    """(H, W, 3) uint8 into the middle of packed (H + 2, W + 2) uint64, whose rim becomes zero."""
    height, width = image.shape[:2]
    packed[0], packed[height + 1] = 0, 0
    for y in range(height):
        packed[y + 1, 0] = packed[y + 1, width + 1] = 0
        for x in range(width):
            packed[y + 1, x + 1] = (
                np.uint64(image[y, x, 0])
                | np.uint64(image[y, x, 1]) << np.uint64(_LANE)
                | np.uint64(image[y, x, 2]) << np.uint64(2 * _LANE)
            )


@numba.njit(cache=True, nogil=True)
def _sample(packed, inverse, table, out):
    """Fill out (S, S, 3); inverse: six floats, crop pixel -> picture pixel."""
    height, width = packed.shape[0] - 2, packed.shape[1] - 2
    size = out.shape[0]
    one = 65536.0
    step_x, step_y = np.int64(round(inverse[0, 0] * one)), np.int64(round(inverse[1, 0] * one))
    half = np.uint64((1 << 11) | (1 << (11 + _LANE)) | (1 << (11 + 2 * _LANE)))
    full = np.uint64(255)
    for row in range(size):
        # one pixel further for the rim; half a 64th so that cutting off rounds
        u = np.int64(round((inverse[0, 1] * row + inverse[0, 2] + 1) * one)) + 512
        v = np.int64(round((inverse[1, 1] * row + inverse[1, 2] + 1) * one)) + 512
        for column in range(size):
            x, y = u >> 16, v >> 16
            if 0 <= x <= width and 0 <= y <= height:
                a, b = np.uint64((u >> 10) & 63), np.uint64((v >> 10) & 63)
                c, d = np.uint64(64) - a, np.uint64(64) - b
                word = (
                    packed[y, x] * (c * d) + packed[y, x + 1] * (a * d)
                    + packed[y + 1, x] * (c * b) + packed[y + 1, x + 1] * (a * b) + half
                )  # fmt: skip
                out[row, column, 0] = table[(word >> np.uint64(12)) & full, 0]
                out[row, column, 1] = table[(word >> np.uint64(12 + _LANE)) & full, 1]
                out[row, column, 2] = table[(word >> np.uint64(12 + 2 * _LANE)) & full, 2]
            else:
                out[row, column, 0] = table[0, 0]
                out[row, column, 1] = table[0, 1]
                out[row, column, 2] = table[0, 2]
            u += step_x
            v += step_y


PLAIN = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
"""The colour table that changes nothing."""


def warp_into(out: np.ndarray, image: np.ndarray, affine: np.ndarray, table=PLAIN) -> None:
    """Draw a picture into a square crop; what lies outside the picture is black.

    out: (S, S, 3) uint8, overwritten.   image: (H, W, 3) uint8.   affine: (2, 3) picture pixels ->
    crop pixels, pixel centres whole.   table: (256, 3) uint8, what each level of each channel
    becomes.
    """
    (a, b, e), (c, d, f) = affine.tolist()
    area = a * d - b * c
    if area == 0:
        raise ValueError("the affine map squeezes the picture into a line")
    inverse = np.array([[d, -b, b * f - d * e], [-c, a, c * e - a * f]]) / area
    packed = np.empty((image.shape[0] + 2, image.shape[1] + 2), np.uint64)
    _pack(np.ascontiguousarray(image), packed)
    _sample(packed, inverse, table, out)
