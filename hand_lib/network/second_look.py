"""The second look: turn the hand upright, cut it tightly, read the picture again.

A network that sees every hand upright, in the middle and as large as it can be needs far fewer
pictures to learn fingers from than one that sees hands turned anyhow. Which way up it is and where
follow from the 2-D joints, in training those of the labels (with some noise), in use those that a
first look at the whole crop gives (as MediaPipe turns its crops, Zhang et al. 2020). Turning a
picture about its middle turns the hand about the optical axis, so nothing is lost on the way back.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hand_lib.network.heads import cell_centres

KNUCKLES = (5, 9, 13, 17)
MARGIN = 1.3
"""Side of the second look over the side of the upright square around the joints."""

SMALLEST = 0.6
"""A second look covers at least this share of the crop's side."""


class Look(NamedTuple):
    """Which squares to look at: u' = turn (u - centre) / half, crop units before and after."""

    turn: Tensor  # (B, 2, 2) rotations
    centre: Tensor  # (B, 2)
    half: Tensor  # (B,) half of the square's side

    def see(self, points: Tensor) -> Tensor:
        """Points (B, N, 2) of the crop in the units of the look."""
        shifted = (points - self.centre[:, None]) / self.half[:, None, None]
        return shifted @ self.turn.transpose(1, 2)

    def unsee(self, points: Tensor) -> Tensor:
        """Points (B, N, 2) of the look in crop units."""
        return points @ self.turn * self.half[:, None, None] + self.centre[:, None]


def look_at(joints_2d: Tensor, margin: float = MARGIN, turned: Tensor | None = None) -> Look:
    """The square around a hand, its knuckles straight above its wrist.

    joints_2d: (B, 21, 2) crop units.   margin: see ``MARGIN``.   turned: (B,) radians, clockwise
    on the screen, by which the knuckles shall be away from straight above.

    >>> look = look_at(torch.rand(1, 21, 2))
    >>> knuckles = look.see(joints)[:, list(KNUCKLES)].mean(1) - look.see(joints)[:, 0]
    >>> knuckles[0]                 # x is 0, y is negative: up
    """
    along = joints_2d[:, list(KNUCKLES)].mean(1) - joints_2d[:, 0]
    along = along / along.square().sum(1, keepdim=True).clamp_min(1e-8).sqrt()
    cos, sin = -along[:, 1], along[:, 0]
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    if turned is not None:
        cos, sin = torch.cos(turned), torch.sin(turned)
        extra = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        turn = extra @ turn
    upright = joints_2d @ turn.transpose(1, 2)
    low, high = upright.amin(1), upright.amax(1)
    centre = (((low + high) / 2)[:, None] @ turn)[:, 0]
    half = ((high - low).amax(1) / 2 * margin).clamp(SMALLEST, 2.0)
    return Look(turn, centre, half)


def cut(images: Tensor, size: int, look: Look | None = None) -> Tensor:
    """The squares that a look asks for; black beyond the border.

    images: (B, 3, H, W) float.   size: side of the result.   look: None is the whole crop.
    returns (B, 3, size, size).
    """
    if look is None and images.shape[2:] == (size, size):
        return images
    axis = cell_centres(size, images.device)
    grid = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)], 2)
    places = grid.reshape(1, -1, 2).expand(len(images), -1, -1)
    if look is not None:
        places = look.unsee(places)
    places = places.unflatten(1, (size, size)).to(images.dtype)
    return functional.grid_sample(images, places, align_corners=False)


def brought_back(prediction, look: Look) -> dict:
    """Fields of a ``Prediction`` made from a look, as fields for the crop it was cut from.

    The hand turns back about the optical axis; with u = half turn^T u' + centre and
    u' = s (X'_xy + t), the camera becomes s' = half s, t' = turn^T t + centre / s'.
    """
    turn = functional.pad(look.turn, (0, 1, 0, 1))
    turn[:, 2, 2] = 1
    scale = prediction.camera[:, 0] * look.half
    shift = (prediction.camera[:, None, 1:] @ look.turn)[:, 0] + look.centre / scale[:, None]
    fields = {
        "vertices": prediction.vertices @ turn,
        "joints": prediction.joints @ turn,
        "camera": torch.cat([scale[:, None], shift], 1),
        "joints_2d": look.unsee(prediction.joints_2d),
        "intermediate": tuple(mesh @ turn for mesh in prediction.intermediate),
        "canonical": prediction.canonical,
    }
    if prediction.joints_2d_direct is not None:
        fields["joints_2d_direct"] = look.unsee(prediction.joints_2d_direct)
    if prediction.rotation is not None:
        fields["rotation"] = turn.transpose(1, 2) @ prediction.rotation
    return fields


class CloserLooks(NamedTuple):
    """What training crops are made of when the network will look twice."""

    share: float = 0.65  # of the crops that are second looks; the rest are first ones
    turn_deg: float = 18.0  # standard deviation about upright
    scale: float = 0.16  # of the natural logarithm of the side
    shift: float = 0.08  # of the centre, in sides


def closer_affines(affines, joints_2d, valid_2d, random, size: int, config: CloserLooks):
    """Affine maps of crops, some replaced by those of a second look at the labelled joints.

    affines: (B, 2, 3) picture pixels -> crop pixels.   joints_2d: (B, 21, 2) pixels of the
    picture; valid_2d: (B, 21).   random: (B, >= 9) uniforms.   size: of the crops.
    A hand whose wrist, knuckles or half of the joints are not known keeps its first look.
    """
    valid = np.asarray(valid_2d)
    known = valid[:, [0, *KNUCKLES]].all(1) & (valid.sum(1) >= 11)
    chosen = np.flatnonzero(known & (random[:, 0] < config.share))
    if len(chosen) == 0:
        return affines
    maps, uniform = affines[chosen], random[chosen]
    joints = joints_2d[chosen] @ maps[:, :, :2].swapaxes(1, 2) + maps[:, None, :, 2]
    joints = (2 * joints + 1) / size - 1
    weight = valid[chosen][..., None]
    middle = (joints * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    joints = torch.from_numpy(np.where(weight, joints, middle))
    radius = np.sqrt(-2 * np.log1p(-uniform[:, 1:5]))
    normal = radius * np.cos(2 * np.pi * uniform[:, 5:9])
    turned = torch.from_numpy(normal[:, 0] * math.radians(config.turn_deg))
    turn, centre, half = (part.numpy() for part in look_at(joints, turned=turned))
    half = half * np.exp(config.scale * normal[:, 1])
    centre = centre + 2 * half[:, None] * config.shift * normal[:, 2:4]
    # crop pixel x -> u = (2 x + 1) / size - 1 -> turn (u - centre) / half -> pixel of the look
    linear = turn / half[:, None, None]
    start = np.full(2, 1 / size - 1) - centre
    offset = ((linear @ start[..., None])[..., 0] + 1) * size / 2 - 0.5
    closer = affines.copy()
    closer[chosen, :, :2] = linear @ maps[:, :, :2]
    closer[chosen, :, 2] = (linear @ maps[:, :, 2:])[..., 0] + offset
    return closer
