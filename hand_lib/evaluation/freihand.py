"""FreiHAND's official scores, rotation-only ones beside them, and a report that tells them apart.

From the command line, without a notebook::

    python -m hand_lib.evaluation.freihand pred.json --truth data/FreiHAND

Predictions that cannot be measured as they are get a defined treatment, always said in the report:

* A hand with a NaN or an infinity counts as no prediction: all its points are put at the origin, so
  it scores as FreiHAND's zero predictor does. (The official script stops with an exception.)
* A hand whose points all coincide has no size. Alignment puts it on the centre of the truth, as the
  official script does, so its aligned error is the spread of the true hand.
* A hand that only fits when mirrored is scored as the official script scores it, and flagged, with
  the rotation-only error beside it.
* Vertices that are not as many as the true ones have no counterparts: joints are scored, vertices
  are refused. (The official script then scales vertices by the true joints' norm without dividing
  by that of the predicted ones, so its aligned F-scores of such meshes mean nothing.)
"""

import argparse
import sys
import warnings

import numpy as np

from hand_lib import metrics
from hand_lib.evaluation.score_report import ScoreReport, write_scores
from hand_lib.evaluation.submission import (
    UNITS,
    detect_joint_order,
    in_metres,
    read_predictions,
    read_truth,
    spread,
)
from hand_lib.hand.joints import fingertips_of

MIRROR_TOLERANCE = 1e-4
"""A hand counts as mirrored when its mean errors after the two alignments differ by more (m)."""

_CHUNK = 64


def _as_points(points, name, count=None):
    points = np.asarray(points)
    if points.dtype == object or points.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers (N, P, 3), every hand with as many points")
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"{name}: expected (N, P, 3), found {points.shape}")
    if count is not None and points.shape[1] != count:
        raise ValueError(f"{name}: expected {count} points per hand, found {points.shape[1]}")
    return points.astype(np.float64, copy=False)


def _check_arrays(pred_joints, pred_vertices, true_joints, true_vertices):
    """Checked float64 arrays, and the reason why vertices are refused (or an empty string)."""
    true_joints = _as_points(true_joints, "true joints", 21)
    pred_joints = _as_points(pred_joints, "predicted joints", 21)
    true_vertices, pred_vertices = (
        None if points is None else _as_points(points, name)
        for points, name in (
            (true_vertices, "true vertices"),
            (pred_vertices, "predicted vertices"),
        )
    )
    count = len(true_joints)
    if not count:
        raise ValueError("there are no hands to score: the truth is empty")
    for name, points in (
        ("predicted joints", pred_joints),
        ("true vertices", true_vertices),
        ("predicted vertices", pred_vertices),
    ):
        if points is not None and len(points) != count:
            raise ValueError(
                f"{name}: expected {count} hands, one per true hand in the same order, "
                f"found {len(points)}"
            )
    for name, points in (("true joints", true_joints), ("true vertices", true_vertices)):
        if points is not None and not np.isfinite(points).all():
            bad = int(np.argmin(np.isfinite(points).all((1, 2))))
            raise ValueError(
                f"{name}: hand {bad} has a NaN or an infinity; the truth must be known"
            )
    if true_vertices is None or pred_vertices is None:
        absent = "true" if true_vertices is None else "predicted"
        return pred_joints, None, true_joints, None, f"vertices not scored: none are {absent}"
    if pred_vertices.shape[1] != true_vertices.shape[1]:
        reason = (
            f"vertices refused: {pred_vertices.shape[1]} per hand are predicted, the true meshes "
            f"have {true_vertices.shape[1]}, so no vertex has a counterpart; joints are scored"
        )
        return pred_joints, None, true_joints, None, reason
    return pred_joints, pred_vertices, true_joints, true_vertices, ""


def _fill_missing(joints, vertices):
    """Zeros in place of hands with a NaN or an infinity; returns joints, vertices, indices."""
    bad = ~np.isfinite(joints).all((1, 2))
    if vertices is not None:
        bad |= ~np.isfinite(vertices).all((1, 2))
    if bad.any():
        joints = np.where(bad[:, None, None], 0.0, joints)
        vertices = None if vertices is None else np.where(bad[:, None, None], 0.0, vertices)
    return joints, vertices, np.flatnonzero(bad)


def _measure(pred, true, kinds, roots, with_f, progress=None):
    """Distances after each alignment and F-scores of (N, P, 3) points, in chunks.

    returns errors: kind -> (N, P); f: kind -> (N, 2); mirrored (N,) bool.
    """
    count, points = pred.shape[:2]
    errors = {kind: np.zeros((count, points)) for kind in kinds}
    f_kinds = [kind for kind in ("none", "reflection", "rotation") if with_f and kind in kinds]
    scores = {kind: np.zeros((count, len(metrics.F_THRESHOLDS))) for kind in f_kinds}
    mirrored = np.zeros(count, bool)
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        p, t = pred[part], true[part]
        reflection, rotation, mirrored[part] = metrics.align_procrustes(p, t)
        for kind in kinds:
            if kind == "reflection":
                moved = metrics.apply_alignment(p, reflection)
            elif kind == "rotation":
                moved = metrics.apply_alignment(p, rotation)
            else:
                moved = metrics.align(p, t, kind, 0, roots[0][part], roots[1][part])
            errors[kind][part] = metrics.point_errors(moved, t)
            if kind == "rotation" and "reflection" in f_kinds:  # alike unless mirrored
                flipped = mirrored[part]
                scores[kind][part] = scores["reflection"][part]
                if flipped.any():
                    scores[kind][part][flipped] = metrics.f_scores(moved[flipped], t[flipped])
            elif kind in f_kinds:
                scores[kind][part] = metrics.f_scores(moved, t)
        if progress is not None:
            progress.update(part.stop - part.start)
    return errors, scores, mirrored


def _official(joint_errors, vertex_errors, f, aligned) -> dict[str, float]:
    """The official dictionary from measured distances; ``aligned`` names the alignment to use."""
    result = {}
    for name, errors in (("xyz", joint_errors), ("mesh", vertex_errors)):
        for infix, kind in (("", "none"), ("al_", aligned)):
            if errors:
                result[f"{name}_{infix}mean3d"] = 100 * float(errors[kind].mean())
                result[f"{name}_{infix}auc3d"] = metrics.auc(errors[kind])
    for column, threshold in enumerate(metrics.F_THRESHOLDS):
        for infix, kind in (("", "none"), ("al_", aligned)):
            if f:
                millimetres = round(1000 * threshold)
                result[f"f_{infix}score_{millimetres}"] = float(f[kind][:, column].mean())
    return result


def freihand_scores(
    pred_joints, pred_vertices, true_joints, true_vertices, reflections=True
) -> dict[str, float]:
    """The twelve numbers of FreiHAND's official scorer (Zimmermann et al., ICCV 2019).

    pred_joints, true_joints: (N, 21, 3).   pred_vertices, true_vertices: (N, V, 3), or None.
    All in metres, camera frame.   reflections: True is the official alignment, which may mirror;
    False allows rotations only, as METRO, HaMeR and WiLoR do.
    returns ``xyz_mean3d``, ``xyz_auc3d``, ``xyz_al_mean3d``, ``xyz_al_auc3d``, the same four with
    ``mesh_``, ``f_score_5``, ``f_al_score_5``, ``f_score_15``, ``f_al_score_15``. Means in cm; AUC
    and F-scores in [0, 1]. Without vertices that can be scored the last eight are absent; for that,
    and for hands that are not finite, a UserWarning says so (the module's text says what is done).
    """
    *arrays, reason = _check_arrays(pred_joints, pred_vertices, true_joints, true_vertices)
    joints, vertices, true_joints, true_vertices = arrays
    if reason and pred_vertices is not None:
        warnings.warn(reason, UserWarning, stacklevel=2)
    joints, vertices, missing = _fill_missing(joints, vertices)
    if len(missing):
        warnings.warn(_say_missing(missing), UserWarning, stacklevel=2)
    aligned = "reflection" if reflections else "rotation"
    roots = joints[:, 0], true_joints[:, 0]
    joint_errors, _, _ = _measure(joints, true_joints, ("none", aligned), roots, False)
    vertex_errors, f = {}, {}
    if vertices is not None:
        vertex_errors, f, _ = _measure(vertices, true_vertices, ("none", aligned), roots, True)
    return _official(joint_errors, vertex_errors, f, aligned)


def _some(indices, limit=8) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:limit])
    return shown if len(indices) <= limit else f"{shown}, ... ({len(indices)} in all)"


def _say_missing(missing) -> str:
    return (
        f"{len(missing)} hand(s) hold a NaN or an infinity and count as no prediction "
        f"(all points at the origin): {_some(missing)}"
    )


def _notice(joints, true_joints, mirrored, vertices_too):
    """Sentences on what looks wrong in predictions that are already in metres."""
    notes = []
    if np.abs(joints[:, 0]).max() < 1e-6 < np.abs(true_joints[:, 0]).max():
        notes.append(
            "every predicted wrist is at the origin, the truth is in the camera frame: un-aligned "
            "scores measure the missing position; root-relative and aligned ones are meaningful"
        )
    if len(mirrored):
        what = "joints or vertices" if vertices_too else "joints"
        notes.append(
            f"{len(mirrored)} hand(s) fit better mirrored, so the official and the rotation-only "
            f"alignment of {what} differ by over {1000 * MIRROR_TOLERANCE:g} mm: {_some(mirrored)}"
        )
    if 2 * len(mirrored) > len(joints):
        notes.append(
            "most predictions look like left hands, but FreiHAND's are right: mirror them "
            "(x negated, --mirror) and score again"
        )
    order = detect_joint_order(joints, true_joints)
    if order != "freihand":
        notes.append(
            f"the joints look as if in the order of {order!r}: reorder them with convert_joints "
            "and score again"
        )
    return notes


def report(
    pred_joints,
    pred_vertices,
    true_joints,
    true_vertices,
    units="auto",
    mirror=False,
    progress=False,
    fingertips="",
) -> ScoreReport:
    """Score predictions completely: both alignments, every mean, every flag.

    pred_joints, true_joints: (N, 21, 3).   pred_vertices, true_vertices: (N, V, 3), or None.
    The truth in metres.   units: of the predictions, ``auto``, ``m``, ``cm`` or ``mm``.
    mirror: negate x of the predictions first (left hands).   progress: show a bar.
    fingertips: from which tables they are, to be said beside the errors.
    """
    if units not in ("auto", *UNITS):
        raise ValueError(f"unknown units {units!r}; known: auto, {', '.join(UNITS)}")
    *arrays, reason = _check_arrays(pred_joints, pred_vertices, true_joints, true_vertices)
    joints, vertices, true_joints, true_vertices = arrays
    notes = [reason] if reason else []
    joints, vertices, missing = _fill_missing(joints, vertices)
    if len(missing):
        notes.append(_say_missing(missing))
    joints, vertices, said = in_metres(joints, vertices, true_joints, units, mirror)
    notes += said
    collapsed = np.setdiff1d(np.flatnonzero(spread(joints) < 1e-9), missing)
    if len(collapsed):
        notes.append(
            f"{len(collapsed)} hand(s) are a single point; aligned, they sit on the centre of the "
            f"true hand: {_some(collapsed)}"
        )
    roots = joints[:, 0], true_joints[:, 0]
    kinds = metrics.ALIGNMENTS
    bar = progress_bar(len(joints), progress)
    joint_errors, _, _ = _measure(joints, true_joints, kinds, roots, False)
    vertex_errors, f = {}, {}
    if vertices is not None:
        vertex_errors, f, _ = _measure(vertices, true_vertices, kinds, roots, True, bar)
    bar.close()
    differ = np.zeros(len(joints), bool)
    for errors in filter(None, (joint_errors, vertex_errors)):
        gap = np.abs(errors["rotation"].mean(1) - errors["reflection"].mean(1))
        differ |= gap > MIRROR_TOLERANCE
    mirrored = np.flatnonzero(differ)
    notes += _notice(joints, true_joints, mirrored, vertices is not None)
    return ScoreReport(
        official=_official(joint_errors, vertex_errors, f, "reflection"),
        proper=_official(joint_errors, vertex_errors, f, "rotation"),
        millimetres=_millimetres(joint_errors, vertex_errors, f),
        joint_errors=joint_errors,
        vertex_errors=vertex_errors,
        f_scores=f,
        mirrored=mirrored,
        missing=missing,
        collapsed=collapsed,
        notes=tuple(notes),
        fingertips=fingertips or ScoreReport.fingertips,
    )


def progress_bar(total: int, wanted: bool, doing: str = "scoring"):
    """A tqdm bar over hands, silent unless ``wanted``."""
    from tqdm import tqdm

    return tqdm(total=total, unit="hand", desc=doing, disable=not wanted)


_MEANS = {
    "none": "",
    "root": "root_",
    "scale": "scale_",
    "rotation": "pa_",
    "reflection": "pa_reflection_",
}


def _millimetres(joint_errors, vertex_errors, f) -> dict[str, float]:
    """Every mean in mm, AUC 0-50 and 20-50 mm, and F-scores; ``pa_`` is by rotation only."""
    result = {}
    for term, errors in (("mpjpe", joint_errors), ("mpvpe", vertex_errors)):
        for kind, prefix in _MEANS.items():
            if errors:
                result[f"{prefix}{term}_mm"] = 1000 * float(errors[kind].mean())
        if errors:
            for kind in ("root", "rotation"):
                for low, high in ((0, 50), (20, 50)):
                    area = metrics.auc(errors[kind], low / 1000, high / 1000)
                    result[f"{_MEANS[kind]}{term}_auc_{low}_{high}"] = area
    for column, threshold in enumerate(metrics.F_THRESHOLDS):
        if f:
            result[f"pa_f_{round(1000 * threshold)}"] = float(f["rotation"][:, column].mean())
    return result


def score_file(
    predictions, truth, split="evaluation", units="auto", mirror=False, progress=False
) -> ScoreReport:
    """Score anyone's ``pred.json`` against a folder of truth.

    predictions: the file, a zip of it, or its folder.   truth: folder of ``<split>_xyz.json`` and
    ``<split>_verts.json``.   units, mirror, progress: as in ``report``.
    """
    true = read_truth(truth, split)
    tips = f"truth {fingertips_of(truth)}, predictions as their maker took them"
    return report(*read_predictions(predictions), *true, units, mirror, progress, tips)


def main(arguments=None) -> int:
    """Command line: score a ``pred.json`` against a folder of truth; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.evaluation.freihand", description=main.__doc__
    )
    parser.add_argument("predictions", help="pred.json, a zip of it, or a folder with one json")
    parser.add_argument("--truth", required=True, help="folder of <set>_xyz.json, <set>_verts.json")
    parser.add_argument("--set", default="evaluation", help="file name prefix of the truth")
    parser.add_argument("--units", default="auto", choices=("auto", *UNITS))
    parser.add_argument("--mirror", action="store_true", help="negate x first (left hands)")
    parser.add_argument("--out", help="folder for scores.txt (official) and scores.json (all)")
    options = parser.parse_args(arguments)
    try:
        scores = score_file(
            options.predictions, options.truth, options.set, options.units, options.mirror, True
        )
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{scores}\n")
    if options.out:
        write_scores(options.out, scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
