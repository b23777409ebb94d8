"""A wall of synthetic photographs, one knob of their making turned in each."""

import numpy as np

from hand_lib.data.synthetic.backgrounds import KINDS
from hand_lib.data.synthetic.config import SyntheticConfig
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.viewers import flat

PLAIN = {
    "sleeve": 0.0, "object_in_hand": 0.0, "occluder": 0.0,
    "second_hand": 0.0, "nail_polish": 0.0, "motion_blur": 0.0, "defocus": 0.0, "jpeg": 0.0,
    "noise": (0.0, 0.0), "tint": 0.0, "truncated": 0.0, "drop_shadow": 0.0, "exposure": 0.0,
    "shift": 0.0, "framing": (1.3, 1.3), "key_light": (0.6, 0.6), "contrast": (1.0, 1.0),
    "skin_tone": (0.3, 0.3), "backgrounds": ("smooth",), "between": 0.0,
}  # fmt: skip
"""Nothing in the way, nothing wrong with the camera."""

VARIATIONS = {
    "viewpoints": "sphere", "any_direction": 1.0, "distance_m": 0.25, "framing": 2.0,
    "truncated": 1.0, "gestures": 1.0, "between": 1.0, "betas_spread": 2.5, "skin_tone": 0.95,
    "detail": 2.0, "nail_polish": 1.0, "forearm": 0.0, "forearm_m": 0.04, "forearm_girth": 2.0,
    "forearm_bend_deg": 80.0, "forearm_side_deg": 45.0, "sleeve": 1.0, "object_in_hand": 1.0,
    "occluder": 1.0, "second_hand": 1.0, "touching": 1.0, "key_light": 1.5, "lamp_warmth": 3.0,
    "sky_above": 5.0, "sky_anywhere": 5.0, "sky_below": 2.0, "sky_even": 5.0, "sky_warmth": 3.0,
    "shadow": 1.0, "softness_m": 0.02, "occlusion": 1.0, "specular": 0.4, "drop_shadow": 1.0,
    "background_edge": 1.0, "exposure": 0.8, "tint": 0.25, "contrast": 1.5, "motion_blur": 1.0,
    "defocus": 1.0, "noise": 12.0, "jpeg": 1.0,
}  # fmt: skip
"""The one knob that each picture of the wall turns, and how far; of a range both its ends."""
_LAMP, _NO_LAMP = {"key_light": (1.5, 1.5)}, {"key_light": (0.0, 0.0)}
BESIDES = {
    "second_hand": {"touching": 0.0}, "touching": {"second_hand": 1.0},
    **dict.fromkeys(("lamp_warmth", "shadow", "specular"), _LAMP),
    "softness_m": _LAMP | {"shadow": (1.0, 1.0)},
    **dict.fromkeys(("sky_above", "sky_anywhere", "sky_below", "sky_even"), _NO_LAMP),
    "sky_warmth": _NO_LAMP, "occlusion": _NO_LAMP, "background_edge": {"backgrounds": KINDS},
    "motion_blur": {"blur_px": (2.0, 2.0)}, "defocus": {"blur_px": (1.5, 1.5)},
    "jpeg": {"jpeg_quality": (10, 10)},
}  # fmt: skip
"""What else a knob needs to be seen."""


def variations(size: int = 64, seed: int = 4, index: int = 264) -> dict[str, np.ndarray]:
    """One picture (size, size, 3) for each of VARIATIONS and for each kind of background.

    >>> made = variations(32)
    >>> len(made), made["sleeve"].shape
    (51, (32, 32, 3))
    """
    settings = {"none of them": {}}
    for name, value in VARIATIONS.items():
        ranged = isinstance(getattr(SyntheticConfig, name), tuple)
        settings[name] = BESIDES.get(name, {}) | {name: (value, value) if ranged else value}
    settings |= {f"on {kind}": {"backgrounds": (kind,)} for kind in KINDS}
    return {
        name: SyntheticHands(size, seed, index + 1, **(PLAIN | turned))[index].image
        for name, turned in settings.items()
    }


SEEN = (
    "none of them", "viewpoints", "framing", "gestures", "skin_tone", "betas_spread", "tint",
    "object_in_hand", "occluder", "touching", "key_light", "exposure", "contrast", "motion_blur",
    "noise", "on leaves", "on fabric", "on people",
)  # fmt: skip
"""The variations that one sees at once."""


def variation_grid(size: int = 64, columns: int = 6, names=SEEN):
    """Some of the ``variations`` in rows with their names, as a PIL image."""
    made = variations(size)
    pictures, titles = [made[name] for name in names], [name.replace("_", " ") for name in names]
    return flat.image_grid(pictures, titles, columns)
