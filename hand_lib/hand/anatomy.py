"""Bones, joint axes and joint limits of the built-in hand, without torch.

Rest frame of the right hand, metres: x distal, y radial (thumb side), z dorsal, wrist at the
origin. Sixteen joints in MANO's order: wrist, index 1-3, middle 4-6, little 7-9, ring 10-12,
thumb 13-15. A pose is axis-angle in the axes of that rest frame, as in MANO; people think in
angles about each joint's own axes, so ``pose_from_angles`` and ``angles_from_pose`` translate.

Sources. Segment lengths: Buchholz, Armstrong and Goldstein 1992, proportions of hand length, with
the fingers' end joints moved a little (``SEGMENTS``).
Hand length: ANSUR (Gordon et al. 1989, NATICK TR-89/044), midway between the means of women
(180.5 mm) and men (193.8 mm). Joint ranges: see ``JOINT_LIMITS``.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS, MANO_PARENTS

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

_KNUCKLE_YZ = {
    "index": (0.0262, -0.0010),
    "middle": (0.0045, 0.0028),
    "ring": (-0.0154, 0.0012),
    "little": (-0.0334, -0.0042),
}
_THUMB_BASE = np.array([0.0235, 0.0225, -0.0095])
# Per finger, degrees: splay (radial positive), roll of the dorsal side, flexion of the rest pose.
_REST_DEG = {
    "index": (7.5, 4.0, (2.0, 5.0, 8.0)),
    "middle": (1.0, 1.0, (2.0, 5.0, 8.0)),
    "ring": (-6.0, -2.5, (2.0, 5.5, 9.0)),
    "little": (-15.0, -6.0, (2.0, 6.0, 10.0)),
    "thumb": (0.0, 0.0, (0.0, 5.0, 8.0)),
}
_THUMB_ALONG = np.array([0.760, 0.590, -0.235])
_THUMB_DORSAL = np.array([-0.30, 0.81, 0.50])


def _unit(vector):
    return vector / np.linalg.norm(vector)


def _rest_frames() -> tuple[dict, NDArray]:
    """Chains (4, 3) of joint centres and tip per digit; frames (16, 3, 3), columns along,
    flexion axis, dorsal."""
    chains, frames = {}, np.tile(np.eye(3), (16, 1, 1))
    for name in FINGER_NAMES:
        splay, roll, bends = (np.deg2rad(v) for v in _REST_DEG[name])
        if name == "thumb":
            base, along, dorsal = _THUMB_BASE, _unit(_THUMB_ALONG), _THUMB_DORSAL
        else:
            y, z = _KNUCKLE_YZ[name]
            reach = SEGMENTS[name][0] * HAND_LENGTH
            base = np.array([np.sqrt(reach**2 - y**2 - z**2), y, z])
            along = np.array([np.cos(splay), np.sin(splay), 0.0])
            dorsal = np.array([0.0, np.sin(roll), np.cos(roll)])
        dorsal = _unit(dorsal - along * (along @ dorsal))
        points = [base]
        for joint, bend, segment in zip(
            MANO_FINGERS[name], bends, SEGMENTS[name][-3:], strict=True
        ):
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


def clamp_angles(angles: NDArray) -> NDArray:
    """Angles held within ``JOINT_LIMITS``; the wrist's row passes through."""
    angles = np.array(angles, np.float64)
    low, high = JOINT_LIMITS[1:, :, 0], JOINT_LIMITS[1:, :, 1]
    angles[..., 1:, :] = np.clip(angles[..., 1:, :], low, high)
    return angles


def pose_joints(pose: NDArray) -> tuple[NDArray, NDArray]:
    """Forward kinematics at rest proportions.

    pose: (N, 16, 3) axis-angle.
    returns rotations (N, 16, 3, 3) of each bone and joint centres (N, 16, 3), metres.
    """
    local = Rotation.from_rotvec(pose).as_matrix()
    rotations, joints = np.empty_like(local), np.zeros(local.shape[:-1])
    rotations[:, 0] = local[:, 0]
    for j in range(1, 16):
        parent = MANO_PARENTS[j]
        joints[:, j] = joints[:, parent] + rotations[:, parent] @ (
            REST_JOINTS[j] - REST_JOINTS[parent]
        )
        rotations[:, j] = rotations[:, parent] @ local[:, j]
    return rotations, joints
