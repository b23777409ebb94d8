"""A predicted hand; whose key points are whose; the joint fit of a network's mesh with them."""

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib import ROOT
from hand_lib.fitting.detection import find_landmarks
from hand_lib.fitting.fit import Reason, fit_hands
from hand_lib.fitting.prior import fit_pose, network_prior
from hand_lib.hand.model import HandModel
from hand_lib.mesh.topology import procrustes
from hand_lib.render.camera import (
    apply_affine,
    crop_to_pixels,
    fit_weak_perspective,
    invert_affine,
    pixels_to_crop,
    project,
    solve_translation,
)

OFF_AXIS = np.deg2rad(15)
"""Radians by which the pictures that a network learns from miss the middle of their camera's view,
in the median. A hand seen from aside looks turned: where the camera is merely assumed, 2-D joints
do not turn the network's hand by as much.
"""

SAME_HAND = 0.5
"""Key points whose middle lies further from a box's, over its longer side, are another hand's."""


class HandParameters(NamedTuple):
    """What makes a hand model show a predicted mesh: ``model(pose, betas, translation)``."""

    model: HandModel  # of the hand's side; pose zero is the flat hand
    pose: np.ndarray  # (16, 3) axis-angle, the wrist's first
    betas: np.ndarray  # (10,) shape
    translation: np.ndarray  # (3,) metres, puts the mesh into the camera's frame


builtin_hand = functools.cache(HandModel.builtin)
mano_hand = functools.cache(functools.partial(HandModel.from_mano, flat_mean=True))


def model_of(hand) -> HandModel:
    """The hand model of a prediction's mesh; FileNotFoundError for MANO's without a file."""
    model = builtin_hand(hand.side)
    if not np.array_equal(model.faces.numpy(), hand.faces):
        model = mano_hand(ROOT / "template", hand.side)
    return model


@dataclass(frozen=True)
class HandPrediction:
    """One hand in one picture."""

    vertices: np.ndarray  # (V, 3) metres, camera axes, wrist at the origin
    faces: np.ndarray  # (F, 3), counter-clockwise from outside for this side
    joints: np.ndarray  # (21, 3) metres, the same frame
    joints_2d: np.ndarray  # (21, 2) pixels of the picture
    camera: np.ndarray  # (3,) weak perspective of the crop: s, tx, ty
    translation: np.ndarray  # (3,) metres, the wrist in the camera's frame
    intrinsics: np.ndarray  # (3, 3) pixels, given or assumed
    assumed_intrinsics: bool  # True: neither given nor in EXIF; distance and size are a guess
    affine: np.ndarray  # (2, 3) picture pixels -> crop pixels
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
    side: str  # "right" or "left"
    box_from: str = "given"  # or "found" by the network, "detected" by MediaPipe, "whole" picture
    side_from: str = "given"  # or "found", "detected", "assumed" (right)
    # 0 to 1 that its 2-D joints are right, to 0.15 of its size; None: the run is not calibrated
    confidence: float | None = None
    doubtful: bool = False  # read badly as likely as not, or no hand at all
    absent: bool = False  # probably no hand at all
    refined: bool = False  # True: the joint fit with ``keypoints``; False: the network alone
    keypoints: np.ndarray | None = None  # (21, 3) pixels and confidence, given or detected
    fitted: HandParameters | None = None  # of the joint fit

    @property
    def camera_vertices(self) -> np.ndarray:
        """(V, 3) metres in the camera's frame."""
        return self.vertices + self.translation

    @functools.cached_property
    def parameters(self) -> HandParameters:
        """The hand model's parameters: of the joint fit, else fitted to the mesh now (some 20 ms).

        raises FileNotFoundError where the mesh is MANO's and there is no MANO file.
        """
        if self.fitted is not None:
            return self.fitted
        model = model_of(self)
        pose, betas, place = (part[0].numpy() for part in fit_pose(model, self.vertices[None]))
        return HandParameters(model, pose, betas, place + self.translation)

    @property
    def pose(self) -> np.ndarray:
        """(16, 3) axis-angle of the joints, the wrist's first; see ``parameters``."""
        return self.parameters.pose

    @property
    def betas(self) -> np.ndarray:
        """(10,) shape of the hand model; see ``parameters``."""
        return self.parameters.betas


def assign_keypoints(picture, boxes, sides, keypoints) -> tuple:
    """Boxes, sides and key points of the hands of a picture, one each.

    boxes, sides, keypoints: as in ``Predictor.predict``.   returns the same three; key points are
    (N, 21, 3) pixels and confidence, 0 where there is none, or None where nobody gave any.
    """
    if isinstance(boxes, str) and boxes != "detect":
        raise ValueError(f"boxes: (x0, y0, x1, y1) each, 'detect', 'whole', found {boxes!r}")
    edge = np.tile(np.array(picture.shape[1::-1]) - 0.5, 2)
    if isinstance(keypoints, str) or isinstance(boxes, str):
        if isinstance(keypoints, str) and keypoints != "detect":
            raise ValueError(f"keypoints: (N, 21, 2 or 3), 'detect' or None, found {keypoints!r}")
        found = []
        for points, side, score in find_landmarks(picture):
            points = np.c_[points, np.full(21, score)]
            box = np.clip(_box(points), -0.5, edge)
            if (box[2:] - box[:2]).min() >= 4:
                found.append((points, side, box))
        if boxes is None or isinstance(boxes, str):
            if keypoints is None or isinstance(keypoints, str):
                keypoints = np.reshape([points for points, _, _ in found], (-1, 21, 3))
            sides = [side for _, side, _ in found] if sides is None else sides
            boxes = [box for _, _, box in found]
        else:
            keypoints = np.zeros((len(boxes), 21, 3))
            for n, box in enumerate(boxes):
                apart = [_apart(hand[2], box) for hand in found]
                if min(apart, default=np.inf) < SAME_HAND:
                    keypoints[n] = found[np.argmin(apart)][0]
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
        boxes = [np.clip(_box(hand), -0.5, edge) for hand in points]
    if len(points) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes and keypoints of {len(points)} hands")
    return boxes, sides, points


def _box(points) -> np.ndarray:
    """The box (4,) tight around those of points (N, 3), pixels and confidence, that are seen."""
    seen = points[points[:, 2] > 0, :2]
    return np.concatenate([seen.min(0), seen.max(0)])


def _apart(box, other) -> float:
    """How far the middles of two boxes are apart, over the longer side of the second one."""
    (low, high), (x, y) = np.reshape(np.asarray([other, box], float), (2, 2, 2))
    return float(np.linalg.norm(low + high - x - y) / 2 / max((high - low).max(), 1e-6))


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
        vertices, joints, flat, cameras, affines = (
            np.stack([getattr(hand, name) for hand in group])
            for name in ("vertices", "joints", "joints_2d", "intrinsics", "affine")
        )
        read = direct
        if direct is not None:
            pixels = crop_to_pixels(direct[rows].astype(float), size)
            read = apply_affine(invert_affine(affines), pixels)
        points, doubted = np.zeros((len(rows), 21, 3)), np.zeros(len(rows), bool)
        for k, hand in enumerate(group):
            if hand.keypoints is not None and hand.keypoints[:, 2].any():
                points[k] = hand.keypoints
                doubted[k] = hand.doubtful and _apart(_box(points[k]), hand.box) < SAME_HAND
        prior = network_prior(vertices, flat, read, doubted)
        fit = fit_hands(model, points[..., :2], points[..., 2], cameras, prior=prior)
        alone = [why in (Reason.NO_HAND, Reason.NETWORK) for why in fit.reason]
        held = np.array([hand.assumed_intrinsics for hand in group]) & alone
        if held.any():
            _turn_back(fit, joints, held)
        parameters = [part.astype(np.float32) for part in (fit.pose, fit.betas, fit.translation)]
        with torch.no_grad():
            posed = model(*map(torch.from_numpy, parameters))
        joints, meshes = posed.joints.double().numpy(), posed.vertices.double().numpy()
        flat = project(joints, cameras)
        crops = pixels_to_crop(apply_affine(affines, flat), size)
        flips = [(-1 if hand.side == "left" else 1, 1, 1) for hand in group]
        views = fit_weak_perspective(joints * np.reshape(flips, (-1, 1, 3)), crops)
        for k, n in enumerate(rows):
            place = joints[k, 0]
            refined[n] = replace(
                group[k], vertices=meshes[k] - place, joints=joints[k] - place,
                joints_2d=flat[k], translation=place, refined=True, camera=views[k],
                fitted=HandParameters(model, *(part[k] for part in parameters)),
            )  # fmt: skip
    return refined


def _turn_back(fit, joints, rows) -> None:
    """Turn fits back to where the network saw them, by ``OFF_AXIS`` at most.

    fit: its pose and place are changed.   joints: (B, 21, 3) metres, of the network.
    rows: (B,) bool, which fits.
    """
    about = fit.joints - fit.joints[:, :1]
    both = (np.concatenate([points, -points], 1) for points in (about, joints))  # about the wrist
    back = Rotation.from_matrix(procrustes(*both)[1]).as_rotvec()
    angle = np.linalg.norm(back, axis=1)
    back *= (rows * np.minimum(1, OFF_AXIS / np.maximum(angle, 1e-9)))[:, None]
    turn = Rotation.from_rotvec(back)
    about = about @ turn.as_matrix().mT
    place = solve_translation(about, fit.joints_2d, fit.intrinsics)
    fit.translation += np.where(rows[:, None], place - fit.joints[:, 0], 0)
    fit.pose[:, 0] = (turn * Rotation.from_rotvec(fit.pose[:, 0])).as_rotvec()
