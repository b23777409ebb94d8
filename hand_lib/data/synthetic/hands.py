"""Endless labelled pictures of hands, each a function of (seed, index).

``SyntheticHands(size, seed, count)`` is a data set of ``HandSample``s; ``fetch_batch`` is its fast
path, about a thousandth of a second per picture at 128 px on one core. The knobs are those of
``SyntheticConfig``.
"""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from hand_lib.data.sample import HandDataset, HandSample
from hand_lib.data.synthetic.atlas import skin_atlas
from hand_lib.data.synthetic.backgrounds import background_bank, bank_kinds, pack_tiles
from hand_lib.data.synthetic.config import SyntheticConfig, drawn_fields
from hand_lib.data.synthetic.draw import draw_parameters
from hand_lib.data.synthetic.effects import expose
from hand_lib.data.synthetic.ground import cast_on_background, lay_background
from hand_lib.data.synthetic.layout import (
    ARM,
    ARM_STATIONS,
    Body,
    Layout,
    blend_shapes,
    make_body,
    make_layout,
)
from hand_lib.data.synthetic.paint import paint, tone_curve
from hand_lib.data.synthetic.scene import draw_buffers, light_vertices, make_scratch, place_shaped
from hand_lib.data.synthetic.solids import forearm
from hand_lib.hand.mano import builtin_path, read_mano
from hand_lib.hand.poses import GESTURES, sample_poses
from hand_lib.render.camera import pixels_to_crop, project

VERSION = 2
"""Of the pictures: raised whenever the same seed and index give another picture."""

SIZES = (16, 512)
POSES = 3072
TILES = 192
GROUP = 32
"""Hands whose shape is computed together."""

SYNTHETIC_TEST = {"seed": 20_200_401, "count": 2000, "size": 128}
"""The fixed benchmark ``synthetic-test``, drawn with the default ``SyntheticConfig``."""


@dataclass(frozen=True)
class Banks:
    """What all pictures share: the hand, its skin, poses, backgrounds and film grain."""

    body: Body
    layout: Layout
    atlas: NDArray  # (texels, 8) uint8
    poses: NDArray  # (N, 16, 3) from the pose prior
    moves: NDArray  # (16, 3) bool, the angles that these poses use
    gestures: NDArray  # (G, 16, 3)
    pose_mean: NDArray  # (45,) that the hand model adds to a pose of FreiHAND's kind
    tiles: NDArray  # (N, T, T) uint32: bytes red, green, blue, 0
    kinds: NDArray  # (N,) words, the kind of each tile
    grain: NDArray  # (256, 256) float32
    tone: NDArray  # linear light -> sRGB
    inverse_tone: NDArray  # (256,) sRGB byte -> linear light


@functools.lru_cache(maxsize=4)
def make_banks(model_path=None, seed: int = 0, tile_size: int = 256) -> Banks:
    """Paint and pose what all pictures share; once per process, about three seconds.

    model_path: MANO_RIGHT.pkl or an .npz of its arrays; None is the built-in hand.
    """
    arrays = read_mano(builtin_path() if model_path is None else model_path, "right")
    body = make_body(arrays)
    layout = make_layout(arrays["f"], body.rim)
    first, last = layout.face_start[ARM], layout.face_start[ARM + 1]
    arm = np.zeros((len(ARM_STATIONS), len(body.rim), 3), np.float32)
    template = body.template.reshape(-1, 3)
    forearm(template[body.rim], body.axes, 0.0, 0.0, 1.0, ARM_STATIONS, arm)
    atlas = skin_atlas(
        body, arrays["f"], arrays["weights"], arm[1:].reshape(-1, 3), layout.faces[first:last]
    )
    rng = np.random.default_rng([seed, 11])
    poses = sample_poses(POSES, rng, gestures_share=0.0)
    return Banks(
        body,
        layout,
        atlas,
        poses,
        np.abs(poses).max(axis=0) > 1e-3,
        np.stack(list(GESTURES.values())),
        np.asarray(arrays["hands_mean"]),
        pack_tiles(background_bank(TILES, tile_size, seed)),
        bank_kinds(TILES, seed),
        rng.standard_normal((256, 256)).astype(np.float32),
        tone_curve(),
        ((np.arange(256) / 255) ** 2.2).astype(np.float32),
    )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _render(
    parameters, poses, betas, body, layout, scratch, atlas, tiles, grain, tone, inverse_tone,
    images, masks, vertices, joints, roots, views,
):  # fmt: skip
    second_joints = np.empty((21, 3), np.float32)
    shaped = np.empty((GROUP, body.template.shape[0]), np.float32)
    for first in range(0, parameters.shape[0], GROUP):
        count = min(GROUP, parameters.shape[0] - first)
        stop = first + count
        blend_shapes(body, poses[first:stop], betas[first:stop], shaped[:count])
        for k in range(count):
            b = first + k
            p = parameters[b]
            place_shaped(
                p, body, layout, scratch, shaped[k], joints[b], second_joints, roots[b], views[b]
            )
            for v in range(vertices.shape[1]):
                for a in range(3):
                    vertices[b, v, a] = scratch.points[v, a]
            light_vertices(p, layout, scratch, roots[b], views[b])
            draw_buffers(p, layout, scratch)
            lay_background(p, tiles, scratch.canvas)
            cast_on_background(p, layout, scratch)
            paint(p, layout, scratch, atlas, tiles, tone, inverse_tone, views[b, 0], masks[b])
            expose(p, scratch, grain, images[b])


class SyntheticHands(HandDataset):
    """A data set of synthetic hand pictures.

    size: side in pixels, 16 to 512.   seed: another seed, another endless set.   count: how many
    of it.   model_path: a hand with MANO's arrays; None is the built-in hand.
    knobs: fields of ``SyntheticConfig``, or ``config=`` one of them.

    >>> hands = SyntheticHands(size=64, seed=1, count=3)
    >>> hands[2].image.shape, hands.fetch_batch([0, 1])["joints_2d"].shape
    ((64, 64, 3), (2, 21, 2))
    """

    dataset, fingertips, in_batches = "synthetic", None, True

    def __init__(
        self, size: int = 128, seed: int = 0, count: int = 2000, model_path=None, split="training",
        config: SyntheticConfig | None = None, **knobs,
    ):  # fmt: skip
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"size should be from {SIZES[0]} to {SIZES[1]} pixels, found {size}")
        if count < 1:
            raise ValueError(f"count should be at least 1, found {count}")
        known = {field.name for field in dataclasses.fields(SyntheticConfig)}
        unknown = sorted(set(knobs) - known)
        if unknown:
            raise TypeError(f"unknown knobs {unknown}; known: {', '.join(sorted(known))}")
        self.size, self.seed, self.count, self.split = int(size), int(seed), int(count), split
        self.config = dataclasses.replace(config or SyntheticConfig(), **knobs)
        self.model_path = model_path
        self.banks = make_banks(model_path)
        self._scratch = None

    def __len__(self) -> int:
        return self.count

    def __getstate__(self):
        state = self.__dict__.copy()
        state["banks"] = state["_scratch"] = None
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.banks = make_banks(self.model_path)

    def _check(self, indices) -> NDArray:
        indices = np.atleast_1d(np.asarray(indices))
        if indices.dtype.kind not in "iu" or indices.ndim != 1:
            raise TypeError(f"indices should be whole numbers (B,), found {indices.dtype}")
        bad = (indices < 0) | (indices >= self.count)
        if bad.any():
            raise IndexError(
                f"index {indices[bad][0]} is outside this set of {self.count} pictures"
            )
        return indices.astype(np.int64)

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the pictures are made of, (B,) of ``PARAMETERS``."""
        indices = self._check(indices) + self.count * np.asarray(epochs, np.int64)
        return draw_parameters(self.config, self.seed, indices, self.size, self.banks)

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
        if self._scratch is None:
            self._scratch = make_scratch(banks.layout, size)
        images = np.empty((batch, 3, size, size), np.uint8)
        masks = np.empty((batch, size, size), np.bool_)
        vertices = np.empty((batch, len(banks.body.template) // 3, 3), np.float32)
        joints, roots, views = (np.empty((batch, *s), np.float32) for s in ((21, 3), (3,), (3,)))
        poses, betas = parameters["pose"].copy(), parameters["betas"].copy()
        _render(
            parameters, poses, betas, banks.body, banks.layout, self._scratch,
            banks.atlas.view(np.uint64).reshape(-1), banks.tiles, banks.grain, banks.tone,
            banks.inverse_tone, images, masks, vertices, joints, roots, views,
        )  # fmt: skip
        intrinsics = np.zeros((batch, 3, 3), np.float32)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = views[:, 0]
        intrinsics[:, :2, 2], intrinsics[:, 2, 2] = views[:, 1:], 1
        pixels = project(
            (joints + roots[:, None]).astype(np.float64), intrinsics.astype(np.float64)
        )
        pose = poses.reshape(batch, 48)
        pose[:, 3:] -= banks.pose_mean.astype(np.float32)
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
            "betas": betas,
            "index": self._check(indices),
        }

    def sample(self, index: int) -> HandSample:
        batch = self.fetch_batch([index])
        one = {key: value[0] for key, value in batch.items()}
        return self.make(
            np.ascontiguousarray(one["image"].transpose(1, 2, 0)),
            int(one["index"]),
            vertices=one["vertices"],
            joints=one["joints"],
            root=one["root"],
            joints_2d=((one["joints_2d"] + 1) * self.size - 1) / 2,
            intrinsics=one["intrinsics"],
            mask=one["mask"],
            pose=one["pose"],
            betas=one["betas"],
            key=f"seed {self.seed}",
        )

    def fingerprint(self, indices=None) -> str:
        """SHA-256 of the numbers that some pictures are made of, by default 16 of them.

        They are rounded to 0.001, so that another processor's last bit does not change it. Whether
        the code draws the same pictures from them is checked by ``synthetic_check``.
        """
        if indices is None:
            indices = np.linspace(0, self.count - 1, min(16, self.count)).astype(int)
        records = self.parameters(indices)
        digest = hashlib.sha256(f"synthetic {VERSION} {self.size} {self.seed}".encode())
        for name in drawn_fields(records):
            numbers = np.asarray(records[name], np.float64)
            digest.update(np.round(numbers * 1000).astype(np.int64).tobytes())
        return digest.hexdigest()


def synthetic_test() -> SyntheticHands:
    """The fixed benchmark: 2,000 pictures of 128 px on which the repository's numbers are made."""
    return SyntheticHands(**SYNTHETIC_TEST, split="test")
