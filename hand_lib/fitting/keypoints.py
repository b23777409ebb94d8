"""2-D hand keypoints from other people's detectors: OpenPose folders, MediaPipe, COCO-WholeBody.

Every reader returns ``Keypoints``, one row per hand, in the FreiHAND order. What is broken is left
out and named in ``problems``, frames without a hand are named in ``empty``; the rest goes on.

>>> found = read_openpose("openpose_out")            # or detect_mediapipe(Frames("clip.mp4"))
>>> found.of_side("left").points.shape, found.problems, found.empty
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hand_lib.fitting.detection import find_landmarks


@dataclass
class Keypoints:
    """Detected hands, one row each."""

    points: np.ndarray  # (N, 21, 2) px
    confidence: np.ndarray  # (N, 21), 0 where not seen
    frames: np.ndarray  # (N,) int64, index of the frame
    sides: list  # N of "right" / "left"
    names: list  # N file or frame names
    problems: list  # strings: files or entries left out, and why
    empty: list = field(default_factory=list)  # names of frames in which no hand was found

    def __len__(self):
        return len(self.points)

    def of_side(self, side: str) -> "Keypoints":
        """The hands of one side."""
        if side not in ("right", "left"):
            raise ValueError(f"side must be 'right' or 'left', found {side!r}")
        keep = [i for i, found in enumerate(self.sides) if found == side]
        return Keypoints(
            self.points[keep],
            self.confidence[keep],
            self.frames[keep],
            [self.sides[i] for i in keep],
            [self.names[i] for i in keep],
            self.problems,
            self.empty,
        )


class _Collector:
    def __init__(self):
        self.rows, self.problems, self.empty = [], [], []

    def add(self, points, confidence, frame, side, name):
        points, confidence = np.asarray(points, float), np.asarray(confidence, float)
        if not np.isfinite(confidence).all() or (confidence < 0).any():
            self.problems.append(f"{name}: {side} hand has a confidence below 0 or not finite")
        elif not np.isfinite(points[confidence > 0]).all():
            self.problems.append(f"{name}: {side} hand has coordinates that are not finite")
        elif (confidence > 0).any():
            self.rows.append((points, confidence, frame, side, name))

    def add_flat(self, values, frame, side, name):
        """x, y, confidence of 21 joints in a row, as OpenPose and COCO-WholeBody have them."""
        try:
            values = np.array(values, float).reshape(-1)
        except (ValueError, TypeError):
            self.problems.append(f"{name}: {side} hand is not a list of numbers")
            return
        if len(values) != 63:
            self.problems.append(
                f"{name}: {side} hand has {len(values)} numbers, expected 63 (21 joints)"
            )
            return
        hand = values.reshape(21, 3)
        self.add(hand[:, :2], np.minimum(hand[:, 2], 1.0), frame, side, name)

    def finished_frame(self, before: int, name: str):
        """Note a frame in which nothing was added since ``rows`` had length ``before``."""
        if len(self.rows) == before:
            self.empty.append(name)

    def finish(self) -> Keypoints:
        points, confidence, frames, sides, names = (
            zip(*self.rows, strict=True) if self.rows else ((),) * 5
        )
        return Keypoints(
            np.array(points, float).reshape(-1, 21, 2),
            np.array(confidence, float).reshape(-1, 21),
            np.array(frames, np.int64),
            list(sides),
            list(names),
            self.problems,
            self.empty,
        )


def from_arrays(points, confidence=None, side="right", frames=None) -> Keypoints:
    """Keypoints of plain arrays.

    points: (N, 21, 2) px or (N, 21, 3) with confidence last.   confidence: (N, 21).   side: one
    for all, or N of them.   frames: (N,) numbers of the frames, default 0 to N - 1.
    """
    points = np.asarray(points, float)
    if points.ndim != 3 or points.shape[1] != 21 or points.shape[2] not in (2, 3):
        raise ValueError(f"expected points (N, 21, 2) or (N, 21, 3), found {points.shape}")
    if confidence is None:
        confidence = points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2])
    confidence = np.asarray(confidence, float)
    if confidence.shape != points.shape[:2]:
        raise ValueError(f"expected confidence {points.shape[:2]}, found {confidence.shape}")
    sides = [side] * len(points) if isinstance(side, str) else list(side)
    frames = np.arange(len(points)) if frames is None else np.asarray(frames)
    if len(sides) != len(points) or set(sides) - {"right", "left"} or len(frames) != len(points):
        raise ValueError(
            f"expected {len(points)} sides ('right' or 'left') and frames, found {len(sides)} "
            f"({sorted(set(sides))}) and {len(frames)}"
        )
    into = _Collector()
    for i, (hand, weight) in enumerate(zip(points[..., :2], confidence, strict=True)):
        before, name = len(into.rows), f"row {i}"
        into.add(hand, weight, int(frames[i]), sides[i], name)
        into.finished_frame(before, name)
    return into.finish()


def read_openpose(folder) -> Keypoints:
    """A folder of OpenPose's JSON files, one per frame, ``*_keypoints.json`` or any ``*.json``.

    The frame index is the last number in the file's name. All people and both hands are returned.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of OpenPose JSON files")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: no .json files; run OpenPose with --hand --write_json {folder.name}"
        )
    into = _Collector()
    for order, path in enumerate(files):
        digits = re.findall(r"\d+", path.stem)
        frame = int(digits[-1]) if digits else order
        try:
            people = json.loads(path.read_text())["people"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            into.problems.append(f"{path.name}: not OpenPose's JSON ({error!r})")
            continue
        if not isinstance(people, list) or not all(isinstance(p, dict) for p in people):
            into.problems.append(f"{path.name}: not OpenPose's JSON (people is no list of objects)")
            continue
        before = len(into.rows)
        for person in people:
            for side in ("left", "right"):
                values = person.get(f"hand_{side}_keypoints_2d")
                if values:
                    into.add_flat(values, frame, side, path.name)
        into.finished_frame(before, path.name)
    return into.finish()


def from_mediapipe(results, width: int, height: int, mirrored: bool = False) -> Keypoints:
    """MediaPipe's results, one per frame: HandLandmarker's or those of ``solutions.hands``.

    results: objects with ``hand_landmarks`` (lists of 21 with x, y in 0..1) and ``handedness``, or
    ``multi_hand_landmarks`` and ``multi_handedness``; None is a frame without a hand.
    width, height: of the pictures, px.   mirrored: the pictures are selfies, and the sides wanted
    are those of the person. HandLandmarker names sides as the picture shows them, the older
    ``solutions`` as a mirror would.
    """
    into = _Collector()
    for frame, result in enumerate(results):
        name, before = f"frame {frame}", len(into.rows)
        for landmarks, label, score, mirror in _mediapipe_hands(result):
            if len(landmarks) != 21:
                into.problems.append(f"{name}: {len(landmarks)} landmarks, expected 21")
                continue
            side = label.lower() if label else "right"
            if side not in ("left", "right"):
                into.problems.append(f"{name}: handedness {label!r}, expected Left or Right")
                continue
            if mirror != mirrored:
                side = {"left": "right", "right": "left"}[side]
            hand = np.array([(p.x, p.y) for p in landmarks]) * (width, height) - 0.5
            into.add(hand, np.full(21, score), frame, side, name)
        into.finished_frame(before, name)
    return into.finish()


def _mediapipe_hands(result):
    """(landmarks, "Left" or "Right", score, as in a mirror) of each hand of either interface."""
    hands = getattr(result, "hand_landmarks", None) or []
    mirror = not hands
    labels = [group[0] for group in getattr(result, "handedness", None) or []]
    if not hands:
        hands = [h.landmark for h in getattr(result, "multi_hand_landmarks", None) or []]
        groups = getattr(result, "multi_handedness", None) or []
        labels = [group.classification[0] for group in groups]
    for i, landmarks in enumerate(hands):
        label = labels[i] if i < len(labels) else None
        name = getattr(label, "category_name", None) or getattr(label, "label", None)
        yield landmarks, name, float(getattr(label, "score", None) or 1.0), mirror


def detect_mediapipe(frames, model_file=None, hands: int = 2) -> Keypoints:
    """Let MediaPipe find the hands, where it is installed (extra ``detect``).

    frames: ``Frames`` (a video, a folder) or pictures (H, W, 3) uint8 RGB of any sizes.
    model_file: see ``detection.find_hands``.   hands: at most so many per frame, the surest.
    """
    into = _Collector()
    for number in range(len(frames)):
        before, name = len(into.rows), f"frame {number}"
        if hasattr(frames, "name"):
            name = frames.name(number)
        try:
            picture = frames[number]
        except (ValueError, OSError) as error:
            into.problems.append(f"{name}: left out, {error}")
            continue
        for points, side, score in find_landmarks(picture, model_file)[:hands]:
            into.add(points, np.full(21, score), number, side, name)
        into.finished_frame(before, name)
    return into.finish()


def read_coco_wholebody(path) -> Keypoints:
    """COCO-WholeBody annotations: ``lefthand_kpts`` and ``righthand_kpts``, 63 numbers each.

    ``frames`` holds the image ids; hands whose ``*hand_valid`` is false are left out.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such COCO-WholeBody file")
    try:
        data = json.loads(path.read_text())
        annotations = data["annotations"]
        names = {image["id"]: image.get("file_name", "") for image in data.get("images", [])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a COCO-WholeBody file ({error!r})") from None
    into = _Collector()
    if not isinstance(annotations, list):
        raise ValueError(f"{path}: not a COCO-WholeBody file (annotations is no list)")
    seen = set()
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            into.problems.append(f"{path.name}, annotation {number}: not an object")
            continue
        image, before = annotation.get("image_id", number), len(into.rows)
        name = names.get(image) or f"{path.name}, annotation {number}"
        for side in ("left", "right"):
            values = annotation.get(f"{side}hand_kpts")
            if values and annotation.get(f"{side}hand_valid", True):
                into.add_flat(values, image, side, name)
        if len(into.rows) > before:
            seen.add(image)
    into.empty = [name or f"image {image}" for image, name in names.items() if image not in seen]
    return into.finish()


def read_keypoints(place, frames=None) -> Keypoints:
    """Keypoints by what their place looks like.

    place: a folder (OpenPose), .json (COCO-WholeBody), .npy or .npz of (N, 21, 3) with confidence
    last (an .npz may hold ``sides`` and ``frames``), or "mediapipe" to detect in ``frames``.
    """
    if str(place) == "mediapipe":
        if frames is None:
            raise ValueError("to detect with MediaPipe, give the frames")
        return detect_mediapipe(frames)
    path = Path(place)
    if path.is_dir():
        return read_openpose(path)
    if path.suffix == ".json":
        return read_coco_wholebody(path)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(
            f"{path}: expected a folder of OpenPose JSON, COCO-WholeBody .json, .npy, .npz or "
            "'mediapipe'"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of keypoints")
    data = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        return from_arrays(data)
    if "points" not in data:
        raise ValueError(f"{path}: expected an array named points, found {sorted(data)}")
    sides = [str(side) for side in data["sides"]] if "sides" in data else "right"
    given = {name: data[name] for name in ("confidence", "frames") if name in data}
    return from_arrays(data["points"], side=sides, **given)
