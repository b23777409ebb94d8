"""FreiHAND in its own layout: the reader, and a writer that puts any hands into it."""

import functools
import json
import os
import re
from pathlib import Path

import numpy as np
import simplejpeg

from hand_lib import files
from hand_lib.data.sample import HandDataset, HandSample, as_dataset
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
_PICTURE = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


class FreiHand(HandDataset):
    """The original FreiHAND release, or anything written in its layout.

    root: folder with ``training/``, ``training_K.json`` and so on.   split: "training" or
    "evaluation".   versions: names from ``VERSIONS``; all that are there when None.
    model: a MANO ``HandModel``: vertices then come from ``mano.json`` instead of ``verts.json``.
    masks: read the hand masks too.   on_error: "raise" or "skip" broken and missing pictures, whose
    names are in ``missing``.   ``unique``: how many hands there are, by ``<split>_K.json``.
    """

    dataset, mapped = "FreiHAND", ("lists",)

    def __init__(
        self, root, split="training", versions=None, model=None, masks=False, on_error="raise"
    ):
        self.root = files.check_folder(root, self.dataset, _WHERE)
        if (self.root / "synthetic.json").is_file():  # drawn by data.synthetic in this layout
            self.dataset = "synthetic"
        if split not in SPLITS:
            raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
        self.split, self.model, self.masks, self.on_error = split, model, masks, on_error
        self.fingertips, self.unique = fingertips_of(self.root), len(self.lists["K"])
        self._list_pictures(versions)
        note = self.root / f"{split}_box.json"
        found = self.crop_share = files.read_json(note) if note.is_file() else FREIHAND_CROP
        if not isinstance(found, int | float) or not 0 < found <= 4:
            what = "a number, the fraction of the picture's side that crops show"
            raise ValueError(f"FreiHAND: {note} should hold {what}, found {found!r}")

    @functools.cached_property
    def lists(self) -> dict[str, np.ndarray]:
        """This split's lists by field, (N, ...): those that there are, all that must be."""
        needed = {"K": True, "xyz": self.split == "training" or self.model, "mano": self.model}
        found = {}
        for field, shape in _FIELDS.items():
            path, name = self.root / f"{self.split}_{field}.json", f"FreiHAND/{self.split}/{field}"
            if path.is_file():
                kind = np.float64 if field in ("K", "mano", "scale") else np.float32
                found[field] = files.load_json_array(path, shape, name, kind)
            elif needed.get(field):
                inside = (path.parent for path in self.root.glob(f"*/{path.name}"))
                hints = [f"It is one level down: pass {folder}." for folder in inside]
                there = (s for s in SPLITS if (self.root / f"{s}_{field}.json").is_file())
                hint = [*(f"It holds the split {split!r}." for split in there), *hints, _WHERE][0]
                names = ", ".join(sorted(os.listdir(self.root))[:6]) or "nothing"
                raise FileNotFoundError(
                    f"FreiHAND: {self.root} has no {path.name}. There is: {names}. {hint}"
                )
            count, unique = len(found.get(field, found["K"])), len(found["K"])
            if count != unique:
                raise ValueError(
                    f"FreiHAND/{self.split}: {path.name} has {count} entries, but "
                    f"{self.split}_K.json has {unique}; both must come from one release"
                )
        return found

    def _list_pictures(self, versions) -> None:
        folder, masks = (self.root / self.split / kind for kind in ("rgb", "mask"))
        names = _numbered(files.check_folder(folder, self.dataset, _WHERE))
        self._mask_names = _numbered(masks) if self.masks and masks.is_dir() else {}
        allowed = VERSIONS if self.split == "training" else VERSIONS[:1]
        last = max(names, default=-1) // self.unique
        if last >= len(allowed):
            raise ValueError(
                f"FreiHAND/{self.split}: picture {max(names):08d} has no label; "
                f"{self.split}_K.json has {self.unique} entries, so the pictures end at "
                f"{len(allowed) * self.unique - 1:08d}"
            )
        if versions is None:
            there = {number // self.unique for number in names} or {0}
            versions = [VERSIONS[n] for n in sorted(there)]
        self.versions = (versions,) if isinstance(versions, str) else tuple(versions)
        if unknown := [name for name in self.versions if name not in allowed]:
            raise ValueError(
                f"FreiHAND/{self.split} has the versions {', '.join(allowed)}; asked for {unknown}"
            )
        starts = [VERSIONS.index(name) * self.unique for name in self.versions]
        self.pictures = np.concatenate([np.arange(self.unique) + start for start in starts])
        known = np.isin(self.pictures, list(names))
        self.missing = [f"{number:08d}.jpg" for number in self.pictures[~known]]
        if self.missing and (self.on_error == "raise" or not known.any()):
            there = ", ".join(sorted(os.listdir(folder))[:4]) or "nothing"
            lost = f"{len(self.missing)} of {len(known)} labelled pictures, first {self.missing[0]}"
            raise FileNotFoundError(
                f"FreiHAND/{self.split}[{int(np.argmin(known))}]: {folder} lacks {lost} (there is: "
                f"{there}); unpack again, or pass on_error='skip'"
            )
        self.pictures = self.pictures[known]
        self.backgrounds = 1 if self.missing else len(self.versions)
        self._names = np.array([names[number] for number in self.pictures.tolist()])
        self.groups = self.pictures % self.unique

    def __len__(self) -> int:
        return len(self.pictures)

    def jpeg(self, index: int) -> bytes:
        path = self.root / self.split / "rgb" / str(self._names[index])
        return files.read_bytes(path, self.name(index))

    def labels(self, index: int) -> dict:
        at = int(self.groups[index])
        fields = {"intrinsics": self.lists["K"][at], "key": f"{int(self.pictures[index]):08d}"}
        xyz, verts, mano = map(self.lists.get, ("xyz", "verts", "mano"))
        posed = {} if mano is None else {"pose": mano[at, :48], "betas": mano[at, 48:58]}
        if xyz is not None:
            root = xyz[at, 0]
            fields |= {"joints": xyz[at] - root, "root": root}
            fields["joints_2d"] = project(xyz[at].astype(float), fields["intrinsics"])
            if self.model is not None:
                fields["vertices"] = hand_from_model(self.model, **posed)[0]
            elif verts is not None:
                fields["vertices"] = verts[at] - root
        if found := self._mask_names.get(at):
            path, name = self.root / self.split / "mask" / found, f"{self.name(index)} mask"
            fields["mask"] = decode_picture(files.read_bytes(path, name), name)[:, :, 0] > 127
        return fields | posed


def _numbered(folder) -> dict[int, str]:
    """Names of a folder's pictures by their number, whatever its digits and the ending are."""
    found = (_PICTURE.fullmatch(name) for name in os.listdir(folder))
    return {int(match[1]): match[0] for match in found if match}


def hand_from_model(model, pose, betas) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (21, 3) about the wrist, metres, of one set of parameters.

    model: a ``HandModel``.   pose: (48,) axis-angle.   betas: (10,).
    """
    import torch  # readers of files alone need not wait for it

    pose, betas = (torch.as_tensor(np.array(x, dtype=np.float32))[None] for x in (pose, betas))
    with torch.no_grad():
        hand = model(pose, betas)
    return tuple(
        (points - hand.joints[:, :1])[0].numpy() for points in (hand.vertices, hand.joints)
    )


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a JPEG with whole colour resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "444")


def samples_to_write(data: HandDataset, progress=None, quality: int = JPEG_QUALITY):
    """Right-handed samples in order, each with its JPEG and the fraction of it that crops show.

    The JPEG is the data set's own file where it has one.   progress: wraps an iterator, as ``tqdm``
    does.   raises ValueError where a left hand comes, or nothing at all.
    """
    rows, count = data.numbered(), 0
    for index, sample in progress(rows, total=len(data)) if progress else rows:
        if sample.side != "right":
            raise ValueError(f"{sample.name}: the layout holds right hands; mirror this one")
        stored, count = data.jpeg(index) or b"", count + 1
        jpeg = stored if stored[:2] == b"\xff\xd8" else encode_jpeg(sample.image, quality)
        height, width = sample.image.shape[:2]
        yield sample, jpeg, data.square(index, width, height)[2] / min(width, height)
    if count == 0:
        raise ValueError(f"no samples to write; {len(data.skipped)} were skipped")


def freihand_rows(sample: HandSample, split: str = "training") -> dict:
    """FreiHAND's JSON entries of a sample: K (3, 3), and where known xyz, verts, mano, scale.

    mano is (1, 61): pose 48, betas 10, then u, v and scale, which place the middle knuckle at
    ((u - cx), (v - cy), f) / scale.
    """
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
        camera = sample.intrinsics.astype(float)
        scale = (camera[0, 0] + camera[1, 1]) / 2 / xyz[9, 2]
        uv = xyz[9, :2] * scale + camera[:2, 2]
        rows["mano"] = np.concatenate([sample.pose, sample.betas, uv, [scale]])[None]
    return rows


def plain_numbers(value):
    """Lists with as many digits as the type carries: a float32 reads back the same."""
    value = np.asarray(value)
    return (value.astype(str).astype(float) if value.dtype == np.float32 else value).tolist()


def write_freihand(
    folder, samples, split: str = "training", quality=JPEG_QUALITY, progress=None
) -> Path:
    """Write samples in FreiHAND's layout: ``<split>/rgb``, masks and ``<split>_*.json``.

    folder: made when absent.   samples: a data set or any iterable of right-handed samples; several
    ``backgrounds`` of a hand share one label.   split: "training" or "evaluation".   quality: of
    the JPEGs that the data set has no file of; files are copied byte by byte.   progress: wraps the
    iterator, as ``tqdm`` does.   ``<split>_box.json`` says what crops show, if not what FreiHAND's.
    returns the folder. The label lists appear last, so a broken run leaves none.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
    data, folder = as_dataset(samples), Path(folder)
    unique = len(data) // data.backgrounds
    (folder / split / "rgb").mkdir(parents=True, exist_ok=True)
    lists, written = {}, samples_to_write(data, progress, quality)
    for count, (sample, jpeg, shown) in enumerate(written):
        name = f"{count:08d}.jpg"
        (folder / split / "rgb" / name).write_bytes(jpeg)
        if count >= unique:
            continue
        if sample.mask is not None:
            mask = np.repeat(sample.mask[:, :, None].astype(np.uint8) * 255, 3, axis=2)
            (folder / split / "mask").mkdir(exist_ok=True)
            (folder / split / "mask" / name).write_bytes(encode_jpeg(mask))
        entries = freihand_rows(sample, split)
        if count == 0:
            fraction, lists = shown, {name: [] for name in entries}
        if entries.keys() != lists.keys():
            raise ValueError(
                f"{sample.name}: has {sorted(entries)}, the samples before {sorted(lists)}; "
                "write samples of one kind"
            )
        for name, value in entries.items():
            lists[name].append(value)
    if count + 1 < len(data) and data.backgrounds > 1:
        raise ValueError(
            f"{len(data) - count - 1} of {len(data)} samples were skipped, so the backgrounds no "
            "longer line up; backgrounds = 1 gives each picture a label of its own"
        )
    (note := folder / f"{split}_box.json").unlink(missing_ok=True)
    if abs(fraction - FREIHAND_CROP) > 1e-6:
        files.write_text(note, json.dumps(fraction))
    for name, values in lists.items():
        path = folder / f"{split}_{name}.json"
        with files.written_atomically(path) as temporary, open(temporary, "w") as file:
            for number, value in enumerate(values):  # entry by entry: it is long
                file.write(("[" if number == 0 else ", ") + json.dumps(plain_numbers(value)))
            file.write("]")
    return folder
