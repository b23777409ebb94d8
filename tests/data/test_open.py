"""One door to data: which reader, which hand, other layouts."""

import json

import numpy as np
import pytest
import torch
from data_fixtures import foreign_hand, make_hand, write_freihand_fixture

from hand_lib.data import open as door
from hand_lib.data.crops import HandCrops
from hand_lib.data.freihand import FreiHand, write_freihand
from hand_lib.data.metro_tsv import FreiHandTsv, write_freihand_tsv
from hand_lib.data.open import choose_hand, convert, find_mano, fits, is_builtin, main, open_data
from hand_lib.data.sample import Subset
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
    arrays, order = foreign_hand(HandModel.builtin().arrays())
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
    monkeypatch.setattr(door, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put MANO_RIGHT.pkl into template/"):
        choose_hand("auto", hands[:, order])
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "MANO_RIGHT.npz").write_bytes(path.read_bytes())
    assert not is_builtin(choose_hand("auto", hands[:, order]))
    assert find_mano("builtin") is None and fits(find_mano(), hands[:, order])
    with pytest.raises(ValueError, match="not those of template='auto'"):
        choose_hand("auto", hands[:, np.roll(order, 1)])


def test_a_named_hand_that_does_not_fit_is_refused(hands, foreign):
    path, order = foreign
    assert not is_builtin(choose_hand(str(path), hands[:, order]))
    with pytest.raises(ValueError, match="are not those of template="):
        choose_hand(str(path), hands)
    with pytest.raises(ValueError, match="are not those of template='builtin'"):
        choose_hand("builtin", hands[:, order])


# other layouts


def folder_contents(folder):
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    numbers = {name: json.loads(p.read_text()) for name, p in files.items() if p.suffix == ".json"}
    return numbers, {name: p.read_bytes() for name, p in files.items() if p.suffix == ".jpg"}


def same_release(one, other, lost=()):
    """Whether two releases hold the same pictures and numbers.   lost: names that may be missing.

    The 61 numbers end with the knuckle's place, which is computed when they are written.
    """
    (numbers, pictures), (numbers_back, pictures_back) = map(folder_contents, (one, other))
    kept = {name for name in pictures if not any(word in name for word in lost)}
    assert pictures_back.keys() == kept
    photos = [name for name in kept if "mask" not in name]
    assert all(pictures[name] == pictures_back[name] for name in photos)  # byte by byte
    assert numbers_back.keys() == {name for name in numbers if not any(w in name for w in lost)}
    for name in numbers_back:
        want, got = np.array(numbers[name]), np.array(numbers_back[name])
        assert want.shape == got.shape, name
        end = -3 if "mano" in name else None
        assert np.allclose(want[..., :end], got[..., :end], rtol=1e-6, atol=1e-7), name


def test_freihand_written_from_freihand_is_the_same_release(release, tmp_path):
    written = write_freihand(tmp_path, FreiHand(release, masks=True))
    same_release(release, written)
    readers = (FreiHand(folder, masks=True) for folder in (release, written))
    assert all((one.mask == other.mask).all() for one, other in zip(*readers, strict=True))


def test_an_evaluation_set_alone_opens_as_that_and_errors_name_what_is_there(release, tmp_path):
    write_freihand(tmp_path, FreiHand(release, "training", "gs"), "evaluation")
    assert open_data(tmp_path).split == "evaluation" and len(open_data(tmp_path)) == 3
    with pytest.raises(FileNotFoundError, match="holds the split 'evaluation'"):
        FreiHand(tmp_path)
    with pytest.raises(FileNotFoundError, match="no evaluation_K.*holds the split 'training'"):
        open_data(release, "evaluation")
    with pytest.raises(ValueError, match="split must be"):
        open_data(release, "val")


def test_relative_places_count_from_the_workbook_first(release, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(door, "ROOT", release.parent)
    (tmp_path / "mine").mkdir()
    assert open_data(release.name).root == release
    write_freihand(tmp_path / "mine", FreiHand(release))
    assert open_data("mine").root == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="nowhere.*data/README.md"):
        open_data("nowhere")


def test_the_command_line_converts_there_and_back(release, tmp_path, capsys):
    tsv, back = str(tmp_path / "tsv"), str(tmp_path / "back")
    assert main([str(release), tsv, "--to", "tsv"]) == 0
    assert "train.yaml: 12 hands" in capsys.readouterr().out
    assert main([f"{tsv}/train.yaml", back, "--to", "freihand"]) == 0
    assert "12/12" in capsys.readouterr().err  # progress
    same_release(release, tmp_path / "back", lost=("mask", "verts"))
    assert main([tsv, str(tmp_path / "third"), "--to", "freihand", "--split", "training"]) == 0
    same_release(release, tmp_path / "third", lost=("mask", "verts"))


def test_the_command_line_takes_chosen_backgrounds_and_skips_broken_ones(tmp_path, capsys):
    source = write_freihand_fixture(tmp_path / "pub", unique=3, versions=2)
    assert main([str(source), str(tmp_path / "hom"), "--to", "tsv", "--versions", "hom"]) == 0
    assert len(FreiHandTsv(tmp_path / "hom" / "train.yaml")) == 3
    (source / "training" / "rgb" / "00000001.jpg").write_bytes(b"")
    assert main([str(source), str(tmp_path / "no"), "--to", "tsv"]) == 1
    assert "FreiHAND/training[1]" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "a"), "--to", "tsv", "--on-error", "skip"]) == 0
    assert "5 hands, 1 skipped" in capsys.readouterr().out
    assert [s.index for s in FreiHandTsv(tmp_path / "a" / "train.yaml")] == list(range(5))


def test_both_splits_of_a_release_are_converted(release, tmp_path):
    folder = write_freihand(tmp_path / "both", FreiHand(release, versions="gs"))
    write_freihand(folder, [make_hand(i) for i in range(2)], "evaluation")
    lines = convert(folder, tmp_path / "tsv", "tsv")
    assert [line.split(": ")[1] for line in lines] == ["3 hands", "2 hands"]
    again = convert(tmp_path / "tsv", tmp_path / "back", "freihand", split="evaluation")
    assert len(again) == 1 and "2 hands" in again[0]
    for bad, what in (({"to": "csv"}, "to must be"), ({"to": "tsv", "split": "val"}, "split must")):
        with pytest.raises(ValueError, match=what):
            convert(folder, tmp_path / "x", **bad)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "x", "tsv")


def test_a_part_of_a_release_is_written_with_its_own_pictures_and_labels(release, tmp_path):
    hands = FreiHand(release)
    part = Subset(hands, [2, 1])
    for back in (
        FreiHand(write_freihand(tmp_path / "a", part), masks=True),
        FreiHandTsv(write_freihand_tsv(tmp_path / "b", part)),
    ):
        assert len(back) == 2
        for one, index in ((back[0], 2), (back[1], 1)):
            assert (one.image == hands[index].image).all()
            assert np.allclose(one.joints, hands[index].joints, atol=1e-6)


def test_crops_show_the_same_share_of_the_picture_after_writing(tmp_path):
    hands = [make_hand(0)]
    expected = HandCrops(hands, 64).item(0)
    folder = write_freihand(tmp_path / "a", hands)
    assert (folder / "training_box.json").read_text() == "1.0"
    assert FreiHand(folder).crop_share == 1.0
    tsv = FreiHandTsv(write_freihand_tsv(tmp_path / "b", FreiHand(folder)))
    again = FreiHand(write_freihand(tmp_path / "c", tsv))
    for reader in (FreiHand(folder), tsv, again):
        item = HandCrops(reader, 64).item(0)
        assert np.allclose(item["joints_2d"], expected["joints_2d"], atol=1e-4)
        assert np.allclose(item["intrinsics"], expected["intrinsics"], rtol=1e-4)
