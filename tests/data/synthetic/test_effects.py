"""What the synthetic camera does: JPEG like an encoder, blur that keeps the light."""

import numpy as np
import pytest

from hand_lib.data.synthetic import effects as camera_effects


def _planes(picture):
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)


@pytest.mark.parametrize("size", [64, 41])
def test_jpeg_behaves_like_an_encoder(size):
    import cv2

    noise = np.random.default_rng(0).uniform(0, 255, (size, size, 3))
    picture = cv2.GaussianBlur(noise, (0, 0), 2)
    ours, flags = _planes(picture), [cv2.IMWRITE_JPEG_QUALITY, 40]
    camera_effects.jpeg(ours, 40.0)
    encoded = cv2.imencode(".jpg", picture[..., ::-1].astype(np.uint8), flags)[1]
    theirs = _planes(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
    loss = np.abs(theirs - _planes(picture)).mean()
    assert np.abs(ours - theirs).mean() < 0.55 * loss
    fine = _planes(picture)
    camera_effects.jpeg(fine, 95.0)
    assert np.abs(fine - _planes(picture)).mean() < np.abs(ours - _planes(picture)).mean()
    table = camera_effects.quantisation(np.full((8, 8), 16, np.float32), 50.0)
    assert (table == 16).all()


@pytest.mark.parametrize("sigma", [0.7, 1.5, 2.3])
def test_blur_keeps_the_mean_and_spreads_a_point(sigma):
    soft = np.zeros((3, 33, 33), np.float32)
    soft[:, 16, 16] = 100
    camera_effects.defocus(soft, np.zeros_like(soft), sigma)
    np.testing.assert_allclose(soft.sum(axis=(1, 2)), 100, rtol=1e-4)
    np.testing.assert_allclose(soft, soft.transpose(0, 2, 1), atol=1e-4)
    y = np.arange(33) - 16
    assert abs((soft[0].sum(axis=1) * y**2).sum() / 100 / sigma**2 - 1) < 0.13
    flat = np.full((3, 20, 20), 7, np.float32)
    camera_effects.defocus(flat, np.zeros_like(flat), sigma)
    np.testing.assert_allclose(flat, 7, rtol=1e-5)


def test_motion_blur_draws_a_line_and_repeats_the_border():
    line = np.zeros((3, 33, 33), np.float32)
    line[:, 16, 16] = 100
    camera_effects.motion(line, np.zeros_like(line), 6.0, 0.0)
    assert (line[0, 16] > 0).sum() >= 6 and line[:, 15].max() == 0
    np.testing.assert_allclose(line.sum(), 300, rtol=1e-4)
    flat = np.full((3, 20, 20), 7, np.float32)
    for angle in (0.0, 1.0, 2.5, 4.0):
        camera_effects.motion(flat, np.zeros_like(flat), 9.0, angle)
        np.testing.assert_allclose(flat, 7, rtol=1e-5)
