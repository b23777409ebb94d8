"""Fits written in two layouts are read back by our own readers."""

import cv2
import numpy as np
import pytest
from fitting.test_fit import known_hands

from hand_lib.data.freihand import FreiHand, write_freihand
from hand_lib.data.youtube import YouTubeHands
from hand_lib.fitting.fit import fit_hands
from hand_lib.hand.model import HandModel
from hand_lib.inference.fit_samples import fit_samples, fitted_hand, write_youtube
from hand_lib.render.camera import project


@pytest.fixture(scope="module", params=["right", "left"])
def fitted(request):
    model = HandModel.builtin(request.param)
    _, picture, camera = known_hands(3, seed=1, side=request.param)
    picture[1] = 40.0  # nothing to fit
    return model, fit_hands(model, picture, intrinsics=camera), picture


def test_freihand_reads_the_accepted_fits_back(fitted, tmp_path):
    model, fit, picture = fitted
    images = np.random.default_rng(0).integers(0, 255, (3, 224, 224, 3), dtype=np.uint8)
    samples = list(fit_samples(model, fit, images))
    assert [sample.index for sample in samples] == [0, 2]
    write_freihand(tmp_path, samples)
    found = FreiHand(tmp_path, "training")
    assert len(found) == 2
    sample = found[1]
    np.testing.assert_allclose(sample.joints, samples[1].joints, atol=1e-4)
    np.testing.assert_allclose(sample.vertices, samples[1].vertices, atol=1e-4)
    flat = project((samples[1].joints + samples[1].root).astype(float), samples[1].intrinsics)
    np.testing.assert_allclose(flat, samples[1].joints_2d, atol=0.05)
    expected = picture[2] if model.side == "right" else (223, 0) + picture[2] * (-1, 1)
    assert np.linalg.norm(flat - expected, axis=1).mean() < 2
    with pytest.raises(ValueError, match="expected 3 images"):
        list(fit_samples(model, fit, images[:2]))


def test_youtube_hands_are_read_back(fitted, tmp_path):
    model, fit, _ = fitted
    names = [f"youtube/v/video/frames/{i}.png" for i in range(3)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((224, 224, 3), np.uint8))
    path = write_youtube(tmp_path / "youtube_train.json", model, fit, names, [(224, 224)] * 3)
    found = YouTubeHands(path, tmp_path)
    assert len(found) == 2 and found[0].side == model.side
    vertices, _ = fitted_hand(model, fit, [0, 2])
    flat = project(vertices.astype(float), fit.intrinsics[[0, 2]])
    np.testing.assert_allclose(found.vertices_px(1)[:, :2], flat[1], atol=0.01)
    with pytest.raises(ValueError, match="names and sizes"):
        write_youtube(path, model, fit, names[:1], [(1, 1)])
