"""How good is the fit? Known hands, keypoints spoilt on purpose, and what comes back.

    python -m hand_lib.fitting.trials 1000

Hands are drawn from the pose prior, turned at random over all of SO(3), and seen by a camera of
224 px, so that they fill about three quarters of the picture.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from hand_lib.fitting.fit import fit_hands, hand_size
from hand_lib.hand.joints import FINGERS
from hand_lib.hand.model import HandModel, mirror_pose
from hand_lib.hand.poses import sample_poses
from hand_lib.mesh.topology import procrustes_align
from hand_lib.render.camera import project

CAMERA = np.array([[450.0, 0, 111.5], [0, 450, 111.5], [0, 0, 1]])
"""Intrinsics of the trials, pixels: a picture of 224 px that shows 0.25 m at 0.5 m."""

NOISE_PX, MISSING = 3.0, 0.15
"""The noisy keypoints of the trials: deviation per coordinate, share of joints not seen."""

CORRUPTIONS = ("swapped", "another hand", "shuffled", "shifted")
"""What detectors do wrong; see ``corrupt``."""


@dataclass(frozen=True)
class KnownHands:
    """Hands whose truth is known; row i of every array is hand i."""

    joints: np.ndarray  # (B, 21, 3) metres, camera axes
    picture: np.ndarray  # (B, 21, 2) px, exact keypoints
    vertices: np.ndarray  # (B, V, 3) metres, camera axes


def known_hands(count: int, seed: int = 0, model=None) -> KnownHands:
    """Random hands half a metre in front of ``CAMERA``.   model: built-in right hand by default."""
    rng = np.random.default_rng(seed)
    model = model or HandModel.builtin()
    pose = torch.from_numpy(sample_poses(count, rng)).float()
    turn = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, 3))), dim=1)
    turn = turn * torch.from_numpy(rng.uniform(0, 3.1, (count, 1)))
    pose[:, 0] = turn.float()
    if model.side == "left":
        pose = mirror_pose(pose)
    if not model.flat_mean:
        pose[:, 1:] -= model.pose_mean.view(15, 3).to(pose)
    pose = pose.to(model.template)
    betas = torch.from_numpy(rng.normal(size=(count, 10))).to(model.template)
    with torch.no_grad():
        hand = model(pose, betas)
    joints, vertices = (x.double().cpu().numpy() for x in (hand.joints, hand.vertices))
    middle = np.array([0.0, 0, 0.5]) - joints.mean(1, keepdims=True)
    return KnownHands(joints + middle, project(joints + middle, CAMERA), vertices + middle)


def spoil(points, rng, noise_px: float = NOISE_PX, missing: float = MISSING):
    """Keypoints as a detector gives them: noisy, some not seen.

    points: (B, 21, 2) px.   returns points with NaN where not seen, confidence (B, 21).
    """
    noisy = points + rng.normal(0, noise_px, points.shape)
    seen = rng.random(points.shape[:2]) >= missing
    return np.where(seen[..., None], noisy, np.nan), seen.astype(float)


def joint_errors_mm(joints, true_joints) -> np.ndarray:
    """Mean joint error after similarity alignment, (B,) mm.   joints: (B, 21, 3) metres."""
    aligned = procrustes_align(joints, true_joints)
    return 1000 * np.linalg.norm(aligned - true_joints, axis=2).mean(1)


def depth_flipped(joints, true_joints) -> np.ndarray:
    """Is the hand the mirror image in depth of what it should be?  (B,) bool.

    A picture under weak perspective is that of the hand mirrored in depth, too. Flipped are hands
    whose mirror image is nearer the truth, after similarity alignment without reflections, than
    the hand itself is.   joints: (B, 21, 3) metres, camera axes.
    """
    mirrored = joints * (1, 1, -1)
    own = np.linalg.norm(centred(joints) - centred(true_joints), axis=2).mean(1)
    other = np.linalg.norm(centred(mirrored) - centred(true_joints), axis=2).mean(1)
    return other < own


def centred(points):
    """Points (B, N, 3) about their mean."""
    return points - points.mean(1, keepdims=True)


def corrupt(points, rng, share: float = 0.2):
    """Spoil some detections the way detectors fail.

    points: (B, 21, 2) px.   share: of the hands.
    returns points, boxes of the detections (B, 4) px, and kind (B,) of ``CORRUPTIONS`` or "":
    swapped: two fingers take each other's keypoints; another hand: the keypoints are those of a
    hand elsewhere in the picture; shuffled: joints in random order; shifted: a third of the joints
    lies beside the hand by a third of its size.
    """
    low, high = points.min(1), points.max(1)
    size = hand_size(points, np.ones(points.shape[:2]))
    margin = 0.2 * size[:, None]
    boxes, found = np.concatenate([low - margin, high + margin], 1), points.copy()
    kind = np.full(len(points), "", object)
    names = list(FINGERS)
    for n, i in enumerate(rng.permutation(len(points))[: round(share * len(points))]):
        kind[i] = CORRUPTIONS[n % 4]
        if kind[i] == "swapped":
            one, two = (FINGERS[names[k]] for k in rng.permutation(5)[:2])
            found[i, list(one)], found[i, list(two)] = points[i, list(two)], points[i, list(one)]
        elif kind[i] == "another hand":
            angle = rng.uniform(0, 2 * np.pi)
            away = rng.uniform(0.9, 1.5) * size[i] * np.array([np.cos(angle), np.sin(angle)])
            found[i] = points[(i + 7) % len(points)] + away
        elif kind[i] == "shuffled":
            found[i] = rng.permutation(points[i])
        else:
            found[i, rng.permutation(21)[:7]] += 0.33 * size[i] * _unit(rng)
    return found, boxes, kind


def _unit(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def accuracy(count: int = 1000, seed: int = 0, model=None, batch: int = 256) -> dict:
    """Errors of fits to exact and to noisy keypoints, and how many are mirrored in depth.

    batch: hands per call.   returns per "exact" and "noisy": median reprojection_px and pa_mm (of
    the joints), accepted share, hands_per_s, flipped and flipped_one_start, the shares of
    depth-flipped hands with all starts and with the first alone. Speed per processor second.
    """
    model = model or HandModel.builtin()
    hands, found = known_hands(count, seed, model), {}
    fit_hands(model, hands.picture[:64], None, CAMERA)  # caches and tables
    noisy = spoil(hands.picture, np.random.default_rng([seed, 1]))
    for name, (points, confidence) in {"exact": (hands.picture, None), "noisy": noisy}.items():
        started = time.process_time()
        fit = _in_batches(model, points, confidence, batch)
        seconds = time.process_time() - started
        one = _in_batches(model, points, confidence, batch, starts=1, rivals=False)
        found[name] = {
            "reprojection_px": float(np.median(fit["reprojection_px"])),
            "pa_mm": float(np.median(joint_errors_mm(fit["joints"], hands.joints))),
            "accepted": float(fit["accepted"].mean()),
            "flipped_one_start": float(depth_flipped(one["joints"], hands.joints).mean()),
            "flipped": float(depth_flipped(fit["joints"], hands.joints).mean()),
            "hands_per_s": count / seconds,
        }
    return found


def _in_batches(model, points, confidence, batch, **options):
    parts = []
    for at in range(0, len(points), batch):
        rows = slice(at, at + batch)
        weights = None if confidence is None else confidence[rows]
        parts.append(fit_hands(model, points[rows], weights, CAMERA, **options))
    names = ("joints", "reprojection_px", "accepted")
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def rejections(count: int = 1000, seed: int = 1, noise_px: float = 2.0, model=None) -> dict:
    """Share rejected by kind of corruption, and what the filters said.

    Detections have ``noise_px`` of noise; a fifth is corrupt. Separately all hands are those of
    the other side ("wrong side, unlabelled"), whose keypoints alone seldom say so.
    returns kind -> (number, share rejected, Counter of reasons); kind "good" is the rest.
    """
    from hand_lib.inference.weak_labels import reason_kind

    model = model or HandModel.builtin()
    rng = np.random.default_rng([seed, 2])
    hands = known_hands(count, seed, model)
    points, boxes, kind = corrupt(hands.picture + rng.normal(0, noise_px, (count, 21, 2)), rng)
    fit = fit_hands(model, points, None, CAMERA, boxes=boxes)
    rows = {"good": kind == ""} | {name: kind == name for name in CORRUPTIONS}
    rows["all corrupt"] = kind != ""
    found = {name: _rejected(fit, mask, reason_kind) for name, mask in rows.items()}
    other = HandModel.builtin({"right": "left", "left": "right"}[model.side])
    strange = known_hands(count // 4, seed + 1, other).picture
    strange = strange + rng.normal(0, noise_px, strange.shape)
    fit = fit_hands(model, strange, None, CAMERA)
    found["wrong side, unlabelled"] = _rejected(fit, np.ones(len(strange), bool), reason_kind)
    fit = fit_hands(model, strange, None, CAMERA, sides=other.side)
    found["wrong side, labelled"] = _rejected(fit, np.ones(len(strange), bool), reason_kind)
    return found


def _rejected(fit, mask, reason_kind):
    rows = np.flatnonzero(mask)
    reasons = Counter(reason_kind(fit.reason[row]) for row in rows if fit.reason[row])
    return len(rows), float((~fit.accepted[rows]).mean()), reasons


def accuracy_table(found: dict) -> str:
    """The result of ``accuracy`` as text."""
    lines = [f"{'keypoints':10}{'reprojection':>14}{'PA joints':>11}{'accepted':>10}"
             f"{'flipped, 1 start':>18}{'3 starts':>10}{'hands/s':>9}"]  # fmt: skip
    for name, row in found.items():
        lines.append(
            f"{name:10}{row['reprojection_px']:11.2f} px{row['pa_mm']:8.1f} mm"
            f"{row['accepted']:10.1%}{row['flipped_one_start']:18.1%}{row['flipped']:10.1%}"
            f"{row['hands_per_s']:9.0f}"
        )
    return "\n".join(lines)


def rejection_table(found: dict) -> str:
    """The result of ``rejections`` as text."""
    lines = [f"{'detections':24}{'number':>7}{'rejected':>10}   most often because of"]
    for name, (count, share, reasons) in found.items():
        why = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common(3))
        lines.append(f"{name:24}{count:7d}{share:10.1%}   {why}")
    return "\n".join(lines)


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.fitting.trials")
    parser.add_argument("count", type=int, nargs="?", default=1000, help="hands of each trial")
    parser.add_argument("--mano", help="MANO_RIGHT.pkl or MANO_LEFT.pkl instead of the own hand")
    parser.add_argument("--side", default="right", choices=("right", "left"))
    given = parser.parse_args(arguments)
    model = (
        HandModel.from_mano(given.mano, given.side) if given.mano else HandModel.builtin(given.side)
    )
    sys.stdout.write(accuracy_table(accuracy(given.count, model=model)) + "\n\n")
    sys.stdout.write(rejection_table(rejections(given.count, model=model)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
