"""The pickles of this field (MANO, HandMesh's ``transform.pkl``), read without running anything.

A pickle is a program that may call whatever it can import. Here Python's unpickler finds none of
it: what a file asks for is only written down (``_Told``) and, where it is one of the few things a
hand model is made of, made by ``_Maker`` once all is read. chumpy and old SciPy are not needed.
"""

import io
import math
import pickle
import pickletools
import re
from pathlib import Path

import numpy as np
from scipy import sparse

MAX_BYTES = 256 << 20
_MAX_STEPS, _MAX_DEPTH, _MAX_SPARSE_SIDE = 100_000, 50, 10_000_000
_READABLE = {
    "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy.core.numeric._frombuffer", "collections.OrderedDict",
    "builtins.set", "builtins.frozenset", "builtins.object", "builtins.bytes", "_codecs.encode",
    "copyreg._reconstructor", "chumpy.ch.Ch", "chumpy.reordering.Select",
    *(f"scipy.sparse.{place}.{kind}_{form}" for kind in ("csc", "csr", "coo")
      for place in (kind, f"_{kind}", "_arrays") for form in ("matrix", "array")),
}  # fmt: skip
"""All that a pickle may name, as new modules call it; ``numpy._core`` and Python 2's names too."""
_TODAY = {"numpy._core.": "numpy.core.", "__builtin__.": "builtins.", "copy_reg.": "copyreg."}


def load_pickle_safely(path):
    """Read a pickle of arrays, lists, dicts, texts and numbers; run nothing that is in it.

    path: a MANO or HandMesh pickle of any protocol, written by Python 2 or 3.
    returns the object inside: arrays as NumPy arrays, sparse matrices as SciPy's, chumpy values as
    the arrays they stand for.
    raises FileNotFoundError, or ValueError naming the file and what is wrong with it. A file that
    asks for anything else is refused with that name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(
            f"{path}: {size} bytes, more than any hand model has (at most {MAX_BYTES}); "
            f"check that this is the right file"
        )
    return loads_safely(path.read_bytes(), str(path))


def loads_safely(data: bytes, name: str = "pickle"):
    """The same for bytes in memory; ``name`` stands in for the file in errors."""
    try:
        for step, _ in enumerate(pickletools.genops(data)):
            if step >= _MAX_STEPS:
                raise _Refusal(f"has over {_MAX_STEPS} instructions; a hand model has hundreds")
        told = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        return _Maker(len(data)).make(told)
    except _Refusal as refusal:
        raise ValueError(f"{name}: {refusal}") from None
    except Exception as error:  # a malformed pickle makes Python's own code raise anything
        found = f"{type(error).__name__}: {str(error)[:120]}"
        raise ValueError(f"{name}: is no pickle, a damaged one or not a hand's ({found})") from None


def read_transform(path) -> tuple:
    """HandMesh's ``transform.pkl`` with its own numbers, its matrices checked against its meshes.

    returns lists of vertices (V_i, 3), faces (F_i, 3), down (V_{i+1}, V_i) and up (V_i, V_{i+1}),
    finest level first, then the factors between levels and the words "transform.pkl".
    """
    content = load_pickle_safely(path)
    names = ("vertices", "face", "down_transform", "up_transform")
    missing = [n for n in names if not isinstance(content, dict) or n not in content]
    if missing:
        raise ValueError(
            f"{path}: not a transform.pkl, it has no {', '.join(missing)}; "
            f"expected a dict with {', '.join(names)}"
        )
    vertices, faces, *matrices = found = [content[name] for name in names]
    good = all(isinstance(part, list | tuple) for part in found)
    good = good and all(getattr(array, "shape", ())[1:] == (3,) for array in (*vertices, *faces))
    if not good or not all(hasattr(matrix, "shape") for some in matrices for matrix in some):
        raise ValueError(
            f"{path}: {', '.join(names)} should be lists of arrays (V, 3), (F, 3) and of matrices"
        )
    down, up = ([sparse.csr_matrix(matrix) for matrix in some] for some in matrices)
    sizes = [len(v) for v in vertices]
    for i, (d, u) in enumerate(zip(down, up, strict=True)):
        if u.shape != (sizes[i], sizes[i + 1]) or d.shape != u.shape[::-1]:
            raise ValueError(
                f"{path}: matrices {i} should join {sizes[i]} and {sizes[i + 1]} vertices, "
                f"found down {d.shape} and up {u.shape}"
            )
    factors = tuple(a / b for a, b in zip(sizes, sizes[1:], strict=False))
    return vertices, [f.astype(np.int64) for f in faces], down, up, factors, "transform.pkl"


class _Refusal(Exception):
    pass


class _Told:
    """Something that a pickle calls or makes: only written down."""

    def __new__(cls, *args):
        told = super().__new__(cls)
        told.args, told.state, told.items = args, None, []
        return told

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.items.append((key, value))


def _plain(keys):
    """The keys, if hashing them is no work: a nest of tuples can take for ever."""
    for key in keys:
        if type(key) not in (str, bytes, int):
            raise _Refusal(f"has a {type(key).__name__} as the key of a dictionary or in a set")
    return keys


def _checked(instruction, part):
    load = pickle._Unpickler.dispatch[instruction[0]]

    def checked_load(self):
        _plain(self.stack[part])
        load(self)

    return checked_load


class _Unpickler(pickle._Unpickler):
    """Python's unpickler written in Python, which makes nothing but plain values and ``_Told``."""

    dispatch = pickle._Unpickler.dispatch | {
        pickle.SETITEM[0]: _checked(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _checked(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: _checked(pickle.DICT, slice(None, None, 2)),
        pickle.ADDITEMS[0]: _checked(pickle.ADDITEMS, slice(None)),
        pickle.FROZENSET[0]: _checked(pickle.FROZENSET, slice(None)),
    }

    def find_class(self, module, name):
        asked = today = f"{module}.{name}"
        for old, new in _TODAY.items():
            today = today.replace(old, new)
        if today not in _READABLE:
            raise _Refusal(
                f"asks for {asked[:200]!r}, which is refused: a hand model needs only numpy "
                f"arrays, scipy.sparse matrices, chumpy's Ch and Select, and sets. Nothing was run."
                f" If the file is yours, save its arrays with numpy.savez instead"
            )
        return type(name, (_Told,), {})

    def get_extension(self, code):
        raise _Refusal(f"uses number {code} of the extension registry, which is refused")


class _Maker:
    """Makes what was written down, each thing once, every declared size checked before."""

    def __init__(self, size: int):
        self.made, self.open, self.budget = {}, set(), 2 * size

    def make(self, value, depth: int = 0):
        if isinstance(value, type):
            raise _Refusal(f"stores {value.__name__} itself where a value belongs")
        if not isinstance(value, tuple | list | dict | _Told):
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        if id(value) in self.open or depth > _MAX_DEPTH:
            raise _Refusal("nests its values in a circle or too deeply")
        self.open.add(id(value))
        if isinstance(value, dict):
            result = {key: self.make(item, depth + 1) for key, item in value.items()}
        elif isinstance(value, _Told):
            args = [a if isinstance(a, type) else self.make(a, depth + 1) for a in value.args]
            state, items = (self.make(part, depth + 1) for part in (value.state, value.items))
            result = self.told(type(value).__name__, args, state, items)
        else:
            result = type(value)(self.make(item, depth + 1) for item in value)
        self.open.discard(id(value))
        return self.made.setdefault(id(value), result)

    def told(self, kind: str, args: list, state, items: list):
        """What a call or an instance stands for; kind: the last part of its name."""
        if kind == "_reconstructor":
            return self.told(args[0].__name__, [], state, items)
        if kind == "dtype":
            return _number_type(args[0], state)
        if kind == "_reconstruct":
            shape, dtype, fortran, content = state[-4:]
            return self.array(shape, dtype, content, "F" if fortran else "C")
        if kind == "_frombuffer":
            content, dtype, shape, order = args
            return self.array(shape, dtype, content, order)
        if kind == "scalar":
            return self.array((), *args, "C")[()]
        if kind == "encode":
            return args[0].encode("latin1")
        if kind in ("bytes", "set", "frozenset"):
            return set(_plain(args[0])) if kind != "bytes" else b""
        if kind == "OrderedDict":
            pairs = [*(args[0] if args else ()), *items]
            return dict(zip(_plain([key for key, _ in pairs]), [v for _, v in pairs], strict=True))
        if kind == "Ch":
            return _arrays(state, "x")[0]
        if kind == "Select":
            return self.selection(*_arrays(state, "a", "idxs"), state.get("preferred_shape"))
        if kind[:3] in ("csc", "csr", "coo"):
            return _sparse(kind[:3], state)
        raise _Refusal(f"calls {kind}, which a hand model never does; nothing was run")

    def array(self, shape, dtype, content, order: str) -> np.ndarray:
        """An array from its bytes, if there are as many as its shape needs."""
        content = content.encode("latin1") if isinstance(content, str) else content
        good = isinstance(dtype, np.dtype) and isinstance(content, bytes | bytearray)
        if not good or len(shape) > 8 or any(
            type(n) is not int or not 0 <= n < 2**40 for n in shape
        ):
            raise _Refusal("has an array that is not whole numbers for a shape, a type and bytes")
        wanted = dtype.itemsize * math.prod(shape)
        if wanted != len(content):
            raise _Refusal(
                f"has an array {shape} of {dtype} that needs {wanted} bytes and has {len(content)}"
            )
        self.spend(wanted)
        array = np.frombuffer(content, dtype).reshape(shape, order=order)
        return array.astype(dtype.newbyteorder("="))

    def selection(self, whole, indices, shape) -> np.ndarray:
        """chumpy's ``Select``: some values of an array, in a shape of their own."""
        whole, indices = whole.ravel(), indices.ravel()
        if indices.dtype.kind not in "iu" or not np.isin(indices, np.arange(len(whole))).all():
            raise _Refusal(f"has a chumpy selection outside its array of {len(whole)} values")
        self.spend(len(indices) * whole.itemsize)
        shape = shape.tolist() if isinstance(shape, np.ndarray) else shape
        return whole[indices].reshape(len(indices) if shape is None else shape)

    def spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise _Refusal("declares more array content than the file holds")


def _number_type(code: str, state) -> np.dtype:
    plain = state is None or state[2:5] == (None, None, None)
    if not plain or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,5}", code):
        raise _Refusal(f"has an array of type {code[:20]!r}; only plain numbers and text are read")
    return np.dtype(code).newbyteorder(state[1] if state else "=")


def _arrays(state: dict, *names: str) -> list[np.ndarray]:
    found = [state.get(name) for name in names]
    if not all(isinstance(array, np.ndarray) for array in found):
        raise _Refusal(f"should have the array{'s' * (len(names) > 1)} {', '.join(names)}")
    return found


def _sparse(kind: str, state: dict):
    """A sparse matrix whose own checks have passed."""
    shape = state.get("_shape")
    if type(shape) is not tuple or any(type(n) is not int or n > _MAX_SPARSE_SIDE for n in shape):
        raise _Refusal("has a sparse matrix without a sensible shape")
    if kind == "coo":
        if type(state.get("coords")) is tuple:  # as SciPy writes them since 1.13
            state = state | dict(zip(("row", "col"), state["coords"], strict=True))
        data, *places = _arrays(state, "data", "row", "col")
        return sparse.coo_matrix((data, tuple(places)), shape=shape)
    make = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    matrix = make(tuple(_arrays(state, "data", "indices", "indptr")), shape=shape)
    matrix.check_format(full_check=True)
    return matrix
