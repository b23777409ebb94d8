"""METRO's FreiHAND layout: a YAML that names tab-separated files, each with its line index.

Their line indices are written for other programs; reading finds the lines itself. Beside METRO's
fields our labels hold the camera and the joints in its frame (``freihand``), which other programs
ignore.
"""

import base64
import binascii
import contextlib
import functools
import json
import mmap
from pathlib import Path

import numpy as np
import simdjson
import yaml

from hand_lib.data.freihand import (
    FREIHAND_CROP,
    freihand_rows,
    hand_from_model,
    plain_numbers,
    samples_to_write,
)
from hand_lib.data.sample import HandDataset, HandSample, as_dataset
from hand_lib.files import SampleError, cached_arrays, write_text, written_atomically
from hand_lib.hand.joints import fingertips_of

_WHERE = (
    "METRO's own download is closed; make the files from the original FreiHAND: "
    "python -m hand_lib.data.open <FreiHAND folder> <folder> --to tsv"
)


class TsvFile:
    """Rows of a tab-separated file by number.   path: the file; its lines are found once.

    offsets: (N,) int64 byte at which each line starts.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {self.path}. {_WHERE}")
        (self.offsets,) = cached_arrays(self.path, ["lines"], lambda: [self._line_starts()])

    def _line_starts(self) -> np.ndarray:
        starts, at, size = [], 0, self.path.stat().st_size
        while at < size:
            starts.append(at)
            at = self._data.find(b"\n", at) + 1 or size
        return np.array(starts, np.int64)

    @functools.cached_property
    def _data(self) -> mmap.mmap:
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self):  # a loading process maps the file for itself
        return {name: value for name, value in self.__dict__.items() if name != "_data"}

    def row(self, number: int, name: str) -> list[bytes]:
        """The two cells of one row, key and content.   name: what errors call the sample."""
        start = int(self.offsets[number])
        end = self._data.find(b"\n", start)
        cells = self._data[start : end if end >= 0 else None].split(b"\t")
        if len(cells) != 2:
            raise SampleError(
                f"{name}: row {number} of {self.path} has {len(cells)} columns, expected 2; the "
                "file is cut off or not tab-separated"
            )
        return [cell.strip() for cell in cells]


class FreiHandTsv(HandDataset):
    """FreiHAND as METRO, Graphormer and Youtubehand read it.

    yaml_file: ``train.yaml`` or ``test.yaml``.   model: a MANO ``HandModel``
    (``flat_mean=False``): vertices and joints then come from pose and betas, as METRO's loss has
    them; without it there are no vertices, and joints are those of the file, with whatever
    fingertips its maker took.   on_error: "raise" or "skip".
    A test split's dummy pose counts as no truth. Crops default to each label's centre and scale.
    """

    dataset = "FreiHAND-TSV"

    def __init__(self, yaml_file, model=None, on_error="raise"):
        self.on_error = on_error
        self.path = Path(yaml_file).expanduser()
        if not self.path.is_file():
            what = "is a folder; name the .yaml in it" if self.path.is_dir() else "does not exist"
            raise FileNotFoundError(f"FreiHAND-TSV: {self.path} {what}. {_WHERE}")
        self.split, self.model = self.path.stem, model
        self.fingertips = fingertips_of(model) if model else self.fingertips
        try:
            config = yaml.safe_load(self.path.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"FreiHAND-TSV: {self.path} is not YAML ({error})") from None
        names = [config.get(k) for k in ("img", "label")] if isinstance(config, dict) else [None]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"FreiHAND-TSV: {self.path} should map img and label to a file each")
        self.pictures, self.annotations = (TsvFile(self.path.parent / name) for name in names)
        count, other = len(self.pictures.offsets), len(self.annotations.offsets)
        if count != other:
            raise ValueError(
                f"FreiHAND-TSV/{self.split}: {self.pictures.path} has {count} rows, "
                f"{self.annotations.path} {other}; one of them is cut off or of another set"
            )
        self.lines = np.arange(count)  # (N,) the row of each sample
        if "linelist" in config:
            self.lines = self._read_lines(self.path.parent / str(config["linelist"]), count)

    def _read_lines(self, path: Path, count: int) -> np.ndarray:
        try:
            lines = np.loadtxt(path, np.int64, ndmin=1)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path} names {path}, which is missing") from None
        except ValueError:
            lines = np.empty((0, 0))
        if lines.ndim != 1:
            raise ValueError(f"FreiHAND-TSV: {path} needs one whole number a row")
        if len(bad := np.flatnonzero((lines < 0) | (lines >= count))):
            raise ValueError(
                f"FreiHAND-TSV/{self.split}[{bad[0]}]: {path} points to row {lines[bad[0]]}, but "
                f"the files have {count} rows; one is cut off"
            )
        return lines

    def __len__(self) -> int:
        return len(self.lines)

    def _cells(self, file: TsvFile, index: int) -> list[bytes]:
        return file.row(int(self.lines[index]), self.name(index))

    def annotation(self, index: int) -> tuple[str, dict]:
        """Key and label object of a sample, as they are in the file."""
        key, text = self._cells(self.annotations, index)
        key = key.decode(errors="replace")
        try:
            label = json.loads(text)
            return key, dict(label[0] if isinstance(label, list) else label)
        except (ValueError, TypeError, IndexError) as error:
            raise SampleError(
                f"{self.name(index)}: the label of {key!r} is not whole JSON with one object "
                f"({error})"
            ) from None

    def _numbers(self, label, name, shape, index):
        try:
            value = np.asarray(label.get(name), dtype=np.float64)
        except (TypeError, ValueError):
            value = np.empty(0)
        if value.shape not in (shape, (1, *shape)):
            wanted = f"label field {name} should have shape {shape}, found {value.shape}"
            raise SampleError(f"{self.name(index)}: {wanted}")
        return value.reshape(shape)

    def jpeg(self, index: int) -> bytes:
        key, text = self._cells(self.pictures, index)
        theirs = self._cells(self.annotations, index)[0]
        if key != theirs:
            raise SampleError(
                f"{self.name(index)}: the picture's key is {key.decode(errors='replace')}, the "
                f"label's {theirs.decode(errors='replace')}; the files belong to different sets"
            )
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            message = f"{self.name(index)}: the base64 of its row is cut off or damaged"
            raise SampleError(message) from None

    def crop_square(self, index: int) -> tuple[float, float, float]:
        """Centre (x, y) and side in pixels that the label asks for: side = 200 scale."""
        label = self.annotation(index)[1]
        x, y = (self._numbers(label, "center", (2,), index) - 0.5).tolist()
        return x, y, 200 * float(self._numbers(label, "scale", (), index))

    def labels(self, index: int) -> dict:
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
            posed = [self._numbers(label, *one, index) for one in (("pose", (48,)), ("betas", (10,)))]
            fields["pose"], fields["betas"] = posed
            if self.model is not None:
                fields["vertices"], fields["joints"] = hand_from_model(self.model, *posed)
        return fields

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the unique hand: samples with equal joints are one hand."""
        parser, first = simdjson.Parser(), {}
        hands = (self._joints_or_key(parser, index) for index in range(len(self)))
        return np.array([first.setdefault(hand, len(first)) for hand in hands], dtype=np.int64)

    def _joints_or_key(self, parser, index: int) -> bytes:
        key, text = self._cells(self.annotations, index)
        try:
            label = parser.parse(text)
            label = label[0] if isinstance(label, simdjson.Array) else label
            known = label["has_3d_joints"]
            return bytes(label["3d_joints"].as_buffer(of_type="d")) if known else key
        except (ValueError, LookupError, TypeError, AttributeError):
            return key  # reading the sample says what is wrong

    @functools.cached_property
    def backgrounds(self) -> int:
        """Pictures of each hand, when all hands come once, then all again, and so on."""
        unique = int(self.groups.max()) + 1
        count, rest = divmod(len(self), unique)
        tiled = not rest and (self.groups == np.tile(self.groups[:unique], count)).all()
        return count if tiled and count <= 4 else 1


def tsv_label(sample: HandSample, share: float = FREIHAND_CROP) -> dict:
    """METRO's label object of a sample; unknown truth is written the way its test split has it.

    share: of the picture that the crop shows.
    """
    height, width = sample.image.shape[:2]
    flat, solid = np.zeros((21, 3), np.float32), np.zeros((21, 4), np.float32)
    if sample.joints_2d is not None:
        flat[:, :2], flat[:, 2] = sample.joints_2d, sample.valid_2d
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


def write_freihand_tsv(folder, samples, split: str = "train", progress=None) -> Path:
    """Write samples in METRO's layout, ready for METRO, Graphormer, Youtubehand and ourselves.

    folder: made when absent.   samples: a data set or any iterable of right-handed samples.
    split: stem of the files, "train" or "test".   progress: wraps the iterator, as ``tqdm`` does.
    JPEG files that a reader holds are copied byte by byte; METRO has no place for vertices and
    masks.   returns the path of the YAML, which appears last.
    """
    data, folder = as_dataset(samples), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{split}.{name}.tsv" for name in ("img", "label", "hw", "linelist")}
    offsets = {name: [] for name in paths}
    with contextlib.ExitStack() as whole, contextlib.ExitStack() as opened:
        files = {}
        for name, path in paths.items():
            temporary = whole.enter_context(written_atomically(path))
            files[name] = opened.enter_context(open(temporary, "wb"))
        for count, (sample, picture, shown) in enumerate(samples_to_write(data, progress)):
            key, label = f"{count:08d}.jpg", tsv_label(sample, shown)
            if sample.intrinsics is not None:
                kept = freihand_rows(sample, "")
                label["freihand"] = {n: plain_numbers(kept[n]) for n in ("K", "xyz") if n in kept}
            height, width = sample.image.shape[:2]
            cells = {
                "img": (key, base64.b64encode(picture).decode()),
                "label": (key, json.dumps([label])),
                "hw": (key, json.dumps([{"height": height, "width": width}])),
                "linelist": (str(count),),
            }
            for name, file in files.items():
                offsets[name].append(file.tell())
                file.write("\t".join(cells[name]).encode("ascii") + b"\n")
    for name, path in paths.items():
        write_text(path.with_suffix(".lineidx"), "".join(f"{at}\n" for at in offsets[name]))
    lines = [f"{name}: {path.name}\n" for name, path in paths.items()]
    write_text(folder / f"{split}.yaml", "".join(lines))
    return folder / f"{split}.yaml"
