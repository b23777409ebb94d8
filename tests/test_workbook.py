import json

import numpy as np
import pytest

from hand_lib import workbook as workflow
from hand_lib.evaluation.runs import open_test_set

SCORES = {
    "template only": {"root_mpvpe_mm": 96.0, "root_mpjpe_mm": 100.0, "pa_mpvpe_mm": 15.0,
                      "pa_mpjpe_mm": 18.0},
    "this run": {"root_mpvpe_mm": 48.0, "root_mpjpe_mm": 50.0, "pa_mpvpe_mm": 12.0,
                 "pa_mpjpe_mm": 18.9},
}  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "ROOT", tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path


def finished_run(root, name, status="finished", age=0):
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({"status": status}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_the_table_shows_errors_and_the_share_below_the_template():
    lines = workflow.table(SCORES).splitlines()
    assert lines[0].split() == ["vertices", "joints", "vertices", "PA", "joints", "PA"]
    assert "96.0" in lines[1] and "%" not in lines[1]
    assert "48.0 (-50 %)" in lines[2] and "12.0 (-20 %)" in lines[2] and "(+5 %)" in lines[2]


def test_a_named_run_is_taken_and_an_unknown_one_answered_with_the_known(root):
    folder = finished_run(root, "mine")
    for name in ("runs/mine", "mine", str(folder)):
        assert workflow.ensure_run(name) == folder
    with pytest.raises(FileNotFoundError, match="finished runs in runs/: mine"):
        workflow.ensure_run("runs/other")


def test_the_reference_model_is_what_one_gets_without_a_name(root):
    finished_run(root, "mine")
    reference = finished_run(root, "reference")
    assert workflow.ensure_run() == reference


def test_a_finished_run_is_kept_an_interrupted_one_resumed_and_a_missing_one_trained(root):
    assert workflow.train_parameters("small") == {"preset": "small", "run": "small"}
    finished_run(root, "small")
    assert workflow.train_parameters("small") is None
    finished_run(root, "half", status="interrupted")
    assert workflow.train_parameters("half") == {"resume": "half", "run": "half"}


def test_the_template_is_scored_on_the_truth_of_the_test_set():
    test = open_test_set("synthetic-test", 40)
    scores = workflow.template_row(test, count=60)
    assert set(scores) == set(workflow.TABLE_KEYS.values())
    assert 40 < scores["root_mpvpe_mm"] < 150 and 8 < scores["pa_mpvpe_mm"] < 25
    assert scores["pa_mpvpe_mm"] < scores["root_mpvpe_mm"]


def test_example_pictures_are_always_the_same():
    first, again = workflow.example_pictures(2, 64), workflow.example_pictures(2, 64)
    assert list(first) == list(again) and all(np.array_equal(first[k], again[k]) for k in first)
    assert first["synthetic 0"].shape == (64, 64, 3)


def test_data_made_by_another_version_is_replaced_and_foreign_folders_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(workflow, "DATA_COUNT", 6)
    monkeypatch.setattr(workflow, "DATA_SIZE", 64)
    folder = workflow.ensure_data(tmp_path / "set")
    assert len(workflow.open_data(folder)) == 6
    stamp = next(
        p for p in folder.iterdir() if p.is_file() and "fingerprint" in p.read_text()[:2000]
    )
    picture = sorted((folder / "training" / "rgb").iterdir())[0]
    before = picture.stat().st_mtime_ns
    workflow.ensure_data(folder)
    assert picture.stat().st_mtime_ns == before
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"fingerprint": "older"}))
    workflow.ensure_data(folder)
    assert picture.stat().st_mtime_ns > before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="not empty"):
        workflow.ensure_data(tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.jpg").exists()


def test_the_whole_run_passes_on_what_each_notebook_needs(root, monkeypatch):
    called = []
    monkeypatch.setattr(workflow, "NOTEBOOKS", ("01_a", "03_train", "04_evaluation", "05_demo"))
    monkeypatch.setattr(
        "hand_lib.launch.launch",
        lambda name, output, parameters, log: called.append((name, parameters)) or output,
    )
    monkeypatch.setattr(workflow, "comparison", lambda runs: SCORES)
    said = []
    assert workflow.run_all("small", said.append) == SCORES
    assert called == [
        ("01_a", {}),
        ("03_train", {"preset": "small", "run": "small"}),
        ("04_evaluation", {"runs": "runs/small"}),
        ("05_demo", {"run": "runs/small"}),
    ]
    text = "\n".join(said)
    assert "[2/4] 03_train" in text and "48.0 (-50 %)" in text and "05_demo.ipynb" in text
    finished_run(root, "small")
    called.clear()
    workflow.run_all("small", said.append)
    assert [name for name, _ in called] == ["01_a", "04_evaluation", "05_demo"]


def test_the_command_line_answers_instead_of_tracing(root, monkeypatch, capsys):
    monkeypatch.setattr(
        workflow, "run_all", lambda run: (_ for _ in ()).throw(OSError("disk full"))
    )
    assert workflow.main([]) == 2 and "disk full" in capsys.readouterr().err
    monkeypatch.setattr(workflow, "run_all", lambda run: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert workflow.main([]) == 130 and "goes on from here" in capsys.readouterr().err


def test_publishing_copies_what_ships_and_draws_the_overview(root, monkeypatch):
    run = finished_run(root, "mine")
    for name in ("log.csv", "provenance.json"):
        (run / name).write_text(name)
    from PIL import Image

    from hand_lib.inference.predictor import Predictor, confidence

    measured = confidence.Calibration(-1.0, 2.0, 0.5, 0.4, 0.05, 0.9, 600)
    monkeypatch.setattr(workflow, "overview", lambda run: Image.new("RGB", (20, 10)))
    monkeypatch.setattr(confidence, "calibrate", lambda predictor: measured)
    monkeypatch.setattr(Predictor, "load", classmethod(lambda cls, run: run))
    target = workflow.publish("runs/mine")
    made = [*workflow.PUBLISHED, "overview.jpg", "confidence.json"]
    assert sorted(p.name for p in target.iterdir()) == sorted(made)
    assert confidence.load_calibration(target) == measured
