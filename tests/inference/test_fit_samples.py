"""Fits written in two layouts are read back by our own readers."""

import numpy as np
import pytest
from fitting.test_fit import known_hands

from hand_lib.data.freihand import FreiHand, write_freihand
from hand_lib.data.youtube import YouTubeHands
from hand_lib.fitting.keypoints import from_arrays
from hand_lib.inference.weak_labels import (
    export_youtube,
    fit_keypoints,
    fitted_hand,
    kept_samples,
)
from hand_lib.render.camera import project

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["right", "left"])
def fitted(request):
    _, picture, camera = known_hands(3, seed=1, side=request.param)
    picture[1] = 40.0  # nothing to fit
    return fit_keypoints(from_arrays(picture, side=[request.param] * 3), camera), picture


def test_freihand_reads_the_accepted_fits_back(fitted, tmp_path):
    labels, picture = fitted
    left = labels.keypoints.sides[0] == "left"
    samples = list(kept_samples(labels, IMAGES, crop=None))
    assert [sample.index for sample in samples] == [0, 2]
    write_freihand(tmp_path, samples)
    found = FreiHand(tmp_path, "training")
    assert len(found) == 2
    sample = found[1]
    np.testing.assert_allclose(sample.joints, samples[1].joints, atol=1e-4)
    np.testing.assert_allclose(sample.vertices, samples[1].vertices, atol=1e-4)
    flat = project((samples[1].joints + samples[1].root).astype(float), samples[1].intrinsics)
    np.testing.assert_allclose(flat, samples[1].joints_2d, atol=0.05)
    expected = (223, 0) + picture[2] * (-1, 1) if left else picture[2]
    assert np.linalg.norm(flat - expected, axis=1).mean() < 2
    image = IMAGES[2][:, ::-1] if left else IMAGES[2]
    assert np.array_equal(samples[1].image, image)


def test_youtube_hands_are_read_back(fitted, tmp_path):
    labels, _ = fitted
    found = YouTubeHands(export_youtube(tmp_path, labels, IMAGES), tmp_path)
    side = labels.keypoints.sides[0]
    assert len(found) == 2 and found[0].side == side
    vertices, _ = fitted_hand(labels.models[side], labels.fit, [0, 2])
    flat = project(vertices.astype(float), labels.fit.intrinsics[[0, 2]])
    np.testing.assert_allclose(found.vertices_px(1)[:, :2], flat[1], atol=0.01)
