"""Meshes: topology, simplification, levels of one mesh and the matrices between them, spirals.

Plain NumPy and SciPy, for any triangle mesh; nothing here knows that it is a hand.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    build_hierarchy="hierarchy",
    load_hierarchy="hierarchy",
    MeshHierarchy="hierarchy",
    extract_spirals="spirals",
    collapse_edges="simplify",
    check_mesh="topology",
)
