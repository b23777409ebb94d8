"""The benchmark compares two programs that do the same thing."""

import cv2
import numpy as np
from benchmarks.data import SIZE, freihand_like, metro_item

from hand_lib.data.freihand import FreiHand
from hand_lib.render.camera import apply_affine, crop_affine, pixels_to_crop


def warp(image, side, angle):
    affine = crop_affine((111.5, 111.5), side, SIZE, angle)
    return cv2.warpAffine(image, affine, (SIZE, SIZE))


def test_metros_steps_agree_with_the_exact_map_to_within_its_rounding(tmp_path):
    hands = FreiHand(freihand_like(tmp_path, 3))
    sample, rng, turned = hands[1], np.random.default_rng(0), 0
    for _ in range(12):
        image, flat, solid = metro_item(
            hands.jpeg(1), sample.joints_2d, sample.joints, rng, normalise=False
        )
        turn = np.linalg.lstsq(sample.joints, solid, rcond=None)[0].T
        angle = np.arctan2(turn[1, 0], turn[0, 0])
        turned += abs(angle) > 0.01
        span = np.ptp(flat @ turn[:2, :2], axis=0) / np.ptp(sample.joints_2d, axis=0)
        side = 2 / span.mean()
        exact = apply_affine(crop_affine((111.5, 111.5), side, SIZE, angle), sample.joints_2d)
        error = (pixels_to_crop(exact, SIZE) - flat) * SIZE / 2
        assert np.abs(error - error.mean(0)).max() < 2.5 and np.abs(error.mean(0)).max() < 2
        expected = warp(sample.image, side, angle)
        near = [np.corrcoef(image[c].ravel(), expected[:, :, c].ravel())[0, 1] for c in range(3)]
        assert image.shape == (3, SIZE, SIZE) and min(near) > 0.8
    assert 1 <= turned <= 10
