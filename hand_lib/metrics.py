"""Errors of predicted joints and vertices: one function per term, arrays in, metres out.

Five ways to lay a prediction on its truth before measuring, each named in every report:

``none``        nothing: camera space, what FreiHAND calls the un-aligned score.
``root``        both moved so that their root point (joint 0) is the origin.
``scale``       ``root``, then the least-squares scale about it.
``rotation``    similarity with a proper rotation (Umeyama, 1991): the PA of METRO, HaMeR, WiLoR.
``reflection``  similarity that may also mirror: FreiHAND's own scorer. Never larger in the squared
                error than ``rotation``, and equal to it unless the prediction is mirrored.
"""

from itertools import pairwise

import numba
import numpy as np

from hand_lib.hand.joints import FINGERS
from hand_lib.mesh.topology import procrustes_align

ALIGNMENTS = ("none", "root", "scale", "reflection", "rotation")

NORM_GUARD = 1e-8
"""Added to the size of a prediction before dividing by it, as FreiHAND's scorer does (metres)."""

F_THRESHOLDS = (0.005, 0.015)
"""Radii of F@5 and F@15, metres."""


def _check_pair(pred, true):
    pred, true = np.asarray(pred), np.asarray(true)
    if pred.shape != true.shape or pred.ndim < 2 or pred.shape[-1] not in (2, 3):
        raise ValueError(
            "prediction and truth should have one shape (..., P, 3) or (..., P, 2), found "
            f"{pred.shape} and {true.shape}"
        )
    return pred.astype(np.float64, copy=False), true.astype(np.float64, copy=False)


def point_errors(pred, true) -> np.ndarray:
    """Euclidean distance of each point to its counterpart.

    pred, true: (..., P, 3) metres or (..., P, 2) pixels.   returns (..., P) in the same unit.

    >>> point_errors([[[3.0, 0, 4]]], [[[0.0, 0, 0]]])
    array([[5.]])
    """
    pred, true = _check_pair(pred, true)
    difference = pred - true
    return np.sqrt(np.einsum("...i,...i->...", difference, difference))


def align(pred, true, kind: str, pred_root=None, true_root=None) -> np.ndarray:
    """Lay each prediction on its truth in one of the five ways of ``ALIGNMENTS``.

    pred, true: (N, P, 3) metres.   pred_root, true_root: (N, 3) what ``root`` and ``scale`` bring
    together, such as the wrists of two meshes; None: the first points.
    returns pred (N, P, 3) in the truth's frame.
    """
    if kind not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {kind!r}; known: {', '.join(ALIGNMENTS)}")
    pred, true = _check_pair(pred, true)
    if kind == "none":
        return pred
    if kind in ("rotation", "reflection"):
        return procrustes_align(pred, true, kind == "reflection", NORM_GUARD)
    pred_root = pred[:, 0] if pred_root is None else np.asarray(pred_root, float)
    true_root = true[:, 0] if true_root is None else np.asarray(true_root, float)
    centred = pred - pred_root[:, None]
    if kind == "scale":
        target = true - true_root[:, None]
        spread = np.einsum("npi,npi->n", centred, centred)
        factor = np.einsum("npi,npi->n", centred, target) / np.where(spread > 0, spread, 1.0)
        centred = centred * factor[:, None, None]
    return centred + true_root[:, None]


def align_together(points) -> tuple[np.ndarray, np.ndarray]:
    """Hands laid on the mean of hands so laid (generalised Procrustes, Gower 1975), and that mean.

    points: (N, P, 3), NaN where unknown.   returns (N, P, 3) and (P, 3).
    """
    known, laid = np.isfinite(points).all(axis=(1, 2)), np.full_like(points, np.nan)
    mean, some = points[known.argmax()], points[known]
    for _ in range(3 if known.any() else 0):
        laid[known] = procrustes_align(some, np.broadcast_to(mean, some.shape))
        mean = laid[known].mean(axis=0)
    return laid, mean


def mesh_errors(pred, true) -> dict[str, np.ndarray]:
    """Mean distance per sample, as given and after similarity alignment with a proper rotation.

    pred, true: (N, P, 3) metres (vertices or joints).   returns ``plain``, ``pa``: (N,) metres.

    >>> true = np.random.default_rng(0).normal(size=(1, 9, 3))
    >>> mesh_errors(2 * true + 1, true)["pa"].round(6)
    array([0.])
    """
    moved = align(pred, true, "rotation")
    return {"plain": point_errors(pred, true).mean(1), "pa": point_errors(moved, true).mean(1)}


def pck(errors, thresholds) -> np.ndarray:
    """Share of points within each threshold (<=).

    errors: any shape.   thresholds: (T,), the same unit, ascending.   returns (T,) in [0, 1].

    >>> pck([1.0, 2.0, 3.0, 4.0], [2.0, 9.0])
    array([0.5, 1. ])
    """
    errors, thresholds = np.asarray(errors, float).ravel(), np.asarray(thresholds, float)
    if errors.size == 0:
        raise ValueError("no errors to count: the share of no points is undefined")
    first = np.searchsorted(thresholds, errors)  # NaN is beyond the last
    return np.cumsum(np.bincount(first, minlength=len(thresholds) + 1)[:-1]) / errors.size


def auc(errors, low: float = 0.0, high: float = 0.05) -> float:
    """Area under the PCK curve between two thresholds, trapezoid rule over 100 of them.

    errors: metres, any shape.   low, high: metres; FreiHAND: 0 to 50 mm, RHD and STB: 20 to 50 mm.
    returns a value in [0, 1].
    """
    thresholds = np.linspace(low, high, 100)
    return float(np.trapezoid(pck(errors, thresholds), thresholds) / (high - low))


@numba.njit(cache=True, fastmath={"nnan", "nsz", "ninf"})  # minima in vector registers
def _to_nearest(a, b, distance):
    """distance[j] = distance of b[:, j] to the nearest of the points a (3, P)."""
    distance[:] = np.inf
    for i in range(a.shape[1]):
        x, y, z = a[0, i], a[1, i], a[2, i]
        for j in range(b.shape[1]):
            squared = (x - b[0, j]) ** 2 + (y - b[1, j]) ** 2 + (z - b[2, j]) ** 2
            distance[j] = min(distance[j], squared)
    for j in range(b.shape[1]):
        distance[j] = np.sqrt(distance[j])


@numba.njit(parallel=True, cache=True)
def _nearest(pred, true, from_pred, from_true):
    """Fill from_pred (N, P) and from_true (N, Q) from pred (N, 3, P) and true (N, 3, Q)."""
    for n in numba.prange(pred.shape[0]):
        _to_nearest(pred[n], true[n], from_true[n])
        _to_nearest(true[n], pred[n], from_pred[n])


def f_scores(pred, true, thresholds=F_THRESHOLDS) -> np.ndarray:
    """Harmonic mean of precision and recall of two point clouds (Knapitsch et al., 2017).

    A point counts when its nearest point in the other cloud is strictly closer than the threshold.
    pred: (N, P, 3).   true: (N, Q, 3) metres; P and Q may differ.   thresholds: T radii in metres.
    returns (N, T) in [0, 1]; 0 where nothing is matched.
    """
    pred, true = np.asarray(pred, np.float64), np.asarray(true, np.float64)
    fits = pred.ndim == true.ndim == 3 and len(pred) == len(true)
    if not fits or not 3 == pred.shape[2] == true.shape[2] or not pred.shape[1] * true.shape[1]:
        raise ValueError(f"expected (N, P, 3) and (N, Q, 3), found {pred.shape} and {true.shape}")
    if not (np.isfinite(pred).all() and np.isfinite(true).all()):
        raise ValueError("distances between points that are NaN or infinite are undefined")
    from_pred, from_true = np.zeros(pred.shape[:2]), np.zeros(true.shape[:2])
    by_axis = (np.ascontiguousarray(points.swapaxes(1, 2)) for points in (pred, true))
    _nearest(*by_axis, from_pred, from_true)
    a, b = (np.stack([(d < t).mean(1) for t in thresholds], 1) for d in (from_pred, from_true))
    return 2 * a * b / np.where(a + b > 0, a + b, 1.0)


def mean_per_finger(joint_errors) -> dict[str, float]:
    """Mean error of the wrist and of each finger's four joints.   joint_errors: (N, 21), any unit.

    >>> mean_per_finger(np.arange(21.0)[None])["thumb"]
    2.5
    """
    groups = {"wrist": (0,), **FINGERS}
    return {name: float(joint_errors[:, list(ids)].mean()) for name, ids in groups.items()}


def bootstrap_interval(values, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of (N,) values, one a hand, with its 95 % percentile bootstrap interval (Efron, 1979).

    returns mean, low, high.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    values = np.asarray(values, float)
    draw = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def mean_by_bin(values, by, edges) -> list[tuple]:
    """Mean of ``values`` over the hands whose ``by`` lies in each bin [low, high).

    values, by: (N,).   edges: ascending; the last bin includes its upper edge.
    returns low, high, count, mean and its interval's ends, for each bin that is not empty.
    """
    values, by, rows = np.asarray(values, float), np.asarray(by, float), []
    for low, high in pairwise(edges):
        inside = (by >= low) & ((by < high) | ((high == edges[-1]) & (by == high)))
        if inside.any():
            rows.append((low, high, inside.sum(), *bootstrap_interval(values[inside], draws=1000)))
    return rows
