import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_evaluation import KnowingPredictor, toy_samples, toy_set

from hand_lib.data.freihand import FreiHand, write_freihand
from hand_lib.data.metro_tsv import write_freihand_tsv
from hand_lib.data.sample import HandSample
from hand_lib.evaluation import describe, predictions
from hand_lib.evaluation import freihand as scoring
from hand_lib.evaluation import runs as evaluation


@pytest.fixture(scope="module")
def samples(model):
    return toy_samples(model)


@pytest.fixture(scope="module")
def test_set(samples):
    return toy_set(samples)


@pytest.fixture(scope="module")
def perfect(model, samples, test_set):
    return evaluation.evaluate_predictor(KnowingPredictor(model, samples), test_set)


def test_a_predictor_that_knows_the_truth_has_no_error_anywhere(perfect):
    assert max(perfect.scores.millimetres[key] for key in ("mpjpe_mm", "mpvpe_mm")) < 0.01
    assert perfect.pa_mm.shape == (6,) and perfect.pa_mm.max() < 0.001
    assert np.nanmax(perfect.joint_error_px) < 1e-3
    np.testing.assert_allclose(perfect.translation, [[0, 0.02, 0.6]] * 6, atol=1e-4)


def test_scores_are_those_of_the_scorer_on_the_same_arrays(model, samples, test_set):
    found = evaluation.evaluate_predictor(KnowingPredictor(model, samples, jitter=0.005), test_set)
    truth = [
        np.stack([getattr(s, key) + s.root for s in samples]) for key in ("joints", "vertices")
    ]
    expected = scoring.report(*found.in_camera(), *truth, units="m")
    assert found.scores.millimetres == pytest.approx(expected.millimetres, abs=0.005)
    assert found.scores.millimetres["pa_mpvpe_mm"] == pytest.approx(8, abs=0.5)


def test_pictures_are_the_crops_that_were_predicted(perfect):
    images = perfect.pictures([4, 1])
    assert images.shape == (2, 64, 64, 3)
    assert images[0, 5, 5, 0] == 40 and images[1, 5, 5, 0] == 10


def test_a_test_set_without_truth_is_refused(model, samples):
    bare = [HandSample(s.image, joints=s.joints) for s in samples]
    test = evaluation.TestSet("bare", bare, 6, "")
    with pytest.raises(ValueError, match="bare: some hands have no true vertices"):
        evaluation.evaluate_predictor(KnowingPredictor(model, samples), test)


def test_a_flat_hand_seen_from_the_front_hides_less_than_one_seen_from_its_edge(model):
    with torch.no_grad():
        hand = model(torch.zeros(1, 16, 3)).vertices[0].numpy()
    camera = np.array([[500.0, 0, 63.5], [0, 500, 63.5], [0, 0, 1]])
    front = hand - hand.mean(0)
    edge = front[:, [0, 2, 1]] * [1, 1, -1]
    found = describe.hidden_shares(
        np.stack([front, edge]), model.faces.numpy(), np.array([[0, 0, 0.8]] * 2), [camera] * 2, 128
    )
    assert 0.25 < found[0] < 0.6 < found[1] < 0.95


def test_the_parts_of_an_error_are_put_right_one_after_the_other(model, samples, test_set):
    cos, sin = np.cos(0.3), np.sin(0.3)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])

    class Turned(KnowingPredictor):
        def predict_crops(self, crops):
            out = super().predict_crops(crops)
            return out | {name: 1.2 * out[name] @ turn.T for name in ("vertices", "joints")}

    found = evaluation.evaluate_predictor(Turned(model, samples), test_set)
    parts = evaluation.error_parts(found)
    true = np.stack([sample.vertices for sample in samples])
    for scale, name in ((1.2, "wrists brought together"), (1.0, "and the true size given")):
        expected = 1000 * np.linalg.norm(scale * true @ turn.T - true, axis=2).mean(1)
        np.testing.assert_allclose(parts[name], expected, rtol=1e-4)
    off = 1000 * (1.2 * true @ turn.T - true)
    across, along = list(parts)[1:3]
    np.testing.assert_allclose(parts[along], np.abs(off[..., 2]).mean(1), rtol=1e-4)
    np.testing.assert_allclose(parts[across], np.hypot(*off[..., :2].T).mean(0), rtol=1e-4)
    for name in list(parts)[-2:]:
        np.testing.assert_allclose(parts[name], 0, atol=1e-3)


def test_the_parts_of_a_missing_and_of_a_collapsed_hand_are_those_of_a_point(
    model, samples, test_set
):
    class Broken(KnowingPredictor):
        def predict_crops(self, crops):
            out = super().predict_crops(crops)
            out["vertices"][0], out["vertices"][1], out["joints"][1] = np.nan, 0, 0
            return out

    parts = evaluation.error_parts(evaluation.evaluate_predictor(Broken(model, samples), test_set))
    reach = [1000 * np.linalg.norm(sample.vertices, axis=1).mean() for sample in samples[:2]]
    for name in list(parts)[-3:-1]:
        np.testing.assert_allclose(parts[name][:2], reach, rtol=1e-4)
        np.testing.assert_allclose(parts[name][2:], 0, atol=0.01)


def test_an_unknown_test_set_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'synthetic-test' nor a data set.*FreiHAMD"):
        evaluation.open_test_set("FreiHAMD")


def test_the_synthetic_test_set_is_cut_to_a_count_and_said():
    test = evaluation.open_test_set(count=3)
    assert len(test) == 3 and "the first 3 of 2000" in test.words
    assert evaluation.open_test_set(count=2001).words.endswith("all 2000 of 2000")
    with pytest.raises(ValueError, match="0 .all. or more, found -1"):
        evaluation.open_test_set(count=-1)


def make_run(folder, status="finished", error=20.0, time=1):
    """An empty run that says how it ended and how far its mesh is off; the mean mesh: 90 mm."""
    folder.mkdir()
    (folder / "model.safetensors").touch()
    told = {"validation": {"vertices_mm": error}, "template_only": {"vertices_mm": 90.0}}
    (folder / "metrics.json").write_text(json.dumps({"status": status, **told}))
    os.utime(folder / "metrics.json", (time, time))
    return folder


def test_the_newest_run_that_learnt_something_and_the_reference_are_found(tmp_path):
    assert evaluation.find_runs(tmp_path) == []
    taste = make_run(tmp_path / "taste", error=5966.0, time=9)
    assert evaluation.find_runs(tmp_path) == [taste]
    make_run(tmp_path / "old", time=1)
    make_run(tmp_path / "broken", "failed", time=8)
    new = make_run(tmp_path / "new", time=2)
    assert evaluation.find_runs(tmp_path) == [new]
    reference = make_run(tmp_path / "reference")
    assert evaluation.find_runs(tmp_path) == [new, reference]


def test_a_run_folder_is_evaluated_by_its_predictor(monkeypatch, model, samples, test_set):
    def load(folder):
        return KnowingPredictor(model, samples, folder.name, jitter=0.002)

    monkeypatch.setattr(evaluation.Predictor, "load", load)
    found = evaluation.evaluate_run(Path("runs") / "mine", test_set)
    assert found.name == "mine" and found.pa_mm.mean() == pytest.approx(3.2, abs=0.3)


def test_averaging_over_the_untouched_view_changes_nothing(model, samples, test_set, perfect):
    predictor = KnowingPredictor(model, samples)
    again = evaluation.evaluate_predictor(predictor, test_set, views=[(0, 1)])
    assert np.allclose(again.vertices, perfect.vertices, atol=1e-6)
    assert np.allclose(again.joints_2d, perfect.joints_2d, atol=1e-3)


def test_one_command_writes_the_submission_of_either_layout_and_scores_it(
    monkeypatch, model, samples, tmp_path, capsys
):
    folder = tmp_path / "freihand"
    write_freihand(folder, samples, split="evaluation")
    yaml = write_freihand_tsv(tmp_path / "tsv", FreiHand(folder, "evaluation"), split="test")
    monkeypatch.setattr(
        evaluation.Predictor, "load", lambda run: KnowingPredictor(model, samples, jitter=0.004)
    )
    said = []
    for place, name in ((folder, "one.zip"), (yaml, "two.json")):
        command = ["runs/yth", "--data", str(place), "--out", str(tmp_path / name)]
        assert evaluation.main(command) == 0
        said.append(capsys.readouterr().out)
    joints, vertices = predictions.read_predictions(tmp_path / "one.zip")
    for found in (joints, predictions.read_predictions(tmp_path / "two.json")[0]):
        truth = np.stack([sample.joints + sample.root for sample in samples])
        assert np.linalg.norm(found - truth, axis=2).max() < 0.05  # each beside its own picture
    assert vertices.shape == (6, 778, 3) and "all 6 of 6" in said[0]
    scores = scoring.score_file(tmp_path / "one.zip", folder)
    assert 0.3 < scores.official["mesh_al_mean3d"] < 1.0
    assert f"{scores.official['mesh_al_mean3d']:.4f}" in said[0]
    assert "mesh_al_mean3d" not in said[1]  # METRO's layout has no true vertices
    for name in ("xyz", "verts", "mano"):
        (folder / f"evaluation_{name}.json").unlink(missing_ok=True)
    assert evaluation.main(["r", "--data", str(folder), "--out", str(tmp_path / "bare.zip")]) == 0
    again = predictions.read_predictions(tmp_path / "bare.zip")
    np.testing.assert_allclose(again[0], joints, atol=1e-6)
    with pytest.raises(SystemExit):
        evaluation.main(["r", "--data", str(tmp_path / "nothing")])
    assert "neither 'synthetic-test' nor a data set" in capsys.readouterr().err


def test_every_published_row_names_its_source_and_has_a_plausible_number():
    rows = evaluation.published_rows()
    for row in rows:
        assert row["method"] and row["source"].startswith("FreiHAND evaluation set; PA; ")
        errors = [e for e in (row["pa_mpjpe_mm"], row["pa_mpvpe_mm"]) if e is not None]
        assert errors and all(4 < e < 40 for e in errors), row
        assert row["pa_f_5"] is None or 0 < row["pa_f_5"] < row["pa_f_15"] < 1
    assert len({(row["method"], row["backbone"]) for row in rows}) == len(rows) == 30
    paper = next(row for row in rows if row["method"] == "YouTubeHand (paper)")
    assert (paper["year"], paper["pa_mpjpe_mm"], paper["pa_f_5"]) == ("2020", 8.4, 0.614)
