"""What is in my data? Numbers per sample, of any data set of ``HandSample``s.

``describe`` makes a table of properties; ``viewers.data`` shows it and the samples themselves.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from hand_lib.data.sample import fits_mesh
from hand_lib.evaluation.breakdown import in_plane_angles_deg, palm_angles_deg
from hand_lib.hand.joints import BONES, JOINT_NAMES, fingertips_of
from hand_lib.mesh.topology import procrustes_align
from hand_lib.render.camera import project

BONE_NAMES = tuple(JOINT_NAMES[child] for child in BONES[:, 1])


@dataclass(frozen=True)
class Description:
    """Properties of N samples; NaN where a sample does not know one."""

    index: np.ndarray  # (N,) in the data set
    group: np.ndarray  # (N,) equal for a hand's other backgrounds, or other frames of a video
    bones_mm: np.ndarray  # (N, 20) lengths
    palm_angle_deg: np.ndarray  # (N,) 0 the palm faces the camera, 180 the back does
    turn_deg: np.ndarray  # (N,) 0 fingers up, 90 to the right
    toward_camera: np.ndarray  # (N, 3) unit: the camera seen from the hand (distal, radial, dorsal)
    fill: np.ndarray  # (N,) longer side of the hand's box over that of the picture
    brightness: np.ndarray  # (N,) mean grey level of the picture, 0 to 255
    pose: np.ndarray  # (N, P, 3) joints, else points of the mesh, aligned to one hand
    pose_spread: np.ndarray  # (N,) mean distance to the mean pose over that pose's radius
    reprojection_px: np.ndarray  # (N,) mean distance of projected joints and joints_2d
    left: np.ndarray  # (N,) bool
    broken: tuple[str, ...]  # what was wrong with samples that could not be read

    def __len__(self) -> int:
        return len(self.index)


def hand_axes(joints) -> np.ndarray:
    """Rows distal, radial, dorsal of right hands (N, 3, 3) from joints (N, 21, 3)."""
    distal = joints[:, 9] - joints[:, 0]
    across = joints[:, 5] - joints[:, 17]
    dorsal = np.cross(distal, across)
    radial = np.cross(dorsal, distal)
    axes = np.stack([distal, radial, dorsal], axis=1)
    return axes / np.maximum(np.linalg.norm(axes, axis=2, keepdims=True), 1e-12)


def describe(dataset, count: int = 400, seed: int = 0, progress: bool = True) -> Description:
    """Look at samples spread over a data set.

    dataset: anything with ``len`` and ``[index] -> HandSample``.   count: how many; 0: all.
    seed: which ones.   Samples that raise an error are listed in ``broken`` and left out.
    """
    total = len(dataset)
    picks = np.arange(total)
    if 0 < count < total:
        picks = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    rows, broken = [], []
    for index in tqdm(picks, desc="looking at samples", disable=not progress or len(picks) < 500):
        try:
            rows.append(_row(int(index), dataset[int(index)]))
        except (ValueError, OSError) as error:
            broken.append(str(error))
    if not rows:
        raise ValueError(f"none of {len(picks)} samples could be read; the first: {broken[0]}")
    groups = getattr(dataset, "groups", np.arange(total))
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    columns["group"] = np.asarray(groups)[columns["index"]]
    joints, mesh = columns.pop("joints"), columns.pop("mesh")
    pose, spread = _aligned(joints if np.isfinite(joints).any() else mesh)
    return Description(**columns, pose=pose, pose_spread=spread, broken=tuple(broken))


def _aligned(points) -> tuple[np.ndarray, np.ndarray]:
    """Hands laid on their mean (Gower 1975), and how far each is from it, in radii of the mean.

    points: (N, P, 3), NaN where unknown.
    """
    known = np.isfinite(points).all(axis=(1, 2))
    pose, spread = np.full_like(points, np.nan), np.full(len(points), np.nan)
    if known.any():
        mean = points[known][0]
        for _ in range(3):
            target = np.broadcast_to(mean, points[known].shape)
            pose[known] = procrustes_align(points[known], target)
            mean = pose[known].mean(axis=0)
        radius = np.sqrt(((mean - mean.mean(axis=0)) ** 2).sum(axis=1).mean())
        spread[known] = np.linalg.norm(pose[known] - mean, axis=2).mean(axis=1) / radius
    return pose, spread


_MESH_POINTS = 78
"""Points of a mesh that stand for its pose where no joints are known."""


def _row(index, sample) -> dict:
    """One sample's entries of a ``Description``, and its joints and points of its mesh."""
    mirror = [-1.0 if sample.side == "left" else 1.0, 1, 1]
    root = (np.array([0, 0, 1.0]) if sample.root is None else sample.root) * mirror
    joints = np.full((21, 3), np.nan) if sample.joints is None else sample.joints * mirror
    seen, fill, off = None, np.nan, np.nan
    mesh = np.full((_MESH_POINTS, 3), np.nan)
    if sample.joints_2d is not None and sample.valid_2d.any():
        seen = sample.joints_2d[sample.valid_2d]
        known = sample.root, sample.intrinsics, sample.joints
        if all(label is not None for label in known):
            found = project(sample.joints.astype(float) + sample.root, sample.intrinsics)
            off = np.linalg.norm(found[sample.valid_2d] - seen, axis=1).mean()
    if sample.vertices_px is not None:
        some = np.linspace(0, len(sample.vertices_px) - 1, _MESH_POINTS).astype(int)
        mesh, seen = sample.vertices_px[some] * mirror, sample.vertices_px[:, :2]
    if seen is not None:
        fill = np.ptp(seen, axis=0).max() / max(sample.image.shape[:2])
    return {
        "index": index,
        "joints": joints,
        "mesh": mesh,
        "bones_mm": 1000 * np.linalg.norm(joints[BONES[:, 1]] - joints[BONES[:, 0]], axis=1),
        "palm_angle_deg": palm_angles_deg(joints[None], root[None])[0],
        "turn_deg": in_plane_angles_deg(joints[None])[0],
        "toward_camera": hand_axes(joints[None])[0] @ (-root / np.linalg.norm(root)),
        "fill": fill,
        "brightness": sample.image.mean(),
        "reprojection_px": off,
        "left": sample.side == "left",
    }


def nearest_in_pose(description: Description, row: int, count: int = 5) -> np.ndarray:
    """Rows of the hands whose pose is nearest to that of ``row``, itself first, one a group.

    Distance: mean over points after similarity alignment of all hands to one.
    """
    gap = np.linalg.norm(description.pose - description.pose[row], axis=2).mean(axis=1)
    gap[row] = -1
    return _once(description, np.argsort(gap, kind="stable"))[:count]  # NaN comes last


def _once(description, rows) -> np.ndarray:
    """The first row of each group, in order."""
    return rows[np.sort(np.unique(description.group[rows], return_index=True)[1])]


def oddness(description: Description) -> np.ndarray:
    """How far each sample is from the ordinary, (N,): the largest of several robust z-scores.

    Looked at: each bone's share of the hand's length, brightness, fill, reprojection error.
    z = |x - median| / (1.4826 median absolute deviation).
    """
    shares = description.bones_mm / description.bones_mm.sum(axis=1, keepdims=True)
    values = np.c_[shares, description.brightness, description.fill, description.reprojection_px]
    values = values[:, np.isfinite(values).any(axis=0)]
    middle = np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    floor = 1e-3 * np.maximum(np.abs(middle), 1e-3)
    return np.nanmax(np.abs(values - middle) / np.maximum(spread, floor), axis=1)


def surface(dataset, model) -> np.ndarray | None:
    """The faces to draw this data set's meshes with, or None where no model at hand has them.

    model: a ``HandModel``; its faces serve only meshes in its own vertex order.
    """
    template, faces = model.vertices.detach().cpu().numpy(), model.faces.cpu().numpy()
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), 8)).astype(int):
        try:
            sample = dataset[int(index)]
        except (ValueError, OSError):
            continue
        mesh = sample.vertices if sample.vertices_px is None else sample.vertices_px
        if mesh is not None:
            return faces if fits_mesh(mesh, template, faces) else None
    return faces


def answer(description: Description, dataset) -> str:
    """What is in the data, in a few lines: how many, which hands, how they vary.

    dataset: what was described. What its labels do not tell is "not known".
    """
    count, left = len(description), int(description.left.sum())
    told = {
        "samples": f"{len(dataset)}, seen {count}: {count - left} right, {left} left",
        "could not be read": str(len(description.broken)),
    }
    for name, values, form in (
        ("palm to camera, degrees", description.palm_angle_deg, ".0f"),
        ("hand over picture", description.fill, ".2f"),
        ("brightness, 0 to 255", description.brightness, ".0f"),
        ("distance to the mean pose", description.pose_spread, ".0%"),
        ("labels off projection, px", description.reprojection_px, ".1f"),
    ):
        told[name], known = "not known", values[np.isfinite(values)]
        if len(known):
            low, middle, high = np.percentile(known, [5, 50, 95])
            told[name] = f"{middle:{form}} (5 % below {low:{form}}, 5 % above {high:{form}})"
    told["fingertips of the joints"] = fingertips_of(dataset)
    return "\n".join(f"{what:<27} {value}" for what, value in told.items())


ORDERS = {
    "oddest first": lambda d: -oddness(d),
    "index": lambda d: np.arange(len(d)),
    "strangest pose first": lambda d: -d.pose_spread,
    "palm to back": lambda d: d.palm_angle_deg,
    "turn": lambda d: d.turn_deg,
    "smallest in the picture first": lambda d: d.fill,
    "darkest first": lambda d: d.brightness,
    "largest hand first": lambda d: -d.bones_mm.sum(axis=1),
    "left hands first": lambda d: ~d.left,
}
"""Ways to go through the samples: name -> key per row of a ``Description``."""


def ordered(description: Description, by: str, once: bool = False) -> np.ndarray:
    """Rows in the order of a name of ``ORDERS``; unknown values last.

    once: one of each group, so that a hand's other backgrounds do not follow it.
    """
    if by not in ORDERS:
        raise ValueError(f"unknown order {by!r}; known: {', '.join(ORDERS)}")
    rows = np.argsort(np.asarray(ORDERS[by](description), float), kind="stable")  # NaN last
    return _once(description, rows) if once else rows
