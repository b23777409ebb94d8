"""Synthetic hands: endless labelled pictures, each a function of seed and index.

Numbers are drawn from a configuration, placed as a scene and painted, all on the CPU. Kernels call
each other across files (``render.raster`` too), but Numba renews a cached one only when its own
file changes: after a change, delete ``__pycache__/*.nb?`` in these folders.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    SyntheticHands="hands",
    SyntheticConfig="config",
    MovingHand="hands",
)
