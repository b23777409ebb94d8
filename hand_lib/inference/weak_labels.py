"""From detected keypoints to labelled hands: fit both sides, judge, let a person overrule, export.

>>> frames, track = Frames("clip.mp4"), FitOptions(track=True)
>>> labels = fit_keypoints(read_openpose("openpose_out"), image_size=frames.size, options=track)
>>> save_review("review.json", labels)                     # a person may edit "keep"
>>> apply_review("review.json", labels)
>>> write_freihand("data/weak/freihand", kept_samples(labels, frames))     # what notebook 03 takes
"""

import dataclasses
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from hand_lib.data.sample import HandSample, square_around
from hand_lib.files import read_json, write_json, write_text
from hand_lib.fitting.fit import FitOptions, HandFit, Reason, empty_fit, fit_hands, hand_size
from hand_lib.fitting.keypoints import Keypoints
from hand_lib.hand.model import HandModel, mirror_pose
from hand_lib.render.camera import apply_affine, crop_affine, project, transform_intrinsics

CROP_MARGIN = 1.6
"""Side of an exported picture over the longer side of the box around the joints."""

OVERLAP = 0.35
"""Two hands nearer than this share of their size, joint by joint, are one hand seen twice."""


@dataclass
class WeakLabels:
    """Detections, what was fitted to them, and what is kept; row i is detection i."""

    keypoints: Keypoints
    fit: HandFit
    models: dict  # side -> HandModel
    automatic: np.ndarray  # (B,) the filters' ``Reason`` or None, before anybody overruled

    def __len__(self) -> int:
        return len(self.keypoints)

    def rows(self, side: str) -> np.ndarray:
        """Rows of one side that are kept."""
        return np.flatnonzero(self.fit.accepted & (np.array(self.keypoints.sides, object) == side))

    def reasons(self) -> Counter:
        """How many hands go for which kind of reason, the kept ones under "kept"."""
        return Counter(self.fit.kind(row) or "kept" for row in range(len(self)))

    def filters(self, row: int) -> str:
        """What the filters say of a hand: "accepted" or the reason against it, as a sentence."""
        reason = self.automatic[row]
        return reason.value.format(self.fit.number[row]) if reason else "accepted"

    def name(self, row: int) -> str:
        """Frame and side, by which a review knows the hand."""
        found = self.keypoints
        keys = list(zip(found.frames, found.sides, found.names, strict=True))
        return f"{found.names[row]} {found.sides[row]} {keys[:row].count(keys[row])}"


def fit_keypoints(
    keypoints: Keypoints, intrinsics=None, image_size=None, models=None,
    options: FitOptions | None = None, boxes=None,
) -> WeakLabels:  # fmt: skip
    """Fit every detection with the model of its side.

    keypoints: of one video or of pictures.   intrinsics: (3, 3), (B, 3, 3) px or None to guess.
    image_size: (width, height), for the guess.   models: side -> ``HandModel``, default built-in.
    options: with ``track`` one hand's detections share their shape and move smoothly.
    boxes: (B, 4) px or None.
    Of two detections in the same place of a frame the less confident one is rejected.
    """
    options, batch = options or FitOptions(), len(keypoints)
    models = models or {side: HandModel.builtin(side) for side in ("right", "left")}
    cameras = None if intrinsics is None else np.broadcast_to(intrinsics, (batch, 3, 3))
    if image_size is None and batch:
        image_size = keypoints.points[keypoints.confidence > 0].max(0) + 1
    fit, sides = empty_fit(np.zeros((batch, 3, 3))), np.array(keypoints.sides, object)
    groups = [np.flatnonzero(sides == side) for side in ("right", "left")]
    for rows in tracks(keypoints) if options.track else filter(len, groups):
        part = fit_hands(
            models[sides[rows[0]]], keypoints.points[rows], keypoints.confidence[rows],
            None if cameras is None else cameras[rows], options, image_size=image_size,
            boxes=None if boxes is None else np.asarray(boxes)[rows],
        )  # fmt: skip
        for field in dataclasses.fields(fit):
            getattr(fit, field.name)[rows] = getattr(part, field.name)
    for row in twice(keypoints):
        fit.accepted[row] = False
        fit.reason[row] = fit.reason[row] or Reason.WRONG_SIDE
    return WeakLabels(keypoints, fit, models, fit.reason.copy())


def match_frames(keypoints: Keypoints, frames) -> Keypoints:
    """The detections whose frame is there, numbered as ``frames`` are; the others are named.

    frames: ``Frames``. A detection belongs to the picture whose file name it carries
    (``a.jpg``, or OpenPose's ``a_keypoints.json``), else to the frame of its number.
    """
    numbers = {}
    for number in range(len(frames)):
        name = frames.name(number)
        numbers[name] = numbers[name.rsplit(".", 1)[0] + "_keypoints.json"] = number
    found, keep = keypoints.frames.copy(), []
    for row, name in enumerate(keypoints.names):
        found[row] = numbers.get(name, found[row])
        if 0 <= found[row] < len(frames):
            keep.append(row)
        else:
            keypoints.problems.append(
                f"{name}: frame {found[row]} is not among the {len(frames)} frames"
            )
    return dataclasses.replace(
        keypoints, points=keypoints.points[keep], confidence=keypoints.confidence[keep],
        frames=found[keep], sides=[keypoints.sides[row] for row in keep],
        names=[keypoints.names[row] for row in keep],
    )  # fmt: skip


def tracks(keypoints: Keypoints, gap: int = 3) -> list[np.ndarray]:
    """Rows of the same hand through time.   gap: frames a hand may be away.

    A detection continues the track of its side whose last hand lies nearest, within one hand's
    size per frame; a track has one detection per frame.
    """
    size = hand_size(keypoints.points, keypoints.confidence)
    seen = (keypoints.confidence > 0)[..., None]
    middle = np.where(seen, keypoints.points, 0).sum(1) / np.maximum(seen.sum(1), 1)
    found: list[list[int]] = []
    for row in np.argsort(keypoints.frames, kind="stable"):
        best, least = None, np.inf
        for track in found:
            last = track[-1]
            passed = keypoints.frames[row] - keypoints.frames[last]
            distance = np.linalg.norm(middle[row] - middle[last]) / max(size[last], 1e-6)
            near = distance < min(least, passed) and 0 < passed <= gap
            if near and keypoints.sides[last] == keypoints.sides[row]:
                best, least = track, distance
        if best is None:
            found.append(best := [])
        best.append(int(row))
    return [np.array(track) for track in found]


def twice(keypoints: Keypoints) -> list[int]:
    """Rows of detections that lie on a more confident one of the same frame."""
    size, double = hand_size(keypoints.points, keypoints.confidence), []
    for frame in np.unique(keypoints.frames):
        rows = np.flatnonzero(keypoints.frames == frame)
        rows = rows[np.argsort(-keypoints.confidence[rows].sum(1), kind="stable")]
        for other, row in itertools.combinations(rows.tolist(), 2):
            both = (keypoints.confidence[[row, other]] > 0).all(0)
            same_file = keypoints.names[row] == keypoints.names[other]
            if not same_file or both.sum() < 6 or {row, other} & set(double):
                continue
            apart = np.linalg.norm(keypoints.points[row] - keypoints.points[other], axis=1)[both]
            if apart.mean() < OVERLAP * max(size[row], size[other]):
                double.append(row)
    return double


def overrule(labels: WeakLabels, row: int, keep: bool) -> None:
    """A person decides about one hand; what could not be fitted cannot be kept."""
    if keep and not np.isfinite(labels.fit.pose[row]).all():
        raise ValueError(f"{labels.name(row)}: nothing was fitted, so there is nothing to keep")
    labels.fit.accepted[row] = keep
    labels.fit.reason[row] = None if keep else labels.automatic[row] or Reason.BY_A_PERSON


def save_review(path, labels: WeakLabels) -> Path:
    """Write what is kept and why not, per hand, as JSON that a person can edit and read back."""
    path, hands = Path(path), {}
    for row, keep in enumerate(labels.fit.accepted.tolist()):
        hands[labels.name(row)] = {"keep": keep, "filters": labels.filters(row)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"hands": hands})
    return path


def apply_review(path, labels: WeakLabels) -> int:
    """Read a review back into the labels.   returns how many hands it overruled.

    Where its "keep" is only what the filters said at the time, the filters of ``labels`` decide.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such review; save_review writes one")
    try:
        hands = read_json(path)["hands"].items()
        wanted = {name: (entry["keep"], entry.get("filters")) for name, entry in hands}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a review ({error!r})") from None
    rows, changed = {labels.name(row): row for row in range(len(labels))}, 0
    for name, (keep, _) in wanted.items():
        if name not in rows:
            raise ValueError(f"{path}: reviews hands that are not here, first {name!r}")
        if not isinstance(keep, bool):
            raise ValueError(f"{path}: {name}: keep should be true or false, found {keep!r}")
    for name, (keep, filters) in wanted.items():
        automatic = labels.automatic[rows[name]]
        if filters is not None and keep is (filters == "accepted"):  # nobody's decision
            keep = not automatic
        changed += keep == bool(automatic)
        overrule(labels, rows[name], keep)
    return changed


def fitted_hand(model, fit, rows):
    """Vertices (N, V, 3) and joints (N, 21, 3), metres, camera axes, of some rows of a fit."""
    parts = (fit.pose[rows], fit.betas[rows], fit.translation[rows])
    with torch.no_grad():
        hand = model(*(torch.as_tensor(part).to(model.template) for part in parts))
    return hand.vertices.cpu().numpy(), hand.joints.cpu().numpy()


def kept_samples(labels: WeakLabels, frames, crop: int | None = 224):
    """Yield a right-handed ``HandSample`` per kept hand, ready for ``write_freihand``.

    frames: indexed by the keypoints' frame numbers (``Frames``, list, dict).   crop: side of the
    square picture round the hand, pixels; None keeps whole frames. 2-D labels are the fit's own:
    nearer the truth than the noisy keypoints they came from. A left hand is mirrored, picture and
    all. A frame that cannot be read is named in the keypoints' ``problems`` and left out.
    """
    for side in ("right", "left"):
        for row in labels.rows(side):
            if (image := _frame(labels, frames, row)) is not None:
                yield _sample(labels, int(row), np.asarray(image), crop)


def _sample(labels, row: int, image, crop) -> HandSample:
    """The kept hand of a row as a right one."""
    fit, model = labels.fit, labels.models[labels.keypoints.sides[row]]
    vertices, joints = (x[0] for x in fitted_hand(model, fit, [row]))
    pose, camera, flat = fit.pose[row], fit.intrinsics[row], fit.joints_2d[row]
    affine = np.eye(2, 3)
    if crop:
        x, y, square = square_around(flat, CROP_MARGIN)
        affine = crop_affine((x, y), square, crop)
        smooth = cv2.INTER_AREA if square > crop else cv2.INTER_LINEAR
        image = cv2.warpAffine(image, affine, (crop, crop), flags=smooth)
    if model.side == "left":
        affine = [[-1], [1]] * affine + [[0, 0, image.shape[1] - 1], [0, 0, 0]]
        image, pose = np.ascontiguousarray(image[:, ::-1]), mirror_pose(pose)
        vertices, joints = vertices * (-1, 1, 1), joints * (-1, 1, 1)
        camera = camera * (-1, 1, 1)  # takes mirrored points
    return HandSample(
        image, vertices=vertices - joints[0], joints=joints - joints[0], root=joints[0],
        joints_2d=apply_affine(affine, flat), intrinsics=transform_intrinsics(affine, camera),
        pose=pose.reshape(48), betas=fit.betas[row], dataset="fitted", split="training",
        index=row, key=labels.name(row),
    )  # fmt: skip


def _frame(labels, frames, row):
    """The picture of a row, or None when it cannot be read, which is noted."""
    try:
        return frames[int(labels.keypoints.frames[row])]
    except (ValueError, OSError, LookupError) as error:
        labels.keypoints.problems.append(f"{labels.name(row)}: frame left out, {error}")
        return None


def export_youtube(folder, labels: WeakLabels, frames, video: str = "clip") -> Path:
    """Write the kept hands as ``youtube_train.json`` beside the frames that it names.

    Meshes are in pixels of the frame; z counts from the wrist, times std(x in pixels) / std(x), as
    the authors do.   returns the JSON's path; frames go to
    ``youtube/<video>/video/frames/<number>.png``.
    """
    folder, fit, numbers = Path(folder), labels.fit, labels.keypoints.frames
    images, annotations = {}, []
    for row in np.flatnonzero(fit.accepted):
        name = f"youtube/{video}/video/frames/{int(numbers[row])}.png"
        if name not in images:
            if (picture := _frame(labels, frames, row)) is None:
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{path}: the frame could not be written")
            height, width = picture.shape[:2]
            images[name] = dict(name=name, width=width, height=height, id=len(images))
        model = labels.models[labels.keypoints.sides[row]]
        vertices, joints = (x[0].astype(float) for x in fitted_hand(model, fit, [row]))
        pixels = project(vertices, fit.intrinsics[row])
        scale = pixels[:, 0].std() / vertices[:, 0].std()
        mesh = np.concatenate([pixels, (vertices[:, 2:] - joints[0, 2]) * scale], 1)
        entry = {"vertices": np.round(mesh, 3).tolist(), "is_left": int(model.side == "left")}
        annotations.append({**entry, "image_id": images[name]["id"], "id": len(annotations)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "youtube_train.json"
    write_text(path, json.dumps({"images": list(images.values()), "annotations": annotations}))
    return path
