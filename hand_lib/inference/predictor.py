"""From a picture to hand meshes: crop, network, then the hand's place in the picture and in space.

>>> predictor = Predictor.load("runs/reference")
>>> hand = predictor.predict("photo.jpg", boxes=[(120, 80, 360, 330)], sides=["left"])[0]
>>> hand.joints_2d          # (21, 2) pixels of the photograph
>>> hand.camera_vertices    # (778, 3) metres in the camera's frame
>>> hand.pose               # (16, 3) the hand model's angles
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.files import find_run
from hand_lib.fitting.pose import fit_pose
from hand_lib.inference.joint_fit import (
    HandParameters,
    assign_keypoints,
    model_of,
    refine_predictions,
)
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
from hand_lib.training.run_folder import load_network

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

    def predict(
        self, image, boxes=None, sides=None, intrinsics=None, keypoints=None, refined=True
    ) -> list[HandPrediction]:
        """Hands of one picture, one per box.

        image: whatever ``images.read_image`` takes.   boxes: list of (x0, y0, x1, y1) pixels drawn
        tightly around each hand; None: one hand that fills the whole picture; "detect": as many as
        MediaPipe finds, maybe none (see ``detection``).   sides: "right" or "left" for each box;
        None: right, or as MediaPipe says.   intrinsics: (3, 3) of the picture, or its focal length
        in pixels; None: a guess of 60 degrees along the long side, and the results say
        ``assumed_intrinsics``.   keypoints: (N, 21, 2 or 3) pixels and confidence of each hand's
        joints, 0 or NaN where not seen, which also give the boxes where there are none; "detect":
        MediaPipe's, which boxes="detect" brings too.   refined: the answer is the joint fit of mesh
        and key points (``fitting.refine``), without any that of mesh and the network's own 2-D
        joints; False: the network alone.
        raises ValueError for boxes outside the picture, unknown sides, intrinsics or key points
        that are none.
        """
        return self.predict_many(
            [image], [boxes], [sides], [intrinsics], keypoints=[keypoints], refined=refined
        )[0]

    def predict_many(
        self, images, boxes=None, sides=None, intrinsics=None, batch_size: int = 32,
        keypoints=None, refined=True,
    ) -> list[list[HandPrediction]]:  # fmt: skip
        """``predict`` for a list of pictures, their crops batched.

        boxes, sides, intrinsics, keypoints: one entry per picture, each as in ``predict``.
        returns one list of hands per picture.
        """
        count, given = len(images), (boxes, sides, intrinsics, keypoints)
        given = [[None] * count if v is None else list(v) for v in given]
        if {len(v) for v in given} != {count}:
            raise ValueError(
                f"{count} pictures need as many entries of boxes, sides, intrinsics and keypoints, "
                f"found {', '.join(str(len(v)) for v in given)}"
            )
        owners, crops, pixels = [], [], []
        for n in range(count):
            picture = read_image(images[n])
            for crop in self._crops_of(picture, *(v[n] for v in given)):
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
            found = [
                self._place({name: out[name][k] for name in out}, crop)
                for k, crop in enumerate(crops[part])
            ]
            if refined:
                found = refine_predictions(found, out.get("joints_2d_direct"), self.image_size)
            for n, hand in zip(owners[part], found, strict=True):
                hands[n].append(hand)
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

    def _crops_of(self, picture, boxes, sides, intrinsics, keypoints):
        """The fields of ``HandPrediction`` that each hand's crop knows, checked."""
        height, width = picture.shape[:2]
        boxes, sides, keypoints = assign_keypoints(picture, boxes, sides, keypoints)
        whole = boxes is None
        boxes = [(-0.5, -0.5, width - 0.5, height - 0.5)] if whole else list(boxes)
        sides = ["right"] * len(boxes) if sides is None else list(sides)
        if len(sides) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(sides)} sides")
        matrix = guessed_intrinsics(width, height) if np.ndim(intrinsics) == 0 else intrinsics
        if np.ndim(intrinsics) == 0 and intrinsics is not None:
            matrix[[0, 1], [0, 1]] = intrinsics
        matrix = check_intrinsics(matrix, width, height)
        keypoints = [None] * len(boxes) if keypoints is None else keypoints
        for box, side, points in zip(boxes, sides, keypoints, strict=True):
            if side not in ("right", "left"):
                raise ValueError(f"side should be 'right' or 'left', found {side!r}")
            box = check_box(box, width, height)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            extent = max(box[2] - box[0], box[3] - box[1]) * (1.0 if whole else BOX_MARGIN)
            affine = crop_affine(centre, extent, self.image_size, mirror=side == "left")
            yield {"affine": affine, "box": box, "side": side, "intrinsics": matrix,
                   "assumed_intrinsics": intrinsics is None, "keypoints": points}  # fmt: skip

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
