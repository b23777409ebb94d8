"""FreiHAND's layout as it is read and written, and what is said about broken files."""

import json

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand, write_freihand_fixture

from hand_lib import files
from hand_lib.data.freihand import FreiHand, freihand_rows, write_freihand
from hand_lib.data.sample import Subset
from hand_lib.files import SampleError, load_json_array
from hand_lib.hand.model import HandModel


@pytest.fixture
def fresh(tmp_path):
    return write_freihand_fixture(tmp_path / "pub", unique=2, versions=1, masks=False)


def test_freihand_counts_hands_by_its_files_and_versions_share_labels(release):
    hands = FreiHand(release)
    assert len(hands) == 12 and hands.unique == 3
    assert hands.versions == ("gs", "hom", "sample", "auto")
    assert hands.groups.tolist() == [0, 1, 2] * 4
    assert [sample.index for sample in hands] == list(range(12)) and hands[-1].key == hands[11].key
    with pytest.raises(IndexError, match="12 samples"):
        hands[12]
    for index in (1, 4, 10):
        truth = make_hand(1)
        assert np.allclose(hands[index].vertices, truth.vertices, atol=1e-6)
        assert np.allclose(hands[index].joints, truth.joints, atol=1e-6)
        assert np.allclose(hands[index].pose, truth.pose)
        assert np.allclose(hands[index].betas, truth.betas)
        assert np.abs(hands[index].joints_2d - truth.joints_2d).max() < 0.01
        assert hands[index].valid_2d.all()
    assert abs(int(hands[4].image.mean()) - 50) <= 2  # the second background of hand 1


def test_freihand_takes_chosen_versions_and_masks(release):
    hands = FreiHand(release, versions=("sample",), masks=True)
    assert len(hands) == 3 and hands[1].key == "00000007"
    assert hands[1].mask.sum() == pytest.approx(41 * 224, rel=0.01)
    with pytest.raises(ValueError, match="asked for \\['colour'\\]"):
        FreiHand(release, versions=("colour",))


def test_evaluation_without_published_truth_has_intrinsics_only(release, tmp_path):
    (tmp_path / "evaluation" / "rgb").mkdir(parents=True)
    hands = FreiHand(release)
    matrices, scales = hands.lists["K"], hands.lists["scale"]
    (tmp_path / "evaluation_K.json").write_text(json.dumps(matrices.tolist()))
    (tmp_path / "evaluation_scale.json").write_text(json.dumps(scales.tolist()))
    for index in range(3):
        data = hands.jpeg(index)
        (tmp_path / "evaluation" / "rgb" / f"{index:08d}.jpg").write_bytes(data)
    blind = FreiHand(tmp_path, "evaluation")
    assert len(blind) == 3 and blind[2].joints is None and blind[2].vertices is None
    assert np.allclose(blind[2].intrinsics, matrices[2])
    xyz = hands.lists["xyz"].tolist()
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(xyz))
    assert np.allclose(FreiHand(tmp_path, "evaluation")[1].joints, hands[1].joints)


def test_a_missing_folder_a_zip_and_a_folder_above_are_told_apart(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="lmb.informatik"):
        FreiHand(tmp_path / "nowhere")
    (tmp_path / "pub.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match="is a file; unpack"):
        FreiHand(tmp_path / "pub.zip")
    with pytest.raises(FileNotFoundError, match="one level down"):
        FreiHand(release.parent)
    with pytest.raises(ValueError, match="split must be"):
        FreiHand(release, "train")


@pytest.mark.parametrize("rows, message", [
    (lambda values: values[:1], "training_xyz.json has 1 entries.*has 2"),
    (lambda values: [values[0], values[1][:20]], r"xyz\[1\]: .* of shape \(21, 3\).*20"),
])  # fmt: skip
def test_a_list_of_another_length_or_shape_is_named(fresh, rows, message):
    values = json.loads((fresh / "training_xyz.json").read_text())
    (fresh / "training_xyz.json").write_text(json.dumps(rows(values)))
    with pytest.raises(ValueError, match=message):
        FreiHand(fresh)


def test_nan_in_a_label_names_the_sample_and_field(fresh):
    text = (fresh / "training_verts.json").read_text()
    values = json.loads(text)
    values[1][5][2] = float("nan")
    (fresh / "training_verts.json").write_text(json.dumps(values))
    hands = FreiHand(fresh)
    assert hands[0].vertices is not None
    with pytest.raises(SampleError, match=r"FreiHAND/training\[1\].*vertices should be finite"):
        hands[1]


def test_broken_pictures_are_named_or_skipped_and_counted(tmp_path):
    root = write_freihand_fixture(tmp_path / "pub", unique=5, versions=1, masks=False)
    rgb = root / "training" / "rgb"
    whole = (rgb / "00000001.jpg").read_bytes()
    (rgb / "00000001.jpg").write_bytes(whole[: len(whole) // 2])
    (rgb / "00000004.jpg").write_bytes(whole[:2000] + bytes(512) + whole[2512:])
    (rgb / "00000002.jpg").write_bytes(b"\xff\xd8 not a picture \xff\xd9")
    (rgb / "00000003.jpg").write_bytes(b"")
    hands = FreiHand(root)
    for index, what in ((1, "cut off"), (2, "damaged"), (3, "empty"), (4, "damaged")):
        with pytest.raises(SampleError, match=rf"FreiHAND/training\[{index}\].*{what}"):
            hands[index]
    patient = FreiHand(root, on_error="skip")
    assert [sample.index for sample in patient] == [0]
    assert sorted(patient.skipped) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="on_error must be"):
        FreiHand(root, on_error="ignore")


def test_a_label_without_picture_is_counted_and_a_picture_without_label_refused(fresh):
    (fresh / "training" / "rgb" / "00000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 .*first 00000001.*0.jpg"):
        FreiHand(fresh)
    hands = FreiHand(fresh, on_error="skip")
    assert len(hands) == 1 and hands.missing == ["00000001.jpg"]
    picture = (fresh / "training" / "rgb" / "00000000.jpg").read_bytes()
    (fresh / "training" / "rgb" / "00000017.jpg").write_bytes(picture)
    with pytest.raises(ValueError, match="picture 00000017 has no label"):
        FreiHand(fresh)


def test_a_mask_of_another_size_is_refused(release, tmp_path):
    root = write_freihand_fixture(tmp_path / "pub", unique=2, versions=1)
    cv2.imwrite(str(root / "training" / "mask" / "00000000.jpg"), np.zeros((100, 90, 3), np.uint8))
    with pytest.raises(SampleError, match=r"training\[0\].*mask should be .*100, 90"):
        FreiHand(root, masks=True)[0]
    assert FreiHand(root, masks=True)[1].mask is not None


def test_a_big_json_is_parsed_once_and_mapped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "_SHOWN_ABOVE_BYTES", 100)
    monkeypatch.setattr(files, "_CACHE_ABOVE_BYTES", 100)
    monkeypatch.setattr(files, "_CHUNK_BYTES", 37)  # cuts in the middle of numbers
    values = np.random.default_rng(0).normal(size=(5, 4, 3))
    path = tmp_path / "list.json"
    path.write_text(json.dumps(values.tolist(), indent=1))
    first = load_json_array(path, (4, 3), "list", np.float64)
    assert isinstance(first, np.memmap) and (first == values).all()
    assert "reading list.json once" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(files, "_parse_json_array", None)
        assert (load_json_array(path, (4, 3), "list", np.float64) == values).all()
    assert len(list((tmp_path / ".cache").iterdir())) == 1
    path.write_text(json.dumps((2 * values).tolist()))
    assert (load_json_array(path, (4, 3), "list", np.float64) == 2 * values).all()


def test_a_read_only_folder_keeps_its_cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CACHE_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "ROOT", tmp_path / "workbook")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".cache").write_text("no folder can be made here")
    path = tmp_path / "set" / "list.json"
    path.write_text("[1, 2, 3, 4]")
    assert load_json_array(path, (), "list").tolist() == [1, 2, 3, 4]
    assert len(list((tmp_path / "workbook" / "data" / ".cache").glob("*.npy"))) == 1
    monkeypatch.setattr(files, "ROOT", path)  # nowhere at all: the array stays in memory
    assert files.cached_arrays(path, ["x"], lambda: [np.arange(3)])[0].tolist() == [0, 1, 2]


# writing


FIELDS = ("vertices", "joints", "root", "joints_2d", "intrinsics", "pose", "betas", "mask")


def test_rendered_hands_written_as_freihand_come_back(tmp_path):
    mask = np.zeros((224, 224), bool)
    mask[50:90] = True
    hands = [make_hand(index, mask=mask) for index in range(3)]
    seen = []
    def watch(samples, total):
        return (seen.append(each) or each for each in samples)

    write_freihand(tmp_path, iter(hands), progress=watch)
    assert len(seen) == 3
    for truth, sample in zip(hands, FreiHand(tmp_path, masks=True), strict=True):
        for field in FIELDS:
            assert np.allclose(getattr(truth, field), getattr(sample, field), atol=1e-4), field
        assert np.abs(truth.image.astype(int) - sample.image).mean() < 3
    assert FreiHand(tmp_path).versions == ("gs",)


def test_backgrounds_share_one_label(release, tmp_path):
    hands = FreiHand(release)
    write_freihand(tmp_path / "four", hands)
    assert len(json.loads((tmp_path / "four" / "training_K.json").read_text())) == 3
    assert FreiHand(tmp_path / "four").groups.tolist() == hands.groups.tolist()
    root = write_freihand_fixture(tmp_path / "pub", unique=2, versions=2)
    (root / "training" / "rgb" / "00000003.jpg").write_bytes(b"")
    broken = FreiHand(root, on_error="skip")
    with pytest.raises(ValueError, match="1 of 4 samples were skipped.*no longer line up"):
        write_freihand(tmp_path / "rest", broken)
    broken.backgrounds = 1
    assert len(FreiHand(write_freihand(tmp_path / "rest", broken))) == 3


def test_the_61_numbers_place_the_middle_knuckle():
    hand = make_hand(3)
    xyz = hand.joints.astype(float) + hand.root
    numbers = freihand_rows(hand)["mano"][0]
    intrinsics = hand.intrinsics.astype(float)
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    place = np.append(numbers[58:60] - intrinsics[:2, 2], focal) / numbers[60]
    assert numbers.shape == (61,) and np.allclose(place, xyz[9])


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


def test_a_failed_run_leaves_no_half_written_lists(tmp_path):
    hands = [make_hand(0), make_hand(1, vertices=None)]
    with pytest.raises(ValueError, match="samples of one kind"):
        write_freihand(tmp_path, hands)
    assert not list(tmp_path.glob("*.json*"))


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
    with pytest.raises(ValueError, match="split must be"):
        write_freihand(tmp_path, [make_hand(0)], split="test")


@pytest.mark.parametrize(
    "names", ["{:08d}.JPG {:08d}.JPG", "{:08d}.jpeg {:d}.PNG", "{:06d}.jpg {:08d}.jpg"]
)
def test_pictures_are_found_under_the_names_that_people_give_them(tmp_path, names):
    root = write_freihand_fixture(tmp_path, unique=2, versions=2)
    for kind, name in zip(("rgb", "mask"), names.split(), strict=True):
        for path in list((root / "training" / kind).iterdir()):
            path.rename(path.with_name(name.format(int(path.stem))))
    (root / "training" / "rgb" / "._00000001.jpg").write_bytes(b"of a Mac")
    hands = FreiHand(root, masks=True)
    assert len(hands) == 4 and hands[3].image.shape == (224, 224, 3)
    assert all(sample.mask is not None for sample in hands)
    hands = FreiHand(write_freihand(tmp_path / "again", Subset(hands, [3, 0])))
    assert len(hands) == 2
