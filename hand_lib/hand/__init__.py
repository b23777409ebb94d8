"""The hand: its joints, how they bend, its poses, its skin, and the differentiable model of it all.

The built-in model and MANO are used in the same way.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    HandModel="model",
    Hand="model",
    read_mano="mano",
    sample_poses="poses",
    GESTURES="poses",
    JOINT_NAMES="joints",
    skin_colours="skin",
)
