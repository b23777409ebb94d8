import numpy as np
import pytest
from inference.test_confidence import CALIBRATION

from hand_lib.inference.predictor import READ_AGAIN_AT, Predictor, predict_averaged

SIZE = 64
RNG = np.random.default_rng(0)
POINTS = RNG.normal(scale=0.04, size=(21, 3))


class TurnReader:
    """A stand-in network that sees how far a bright spot is turned and answers consistently."""

    def __init__(self):
        self.calls = 0

    def __call__(self, crops):
        self.calls += 1
        grid = (2 * np.arange(SIZE) + 1) / SIZE - 1
        weight = crops.astype(float).mean(axis=3) ** 4
        total = weight.sum(axis=(1, 2))
        x = (weight.sum(axis=1) * grid).sum(axis=1) / total
        y = (weight.sum(axis=2) * grid).sum(axis=1) / total
        angle = np.arctan2(y, x)
        cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
        turn = np.stack([np.stack([cos, -sin, zero], 1), np.stack([sin, cos, zero], 1),
                         np.stack([zero, zero, zero + 1], 1)], 1)  # fmt: skip
        joints = POINTS @ turn.swapaxes(1, 2)
        place = np.stack([x, y], axis=1)[:, None]
        return {
            "vertices": joints[:, :5],
            "joints": joints,
            "joints_2d": place + 0 * joints[..., :2],
        }


def crops_with_spot(angles, reach=14):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found = []
    for angle in angles:
        x, y = 31.5 + reach * np.cos(angle), 31.5 + reach * np.sin(angle)
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        found.append(np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2))
    return np.stack(found)


def test_a_consistent_network_gives_the_same_answer_through_every_view():
    crops, reader = crops_with_spot([0.3, 1.8, -2.0]), TurnReader()
    plain = reader(crops)
    views = [(turn, scale) for turn in (-30, 0, 45) for scale in (0.8, 1.0, 1.2)]
    for view in views:
        back = predict_averaged(reader, crops, [view])
        assert np.abs(back["joints"] - plain["joints"]).max() < 2e-3
        assert np.abs(back["joints_2d"] - plain["joints_2d"]).max() < 0.02
    reader.calls = 0
    averaged = predict_averaged(reader, crops, views)
    assert reader.calls == 1  # all views in one batch
    assert np.abs(averaged["vertices"] - plain["vertices"]).max() < 2e-3


def test_impossible_views_are_refused():
    for views in ([(0, 0.0)], [(np.nan, 1)], []):
        with pytest.raises(ValueError, match="pairs .degrees, positive scale"):
            predict_averaged(TurnReader(), crops_with_spot([0.3]), views)


class SureReader(Predictor):
    """A stand-in that is the surer the farther out the spot lies, and says where it saw it."""

    def __init__(self, calibration=None):
        self.calibration, self.reader, self.read = calibration, TurnReader(), []

    def predict_crops(self, crops, batch_size=32):
        out, number = self.reader(crops), float(len(self.read))
        self.read.append(len(crops))
        reach = np.linalg.norm(out["joints_2d"][:, 0], axis=1)
        return out | {
            "camera": np.zeros((len(crops), 3)),
            "confidence": reach,
            "sureness": reach,
            "evidence": np.full((len(crops), 5), number),
        }


def test_what_is_in_doubt_is_read_again_and_the_surest_answer_stays():
    crops = np.concatenate([crops_with_spot([0.3]), crops_with_spot([1.8, -2.0], 29)])
    once = SureReader().read_crops(crops)
    predictor = SureReader(CALIBRATION)
    found = predictor.read_crops(crops)
    assert predictor.read == [3, len(READ_AGAIN_AT)]  # only the first is in doubt
    for name in ("joints", "joints_2d", "confidence"):
        assert np.array_equal(found[name][1:], once[name][1:])
    assert np.abs(found["joints_2d"] - once["joints_2d"]).max() < 0.02  # in the frame of the crop
    enlarged = predictor.reader(crops_with_spot([0.3], 14 * max(READ_AGAIN_AT)))["joints"][0]
    assert np.abs(found["joints"][0] - enlarged).max() < 2e-3
    assert np.allclose(found["evidence"][:, 0], [2 / 3, 0, 0])  # the mean of all looks
    chance = CALIBRATION.well_read.chance(np.full((1, 5), 2 / 3))[0]
    assert np.isclose(found["confidence"][0], chance)
