"""The pickles of this field (MANO, HandMesh's ``transform.pkl``), read without running anything.

A pickle is a program that may call whatever it can import. Here it finds nothing but empty
collections and stubs (``_KNOWN``) for the few things that a hand model is made of: arrays, SciPy's
sparse matrices, chumpy's values. Neither chumpy nor an old SciPy is needed.
"""

import io
import pickle
import re
from pathlib import Path

import numpy as np
from scipy import sparse

MAX_BYTES = 256 << 20


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
        raise ValueError(f"{path}: {size} bytes, a hand model has {MAX_BYTES} at most")
    try:
        return _content(_Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load(), {})
    except _Refusal as refusal:
        raise ValueError(f"{path}: {refusal}") from None
    except Exception as error:  # a malformed pickle makes Python's own code raise anything
        found = f"{type(error).__name__}: {str(error)[:120]}"
        raise ValueError(f"{path}: is no pickle, a damaged one or not a hand's ({found})") from None


def _content(read, made: dict):
    """What was read, with values in place of stubs.   made: what has been replaced, by its id."""
    if isinstance(read, type) or (isinstance(read, _Stub) and read.value is None):
        raise _Refusal("has a class, or an array or matrix without content, in place of a value")
    if isinstance(read, dict) and id(read) not in made:
        names = (key.decode("latin1") if isinstance(key, bytes) else key for key in read)
        made[id(read)] = {n: _content(v, made) for n, v in zip(names, read.values(), strict=True)}
    elif isinstance(read, list | tuple) and id(read) not in made:
        made[id(read)] = type(read)(_content(value, made) for value in read)
    return made.get(id(read), read.value if isinstance(read, _Stub) else read)


class _Refusal(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        today = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        today = today.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")
        today = re.sub(r"^scipy\.sparse\._?\w+\.(cs[cr]|coo)_(matrix|array)$", r"sparse.\1", today)
        if today in _KNOWN:
            return _KNOWN[today]
        raise _Refusal(
            f"asks for {module}.{name}, which is refused: a hand model needs only numpy arrays, "
            f"scipy.sparse matrices, chumpy's Ch and Select, and sets. Nothing was run. If the "
            f"file is yours, save its arrays with numpy.savez instead"
        )


class _Stub:
    """Something that a pickle calls or makes; ``value`` is what it stands for."""

    value = __hash__ = None

    def __new__(cls, *arguments):
        stub = super().__new__(cls)
        stub.arguments = arguments
        return stub

    def __setstate__(self, state):  # without this, a state could set any attribute
        raise _Refusal("gives a state to what has none")


def _of_call(make) -> type:
    """Stands for a function, which gives what ``make`` makes of the arguments."""
    return type("function", (_Stub,), {"__new__": lambda cls, *arguments: make(*arguments)})


def _of_state(make) -> type:
    """Stands for a class, whose instances are what ``make`` makes of their state and arguments."""

    def __setstate__(self, state):
        self.value = make(state, *self.arguments)

    return type("class", (_Stub,), {"__setstate__": __setstate__})


def _array(content, kind, shape, order: str = "C") -> np.ndarray:
    """An array of exactly these bytes, writable, in this machine's byte order."""
    code = str(getattr(kind, "value", kind))
    if not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d+)", code):
        raise _Refusal(f"has an array of type {code[:20]!r}; only plain numbers and text are read")
    content = content.encode("latin1") if isinstance(content, str) else content
    array = np.ndarray(shape, code, content, order=order)
    if array.nbytes != len(content):
        raise _Refusal(f"has an array {shape} of {code} with {len(content)} bytes")
    return array.astype(array.dtype.newbyteorder("="))


def _arrays(state: dict, *names: str) -> list[np.ndarray]:
    found = [getattr(state.get(name), "value", state.get(name)) for name in names]
    if not all(isinstance(array, np.ndarray) for array in found):
        raise _Refusal(f"should have the array{'s' * (len(names) > 1)} {', '.join(names)}")
    return found


def _selection(state: dict) -> np.ndarray:
    """chumpy's ``Select``: some values of an array, in a shape of their own."""
    whole, indices = _arrays(state, "a", "idxs")
    shape = state.get("preferred_shape")
    shape = indices.size if shape is None else getattr(shape, "value", shape)
    return whole.ravel()[indices.ravel()].reshape(shape)


def _coordinates(state: dict):
    """A matrix of single entries; their rows and columns had other names before SciPy 1.13."""
    rows, columns = state.get("coords") or (state.get("row"), state.get("col"))
    data, rows, columns = _arrays({**state, "r": rows, "c": columns}, "data", "r", "c")
    return sparse.coo_matrix((data, (rows, columns)), shape=state["_shape"])


def _sparse(make, state: dict):
    matrix = make(tuple(_arrays(state, "data", "indices", "indptr")), shape=state["_shape"])
    matrix.check_format(full_check=True)
    return matrix


_KNOWN = {
    "numpy.dtype": _of_state(  # its code, and from the state the byte order
        lambda state, code, *_: state[1] + code if state[2:5] == (None, None, None) else "record"
    ),
    "numpy.ndarray": _Stub,
    "numpy.core.multiarray._reconstruct": _of_state(
        lambda state, *_: _array(state[-1], state[-3], state[-4], "F" if state[-2] else "C")
    ),
    "numpy.core.numeric._frombuffer": _of_call(_array),
    "numpy.core.multiarray.scalar": _of_call(lambda kind, data: _array(data, kind, ())[()]),
    "_codecs.encode": _of_call(lambda text, _: text.encode("latin1")),
    "copyreg._reconstructor": _of_call(lambda kind, *_: kind()),
    "sparse.csc": _of_state(lambda state: _sparse(sparse.csc_matrix, state)),
    "sparse.csr": _of_state(lambda state: _sparse(sparse.csr_matrix, state)),
    "sparse.coo": _of_state(_coordinates),
    "chumpy.ch.Ch": _of_state(lambda state: _arrays(state, "x")[0]),
    "chumpy.reordering.Select": _of_state(_selection),
    "collections.OrderedDict": dict, "builtins.set": set, "builtins.frozenset": frozenset,
    "builtins.object": object, "builtins.bytes": bytes,
}  # fmt: skip
"""All that a pickle may name, as new modules call it, and what it gets."""


def read_transform(path) -> tuple:
    """HandMesh's ``transform.pkl`` with its own numbers, its matrices checked against its meshes.

    returns lists of vertices (V_i, 3), faces (F_i, 3), down (V_{i+1}, V_i) and up (V_i, V_{i+1}),
    finest level first, then the factors between levels and the words "transform.pkl".
    """
    content = load_pickle_safely(path)
    names = ("vertices", "face", "down_transform", "up_transform")
    try:
        vertices, faces, down, up = ([*content[name]] for name in names)
        down, up = ([sparse.csr_matrix(matrix) for matrix in some] for some in (down, up))
        sizes = [len(v) for v in vertices]
        good = all(array.shape[1:] == (3,) for array in (*vertices, *faces))
        for matrices, joined in ((down, (sizes[1:], sizes)), (up, (sizes, sizes[1:]))):
            good &= [matrix.shape for matrix in matrices] == list(zip(*joined, strict=False))
    except (KeyError, TypeError, AttributeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f"{path}: not a transform.pkl; expected a dict of lists, {names[0]} (V_i, 3), "
            f"{names[1]} (F_i, 3), {names[2]} (V_i+1, V_i), {names[3]} (V_i, V_i+1)"
        )
    factors = tuple(a / b for a, b in zip(sizes, sizes[1:], strict=False))
    return vertices, [f.astype(np.int64) for f in faces], down, up, factors, "transform.pkl"
