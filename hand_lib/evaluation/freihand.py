"""FreiHAND's official scores, rotation-only ones beside them, and a report that tells them apart.

From the command line, without a notebook::

    python -m hand_lib.evaluation.freihand pred.json --truth data/FreiHAND

Predictions are scored as they are; where something else explains them far better (another unit,
other axes, the wrist as origin, another order), one note says so. Beyond that:

* A hand with a NaN or an infinity counts as no prediction: all its points are put at the origin, so
  it scores as FreiHAND's zero predictor does. (The official script stops.)
* A hand whose points all coincide is put on the centre of the truth, as the official script does.
* A hand that only fits when mirrored is scored as the official script scores it, and flagged.
* Vertices that are not as many as the true ones are refused, and joints are scored. (The official
  script's aligned F-scores of such meshes mean nothing.)
"""

import argparse
import sys
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hand_lib import metrics
from hand_lib.evaluation import predictions as submission
from hand_lib.files import resolve, write_json, write_text
from hand_lib.hand.joints import fingertips_of

MIRROR_TOLERANCE = 1e-4
"""A hand counts as mirrored when its mean errors after the two alignments differ by more (m)."""

MEANS = {
    "none": ("", "as given, camera space"),
    "root": ("root_", "wrists brought together"),
    "scale": ("scale_", "wrists brought together, best scale"),
    "rotation": ("pa_", "PA: rotation only (METRO, HaMeR, WiLoR)"),
    "reflection": ("pa_reflection_", "PA: mirroring allowed (FreiHAND's scorer)"),
}
"""Alignment -> beginning of its keys in ``ScoreReport.millimetres``, and what it is in words."""

_F_KINDS = ("none", "reflection", "rotation")
_CHUNK = 64


@dataclass(frozen=True)
class ScoreReport:
    """What was measured and what was done to the predictions before; ``str(report)`` says it."""

    joint_errors: dict[str, np.ndarray]  # alignment -> (N, 21) metres
    vertex_errors: dict[str, np.ndarray]  # alignment -> (N, V) metres; empty without vertices
    f_scores: dict[str, np.ndarray]  # alignment -> (N, 2), F@5 and F@15; empty without vertices
    missing: np.ndarray  # indices of hands with NaN or infinity, scored as zeros
    notes: tuple[str, ...]  # sentences: all that a reader should know
    fingertips: str = "as their makers took them"  # which tables the joints' fingertips are from

    @cached_property
    def official(self) -> dict[str, float]:
        """FreiHAND's keys and units (cm); the alignment may mirror."""
        return self.by_freihand("reflection")

    @cached_property
    def proper(self) -> dict[str, float]:
        """The same keys, aligned by rotations only."""
        return self.by_freihand("rotation")

    def by_freihand(self, aligned: str) -> dict[str, float]:
        """FreiHAND's dictionary.   aligned: the alignment of its ``al_`` numbers."""
        result, both = {}, (("", "none"), ("al_", aligned))
        for name, errors in (("xyz", self.joint_errors), ("mesh", self.vertex_errors)):
            for infix, kind in both if errors else ():
                result[f"{name}_{infix}mean3d"] = 100 * float(errors[kind].mean())
                result[f"{name}_{infix}auc3d"] = metrics.auc(errors[kind])
        for column, radius in enumerate(("5", "15") if self.f_scores else ()):
            for infix, kind in both:
                mean = float(self.f_scores[kind][:, column].mean())
                result[f"f_{infix}score_{radius}"] = mean
        return result

    @cached_property
    def millimetres(self) -> dict[str, float]:
        """Every mean in mm, AUC 0-50 and 20-50 mm, and F-scores; ``pa_`` is by rotation only."""
        result = {}
        for term, errors in (("mpjpe", self.joint_errors), ("mpvpe", self.vertex_errors)):
            for kind, values in errors.items():
                name = f"{MEANS[kind][0]}{term}"
                result[f"{name}_mm"] = 1000 * float(values.mean())
                for low in (0, 20) if kind in ("root", "rotation") else ():
                    result[f"{name}_auc_{low}_50"] = metrics.auc(values, low / 1000, 0.05)
        if self.f_scores:
            five, fifteen = self.f_scores["rotation"].mean(0).tolist()
            result |= {"pa_f_5": five, "pa_f_15": fifteen}
        return result

    @cached_property
    def mirrored(self) -> np.ndarray:
        """(M,) indices where the two alignments differ by more than ``MIRROR_TOLERANCE``."""
        found = filter(None, (self.joint_errors, self.vertex_errors))
        gaps = [abs(e["rotation"].mean(1) - e["reflection"].mean(1)) for e in found]
        return np.flatnonzero(np.max(gaps, axis=0) > MIRROR_TOLERANCE)

    def __str__(self) -> str:
        terms = {"joints": self.joint_errors, "vertices": self.vertex_errors}
        terms = {name: errors for name, errors in terms.items() if errors}
        sizes = ", ".join(f"{errors['none'].shape[1]} {name}" for name, errors in terms.items())
        lines = [
            f"{len(self.joint_errors['none'])} hands, {sizes}",
            f"fingertips: {self.fingertips}", *(f"note: {note}" for note in self.notes), "",
            "FreiHAND's keys (means in cm)         mirroring allowed = official      rotation only",
        ]  # fmt: skip
        for key, value in self.official.items():
            lines.append(f"  {key:<34} {value:>26.6f} {self.proper[key]:>18.6f}")
        lines += ["", f"{'mean error in mm':<44}{''.join(f'{name:>16}' for name in terms)}"]
        for kind, (_, words) in MEANS.items():
            means = (1000 * errors[kind].mean() for errors in terms.values())
            lines.append(f"  {words:<42}{''.join(f'{mean:>16.3f}' for mean in means)}")
        return "\n".join(lines)


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
    kinds = ("none", "reflection" if reflections else "rotation")
    arrays = _check_arrays(pred_joints, pred_vertices, true_joints, true_vertices)
    found = _measure_all(arrays, kinds)
    for note in found.notes:
        if pred_vertices is not None or "not scored" not in note:
            warnings.warn(note, UserWarning, stacklevel=2)
    return found.by_freihand(kinds[1])


def report(
    pred_joints, pred_vertices, true_joints, true_vertices, units="m", mirror=False, fingertips=""
) -> ScoreReport:
    """Score predictions completely: both alignments, every mean, every flag.

    pred_joints, true_joints: (N, 21, 3).   pred_vertices, true_vertices: (N, V, 3), or None.
    The truth in metres.   units: of the predictions, ``m``, ``cm`` or ``mm``.
    mirror: negate x of the predictions first (left hands).
    fingertips: from which tables they are, to be said beside the errors.
    """
    if units not in submission.UNITS:
        raise ValueError(f"unknown units {units!r}; known: {', '.join(submission.UNITS)}")
    arrays = _check_arrays(pred_joints, pred_vertices, true_joints, true_vertices)
    factor = submission.UNITS[units] * np.array([-1.0 if mirror else 1.0, 1.0, 1.0])
    arrays[:2] = (None if points is None else points * factor for points in arrays[:2])
    found = _measure_all(arrays, metrics.ALIGNMENTS)
    joints, true, notes = np.nan_to_num(arrays[0], posinf=0, neginf=0), arrays[2], [*found.notes]
    if mirror:
        notes.append("x of all predictions was negated before scoring, as told")
    collapsed = np.setdiff1d(np.flatnonzero(submission.spread(joints) < 1e-9), found.missing)
    if len(collapsed):
        notes.append(f"{_some(collapsed)} are a single point: aligned, the truth's centre")
    good = np.setdiff1d(np.arange(len(joints)), [*found.missing, *collapsed])
    if explained := submission.explanation(joints[good], true[good]):
        notes.append(explained)
    if len(found.mirrored):
        notes.append(
            f"{_some(found.mirrored)} fit better mirrored: official and rotation-only alignment "
            f"differ by over {1000 * MIRROR_TOLERANCE:g} mm"
        )
    return replace(found, notes=tuple(notes), fingertips=fingertips or found.fingertips)


def _check_arrays(*arrays) -> list:
    """The four of ``freihand_scores`` as float64, or a ValueError that names the array."""
    if not (count := len(arrays[2])):
        raise ValueError("there are no hands to score: the truth is empty")
    names = "predicted joints", "predicted vertices", "true joints", "true vertices"
    return [
        None if points is None else submission.check_hands(points, name, count, "true" in name)
        for name, points in zip(names, arrays, strict=True)
    ]


def _measure_all(arrays, kinds) -> ScoreReport:
    """The errors of checked arrays, with notes on what could not be scored as it is."""
    (joints, vertices, true_joints, true_vertices), notes = arrays, []
    if vertices is None or true_vertices is None:
        notes.append(f"vertices not scored: none are {'predicted' if vertices is None else 'true'}")
    elif vertices.shape[1] != true_vertices.shape[1]:
        notes.append(
            f"vertices refused: {vertices.shape[1]} per hand are predicted, the true meshes "
            f"have {true_vertices.shape[1]}, so no vertex has a counterpart; joints are scored"
        )
    scored = [joints] if notes else [joints, vertices]
    bad = np.any([~np.isfinite(points).all((1, 2)) for points in scored], axis=0)
    if bad.any():
        said = f"{_some(np.flatnonzero(bad))} hold a NaN or an infinity and count as no prediction"
        notes.append(f"{said} (all points at the origin)")
        scored = [np.where(bad[:, None, None], 0.0, points) for points in scored]
    errors = [{kind: np.zeros(points.shape[:2]) for kind in kinds} for points in scored]
    f = {kind: np.zeros((len(joints), 2)) for kind in kinds if kind in _F_KINDS}
    for start in range(0, len(joints), _CHUNK):
        part = slice(start, start + _CHUNK)
        roots = scored[0][part, 0], true_joints[part, 0]
        for points, true, found in zip(scored, (true_joints, true_vertices), errors, strict=False):
            for kind in kinds:
                moved = metrics.align(points[part], true[part], kind, *roots)
                found[kind][part] = metrics.point_errors(moved, true[part])
                if points is scored[0] or kind not in f:
                    continue
                new = np.arange(len(moved))
                if kind == "rotation" and "reflection" in f:  # alike unless mirrored
                    f[kind][part] = f["reflection"][part]
                    gap = abs(found["rotation"][part] - found["reflection"][part]).max(1)
                    new = np.flatnonzero(gap > 1e-12)
                if len(new):
                    f[kind][start + new] = metrics.f_scores(moved[new], true[start + new])
    vertex_errors, f = (errors[1], f) if len(scored) == 2 else ({}, {})
    return ScoreReport(errors[0], vertex_errors, f, np.flatnonzero(bad), tuple(notes))


def _some(indices, limit=8) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:limit])
    return f"{len(indices)} hand(s) ({shown}{', ...' if len(indices) > limit else ''})"


def score_file(predictions, truth, split="evaluation", units="m", mirror=False) -> ScoreReport:
    """Score anyone's ``pred.json`` against a folder of truth.

    predictions: the file or a zip of it.   truth: folder of ``<split>_xyz.json`` and
    ``<split>_verts.json``.   units, mirror: as in ``report``.
    """
    truth = resolve(truth)
    tips = f"truth {fingertips_of(truth)}, predictions as their maker took them"
    found = submission.read_predictions(resolve(predictions))
    return report(*found, *submission.read_truth(truth, split), units, mirror, tips)


def main(arguments=None) -> int:
    """Command line: score a ``pred.json`` against a folder of truth; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.evaluation.freihand", description=main.__doc__
    )
    parser.add_argument("predictions", help="pred.json or a zip of it")
    parser.add_argument("--truth", required=True, help="folder of <set>_xyz.json, <set>_verts.json")
    parser.add_argument("--set", default="evaluation", help="file name prefix of the truth")
    parser.add_argument("--units", default="m", choices=submission.UNITS, help="of the predictions")
    parser.add_argument("--mirror", action="store_true", help="negate x first (left hands)")
    parser.add_argument("--out", help="folder for scores.txt (official) and scores.json (all)")
    given = parser.parse_args(arguments)
    try:
        scores = score_file(given.predictions, given.truth, given.set, given.units, given.mirror)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(f"{scores}\n")
    if given.out:
        folder = Path(given.out)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}: {value:f}\n" for key, value in scores.official.items()]
        write_text(folder / "scores.txt", "".join(lines))
        write_json(folder / "scores.json", {
            "official, alignment may mirror": scores.official, "rotation only": scores.proper,
            "millimetres": scores.millimetres, "mirrored": scores.mirrored.tolist(),
            "missing": scores.missing.tolist(), "notes": scores.notes,
            "fingertips": scores.fingertips,
        })  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
