"""Random changes of a hand image that keep its labels exact: one affine map, then colour.

Every random number is a hash of (seed, epoch, index, position), so what happens to a sample depends
neither on its neighbours in the batch nor on how many workers load it.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

COLUMNS = 40
"""Random numbers that one sample may use."""


@dataclass(frozen=True)
class Augmentation:
    """How strongly each thing may change; zeros change nothing.

    The order of events: rotate, scale, shift (all in the one map), gain and contrast, blur,
    occluder, JPEG.
    """

    rotation_deg: float = 0.0  # standard deviation of the turn in the image plane
    rotation_limit_deg: float = 180.0  # the turn is clipped to this
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


def uniforms(seed: int, epochs, indices, columns: int = COLUMNS) -> np.ndarray:
    """(B, columns) float64 in [0, 1): the same for the same (seed, epoch, index, column), always.

    epochs, indices: (B,) or scalars.   SplitMix64 (Steele, Lea and Flood 2014) over a counter.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(seed, dtype=np.int64).astype(np.uint64) + _STEP)
        state = _mix(state ^ (np.asarray(epochs).astype(np.uint64) + np.uint64(1)) * _STEP)
        state = _mix(state ^ (np.asarray(indices).astype(np.uint64) + np.uint64(1)) * _STEP)
        counter = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
        words = _mix(np.atleast_1d(state)[:, None] + counter)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _normals(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two columns of uniforms -> one of standard normals (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)


@dataclass(frozen=True)
class Changes:
    """What is done to each sample of a batch."""

    rotation: np.ndarray  # (B,) radians, clockwise on the screen
    scale: np.ndarray  # (B,) factor of the crop's side: above 1 shows the hand smaller
    shift: np.ndarray  # (B, 2) move of the crop's centre, in sides
    gain: np.ndarray  # (B, 3) factor of each channel
    offset: np.ndarray  # (B,) grey levels added afterwards
    random: np.ndarray  # (B, columns) uniforms left for blur, occluder and JPEG

    @property
    def colours_change(self) -> bool:
        return bool((self.gain != 1).any() or (self.offset != 0).any())


def draw_changes(config: Augmentation | None, seed: int, epochs, indices) -> Changes:
    """Draw what happens to a batch of samples; ``config=None`` draws no change.

    epochs: (B,) or scalar, the visit's number.   indices: (B,) the samples' numbers.
    """
    count = len(indices)
    if config is None:
        config = Augmentation()
        random = np.ones((count, COLUMNS))
    else:
        random = uniforms(seed, epochs, indices)
    u = random.T
    limit = config.rotation_limit_deg
    rotation = np.clip(config.rotation_deg * _normals(u[0] % 1, u[1]), -limit, limit)
    rotation[u[2] < config.upright] = 0.0
    scale = np.clip(1 + config.scale * _normals(u[3] % 1, u[4]), *config.scale_limits)
    spread = 2 * u[5:12] - 1
    contrast = 1 + config.contrast * spread[2]
    gain = (1 + config.gain * spread[3:6].T) * contrast[:, None]
    offset = 255 * config.brightness * spread[6] + 127.5 * (1 - contrast)
    return Changes(
        rotation=np.deg2rad(rotation), scale=scale, shift=config.shift * spread[:2].T,
        gain=gain, offset=offset, random=random[:, 12:],
    )  # fmt: skip


def colour_tables(changes: Changes) -> np.ndarray:
    """(B, 256, 3) uint8: what each grey level of each channel becomes."""
    levels = np.arange(256, dtype=np.float32)[None, :, None]
    tables = levels * changes.gain[:, None].astype(np.float32)
    tables += changes.offset[:, None, None].astype(np.float32) + np.float32(0.5)
    np.clip(tables, 0, 255, out=tables)
    return tables.astype(np.uint8)


def degrade(image: np.ndarray, config: Augmentation, random: np.ndarray) -> np.ndarray:
    """Blur, occluder and JPEG on one crop.

    image: (S, S, 3) uint8 RGB, may be changed in place.   random: uniforms of this sample.
    """
    size = image.shape[0]
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
        quality = int(low + (high - low + 1) * random[13])
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)  # in and out alike, so channels keep places
    return image


def degrades(config: Augmentation | None) -> bool:
    """Whether ``degrade`` could do anything."""
    return config is not None and max(config.blur, config.occluder, config.jpeg) > 0


def changed(config: Augmentation) -> list[str]:
    """Names of the settings that differ from no change, for a caption."""
    plain = Augmentation()
    return [f.name for f in fields(config) if getattr(config, f.name) != getattr(plain, f.name)]
