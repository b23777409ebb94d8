"""HaMeR's data: evaluation lists in one ``.npz``, and training shards in webdataset's ``.tar``.

Both hold boxes, sides, key points and MANO parameters under nearly the same names. Written from
hamer/datasets/image_dataset.py of geopavlakos/hamer, which reads both.
"""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hand_lib.data.reading import Reader, hand_from_model
from hand_lib.data.sample import HandSample
from hand_lib.files import SampleError, check_folder, find_cache, read_bytes, store_cache
from hand_lib.pickles import loads_safely

_REQUIRED = {"imgname": (), "center": (2,), "scale": None}
_OPTIONAL = {
    "right": (), "hand_pose": (48,), "betas": (10,), "hand_keypoints_2d": (21, 3),
    "hand_keypoints_3d": (21, 4), "has_hand_pose": (), "has_betas": (),
}  # fmt: skip
_IN_SHARDS = {"center": (2,), "keypoints_2d": (21, 3), "keypoints_3d": (21, 4),
              "hand_pose": (48,), "betas": (10,)}  # fmt: skip
_PICTURES = (".jpg", ".jpeg", ".png")
PIXELS_ABOVE = 20
"""A list whose boxes are larger than this in the median has them in pixels, not in 200 pixels."""


class _Hamer(Reader):
    """What lists and shards share. Children give ``record``, the fields of one hand by name."""

    dataset = "HaMeR"
    fingertips = "smplx"

    def frame(self, index: int) -> tuple[float, float, float]:
        """Centre (x, y) and side in pixels of the file's box."""
        one = self.record(index)
        x, y = np.asarray(one["center"], float).tolist()
        return x, y, 200 * float(np.max(one["scale"]))

    def labels(self, index: int) -> dict:
        """All of a sample but its picture, as ``make_sample`` takes it."""
        one = self.record(index)
        left = not one.get("right", 1)
        fields = {"key": one["key"], "side": "left" if left else "right"}
        flat, solid = one.get("keypoints_2d"), one.get("keypoints_3d")
        if flat is not None and (flat[:, 2] > 0).any():
            fields |= {"joints_2d": flat[:, :2], "valid_2d": flat[:, 2] > 0}
        posed = all(f in one and one.get(f"has_{f}", 1) > 0 for f in ("hand_pose", "betas"))
        if posed:
            fields |= {"pose": one["hand_pose"], "betas": one["betas"]}
            if self.model is not None:
                from hand_lib.hand.model import mirror_pose  # brings torch, which files do not need

                pose = mirror_pose(one["hand_pose"]) if left else one["hand_pose"]
                vertices, joints = hand_from_model(self.model, pose, one["betas"])
                flip = np.float32([-1 if left else 1, 1, 1])
                fields["vertices"] = (vertices - joints[0]) * flip
                fields["joints"] = (joints - joints[0]) * flip
        if solid is not None and (solid[:, 3] > 0).all():
            fields["joints"] = solid[:, :3] - solid[0, :3]
        return fields

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller; see ``FreiHand.read``."""
        data, labels = self.picture_bytes(index), self.labels(index)
        if not self.frame(index)[2] > 0:
            raise SampleError(f"{self.name(index)}: its box has no extent")
        reduce = choose_reduction(labels, data) if choose_reduction else 1
        return self._make(self._decode(data, index, labels["key"], reduce), index, **labels), reduce


class HamerList(_Hamer):
    """Hands of an ``.npz`` as HaMeR and WiLoR evaluate on.

    npz_file: arrays imgname (N,), center (N, 2) pixels, scale (N,) or (N, 2), the box's side in
    pixels (as HaMeR's own loader divides it) or in 200 pixels, told apart by its size, and where
    known right (N,), hand_pose (N, 48), betas (N, 10), has_hand_pose and has_betas (N,),
    hand_keypoints_2d (N, 21, 3) and hand_keypoints_3d (N, 21, 4), the last column their confidence.
    images_root: folder that ``imgname`` starts from.   model: a right ``HandModel`` for vertices.
    on_error: "raise" or "skip".
    Joints of the file go before the model's. A left hand's pose is taken as that of a left hand.
    The camera is not known, so ``root`` and ``intrinsics`` are None.
    """

    def __init__(self, npz_file, images_root, model=None, on_error="raise"):
        self._start(on_error)
        self.path = Path(npz_file).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(
                f"HaMeR: no file {self.path}. The lists are part of hamer_evaluation_data, see "
                "https://github.com/geopavlakos/hamer"
            )
        self.root = check_folder(images_root, self.dataset, "It holds the pictures of the list.")
        self.split, self.model = self.path.stem, model
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                names = [n for n in (*_REQUIRED, *_OPTIONAL) if n in archive.files]
                self.arrays = {name: archive[name] for name in names}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"HaMeR: {self.path} is not an .npz of plain arrays ({error})"
            ) from None
        if missing := [name for name in _REQUIRED if name not in self.arrays]:
            raise ValueError(f"HaMeR: {self.path} lacks {', '.join(missing)}; it has {names}")
        for name, shape in (_REQUIRED | _OPTIONAL).items():
            if name not in self.arrays or shape is None:
                continue
            expected, found = (len(self), *shape), self.arrays[name].shape
            if found != expected:
                raise ValueError(
                    f"HaMeR: {name} in {self.path} should be {expected}, found {found}"
                )
        names = self.arrays["imgname"]
        self.arrays["imgname"] = np.char.decode(names) if names.dtype.kind == "S" else names
        sides = self.arrays["scale"].reshape(len(self), -1).max(axis=1)
        if np.median(sides) > PIXELS_ABOVE:
            self.arrays["scale"] = self.arrays["scale"] / 200
        self.groups = np.unique(self.arrays["imgname"], return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.arrays["imgname"])

    def record(self, index: int) -> dict:
        """One row of all arrays, with the names that shards use."""
        one = {name: values[index] for name, values in self.arrays.items()}
        for name in ("keypoints_2d", "keypoints_3d"):
            if f"hand_{name}" in one:
                one[name] = one.pop(f"hand_{name}")
        return one | {"key": str(one["imgname"])}

    def picture_bytes(self, index: int) -> bytes:
        """The picture as it lies on the disk."""
        return read_bytes(self.root / str(self.arrays["imgname"][index]), self.name(index))


class HamerShards(_Hamer):
    """Hands of HaMeR's training shards: plain ``.tar`` files of pictures and ``.data.pyd`` pickles.

    shards: a folder of ``.tar`` files, one of them, or a list.   model, on_error: as ``HamerList``.
    Nothing in the pickles is run (see ``pickles``). Shards are gone through once to find the hands,
    with progress; what was found is kept beside them as ``.npy``. Nothing is unpacked. A picture
    may hold several hands; ``groups`` numbers the pictures.
    """

    def __init__(self, shards, model=None, on_error="raise"):
        self._start(on_error)
        several = isinstance(shards, (list, tuple))
        paths = [Path(p).expanduser() for p in (shards if several else [shards])]
        if not several and paths[0].is_dir():
            paths = sorted(paths[0].glob("*.tar"))
        if lost := [path for path in paths if not path.is_file()]:
            raise FileNotFoundError(f"HaMeR: no file {lost[0]}")
        if not paths:
            raise FileNotFoundError(
                f"HaMeR: {shards} holds no .tar files. Get the shards from "
                "https://github.com/geopavlakos/hamer (hamer_training_data)"
            )
        self.paths, self.model, self.split = paths, model, paths[0].parent.name
        self._last = (-1, {})
        bar = tqdm(paths, desc="looking into shards", disable=len(paths) < 4)
        places = [self._index(number, path) for number, path in enumerate(bar)]
        self.places = np.concatenate(places)  # shard, picture's place and size, label's, which hand
        self.groups = np.unique(self.places[:, :2], axis=0, return_inverse=True)[1].reshape(-1)

    def _index(self, number: int, path: Path) -> np.ndarray:
        status = path.stat()
        key = f"{path.stem}-{status.st_size:x}-{status.st_mtime_ns:x}.npy"
        if cached := find_cache(path, key):
            places = np.load(cached)
        else:
            places = self._look_into(path)
            store_cache(path, key, places)
        return np.concatenate([np.full((len(places), 1), number), places], axis=1)

    def _look_into(self, path: Path) -> np.ndarray:
        pictures, labels = {}, {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")  # as webdataset splits names
                    kind = labels if suffix == "data.pyd" else pictures
                    if kind is labels or f".{suffix.lower()}" in _PICTURES:
                        kind[f"{folder}/{stem}"] = (member.offset_data, member.size)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"HaMeR: {path} is not a whole, uncompressed .tar ({error}); copy it again"
            ) from None
        if path.stat().st_size < max((a + n for a, n in [*pictures.values(), *labels.values()]),
                                     default=0):  # fmt: skip
            raise ValueError(f"HaMeR: {path} is cut off in its last file; copy it again")
        lonely = sorted(labels.keys() - pictures.keys())
        if lonely and self.on_error == "raise":
            raise ValueError(f"HaMeR: {path} has labels but no picture of {lonely[0]}")
        self.missing += [f"{path.name}:{key}" for key in lonely]
        rows = []
        for key in sorted(labels.keys() & pictures.keys()):
            try:
                hands = self._hands(path, *labels[key], f"HaMeR: {path.name}:{key}.data.pyd")
            except SampleError:
                if self.on_error == "raise":
                    raise
                self.missing.append(f"{path.name}:{key}")
                continue
            rows += [(*pictures[key], *labels[key], hand) for hand in range(len(hands))]
        return np.array(rows, np.int64).reshape(-1, 5)

    def _hands(self, path: Path, at: int, size: int, name: str) -> list:
        try:
            hands = loads_safely(_slice(path, at, size), name, numbers_only=False)
        except ValueError as error:
            raise SampleError(str(error)) from None
        if not isinstance(hands, list) or not all(isinstance(hand, dict) for hand in hands):
            raise SampleError(f"{name} should hold a list of dicts, found {type(hands).__name__}")
        return hands

    def __len__(self) -> int:
        return len(self.places)

    def record(self, index: int) -> dict:
        """The hand's dict in its ``.data.pyd``."""
        if self._last[0] == index:
            return self._last[1]
        shard, place, _, at, size, hand = self.places[index].tolist()
        one = self._hands(self.paths[shard], at, size, self.name(index))[hand]
        for field, shape in _IN_SHARDS.items():
            value = one.get(field)
            if (
                value is None
                and field == "center"
                or value is not None
                and (np.shape(value) != shape)
            ):
                found = "nothing" if value is None else np.shape(value)
                raise SampleError(f"{self.name(index)}: {field} should be {shape}, found {found}")
        if "scale" not in one:
            raise SampleError(f"{self.name(index)}: its label has no scale")
        one["key"] = f"{self.paths[shard].name} at byte {place}"
        self._last = (index, one)
        return one

    def picture_bytes(self, index: int) -> bytes:
        """The picture as it lies in its shard."""
        shard, place, size = self.places[index, :3].tolist()
        return _slice(self.paths[shard], place, size)


def _slice(path: Path, at: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(at)
        return file.read(size)
