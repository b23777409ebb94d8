"""A 3-D hand mesh from a single image: the module behind the notebooks.

Most used, straight from here (each is imported when it is first asked for):

HandModel         the hand as a differentiable function: pose and shape in, vertices and joints out
build_hierarchy   levels of a mesh from fine to coarse, with the matrices down and up
load_hierarchy    the same from a file: our .npz, or a transform.pkl
extract_spirals   for every vertex the sequence of its neighbours, on which a spiral layer works
open_data         a labelled data set by its place: one ``HandSample`` for every index
make_config       the settings of a training run, by preset and by name
build_network     the network from image to mesh that a configuration describes
train             the training loop: writes a run folder, or goes on in one
Predictor         from a picture to hand meshes, with the network of a run folder
freihand_scores   errors, PCK, AUC and F-scores as FreiHAND's benchmark counts them
fit_hands         from 2-D key points to a hand model's pose, without a network
ROOT              the folder of the workbook

Conventions, the same in every file:

Letters    B batch, V vertices (V0 finest level, V1, ... coarser), F faces, J joints, K spiral
           length, C channels, H W image height and width in pixels.
Units      metres and radians. Anything else shows in the name: ``_px``, ``_mm``, ``_deg``.
Camera     OpenCV axes: x right, y down, z away from the camera.
Pixels     the pixel in row r and column c has its centre at (x, y) = (c, r), so an image of width
           W spans x from -0.5 to W - 0.5.
Crop       in crop units the crop spans [-1, 1] in x and y: x = (2 x_px + 1) / size - 1.
Images     (H, W, 3) uint8, RGB; batches are (B, 3, H, W).
Joints     21 in the FreiHAND order (``joints.JOINT_NAMES``); a pose has 16, in MANO's order.
Root       vertices and joints of a network have the wrist (joint 0) at the origin.
Sides      the right hand is canonical. A left hand is mirrored at the door and back at the exit.
Paths      relative ones count from the current folder, in a notebook's parameters from the
           workbook's (``files.resolve``).
"""

import importlib
import os
import sys
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parent.parent
"""Folder of the workbook: ``ROOT / "template"``, ``ROOT / "data"``, ``ROOT / "runs"``."""


def lazy_names(package: str, **modules: str):
    """What a package needs to hand on names that are imported when they are first used.

    package: its ``__name__``.   modules: for each name the module inside the package that has it.
    returns ``__getattr__``, ``__dir__`` and ``__all__`` for the package.
    """

    def get(name):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *modules}), list(modules)


__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    HandModel="hand.model",
    build_hierarchy="mesh.hierarchy",
    load_hierarchy="mesh.hierarchy",
    extract_spirals="mesh.spirals",
    open_data="data.open",
    make_config="training.config",
    build_network="network.model",
    train="training.loop",
    Predictor="inference.predictor",
    freihand_scores="evaluation.freihand",
    fit_hands="fitting.fit",
)
__all__ += ["ROOT"]


def _find_place_for_kernels() -> None:
    """Keep compiled kernels in a temporary folder where neither checkout nor home can be written.

    numba compiles nothing with a cache where it finds no place for that cache. What lies there is
    code, so the folder is used only if it is this user's own.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    usual = ROOT / "hand_lib" / "mesh" / "__pycache__", Path(os.path.expanduser(home), "numba")
    there = [next(p for p in (place, *place.parents) if p.is_dir()) for place in usual]
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in there):
        return
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"hand_lib-kernels-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        own = folder.lstat().st_uid == user
    except OSError:
        own = False
    os.environ["NUMBA_CACHE_DIR"] = str(folder) if own else tempfile.mkdtemp()


_find_place_for_kernels()
