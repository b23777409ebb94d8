"""The knobs of synthetic pictures, and the numbers that a picture is drawn from.

Every random number is a function of (seed, index, purpose, position): SplitMix64 (Steele, Lea and
Flood 2014) used as a hash. So any picture can be made alone or in a batch, by any worker, in any
order, and a knob that is added later leaves the others as they were.
"""

import zlib
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hand_lib.data.synthetic.backgrounds import KINDS

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class SyntheticConfig:
    """Ranges (low, high) are drawn uniformly, chances are shares of the pictures."""

    viewpoints: str = "photographs"  # "photographs", or "sphere" for every direction alike
    up_share: float = 0.60  # fingers point up; the rest: to a side, down, anywhere
    side_share: float = 0.16
    down_share: float = 0.12
    in_plane_deg: float = 24.0  # spread about those directions
    palm_share: float = 0.44  # palm to the camera; back and edge are the rest
    back_share: float = 0.42
    turn_deg: float = 20.0  # spread about the hand's long axis
    tilt_deg: float = 20.0  # spread out of the image plane
    distance_m: tuple = (0.28, 1.0)  # camera to wrist, log-uniform
    off_axis_deg: float = 20.0  # how far from the middle of the whole photograph
    framing: tuple = (1.12, 2.0)  # side of the crop over the side of the hand's bounding square
    shift: float = 0.09  # spread of the hand's place, in crop sides
    truncated: float = 0.05  # chance that the border cuts the hand (moved by up to 0.45)
    gestures: float = 0.35  # share of named gestures among the poses that are mixed
    between: float = 0.50  # chance that the pose lies on the way from one to another
    betas_spread: float = 1.0  # standard deviation of the shape
    forearm: float = 1.0  # chance; without one the hand ends at the wrist
    forearm_m: tuple = (0.40, 0.40)  # its length; at 0.40, the most, it leaves the picture
    forearm_girth: float = 0.25  # spread of how much it widens towards the elbow, about 1
    forearm_bend_deg: float = 24.0  # spread of the wrist's bend, to the palm and to the back
    forearm_side_deg: float = 9.0  # to the thumb and to the little finger
    sleeve: float = 0.42
    watch: float = 0.12
    ring: float = 0.14
    object_in_hand: float = 0.12
    occluder: float = 0.07
    second_hand: float = 0.06
    nail_polish: float = 0.10
    skin_tone: tuple = (0.0, 1.0)  # lightest to darkest
    detail: tuple = (0.5, 1.3)  # strength of creases, veins and mottling
    key_light: tuple = (0.15, 1.5)  # direct light over light from all around
    lamp_warmth: float = 1.0  # spread of the lamp's colour, from candle to overcast sky
    sky_above: tuple = (0.55, 1.25)  # light from all around, in spherical harmonics: from above,
    sky_anywhere: tuple = (0.2, 1.3)  # from a window or wall in any direction,
    sky_below: tuple = (0.0, 0.25)  # thrown back by the floor or a table,
    sky_even: tuple = (0.45, 0.45)  # and alike from everywhere
    sky_warmth: float = 0.7  # spread of their colours
    shadow: tuple = (0.55, 1.0)  # darkness of cast shadows
    softness_m: tuple = (0.002, 0.012)  # width of their edges on the skin
    occlusion: tuple = (0.5, 1.0)  # darkness of nooks
    specular: tuple = (0.015, 0.16)
    exposure: float = 0.28  # spread, in natural logarithms
    tint: float = 0.075  # white balance: spread of the channel gains
    contrast: tuple = (0.8, 1.25)
    motion_blur: float = 0.12
    defocus: float = 0.40
    blur_px: tuple = (0.3, 1.5)  # at 128 px; grows with the size of the picture
    noise: tuple = (0.5, 7.0)  # grey levels
    jpeg: float = 0.55
    jpeg_quality: tuple = (28, 95)
    drop_shadow: float = 0.35  # the hand darkens a surface behind it
    backgrounds: tuple = KINDS  # which kinds of ``backgrounds`` to take, in the shares of its bank
    background_edge: float = 0.25  # chance of an edge, beyond which lies a second background

    def __post_init__(self):
        if self.viewpoints not in ("photographs", "sphere"):
            raise ValueError(
                f"viewpoints should be 'photographs' or 'sphere', found {self.viewpoints!r}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "backgrounds":
                strange = sorted(set(value) - set(KINDS))
                if strange or not value:
                    raise ValueError(f"backgrounds should be some of {KINDS}, found {value}")
            elif isinstance(field.default, tuple):
                if len(value) != 2 or not value[0] <= value[1]:
                    raise ValueError(f"{field.name} should be (low, high), found {value}")
            elif isinstance(field.default, float) and not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} should be a number >= 0, found {value}")
        for name in CHANCES:
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a share, at most 1; found {getattr(self, name)}")
        for first, *others in (
            ("up_share", "side_share", "down_share"),
            ("palm_share", "back_share"),
        ):
            total = getattr(self, first) + sum(getattr(self, o) for o in others)
            if total > 1 + 1e-9:
                raise ValueError(f"{first} + {' + '.join(others)} exceed 1: {total:.3g}")


CHANCES = (
    "up_share", "side_share", "down_share", "palm_share", "back_share", "truncated", "gestures",
    "between", "forearm", "sleeve", "watch", "ring", "object_in_hand", "occluder", "second_hand",
    "nail_polish", "motion_blur", "defocus", "jpeg", "drop_shadow",
    "background_edge",
)  # fmt: skip


def _mix(z):
    """SplitMix64's finaliser on uint64 arrays."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Draws:
    """Random numbers of a batch of pictures, looked up by purpose.

    >>> alone, batch = Draws(7, [3]), Draws(7, [1, 2, 3])
    >>> bool((alone.uniform("light", 2)[0] == batch.uniform("light", 2)[2]).all())
    True
    """

    def __init__(self, seed: int, indices):
        indices = np.asarray(indices, dtype=np.int64).astype(np.uint64)
        with np.errstate(over="ignore"):
            start = _mix(np.array([(seed * _GOLDEN + 1) & _MASK], np.uint64))
            self.keys = _mix(_mix(indices * np.uint64(_GOLDEN) + start) + start)

    def uniform(self, purpose: str, count: int | None = None, low=0.0, high=1.0) -> NDArray:
        """(B, count) float64 in [low, high), or (B,) without a count."""
        steps = np.arange(1, (count or 1) + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        offset = np.uint64(zlib.crc32(purpose.encode()) * 0x2545F4914F6CDD1D & _MASK)
        bits = _mix(_mix(self.keys ^ offset)[:, None] + steps)
        unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        values = low + (high - low) * unit
        return values if count is not None else values[:, 0]

    def normal(self, purpose: str, count: int | None = None) -> NDArray:
        """(B, count) standard normal, or (B,) (Box and Muller 1958)."""
        n = count or 1
        unit = self.uniform(purpose, 2 * n)
        radius = np.sqrt(-2 * np.log(1 - unit[:, :n]))
        values = radius * np.cos(2 * np.pi * unit[:, n:])
        return values if count is not None else values[:, 0]

    def chance(self, purpose: str, share: float) -> NDArray:
        """(B,) bool, True in about that share."""
        return self.uniform(purpose + "?") < share

    def whole(self, purpose: str, stop: int, count: int | None = None) -> NDArray:
        """Whole numbers in [0, stop)."""
        return np.minimum((self.uniform(purpose, count) * stop).astype(np.int64), stop - 1)


PARAMETERS = np.dtype(
    [
        ("index", "i8"),
        ("pose", "f4", (16, 3)),  # axis-angle, mean pose included; row 0 turns the rest hand
        ("betas", "f4", (10,)),
        ("distance", "f4"),
        ("off_axis", "f4", (2,)),  # tangent of the angle from the optical axis, right and down
        ("framing", "f4"),
        ("shift", "f4", (2,)),  # crop sides
        ("arm", "f4", (3,)),  # bend, turn to the side (radians), girth
        ("sleeve", "f4", (3,)),  # start along the arm (above 1: none), thickness, flare; metres
        ("sleeve_cloth", "f4", (7,)),  # linear colour, tile, tile scale, pattern share, -
        (
            "watch",
            "f4",
            (4,),
        ),  # place along the arm (above 1: none), width, thickness, dial; metres
        ("watch_colour", "f4", (3,)),
        ("ring", "f4", (4,)),  # finger 0 to 4 (-1 none), place along it, width, thickness
        ("ring_colour", "f4", (3,)),
        ("object", "f4", (12,)),  # on, exponents 2, relative size 3, axis-angle 3, offset 3
        ("object_cloth", "f4", (7,)),
        ("occluder", "f4", (13,)),  # on, exponents 2, size 3, axis-angle 3, place on image 2, depth
        ("occluder_cloth", "f4", (7,)),
        ("second", "f4", (8,)),  # on, left, place relative to the wrist 3, arm 3
        ("second_pose", "f4", (16, 3)),
        ("second_betas", "f4", (10,)),
        ("second_sleeve", "f4", (3,)),
        ("skin", "f4", (3,)),  # linear albedo
        ("second_skin", "f4", (3,)),
        ("skin_detail", "f4", (8,)),  # palm, nail, crease, redness, vein, mottle, fine, knuckle
        ("nail", "f4", (3,)),  # linear albedo of the nails
        ("key", "f4", (3,)),  # direction to the lamp
        ("key_colour", "f4", (3,)),
        ("sky", "f4", (9, 3)),  # irradiance in spherical harmonics
        ("gloss", "f4", (2,)),  # strength, exponent
        ("shadow", "f4", (3,)),  # strength, softness in metres, occlusion
        ("background", "f4", (12,)),  # tile, u, v, zoom, angle, flip, gain 3, bias, tile 2, edge
        ("drop_shadow", "f4", (4,)),  # strength, offset 2, spread; crop sides
        (
            "camera",
            "f4",
            (12,),
        ),  # gains 3, contrast, blur kind, px, angle, noise, jpeg, grain u v, -
        ("forearm_cut", "f4"),  # metres of both forearms that are missing at the elbow's end
    ],
    align=True,
)
"""What one picture is made of: ``synthetic_draw.draw_parameters`` returns an array of these."""

LATER = ("forearm_cut",)
"""Fields added after ``synthetic-test`` was pinned, all 0 while their knobs are as they were."""


def drawn_fields(records: NDArray) -> list[str]:
    """Names of the fields that tell these pictures from others: LATER ones only where not 0."""
    return [name for name in records.dtype.names if name not in LATER or records[name].any()]
