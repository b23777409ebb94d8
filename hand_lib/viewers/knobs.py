"""A wall of the knobs of synthetic pictures: the same hand with one thing turned up at a time."""

import numpy as np

from hand_lib.data.synthetic.backgrounds import KINDS
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.viewers.figures import image_grid

PLAIN = {
    "sleeve": 0.0, "watch": 0.0, "ring": 0.0, "object_in_hand": 0.0, "occluder": 0.0,
    "second_hand": 0.0, "nail_polish": 0.0, "motion_blur": 0.0, "defocus": 0.0, "jpeg": 0.0,
    "noise": (0.0, 0.0), "tint": 0.0, "truncated": 0.0, "drop_shadow": 0.0, "exposure": 0.0,
    "shift": 0.0, "framing": (1.3, 1.3), "key_light": (0.6, 0.6), "contrast": (1.0, 1.0),
    "skin_tone": (0.3, 0.3), "backgrounds": ("smooth",), "between": 0.0,
}  # fmt: skip
"""Nothing in the way, nothing wrong with the camera."""

TURNED = {
    "none of them": {},
    "viewpoints": {"viewpoints": "sphere"},
    "distance_m": {"distance_m": (0.25, 0.25)},
    "framing": {"framing": (2.0, 2.0)},
    "truncated": {"truncated": 1.0},
    "gestures": {"gestures": 1.0},
    "between": {"between": 1.0},
    "betas_spread": {"betas_spread": 2.5},
    "skin_tone": {"skin_tone": (0.95, 0.95)},
    "detail": {"detail": (2.0, 2.0)},
    "nail_polish": {"nail_polish": 1.0},
    "forearm": {"forearm": 0.0},
    "forearm_m": {"forearm_m": (0.04, 0.04)},
    "forearm_girth": {"forearm_girth": 2.0},
    "forearm_bend_deg": {"forearm_bend_deg": 80.0},
    "forearm_side_deg": {"forearm_side_deg": 45.0},
    "sleeve": {"sleeve": 1.0},
    "watch": {"watch": 1.0},
    "ring": {"ring": 1.0},
    "object_in_hand": {"object_in_hand": 1.0},
    "occluder": {"occluder": 1.0},
    "second_hand": {"second_hand": 1.0},
    "key_light": {"key_light": (1.5, 1.5)},
    "lamp_warmth": {"key_light": (1.5, 1.5), "lamp_warmth": 3.0},
    "sky_above": {"key_light": (0.0, 0.0), "sky_above": (5.0, 5.0)},
    "sky_anywhere": {"key_light": (0.0, 0.0), "sky_anywhere": (5.0, 5.0)},
    "sky_below": {"key_light": (0.0, 0.0), "sky_below": (2.0, 2.0)},
    "sky_even": {"key_light": (0.0, 0.0), "sky_even": (5.0, 5.0)},
    "sky_warmth": {"key_light": (0.0, 0.0), "sky_warmth": 3.0},
    "shadow": {"key_light": (1.5, 1.5), "shadow": (1.0, 1.0)},
    "softness_m": {"key_light": (1.5, 1.5), "shadow": (1.0, 1.0), "softness_m": (0.02, 0.02)},
    "occlusion": {"key_light": (0.0, 0.0), "occlusion": (1.0, 1.0)},
    "specular": {"key_light": (1.5, 1.5), "specular": (0.4, 0.4)},
    "drop_shadow": {"drop_shadow": 1.0},
    "background_edge": {"background_edge": 1.0, "backgrounds": KINDS},
    "exposure": {"exposure": 0.8},
    "tint": {"tint": 0.25},
    "contrast": {"contrast": (1.5, 1.5)},
    "motion_blur": {"motion_blur": 1.0, "blur_px": (2.0, 2.0)},
    "defocus": {"defocus": 1.0, "blur_px": (1.5, 1.5)},
    "noise": {"noise": (12.0, 12.0)},
    "jpeg": {"jpeg": 1.0, "jpeg_quality": (10, 10)},
}
"""What each picture of the wall sets besides PLAIN; some need a lamp to be seen."""


def knob_pictures(size: int = 64, seed: int = 4, index: int = 2179) -> dict[str, np.ndarray]:
    """One picture (size, size, 3) for each of TURNED and for each kind of background.

    >>> pictures = knob_pictures(32)
    >>> len(pictures), pictures["ring"].shape
    (51, (32, 32, 3))
    """
    settings = dict(TURNED)
    for kind in KINDS:
        settings[f"on {kind}"] = {"backgrounds": (kind,)}
    return {
        name: SyntheticHands(size, seed, index + 1, **(PLAIN | turned))[index].image
        for name, turned in settings.items()
    }


def knob_wall(size: int = 64, seed: int = 4, index: int = 2179, columns: int = 13):
    """``knob_pictures`` in rows with their names, as a PIL image."""
    pictures = knob_pictures(size, seed, index)
    names = [name.replace("_", "\n", 1).replace(" ", "\n", 1) for name in pictures]
    return image_grid(pictures.values(), names, columns, gap=8)
