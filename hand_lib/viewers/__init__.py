"""What one sees in the notebooks: figures with a still beside each, and panels to work with.

Arrays and results come in; nothing here computes them.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    show="flat",
    hand_figure="figures",
    image_grid="flat",
    hand_explorer="explorer",
    demo_panel="panels",
    review_panel="fitting",
)
