"""A short film and pictures with keypoints as detectors give them, to try weak supervision on.

Everything is drawn by the project, so the truth is known; only 2-D keypoints are handed on.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_lib.data.synthetic.draw import rotations_from, vectors_from
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.fitting.keypoints import Keypoints, from_arrays
from hand_lib.fitting.trials import MISSING, NOISE_PX, corrupt, spoil
from hand_lib.hand.joints import FINGERS
from hand_lib.hand.poses import gesture
from hand_lib.inference.frames import write_video
from hand_lib.render.camera import crop_to_pixels

CLEAR = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0,
         "motion_blur": 0.0, "watch": 0.0}  # fmt: skip
"""Knobs of pictures with one whole hand."""


class SyntheticTrack(SyntheticHands):
    """One hand through time: it closes, opens and turns while the camera follows it.

    size, seed: as in ``SyntheticHands``.   count: frames.
    """

    def __init__(self, size: int = 256, seed: int = 7, count: int = 24):
        super().__init__(size, seed, count, framing=(1.5, 1.5), **CLEAR)

    def parameters(self, indices):
        """The first picture's numbers, its pose and place moved on; see ``PARAMETERS``."""
        indices = self._check(indices)
        found = np.repeat(super().parameters([0]), len(indices))
        share = indices / max(self.count - 1, 1)
        swing = ((1 - np.cos(2 * np.pi * share)) / 2)[:, None, None]  # there and back
        pose = (1 - swing) * gesture("spread") + swing * gesture("grasp")
        found["pose"][:, 1:] = pose[:, 1:]
        wave = np.sin(2 * np.pi * share)
        turn = np.stack([0.6 * (swing[:, 0, 0] - 0.5), 0.8 * (share - 0.5), 0.3 * wave], 1)
        first = rotations_from(found["pose"][:, 0].astype(float))
        found["pose"][:, 0] = vectors_from(rotations_from(turn) @ first)
        found["shift"][:, 0], found["shift"][:, 1] = 0.1 * wave, 0.05 * np.cos(2 * np.pi * share)
        found["index"] = indices
        return found


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
    images, cameras, joints, flat = _drawn(SyntheticHands(size, seed, count, **CLEAR), mirrored)
    spoilt, boxes, kind = corrupt(flat, rng, bad)
    points, confidence = spoil(spoilt, rng, NOISE_PX * size / 224, MISSING)
    sides = ["left" if left else "right" for left in mirrored]
    found = from_arrays(np.nan_to_num(points), confidence, sides)
    found.names = [f"picture {n}" for n in range(count)]
    return Scene(images, cameras, joints, flat, found, boxes, kind)


FAULTS = {
    5: "jump", 8: "both sides", 11: "swapped", 14: "no hand", 16: "not JSON", 18: "20 joints",
    20: "low confidence",
}  # fmt: skip
"""What goes wrong in which frame of the film."""


def write_film(folder, count: int = 24, size: int = 256, seed: int = 7) -> Scene:
    """Film a hand and detect it badly: ``<folder>/clip.mp4`` and ``<folder>/openpose/*.json``.

    The detections are noisy, 15 % of the joints are missing, and ``FAULTS`` happen. returns the
    truth; its ``keypoints`` are those of the files before the faults.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    hands = SyntheticTrack(size, seed, count)
    images, cameras, joints, flat = _drawn(hands, np.zeros(count, bool))
    write_video(folder / "clip.mp4", images)
    points, confidence = spoil(flat, rng, NOISE_PX * size / 224, MISSING)
    confidence *= rng.uniform(0.6, 1.0, confidence.shape)
    scene = from_arrays(np.nan_to_num(points), confidence)
    (folder / "openpose").mkdir(parents=True, exist_ok=True)
    kind = np.array([FAULTS.get(n, "") for n in range(count)], object)
    for n in range(count):
        right = np.concatenate([scene.points[n], scene.confidence[n][:, None]], 1)
        text = _openpose(right, kind[n], size)
        (folder / "openpose" / f"clip_{n:012d}_keypoints.json").write_text(text)
    low, high = flat.min(1), flat.max(1)
    return Scene(images, cameras, joints, flat, scene, np.concatenate([low, high], 1), kind)


def _openpose(right, fault: str, size: int) -> str:
    """OpenPose's JSON of a frame, with what goes wrong in it."""
    right, left = right.copy(), np.zeros((21, 3))
    if fault == "not JSON":
        return '{"version": 1.3, "people": [{"hand_left_key'
    if fault == "jump":
        right[:, :2] += (0.45 * size, -0.3 * size)
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
    return json.dumps({"version": 1.3, "people": [person]})
