"""What hands and pictures are like, in numbers: samples of a data set, and what makes a hand hard.

``describe`` makes a table of properties of any data set of ``HandSample``s, which ``viewers.data``
shows; ``circumstances`` does the same for the hands of an evaluation.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from hand_lib import metrics
from hand_lib.data.sample import fits_mesh
from hand_lib.evaluation.runs import Evaluation
from hand_lib.hand.joints import BONES, JOINT_NAMES, fingertips_of
from hand_lib.render.camera import project
from hand_lib.render.raster import rasterise

BONE_NAMES = tuple(JOINT_NAMES[child] for child in BONES[:, 1])

HIDDEN_BEHIND = 0.004
"""A vertex is hidden when the surface in front of it is nearer to the camera by more (metres)."""

WRIST, INDEX_MCP, MIDDLE_MCP, LITTLE_MCP = (
    JOINT_NAMES.index(name) for name in ("wrist", "index_mcp", "middle_mcp", "little_mcp")
)
_MESH_POINTS = 78
"""Points of a mesh that stand for its pose where no joints are known."""


def palm_angles_deg(joints, roots=None) -> np.ndarray:
    """Viewpoint: angle between the palm's normal and the way to the camera.

    joints: (N, 21, 3) metres of right hands, camera axes.   roots: (N, 3) wrists in the camera's
    frame for root-relative joints; None: the camera looks along z.
    returns (N,) degrees: 0 the palm faces the camera, 90 seen from the side, 180 its back.
    """
    joints = np.asarray(joints, float)
    wrist = joints[:, WRIST]
    normal = np.cross(joints[:, INDEX_MCP] - wrist, joints[:, LITTLE_MCP] - wrist)
    way = np.broadcast_to([0.0, 0.0, -1.0], normal.shape) if roots is None else -np.asarray(roots)
    lengths = np.linalg.norm(normal, axis=1) * np.linalg.norm(way, axis=1)
    cosine = np.einsum("ni,ni->n", normal, way) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def in_plane_angles_deg(joints) -> np.ndarray:
    """How the hand is turned in the picture.

    joints: (N, 21, 3), camera axes.   returns (N,) degrees in (-180, 180]: 0 fingers up, 90 to the
    right, of the middle finger's base seen from the wrist.
    """
    joints = np.asarray(joints, float)
    x, y = (joints[:, MIDDLE_MCP] - joints[:, WRIST])[:, :2].T
    return np.degrees(np.arctan2(x, -y))


def hand_axes(joints) -> np.ndarray:
    """Rows distal, radial, dorsal of right hands (N, 3, 3) from joints (N, 21, 3)."""
    distal = joints[:, MIDDLE_MCP] - joints[:, WRIST]
    across = joints[:, INDEX_MCP] - joints[:, LITTLE_MCP]
    dorsal = np.cross(distal, across)
    radial = np.cross(dorsal, distal)
    axes = np.stack([distal, radial, dorsal], axis=1)
    return axes / np.maximum(np.linalg.norm(axes, axis=2, keepdims=True), 1e-12)


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


def describe(dataset, count: int = 400, seed: int = 0) -> Description:
    """Look at samples spread over a data set.

    dataset: anything with ``len`` and ``[index] -> HandSample``.   count: how many; 0: all.
    seed: which ones.   Samples that raise an error are listed in ``broken`` and left out.
    """
    total = len(dataset)
    picks = np.arange(total)
    if 0 < count < total:
        picks = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    rows, broken = [], []
    for index in tqdm(picks, desc="looking at samples", disable=len(picks) < 500):
        try:
            rows.append(_row(int(index), dataset[int(index)]))
        except (ValueError, OSError) as error:
            broken.append(str(error))
    if not rows:
        raise ValueError(f"none of {len(picks)} samples could be read; the first: {broken[0]}")
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    joints, mesh, root = (columns.pop(key) for key in ("joints", "mesh", "root"))
    pose, mean = metrics.align_together(joints if np.isfinite(joints).any() else mesh)
    radius = np.sqrt(((mean - mean.mean(axis=0)) ** 2).sum(axis=1).mean())
    ray = -root / np.linalg.norm(root, axis=1, keepdims=True)
    return Description(
        **columns,
        group=np.asarray(getattr(dataset, "groups", np.arange(total)))[columns["index"]],
        bones_mm=1000 * np.linalg.norm(joints[:, BONES[:, 1]] - joints[:, BONES[:, 0]], axis=2),
        palm_angle_deg=palm_angles_deg(joints, root),
        turn_deg=in_plane_angles_deg(joints),
        toward_camera=np.einsum("nij,nj->ni", hand_axes(joints), ray),
        pose=pose,
        pose_spread=np.linalg.norm(pose - mean, axis=2).mean(axis=1) / radius,
        broken=tuple(broken),
    )


def _row(index, sample) -> dict:
    """What one sample knows: entries of a ``Description`` and what others are computed from."""
    mirror = [-1.0 if sample.side == "left" else 1.0, 1, 1]
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
        "joints": np.full((21, 3), np.nan) if sample.joints is None else sample.joints * mirror,
        "mesh": mesh,
        "root": (np.array([0, 0, 1.0]) if sample.root is None else sample.root) * mirror,
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
    faces = model.faces.cpu().numpy()
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), 8)).astype(int):
        try:
            sample = dataset[int(index)]
        except (ValueError, OSError):
            continue
        mesh = sample.vertices if sample.vertices_px is None else sample.vertices_px
        if mesh is not None:
            return faces if fits_mesh(mesh, model) else None
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


def hidden_shares(vertices, faces, root, intrinsics, size: int) -> np.ndarray:
    """Share of each hand's vertices that the hand itself hides from the camera.

    vertices: (N, V, 3) metres, wrist at the origin.   faces: (F, 3).   root: (N, 3) metres.
    intrinsics: (N, 3, 3) pixels of a picture of side ``size``.   returns (N,) in [0, 1]. Vertices
    outside the picture do not count.
    """
    shares = np.zeros(len(vertices))
    for n, points in enumerate(np.asarray(vertices, float) + np.asarray(root)[:, None]):
        depth = rasterise(points, faces, intrinsics[n], size).depth
        pixel = np.round(project(points, np.asarray(intrinsics[n], float))).astype(int)
        inside = ((pixel >= 0) & (pixel < size)).all(1)
        column, row = pixel[inside].T
        hidden = points[inside, 2] > depth[row, column] + HIDDEN_BEHIND
        shares[n] = hidden.mean() if inside.any() else 0.0
    return shares


def circumstances(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """What may make a hand hard, one number per hand: viewpoint, turn, pose and occlusion."""
    truth, joints = evaluation.truth, evaluation.truth["joints"].astype(float)
    roots = truth["root"] if truth["has_camera"].all() else None
    mean = np.broadcast_to(metrics.align_together(joints)[1], joints.shape)
    found = {
        "palm to camera, degrees": palm_angles_deg(joints, roots),
        "turn in the picture, degrees": in_plane_angles_deg(joints),
        "distance from the mean pose, mm": 1000 * metrics.mesh_errors(joints, mean)["pa"],
    }
    if roots is not None:
        hidden = hidden_shares(
            truth["vertices"], evaluation.faces, roots, truth["intrinsics"], evaluation.image_size
        )
        found["vertices the hand itself hides, %"] = 100 * hidden
    return found
