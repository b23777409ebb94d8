"""From a picture to hand meshes: crop, network, then the hand's place in the picture and in space.

>>> predictor = Predictor.load("runs/reference")
>>> hand = predictor.predict("photo.jpg", boxes=[(120, 80, 360, 330)], sides=["left"])[0]
>>> hand.joints_2d          # (21, 2) pixels of the photograph
>>> hand.camera_vertices    # (778, 3) metres in the camera's frame
>>> hand.pose               # (16, 3) the hand model's angles
"""

import functools

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.files import find_run
from hand_lib.inference.joint_fit import HandPrediction, assign_keypoints, refine_predictions
from hand_lib.inference.search import (
    BOX_MARGIN,
    SIDES,
    UNCALIBRATED,
    Calibration,
    cut,
    evidence,
    find_hands,
    load_calibration,
)
from hand_lib.network.model import predict_crops, settle
from hand_lib.render.camera import (
    apply_affine,
    check_intrinsics,
    crop_affine,
    crop_to_pixels,
    fit_view,
    fit_weak_perspective,
    guessed_intrinsics,
    invert_affine,
    pixels_to_crop,
    solve_translation,
)
from hand_lib.render.images import exif_focal, read_image
from hand_lib.training.run_folder import load_network

READ_AGAIN_BELOW = 0.8
"""Confidence below which a crop is read again."""

READ_AGAIN_AT = 0.8, 1.2
"""Scales at which it is: with more around the hand, and with less."""


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
        made = cls(network, config.image_size, folder.name, device, calibration, config.n_crops)
        settle(made.network, config.view_size or config.image_size)
        return made

    def predict(
        self, image, boxes=None, sides=None, intrinsics=None, keypoints=None, refined=True
    ) -> list[HandPrediction]:
        """Hands of one picture, the surest first where nobody drew boxes.

        image: whatever ``images.read_image`` takes.   boxes: list of (x0, y0, x1, y1) pixels drawn
        tightly around each hand; None: the network looks for hands itself (see ``search``), maybe
        finds none; "detect": those that MediaPipe finds (see ``detection``); "whole": one hand
        fills the picture.   sides: "right" or "left" for each box; None: as MediaPipe says, else
        both are tried and the surer one stays; without boxes a hand of each side named is looked
        for.   intrinsics: (3, 3) of the picture, or its focal length in pixels; None: by EXIF, else
        as ``camera.fit_view`` assumes, and the results say ``assumed_intrinsics``.
        keypoints: (N, 21, 2 or 3) pixels and confidence of each hand's joints, 0 or NaN where not
        seen, which also give the boxes where there are none; "detect": MediaPipe's, which
        boxes="detect" brings too.   refined: the answer is the joint fit of mesh and key points
        (``fitting.prior``), without any that of mesh and the network's own 2-D joints, which do not
        turn it where the camera is assumed; False: the network alone.
        A network that reads no joints from the image can neither look for hands nor tell sides:
        without boxes it takes the whole picture, without sides right hands, and says so.
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
        sizes, cameras, crops, pixels = [], [], [], []
        for n, (image, box, side, known, points) in enumerate(zip(images, *given, strict=True)):
            picture = read_image(image)
            sizes.append(picture.shape[1::-1])
            cameras.append(_known_camera(image, sizes[n], known))
            for k, crop in enumerate(self._hands_of(picture, box, side, points)):
                for each in (crop["side"],) if crop["side"] else SIDES:  # both where none is named
                    affine = crop_affine(*_square(crop), self.image_size, mirror=each == "left")
                    crops.append((n, k, crop | {"side": each, "affine": affine}))
                    pixels.append(cut(picture, affine, self.image_size))
        if not crops:
            return [[] for _ in images]
        out = self.read_crops(np.stack(pixels), batch_size)
        best: dict[tuple, int] = {}
        for row, (n, k, _) in enumerate(crops):
            if (n, k) not in best or out["confidence"][row] > out["confidence"][best[n, k]]:
                best[n, k] = row
        hands = []
        for n in range(count):
            rows = [row for (owner, _), row in best.items() if owner == n]
            said = {name: values[rows] for name, values in out.items()}
            hands += self._place(said, [crops[row][2] for row in rows], cameras[n], sizes[n])
        if refined:
            direct = out.get("joints_2d_direct")
            direct = None if direct is None else direct[list(best.values())]
            hands = refine_predictions(hands, direct, self.image_size)
        found: list[list[HandPrediction]] = [[] for _ in range(count)]
        for (n, _), hand in zip(best, hands, strict=True):
            found[n].append(hand)
        return found

    def predict_crops(self, crops, batch_size: int = 32, n_crops=None) -> dict[str, np.ndarray]:
        """Run the network on right-hand crops.

        crops: (B, S, S, 3) uint8 RGB.   n_crops: looks at each, None: as many as the run's.
        returns vertices (B, V, 3), joints (B, 21, 3), camera (B, 3), joints_2d (B, 21, 2) in crop
        units, evidence (B, N), sureness (B,) of a hand and confidence (B,), see ``search``, and
        joints_2d_direct (B, 21, 2) where the network reads joints from the image.
        """
        crops = np.asarray(crops)
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise ValueError(
                f"expected crops (B, S, S, 3) uint8, found {crops.shape} {crops.dtype}"
            )
        names, parts = ("vertices", "joints", "camera", "joints_2d", "joints_2d_direct"), []
        for some in torch.from_numpy(np.ascontiguousarray(crops)).split(batch_size):
            images = some.to(self.device).permute(0, 3, 1, 2)
            with torch.inference_mode():
                out = predict_crops(self.network, images, n_crops or self.n_crops)
                found = {name: getattr(out, name) for name in names} | {"evidence": evidence(out)}
            parts.append({k: v.float().cpu().numpy() for k, v in found.items() if v is not None})
        out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        known = self.calibration or UNCALIBRATED
        out["sureness"] = known.hand.chance(out["evidence"])
        out["confidence"] = known.well_read.chance(out["evidence"])
        return out

    def read_crops(self, crops, batch_size: int = 32) -> dict[str, np.ndarray]:
        """``predict_crops``, and again where the answer is in doubt: from farther and from nearer.

        A crop whose confidence is below ``READ_AGAIN_BELOW`` is read at ``READ_AGAIN_AT`` as well.
        The surest answer stays, the evidence is that of all. Runs without a calibration read once.
        """
        predict = functools.partial(self.predict_crops, batch_size=batch_size)
        out, known = predict(crops), self.calibration
        doubted = np.flatnonzero(out["confidence"] < READ_AGAIN_BELOW)
        if known is None or not len(doubted):
            return out
        others = predict_views(predict, crops[doubted], [(0.0, at) for at in READ_AGAIN_AT])
        all_looks = {k: np.concatenate([out[k][None, doubted], v]) for k, v in others.items()}
        signs, best = all_looks["evidence"].mean(0), all_looks["confidence"].argmax(0)
        for name, values in all_looks.items():
            out[name][doubted] = values[best, np.arange(len(doubted))]
        out["evidence"][doubted] = signs
        out["sureness"][doubted] = known.hand.chance(signs)
        out["confidence"][doubted] = known.well_read.chance(signs)
        return out

    @functools.cached_property
    def finds(self) -> bool:
        """Whether the network reads joints from the image, by which it knows hands from nothing."""
        blank = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        return "joints_2d_direct" in self.predict_crops(blank, n_crops=1)

    def _hands_of(self, picture, boxes, sides, keypoints):
        """Yield what is known of each hand before it is read, checked: side None is to be tried."""
        height, width = picture.shape[:2]
        box_from, side_from = "given", "detected" if sides is None else "given"
        if boxes is None and keypoints is None and not self.finds:
            boxes = "whole"
        if boxes is None and keypoints is None:
            found = find_hands(self, picture, sides)
            box_from, side_from = "found", "found" if sides is None else "given"
            boxes, sides = [hand.box for hand in found], [hand.side for hand in found]
        elif isinstance(boxes, str) and boxes == "whole":
            box_from, boxes = boxes, [(-0.5, -0.5, width - 0.5, height - 0.5)]
        elif isinstance(boxes, str) or boxes is None and isinstance(keypoints, str):
            box_from = "detected"
        boxes, sides, keypoints = assign_keypoints(picture, boxes, sides, keypoints)
        if sides is None:
            side_from = "found" if self.finds else "assumed"
            sides = [None if self.finds else "right"] * len(boxes)
        if len(sides) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(sides)} sides")
        for n, (box, side) in enumerate(zip(boxes, sides, strict=True)):
            if side not in (*SIDES, None):
                raise ValueError(f"side should be 'right' or 'left', found {side!r}")
            known = {"box": check_box(box, width, height), "side": side, "box_from": box_from}
            points = None if keypoints is None else keypoints[n]
            yield known | {"side_from": side_from, "keypoints": points}

    def _place(self, out, hands: list[dict], camera, size) -> list[HandPrediction]:
        """What was read of the hands of one picture, in the frame of its camera.

        out: of ``predict_crops``.   hands: of ``_hands_of``, their sides known, with the affine of
        each crop.   camera: (3, 3), or None where it is to be assumed.   size: (width, height).
        """
        if not hands:
            return []
        left = np.array([hand["side"] == "left" for hand in hands])
        flips = np.where(left[:, None, None], (-1.0, 1, 1), 1)
        vertices, joints = out["vertices"] * flips, out["joints"] * flips
        flat = crop_to_pixels(out["joints_2d"].astype(float), self.image_size)
        flat = apply_affine(invert_affine(np.stack([hand["affine"] for hand in hands])), flat)
        assumed, known, signs = camera is None, self.calibration, [{}] * len(hands)
        if assumed:
            sides = np.array([_square(hand)[1] for hand in hands])
            camera = fit_view(joints, flat, sides, *size)
        if known is not None:
            sure, there = out["confidence"].tolist(), out["sureness"].tolist()
            limits = known.well_read.threshold, known.hand.threshold
            signs = [
                {"confidence": one, "doubtful": one < limits[0], "absent": other < limits[1]}
                for one, other in zip(sure, there, strict=True)
            ]
        places, faces = solve_translation(joints, flat, camera), self.network.faces.cpu().numpy()
        return [
            HandPrediction(
                vertices=vertices[k], faces=faces[:, ::-1] if left[k] else faces, joints=joints[k],
                joints_2d=flat[k], camera=out["camera"][k], translation=places[k],
                intrinsics=camera, assumed_intrinsics=assumed, **hand, **signs[k],
            )
            for k, hand in enumerate(hands)
        ]  # fmt: skip


def _square(hand: dict) -> tuple[tuple[float, float], float]:
    """Middle and side, in pixels of the picture, of the crop that a hand is read in."""
    x0, y0, x1, y1 = hand["box"]
    margin = 1.0 if hand["box_from"] == "whole" else BOX_MARGIN
    return ((x0 + x1) / 2, (y0 + y1) / 2), margin * max(x1 - x0, y1 - y0)


def _known_camera(image, size, intrinsics) -> np.ndarray | None:
    """Intrinsics (3, 3) of a picture of a size (width, height), given or by EXIF; else None."""
    if intrinsics is None:
        intrinsics = exif_focal(image)
        if intrinsics is None:
            return None
    if np.ndim(intrinsics) == 0:
        focal, intrinsics = intrinsics, guessed_intrinsics(*size)
        intrinsics[[0, 1], [0, 1]] = focal
    return check_intrinsics(intrinsics, *size)


def predict_averaged(predict_crops, crops, views) -> dict[str, np.ndarray]:
    """Test-time augmentation: predict turned and scaled copies of each crop, average the answers.

    predict_crops: (B, S, S, 3) uint8 -> dict of arrays, as ``Predictor.predict_crops``.
    crops: (B, S, S, 3) uint8.   views: pairs (degrees, scale); the content turns clockwise and is
    enlarged by a scale above 1.
    returns vertices (B, V, 3), joints (B, 21, 3), joints_2d (B, 21, 2) in crop units, and camera
    (B, 3), the weak perspective that lays the joints on joints_2d best.
    """
    crops, views = np.asarray(crops), [(float(turn), float(scale)) for turn, scale in views]
    if not views or not np.isfinite(views).all() or min(scale for _, scale in views) <= 0:
        raise ValueError(f"views should be pairs (degrees, positive scale), found {views}")
    out = predict_views(predict_crops, crops, views)
    found = {name: out[name].mean(axis=0) for name in ("vertices", "joints", "joints_2d")}
    found["camera"] = fit_weak_perspective(found["joints"], found["joints_2d"])
    return {name: value.astype(np.float32) for name, value in found.items()}


def predict_views(predict_crops, crops, views) -> dict[str, np.ndarray]:
    """What ``predict_crops`` says of turned and scaled copies of crops, back in the crops' frame.

    views: N pairs of degrees, by which the content turns clockwise, and scale, above 1 enlarged.
    returns its arrays, (N, B, ...) each.
    """
    size, (degrees, scales) = crops.shape[1], np.transpose(views)
    middle, angles = np.full((len(views), 2), (size - 1) / 2), np.deg2rad(degrees)
    affines = crop_affine(middle, size / scales, size, angles)
    out = predict_crops(np.stack([cut(crop, affine, size) for affine in affines for crop in crops]))
    turn = Rotation.from_rotvec(angles[:, None] * [0, 0, 1]).as_matrix()  # v R: the inverse
    turn, back = (np.repeat(part, len(crops), axis=0) for part in (turn, invert_affine(affines)))
    moved = {name: out[name] @ turn for name in ("vertices", "joints")}
    for name in {"joints_2d", "joints_2d_direct"} & set(out):
        moved[name] = pixels_to_crop(apply_affine(back, crop_to_pixels(out[name], size)), size)
    moved["camera"] = fit_weak_perspective(moved["joints"], moved["joints_2d"])
    shape = len(views), len(crops)
    return {k: v.reshape(*shape, *v.shape[1:]) for k, v in (out | moved).items()}


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
