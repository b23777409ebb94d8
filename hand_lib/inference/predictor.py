"""From a picture to hand meshes: crop, network, then the hand's place in the picture and in space.

>>> predictor = Predictor.load("runs/reference")
>>> hand = predictor.predict("photo.jpg", boxes=[(120, 80, 360, 330)], sides=["left"])[0]
>>> hand.joints_2d          # (21, 2) pixels of the photograph
>>> hand.camera_vertices    # (778, 3) metres in the camera's frame
>>> hand.pose               # (16, 3) the hand model's angles
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib import ROOT
from hand_lib.fitting.detection import find_hands
from hand_lib.fitting.pose import fit_pose
from hand_lib.hand.model import HandModel
from hand_lib.inference.search import Calibration, cut, load_calibration
from hand_lib.network.second_look import predict_crops
from hand_lib.render.camera import (
    apply_affine,
    check_intrinsics,
    crop_affine,
    crop_to_pixels,
    fit_weak_perspective,
    guessed_intrinsics,
    invert_affine,
    pixels_to_crop,
    solve_translation,
)
from hand_lib.render.images import read_image
from hand_lib.training.run_folder import find_run, load_network

BOX_MARGIN = 1.4
"""A crop's side over the longer side of a box drawn tightly around the hand."""


class HandParameters(NamedTuple):
    """What makes a hand model show a predicted mesh: ``model(pose, betas, translation)``."""

    model: HandModel  # of the hand's side; pose zero is the flat hand
    pose: np.ndarray  # (16, 3) axis-angle, the wrist's first
    betas: np.ndarray  # (10,) shape
    translation: np.ndarray  # (3,) metres, puts the mesh into the camera's frame


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

    @functools.cached_property
    def parameters(self) -> HandParameters:
        """The hand model's parameters, fitted to the mesh when first asked for (some 20 ms).

        raises FileNotFoundError where the mesh is MANO's and there is no MANO file.
        """
        model = _hand_model(self.side, mano=False)
        if not np.array_equal(model.faces.numpy(), self.faces):
            model = _hand_model(self.side, mano=True)
        found = fit_pose(model, self.vertices[None])
        pose, betas, place = (part[0].numpy() for part in found[:3])
        return HandParameters(model, pose, betas, place + self.translation)

    @property
    def pose(self) -> np.ndarray:
        """(16, 3) axis-angle of the joints, the wrist's first; see ``parameters``."""
        return self.parameters.pose

    @property
    def betas(self) -> np.ndarray:
        """(10,) shape of the hand model; see ``parameters``."""
        return self.parameters.betas


@functools.cache
def _hand_model(side: str, mano: bool) -> HandModel:
    if mano:
        return HandModel.from_mano(ROOT / "template", side, flat_mean=True)
    return HandModel.builtin(side)


class Predictor:
    """A trained network with what it takes to use it on pictures of any size."""

    def __init__(
        self, network, image_size: int, name="network", device="auto", calibration=None, n_crops=2
    ):
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.image_size = image_size
        self.name = name
        self.calibration: Calibration | None = calibration
        self.n_crops = n_crops

    @classmethod
    def load(cls, run_folder, device: str = "auto") -> "Predictor":
        """Open a run folder (``config.json`` and ``model.safetensors``; ``confidence.json`` too).

        raises FileNotFoundError naming the file that is missing.
        """
        folder = find_run(run_folder)
        network, config = load_network(folder)
        calibration = load_calibration(folder)
        return cls(network, config.image_size, folder.name, device, calibration, config.n_crops)

    def predict(self, image, boxes=None, sides=None, intrinsics=None) -> list[HandPrediction]:
        """Hands of one picture, one per box.

        image: whatever ``images.read_image`` takes.   boxes: list of (x0, y0, x1, y1) pixels drawn
        tightly around each hand; None: one hand that fills the whole picture; "detect": as many as
        MediaPipe finds, maybe none (see ``detection``).   sides: "right" or "left" for each box;
        None: right, or as MediaPipe says.   intrinsics: (3, 3) of the picture, or its focal length
        in pixels; None: a guess of 60 degrees along the long side, and the results say
        ``assumed_intrinsics``.
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
        owners, crops, pixels = [], [], []
        for n in range(count):
            picture = read_image(images[n])
            for crop in self._crops_of(picture, boxes[n], sides[n], intrinsics[n]):
                owners.append(n)
                crops.append(crop)
                pixels.append(cut(picture, crop["affine"], self.image_size))
        hands: list[list[HandPrediction]] = [[] for _ in range(count)]
        for start in range(0, len(crops), batch_size):
            part = slice(start, start + batch_size)
            out = self.predict_crops(np.stack(pixels[part]))
            if self.calibration is not None:
                out["confidence"] = self.calibration.confidence(
                    out["joints_2d"], out.get("joints_2d_direct")
                )
            for k, (n, crop) in enumerate(zip(owners[part], crops[part], strict=True)):
                hands[n].append(self._place({name: out[name][k] for name in out}, crop))
        return hands

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
        out = predict_crops(self.network, images.permute(0, 3, 1, 2), self.n_crops)
        names = ["vertices", "joints", "camera", "joints_2d"]
        if out.joints_2d_direct is not None:
            names.append("joints_2d_direct")
        return {name: getattr(out, name).float().cpu().numpy() for name in names}

    def _crops_of(self, picture, boxes, sides, intrinsics):
        """The fields of ``HandPrediction`` that each hand's crop knows, checked."""
        height, width = picture.shape[:2]
        whole = boxes is None
        if isinstance(boxes, str):
            if boxes != "detect":
                raise ValueError(f"boxes: (x0, y0, x1, y1) each, or 'detect', found {boxes!r}")
            boxes, found = find_hands(picture)
            sides = found if sides is None else sides
        boxes = [(-0.5, -0.5, width - 0.5, height - 0.5)] if whole else list(boxes)
        sides = ["right"] * len(boxes) if sides is None else list(sides)
        if len(sides) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(sides)} sides")
        matrix = guessed_intrinsics(width, height) if np.ndim(intrinsics) == 0 else intrinsics
        if np.ndim(intrinsics) == 0 and intrinsics is not None:
            matrix[[0, 1], [0, 1]] = intrinsics
        matrix = check_intrinsics(matrix, width, height)
        for box, side in zip(boxes, sides, strict=True):
            if side not in ("right", "left"):
                raise ValueError(f"side should be 'right' or 'left', found {side!r}")
            box = check_box(box, width, height)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            extent = max(box[2] - box[0], box[3] - box[1]) * (1.0 if whole else BOX_MARGIN)
            affine = crop_affine(centre, extent, self.image_size, mirror=side == "left")
            yield {"affine": affine, "box": box, "side": side, "intrinsics": matrix,
                   "assumed_intrinsics": intrinsics is None}  # fmt: skip

    def _place(self, out, crop: dict) -> HandPrediction:
        """The hand of a crop, brought back to its picture.   out: one row of ``predict_crops``."""
        joints_px = crop_to_pixels(out["joints_2d"].astype(float), self.image_size)
        joints_2d = apply_affine(invert_affine(crop["affine"]), joints_px)
        left = crop["side"] == "left"
        flip = np.array([-1.0 if left else 1.0, 1, 1])
        joints, faces = out["joints"] * flip, self.network.faces.cpu().numpy()
        sure = float(out["confidence"]) if "confidence" in out else None
        return HandPrediction(
            vertices=out["vertices"] * flip,
            faces=faces[:, ::-1] if left else faces,
            joints=joints,
            joints_2d=joints_2d,
            camera=out["camera"],
            translation=solve_translation(joints[None], joints_2d[None], crop["intrinsics"])[0],
            confidence=sure,
            doubtful=sure is not None and sure < self.calibration.threshold,
            **crop,
        )


def predict_averaged(predict_crops, crops, views) -> dict[str, np.ndarray]:
    """Test-time augmentation: predict turned and scaled copies of each crop, average the answers.

    predict_crops: (B, S, S, 3) uint8 -> dict of arrays, as ``Predictor.predict_crops``.
    crops: (B, S, S, 3) uint8.   views: pairs (degrees, scale); the content turns clockwise and is
    enlarged by a scale above 1. Costs one pass of the network per view.
    returns vertices (B, V, 3), joints (B, 21, 3), joints_2d (B, 21, 2) in crop units, and camera
    (B, 3), the weak perspective that lays the joints on joints_2d best.
    """
    crops, views = np.asarray(crops), [(float(turn), float(scale)) for turn, scale in views]
    if not views or not np.isfinite(views).all() or min(scale for _, scale in views) <= 0:
        raise ValueError(f"views should be pairs (degrees, positive scale), found {views}")
    size, answers = crops.shape[1], []
    for degrees, scale in views:
        angle, middle = np.deg2rad(degrees), (size - 1) / 2
        affine = crop_affine((middle, middle), size / scale, size, angle)
        out = predict_crops(np.stack([cut(crop, affine, size) for crop in crops]))
        pixels = apply_affine(invert_affine(affine), crop_to_pixels(out["joints_2d"], size))
        turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()  # v R: the inverse, row by row
        place = pixels_to_crop(pixels, size)
        answers.append((out["vertices"] @ turn, out["joints"] @ turn, place))
    vertices, joints, flat = (np.mean(parts, axis=0) for parts in zip(*answers, strict=True))
    camera = fit_weak_perspective(joints, flat)
    found = {"vertices": vertices, "joints": joints, "joints_2d": flat, "camera": camera}
    return {name: value.astype(np.float32) for name, value in found.items()}


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
