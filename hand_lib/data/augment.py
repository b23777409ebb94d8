"""Random changes of a hand image that keep its labels exact: one affine map, then colour.

Every sample has a generator of its own, seeded by (seed, epoch, index), so what happens to it
depends neither on its neighbours in the batch nor on how many workers load it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from hand_lib.render.camera import KNUCKLES, apply_affine, pixels_to_crop, upright_square

COLUMNS = 36
"""Random numbers that one sample may use: 12 for map and colours, 14 to degrade, the rest for
``tight_affines``."""


@dataclass(frozen=True)
class Augmentation:
    """How strongly each thing may change; zeros change nothing.

    The order of events: rotate, scale, shift (all in the one map), gain and contrast, blur,
    occluder, JPEG.
    """

    rotation_deg: float = 0.0  # standard deviation of the turn in the image plane; 180 at most
    upright: float = 0.0  # probability of no turn at all
    scale: float = 0.0  # standard deviation of the crop's side about 1
    scale_limits: tuple[float, float] = (0.5, 2.0)  # the factor is clipped to these
    shift: float = 0.0  # largest move of the crop, as a share of its side
    gain: float = 0.0  # each channel is multiplied by U(1 - gain, 1 + gain)
    brightness: float = 0.0  # added to all channels: U(-b, b) of the full range
    contrast: float = 0.0  # distance from mid-grey is multiplied by U(1 - c, 1 + c)
    blur: float = 0.0  # probability of a Gaussian blur
    blur_share: float = 0.01  # its largest standard deviation, as a share of the crop's side
    jpeg: float = 0.0  # probability of a JPEG compression
    jpeg_quality: tuple[int, int] = (25, 80)
    occluder: float = 0.0  # probability of an ellipse or a box in front of the hand
    occluder_share: tuple[float, float] = (0.1, 0.4)  # its sides, as shares of the crop's


AUGMENTATIONS = {
    "none": None,
    "default": Augmentation(
        rotation_deg=45, upright=0.2, scale=0.15, scale_limits=(0.7, 1.4), shift=0.08, gain=0.2,
        brightness=0.12, contrast=0.25, blur=0.15, jpeg=0.1, occluder=0.15,
    ),
    "metro": Augmentation(
        rotation_deg=90, upright=0.6, scale=0.25, scale_limits=(0.75, 1.25), gain=0.4
    ),
}  # fmt: skip
"""Named distributions. ``metro`` is MeshTransformer's hand_mesh_tsv.py: noise 0.4, rotation 90
degrees, scale 0.25, rotation off with probability 0.6; no shift, no flip."""


def augmentation(choice) -> Augmentation | None:
    """An ``Augmentation`` from a name in ``AUGMENTATIONS``, an ``Augmentation`` or None."""
    if choice is None or isinstance(choice, Augmentation):
        return choice
    if choice not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        raise ValueError(f"unknown augmentation {choice!r}; known: {known}, or an Augmentation")
    return AUGMENTATIONS[choice]


def uniforms(seed: int, epochs, indices) -> np.ndarray:
    """(B, COLUMNS) float64 in [0, 1): the same for the same (seed, epoch, index), always.

    epochs: (B,) or one number for all.   indices: (B,).
    """
    epochs = np.broadcast_to(epochs, len(indices)).tolist()
    keys = zip(epochs, np.asarray(indices).tolist(), strict=True)
    return np.stack([np.random.default_rng((seed, *key)).random(COLUMNS) for key in keys])


def _normals(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two columns of uniforms -> one of standard normals (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)


class Changes(NamedTuple):
    """What is done to each sample of a batch."""

    rotation: np.ndarray  # (B,) radians, clockwise on the screen
    scale: np.ndarray  # (B,) factor of the crop's side: above 1 shows the hand smaller
    shift: np.ndarray  # (B, 2) move of the crop's centre, in sides
    gain: np.ndarray  # (B, 3) factor of each channel
    offset: np.ndarray  # (B,) grey levels added afterwards


def draw_changes(config: Augmentation | None, random: np.ndarray) -> Changes:
    """What happens to a batch of samples; ``config=None`` draws no change.

    random: (B, COLUMNS) uniforms, as ``uniforms`` draws them.
    """
    if config is None:
        config, random = Augmentation(), np.zeros_like(random)
    u = random.T
    rotation = np.clip(config.rotation_deg * _normals(u[0], u[1]), -180, 180)
    rotation[u[2] < config.upright] = 0.0
    scale = np.clip(1 + config.scale * _normals(u[3], u[4]), *config.scale_limits)
    spread = 2 * u[5:12] - 1
    contrast = 1 + config.contrast * spread[2]
    gain = (1 + config.gain * spread[3:6].T) * contrast[:, None]
    offset = 255 * config.brightness * spread[6] + 127.5 * (1 - contrast)
    return Changes(np.deg2rad(rotation), scale, config.shift * spread[:2].T, gain, offset)


def colour_tables(changes: Changes) -> np.ndarray:
    """(B, 256, 3) uint8: what each grey level of each channel becomes."""
    gain, offset = (x.astype(np.float32) for x in (changes.gain, changes.offset))
    tables = np.arange(256, dtype=np.float32)[:, None] * gain[:, None]
    return np.clip(tables + (offset[:, None, None] + np.float32(0.5)), 0, 255).astype(np.uint8)


def degrade(image: np.ndarray, config: Augmentation, random: np.ndarray) -> np.ndarray:
    """Blur, occluder and JPEG on one crop.

    image: (S, S, 3) uint8 RGB, may be changed in place.   random: (COLUMNS,) uniforms of this
    sample, of which those from 12 on decide.
    """
    size, random = image.shape[0], random[12:]
    if random[0] < config.blur:
        sigma = max(0.3, random[1] * config.blur_share * size)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if random[2] < config.occluder:
        low, high = config.occluder_share
        axes = (low + (high - low) * random[3:5]) * size / 2
        center, angle = random[5:7] * size, float(180 * random[7])
        colour = (255 * random[8:11]).tolist()
        box = cv2.RotatedRect(center.tolist(), (2 * axes).tolist(), angle)
        if random[11] < 0.5:
            cv2.ellipse(image, box, colour, cv2.FILLED)
        else:
            cv2.fillPoly(image, [np.rint(box.points()).astype(np.int32)], colour)
    if random[12] < config.jpeg:
        low, high = config.jpeg_quality
        flags = [cv2.IMWRITE_JPEG_QUALITY, int(low + (high - low + 1) * random[13])]
        data = cv2.imencode(".jpg", image, flags)[1]
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)  # in and out alike, so channels keep places
    return image


class TightCrop(NamedTuple):
    """Some training crops are as second crops are: turned upright by the joints, with noise."""

    fraction: float = 0.65  # of the crops that are tight; the rest are first ones
    turn_deg: float = 18.0  # standard deviation about upright
    scale: float = 0.16  # of the natural logarithm of the side
    shift: float = 0.08  # of the centre, in sides


def tight_affines(affines, joints_2d, valid_2d, random, size: int, config: TightCrop):
    """Affine maps of crops, some replaced by those of tight ones around the labelled joints.

    affines: (B, 2, 3) picture pixels -> crop pixels.   joints_2d: (B, 21, 2) pixels of the
    picture; valid_2d: (B, 21).   random: (B, COLUMNS) uniforms.   size: of the crops.
    A hand whose wrist, knuckles or half of the joints are not known keeps its first crop.
    """
    valid, random = np.asarray(valid_2d), random[:, 26:]
    known = valid[:, [0, *KNUCKLES]].all(1) & (valid.sum(1) >= 11)
    chosen = np.flatnonzero(known & (random[:, 0] < config.fraction))
    if len(chosen) == 0:
        return affines
    maps, uniform = affines[chosen], random[chosen]
    joints = pixels_to_crop(apply_affine(maps, joints_2d[chosen]), size)
    weight, normal = valid[chosen][..., None], _normals(uniform[:, 1:5], uniform[:, 5:9])
    middle = (joints * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    turned = np.deg2rad(config.turn_deg) * normal[:, 0]
    turn, centre, half = upright_square(np.where(weight, joints, middle), turned=turned)
    half = half * np.exp(config.scale * normal[:, 1])
    centre = centre + 2 * half[:, None] * config.shift * normal[:, 2:4]
    # crop pixel x -> u = (2 x + 1) / size - 1 -> turn (u - centre) / half -> tight pixel
    linear = turn / half[:, None, None]
    start = np.full(2, 1 / size - 1) - centre
    offset = ((linear @ start[..., None])[..., 0] + 1) * size / 2 - 0.5
    tight = affines.copy()
    tight[chosen, :, :2] = linear @ maps[:, :, :2]
    tight[chosen, :, 2] = (linear @ maps[:, :, 2:])[..., 0] + offset
    return tight
