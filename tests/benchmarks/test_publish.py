import numpy as np
from benchmarks import publish
from PIL import Image

from hand_lib import ROOT
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import Calibration, Logistic, load_calibration


def test_publishing_copies_what_ships_and_draws_the_overview(tmp_path, monkeypatch):
    run = tmp_path / "mine"
    run.mkdir()
    for name in publish.PUBLISHED:
        (run / name).write_text(name)
    both = (Logistic((-1.0, 2.0, -1.0, 1.0, 0.5)[:n], 0.5, 0.4) for n in (4, 5))
    measured = Calibration(*both, 0.3, 0.6, 0.05, 0.9, 600)
    monkeypatch.setattr(publish, "overview", lambda run: Image.new("RGB", (20, 10)))
    monkeypatch.setattr(
        publish, "turning", lambda run: [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    )
    monkeypatch.setattr(publish, "calibrate", lambda predictor: measured)
    monkeypatch.setattr(Predictor, "load", classmethod(lambda cls, run: run))
    target = publish.publish(run, tmp_path / "reference")
    made = [*publish.PUBLISHED, "overview.jpg", "turning.webp", "confidence.json"]
    assert sorted(p.name for p in target.iterdir()) == sorted(made)
    assert load_calibration(target) == measured
    assert Image.open(target / "turning.webp").n_frames == 2


def test_the_overview_shows_gestures_photographs_and_predictions():
    picture = publish.overview(ROOT / "runs" / "reference")
    assert picture.size[0] > 1000 and np.asarray(picture).std() > 20


def test_the_hand_of_the_readme_turns():
    frames = publish.turning(ROOT / "runs" / "reference", size=48, frames=2, count=1)
    first, turned = (np.asarray(frame).astype(int) for frame in frames)
    same = np.abs(first - turned).max(axis=(0, 2))
    assert same[:100].max() == 0 and same[104:].max() > 50  # picture and overlay stand still
