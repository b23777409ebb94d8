"""Pinhole and weak-perspective projection, crop boxes as affine maps, translation from 2-D.

Functions take NumPy arrays or torch tensors alike where only arithmetic is involved; matrices that
describe a crop are NumPy. Pixel centres are whole numbers (see ``hand_lib``).
"""

import sys

import numpy as np


def project(points, intrinsics):
    """Pinhole projection.

    points: (..., N, 3) metres, camera axes, z > 0.   intrinsics: (..., 3, 3) pixels.
    returns (..., N, 2) pixels.

    >>> project(np.array([[0.1, 0.0, 0.5]]), np.array([[500.0, 0, 112], [0, 500, 112], [0, 0, 1]]))
    array([[212., 112.]])
    """
    homogeneous = points @ intrinsics.swapaxes(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def project_weak_perspective(points, camera):
    """Scaled orthographic projection onto the crop: s (X_xy + (tx, ty)).

    points: (B, N, 3) metres, camera axes.   camera: (B, 3) scale in 1/m, then tx, ty in metres.
    returns (B, N, 2) in crop units; the crop spans [-1, 1], y down.
    """
    return camera[..., None, :1] * (points[..., :2] + camera[..., None, 1:])


def pixels_to_crop(points_px, size):
    """Pixels of a square crop -> crop units.   points_px: (..., 2).   size: side in pixels."""
    return (2 * points_px + 1) / size - 1


def crop_to_pixels(points, size):
    """Crop units -> pixels of a square crop of side ``size``.   points: (..., 2)."""
    return ((points + 1) * size - 1) / 2


def fit_weak_perspective(points, points_2d):
    """Camera that carries the centre and the spread of 3-D points onto those of 2-D points.

    s = sqrt(sum |u - mean u|^2 / sum |x - mean x|^2), t = mean u / s - mean x: positive and finite
    for any prediction, and the least-squares camera wherever one fits exactly.
    points: (B, N, 3) metres.   points_2d: (B, N, 2) crop units.   returns (B, 3) s, tx, ty.
    """
    flat = points[..., :2]
    center, center_2d = flat.mean(1, keepdims=True), points_2d.mean(1, keepdims=True)
    spread = ((flat - center) ** 2).sum((1, 2)).clip(1e-6)
    spread_2d = ((points_2d - center_2d) ** 2).sum((1, 2)).clip(1e-6)
    scale = (spread_2d / spread)[:, None] ** 0.5
    shift = center_2d[:, 0] / scale - center[:, 0]
    xp = np if isinstance(shift, np.ndarray) else sys.modules["torch"]
    return xp.concatenate([scale, shift], 1)


def crop_affine(center, side, size: int, rotation=0.0, mirror=False) -> np.ndarray:
    """Affine maps from picture pixels to the pixels of square crops, of one or of a batch.

    center: (..., 2) pixels x, y, shown in the middle of the crop.   side: (...) picture pixels that
    the crop covers.   size: side of the crop in its own pixels.   rotation: (...) radians by which
    the content turns clockwise as seen on the screen.   mirror: (...) bool, flip left and right
    (after rotating).   returns (..., 2, 3) float64.

    >>> crop_affine((111.5, 111.5), 224, 224) @ np.array([5.0, 6.0, 1.0])
    array([5., 6.])
    """
    center, side = np.asarray(center, float), np.asarray(side, float)
    if not (side > 0).all() or not size > 0:
        raise ValueError(f"crop side and size must be positive, found side={side}, size={size}")
    scale, flip = size / side, np.where(mirror, -1.0, 1.0)
    cos, sin = np.cos(rotation) * scale, np.sin(rotation) * scale
    rows = np.broadcast_arrays(flip * cos, flip * -sin, sin, cos)
    linear = np.stack(rows, -1).reshape(*rows[0].shape, 2, 2)
    offset = (size - 1) / 2 - (linear @ center[..., None])[..., 0]
    linear = np.broadcast_to(linear, (*offset.shape, 2))
    return np.concatenate([linear, offset[..., None]], axis=-1)


def apply_affine(affine, points):
    """points: (..., N, 2) pixels -> (..., N, 2) pixels under affine (..., 2, 3)."""
    return points @ affine[..., :2].swapaxes(-1, -2) + affine[..., None, :, 2]


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """The map (..., 2, 3) that undoes affine (..., 2, 3)."""
    linear = np.linalg.inv(affine[..., :2])
    offset = -(linear @ affine[..., 2:])
    return np.concatenate([linear, offset], axis=-1)


def transform_intrinsics(affine: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Intrinsics of the crop for points left where they are.

    affine: (..., 2, 3) picture -> crop.   intrinsics: (..., 3, 3) of the picture.
    returns (..., 3, 3): projecting camera-space points with it gives crop pixels. With a rotated
    crop it has skew; ``crop_camera`` splits that into a motion of the points and plain intrinsics.
    """
    bottom = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (*affine.shape[:-2], 1, 3))
    return np.concatenate([affine, bottom], axis=-2) @ intrinsics


def crop_camera(affine: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split crops into a motion of the hand and plain intrinsics.

    affine: (..., 2, 3) similarity (rotation, scale, maybe a mirror), picture -> crop.
    intrinsics: (..., 3, 3) without skew.
    returns motions (..., 3, 3), a rotation about the optical axis (with x negated for a mirror),
    and intrinsics (..., 3, 3), upper triangular: projecting ``points @ motion.T`` with the new
    intrinsics gives exactly the crop's pixels, for any camera-space points. Skew stays zero when
    fx = fy.
    """
    plain = transform_intrinsics(affine, intrinsics)
    # rows of the linear part: a = upper_triangular @ rotation (an RQ decomposition)
    a = plain[..., :2, :2]
    last = a[..., 1, :] / np.linalg.norm(a[..., 1, :], axis=-1, keepdims=True)
    first = np.stack([last[..., 1], -last[..., 0]], axis=-1)
    first = first * np.where((a[..., 0, :] * first).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    rotation = np.stack([first, last], axis=-2)
    motion = np.zeros(plain.shape)
    motion[..., :2, :2], motion[..., 2, 2] = rotation, 1
    plain[..., :2, :2] = a @ rotation.swapaxes(-1, -2)
    plain[..., 1, 0] = 0
    return motion, plain


KNUCKLES = (5, 9, 13, 17)
UPRIGHT_MARGIN = 1.3
"""Side of the upright square around a hand over that of its joints."""

UPRIGHT_SMALLEST, UPRIGHT_LARGEST = 0.6, 2.0
"""It covers at least and at most so much of the crop's side."""


def upright_square(joints_2d, turned=None):
    """The square around a hand, its knuckles straight above its wrist.

    joints_2d: (B, 21, 2) crop units, NumPy or torch.
    turned: (B,) radians, clockwise on the screen, by which the knuckles shall be away from above.
    returns turn (B, 2, 2), centre (B, 2) and half (B,) of the side: a point u of the crop lies at
    turn (u - centre) / half of the square.
    """
    xp = np if isinstance(joints_2d, np.ndarray) else sys.modules["torch"]
    along = joints_2d[:, list(KNUCKLES)].mean(1) - joints_2d[:, 0]
    along = along / xp.sqrt(xp.clip((along * along).sum(1), 1e-8, None))[:, None]
    turn = _rotations(xp, -along[:, 1], along[:, 0])
    if turned is not None:
        turn = _rotations(xp, xp.cos(turned), -xp.sin(turned)) @ turn
    upright = joints_2d @ turn.swapaxes(1, 2)
    low, high = xp.amin(upright, 1), xp.amax(upright, 1)
    centre = (((low + high) / 2)[:, None] @ turn)[:, 0]
    half = xp.amax(high - low, 1) / 2 * UPRIGHT_MARGIN
    half = xp.clip(half, UPRIGHT_SMALLEST, UPRIGHT_LARGEST)
    return turn, centre, half


def _rotations(xp, cos, sin):
    """(B, 2, 2) rotations [[cos, sin], [-sin, cos]]."""
    return xp.stack([xp.stack([cos, sin], 1), xp.stack([-sin, cos], 1)], 1)


def guessed_intrinsics(width: int, height: int, fov_deg: float = 60.0) -> np.ndarray:
    """Guess of a pinhole camera: principal point in the middle, ``fov_deg`` across the long side.

    returns (3, 3). 60 degrees along the long side is a phone's main camera; say so when it matters.
    """
    focal = max(width, height) / 2 / np.tan(np.deg2rad(fov_deg) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


VIEWS_DEG = np.geomspace(60, 8, 16)
"""Views along a picture's long side among which ``fit_view`` chooses: a phone's to a tight cut."""

DRAWN_WITHIN = 0.0125
"""What it is content with: mean distance of drawn and read joints over the side of their crop."""


def fit_view(points, joints_2d, sides, width: int, height: int) -> np.ndarray:
    """Guess of the camera of a picture with hands: the widest view that shows them as they were
    read.

    A picture cut around a hand was seen by a narrow part of a lens. Through a wide view the hand
    would stand too near and bulge.   points: (B, N, 3) metres, camera axes.   joints_2d:
    (B, N, 2) pixels.   sides: (B,) pixels of the crops that the hands were read in.   returns
    (3, 3): of ``VIEWS_DEG``, the first within ``DRAWN_WITHIN``, else the best.
    """
    cameras = np.stack([guessed_intrinsics(width, height, view) for view in VIEWS_DEG])
    each = np.repeat(cameras, len(points), axis=0)
    points, joints_2d = (np.tile(part, (len(cameras), 1, 1)) for part in (points, joints_2d))
    placed = points + solve_translation(points, joints_2d, each)[:, None]
    apart = np.linalg.norm(project(placed, each) - joints_2d, axis=2).mean(1)
    apart = (apart.reshape(len(cameras), -1) / sides).mean(1)
    near = apart < DRAWN_WITHIN
    return cameras[near.argmax() if near.any() else apart.argmin()]


def check_intrinsics(intrinsics, width: int, height: int) -> np.ndarray:
    """Pinhole intrinsics (3, 3) in pixels of a picture, or a ValueError that says what to change.

    Refused are other shapes, focal lengths that are not positive (OpenGL's y), and those below a
    twelfth of the picture's longer side, 160 degrees of view: they are in other units than pixels.
    """
    try:
        matrix = np.asarray(intrinsics, float)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError(
            "intrinsics should be a (3, 3) pinhole matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in "
            f"pixels, finite, found {intrinsics}"
        )
    focal = matrix[[0, 1], [0, 1]]
    if not (focal > 0).all():
        raise ValueError(
            f"focal lengths should be positive (x right, y down), found fx, fy = {focal.tolist()}; "
            "negate the row of one that came from axes with y up"
        )
    if (focal < max(width, height) / 12).any():
        raise ValueError(
            f"focal lengths fx, fy = {focal.tolist()} are too short for a picture of {width} x "
            f"{height} pixels: they look normalised; multiply the first two rows by its size"
        )
    return matrix


def solve_translation(points, joints_2d, intrinsics) -> np.ndarray:
    """Where the hand stands: the translation under which its points project onto 2-D points.

    points: (B, N, 3) metres, camera axes, wrist at the origin.   joints_2d: (B, N, 2) pixels.
    intrinsics: (3, 3) or (B, 3, 3).   returns (B, 3) metres, the least-squares solution of the
    linearised projection (x - cx)(Z + tz) = fx (X + tx), and the same in y.
    """
    points, joints_2d = np.asarray(points, float), np.asarray(joints_2d, float)
    batch, count = points.shape[:2]
    inverse = np.linalg.inv(np.broadcast_to(np.asarray(intrinsics, float), (batch, 3, 3)))
    homogeneous = np.concatenate([joints_2d, np.ones((batch, count, 1))], axis=2)
    rays = homogeneous @ inverse.swapaxes(1, 2)  # (B, N, 3), z = 1
    rows = np.zeros((batch, count, 2, 3))
    rows[:, :, 0, 0] = rows[:, :, 1, 1] = 1
    rows[:, :, :, 2] = -rays[:, :, :2]
    right = (rays[:, :, :2] * points[:, :, 2:] - points[:, :, :2]).reshape(batch, -1, 1)
    rows = rows.reshape(batch, -1, 3)
    normal = rows.swapaxes(1, 2) @ rows
    return np.linalg.solve(normal, rows.swapaxes(1, 2) @ right)[..., 0]
