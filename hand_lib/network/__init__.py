"""The network from one crop to a hand mesh: encoder, heads, decoders on meshes, losses.

Arrays come in, never paths. It reads the same settings as a training run.
"""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    build_network="model",
    HandNetwork="model",
    Prediction="model",
    SpiralConv="spiral_conv",
    predict_crops="model",
    total_loss="losses",
)
