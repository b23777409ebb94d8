"""YouTube 3D Hands: meshes in video frames, whose boxes, joints and metres are derived here."""

import functools
import json
import mmap
import os
import re
import warnings
from pathlib import Path

import numpy as np

from hand_lib.data.sample import HandDataset, fits_mesh, square_around
from hand_lib.files import SampleError, cached_arrays, check_folder, flat_numbers, read_bytes
from hand_lib.hand.joints import TIPS_21, fingertip_vertices, fingertips_of
from hand_lib.render.images import picture_size

MESH_BOX_MARGIN = 1.3
"""Side of the default crop over the longer side of the box around the mesh."""

_WHERE_JSON = "Ask for it at https://github.com/arielai/youtube_3d_hands (academic use)."
_WHERE_FRAMES = (
    "Extract the frames from the videos: frame N of video V belongs in "
    "<frames_root>/youtube/V/video/frames/N.png (or .jpg)"
)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG")


class WrongHandModel(ValueError):
    """Meshes are in another vertex order than the hand model they were to be read with."""


class YouTubeHands(HandDataset):
    """Hands of ``youtube_train.json`` and its siblings.

    json_file: the annotations.   frames_root: folder that holds ``youtube/VIDEO/video/frames``.
    model: a MANO ``HandModel``, whose regressor gives the joints and whose size gives the metres.
    Without it the file yields no joint but the five fingertips in the picture (table ``smplx``,
    the authors' own), hence neither wrist-relative vertices nor joints.
    on_error: for frames that cannot be read; those that are not there are in ``missing``.

    Vertices in the file are pixels, z too. Here they are metres about the wrist, scaled so that
    wrist to middle knuckle is as long as in the model's template; where the camera stands is not
    known, so ``root`` and ``intrinsics`` are None. Left hands stay left; crops mirror them.
    ``groups`` numbers the videos, so that a split never shares a person.
    """

    dataset, mapped = "YouTube3D", ("lists",)

    def __init__(self, json_file, frames_root, model=None, on_error="raise"):
        self.on_error = on_error
        self.path = Path(json_file).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f"YouTube3D: no file {self.path}. {_WHERE_JSON}")
        self.split, self.model = self.path.stem.removeprefix("youtube_"), model
        self.root = check_folder(frames_root, self.dataset, _WHERE_FRAMES)
        self.fingertips = "smplx" if model is None else fingertips_of(model)
        index = json.loads(self.lists[1].tobytes())
        try:
            images = {i["id"]: (i["name"], i["width"], i["height"]) for i in index["images"]}
            rows = enumerate(index["annotations"])
            hands = [(row, bool(a["is_left"]), *images[a["image_id"]]) for row, a in rows]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"YouTube3D: {self.path} should hold images (id, name, width, height) and "
                f"annotations (image_id, is_left, vertices); {type(error).__name__}: {error}"
            ) from None
        there = {name: self._find_frame(name) for name in {hand[2] for hand in hands}}
        self.missing = sorted(name for name, path in there.items() if path is None)
        self._frames, self._scales = {name: path for name, path in there.items() if path}, {}
        self.hands = [hand for hand in hands if hand[2] in self._frames]
        if hands and not self.hands:
            raise FileNotFoundError(
                f"YouTube3D: none of {len(there)} frames lies under {self.root}, for instance "
                f"{self.missing[0]}. {_WHERE_FRAMES}"
            )
        if self.missing:
            warnings.warn(
                f"YouTube3D/{self.split}: {len(self.missing)} of {len(there)} frames are missing "
                f"({len(hands) - len(self.hands)} hands left out), first {self.missing[0]}",
                stacklevel=2,
            )
        videos = [(*Path(name).parts[1:2], name)[0] for _, _, name, *_ in self.hands]
        self.groups = np.unique(videos, return_inverse=True)[1]
        if model is not None:
            if len(self) and not fits_mesh(self.vertices_px(0), model):
                raise WrongHandModel(
                    f"YouTube3D: the meshes of {self.path} are in another vertex order than this "
                    "hand model; they come in MANO's: pass HandModel.from_mano(...), or no model"
                )
            rest = model.regress_joints(model.vertices.detach().cpu().numpy())
            self._knuckle_m = float(np.linalg.norm(rest[9] - rest[0]))

    @functools.cached_property
    def lists(self) -> list[np.ndarray]:
        """The meshes (N, V, 3) float32, and the bytes of the document without them."""
        return cached_arrays(self.path, ("vertices", "index"), self._split)

    def _split(self):
        with open(self.path, "rb") as file:  # an empty one cannot be mapped
            size = os.path.getsize(self.path)
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        vertices, text = split_vertices(whole, str(self.path))
        return vertices, np.frombuffer(text, np.uint8)

    def _find_frame(self, name: str) -> str | None:
        """Where under the root a frame lies, None where it is missing."""
        stems = (Path(place).with_suffix("") for place in (name, name.removeprefix("youtube/")))
        places = (f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES)
        return next((place for place in places if (self.root / place).is_file()), None)

    def _scale(self, index: int) -> float:
        """Size of the frame on the disk over the size that its labels are for."""
        *_, name, w, h = self.hands[index]
        if name not in self._scales:
            wide, high = picture_size(self.jpeg(index)) or (w, h)  # no picture: decoding says so
            if abs(wide / w / (high / h) - 1) > 0.01:
                raise SampleError(
                    f"{self.name(index)}: frame {name} is {wide} x {high}, its labels are for "
                    f"{w} x {h}; download the video in that aspect ratio"
                )
            self._scales[name] = wide / w
        return self._scales[name]

    def __len__(self) -> int:
        return len(self.hands)

    def vertices_px(self, index: int) -> np.ndarray:
        """(V, 3) the mesh of the file: x, y pixels of the frame there, z on the same scale."""
        scale = self._scale(index)
        vertices = np.asarray(self.lists[0][self.hands[index][0]]) * scale
        vertices[:, :2] += (scale - 1) / 2  # pixel centres are whole numbers
        return vertices

    def crop_square(self, index: int) -> tuple[float, float, float]:
        """Centre (x, y) and side in pixels of the square around the mesh."""
        return square_around(self.vertices_px(index)[:, :2], MESH_BOX_MARGIN)

    def labels(self, index: int) -> dict:
        _row, is_left, name, *_ = self.hands[index]
        vertices = self.vertices_px(index)
        fields = {"key": name, "side": "left" if is_left else "right", "vertices_px": vertices}
        if self.model is None:
            flat, valid = np.zeros((21, 2), np.float32), np.zeros(21, bool)
            flat[list(TIPS_21)] = vertices[list(fingertip_vertices("smplx")), :2]
            valid[list(TIPS_21)] = True
            return fields | {"joints_2d": flat, "valid_2d": valid}
        joints = self.model.regress_joints(vertices)
        length_px = float(np.linalg.norm(joints[9] - joints[0]))
        if not length_px > 0:
            raise SampleError(f"{self.name(index)}: the mesh has no extent")
        scale = self._knuckle_m / length_px
        solid = {"vertices": vertices - joints[0], "joints": joints - joints[0]}
        fields |= {name: points * scale for name, points in solid.items()}
        return fields | {"joints_2d": joints[:, :2]}

    def jpeg(self, index: int) -> bytes:
        return read_bytes(self.root / self._frames[self.hands[index][2]], self.name(index))


_VERTICES = re.compile(rb'"vertices"\s*:\s*(?=\[)')
_END = re.compile(rb"\]\s*\]")


def split_vertices(data, name: str) -> tuple[np.ndarray, bytes]:
    """Take the meshes out of a document of gigabytes without making Python numbers of them.

    data: the JSON text, bytes or a memory map.   name: what errors call it.
    returns (N, V, 3) float32 in the order of the annotations, and the text with null in their
    place.
    """
    meshes, rest, at = [], [], 0
    for match in _VERTICES.finditer(data):
        end = _END.search(data, match.end())
        if end is None:
            raise ValueError(f"{name} is cut off inside mesh {len(meshes)}; unpack it again")
        try:
            numbers = flat_numbers(data[match.end() : end.end()]).astype(np.float32)
        except ValueError as error:
            what = f"mesh {len(meshes)} should be rows of three finite numbers ({error})"
            raise ValueError(f"{name}: {what}") from None
        expected = meshes[0].size if meshes else numbers.size
        if numbers.size == 0 or numbers.size % 3 or numbers.size != expected:
            what = f"mesh {len(meshes)} has {numbers.size} numbers, expected {expected or 778 * 3}"
            raise ValueError(f"{name}: {what} (vertices times 3)")
        meshes.append(numbers.reshape(-1, 3))
        rest += [data[at : match.end()], b"null"]
        at = end.end()
    text = b"".join([*rest, data[at:]])
    try:
        count = len(json.loads(text)["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not whole JSON with annotations ({error})") from None
    if count != len(meshes) or not count:
        raise ValueError(f"{name}: {count} annotations, but {len(meshes)} of them have vertices")
    return np.stack(meshes), text
