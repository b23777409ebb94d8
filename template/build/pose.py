"""Pose blend shapes of the built-in hand (build time only).

Every joint is bent alone over its range. Linear blend skinning gives a first posed surface; there
skin near the joint is pulled towards the posed implicit surface (implicit skinning: Vaillant et al.
2013) while staying as rigid as possible (Sorkine and Alexa 2007), which keeps knuckles round and
creases from collapsing. What that adds, carried back to the rest frame, is regressed on R - I of
the joint by ridge regression, only near the joint, so that the corrections of several joints add.
"""

import igl
import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import MANO_PARENTS
from hand_lib.hand.poses import pose_joints
from hand_lib.mesh.topology import unique_edges
from template.build import surface as build_surface

_ROUNDS = 14
_ANCHOR = 0.04  # pull towards linear blend skinning near the joint
_OUTSIDE = 50.0  # and away from it
_RIDGE = 0.02


def training_angles(joint: int) -> NDArray:
    """Angles (N, 3) of one joint: a grid over its range, twist and splay with it."""
    low, high = anatomy.JOINT_LIMITS[joint].T
    flexion = np.linspace(low[0], high[0], 8)
    if high[1] == low[1]:
        return np.stack([flexion, 0 * flexion, 0 * flexion], axis=1)
    splay = np.linspace(low[1], high[1], 3)
    grid = np.stack(np.meshgrid(flexion, splay, [0.0], indexing="ij"), -1).reshape(-1, 3)
    twists = np.array([[flexion[3], 0.0, t] for t in (low[2], high[2])])
    return np.concatenate([grid, twists])


def bone_transforms(pose: NDArray) -> NDArray:
    """Rest to posed transforms (N, 16, 4, 4), millimetres. pose: (N, 16, 3) axis-angle."""
    rotations, joints = pose_joints(pose)
    out = np.tile(np.eye(4), (len(pose), 16, 1, 1))
    out[..., :3, :3] = rotations
    moved = (rotations @ anatomy.REST_JOINTS[:, :, None])[..., 0]
    out[..., :3, 3] = 1000.0 * (joints - moved)
    return out


def blend(vertices, weights, transforms) -> tuple[NDArray, NDArray]:
    """Linear blend skinning: posed vertices (V, 3) and the blended linear maps (V, 3, 3)."""
    maps = np.einsum("vj,jab->vab", weights, transforms)
    posed = (maps[:, :3, :3] @ vertices[:, :, None])[..., 0] + maps[:, :3, 3]
    return posed, maps[:, :3, :3]


def _support(weights, faces, joint: int) -> NDArray[np.bool_]:
    """Vertices near a joint: where its bone (with all beyond) and the rest share the skin."""
    moved = [joint]
    for j in range(joint + 1, 16):
        if MANO_PARENTS[j] in moved:
            moved.append(j)
    share = weights[:, moved].sum(1)
    near = (share > 0.015) & (share < 0.985)
    edges = unique_edges(faces)
    for _ in range(2):
        grown = near.copy()
        grown[edges[near[edges[:, 0]], 1]] = True
        grown[edges[near[edges[:, 1]], 0]] = True
        near = grown
    return near


class _Elastic:
    """As-rigid-as-possible energy of the rest mesh with soft anchors."""

    def __init__(self, vertices, faces, near):
        cotangent = igl.cotmatrix(vertices, faces).tocoo()
        off = (cotangent.row != cotangent.col) & (near[cotangent.row] | near[cotangent.col])
        self.i, self.j = cotangent.row[off], cotangent.col[off]
        self.w = np.maximum(cotangent.data[off], 0.08)
        self.rest = vertices[self.i] - vertices[self.j]
        n = len(vertices)
        adjacency = sparse.coo_matrix((self.w, (self.i, self.j)), (n, n))
        laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
        self.anchor = np.where(near, _ANCHOR, _OUTSIDE)
        self.factor = splu((laplacian + sparse.diags(self.anchor)).tocsc())
        self.n = n

    def step(self, current, goal) -> NDArray:
        """One local and one global step from ``current``, anchored at ``goal``."""
        moved = current[self.i] - current[self.j]
        outer = self.w[:, None, None] * self.rest[:, :, None] * moved[:, None, :]
        covariance = np.zeros((self.n, 3, 3))
        np.add.at(covariance, self.i, outer)
        u, _, vt = np.linalg.svd(covariance)
        flip = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= flip[:, None]
        rotation = np.swapaxes(u @ vt, 1, 2)
        pair = 0.5 * (rotation[self.i] + rotation[self.j])
        right = np.zeros((self.n, 3))
        np.add.at(right, self.i, self.w[:, None] * (pair @ self.rest[:, :, None])[..., 0])
        return self.factor.solve(right + self.anchor[:, None] * goal)


def corrections(vertices, faces, weights, joint: int) -> tuple[NDArray, NDArray]:
    """Rest-frame corrections (N, V, 3) of one joint's training poses and features R - I (N, 9)."""
    rows = build_surface.primitives()
    near = _support(weights, faces, joint)
    elastic = _Elastic(vertices, faces, near)
    depth = build_surface.distance(vertices, rows)
    angles = np.zeros((len(training_angles(joint)), 16, 3))
    angles[:, joint] = training_angles(joint)
    pose = anatomy.pose_from_angles(angles)
    transforms = bone_transforms(pose)
    added = np.zeros((len(pose), len(vertices), 3))
    reach = 70.0 if MANO_PARENTS[joint] == 0 else 42.0
    gap = np.linalg.norm(vertices - 1000.0 * anatomy.REST_JOINTS[joint], axis=1)
    fade = np.clip(3.0 - 3.0 * gap / reach, 0.0, 1.0)
    for n in range(len(pose)):
        goal, maps = blend(vertices, weights, transforms[n])
        posed = goal.copy()
        for _ in range(_ROUNDS):
            posed = elastic.step(posed, goal)
            skin = posed[near]
            slope = build_surface.gradient(skin, rows, transforms[n])
            value = build_surface.distance(skin, rows, transforms[n]) - depth[near]
            squared = np.maximum((slope**2).sum(1), 0.3)
            posed[near] = skin - slope * np.clip(value / squared, -2.0, 2.0)[:, None]
        move = np.linalg.solve(maps, (posed - goal)[:, :, None])[..., 0]
        added[n, near] = move[near] * fade[near, None]
    features = Rotation.from_rotvec(pose[:, joint]).as_matrix() - np.eye(3)
    return added, features.reshape(len(pose), 9)


def pose_basis(vertices, faces, weights, largest: float = 9.0) -> NDArray:
    """Pose blend shapes (V, 3, 135), millimetres per unit of R - I, joints 1 to 15, row-major."""
    basis = np.zeros((len(vertices), 3, 135))
    for joint in range(1, 16):
        added, features = corrections(vertices, faces, weights, joint)
        size = np.linalg.norm(added, axis=2, keepdims=True)
        added *= np.minimum(1.0, largest / np.maximum(size, 1e-9))
        gram = features.T @ features + _RIDGE * np.eye(9)
        solved = np.linalg.solve(gram, features.T @ added.reshape(len(added), -1))
        block = solved.reshape(9, len(vertices), 3).transpose(1, 2, 0)
        basis[:, :, 9 * (joint - 1) : 9 * joint] = block
    return basis
