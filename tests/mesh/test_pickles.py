"""Pickles are read without running anything; hostile and broken ones are refused at once."""

import pickle
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest
from mano_fixture import mano_bytes, python2_bytes, stand_in_modules
from scipy import sparse

from hand_lib.hand.mano import builtin_path, check_arrays, read_mano
from hand_lib.mesh.pickles import MAX_BYTES, load_pickle_safely

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


def array_pickle(shape, code, content, order=b"<"):
    """A hand-written array: its declared shape and type need not fit its content."""
    out = b"\x80\x02" + ARRAY + b"(K\x01("
    for n in shape:
        out += b"\x8a\x08" + struct.pack("<q", n)
    out += b"tcnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR(K\x03U\x01" + order
    out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(content))
    return out + content + b"tb."


class Calls:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def calling(name, argument="1", protocol=2):
    """A pickle that calls a global by name, which need not exist here."""
    module, attribute = name.rsplit(".", 1)
    head = b"" if protocol == 0 else b"\x80\x02"
    return head + f"c{module}\n{attribute}\n(V{argument}\ntR.".encode()


def stand_in(kind, **state):
    """A pickle of chumpy's ``Select`` (kind 1) or of an old sparse matrix (2) with this state."""
    with stand_in_modules() as kinds:
        value = kinds[kind]()
        value.__dict__.update(state)
        return python2_bytes(value)


ONES = np.ones(3)
GOOD_CSC = {"data": ONES, "indices": np.arange(3), "indptr": np.arange(4), "_shape": (3, 3)}
HOSTILE = {
    "os.system": (pickle.dumps(Calls(__import__("os").system, "touch hacked")), "system"),
    "os.system, protocol 0": (calling("os.system", "touch hacked", 0), "os.system"),
    "builtins.eval": (calling("builtins.eval", "open('hacked', 'w')"), "builtins.eval"),
    "builtins.getattr": (calling("builtins.getattr"), "builtins.getattr"),
    "numpy.f2py": (calling("numpy.testing._private.utils.runstring"), "runstring"),
    "codecs.decode": (calling("_codecs.decode"), "_codecs.decode"),
    "copyreg": (calling("copy_reg._reconstructor"), "not callable"),
    "dotted name inside numpy": (b"\x80\x04\x8c\x05numpy\x8c\x0bcore.os.sys\x93.", "core.os.sys"),
    "global made of numbers": (b"\x80\x04K\x01K\x02\x93.", "requires str"),
    "nested reduce": (
        pickle.dumps({"v": [Calls(print, Calls(__import__("os").getcwd))]}, 2),
        "refused",
    ),
    "calling an array": (b"\x80\x02cnumpy\nndarray\n(K\x05tR.", "without content"),
    "calling a string": (b"\x80\x02U\x02hi(tR.", "not callable"),
    "instance, old style": (b"(ios\nsystem\n.", "os.system"),
    "extension registry": (b"\x80\x02\x82\x01.", "extension code"),
    "persistent id": (b"Phttp://x\n.", "persistent id"),
    "state on a global": (b"\x80\x02cnumpy\ndtype\n}b.", "state"),
    "a bare global": (b"\x80\x02cnumpy\nndarray\n.", "has a class"),
    "no pickle": (b"PK\x03\x04 something else entirely", "not"),
    "empty": (b"", "no pickle"),
    "truncated": (pickle.dumps({"v": np.ones(100)}, 3)[:-200], "truncated"),
    "no stop": (b"\x80\x02K\x01", "damaged"),
    "10 GB of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 10 * 2**30) + b"ab.", "damaged"),
    "10 GB array": (array_pickle((10**9, 10), b"f8", b"abcd"), "too small"),
    "negative shape": (array_pickle((-1, 3), b"f8", b"\0" * 24), "negative"),
    "object array": (pickle.dumps(np.array([{}, 1], object), 3), "O8"),
    "record array": (pickle.dumps(np.zeros(2, [("a", "f8")]), 3), "record"),
    "odd byte order": (array_pickle((1,), b"f8", b"\0" * 8, b"X"), "Xf8"),
    "chumpy without array": (stand_in(1, idxs=np.arange(3)), "arrays a, idxs"),
    "chumpy outside": (stand_in(1, a=ONES, idxs=np.array([9])), "out of bounds"),
    "chumpy misshaped": (
        stand_in(1, a=ONES, idxs=np.arange(3), preferred_shape=(2, 2)),
        "reshape",
    ),
    "sparse outside": (stand_in(2, **GOOD_CSC | {"indices": np.array([0, 1, 9])}), "must be < 3"),
    "sparse, columns": (stand_in(2, **GOOD_CSC | {"indptr": np.array([0, 2, 1, 3])}), "non-decr"),
    "set of lists": (b"\x80\x02c__builtin__\nset\n(](]etR.", "unhashable"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_pickle_is_refused_quickly_and_nothing_runs(
    name, tmp_path, monkeypatch
):
    content, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        load_pickle_safely(path)
    assert time.process_time() - start < 1.0
    assert "MANO_RIGHT.pkl" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["MANO_RIGHT.pkl"]


def test_a_huge_file_is_refused_unread_and_a_missing_one_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pkl"):
        load_pickle_safely(tmp_path / "nothing.pkl")
    path = tmp_path / "big.pkl"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="a hand model has"):
        load_pickle_safely(path)


def loaded(folder, content):
    (folder / "content.pkl").write_bytes(content)
    return load_pickle_safely(folder / "content.pkl")


def same(found, value):
    """Whether both hold the same: arrays by number type and value, sparse ones as dense."""
    assert type(found) is (dict if isinstance(value, OrderedDict) else type(value))
    if isinstance(value, dict):
        assert list(found) == list(value)
        return all(same(found[key], item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return len(found) == len(value) and all(map(same, found, value))
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype.newbyteorder("=") and found.flags.writeable
        return np.array_equal(found, value)
    return found == value


CONTENT = {
    "vertices": [np.random.default_rng(0).random((4, 3)), np.asfortranarray(np.ones((5, 2)))],
    "face": np.arange(9).reshape(3, 3).astype(np.uint32)[:, ::-1],
    "big endian": np.arange(4, dtype=">i4"),
    "empty": np.zeros((0, 3)),
    "flags": (None, True, 2**70, 1.5, {"r"}, frozenset({"l"}), np.float32(1), np.bool_(True)),
    "ordered": OrderedDict(b=1, a=np.ones(2)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays_of_every_protocol_come_back_equal(protocol, tmp_path):
    found = loaded(tmp_path, pickle.dumps(CONTENT, protocol))
    found["flags"] = (*found["flags"][:5], frozenset(found["flags"][5]), *found["flags"][6:])
    assert same(found, CONTENT)


KINDS = ("csc_matrix", "csr_matrix", "csr_array", "coo_matrix", "coo_array")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_matrices_of_every_protocol_come_back_equal(kind, protocol, tmp_path):
    matrix = getattr(sparse, kind)(sparse.random(7, 5, 0.4, dtype=np.float32, random_state=0))
    found = loaded(tmp_path, pickle.dumps({"up": [matrix]}, protocol))["up"][0]
    assert found.format == kind[:3] and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), matrix.toarray())


def test_an_array_named_twice_is_one_array(tmp_path):
    array = np.ones(3)
    found = loaded(tmp_path, pickle.dumps([array, array], 3))
    assert found[0] is found[1]


def test_names_in_bytes_are_names(tmp_path):
    assert loaded(tmp_path, pickle.dumps({b"f": 1})) == {"f": 1}


def test_a_mano_pickle_of_python_2_with_chumpy_reads_as_plain_arrays(tmp_path):
    arrays = read_mano(builtin_path())
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(mano_bytes(arrays))
    assert b"chumpy.reordering" in path.read_bytes()
    found = read_mano(path)
    for key in arrays:
        if key != "fingertips":
            np.testing.assert_array_equal(found[key], arrays[key])


BROKEN = {
    "wrong shape": ({"weights": np.ones((778, 15)) / 15}, r"weights should have shape \(778, 16\)"),
    "flat": ({"v_template": np.zeros(778 * 3)}, "v_template should have shape"),
    "floats as faces": ({"f": np.zeros((1538, 3))}, "f should hold whole numbers"),
    "NaN": ({"posedirs": np.full((778, 3, 135), np.nan)}, r"posedirs is not finite at \(0, 0, 0\)"),
    "infinite": ({"hands_mean": np.full(45, np.inf)}, "hands_mean is not finite"),
    "face outside": ({"f": np.full((2, 3), 778, np.uint32)}, "f should hold vertex ids below 778"),
    "weights": ({"weights": np.ones((778, 16))}, "weights of vertex 0 sum to 16"),
    "millimetres": ({"v_template": np.full((778, 3), 90.0)}, "expected metres"),
    "another tree": ({"kintree_table": np.zeros((2, 16), int)}, "kintree_table should hold"),
    "fingertips": ({"fingertips": np.array([1, 2, 3, 4, 900])}, "fingertips should hold"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_hand_model_names_its_array(name, tmp_path):
    changes, message = BROKEN[name]
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(mano_bytes(read_mano(builtin_path()), **changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_mano(path)
    assert "MANO_RIGHT.pkl" in str(caught.value)


def test_a_missing_array_and_a_list_in_place_of_a_dictionary_are_named(tmp_path):
    arrays = read_mano(builtin_path())
    del arrays["posedirs"]
    with pytest.raises(ValueError, match="model.npz: array 'posedirs' is missing"):
        check_arrays(arrays, "model.npz")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2], 3))
    with pytest.raises(ValueError, match="holds a list"):
        read_mano(tmp_path / "list.pkl")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ValueError, match=r"bad\.npz"):
        read_mano(tmp_path / "bad.npz")
    np.savez(tmp_path / "objects.npz", **{"v_template": np.array([{}], object)})
    with pytest.raises(ValueError, match=r"objects\.npz"):
        read_mano(tmp_path / "objects.npz")
