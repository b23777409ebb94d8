"""A trained network at work: single pictures, videos, files to take away, weak labels."""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    Predictor="predictor",
    HandPrediction="predictor",
    save_predictions="export",
    process_video="video",
    find_pictures="frames",
    WeakLabels="weak_labels",
)
