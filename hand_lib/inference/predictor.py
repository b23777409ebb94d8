"""From a picture to hand meshes: crop, predict, place in the full frame and in space.

>>> predictor = Predictor.load("runs/reference")
>>> hand = predictor.predict("photo.jpg", boxes=[(120, 80, 360, 330)], sides=["left"])[0]
>>> hand.joints_2d          # (21, 2) pixels of the photograph
>>> hand.vertices + hand.translation    # (778, 3) metres in the camera's frame
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from hand_lib.inference.confidence import Calibration, confidence, load_calibration
from hand_lib.render.camera import (
    apply_affine,
    crop_affine,
    crop_to_pixels,
    default_intrinsics,
    invert_affine,
    solve_translation,
)
from hand_lib.render.images import read_image

BOX_MARGIN = 1.4
"""A crop's side over the longer side of a box drawn tightly around the hand."""


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
    assumed_intrinsics: bool  # True: nobody gave intrinsics, so distance and size are a guess
    affine: np.ndarray  # (2, 3) picture pixels -> crop pixels
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
    side: str  # "right" or "left"
    confidence: float | None = None  # 0 to 1 that there is a hand; None: the run is not calibrated
    doubtful: bool = False  # probably no hand here, or one too small or too hidden to be read

    @property
    def camera_vertices(self) -> np.ndarray:
        """(V, 3) metres in the camera's frame."""
        return self.vertices + self.translation


class Predictor:
    """A trained network with what it takes to use it on pictures of any size."""

    def __init__(
        self,
        network,
        image_size: int,
        name: str = "network",
        device: str = "auto",
        calibration: Calibration | None = None,
    ):
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.image_size = image_size
        self.name = name
        self.calibration = calibration

    @classmethod
    def load(cls, run_folder, device: str = "auto") -> "Predictor":
        """Open a run folder (``config.json`` and ``model.safetensors``; ``confidence.json`` too).

        raises FileNotFoundError naming the file that is missing.
        """
        network, config = load_network(run_folder)
        calibration = load_calibration(run_folder)
        return cls(network, config.image_size, Path(run_folder).name, device, calibration)

    @torch.inference_mode()
    def predict_crops(self, crops) -> dict[str, np.ndarray]:
        """Run the network on right-hand crops.

        crops: (B, S, S, 3) uint8 RGB.   returns vertices (B, V, 3), joints (B, 21, 3), camera
        (B, 3), joints_2d (B, 21, 2) in crop units, and joints_2d_direct, the same read from the
        image, where the network does so.
        """
        crops = np.asarray(crops)
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise ValueError(
                f"expected crops (B, S, S, 3) uint8, found {crops.shape} {crops.dtype}"
            )
        images = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device)
        out = self.network(images.permute(0, 3, 1, 2))
        names = ["vertices", "joints", "camera", "joints_2d"]
        names += ["joints_2d_direct"] * (getattr(out, "joints_2d_direct", None) is not None)
        return {name: getattr(out, name).float().cpu().numpy() for name in names}

    def predict(self, image, boxes=None, sides=None, intrinsics=None) -> list[HandPrediction]:
        """Hands of one picture, one per box.

        image: whatever ``images.read_image`` takes.   boxes: list of (x0, y0, x1, y1) pixels drawn
        tightly around each hand; None: one hand that fills the whole picture; "detect": as many as
        MediaPipe finds, maybe none (see ``detection``).   sides: "right" or "left" for each box;
        None: right, or as MediaPipe says.   intrinsics: (3, 3) of the picture; None: a guess of 60
        degrees along the long side, and the results say ``assumed_intrinsics``.
        raises ValueError for boxes outside the picture, unknown sides, intrinsics that are none.
        """
        return self.predict_many([image], [boxes], [sides], [intrinsics])[0]

    def predict_many(
        self, images, boxes=None, sides=None, intrinsics=None, batch_size: int = 32
    ) -> list[list[HandPrediction]]:
        """``predict`` for a list of pictures, their crops batched.

        boxes, sides, intrinsics: one entry per picture, each as in ``predict``.
        returns one list of hands per picture.
        """
        count = len(images)
        boxes, sides, intrinsics = (
            [None] * count if v is None else list(v) for v in (boxes, sides, intrinsics)
        )
        if not count == len(boxes) == len(sides) == len(intrinsics):
            raise ValueError(
                f"{count} pictures need as many entries of boxes, sides and intrinsics, found "
                f"{len(boxes)}, {len(sides)} and {len(intrinsics)}"
            )
        crops, jobs = [], []
        for n in range(count):
            picture = read_image(images[n])
            for job in self._jobs(picture, boxes[n], sides[n], intrinsics[n]):
                jobs.append((n, *job))
                crops.append(_warp(picture, job[0], self.image_size))
        results: list[list[HandPrediction]] = [[] for _ in range(count)]
        for start in range(0, len(jobs), batch_size):
            out = self.predict_crops(np.stack(crops[start : start + batch_size]))
            for k, (n, *job) in enumerate(jobs[start : start + batch_size]):
                results[n].append(self._place({name: out[name][k] for name in out}, *job))
        return results

    def _jobs(self, picture, boxes, sides, intrinsics):
        """affine, box, side, intrinsics, assumed for each hand of a picture, checked."""
        height, width = picture.shape[:2]
        whole = boxes is None
        if isinstance(boxes, str):
            boxes, sides = _detected(picture, boxes, sides)
        boxes = [(-0.5, -0.5, width - 0.5, height - 0.5)] if whole else list(boxes)
        sides = ["right"] * len(boxes) if sides is None else list(sides)
        if len(sides) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(sides)} sides")
        assumed = intrinsics is None
        matrix = default_intrinsics(width, height) if assumed else np.asarray(intrinsics, float)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[0, 0] <= 0:
            raise ValueError(
                f"intrinsics should be a (3, 3) pinhole matrix in pixels, found {intrinsics}"
            )
        for box, side in zip(boxes, sides, strict=True):
            if side not in ("right", "left"):
                raise ValueError(f"side should be 'right' or 'left', found {side!r}")
            box = check_box(box, width, height)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            extent = max(box[2] - box[0], box[3] - box[1]) * (1.0 if whole else BOX_MARGIN)
            affine = crop_affine(centre, extent, self.image_size, mirror=side == "left")
            yield affine, box, side, matrix, assumed

    def _place(self, out, affine, box, side, intrinsics, assumed) -> HandPrediction:
        joints_px = crop_to_pixels(out["joints_2d"].astype(float), self.image_size)
        joints_2d = apply_affine(invert_affine(affine), joints_px)
        flip = np.array([-1.0 if side == "left" else 1.0, 1, 1])
        vertices, joints = out["vertices"] * flip, out["joints"] * flip
        translation = solve_translation(joints[None], joints_2d[None], intrinsics)[0]
        sure = None
        if self.calibration is not None:
            direct = out.get("joints_2d_direct")
            direct = None if direct is None else direct[None]
            sure = float(confidence(self.calibration, out["joints_2d"][None], direct)[0])
        faces = self.network.faces.cpu().numpy()
        return HandPrediction(
            vertices=vertices,
            faces=faces[:, ::-1] if side == "left" else faces,
            joints=joints,
            joints_2d=joints_2d,
            camera=out["camera"],
            translation=translation,
            intrinsics=intrinsics,
            assumed_intrinsics=assumed,
            affine=affine,
            box=box,
            side=side,
            confidence=sure,
            doubtful=sure is not None and sure < self.calibration.threshold,
        )


def load_network(run_folder):
    """The network of a run with its weights, and its ``TrainConfig``.

    run_folder: holds ``config.json`` and ``model.safetensors``, and ``hierarchy.npz`` if its hand
    is not the built-in one; nothing in it is executed.
    raises FileNotFoundError for a file that is missing, ValueError where weights and config differ.
    """
    from hand_lib.mesh.hierarchy import load_hierarchy
    from hand_lib.mesh.sampling import builtin_hierarchy
    from hand_lib.network.model import build_network
    from hand_lib.training.checkpoints import load_model
    from hand_lib.training.config import config_from_json, replace

    folder = Path(run_folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'} is missing: not the folder of a run")
    config = config_from_json((folder / "config.json").read_text(), str(folder / "config.json"))
    weights = load_model(folder)
    own = folder / "hierarchy.npz"  # a run on another hand than the built-in one
    hierarchy = load_hierarchy(own) if own.is_file() else builtin_hierarchy(factors=config.factors)
    regressor = weights.get("regressor") if own.is_file() else None
    network = build_network(replace(config, pretrained=False), hierarchy, regressor)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}: {error}"
        ) from error
    if not np.array_equal(network.faces.numpy(), hierarchy.faces[0]):
        warnings.warn(
            f"{folder.name} was trained on an earlier built-in hand, whose vertices are others:"
            " show it, or go on from it with start_from, but do not score it against today's hand",
            stacklevel=2,
        )
    return network, config


def _detected(picture, word, sides):
    from hand_lib.fitting.detection import find_hands

    if word != "detect":
        raise ValueError(f"boxes should be a list of (x0, y0, x1, y1) or 'detect', found {word!r}")
    boxes, found = find_hands(picture)
    return boxes, found if sides is None else sides


def check_box(box, width: int, height: int) -> tuple[float, float, float, float]:
    """A box (x0, y0, x1, y1) in pixels that has an area and touches the picture, or ValueError."""
    values = np.asarray(box, dtype=float).reshape(-1)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise ValueError(f"a box is (x0, y0, x1, y1) in pixels, found {box}")
    x0, y0, x1, y1 = (float(v) for v in values)
    if x1 - x0 < 4 or y1 - y0 < 4:
        raise ValueError(
            f"box {box} is {x1 - x0:g} x {y1 - y0:g} pixels; x1 > x0 and y1 > y0, at least 4 pixels"
        )
    if x1 <= 0 or y1 <= 0 or x0 >= width - 1 or y0 >= height - 1:
        raise ValueError(f"box {box} lies outside the picture of {width} x {height} pixels")
    return x0, y0, x1, y1


def _warp(picture, affine, size) -> np.ndarray:
    """The crop (size, size, 3), averaged where it shrinks the picture."""
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    while shrink >= 2:  # halve first: one bilinear sample would skip pixels
        height, width = picture.shape[:2]
        half = (max(width // 2, 1), max(height // 2, 1))
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
        sx, sy = width / half[0], height / half[1]
        affine = affine @ np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1.0]])
        shrink /= 2
    return cv2.warpAffine(
        picture, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
