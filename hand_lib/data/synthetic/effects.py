"""What a camera does to a picture: blur, white balance, contrast, noise, JPEG (image degradation).

Canvases are (3, S, S) float32, sRGB 0 to 255: one plane per colour, so that rows are contiguous.
"""

import cv2
import numba as nb
import numpy as np
import simplejpeg

_F = np.float32
_U = np.uint64  # indices known to be positive: no look whether to count from the end


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
