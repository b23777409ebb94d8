"""Whether there is a hand and whether it is read well: what the signs are worth, and their use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.calibrate import (
    doubt_below,
    empty_crops,
    fit,
    from_evidence,
    look,
    main,
    save_calibration,
)
from inference.test_predictor import DotFinder, photo_with_dot

from hand_lib import ROOT
from hand_lib.data.synthetic.backgrounds import paint_background
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import Calibration, Logistic, evidence, load_calibration
from hand_lib.network.coarse_to_fine import heatmap_spread
from hand_lib.network.model import Prediction

RNG = np.random.default_rng(0)
JOINTS = torch.from_numpy(RNG.uniform(-0.6, 0.6, (5, 21, 2)))
HAND = Logistic((-2.0, 3.0, -1.0, 1.0), 0.5, 0.4)
WELL_READ = Logistic((-2.0, 1.0, -1.0, 1.0, -2.0), 0.5, 0.6)
CALIBRATION = Calibration(HAND, WELL_READ, 0.3, 0.6, 0.05, 0.9, 100)


def signs(joints, gap=0.0, hand=None, peak=None):
    """Evidence of a network whose joints read from the image lie a gap beside the mesh's."""
    share = None if hand is None else torch.full((5, 4, 6, 6), hand, dtype=torch.double)
    heat = None if peak is None else torch.zeros(5, 21, 6, 6)
    if peak is not None:
        heat[..., 2, 3] = peak
    maps = {"correspondence": share, "heatmaps": heat}
    direct = joints + gap * torch.tensor([0.6, 0.8])
    return evidence(Prediction(None, None, None, joints, direct, **maps)).numpy()


def test_evidence_is_disagreement_extent_blurred_maps_and_hand_under_the_joints():
    side = np.ptp(JOINTS.numpy(), axis=1).max(axis=1)
    apart = signs(JOINTS, 0.05)
    assert np.allclose(apart[:, :2], np.log(np.stack([0.05 / side, side], 1)))
    assert np.allclose(signs(JOINTS / 2, 0.025) - apart, [0, np.log(0.5), 0, 0, 0])
    assert np.allclose(signs(JOINTS, 0.05, 0.0)[:, 3], 0.5) and np.allclose(apart[:, 2:], 0)
    assert np.allclose(signs(JOINTS, peak=0.0)[:, 2], 0, atol=1e-6)  # anywhere alike
    assert np.allclose(signs(JOINTS, peak=50.0)[:, 2], -np.log(36), atol=1e-4)  # one cell
    nothing = evidence(Prediction(None, None, None, JOINTS)).numpy()
    assert np.allclose(nothing[:, 0], 0) and np.isfinite(signs(JOINTS * 0)).all()


def test_the_spread_of_heat_maps_is_their_standard_deviation_over_the_hands_extent():
    heat = torch.full((5, 21, 40, 40), -1e9)
    heat[:, :, 10, 10] = heat[:, :, 10, 30] = 0.0  # one unit of the crop apart
    side = np.ptp(JOINTS.numpy(), axis=1).max(axis=1)
    assert np.allclose(heatmap_spread(heat, JOINTS), 0.5 / side, rtol=1e-5)
    one = Prediction(None, None, None, JOINTS, JOINTS, heatmaps=heat)
    closest = torch.full((5,), 0.1)
    for found, expected in ((one, 0.5 / side), (replace(one, spread=closest), 0.1)):
        assert np.allclose(evidence(found)[:, 4], np.log(expected), atol=1e-5)


def test_the_chance_of_a_hand_falls_with_disagreement_and_rises_with_extent_and_hand():
    near, far = (HAND.chance(signs(JOINTS, gap)) for gap in (0.01, 0.2))
    small = HAND.chance(signs(JOINTS / 4, 0.01))
    seen, sharp = (HAND.chance(signs(JOINTS, 0.01, 2.0, peak)) for peak in (0, 3.0))
    assert (near > far).all() and (small < near).all() and (seen > near).all()
    assert (sharp > seen).all()
    assert (np.concatenate([near, far, small]) > 0).all() and (seen < 1).all()


def test_the_fit_finds_the_weights_that_drew_the_labels():
    x = RNG.normal(size=(20_000, 4)) * [0.6, 0.4, 0.5, 0.3] + [-2, 0.3, -1, 0.5]
    truth = RNG.uniform(size=len(x)) < 1 / (1 + np.exp(-(x @ [-2, 3, -1, 1] - 4)))
    weights, offset = fit(x[truth], x[~truth])
    assert np.allclose(weights, (-2, 3, -1, 1), atol=0.25) and abs(offset + 4) < 0.4


def test_a_run_carries_its_calibration_and_a_damaged_one_is_answered(tmp_path):
    assert load_calibration(tmp_path) is None
    path = save_calibration(tmp_path, CALIBRATION)
    assert load_calibration(tmp_path) == CALIBRATION
    whole = path.read_text()
    fewer = whole.replace("-1.0,", "", 1)
    for wrong in ('{"threshold": 0.5}', "[1]", "{", whole.replace("0.5", "NaN"), fewer):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"confidence.json is (damaged|not whole JSON)"):
            load_calibration(tmp_path)


def test_predictions_carry_confidence_only_where_a_run_is_calibrated(capsys, tmp_path):
    photo = photo_with_dot(100.0, 90.0)
    assert Predictor(DotFinder(), 64, device="cpu").predict(photo)[0].confidence is None
    sure = Predictor(DotFinder(), 64, device="cpu", calibration=CALIBRATION).predict(photo)[0]
    assert 0 < sure.confidence < 1 and sure.doubtful == (sure.confidence < 0.6)
    assert main([str(tmp_path)]) == 2 and "config.json is missing" in capsys.readouterr().err


def test_backgrounds_for_it_hold_no_hand_and_differ_from_training():
    crops = empty_crops(6, 32, seed=9)
    assert crops.shape == (6, 32, 32, 3) and crops.reshape(6, -1).std(axis=1).max() > 10
    assert np.array_equal(crops, empty_crops(6, 32, seed=9))
    assert not np.array_equal(crops, empty_crops(6, 32, seed=10))


def drawn_evidence(seed, count=2000):
    """Hands a third of which are read badly, which the last sign tells with noise; backgrounds."""
    rng = np.random.default_rng(seed)
    wrong = rng.uniform(size=count) < 0.33
    signs, nothing = rng.normal(size=(count, 5)), rng.normal(size=(count // 2, 5))
    signs[:, 4] += 2.5 * wrong
    nothing += [4, 0, 0, 0, 4]
    return signs, wrong, nothing


def test_both_questions_are_answered_and_doubt_keeps_its_bounds_on_other_pictures():
    found = from_evidence(drawn_evidence(1), drawn_evidence(2))
    assert (
        np.allclose(found.well_read.weights[:4], 0, atol=0.25) and found.well_read.weights[4] < -2
    )
    assert found.hand.weights[0] < -1 and len(found.hand.weights) == 4
    assert found.doubts_wrong > 0.55 and found.others_wrong < 0.05 and found.caught > 0.9
    assert 0.25 < found.doubted < 0.6
    confidence, wrong = np.linspace(0, 1, 101), np.arange(101) < 20
    assert 0.32 < doubt_below(confidence, wrong) < 0.34  # 20 of 33
    assert doubt_below(confidence, wrong[::-1]) < 0.02


def test_evidence_comes_with_what_was_read_badly():
    predictor = Predictor(DotFinder(), 48, device="cpu")
    signs, wrong, nothing = look(predictor, 8, seed=1)
    assert signs.shape == (8, 5) and nothing.shape == (4, 5)
    assert wrong.dtype == bool and wrong.all()  # it finds dots


def test_the_reference_model_doubts_pictures_without_a_hand():
    predictor = Predictor.load(ROOT / "runs" / "reference", device="cpu")
    known = predictor.calibration
    assert known.doubts_wrong > 0.5 and known.others_wrong < 0.1 and known.caught > 0.9
    assert known.count >= 100
    hands = SyntheticHands(224, seed=606, count=40, truncated=0.0, second_hand=0.0)
    pictures = [hands[n].image for n in range(40)]
    rng = np.random.default_rng(3)
    kinds = ("room", "desk", "foliage", "fabric")
    empty = [paint_background(kinds[n % 4], 224, rng) for n in range(24)]
    read = predictor.predict_many(pictures + empty, ["whole"] * 64, [["right"]] * 64)
    doubts = [hand.doubtful for (hand,) in read]
    assert np.mean(doubts[:40]) < 0.5 and np.mean(doubts[40:]) > 0.7
