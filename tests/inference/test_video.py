"""Videos in and out, and a hand followed through one, with a stand-in network that finds dots."""

import json

import numpy as np
import pytest
import trimesh
from inference.test_predictor import DotFinder
from inference.test_smoothing import lag_seconds
from PIL import Image

from hand_lib import ROOT
from hand_lib.data.synthetic.hands import MovingHand
from hand_lib.inference import video
from hand_lib.inference.frames import Frames, write_video
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import Calibration, Logistic
from hand_lib.inference.video import OneEuro, jitter

WIDTH, HEIGHT, COUNT = 160, 120, 40
WAY = np.stack([80 + 45 * np.sin(np.arange(COUNT) / 8), 60 + 25 * np.cos(np.arange(COUNT) / 8)], 1)


def dot_frame(place):
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    bump = 250 * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 4.0**2))
    return np.repeat(bump.astype(np.uint8)[..., None], 3, axis=2)


FRAMES = [dot_frame(place) for place in WAY]


@pytest.fixture
def predictor():
    return Predictor(DotFinder(), 64, device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "dot.mp4", FRAMES, 25.0)


def test_a_hand_is_followed_from_its_first_box(predictor, clip):
    box = (WAY[0, 0] - 20, WAY[0, 1] - 20, WAY[0, 0] + 20, WAY[0, 1] + 20)
    (found,) = video.follow_hands(predictor, clip, [box], progress=False)
    assert found.vertices.shape == (COUNT, 3, 3)
    off = found.joints_2d.mean(axis=1) - WAY
    assert np.abs(off - off.mean(axis=0)).max() < 4
    assert np.isnan(found.confidence).all() and not found.doubtful.any()
    assert np.allclose(found.times, np.arange(COUNT) / 25)


def test_without_a_box_the_first_frame_is_looked_at_ever_closer(predictor):
    places = []
    inner = predictor.predict
    predictor.predict = lambda frame, boxes, *rest: (
        places.append(boxes) or inner(frame, boxes, *rest)
    )
    (found,) = video.follow_hands(predictor, FRAMES[:3], fps=25.0, progress=False)
    sides = [b[0][2] - b[0][0] for b in places[1 : video.ROUNDS + 1]]
    assert places[0] is None and sides[0] > sides[-1]
    assert len(found.times) == 3


def test_two_hands_keep_their_boxes_and_sides_and_a_doubtful_one_stays(predictor):
    boxes = [(60, 60, 100, 110), (50, 50, 120, 115)]  # the same dot; the stand-in needs one
    one, two = video.follow_hands(
        predictor, FRAMES[:4], boxes, ["right", "left"], fps=25.0, progress=False
    )
    assert (one.side, two.side) == ("right", "left")
    no = Logistic((0.0,) * 4, -9.0, 0.5)  # to everything
    predictor.calibration = Calibration(no, no, 1.0, 1.0, 0.0, 1.0, 1)
    seen = []
    inner = predictor.predict
    predictor.predict = lambda f, boxes, *rest: seen.append(boxes) or inner(f, boxes, *rest)
    (lost,) = video.follow_hands(predictor, FRAMES[:4], boxes[:1], fps=25.0, progress=False)
    assert lost.doubtful.all() and all(np.allclose(b, boxes[:1]) for b in seen)


def test_each_frame_is_given_its_own_key_points(predictor, monkeypatch):
    given = [None, np.ones((1, 21, 3)), None, np.zeros((1, 21, 3))]
    inner, seen = predictor.predict, []
    monkeypatch.setattr(
        predictor,
        "predict",
        lambda frame, boxes, sides, camera, points=None: (
            seen.append(points) or inner(frame, boxes, sides, camera)
        ),
    )
    video.follow_hands(
        predictor, FRAMES[:4], [(60, 60, 100, 110)], fps=25.0, progress=False, keypoints=given
    )
    assert all(one is other for one, other in zip(seen[1:], given, strict=True))


def test_smoothing_steadies_without_lag_and_keeps_the_mesh_on_its_joints(predictor):
    frames = [dot_frame(p) for p in WAY + np.random.default_rng(1).normal(0, 1.5, WAY.shape)]
    box = (WAY[0, 0] - 25, WAY[0, 1] - 25, WAY[0, 0] + 25, WAY[0, 1] + 25)
    (raw,) = video.follow_hands(predictor, frames, [box], fps=25.0, progress=False)
    steady = video.smooth_sequence(raw, OneEuro(beta=1.0))
    assert jitter(steady.joints_2d, raw.times) < 0.5 * jitter(raw.joints_2d, raw.times)
    assert abs(lag_seconds(steady.joints_2d, raw.joints_2d, 25.0)) < 0.01
    live = video.smooth_sequence(raw, OneEuro(beta=1.0), both_ways=False)
    assert 0.005 < lag_seconds(live.joints_2d, raw.joints_2d, 25.0) < 0.13
    assert np.allclose(steady.vertices, raw.vertices, atol=1e-6)  # the stand-in's hand is rigid


def test_a_video_becomes_overlay_arrays_meshes_and_report(predictor, tmp_path, capsys):
    times = np.cumsum([0.04, 0.4] * (COUNT // 2)) - 0.04  # as phones and screen recorders do
    clip = write_video(tmp_path / "in.mp4", FRAMES, times=times)
    box = (WAY[0, 0] - 20, WAY[0, 1] - 20, WAY[0, 0] + 20, WAY[0, 1] + 20)
    paths = video.process_video(
        predictor, clip, tmp_path / "out", [box, box], ["right", "left"], meshes="ply"
    )
    assert "following: 100%" in capsys.readouterr().err
    assert set(paths) == {"overlay", "arrays", "arrays_2", "meshes", "report"}
    drawn = Frames(paths["overlay"])
    assert len(drawn) == COUNT and np.allclose(drawn.times, times, atol=1e-3)
    assert np.abs(drawn[9].astype(int) - FRAMES[9]).max() > 30
    arrays, other = np.load(paths["arrays"]), np.load(paths["arrays_2"])
    assert np.allclose(arrays["times_s"], times, atol=1e-3)
    files = sorted(paths["meshes"].iterdir())
    assert len(files) == COUNT and files[0].name == "000000.ply"
    mesh = trimesh.load(files[7], process=False)
    both = [a["vertices_m"][7] + a["translation_m"][7] for a in (arrays, other)]
    assert np.allclose(mesh.vertices, np.concatenate(both), atol=1e-6)
    one, two = json.loads(paths["report"].read_text())["hands"]
    assert (one["frames"], two["side"]) == (COUNT, "left")
    assert one["seconds"] == pytest.approx(times[-1], abs=1e-3)
    assert one["lag_at_rest_s"] == 0 and one["confidence_median"] is None
    assert one["jitter_after_m_s2"] <= one["jitter_before_m_s2"]


def test_a_folder_of_pictures_is_followed_in_natural_order(predictor, tmp_path):
    (tmp_path / "film").mkdir()
    for n, frame in enumerate(FRAMES[:12]):
        Image.fromarray(frame).save(tmp_path / "film" / f"f{n}.png")
    box = (WAY[0, 0] - 20, WAY[0, 1] - 20, WAY[0, 0] + 20, WAY[0, 1] + 20)
    (found,) = video.follow_hands(predictor, tmp_path / "film", [box], fps=10, progress=False)
    off = found.joints_2d.mean(axis=1) - WAY[:12]
    assert np.abs(off - off.mean(axis=0)).max() < 4 and found.times[-1] == pytest.approx(1.1)


def test_the_command_line_answers_what_it_cannot_do(tmp_path, capsys):
    assert video.main([str(tmp_path / "no.mp4"), str(tmp_path)]) == 2
    assert "no.mp4" in capsys.readouterr().err
    assert video.main([str(tmp_path), str(tmp_path)]) == 2
    assert "no pictures here" in capsys.readouterr().err
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    assert video.main([str(text), str(tmp_path)]) == 2
    assert "is not a video that can be read" in capsys.readouterr().err


def test_the_reference_model_follows_a_rendered_hand_from_the_command_line(tmp_path, capsys):
    moving = MovingHand(160, seed=10, count=24, fps=15.0)
    batch = moving.fetch_batch(range(24))
    path = write_video(tmp_path / "in.mp4", batch["image"].transpose(0, 2, 3, 1), 15.0)
    out = tmp_path / "out"
    words = [str(path), str(out), "--run", str(ROOT / "runs" / "reference"), "--quiet"]
    assert video.main([*words, "--focal", str(float(batch["intrinsics"][0, 0, 0]))]) == 0
    assert str(out / "overlay.mp4") in capsys.readouterr().out
    found = np.load(out / "meshes.npz")
    truth = ((batch["joints_2d"] + 1) * 160 - 1) / 2
    side = np.ptp(truth, axis=1).max(axis=1)
    off = np.linalg.norm(found["joints_2d_px"] - truth, axis=-1).mean(axis=1) / side
    assert found["vertices_m"].shape == (24, 778, 3) and np.median(off) < 0.3
    report = json.loads((out / "report.json").read_text())["hands"][0]
    assert report["intrinsics_assumed"] is False


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p, f: video.process_video(p, FRAMES, f, meshes="fbx"), "one of .ply"),
        (lambda p, f: video.follow_hands(p, FRAMES, fps=0.0), "fps"),
        (lambda p, f: video.follow_hands(p, [], fps=9.0, progress=False), "no frames"),
    ],
)
def test_wrong_requests_are_answered_and_leave_no_file(predictor, tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(predictor, tmp_path)
    assert list(tmp_path.iterdir()) == []
