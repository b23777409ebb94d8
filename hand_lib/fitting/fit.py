"""From 2-D keypoints to the parameters of a hand model, many hands at a time.

Each hand minimises the robust reprojection error, weighted by confidence, plus a Gaussian prior on
joint angles (the sampler's mean and covariance) and on shape, by Levenberg-Marquardt. Angles are
clamped to ``joints.JOINT_LIMITS`` in every step, so limits always hold. Bone lengths keep their
proportions, and along a track they are the same in every frame. A picture of a flat thing has a
mirrored twin in depth; several starting rotations are tried and the best is kept. Every fit is then
judged: what lies too far from its keypoints, or looks like no hand, is rejected with its reason.

>>> fit = fit_hands(HandModel.builtin(), keypoints_px, confidence, intrinsics)   # (B, 21, 2), ...
>>> fit.pose[fit.accepted], fit.why(0)
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.fitting.prior import NetworkPrior, hold
from hand_lib.fitting.skeleton import ORDER, Skeleton
from hand_lib.fitting.solver import State, evaluate, make_problem, minimise, smooth_track, solve
from hand_lib.hand.model import mirror_pose
from hand_lib.render.camera import check_intrinsics, guessed_intrinsics, project

MIN_JOINTS = 6
"""A hand with fewer visible joints is not fitted."""

_ROUNDS, _WIDER = 5, (4.0, 1.0)  # from a network's hand; first with keypoints taken for noisier
_CHUNK = 64  # hands at a time on a CPU, so that the work stays in its cache


@dataclass(frozen=True)
class FitOptions:
    """How to fit, and what to reject; lengths in the picture are fractions of the hand's there."""

    track: bool = False  # rows are frames of one hand in order: one shape, smooth motion
    starts: int = 3  # starting rotations
    noise: float = 0.012  # expected noise of the keypoints
    smoothness: float = 0.5  # weight of the pull towards the neighbouring frames of a track
    proportions: float = 1.0  # weight of consistent bone lengths
    # rejected is what has less or more than
    mean_confidence: float = 0.25  # of all 21 joints
    visible_joints: int = 10
    box_px: float = 20.0  # smallest side of the square round the keypoints
    inside_box: float = 0.7  # of the visible keypoints inside the detection's box
    jump: float = 0.5  # move of the hand's middle from frame to frame of a track
    turn_deg: float = 75.0  # turn of the fitted hand from frame to frame of a track
    reprojection: float = 0.035  # mean distance of fit and keypoints
    worst_joint: float = 0.13  # distance of the worst of them
    pose_energy: float = 45.0  # squared Mahalanobis distance from the pose prior
    shape: float = 3.6  # largest shape parameter
    near_m: float = 0.08  # wrist distance from the camera
    far_m: float = 6.0


class Reason(Enum):
    """Why a fit is rejected, as a sentence into which its number goes."""

    NO_HAND = "no hand: every confidence is zero"
    FEW_JOINTS = "only {:.0f} of 21 joints are visible"
    CONFIDENCE = "mean confidence {:.2f}"
    BOX_SIZE = "hand is only {:.0f} px large"
    NOT_FITTED = "keypoints lie on top of each other; not fitted"
    BOX = "{:.0%} of the keypoints lie outside the detection's box"
    JUMP = "jumps {:.1f} hand sizes in the track"
    TURN = "turns by {:.0f} degrees in the track"
    REPROJECTION = "fit and keypoints differ by {:.1%} of the hand"
    ONE_JOINT_OFF = "a joint is off by {:.1%} of the hand"
    POSE = "implausible pose, energy {:.0f}"
    SHAPE = "implausible shape, {:.1f} deviations"
    SCALE = "implausible scale: the wrist would be {:.2f} m away"
    NETWORK = "contradicts the network, which the fit has alone"
    WRONG_SIDE = "wrong side: the frame's other hand lies here too"
    BY_A_PERSON = "rejected by a person"


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
    pose_energy: np.ndarray  # (B,) the pose prior's part of it
    intrinsics: np.ndarray  # (B, 3, 3) px, as used
    accepted: np.ndarray  # (B,) bool
    reason: np.ndarray  # (B,) Reason or None
    number: np.ndarray  # (B,) that the reason is about

    def why(self, row: int) -> str:
        """The reason of a row as a sentence, "" where it is accepted."""
        return self.reason[row].value.format(self.number[row]) if self.reason[row] else ""

    def kind(self, row: int) -> str:
        """The kind of reason of a row, "" where it is accepted."""
        return self.reason[row].name.lower().replace("_", " ") if self.reason[row] else ""


def fit_hands(
    model, keypoints_2d, confidence=None, intrinsics=None, options: FitOptions | None = None, *,
    image_size=None, boxes=None, prior: NetworkPrior | None = None,
) -> HandFit:  # fmt: skip
    """Fit the hand model to batches of 2-D hands.

    model: a ``HandModel``, built-in or MANO, right or left; the keypoints show that side.
    keypoints_2d: (B, 21, 2) px, FreiHAND order, NaN where not seen.   confidence: (B, 21), 0 leaves
    out; None: 1.
    intrinsics: (3, 3) or (B, 3, 3) px; None guesses a field of view of 60 degrees (``image_size``
    (width, height) tells of what, else the reach of the keypoints), so that depth is a guess.
    boxes: (B, 4) px x0 y0 x1 y1 of the detections, which keypoints should lie in.
    prior: what a network says of the same hands. Keypoints that contradict it but lie where it
    found the hand are fitted alone and believed if that is accepted; where there are too few, or
    they are another hand's, the fit is that of the network's mesh to its own 2-D joints.
    returns a ``HandFit``; rows that cannot be fitted are NaN and say why in ``reason``.
    """
    options = options or FitOptions()
    points, weights = _check_keypoints(keypoints_2d, confidence)
    fit = empty_fit(_cameras(intrinsics, points, weights, image_size))
    size = hand_size(points, weights)
    known = ((weights > 0).sum(1) >= MIN_JOINTS) & (size > 2)
    rows, alone = np.flatnonzero(known | (prior is not None)), np.zeros(len(size), bool)
    if len(rows):
        skeleton = _skeleton(model, model.template.device)
        track = options.track and len(rows) > 1
        step = len(rows) if track or model.template.device.type != "cpu" else _CHUNK
        for part in (rows[i : i + step] for i in range(0, len(rows), step)):
            given = points[part], (weights * known[:, None])[part], fit.intrinsics[part]
            if prior is None:
                ask = size[part], options.noise, options.proportions
                problem = make_problem(skeleton, *given, *ask)
                state, terms, _ = solve(problem, options.starts, track)
            else:
                problem, state, (agree, near) = hold(skeleton, prior.rows(part), *given)
                for wider in _WIDER if weights[part].any() else _WIDER[-1:]:
                    wide = problem._replace(sigma=wider * problem.sigma)
                    state, terms = minimise(wide, state, _ROUNDS)
                known[part], alone[part] = near, ~agree
            if track:
                state = smooth_track(problem, state, terms, options.smoothness)
                terms = evaluate(problem, state)
            _write(fit, part, problem, state, terms, points[part], weights[part])
    if prior is not None and not prior.wary:
        off = np.nan_to_num(fit.residual_px).max(1) > options.worst_joint * size
        off |= fit.reprojection_px > options.reprojection * size
        off &= ~prior.doubted
        for row, held in ((off & known & ~alone, True), (known & alone, False)):
            if not len(row := np.flatnonzero(row)):
                continue
            wary = prior.rows(row)._replace(wary=True) if held else None
            other = fit_hands(model, points[row], weights[row], fit.intrinsics[row], prior=wary)
            one_off = prior.doubted[row] & (other.reason == Reason.ONE_JOINT_OFF)
            taken = other.accepted | one_off | held
            for name in vars(fit):
                getattr(fit, name)[row[taken]] = getattr(other, name)[taken]
            alone[row[taken]] = False
    _judge(fit, points, weights, boxes, options, alone)
    return fit


def follow_fit(
    model, keypoints_2d, confidence=None, intrinsics=None, image_size=None
) -> list[list[HandFit]]:
    """Fit one hand and keep every step, to look at.

    keypoints_2d: (21, 2) px.   confidence: (21,).   The rest as in ``fit_hands``.
    returns per start a list of one-row ``HandFit``s, from the first guess on; the start that won
    comes first and goes on where the others stop.
    """
    options = FitOptions()
    points, weights = _check_keypoints(keypoints_2d, confidence)
    size = hand_size(points, weights)
    if len(points) != 1 or (weights > 0).sum() < MIN_JOINTS or size[0] <= 2:
        raise ValueError(f"follow_fit takes one hand with at least {MIN_JOINTS} visible joints")
    cameras = _cameras(intrinsics, points, weights, image_size)
    ask = size, options.noise, options.proportions
    problem = make_problem(Skeleton(model), points, weights, cameras, *ask)
    history: list[State] = []
    _, _, best = solve(problem, options.starts, history=history)
    first = [states for states in history if len(states.wrist) == options.starts]
    won, paths = int(best[0]), []
    for start in sorted(range(options.starts), key=lambda n: n != won):
        path = [states.rows([start]) for states in first]
        path += history[len(first) :] if start == won else []
        paths.append([empty_fit(cameras) for _ in path])
        for fit, state in zip(paths[-1], path, strict=True):
            terms = evaluate(problem, state)
            _write(fit, np.arange(1), problem, state, terms, points, weights)
    return paths


_skeleton = lru_cache(maxsize=4)(lambda model, device: Skeleton(model))


def hand_size(points, weights) -> np.ndarray:
    """Side of the square round the visible keypoints.   (B, 21, 2), (B, 21) -> (B,) px."""
    seen = (weights > 0)[..., None]
    low, high = np.where(seen, points, np.inf).min(1), np.where(seen, points, -np.inf).max(1)
    return np.maximum((high - low).max(1), 0.0)  # nothing seen: -inf


def empty_fit(cameras) -> HandFit:
    """A fit of hands that nothing is known of yet.   cameras: (B, 3, 3) px."""
    batch = len(cameras)

    def nan(*shape):
        return np.full((batch, *shape), np.nan)

    return HandFit(
        pose=nan(16, 3), betas=nan(10), translation=nan(3), joints=nan(21, 3),
        joints_2d=nan(21, 2), reprojection_px=nan(), residual_px=nan(21), energy=nan(),
        pose_energy=nan(), intrinsics=cameras, accepted=np.zeros(batch, bool),
        reason=np.full(batch, None, object), number=nan(),
    )  # fmt: skip


def _check_keypoints(keypoints, confidence):
    keypoints = np.asarray(keypoints, float)
    keypoints = keypoints[None] if keypoints.ndim == 2 else keypoints
    if keypoints.ndim != 3 or keypoints.shape[1:] != (21, 2):
        raise ValueError(f"expected keypoints_2d (B, 21, 2), found {keypoints.shape}")
    if confidence is None:
        confidence = np.ones(keypoints.shape[:2])
    confidence = np.asarray(confidence, float).reshape(-1, 21)
    if confidence.shape != keypoints.shape[:2]:
        raise ValueError(f"expected confidence ({len(keypoints)}, 21), found {confidence.shape}")
    if (confidence < 0).any() or not np.isfinite(confidence).all():
        raise ValueError("confidence must be finite and not negative")
    finite = np.isfinite(keypoints).all(2)
    return np.where(finite[..., None], keypoints, 0.0), np.where(finite, confidence, 0.0)


def _cameras(intrinsics, points, weights, image_size):
    batch = len(points)
    if intrinsics is None:
        if image_size is None:
            seen = points[weights > 0]
            image_size = seen.max(0) + 1 if len(seen) else (1.0, 1.0)
        intrinsics = guessed_intrinsics(*np.maximum(image_size, 1))
    intrinsics = np.asarray(intrinsics, float)
    if intrinsics.shape not in ((3, 3), (batch, 3, 3)):
        raise ValueError(f"expected intrinsics (3, 3) or (B, 3, 3), found {intrinsics.shape}")
    for matrix in np.unique(intrinsics.reshape(-1, 3, 3), axis=0):
        check_intrinsics(matrix, *((60, 60) if image_size is None else image_size))
    return np.broadcast_to(intrinsics, (batch, 3, 3)).copy()


def _write(fit, rows, problem, state, terms, points, weights) -> None:
    """Fill rows of a fit from a state."""
    skeleton, betas = problem.skeleton, state.betas
    model, rig = skeleton.model, skeleton.rig
    pose = skeleton.pose(state.rotation, state.angles)
    translation = state.wrist - rig.joints[0] - betas @ rig.joint_shapes[:, 0]
    if skeleton.mirror < 0:
        pose, translation = mirror_pose(pose), translation * skeleton.put([-1.0, 1.0, 1.0])
    if not model.flat_mean:
        pose[:, 1:] -= model.pose_mean.to(pose).view(15, 3)
    joints = np.zeros((len(pose), 21, 3))
    joints[:, ORDER] = terms.joints.mT.cpu() * torch.tensor([skeleton.mirror, 1.0, 1.0])
    pixels = project(np.maximum(joints, [-np.inf, -np.inf, 1e-6]), fit.intrinsics[rows])
    distance = np.where(weights > 0, np.linalg.norm(pixels - points, axis=2), np.nan)
    fit.pose[rows], fit.betas[rows] = pose.cpu(), betas.cpu()
    fit.translation[rows] = translation.cpu()
    fit.energy[rows], fit.pose_energy[rows] = terms.cost.cpu(), terms.pose.cpu()
    fit.joints[rows], fit.joints_2d[rows], fit.residual_px[rows] = joints, pixels, distance
    count = np.maximum((weights > 0).sum(1), 1)
    fit.reprojection_px[rows] = np.nan_to_num(distance).sum(1) / count


def _judge(fit, points, weights, boxes, options: FitOptions, alone) -> None:
    """Fill ``accepted``, ``reason`` and ``number``; the first reason that applies is given."""
    seen = weights > 0
    size, count = hand_size(points, weights), seen.sum(1)
    safe = np.maximum(size, 1e-6)
    jump, turn, outside = np.zeros((3, len(points)))
    if options.track and len(points) > 2:
        middle = np.where(seen[..., None], points, 0).sum(1) / np.maximum(count, 1)[:, None]
        jump = _least_step(np.linalg.norm(np.diff(middle, axis=0), axis=1)) / safe
        turns = Rotation.from_rotvec(np.nan_to_num(fit.pose[:, 0]))
        known = np.isfinite(fit.pose[:, 0]).all(1)
        step = np.rad2deg((turns[1:] * turns[:-1].inv()).magnitude())
        turn = _least_step(np.where(known[1:] & known[:-1], step, 0))
    if boxes is not None:
        boxes = np.asarray(boxes, float).reshape(len(points), 1, 4)
        inside = ((points >= boxes[..., :2]) & (points <= boxes[..., 2:])).all(2)
        outside = (~inside & seen).sum(1) / np.maximum(count, 1)
    mean, confidence = fit.reprojection_px / safe, weights.mean(1)
    worst = np.nan_to_num(fit.residual_px).max(1) / safe
    depth, shape = fit.joints[:, 0, 2], np.abs(fit.betas).max(1)
    tests = (
        (Reason.NO_HAND, count == 0, count),
        (Reason.FEW_JOINTS, count < options.visible_joints, count),
        (Reason.CONFIDENCE, confidence < options.mean_confidence, confidence),
        (Reason.BOX_SIZE, size < options.box_px, size),
        (Reason.NOT_FITTED, np.isnan(mean), mean),
        (Reason.NETWORK, alone, alone),
        (Reason.BOX, outside > 1 - options.inside_box, outside),
        (Reason.JUMP, jump > options.jump, jump),
        (Reason.TURN, turn > options.turn_deg, turn),
        (Reason.REPROJECTION, mean > options.reprojection, mean),
        (Reason.ONE_JOINT_OFF, worst > options.worst_joint, worst),
        (Reason.POSE, fit.pose_energy > options.pose_energy, fit.pose_energy),
        (Reason.SHAPE, shape > options.shape, shape),
        (Reason.SCALE, ~((depth > options.near_m) & (depth < options.far_m)), depth),
    )
    fit.reason[:], fit.number[:] = None, np.nan
    for reason, bad, number in reversed(tests):
        fit.reason[bad], fit.number[bad] = reason, number[bad]
    fit.accepted[:] = [reason is None for reason in fit.reason]


def _least_step(step) -> np.ndarray:
    """Of the steps (T - 1,) between frames, the smaller one at each frame (T,)."""
    return np.minimum(np.concatenate([step[:1], step]), np.concatenate([step, step[-1:]]))
