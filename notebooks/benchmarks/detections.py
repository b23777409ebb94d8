"""Key points as detectors give them, noisy and sometimes wrong, of hands whose truth is known.

Pictures and a film are drawn by the project; only their 2-D key points are handed on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_lib.data.synthetic.hands import CLEAR, MovingHand, SyntheticHands
from hand_lib.files import write_json, write_text
from hand_lib.fitting.fit import hand_size
from hand_lib.fitting.keypoints import Keypoints, from_arrays
from hand_lib.hand.joints import FINGERS
from hand_lib.render.camera import crop_to_pixels

NOISE_PX, MISSING = 3.0, 0.15
"""Deviation per coordinate in pictures of 224 px, and the fraction of joints not seen."""

CORRUPTIONS = ("swapped", "another hand", "shuffled", "shifted")
"""What detectors do wrong; see ``corrupt``."""

FAULTS = {
    5: "jump", 8: "both sides", 11: "swapped", 14: "no hand", 16: "not JSON", 18: "20 joints",
    20: "low confidence",
}  # fmt: skip
"""What goes wrong in which frame of the film."""


def spoil(points, rng, noise_px: float = NOISE_PX, missing: float = MISSING):
    """Keypoints as a detector gives them: noisy, some not seen.

    points: (B, 21, 2) px.   returns points with NaN where not seen, confidence (B, 21).
    """
    noisy = points + rng.normal(0, noise_px, points.shape)
    seen = rng.random(points.shape[:2]) >= missing
    return np.where(seen[..., None], noisy, np.nan), seen.astype(float)


def corrupt(points, rng, fraction: float = 0.2):
    """Spoil some detections the way detectors fail.

    points: (B, 21, 2) px.   fraction: of the hands.
    returns points, boxes of the detections (B, 4) px, and kind (B,) of ``CORRUPTIONS`` or "":
    swapped: two fingers take each other's keypoints; another hand: the keypoints are those of a
    hand elsewhere in the picture; shuffled: joints in random order; shifted: a third of the joints
    lies beside the hand by a third of its size.
    """
    low, high = points.min(1), points.max(1)
    size = hand_size(points, np.ones(points.shape[:2]))
    margin = 0.2 * size[:, None]
    boxes, found = np.concatenate([low - margin, high + margin], 1), points.copy()
    kind = np.full(len(points), "", object)
    names = list(FINGERS)
    for n, i in enumerate(rng.permutation(len(points))[: round(fraction * len(points))]):
        kind[i] = CORRUPTIONS[n % 4]
        if kind[i] == "swapped":
            one, two = (FINGERS[names[k]] for k in rng.permutation(5)[:2])
            found[i, list(one)], found[i, list(two)] = points[i, list(two)], points[i, list(one)]
        elif kind[i] == "another hand":
            direction = _unit(rng)
            away = rng.uniform(0.9, 1.5) * size[i] * direction
            found[i] = points[(i + 7) % len(points)] + away
        elif kind[i] == "shuffled":
            found[i] = rng.permutation(points[i])
        else:
            found[i, rng.permutation(21)[:7]] += 0.33 * size[i] * _unit(rng)
    return found, boxes, kind


def _unit(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


@dataclass(frozen=True)
class Scene:
    """Pictures, their true hands, and what a detector says about them."""

    images: np.ndarray  # (N, S, S, 3) uint8 RGB
    intrinsics: np.ndarray  # (N, 3, 3) px
    joints: np.ndarray  # (N, 21, 3) metres, camera axes: the truth
    joints_2d: np.ndarray  # (N, 21, 2) px: the truth
    keypoints: Keypoints  # one row per picture, spoilt
    boxes: np.ndarray  # (N, 4) px of the detections
    kind: np.ndarray  # (N,) what was done to the detection, "" for nothing but noise


def _drawn(hands, mirrored):
    """Pictures and truth of all of a set, those of ``mirrored`` (N,) bool as left hands."""
    batch = hands.fetch_batch(np.arange(len(hands)))
    size = hands.size
    images = np.ascontiguousarray(batch["image"].transpose(0, 2, 3, 1))
    joints = (batch["joints"] + batch["root"][:, None]).astype(float)
    flat = crop_to_pixels(batch["joints_2d"].astype(float), size)
    cameras = batch["intrinsics"].astype(float)
    images[mirrored] = images[mirrored][:, :, ::-1]
    joints[mirrored] *= (-1, 1, 1)
    flat[mirrored, :, 0] = size - 1 - flat[mirrored, :, 0]
    cameras[mirrored, 0, 2] = size - 1 - cameras[mirrored, 0, 2]
    return images, cameras, joints, flat


def make_pictures(count: int = 96, size: int = 224, seed: int = 9, bad: float = 0.2) -> Scene:
    """Single pictures, every fourth a left hand; a share of the detections is corrupt."""
    rng = np.random.default_rng(seed)
    mirrored = np.arange(count) % 4 == 3
    hands = SyntheticHands(size, seed, count, **CLEAR, motion_blur=0.0)
    images, cameras, joints, flat = _drawn(hands, mirrored)
    spoilt, boxes, kind = corrupt(flat, rng, bad)
    points, confidence = spoil(spoilt, rng, NOISE_PX * size / 224, MISSING)
    sides = ["left" if left else "right" for left in mirrored]
    found = from_arrays(points, confidence, sides)
    found.names = [f"picture {n}" for n in range(count)]
    return Scene(images, cameras, joints, flat, found, boxes, kind)


def make_film(folder, count: int = 24, size: int = 256, seed: int = 7) -> Scene:
    """Film a hand and detect it badly: OpenPose's files in ``folder``.

    The detections are noisy, 15 % of the joints are missing, and ``FAULTS`` happen. returns the
    pictures and the truth; its ``keypoints`` are those of the files before the faults.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    hands = MovingHand(size, seed, count, fps=24.0, speed=0.5, motion_blur=0.0)
    images, cameras, joints, flat = _drawn(hands, np.zeros(count, bool))
    points, confidence = spoil(flat, rng, NOISE_PX * size / 224, MISSING)
    confidence *= rng.uniform(0.6, 1.0, confidence.shape)
    found = from_arrays(points, confidence)
    folder.mkdir(parents=True, exist_ok=True)
    kind = np.array([FAULTS.get(n, "") for n in range(count)], object)
    for n in range(count):
        right = np.concatenate([found.points[n], found.confidence[n][:, None]], 1)
        _write_openpose(folder / f"clip_{n:012d}_keypoints.json", right, kind[n])
    low, high = flat.min(1), flat.max(1)
    return Scene(images, cameras, joints, flat, found, np.concatenate([low, high], 1), kind)


def _write_openpose(path, right, fault: str) -> None:
    """OpenPose's JSON of a frame, with what goes wrong in it."""
    right, left = right.copy(), np.zeros((21, 3))
    if fault == "not JSON":
        return write_text(path, '{"version": 1.3, "people": [{"hand_left_key')
    if fault == "jump":
        right[:, :2] += hand_size(right[None, :, :2], right[None, :, 2]) * (0.55, -0.35)
    elif fault == "both sides":
        left = right * (1, 1, 0.7)
    elif fault == "swapped":
        one, two = list(FINGERS["index"]), list(FINGERS["little"])
        right[one], right[two] = right[two], right[one]
    elif fault == "no hand":
        right[:] = 0
    elif fault == "20 joints":
        right = right[:20]
    elif fault == "low confidence":
        right[:, 2] *= 0.15
    person = {
        "hand_left_keypoints_2d": np.round(left, 3).ravel().tolist(),
        "hand_right_keypoints_2d": np.round(right, 3).ravel().tolist(),
    }
    write_json(path, {"version": 1.3, "people": [person]})
