"""Boxes by MediaPipe: both of its interfaces as stand-ins, and its absence."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from inference.test_predictor import DotFinder, photo_with_dot

from hand_lib.fitting import detection
from hand_lib.fitting.keypoints import detect_mediapipe, read_keypoints
from hand_lib.inference.frames import Frames
from hand_lib.inference.predictor import Predictor

PHOTO = photo_with_dot(205.0, 92.0, width=320, height=200)
POINTS = [(0.5 + 0.01 * n, 0.4 + 0.004 * n) for n in range(21)]
SCORES = {"right": 0.9, "left": 0.7}
BOX = (0.5 * 320 - 0.5, 0.4 * 200 - 0.5, 0.7 * 320 - 0.5, 0.48 * 200 - 0.5)


def hand(points):
    return [SimpleNamespace(x=x, y=y) for x, y in points]


class Solutions:
    """The older interface: sides as in a mirror, nothing as None."""

    def __init__(self, hands):
        self.hands = hands

    def Hands(self, **_):
        def process(image):
            assert image.flags["C_CONTIGUOUS"] and image.dtype == np.uint8
            mirror = {"right": "Left", "left": "Right"}
            named = [
                [SimpleNamespace(label=mirror[side], score=SCORES[side])] for _, side in self.hands
            ]
            return SimpleNamespace(
                multi_hand_landmarks=[SimpleNamespace(landmark=hand(p)) for p, _ in self.hands]
                or None,
                multi_handedness=[SimpleNamespace(classification=c) for c in named] or None,
            )

        return SimpleNamespace(process=process)


def older(hands):
    return SimpleNamespace(solutions=SimpleNamespace(hands=Solutions(hands)))


def newer(hands):
    found = SimpleNamespace(
        hand_landmarks=[hand(p) for p, _ in hands],
        handedness=[
            [SimpleNamespace(category_name=side.title(), score=SCORES[side])] for _, side in hands
        ],
    )
    landmarker = SimpleNamespace(detect=lambda picture: found)
    return SimpleNamespace(
        Image=lambda image_format, data: data,
        ImageFormat=SimpleNamespace(SRGB=1),
        tasks=SimpleNamespace(
            BaseOptions=lambda model_asset_buffer: model_asset_buffer,
            vision=SimpleNamespace(
                HandLandmarkerOptions=lambda **options: options,
                HandLandmarker=SimpleNamespace(create_from_options=lambda _: landmarker),
            ),
        ),
    )


@pytest.fixture(params=[older, newer])
def install(request, monkeypatch, tmp_path):
    """Put a stand-in for MediaPipe in place that finds the given hands."""
    model = tmp_path / "hand_landmarker.task"
    model.write_bytes(b"model")
    monkeypatch.setattr(detection, "MODEL_FILE", model)

    def put(hands):
        detection._finder.cache_clear()
        monkeypatch.setitem(sys.modules, "mediapipe", request.param(hands))

    yield put
    detection._finder.cache_clear()


def test_landmarks_come_in_pixels_the_surest_hand_first(install):
    install([(POINTS, "left"), ([(x - 0.6, y) for x, y in POINTS], "right")])
    (first, side, score), (second, *rest) = detection.find_landmarks(PHOTO)
    assert (side, score) == ("right", 0.9) and rest == ["left", 0.7]
    np.testing.assert_allclose(second, np.array(POINTS) * [320, 200] - 0.5)
    assert first[0, 0] < 0  # outside the picture, and left there


def test_keypoints_of_a_film_are_those_that_it_finds(install):
    install([(POINTS, "left"), (POINTS, "right")])
    found = read_keypoints("mediapipe", Frames([PHOTO, PHOTO[:90, :80], b"no picture"]))
    assert found.frames.tolist() == [0, 0, 1, 1] and found.sides == ["right", "left"] * 2
    for row, (width, height) in ((0, (320, 200)), (2, (80, 90))):
        expected = np.array(POINTS) * [width, height] - 0.5
        np.testing.assert_allclose(found.points[row], expected)
    assert (found.confidence[0] == 0.9).all() and (found.confidence[1] == 0.7).all()
    assert len(found.problems) == 1 and "frames/2: left out" in found.problems[0]
    install([])
    assert detect_mediapipe([PHOTO]).empty == ["frame 0"]


def test_where_nothing_is_found_its_pieces_are_looked_at_and_a_hand_counts_once(monkeypatch):
    seen = []

    def finder(piece):  # knows hands of a third of what it sees; the dot is one's middle
        seen.append(piece.shape[:2])
        y, x = np.unravel_index(piece[..., 0].argmax(), piece.shape[:2])
        if max(piece.shape) > 200 or piece.max() < 200:
            return []
        middle = (np.array([x, y]) + 0.5) / piece.shape[1::-1]
        return [(middle + np.linspace(-0.1, 0.1, 21)[:, None], "left", 0.8)]

    monkeypatch.setattr(detection, "_finder", lambda model: finder)
    ((points, side, score),) = detection.find_landmarks(PHOTO)
    assert seen[0] == (200, 320) and set(seen[1:]) == {(100, 160)} and len(seen) == 10
    assert np.abs(points.mean(axis=0) - [205, 92]).max() < 2 and (side, score) == ("left", 0.8)
    assert detection.find_landmarks(np.zeros((200, 320, 3), np.uint8)) == []


def test_prediction_takes_boxes_and_sides_from_it(install):
    predictor = Predictor(DotFinder(), 64, device="cpu")
    install([(POINTS, "left")])
    (found,) = predictor.predict(PHOTO, boxes="detect", refined=False)
    (given,) = predictor.predict(PHOTO, boxes=[BOX], sides=["left"])
    assert found.side == "left" and np.allclose(found.joints_2d, given.joints_2d)
    (named,) = predictor.predict(PHOTO, boxes="detect", sides=["right"], refined=False)
    assert (named.side, named.side_from, named.box_from) == ("right", "given", "detected")
    install([])
    assert predictor.predict(PHOTO, boxes="detect") == []
    assert predictor.predict_many([PHOTO, PHOTO], ["detect", None])[1][0].side == "right"
    with pytest.raises(ValueError, match="'whole', found 'find'"):
        predictor.predict(PHOTO, boxes="find")


def test_without_mediapipe_or_its_model_one_is_told_how_to_get_them(monkeypatch, tmp_path):
    detection._finder.cache_clear()
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[detect\]"):
        Predictor(DotFinder(), 64, device="cpu").predict(PHOTO, boxes="detect")
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[detect\].* keypoints"):
        read_keypoints("mediapipe", [PHOTO])
    monkeypatch.setitem(sys.modules, "mediapipe", newer([]))
    monkeypatch.setattr(detection, "MODEL_FILE", tmp_path / "hand_landmarker.task")
    with pytest.raises(FileNotFoundError, match="hand_landmarker.task is not in .*download"):
        detect_mediapipe([PHOTO])
    detection._finder.cache_clear()
