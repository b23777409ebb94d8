"""Labelled hands: readers of data sets, crops with labels, augmentation and batches.

``open_data(place)`` finds the reader for a place. A data set has a length and gives one checked
``HandSample`` for every index; ``HandDataset`` is the base class of one of your own.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    open_data="open",
    HandSample="sample",
    HandDataset="sample",
    FreiHand="freihand",
    FreiHandTsv="metro_tsv",
    YouTubeHands="youtube",
    HandCrops="crops",
    Augmentation="augment",
    HandLoader="loader",
)
