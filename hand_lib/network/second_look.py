"""How a trained network is used: find the hand, turn it upright, cut it tightly, read it again.

A network that sees every hand upright, in the middle and as large as it can be needs far fewer
pictures to learn fingers from than one that sees hands turned anyhow. Which way up it is and where
follow from the 2-D joints that a first look at the whole crop gives (as MediaPipe turns its crops,
Zhang et al. 2020); in training from those of the labels (``data.augment``). Turning a picture about
its middle turns the hand about the optical axis, so nothing is lost on the way back.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hand_lib.mesh.topology import procrustes_align
from hand_lib.network.coarse_to_fine import cell_centres, heatmap_spread, vertex_matmul
from hand_lib.network.model import HandNetwork, Prediction
from hand_lib.render.camera import upright_square

SHAPE_BLEND = 0.7
"""How much of the shown shape is the canonical hand's; the rest is the corrected mesh's own."""

LAST_CROP = 0.7
"""Share of a tight crop in where the hand is; the rest is that of the crops before it."""


def predict_crops(
    network: HandNetwork, images: Tensor, n_crops: int = 2, shape_blend: float = SHAPE_BLEND
) -> Prediction:
    """What a trained network says of whole crops: the answer of ``n_crops`` looks, in float32.

    images: (B, 3, H, W) RGB, uint8 or float in [0, 1], of any size.   n_crops: 1 reads the whole
    crop, each more an upright, tight one around where the hand was found. The shape is the last
    crop's; place, turn and size are a mean over all, which errs less than either. Youtubehand's
    decoder reads the whole crop only.   shape_blend: see ``blend_shapes``.
    Autocast is off: bfloat16 would move the mesh of a trained network by a quarter of a millimetre.
    """
    size = network.view_size or images.shape[-1]
    with torch.autocast(images.device.type, enabled=False):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        prediction = blend_shapes(network, network(cut(images, size)), shape_blend)
        if prediction.joints_2d_direct is None:
            return prediction
        for _ in range(1, n_crops):
            square = Square(*upright_square(prediction.joints_2d_direct))
            closer = network(cut(images, size, square, network.normalize.mean))
            closer = turn_back(blend_shapes(network, closer, shape_blend), square)
            prediction = merge_crops(network, prediction, closer)
    return prediction


def blend_shapes(network: HandNetwork, prediction: Prediction, share: float) -> Prediction:
    """The canonical hand laid onto the corrected mesh, mixed with it by ``share``.

    The canonical hand knows no direction and so keeps its shape where the direction is in doubt:
    place, turn and size come from one, shape mostly from the other.
    """
    if prediction.canonical is None:
        return prediction
    finer = prediction.intermediate[-1]
    coarse = torch.lerp(finer, procrustes_align(prediction.canonical, finer), share)
    vertices = vertex_matmul(network.decoder.up, coarse)
    return replace(prediction, **network.fitted(vertices, prediction.joints_2d_direct))


def merge_crops(network: HandNetwork, before: Prediction, closer: Prediction) -> Prediction:
    """Shape of the closer crop; place, turn and size of both, mostly its (``LAST_CROP``)."""
    direct = torch.lerp(before.joints_2d_direct, closer.joints_2d_direct, LAST_CROP)
    mean = torch.lerp(before.vertices, closer.vertices, LAST_CROP)
    fields = network.fitted(procrustes_align(closer.vertices, mean), direct)
    maps = {"heatmaps": before.heatmaps, "correspondence": before.correspondence}  # of the crop
    return replace(closer, **fields, **maps, joints_2d_direct=direct)


class Square(NamedTuple):
    """Upright squares of crops: u' = turn (u - centre) / half, crop units before and after.

    >>> square = Square(*upright_square(joints_2d))
    """

    turn: Tensor  # (B, 2, 2) rotations
    centre: Tensor  # (B, 2)
    half: Tensor  # (B,) half of the square's side

    def back(self, points: Tensor) -> Tensor:
        """Points (B, N, 2) of the square in crop units."""
        return points @ self.turn * self.half[:, None, None] + self.centre[:, None]


def cut(images: Tensor, size: int, square: Square | None = None, border=0.0) -> Tensor:
    """Squares of pictures, bilinearly.

    images: (B, 3, H, W).   size: side of the result.   square: None is the whole crop.
    border: colour beyond the picture, (3, 1, 1) or a number.   returns (B, 3, size, size).
    """
    if square is None and images.shape[2:] == (size, size):
        return images
    axis = cell_centres(size, images.device)
    grid = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)], 2)
    points = grid.reshape(1, -1, 2).expand(len(images), -1, -1)
    if square is not None:
        points = square.back(points)
    points = points.unflatten(1, (size, size)).to(images.dtype)
    return functional.grid_sample(images - border, points, align_corners=False) + border


def turn_back(prediction: Prediction, square: Square) -> Prediction:
    """What was read from a square, as a prediction for the crop that it was cut from.

    The hand turns back about the optical axis; with u = half turn^T u' + centre and
    u' = s (X'_xy + t), the camera becomes s' = half s, t' = turn^T t + centre / s'. Maps of the
    image belong to the square and are left out, but for how far the heat maps spread.
    """
    turn, heat = functional.pad(square.turn, (0, 1, 0, 1)), prediction.heatmaps
    turn[:, 2, 2] = 1
    scale = prediction.camera[:, 0] * square.half
    shift = (prediction.camera[:, None, 1:] @ square.turn)[:, 0]
    shift = shift + square.centre / scale[:, None]
    return replace(
        prediction,
        vertices=prediction.vertices @ turn,
        joints=prediction.joints @ turn,
        camera=torch.cat([scale[:, None], shift], 1),
        joints_2d=square.back(prediction.joints_2d),
        joints_2d_direct=square.back(prediction.joints_2d_direct),
        intermediate=tuple(mesh @ turn for mesh in prediction.intermediate),
        rotation=turn.transpose(1, 2) @ prediction.rotation,
        spread=None if heat is None else heatmap_spread(heat, prediction.joints_2d_direct),
        heatmaps=None,
        correspondence=None,
    )
