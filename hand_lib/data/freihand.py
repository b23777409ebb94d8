"""FreiHAND in its own layout: the reader, and a writer that puts any hands into it."""

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np

from hand_lib.data.sample import HandDataset, HandSample, as_dataset
from hand_lib.files import (
    SampleError,
    check_folder,
    load_json_array,
    read_bytes,
    read_json,
    write_text,
    written_atomically,
)
from hand_lib.hand.joints import fingertips_of
from hand_lib.render.camera import project
from hand_lib.render.images import decode_picture

VERSIONS = ("gs", "hom", "sample", "auto")
"""Backgrounds of the training pictures; version v of hand i is picture i + v * (unique hands)."""

SPLITS = ("training", "evaluation")

FREIHAND_CROP = 180 / 224
"""Fraction of FreiHAND's picture that METRO and its followers cut out: 200 px times scale 0.9."""

JPEG_QUALITY = 95

_WHERE = (
    "Get FreiHAND from https://lmb.informatik.uni-freiburg.de/projects/freihand/ and unpack it "
    "there, or write a synthetic one with hand_lib.data.freihand.write_freihand."
)
_FIELDS = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (61,), "scale": ()}
_PRECISE = {"K": np.float64, "mano": np.float64, "scale": np.float64}
_PICTURE = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


class FreiHand(HandDataset):
    """The original FreiHAND release, or anything written in its layout.

    root: folder with ``training/``, ``training_K.json`` and so on.   split: "training" or
    "evaluation".   versions: names from ``VERSIONS``; all that are there when None.
    model: a MANO ``HandModel``: vertices then come from ``mano.json`` instead of ``verts.json``.
    masks: read the hand masks too.   on_error: "raise" or "skip" broken and missing pictures;
    the names of the latter are in ``missing``.
    The number of unique hands is the length of ``<split>_K.json``.
    """

    dataset = "FreiHAND"

    def __init__(
        self, root, split="training", versions=None, model=None, masks=False, on_error="raise"
    ):
        self.root = check_folder(root, self.dataset, _WHERE)
        if split not in SPLITS:
            raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
        self.split, self.model, self.masks, self.on_error = split, model, masks, on_error
        self.fingertips = fingertips_of(self.root)
        self._arrays: dict[str, np.ndarray | None] = {}
        self._check_lists()
        self._list_pictures(versions)
        note = self.root / f"{split}_box.json"
        self.crop_share = read_json(note) if note.is_file() else FREIHAND_CROP
        if not isinstance(self.crop_share, int | float) or not 0 < self.crop_share <= 4:
            raise ValueError(
                f"FreiHAND: {note} should hold a number, the fraction of the picture's side that "
                f"crops show, found {self.crop_share!r}"
            )

    def _check_lists(self) -> None:
        """Every list of this split is there that must be, and all are of one length."""
        if self.values("K") is None:
            inside = [path.parent for path in self.root.glob(f"*/{self.split}_K.json")]
            hint = f"It is one level down: pass {inside[0]}." if inside else _WHERE
            others = [split for split in SPLITS if (self.root / f"{split}_K.json").is_file()]
            hint = f"It holds the split {others[0]!r}." if others else hint
            names = ", ".join(sorted(path.name for path in self.root.iterdir())[:6])
            hint = f"There is: {names or 'nothing'}. {hint}"
            raise FileNotFoundError(f"FreiHAND: {self.root} has no {self.split}_K.json. {hint}")
        self.unique = len(self.values("K"))
        for field in _FIELDS:
            values = self.values(field)
            if values is not None and len(values) != self.unique:
                raise ValueError(
                    f"FreiHAND/{self.split}: {self.split}_{field}.json has {len(values)} entries, "
                    f"but {self.split}_K.json has {self.unique}; both must come from one release"
                )
        if self.split == "training" and self.values("xyz") is None:
            raise FileNotFoundError(f"FreiHAND: {self.root} has no training_xyz.json.")
        if self.model is not None and self.values("mano") is None:
            raise FileNotFoundError(
                f"FreiHAND: {self.root} has no {self.split}_mano.json, which vertices by the hand "
                "model need; leave out model to read verts.json"
            )

    def _list_pictures(self, versions) -> None:
        folder = check_folder(self.root / self.split / "rgb", self.dataset, _WHERE)
        found = (_PICTURE.fullmatch(name) for name in os.listdir(folder))
        names = {int(match[1]): match[0] for match in found if match}
        numbers = np.array(sorted(names), dtype=np.int64)
        counts = np.bincount(numbers // self.unique, minlength=4)
        allowed = VERSIONS if self.split == "training" else VERSIONS[:1]
        if versions is None:
            versions = [name for name, n in zip(allowed, counts, strict=False) if n] or allowed[:1]
        versions = (versions,) if isinstance(versions, str) else tuple(versions)
        if unknown := [name for name in versions if name not in allowed]:
            raise ValueError(
                f"FreiHAND/{self.split} has the versions {', '.join(allowed)}; asked for {unknown}"
            )
        if counts[len(allowed) :].any():
            raise ValueError(
                f"FreiHAND/{self.split}: picture {numbers[-1]:08d} has no label; "
                f"{self.split}_K.json has {self.unique} entries, so the pictures end at "
                f"{len(allowed) * self.unique - 1:08d}"
            )
        starts = [VERSIONS.index(name) * self.unique for name in versions]
        self.versions = versions
        self.pictures = np.concatenate([np.arange(self.unique) + start for start in starts])
        missing = ~np.isin(self.pictures, numbers)
        self.missing = [f"{number:08d}.jpg" for number in self.pictures[missing]]
        if self.missing:
            message = (
                f"FreiHAND/{self.split}[{int(np.argmax(missing))}]: {folder} lacks "
                f"{len(self.missing)} of {len(missing)} labelled pictures, first {self.missing[0]}"
            )
            if self.on_error == "raise":
                raise FileNotFoundError(f"{message}; unpack again, or pass on_error='skip'")
            self.pictures = self.pictures[~missing]
        self.backgrounds = 1 if self.missing else len(versions)
        self._names = np.array([names[number] for number in self.pictures.tolist()])
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
            path, name = self.root / f"{self.split}_{field}.json", f"FreiHAND/{self.split}/{field}"
            kind = _PRECISE.get(field, np.float32)
            there = path.is_file()
            found = load_json_array(path, _FIELDS[field], name, kind) if there else None
            self._arrays[field] = found
        return self._arrays[field]

    def picture_path(self, index: int) -> Path:
        """The file of a sample's picture."""
        return self.root / self.split / "rgb" / str(self._names[index])

    def jpeg(self, index: int) -> bytes:
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

    def complete(self, index: int, image, labels: dict) -> dict:
        """With the mask of the sample's unique hand, where it is asked for and there."""
        stem, group = Path(self.picture_path(index)).stem, int(self.groups[index])
        folder = self.root / self.split / "mask"
        names = [f"{group:0{len(stem)}d}{end}" for end in (".jpg", ".JPG", ".jpeg", ".png")]
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if not self.masks or path is None:
            return labels
        mask = decode_picture(read_bytes(path, self.name(index)), f"{self.name(index)} mask")
        if mask.shape[:2] != image.shape[:2]:
            raise SampleError(
                f"{self.name(index)}: its mask is {mask.shape[:2]}, its picture {image.shape[:2]} "
                "(height, width)"
            )
        return labels | {"mask": mask[:, :, 0] > 127}


def hand_from_model(model, pose, betas) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (21, 3), metres, as the model places one set of parameters.

    model: a ``HandModel``.   pose: (48,) axis-angle.   betas: (10,).
    """
    import torch  # readers of files alone need not wait for it

    pose, betas = (torch.as_tensor(np.array(x, dtype=np.float32))[None] for x in (pose, betas))
    with torch.no_grad():
        hand = model(pose, betas)
    return hand.vertices[0].numpy(), hand.joints[0].numpy()


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a JPEG with whole colour resolution."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
             cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def stored_or_encoded(data: HandDataset, index: int, sample: HandSample, quality: int) -> bytes:
    """The sample's JPEG: the data set's own file where it has one, encoded anew otherwise."""
    stored = data.jpeg(index) or b""
    return stored if stored[:2] == b"\xff\xd8" else encode_jpeg(sample.image, quality)


def shown_fraction(data: HandDataset, index: int, sample: HandSample) -> float:
    """Fraction of the picture's shorter side that crops of this data set show."""
    square = data.crop_square(index)
    return square[2] / min(sample.image.shape[:2]) if square else data.crop_share


def freihand_rows(sample: HandSample, split: str = "training") -> dict:
    """FreiHAND's JSON entries of a sample: K (3, 3), and where known xyz, verts, mano, scale."""
    if sample.intrinsics is None:
        raise ValueError(f"{sample.name}: FreiHAND's layout needs intrinsics, this sample has none")
    rows = {"K": sample.intrinsics}
    if sample.joints is None or sample.root is None:
        if split == "training":
            raise ValueError(f"{sample.name}: a training sample needs joints and root")
        return rows
    xyz = sample.joints.astype(float) + sample.root
    rows |= {"xyz": xyz.astype(np.float32), "scale": np.float32(np.linalg.norm(xyz[9] - xyz[10]))}
    if sample.vertices is not None:
        rows["verts"] = (sample.vertices.astype(float) + sample.root).astype(np.float32)
    if sample.pose is not None and sample.betas is not None:
        rows["mano"] = mano_vector(sample, xyz)[None]
    return rows


def mano_vector(sample: HandSample, xyz: np.ndarray) -> np.ndarray:
    """FreiHAND's 61 numbers: pose 48, betas 10, then u, v and scale that place joint 9.

    xyz: (21, 3) metres, camera frame.   The middle knuckle lies at ((u - cx), (v - cy), f) / scale.
    """
    intrinsics = sample.intrinsics.astype(float)
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    scale = focal / float(xyz[9, 2])
    uv = xyz[9, :2] * scale + intrinsics[:2, 2]
    return np.concatenate([sample.pose, sample.betas, uv, [scale]])


def plain_numbers(value):
    """Lists with as many digits as the type carries: a float32 reads back the same."""
    value = np.asarray(value)
    if value.dtype == np.float32:
        text = [float(str(number)) for number in value.ravel()]
        return np.array(text).reshape(value.shape).tolist()
    return value.tolist()


def write_freihand(
    folder, samples, split: str = "training", versions: int | None = None, quality=JPEG_QUALITY,
    progress=None,
) -> Path:  # fmt: skip
    """Write samples in FreiHAND's layout: ``<split>/rgb``, masks and ``<split>_*.json``.

    folder: made when absent; other splits in it stay.   samples: a data set or any iterable of
    right-handed ``HandSample``s with intrinsics.   split: "training" or "evaluation".   versions:
    how many backgrounds of each hand there are; samples then come background by background, the
    order FreiHAND's reader gives. None takes a reader's own.   progress: wraps the iterator, as
    ``tqdm`` does.   JPEG files that a reader holds are copied byte by byte. Where crops show
    another fraction of the picture than FreiHAND's, ``<split>_box.json`` says which.
    returns the folder. The label lists appear last, so a broken run leaves none.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
    data, folder = as_dataset(samples), Path(folder)
    total, versions = len(data), versions or data.backgrounds
    if total == 0:
        raise ValueError(f"no samples to write into {folder}")
    if total % versions:
        raise ValueError(f"{total} samples do not divide into {versions} versions of each hand")
    (folder / split / "rgb").mkdir(parents=True, exist_ok=True)
    lists, fraction, count = {}, FREIHAND_CROP, 0
    rows = data.numbered()
    for index, sample in progress(rows, total=total) if progress else rows:
        if sample.side != "right":
            raise ValueError(f"{sample.name}: FreiHAND's layout holds right hands; mirror this one")
        picture = folder / split / "rgb" / f"{count:08d}.jpg"
        picture.write_bytes(stored_or_encoded(data, index, sample, quality))
        count += 1
        if count > total // versions:
            continue
        if sample.mask is not None:
            mask = np.repeat(sample.mask[:, :, None].astype(np.uint8) * 255, 3, axis=2)
            (folder / split / "mask").mkdir(exist_ok=True)
            (folder / split / "mask" / picture.name).write_bytes(encode_jpeg(mask))
        entries = freihand_rows(sample, split)
        if count == 1:
            fraction = shown_fraction(data, index, sample)
            lists = {name: [] for name in entries}
        if entries.keys() != lists.keys():
            raise ValueError(
                f"{sample.name}: has {sorted(entries)}, the samples before {sorted(lists)}; "
                "write samples of one kind"
            )
        for name, value in entries.items():
            lists[name].append(value)
    if count == 0:
        raise ValueError(f"no samples to write into {folder}; all {total} were skipped")
    if count < total and versions > 1:
        raise ValueError(f"{total - count} of {total} samples were skipped, so the versions no "
                         "longer line up; write with versions=1")  # fmt: skip
    note = folder / f"{split}_box.json"
    note.unlink(missing_ok=True)
    if abs(fraction - FREIHAND_CROP) > 1e-6:
        write_text(note, json.dumps(fraction))
    for name, values in lists.items():
        with written_atomically(folder / f"{split}_{name}.json") as temporary:
            with open(temporary, "w", encoding="ascii") as file:  # entry by entry: it is long
                for number, value in enumerate(values):
                    file.write(("[" if number == 0 else ", ") + json.dumps(plain_numbers(value)))
                file.write("]")
    return folder
