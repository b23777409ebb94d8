"""Training: the settings, the loop, and the run folder that holds all that a run leaves behind."""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    TrainConfig="config",
    make_config="config",
    train="loop",
    train_or_continue="loop",
    find_run="run_folder",
    load_network="run_folder",
    read_run="run_folder",
)
