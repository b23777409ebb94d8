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
