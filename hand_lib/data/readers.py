"""Data sets as they are handed around, one ``HandSample`` at a time: FreiHAND and its relatives.

A reader has a length, gives ``reader[i]`` lazily, and iterates; ``groups`` (N,) numbers the unique
hands, so that pictures of one hand on several backgrounds never fall on both sides of a split.
``on_error="skip"`` leaves out what cannot be read and counts it in ``reader.skipped``.
"""

from pathlib import Path

import numpy as np

from hand_lib.data.dexycb import DexYcb
from hand_lib.data.hamer import HamerList, HamerShards
from hand_lib.data.metro_tsv import FreiHandTsv
from hand_lib.data.reading import (
    ERROR_MODES,
    FREIHAND_CROP,
    FREIHAND_VERSIONS,
    Reader,
    hand_from_model,
)
from hand_lib.data.sample import HandSample
from hand_lib.data.writers import write_freihand, write_freihand_tsv
from hand_lib.data.youtube import WrongHandModel, YouTubeHands
from hand_lib.files import (
    SampleError,
    check_folder,
    load_json_array,
    natural_names,
    read_bytes,
)
from hand_lib.hand.joints import fingertips_of
from hand_lib.pickles import load_pickle_safely
from hand_lib.render.camera import project
from hand_lib.render.images import decode_picture

_WHERE_FREIHAND = (
    "Get FreiHAND from https://lmb.informatik.uni-freiburg.de/projects/freihand/ and unpack it "
    "there, or write a synthetic one with hand_lib.data.readers.write_freihand."
)
_FIELDS = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (61,), "scale": ()}
_PRECISE = {"K": np.float64, "mano": np.float64, "scale": np.float64}

class FreiHand(Reader):
    """The original FreiHAND release, or anything written in its layout.

    root: folder with ``training/``, ``training_K.json`` and so on.   split: "training" or
    "evaluation".   versions: names from ``FREIHAND_VERSIONS``; all that are there when None.
    model: a MANO ``HandModel``: vertices then come from ``mano.json`` instead of ``verts.json``.
    masks: read the hand masks too.   on_error: "raise" or "skip" broken and missing pictures;
    the names of the latter are in ``missing``.
    The number of unique hands is the length of ``<split>_K.json``.
    """

    dataset = "FreiHAND"

    def __init__(
        self, root, split="training", versions=None, model=None, masks=False, on_error="raise"
    ):
        self._start(on_error)
        self.root = check_folder(root, self.dataset, _WHERE_FREIHAND)
        if split not in ("training", "evaluation"):
            raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
        self.split, self.model, self.masks = split, model, masks
        self.fingertips = fingertips_of(self.root)
        self._arrays: dict[str, np.ndarray | None] = {}
        if self.values("K") is None:
            inside = [path.parent for path in self.root.glob(f"*/{split}_K.json")]
            hint = f"It is one level down: pass {inside[0]}." if inside else _WHERE_FREIHAND
            raise FileNotFoundError(f"FreiHAND: {self.root} has no {split}_K.json. {hint}")
        self.unique = len(self.values("K"))
        for field in _FIELDS:
            values = self.values(field)
            if values is not None and len(values) != self.unique:
                raise ValueError(
                    f"FreiHAND/{split}: {split}_{field}.json has {len(values)} entries, but "
                    f"{split}_K.json has {self.unique}; both must come from one release"
                )
        if split == "training" and self.values("xyz") is None:
            raise FileNotFoundError(f"FreiHAND: {self.root} has no training_xyz.json.")
        if model is not None and self.values("mano") is None:
            raise FileNotFoundError(
                f"FreiHAND: {self.root} has no {split}_mano.json, which vertices by the hand model "
                "need; leave out model to read verts.json"
            )
        self._list_pictures(versions)
        note = self.root / f"{split}_box.json"
        self.box = float(note.read_text()) if note.is_file() else FREIHAND_CROP

    def _list_pictures(self, versions) -> None:
        folder = check_folder(self.root / self.split / "rgb", self.dataset, _WHERE_FREIHAND)
        there = natural_names(folder, r"\d{8}\.(jpg|png)")
        numbers = np.array(sorted(int(name[:8]) for name in there), dtype=np.int64)
        self._png = frozenset(int(name[:8]) for name in there if name.endswith("png"))
        found = np.bincount(numbers // self.unique, minlength=4)
        allowed = FREIHAND_VERSIONS if self.split == "training" else FREIHAND_VERSIONS[:1]
        if versions is None:
            versions = [name for name, n in zip(FREIHAND_VERSIONS, found[:4], strict=True) if n]
            versions = [name for name in versions if name in allowed] or list(allowed[:1])
        versions = (versions,) if isinstance(versions, str) else tuple(versions)
        if unknown := [name for name in versions if name not in allowed]:
            raise ValueError(
                f"FreiHAND/{self.split} has the versions {', '.join(allowed)}; asked for {unknown}"
            )
        if found[len(allowed) :].any():
            raise ValueError(
                f"FreiHAND/{self.split}: picture {numbers[-1]:08d} has no label; "
                f"{self.split}_K.json has {self.unique} entries, so the pictures end at "
                f"{len(allowed) * self.unique - 1:08d}"
            )
        starts = [FREIHAND_VERSIONS.index(name) * self.unique for name in versions]
        self.versions = versions
        self.pictures = np.concatenate([np.arange(self.unique) + start for start in starts])
        missing = ~np.isin(self.pictures, numbers)
        if missing.any():
            first = int(self.pictures[np.argmax(missing)])
            message = (
                f"FreiHAND/{self.split}[{int(np.argmax(missing))}]: {folder} lacks "
                f"{int(missing.sum())} of {len(missing)} labelled pictures, first {first:08d}.jpg"
            )
            if self.on_error == "raise":
                raise FileNotFoundError(f"{message}; unpack again, or pass on_error='skip'")
            self.missing = [f"{number:08d}.jpg" for number in self.pictures[missing]]
            self.pictures = self.pictures[~missing]
        self.groups = self.pictures % self.unique

    def __len__(self) -> int:
        return len(self.pictures)

    def __getstate__(self):
        return self.__dict__ | {"_arrays": {}}  # a worker maps the files again

    def values(self, field: str) -> np.ndarray | None:
        """The whole list of one JSON file (N, ...), or None where the release has none.

        field: "K", "xyz", "verts", "mano" or "scale".
        """
        if field not in self._arrays:
            path = self.root / f"{self.split}_{field}.json"
            self._arrays[field] = (
                load_json_array(
                    path,
                    _FIELDS[field],
                    f"FreiHAND/{self.split}/{field}",
                    _PRECISE.get(field, np.float32),
                )
                if path.is_file()
                else None
            )
        return self._arrays[field]

    def picture_path(self, index: int) -> Path:
        """The file of a sample's picture."""
        number = int(self.pictures[index])
        suffix = "png" if number in self._png else "jpg"
        return self.root / self.split / "rgb" / f"{number:08d}.{suffix}"

    def picture_bytes(self, index: int) -> bytes:
        """The picture as it lies on the disk."""
        return read_bytes(self.picture_path(index), self.name(index))

    def labels(self, index: int) -> dict:
        """All of a sample but its picture, as ``make_sample`` takes it; no truth, no entry."""
        at = int(self.groups[index])
        fields = {"intrinsics": self.values("K")[at], "key": f"{int(self.pictures[index]):08d}"}
        xyz, verts, mano = (self.values(name) for name in ("xyz", "verts", "mano"))
        if mano is not None:
            fields |= {"pose": mano[at, :48], "betas": mano[at, 48:58]}
        if xyz is not None:
            root = xyz[at, 0]
            fields |= {"joints": xyz[at] - root, "root": root}
            fields["joints_2d"] = project(xyz[at].astype(float), fields["intrinsics"])
        if self.model is not None:
            fields |= self._from_model(mano[at], fields["intrinsics"], fields)
        elif verts is not None and xyz is not None:
            fields["vertices"] = verts[at] - root
        return fields

    def _from_model(self, mano, intrinsics, fields) -> dict:
        """Vertices of the 61 numbers, the middle knuckle put at their root (FreiHAND toolbox)."""
        vertices, joints = hand_from_model(self.model, mano[:48], mano[48:58])
        if "root" in fields:
            return {"vertices": vertices - joints[0]}
        focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
        knuckle = np.append(mano[58:60] - intrinsics[:2, 2], focal) / mano[60]
        root = knuckle - joints[9] + joints[0]
        joints_2d = project((joints - joints[0] + root).astype(float), intrinsics)
        return {
            "vertices": vertices - joints[0], "joints": joints - joints[0], "root": root,
            "joints_2d": joints_2d,
        }  # fmt: skip

    def raw_labels(self, index: int) -> dict:
        """A sample's own rows of the JSON files, by name."""
        at = int(self.groups[index])
        lists = {field: self.values(field) for field in _FIELDS}
        return {field: rows[at] for field, rows in lists.items() if rows is not None}

    def mask_bytes(self, index: int) -> bytes | None:
        """The mask's picture file, or None where the release has none."""
        path = self.root / self.split / "mask" / f"{int(self.groups[index]):08d}.jpg"
        return read_bytes(path, self.name(index)) if path.is_file() else None

    def mask(self, index: int, shape) -> np.ndarray | None:
        """(H, W) bool hand mask of a sample's unique hand, or None where the release has none."""
        data = self.mask_bytes(index)
        if data is None:
            return None
        mask = decode_picture(data, f"{self.name(index)} mask")
        if mask.shape[:2] != tuple(shape):
            raise SampleError(
                f"{self.name(index)}: its mask is {mask.shape[:2]}, its picture {tuple(shape)} "
                "(height, width)"
            )
        return mask[:, :, 0] > 127

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller.

        choose_reduction: a function of the labels and the picture's bytes that says 1, 2, 4 or 8.
        returns the sample, its labels in pixels of the whole picture, and the factor used.
        """
        data, labels = self.picture_bytes(index), self.labels(index)
        reduce = choose_reduction(labels, data) if choose_reduction else 1
        image = self._decode(data, index, self.picture_path(index), reduce)
        if self.masks and reduce == 1:
            labels["mask"] = self.mask(index, image.shape[:2])
        return self._make(image, index, **labels), reduce


def open_hands(place, split="training", model=None, on_error="raise") -> Reader:
    """A reader for whatever lies at a place.

    place: a folder in FreiHAND's or METRO's layout, of DexYCB, of HaMeR's shards or of YouTube 3D
    Hands; or one METRO ``.yaml``, YouTube ``.json`` or HaMeR ``.npz``, whose pictures are looked
    for in its own folder.   split: "training" or "evaluation", where the place holds both.
    model: MANO, the hand these data sets were labelled with; without it the files' own numbers
    alone are given.   on_error: "raise" or "skip".

    >>> open_hands("data/freihand", "evaluation").dataset  # doctest: +SKIP
    'FreiHAND'
    """
    place, options = Path(place).expanduser(), {"model": model, "on_error": on_error}
    if place.is_dir() and not (place / f"{split}_K.json").is_file():
        short = {"training": ("train",), "evaluation": ("test", "val")}.get(split, ())
        names = [f"{s}.yaml" for s in short] + [f"youtube_{s}.json" for s in short]
        place = next((place / name for name in names if (place / name).is_file()), place)
    if place.suffix in (".yaml", ".yml"):
        return FreiHandTsv(place, **options)
    if place.suffix == ".json":
        return _open_youtube(place, **options)
    if place.suffix == ".npz":
        return HamerList(place, place.parent, **options)
    if place.suffix == ".tar" or place.is_dir() and next(place.glob("*.tar"), None):
        return HamerShards(place, **options)
    if (place / "calibration").is_dir():
        return DexYcb(place, **options)
    posed = (place / f"{split}_mano.json").is_file()
    if (place / f"{split}_verts.json").is_file() or not posed:
        options["model"] = None
    return FreiHand(place, split, **options)


def _open_youtube(path, model, on_error) -> YouTubeHands:
    """Meshes in the built-in hand's order, as our own tools write them, need no MANO."""
    if model is None:
        from hand_lib.hand.model import HandModel

        builtin = HandModel.builtin()
        try:
            return YouTubeHands(path, path.parent, builtin, on_error)
        except WrongHandModel:
            pass
    return YouTubeHands(path, path.parent, model, on_error)


__all__ = [
    "DexYcb", "ERROR_MODES", "FREIHAND_CROP", "FREIHAND_VERSIONS", "FreiHand", "FreiHandTsv",
    "HamerList", "HamerShards", "Reader", "SampleError", "YouTubeHands", "load_pickle_safely",
    "open_hands", "write_freihand", "write_freihand_tsv",
]  # fmt: skip
