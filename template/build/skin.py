"""Skin weights, joint regressor and shape directions of the built-in hand (build time only).

Weights are bone heat (Baran and Popovic 2007) solved on the dense surface and carried to the mesh:
(L + H) W = H P, with the cotangent Laplacian L, vertex areas and H = heat / distance^2.
Millimetres in the rest frame of ``anatomy``.
"""

import igl
import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS, MANO_PARENTS

SHAPE_NAMES = (
    "size",
    "finger_length",
    "finger_girth",
    "palm_width",
    "palm_length",
    "palm_thickness",
    "thumb_length",
    "taper",
    "digit_ratio",
    "joint_size",
)
SHAPE_SPREAD = (0.063, 0.035, 0.055, 0.045, 0.030, 0.055, 0.045, 0.060, 0.017, 0.060)
"""One standard deviation of each direction, as a fraction.

size: pooled spread of hand length in ANSUR (Gordon et al. 1989: 193.8 +- 9.8 mm in men, 180.5 +-
9.7 mm in women). palm_width: what hand breadth (90.4 +- 4.2, 79.4 +- 3.8 mm, same survey) varies
beyond size. finger_length, thumb_length, palm_length: the spread of segment lengths of Buryanov and
Kotiuk 2010 less that of size. The others are chosen by eye.
"""

_JOINTS_MM = anatomy.REST_JOINTS * 1000.0


def bone_segments() -> list[list[tuple[NDArray, NDArray]]]:
    """Per joint the segments that heat the skin; the wrist owns carpals and metacarpals."""
    segments: list[list] = [[] for _ in range(16)]
    segments[0] = [(np.array([-30.0, 0, 0]), np.zeros(3))]
    for name in FINGER_NAMES:
        chain = anatomy.REST_CHAIN[name] * 1000.0
        if name == "thumb":
            segments[0].append((np.zeros(3), chain[0] * 0.75))
        else:
            segments[0].append((np.zeros(3), chain[0] * 0.96))
        for i, joint in enumerate(MANO_FINGERS[name]):
            start = chain[i] + (0.02 if i else 0.0) * (chain[i + 1] - chain[i])
            segments[joint].append((start, chain[i + 1]))
    return segments


def segment_distance(points, a, b) -> NDArray:
    """Distance of points (N, 3) to the segment a b."""
    along = b - a
    t = np.clip((points - a) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - a - t[:, None] * along, axis=1)


def bone_heat(vertices, faces, heat: float = 0.55) -> NDArray:
    """Weights (N, 16) on the dense surface, rows sum to one."""
    distance = np.stack(
        [
            np.min([segment_distance(vertices, a, b) for a, b in bone], axis=0)
            for bone in bone_segments()
        ],
        axis=1,
    )
    distance[:, 0] -= 4.0  # the palm is thick: its bones lie deeper than a finger's
    distance = np.maximum(distance, 2.0)
    nearest = distance.argmin(1)
    owner = np.zeros_like(distance)
    owner[np.arange(len(vertices)), nearest] = 1.0
    laplacian = -igl.cotmatrix(vertices, faces)
    area = igl.massmatrix(vertices, faces, igl.MASSMATRIX_TYPE_VORONOI).diagonal()
    strength = sparse.diags(area * heat / distance.min(1) ** 2)
    weights = splu((laplacian + strength).tocsc()).solve(strength @ owner)
    weights = np.clip(weights, 0, None)
    return weights / weights.sum(1, keepdims=True)


def digit_of(points) -> tuple[NDArray, NDArray]:
    """Nearest digit of each point (index into ``FINGER_NAMES``) and its position along that
    digit's chain, in lengths of the first segment."""
    best = np.full(len(points), np.inf)
    digit, position = np.zeros(len(points), int), np.zeros(len(points))
    for k, name in enumerate(FINGER_NAMES):
        chain = anatomy.REST_CHAIN[name] * 1000.0
        first = np.linalg.norm(chain[1] - chain[0])
        offset = 0.0
        for a, b in zip(chain[:-1], chain[1:], strict=True):
            d = segment_distance(points, a, b)
            along = (points - a) @ (b - a) / np.linalg.norm(b - a)
            closer = d < best
            best = np.where(closer, d, best)
            digit = np.where(closer, k, digit)
            position = np.where(closer, (offset + along) / first, position)
            offset += np.linalg.norm(b - a)
    return digit, position


def skin_weights(vertices, dense_vertices, dense_faces) -> NDArray:
    """Bone heat carried to the mesh, (V, 16): local to the digit, rows sum to one."""
    heat = bone_heat(dense_vertices, dense_faces)
    distance, near = cKDTree(dense_vertices).query(vertices, k=12)
    blend = np.exp(-((distance / 1.5) ** 2))
    blend /= blend.sum(1, keepdims=True)
    weights = (blend[..., None] * heat[near]).sum(1)
    digit, position = digit_of(vertices)
    for k, name in enumerate(FINGER_NAMES):
        own = [0, *MANO_FINGERS[name]]
        tube = (digit == k) & (position > (1.05 if name == "thumb" else 0.55))
        other = np.setdiff1d(np.arange(16), own)
        weights[np.ix_(tube, other)] = 0.0
        beyond = tube & (position > 1.0)
        weights[beyond & (position > 1.3), 0] = 0.0
    weights[weights < 0.004] = 0.0
    return weights / weights.sum(1, keepdims=True)


def _bone_maps(name: str, amount: float) -> tuple[NDArray, NDArray]:
    """Per bone the affine map (16, 3, 4) of one named shape change, and the new joints (16, 3)."""
    palm, along, girth = np.ones(3), np.ones(16), np.ones(16)
    fingers = [j for n in FINGER_NAMES if n != "thumb" for j in MANO_FINGERS[n]]
    thumb = list(MANO_FINGERS["thumb"])
    if name == "size":
        palm, along, girth = palm * (1 + amount), along * (1 + amount), girth * (1 + amount)
    elif name == "finger_length":
        along[fingers] += amount
    elif name == "finger_girth":
        girth[fingers + thumb] += amount
        palm[2] += 0.25 * amount
    elif name == "palm_width":
        palm[1] += amount
    elif name == "palm_length":
        palm[0] += amount
    elif name == "palm_thickness":
        palm[2] += amount
    elif name == "thumb_length":
        along[thumb] += amount
    elif name == "taper":
        for n in FINGER_NAMES:
            girth[list(MANO_FINGERS[n])] += amount * np.array([0.5, -0.1, -1.0])
    elif name == "digit_ratio":
        along[list(MANO_FINGERS["index"])] += amount
        along[list(MANO_FINGERS["ring"])] -= amount
    joints = np.zeros((16, 3))
    maps = np.zeros((16, 3, 4))
    for j in range(16):
        parent = MANO_PARENTS[j]
        if j == 0:
            linear = np.diag(palm)
        else:
            frame = anatomy.FRAMES[j]
            linear = frame @ np.diag([along[j], girth[j], girth[j]]) @ frame.T
            offset = _JOINTS_MM[j] - _JOINTS_MM[parent]
            joints[j] = joints[parent] + maps[parent, :, :3] @ offset
        maps[j, :, :3] = linear
        maps[j, :, 3] = joints[j] - linear @ _JOINTS_MM[j]
    return maps, joints


def shape_basis(vertices, weights) -> tuple[NDArray, NDArray]:
    """Displacements (V, 3, 10) of one standard deviation and those of joints (16, 3, 10), mm."""
    moves, joints = [], []
    for name, spread in zip(SHAPE_NAMES, SHAPE_SPREAD, strict=True):
        maps, moved = _bone_maps(name, spread)
        blended = np.einsum("vj,jab->vab", weights, maps)
        move = (blended[:, :, :3] @ vertices[:, :, None])[..., 0] + blended[:, :, 3] - vertices
        if name == "joint_size":
            move = _joint_swelling(vertices, spread)
        moves.append(move)
        joints.append(moved - _JOINTS_MM)
    return np.stack(moves, -1), np.stack(joints, -1)


def _joint_swelling(vertices, spread) -> NDArray:
    """Outward growth round the two finger joints of each digit, Gaussians of 5 mm."""
    digit, _ = digit_of(vertices)
    move = np.zeros_like(vertices)
    for k, name in enumerate(FINGER_NAMES):
        for joint in MANO_FINGERS[name][1:]:
            offset = vertices - _JOINTS_MM[joint]
            axis = anatomy.FRAMES[joint][:, 0]
            along = offset @ axis
            across = offset - along[:, None] * axis
            bump = np.exp(-((along / 5.0) ** 2)) * (digit == k)
            move += spread * bump[:, None] * across
    return move


def joint_regressor(vertices, shapes, joint_moves) -> NDArray:
    """Non-negative rows (16, V), local, summing to one, that keep each joint in its place.

    For joint j: min |w|^2 subject to w >= 0, sum w = 1, w @ template = joint and
    w @ shapes[..., k] = the joint's own move, the equalities by large weights (NNLS).
    """
    regressor = np.zeros((16, len(vertices)))
    for j in range(16):
        distance = np.linalg.norm(vertices - _JOINTS_MM[j], axis=1)
        count = 90 if j == 0 else 64 if MANO_PARENTS[j] == 0 else 44
        near = np.argsort(distance, kind="stable")[:count]
        spread = SHAPE_SPREAD[0] * 10
        rows = [np.ones((1, count)) * 300.0, (vertices[near] - _JOINTS_MM[j]).T * 60.0]
        wanted = [np.array([300.0]), np.zeros(3)]
        for k in range(shapes.shape[2]):
            rows.append(shapes[near, :, k].T * 60.0 / spread)
            wanted.append(joint_moves[j, :, k] * 60.0 / spread)
        rows.append(np.eye(count) * 12.0)
        wanted.append(np.full(count, 12.0 / count))
        solution, _ = nnls(np.concatenate(rows), np.concatenate(wanted))
        regressor[j, near] = solution / solution.sum()
    return regressor
