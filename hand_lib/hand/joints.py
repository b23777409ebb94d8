"""Joint order, names, bones and fingertip vertices: one table each, every source named.

The 21 joints follow the order that FreiHAND, OpenPose, MediaPipe, METRO and DexYCB share:
wrist, then thumb, index, middle, ring and little finger, each from its base to its tip.
A pose has 16 joints in MANO's order: wrist, index, middle, little, ring, thumb, three each.

>>> JOINT_NAMES[8], MANO_JOINT_NAMES[13], int(MANO_TO_21[13])
('index_tip', 'thumb_cmc', 1)
"""

from pathlib import Path

import numpy as np

JOINT_NAMES = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "little_mcp", "little_pip", "little_dip", "little_tip",
)  # fmt: skip

FINGERS = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "little": (17, 18, 19, 20),
}
"""Indices in the 21 order, base to tip: the one table of finger chains, all others follow."""

FINGER_NAMES = tuple(FINGERS)
TIPS_21 = tuple(chain[3] for chain in FINGERS.values())

JOINT_PARENTS = np.arange(-1, 20)
JOINT_PARENTS[[chain[0] for chain in FINGERS.values()]] = 0

BONES = np.stack([JOINT_PARENTS[1:], np.arange(1, 21)], axis=1)
"""(20, 2) parent and child of each bone, in the 21 order."""

FINGER_COLOURS = {
    "wrist": "#7f7f7f",
    "thumb": "#e45756",
    "index": "#f2a93b",
    "middle": "#54a24b",
    "ring": "#4c78a8",
    "little": "#9d5fb0",
}

_MANO_ORDER = ("index", "middle", "little", "ring", "thumb")

MANO_FINGERS = {
    name: tuple(3 * _MANO_ORDER.index(name) + level for level in (1, 2, 3)) for name in FINGERS
}
"""The three joints of each finger in MANO's order, base first."""

MANO_PARENTS = np.array([-1, *(0 if joint % 3 == 1 else joint - 1 for joint in range(1, 16))])

MANO_TO_21 = np.array([0, *(joint for name in _MANO_ORDER for joint in FINGERS[name][:3])])
"""(16,) index in the 21 order of each MANO joint (freihand toolbox, utils/mano_utils.py)."""

MANO_JOINT_NAMES = tuple(JOINT_NAMES[i] for i in MANO_TO_21)

FINGERTIP_VERTICES = {
    "freihand": {"right": (744, 320, 443, 555, 672), "left": (744, 320, 443, 555, 672)},
    "smplx": {"right": (744, 320, 443, 554, 671), "left": (744, 320, 443, 554, 671)},
    "manopth": {"right": (745, 317, 444, 556, 673), "left": (745, 317, 445, 556, 673)},
    "metro": {"right": (745, 317, 445, 556, 673), "left": (745, 317, 445, 556, 673)},
    "handmesh": {"right": (744, 333, 444, 555, 672), "left": (744, 333, 444, 555, 672)},
}
"""Vertices that five sources call the tips of thumb, index, middle, ring and little finger.

``freihand`` is the lmb-freiburg toolbox and our default, ``smplx`` also HaMeR, WiLoR and YouTube 3D
Hands, ``manopth`` also manotorch, ``metro`` also Graphormer, FastMETRO and Youtubehand. They differ
by 2 to 6 mm on a fingertip, so every reported joint error names its table.
"""

OWN_FINGERTIPS = "the hand model's own"
"""What reports say where a model brings its fingertips along, as the built-in hand does."""

_FROM_OTHER_ORDER = {
    **dict.fromkeys(("freihand", "openpose", "mediapipe", "metro", "dexycb"), tuple(range(21))),
    "manopth_raw": (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20),
    "handmesh_raw": (0, 13, 14, 15, 20, 1, 2, 3, 16, 4, 5, 6, 17, 10, 11, 12, 19, 7, 8, 9, 18),
    "interhand": (20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16),
}
"""Position in the source of each of our 21 joints.

``manopth_raw``: 16 MANO joints, then tips thumb to little (manopth, manotorch before reordering).
``handmesh_raw``: 16 MANO joints, then tips index, middle, little, ring, thumb (its ``j_reg.npy``).
``interhand``: InterHand2.6M, each finger from its tip, the wrist last.
"""

JOINT_SOURCES = tuple(_FROM_OTHER_ORDER)


def fingertips_of(source) -> str:
    """Which fingertip table the joints of a data set or a hand model follow, in words.

    source: a reader, hand model or anything with ``fingertips``, or a folder in FreiHAND's layout.

    >>> fingertips_of(object())
    "the hand model's own"
    """
    if isinstance(source, str | Path):
        return OWN_FINGERTIPS if (Path(source) / "synthetic.json").is_file() else "freihand"
    return getattr(source, "fingertips", None) or OWN_FINGERTIPS


def convert_joints(joints, source: str, back: bool = False):
    """Reorder joints of another producer into the 21 order (``back=True``: the other way).

    joints: (..., 21, D) array or tensor; the joint axis is the last but one.
    source: one of ``JOINT_SOURCES``.
    returns the same kind of array, reordered.

    >>> convert_joints(np.arange(21)[:, None], "interhand")[0, 0]
    np.int64(20)
    """
    if source not in _FROM_OTHER_ORDER:
        raise ValueError(f"unknown joint order {source!r}; known: {', '.join(JOINT_SOURCES)}")
    if joints.ndim < 2 or joints.shape[-2] != 21:
        raise ValueError(f"expected joints (..., 21, D), found {tuple(joints.shape)}")
    order = np.array(_FROM_OTHER_ORDER[source])
    return joints[..., np.argsort(order) if back else order, :]


def fingertip_vertices(source: str = "freihand", side: str = "right") -> tuple[int, ...]:
    """Vertex ids of the five fingertips, thumb to little finger, as ``source`` defines them.

    >>> fingertip_vertices("manopth")
    (745, 317, 444, 556, 673)
    """
    if source not in FINGERTIP_VERTICES:
        known = ", ".join(FINGERTIP_VERTICES)
        raise ValueError(f"unknown fingertip table {source!r}; known: {known}")
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', found {side!r}")
    return FINGERTIP_VERTICES[source][side]
