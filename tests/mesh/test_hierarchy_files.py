"""Hierarchies come back from files, foreign ones too; bad meshes and settings are refused."""

import pickle
import sys
import types

import numpy as np
import pytest
from mesh_shapes import cut_open, icosphere, torus
from scipy.sparse import csc_matrix

from hand_lib import ROOT
from hand_lib.hand.model import HandModel, builtin_hierarchy
from hand_lib.mesh.hierarchy import build_hierarchy, load_hierarchy
from hand_lib.mesh.topology import closest_point_on_mesh


@pytest.fixture(scope="module")
def hand():
    return builtin_hierarchy()


def test_saved_hierarchy_returns_bit_for_bit(tmp_path, hand):
    again = load_hierarchy(hand.save(tmp_path / "deep" / "hand.npz"))
    assert (again.factors, again.method, again.key) == (hand.factors, hand.method, hand.key)
    for name in ("vertices", "faces"):
        for a, b in zip(getattr(hand, name), getattr(again, name), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
    for a, b in zip(hand.down + hand.up, again.down + again.up, strict=True):
        assert a.shape == b.shape
        for part in ("data", "indices", "indptr"):
            x, y = getattr(a, part), getattr(b, part)
            assert x.dtype == y.dtype and np.array_equal(x, y)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["hand.npz"]
    with pytest.raises(ValueError, match="saved as .npz"):
        hand.save(tmp_path / "hand.pkl")


def test_the_built_in_hands_hierarchy_comes_with_the_workbook(hand):
    assert load_hierarchy(ROOT / "template" / "hierarchy.npz").key == hand.key, (
        "hierarchy.npz is of another hand, sampler or recipe: "
        "builtin_hierarchy().save('template/hierarchy.npz')"
    )


def test_a_cache_for_other_settings_is_never_reused(tmp_path, monkeypatch):
    model = HandModel.builtin()
    monkeypatch.setattr("hand_lib.hand.model.HIERARCHY_POSES", 8)
    first = builtin_hierarchy(model, (4,), folder=tmp_path)
    assert builtin_hierarchy(model, (8,), folder=tmp_path).sizes == (778, 98)
    assert builtin_hierarchy(model, (4,), "barycentric", folder=tmp_path).key != first.key
    monkeypatch.setattr("hand_lib.mesh.hierarchy.RECIPE", 0)
    assert builtin_hierarchy(model, (4,), folder=tmp_path).key != first.key
    monkeypatch.undo()
    monkeypatch.setattr("hand_lib.hand.model.HIERARCHY_POSES", 8)
    path = next(p for p in tmp_path.iterdir() if first.key[:16] in p.name)
    written = path.stat().st_mtime_ns
    assert builtin_hierarchy(model, (4,), folder=tmp_path).key == first.key
    assert path.stat().st_mtime_ns == written  # read, not built again
    other = next(p for p in tmp_path.iterdir() if p != path)
    path.write_bytes(other.read_bytes())  # another hierarchy under this name
    again = builtin_hierarchy(model, (4,), folder=tmp_path)
    assert again.key == first.key and (again.up[0] != first.up[0]).nnz == 0
    path.write_bytes(b"half a file")
    assert builtin_hierarchy(model, (4,), folder=tmp_path).key == first.key


def write_transform(path, hierarchy):
    """A pickle as HandMesh ships it: protocol 3, old module paths, float32, explicit zeros."""
    up = []
    for matrix in hierarchy.up:
        dense = np.asarray(1.02 * matrix.toarray(), np.float32)
        rows, columns = np.nonzero(dense)
        rows, columns = np.append(rows, [0, 0]), np.append(columns, [0, 1])
        values = np.append(dense[dense != 0], np.zeros(2, np.float32))
        up.append(csc_matrix((values, (rows, columns)), shape=dense.shape))
    content = {
        "vertices": hierarchy.vertices,
        "face": [f.astype(np.uint32) for f in hierarchy.faces],
        "adj": [csc_matrix(np.eye(n, dtype=np.float32)) for n in hierarchy.sizes],
        "down_transform": [csc_matrix(d, dtype=np.float32) for d in hierarchy.down],
        "up_transform": up,
    }
    data = pickle.dumps(content, protocol=3)
    data = data.replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
    path.write_bytes(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert b"scipy.sparse.csc\n" in path.read_bytes()
    return content


def test_transform_pkl_is_read_with_its_own_numbers_and_reported(tmp_path, hand):
    content = write_transform(tmp_path / "transform.pkl", hand)
    with pytest.warns(UserWarning, match="sum to .* instead of 1") as caught:
        loaded = load_hierarchy(tmp_path / "transform.pkl")
    assert "off in the mean" in str(caught[0].message)
    assert loaded.sizes == hand.sizes and loaded.method == "transform.pkl"
    for i in range(4):
        assert loaded.up[i].dtype == np.float32
        assert loaded.up[i].nnz == content["up_transform"][i].nnz  # explicit zeros stay
        assert (loaded.up[i] != content["up_transform"][i]).nnz == 0
        assert (loaded.down[i] != content["down_transform"][i]).nnz == 0
        assert loaded.faces[i].dtype == np.int64
        np.testing.assert_array_equal(loaded.faces[i], hand.faces[i])
    assert loaded.quality()["row_sum"][1] == pytest.approx(1.02, abs=1e-3)


def test_unreadable_hierarchies_say_what_is_wrong_and_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such hierarchy; make one with build_hierarchy"):
        load_hierarchy(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz: not a saved hierarchy"):
        load_hierarchy(tmp_path / "other.npz")
    names = ("vertices", "face", "down_transform", "up_transform")
    content = dict.fromkeys(names, [np.zeros((3, 3))])
    for changes in ({"vertices": 3}, {"face": [[1, 2, 3]]}, {"vertices": [np.zeros(3)]}, {}):
        (tmp_path / "transform.pkl").write_bytes(pickle.dumps(content | changes))
        with pytest.raises(ValueError, match=r"transform.pkl; expected a dict of lists, vertices"):
            load_hierarchy(tmp_path / "transform.pkl")


class AabbTree:
    """psbody's own: ``nearest`` gives rows of faces and of parts of faces, then the points."""

    def __init__(self, m):
        self.v, self.f = m.v.astype(np.float64), m.f.astype(np.uint32)

    def nearest(self, v_samples, nearest_part=False):
        samples = np.array(v_samples, dtype=np.float64, order="C")
        face, _, point, _ = closest_point_on_mesh(samples, self.v, self.f.astype(np.int64))
        rows = face[None].astype(np.uint32)
        return (rows, np.zeros_like(rows), point) if nearest_part else (rows, point)


class FakeMesh:
    """What the psbody backend uses of psbody.mesh.Mesh."""

    def __init__(self, v=None, f=None, filename=None):
        self.v, self.f = np.array(v, np.float64), np.require(f, dtype=np.uint32)

    def compute_aabb_tree(self):
        return AabbTree(self)


def test_psbody_backend_equals_the_native_one(monkeypatch):
    module = types.ModuleType("psbody.mesh")
    module.Mesh = FakeMesh
    monkeypatch.setitem(sys.modules, "psbody", types.ModuleType("psbody"))
    monkeypatch.setitem(sys.modules, "psbody.mesh", module)
    mesh = FakeMesh(*cut_open(*icosphere()))
    for method in ("barycentric", "fitted"):
        native = build_hierarchy(mesh, factors=(2, 2), method=method)
        through = build_hierarchy(mesh, factors=(2, 2), method=method, backend="psbody")
        for a, b in zip(native.up, through.up, strict=True):
            assert abs(a - b).max() < 1e-6


def test_missing_psbody_says_how_to_install_it_and_that_nothing_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psbody.mesh", None)
    with pytest.raises(ImportError, match='pip install git.*backend="native", which needs nothing'):
        build_hierarchy(*icosphere(1), factors=(2,), backend="psbody")


def test_bad_settings_are_refused_by_name():
    sphere = icosphere(1)
    for factors, message in (
        ((2, 0.5), r"factors\[1\] should be a number of at least 1, found 0.5"),
        ((2, float("nan")), r"factors\[1\]"),
        ((), "at least one level"),
        ((2, 2, 2, 2, 2), r"factors\[4\] leaves 2 of 42 vertices"),
    ):
        with pytest.raises(ValueError, match=message):
            build_hierarchy(*sphere, factors=factors)
    with pytest.raises(ValueError, match=r"level 1 would have 4 of 336 .* cannot go below \d"):
        build_hierarchy(*torus(), factors=(84,))
    with pytest.raises(ValueError, match="vertex 7 is not finite"):
        build_hierarchy(np.where(np.arange(42)[:, None] == 7, np.nan, sphere[0]), sphere[1])
    with pytest.raises(ValueError, match="method should be one of"):
        build_hierarchy(*sphere, factors=(2,), method="best")
    with pytest.raises(ValueError, match="backend should be one of"):
        build_hierarchy(*sphere, factors=(2,), backend="cuda")
    with pytest.raises(ValueError, match=r"poses should be \(P, 42, 3\), found \(5, 41, 3\)"):
        build_hierarchy(*sphere, factors=(2,), poses=np.zeros((5, 41, 3)))
    poses = np.tile(sphere[0], (5, 1, 1))
    poses[3, 4] = np.inf
    with pytest.raises(ValueError, match=r"poses\[3\] is not finite"):
        build_hierarchy(*sphere, factors=(2,), poses=poses)
