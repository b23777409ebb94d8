"""Which hand the labels are of: the built-in one or MANO. Both have 778 vertices, in other orders.

FreiHAND, METRO's files and YouTube 3D Hands hold MANO's vertices without its faces, so training on
them needs the user's own MANO file; data that this project wrote holds the built-in hand.
"""

import numpy as np

from hand_lib import ROOT
from hand_lib.data.reading import fits_mesh
from hand_lib.hand.model import HandModel

MANO_PLACES = ("MANO_RIGHT.pkl", "MANO_RIGHT.npz")
"""What is looked for in template/."""

_SAMPLES = 32


def choose_hand(hand: str = "auto", vertices=None) -> HandModel:
    """The right hand whose vertices the data's are.

    hand: "builtin", the path of a MANO file, or "auto": the built-in hand or the MANO file in
    template/, whichever the vertices fit.   vertices: (N, V, 3) metres of some samples; without
    any, "auto" is the built-in hand.
    raises FileNotFoundError where MANO is needed and missing, ValueError where a named hand does
    not fit.
    """
    known = vertices is not None and len(vertices) > 0
    if hand not in ("auto", "builtin"):
        model = find_mano(hand)
    else:
        model = HandModel.builtin()
    if not known or fits(model, vertices):
        return model
    if hand != "auto":
        raise ValueError(
            f"the data's vertices are not those of hand={hand!r}: joined by its faces they make no "
            "hand; hand='auto' finds the one that fits"
        )
    model = find_mano()
    if model is not None:
        if fits(model, vertices):
            return model
        raise ValueError(
            "the data's vertices are neither those of the built-in hand nor of MANO in template/"
        )
    raise FileNotFoundError(
        "the data's vertices are not those of the built-in hand; if they are MANO's (FreiHAND, "
        "YouTube 3D Hands), put MANO_RIGHT.pkl into template/ (free for research, from "
        "mano.is.tue.mpg.de) or name it with hand=..."
    )


def find_mano(hand: str = "auto") -> HandModel | None:
    """The MANO file that ``hand`` names or that lies in template/, None where there is none."""
    if hand == "builtin":
        return None
    if hand != "auto":
        return HandModel.from_mano(ROOT / hand)
    for name in MANO_PLACES:
        if (ROOT / "template" / name).is_file():
            return HandModel.from_mano(ROOT / "template" / name)
    return None


def fits(model: HandModel, vertices) -> bool:
    """Whether (N, V, 3) vertices are in this model's order (``reading.fits_mesh``)."""
    picks = np.linspace(0, len(vertices) - 1, min(_SAMPLES, len(vertices))).astype(int)
    rest, faces = np.asarray(model.vertices.cpu()), np.asarray(model.faces.cpu())
    return np.mean([fits_mesh(vertices[i], rest, faces) for i in picks]) > 0.5


def is_builtin(model: HandModel) -> bool:
    """Whether a hand has the vertices of the built-in one."""
    own = HandModel.builtin().vertices
    return model.vertices.shape == own.shape and bool((model.vertices - own).abs().max() < 1e-6)
