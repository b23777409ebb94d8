"""Endless labelled pictures of hands, each a function of (seed, index).

``SyntheticHands(size, seed, count)`` is a data set of ``HandSample``s; ``fetch_batch`` is its fast
path, about a thousandth of a second per picture at 128 px on one core. The knobs are those of
``SyntheticConfig``.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np
import torch
from numpy.typing import NDArray

from hand_lib.data.freihand import write_freihand
from hand_lib.data.sample import HandDataset, HandSample
from hand_lib.data.synthetic.backgrounds import (
    background_bank,
    bank_kinds,
    pack_tiles,
    photograph_bank,
)
from hand_lib.data.synthetic.config import SyntheticConfig, flat_fields
from hand_lib.data.synthetic.draw import sample_parameters
from hand_lib.data.synthetic.effects import cast_on_background, expose, lay_background
from hand_lib.data.synthetic.layout import ARM, make_layout, resting_arm
from hand_lib.data.synthetic.paint import Materials, Pictures, paint, tone_curve
from hand_lib.data.synthetic.scene import (
    Posed,
    draw_buffers,
    light_vertices,
    make_scratch,
    place_parts,
)
from hand_lib.files import read_json
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import GESTURES, sample_poses
from hand_lib.hand.skin import skin_texels, to_builtin_rest
from hand_lib.render.camera import crop_to_pixels, pixels_to_crop, project

VERSION = 3
"""Of the pictures: raised whenever the same seed and index give another picture."""

SIZES, POSES = (16, 1280), 4096
GROUP = 32  # pictures that are drawn together
CLEAR = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0}
"""Knobs of pictures with one whole hand that nothing hides."""
STAMP = "synthetic.json"
SYNTHETIC_TEST = {"seed": 20_200_401, "count": 2000, "size": 128}
"""The fixed benchmark ``synthetic-test``, drawn with the default ``SyntheticConfig``."""


@dataclass(frozen=True)
class Banks:
    """What all pictures share: the hand, its poses, what it is painted with, and film grain."""

    model: HandModel  # float64, so that a picture does not depend on its neighbours in a batch
    axes: NDArray  # (3, 3) columns distal, radial, dorsal of the rest hand
    materials: Materials
    poses: NDArray  # (N, 16, 3) from the pose prior
    moves: NDArray  # (16, 3) bool, the angles that these poses use
    gestures: NDArray  # (G, 16, 3)
    kinds: NDArray  # (N,) words, the kind of each tile
    grain: NDArray  # (256, 256) float32

    def pose(self, poses: NDArray, betas: NDArray) -> tuple[NDArray, NDArray]:
        """Vertices (B, V, 3) and joints (B, 21, 3), float32 metres, wrists at the origin."""
        with torch.no_grad():
            tensors = (torch.from_numpy(array.astype(np.float64)) for array in (poses, betas))
            hand = self.model(*tensors)
        wrist = hand.joints[:, :1]
        return tuple((p - wrist).float().numpy() for p in (hand.vertices, hand.joints))


@functools.lru_cache(maxsize=4)
def make_banks(background_folder=None) -> Banks:
    """Paint and pose what all pictures share; once per process, about three seconds.

    background_folder: pictures that are one more kind of background.
    """
    if background_folder is not None:
        banks, more = make_banks(None), pack_tiles(photograph_bank(background_folder))
        tiles = np.concatenate([banks.materials.tiles, more])
        kinds = np.concatenate([banks.kinds, np.full(len(more), "photographs")])
        materials = banks.materials._replace(tiles=tiles)
        return dataclasses.replace(banks, materials=materials, kinds=kinds)
    model = HandModel.builtin(flat_mean=True, dtype=torch.float64)
    arrays = model.arrays()
    template, faces = arrays["v_template"], arrays["f"]
    rest = arrays["J_regressor"] @ template
    layout, axes = make_layout(template, faces, rest)
    surface = np.concatenate([template, resting_arm(template, layout, axes)])
    surface = to_builtin_rest(surface, arrays["weights"], rest)
    texels = skin_texels(surface, layout.faces[: layout.face_start[ARM + 1]])
    inverse_tone = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
    texels, tiles = texels.view(np.uint64).reshape(-1), pack_tiles(background_bank())
    materials = Materials(layout, texels, tiles, tone_curve(), inverse_tone)
    rng = np.random.default_rng([0, 11])
    poses = sample_poses(POSES, rng, gestures_share=0.0)
    moves, gestures = np.abs(poses).max(axis=0) > 1e-3, np.stack(list(GESTURES.values()))
    grain = rng.standard_normal((256, 256)).astype(np.float32)
    return Banks(model, axes, materials, poses, moves, gestures, bank_kinds(), grain)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _render(parameters, posed, materials, scratch, pictures):
    """Draw the pictures of a batch.   posed: ``Posed``.   pictures: ``Pictures``, filled."""
    layout = materials.layout
    for b in range(parameters.shape[0]):
        p, canvas = parameters[b], pictures.canvas[b]
        root, lens, size = pictures.root[b], pictures.lens[b], canvas.shape[1]
        place_parts(p, b, posed, layout, scratch, size, root, lens)
        light_vertices(p, layout, scratch, root, lens)
        draw_buffers(p, layout, scratch, 2 * size)
        lay_background(p.background, materials.tiles, canvas)
        cast_on_background(p, layout, scratch, canvas)
        paint(p, materials, scratch, canvas, lens[0], pictures.mask[b])


class SyntheticHands(HandDataset):
    """A data set of synthetic hand pictures.

    size: side in pixels, 16 to 1,280.   seed: another seed, another endless set.   count: how many
    of it.   knobs: fields of ``SyntheticConfig``, or ``config=`` one of them.

    >>> hands = SyntheticHands(size=64, seed=1, count=3)
    >>> hands[2].image.shape, hands.fetch_batch([0, 1])["joints_2d"].shape
    ((64, 64, 3), (2, 21, 2))
    """

    dataset, fingertips, in_batches = "synthetic", None, True

    def __init__(
        self, size: int = 128, seed: int = 0, count: int = 2000, split="training",
        config: SyntheticConfig | None = None, **knobs,
    ):  # fmt: skip
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"size should be from {SIZES[0]} to {SIZES[1]} pixels, found {size}")
        if count < 1:
            raise ValueError(f"count should be at least 1, found {count}")
        self.size, self.seed, self.count, self.split = int(size), int(seed), int(count), split
        self.config = dataclasses.replace(config or SyntheticConfig(), **knobs)
        _ = self.banks  # now, so that a folder that is missing is named now

    @functools.cached_property
    def banks(self) -> Banks:
        """What all pictures share."""
        return make_banks(self.config.background_folder)

    @functools.cached_property
    def _scratch(self):
        return threading.local()  # buffers of each thread that draws

    def __len__(self) -> int:
        return self.count

    def __getstate__(self):
        made = ("banks", "_scratch")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def _check(self, indices) -> NDArray:
        indices = np.atleast_1d(np.asarray(indices))
        if indices.dtype.kind not in "iu" or indices.ndim != 1:
            raise TypeError(f"indices should be whole numbers (B,), found {indices.dtype}")
        bad = (indices < 0) | (indices >= self.count)
        if bad.any():
            raise IndexError(f"index {indices[bad][0]} is outside this set of {self.count}")
        return indices.astype(np.int64)

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the pictures are made of, (B,) of ``PARAMETERS``."""
        indices = self._check(indices) + self.count * np.asarray(epochs, np.int64)
        return sample_parameters(self.config, self.seed, indices, self.size, self.banks)

    def posed(self, parameters: NDArray) -> Posed:
        """The hands of some pictures."""
        count, there = len(parameters), np.flatnonzero(parameters["second"])
        poses = np.concatenate([parameters["pose"], parameters["second_pose"][there]])
        betas = np.concatenate([parameters["betas"], parameters["betas"][there]])
        vertices, joints = self.banks.pose(poses, betas)
        rows = np.zeros(count, np.int64)
        rows[there] = np.arange(len(there))
        return Posed(vertices[:count], joints[:count], vertices[count:], rows)

    def fetch_batch(self, indices, epochs=0) -> dict[str, NDArray]:
        """Pictures and labels of a batch, as training takes them.

        indices: (B,) in [0, count).   epochs: (B,) or one number for all; the next epoch shows the
        next ``count`` pictures of the endless set.
        returns image (B, 3, S, S) uint8; mask (B, S, S) bool, the hand's visible part; vertices
        (B, V, 3) and joints (B, 21, 3) float32 metres, camera axes, wrist at the origin; root
        (B, 3) metres, the wrist in the camera's frame; joints_2d (B, 21, 2) crop units;
        intrinsics (B, 3, 3) pixels; pose (B, 48), without the model's mean pose as in FreiHAND, and
        betas (B, 10); valid_2d (B, 21), has_vertices, has_joints (B,) bool; index (B,) int64.
        """
        parameters = self.parameters(indices, epochs)
        banks, size, batch = self.banks, self.size, len(parameters)
        images = np.empty((batch, 3, size, size), np.uint8)
        masks = np.empty((batch, size, size), np.bool_)
        roots, lenses = (np.empty((batch, 3), np.float32) for _ in range(2))
        canvas = np.empty((min(batch, GROUP), 3, size, size), np.float32)
        if not hasattr(self._scratch, "buffers"):
            self._scratch.buffers = make_scratch(banks.materials.layout, size)
        vertices, joints, second, second_row = self.posed(parameters)
        for first in range(0, batch, GROUP):
            rows = slice(first, min(first + GROUP, batch))
            some = parameters[rows]
            posed = Posed(vertices[rows], joints[rows], second, second_row[rows])
            pictures = Pictures(canvas[: len(some)], masks[rows], roots[rows], lenses[rows])
            _render(some, posed, banks.materials, self._scratch.buffers, pictures)
            for number, (one, plane) in enumerate(zip(some["camera"], canvas, strict=False)):
                images[first + number] = expose(one, plane, banks.grain).transpose(2, 0, 1)
        intrinsics = np.eye(3, dtype=np.float32) * lenses[:, :1, None]
        intrinsics[:, :2, 2], intrinsics[:, 2, 2] = lenses[:, 1:], 1
        pixels = project((joints + roots[:, None]).astype(float), intrinsics.astype(float))
        pose = parameters["pose"].reshape(batch, 48).copy()
        pose[:, 3:] -= banks.model.pose_mean.numpy().astype(np.float32)
        return {
            "image": images,
            "mask": masks,
            "vertices": vertices,
            "joints": joints,
            "root": roots,
            "joints_2d": pixels_to_crop(pixels, size).astype(np.float32),
            "valid_2d": np.ones((batch, 21), bool),
            "has_vertices": np.ones(batch, bool),
            "has_joints": np.ones(batch, bool),
            "intrinsics": intrinsics,
            "pose": pose,
            "betas": parameters["betas"].copy(),
            "index": self._check(indices),
        }

    def sample(self, index: int) -> HandSample:
        one = {key: value[0] for key, value in self.fetch_batch([index]).items()}
        fields = ("vertices", "joints", "root", "intrinsics", "mask", "pose", "betas")
        fields = {name: one[name] for name in fields} | {"key": f"seed {self.seed}"}
        fields["joints_2d"] = crop_to_pixels(one["joints_2d"], self.size)
        image = np.ascontiguousarray(one["image"].transpose(1, 2, 0))
        return self.make(image, int(one["index"]), **fields)

    def fingerprint(self, indices=None) -> str:
        """SHA-256 of the numbers that some pictures are made of, by default 16 of them.

        They are rounded to 0.001, so that another processor's last bit does not change it.
        """
        if indices is None:
            indices = np.linspace(0, self.count - 1, min(16, self.count)).astype(int)
        digest = hashlib.sha256(f"synthetic {VERSION} {self.size} {self.seed}".encode())
        for numbers in flat_fields(self.parameters(indices)).values():
            digest.update(np.round(numbers * 1000).astype(np.int64).tobytes())
        return digest.hexdigest()


def synthetic_test() -> SyntheticHands:
    """The fixed benchmark: 2,000 pictures of 128 px on which the repository's numbers are made."""
    return SyntheticHands(**SYNTHETIC_TEST, split="test")


def write_synthetic_freihand(
    folder, count: int = 1000, size: int = 224, seed: int = 0, split: str = "training",
    progress=None, **knobs,
) -> Path:  # fmt: skip
    """Write ``count`` synthetic hands as FreiHAND's release has them, or reuse them.

    size: pixels (FreiHAND's are 224).   split: "training" or "evaluation".   progress: see
    ``write_freihand``.   knobs: see ``SyntheticHands``.   returns the folder, which appears whole,
    by a rename. One that already holds exactly this set is kept; anything else is refused.
    """
    hands, folder = SyntheticHands(size, seed, count, split=split, **knobs), Path(folder)
    recipe = {
        "version": VERSION, "count": count, "size": size, "seed": seed, "split": split,
        "fingerprint": hands.fingerprint(),
    }  # fmt: skip
    found = read_json(folder / STAMP, optional=True)
    if found == recipe:
        return folder
    if folder.is_mount() or folder.is_dir() and any(folder.iterdir()):
        what = f"is not empty and has no {STAMP}" if found is None else f"holds {found}"
        raise ValueError(f"{folder} {what}, wanted {recipe}; choose another folder or delete it")
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_freihand(partial, hands, split, progress=progress)
        (partial / STAMP).write_text(json.dumps(recipe), encoding="ascii")
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
