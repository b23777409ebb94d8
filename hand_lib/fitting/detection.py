"""Hands found by MediaPipe where it is installed; nothing else here needs it.

>>> predictor.predict("photo.jpg", boxes="detect")      # one prediction per hand that it finds

MediaPipe 1.2.2, the version of constraints.txt, brings no model file: put its
``hand_landmarker.task`` into ``template/``. Older ones (0.10.14) have theirs inside. Both work.
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


def find_hands(image, model_file=None) -> tuple[list, list]:
    """Hands in a picture.

    image: (H, W, 3) uint8 RGB, not mirrored.   model_file: None: ``template/hand_landmarker.task``.
    returns boxes, a list of (x0, y0, x1, y1) pixels tight around the joints inside the picture, and
    sides, "right" or "left"; both empty when there is no hand.
    raises ModuleNotFoundError without MediaPipe, FileNotFoundError without its model; both say how
    to get it.
    """
    height, width = np.shape(image)[:2]
    boxes, kept = [], []
    for points, side, _ in find_landmarks(image, model_file):
        low = np.clip(points.min(axis=0), -0.5, [width - 0.5, height - 0.5])
        high = np.clip(points.max(axis=0), -0.5, [width - 0.5, height - 0.5])
        if (high - low >= 4).all():
            boxes.append((*map(float, low), *map(float, high)))
            kept.append(side)
    return boxes, kept


def find_landmarks(image, model_file=None) -> list[tuple]:
    """Joints of the hands in a picture, the surest hand first; see ``find_hands``.

    returns for each hand its joints (21, 2) pixels in the FreiHAND order, which may lie outside the
    picture; its side, "right" or "left"; and a confidence from 0 to 1, of the side.
    """
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    found = _finder(str(model_file or MODEL_FILE))(image)
    # MediaPipe counts from the picture's edges, 0 to 1
    hands = [(np.asarray(p, float) * [width, height] - 0.5, *rest) for p, *rest in found]
    return sorted(hands, key=lambda hand: -hand[2])


@functools.lru_cache(maxsize=2)
def _finder(model_file: str):
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
    return _with_tasks(mediapipe, Path(model_file))


def _with_solutions(mediapipe):
    """The older interface, which brings its model; it names sides as a mirror shows them."""
    hands = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=MOST_HANDS, min_detection_confidence=LEAST_SCORE
    )
    unmirrored = {"Left": "right", "Right": "left"}

    def find(image):
        found = hands.process(image)
        if not found.multi_hand_landmarks:
            return []
        named = [hand.classification[0] for hand in found.multi_handedness]
        return [
            ([(p.x, p.y) for p in hand.landmark], unmirrored[name.label], name.score)
            for hand, name in zip(found.multi_hand_landmarks, named, strict=True)
        ]

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
        named = [hand[0] for hand in found.handedness]
        return [
            ([(p.x, p.y) for p in hand], name.category_name.lower(), name.score)
            for hand, name in zip(found.hand_landmarks, named, strict=True)
        ]

    return find
