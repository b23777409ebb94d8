"""What notebook 02 looks at: a surface with its hierarchy, its poses and its invariants."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hand_lib import ROOT
from hand_lib.hand.model import builtin_hierarchy, posed_vertices
from hand_lib.mesh.hierarchy import MeshHierarchy, build_hierarchy
from hand_lib.mesh.simplify import POSED_LENGTH_WEIGHT, collapse_edges, stretch_importance
from hand_lib.mesh.topology import boundary_loops, euler_characteristic, unique_edges
from hand_lib.mesh.upsample import barycentric_upsampling

UNSEEN_SEED = 987
"""Seed of the poses on which round trips are measured; the fit uses another."""


def open_surface(source: str = "builtin", n_poses: int = 1000, factors=(2, 2, 2, 2)):
    """Hierarchy and unseen poses of a hand model, or of a mesh file, whose one pose is its own.

    source: "builtin", a MANO .pkl or .npz, or a mesh file that trimesh reads.
    returns a ``MeshHierarchy`` and poses (P, V, 3) in the unit of the mesh.
    """
    from hand_lib.hand.model import HandModel

    if source == "builtin":
        model = HandModel.builtin()
    else:
        path = Path(source) if Path(source).is_absolute() else ROOT / source
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; source is 'builtin', a MANO .pkl or .npz, or a mesh file"
            )
        if path.suffix not in (".pkl", ".npz"):
            import trimesh

            mesh = trimesh.load(path, process=False, force="mesh")
            hierarchy = build_hierarchy(mesh, factors=factors)
            return hierarchy, hierarchy.vertices[0][None]
        model = HandModel.from_mano(path)
    return builtin_hierarchy(model, factors), posed_vertices(model, n_poses, UNSEEN_SEED)


def collapse_order(hierarchy: MeshHierarchy, poses) -> np.ndarray:
    """The collapses (n, 2), rows (kept, removed), from the finest level to the coarsest size."""
    vertices, faces = hierarchy.vertices[0], hierarchy.faces[0]
    importance = stretch_importance(faces, poses)
    return collapse_edges(vertices, faces, hierarchy.sizes[-1], importance, POSED_LENGTH_WEIGHT)


def with_barycentric(hierarchy: MeshHierarchy) -> MeshHierarchy:
    """The same levels with closest-point weights, as psbody-mesh would give them."""
    fine, coarse = hierarchy.vertices[:-1], hierarchy.vertices[1:]
    levels = zip(fine, coarse, hierarchy.faces[1:], strict=True)
    up = [barycentric_upsampling(x, v, f) for x, v, f in levels]
    return replace(hierarchy, up=up, method="barycentric", key="")


def topology_table(hierarchy: MeshHierarchy) -> str:
    """Vertices, edges, faces, V - E + F and the rim of every level as text."""
    lines = ["level  vertices  edges  faces  V-E+F  borders  rim vertices"]
    for i, (v, f) in enumerate(zip(hierarchy.vertices, hierarchy.faces, strict=True)):
        loops = boundary_loops(f)
        rim = "+".join(str(len(loop)) for loop in loops) or "-"
        numbers = f"{i:5d}{len(v):10d}{len(unique_edges(f)):7d}{len(f):7d}"
        lines.append(f"{numbers}{euler_characteristic(f):7d}{len(loops):9d}{rim:>14s}")
    return "\n".join(lines)
