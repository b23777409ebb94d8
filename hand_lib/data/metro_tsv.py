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
import re
from pathlib import Path

import numpy as np
import yaml

from hand_lib.data import freihand
from hand_lib.data.sample import HandDataset, HandSample, as_dataset
from hand_lib.files import SampleError, cached_arrays, write_text, written_atomically
from hand_lib.hand.joints import fingertips_of

_WHERE = (
    "METRO's own download is closed; make the files from the original FreiHAND: "
    "python -m hand_lib.data.open <FreiHAND folder> <folder> --to tsv"
)
_HAS_JOINTS = re.compile(rb'"has_3d_joints"\s*:\s*+(?!0|false|null)')
_JOINTS = re.compile(rb'"3d_joints"\s*:\s*([^"]*)')


def line_starts(path: Path) -> np.ndarray:
    """(N + 1,) int64 byte at which each line of a file starts, and its end; found once and kept."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}. {_WHERE}")

    def find():
        with open(path, "rb") as file:
            return [np.cumsum([0, *map(len, file)])]

    return np.asarray(cached_arrays(path, ["lines"], find)[0])


class FreiHandTsv(HandDataset):
    """FreiHAND as METRO, Graphormer and Youtubehand read it.

    yaml_file: ``train.yaml`` or ``test.yaml``.   model: a MANO ``HandModel``
    (``flat_mean=False``): vertices and joints then come from pose and betas, as METRO's loss has
    them; without it there are no vertices, and joints are those of the file, with whatever
    fingertips its maker took.   on_error: "raise" or "skip".
    A test split's dummy pose counts as no truth. Crops default to each label's centre and scale.
    """

    dataset, mapped = "FreiHAND-TSV", ("maps",)

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
        pictures, labels = (self.path.parent / name for name in names)
        self.files = {"img": (pictures, line_starts(pictures))}
        self.files["label"] = labels, line_starts(labels)
        count, other = (len(starts) - 1 for _, starts in self.files.values())
        if count != other:
            raise ValueError(
                f"FreiHAND-TSV/{self.split}: {pictures} has {count} rows, {labels} {other}; one "
                "of them is cut off or of another set"
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

    @functools.cached_property
    def maps(self) -> dict[str, mmap.mmap]:
        """The two files' bytes."""
        found = {}
        for kind, (path, _starts) in self.files.items():
            with open(path, "rb") as file:
                found[kind] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return found

    def _cells(self, kind: str, index: int) -> tuple[str, bytes]:
        """Key and content of a sample's row.   kind: of file, "img" or "label"."""
        (path, starts), row = self.files[kind], self.lines[index]
        cells = self.maps[kind][starts[row] : starts[row + 1]].split(b"\t")
        if len(cells) != 2:
            raise SampleError(
                f"{self.name(index)}: row {row} of {path} has {len(cells)} columns, expected 2; "
                "the file is cut off or not tab-separated"
            )
        return cells[0].strip().decode(errors="replace"), cells[1].strip()

    def annotation(self, index: int) -> tuple[str, dict]:
        """Key and label object of a sample, as they are in the file."""
        key, text = self._cells("label", index)
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
        key, text = self._cells("img", index)
        theirs = self._cells("label", index)[0]
        if key != theirs:
            raise SampleError(
                f"{self.name(index)}: the picture's key is {key}, the label's {theirs}; the files "
                "belong to different sets"
            )
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            what = "the base64 of its row is cut off or damaged"
            raise SampleError(f"{self.name(index)}: {what}") from None

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
            fields["pose"] = pose = self._numbers(label, "pose", (48,), index)
            fields["betas"] = betas = self._numbers(label, "betas", (10,), index)
            if self.model is not None:
                posed = freihand.hand_from_model(self.model, pose, betas)
                fields["vertices"], fields["joints"] = posed
        return fields

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(N,) number of the unique hand: samples with equal joints are one hand."""
        hands, first = [], {}
        for index in range(len(self)):
            key, text = self._cells("label", index)
            joints = _HAS_JOINTS.search(text) and _JOINTS.search(text)
            hands.append(joints[1] if joints else key)
        return np.array([first.setdefault(hand, len(first)) for hand in hands], dtype=np.int64)

    @functools.cached_property
    def backgrounds(self) -> int:
        """Pictures of each hand, when all hands come once, then all again, and so on."""
        unique = int(self.groups.max()) + 1
        count, rest = divmod(len(self), unique)
        tiled = not rest and (self.groups == np.tile(self.groups[:unique], count)).all()
        return count if tiled and count <= 4 else 1


def tsv_label(sample: HandSample, share: float = freihand.FREIHAND_CROP) -> dict:
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
        "2d_joints": freihand.plain_numbers(flat),
        "has_2d_joints": int(sample.joints_2d is not None),
        "3d_joints": freihand.plain_numbers(solid),
        "has_3d_joints": int(sample.joints is not None),
        "hrnet_2d_joints": freihand.plain_numbers(np.zeros((21, 3), np.float32)),
        "has_hrnet_2d_joints": 0,
        "pose": freihand.plain_numbers(sample.pose) if posed else [1.0] * 48,
        "betas": freihand.plain_numbers(sample.betas) if posed else [1.0] * 10,
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
    with contextlib.ExitStack() as opened:
        files = {}
        for name, path in paths.items():
            temporary = opened.enter_context(written_atomically(path))
            files[name] = opened.enter_context(open(temporary, "wb"))
        for count, (sample, picture, shown) in enumerate(freihand.samples_to_write(data, progress)):
            key, label = f"{count:08d}.jpg", tsv_label(sample, shown)
            if sample.intrinsics is not None:
                rows = freihand.freihand_rows(sample, "").items()
                kept = {name: value for name, value in rows if name in ("K", "xyz")}
                label["freihand"] = {n: freihand.plain_numbers(kept[n]) for n in kept}
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
