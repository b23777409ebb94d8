"""2-D hand keypoints from other people's detectors: OpenPose, MediaPipe, tables and arrays.

Every reader returns ``Keypoints``, one row per hand, in the FreiHAND order and in pixels. NaN means
not seen. What is broken is left out and named in ``problems``, frames without a hand are named in
``empty``; the rest goes on.

>>> found = read_keypoints("openpose_out")            # or read_keypoints("mediapipe", frames)
>>> found.points.shape, found.sides, found.problems, found.empty
"""

import csv
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hand_lib.files import natural_key, read_json
from hand_lib.fitting.detection import find_landmarks
from hand_lib.hand.joints import JOINT_NAMES


@dataclass
class Keypoints:
    """Detected hands, one row each."""

    points: np.ndarray  # (N, 21, 2) px
    confidence: np.ndarray  # (N, 21), 0 where not seen
    frames: np.ndarray  # (N,) int64, index of the frame
    sides: list  # N of "right" / "left"
    names: list  # N file or frame names
    problems: list  # strings: files or entries left out, and why
    empty: list = field(default_factory=list)  # names of frames in which no hand was found

    def __len__(self):
        return len(self.points)


class _Collector:
    def __init__(self):
        self.rows, self.problems, self.frames = [], [], []  # names of all frames that were read

    def add(self, hand, frame, side, name):
        """One hand: (21, 3) px and confidence; a joint with a NaN is one that was not seen."""
        hand = np.where(np.isnan(hand).any(1, keepdims=True), 0.0, hand)
        seen = hand[:, 2] > 0
        if (hand[:, 2] < 0).any():
            self.problems.append(f"{name}: {side} hand has a confidence below 0")
        elif np.isinf(hand[seen]).any():
            self.problems.append(f"{name}: {side} hand has coordinates that are not finite")
        elif seen.any():
            self.rows.append((hand, frame, side, name))

    def finish(self, source, size=None) -> Keypoints:
        """All hands, in pixels.   source: named in errors.   size: (width, height) of the pictures.

        Coordinates of 0 to 1 of the picture are recognised, because no hand in pixels is smaller
        than two of them; without the size, or from -1 to 1, they are refused.
        """
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * 4
        hands, frames, sides, names = map(list, columns)
        hands = np.array(hands, float).reshape(-1, 21, 3)
        points, confidence = hands[..., :2], np.minimum(hands[..., 2], 1.0)  # OpenPose: above 1
        seen = points[confidence > 0]
        if len(seen) and np.abs(seen).max() <= 2.0:
            if size is None or seen.min() < -0.25:
                raise ValueError(
                    f"{source}: coordinates go from {seen.min():.2f} to {seen.max():.2f}, which "
                    f"are fractions of the picture, not pixels; multiply them by its width and "
                    f"height (OpenPose: --keypoint_scale 0)"
                )
            points = points * size - 0.5
        with_hands = set(names)
        empty = [name for name in self.frames if name not in with_hands]
        frames = np.array(frames, np.int64)
        return Keypoints(points, confidence, frames, sides, names, self.problems, empty)


def from_arrays(
    points, confidence=None, side="right", frames=None, size=None, source="points"
) -> Keypoints:
    """Keypoints of plain arrays.

    points: (N, 21, 2) px or (N, 21, 3) with confidence last; NaN where not seen.   confidence:
    (N, 21), 0 to 1.   side: one for all, or N of them.   frames: (N,) numbers of the frames,
    default 0 to N - 1.   size: (width, height) of the pictures, for points in fractions of them.
    source: a name for errors.
    """
    points = np.asarray(points)
    shapes = [(len(points), 21, 2), (len(points), 21, 3)] if points.ndim else []
    if points.dtype.kind not in "fiu" or points.shape not in shapes:
        raise ValueError(
            f"{source}: expected numbers (N, 21, 2) or (N, 21, 3), found {points.dtype} "
            f"{points.shape}; array.astype(float) makes numbers of objects"
        )
    points = points.astype(float)
    if confidence is None:
        confidence = points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2])
    confidence = np.asarray(confidence, float)
    if confidence.shape != points.shape[:2]:
        raise ValueError(
            f"{source}: expected confidence {points.shape[:2]}, found {confidence.shape}"
        )
    _check_confidence(confidence, source)
    sides = [side] * len(points) if isinstance(side, str) else [str(one).lower() for one in side]
    frames = np.arange(len(points)) if frames is None else np.asarray(frames)
    if len(sides) != len(points) or set(sides) - {"right", "left"} or len(frames) != len(points):
        raise ValueError(
            f"{source}: expected {len(points)} sides ('right' or 'left') and frames, found "
            f"{len(sides)} ({sorted(set(sides))}) and {len(frames)}"
        )
    into = _Collector()
    hands = np.concatenate([points[..., :2], confidence[..., None]], 2)
    for i, hand in enumerate(hands):
        into.frames.append(f"row {i}")
        into.add(hand, int(frames[i]), sides[i], f"row {i}")
    return into.finish(source, size)


def _check_confidence(confidence, source) -> None:
    low, high = np.nanmin(confidence, initial=0), np.nanmax(confidence, initial=0)
    if low < 0 or high > 1.5:
        raise ValueError(
            f"{source}: confidence should go from 0 to 1, found {low:.3g} to {high:.3g}; a third "
            "column that is a depth (MediaPipe's z) has to go, percent be divided by 100"
        )


def read_openpose(place, size=None) -> Keypoints:
    """OpenPose's JSON files, one per frame: a folder of them, or the file of a single frame.

    The frame index is the last number in the file's name. All people and both hands are returned.
    size: (width, height) of the pictures, for --keypoint_scale 3.
    """
    place, files = Path(place), [Path(place)]
    if not place.is_file():
        files = sorted(place.glob("*.json"), key=lambda path: natural_key(path.name))
    if not files:
        raise FileNotFoundError(
            f"{place}: no .json files here; run OpenPose with --hand --write_json {place.name}"
        )
    into = _Collector()
    for order, path in enumerate(files):
        digits = re.findall(r"\d+", path.stem)
        frame = int(digits[-1]) if digits and place.is_dir() else order
        try:
            people = read_json(path)["people"]
            if not isinstance(people, list) or not all(isinstance(p, dict) for p in people):
                raise TypeError("people is no list of objects")
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error).replace(str(path), "it")
            into.problems.append(f"{path.name}: not OpenPose's JSON ({reason})")
            continue
        into.frames.append(path.name)
        for person, side in itertools.product(people, ("left", "right")):
            try:
                hand = np.array(person.get(f"hand_{side}_keypoints_2d") or [], float).ravel()
                fault = f"has {len(hand)} numbers, expected 63 (21 joints)"
            except (ValueError, TypeError):
                hand, fault = np.zeros(1), "is not a list of numbers"
            if len(hand) == 63:
                into.add(hand.reshape(21, 3), frame, side, path.name)
            elif len(hand):
                into.problems.append(f"{path.name}: {side} hand {fault}")
    return into.finish(place, size)


def detect_mediapipe(frames) -> Keypoints:
    """Let MediaPipe find the two surest hands of every frame, where it is installed.

    frames: ``Frames`` (a video, a folder) or pictures (H, W, 3) uint8 RGB of any sizes.
    """
    into = _Collector()
    for number in range(len(frames)):
        name = frames.name(number) if hasattr(frames, "name") else f"frame {number}"
        try:
            picture = frames[number]
        except (ValueError, OSError) as error:
            into.problems.append(f"{name}: left out, {error}")
            continue
        into.frames.append(name)
        for points, side, score in find_landmarks(picture)[:2]:
            into.add(np.c_[points, np.full(21, score)], number, side, name)
    return into.finish("MediaPipe")


_DEEPLABCUT = ("scorer", "individuals", "bodyparts", "coords")
TABLE_COLUMNS = (
    "the columns x0, y0 to x20, y20 (or wrist_x, wrist_y and so on, by the names of joints), where "
    "known c0 to c20, frame and side; or DeepLabCut's rows of body parts and coords"
)


def read_table(path, size=None) -> Keypoints:
    """A CSV table with a row per hand, or DeepLabCut's, whose header has three or four rows.

    It has ``TABLE_COLUMNS``; body parts carry the names of ``JOINT_NAMES`` or numbers. Joints
    without a column, and empty cells, are not seen.   size: as in ``from_arrays``.
    """
    path = Path(path)
    content = path.read_bytes()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # Excel's "Unicode text"
    lines = content.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines() or [""]
    first, separator = lines[0], max(",;\t|", key=lines[0].count)
    rows = [[*map(str.strip, row)] for row in csv.reader(lines, delimiter=separator)]
    rows = [row for row in rows if any(row)]
    point = "." if separator == "," else ","  # of decimals, as some countries write them
    titles = {row[0].lower(): row for row in rows[:4] if row[0].lower() in _DEEPLABCUT}
    owners, names = titles.get("individuals", [""] * len(first)), rows[0] if rows else []
    if titles:
        parts, coordinates = (titles.get(name, [])[1:] for name in ("bodyparts", "coords"))
        names = ["frame", *map("_".join, zip(parts, coordinates, strict=False))]
    columns = [_column(name) for name in names]
    known = {column for column in columns if isinstance(column[0], int)}
    if sum((joint, "y") in known for joint, what in known if what == "x") < 2:
        raise ValueError(f"{path}: expected {TABLE_COLUMNS}; found {first.strip()[:80]!r}")
    into, sure = _Collector(), not any(what == "c" for _, what in known)
    for number, row in enumerate(rows[max(len(titles), 1) :]):
        name = f"{path.name}, row {number + 1}"
        hands, side, frame = {}, "right", number
        for owner, (joint, what), cell in zip(owners, columns, row, strict=False):
            if joint == "frame":
                frame = int((re.findall(r"\d+", cell) or [number])[-1])
            elif joint == "side":
                side = cell.lower()
            elif joint is not None:
                hand = hands.setdefault(owner, np.full((21, 3), [np.nan, np.nan, float(sure)]))
                try:
                    hand[joint, "xyc".index(what)] = float(cell.replace(point, ".") or "nan")
                except ValueError:
                    into.problems.append(f"{name}: {cell!r} is not a number")
        into.frames.append(name)
        for owner, hand in hands.items():
            hand_side = "left" if "left" in owner.lower() else side
            if hand_side in ("right", "left"):
                into.add(hand, frame, hand_side, name)
            else:
                into.problems.append(f"{name}: side {side!r}, expected right or left")
    if strangers := [n for n, (joint, _) in zip(names, columns, strict=True) if joint is None]:
        into.problems.append(f"{path.name}: columns left out: {', '.join(strangers)}")
    _check_confidence([row[0][:, 2] for row in into.rows], path)
    return into.finish(path, size)


def _column(name: str) -> tuple:
    """(joint, "x", "y" or "c") of a column's name, ("frame", ""), ("side", "") or (None, "")."""
    name = re.sub(r"[ .]", "_", name.strip().lower())
    kinds = {"frame": "frame", "image": "frame", "side": "side", "hand": "side"}
    kinds |= {"": "frame", "_": "frame"}  # pandas' index, and the folders of DeepLabCut's
    if name in kinds:
        return kinds[name], ""
    what = r"(x|y|c|conf|confidence|likelihood|score)"
    if match := re.fullmatch(rf"{what}_?(\d+)", name):
        what, joint = match.groups()
    elif match := re.fullmatch(rf"(.+?)_{what}", name):
        joint, what = match.groups()
    else:
        return None, ""
    numbers = {name: number for number, name in enumerate(JOINT_NAMES)}
    numbers |= {str(number): number for number in range(21)}
    return numbers.get(joint), what if what in ("x", "y") else "c"


def read_keypoints(place, frames=None) -> Keypoints:
    """Keypoints by what their place looks like.

    place: a folder or a .json of OpenPose; .csv (``read_table``); .npy of (N, 21, 3) with
    confidence last, or a .json of nested lists like that; .npz with such ``points`` and, if known,
    ``confidence``, ``sides`` and ``frames`` (see ``from_arrays``); or "mediapipe" to detect in
    ``frames``.   frames: ``Frames``; their size turns coordinates in fractions of the picture into
    pixels.
    """
    if str(place) == "mediapipe":
        if frames is None:
            raise ValueError("to detect with MediaPipe, give the frames")
        return detect_mediapipe(frames)
    path, size = Path(place), getattr(frames, "size", None)
    kind = path.suffix.lower()
    if path.is_dir():
        return read_openpose(path, size)
    if kind not in (".json", ".csv", ".npy", ".npz"):
        raise ValueError(
            f"{path}: expected a folder or .json of OpenPose, .csv, .npy, .npz or 'mediapipe'"
            + ("; save DeepLabCut's table as CSV" if kind in (".h5", ".hdf5") else "")
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of keypoints")
    if kind == ".csv":
        return read_table(path, size)
    try:
        if kind == ".json":
            content = read_json(path)
            if isinstance(content, dict) and "people" in content:
                return read_openpose(path, size)
            arrays = {"points": np.array(content, float)}
        else:
            content = np.load(path, allow_pickle=False)
            arrays = {"points": content} if kind == ".npy" else dict(content)
    except (ValueError, TypeError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"{path}: neither OpenPose's JSON nor numbers (N, 21, 2 or 3); array.astype(float) "
            f"makes numbers, and array.astype(str) sides, of objects ({error})"
        ) from None
    if "points" not in arrays:
        raise ValueError(f"{path}: expected an array named points, found {sorted(arrays)}")
    sides = np.array(arrays.get("sides", "right")).tolist()  # a list, or one for all
    known = {name: arrays[name] for name in ("confidence", "frames") if name in arrays}
    return from_arrays(arrays["points"], side=sides, size=size, source=path, **known)
