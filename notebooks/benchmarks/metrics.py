"""What scoring costs: ours against a plain loop that does FreiHAND's steps hand by hand.

``rows()`` gives dicts of what, ours_ms, theirs_ms and ratio, milliseconds per 1,000 hands. The loop
uses SciPy's search tree where the official script uses Open3D's, and is otherwise as it is written:
one hand, one threshold, one point at a time.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree

from benchmarks.stopwatch import milliseconds, row
from hand_lib.evaluation.freihand import freihand_scores
from hand_lib.evaluation.predictions import read_predictions, write_predictions


def hand_like(count: int, vertices: int = 778, seed: int = 0):
    """Predicted joints and vertices, true joints and vertices, (count, ..., 3) metres.

    Random clouds of a hand's extent in front of a camera, predictions about a centimetre off.
    """
    rng = np.random.default_rng(seed)
    place = rng.uniform([-0.1, -0.1, 0.6], [0.1, 0.1, 0.9], (count, 3))[:, None]
    true = rng.normal(size=(count, vertices, 3)) * [0.02, 0.05, 0.015] + place
    pred = true + rng.normal(size=true.shape) * 0.005 + rng.normal(size=place.shape) * 0.005
    return pred[:, :21], pred, true[:, :21], true


def _aligned(true, pred):
    true_mean, pred_mean = true.mean(0), pred.mean(0)
    true_size = np.linalg.norm(true - true_mean) + 1e-8
    pred_size = np.linalg.norm(pred - pred_mean) + 1e-8
    unit = (pred - pred_mean) / pred_size
    matrix, scale = orthogonal_procrustes((true - true_mean) / true_size, unit)
    return unit @ matrix.T * scale * true_size + true_mean


def _f_score(true, pred, threshold):
    precision = sum(d < threshold for d in cKDTree(pred).query(true)[0]) / len(true)
    recall = sum(d < threshold for d in cKDTree(true).query(pred)[0]) / len(pred)
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _curve_scores(distances):
    """Mean in cm and AUC of a list, per point, of lists of distances."""
    thresholds = np.linspace(0, 0.05, 100)
    means, areas = [], []
    for values in distances:
        values = np.array(values)
        shares = [np.mean((values <= threshold).astype(float)) for threshold in thresholds]
        means.append(np.mean(values))
        areas.append(np.trapezoid(shares, thresholds) / 0.05)
    return 100 * float(np.mean(means)), float(np.mean(areas))


def plain_scores(pred_joints, pred_vertices, true_joints, true_vertices) -> dict[str, float]:
    """The official twelve numbers by loops; arrays as in ``freihand_scores``."""
    kinds = ("xyz_", "xyz_al_", "mesh_", "mesh_al_")
    distances = {
        k: [[] for _ in range(21 if "xyz" in k else true_vertices.shape[1])] for k in kinds
    }
    f = {key: [] for key in ("f_score_5", "f_al_score_5", "f_score_15", "f_al_score_15")}
    for n in range(len(true_joints)):
        pairs = {"xyz_": (true_joints[n], pred_joints[n])}
        pairs["mesh_"] = (true_vertices[n], pred_vertices[n])
        for name in ("xyz_", "mesh_"):
            true, pred = pairs[name]
            pairs[name + "al_"] = (true, _aligned(true, pred))
        for name, (true, pred) in pairs.items():
            for point, value in enumerate(np.sqrt(((true - pred) ** 2).sum(1))):
                distances[name][point].append(value)
        for millimetres in (5, 15):
            threshold = millimetres / 1000
            f[f"f_score_{millimetres}"].append(_f_score(*pairs["mesh_"], threshold))
            f[f"f_al_score_{millimetres}"].append(_f_score(*pairs["mesh_al_"], threshold))
    result = {}
    for name in kinds:
        result[f"{name}mean3d"], result[f"{name}auc3d"] = _curve_scores(distances[name])
    return {**result, **{key: float(np.mean(values)) for key, values in f.items()}}


def rows(count: int = 200, repeats: int = 3) -> list[dict]:
    """Measure on ``count`` hands of 778 vertices; milliseconds per 1,000 hands, median.

    returns rows; that of the scores holds the largest difference between the two results.
    """
    arrays = hand_like(count)
    ours, theirs = freihand_scores(*arrays), plain_scores(*arrays)
    difference = max(abs(ours[key] - theirs[key]) for key in ours)
    (scores,) = milliseconds([lambda: freihand_scores(*arrays)], repeats)
    (loop,) = milliseconds([lambda: plain_scores(*arrays)], 1)
    with tempfile.TemporaryDirectory() as folder:
        path = write_predictions(Path(folder) / "pred.json", *arrays[:2])
        works = (
            lambda: read_predictions(path),
            lambda: [np.array(part) for part in json.loads(path.read_text())],
        )
        reading = milliseconds(works, repeats)
    scores, loop, *reading = (1000 / count * spent for spent in (scores, loop, *reading))
    return [
        row("FreiHAND scores, 1,000 hands", scores, loop, largest_difference=difference),
        row("reading pred.json, 1,000 hands", *reading),
    ]
