"""What makes a hand hard: viewpoint, turn, pose and occlusion; and what an error is made of."""

import numpy as np

from hand_lib import metrics
from hand_lib.evaluation.runs import Evaluation, bootstrap_interval
from hand_lib.hand.joints import JOINT_NAMES
from hand_lib.mesh.topology import procrustes
from hand_lib.render.camera import project
from hand_lib.render.raster import rasterise

HIDDEN_BEHIND = 0.004
"""A vertex is hidden when the surface in front of it is nearer to the camera by more (metres)."""

WRIST, INDEX_MCP, MIDDLE_MCP, LITTLE_MCP = (
    JOINT_NAMES.index(name) for name in ("wrist", "index_mcp", "middle_mcp", "little_mcp")
)


def mean_by_bin(values, by, edges) -> list[dict]:
    """Mean of ``values`` over the hands whose ``by`` lies in each bin [low, high).

    values, by: (N,).   edges: ascending; the last bin includes its upper edge.
    returns one dict for each bin that is not empty: low, high, count, mean, mean_low, mean_high
    (95 % bootstrap interval).
    """
    values, by, edges = (np.asarray(a, float) for a in (values, by, edges))
    if values.shape != by.shape:
        raise ValueError(f"expected one value per hand in both, found {values.shape}, {by.shape}")
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (by >= low) & ((by < high) | ((high == edges[-1]) & (by == high)))
        if inside.any():
            mean, mean_low, mean_high = bootstrap_interval(values[inside], draws=1000)
            row = {"low": float(low), "high": float(high), "count": int(inside.sum())}
            rows.append({**row, "mean": mean, "mean_low": mean_low, "mean_high": mean_high})
    return rows


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


def pose_distances(joints) -> np.ndarray:
    """How far each pose is from the mean hand of the set, (N,) metres, after alignment.

    joints: (N, 21, 3) metres. The mean is found by aligning all hands to the first and then to
    their mean (Gower, 1975).
    """
    joints = np.asarray(joints, float)
    mean = joints[0]
    for _ in range(3):
        mean = metrics.align(joints, np.broadcast_to(mean, joints.shape), "rotation").mean(0)
    return metrics.mesh_errors(joints, np.broadcast_to(mean, joints.shape))["pa"]


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
    truth = evaluation.truth
    roots = truth["root"] if truth["has_camera"].all() else None
    found = {
        "palm to camera, degrees": palm_angles_deg(truth["joints"], roots),
        "turn in the picture, degrees": in_plane_angles_deg(truth["joints"]),
        "distance from the mean pose, mm": 1000 * pose_distances(truth["joints"]),
    }
    if roots is not None:
        hidden = hidden_shares(
            truth["vertices"], evaluation.faces, roots, truth["intrinsics"], evaluation.image_size
        )
        found["vertices the hand itself hides, %"] = 100 * hidden
    return found


def error_parts(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Mean vertex error of each hand in mm, (N,), as more and more of the pose is put right.

    The wrists are brought together; then the hand gets its true size (root mean square distance
    from the wrist); then it is turned about the wrist as fits best; then place, turn and size all
    fit best (PA). "across" and "in depth" are the first error's parts along the picture and along
    the viewing direction.
    """
    true = evaluation.truth["vertices"] - evaluation.truth["joints"][:, :1]
    hand = (evaluation.vertices - evaluation.joints[:, :1]).astype(float)
    hand[~np.isfinite(hand).all((1, 2))] = 0  # as the scorer takes hands that are missing
    size, true_size = ((points**2).sum((1, 2)) for points in (hand, true))
    sized = hand * np.sqrt(true_size / np.where(size > 0, size, 1))[:, None, None]
    # points and their mirror images in the wrist: the centre that Procrustes takes is the wrist
    both = (np.concatenate([points, -points], 1) for points in (sized, true))
    turned = sized @ procrustes(*both).rotation.swapaxes(1, 2)
    off = 1000 * (hand - true)
    return {
        "wrists together": 1000 * evaluation.scores.vertex_errors["root"].mean(1),
        "across": np.linalg.norm(off[..., :2], axis=2).mean(1),
        "in depth": np.abs(off[..., 2]).mean(1),
        "true size": 1000 * metrics.point_errors(sized, true).mean(1),
        "turned about the wrist": 1000 * metrics.point_errors(turned, true).mean(1),
        "PA": evaluation.pa_mm,
    }
