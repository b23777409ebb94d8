"""Samples out to disk in the layouts that others read: FreiHAND's release and METRO's TSV."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np

from hand_lib.data.reading import FREIHAND_CROP
from hand_lib.data.sample import HandSample

JPEG_QUALITY = 95
JPEG_FLAGS = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
              cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a JPEG with whole colour resolution."""
    flags = [JPEG_FLAGS[0], quality, *JPEG_FLAGS[2:]]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def picture_as_jpeg(dataset, sample: HandSample, quality: int = JPEG_QUALITY) -> bytes:
    """The sample's JPEG: the reader's own bytes where it has them, encoded anew otherwise."""
    if hasattr(dataset, "picture_bytes"):
        data = dataset.picture_bytes(sample.index)
        if data[:2] == b"\xff\xd8":
            return data
    return encode_jpeg(sample.image, quality)


def origin(samples):
    """The reader behind parts of it: what a sample's ``index`` counts in."""
    while hasattr(samples, "whole"):
        samples = samples.whole
    return samples


def crop_share(dataset, sample: HandSample) -> float:
    """Share of the picture that crops of this data set show, as its reader frames them."""
    shorter = min(sample.image.shape[:2])
    if hasattr(dataset, "frame"):
        return float(dataset.frame(sample.index)[2]) / shorter
    box = getattr(dataset, "box", "image")
    return float(box) if isinstance(box, int | float) else 1.0


def absolute(sample: HandSample, points: np.ndarray) -> np.ndarray:
    """Wrist-relative points of a sample (N, 3) -> (N, 3) float32 metres in the camera frame."""
    return (points.astype(np.float64) + sample.root).astype(np.float32)


def mano_vector(sample: HandSample, xyz: np.ndarray) -> np.ndarray:
    """FreiHAND's 61 numbers: pose 48, betas 10, then u, v and scale that place joint 9.

    xyz: (21, 3) metres, camera frame.   The middle knuckle lies at ((u - cx), (v - cy), f) / scale.
    """
    intrinsics = sample.intrinsics.astype(float)
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    scale = focal / float(xyz[9, 2])
    uv = xyz[9, :2] * scale + intrinsics[:2, 2]
    return np.concatenate([sample.pose, sample.betas, uv, [scale]])


class _JsonList:
    """A JSON list that grows entry by entry and appears under its name only when it is whole."""

    def __init__(self, path: Path):
        self.path, self.partial = path, path.with_suffix(".json.part")
        self.file = open(self.partial, "w", encoding="ascii")
        self.count = 0

    def append(self, value) -> None:
        self.file.write("[" if self.count == 0 else ", ")
        self.file.write(json.dumps(_plain(value)))
        self.count += 1

    def close(self, keep: bool) -> None:
        self.file.write("]" if self.count else "[]")
        self.file.close()
        if keep and self.count:
            self.partial.replace(self.path)
        else:
            self.partial.unlink()


def _plain(value):
    """Numbers with as many digits as their type carries: a float32 reads back the same."""
    value = np.asarray(value)
    if value.dtype == np.float32:
        text = [float(str(number)) for number in value.ravel()]
        return np.array(text).reshape(value.shape).tolist()
    return value.tolist()


def freihand_rows(dataset, sample: HandSample, split: str) -> dict:
    """FreiHAND's JSON entries of a sample: as its reader has them, or computed from the sample.

    returns K (3, 3), and where known xyz (21, 3), verts (V, 3), mano (1, 61), scale ().
    """
    raw = dataset.raw_labels(sample.index) if hasattr(dataset, "raw_labels") else None
    if raw is not None:
        return raw | ({"mano": np.reshape(raw["mano"], (1, 61))} if "mano" in raw else {})
    entries = {}
    if sample.intrinsics is None:
        raise ValueError(f"{sample.name}: FreiHAND's layout needs intrinsics, this sample has none")
    entries["K"] = sample.intrinsics
    if sample.joints is not None and sample.root is not None:
        xyz = absolute(sample, sample.joints)
        entries["xyz"] = xyz
        entries["scale"] = np.float32(np.linalg.norm(xyz[9] - xyz[10]))
        if sample.vertices is not None:
            entries["verts"] = absolute(sample, sample.vertices)
        if sample.pose is not None and sample.betas is not None:
            entries["mano"] = mano_vector(sample, xyz.astype(float))[None]
    elif split == "training":
        raise ValueError(f"{sample.name}: a training sample needs joints and root")
    return entries


def write_freihand(
    folder, samples, split: str = "training", versions: int | None = None, quality=JPEG_QUALITY,
    progress=None,
) -> Path:  # fmt: skip
    """Write samples in FreiHAND's layout: ``<split>/rgb``, masks and ``<split>_*.json``.

    folder: made when absent; other splits in it stay.   samples: a reader, list or iterator of
    right-handed ``HandSample``s with intrinsics.   split: "training" or "evaluation".   versions:
    how many backgrounds of each hand there are; samples then come background by background, the
    order FreiHAND's reader gives. None takes a reader's own, else 1.   progress: wraps the
    iterator, as ``tqdm`` does.   JPEG files that a reader holds are copied byte by byte. Where
    crops show another share of the picture than FreiHAND's, ``<split>_box.json`` says which.
    returns the folder. The label lists appear last, so a broken run leaves none.
    """
    if split not in ("training", "evaluation"):
        raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
    if versions is None:
        versions = len(getattr(samples, "versions", "1"))
    folder = Path(folder)
    (folder / split / "rgb").mkdir(parents=True, exist_ok=True)
    total = len(samples) if hasattr(samples, "__len__") else None
    if versions > 1 and (total is None or total % versions):
        raise ValueError(f"{total} samples do not divide into {versions} versions of each hand")
    unique = total // versions if versions > 1 else None
    lists: dict[str, _JsonList] = {}
    whole, source = False, origin(samples)
    try:
        for number, sample in enumerate(progress(samples) if progress else samples):
            _write_picture(folder, split, number, sample, source, quality)
            if unique is not None and number >= unique:
                continue
            mask = mask_as_jpeg(source, sample)
            if mask is not None:
                (folder / split / "mask").mkdir(exist_ok=True)
                (folder / split / "mask" / f"{number:08d}.jpg").write_bytes(mask)
            entries = freihand_rows(source, sample, split)
            if number == 0:
                share = crop_share(source, sample)
                lists = {name: _JsonList(folder / f"{split}_{name}.json") for name in entries}
            if entries.keys() != lists.keys():
                raise ValueError(
                    f"{sample.name}: has {sorted(entries)}, the samples before {sorted(lists)}; "
                    "write samples of one kind"
                )
            for name, value in entries.items():
                lists[name].append(value)
        if unique is not None and number + 1 != total:
            raise ValueError(f"{total - number - 1} of {total} samples were skipped, so the "
                             "versions no longer line up; write with versions=1")
        if lists:
            note = folder / f"{split}_box.json"
            note.unlink(missing_ok=True)
            if abs(share - FREIHAND_CROP) > 1e-6:
                note.write_text(json.dumps(share), encoding="ascii")
        whole = True
    finally:
        for each in lists.values():
            each.close(whole)
    if not lists:
        raise ValueError(f"no samples to write into {folder}")
    return folder


def _write_picture(folder, split, number, sample, source, quality) -> None:
    if sample.side != "right":
        raise ValueError(f"{sample.name}: FreiHAND's layout holds right hands; mirror this one")
    data = picture_as_jpeg(source, sample, quality)
    (folder / split / "rgb" / f"{number:08d}.jpg").write_bytes(data)


def mask_as_jpeg(dataset, sample: HandSample) -> bytes | None:
    """The mask's JPEG: the reader's own bytes where it has them; None without a mask."""
    if hasattr(dataset, "mask_bytes"):
        return dataset.mask_bytes(sample.index)
    if sample.mask is None:
        return None
    return encode_jpeg(np.repeat(sample.mask[:, :, None].astype(np.uint8) * 255, 3, axis=2))


class _Tsv:
    """Tab-separated rows with their line index, under their names only when whole."""

    def __init__(self, path: Path):
        self.path, self.partial = path, path.with_suffix(".tsv.part")
        self.file, self.offsets = open(self.partial, "wb"), []

    def append(self, *cells: str) -> None:
        self.offsets.append(self.file.tell())
        self.file.write("\t".join(cells).encode("ascii") + b"\n")

    def close(self, keep: bool) -> None:
        self.file.close()
        if not keep:
            self.partial.unlink()
            return
        self.partial.replace(self.path)
        index = "".join(f"{offset}\n" for offset in self.offsets)
        self.path.with_suffix(".lineidx").write_text(index, encoding="ascii", newline="\n")


def tsv_label(sample: HandSample, share: float = FREIHAND_CROP) -> dict:
    """METRO's label object of a sample; unknown truth is written the way its test split has it.

    share: of the picture that the crop shows.
    """
    height, width = sample.image.shape[:2]
    flat = np.zeros((21, 3), np.float32)
    if sample.joints_2d is not None:
        flat[:, :2], flat[:, 2] = sample.joints_2d, sample.valid_2d
    solid = np.zeros((21, 4), np.float32)
    if sample.joints is not None:
        solid[:, :3], solid[:, 3] = sample.joints, 1
    posed = sample.pose is not None and sample.betas is not None
    return {
        "center": [width / 2, height / 2],
        "scale": min(width, height) * share / 200,
        "2d_joints": _plain(flat),
        "has_2d_joints": int(sample.joints_2d is not None),
        "3d_joints": _plain(solid),
        "has_3d_joints": int(sample.joints is not None),
        "hrnet_2d_joints": _plain(np.zeros((21, 3), np.float32)),
        "has_hrnet_2d_joints": 0,
        "pose": _plain(sample.pose) if posed else [1.0] * 48,
        "betas": _plain(sample.betas) if posed else [1.0] * 10,
        "has_smpl": int(posed or sample.joints is None),
    }


def write_freihand_tsv(
    folder, samples, split: str = "train", quality=JPEG_QUALITY, progress=None
) -> Path:
    """Write samples in METRO's layout, ready for METRO, Graphormer, Youtubehand and ourselves.

    folder: made when absent.   samples: a reader, list or iterator of right-handed samples.
    split: stem of the files, "train" or "test".   progress: wraps the iterator, as ``tqdm`` does.
    JPEG files that a reader holds are copied byte by byte. Beside METRO's fields a label keeps
    FreiHAND's own rows under ``freihand`` (K, xyz, mano, scale) and the number of its unique hand,
    by which the files ``vertices`` (float32, base64) and ``mask`` are indexed.
    returns the path of the YAML, which appears last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _Tsv(folder / f"{split}.{name}.tsv")
             for name in ("img", "label", "hw", "linelist", "vertices", "mask")}  # fmt: skip
    whole, seen, source = False, {}, origin(samples)
    try:
        for number, sample in enumerate(progress(samples) if progress else samples):
            if sample.side != "right":
                raise ValueError(f"{sample.name}: METRO's layout holds right hands; mirror it")
            key, label = f"{number:08d}.jpg", tsv_label(sample, crop_share(source, sample))
            rows = freihand_rows(source, sample, "") if sample.intrinsics is not None else {}
            label["freihand"] = {name: _plain(rows[name]) for name in rows if name != "verts"}
            groups = getattr(source, "groups", None)
            group = number if groups is None else int(groups[sample.index])
            if group not in seen:
                seen[group] = len(seen)
                vertices = np.asarray(rows.get("verts", np.empty(0)), dtype="<f4").tobytes()
                files["vertices"].append(key, base64.b64encode(vertices).decode())
                mask = mask_as_jpeg(source, sample) or b""
                files["mask"].append(key, base64.b64encode(mask).decode())
            height, width = sample.image.shape[:2]
            picture = picture_as_jpeg(source, sample, quality)
            files["img"].append(key, base64.b64encode(picture).decode())
            files["hw"].append(key, json.dumps([{"height": height, "width": width}]))
            files["label"].append(key, json.dumps([label | {"unique": seen[group]}]))
            files["linelist"].append(str(number))
        if not seen:
            raise ValueError(f"no samples to write into {folder}")
        whole = True
    finally:
        for each in files.values():
            each.close(whole)
    lines = [f"{name}: {split}.{name}.tsv\n" for name in files]
    (folder / f"{split}.yaml").write_text("".join(lines), encoding="ascii")
    return folder / f"{split}.yaml"
