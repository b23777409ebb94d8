"""What loading costs: our crops against METRO's steps, side by side in one process.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio, milliseconds an image on one core.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.stopwatch import few_threads, milliseconds, row
from hand_lib.data.crops import HandCrops, InMemoryDataset
from hand_lib.data.freihand import FreiHand, encode_jpeg, write_freihand
from hand_lib.data.sample import HandSample

SIZE = 224
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def freihand_like(folder, count: int = 64, seed: int = 0) -> Path:
    """A folder in FreiHAND's layout: pictures with the detail and file size of photographs.

    The pictures are noise whose spectrum falls like that of photographs, about 16 KB a JPEG.
    """
    rng = np.random.default_rng(seed)
    intrinsics = np.array([[480.0, 0, 112], [0, 480, 112], [0, 0, 1]])

    def sample(index):
        image = np.zeros((SIZE, SIZE, 3), np.float32)
        for octave in range(3, 8):
            grain = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
            image += cv2.resize(grain, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) / 2**octave
        image = np.clip(image * 400 + 110, 0, 255).astype(np.uint8)
        joints = rng.normal(size=(21, 3)) * 0.03
        joints[0] = 0
        return HandSample(
            image, joints=joints, vertices=rng.normal(size=(778, 3)) * 0.03, root=(0, 0, 0.7),
            intrinsics=intrinsics, pose=np.zeros(48), betas=np.zeros(10), index=index,
        )  # fmt: skip

    return write_freihand(folder, (sample(index) for index in range(count)), quality=85)


def _transform_point(point, center, side, rotation_deg):
    """Map of one 1-based point into the crop, cut to whole pixels, as METRO has it."""
    matrix = np.eye(3)
    matrix[0, 0] = matrix[1, 1] = SIZE / side
    matrix[:2, 2] = SIZE * (0.5 - np.asarray(center) / side)
    if rotation_deg:
        angle = -np.deg2rad(rotation_deg)
        turn, there, back = np.eye(3), np.eye(3), np.eye(3)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        there[:2, 2], back[:2, 2] = -SIZE / 2, SIZE / 2
        matrix = back @ turn @ there @ matrix
    return (matrix @ np.array([point[0] - 1, point[1] - 1, 1.0]))[:2].astype(int) + 1


def metro_item(data: bytes, joints_2d, joints, rng, normalise=True):
    """One training item by METRO's steps: decode, pad, rotate, cut back, resize, gain, labels.

    data: JPEG bytes.   joints_2d: (21, 2) pixels.   joints: (21, 3).   normalise: to float and by
    ImageNet's mean and deviation, as its loader does.
    returns image (3, 224, 224), joints_2d (21, 2) crop units, joints (21, 3).
    """
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
                         cv2.COLOR_BGR2RGB)  # fmt: skip
    gain = rng.uniform(0.6, 1.4, 3)
    scale = np.clip(rng.normal(1, 0.25), 0.75, 1.25)
    rotation = 0.0 if rng.uniform() < 0.6 else np.clip(rng.normal() * 90, -180, 180)
    center, side = (112.0, 112.0), 200 * 0.9 * scale

    pad = int(np.hypot(side, side) / 2 - side / 2) if rotation else 0
    low = np.array([round(112 - side / 2)] * 2) - pad
    high = low + round(side) + 2 * pad
    window = np.zeros((high[1] - low[1], high[0] - low[0], 3))
    x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(SIZE, high[0]), min(SIZE, high[1])
    window[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = image[y0:y1, x0:x1]
    if rotation:
        middle = ((window.shape[1] - 1) / 2, (window.shape[0] - 1) / 2)
        turn = cv2.getRotationMatrix2D(middle, rotation, 1.0)
        window = cv2.warpAffine(window, turn, window.shape[1::-1])
        window = window[pad:-pad, pad:-pad] if pad else window
    window = cv2.resize(window, (SIZE, SIZE))
    for channel in range(3):
        lit = window[:, :, channel] * gain[channel]
        window[:, :, channel] = np.minimum(255, np.maximum(0, lit))

    moved = np.array([_transform_point(p + 1, center, side, rotation) for p in joints_2d])
    angle = -np.deg2rad(rotation)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = np.transpose(window.astype(np.float32), (2, 0, 1))
    if normalise:
        image = (image / 255 - _MEAN[:, None, None]) / _STD[:, None, None]
    return image, 2 * moved / SIZE - 1, joints @ turn.T


def rows(repeats: int = 5, count: int = 64) -> list[dict]:
    """Measure; one row a question.   repeats: the median of so many is taken.

    count: pictures made for it. OpenCV is held to one thread while it runs.
    """
    with few_threads(), tempfile.TemporaryDirectory() as folder:
        return _measure(FreiHand(freihand_like(folder, count)), repeats)


def _measure(hands: FreiHand, repeats: int) -> list[dict]:
    indices, table = np.arange(len(hands)), []
    samples = list(hands)

    def ours_at(crops, batch=32):
        for at in range(0, len(indices), batch):
            crops.fetch_batch(indices[at : at + batch], 1)

    def theirs_with(normalise):
        rng = np.random.default_rng(0)
        for index, sample in enumerate(samples):
            metro_item(hands.jpeg(index), sample.joints_2d, sample.joints, rng, normalise)

    def add(what, ours, theirs=None):
        works = [ours] if theirs is None else [ours, theirs]
        table.append(row(what, *(ms / len(indices) for ms in milliseconds(works, repeats))))

    metro = HandCrops(hands, SIZE, "metro")
    add("decode, crop, augment 224 px; METRO's distribution, uint8 against its floats",
        lambda: ours_at(metro), lambda: theirs_with(True))  # fmt: skip
    add("the same, METRO's steps without its normalisation",
        lambda: ours_at(metro), lambda: theirs_with(False))  # fmt: skip
    add("decode, crop, augment 224 px; our distribution",
        lambda: ours_at(HandCrops(hands, SIZE, "default")))  # fmt: skip
    add("decode at reduced size, crop 64 px, METRO's distribution",
        lambda: ours_at(HandCrops(hands, 64, "metro")), lambda: theirs_with(True))  # fmt: skip
    for side in (64, 128):
        crops = HandCrops(InMemoryDataset(hands, side), side, "default")
        add(f"from memory at {side} px, our distribution", lambda crops=crops: ours_at(crops))
    picture = samples[0].image
    add("encode one 224 px JPEG", lambda: [encode_jpeg(picture) for _ in indices])
    return table
