"""From labelled hands to what a network eats: square crops with labels that follow exactly.

``HandCrops`` cuts, turns and colours one square per hand; ``InMemoryDataset`` keeps decoded hands
for many epochs. Everything about an item follows from (seed, epoch, index).
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from hand_lib.data.augment import (
    COLUMNS,
    TightCrop,
    augmentation,
    colour_tables,
    degrade,
    degrades,
    draw_changes,
    tight_affines,
    uniforms,
)
from hand_lib.data.sample import ERROR_MODES, HandDataset, HandSample, as_dataset, square_around
from hand_lib.files import SampleError
from hand_lib.render.camera import (
    apply_affine,
    crop_affine,
    crop_camera,
    crop_to_pixels,
    guessed_intrinsics,
    pixels_to_crop,
)
from hand_lib.render.images import REDUCTIONS, picture_size

JOINT_BOX_MARGIN = 1.6
"""``box="joints"``: side of the crop over the longer side of the box around the known joints."""

VERTEX_COUNT = 778


def square_of(box, width: int, height: int, joints_2d=None, valid_2d=None, name="sample"):
    """Which square of a picture to look at.

    box: a number, that fraction of the largest centred square; "joints", the box around the known
    joints_2d times ``JOINT_BOX_MARGIN``; or (x, y, side) in pixels.
    returns x, y of the centre and the side, all in pixels of the picture.

    >>> square_of(1.0, 640, 480)
    (319.5, 239.5, 480.0)
    """
    if isinstance(box, tuple):
        return box
    if box == "joints":
        known = np.empty((0, 2)) if joints_2d is None else np.asarray(joints_2d)
        known = known if valid_2d is None else known[np.asarray(valid_2d, bool)]
        if len(known) < 2:
            raise SampleError(f"{name}: no 2-D joints to find the hand by; use box=1.0")
        return square_around(known, JOINT_BOX_MARGIN)
    if not isinstance(box, int | float) or not box > 0:
        raise ValueError(f"box must be 'joints', a number above 0 or (x, y, side), found {box!r}")
    return (width - 1) / 2, (height - 1) / 2, float(min(width, height) * box)


def _label_arrays(count: int, vertex_count: int) -> dict[str, np.ndarray]:
    """Empty labels of ``count`` hands: what is not filled in is zero and flagged unknown."""
    shapes = {
        "vertices": (vertex_count, 3), "joints": (21, 3), "root": (3,), "joints_2d": (21, 2),
        "intrinsics": (3, 3), "square": (3,),
    }  # fmt: skip
    flags = {"valid_2d": (21,), "has_vertices": (), "has_joints": (), "has_camera": (), "left": ()}
    arrays = {name: np.zeros((count, *shape), np.float32) for name, shape in shapes.items()}
    return arrays | {name: np.zeros((count, *shape), bool) for name, shape in flags.items()}


def _fill_labels(labels: dict, row: int, sample, square, size) -> None:
    """Write one sample into row ``row``.   square: (x, y, side) pixels.   size: width, height."""
    labels["square"][row] = square
    labels["left"][row] = sample.side == "left"
    if sample.vertices is not None:
        if sample.vertices.shape[0] != labels["vertices"].shape[1]:
            raise SampleError(
                f"{sample.name}: expected {labels['vertices'].shape[1]} vertices, found "
                f"{sample.vertices.shape[0]}; pass vertex_count"
            )
        labels["vertices"][row] = sample.vertices
        labels["has_vertices"][row] = True
    if sample.joints is not None:
        labels["joints"][row] = sample.joints
        labels["has_joints"][row] = True
    if sample.joints_2d is not None:
        labels["joints_2d"][row] = sample.joints_2d
        labels["valid_2d"][row] = sample.valid_2d
    known = sample.intrinsics is not None
    labels["intrinsics"][row] = sample.intrinsics if known else guessed_intrinsics(*size)
    if known and sample.root is not None:
        labels["root"][row] = sample.root
        labels["has_camera"][row] = True


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average whole blocks of pixels; a rest at the right and lower border is dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    block = image[: height * factor, : width * factor]
    return cv2.resize(block, (width, height), interpolation=cv2.INTER_AREA)


def _to_reduced(affine: np.ndarray, factor: int) -> np.ndarray:
    """The map from a picture shrunk by ``factor`` instead of from the whole one: (2, 3)."""
    if factor == 1:
        return affine
    linear = affine[:, :2]
    offset = affine[:, 2] + linear.sum(1) * ((factor - 1) / 2)
    return np.concatenate([linear * factor, offset[:, None]], axis=1)


def _reduction(pixels_per_pixel: float) -> int:
    return next((factor for factor in REDUCTIONS if factor <= pixels_per_pixel), 1)


class HandCrops:
    """A data set of hands as square crops with labels that follow exactly.

    dataset: a ``HandDataset`` or any sequence of ``HandSample``s.   image_size: side of the crop,
    pixels.   augment: name in ``AUGMENTATIONS``, an ``Augmentation`` or None.   seed: of the random
    changes.   box: see ``square_of``; None takes the data set's own square.
    vertex_count: rows of ``vertices``.   on_error: "raise", or "skip", which puts the next readable
    sample in place of a broken one (``index`` in the item then names the one that is shown); None
    is the data set's own.   margin: widens the crop.   tight: some crops become upright and tight,
    as ``TightCrop`` says.   surface: a ``SurfaceMaps`` that draws ``surface``.

    An item is a dict: image (3, S, S) uint8 RGB; vertices (V, 3), joints (21, 3) metres, wrist at
    the origin; joints_2d (21, 2) crop units; has_vertices, has_joints, has_camera bool, valid_2d
    (21,) bool; intrinsics (3, 3) of the crop, pixels; root (3,) metres; index. Left hands come
    mirrored to right. What is unknown is zero and flagged; unknown intrinsics are a guess of 60
    degrees across the picture.
    """

    def __init__(
        self, dataset, image_size=224, augment=None, seed=0, box=None, vertex_count=VERTEX_COUNT,
        on_error=None, margin=1.0, tight: TightCrop | None = None, surface=None,
    ):  # fmt: skip
        if image_size < 8:
            raise ValueError(f"image_size should be at least 8 pixels, found {image_size}")
        self.dataset = as_dataset(dataset)
        self.on_error = self.dataset.on_error if on_error is None else on_error
        if self.on_error not in ERROR_MODES:
            raise ValueError(f"on_error must be one of {ERROR_MODES}, found {on_error!r}")
        if len(self.dataset) == 0:
            raise ValueError("the data set is empty, so there is nothing to crop")
        self.image_size, self.seed, self.vertex_count = int(image_size), int(seed), vertex_count
        self.augment, self.box, self.margin = augmentation(augment), box, margin
        self.tight, self.surface = tight, surface

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.item(index)

    def item(self, index: int, epoch: int = 0) -> dict:
        """One item as NumPy arrays; the same as its row in any batch of the same epoch."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} out of range for {len(self)} crops")
        batch = self.fetch_batch([index % len(self)], epoch)
        return {name: values[0] for name, values in batch.items()}

    def fetch_batch(self, indices, epochs=0) -> dict:
        """A batch of items, stacked.   indices: (B,).   epochs: (B,) or one number for all."""
        indices = np.asarray(indices, dtype=np.int64)
        if self.augment or self.tight:
            random = uniforms(self.seed, epochs, indices)
        else:
            random = np.zeros((len(indices), COLUMNS))
        changes, size = draw_changes(self.augment, random), self.image_size
        images, factors, labels = self._read(indices, changes.scale, epochs)
        x, y, side = labels.pop("square").astype(float).T
        side = side * self.margin
        mirror, shown = labels.pop("left"), labels.pop("index")
        centers = np.stack([x, y], axis=1) + changes.shift * side[:, None]
        affines = crop_affine(centers, side * changes.scale, size, changes.rotation, mirror)
        if self.tight is not None:
            known = labels["joints_2d"], labels["valid_2d"]
            affines = tight_affines(affines, *known, random, size, self.tight)

        crops = np.empty((len(indices), size, size, 3), np.uint8)
        tables = colour_tables(changes) if changes.colours_change else None
        rough = degrades(self.augment)
        for row, (image, factor) in enumerate(zip(images, factors, strict=True)):
            affine = _to_reduced(affines[row], factor)
            more = _reduction(1 / np.sqrt(abs(np.linalg.det(affine[:, :2]))))
            if more > 1:
                image, affine = _shrink(image, more), _to_reduced(affine, more)
            crop = cv2.warpAffine(np.ascontiguousarray(image), affine, (size, size))
            if tables is not None:
                crop = cv2.LUT(crop, tables[row][None])
            crops[row] = degrade(crop, self.augment, changes.random[row]) if rough else crop
        batch = {"image": crops.transpose(0, 3, 1, 2)} | self._move(labels, affines)
        if self.surface is not None:
            batch["correspondence"] = self._draw_surface(batch)
        return batch | {"index": shown}

    def _draw_surface(self, batch: dict) -> np.ndarray:
        """Surface maps of the hands that have vertices and a place in space, empty for others."""
        known = batch["has_vertices"] & (batch["root"][:, 2] > 0)
        roots = np.where(known[:, None], batch["root"], 0)  # a hand at the camera draws nothing
        return self.surface.draw(
            batch["vertices"], roots, batch["intrinsics"], self.image_size
        ).astype(np.float16)

    def _move(self, labels: dict, affines: np.ndarray) -> dict:
        """Labels under the crops' maps: hands turn about the optical axis, 2-D follows."""
        motions, intrinsics = crop_camera(affines, labels["intrinsics"].astype(float))
        turn = motions.swapaxes(1, 2).astype(np.float32)
        joints_2d = pixels_to_crop(apply_affine(affines, labels["joints_2d"]), self.image_size)
        joints_2d[~labels["valid_2d"]] = 0
        return labels | {
            "vertices": labels["vertices"] @ turn,
            "joints": labels["joints"] @ turn,
            "root": (labels["root"][:, None] @ turn)[:, 0],
            "joints_2d": joints_2d.astype(np.float32),
            "intrinsics": intrinsics.astype(np.float32),
        }

    def _read(self, indices, scales, epochs):
        """Pictures, factors they are shrunk by, labels (dict of stacked arrays)."""
        labels = _label_arrays(len(indices), self.vertex_count) | {"index": indices.copy()}
        if self.dataset.in_batches:
            return self._read_batch(labels, indices, epochs)
        nearest = scales if self.tight is None else scales / 2
        images, factors = [], []
        for row, index in enumerate(indices):
            image, factor, shown = self._read_or_next(labels, row, int(index), nearest[row])
            labels["index"][row] = shown
            images.append(image)
            factors.append(factor)
        return images, factors, labels

    def _read_batch(self, labels, indices, epochs):
        """The same from a data set that gives whole batches of square pictures."""
        batch = self.dataset.fetch_batch(indices, epochs)
        images = batch["image"].transpose(0, 2, 3, 1)
        pixels = images.shape[1]
        labels["has_camera"][:] = True
        labels |= {name: batch[name] for name in labels if name in batch}
        labels["joints_2d"] = crop_to_pixels(labels["joints_2d"], pixels)
        box = self.dataset.crop_share if self.box is None else self.box
        labels["square"][:] = square_of(box, pixels, pixels)
        return images, np.ones(len(indices), int), labels

    def _read_or_next(self, labels, row, index, scale):
        tries = min(len(self), 100) if self.on_error == "skip" else 1
        for attempt in range(tries):
            at = (index + attempt) % len(self)
            try:
                return *self._read_one(labels, row, at, scale), at
            except SampleError as error:
                if tries == 1:
                    raise
                last = error
        raise SampleError(f"{tries} samples in a row cannot be read; {last}")

    def _read_one(self, labels, row, index, scale):
        dataset, name = self.dataset, self.dataset.name(index)

        def choose(fields, data):
            size = picture_size(data)
            if size is None or data[:2] != b"\xff\xd8":
                return 1
            square = square_of(box, *size, fields.get("joints_2d"), fields.get("valid_2d"), name)
            return _reduction(square[2] * self.margin * scale / self.image_size)

        try:
            box = self.box
            if box is None:
                box = dataset.crop_square(index) or dataset.crop_share
            sample, factor = dataset.read(index, choose)
            size = (sample.image.shape[1] * factor, sample.image.shape[0] * factor)
            square = square_of(box, *size, sample.joints_2d, sample.valid_2d, sample.name)
            _fill_labels(labels, row, sample, square, size)
        except SampleError:
            raise
        except Exception as error:  # a worker must say which sample it died of
            raise SampleError(f"{name}: {type(error).__name__}: {error}") from error
        return sample.image, factor


class InMemoryDataset(HandDataset):
    """Hands decoded, cut and shrunk once, kept in memory as uint8 for many epochs.

    dataset: a data set or sequence of ``HandSample``s.   image_size: side of the crops that will be
    taken.   margin: how much wider than the crop a kept square is, so that shifted and turned
    crops find picture there.   box, vertex_count, on_error: as in ``HandCrops``; with "skip" what
    cannot be read is left out and counted in ``left_out``.   threads: that decode.   progress:
    wraps an iterator, as ``tqdm`` does.   Memory: 3 (margin image_size)^2 + 12 V bytes a hand.
    """

    dataset, in_batches = "in memory", True

    def __init__(
        self, dataset, image_size=64, margin=1.25, box=None, vertex_count=VERTEX_COUNT,
        on_error=None, threads=1, progress=None,
    ):  # fmt: skip
        crops = HandCrops(
            dataset, int(np.ceil(image_size * margin)), box=box, vertex_count=vertex_count,
            on_error=on_error, margin=margin,
        )  # fmt: skip
        count = len(crops)
        chunks = np.split(np.arange(count), range(64, count, 64))
        with ThreadPoolExecutor(max(threads, 1)) as workers:
            batches = workers.map(crops.fetch_batch, chunks)
            self._take(progress(batches, total=len(chunks)) if progress else batches, count)
        good = np.flatnonzero(self.arrays.pop("index") == np.arange(count))
        self.left_out, self.groups = count - len(good), np.asarray(crops.dataset.groups)[good]
        self.fingertips, self.crop_share = crops.dataset.fingertips, 1 / margin
        if self.left_out:
            self.images = self.images[good]
            self.arrays = {name: values[good] for name, values in self.arrays.items()}

    @classmethod
    def from_batches(cls, batches, count: int, fingertips=None) -> "InMemoryDataset":
        """Finished batches, for instance rendered ones, kept.   count: hands in all."""
        kept = cls.__new__(cls)
        kept._take(batches, count)
        kept.arrays.pop("index", None)
        kept.fingertips, kept.left_out = fingertips, 0
        return kept

    def _take(self, batches, count: int) -> None:
        """Copy batches (dicts of arrays or tensors, image (B, 3, S, S)) into whole arrays."""
        self.arrays, at = {}, 0
        for batch in batches:
            batch = {name: np.asarray(values) for name, values in batch.items()}
            batch["image"] = batch["image"].transpose(0, 2, 3, 1)
            if at == 0:
                self.arrays = {
                    name: np.zeros((count, *values.shape[1:]), values.dtype)
                    for name, values in batch.items()
                }
            rows = slice(at, at + len(batch["image"]))
            for name, values in batch.items():
                self.arrays[name][rows] = values
            at = rows.stop
        if at != count:
            raise ValueError(f"expected {count} hands to keep in memory, found {at}")
        self.images = self.arrays.pop("image")  # (N, P, P, 3)

    def __len__(self) -> int:
        return len(self.images)

    def fetch_batch(self, indices, epochs=0) -> dict:
        """Kept squares (B, 3, P, P) and their labels, 2-D in crop units of the square."""
        batch = {name: values[indices] for name, values in self.arrays.items()}
        image = self.images[indices].transpose(0, 3, 1, 2)
        return batch | {"image": image, "index": np.asarray(indices, np.int64)}

    def sample(self, index: int) -> HandSample:
        row = {name: values[index] for name, values in self.arrays.items()}
        fields = {name: row[name] for name in ("vertices", "joints") if row[f"has_{name}"]}
        joints_2d = crop_to_pixels(row["joints_2d"], len(self.images[index]))
        if row.get("has_camera", True):
            fields |= {"root": row["root"], "intrinsics": row["intrinsics"]}
        return self.make(
            self.images[index], index, joints_2d=joints_2d, valid_2d=row["valid_2d"], **fields
        )
