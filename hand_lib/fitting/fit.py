"""From 2-D keypoints to the parameters of a hand model, many hands at a time.

Each hand minimises the robust reprojection error, weighted by confidence, plus a Gaussian prior on
joint angles (the sampler's mean and covariance) and on shape, by Levenberg-Marquardt. Angles are
clamped to ``anatomy.JOINT_LIMITS`` in every step, so limits always hold. Bone lengths keep their
proportions, and along a track they are the same in every frame. A picture of a flat thing has a
mirrored twin in depth: several starting rotations, found by matching a bank of posed hands seen
from all sides, keep the fit from it.

>>> fit = fit_hands(HandModel.builtin(), keypoints_px, confidence, intrinsics)   # (B, 21, 2), ...
>>> fit.pose[fit.accepted], fit.reason[0]
"""

from dataclasses import dataclass, field

import numpy as np

from hand_lib.fitting.filters import FilterLimits, judge_fits
from hand_lib.fitting.skeleton import LIMITS, Skeleton
from hand_lib.fitting.solver import PAIRS, Problem
from hand_lib.render.camera import guessed_intrinsics

MIN_JOINTS = 6
"""A hand with fewer visible joints is not fitted."""

_CHUNK = 64  # hands at a time on a CPU, so that the work stays in its cache


@dataclass
class HandFit:
    """What fits found; row i belongs to hand i. Metres, radians, camera axes."""

    pose: np.ndarray  # (B, 16, 3) axis-angle, to be handed to the same model
    betas: np.ndarray  # (B, 10)
    translation: np.ndarray  # (B, 3)
    joints: np.ndarray  # (B, 21, 3)
    joints_2d: np.ndarray  # (B, 21, 2) px, the fit's own
    reprojection_px: np.ndarray  # (B,) mean distance over the visible joints
    residual_px: np.ndarray  # (B, 21) distance of each joint, NaN where not seen
    energy: np.ndarray  # (B,) the minimum reached
    pose_energy: np.ndarray  # (B,) share of the pose prior in it
    intrinsics: np.ndarray  # (B, 3, 3) px, as used
    rival_gain: np.ndarray  # (B,) by how much another explanation lowers the energy, 0: not asked
    rival: list  # B strings, which explanation that is
    accepted: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (B,) bool
    reason: list = field(default_factory=list)  # B strings, empty where accepted


def fit_hands(
    model,
    keypoints_2d,
    confidence=None,
    intrinsics=None,
    *,
    image_size=None,
    track=False,
    boxes=None,
    sides=None,
    starts: int = 3,
    noise: float = 0.012,
    smoothness: float = 0.5,
    proportions: float = 1.0,
    rivals: bool = True,
    limits: FilterLimits | None = None,
) -> HandFit:
    """Fit the hand model to batches of 2-D hands.

    model: a ``HandModel``, built-in or MANO, right or left; the keypoints show that side.
    keypoints_2d: (B, 21, 2) px, FreiHAND order.   confidence: (B, 21), 0 leaves out; None: 1.
    intrinsics: (3, 3) or (B, 3, 3) px; None guesses a field of view of 60 degrees (``image_size``
    (width, height) tells of what, else the reach of the keypoints), so that depth is a guess.
    track: the rows are frames of one hand in order: shape is shared and motion smoothed.
    boxes: (B, 4) px x0 y0 x1 y1 of the detections, for the filter.   sides: B of "right" and
    "left", what the detector says; hands of the other side than the model's are rejected.
    starts: starting rotations.   noise: expected keypoint noise as a share of the hand's size in
    the picture.   smoothness: weight of the pull towards the neighbouring frames of a track.
    proportions: weight of consistent bone lengths.   rivals: also try swapped fingers and, with
    known intrinsics, the other side's hand, and reject what they explain much better.
    returns a ``HandFit``; rows that cannot be fitted are NaN and say why in ``reason``.
    """
    points, weights = _check_keypoints(keypoints_2d, confidence)
    batch = len(points)
    cameras = _cameras(intrinsics, points, weights, image_size, batch)
    limits = limits or FilterLimits()
    sides = _check_sides(sides, batch)
    fit, solved = empty_fit(batch, cameras), []
    size = hand_size(points, weights)
    rows = np.flatnonzero(((weights > 0).sum(1) >= MIN_JOINTS) & (size > 2))
    if len(rows):
        skeleton = Skeleton(model)
        step = len(rows) if track or skeleton.device.type != "cpu" else _CHUNK
        for part in (rows[i : i + step] for i in range(0, len(rows), step)):
            problem = Problem(
                skeleton, points[part], weights[part], cameras[part], size[part], noise, proportions
            )
            state = problem.solve(starts, track and len(rows) > 1)
            if track and len(rows) > 1:
                state = problem.solve_track(state, smoothness)
            problem.write(fit, part, state)
            solved.append((part, problem, state))
    judge_fits(fit, points, weights, boxes, track, limits, sides, model.side)
    if rivals and len(rows):
        for part, problem, state in solved:
            doubtful = np.flatnonzero(fit.accepted[part] & (fit.energy[part] > limits.calm_energy))
            if len(doubtful):
                _ask_rivals(
                    fit,
                    part[doubtful],
                    problem.some(doubtful),
                    [x[doubtful] for x in state],
                    intrinsics is not None,
                )
        judge_fits(fit, points, weights, boxes, track, limits, sides, model.side)
    return fit


def follow_fit(
    model, keypoints_2d, confidence=None, intrinsics=None, *, image_size=None, starts: int = 3,
    noise: float = 0.012, proportions: float = 1.0,
) -> list[list[HandFit]]:  # fmt: skip
    """Fit one hand and keep every step, to look at.

    keypoints_2d: (21, 2) px.   confidence: (21,).   The rest as in ``fit_hands``.
    returns per start a list of one-row ``HandFit``s, from the first guess on; the start that won
    comes first and goes on where the others stop.
    """
    points, weights = _check_keypoints(keypoints_2d, confidence)
    cameras = _cameras(intrinsics, points, weights, image_size, 1)
    size = hand_size(points, weights)
    if len(points) != 1 or (weights > 0).sum() < MIN_JOINTS or size[0] <= 2:
        raise ValueError(f"follow_fit takes one hand with at least {MIN_JOINTS} visible joints")
    problem = Problem(Skeleton(model), points, weights, cameras, size, noise, proportions)
    steps = [[] for _ in range(starts)]
    for number, guess in enumerate(problem.first_guesses(starts)):
        steps[number].append(problem.start(guess))

    def watch(state, index):
        rows = range(len(index)) if len(index) > 1 or starts == 1 else [int(problem.best[0])]
        for at, number in enumerate(rows):
            steps[number].append([part[at : at + 1].clone() for part in state])

    problem.watch = watch
    problem.solve(starts)
    problem.watch = None
    best, fits = int(problem.best[0]), []
    for number in sorted(range(starts), key=lambda n: n != best):
        fits.append([])
        for state in steps[number]:
            fits[-1].append(empty_fit(1, cameras))
            problem.write(fits[-1][-1], np.arange(1), state)
    return fits


def _ask_rivals(fit, rows, problem, state, side):
    own, others = problem.rivals(state, side)
    gain, best = (own - others).max(0)
    fit.rival_gain[rows] = gain.clamp_min(0).cpu().numpy()
    names = ["the other hand"] + [f"{one} and {two} finger swapped" for one, two in PAIRS]
    for row, number in zip(rows, best.tolist(), strict=True):
        fit.rival[row] = names[number]


def hand_size(points, weights) -> np.ndarray:
    """Side of the square round the visible keypoints.   (B, 21, 2), (B, 21) -> (B,) px."""
    seen = (weights > 0)[..., None]
    low = np.where(seen, points, np.inf).min(1)
    high = np.where(seen, points, -np.inf).max(1)
    side = (high - low).max(1)
    return np.where(np.isfinite(side), side, 0.0)


def _check_keypoints(keypoints, confidence):
    keypoints = np.asarray(keypoints, float)
    if keypoints.ndim == 2:
        keypoints = keypoints[None]
    if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
        raise ValueError(f"expected keypoints_2d (B, 21, 2), found {keypoints.shape}")
    if confidence is None:
        confidence = np.ones(keypoints.shape[:2])
    confidence = np.asarray(confidence, float).reshape(-1, 21)
    if confidence.shape != keypoints.shape[:2]:
        raise ValueError(
            f"expected confidence ({len(keypoints)}, 21), found {np.shape(confidence)}"
        )
    if (confidence < 0).any() or not np.isfinite(confidence).all():
        raise ValueError("confidence must be finite and not negative")
    finite = np.isfinite(keypoints).all(2)
    return np.where(finite[..., None], keypoints, 0.0), np.where(finite, confidence, 0.0)


def _cameras(intrinsics, points, weights, image_size, batch):
    if intrinsics is not None:
        intrinsics = np.asarray(intrinsics, float)
        if intrinsics.shape not in ((3, 3), (batch, 3, 3)):
            raise ValueError(f"expected intrinsics (3, 3) or (B, 3, 3), found {intrinsics.shape}")
        return np.broadcast_to(intrinsics, (batch, 3, 3)).copy()
    if image_size is None:
        seen = points[weights > 0]
        image_size = seen.max(0) + 1 if len(seen) else (1.0, 1.0)
    width, height = np.maximum(image_size, 1)
    return np.broadcast_to(guessed_intrinsics(width, height), (batch, 3, 3)).copy()


def _check_sides(sides, batch):
    if sides is None:
        return None
    sides = [sides] * batch if isinstance(sides, str) else list(sides)
    if len(sides) != batch or any(side not in ("right", "left") for side in sides):
        raise ValueError(f"expected {batch} sides, each 'right' or 'left', found {sides[:5]}")
    return sides


def empty_fit(batch: int, cameras) -> HandFit:
    """A fit of hands that nothing is known of yet.   cameras: (B, 3, 3) px."""

    def nan(*shape):
        return np.full((batch, *shape), np.nan)

    return HandFit(
        pose=nan(16, 3), betas=nan(10), translation=nan(3), joints=nan(21, 3),
        joints_2d=nan(21, 2), reprojection_px=nan(), residual_px=nan(21), energy=nan(),
        pose_energy=nan(), intrinsics=cameras, rival_gain=np.zeros(batch), rival=[""] * batch,
    )  # fmt: skip


__all__ = ["LIMITS", "MIN_JOINTS", "HandFit", "empty_fit", "fit_hands", "hand_size"]
