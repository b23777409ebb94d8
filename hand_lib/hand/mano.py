"""MANO's arrays: read safely from .pkl or .npz, checked whole, mirrored, written back."""

import pickle
import zipfile
from pathlib import Path

import numpy as np

from hand_lib import ROOT
from hand_lib.hand.joints import MANO_PARENTS
from hand_lib.mesh.pickles import load_pickle_safely

MANO_SHAPES = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "shapedirs": ("V", 3, 10),
    "posedirs": ("V", 3, 135),
    "J_regressor": (16, "V"),
    "weights": ("V", 16),
    "kintree_table": (2, 16),
    "hands_mean": (45,),
    "hands_components": (45, 45),
}
"""Every array a hand model must have. V is 778."""

VERTICES = 778

MISSING_MANO = """no MANO model at {path}.
MANO is licensed by the Max Planck Institute for Intelligent Systems and cannot be shipped here.
Register at https://mano.is.tue.mpg.de, accept its licence, download "Models & Code", and copy
MANO_RIGHT.pkl (and MANO_LEFT.pkl, if you need it) from its models folder to {folder}.
The built-in hand needs none of this: HandModel.builtin()."""


def builtin_path() -> Path:
    """Where the built-in hand's arrays lie, or a FileNotFoundError."""
    path = ROOT / "template" / "hand.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; it belongs to the repository: git checkout -- template/hand.npz, "
            "or 'python -m template.build' builds it again"
        )
    return path


def read_mano(path) -> dict[str, np.ndarray]:
    """Read and check a hand model with MANO's arrays.

    path: MANO_RIGHT.pkl, MANO_LEFT.pkl or an .npz of the same arrays.
    returns the arrays of ``MANO_SHAPES`` as float64 and int64 (metres; the root's parent is -1),
    and ``fingertips`` (5,) where the file has it.
    raises FileNotFoundError saying where MANO comes from, or ValueError naming file and array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(MISSING_MANO.format(path=path, folder=ROOT.name + "/template/"))
    if path.suffix != ".npz":
        data = load_pickle_safely(path)
    else:
        try:
            with np.load(path, allow_pickle=False) as archive:
                data = {key: archive[key] for key in {*MANO_SHAPES, "fingertips"} & {*archive}}
        except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: is not a readable .npz file ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds a {type(data).__name__}, expected MANO's dictionary")
    return check_arrays(data, str(path))


def check_arrays(data: dict, name: str) -> dict[str, np.ndarray]:
    """Check shapes, number types, finiteness and indices of MANO's arrays; sparse becomes dense."""
    arrays, known = {}, {"fingertips": (5,)} if "fingertips" in data else {}
    for key, pattern in (MANO_SHAPES | known).items():
        if key not in data:
            raise ValueError(f"{name}: array {key!r} is missing; a hand model has {[*MANO_SHAPES]}")
        value = data[key]
        shape = tuple(getattr(value, "shape", ()))
        sizes = {"V": VERTICES, "F": shape[0] if shape else 0}
        expected = tuple(sizes.get(n, n) for n in pattern)
        if shape != expected:
            raise ValueError(f"{name}: {key} should have shape {expected}, found {shape}")
        value = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        whole = key in ("f", "kintree_table", "fingertips")
        if value.dtype.kind not in ("iu" if whole else "fiu"):
            kind = "whole numbers" if whole else "numbers"
            raise ValueError(f"{name}: {key} should hold {kind}, found {value.dtype}")
        if not np.isfinite(value).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
            raise ValueError(f"{name}: {key} is not finite at {index}")
        arrays[key] = np.ascontiguousarray(value, np.int64 if whole else np.float64)
    parents = arrays["kintree_table"][0]
    parents[0] = -1  # MANO stores the root's parent as the largest uint32
    if (parents != MANO_PARENTS).any():
        raise ValueError(f"{name}: kintree_table should hold {MANO_PARENTS}, found {parents}")
    for key in ("f", *known):
        ids = arrays[key]
        if not ids.size or ids.min() < 0 or ids.max() >= VERTICES:
            raise ValueError(f"{name}: {key} should hold vertex ids below {VERTICES}, found {ids}")
    for key, rows in (("weights", "vertex"), ("J_regressor", "joint")):
        sums = arrays[key].sum(1)
        if np.abs(sums - 1).max() > 1e-3:
            row = int(np.abs(sums - 1).argmax())
            raise ValueError(f"{name}: {key} of {rows} {row} sum to {sums[row]:.6g}, expected 1")
    reach = np.abs(arrays["v_template"]).max()
    if reach > 1.0:
        raise ValueError(f"{name}: v_template reaches {reach:.4g}; expected metres, below 1")
    return arrays


def mirror_arrays(arrays: dict) -> dict[str, np.ndarray]:
    """The other hand: x negated, faces turned round, rotations conjugated by the mirror.

    With M = diag(-1, 1, 1) the result at pose (x, -y, -z) is M times the model at (x, y, z).
    """
    mirrored = {key: value.copy() for key, value in arrays.items()}
    for key in ("v_template", "shapedirs", "posedirs"):
        mirrored[key][:, 0] *= -1
    signs = np.array([-1.0, 1.0, 1.0])
    mirrored["posedirs"] *= np.tile(np.outer(signs, signs).reshape(9), 15)
    for key in ("hands_mean", "hands_components"):
        mirrored[key] *= np.tile(-signs, 15)
    mirrored["f"] = np.ascontiguousarray(mirrored["f"][:, ::-1])
    return mirrored


def left_shape_is_wrong(left: dict) -> bool:
    """Whether a left hand's shape directions have the sign error of the official MANO_LEFT.

    There ``shapedirs[:, 0, :]`` has the sign of the right hand's (vchoutas/smplx, issue 48): the
    direction that scales the hand most does not grow x, y and z together.
    """
    centred = left["v_template"] - left["v_template"].mean(0)
    growth = np.einsum("vak,va->ak", left["shapedirs"], centred)  # (3, 10)
    scaling = growth[:, np.abs(growth[1:].sum(0)).argmax()]
    return bool(scaling[0] * scaling[1:].sum() < 0)


def write_mano(path, arrays: dict) -> Path:
    """Write arrays as smplx's MANO class reads them.   path: ending in .npz or .pkl."""
    path = Path(path)
    table = arrays["kintree_table"].copy()
    table[0, 0] = 2**32 - 1
    data = arrays | {
        "kintree_table": table, "f": arrays["f"].astype(np.uint32),
        "J": arrays["J_regressor"] @ arrays["v_template"], "hands_coeffs": np.zeros((1, 45)),
        "bs_style": "lbs", "bs_type": "lrotmin",
    }  # fmt: skip
    if path.suffix not in (".npz", ".pkl"):
        raise ValueError(f"{path}: expected a name ending in .npz or .pkl, found {path.suffix!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **data)
    else:  # with the module path that NumPy 1 and 2 both know
        now, before = (b"cnumpy.%score.multiarray\n" % part for part in (b"_", b""))
        path.write_bytes(pickle.dumps(data, protocol=3).replace(now, before, 1))
    return path
