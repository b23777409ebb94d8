"""Meshes over pictures of any size: only the window around the hand is rendered."""

import numpy as np
from PIL import Image

from hand_lib.render.camera import project
from hand_lib.render.raster import NEAR
from hand_lib.render.render import render_mesh
from hand_lib.viewers.figures import PREDICTION

LONGEST_SIDE = 1600
"""Overlays of larger pictures are drawn at this size: enough for a screen, quick at any size."""


def draw_meshes(
    image, vertices, faces, intrinsics, colour=PREDICTION, alpha: float = 0.85
) -> np.ndarray:
    """A camera-space mesh over its picture.

    image: (H, W, 3) uint8.   vertices: (V, 3) metres, camera frame.   intrinsics: (3, 3) of this
    picture.   returns a new (H, W, 3) uint8; the same as ``viewers.overlay``, in less time.
    """
    image = np.asarray(image)
    seen = vertices[:, 2] > NEAR
    out = image.copy()
    if not seen.any():
        return out
    height, width = image.shape[:2]
    points = project(vertices[seen], np.asarray(intrinsics, float))
    x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int) - 2, 0, [width, height])
    x0, y0 = x0 - x0 % 8, y0 - y0 % 8  # the pattern of the shading repeats every 8 pixels
    x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(int) + 3, 0, [width, height])
    if not seen.all():  # part of it is behind the camera: its window is no bound
        x0, y0, x1, y1 = 0, 0, width, height
    if x1 <= x0 or y1 <= y0:
        return out
    shifted = np.array(intrinsics, float)
    shifted[:2, 2] -= [x0, y0]
    window = image[y0:y1, x0:x1]
    out[y0:y1, x0:x1] = render_mesh(
        vertices, faces, colour, shifted, window.shape[:2], background=window, alpha=alpha
    )[0]
    return out


def for_screen(image, intrinsics=None, longest: int = LONGEST_SIDE):
    """The picture shrunk to at most ``longest`` pixels a side, with what belongs to it.

    returns image (H', W', 3), intrinsics (3, 3) of it or None, and the scale, new pixels per old.
    """
    image = np.asarray(image)
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale == 1.0:
        return image, intrinsics, 1.0
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = np.asarray(Image.fromarray(image).resize(size, Image.BOX, reducing_gap=2.0))
    if intrinsics is not None:
        ratio = np.array([size[0] / image.shape[1], size[1] / image.shape[0]])
        intrinsics = np.array(intrinsics, float)
        intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * ratio - 0.5
        intrinsics[[0, 1], [0, 1]] *= ratio
    return small, intrinsics, scale
