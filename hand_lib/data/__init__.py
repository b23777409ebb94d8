"""Labelled hands: readers of data sets, crops with labels, augmentation and batches.

A data set has a length and gives one checked ``HandSample`` for every index.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    HandSample="sample",
    FreiHand="readers",
    FreiHandTsv="metro_tsv",
    YouTubeHands="youtube",
    HandCrops="crops",
    Augmentation="augment",
    HandLoader="loader",
)
