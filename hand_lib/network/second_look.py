"""The second look: turn the hand upright, cut it tightly, read the picture again.

A network that sees every hand upright, in the middle and as large as it can be needs far fewer
pictures to learn fingers from than one that sees hands turned anyhow. Which way up it is and where
follow from the 2-D joints, in training those of the labels (with some noise), in use those that a
first look at the whole crop gives (as MediaPipe turns its crops, Zhang et al. 2020). Turning a
picture about its middle turns the hand about the optical axis, so nothing is lost on the way back.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hand_lib.network.heads import cell_centres
from hand_lib.render.camera import UPRIGHT_MARGIN, upright_square


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


def look_at(joints_2d: Tensor, margin: float = UPRIGHT_MARGIN) -> Look:
    """The square around a hand, its knuckles straight above its wrist.

    joints_2d: (B, 21, 2) crop units.   margin: side of the square over that of the joints.

    >>> look = look_at(torch.rand(1, 21, 2))
    >>> knuckles = look.see(joints)[:, list(KNUCKLES)].mean(1) - look.see(joints)[:, 0]
    >>> knuckles[0]                 # x is 0, y is negative: up
    """
    return Look(*upright_square(joints_2d, margin))


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
