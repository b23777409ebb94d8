"""METRO's FreiHAND layout: a YAML that names tab-separated files, each with its line index.

A line index that is missing, older than its file or another file's is built anew. What our writer
adds to the layout (``freihand`` in a label, ``vertices`` and ``mask`` files in the YAML) other
programs ignore; with it a conversion to this layout and back loses nothing.
"""

import base64
import binascii
import json
import mmap
import os
from pathlib import Path

import numpy as np
import yaml

from hand_lib.data.reading import FREIHAND_VERSIONS, Reader, hand_from_model
from hand_lib.data.sample import HandSample
from hand_lib.files import SampleError, find_cache, store_cache
from hand_lib.hand.joints import fingertips_of

_WHERE = (
    "METRO's own download is closed; make the files from the original FreiHAND: "
    "python -m hand_lib.data.convert <FreiHAND folder> <folder> --to tsv"
)


def find_lines(path: Path) -> np.ndarray:
    """(N,) int64 byte offset of every line of a file, found by reading it through."""
    starts, base = [np.zeros(1, np.int64)], 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 24):
            starts.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + (base + 1))
            base += len(chunk)
    offsets = np.concatenate(starts)
    return offsets[offsets < base]


def write_lineidx(path: Path, offsets: np.ndarray) -> None:
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
        self.rebuilt = False
        self.offsets = self._read_index()
        if self.offsets is None:
            self.offsets, self.rebuilt = find_lines(self.path), True
            try:
                write_lineidx(self.path, self.offsets)
            except OSError:
                pass  # a read-only folder: the index stays in memory

    def _read_index(self) -> np.ndarray | None:
        """The offsets in the ``.lineidx``, or None where they cannot be this file's."""
        index, status = self.path.with_suffix(".lineidx"), self.path.stat()
        if not index.is_file() or index.stat().st_mtime_ns < status.st_mtime_ns:
            return None
        try:
            offsets = np.array(index.read_bytes().split(), dtype=np.int64)
        except ValueError:
            return None
        if len(offsets) == 0 or status.st_size == 0:
            return offsets if len(offsets) == status.st_size == 0 else None
        if offsets[0] != 0 or (np.diff(offsets) <= 0).any() or offsets[-1] >= status.st_size:
            return None
        picked = offsets[np.unique(np.linspace(0, len(offsets) - 1, 256).astype(int))]
        picked = picked[picked > 0]
        data = self._data()
        if any(data[at - 1] != 10 for at in picked.tolist()):
            return None
        end = data.find(b"\n", int(offsets[-1]))
        return offsets if end in (-1, status.st_size - 1) else None

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
        end = len(data) if end < 0 else end
        following = int(self.offsets[number + 1]) if number + 1 < len(self) else len(data)
        if (start and data[start - 1] != 10) or following not in (end + 1, end):
            raise SampleError(
                f"{name}: row {number} of {self.path} is not where its .lineidx says; delete the "
                ".lineidx, it will be built anew"
            )
        return [cell.strip() for cell in data[start:end].split(b"\t")]


class FreiHandTsv(Reader):
    """FreiHAND as METRO, Graphormer and Youtubehand read it.

    yaml_file: ``train.yaml`` or ``test.yaml``, composite ones too.   model: a MANO ``HandModel``
    (``flat_mean=False``): vertices and joints then come from pose and betas, as METRO's loss has
    them; without it vertices are there only if our writer put them there, and joints are those of
    the file, with whatever fingertips its maker took.   on_error: "raise" or "skip".
    A test split's dummy pose counts as no truth. Crops default to each label's centre and scale.
    """

    dataset = "FreiHAND-TSV"

    def __init__(self, yaml_file, model=None, on_error="raise"):
        self._start(on_error)
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
        self.meshes, self.masks = (self._open(config.get(name)) for name in ("vertices", "mask"))
        for others in (self.annotations, self.sizes):
            for one, other in zip(self.pictures, others, strict=bool(others)):
                if len(one) != len(other):
                    raise ValueError(
                        f"FreiHAND-TSV/{self.split}: {one.path} has {len(one)} rows, {other.path} "
                        f"{len(other)}; one of them is cut off or belongs to another set"
                    )
        self.lines = self._read_lines(config.get("linelist"))
        self._groups = None

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
            rows = [[int(cell) for cell in line.split()] for line in path.read_text().splitlines()
                    if line.strip()]  # fmt: skip
            lines = np.array([row if len(row) == 2 else [0, *row] for row in rows], dtype=np.int64)
            lines = lines.reshape(len(rows), 2)
        except ValueError:
            raise ValueError(f"FreiHAND-TSV: {path} needs one or two integers a row") from None
        counts = np.array([len(file) for file in self.pictures])
        source, row = lines.T
        bad = (source < 0) | (source >= len(counts)) | (row < 0)
        bad |= row >= counts[np.where(bad, 0, source)]
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

    def picture_bytes(self, index: int) -> bytes:
        """The picture's JPEG bytes."""
        return _decode64(self._cells(self.pictures, index)[-1], self.name(index))

    def frame(self, index: int) -> tuple[float, float, float]:
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
        if "vertices" not in fields and self.meshes and "root" in fields:
            vertices = self._mesh(index, label)
            fields |= {} if vertices is None else {"vertices": vertices - fields["root"]}
        return fields

    def _mesh(self, index, label) -> np.ndarray | None:
        cells = self._side_row(self.meshes, index, label)
        vertices = np.frombuffer(_decode64(cells[-1], self.name(index)), "<f4")
        if vertices.size % 3:
            raise SampleError(f"{self.name(index)}: {vertices.size} numbers are no vertices")
        return vertices.reshape(-1, 3) if vertices.size else None

    def _side_row(self, files, index, label) -> list[bytes]:
        return files[int(self.lines[index, 0])].row(int(label.get("unique", -1)), self.name(index))

    def raw_labels(self, index: int) -> dict | None:
        """FreiHAND's own numbers where our writer kept them: K, xyz, verts, mano, scale."""
        label = self.annotation(index)[1]
        if not label.get("freihand"):
            return None
        kept = {name: np.array(value) for name, value in label["freihand"].items()}
        if self.meshes and "xyz" in kept and (vertices := self._mesh(index, label)) is not None:
            kept["verts"] = vertices
        return kept

    def mask_bytes(self, index: int) -> bytes | None:
        """The mask's picture file, or None."""
        if not self.masks:
            return None
        cells = self._side_row(self.masks, index, self.annotation(index)[1])
        return _decode64(cells[-1], self.name(index)) or None

    @property
    def groups(self) -> np.ndarray:
        """(N,) number of the unique hand: samples with equal joints are one hand."""
        if self._groups is None:
            path = self.annotations[0].path
            status = path.stat()
            key = f"groups-{self.split}-{len(self)}-{status.st_size:x}-{status.st_mtime_ns:x}.npy"
            cached = find_cache(path, key)
            if cached is not None:
                self._groups = np.load(cached)
            else:
                first: dict[str, int] = {}
                numbers = [first.setdefault(text, len(first)) for text in self._signatures()]
                self._groups = np.array(numbers, dtype=np.int64)
                if len(self) > 5000:
                    store_cache(path, key, self._groups)
        return self._groups

    def _signatures(self) -> list[str]:
        signatures = []
        for index in range(len(self)):
            key, label = self.annotation(index)
            known = label.get("has_3d_joints")
            signatures.append(json.dumps(label.get("3d_joints")) if known else key)
        return signatures

    @property
    def versions(self) -> tuple[str, ...]:
        """Backgrounds, when all hands come once on the first, then all on the second, and so on."""
        groups = self.groups
        unique = int(groups.max()) + 1
        count, rest = divmod(len(groups), unique)
        tiled = not rest and count <= 4 and (groups == np.tile(groups[:unique], count)).all()
        return FREIHAND_VERSIONS[: count if tiled else 1]

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller; see ``FreiHand.read``."""
        key = self._cells(self.pictures, index)[0].decode(errors="replace")
        labels = self.labels(index)
        if key != labels["key"]:
            raise SampleError(
                f"{self.name(index)}: the picture's key is {key}, the label's {labels['key']}; the "
                "files belong to different sets or a .lineidx to another file"
            )
        data = self.picture_bytes(index)
        reduce = choose_reduction(labels, data) if choose_reduction else 1
        image = self._decode(data, index, key, reduce)
        if self.sizes and reduce == 1:
            expected = self._size(index)
            if expected != image.shape[:2]:
                raise SampleError(
                    f"{self.name(index)}: the hw file says {expected} (height, width), picture "
                    f"{key} is {image.shape[:2]}"
                )
        return self._make(image, index, **labels), reduce

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


_PARAMETERS = (("pose", (48,)), ("betas", (10,)))


def _decode64(text: bytes, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SampleError(f"{name}: the base64 of its row is cut off or damaged") from None
