"""How good is the fit? Known hands, keypoints spoilt on purpose, and what comes back.

    python -m benchmarks.fitting 1000

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

from benchmarks.detections import CORRUPTIONS, corrupt, spoil
from hand_lib.fitting.fit import FitOptions, fit_hands
from hand_lib.hand.model import HandModel
from hand_lib.mesh.topology import procrustes_align
from hand_lib.render.camera import project

CAMERA = np.array([[450.0, 0, 111.5], [0, 450, 111.5], [0, 0, 1]])
"""Intrinsics, pixels: a picture of 224 px that shows 0.25 m at 0.5 m."""


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
    pose = torch.from_numpy(model.sample_poses(count, rng)).to(model.template)
    turn = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, 3))), dim=1)
    pose[:, 0] = turn * torch.from_numpy(rng.uniform(0, 3.1, (count, 1)))
    betas = torch.from_numpy(rng.normal(size=(count, 10))).to(model.template)
    with torch.no_grad():
        hand = model(pose, betas)
    joints, vertices = (x.double().cpu().numpy() for x in (hand.joints, hand.vertices))
    middle = np.array([0.0, 0, 0.5]) - joints.mean(1, keepdims=True)
    return KnownHands(joints + middle, project(joints + middle, CAMERA), vertices + middle)


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
        one = _in_batches(model, points, confidence, batch, FitOptions(starts=1))
        found[name] = {
            "reprojection_px": float(np.median(fit["reprojection_px"])),
            "pa_mm": float(np.median(joint_errors_mm(fit["joints"], hands.joints))),
            "accepted": float(fit["accepted"].mean()),
            "flipped_one_start": float(depth_flipped(one["joints"], hands.joints).mean()),
            "flipped": float(depth_flipped(fit["joints"], hands.joints).mean()),
            "hands_per_s": count / seconds,
        }
    return found


def _in_batches(model, points, confidence, batch, options=None):
    parts = []
    for at in range(0, len(points), batch):
        rows = slice(at, at + batch)
        weights = None if confidence is None else confidence[rows]
        parts.append(fit_hands(model, points[rows], weights, CAMERA, options))
    names = ("joints", "reprojection_px", "accepted")
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def rejections(count: int = 1000, seed: int = 1, noise_px: float = 2.0, model=None) -> dict:
    """Fraction rejected by kind of corruption, and why.

    Detections have ``noise_px`` of noise; a fifth is corrupt. Separately all hands are those of
    the other side, whose keypoints alone seldom say so.
    returns kind -> (number, fraction rejected, Counter of reasons); kind "good" is the rest.
    """
    model = model or HandModel.builtin()
    rng = np.random.default_rng([seed, 2])
    hands = known_hands(count, seed, model)
    points, boxes, kind = corrupt(hands.picture + rng.normal(0, noise_px, (count, 21, 2)), rng)
    fit = fit_hands(model, points, None, CAMERA, boxes=boxes)
    rows = {"good": kind == ""} | {name: kind == name for name in CORRUPTIONS}
    rows["all corrupt"] = kind != ""
    found = {name: _rejected(fit, mask) for name, mask in rows.items()}
    other = HandModel.builtin({"right": "left", "left": "right"}[model.side])
    strange = known_hands(count // 4, seed + 1, other).picture
    strange = strange + rng.normal(0, noise_px, strange.shape)
    fit = fit_hands(model, strange, None, CAMERA)
    found["the other side's hand"] = _rejected(fit, np.ones(len(strange), bool))
    return found


def _rejected(fit, mask):
    rows = np.flatnonzero(mask)
    reasons = Counter(fit.kind(row) for row in rows if not fit.accepted[row])
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting")
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
