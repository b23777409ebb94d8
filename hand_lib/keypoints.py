"""2-D hand keypoints from other people's detectors: OpenPose folders, MediaPipe, COCO-WholeBody.

Every reader returns ``Keypoints``, one row per hand, in the FreiHAND order. What is broken is left
out and named in ``problems``; the rest goes on.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Keypoints:
    """Detected hands, one row each."""

    points: np.ndarray  # (N, 21, 2) px
    confidence: np.ndarray  # (N, 21), 0 where not seen
    frames: np.ndarray  # (N,) int64, index of the frame
    sides: list  # N of "right" / "left"
    names: list  # N file or frame names
    problems: list  # strings: files or entries left out, and why

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
        )


class _Collector:
    def __init__(self):
        self.rows, self.problems = [], []

    def add(self, points, confidence, frame, side, name):
        points, confidence = np.asarray(points, float), np.asarray(confidence, float)
        if not np.isfinite(points[confidence > 0]).all():
            self.problems.append(f"{name}: {side} hand has coordinates that are not finite")
        elif (confidence > 0).any():
            self.rows.append((points, confidence, frame, side, name))

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
        )


def from_arrays(points, confidence=None, side="right") -> Keypoints:
    """Keypoints of plain arrays.   points: (N, 21, 2) px or (N, 21, 3) with confidence last."""
    points = np.asarray(points, float)
    if points.ndim != 3 or points.shape[1] != 21 or points.shape[2] not in (2, 3):
        raise ValueError(f"expected points (N, 21, 2) or (N, 21, 3), found {points.shape}")
    if confidence is None:
        confidence = points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2])
    confidence = np.asarray(confidence, float)
    if confidence.shape != points.shape[:2]:
        raise ValueError(f"expected confidence {points.shape[:2]}, found {confidence.shape}")
    into = _Collector()
    for i, (hand, weight) in enumerate(zip(points[..., :2], confidence, strict=True)):
        into.add(hand, weight, i, side, f"row {i}")
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
        except (ValueError, KeyError, TypeError) as error:
            into.problems.append(f"{path.name}: not OpenPose's JSON ({error!r})")
            continue
        for person in people:
            for side in ("left", "right"):
                values = person.get(f"hand_{side}_keypoints_2d") or []
                if not values:
                    continue
                if len(values) != 63:
                    into.problems.append(
                        f"{path.name}: {side} hand has {len(values)} numbers, expected 63"
                    )
                    continue
                hand = np.array(values, float).reshape(21, 3)
                into.add(hand[:, :2], hand[:, 2], frame, side, path.name)
    return into.finish()


def from_mediapipe(results, width: int, height: int, mirrored: bool = False) -> Keypoints:
    """MediaPipe HandLandmarker results, one per frame.

    results: objects with ``hand_landmarks`` (lists of 21 with x, y in 0..1) and ``handedness``.
    width, height: of the pictures, px.   mirrored: the pictures are selfies, as MediaPipe assumes;
    otherwise its left is the picture's right hand, and is renamed here.
    """
    into = _Collector()
    for frame, result in enumerate(results):
        hands = getattr(result, "hand_landmarks", None) or []
        labels = getattr(result, "handedness", None) or []
        for i, landmarks in enumerate(hands):
            if len(landmarks) != 21:
                into.problems.append(f"frame {frame}: {len(landmarks)} landmarks, expected 21")
                continue
            label = labels[i][0] if i < len(labels) else None
            side = (getattr(label, "category_name", None) or "Right").lower()
            if not mirrored:
                side = {"left": "right", "right": "left"}[side]
            score = float(getattr(label, "score", None) or 1.0)
            hand = np.array([(p.x, p.y) for p in landmarks]) * (width, height) - 0.5
            into.add(hand, np.full(21, score), frame, side, f"frame {frame}")
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
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a COCO-WholeBody file ({error!r})") from None
    into = _Collector()
    for number, annotation in enumerate(annotations):
        image = annotation.get("image_id", number)
        name = names.get(image) or f"{path.name}, annotation {number}"
        for side in ("left", "right"):
            values = annotation.get(f"{side}hand_kpts") or []
            if not values or not annotation.get(f"{side}hand_valid", True):
                continue
            if len(values) != 63:
                into.problems.append(f"{name}: {side} hand has {len(values)} numbers, expected 63")
                continue
            hand = np.array(values, float).reshape(21, 3)
            into.add(hand[:, :2], np.minimum(hand[:, 2], 1.0), image, side, name)
    return into.finish()
