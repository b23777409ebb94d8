"""Endless labelled pictures of hands, each a function of (seed, index).

``SyntheticHands(size, seed, count)`` is a data set of ``HandSample``s; ``fetch_batch`` is its fast
path, about a thousandth of a second per picture at 128 px on one core. The knobs are those of
``SyntheticConfig``.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numba as nb
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.data.freihand import write_freihand
from hand_lib.data.sample import HandDataset, HandSample
from hand_lib.data.synthetic import effects, scene
from hand_lib.data.synthetic.config import SyntheticConfig, flat_fields
from hand_lib.data.synthetic.draw import sample_parameters
from hand_lib.data.synthetic.layout import Banks, make_banks
from hand_lib.data.synthetic.paint import paint
from hand_lib.files import read_json
from hand_lib.render.camera import crop_to_pixels, pixels_to_crop, project

VERSION = 3
"""Of the pictures: raised whenever the same seed and index give another picture."""

SIZES = (16, 1280)
GROUP = 32  # pictures that are drawn together
CLEAR = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0}
"""Knobs of pictures with one whole hand that nothing hides."""
CLIP_MARGIN = 1.25
"""Side of a clip's pictures over the side of the square that all its joints lie in."""
STAMP = "synthetic.json"
SYNTHETIC_TEST = {"seed": 20_200_401, "count": 2000, "size": 128}
"""The fixed benchmark ``synthetic-test``, drawn with the default ``SyntheticConfig``."""


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _render(parameters, first, posed, materials, scratch, canvas, mask, root, lens):
    """Draw pictures from number ``first`` of a batch on, as many as there are canvases.

    canvas: (G, 3, S, S) float32 sRGB 0 to 255.   mask: (B, S, S).   root, lens: (B, 3), see
    ``aim``.   All four are filled.
    """
    layout, size = materials.layout, canvas.shape[2]
    for b in range(first, min(first + len(canvas), len(parameters))):
        p, picture = parameters[b], canvas[b - first]
        scene.place_parts(p, b, posed, layout, scratch, size, root[b], lens[b])
        scene.light_vertices(p, layout, scratch, root[b], lens[b])
        scene.draw_buffers(p, layout, scratch, 2 * size)
        effects.lay_background(p.background, materials.tiles, picture)
        effects.cast_on_background(p, layout, scratch, picture)
        paint(p, materials, scratch, picture, lens[b, 0], mask[b])


class SyntheticHands(HandDataset):
    """A data set of synthetic hand pictures.

    size: side in pixels, 16 to 1,280.   seed: another seed, another endless set.   count: how many
    of it.   knobs: fields of ``SyntheticConfig``.

    >>> hands = SyntheticHands(size=64, seed=1, count=3)
    >>> hands[2].image.shape, hands.fetch_batch([0, 1])["joints_2d"].shape
    ((64, 64, 3), (2, 21, 2))
    """

    dataset, fingertips, in_batches = "synthetic", None, True

    def __init__(self, size=128, seed=0, count=2000, split="training", **knobs):
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"size should be from {SIZES[0]} to {SIZES[1]} pixels, found {size}")
        if count < 1:
            raise ValueError(f"count should be at least 1, found {count}")
        self.size, self.seed, self.count, self.split = int(size), int(seed), int(count), split
        self.config = SyntheticConfig(**knobs)
        _ = self.banks  # now, so that a folder that is missing is named now

    @property
    def banks(self) -> Banks:
        """What all pictures share."""
        return make_banks(self.config.background_folder)

    def __len__(self) -> int:
        return self.count

    def _check(self, indices) -> NDArray:
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"indices should be whole numbers (B,), found {indices.dtype}")
        if (bad := indices[(indices < 0) | (indices >= self.count)]).size:
            raise IndexError(f"index {bad[0]} is outside this set of {self.count}")
        return indices.astype(np.int64)

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the pictures are made of, (B,) of ``PARAMETERS``."""
        indices = self._check(indices) + self.count * np.asarray(epochs, np.int64)
        return sample_parameters(self.config, self.seed, indices, self.size, self.banks)

    def posed(self, parameters: NDArray) -> scene.Posed:
        """The hands of some pictures."""
        count, there = len(parameters), parameters["second"] != 0
        poses = np.concatenate([parameters["pose"], parameters["second_pose"][there]])
        betas = np.concatenate([parameters["betas"], parameters["betas"][there]])
        with torch.no_grad():
            hand = self.banks.model(*(torch.from_numpy(x.astype(float)) for x in (poses, betas)))
        both, rows = (hand.vertices, hand.joints), np.maximum(np.cumsum(there) - 1, 0)
        vertices, joints = ((points - hand.joints[:, :1]).float().numpy() for points in both)
        return scene.Posed(vertices[:count], joints[:count], vertices[count:], rows)

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
        banks, size, batch, posed = self.banks, self.size, len(parameters), self.posed(parameters)
        images = np.empty((batch, 3, size, size), np.uint8)
        masks = np.empty((batch, size, size), np.bool_)
        roots, lenses = (np.empty((batch, 3), np.float32) for _ in range(2))
        canvas = np.empty((min(batch, GROUP), 3, size, size), np.float32)
        scratch = scene.make_scratch(banks.materials.layout, size)
        drawn = banks.materials, scratch, canvas, masks, roots, lenses
        for first in range(0, batch, GROUP):
            _render(parameters, first, posed, *drawn)
            rows = zip(images[first:], parameters["camera"][first:], canvas, strict=False)
            for image, camera, plane in rows:
                image[:] = effects.expose(camera, plane, banks.grain).transpose(2, 0, 1)
        vertices, joints = posed.vertices, posed.joints
        intrinsics = np.eye(3, dtype=np.float32) * lenses[:, :1, None]
        intrinsics[:, :2, 2], intrinsics[:, 2, 2] = lenses[:, 1:], 1
        pixels = project((joints + roots[:, None]).astype(float), intrinsics.astype(float))
        pose = parameters["pose"].reshape(batch, 48).copy()
        pose[:, 3:] -= banks.model.pose_mean.numpy().astype(np.float32)
        found = {"image": images, "mask": masks, "vertices": vertices, "joints": joints}
        found |= {"root": roots, "joints_2d": pixels_to_crop(pixels, size).astype(np.float32)}
        found |= {"intrinsics": intrinsics, "pose": pose, "betas": parameters["betas"].copy()}
        found |= {name: np.ones(batch, bool) for name in ("has_vertices", "has_joints")}
        return found | {"valid_2d": np.ones((batch, 21), bool), "index": self._check(indices)}

    def sample(self, index: int) -> HandSample:
        one = {key: value[0] for key, value in self.fetch_batch([index]).items()}
        fields = ("vertices", "joints", "root", "intrinsics", "mask", "pose", "betas")
        fields = {name: one[name] for name in fields} | {"key": f"seed {self.seed}"}
        fields["joints_2d"] = crop_to_pixels(one["joints_2d"], self.size)
        image = np.ascontiguousarray(one["image"].transpose(1, 2, 0))
        return self.make(image, int(one["index"]), **fields)

    def fingerprint(self) -> str:
        """SHA-256 of the numbers that 16 of the pictures are made of.

        They are rounded to 0.001, so that another processor's last bit does not change it.
        """
        some = np.linspace(0, self.count - 1, min(16, self.count)).astype(int)
        digest = hashlib.sha256(f"synthetic {VERSION} {self.size} {self.seed}".encode())
        for numbers in flat_fields(self.parameters(some)).values():
            digest.update(np.round(numbers * 1000).astype(np.int64).tobytes())
        return digest.hexdigest()


class MovingHand(SyntheticHands):
    """A clip: frame n is sample n, one hand that travels, turns and changes its gesture.

    The camera does not move.   size: side of the frames in pixels.   seed: which clip.   count:
    frames.   fps: per second.   speed: 1 changes the gesture about once a second; 0 keeps the hand
    still.   knobs: fields of ``SyntheticConfig``; by default nothing hides the hand.

    >>> clip = MovingHand(size=256, seed=1, count=60, fps=30.0)
    >>> clip[0].image.shape, clip.times[-1]    # a sample per frame, labels as in SyntheticHands
    ((256, 256, 3), 1.966...)
    """

    def __init__(self, size=256, seed=0, count=90, fps=30.0, speed=1.0, **knobs):
        super().__init__(size, seed, count, split="clip", **{**CLEAR, **knobs})
        if not (fps > 0 and speed >= 0):
            raise ValueError(f"fps should be positive and speed not negative, found {fps}, {speed}")
        self.fps, self.times = float(fps), np.arange(self.count) / fps  # (T,) seconds
        rng, way = np.random.default_rng([self.seed, 5]), self.times * speed
        first = sample_parameters(self.config, self.seed, [0], self.size, self.banks)
        self._frames = out = np.repeat(first, self.count)
        out["index"] = np.arange(self.count)
        # half a second from one named gesture to the next, half a second there
        stops, table = int(np.floor(way[-1])) + 2, self.banks.gestures
        picks, at = rng.integers(0, len(table), stops + 1), np.minimum(way.astype(int), stops - 1)
        part = np.clip((way - at) * 2, 0, 1)
        part = (part * part * (3 - 2 * part))[:, None, None]
        out["pose"] = table[picks[at]] * (1 - part) + table[picks[at + 1]] * part
        turn = Rotation.from_rotvec(_wander(rng, way, 3) * np.deg2rad([16, 22, 16])).as_matrix()
        out["frame"] = turn @ first["frame"][0].astype(float)
        out["pose"][:, 0] = Rotation.from_matrix(out["frame"] @ self.banks.axes.T).as_rotvec()
        out["off_axis"] = 0.10 * _wander(rng, way, 2)
        out["distance"] = first["distance"] * np.exp(0.12 * _wander(rng, way, 1)[:, 0])
        for name in ("grain_u", "grain_v"):
            out["camera"][name] = rng.integers(0, 4096, self.count)
        # framing and shift that undo each frame's own aim: one focal length and centre for all
        root, lens = np.empty((2, 3), np.float32)  # not needed
        pairs = zip(out, self.posed(out).joints, strict=True)
        aims = np.array([scene.aim(*pair, self.size, root, lens) for pair in pairs])
        middle, side = aims[:, :2], aims[:, 2:]  # of the joints' bounding square, tangents
        low, high = (middle - side / 2).min(axis=0), (middle + side / 2).max(axis=0)
        seen = CLIP_MARGIN * (high - low).max()
        out["framing"], out["shift"] = seen / side[:, 0], (middle - (low + high) / 2) / seen

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the frames are made of, (B,) of ``PARAMETERS``."""
        return self._frames[self._check(indices)].copy()


def _wander(rng, way, count):
    """Smooth curves (T, count) of spread about 1: three slow waves each."""
    rates = np.array([0.17, 0.31, 0.53])[:, None]
    waves = np.sin(2 * np.pi * (way[:, None, None] * rates + rng.random((3, count))))
    return (waves * np.array([0.9, 0.7, 0.4])[:, None]).sum(axis=1) / 1.2


def synthetic_test() -> SyntheticHands:
    """The fixed benchmark: 2,000 pictures of 128 px on which the repository's numbers are made."""
    return SyntheticHands(**SYNTHETIC_TEST, split="test")


def write_synthetic_freihand(
    folder, count: int = 1000, size: int = 224, seed: int = 0, split="training", progress=None
) -> Path:
    """Write ``count`` synthetic hands as FreiHAND's release has them, or reuse them.

    size: pixels (FreiHAND's are 224).   split: "training" or "evaluation".   progress: see
    ``write_freihand``.   returns the folder, which appears whole, by a rename. One that already
    holds exactly this set is kept; anything else is refused.
    """
    hands, folder = SyntheticHands(size, seed, count, split=split), Path(folder)
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
