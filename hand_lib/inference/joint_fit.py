"""Key points for predictions: whose they are, and the joint fit with the network's mesh."""

import functools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from hand_lib import ROOT
from hand_lib.fitting.detection import find_landmarks
from hand_lib.fitting.fit import fit_hands
from hand_lib.fitting.prior import network_prior
from hand_lib.hand.model import HandModel
from hand_lib.render.camera import (
    apply_affine,
    crop_to_pixels,
    fit_weak_perspective,
    invert_affine,
    pixels_to_crop,
)

SAME_HAND = 0.5
"""Key points whose middle lies further from a box's, over its longer side, are another hand's."""


class HandParameters(NamedTuple):
    """What makes a hand model show a predicted mesh: ``model(pose, betas, translation)``."""

    model: HandModel  # of the hand's side; pose zero is the flat hand
    pose: np.ndarray  # (16, 3) axis-angle, the wrist's first
    betas: np.ndarray  # (10,) shape
    translation: np.ndarray  # (3,) metres, puts the mesh into the camera's frame


@functools.cache
def hand_model(side: str, mano: bool) -> HandModel:
    """The built-in hand, or MANO as it lies in ``template/``."""
    if mano:
        return HandModel.from_mano(ROOT / "template", side, flat_mean=True)
    return HandModel.builtin(side)


def model_of(hand) -> HandModel:
    """The hand model of a prediction's mesh; FileNotFoundError for MANO's without a file."""
    model = hand_model(hand.side, mano=False)
    if not np.array_equal(model.faces.numpy(), hand.faces):
        model = hand_model(hand.side, mano=True)
    return model


def assign_keypoints(picture, boxes, sides, keypoints) -> tuple:
    """Boxes, sides and key points of the hands of a picture, one each.

    boxes, sides, keypoints: as in ``Predictor.predict``.   returns the same three; key points are
    (N, 21, 3) pixels and confidence, 0 where there is none, or None where nobody gave any.
    """
    if isinstance(boxes, str) and boxes != "detect":
        raise ValueError(f"boxes: (x0, y0, x1, y1) each, 'detect', 'whole', found {boxes!r}")
    if isinstance(keypoints, str) or isinstance(boxes, str):
        if isinstance(keypoints, str) and keypoints != "detect":
            raise ValueError(f"keypoints: (N, 21, 2 or 3), 'detect' or None, found {keypoints!r}")
        found = []
        for points, side, score in find_landmarks(picture):
            box = _box(points, picture)
            if min(box[2] - box[0], box[3] - box[1]) >= 4:
                found.append((np.c_[points, np.full(21, score)], side, box))
        if boxes is None or isinstance(boxes, str):
            own = np.array([points for points, _, _ in found]).reshape(-1, 21, 3)
            keypoints = own if keypoints is None or isinstance(keypoints, str) else keypoints
            sides = [side for _, side, _ in found] if sides is None else sides
            boxes = [box for _, _, box in found]
        else:
            keypoints = []
            for box in boxes:
                apart = [_apart(hand[2], box) for hand in found]
                near = min(apart, default=np.inf) < SAME_HAND
                keypoints.append(found[np.argmin(apart)][0] if near else np.zeros((21, 3)))
    if keypoints is None:
        return boxes, sides, None
    points = np.asarray(keypoints, float)
    if points.ndim != 3 or points.shape[1:] not in ((21, 2), (21, 3)):
        raise ValueError(f"keypoints: expected (N, 21, 2 or 3) pixels, found {points.shape}")
    if points.shape[2] == 2:
        points = np.concatenate([points, np.ones((*points.shape[:2], 1))], 2)
    points = np.where(np.isfinite(points).all(2, keepdims=True), points, 0.0)
    if (points[..., 2] < 0).any() or (points[..., 2] > 1.5).any():
        raise ValueError("keypoints: confidences go from 0 to 1; is the third column a depth?")
    if boxes is None:
        few = (points[..., 2] > 0).sum(1) < 2
        if few.any():
            raise ValueError(f"keypoints of hand {few.argmax()}: no two are seen; give its box")
        boxes = [_box(hand[hand[:, 2] > 0, :2], picture) for hand in points]
    if len(points) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes and keypoints of {len(points)} hands")
    return boxes, sides, points


def _box(points, picture) -> tuple[float, ...]:
    """The box tight around points (N, 2) px, as far as it lies in the picture."""
    edge = np.array(picture.shape[1::-1]) - 0.5
    return (*np.clip(points.min(0), -0.5, edge), *np.clip(points.max(0), -0.5, edge))


def _apart(box, other) -> float:
    """How far the middles of two boxes are apart, over the longer side of the second one."""
    low, high = np.reshape(np.asarray([box, other], float), (2, 2, 2)).swapaxes(0, 1)
    middle = (low + high) / 2
    return float(np.linalg.norm(middle[0] - middle[1]) / max((high - low)[1].max(), 1e-6))


def refine_predictions(hands, direct, size: int) -> list:
    """Predictions, each replaced by the joint fit of its mesh and its key points.

    hands: ``HandPrediction``s of any sides; where one has no key points the fit takes what the
    network read.   direct: (B, 21, 2) crop units, the network's 2-D joints, or None where it reads
    none: then hands without key points stay as they are, and so do those whose mesh has no model.
    size: of the crops, pixels.
    """
    refined, groups = list(hands), {}
    for n, hand in enumerate(hands):
        if hand.keypoints is None and direct is None:
            continue
        try:
            groups.setdefault(id(model_of(hand)), (model_of(hand), []))[1].append(n)
        except (FileNotFoundError, ValueError):
            if hand.keypoints is not None:
                raise
    for model, rows in groups.values():
        group = [hands[n] for n in rows]
        back = invert_affine(np.stack([hand.affine for hand in group]))
        read = direct
        if direct is not None:
            read = apply_affine(back, crop_to_pixels(direct[rows].astype(float), size))
        points, doubted = np.zeros((len(rows), 21, 3)), np.zeros(len(rows), bool)
        for k, hand in enumerate(group):
            if hand.keypoints is not None and hand.keypoints[:, 2].any():
                points[k] = hand.keypoints
                seen = points[k, points[k, :, 2] > 0, :2]
                place = (*seen.min(0), *seen.max(0))
                doubted[k] = hand.doubtful and _apart(place, hand.box) < SAME_HAND
        prior = network_prior(
            np.stack([hand.vertices for hand in group]),
            np.stack([hand.joints_2d for hand in group]),
            read,
            doubted,
        )
        cameras = np.stack([hand.intrinsics for hand in group])
        fit = fit_hands(model, points[..., :2], points[..., 2], cameras, prior=prior)
        parameters = [part.astype(np.float32) for part in (fit.pose, fit.betas, fit.translation)]
        with torch.no_grad():
            meshes = model(*map(torch.from_numpy, parameters)).vertices.double().numpy()
        for k, n in enumerate(rows):
            joints, flat = fit.joints[k], fit.joints_2d[k]
            flip = (-1 if group[k].side == "left" else 1, 1, 1)
            crop = pixels_to_crop(apply_affine(group[k].affine, flat), size)
            refined[n] = replace(
                group[k], vertices=meshes[k] - joints[0], joints=joints - joints[0],
                joints_2d=flat, translation=joints[0], refined=True,
                camera=fit_weak_perspective((joints * flip)[None], crop[None])[0],
                fitted=HandParameters(model, *(part[k] for part in parameters)),
            )  # fmt: skip
    return refined
