"""Where readers that are about to go find ``mesh.pickles``; goes with them."""

from hand_lib.mesh import pickles
from hand_lib.mesh.pickles import load_pickle_safely

__all__ = ["load_pickle_safely", "loads_safely"]


def loads_safely(data, name, numbers_only=True):
    """The same."""
    return pickles.loads_safely(data, name)
