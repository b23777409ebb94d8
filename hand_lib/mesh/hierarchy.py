"""Levels of one mesh with the matrices between them: what they are and how they are stored.

``MeshHierarchy`` is built by ``sampling.build_hierarchy``, read here from our own ``.npz`` or from
HandMesh's ``transform.pkl``, and saved as the former.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from hand_lib.mesh.pickles import load_pickle_safely
from hand_lib.mesh.spirals import extract_spirals

FORMAT = 1
"""Version of the saved files; part of every cache key."""


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
        values = np.moveaxis(vertices, -2, 0)[self.kept(level)]
        shape = values.shape[1:]
        values = values.reshape(len(values), -1)
        for matrix in self.up[:level][::-1]:
            values = matrix @ values
        return np.moveaxis(values.reshape(-1, *shape), 0, -2)

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
        """Write a ``.npz`` that ``load_hierarchy`` reads back bit for bit; appears by renaming."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: a hierarchy is saved as .npz, found suffix {path.suffix!r}")
        arrays = {
            "format": np.array(FORMAT),
            "factors": np.array(self.factors, dtype=np.float64),
            "method": np.array(self.method),
            "key": np.array(self.key),
        }
        for i, (v, f) in enumerate(zip(self.vertices, self.faces, strict=True)):
            arrays[f"vertices_{i}"], arrays[f"faces_{i}"] = v, f
        for name, matrices in (("down", self.down), ("up", self.up)):
            for i, m in enumerate(matrices):
                for part in ("data", "indices", "indptr", "shape"):
                    arrays[f"{name}_{i}_{part}"] = np.asarray(getattr(m, part))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
        np.savez_compressed(partial, **arrays)
        partial.replace(path)
        return path


def load_hierarchy(path) -> MeshHierarchy:
    """Read a hierarchy of ours (``.npz``) or HandMesh's ``transform.pkl``, numbers untouched.

    A warning states the quality of matrices whose rows do not sum to one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such hierarchy; make one with build_hierarchy(vertices, faces).save(path),"
            " or copy transform.pkl there from the template folder of the HandMesh repository"
        )
    hierarchy = _read_npz(path) if path.suffix == ".npz" else _read_transform(path)
    quality = hierarchy.quality()
    if max(abs(s - 1) for s in quality["row_sum"]) > 1e-4:
        mean, most = quality["template_error"][-1]
        warnings.warn(
            f"{path}: rows of the up-sampling matrices sum to {quality['row_sum'][0]:.3f} .. "
            f"{quality['row_sum'][1]:.3f} instead of 1, so results change when a mesh is moved; "
            f"its own template comes back from the coarsest level {1e3 * mean:.2f} mm off in the "
            f"mean, {1e3 * most:.2f} mm at most (if in metres)",
            stacklevel=2,
        )
    return hierarchy


def _read_npz(path) -> MeshHierarchy:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {arrays['format']}, this version reads {FORMAT}")
        n = len(arrays["factors"])
        vertices, faces = (
            [arrays[f"{k}_{i}"] for i in range(n + 1)] for k in ("vertices", "faces")
        )
        down, up = (
            [
                csr_matrix(
                    tuple(arrays[f"{name}_{i}_{part}"] for part in ("data", "indices", "indptr")),
                    shape=tuple(arrays[f"{name}_{i}_shape"]),
                )
                for i in range(n)
            ]
            for name in ("down", "up")
        )
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: not a saved hierarchy ({error}); make one with "
            "build_hierarchy(...).save(path)"
        ) from error
    factors = tuple(arrays["factors"].tolist())
    return MeshHierarchy(
        vertices, faces, down, up, factors, str(arrays["method"]), str(arrays["key"])
    )


def _read_transform(path) -> MeshHierarchy:
    content = load_pickle_safely(path)
    names = ("vertices", "face", "down_transform", "up_transform")
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing:
        raise ValueError(
            f"{path}: not a transform.pkl, it has no {', '.join(missing)}; "
            f"expected a dict with {', '.join(names)}"
        )
    vertices = [np.asarray(v) for v in content["vertices"]]
    faces = [np.asarray(f).astype(np.int64) for f in content["face"]]
    down, up = ([csr_matrix(m) for m in content[n]] for n in names[2:])
    sizes = [len(v) for v in vertices]
    for i, (d, u) in enumerate(zip(down, up, strict=True)):
        if u.shape != (sizes[i], sizes[i + 1]) or d.shape != u.shape[::-1]:
            raise ValueError(
                f"{path}: matrices {i} should join {sizes[i]} and {sizes[i + 1]} vertices, "
                f"found down {d.shape} and up {u.shape}"
            )
    factors = tuple(a / b for a, b in zip(sizes, sizes[1:], strict=False))
    return MeshHierarchy(vertices, faces, down, up, factors, "transform.pkl", "")
