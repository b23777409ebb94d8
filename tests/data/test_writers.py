"""Round trips: what goes out to disk comes back the same."""

import json

import numpy as np
import pytest
from data_fixtures import make_hand, write_freihand_fixture

from hand_lib.data.convert import convert, main, open_source
from hand_lib.data.crops import HandCrops, Part
from hand_lib.data.metro_tsv import TsvFile, find_lines, write_lineidx
from hand_lib.data.readers import FreiHand, FreiHandTsv, write_freihand, write_freihand_tsv
from hand_lib.data.writers import encode_jpeg, freihand_rows, mano_vector, tsv_label
from hand_lib.hand.model import HandModel

FIELDS = ("vertices", "joints", "root", "joints_2d", "intrinsics", "pose", "betas", "mask")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_freihand_fixture(tmp_path_factory.mktemp("freihand"))


def folder_contents(folder):
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    numbers = {name: json.loads(p.read_text()) for name, p in files.items() if p.suffix == ".json"}
    return numbers, {name: p.read_bytes() for name, p in files.items() if p.suffix == ".jpg"}


def same_release(one, other):
    (numbers, pictures), (numbers_back, pictures_back) = map(folder_contents, (one, other))
    assert pictures.keys() == pictures_back.keys() and numbers.keys() == numbers_back.keys()
    assert all(pictures[name] == pictures_back[name] for name in pictures)  # byte by byte
    for name, values in numbers.items():
        assert np.array(values).shape == np.array(numbers_back[name]).shape
        assert np.array_equal(np.float32(values), np.float32(numbers_back[name])), name


def test_freihand_written_from_freihand_is_the_same_release(release, tmp_path):
    same_release(release, write_freihand(tmp_path, FreiHand(release)))


def test_freihand_to_tsv_and_back_changes_nothing(release, tmp_path):
    yaml_file = write_freihand_tsv(tmp_path / "tsv", FreiHand(release))
    same_release(release, write_freihand(tmp_path / "back", FreiHandTsv(yaml_file)))
    assert FreiHandTsv(yaml_file).frame(3) == pytest.approx((111.5, 111.5, 180))
    for one, other in zip(FreiHand(release), FreiHandTsv(yaml_file), strict=True):
        for field in FIELDS[:-1]:
            assert np.allclose(getattr(one, field), getattr(other, field), atol=1e-4), field
        assert (one.image == other.image).all()


def test_tsv_to_tsv_changes_nothing(release, tmp_path):
    first = write_freihand_tsv(tmp_path / "a", FreiHand(release))
    second = write_freihand_tsv(tmp_path / "b", FreiHandTsv(first))
    assert len(list(first.parent.iterdir())) == 13  # six files, their indices and the YAML
    for path in first.parent.iterdir():
        assert path.read_bytes() == (second.parent / path.name).read_bytes(), path.name


def test_rendered_hands_written_as_freihand_come_back(tmp_path):
    mask = np.zeros((224, 224), bool)
    mask[50:90] = True
    hands = [make_hand(index, mask=mask) for index in range(3)]
    seen = []
    write_freihand(tmp_path, iter(hands), progress=lambda it: (seen.append(h) or h for h in it))
    assert len(seen) == 3
    for truth, sample in zip(hands, FreiHand(tmp_path, masks=True), strict=True):
        for field in FIELDS:
            assert np.allclose(getattr(truth, field), getattr(sample, field), atol=1e-4), field
        assert np.abs(truth.image.astype(int) - sample.image).mean() < 3
    assert FreiHand(tmp_path).versions == ("gs",)


def test_several_backgrounds_share_one_label(tmp_path):
    hands = [make_hand(index % 2) for index in range(6)]
    write_freihand(tmp_path, hands, versions=3)
    assert len(json.loads((tmp_path / "training_K.json").read_text())) == 2
    assert FreiHand(tmp_path).groups.tolist() == [0, 1] * 3
    with pytest.raises(ValueError, match="do not divide"):
        write_freihand(tmp_path, hands, versions=4)


def test_the_61_numbers_place_the_middle_knuckle():
    hand = make_hand(3)
    xyz = hand.joints.astype(float) + hand.root
    numbers = mano_vector(hand, xyz)
    intrinsics = hand.intrinsics.astype(float)
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    place = np.append(numbers[58:60] - intrinsics[:2, 2], focal) / numbers[60]
    assert numbers.shape == (61,) and np.allclose(place, xyz[9])
    assert np.allclose(freihand_rows([], hand, "training")["mano"][0], numbers, rtol=1e-5)


def test_vertices_from_the_hand_model_and_from_the_file_agree(tmp_path):
    model = HandModel.builtin(flat_mean=False)
    hands = []
    for index in range(2):
        seed = make_hand(index)
        posed = model(
            model.template.new_tensor(seed.pose)[None], model.template.new_tensor(seed.betas)[None]
        )
        vertices, joints = posed.vertices[0].numpy(), posed.joints[0].numpy()
        hands.append(make_hand(index, vertices=vertices - joints[0], joints=joints - joints[0]))
    write_freihand(tmp_path, hands)
    for one, other in zip(FreiHand(tmp_path), FreiHand(tmp_path, model=model), strict=True):
        assert np.abs(one.vertices - other.vertices).max() < 1e-5
    for name in ("xyz", "verts"):  # without published truth the parameters place the hand
        (tmp_path / f"training_{name}.json").rename(tmp_path / f"hidden_{name}")
    (tmp_path / "training").rename(tmp_path / "evaluation")
    for path in tmp_path.glob("training_*.json"):
        path.rename(tmp_path / path.name.replace("training", "evaluation"))
    for truth, sample in zip(hands, FreiHand(tmp_path, "evaluation", model=model), strict=True):
        assert np.abs(truth.vertices - sample.vertices).max() < 1e-5
        focal_ratio = abs(truth.intrinsics[0, 0] / truth.intrinsics[1, 1] - 1)
        assert np.abs(truth.root - sample.root).max() < 0.01 * focal_ratio + 1e-4


def test_a_tsv_with_a_hand_model_takes_vertices_from_the_pose(release, tmp_path):
    model = HandModel.builtin(flat_mean=False)
    hands = FreiHandTsv(write_freihand_tsv(tmp_path, FreiHand(release)), model=model)
    posed = model(*(model.template.new_tensor(x)[None] for x in (hands[1].pose, hands[1].betas)))
    expected = (posed.vertices[0] - posed.joints[0, :1]).numpy()
    assert np.allclose(hands[1].vertices, expected, atol=1e-6)


def test_a_metro_label_has_its_eleven_fields():
    label = tsv_label(make_hand(0))
    assert len(label) == 11 and label["center"] == [112, 112]
    assert label["scale"] == pytest.approx(0.9)
    assert np.array(label["2d_joints"]).shape == (21, 3)
    blind = tsv_label(make_hand(0, with_pose=False, joints=None, joints_2d=None))
    assert blind["pose"] == [1.0] * 48 and blind["has_smpl"] == 1 and not blind["has_3d_joints"]


def test_line_indices_we_write_are_what_a_reader_finds(release, tmp_path):
    write_freihand_tsv(tmp_path, FreiHand(release))
    for path in tmp_path.glob("*.tsv"):
        assert not TsvFile(path).rebuilt
        assert TsvFile(path).offsets.tolist() == find_lines(path).tolist()
    write_lineidx(path, np.array([0, 5]))
    assert path.with_suffix(".lineidx").read_text() == "0\n5\n"


def test_a_failed_run_leaves_no_half_written_lists(tmp_path):
    hands = [make_hand(0), make_hand(1, vertices=None)]
    with pytest.raises(ValueError, match="samples of one kind"):
        write_freihand(tmp_path, hands)
    assert not list(tmp_path.glob("*.json*"))
    with pytest.raises(ValueError, match="right hands"):
        write_freihand_tsv(tmp_path / "tsv", [make_hand(0), make_hand(1, side="left")])
    assert not list((tmp_path / "tsv").iterdir())


def test_samples_that_do_not_fit_the_layout_are_refused(tmp_path):
    for bad, what in (
        (make_hand(0, side="left"), "right hands"),
        (make_hand(0, intrinsics=None), "needs intrinsics"),
        (make_hand(0, root=None), "needs joints and root"),
    ):
        with pytest.raises(ValueError, match=what):
            write_freihand(tmp_path, [bad])
    with pytest.raises(ValueError, match="no samples"):
        write_freihand(tmp_path, [])
    with pytest.raises(ValueError, match="no samples"):
        write_freihand_tsv(tmp_path, [])
    with pytest.raises(ValueError, match="split must be"):
        write_freihand(tmp_path, [make_hand(0)], split="test")


def test_jpeg_bytes_keep_colours():
    image = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    from hand_lib.render.images import decode_picture

    assert np.abs(decode_picture(encode_jpeg(image), "a").astype(int) - image).max() <= 3


def test_the_command_line_converts_there_and_back(release, tmp_path, capsys):
    tsv, back = str(tmp_path / "tsv"), str(tmp_path / "back")
    assert main([str(release), tsv, "--to", "tsv"]) == 0
    assert "train.yaml: 12 hands" in capsys.readouterr().out
    assert main([f"{tsv}/train.yaml", back, "--to", "freihand"]) == 0
    streams = capsys.readouterr()
    assert "12/12" in streams.err  # progress
    same_release(release, tmp_path / "back")
    assert main([tsv, str(tmp_path / "third"), "--to", "freihand", "--split", "training"]) == 0
    same_release(release, tmp_path / "third")


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
    lines = convert(folder, tmp_path / "tsv", "tsv", quiet=True)
    assert [line.split(": ")[1] for line in lines] == ["3 hands", "2 hands"]
    assert sorted(reader.split for reader in open_source(tmp_path / "tsv")) == ["test", "train"]
    assert len(open_source(folder, "evaluation")) == 1
    for bad, what in (({"to": "csv"}, "to must be"), ({"to": "tsv", "split": "val"}, "split must")):
        with pytest.raises(ValueError, match=what):
            convert(folder, tmp_path / "x", **bad)
    with pytest.raises(FileNotFoundError, match="no folder"):
        convert(tmp_path / "nowhere", tmp_path / "x", "tsv")


def test_a_part_of_a_release_is_written_with_its_own_pictures_and_labels(release, tmp_path):
    hands = FreiHand(release)
    part = Part(hands, [2, 1])
    for back in (
        FreiHand(write_freihand(tmp_path / "a", part), masks=True),
        FreiHandTsv(write_freihand_tsv(tmp_path / "b", part)),
    ):
        assert len(back) == 2
        for one, index in ((back[0], 2), (back[1], 1)):
            assert (one.image == hands[index].image).all()
            assert np.allclose(one.joints, hands[index].joints, atol=1e-6)
            assert np.allclose(one.vertices, hands[index].vertices, atol=1e-6)


def test_crops_show_the_same_share_of_the_picture_after_writing(tmp_path):
    hands = [make_hand(0)]
    expected = HandCrops(hands, 64).item(0)
    folder = write_freihand(tmp_path / "a", hands)
    assert (folder / "training_box.json").read_text() == "1.0" and FreiHand(folder).box == 1.0
    tsv = FreiHandTsv(write_freihand_tsv(tmp_path / "b", FreiHand(folder)))
    again = FreiHand(write_freihand(tmp_path / "c", tsv))
    for reader in (FreiHand(folder), tsv, again):
        item = HandCrops(reader, 64).item(0)
        assert np.allclose(item["joints_2d"], expected["joints_2d"], atol=1e-4)
        assert np.allclose(item["intrinsics"], expected["intrinsics"], rtol=1e-4)
