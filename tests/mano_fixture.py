"""A pickle laid out as MANO's: Python 2 strings, chumpy-wrapped shapes, an old SciPy path."""

import io
import pickle
import struct
import sys
import types
from contextlib import contextmanager

import numpy as np
from scipy import sparse


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 with every str and bytes as Python 2's ``str``."""

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    def save_str(self, value):
        self.save_bytes(value.encode("latin1"))

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes, str: save_str}


@contextmanager
def stand_in_modules():
    """chumpy.ch.Ch, chumpy.reordering.Select and scipy.sparse.csc.csc_matrix, importable inside."""
    made = {}
    for module, name in (
        ("chumpy.ch", "Ch"),
        ("chumpy.reordering", "Select"),
        ("scipy.sparse.csc", "csc_matrix"),
    ):
        made[module] = types.ModuleType(module)
        setattr(made[module], name, type(name, (), {"__module__": module}))
    made["chumpy"] = types.ModuleType("chumpy")
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield (
            made["chumpy.ch"].Ch,
            made["chumpy.reordering"].Select,
            made["scipy.sparse.csc"].csc_matrix,
        )
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def python2_bytes(value) -> bytes:
    """``value`` as Python 2 and NumPy 1 would have pickled it."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def mano_bytes(arrays, **changes) -> bytes:
    """A MANO-format pickle of a hand model's arrays; ``changes`` replace or add entries."""
    with stand_in_modules() as (Ch, Select, Csc):
        base, select, regressor = Ch(), Select(), Csc()
        shapes = arrays["shapedirs"]
        order = np.random.default_rng(0).permutation(shapes.size)
        base.x = np.empty(shapes.size)
        base.x[order] = shapes.reshape(-1)
        base._dirty_vars = set()
        select.a, select.idxs, select.preferred_shape = base, order, shapes.shape
        select._dirty_vars = {"a", "idxs"}
        matrix = sparse.csc_matrix(arrays["J_regressor"])
        regressor._shape, regressor.maxprint = matrix.shape, 50
        regressor.data, regressor.indices = matrix.data, matrix.indices
        regressor.indptr = matrix.indptr
        table = arrays["kintree_table"].copy()
        table[0, 0] = 2**32 - 1
        data = {
            **{k: v for k, v in arrays.items() if k != "fingertips"},
            "shapedirs": select,
            "J_regressor": regressor,
            "kintree_table": table,
            "f": arrays["f"].astype(np.uint32),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
            **changes,
        }
        return python2_bytes(data)
