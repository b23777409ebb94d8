"""What lies behind a synthetic hand, and its camera: blur keeps the light, JPEG loses detail."""

import cv2
import numpy as np
import pytest

from hand_lib.data.synthetic import effects
from hand_lib.data.synthetic.config import BACKGROUND, CAMERA
from hand_lib.data.synthetic.layout import pack_tiles

GRAIN = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)


def camera(**fields):
    one = np.zeros(1, CAMERA)
    one["gain"], one["contrast"] = 1, 1
    for name, value in fields.items():
        one[name] = value
    return one[0]


def canvas(size=64):
    noise = np.random.default_rng(1).uniform(0, 255, (size, size, 3))
    return np.ascontiguousarray(cv2.GaussianBlur(noise, (0, 0), 2).transpose(2, 0, 1), np.float32)


@pytest.mark.parametrize("size", [64, 41])
def test_a_camera_without_faults_only_rounds_and_jpeg_loses_more_at_low_quality(size):
    plain = effects.expose(camera(), canvas(size), GRAIN)
    assert plain.shape == (size, size, 3) and plain.dtype == np.uint8
    exact = canvas(size).transpose(1, 2, 0)
    assert np.abs(plain - exact).max() <= 0.51
    loss = [
        np.abs(effects.expose(camera(jpeg_quality=q), canvas(size), GRAIN) - exact).mean()
        for q in (95, 60, 25)
    ]
    assert 0.5 < loss[0] < loss[1] < loss[2]


def test_white_balance_contrast_and_grain_do_what_they_say():
    grey = np.full((3, 64, 64), 100, np.float32)
    warm = effects.expose(camera(gain=(1.2, 1.0, 0.8)), grey.copy(), GRAIN)
    assert (warm == [120, 100, 80]).all()
    hard = effects.expose(camera(contrast=1.5), grey.copy(), GRAIN)
    assert (hard == 91).all()  # about 118
    noisy = effects.expose(camera(noise=5.0), grey.copy(), GRAIN).astype(float)
    assert 3 < noisy.std() < 7 and abs(noisy.mean() - 100) < 1
    other = effects.expose(camera(noise=5.0, grain_u=40), grey.copy(), GRAIN)
    assert (other != noisy).any()


@pytest.mark.parametrize("sigma", [0.7, 1.5, 2.3])
def test_blur_keeps_the_mean_and_spreads_a_point(sigma):
    soft = np.zeros((3, 33, 33), np.float32)
    soft[:, 16, 16] = 100
    effects.defocus(soft, sigma)
    np.testing.assert_allclose(soft.sum(axis=(1, 2)), 100, rtol=1e-4)
    np.testing.assert_allclose(soft, soft.transpose(0, 2, 1), atol=1e-4)
    y = np.arange(33) - 16
    assert abs((soft[0].sum(axis=1) * y**2).sum() / 100 / sigma**2 - 1) < 0.13
    flat = np.full((3, 20, 20), 7, np.float32)
    effects.defocus(flat, sigma)
    np.testing.assert_allclose(flat, 7, rtol=1e-5)


def test_motion_blur_draws_a_line_and_repeats_the_border():
    line = np.zeros((3, 33, 33), np.float32)
    line[:, 16, 16] = 100
    effects.motion(line, 6.0, 0.0)
    assert (line[0, 16] > 0).sum() >= 6 and np.abs(line[:, 15]).max() < 1e-4
    np.testing.assert_allclose(line.sum(), 300, rtol=1e-4)
    flat = np.full((3, 20, 20), 7, np.float32)
    for angle in (0.0, 1.0, 2.5, 4.0):
        effects.motion(flat, 9.0, angle)
        np.testing.assert_allclose(flat, 7, rtol=1e-5)


def test_a_tile_lies_as_it_is_when_nothing_turns_it():
    tile = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    ground, canvas = np.zeros(1, BACKGROUND), np.zeros((3, 64, 64), np.float32)
    for name in ("tile", "zoom", "flip", "gain"):
        ground[name] = 1
    ground["u"] = ground["v"] = 31.5 / 64
    effects.lay_background(ground[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1), atol=1e-3)
    ground["u"] += 64 / 64  # one tile on, they repeat mirrored
    effects.lay_background(ground[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1)[..., ::-1], atol=1e-3)
