"""Synthetic hands: endless labelled pictures, each a function of seed and index.

Numbers are drawn from a configuration, placed as a scene and painted, all on the CPU.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    SyntheticHands="hands",
    SyntheticConfig="config",
    MovingHand="clip",
)
