"""Which hand the labels are of: the built-in one or MANO. Both have 778 vertices, in other orders.

FreiHAND, METRO's files and YouTube 3D Hands hold MANO's vertices without its faces, so training on
them needs the user's own MANO file; data that this project wrote holds the built-in hand.
"""

import numpy as np

from hand_lib import ROOT
from hand_lib.hand_model import HandModel

MANO_PLACES = ("MANO_RIGHT.pkl", "MANO_RIGHT.npz")
"""What is looked for in template/."""

_SAMPLES = 32
_MOST = 2.0


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
            f"the data's vertices are not those of hand={hand!r}: joined by its faces, their edges "
            f"are {edge_excess(model, vertices):.1f} times as long as that hand's; hand='auto' "
            "finds the one that fits"
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
    """Whether (N, V, 3) vertices are this model's: joined by its faces they look like a hand."""
    return edge_excess(model, vertices) < _MOST


def edge_excess(model: HandModel, vertices) -> float:
    """Mean edge length over the mesh's spread, as a multiple of the same ratio of the hand at rest.

    About 1 for the model's own vertices in any pose, shape and scale; about 8 where they come in
    another order; infinite where there are more or fewer.   vertices: (N, V, 3).
    """
    if vertices.shape[1] != len(model.vertices):
        return float("inf")
    picks = np.linspace(0, len(vertices) - 1, min(_SAMPLES, len(vertices))).astype(int)
    faces = np.asarray(model.faces.cpu())
    rest = np.asarray(model.vertices.cpu(), np.float64)[None]
    some = np.asarray(vertices, np.float64)[picks]
    return float(np.median(_relative_edges(some, faces)) / _relative_edges(rest, faces)[0])


def _relative_edges(vertices, faces):
    corners = vertices[:, faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=2), axis=3).mean((1, 2))
    return edges / np.linalg.norm(vertices - vertices.mean(1, keepdims=True), axis=2).mean(1)


def is_builtin(model: HandModel) -> bool:
    """Whether a hand has the vertices of the built-in one."""
    own = HandModel.builtin().vertices
    return model.vertices.shape == own.shape and bool((model.vertices - own).abs().max() < 1e-6)
