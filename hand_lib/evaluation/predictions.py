"""The predictions file: FreiHAND's ``pred.json``, read, written and explained, and the truth.

It is a list of two lists, joints (N, 21, 3) and vertices (N, V, 3), metres, camera frame, in the
order of the evaluation set, without keys. The truth is ``<set>_xyz.json`` and ``<set>_verts.json``.
"""

import contextlib
import json
import zipfile
from pathlib import Path

import numpy as np
import simdjson
from scipy.spatial import cKDTree

from hand_lib import metrics
from hand_lib.files import written_atomically
from hand_lib.hand.joints import JOINT_SOURCES, convert_joints

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Metres in one unit of length that predictions come in."""


def read_predictions(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (N, 21, 3) and vertices (N, V, 3) of anyone's ``pred.json``, in the file's units.

    path: the file or a zip of it. Vertices are None if the file has none.
    Wrong nesting or unequal hands raise ValueError naming the hand.
    """
    path = Path(path)
    data, name = path.read_bytes(), path.name
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = [inner for inner in archive.namelist() if inner.endswith(".json")]
            if len(inside) != 1:
                raise ValueError(f"{name} should hold a single json file, found {len(inside)}")
            data, name = archive.read(inside[0]), f"{name}/{inside[0]}"
    document = _parse(data, name)
    if not isinstance(document, _LISTS) or len(document) != 2:
        found = len(document) if isinstance(document, _LISTS) else "names"
        raise ValueError(f"{name}: expected two lists, joints and vertices; found {found}")
    joints = _hands(document[0], f"{name}, joints")
    vertices = _hands(document[1], f"{name}, vertices")
    if joints is None or joints.shape[1] != 21:
        found = "no joints" if joints is None else joints.shape[1]
        raise ValueError(f"{name}: expected 21 joints a hand in the first list, found {found}")
    if vertices is not None and len(vertices) != len(joints):
        raise ValueError(f"{name}: {len(joints)} hands have joints, but {len(vertices)} vertices")
    return joints, vertices


def read_truth(folder, split: str = "evaluation") -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (N, 21, 3) and vertices (N, V, 3) in metres of ``<split>_xyz.json``, ``_verts.json``.

    Vertices are None when only the joints are there.
    """
    found = []
    for path in (Path(folder) / f"{split}_{suffix}.json" for suffix in ("xyz", "verts")):
        if path.exists():
            found.append(_hands(_parse(path.read_bytes(), path.name), path.name))
            if found[-1] is None:
                raise ValueError(f"{path.name}: holds no points")
        elif not found:
            other = next(Path(folder).glob("*_xyz.json"), None)
            fix = "FreiHAND's archive with the evaluation annotations has it"
            if other:
                fix = f"there is {other.name}: give --set {other.name.removesuffix('_xyz.json')}"
            raise FileNotFoundError(f"{path} does not exist; {fix}")
    return found[0], found[1] if len(found) == 2 else None


_LISTS = (list, simdjson.Array)


def _parse(data: bytes, name: str):
    """The document as simdjson holds it, or as Python does where a number is NaN."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    for parse in (simdjson.Parser().parse, json.loads):
        try:
            return parse(data)
        except ValueError as error:
            reason = error
    raise ValueError(f"{name} is not whole JSON ({reason}); copy or write it again")


def _hands(hands, name: str) -> np.ndarray | None:
    """(N, P, 3) float64 of a parsed list of hands; None where there are no points at all."""
    if not isinstance(hands, _LISTS) or not all(isinstance(hand, _LISTS) for hand in hands):
        raise ValueError(f"{name}: expected a list of hands, each a list of [x, y, z]")
    counts = np.array([len(hand) for hand in hands], int)
    if not counts.any():
        return None
    if (counts != counts[0]).any():
        usual = int(np.bincount(counts).argmax())
        odd = int(np.argmax(counts != usual))
        raise ValueError(f"{name}: hand {odd} has {counts[odd]} points, the others {usual}")
    try:
        fast = isinstance(hands, simdjson.Array)
        numbers = np.frombuffer(hands.as_buffer(of_type="d")) if fast else np.array(hands, float)
        return numbers.reshape(len(hands), counts[0], 3)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: every point should be three numbers [x, y, z]") from None


def check_hands(points, name: str, count: int, finite: bool = True) -> np.ndarray:
    """(N, P, 3) float64 of ``count`` hands, or a ValueError that names array and hand."""
    points, wrong = np.asarray(points), ""
    if points.dtype.kind not in "fiu" or points.ndim != 3 or points.shape[2] != 3:
        wrong = f"expected numbers (N, P, 3), found {points.shape}"
    elif "joints" in name and points.shape[1] != 21:
        wrong = f"expected 21 points per hand, found {points.shape[1]}"
    elif len(points) != count:
        wrong = f"expected {count} hands, in the order of the truth, found {len(points)}"
    elif finite and not (known := np.isfinite(points).all((1, 2))).all():
        wrong = f"hand {known.argmin()} has a NaN or an infinity"
    if wrong:
        raise ValueError(f"{name}: {wrong}")
    return points.astype(float, copy=False)


def write_predictions(path, joints, vertices) -> Path:
    """Write ``pred.json`` as the FreiHAND competition takes it; a name in ``.zip`` makes the zip.

    joints: (N, 21, 3), vertices: (N, V, 3) metres, camera frame, in the order of the evaluation
    set.   path: ``pred.json``, or for instance ``submission.zip``, which then holds ``pred.json``.
    Coordinates are rounded to 0.1 micrometre. The file appears complete or not at all.
    """
    path, count = Path(path), len(joints)
    joints = check_hands(joints, "joints", count)
    vertices = check_hands(vertices, "vertices", count)
    size = np.median(np.ptp(joints, axis=1).max(axis=1)) if len(joints) else 0.1
    if size > 2:
        raise ValueError(f"hands are {size:.3g} m large, but the file is in metres: wrong unit?")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, contextlib.ExitStack() as opened:
        if path.suffix == ".zip":
            archive = zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
            opened.enter_context(archive)
            stream = opened.enter_context(archive.open("pred.json", "w", force_zip64=True))
        else:
            stream = opened.enter_context(open(temporary, "wb"))
        for before, after, points in ((b"[[", b"], [", joints), (b"", b"]]", vertices)):
            template = "[" + ", ".join(["[%.7f, %.7f, %.7f]"] * points.shape[1]) + "]"
            stream.write(before)
            for index, hand in enumerate(points):
                text = template % tuple(hand.ravel().tolist())
                stream.write((", " + text if index else text).encode())
            stream.write(after)
    return path


def spread(points) -> np.ndarray:
    """Root mean square distance from the centre.   points: (N, P, 3) -> (N,), the same unit."""
    return np.sqrt(((points - points.mean(1, keepdims=True)) ** 2).sum(2).mean(1))


def explanation(joints, true) -> str:
    """What explains predictions twice as well as what they claim to be; "" for nothing.

    joints, true: (N, 21, 3) metres, hands with a size.
    """
    if not len(joints):
        return ""
    ratio = float(np.median(spread(joints) / spread(true)))
    if not 0.5 < ratio < 2:
        unit = min(UNITS, key=lambda name: abs(np.log(ratio * UNITS[name])))
        hint = "an unknown unit or scale" if unit == "m" else f"in {unit}? (--units {unit})"
        return f"hands are {ratio:.3g} times the size of the true ones: {hint}"
    pick = np.linspace(0, len(true) - 1, min(len(true), 400)).astype(int)
    hands, targets, all_true = ((p - p[:, :1]) for p in (joints[pick], true[pick], true))
    others = {
        "look like left hands, FreiHAND's are right: --mirror negates x": hands * [-1, 1, 1],
        "look as if in OpenGL's axes: negate y and z": hands * [1, -1, -1],
    }
    for source in JOINT_SOURCES:
        other = convert_joints(hands, source)
        text = f"look as if their joints were in the order of {source!r} (convert_joints)"
        others[text] = other - other[:, :1]
    error = {"": 0.5 * metrics.point_errors(hands, targets).mean()}  # first: it wins a tie
    error |= {text: metrics.point_errors(p, targets).mean() for text, p in others.items()}
    nearest = cKDTree(all_true.reshape(len(true), -1)).query(hands.reshape(len(hands), -1))[1]
    if len(set(nearest)) > 0.8 * len(pick):  # each another hand: an order, not one mean hand
        text = "fit other hands of the truth better than their own: is their order shuffled?"
        error[text] = metrics.point_errors(hands, all_true[nearest]).mean()
    if best := min(error, key=error.get):
        return f"the predictions {best}; they are scored as they are"
    wrist, hand, there = (
        np.median(np.linalg.norm(p, axis=1)) for p in (joints[:, 0], joints.mean(1), true.mean(1))
    )
    if hand < 0.12 < there:  # whichever joint they count from
        what = "wrist is at" if wrist < 0.02 else "hand stands around"
        return (
            f"every predicted {what} the origin, the truth is in the camera frame: un-aligned "
            "scores measure the missing position; root-relative and aligned ones are meaningful"
        )
    return ""
