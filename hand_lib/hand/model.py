"""The hand as a differentiable function: pose, shape and place in, 778 vertices and 21 joints out.

One class for the built-in hand and for MANO (Romero, Tzionas and Black, SIGGRAPH Asia 2017), right
and left. It agrees with smplx's MANO class on the same file and is more than twice as fast: shape
and pose corrections are one matrix product, the kinematic chain is three vectorised levels, and
skinning is one product with the transposed weights, coordinate by coordinate (``kinematics``).
"""

import contextlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hand_lib import ROOT
from hand_lib.hand import mano
from hand_lib.hand.joints import (
    FRAMES,
    MANO_PARENTS,
    MANO_TO_21,
    TIPS_21,
    bone_frames,
    fingertip_vertices,
    pose_from_angles,
)
from hand_lib.hand.kinematics import axis_angle_to_matrix, chain, skin_vertices
from hand_lib.hand.poses import sample_angles
from hand_lib.mesh.hierarchy import MeshHierarchy, build_hierarchy, content_key, load_hierarchy

HIERARCHY_POSES = 200
"""Sampled poses on which the weights of a hand's hierarchy are fitted."""
_SIDES = ("right", "left")
_MANO_OF_21 = np.argsort([*MANO_TO_21, *TIPS_21])


@dataclass
class Hand:
    """What a hand model returns, metres, in the frame of its translation."""

    vertices: Tensor  # (B, 778, 3)
    joints: Tensor  # (B, 21, 3)


def mirror_pose(pose):
    """Pose (..., 16, 3) of the other hand: the axis-angle's y and z negated."""
    return pose * pose.new_tensor([1, -1, -1]) if torch.is_tensor(pose) else pose * (1, -1, -1)


class HandModel(nn.Module):
    """Template, corrections and skinning of one hand; make it with ``builtin`` or ``from_mano``.

    >>> hand = HandModel.builtin()(torch.zeros(2, 16, 3))
    >>> hand.vertices.shape, hand.joints.shape
    (torch.Size([2, 778, 3]), torch.Size([2, 21, 3]))
    """

    parents = MANO_PARENTS  # (16,) of each joint in MANO's order, -1 for the wrist

    def __init__(
        self, arrays, side="right", flat_mean=False, fingertips=None, dtype=torch.float32,
        pose_corrections=True, frames=None,
    ):  # fmt: skip
        """arrays: as ``mano.read_mano`` returns them, for this very side.

        pose_corrections: False leaves out ``posedirs``: plain linear blend skinning.
        frames: (16, 3, 3) axes in which the joints of the right hand bend; None finds them along
        the bones (``joints.bone_frames``).
        """
        super().__init__()
        if side not in _SIDES:
            raise ValueError(f"side must be 'right' or 'left', found {side!r}")
        self.side, self.flat_mean, self.fingertips = side, flat_mean, fingertips
        template, shapes, regressor = (
            arrays[key] for key in ("v_template", "shapedirs", "J_regressor")
        )
        rest, shaped = regressor @ template, np.einsum("jv,vak->kja", regressor, shapes)
        if frames is None:
            frames = bone_frames(rest * (-1, 1, 1) if side == "left" else rest)
        self.frames = frames
        tips = fingertip_vertices(fingertips, side) if fingertips else arrays["fingertips"]
        corrections = arrays["posedirs"] * float(pose_corrections)
        self._arrays = {name: np.array(arrays[name]) for name in mano.MANO_SHAPES}
        self._arrays |= {"posedirs": corrections, "fingertips": tips}
        # R - I has its joint last here, first in posedirs
        corrections = corrections.reshape(-1, 3, 15, 9).swapaxes(2, 3).reshape(-1, 3, 135)
        joints = np.concatenate([rest[None], shaped])  # (11, 16, 3)
        bones = joints[:, 1:] - joints[:, MANO_PARENTS[1:]]
        skeleton = np.concatenate([joints, bones], 1).transpose(2, 1, 0).reshape(93, 11)

        def vertices_last(value):  # V filled up to whole cache lines
            return np.pad(value.T, [(0, 0)] * (value.ndim - 1) + [(0, -self.count % 16)])

        self.count = len(template)
        floats = {
            "template": vertices_last(template),  # (3, V)
            # (145, 3, V): ten shapes, then pose corrections
            "directions": vertices_last(np.concatenate([shapes, corrections], 2)),
            "skin": vertices_last(arrays["weights"]),  # (16, V)
            "rest_skeleton": skeleton[:, :1],  # (93, 1): x of 16 joints and 15 bones, y, z
            "skeleton_directions": skeleton[:, 1:],  # (93, 10)
            "joint_regressor": regressor,  # (16, V)
            "pose_mean": arrays["hands_mean"],  # (45,)
            "pose_components": arrays["hands_components"],  # (45, 45), rows
            "identity": np.eye(3).reshape(9).repeat(15)[:, None],  # (135, 1)
        }
        for name, value in floats.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, order="C")).to(dtype))
        indices = {"faces": arrays["f"], "tips": tips, "joint_order": _MANO_OF_21}
        for name, value in indices.items():  # (F, 3), (5,), (21,)
            self.register_buffer(name, torch.from_numpy(np.array(value)))

    @classmethod
    def builtin(
        cls, side="right", flat_mean=True, dtype=torch.float32, pose_corrections=True
    ) -> "HandModel":
        """The workbook's own hand. Pose zero is the template unless ``flat_mean=False``."""
        arrays = mano.read_mano(mano.builtin_path())
        if side == "left":
            arrays = mano.mirror_arrays(arrays)
        return cls(arrays, side, flat_mean, None, dtype, pose_corrections, FRAMES)

    @classmethod
    def from_mano(
        cls, path=None, side="right", flat_mean=False, fingertips=None, dtype=torch.float32,
        pose_corrections=True,
    ) -> "HandModel":  # fmt: skip
        """MANO, from MANO_RIGHT.pkl, MANO_LEFT.pkl, an .npz of the same arrays, or their folder.

        side: the hand wanted. A file with "left" in its name is a left hand, any other a right one;
        if it is not the wanted one it is mirrored. flat_mean: pose zero is the flat hand; False (as
        in smplx, FreiHAND and METRO) adds MANO's mean pose.
        fingertips: a table of ``joints.FINGERTIP_VERTICES``; None takes the file's own ids, and
        where it has none, the table ``freihand``.
        The sign error of the official MANO_LEFT's shape directions is corrected; the log says so.
        """
        log = logging.getLogger(__name__)
        path = Path(path or ROOT / "template")
        if path.is_dir():  # the side that is wanted first
            sides = sorted(_SIDES, key=lambda one: one != side)
            files = [path / f"MANO_{one.upper()}{end}" for one in sides for end in (".pkl", ".npz")]
            path = next((file for file in files if file.is_file()), files[0])
        arrays = mano.read_mano(path)
        file_side = "left" if "left" in path.name.lower() else "right"
        if file_side == "left" and mano.left_shape_is_wrong(arrays):
            arrays["shapedirs"][:, 0] *= -1
            log.warning("%s: negated shapedirs[:, 0, :], MANO_LEFT's known sign error", path)
        if file_side != side:
            arrays = mano.mirror_arrays(arrays)
            log.warning("%s: the %s hand, mirrored", path, file_side)
        if fingertips is None and "fingertips" not in arrays:
            fingertips = "freihand"
        return cls(arrays, side, flat_mean, fingertips, dtype, pose_corrections)

    @property
    def vertices(self) -> Tensor:
        """(V, 3) metres, the template in its rest frame."""
        return self.template[:, : self.count].T

    def forward(self, pose, betas=None, translation=None) -> Hand:
        """Pose, shape and place the hand.

        pose: (B, 16, 3) or (B, 48) axis-angle, the first row turns the whole hand about its wrist
        joint; or (B, 16, 3, 3) rotation matrices, to which no mean pose is added.
        betas: (B, 10) or fewer columns, (10,), or None for the mean shape.
        translation: (B, 3) metres or None.
        returns vertices (B, V, 3) and joints (B, 21, 3), metres. Without a translation the wrist
        stays where the rest pose has it.

        v = sum_j w_vj (G_j (t + S b + P (R - I)) + p_j - G_j J_j), MANO's equation 2 to 4.
        """
        rotations = self._batch_last(pose)  # (3, 3, 16, B)
        batch = rotations.shape[-1]
        root, others = rotations.split([1, 15], 2)
        features, directions = others.reshape(135, batch) - self.identity, self.directions
        if betas is None:
            skeleton, directions = self.rest_skeleton.expand(93, batch), directions[10:]
        else:
            betas = betas.expand(batch, -1) if betas.ndim == 1 or len(betas) == 1 else betas
            if betas.ndim != 2 or len(betas) != batch or betas.shape[1] > 10:
                raise ValueError(f"expected betas ({batch}, 10), found {tuple(betas.shape)}")
            betas = nn.functional.pad(betas, (0, 10 - betas.shape[1])).T
            skeleton = torch.addmm(self.rest_skeleton, self.skeleton_directions, betas)
            features = torch.cat([betas, features])  # (145, B)
        shaped = torch.addmm(self.template.reshape(-1), features.T, directions.flatten(1))
        rest, bones = skeleton.view(3, 31, batch).split([16, 15], 1)
        start = rest[:, :1]
        if translation is not None:
            if (shape := tuple(translation.shape)) not in ((batch, 3), (3,)):
                raise ValueError(f"expected translation ({batch}, 3), found {shape}")
            start = start + translation.reshape(-1, 3).T[:, None]
        turned, placed = chain(root, others, bones, start)  # (3, 3, 16, B), (3, 16, B)
        offset = placed - (turned * rest).sum(1)
        maps = torch.cat([turned, offset[:, None]], 1)  # (3, 4, 16, B)
        vertices = skin_vertices(maps, shaped.view(batch, 3, -1), self.skin)
        vertices = vertices[..., : self.count].mT.contiguous()
        joints = torch.cat([placed.permute(2, 1, 0), vertices[:, self.tips]], 1)
        return Hand(vertices, joints[:, self.joint_order])

    def rotations(self, pose) -> Tensor:
        """Rotation of each joint against its parent (B, 16, 3, 3), the mean pose included."""
        return self._batch_last(pose).permute(3, 2, 0, 1)

    def _batch_last(self, pose) -> Tensor:
        """``rotations`` as (3, 3, 16, B)."""
        shape = tuple(pose.shape)
        if len(shape) == 4 and shape[1:] == (16, 3, 3):
            return pose.permute(2, 3, 1, 0)
        if shape[1:] not in ((16, 3), (48,)):
            raise ValueError(
                f"expected pose (B, 16, 3), (B, 48) or (B, 16, 3, 3), found {shape}; principal "
                "components become a pose by model.pose_components"
            )
        pose = pose.reshape(-1, 16, 3).permute(2, 1, 0)
        if not self.flat_mean:
            pose = pose + nn.functional.pad(self.pose_mean, (3, 0)).view(16, 3, 1).transpose(0, 1)
        return axis_angle_to_matrix(pose, 0)

    def sample_poses(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Plausible poses (n, 16, 3) for this very model (``poses.sample_angles``), wrist unturned.

        Angles are about this hand's own joint axes; its mean pose, where it has one, is taken off.
        """
        pose = pose_from_angles(sample_angles(n, rng), self.frames)
        if self.side == "left":
            pose = mirror_pose(pose)
        if not self.flat_mean:
            pose[:, 1:] -= self.pose_mean.cpu().numpy().reshape(15, 3)
        return pose

    def regress_joints(self, vertices):
        """21 joints of a mesh of this model.   vertices: (B, V, 3) or (V, 3), tensor or array."""
        if not torch.is_tensor(vertices):
            return self.regress_joints(torch.as_tensor(np.asarray(vertices))).cpu().numpy()
        if (shape := tuple(vertices.shape))[-2:] != (self.count, 3) or len(shape) > 3:
            raise ValueError(f"expected vertices (B, {self.count}, 3), found {shape}")
        inner = self.joint_regressor.to(vertices) @ vertices
        tips = vertices[..., self.tips.to(vertices.device), :]
        return torch.cat([inner, tips], -2)[..., self.joint_order.to(vertices.device), :]

    def arrays(self) -> dict[str, np.ndarray]:
        """MANO's arrays of this very hand, float64, and its ``fingertips``."""
        return {name: np.array(array) for name, array in self._arrays.items()}

    def save_mano(self, path) -> Path:
        """Write an .npz or .pkl that smplx's MANO class and ``from_mano`` load.

        smplx takes the side from the name: give it RIGHT or LEFT.
        """
        return mano.write_mano(path, self.arrays())


def posed_vertices(model: HandModel, n: int, seed: int = 0) -> np.ndarray:
    """(n, V, 3) float32 metres: a hand model in sampled poses, its wrist unturned."""
    poses = torch.from_numpy(model.sample_poses(n, np.random.default_rng(seed)))
    with torch.no_grad():
        return model(poses.to(model.template)).vertices.float().cpu().numpy()


def builtin_hierarchy(
    model: HandModel | None = None, factors=(2, 2, 2, 2), method: str = "fitted", folder=None
) -> MeshHierarchy:
    """Hierarchy of a hand model, its weights fitted on sampled poses; made once, then read.

    model: a right hand, None for the built-in one.   factors, method: as in ``build_hierarchy``.
    folder: where caches lie (default: the workbook's template folder, which also holds
    ``hierarchy.npz``, the built-in hand's). A cache is checked by a hash of the model's arrays,
    its pose sampler and all settings, rounded as machines differ: others never fit.
    """
    model = model or HandModel.builtin()
    state = {name: np.asarray(value.cpu()) for name, value in model.state_dict().items()}
    # another sampler, another hierarchy
    state["sampled"] = np.asarray(model.sample_poses(8, np.random.default_rng(0)))
    arrays = [np.round(1e6 * state[name].astype(float)).astype(np.int64) for name in sorted(state)]
    factors = tuple(map(float, factors))
    key = content_key(*arrays, model.flat_mean, factors, method, HIERARCHY_POSES)
    home = Path(folder or ROOT / "template")
    path = home / f"hierarchy_{key[:16]}.npz"
    for place in (path, home / "hierarchy.npz"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged cache is made again
            hierarchy = load_hierarchy(place)
            if hierarchy.key == key:
                return hierarchy
    vertices = np.asarray(model.vertices.cpu(), dtype=np.float64)
    poses, faces = posed_vertices(model, HIERARCHY_POSES), np.asarray(model.faces.cpu())
    hierarchy = replace(build_hierarchy(vertices, faces, factors, poses, method), key=key)
    with contextlib.suppress(OSError):  # a read-only checkout builds it each time
        hierarchy.save(path)
    return hierarchy
