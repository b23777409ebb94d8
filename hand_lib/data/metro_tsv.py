"""METRO's FreiHAND layout: a YAML that names tab-separated files, each with its line index.

A line index that is missing, older than its file or another file's is built anew. Beside METRO's
fields our labels hold the camera and the wrist (``freihand``), which other programs ignore.
"""

import base64
import binascii
import functools
import json
import mmap
import os
from pathlib import Path

import numpy as np
import yaml

from hand_lib.data.freihand import (
    FREIHAND_CROP,
    JPEG_QUALITY,
    freihand_rows,
    hand_from_model,
    plain_numbers,
    shown_fraction,
    stored_or_encoded,
)
from hand_lib.data.sample import ERROR_MODES, HandDataset, HandSample, as_dataset
from hand_lib.files import SampleError, find_cache, store_cache
from hand_lib.hand.joints import fingertips_of

_WHERE = (
    "METRO's own download is closed; make the files from the original FreiHAND: "
    "python -m hand_lib.data.open <FreiHAND folder> <folder> --to tsv"
)
_PARAMETERS = (("pose", (48,)), ("betas", (10,)))


def find_lines(path: Path) -> np.ndarray:
    """(N,) int64 byte offset of every line of a file, found by reading it through."""
    starts, base = [np.zeros(1, np.int64)], 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 24):
            starts.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + (base + 1))
            base += len(chunk)
    offsets = np.concatenate(starts)
    return offsets[offsets < base]


def write_lineidx(path: Path, offsets) -> None:
    """Put the line index of ``path`` beside it (``X.tsv`` -> ``X.lineidx``)."""
    target = Path(path).with_suffix(".lineidx")
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    partial.write_text("".join(f"{offset}\n" for offset in offsets), encoding="ascii", newline="\n")
    partial.replace(target)


class TsvFile:
    """Rows of a tab-separated file by number.   path: the file; its index lies beside it."""

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {self.path}. {_WHERE}")
        self._map, self._pid = None, None
        self.offsets = self._read_index()
        self.rebuilt = self.offsets is None
        if self.rebuilt:
            self.offsets = find_lines(self.path)
            try:
                write_lineidx(self.path, self.offsets)
            except OSError:
                pass  # a read-only folder: the index stays in memory

    def _read_index(self) -> np.ndarray | None:
        """The offsets in the ``.lineidx``, or None where they cannot be this file's."""
        index, status = self.path.with_suffix(".lineidx"), self.path.stat()
        try:
            offsets = np.array(index.read_bytes().split(), dtype=np.int64)
        except (OSError, ValueError):
            return None
        if index.stat().st_mtime_ns < status.st_mtime_ns or len(offsets) == 0 or offsets[0] != 0:
            return None
        if (np.diff(offsets) <= 0).any() or offsets[-1] >= status.st_size:
            return None
        data, picked = self._data(), offsets[1 :: max(len(offsets) // 256, 1)]
        end = data.find(b"\n", int(offsets[-1]))
        fits = end in (-1, status.st_size - 1) and all(data[at - 1] == 10 for at in picked.tolist())
        return offsets if fits else None

    def _data(self):
        if self._pid != os.getpid():
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._pid = os.getpid()
        return self._map

    def __getstate__(self):
        return self.__dict__ | {"_map": None, "_pid": None}

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, number: int, name: str) -> list[bytes]:
        """Cells of one row, stripped of white space.   name: what errors call the sample."""
        if not 0 <= number < len(self):
            raise SampleError(f"{name}: {self.path} has {len(self)} rows, asked for row {number}")
        data, start = self._data(), int(self.offsets[number])
        end = data.find(b"\n", start)
        return [cell.strip() for cell in data[start : end if end >= 0 else None].split(b"\t")]


class FreiHandTsv(HandDataset):
    """FreiHAND as METRO, Graphormer and Youtubehand read it.

    yaml_file: ``train.yaml`` or ``test.yaml``, composite ones too.   model: a MANO ``HandModel``
    (``flat_mean=False``): vertices and joints then come from pose and betas, as METRO's loss has
    them; without it there are no vertices, and joints are those of the file, with whatever
    fingertips its maker took.   on_error: "raise" or "skip".
    A test split's dummy pose counts as no truth. Crops default to each label's centre and scale.
    """

    dataset = "FreiHAND-TSV"

    def __init__(self, yaml_file, model=None, on_error="raise"):
        if on_error not in ERROR_MODES:
            raise ValueError(f"on_error must be one of {ERROR_MODES}, found {on_error!r}")
        self.on_error = on_error
        self.path = Path(yaml_file).expanduser()
        if not self.path.is_file():
            what = "is a folder; name the .yaml in it" if self.path.is_dir() else "does not exist"
            raise FileNotFoundError(f"FreiHAND-TSV: {self.path} {what}. {_WHERE}")
        self.split, self.model = self.path.stem, model
        self.fingertips = fingertips_of(model) if model else "as the file's maker took them"
        try:
            config = yaml.safe_load(self.path.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"FreiHAND-TSV: {self.path} is not YAML ({error})") from None
        if not isinstance(config, dict) or not {"img", "label"} <= config.keys():
            raise ValueError(
                f"FreiHAND-TSV: {self.path} should map at least img and label to file names"
            )
        self.pictures, self.annotations, self.sizes = (
            self._open(config.get(name)) for name in ("img", "label", "hw")
        )
        for others in (self.annotations, self.sizes):
            for one, other in zip(self.pictures, others, strict=bool(others)):
                if len(one) != len(other):
                    raise ValueError(
                        f"FreiHAND-TSV/{self.split}: {one.path} has {len(one)} rows, {other.path} "
                        f"{len(other)}; one of them is cut off or belongs to another set"
                    )
        self.lines = self._read_lines(config.get("linelist"))

    def _open(self, names) -> list[TsvFile]:
        names = [] if names is None else [names] if isinstance(names, str) else names
        return [TsvFile(self.path.parent / name) for name in names]

    def _read_lines(self, linelist) -> np.ndarray:
        """(N, 2) source file and row of each sample."""
        if linelist is None:
            return np.concatenate([
                np.stack([np.full(len(f), i), np.arange(len(f))], axis=1)
                for i, f in enumerate(self.pictures)
            ])  # fmt: skip
        path = self.path.parent / linelist
        if not path.is_file():
            raise FileNotFoundError(f"FreiHAND-TSV: {self.path} names {path}, which is missing")
        try:
            rows = [[int(cell) for cell in line.split()] for line in path.read_text().splitlines()]
            lines = [row if len(row) == 2 else [0, *row] for row in rows if row]
            lines = np.array(lines, dtype=np.int64).reshape(len(lines), 2)
        except ValueError:
            raise ValueError(f"FreiHAND-TSV: {path} needs one or two integers a row") from None
        counts = np.array([len(file) for file in self.pictures])
        source, row = lines.T
        known = np.isin(source, np.arange(len(counts)))
        bad = ~known | (row < 0) | (row >= counts[np.where(known, source, 0)])
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"FreiHAND-TSV/{self.split}[{at}]: {path} points to row {row[at]} of file "
                f"{source[at]}, but the files have {counts.tolist()} rows; one is cut off"
            )
        return lines

    def __len__(self) -> int:
        return len(self.lines)

    def _cells(self, files, index: int, columns: int = 2) -> list[bytes]:
        source, row = (int(number) for number in self.lines[index])
        cells = files[source].row(row, self.name(index))
        if len(cells) < columns:
            raise SampleError(
                f"{self.name(index)}: row {row} of {files[source].path} has {len(cells)} columns, "
                f"expected {columns}; the file is cut off or not tab-separated"
            )
        return cells

    def annotation(self, index: int) -> tuple[str, dict]:
        """Key and label object of a sample, as they are in the file."""
        key, text = self._cells(self.annotations, index)[:2]
        key = key.decode(errors="replace")
        try:
            label = json.loads(text)
        except ValueError as error:
            raise SampleError(
                f"{self.name(index)}: the label of {key!r} is not whole JSON ({error})"
            ) from None
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        if not isinstance(label, dict):
            raise SampleError(f"{self.name(index)}: expected a list with one label object")
        return key, label

    def _numbers(self, label, name, shape, index):
        value = label.get(name)
        try:
            value = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            value = np.empty(0)
        if value.shape == (1, *shape):
            value = value[0]
        if value.shape != shape:
            raise SampleError(
                f"{self.name(index)}: label field {name} should have shape {shape}, found "
                f"{value.shape}"
            )
        return value

    def jpeg(self, index: int) -> bytes:
        """The picture's JPEG bytes."""
        text = self._cells(self.pictures, index)[-1]
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            message = f"{self.name(index)}: the base64 of its row is cut off or damaged"
            raise SampleError(message) from None

    def crop_square(self, index: int) -> tuple[float, float, float]:
        """Centre (x, y) and side in pixels that the label asks for: side = 200 scale."""
        label = self.annotation(index)[1]
        x, y = self._numbers(label, "center", (2,), index)
        side = 200 * float(self._numbers(label, "scale", (), index))
        return float(x) - 0.5, float(y) - 0.5, side

    def labels(self, index: int) -> dict:
        """All of a sample but its picture, as ``make_sample`` takes it; no truth, no entry."""
        key, label = self.annotation(index)
        fields, kept = {"key": key}, label.get("freihand", {})
        if "K" in kept:
            fields["intrinsics"] = self._numbers(kept, "K", (3, 3), index)
        if label.get("has_2d_joints"):
            joints_2d = self._numbers(label, "2d_joints", (21, 3), index)
            fields |= {"joints_2d": joints_2d[:, :2], "valid_2d": joints_2d[:, 2] > 0}
        if label.get("has_3d_joints"):
            joints = self._numbers(label, "3d_joints", (21, 4), index)[:, :3]
            fields["joints"] = joints - joints[0]
        if "xyz" in kept:
            fields["root"] = self._numbers(kept, "xyz", (21, 3), index)[0]
        if label.get("has_smpl") and label.get("has_3d_joints"):  # a test split's pose is a dummy
            pose, betas = (self._numbers(label, *what, index) for what in _PARAMETERS)
            fields |= {"pose": pose, "betas": betas}
            if self.model is not None:
                vertices, joints = hand_from_model(self.model, pose, betas)
                fields |= {"vertices": vertices - joints[0], "joints": joints - joints[0]}
        return fields

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the unique hand: samples with equal joints are one hand."""
        path = self.annotations[0].path
        status = path.stat()
        key = f"groups-{self.split}-{len(self)}-{status.st_size:x}-{status.st_mtime_ns:x}.npy"
        cached = find_cache(path, key)
        if cached is not None:
            return np.load(cached)
        first: dict[str, int] = {}
        groups = np.array([first.setdefault(self._signature(i), len(first))
                           for i in range(len(self))], dtype=np.int64)  # fmt: skip
        if len(self) > 5000:
            store_cache(path, key, groups)
        return groups

    def _signature(self, index: int) -> str:
        key, label = self.annotation(index)
        return json.dumps(label.get("3d_joints")) if label.get("has_3d_joints") else key

    @property
    def backgrounds(self) -> int:
        """Pictures of each hand, when all hands come once, then all again, and so on."""
        unique = int(self.groups.max()) + 1
        count, rest = divmod(len(self), unique)
        tiled = not rest and (self.groups == np.tile(self.groups[:unique], count)).all()
        return count if tiled and count <= 4 else 1

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller; see ``HandDataset.read``."""
        keys = [self._cells(files, index)[0].decode(errors="replace")
                for files in (self.pictures, self.annotations)]  # fmt: skip
        if keys[0] != keys[1]:
            raise SampleError(
                f"{self.name(index)}: the picture's key is {keys[0]}, the label's {keys[1]}; the "
                "files belong to different sets or a .lineidx to another file"
            )
        return super().read(index, choose_reduction)

    def complete(self, index: int, image, labels: dict) -> dict:
        """The labels, once the picture is as large as the hw file says."""
        if self.sizes and self._size(index) != image.shape[:2]:
            raise SampleError(
                f"{self.name(index)}: the hw file says {self._size(index)} (height, width), "
                f"picture {labels['key']} is {image.shape[:2]}"
            )
        return labels

    def _size(self, index: int) -> tuple[int, int]:
        text = self._cells(self.sizes, index)[1]
        try:
            if text.startswith(b"["):
                size = json.loads(text)[0]
                return int(size["height"]), int(size["width"])
            height, width = text.split()
            return int(height), int(width)
        except (ValueError, KeyError, IndexError, TypeError):
            raise SampleError(f"{self.name(index)}: cannot read picture size {text!r}") from None


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
        write_lineidx(self.path, self.offsets)


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
        "2d_joints": plain_numbers(flat),
        "has_2d_joints": int(sample.joints_2d is not None),
        "3d_joints": plain_numbers(solid),
        "has_3d_joints": int(sample.joints is not None),
        "hrnet_2d_joints": plain_numbers(np.zeros((21, 3), np.float32)),
        "has_hrnet_2d_joints": 0,
        "pose": plain_numbers(sample.pose) if posed else [1.0] * 48,
        "betas": plain_numbers(sample.betas) if posed else [1.0] * 10,
        "has_smpl": int(posed or sample.joints is None),
    }


def write_freihand_tsv(
    folder, samples, split: str = "train", quality=JPEG_QUALITY, progress=None
) -> Path:
    """Write samples in METRO's layout, ready for METRO, Graphormer, Youtubehand and ourselves.

    folder: made when absent.   samples: a data set or any iterable of right-handed samples.
    split: stem of the files, "train" or "test".   progress: wraps the iterator, as ``tqdm`` does.
    JPEG files that a reader holds are copied byte by byte. Beside METRO's fields a label keeps the
    intrinsics and joints of the camera's frame under ``freihand``; METRO has no place for vertices
    and masks.   returns the path of the YAML, which appears last.
    """
    data, folder = as_dataset(samples), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("img", "label", "hw", "linelist")
    files = {name: _Tsv(folder / f"{split}.{name}.tsv") for name in names}
    count, finished = 0, False
    try:
        rows = data.numbered()
        for index, sample in progress(rows, total=len(data)) if progress else rows:
            if sample.side != "right":
                raise ValueError(f"{sample.name}: METRO's layout holds right hands; mirror it")
            key, label = f"{count:08d}.jpg", tsv_label(sample, shown_fraction(data, index, sample))
            if sample.intrinsics is not None:
                kept = freihand_rows(sample, "")
                label["freihand"] = {n: plain_numbers(kept[n]) for n in ("K", "xyz") if n in kept}
            height, width = sample.image.shape[:2]
            picture = stored_or_encoded(data, index, sample, quality)
            files["img"].append(key, base64.b64encode(picture).decode())
            files["hw"].append(key, json.dumps([{"height": height, "width": width}]))
            files["label"].append(key, json.dumps([label]))
            files["linelist"].append(str(count))
            count += 1
        if not count:
            raise ValueError(f"no samples to write into {folder}")
        finished = True
    finally:
        for each in files.values():
            each.close(finished)
    lines = [f"{name}: {split}.{name}.tsv\n" for name in names]
    (folder / f"{split}.yaml").write_text("".join(lines), encoding="ascii")
    return folder / f"{split}.yaml"
