"""The recipe of template/hand.npz, the built-in hand with MANO's arrays: python -m template.build

The same machine gives the same bytes. Beside it go anthropometry.csv, the hand's measures and
published ones, hierarchy.npz, its coarser levels, and pose_prior.npz, what fits hold poses by.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hand_lib import ROOT
from hand_lib.hand import joints as anatomy
from hand_lib.hand import skin as appearance
from hand_lib.hand.joints import FINGER_NAMES, FINGERTIP_VERTICES, MANO_FINGERS, MANO_PARENTS
from hand_lib.hand.mano import read_mano
from hand_lib.hand.model import HandModel, builtin_hierarchy
from hand_lib.hand.poses import sample_poses
from hand_lib.mesh.topology import check_mesh, unique_edges, vertex_normals
from template.build import anthropometry
from template.build import mesh as build_mesh
from template.build import pose as build_pose
from template.build import skin as build_skin
from template.build import surface as build_surface
from template.build.pose_prior import draw_prior

_NEIGHBOUR_IDS = {
    "thumb": (745,),
    "index": (317, 333),
    "middle": (444, 445),
    "ring": (556, 554),
    "little": (673, 671),
}
"""Ids next to each fingertip that other tables use: they lie beside the tip on the pulp."""


def quantise(array: NDArray, bits: int) -> NDArray[np.float32]:
    """Round to multiples of 2 ** -bits, exact in float32 and small once compressed."""
    return (np.round(np.asarray(array, np.float64) * 2.0**bits) / 2.0**bits).astype(np.float32)


def vertex_order(vertices, faces, tips: dict[str, int]) -> NDArray[np.int64]:
    """Old index of each new vertex: palm, index, middle, ring, little, thumb, base to tip.

    The fingertips get the ids of FreiHAND's table and their neighbours those of the other tables,
    so that every table in ``joints`` names a vertex on the right fingertip.
    """
    digit, position = build_skin.digit_of(vertices)
    rank = np.array([5, 1, 2, 3, 4])[digit]  # thumb last
    on_digit = position > np.where(digit == 0, 0.9, 0.42)
    part = np.where(on_digit, rank, 0)
    along = np.where(on_digit, position, vertices[:, 0] * 1e-3)
    order = np.lexsort((np.arange(len(vertices)), np.round(along, 9), part))
    fixed: dict[int, int] = {}
    edges = unique_edges(faces)
    for name, new in zip(FINGER_NAMES, FINGERTIP_VERTICES["freihand"]["right"], strict=True):
        tip = tips[name]
        fixed[new] = tip
        around = np.r_[edges[edges[:, 0] == tip, 1], edges[edges[:, 1] == tip, 0]]
        dorsal = anatomy.FRAMES[MANO_FINGERS[name][2]][:, 2]
        around = around[np.argsort(vertices[around] @ dorsal, kind="stable")]
        fixed.update(zip(_NEIGHBOUR_IDS[name], around.tolist(), strict=False))
    taken = set(fixed.values())
    rest = iter(v for v in order.tolist() if v not in taken)
    return np.array([fixed[i] if i in fixed else next(rest) for i in range(len(vertices))])


def pose_statistics(count: int = 6000, seed: int = 11) -> tuple[NDArray, NDArray]:
    """Mean (45,) and principal components (45, 45), rows by falling variance, of sampled poses."""
    poses = sample_poses(count, np.random.default_rng(seed))[:, 1:].reshape(count, 45)
    mean = poses.mean(0)
    _, vectors = np.linalg.eigh(np.cov((poses - mean).T))
    rows = vectors.T[::-1]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], axis=1)
    return mean, rows * np.sign(largest)


def _exact_rows(weights, bits: int = 20) -> NDArray[np.float64]:
    """Round non-negative rows to multiples of 2 ** -bits that still sum to one exactly."""
    scaled = np.round(weights * 2.0**bits)
    largest = weights.argmax(1)
    scaled[np.arange(len(weights)), largest] += 2.0**bits - scaled.sum(1)
    return scaled / 2.0**bits


def _masks(vertices, faces) -> NDArray[np.float32]:
    """Skin masks of the vertices, in steps of 1/255; lines widened to half an edge."""
    masks = appearance.skin_masks(vertices, vertex_normals(vertices, faces), blur_mm=2.2)
    return (np.round(masks * 255) / 255).astype(np.float32)


def build() -> dict[str, NDArray]:
    """All arrays of the built-in hand, metres."""
    dense_vertices, dense_faces = build_surface.dense_surface(1.1)
    vertices, faces, tips = build_mesh.build_mesh(dense_vertices, dense_faces)
    order = vertex_order(vertices, faces, tips)
    renumber = np.argsort(order)
    vertices, faces = vertices[order], renumber[faces]
    first = faces.argmin(1)
    faces = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
    faces = faces[np.lexsort(faces.T[::-1])]
    weights = _exact_rows(build_skin.skin_weights(vertices, dense_vertices, dense_faces))
    shapes, joint_moves = build_skin.shape_basis(vertices, weights)
    regressor = _exact_rows(build_skin.joint_regressor(vertices, shapes, joint_moves), bits=24)
    mean, components = pose_statistics()
    arrays = {
        "v_template": quantise(vertices / 1000.0, 22),
        "f": faces.astype(np.int64),
        "shapedirs": quantise(shapes / 1000.0, 22),
        "posedirs": quantise(build_pose.pose_basis(vertices, faces, weights) / 1000.0, 18),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack([MANO_PARENTS, np.arange(16)]).astype(np.int64),
        "hands_mean": mean,
        "hands_components": components,
        "fingertips": np.array(FINGERTIP_VERTICES["freihand"]["right"]),
        "masks": _masks(vertices / 1000.0, faces),
        "shape_names": np.array(build_skin.SHAPE_NAMES),
    }
    arrays["J"] = regressor @ arrays["v_template"].astype(np.float64)
    check_mesh(arrays["v_template"], arrays["f"])
    return arrays


def write_measures(path: Path, arrays: dict) -> None:
    """Our measures beside published ones, a row each, as a CSV table."""
    rows = anthropometry.compare(arrays["v_template"], arrays["f"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["measure", "ours_mm", "published_mm", "deviation_mm", "source"])
        for row in rows:
            numbers = (row.ours_mm, row.theirs_mm, row.spread_mm)
            writer.writerow([row.name, *(f"{x:.2f}" for x in numbers), row.source])


def main(folder: Path = ROOT / "template") -> int:
    """Build and save; a line on standard error says what was written."""
    folder.mkdir(exist_ok=True)
    arrays, path = build(), folder / "hand.npz"
    np.savez_compressed(path, **arrays)
    write_measures(folder / "anthropometry.csv", arrays)
    hand = HandModel(read_mano(path), flat_mean=True, frames=anatomy.FRAMES)
    builtin_hierarchy(hand, folder=folder).save(folder / "hierarchy.npz")
    np.savez(folder / "pose_prior.npz", **draw_prior())
    sys.stderr.write(f"wrote {path.name}: {path.stat().st_size} bytes\n")
    return 0
