"""Reads the pickles of this field (MANO, HandMesh's transform.pkl) without running anything.

A pickle is a program. This module does not hand it to Python's unpickler: it steps through the
opcodes itself, on plain values, and knows eight objects only (``READABLE_GLOBALS``). Calls in the
file become records; arrays are made from those records at the end, once their declared sizes are
seen to agree with the bytes that are there. chumpy and old SciPy need not be installed.
"""

import os
import pickletools
from pathlib import Path

import numpy as np
from scipy.sparse import csc_matrix

READABLE_GLOBALS = {
    "numpy.core.multiarray._reconstruct": "_reconstruct",
    "numpy._core.multiarray._reconstruct": "_reconstruct",
    "numpy.core.multiarray.scalar": "scalar",
    "numpy._core.multiarray.scalar": "scalar",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "__builtin__.set": "set",
    "builtins.set": "set",
    "chumpy.ch.Ch": "Ch",
    "chumpy.reordering.Select": "Select",
    "scipy.sparse.csc.csc_matrix": "csc_matrix",
    "scipy.sparse._csc.csc_matrix": "csc_matrix",
}
"""Every global a hand pickle may name (old and new module paths), and the record it becomes."""

_CALLED = ("_reconstruct", "scalar", "dtype", "set")
_INSTANCED = ("Ch", "Select", "csc_matrix")

MAX_BYTES = 256 * 2**20
MAX_OPCODES = 100_000
MAX_DEPTH = 50
MAX_SPARSE_SIDE = 10_000_000

_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MAKERS = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_MARK = object()


class _Global:
    """One of the seven objects, by its short name."""

    def __init__(self, name):
        self.name = name


class _Record:
    """A call or an instance found in the file: what was to be made, of what, and its state."""

    def __init__(self, kind, args):
        self.kind, self.args, self.state = kind, args, None


def load_pickle_safely(path):
    """Read a pickle of arrays, lists, dicts, strings and numbers; run nothing.

    path: a MANO or HandMesh pickle, protocol 0 to 4, written by Python 2 or 3.
    returns the object inside: arrays as NumPy arrays, ``csc_matrix`` as SciPy's, chumpy values as
    the arrays they stand for.
    raises FileNotFoundError, or ValueError naming the file and what is wrong with it. A file that
    asks for any other global is refused with that global's name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise ValueError(
            f"{path}: {size} bytes, more than any hand model has (at most {MAX_BYTES}); "
            f"check that this is the right file"
        )
    return loads_safely(path.read_bytes(), str(path))


def loads_safely(data: bytes, name: str = "pickle", numbers_only: bool = True):
    """The same for bytes in memory; ``name`` stands in for the file in errors.

    numbers_only: refuse arrays of objects or text; False puts None in their place.
    """
    try:
        return _Resolver(len(data), numbers_only).resolve(_Machine().run(data), 0)
    except _Refusal as refusal:
        raise ValueError(f"{name}: {refusal}") from None
    except (ValueError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise ValueError(f"{name}: holds values that do not fit together ({error})") from None


class _Refusal(Exception):
    pass


class _Machine:
    """A pickle's stack machine on plain values and records."""

    def __init__(self):
        self.stack, self.memo = [], {}

    def run(self, data):
        operations = pickletools.genops(data)
        for count in range(MAX_OPCODES):
            try:
                opcode, argument, position = next(operations)
            except StopIteration:
                break
            except Exception as error:  # genops raises many kinds on bytes that are no pickle
                what = "is not a pickle" if count == 0 else "is damaged or truncated"
                raise _Refusal(f"{what} ({str(error)[:120] or type(error).__name__})") from None
            if opcode.name == "STOP":
                return self.pop()
            try:
                self.step(opcode.name, argument)
            except (IndexError, KeyError, TypeError) as error:
                raise _Refusal(
                    f"is not a well-formed pickle: {opcode.name} at byte {position} finds nothing "
                    f"it can work on ({type(error).__name__})"
                ) from None
        raise _Refusal(f"has more than {MAX_OPCODES} instructions; a hand model has a few hundred")

    def pop(self):
        if not self.stack or self.stack[-1] is _MARK:
            raise _Refusal("is not a well-formed pickle: its stack runs empty")
        return self.stack.pop()

    def pop_to_mark(self):
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise _Refusal("is not a well-formed pickle: a mark is missing")

    def step(self, name, argument):
        push = self.stack.append
        if name in _VALUES:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _MAKERS:
            push(_MAKERS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            push(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name == "TUPLE":
            push(tuple(self.pop_to_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self.pop() for _ in range(int(name[-1]))]
            push(tuple(reversed(items)))
        elif name == "LIST":
            push(self.pop_to_mark())
        elif name == "DICT":
            items = self.pop_to_mark()
            push({})
            self.set_items(items)
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self.pop_to_mark()
            target = self.top()
            if type(target) is not list:
                raise TypeError
            target.extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEMS":
                items = self.pop_to_mark()
            else:
                value = self.pop()
                items = [self.pop(), value]
            self.set_items(items)
        elif name in ("EMPTY_SET", "FROZENSET"):
            items = [] if name == "EMPTY_SET" else self.pop_to_mark()
            push(_Record("set", (items,)))
        elif name == "ADDITEMS":
            items = self.pop_to_mark()
            target = self.top()
            if not isinstance(target, _Record) or target.kind != "set":
                raise TypeError
            target.args[0].extend(items)
        elif name in ("GLOBAL", "INST"):
            push(find_global(argument.replace(" ", ".", 1)))
            if name == "INST":
                raise _Refusal(f"makes an old-style instance of {argument.replace(' ', '.', 1)}")
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            push(find_global(f"{str(module)[:200]}.{str(attribute)[:200]}"))
        elif name in ("REDUCE", "NEWOBJ"):
            args, called = self.pop(), self.pop()
            allowed = _CALLED if name == "REDUCE" else _INSTANCED
            if not isinstance(called, _Global) or called.name not in allowed:
                what = called.name if isinstance(called, _Global) else type(called).__name__
                raise _Refusal(f"calls {what}, which a hand model never does; nothing was run")
            if type(args) is not tuple:
                raise TypeError
            push(_Record(called.name, args))
        elif name == "BUILD":
            state, target = self.pop(), self.top()
            if not isinstance(target, _Record) or target.state is not None:
                raise _Refusal("sets the state of something that has none; nothing was run")
            target.state = state
        else:
            raise _Refusal(f"uses the instruction {name}, which a hand model never needs")

    def top(self):
        if not self.stack or self.stack[-1] is _MARK:
            raise IndexError
        return self.stack[-1]

    def set_items(self, items):
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes, int):
                raise _Refusal(f"has a {type(key).__name__} as a dictionary key")
            target[key] = value


def find_global(name):
    """The record kind of one dotted global; refuses all that is not in ``READABLE_GLOBALS``."""
    if name not in READABLE_GLOBALS:
        raise _Refusal(
            f"asks for {name!r}, which is refused: a hand model needs only numpy arrays, "
            f"scipy.sparse.csc_matrix, chumpy's Ch and Select, and set. Nothing was run. "
            f"If the file is yours, save its arrays with numpy.savez instead"
        )
    return _Global(READABLE_GLOBALS[name])


class _Resolver:
    """Turns records into arrays, each once, with every declared size checked first."""

    def __init__(self, size, numbers_only=True):
        self.done, self.open, self.budget = {}, set(), 2 * size
        self.numbers_only = numbers_only

    def resolve(self, value, depth):
        if not isinstance(value, (tuple, list, dict, _Record, _Global)):
            return value
        if id(value) in self.done:
            return self.done[id(value)][1]
        if id(value) in self.open or depth > MAX_DEPTH:
            raise _Refusal("nests its values in a circle or too deeply")
        self.open.add(id(value))
        if isinstance(value, _Global):
            raise _Refusal(f"stores {value.name} itself where a value belongs")
        if isinstance(value, _Record):
            result = getattr(self, "make_" + value.kind.strip("_"))(value, depth)
        elif isinstance(value, dict):
            result = {key: self.resolve(item, depth + 1) for key, item in value.items()}
        else:
            result = type(value)(self.resolve(item, depth + 1) for item in value)
        self.open.discard(id(value))
        self.done[id(value)] = (value, result)  # keeps value alive, so that its id stays its own
        return result

    def make_set(self, record, depth):
        items = record.args[0] if len(record.args) == 1 else ()
        if type(items) not in (list, tuple) or any(type(i) not in (str, int) for i in items):
            raise _Refusal("has a set of something else than strings and whole numbers")
        return set(items)

    def make_dtype(self, record, depth):
        code = record.args[0] if record.args else None
        code = code.decode("latin1") if type(code) is bytes else code
        order = record.state[1] if type(record.state) is tuple and len(record.state) > 4 else "="
        order = order.decode("latin1") if type(order) is bytes else order
        plain = type(record.state) is not tuple or all(i is None for i in record.state[2:5])
        known = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
        if type(code) is not str or code not in known or not plain:
            shown = code[:40] if type(code) is str else type(code).__name__
            raise _Refusal(f"has an array of type {shown!r}; only plain numbers are read")
        if order not in ("<", ">", "=", "|"):
            raise _Refusal("has an array of unknown byte order")
        return np.dtype(code).newbyteorder(order)

    def make_reconstruct(self, record, depth):
        state = record.state
        if type(state) is not tuple or len(state) not in (4, 5):
            raise _Refusal("has an array without its content")
        shape, dtype, fortran, content = state[-4:]
        if not isinstance(dtype, _Record) or dtype.kind != "dtype":
            raise _Refusal("has an array without a number type")
        try:
            dtype = self.resolve(dtype, depth + 1)
        except _Refusal:
            if self.numbers_only:
                raise
            return None
        if type(shape) is not tuple or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
            raise _Refusal("has an array whose shape is not a tuple of sensible whole numbers")
        if len(shape) > 8:
            raise _Refusal(f"has an array with {len(shape)} axes")
        if type(content) is str:
            try:
                content = content.encode("latin1")
            except UnicodeEncodeError:
                raise _Refusal("has an array whose content is text, not bytes") from None
        if type(content) is not bytes:
            raise _Refusal(f"has an array made of {type(content).__name__}, not of bytes")
        wanted = dtype.itemsize
        for n in shape:
            wanted *= n
        if wanted != len(content):
            raise _Refusal(
                f"has an array {shape} of {dtype} that needs {wanted} bytes and has {len(content)}"
            )
        self.spend(wanted)
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="), copy=True)

    def make_scalar(self, record, depth):
        if len(record.args) != 2 or not isinstance(record.args[0], _Record):
            raise _Refusal("has a number without its type")
        whole = _Record("_reconstruct", ())
        whole.state = (1, (), record.args[0], False, record.args[1])
        value = self.make_reconstruct(whole, depth)
        return None if value is None else value[()]

    def spend(self, count):
        self.budget -= count
        if self.budget < 0:
            raise _Refusal("declares more array content than the file holds")

    def make_csc_matrix(self, record, depth):
        state = record.state if type(record.state) is dict else {}
        parts = [self.resolve(state.get(key), depth + 1) for key in ("data", "indices", "indptr")]
        shape = self.resolve(state.get("_shape", state.get("shape")), depth + 1)
        good = type(shape) is tuple and len(shape) == 2 and all(type(n) is int for n in shape)
        good = good and all(isinstance(p, np.ndarray) and p.ndim == 1 for p in parts)
        if not good or not all(0 <= n <= MAX_SPARSE_SIDE for n in shape):
            raise _Refusal("has a sparse matrix without shape, data, indices and indptr")
        data, indices, indptr = parts
        whole = indices.dtype.kind in "iu" and indptr.dtype.kind in "iu"
        good = whole and len(indptr) == shape[1] + 1 and len(data) == len(indices)
        if not good or indptr[0] != 0 or indptr[-1] != len(data) or (np.diff(indptr) < 0).any():
            raise _Refusal("has a sparse matrix whose columns do not add up")
        if len(indices) and not (0 <= indices.min() and indices.max() < shape[0]):
            raise _Refusal(f"has a sparse matrix with an index outside its {shape[0]} rows")
        return csc_matrix((data, indices, indptr), shape=shape)

    def make_Ch(self, record, depth):
        return self.chumpy_array(record, "x", depth)

    def make_Select(self, record, depth):
        whole = self.chumpy_array(record, "a", depth).reshape(-1)
        indices = self.chumpy_array(record, "idxs", depth).reshape(-1)
        if indices.dtype.kind not in "iu":
            raise _Refusal(f"has a chumpy selection with indices of type {indices.dtype}")
        if len(indices) and not (0 <= indices.min() and indices.max() < len(whole)):
            raise _Refusal(f"has a chumpy selection outside its array of {len(whole)} values")
        self.spend(len(indices) * whole.itemsize)
        shape = self.resolve(record.state.get("preferred_shape"), depth + 1)
        shape = (len(indices),) if shape is None else tuple(int(n) for n in np.ravel(shape))
        if any(n < 0 for n in shape) or np.prod([float(n) for n in shape]) != len(indices):
            raise _Refusal(f"has a chumpy selection of {len(indices)} values shaped {shape}")
        return whole[indices].reshape(shape)

    def chumpy_array(self, record, key, depth):
        state = record.state if type(record.state) is dict else {}
        value = self.resolve(state.get(key), depth + 1)
        if not isinstance(value, np.ndarray):
            raise _Refusal(f"has a chumpy {record.kind} without its array {key!r}")
        return value
