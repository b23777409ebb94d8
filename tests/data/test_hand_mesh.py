import numpy as np
import pytest
import torch

from hand_lib.data import hand_mesh
from hand_lib.data.hand_mesh import choose_hand, find_mano, fits, is_builtin
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import sample_poses


@pytest.fixture(scope="module")
def hands():
    model = HandModel.builtin()
    pose = torch.from_numpy(sample_poses(40, np.random.default_rng(0))).float()
    with torch.no_grad():
        return model(pose, torch.randn(40, 10)).vertices.numpy()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A MANO file whose vertices come in another order: (path, permutation)."""
    model = HandModel.builtin()
    order = np.random.default_rng(1).permutation(778)
    place = np.argsort(order)
    arrays = dict(model.arrays())
    for name in ("v_template", "shapedirs", "posedirs", "weights"):
        arrays[name] = np.asarray(arrays[name])[order]
    arrays["J_regressor"] = np.asarray(arrays["J_regressor"])[:, order]
    arrays["f"] = place[np.asarray(arrays["f"])]
    path = tmp_path_factory.mktemp("mano") / "MANO_RIGHT.npz"
    np.savez(path, **arrays)
    return path, order


def test_posed_and_shaped_hands_fit_their_own_model_at_any_scale(hands):
    model = HandModel.builtin()
    assert fits(model, hands) and fits(model, 1000 * hands) and is_builtin(model)


def test_another_order_of_the_vertices_does_not_fit(hands, foreign):
    path, order = foreign
    model = HandModel.builtin()
    assert not fits(model, hands[:, order])
    assert not fits(model, hands[:, :500])
    other = HandModel.from_mano(path)
    assert fits(other, hands[:, order]) and not is_builtin(other)


def test_auto_takes_the_hand_that_fits(hands, foreign, monkeypatch, tmp_path):
    path, order = foreign
    assert is_builtin(choose_hand("auto")) and is_builtin(choose_hand("auto", hands))
    monkeypatch.setattr(hand_mesh, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put MANO_RIGHT.pkl into template/"):
        choose_hand("auto", hands[:, order])
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "MANO_RIGHT.npz").write_bytes(path.read_bytes())
    assert not is_builtin(choose_hand("auto", hands[:, order]))
    assert find_mano("builtin") is None and fits(find_mano(), hands[:, order])
    with pytest.raises(ValueError, match="neither those of the built-in hand nor"):
        choose_hand("auto", hands[:, np.roll(order, 1)])


def test_a_named_hand_that_does_not_fit_is_refused(hands, foreign):
    path, order = foreign
    assert not is_builtin(choose_hand(str(path), hands[:, order]))
    with pytest.raises(ValueError, match="are not those of hand="):
        choose_hand(str(path), hands)
    with pytest.raises(ValueError, match="are not those of hand='builtin'"):
        choose_hand("builtin", hands[:, order])
