"""Test-time augmentation: predict rotated and scaled copies of a crop and average the answers.

>>> views = augmentations(rotations_deg=(-20, 0, 20), scales=(0.9, 1.1))
>>> averaged = predict_averaged(predictor.predict_crops, crops, views)
"""

import cv2
import numpy as np

from hand_lib.render.camera import (
    apply_affine,
    crop_affine,
    crop_to_pixels,
    invert_affine,
    pixels_to_crop,
)


def augmentations(rotations_deg=(0.0,), scales=(1.0,)) -> list[tuple[float, float]]:
    """All pairs (radians, scale) of rotations in degrees and scales.

    >>> len(augmentations((-20, 0, 20), (0.9, 1.1)))
    6
    """
    for name, values in (("rotations_deg", rotations_deg), ("scales", scales)):
        if len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"{name} should be a list of finite numbers, found {values!r}")
    if min(scales) <= 0:
        raise ValueError(f"scales should be positive, found {scales!r}")
    return [(float(np.deg2rad(r)), float(s)) for r in rotations_deg for s in scales]


def predict_averaged(predict_crops, crops, views) -> dict[str, np.ndarray]:
    """Predictions of several views of each crop, brought back to the crop and averaged.

    predict_crops: (B, S, S, 3) uint8 -> dict of arrays, as ``Predictor.predict_crops``.
    crops: (B, S, S, 3) uint8.   views: from ``augmentations``; a rotation turns the content
    clockwise, a scale above 1 enlarges it.   Costs one pass of the network per view.
    returns vertices (B, V, 3), joints (B, 21, 3), joints_2d (B, 21, 2) in crop units, and camera
    (B, 3), the weak perspective that lays the joints on joints_2d best.
    """
    crops = np.asarray(crops)
    size, total = crops.shape[1], {}
    for rotation, scale in views:
        middle = (size - 1) / 2
        affine = crop_affine((middle, middle), size / scale, size, rotation)
        seen = crops
        if rotation or scale != 1.0:
            seen = np.stack([_warp(crop, affine, size) for crop in crops])
        out = predict_crops(seen)
        cos, sin = np.cos(rotation), np.sin(rotation)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        pixels = apply_affine(invert_affine(affine), crop_to_pixels(out["joints_2d"], size))
        back = {
            "vertices": out["vertices"] @ turn,  # v R: the inverse rotation of each row
            "joints": out["joints"] @ turn,
            "joints_2d": pixels_to_crop(pixels, size),
        }
        for name, value in back.items():
            total[name] = total.get(name, 0) + value / len(views)
    total["camera"] = fit_camera(total["joints"], total["joints_2d"])
    return {name: value.astype(np.float32) for name, value in total.items()}


def _warp(crop, affine, size):
    border = cv2.BORDER_REPLICATE
    return cv2.warpAffine(crop, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def fit_camera(joints, joints_2d) -> np.ndarray:
    """Weak perspective (B, 3) s, tx, ty with s (X_xy + t) nearest to joints_2d, least squares.

    joints: (B, 21, 3) metres.   joints_2d: (B, 21, 2) crop units.
    """
    xy = joints[..., :2]
    mean_3d, mean_2d = xy.mean(axis=1, keepdims=True), joints_2d.mean(axis=1, keepdims=True)
    a, b = xy - mean_3d, joints_2d - mean_2d
    scale = (a * b).sum(axis=(1, 2)) / np.maximum((a * a).sum(axis=(1, 2)), 1e-12)
    scale = np.maximum(scale, 1e-6)
    shift = mean_2d[:, 0] / scale[:, None] - mean_3d[:, 0]
    return np.concatenate([scale[:, None], shift], axis=1)
