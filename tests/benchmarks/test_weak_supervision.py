"""Weak labels come from keypoints alone, and the four training sets hold what they say."""

import numpy as np
import pytest
from benchmarks import weak_supervision as weak

from hand_lib.data.crops import InMemoryDataset
from hand_lib.data.synthetic.hands import SyntheticHands


@pytest.fixture(scope="module")
def labelled():
    pool = InMemoryDataset(SyntheticHands(64, 3, 96), 64, margin=1.0)
    return pool, *weak.weak_labels(pool, seed=0)


def test_labels_are_near_the_truth_and_are_not_it(labelled):
    pool, labels, numbers = labelled
    assert numbers["accepted"] > 0.85
    assert 2 < numbers["plain_mm"] < 25 and 1 < numbers["pa_mm"] < 9
    assert numbers["fit_px"] < numbers["keypoint_px"]
    gap = np.abs(labels["vertices"] - pool.arrays["vertices"]).max((1, 2))
    assert (gap[labels["accepted"]] > 1e-4).all()
    assert (labels["has_vertices"] == labels["accepted"]).all()
    np.testing.assert_array_equal(labels["joints"][labels["accepted"], 0], 0)


def test_a_network_that_knows_depth_makes_labels_better(labelled):
    pool, _, alone = labelled

    class Network:
        def predict_crops(self, crops):
            names = ("vertices", "joints_2d")
            said = {name: pool.arrays[name] for name in names}
            noise = np.random.default_rng(0).normal(0, 0.1, said["joints_2d"].shape)
            return said | {"joints_2d": said["joints_2d"] + noise}

    _, helped = weak.weak_labels(pool, seed=0, predictor=Network())
    assert helped["accepted"] > 0.85 and helped["pa_mm"] < 0.8 * alone["pa_mm"]
    table = weak.prior_table({"key points alone": alone, "with the network": helped})
    assert f"{helped['pa_mm']:.2f}" in table


def test_the_meshes_of_the_truth_are_not_looked_at(labelled):
    pool, labels, _numbers = labelled
    blind = weak.relabelled(pool, {**pool.arrays, "pose": None})
    blind.arrays["vertices"] = np.zeros_like(pool.arrays["vertices"]) + np.eye(3)[0] * 1e-3
    blind.arrays["joints"] = np.zeros_like(pool.arrays["joints"])
    blind.arrays["root"] = np.ones_like(pool.arrays["root"])
    again, _ = weak.weak_labels(blind, seed=0)
    good = labels["accepted"]
    np.testing.assert_array_equal(again["accepted"], good)
    np.testing.assert_allclose(again["vertices"][good], labels["vertices"][good], atol=1e-5)


def test_the_four_sets_hold_what_they_say(labelled):
    pool, labels, _numbers = labelled
    sets = weak.training_sets(pool, labels, 10)
    accepted = np.flatnonzero(labels["accepted"])
    (a,), (b,), (c,), (few, rest) = sets["a"], sets["b"], sets["c"], sets["d"]
    assert len(a) == 96 and b.indices.tolist() == accepted.tolist() and len(c) == 10
    assert set(few.indices) == set(range(10)) and not set(few.indices) & set(rest.indices)
    share = len(few) / (len(few) + len(rest))
    assert 0.25 <= share < 0.3
    row = int(accepted[-1])
    true, fitted = (part.fetch_batch(np.flatnonzero(part.indices == row)) for part in (a, b))
    np.testing.assert_array_equal(true["vertices"][0], pool.arrays["vertices"][row])
    np.testing.assert_array_equal(fitted["vertices"][0], labels["vertices"][row])
    np.testing.assert_array_equal(few.fetch_batch([0])["vertices"][0], pool.arrays["vertices"][0])
    for count in (0, 96):
        with pytest.raises(ValueError, match="n should lie"):
            weak.training_sets(pool, labels, count)
    nothing = labels | {"accepted": np.zeros(96, bool)}
    with pytest.raises(ValueError, match="none of 96 fits"):
        weak.training_sets(pool, nothing, 10)


def test_the_table_trains_and_scores_and_says_so(tmp_path, capsys):
    small = {"backbone": "resnet10t", "pretrained": False, "image_size": 32}
    small |= {"batch_size": 8, "validate_every": 2}
    said = []
    result = weak.compare(
        64, 8, 2, 1, "quick", tmp_path, held_out=16, only="bd", say=said.append, **small
    )
    assert set(result["rows"]) == {"b", "d"} and len(said) == 3
    assert result["rows"]["b"]["pictures"] == round(64 * result["labels"]["accepted"])
    assert 0 < result["rows"]["b"]["pa_mm"] < 60
    assert (tmp_path / "d" / "model.safetensors").is_file()
    text = weak.table(result)
    assert "(b) fits to 2-D keypoints only" in text and "template only" in text
    result["rows"]["b"]["ratio"] = 1.25
    assert "1.25" in weak.table(result)
    assert weak.main(["10", "20", "1", "0", "--preset", "quick"]) == 2
    assert "n should lie" in capsys.readouterr().err


def test_a_table_that_is_not_there_says_how_to_make_it(tmp_path):
    assert "python -m benchmarks.weak_supervision" in weak.saved_table(tmp_path / "none.json")
    result = {
        "N": 5, "n": 1, "steps": 2, "preset": "small", "held_out": 3, "rows": {},
        "labels": {"accepted": 0.5, "keypoint_px": 3.0},
        "template_only": {"pa_mm": 14.0, "plain_mm": 90.0},
    }  # fmt: skip
    weak.write_json(tmp_path / "some.json", result)
    assert weak.saved_table(tmp_path / "some.json") == weak.table(result)
