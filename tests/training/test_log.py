"""What a run leaves to be seen: log, scores, provenance."""

import json
import re

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_training import ToyData, same, toy_config, toy_setup, weights

from hand_lib.training import log, run_folder
from hand_lib.training.loop import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of twelve steps, with what it said."""
    lines, config = [], toy_config(steps=12)
    folder = tmp_path_factory.mktemp("log") / "run"
    result = train(config, folder, setup=toy_setup(config), say=lines.append)
    result.lines = lines
    return result


def test_the_run_folder_holds_what_it_promises(finished):
    result, folder = finished, finished.folder
    names = {path.name.split(".out.")[0] for path in folder.iterdir()}
    promised = {
        "config.json", "model.safetensors", "state.pt", "metrics.json", "log.csv",
        "previous.pt", "provenance.json", "events", "snapshots",
    }  # fmt: skip
    assert promised <= names
    notes = json.loads((folder / "provenance.json").read_text())
    for name in ("commit", "dirty", "packages", "device", "seconds", "memory_mb"):
        assert notes[name] is not None
    assert notes["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert notes["device"].startswith("cpu: ") and notes["memory_mb"]["cpu"] > 50
    assert notes["legs"] == [] and notes["bf16"] is False and notes["started"].endswith("+00:00")
    assert notes["config"] == json.loads((folder / "config.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["status"], metrics["step"]) == ("finished", 12)
    assert metrics == json.loads(json.dumps(result.metrics))
    assert [row["step"] for row in result.log if row["val_loss"] is not None] == [0, 6, 12]
    assert [row["step"] for row in result.log if row["loss"] is not None] == list(range(1, 13))
    assert result.log == run_folder.read_log(folder)
    saved = run_folder.load_model(folder)
    assert same(saved, weights(result))


def test_snapshots_follow_the_same_hands_and_tensorboard_the_curves(finished, tmp_path):
    folder = finished.folder
    truth, steps = log.read_snapshots(folder)
    assert list(steps) == [0, 6, 12]
    first, last = steps[0], steps[12]
    assert truth["image"].shape == (log.SHOWN_HANDS, 3, 32, 32)
    assert first["vertices"].shape == (log.SHOWN_HANDS, 30, 3)
    assert not np.array_equal(first["vertices"], last["vertices"])
    with pytest.raises(FileNotFoundError, match="never began"):
        log.read_snapshots(tmp_path / "else")
    events = EventAccumulator(str(folder)).Reload()
    assert [e.step for e in events.Scalars("training/loss")] == list(range(1, 13))
    assert [e.step for e in events.Scalars("validation/vertices_mm")] == [0, 6, 12]


def test_a_person_is_told_the_scores_and_the_time_left(finished):
    lines = finished.lines
    assert len(lines) == 3
    pattern = r"step 6/12: loss [\d.]+, \d+ images/s; validation vertices [\d.]+ mm.*1 min left"
    assert re.match(pattern, lines[1])
    assert lines[2].endswith("done")


def test_scores_are_millimetres_and_per_cent():
    truth = {name: torch.as_tensor(v) for name, v in ToyData(3).fetch_batch(range(3)).items()}
    predicted = {name: truth[name].numpy().copy() for name in ("vertices", "joints", "joints_2d")}
    predicted["vertices"][..., 0] += 0.01
    predicted["joints_2d"][..., 0] += 0.2
    scores = log.geometric_scores(predicted, truth)
    assert scores["vertices_mm"] == pytest.approx(10, rel=1e-4)
    assert scores["vertices_pa_mm"] == pytest.approx(0, abs=1e-3)
    assert scores["joints_mm"] == pytest.approx(0, abs=1e-6)
    assert scores["joints_2d_percent"] == pytest.approx(10, rel=1e-4)
    truth["has_vertices"][:] = False
    assert "vertices_mm" not in log.geometric_scores(predicted, truth)


def test_hands_without_vertices_can_be_validated_on(tmp_path):
    setup, lines = toy_setup(toy_config()), []
    setup.validation["has_vertices"][:] = False
    train(toy_config(steps=2), tmp_path / "run", setup=setup, say=lines.append)
    assert "validation 2-D joints" in lines[-1]
