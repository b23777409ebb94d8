"""One labelled hand picture, and the base class of data sets of them.

A reader of your own takes 30 lines: derive from ``HandDataset``, give ``__len__`` and ``sample``
(``data/README.md`` has a whole one). Crops, training and viewers then take it as any other.
"""

import functools
from dataclasses import dataclass

import numpy as np

from hand_lib.files import SampleError
from hand_lib.render.images import REDUCTIONS, decode_picture, picture_size

_SHAPES = {"vertices": (None, 3), "vertices_px": (None, 3), "joints": (21, 3), "root": (3,)}
_SHAPES |= {"joints_2d": (21, 2), "intrinsics": (3, 3), "pose": (48,), "betas": (10,)}


@dataclass(frozen=True)
class HandSample:
    """A picture of one hand with what is known of it; what is not known is ``None``.

    Arrays of any number type are taken. raises ValueError that names data set, split, index and
    field where a shape or range is wrong or a number is not finite.

    >>> HandSample(np.zeros((8, 8, 3), np.uint8), dataset="mine", index=3).name
    'mine/-[3]'
    """

    image: np.ndarray  # (H, W, 3) uint8, RGB
    vertices: np.ndarray | None = None  # (V, 3) float32 metres, camera axes, wrist at the origin
    joints: np.ndarray | None = None  # (21, 3) float32 metres, the same frame
    root: np.ndarray | None = None  # (3,) float32 metres, the wrist in the camera frame
    joints_2d: np.ndarray | None = None  # (21, 2) float32 pixels of this image
    vertices_px: np.ndarray | None = None  # (V, 3) pixels of this image, depth on the same scale
    valid_2d: np.ndarray | None = None  # (21,) bool, which of joints_2d are known; all by default
    intrinsics: np.ndarray | None = None  # (3, 3) float32 pixels
    mask: np.ndarray | None = None  # (H, W) bool, True on the hand
    pose: np.ndarray | None = None  # (48,) float32 axis-angle in MANO's order, global row first
    betas: np.ndarray | None = None  # (10,) float32
    side: str = "right"  # the hand in the picture
    dataset: str = ""
    split: str = ""
    index: int = -1
    key: str = ""  # file name or another name a person can find it by

    @property
    def name(self) -> str:
        """``dataset/split[index] key``, as error messages call it."""
        return f"{self.dataset or 'sample'}/{self.split or '-'}[{self.index}] {self.key}".rstrip()

    def __post_init__(self):
        image = np.asarray(self.image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            self._refuse("image", "(H, W, 3) uint8", f"{image.shape} {image.dtype}")
        known = (field for field in _SHAPES if getattr(self, field) is not None)
        fields = {"image": image} | {field: self._checked(field) for field in known}
        if self.joints_2d is not None and self.valid_2d is None:
            fields["valid_2d"] = np.ones(21, bool)
        for field, shape in (("valid_2d", (21,)), ("mask", image.shape[:2])):
            if getattr(self, field) is not None:
                fields[field] = np.array(getattr(self, field), bool)
                if fields[field].shape != shape:
                    self._refuse(field, shape, fields[field].shape)
        if self.side not in ("right", "left"):
            self._refuse("side", "'right' or 'left'", repr(self.side))
        self.__dict__.update(fields)  # frozen: nobody else sets a field

    def _checked(self, field: str) -> np.ndarray:
        value, shape = np.asarray(getattr(self, field), dtype=np.float32), _SHAPES[field]
        if value.shape != tuple(n or len(value) for n in shape):
            self._refuse(field, tuple(n or "V" for n in shape), value.shape)
        if not np.isfinite(value).all():
            row, *_ = np.argwhere(~np.isfinite(value))[0]
            self._refuse(field, "finite", f"{value[~np.isfinite(value)][0]} at {row}")
        if field in ("vertices", "joints") and (reach := float(np.abs(value).max())) > 1:
            expected = "metres relative to the wrist (below 1 m)"
            self._refuse(field, expected, f"a coordinate of {reach:.3g}")
        return value

    def _refuse(self, field, expected, found):
        raise ValueError(f"{self.name}: {field} should be {expected}, found {found}")


class HandDataset:
    """Labelled hands, one ``HandSample`` at a time: derive from it to read a data set of your own.

    Give ``__len__`` and ``sample(index)``, which makes its sample by ``self.make(image, index,
    ...)`` so that errors name data set, split and index; or, where pictures are files,
    ``labels(index)`` and ``jpeg(index)``: crops then decode large JPEGs at a fraction of their
    size. Everything else may stay as it is here, or say more about a data set that knows more.

    ``dataset[i]`` is ``sample(i)``; iterating leaves out broken samples under
    ``on_error = "skip"`` and counts them in ``skipped``.
    """

    dataset, split = "mine", ""
    fingertips = "as the file's maker took them"  # the table of its joints' tips; see joints
    crop_share = 1.0  # of the picture's shorter side, that crops show where crop_square is None
    backgrounds = 1  # pictures of each hand, where all hands come once, then all again, and so on
    missing = ()  # names of pictures that have labels and are not there
    mapped = ()  # names of attributes that every loading process makes for itself, of big files
    in_batches = False  # whether it has fetch_batch(indices, epochs) too, of square pictures only

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} needs __len__")

    def sample(self, index: int) -> HandSample:
        """The sample with this number in [0, len)."""
        return self.read(index)[0]

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the unique hand, person or scene, which no split may divide."""
        return np.arange(len(self))

    def crop_square(self, index: int) -> tuple[float, float, float] | None:
        """Square that crops shall show: its centre x, y and its side, pixels; None: the middle."""
        return None

    def jpeg(self, index: int) -> bytes | None:
        """The picture's file as it lies on the disk, None where there is none."""
        return None

    def labels(self, index: int) -> dict:
        """All of a sample but its picture: fields of ``HandSample``; no truth, no entry."""
        raise NotImplementedError(f"{type(self).__name__} needs sample, or labels and jpeg")

    def __getitem__(self, index: int) -> HandSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.dataset}/{self.split} has {len(self)} samples, asked {index}")
        return self.sample(int(index) % len(self))

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in self.mapped}

    def __iter__(self):
        return (sample for _, sample in self.numbered())

    def numbered(self):
        """Numbers and samples in order; under "skip" broken ones are noted and left out."""
        for index in range(len(self)):
            try:
                yield index, self.sample(index)
            except SampleError as error:
                if self.on_error == "raise":
                    raise
                self.skipped[index] = str(error)

    @property
    def on_error(self) -> str:
        """What to do with a sample that cannot be read: "raise" or "skip" it."""
        return self.__dict__.get("_on_error", "raise")

    @on_error.setter
    def on_error(self, mode: str) -> None:
        if mode not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', found {mode!r}")
        self._on_error = mode

    @functools.cached_property
    def skipped(self) -> dict[int, str]:
        """What was left out so far, and why."""
        return {}

    def name(self, index: int) -> str:
        """``dataset/split[index]``, as error messages call it."""
        return f"{self.dataset}/{self.split}[{index}]"

    def make(self, image, index: int, **fields) -> HandSample:
        """A ``HandSample`` with this data set's name; what it refuses is a ``SampleError``."""
        try:
            return HandSample(image, **fields, dataset=self.dataset, split=self.split, index=index)
        except ValueError as error:
            raise SampleError(str(error)) from None

    def read(self, index: int, pixels: float | None = None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller, its labels still for the whole one.

        pixels: that the crop's square shall have at least along a side; None: all there are.
        returns the sample, without a mask where it is smaller, and how many times it is smaller.
        """
        if type(self).sample is not HandDataset.sample:
            return self.sample(index), 1
        labels, data, factor = self.labels(index), self.jpeg(index), 1
        size = picture_size(data) if pixels and data[:2] == b"\xff\xd8" else None
        if size is not None:
            factor = reduction(self.square(index, *size)[2] / pixels)
        image = decode_picture(data, f"{self.name(index)} {labels.get('key', '')}", factor)
        if factor > 1:
            labels.pop("mask", None)
        return self.make(image, index, **labels), factor

    def square(self, index: int, width: int, height: int) -> tuple[float, float, float]:
        """Centre (x, y) and side of what crops show of a picture of this size, all in pixels."""
        side = float(min(width, height) * self.crop_share)
        return self.crop_square(index) or ((width - 1) / 2, (height - 1) / 2, side)


def reduction(pixels_per_pixel: float) -> int:
    """The factor, 8, 4, 2 or 1, by which a picture may shrink and lose nothing that is shown."""
    return next((factor for factor in REDUCTIONS if factor <= pixels_per_pixel), 1)


class SampleList(HandDataset):
    """Any sequence of samples as a data set."""

    def __init__(self, samples):
        self.samples, self.dataset = samples, getattr(samples, "dataset", "sample")

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> HandSample:
        return self.samples[index]


def as_dataset(samples) -> HandDataset:
    """A data set stays what it is; any other sequence or iterator of samples becomes one."""
    if isinstance(samples, HandDataset):
        return samples
    return SampleList(samples if hasattr(samples, "__len__") else list(samples))


class Subset(HandDataset):
    """Some samples of a data set, as a data set of their own.   indices: which, in order."""

    def __init__(self, dataset, indices):
        self.whole, self.indices = as_dataset(dataset), np.asarray(indices, dtype=np.int64)
        for name in ("dataset", "split", "fingertips", "crop_share", "in_batches", "on_error"):
            setattr(self, name, getattr(self.whole, name))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def groups(self) -> np.ndarray:
        return np.asarray(self.whole.groups)[self.indices]

    def read(self, index: int, pixels=None) -> tuple[HandSample, int]:
        return self.whole.read(int(self.indices[index]), pixels)

    def crop_square(self, index: int):
        return self.whole.crop_square(int(self.indices[index]))

    def jpeg(self, index: int) -> bytes | None:
        return self.whole.jpeg(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.whole.name(int(self.indices[index]))

    def fetch_batch(self, indices, epochs=0) -> dict:
        batch = self.whole.fetch_batch(self.indices[np.asarray(indices)], epochs)
        return batch | {"index": np.asarray(indices, np.int64)}


def split_unique(dataset, validation_share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Training and validation parts that share no unique hand, by the data set's ``groups``.

    validation_share: of the unique hands, in (0, 1); at least one hand lands on either side.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share must lie in (0, 1), found {validation_share}")
    groups = np.asarray(as_dataset(dataset).groups)
    if len(unique := np.unique(groups)) < 2:
        raise ValueError(f"{len(unique)} unique hands cannot be split in two")
    count = int(np.clip(round(validation_share * len(unique)), 1, len(unique) - 1))
    held_out = np.isin(groups, np.random.default_rng(seed).permutation(unique)[:count])
    return Subset(dataset, np.flatnonzero(~held_out)), Subset(dataset, np.flatnonzero(held_out))


def square_around(points, margin: float) -> tuple[float, float, float]:
    """Centre (x, y) and side of the square around points (N, 2) of a picture, pixels.

    margin: its side over the longer side of the points' box.
    """
    low, high = np.min(points, 0), np.max(points, 0)
    side = max(float((high - low).max()) * margin, 8.0)
    return (*((low + high) / 2).tolist(), side)


def fits_mesh(vertices, model) -> bool:
    """Whether a mesh (V, 3) of any unit has its vertices in the order of a ``HandModel``'s.

    Its edges are then short; in another order their ends lie anywhere, ten times as far apart.
    """
    template, faces = (np.asarray(x.detach().cpu()) for x in (model.vertices, model.faces))
    if len(vertices) != len(template):
        return False
    meshes = np.stack([vertices, template]).astype(float)
    edges = np.linalg.norm(meshes[:, faces[:, 0]] - meshes[:, faces[:, 1]], axis=2).mean(1)
    radii = np.linalg.norm(meshes - meshes.mean(1, keepdims=True), axis=2).mean(1)
    found, expected = edges / np.maximum(radii, 1e-12)
    return bool(found < 3 * expected)
