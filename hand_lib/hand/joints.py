"""Joints of the hand: order, names, bones, fingertips; how they lie at rest and how they bend.

The 21 joints follow the order that FreiHAND, OpenPose, MediaPipe, METRO and DexYCB share:
wrist, then thumb, index, middle, ring and little finger, each from its base to its tip.
A pose has 16 joints in MANO's order: wrist, index, middle, little, ring, thumb, three each. It is
axis-angle in the axes of the rest frame, as in MANO; people think in angles about each joint's own
axes, so ``pose_from_angles`` and ``angles_from_pose`` translate.

Rest frame of the built-in right hand, metres: x distal, y radial (thumb side), z dorsal, wrist at
the origin. Segment lengths: Buchholz, Armstrong and Goldstein 1992, proportions of hand length,
the fingers' end joints moved a little (``SEGMENTS``). Hand length: ANSUR (Gordon et al. 1989,
NATICK TR-89/044), midway between the means of women (180.5 mm) and men (193.8 mm).

>>> JOINT_NAMES[8], MANO_JOINT_NAMES[13], int(MANO_TO_21[13])
('index_tip', 'thumb_cmc', 1)
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

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

JOINT_SOURCES = {
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

HAND_LENGTH = 0.187
"""Metres, wrist to the tip of the middle finger."""

SEGMENTS = {
    "thumb": (0.251, 0.196, 0.158),
    "index": (0.463, 0.245, 0.136, 0.104),
    "middle": (0.446, 0.266, 0.162, 0.116),
    "ring": (0.421, 0.244, 0.157, 0.115),
    "little": (0.414, 0.204, 0.109, 0.101),
}
"""Segment lengths over hand length (Buchholz et al. 1992): metacarpal, then the phalanges.

The metacarpal of a finger runs from the wrist's centre to the knuckle; the thumb's from its own
base joint. The distal segment ends at the tip of the finger. Each finger's end joint lies 0.007 or
0.008 nearer to the hand than theirs, most of the way to the shorter middle and longer end phalanges
of radiographs (Buryanov and Kotiuk 2010).
"""

HALF_BREADTHS = {
    "thumb": (0.0126, 0.0109, 0.0108, 0.0093),
    "index": (0.0095, 0.0105, 0.0087, 0.0073),
    "middle": (0.0097, 0.0106, 0.0088, 0.0074),
    "ring": (0.0091, 0.0099, 0.0083, 0.0071),
    "little": (0.0081, 0.0087, 0.0073, 0.0062),
}
"""Metres, half the breadth of each digit at base, first and second finger joint, and tip.

The joints are set so that girths round them follow Greiner 1991 (``anthropometry.FINGER_MM``); ring
and little finger's end joints, which that table lacks, keep step with the other two.
"""

_THUMB_BASE = np.array([0.0235, 0.0225, -0.0095])
_THUMB_ALONG = np.array([0.760, 0.590, -0.235]) / np.linalg.norm([0.760, 0.590, -0.235])
_THUMB_DORSAL = np.array([-0.30, 0.81, 0.50])
# Per digit, degrees: splay (radial positive), roll of the dorsal side, flexion of the rest pose;
# metres: y and z of the knuckle.
_REST = {
    "index": (7.5, 4.0, (2.0, 5.0, 8.0), (0.0262, -0.0010)),
    "middle": (1.0, 1.0, (2.0, 5.0, 8.0), (0.0045, 0.0028)),
    "ring": (-6.0, -2.5, (2.0, 5.5, 9.0), (-0.0154, 0.0012)),
    "little": (-15.0, -6.0, (2.0, 6.0, 10.0), (-0.0334, -0.0042)),
    "thumb": (0.0, 0.0, (0.0, 5.0, 8.0), (0.0, 0.0)),
}


def _rest_frames() -> tuple[dict, NDArray]:
    """``REST_CHAIN`` and ``FRAMES``."""
    chains, frames = {}, np.tile(np.eye(3), (16, 1, 1))
    for name in FINGER_NAMES:
        *degrees, (y, z) = _REST[name]
        splay, roll, bends = map(np.deg2rad, degrees)
        if name == "thumb":
            base, along, dorsal = _THUMB_BASE, _THUMB_ALONG, _THUMB_DORSAL
        else:
            reach = SEGMENTS[name][0] * HAND_LENGTH
            base = np.array([np.sqrt(reach**2 - y**2 - z**2), y, z])
            along = np.array([np.cos(splay), np.sin(splay), 0.0])
            dorsal = np.array([0.0, np.sin(roll), np.cos(roll)])
        dorsal = dorsal - along * (along @ dorsal)
        dorsal = dorsal / np.linalg.norm(dorsal)
        points = [base]
        bones = zip(MANO_FINGERS[name], bends, SEGMENTS[name][-3:], strict=True)
        for joint, bend, segment in bones:
            bent = np.cos(bend) * along - np.sin(bend) * dorsal
            up = np.cos(bend) * dorsal + np.sin(bend) * along
            frames[joint] = np.stack([bent, np.cross(up, bent), up], axis=1)
            points.append(points[-1] + bent * segment * HAND_LENGTH)
        chains[name] = np.array(points)
    return chains, frames


REST_CHAIN, FRAMES = _rest_frames()
"""Per digit the joint centres and the tip (4, 3) metres; per joint (16, 3, 3) the columns along the
bone, flexion axis (a positive angle curls towards the palm), dorsal."""

REST_JOINTS = np.zeros((16, 3))
for _name in FINGER_NAMES:
    REST_JOINTS[list(MANO_FINGERS[_name])] = REST_CHAIN[_name][:3]

ANGLE_NAMES = ("flexion", "abduction", "twist")


def _limits() -> NDArray:
    degrees = np.zeros((16, 3, 2))
    splay = {"index": (-15, 20), "middle": (-14, 14), "ring": (-15, 13), "little": (-22, 15)}
    for name, sides in splay.items():
        knuckle, middle, end = MANO_FINGERS[name]
        degrees[knuckle] = (-20, 100), sides, (-6, 6)
        degrees[middle] = (-5, 105), (0, 0), (0, 0)
        degrees[end] = (-5, 85), (0, 0), (0, 0)
    degrees[13] = (-25, 45), (-30, 45), (-45, 35)
    degrees[14] = (-10, 55), (-6, 6), (-5, 5)
    degrees[15] = (-15, 80), (0, 0), (0, 0)
    return np.deg2rad(degrees)


JOINT_LIMITS = _limits()
"""(16, 3, 2) lowest and highest flexion, abduction and twist of each joint, radians from rest.

Knuckles: flexion 0 to 100 (Hume), hyperextension up to 45 (Eaton), of which 20 kept; splay of 20 to
either side is usual in clinical tables, less for middle and ring. Middle joints: 0 to 100 (Eaton),
5 more to each side, as rest is a little bent. End joints: 0 to 85 (Hume), 5 of hyperextension.
Thumb: palmar abduction 45 (Eaton), flexion and twist of opposition by eye; knuckle -10 to 55, end
joint -15 to 80 (Eaton). Eaton: C. Eaton, Electronic Textbook of Hand Surgery, www.eatonhand.com/
clf/clf218.htm. Hume et al. 1990, Functional range of motion of the joints of the hand, J. Hand
Surg. 15A, active flexion.
"""


def bone_frames(rest: NDArray) -> NDArray:
    """Axes (16, 3, 3) of the joints of any right hand's rest skeleton, columns as in ``FRAMES``.

    rest: (16, 3) metres. The built-in hand's axes are turned with the whole skeleton, then each by
    the smallest rotation that lays it along its own bone.
    """
    centred = rest - rest.mean(0), REST_JOINTS - REST_JOINTS.mean(0)
    frames = Rotation.align_vectors(*centred)[0].as_matrix() @ FRAMES
    for base, middle, end in MANO_FINGERS.values():
        for joint, after in ((base, middle), (middle, end)):
            bone = rest[after] - rest[joint]
            swing = Rotation.align_vectors(bone[None], frames[joint][None, :, 0])[0].as_matrix()
            frames[joint] = swing @ frames[joint]
        frames[end] = swing @ frames[end]  # its bone has no joint at the other end
    return frames


def pose_from_angles(angles: NDArray, frames: NDArray = FRAMES) -> NDArray:
    """Axis-angle pose of flexion, abduction and twist: R = F Ry(flex) Rz(abd) Rx(twist) F^T.

    angles: (..., 16, 3) radians; the wrist's row turns the whole hand.   frames: (16, 3, 3) the
    joints' axes F at rest.
    returns (..., 16, 3) axis-angle, radians, rest frame axes.
    """
    if np.shape(angles)[-2:] != (16, 3):
        raise ValueError(f"angles must end in (16, 3), MANO's order; found {np.shape(angles)}")
    local = Rotation.from_euler("YZX", angles).as_rotvec()
    return (frames @ local[..., None])[..., 0]


def angles_from_pose(pose: NDArray, frames: NDArray = FRAMES) -> NDArray:
    """Inverse of ``pose_from_angles``. pose: (..., 16, 3) axis-angle; returns (..., 16, 3)."""
    local = frames.transpose(0, 2, 1) @ np.asarray(pose, np.float64)[..., None]
    return Rotation.from_rotvec(local[..., 0]).as_euler("YZX", suppress_warnings=True)


def fingertips_of(source) -> str:
    """Which fingertip table the joints of a data set or a hand model follow, in words.

    source: a reader, hand model or anything with ``fingertips``, or a folder in FreiHAND's layout.

    >>> fingertips_of(object())
    "the hand model's own"
    """
    if isinstance(source, str | Path):
        return OWN_FINGERTIPS if (Path(source) / "synthetic.json").is_file() else "freihand"
    return getattr(source, "fingertips", None) or OWN_FINGERTIPS


def convert_joints(joints, source: str):
    """Joints of another producer in the 21 order.

    joints: (..., 21, D) array or tensor.   source: one of ``JOINT_SOURCES``.

    >>> convert_joints(np.arange(21)[:, None], "interhand")[0, 0]
    np.int64(20)
    """
    if source not in JOINT_SOURCES:
        raise ValueError(f"unknown joint order {source!r}; known: {', '.join(JOINT_SOURCES)}")
    if joints.ndim < 2 or joints.shape[-2] != 21:
        raise ValueError(f"expected joints (..., 21, D), found {tuple(joints.shape)}")
    return joints[..., list(JOINT_SOURCES[source]), :]


def fingertip_vertices(source: str = "freihand", side: str = "right") -> tuple[int, ...]:
    """Vertex ids of the five fingertips, thumb to little finger, as ``source`` defines them.

    >>> fingertip_vertices("manopth")
    (745, 317, 444, 556, 673)
    """
    if source not in FINGERTIP_VERTICES:
        raise ValueError(f"unknown fingertip table {source!r}; known: {[*FINGERTIP_VERTICES]}")
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', found {side!r}")
    return FINGERTIP_VERTICES[source][side]
