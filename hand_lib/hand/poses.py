"""Named gestures, the pose prior and the capsule collisions of the built-in hand, without torch.

A pose is (16, 3) axis-angle in MANO's joint order and in the axes of the rest frame (x distal,
y radial, z dorsal); angles are (16, 3) flexion, abduction and twist about each joint's own axes.

>>> rng = np.random.default_rng(0)
>>> sample_poses(4, rng).shape
(4, 16, 3)
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.hand.joints import (
    FINGER_NAMES,
    HALF_BREADTHS,
    JOINT_LIMITS,
    MANO_FINGERS,
    MANO_PARENTS,
    REST_CHAIN,
    REST_JOINTS,
    pose_from_angles,
)

# Degrees. Fingers: knuckle, middle joint, end joint, splay. Thumb: base flexion, abduction and
# twist, knuckle, end joint. Where skin meets skin (fist, pinch, ok) the angles were searched for on
# the mesh: pads touch, and no hole is left between folded fingers and the palm.
_OPEN = (0, 0, 0, 0)
_TOGETHER = {"index": (0, 0, 0, -4), "middle": _OPEN, "ring": (0, 0, 0, 4), "little": (0, 0, 0, 10)}
_SPREAD = {
    "index": (-4, 0, 0, 12), "middle": (-4, 0, 0, 2), "ring": (-4, 0, 0, -9),
    "little": (-4, 0, 0, -16),
}  # fmt: skip
_FIST = {
    "index": (99, 104, 74, -2), "middle": (100, 105, 60, -6), "ring": (95, 96, 65, -8.5),
    "little": (99, 96, 80, -13),
}  # fmt: skip
_GESTURES_DEG = {
    "flat": {**_TOGETHER, "thumb": (6, -4, 0, 0, 0)},
    "spread": {**_SPREAD, "thumb": (-14, 0, 0, -4, -4)},
    "relaxed": {
        "index": (16, 24, 10, 0), "middle": (22, 28, 12, 0), "ring": (26, 30, 13, 2),
        "little": (28, 30, 13, 4), "thumb": (4, 8, 4, 10, 12),
    },
    "fist": {**_FIST, "thumb": (4, -1.5, -16, 41, 72)},
    "grip": {**_FIST, "thumb": (15, 10, -8, 31, 50)},
    "point": {**_FIST, "index": (2, 4, 2, 0), "thumb": (25, 8, 11, 53, 64)},
    "pinch": {
        "index": (28, 60, 6, -15), "middle": (30, 34, 18, -6), "ring": (26, 30, 14, -2),
        "little": (22, 28, 12, 2), "thumb": (42, -2, -45, -7, -15),
    },
    "ok": {
        "index": (28, 60, 6, -15), "middle": (12, 12, 6, 0), "ring": (4, 8, 4, -3),
        "little": (-4, 4, 2, -8), "thumb": (42, -2, -45, -7, -15),
    },
    "victory": {
        **_FIST, "index": (0, 2, 0, 10), "middle": (0, 2, 0, -9), "ring": (96, 101, 70, 1),
        "little": (96, 97, 70, -2), "thumb": (12, 8, -11, 55, 47),
    },
    "thumbs_up": {**_FIST, "thumb": (-16, 0, -25, -8, -13)},
    "grasp": {
        "index": (34, 42, 24, 6), "middle": (36, 44, 26, 2), "ring": (38, 44, 26, -3),
        "little": (38, 42, 24, -8), "thumb": (4, 26, 10, 12, 18),
    },
    "claw": {
        "index": (-12, 72, 46, 6), "middle": (-12, 74, 46, 0), "ring": (-12, 74, 46, -4),
        "little": (-12, 70, 44, -10), "thumb": (0, 12, 4, 18, 44),
    },
    "three": {
        "index": (0, 2, 0, 9), "middle": (0, 2, 0, 0), "ring": (0, 4, 2, -7),
        "little": (100, 93, 82, -2), "thumb": (31, 6, -11, 55, 52),
    },
    "call_me": {
        "index": (99, 92, 77, 0), "middle": (100, 105, 60, -2), "ring": (98, 89, 61, -6),
        "little": (0, 2, 0, -12), "thumb": (-1, 3, -16, -10, -3),
    },
    "hook": {
        "index": (6, 92, 58, 0), "middle": (6, 94, 58, 0), "ring": (6, 94, 58, 2),
        "little": (6, 90, 56, 5), "thumb": (6, 6, 4, 8, 10),
    },
    "l_shape": {**_FIST, "index": (0, 2, 0, 0), "thumb": (-16, -2, -25, -6, -8)},
}  # fmt: skip


def _gesture_angles(table: dict) -> NDArray:
    angles = np.zeros((16, 3))
    for name, row in table.items():
        base, middle, end = MANO_FINGERS[name]
        if name == "thumb":
            angles[base], angles[middle, 0], angles[end, 0] = row[:3], row[3], row[4]
        else:
            angles[[base, middle, end], 0] = row[:3]
            angles[base, 1] = row[3]
    return np.deg2rad(angles)


GESTURE_ANGLES = {name: _gesture_angles(table) for name, table in _GESTURES_DEG.items()}
"""Name -> (16, 3) flexion, abduction, twist in radians."""

GESTURES = {name: pose_from_angles(angles) for name, angles in GESTURE_ANGLES.items()}
"""Name -> (16, 3) axis-angle pose."""


DRAWN = tuple(name for name in GESTURES if name != "fist")
"""Gestures that random poses are drawn from: those that the pinned pictures were drawn with."""


def pose_joints(pose: NDArray) -> tuple[NDArray, NDArray]:
    """Forward kinematics at rest proportions.

    pose: (N, 16, 3) axis-angle.
    returns rotations (N, 16, 3, 3) of each bone and joint centres (N, 16, 3), metres.
    """
    local = Rotation.from_rotvec(pose).as_matrix()
    rotations, joints = np.empty_like(local), np.zeros(local.shape[:-1])
    rotations[:, 0] = local[:, 0]
    for j in range(1, 16):
        parent, bone = MANO_PARENTS[j], REST_JOINTS[j] - REST_JOINTS[MANO_PARENTS[j]]
        joints[:, j] = joints[:, parent] + rotations[:, parent] @ bone
        rotations[:, j] = rotations[:, parent] @ local[:, j]
    return rotations, joints


PAD_GIVES = {"palm": 0.0033, "thumb": 0.0025}
"""Metres by which a finger's pad flattens against the palm, or against the thumb's pad."""

MAX_PENETRATION = 0.0018
"""Metres that capsules round the bones of a sampled pose may overlap (skin gives way)."""


def _capsules() -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Bone and two ends (rest frame) of each capsule; pairs to test and how near they may come."""
    found = []  # bone, ends, radius, digit and phalanx
    for digit, name in enumerate(FINGER_NAMES):
        chain, half = REST_CHAIN[name], HALF_BREADTHS[name]
        for i, bone in enumerate(MANO_FINGERS[name]):
            a, b = chain[i], chain[i + 1]
            if i == 0:
                a = a + (0.35 if name != "thumb" else 0.55) * (b - a)
            if i == 2:
                b = b - (b - a) / np.linalg.norm(b - a) * 0.8 * half[3]
            found.append((bone, (a, b), 0.98 * 0.5 * (half[i] + half[i + 1]), (digit, i)))
    for name in FINGER_NAMES[1:]:
        head = REST_JOINTS[MANO_FINGERS[name][0]]
        ends = np.array([0.012, 0.5 * head[1], -0.002]), head - (0.004, 0, 0.002)
        found.append((0, ends, 0.0115, (9, 0)))
    bones, ends, radii, digits = zip(*found, strict=True)
    pairs, reach = [], []
    for p, q in itertools.combinations(range(len(found)), 2):
        (first, i), (second, k) = digits[p], digits[q]
        if first == second or (second == 9 and i == 0):
            continue
        pairs.append((p, q))
        into_palm, pinched = second == 9 and i == 2, first == 0 and i == k == 2
        flat = PAD_GIVES["palm"] if into_palm else PAD_GIVES["thumb"] if pinched else 0.0
        reach.append(radii[p] + radii[q] - flat)
    return np.array(bones), np.array(ends), np.array(pairs).T, np.array(reach)


_CAPSULES = _capsules()


def _segment_gap(a, b, c, d):
    """Shortest distance of the segments a b and c d, (..., 3) each; returns (...)."""
    first, second, between = b - a, d - c, a - c
    ff, ss = (first * first).sum(-1), (second * second).sum(-1)
    fs, fb, sb = (first * second).sum(-1), (first * between).sum(-1), (second * between).sum(-1)
    determinant = np.maximum(ff * ss - fs * fs, 1e-12)
    s = np.clip((fs * sb - fb * ss) / determinant, 0, 1)
    t = (fs * s + sb) / ss
    clipped = np.clip(t, 0, 1)
    s = np.where(t == clipped, s, np.clip((fs * clipped - fb) / ff, 0, 1))
    gap = between + s[..., None] * first - clipped[..., None] * second
    return np.sqrt((gap * gap).sum(-1))


def penetration_depth(pose: NDArray) -> NDArray:
    """How deep digits reach into each other or into the palm, by capsules round the bones.

    Pads are soft: what ``PAD_GIVES`` allows does not count.

    pose: (N, 16, 3) axis-angle.   returns (N,) metres, negative where everything is apart.
    """
    bones, ends, (p, q), reach = _CAPSULES
    rotations, joints = pose_joints(pose)
    local = ends - REST_JOINTS[bones][:, None]
    placed = np.einsum("nkab,keb->nkea", rotations[:, bones], local) + joints[:, bones][:, :, None]
    start, stop = placed[:, :, 0], placed[:, :, 1]
    gap = _segment_gap(start[:, p], stop[:, p], start[:, q], stop[:, q])
    return (reach - gap).max(axis=1)


def _free_angles(n: int, rng: np.random.Generator) -> NDArray:
    """Angles from the prior before any check: fingers that curl together, or each on its own.

    On their own they are mostly straight or folded. Middle, ring and little finger share tendons:
    often a finger goes with the one before, and the ring finger is never far from the middle
    between its neighbours.
    """
    angles = np.zeros((n, 16, 3))
    shared = rng.beta(1.0, 1.6, (n, 1))
    own = rng.beta(0.3, 0.36, (n, 4))
    linked = rng.random(n) < 0.35
    own[:, 1] = np.where(rng.random(n) < 0.25, 0.3 * own[:, 1] + 0.7 * own[:, 0], own[:, 1])
    own[:, 2] = np.where(linked, 0.25 * own[:, 2] + 0.75 * own[:, 1], own[:, 2])
    own[:, 3] = np.where(rng.random(n) < 0.2, 0.3 * own[:, 3] + 0.7 * own[:, 2], own[:, 3])
    between = 0.5 * (own[:, 1] + own[:, 3])
    own[:, 2] = np.clip(own[:, 2], between - 0.7, between + 0.7)
    alone = rng.random((n, 1)) < 0.85
    noise = 0.12 * rng.standard_normal((n, 4))
    noise += 0.08 * np.cumsum(rng.standard_normal((n, 4)), axis=1)
    curl = np.clip(np.where(alone, own, shared + noise), 0, 1)
    bias = rng.normal(0.0, 0.22, (n, 1))  # knuckles or middle joints bend first
    fan = rng.normal(0.0, 6.0, (n, 1))
    for k, name in enumerate(("index", "middle", "ring", "little")):
        knuckle, middle, end = MANO_FINGERS[name]
        c = curl[:, k]
        mcp = 100 * np.clip(c + bias[:, 0], -0.1, 1.05) - 6 + rng.normal(0, 7, n)
        pip = 102 * np.clip(c - 0.6 * bias[:, 0], 0, 1.02) + rng.normal(0, 7, n)
        dip = 0.58 * pip + rng.normal(0, 7, n)  # the end joint follows the middle joint
        loose = np.clip(1 - mcp / 85, 0.15, 1)
        splay = (fan[:, 0] * (1.0, 0.1, -0.7, -1.3)[k] + rng.normal(0, 4, n)) * loose
        splay += (-1.0, 0.0, 2.0, 6.0)[k] * (1 - loose)
        angles[:, knuckle, 0], angles[:, knuckle, 1] = mcp, splay
        angles[:, knuckle, 2] = rng.normal(0, 1.5, n)
        angles[:, middle, 0], angles[:, end, 0] = pip, dip
    opposed = rng.normal(8, 13, n)
    angles[:, 13, 0] = opposed
    angles[:, 13, 1] = rng.normal(6, 12, n)
    angles[:, 13, 2] = 0.3 * opposed + rng.normal(0, 4, n)
    bend = rng.beta(1.2, 1.8, n)
    angles[:, 14, 0] = 58 * bend - 8 + rng.normal(0, 6, n)
    angles[:, 15, 0] = 70 * bend - 12 + rng.normal(0, 12, n)
    return np.deg2rad(angles)


def _gesture_angles_mixed(n: int, rng: np.random.Generator) -> NDArray:
    """Named gestures, two blended, with a little noise in every joint that moves."""
    bank = np.stack([GESTURE_ANGLES[name] for name in DRAWN])
    first, second = rng.integers(0, len(bank), (2, n))
    share = np.clip(rng.beta(0.35, 0.35, n), 0, 1)[:, None, None]
    mixed = bank[first] * share + bank[second] * (1 - share)
    room = (JOINT_LIMITS[..., 1] - JOINT_LIMITS[..., 0]) > 0
    return mixed + rng.normal(0, np.deg2rad(3.5), mixed.shape) * room


def sample_angles(n: int, rng: np.random.Generator, gestures_share: float = 0.3) -> NDArray:
    """Random plausible angles, within ``JOINT_LIMITS``, digits apart.

    gestures_share: share drawn round named gestures; the rest comes from a free prior.
    returns (n, 16, 3) radians, wrist row zero.
    """
    if n < 0 or not 0 <= gestures_share <= 1:
        raise ValueError(
            f"expected n >= 0 and gestures_share in 0..1, found {n} and {gestures_share}"
        )
    named = int(round(n * gestures_share))
    angles = [_keep(named, rng, _gesture_angles_mixed), _keep(n - named, rng, _free_angles)]
    return np.concatenate(angles)[rng.permutation(n)]


def _keep(n: int, rng: np.random.Generator, draw) -> NDArray:
    """Draw until n poses pass: hands open a little where skin meets, those that do not part go."""
    found, count = [np.zeros((0, 16, 3))], 0
    while count < n:
        angles = np.clip(draw(int(1.5 * (n - count)) + 8, rng), *np.moveaxis(JOINT_LIMITS, 2, 0))
        good = penetration_depth(pose_from_angles(angles)) <= MAX_PENETRATION
        for _ in range(4):
            bad = np.flatnonzero(~good)
            angles[bad] *= 0.95
            good[bad] = penetration_depth(pose_from_angles(angles[bad])) <= MAX_PENETRATION
        found.append(angles[good])
        count += int(good.sum())
    return np.concatenate(found)[:n]


def sample_poses(n: int, rng: np.random.Generator, gestures_share: float = 0.3) -> NDArray:
    """``sample_angles`` as axis-angle poses (n, 16, 3); the global rotation's row is zero."""
    return pose_from_angles(sample_angles(n, rng, gestures_share))
