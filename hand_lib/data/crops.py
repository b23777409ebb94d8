"""From labelled hands to what a network eats: square crops with labels that follow exactly.

``HandCrops`` cuts, turns and colours one square per hand; ``InMemoryDataset`` keeps decoded hands
for many epochs. Everything about an item follows from (seed, epoch, index).
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from hand_lib.data import augment as changing
from hand_lib.data.sample import HandDataset, as_dataset, reduction
from hand_lib.files import SampleError
from hand_lib.render import camera
from hand_lib.render.raster import find_faces

VERTEX_COUNT = 778
CELLS = 16
"""Cells along a side of a labelled surface map."""
SURFACE_UNIT = 0.05
"""Metres: rest positions in surface maps are in this unit, about the middle of the mesh."""


_LABELS = np.dtype([
    ("vertices", "f4", (VERTEX_COUNT, 3)), ("joints", "f4", (21, 3)), ("root", "f4", (3,)),
    ("joints_2d", "f4", (21, 2)), ("intrinsics", "f4", (3, 3)), ("square", "f4", (3,)),
    ("valid_2d", "?", (21,)), ("has_vertices", "?"), ("has_joints", "?"), ("has_camera", "?"),
    ("left", "?"),
])  # fmt: skip
"""Of one hand: what is not filled in is zero and flagged unknown."""


def _fill_labels(labels: dict, row: int, sample, square, size) -> None:
    """Write one sample into row ``row``.   square: (x, y, side) pixels.   size: width, height."""
    if sample.vertices is not None and len(sample.vertices) != VERTEX_COUNT:
        raise SampleError(
            f"{sample.name}: expected {VERTEX_COUNT} vertices, found {len(sample.vertices)}"
        )
    labels["square"][row], labels["left"][row] = square, sample.side == "left"
    for name in ("vertices", "joints", "joints_2d", "valid_2d"):
        if (value := getattr(sample, name)) is not None:
            labels[name][row] = value
    for name in ("vertices", "joints"):
        labels[f"has_{name}"][row] = getattr(sample, name) is not None
    known = sample.intrinsics is not None
    labels["intrinsics"][row] = sample.intrinsics if known else camera.guessed_intrinsics(*size)
    if known and sample.root is not None:
        labels["root"][row], labels["has_camera"][row] = sample.root, True


def _to_reduced(affine: np.ndarray, factor: int) -> np.ndarray:
    """The map from a picture shrunk by ``factor`` instead of from the whole one: (2, 3)."""
    linear = affine[:, :2]
    offset = affine[:, 2] + linear.sum(1) * ((factor - 1) / 2)
    return np.concatenate([linear * factor, offset[:, None]], axis=1)


class HandCrops:
    """A data set of hands as square crops with labels that follow exactly.

    dataset: a ``HandDataset`` or any sequence of ``HandSample``s; its ``crop_square``, or the
    middle of the picture, is what crops show. Where its ``on_error`` is "skip", the next readable
    sample takes a broken one's place (``index`` in the item then names the one that is shown).
    image_size: side of the crop, pixels.   augment: name in ``AUGMENTATIONS``, an ``Augmentation``
    or None.   seed: of the random changes.   margin: widens the crop.   tight: some crops become
    upright and tight, as ``TightCrop`` says.   surface: ``SurfaceMaps`` that draw
    ``correspondence``.

    An item is a dict: image (3, S, S) uint8 RGB; vertices (V, 3), joints (21, 3) metres, wrist at
    the origin; joints_2d (21, 2) crop units; has_vertices, has_joints, has_camera bool, valid_2d
    (21,) bool; intrinsics (3, 3) of the crop, pixels; root (3,) metres; index. Left hands come
    mirrored to right. What is unknown is zero and flagged; unknown intrinsics are a guess of 60
    degrees across the picture.
    """

    def __init__(
        self, dataset, image_size=224, augment=None, seed=0, margin=1.0,
        tight: changing.TightCrop | None = None, surface=None,
    ):  # fmt: skip
        if image_size < 8:
            raise ValueError(f"image_size should be at least 8 pixels, found {image_size}")
        self.dataset = as_dataset(dataset)
        if len(self.dataset) == 0:
            raise ValueError("the data set is empty, so there is nothing to crop")
        self.image_size, self.seed, self.margin = int(image_size), int(seed), margin
        self.augment, self.tight, self.surface = changing.augmentation(augment), tight, surface

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
        indices, size = np.asarray(indices, dtype=np.int64), self.image_size
        random = np.zeros((len(indices), changing.COLUMNS))
        if self.augment or self.tight:
            random = changing.uniforms(self.seed, epochs, indices)
        changes = changing.draw_changes(self.augment, random)
        pictures, labels = self._read(indices, changes.scale, epochs)
        square, mirror = labels.pop("square").astype(float), labels.pop("left")
        side = square[:, 2] * self.margin
        centers = square[:, :2] + changes.shift * side[:, None]
        affines = camera.crop_affine(centers, side * changes.scale, size, changes.rotation, mirror)
        if self.tight is not None:
            known = labels["joints_2d"], labels["valid_2d"]
            affines = changing.tight_affines(affines, *known, random, size, self.tight)

        crops = np.empty((len(indices), size, size, 3), np.uint8)
        tables = changing.colour_tables(changes) if self.augment else None
        for row, (image, factor) in enumerate(pictures):
            affine = _to_reduced(affines[row], factor)
            more = reduction(1 / np.sqrt(abs(np.linalg.det(affine[:, :2]))))
            if more > 1:  # the mean of whole blocks; a rest at the right and lower border goes
                height, width = image.shape[0] // more, image.shape[1] // more
                block = image[: height * more, : width * more]
                image = cv2.resize(block, (width, height), interpolation=cv2.INTER_AREA)
                affine = _to_reduced(affine, more)
            crop = cv2.warpAffine(np.ascontiguousarray(image), affine, (size, size))
            if self.augment:
                crop = cv2.LUT(crop, tables[row][None])
                crop = changing.degrade(crop, self.augment, random[row])
            crops[row] = crop
        batch = {"image": crops.transpose(0, 3, 1, 2)} | self._move(labels, affines)
        if self.surface is not None:
            known = batch["has_vertices"] & (batch["root"][:, 2] > 0)
            roots = np.where(known[:, None], batch["root"], 0)  # a hand at the camera draws nothing
            maps = self.surface.draw(batch["vertices"], roots, batch["intrinsics"], size)
            batch["correspondence"] = maps.astype(np.float16)
        return batch

    def _move(self, labels: dict, affines: np.ndarray) -> dict:
        """Labels under the crops' maps: hands turn about the optical axis, 2-D follows."""
        motions, intrinsics = camera.crop_camera(affines, labels["intrinsics"].astype(float))
        turn = motions.swapaxes(1, 2).astype(np.float32)
        joints_2d = camera.apply_affine(affines, labels["joints_2d"])
        joints_2d = camera.pixels_to_crop(joints_2d, self.image_size)
        joints_2d[~labels["valid_2d"]] = 0
        return labels | {
            "vertices": labels["vertices"] @ turn,
            "joints": labels["joints"] @ turn,
            "root": (labels["root"][:, None] @ turn)[:, 0],
            "joints_2d": joints_2d.astype(np.float32),
            "intrinsics": intrinsics.astype(np.float32),
        }

    def _read(self, indices, scales, epochs):
        """Pictures, each with the factor it is shrunk by; labels (dict of stacked arrays)."""
        labels = {name: np.zeros(len(indices), _LABELS[name]) for name in _LABELS.names}
        labels["index"] = indices.copy()
        if self.dataset.in_batches:
            return self._read_batch(labels, indices, epochs)
        nearest = scales if self.tight is None else scales / 2
        rows = zip(range(len(indices)), indices.tolist(), nearest, strict=True)
        return [self._read_or_next(labels, *each) for each in rows], labels

    def _read_batch(self, labels, indices, epochs):
        """The same from a data set that gives whole batches of square pictures."""
        batch = self.dataset.fetch_batch(indices, epochs)
        pixels = batch["image"].shape[2]
        labels["has_camera"][:] = True
        labels |= {name: batch[name] for name in labels if name in batch}
        labels["joints_2d"] = camera.crop_to_pixels(labels["joints_2d"], pixels)
        labels["square"][:] = self.dataset.square(0, pixels, pixels)
        return [(image, 1) for image in batch["image"].transpose(0, 2, 3, 1)], labels

    def _read_or_next(self, labels, row, index, scale):
        """A picture and the factor it is shrunk by; its labels go to ``row``."""
        dataset, pixels = self.dataset, self.image_size / (self.margin * scale)
        tries = min(len(self), 100) if dataset.on_error == "skip" else 1
        for at in (np.arange(index, index + tries) % len(self)).tolist():
            try:
                sample, factor = dataset.read(at, pixels)
                size = (sample.image.shape[1] * factor, sample.image.shape[0] * factor)
                _fill_labels(labels, row, sample, dataset.square(at, *size), size)
                labels["index"][row] = at
                return sample.image, factor
            except SampleError as error:
                problem = error
            except Exception as error:  # a worker must say which sample it died of
                message = f"{dataset.name(at)}: {type(error).__name__}: {error}"
                raise SampleError(message) from error
        if tries == 1:
            raise problem
        raise SampleError(f"{tries} samples in a row cannot be read; {problem}")


class InMemoryDataset(HandDataset):
    """Hands decoded, cut and shrunk once, kept in memory as uint8 for many epochs.

    dataset: a data set or sequence of ``HandSample``s; what it skips is left out.   image_size:
    side of the crops that will be taken.   margin: how much wider than the crop a kept square is,
    so that shifted and turned crops find picture there.   threads: that decode.   progress: wraps
    an iterator, as ``tqdm`` does.   Memory: 3 (margin image_size)^2 + 12 V bytes a hand.
    """

    in_batches = True

    def __init__(self, dataset, image_size=64, margin=1.25, threads=1, progress=None):
        crops = HandCrops(dataset, int(np.ceil(image_size * margin)), margin=margin)
        numbers, self.arrays = np.arange(len(crops)), {}
        chunks = np.split(numbers, range(64, len(numbers), 64))
        with ThreadPoolExecutor(threads) as workers:
            batches = zip(chunks, workers.map(crops.fetch_batch, chunks), strict=True)
            for rows, batch in progress(batches, total=len(chunks)) if progress else batches:
                batch["image"] = batch["image"].transpose(0, 2, 3, 1)
                for name, values in batch.items():
                    if name not in self.arrays:
                        self.arrays[name] = np.zeros((len(crops), *values.shape[1:]), values.dtype)
                    self.arrays[name][rows] = values
        good = self.arrays.pop("index") == numbers
        if not good.all():
            self.arrays = {name: values[good] for name, values in self.arrays.items()}
        self.images = self.arrays.pop("image")  # (N, P, P, 3)
        self.groups = np.asarray(crops.dataset.groups)[good]
        self.dataset, self.fingertips = "in memory", crops.dataset.fingertips
        self.crop_share = 1 / margin

    def __len__(self) -> int:
        return len(self.images)

    def fetch_batch(self, indices, epochs=0) -> dict:
        """Kept squares (B, 3, P, P) and their labels, 2-D in crop units of the square."""
        batch = {name: values[indices] for name, values in self.arrays.items()}
        image = self.images[indices].transpose(0, 3, 1, 2)
        return batch | {"image": image, "index": np.asarray(indices, np.int64)}


class SurfaceMaps:
    """Which piece of skin each cell of a crop shows, drawn from labelled meshes of one topology.

    Any sample with vertices and a camera has one; what stands in front of the hand is not in it.
    rest: (V, 3) metres, the mesh at rest.   faces: (F, 3).

    >>> maps = SurfaceMaps(model.template, model.faces)
    >>> maps.draw(vertices, roots, intrinsics, 64).shape        # B hands in crops of 64 px
    (B, 4, 16, 16)
    """

    def __init__(self, rest, faces):
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        places = (np.asarray(rest, np.float64) - np.mean(rest, 0, np.float64)) / SURFACE_UNIT
        places = places[self.faces].mean(1)  # one per face is fine enough
        rays = np.insert(places, 0, 1, axis=1)  # what a ray gives its cell; the last hits nothing
        self.rays = np.append(rays, np.zeros((1, 4)), axis=0).astype(np.float32)

    def draw(self, vertices, roots, intrinsics, size: int) -> np.ndarray:
        """(B, 4, n, n) float32: share of the cell that shows the hand, mean rest position there.

        vertices: (B, V, 3) metres, wrist at the origin.   roots: (B, 3) metres, the wrist in the
        camera's frame.   intrinsics: (B, 3, 3) of the crop, pixels.   size: of the crop.
        A hand that is not wholly in front of the camera has an empty map.
        """
        points = np.asarray(vertices, np.float64) + np.asarray(roots, np.float64)[:, None]
        side, maps = 2 * CELLS, np.zeros((len(points), 4, CELLS, CELLS), np.float32)
        for row in np.flatnonzero((points[..., 2] > 0.01).all(1)):
            found = find_faces(points[row], self.faces, intrinsics[row], side, side, side / size)
            rays = self.rays[found[1]]
            rays = sum(rays[y::2, x::2] for y in (0, 1) for x in (0, 1)).transpose(2, 0, 1)
            maps[row, 0], maps[row, 1:] = rays[0] / 4, rays[1:] / np.maximum(rays[0], 1)
        return maps
