"""Which fits to keep, and why the others go."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FilterLimits:
    """Thresholds; lengths in the picture are shares of the hand's size there."""

    mean_confidence: float = 0.25  # of all 21 joints
    visible_joints: int = 10
    box_px: float = 20.0  # smallest side of the square round the keypoints
    reprojection: float = 0.035  # mean distance of fit and keypoints
    worst_joint: float = 0.13  # distance of the worst of them
    pose_energy: float = 45.0  # squared Mahalanobis distance from the pose prior
    shape: float = 3.6  # largest shape parameter
    near_m: float = 0.08  # wrist distance from the camera
    far_m: float = 6.0
    inside_box: float = 0.7  # share of visible keypoints inside the detection's box
    jump: float = 0.5  # move of the hand's middle from frame to frame of a track
    turn_deg: float = 75.0  # turn of the fitted hand from frame to frame of a track
    calm_energy: float = 45.0  # fits below are not asked whether something else explains them
    swap_gain: float = 10.0  # energy that another order of the fingers may save
    side_gain: float = 12.0  # energy that a hand of the other side may save


def judge_fits(
    fit, points, weights, boxes, track, limits: FilterLimits, sides=None, side="right"
) -> None:
    """Fill ``fit.accepted`` and ``fit.reason``; the first reason that applies is given.

    points: (B, 21, 2) px.   weights: (B, 21).   boxes: (B, 4) px or None.   sides: B that the
    detector says, or None.   side: the model's.
    """
    batch = len(points)
    wrong = np.array([False] * batch if sides is None else [found != side for found in sides])
    other_hand = np.array([name == "the other hand" for name in fit.rival], bool)
    seen = weights > 0
    low = np.where(seen[..., None], points, np.inf).min(1)
    high = np.where(seen[..., None], points, -np.inf).max(1)
    size = np.nan_to_num((high - low).max(1), nan=0.0, posinf=0.0, neginf=0.0)
    safe = np.maximum(size, 1e-6)
    jump, turn = np.zeros(batch), np.zeros(batch)
    if track:
        middle = np.where(seen[..., None], points, 0).sum(1) / np.maximum(seen.sum(1), 1)[:, None]
        jump = _jumps(middle, safe)
        turn = _turns(fit.pose[:, 0])
    with np.errstate(invalid="ignore"):
        worst = np.nan_to_num(fit.residual_px, nan=0.0).max(1) / safe
        mean = fit.reprojection_px / safe
        depth = fit.joints[:, 0, 2]
        shape = np.abs(fit.betas).max(1)
        pose_energy = fit.pose_energy
        tests = [
            (seen.sum(1) == 0, lambda i: "no hand: every confidence is zero"),
            (
                seen.sum(1) < limits.visible_joints,
                lambda i: f"only {seen[i].sum()} of 21 joints are visible",
            ),
            (
                weights.mean(1) < limits.mean_confidence,
                lambda i: f"mean confidence {weights[i].mean():.2f}",
            ),
            (wrong, lambda i: f"wrong side: the detector says {sides[i]}, the model is {side}"),
            (size < limits.box_px, lambda i: f"hand is only {size[i]:.0f} px large"),
            (np.isnan(mean), lambda i: "keypoints lie on top of each other; not fitted"),
            (
                _outside(points, seen, boxes) > 1 - limits.inside_box,
                lambda i: "keypoints lie outside the detection's box",
            ),
            (jump > limits.jump, lambda i: f"jumps {jump[i]:.1f} hand sizes in the track"),
            (turn > limits.turn_deg, lambda i: f"turns by {turn[i]:.0f} degrees in the track"),
            (
                mean > limits.reprojection,
                lambda i: (
                    f"reprojection {fit.reprojection_px[i]:.1f} px, {mean[i]:.1%} of the hand"
                ),
            ),
            (
                worst > limits.worst_joint,
                lambda i: (
                    f"joint {int(np.nanargmax(fit.residual_px[i]))} is off by {worst[i]:.1%} "
                    f"of the hand"
                ),
            ),
            (
                pose_energy > limits.pose_energy,
                lambda i: f"implausible pose, energy {pose_energy[i]:.0f}",
            ),
            (
                other_hand & (fit.rival_gain > limits.side_gain),
                lambda i: "wrong side: a hand of the other side explains the keypoints better",
            ),
            (~other_hand & (fit.rival_gain > limits.swap_gain), lambda i: fit.rival[i]),
            (shape > limits.shape, lambda i: f"implausible shape, {shape[i]:.1f} deviations"),
            (
                ~((depth > limits.near_m) & (depth < limits.far_m)),
                lambda i: f"implausible scale: the wrist would be {depth[i]:.2f} m away",
            ),
        ]
    reasons = [""] * batch
    for bad, text in tests:
        for i in np.flatnonzero(bad):
            reasons[i] = reasons[i] or text(i)
    fit.reason = reasons
    fit.accepted = np.array([not reason for reason in reasons], bool)


def _outside(points, seen, boxes):
    """Share of visible keypoints outside the box, (B,)."""
    if boxes is None:
        return np.zeros(len(points))
    boxes = np.asarray(boxes, float).reshape(len(points), 4)
    inside = (points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])
    return ((~inside.all(2)) & seen).sum(1) / np.maximum(seen.sum(1), 1)


def _jumps(middle, size):
    """Move against both neighbours (the smaller one counts), in hand sizes (B,)."""
    if len(middle) < 3:
        return np.zeros(len(middle))
    step = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    before = np.concatenate([[step[0]], step])
    after = np.concatenate([step, [step[-1]]])
    return np.minimum(before, after) / size


def _turns(axis_angle):
    """Turn against both neighbours (the smaller one counts), degrees (B,); NaN frames are calm."""
    if len(axis_angle) < 3:
        return np.zeros(len(axis_angle))
    from scipy.spatial.transform import Rotation

    known = np.isfinite(axis_angle).all(1)
    turns = Rotation.from_rotvec(np.where(known[:, None], axis_angle, 0.0))
    step = np.rad2deg((turns[1:] * turns[:-1].inv()).magnitude())
    step[~(known[1:] & known[:-1])] = 0
    before, after = np.concatenate([[step[0]], step]), np.concatenate([step, [step[-1]]])
    return np.minimum(before, after)
