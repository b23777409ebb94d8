"""From 2-D key points to a hand: detections as others store them, and the fit of a hand model.

Knows no network.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    fit_hands="fit",
    fit_pose="prior",
    HandFit="fit",
    Keypoints="keypoints",
    read_keypoints="keypoints",
)
