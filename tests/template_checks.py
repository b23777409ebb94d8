"""Posing and measuring the built-in hand with NumPy alone, for its tests."""

from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from hand_lib import ROOT
from hand_lib.hand.joints import MANO_PARENTS
from hand_lib.mesh.topology import boundary_loops


@cache
def arrays():
    with np.load(ROOT / "template" / "hand.npz") as stored:
        wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in stored.items()}
    return wide


def posed(pose, betas=None, correct=True, chunk=250):
    """Vertices (N, 778, 3) metres of poses (N, 16, 3): MANO's formula, with or without posedirs."""
    a, out = arrays(), []
    for start in range(0, len(pose), chunk):
        rotations = Rotation.from_rotvec(pose[start : start + chunk]).as_matrix()
        n = len(rotations)
        shaped = a["v_template"]
        if betas is not None:
            shaped = shaped + a["shapedirs"] @ betas
        joints = a["J_regressor"] @ shaped
        points = np.broadcast_to(shaped, (n, *shaped.shape))
        if correct:
            features = (rotations[:, 1:] - np.eye(3)).reshape(n, 135)
            points = points + (features @ a["posedirs"].reshape(-1, 135).T).reshape(points.shape)
        linear, place = np.empty((n, 16, 3, 3)), np.empty((n, 16, 3))
        for j, parent in enumerate(MANO_PARENTS):
            if j == 0:
                linear[:, 0], place[:, 0] = rotations[:, 0], joints[0]
                continue
            linear[:, j] = linear[:, parent] @ rotations[:, j]
            place[:, j] = place[:, parent] + linear[:, parent] @ (joints[j] - joints[parent])
        shift = place - (linear @ joints[:, :, None])[..., 0]
        maps = np.concatenate([linear, shift[..., None]], -1).reshape(n, 16, 12)
        maps = (a["weights"] @ maps).reshape(n, -1, 3, 4)
        out.append(np.einsum("nvab,nvb->nva", maps[..., :3], points) + maps[..., 3])
    return np.concatenate(out)


def closed(faces, middle):
    """Faces with every boundary loop closed by a fan round the vertex ``middle``."""
    loops = boundary_loops(faces)
    directed = {(int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3)}
    fan = []
    for loop in loops:
        for a, b in zip(loop, np.roll(loop, -1), strict=True):
            a, b = int(a), int(b)
            fan.append((b, a, middle) if (a, b) in directed else (a, b, middle))
    return np.concatenate([faces, np.array(fan)]), np.concatenate(loops)


def volumes(vertices, faces):
    """Volume (N,) inside posed hands (N, V, 3), the rim closed by a fan, in the unit cubed."""
    shut, rim = closed(faces, vertices.shape[1])
    vertices = np.concatenate([vertices, vertices[:, rim].mean(1, keepdims=True)], axis=1)
    a, b, c = (vertices[:, shut[:, k]] for k in range(3))
    return np.einsum("nfi,nfi->n", a, np.cross(b, c)) / 6


def corner_angles(vertices, faces):
    """Smallest angle (F,) of each face, degrees."""
    corner, angles = vertices[faces], []
    for k in range(3):
        a = corner[:, (k + 1) % 3] - corner[:, k]
        b = corner[:, (k + 2) % 3] - corner[:, k]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.min(angles, axis=0)


def crossing_faces(vertices, faces):
    """Number of pairs of faces without a common vertex that cut each other."""
    corner = vertices[faces]
    low, high = corner.min(1), corner.max(1)
    order = np.argsort(low[:, 0], kind="stable")
    last = np.searchsorted(low[order, 0], high[order, 0])
    first = np.concatenate([np.full(last[i] - i - 1, i) for i in range(len(order))])
    second = np.concatenate([np.arange(i + 1, last[i]) for i in range(len(order))])
    f, g = order[first], order[second]
    touch = ((low[f] <= high[g]) & (low[g] <= high[f])).all(1)
    touch &= ~(faces[f][:, :, None] == faces[g][:, None, :]).any((1, 2))
    f, g = f[touch], g[touch]
    hits = np.zeros(len(f), bool)
    for one, other in ((f, g), (g, f)):
        for k in range(3):
            a, b = corner[one, k], corner[one, (k + 1) % 3]
            hits |= _cuts(a, b, corner[other])
    return int(hits.sum())


def _cuts(a, b, triangle):
    """Whether segments a b (N, 3) pass through triangles (N, 3, 3): Moeller and Trumbore."""
    edge1, edge2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    direction, offset = b - a, a - triangle[:, 0]
    across = np.cross(direction, edge2)
    determinant = (edge1 * across).sum(1)
    safe = np.where(np.abs(determinant) < 1e-18, 1e-18, determinant)
    u = (offset * across).sum(1) / safe
    turned = np.cross(offset, edge1)
    v, t = (direction * turned).sum(1) / safe, (edge2 * turned).sum(1) / safe
    return (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)
