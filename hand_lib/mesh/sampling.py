"""Mesh hierarchies: levels from fine to coarse and the sparse matrices that lead down and up.

Going down selects vertices (``decimation``), going up combines them (``upsampling``); the result
is a ``MeshHierarchy`` (``hierarchy``). Any clean triangle mesh will do, open or closed.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from hand_lib import ROOT
from hand_lib.mesh import simplify as decimation
from hand_lib.mesh import upsample as upsampling
from hand_lib.mesh.hierarchy import FORMAT, MeshHierarchy, load_hierarchy
from hand_lib.mesh.simplify import apply_collapses, collapse_edges, stretch_importance
from hand_lib.mesh.topology import as_mesh_arrays, check_mesh, closest_point_on_mesh
from hand_lib.mesh.upsample import barycentric_upsampling, fitted_upsampling

__all__ = [
    "MeshHierarchy", "build_hierarchy", "builtin_hierarchy", "level_sizes", "load_hierarchy",
    "posed_vertices", "psbody_closest_point",
]  # fmt: skip

METHODS = ("fitted", "barycentric")
BACKENDS = ("native", "psbody")
FIT_POSES, FIT_SEED = 200, 0
"""Sampled poses on which a hand model's up-sampling weights are fitted."""


def build_hierarchy(
    vertices,
    faces=None,
    factors=(2, 2, 2, 2),
    poses=None,
    method: str = "fitted",
    backend: str = "native",
) -> MeshHierarchy:
    """Decimate a mesh level by level and make the matrices between the levels.

    vertices: (V, 3) with faces (F, 3), or one mesh object with .v and .f or .vertices and .faces.
    factors: level i + 1 has ceil(V_i / factor) vertices, all of them vertices of level i.
    poses: (P, V, 3) or None, posed meshes on which the fitted weights err least.
    method: "fitted" or "barycentric" (closest point on the coarse surface).
    backend: "native", or "psbody" to let psbody-mesh find those closest points.

    >>> h = build_hierarchy(hand.vertices, hand.faces)              # doctest: +SKIP
    >>> h.sizes                                                      # doctest: +SKIP
    (778, 389, 195, 98, 49)
    """
    vertices, faces = as_mesh_arrays(vertices, faces)
    check_mesh(vertices, faces)
    if method not in METHODS:
        raise ValueError(f"method should be one of {METHODS}, found {method!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend should be one of {BACKENDS}, found {backend!r}")
    nearest = closest_point_on_mesh if backend == "native" else psbody_closest_point()
    poses = _checked_poses(poses, vertices)
    posed = None
    if poses is not None:  # centred first: single precision then resolves a hand at any distance
        centred = poses - poses.mean(axis=1, keepdims=True)
        posed = np.moveaxis(centred, 0, 1).astype(np.float32, order="C")
    sizes = level_sizes(len(vertices), factors)
    if poses is None:
        collapses = collapse_edges(vertices, faces, sizes[-1])
    else:
        importance = stretch_importance(faces, poses)
        collapses = collapse_edges(
            vertices, faces, sizes[-1], importance, decimation.POSED_LENGTH_WEIGHT
        )
    reached = len(vertices) - len(collapses)
    if reached > sizes[-1]:
        level = next(i for i, size in enumerate(sizes) if size < reached)
        raise ValueError(
            f"level {level} would have {sizes[level]} of {len(vertices)} vertices, but a mesh of "
            f"this topology cannot go below {reached}: use fewer or smaller factors than {factors}"
        )
    kept, levels = np.arange(len(vertices)), [faces]
    all_vertices, down, up = [vertices], [], []
    for size in sizes[1:]:
        now, coarse = apply_collapses(len(vertices), faces, collapses[: len(vertices) - size])
        selected = np.searchsorted(kept, now)
        coarse = np.searchsorted(now, coarse)
        fine_vertices, coarse_vertices = all_vertices[-1], vertices[now]
        starts = np.arange(size + 1)
        down.append(csr_matrix((np.ones(size), selected, starts), shape=(size, len(kept))))
        if method == "fitted":
            up.append(fitted_upsampling(fine_vertices, levels[-1], selected, posed))
        else:
            up.append(barycentric_upsampling(fine_vertices, coarse_vertices, coarse, nearest))
        posed = None if posed is None else posed[selected]
        all_vertices.append(coarse_vertices)
        levels.append(coarse)
        kept = now
    key = _content_key(vertices, faces, factors, method, poses)
    return MeshHierarchy(all_vertices, levels, down, up, tuple(map(float, factors)), method, key)


def builtin_hierarchy(
    model=None, factors=(2, 2, 2, 2), method: str = "fitted", folder=None
) -> MeshHierarchy:
    """Hierarchy of a hand model, its weights fitted on sampled poses; made once, then read.

    model: a right ``HandModel``, None for the built-in one.   factors, method: as in
    ``build_hierarchy``.   folder: where caches lie (default: the workbook's template folder). A
    cache is named and checked by a hash of the model's arrays and all settings: others never fit.
    """
    from hand_lib.hand.model import HandModel

    model = model or HandModel.builtin()
    state = {name: np.asarray(value.cpu()) for name, value in model.state_dict().items()}
    parts = [part for item in sorted(state.items()) for part in item]
    factors = tuple(map(float, factors))
    key = _content_key(*parts, model.flat_mean, factors, method, FIT_POSES, FIT_SEED)
    path = Path(folder or ROOT / "template") / f"hierarchy_{key[:16]}.npz"
    if path.is_file():
        try:
            hierarchy = load_hierarchy(path)
            if hierarchy.key == key:
                return hierarchy
        except ValueError:
            pass  # a damaged cache is made again
    vertices = np.asarray(model.vertices.cpu(), dtype=np.float64)
    poses = posed_vertices(model, FIT_POSES, FIT_SEED)
    hierarchy = build_hierarchy(vertices, np.asarray(model.faces.cpu()), factors, poses, method)
    hierarchy = replace(hierarchy, key=key)
    try:
        hierarchy.save(path)
    except OSError:
        pass  # a read-only checkout builds it each time
    return hierarchy


def posed_vertices(model, n: int, seed: int = 0) -> np.ndarray:
    """(n, V, 3) float32 metres: a hand model in sampled poses, its wrist unturned."""
    import torch

    poses = model.sample_poses(n, np.random.default_rng(seed))
    with torch.no_grad():
        return model(torch.from_numpy(poses).to(model.template)).vertices.cpu().numpy().astype(
            np.float32
        )


def level_sizes(n_vertices: int, factors) -> list[int]:
    """Vertices per level: ceil(n / factor) again and again, the finest included.

    >>> level_sizes(778, (2, 2, 2, 2))
    [778, 389, 195, 98, 49]
    """
    sizes = [n_vertices]
    for i, factor in enumerate(factors):
        if not (np.isfinite(factor) and factor >= 1):
            raise ValueError(f"factors[{i}] should be a number of at least 1, found {factor!r}")
        sizes.append(int(np.ceil(sizes[-1] / factor)))
        if sizes[-1] < 3:
            raise ValueError(
                f"factors[{i}] leaves {sizes[-1]} of {n_vertices} vertices, a mesh needs 3: "
                f"use fewer or smaller factors than {tuple(factors)}"
            )
    if len(sizes) == 1:
        raise ValueError("factors should name at least one level, found none")
    return sizes


def _checked_poses(poses, vertices):
    if poses is None:
        return None
    poses = np.asarray(poses)
    if poses.ndim != 3 or poses.shape[1:] != vertices.shape or len(poses) == 0:
        raise ValueError(f"poses should be (P, {len(vertices)}, 3), found {poses.shape}")
    bad = ~np.isfinite(poses).all(axis=(1, 2))
    if bad.any():
        raise ValueError(f"poses[{bad.argmax()}] is not finite")
    return poses


def _content_key(*parts) -> str:
    """Hash of arrays and settings, with the constants of the algorithms."""
    digest = hashlib.sha256()
    constants = (
        FORMAT,
        decimation.LENGTH_WEIGHT,
        decimation.POSED_LENGTH_WEIGHT,
        decimation.BOUNDARY_WEIGHT,
        decimation.STRETCH_POWER,
        decimation.STRETCH_POSES,
        decimation.PASSES.tolist(),
        upsampling.STENCIL,
        upsampling.CANDIDATES,
        upsampling.RIDGE,
    )
    for part in (*parts, constants):
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def psbody_closest_point():
    """psbody-mesh's AABB tree behind the signature of ``geometry.closest_point_on_mesh``."""
    try:
        from psbody.mesh import Mesh
    except ImportError as error:
        raise ImportError(
            'backend="psbody" needs psbody-mesh, which is not importable here; install it with '
            '"pip install git+https://github.com/MPI-IS/mesh.git" (needs a C++ compiler and Boost),'
            ' or leave backend="native", which needs nothing and gives the same matrices'
        ) from error

    def nearest(points, vertices, faces):
        tree = Mesh(v=vertices, f=faces.astype(np.uint32)).compute_aabb_tree()
        face, _, nearest_points = tree.nearest(points, True)
        face = np.asarray(face).ravel().astype(np.int64)
        a, b, c = (vertices[faces[face, i]] for i in range(3))
        edges = np.stack([b - a, c - a], axis=2)
        vw = (np.linalg.pinv(edges) @ (nearest_points - a)[:, :, None])[:, :, 0]
        barycentric = np.clip(np.column_stack([1 - vw.sum(axis=1), vw]), 0, 1)
        barycentric /= barycentric.sum(axis=1, keepdims=True)
        distance = np.linalg.norm(points - nearest_points, axis=1)
        return face, barycentric, nearest_points, distance

    return nearest
