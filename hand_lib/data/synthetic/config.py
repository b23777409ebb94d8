"""The knobs of synthetic pictures, and the numbers that a picture is drawn from.

Every random number is a function of (seed, index) and of its turn, so any picture can be made alone
or in a batch, by any worker, in any order.
"""

from itertools import chain
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from scipy.special import ndtri

from hand_lib.data.synthetic.backgrounds import KINDS

Chance = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class SyntheticConfig:
    """Ranges (low, high) are drawn uniformly, chances are fractions of the pictures."""

    viewpoints: Literal["photographs", "sphere"] = "photographs"  # sphere: any direction alike
    any_direction: Chance = 0.08  # of photographs too
    up_share: Chance = 0.58  # fingers point up; the rest: to a side, down, anywhere
    side_share: Chance = 0.18
    down_share: Chance = 0.12
    in_plane_deg: Amount = 40.0  # spread about those directions
    palm_share: Chance = 0.40  # palm to the camera; back and edge are the rest
    back_share: Chance = 0.36
    turn_deg: Amount = 32.0  # spread about the hand's long axis
    tilt_deg: Amount = 32.0  # spread out of the image plane
    distance_m: Range = (0.28, 1.0)  # camera to wrist, log-uniform
    off_axis_deg: Amount = 20.0  # how far from the middle of the whole photograph
    framing: Range = (1.12, 2.0)  # side of the crop over the side of the hand's bounding square
    shift: Amount = 0.09  # spread of the hand's place, in crop sides
    truncated: Chance = 0.05  # the border cuts the hand (moved by up to 0.45)
    gestures: Chance = 0.25  # named gestures among the poses that are mixed
    between: Chance = 0.15  # the pose lies on the way from one to another
    betas_spread: Amount = 1.0  # standard deviation of the shape
    forearm: Chance = 1.0  # without one the hand ends at the wrist
    forearm_m: Range = (0.40, 0.40)  # its length; at 0.40, the most, it leaves the picture
    forearm_girth: Amount = 0.25  # spread of how much it widens towards the elbow, about 1
    forearm_bend_deg: Amount = 24.0  # spread of the wrist's bend, to the palm and to the back
    forearm_side_deg: Amount = 9.0  # to the thumb and to the little finger
    sleeve: Chance = 0.42
    object_in_hand: Chance = 0.12
    occluder: Chance = 0.07
    second_hand: Chance = 0.12
    touching: Chance = 0.6  # second hands that lie on the first, or whose fingers interlock with it
    nail_polish: Chance = 0.10
    skin_tone: Range = (0.0, 1.0)  # lightest to darkest
    detail: Range = (0.5, 1.3)  # strength of creases, veins and mottling
    key_light: Range = (0.15, 1.5)  # direct light over light from all around
    lamp_warmth: Amount = 1.0  # spread of the lamp's colour, from candle to overcast sky
    sky_above: Range = (0.55, 1.25)  # light from all around, in spherical harmonics: from above,
    sky_anywhere: Range = (0.2, 1.3)  # from a window or wall in any direction,
    sky_below: Range = (0.0, 0.25)  # thrown back by the floor or a table,
    sky_even: Range = (0.45, 0.45)  # and alike from everywhere
    sky_warmth: Amount = 0.7  # spread of their colours
    shadow: Range = (0.55, 1.0)  # darkness of cast shadows
    softness_m: Range = (0.002, 0.012)  # width of their edges on the skin
    occlusion: Range = (0.5, 1.0)  # darkness between surfaces that are near each other
    specular: Range = (0.015, 0.16)
    exposure: Amount = 0.28  # spread, in natural logarithms
    tint: Amount = 0.075  # white balance: spread of the channel gains
    contrast: Range = (0.8, 1.25)
    motion_blur: Chance = 0.12
    defocus: Chance = 0.40
    blur_px: Range = (0.3, 1.5)  # at 128 px; grows with the size of the picture
    noise: Range = (0.5, 7.0)  # grey levels
    jpeg: Chance = 0.55
    jpeg_quality: Range = (28, 95)
    drop_shadow: Chance = 0.35  # the hand darkens a surface behind it
    backgrounds: Annotated[tuple[Literal[KINDS], ...], Field(min_length=1)] = KINDS  # to take from
    background_folder: str | None = None  # your own photographs, as one more kind
    background_edge: Chance = 0.25  # an edge, beyond which lies a second background

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, hint in self.__annotations__.items():
            value = getattr(self, name)
            if hint is Range and not (0 <= value[0] <= value[1] < np.inf):
                raise ValueError(f"{name} should be (low, high), both >= 0, found {value}")
        for names in (("up_share", "side_share", "down_share"), ("palm_share", "back_share")):
            if (total := sum(getattr(self, name) for name in names)) > 1 + 1e-9:
                raise ValueError(f"{' + '.join(names)} exceed 1: {total:.3g}")
        return self


class Draws:
    """Random numbers of a batch of pictures; each call takes the next columns of a table.

    >>> alone, batch = Draws(7, [3]), Draws(7, [1, 2, 3])
    >>> bool((alone.uniform(2)[0] == batch.uniform(2)[2]).all())
    True
    """

    def __init__(self, seed: int, indices):
        indices, self.taken = np.asarray(indices).tolist(), 0
        self.table = np.stack([np.random.default_rng((seed, i)).random(512) for i in indices])

    def uniform(self, count: int | None = None, low=0.0, high=1.0) -> NDArray:
        """(B, count) float64 in [low, high), or (B,) without a count."""
        first, self.taken = self.taken, self.taken + (count or 1)
        values = low + (high - low) * self.table[:, first : self.taken]
        return values if count is not None else values[:, 0]

    def normal(self, count: int | None = None) -> NDArray:
        """(B, count) standard normal, or (B,)."""
        return ndtri(self.uniform(count) * (1 - 2e-16) + 1e-16)

    def chance(self, share: float) -> NDArray:
        """(B,) bool, True in about that share."""
        return self.uniform() < share

    def whole(self, stop: int) -> NDArray:
        """(B,) whole numbers in [0, stop)."""
        return np.minimum((self.uniform() * stop).astype(np.int64), stop - 1)


def _record(*fields) -> np.dtype:
    """A structured type.   fields: (name, type, shape), or the names of plain float32 numbers."""
    plain = ([(name, "f4") for name in f.split()] if isinstance(f, str) else [f] for f in fields)
    return np.dtype([*chain.from_iterable(plain)], align=True)


CLOTH = _record(("colour", "f4", (3,)), ("tile", "i4"), "scale pattern shift")
"""Linear colour, the tile whose pattern lies on it, its scale and its share, where it begins."""

SOLID = _record(
    ("on", "i4"),
    ("roundness", "f4", (2,)),
    ("size", "f4", (3,)),
    ("turn", "f4", (3, 3)),
    ("place", "f4", (3,)),  # of one in the hand, metres from where it is gripped; of an occluder,
    # across the picture in sides of the hand's square, then metres before the hand
    ("cloth", CLOTH),
)
"""A superquadric."""

BACKGROUND = _record(
    ("tile", "i4"), ("second_tile", "i4"), "u v zoom angle flip", ("gain", "f4", (3,)), "bias edge"
)
"""A piece of a tile, and the direction of the edge to a second one (0: none)."""

CAMERA = _record(
    ("gain", "f4", (3,)),
    "contrast defocus_px motion_px motion_angle noise jpeg_quality",
    ("grain_u", "i4"),
    ("grain_v", "i4"),
)
"""What the camera does; 0 pixels of blur and quality 0 mean none."""

DETAIL = _record("palm crease red vein mottle fine knuckle")
"""Strengths of what the skin shows."""

PARAMETERS = _record(
    ("index", "i8"),
    ("pose", "f4", (16, 3)),  # axis-angle, mean pose included; row 0 turns the rest hand
    ("betas", "f4", (10,)),
    ("frame", "f4", (3, 3)),  # columns distal, radial, dorsal of the hand in camera axes
    "distance",
    ("off_axis", "f4", (2,)),  # tangent of the angle from the optical axis, right and down
    "framing",
    ("shift", "f4", (2,)),  # crop sides
    "arm_bend arm_side arm_girth",  # radians to the palm and to the thumb, a factor
    "arm_cut",  # metres of both forearms that are missing at the elbow's end
    "sleeve_start sleeve_thickness sleeve_flare",  # metres along the arm; above 1 there is none
    ("sleeve_cloth", CLOTH),
    ("object", SOLID),
    ("occluder", SOLID),
    ("second", "i4"),  # 0 none, 1 a right hand, -1 a left one
    ("second_place", "f4", (3,)),  # of its wrist, metres from the first
    ("second_pose", "f4", (16, 3)),
    ("second_frame", "f4", (3, 3)),
    ("skin", "f4", (3,)),  # linear albedo
    ("second_skin", "f4", (3,)),
    ("nail", "f4", (3,)),
    ("detail", DETAIL),
    ("key", "f4", (3,)),  # direction to the lamp
    ("key_colour", "f4", (3,)),
    ("sky", "f4", (9, 3)),  # irradiance in spherical harmonics
    "gloss gloss_power shadow shadow_m occlusion",  # shadow_m: width of its edge
    ("background", BACKGROUND),
    "cast",  # darkness of the shadow on the background
    ("cast_offset", "f4", (2,)),  # crop sides
    "cast_spread",
    ("camera", CAMERA),
)
"""What one picture is made of: ``draw.sample_parameters`` returns an array of these."""


def flat_fields(records: NDArray, prefix: str = "") -> dict[str, NDArray]:
    """Every number of some records by its name, float64: ``camera.gain`` and so on."""
    found = {}
    for name in records.dtype.names:
        field, name = records[name], prefix + name
        nested = field.dtype.names is not None
        found |= flat_fields(field, name + ".") if nested else {name: field.astype(float)}
    return found
