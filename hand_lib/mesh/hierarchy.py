"""Levels of one mesh from fine to coarse, and the sparse matrices that lead down and up.

Going down selects vertices (``simplify``), going up combines them (``upsample``). Any clean
triangle mesh will do, open or closed. A ``MeshHierarchy`` is built, or read from our own ``.npz``
or HandMesh's ``transform.pkl``, and saved as the former.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from hand_lib.files import written_atomically
from hand_lib.mesh.pickles import read_transform
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import as_mesh_arrays, check_mesh, closest_point_on_mesh

FORMAT = 1
"""Version of the saved files."""
PARTS = ("data", "indices", "indptr", "shape")
"""What is saved of a matrix."""
RECIPE = 3
"""Version of how a hierarchy is built, part of every key: raise it with any change of ``simplify``
or ``upsample`` that gives other matrices."""


@dataclass(frozen=True, eq=False)
class MeshHierarchy:
    """Levels 0 (finest) to L of one mesh, with matrices between neighbouring levels.

    vertices: list of (V_i, 3), unit and frame of the mesh given.   faces: list of (F_i, 3) int64.
    down[i]: CSR (V_{i+1}, V_i) 0/1 selection.   up[i]: CSR (V_i, V_{i+1}).   i = 0 .. L - 1
    factors: decimation factors.   method: how `up` was made.   key: hash of what it was built from.
    """

    vertices: list[np.ndarray]
    faces: list[np.ndarray]
    down: list[csr_matrix]
    up: list[csr_matrix]
    factors: tuple[float, ...] = ()
    method: str = "fitted"
    key: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of vertices per level, finest first."""
        return tuple(len(v) for v in self.vertices)

    def spirals(self, length: int = 27, dilation: int = 1) -> list[np.ndarray]:
        """Spiral sequences of every level, finest first: list of (V_i, length) int64."""
        pairs = zip(self.vertices, self.faces, strict=True)
        return [extract_spirals(v, f, length, dilation) for v, f in pairs]

    def kept(self, level: int) -> np.ndarray:
        """(V_level,) indices of a level's vertices among those of level 0."""
        indices = np.arange(len(self.vertices[0]))
        for matrix in self.down[:level]:
            indices = indices[matrix.indices]
        return indices

    def round_trip(self, vertices: np.ndarray, level: int = -1) -> np.ndarray:
        """Meshes carried down to a level and back up.

        vertices: (..., V0, 3).   level: 0 to L, negative counts from the coarsest.
        returns (..., V0, 3) in the same unit and frame.
        """
        vertices = np.asarray(vertices, dtype=np.float64)
        if vertices.shape[-2:] != (len(self.vertices[0]), 3):
            raise ValueError(
                f"expected vertices (..., {len(self.vertices[0])}, 3), found {vertices.shape}"
            )
        level = range(len(self.vertices))[level]
        vertex_first = np.moveaxis(vertices, -2, 0)
        values = vertex_first[self.kept(level)].reshape(self.sizes[level], -1)
        for matrix in self.up[:level][::-1]:
            values = matrix @ values
        return np.moveaxis(values.reshape(vertex_first.shape), 0, -2)

    def round_trip_error(self, vertices: np.ndarray, level: int = -1) -> np.ndarray:
        """Distance of every vertex from its round trip: (..., V0, 3) -> (..., V0), same unit."""
        return np.linalg.norm(self.round_trip(vertices, level) - vertices, axis=-1)

    def quality(self) -> dict:
        """Laws of the matrices in numbers.

        returns row_sum (min, max) and weight (min, max) over all `up`, most non-zeros in a row, and
        template_error: per depth 1 .. L the (mean, max) round-trip error of level 0, its unit.
        """
        sums = np.concatenate([np.asarray(u.sum(axis=1)).ravel() for u in self.up])
        weights = np.concatenate([u.data for u in self.up])
        errors = [self.round_trip_error(self.vertices[0], i + 1) for i in range(len(self.up))]
        return {
            "row_sum": (float(sums.min()), float(sums.max())),
            "weight": (float(weights.min()), float(weights.max())),
            "nonzeros_per_row": max(int((u != 0).sum(axis=1).max()) for u in self.up),
            "template_error": [(float(e.mean()), float(e.max())) for e in errors],
        }

    def save(self, path) -> Path:
        """Write a ``.npz`` that ``load_hierarchy`` reads back bit for bit."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: a hierarchy is saved as .npz, found suffix {path.suffix!r}")
        arrays = {"format": FORMAT, "method": self.method, "key": self.key}
        arrays["factors"] = np.array(self.factors, dtype=np.float64)
        for i, (v, f) in enumerate(zip(self.vertices, self.faces, strict=True)):
            arrays[f"vertices_{i}"], arrays[f"faces_{i}"] = v, f
        for name, matrices in (("down", self.down), ("up", self.up)):
            for i, m in enumerate(matrices):
                for part in PARTS:
                    arrays[f"{name}_{i}_{part}"] = np.asarray(getattr(m, part))
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return path


def build_hierarchy(
    vertices, faces=None, factors=(2, 2, 2, 2), poses=None, method="fitted", backend="native"
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
    from hand_lib.mesh import simplify, upsample  # who reads a hierarchy waits for no Numba

    vertices, faces = as_mesh_arrays(vertices, faces)
    check_mesh(vertices, faces)
    for name, value, known in (
        ("method", method, ("fitted", "barycentric")), ("backend", backend, ("native", "psbody"))
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name} should be one of {known}, found {value!r}")
    nearest = closest_point_on_mesh if backend == "native" else upsample.psbody_closest_point()
    sizes, posed, importance = level_sizes(len(vertices), factors), None, None
    if poses is not None:
        poses = np.asarray(poses)
        if poses.ndim != 3 or poses.shape[1:] != vertices.shape or len(poses) == 0:
            raise ValueError(f"poses should be (P, {len(vertices)}, 3), found {poses.shape}")
        bad = ~np.isfinite(poses).all(axis=(1, 2))
        if bad.any():
            raise ValueError(f"poses[{bad.argmax()}] is not finite")
        # centred first: single precision then resolves a hand at any distance
        centred = poses - poses.mean(axis=1, keepdims=True)
        posed = np.moveaxis(centred, 0, 1).astype(np.float32, order="C")
        importance = simplify.stretch_importance(faces, poses)
    collapses = simplify.collapse_edges(vertices, faces, sizes[-1], importance)
    reached = len(vertices) - len(collapses)
    if reached > sizes[-1]:
        level = next(i for i, size in enumerate(sizes) if size < reached)
        raise ValueError(
            f"level {level} would have {sizes[level]} of {len(vertices)} vertices, but a mesh of "
            f"this topology cannot go below {reached}: use fewer or smaller factors than {factors}"
        )
    kept, meshes, down, up = np.arange(len(vertices)), [(vertices, faces)], [], []
    for size in sizes[1:]:
        order = collapses[: len(vertices) - size]
        now, coarse = simplify.apply_collapses(len(vertices), faces, order)
        selected = np.searchsorted(kept, now)
        meshes.append((vertices[now], np.searchsorted(now, coarse)))
        starts = np.arange(size + 1)
        down.append(csr_matrix((np.ones(size), selected, starts), shape=(size, len(kept))))
        if method == "fitted":
            up.append(upsample.fitted_upsampling(*meshes[-2], selected, posed))
        else:
            up.append(upsample.barycentric_upsampling(meshes[-2][0], *meshes[-1], nearest))
        posed = None if posed is None else posed[selected]
        kept = now
    key = content_key(vertices, faces, factors, method, poses)
    levels = map(list, zip(*meshes, strict=True))
    return MeshHierarchy(*levels, down, up, tuple(map(float, factors)), method, key)


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


def content_key(*parts) -> str:
    """Hash of arrays and settings, and of the way in which a hierarchy is built from them."""
    digest = hashlib.sha256()
    for part in (*parts, RECIPE):
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def load_hierarchy(path) -> MeshHierarchy:
    """Read a hierarchy of ours (``.npz``) or HandMesh's ``transform.pkl``, numbers untouched.

    A warning states the quality of a transform.pkl's matrices whose rows do not sum to one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such hierarchy; make one with build_hierarchy(vertices, faces).save(path),"
            " or copy transform.pkl there from the template folder of the HandMesh repository"
        )
    if path.suffix == ".npz":
        return _read_npz(path)
    hierarchy = MeshHierarchy(*read_transform(path))
    quality = hierarchy.quality()
    (low, high), (mean, most) = quality["row_sum"], quality["template_error"][-1]
    if max(abs(low - 1), abs(high - 1)) > 1e-4:
        warnings.warn(
            f"{path}: rows of the up-sampling matrices sum to {low:.3f} .. {high:.3f} instead of "
            "1, so results change when a mesh is moved; its own template comes back from the "
            f"coarsest level {mean:.2g} off in the mean, {most:.2g} at most (its unit)",
            stacklevel=2,
        )
    return hierarchy


def _read_npz(path) -> MeshHierarchy:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {arrays['format']}, this version reads {FORMAT}")
        factors, found = tuple(arrays["factors"].tolist()), {}
        for name in ("vertices", "faces"):
            found[name] = [arrays[f"{name}_{i}"] for i in range(len(factors) + 1)]
        for name in ("down", "up"):
            parts = [[arrays[f"{name}_{i}_{part}"] for part in PARTS] for i in range(len(factors))]
            found[name] = [csr_matrix(tuple(p), shape=tuple(shape)) for *p, shape in parts]
        return MeshHierarchy(
            **found, factors=factors, method=str(arrays["method"]), key=str(arrays["key"])
        )
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: not a saved hierarchy ({error}); build_hierarchy(...).save(path) makes one"
        ) from error
