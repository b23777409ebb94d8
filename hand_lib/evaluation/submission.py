"""Predictions on disk: FreiHAND's ``pred.json`` and its zip, read, written and recognised.

The file is a list of two lists: joints, (N, 21, 3), and vertices, (N, V, 3), metres, camera frame,
in the order of the evaluation set, without keys. The truth is ``<set>_xyz.json`` and
``<set>_verts.json``, each a list of hands.
"""

import zipfile
from pathlib import Path

import numpy as np

from hand_lib import metrics
from hand_lib.hand.joints import JOINT_SOURCES, convert_joints
from hand_lib.number_lists import parse_number_lists

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Metres in one unit of length that predictions have been seen in."""


def spread(points) -> np.ndarray:
    """Root mean square distance from the centre.   points: (N, P, 3) -> (N,), the same unit."""
    centred = points - points.mean(1, keepdims=True)
    return np.sqrt(np.einsum("npi,npi->n", centred, centred) / points.shape[1])


def detect_units(pred_joints, true_joints) -> tuple[str, float]:
    """Unit of length of predictions, from the size of the hands: ``m``, ``cm`` or ``mm``.

    pred_joints: (N, 21, 3) in any unit.   true_joints: (N, 21, 3) metres.
    returns the unit whose factor is nearest (``m`` if all predictions are single points), and the
    median of predicted size / true size.

    >>> true = np.random.default_rng(0).normal(size=(5, 21, 3)) * 0.05
    >>> detect_units(900 * true, true)[0]
    'mm'
    """
    size = spread(np.asarray(pred_joints, float))
    usable = np.isfinite(size) & (size > 0)
    if not usable.any():
        return "m", 0.0
    ratio = float(np.median(size[usable] / spread(np.asarray(true_joints, float))[usable]))
    distances = {unit: abs(np.log(ratio * metres)) for unit, metres in UNITS.items()}
    return min(distances, key=distances.get), ratio


def in_metres(joints, vertices, true_joints, units, mirror):
    """Predictions in metres and unmirrored, with a sentence for each thing done or noticed.

    joints: (N, 21, 3), vertices: (N, V, 3) or None, in ``units`` (``auto``: detected).
    true_joints: (N, 21, 3) metres.   mirror: negate x.   returns joints, vertices, list of notes.
    """
    notes = []
    detected, ratio = detect_units(joints, true_joints)
    if units == "auto":
        units = detected
        if units != "m":
            notes.append(
                f"predictions are in {units} (hands {ratio:.4g} times the size of the true ones) "
                "and were converted to metres; the official script would not do so"
            )
    elif units != detected:
        notes.append(f"scored as {units}, as told, though the hands' size suggests {detected}")
    factor = np.array([-1.0 if mirror else 1.0, 1.0, 1.0]) * UNITS[units]
    if mirror:
        notes.append("x of all predictions was negated before scoring, as told")
    if units != "m" or mirror:
        joints = joints * factor
        vertices = None if vertices is None else vertices * factor
    ratio *= UNITS[units]
    if ratio and not 0.5 < ratio < 2:
        notes.append(
            f"hands are {ratio:.3g} times the size of the true ones: unknown unit or scale"
        )
    return joints, vertices, notes


def detect_joint_order(pred_joints, true_joints, limit=200) -> str:
    """Name in ``JOINT_SOURCES`` of the joint order that fits the truth best, after alignment.

    pred_joints, true_joints: (N, 21, 3) metres.   returns ``freihand`` unless another order brings
    the error below 60 % of what the given order has.
    """
    pick = np.linspace(0, len(pred_joints) - 1, min(limit, len(pred_joints))).astype(int)
    pred, true = np.asarray(pred_joints)[pick], np.asarray(true_joints)[pick]
    found = {}
    for source in JOINT_SOURCES:
        found[source] = metrics.mesh_errors(convert_joints(pred, source), true)["pa"].mean()
    best = min(found, key=found.get)
    return best if found[best] < 0.6 * found["freihand"] else "freihand"


def _hands(lists, row, first_row, level, name):
    """(N, P, 3) of the hands in the list that closes in ``row``; its parts start at ``first_row``.

    None where there are no points at all.   level: depth of the list.
    """
    start, stop = lists.end[first_row - 1] if first_row else 0, lists.end[row]
    count = lists.count[row]
    if stop == start:
        return None
    counts, depth = lists.count[first_row:row], lists.depth[first_row:row]
    points = counts[depth == level + 1]
    if len(points) != count:
        raise ValueError(f"{name}: expected a list of hands, each a list of [x, y, z]")
    if (points != points[0]).any():
        odd = int(np.argmax(points != np.bincount(points).argmax()))
        usual = int(np.bincount(points).argmax())
        raise ValueError(f"{name}: hand {odd} has {points[odd]} points, the others {usual}")
    triples = counts[depth == level + 2]
    if len(triples) != points.sum() or (triples != 3).any():
        raise ValueError(f"{name}: every point should be three numbers [x, y, z]")
    return lists.values[start:stop].reshape(count, points[0], 3)


def _read_bytes(path) -> tuple[bytes, str]:
    """The one JSON document at ``path``: a file, a zip that holds it, or a folder."""
    path = Path(path)
    if path.is_dir():
        found = [path / "pred.json"]
        if not found[0].exists():
            found = sorted(path.glob("*.json"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{path} should hold pred.json or a single json file, found {len(found)}"
            )
        path = found[0]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a pred.json, a zip or a folder")
    if not zipfile.is_zipfile(path):
        return path.read_bytes(), path.name
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        if len(names) != 1:
            raise ValueError(f"{path.name} should hold a single json file, found {len(names)}")
        return archive.read(names[0]), f"{path.name}/{names[0]}"


def read_predictions(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (N, 21, 3) and vertices (N, V, 3) of anyone's ``pred.json``, in the file's units.

    path: the file, a zip of it, or a folder that holds it. Vertices are None if the file has none.
    Wrong nesting or unequal hands raise ValueError naming the hand.
    """
    data, name = _read_bytes(path)
    lists = parse_number_lists(data, name)
    if lists.count[-1] != 2 or (lists.depth == 2).sum() != 2:
        raise ValueError(
            f"{name}: expected a list of two lists, joints and vertices; found {lists.count[-1]}"
        )
    middle, last = np.flatnonzero(lists.depth == 2)
    joints = _hands(lists, middle, 0, 2, f"{name}, joints")
    if joints is None:
        raise ValueError(f"{name}: the first list holds no joints")
    vertices = _hands(lists, last, middle + 1, 2, f"{name}, vertices")
    if joints.shape[1] != 21:
        raise ValueError(f"{name}: expected 21 joints per hand, found {joints.shape[1]}")
    if vertices is not None and len(vertices) != len(joints):
        raise ValueError(f"{name}: {len(joints)} hands have joints, but {len(vertices)} vertices")
    return joints, vertices


def read_truth(folder, split: str = "evaluation") -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (N, 21, 3) and vertices (N, V, 3) in metres of ``<split>_xyz.json``, ``_verts.json``.

    Vertices are None when only the joints are there.
    """
    found = []
    for suffix in ("xyz", "verts"):
        path = Path(folder) / f"{split}_{suffix}.json"
        if not path.exists():
            if suffix == "verts":
                found.append(None)
                continue
            raise FileNotFoundError(
                f"{path} does not exist; FreiHAND's archive with the evaluation annotations has it"
            )
        lists = parse_number_lists(path.read_bytes(), path.name)
        hands = _hands(lists, len(lists.count) - 1, 0, 1, path.name)
        if hands is None:
            raise ValueError(f"{path.name}: holds no points")
        found.append(hands)
    return found[0], found[1]


def write_predictions(path, joints, vertices) -> Path:
    """Write ``pred.json`` as the FreiHAND competition takes it; a name in ``.zip`` makes the zip.

    joints: (N, 21, 3), vertices: (N, V, 3) metres, camera frame, in the order of the evaluation
    set.   path: ``pred.json``, or for instance ``submission.zip``, which then holds ``pred.json``.
    Coordinates are rounded to 0.1 micrometre. The file appears complete or not at all.
    """
    path, joints, vertices = Path(path), np.asarray(joints), np.asarray(vertices)
    for name, points in (("joints", joints), ("vertices", vertices)):
        if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(joints):
            raise ValueError(
                f"{name} should be ({len(joints)}, {21 if name == 'joints' else 'V'}, 3), "
                f"found {points.shape}"
            )
        if not np.isfinite(points).all():
            bad = int(np.argmin(np.isfinite(points).all((1, 2))))
            raise ValueError(f"{name}: hand {bad} has a NaN or an infinity; the file has no such")
    if joints.shape[1] != 21:
        raise ValueError(f"joints should be ({len(joints)}, 21, 3), found {joints.shape}")
    size = np.median(spread(joints)) if len(joints) else 0.05
    if size > 1:
        raise ValueError(
            f"joints spread over {size:.3g} m about their centre: the file is in metres, these "
            "look like centimetres or millimetres"
        )
    part = path.with_name(path.name + ".part")
    if path.suffix == ".zip":
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("pred.json", "w", force_zip64=True) as stream:
                _write_lists(stream, joints, vertices)
    else:
        with open(part, "wb") as stream:
            _write_lists(stream, joints, vertices)
    part.replace(path)
    return path


def _write_lists(stream, *parts):
    for before, points in zip((b"[", b", "), parts, strict=True):
        template = "[" + ", ".join(["[%.7f, %.7f, %.7f]"] * points.shape[1]) + "]"
        stream.write(before + b"[")
        for index, hand in enumerate(points):
            text = template % tuple(hand.ravel().tolist())
            stream.write((", " if index else "").encode() + text.encode())
        stream.write(b"]")
    stream.write(b"]")
