"""FreiHAND and METRO's TSV as readers give them, and what they say about broken files."""

import base64
import json
import os
import pickle

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand, write_freihand_fixture

from hand_lib import files
from hand_lib.data.metro_tsv import TsvFile, find_lines
from hand_lib.data.readers import FreiHand, FreiHandTsv, write_freihand_tsv
from hand_lib.files import SampleError, load_json_array
from hand_lib.hand.joints import JOINT_SOURCES, convert_joints
from hand_lib.render.camera import project
from hand_lib.render.images import decode_picture, picture_size


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_freihand_fixture(tmp_path_factory.mktemp("freihand") / "pub")


@pytest.fixture
def fresh(tmp_path):
    return write_freihand_fixture(tmp_path / "pub", unique=2, versions=1, masks=False)


def test_freihand_counts_hands_by_its_files_and_versions_share_labels(release):
    hands = FreiHand(release)
    assert len(hands) == 12 and hands.unique == 3
    assert hands.versions == ("gs", "hom", "sample", "auto")
    assert hands.groups.tolist() == [0, 1, 2] * 4
    for index in (1, 4, 10):
        truth = make_hand(1)
        assert np.allclose(hands[index].vertices, truth.vertices, atol=1e-6)
        assert np.allclose(hands[index].joints, truth.joints, atol=1e-6)
        assert np.allclose(hands[index].pose, truth.pose)
        assert np.allclose(hands[index].betas, truth.betas)
    assert abs(int(hands[4].image.mean()) - 50) <= 2  # the second background of hand 1


def test_freihand_projects_its_joints_with_its_own_camera(release):
    sample = FreiHand(release)[2]
    expected = project(sample.joints.astype(float) + sample.root, sample.intrinsics.astype(float))
    assert np.abs(sample.joints_2d - expected).max() < 0.01
    assert sample.joints[0].tolist() == [0, 0, 0] and sample.valid_2d.all()


def test_freihand_keeps_the_order_of_distinguishable_joints(release):
    assert np.allclose(FreiHand(release)[0].joints, make_hand(0).joints, atol=1e-6)
    numbered = np.arange(21)[:, None]
    for source in JOINT_SOURCES:
        there = convert_joints(numbered, source, back=True)
        assert (convert_joints(there, source) == numbered).all()


def test_freihand_takes_chosen_versions_and_masks(release):
    hands = FreiHand(release, versions=("sample",), masks=True)
    assert len(hands) == 3 and hands.picture_path(1).name == "00000007.jpg"
    assert hands[1].mask.sum() == pytest.approx(41 * 224, rel=0.01)
    with pytest.raises(ValueError, match="asked for \\['colour'\\]"):
        FreiHand(release, versions=("colour",))


def test_evaluation_without_published_truth_has_intrinsics_only(release, tmp_path):
    (tmp_path / "evaluation" / "rgb").mkdir(parents=True)
    hands = FreiHand(release)
    matrices, scales = hands.values("K"), hands.values("scale")
    (tmp_path / "evaluation_K.json").write_text(json.dumps(matrices.tolist()))
    (tmp_path / "evaluation_scale.json").write_text(json.dumps(scales.tolist()))
    for index in range(3):
        data = hands.picture_bytes(index)
        (tmp_path / "evaluation" / "rgb" / f"{index:08d}.jpg").write_bytes(data)
    blind = FreiHand(tmp_path, "evaluation")
    assert len(blind) == 3 and blind[2].joints is None and blind[2].vertices is None
    assert np.allclose(blind[2].intrinsics, matrices[2])
    xyz = hands.values("xyz").tolist()
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(xyz))
    assert np.allclose(FreiHand(tmp_path, "evaluation")[1].joints, hands[1].joints)


def test_iterating_equals_indexing_and_negative_indices_count_from_the_end(release):
    hands = FreiHand(release)
    assert [sample.index for sample in hands] == list(range(12))
    assert hands[-1].key == hands[11].key
    with pytest.raises(IndexError, match="12 samples"):
        hands[12]


def test_a_reader_travels_to_a_worker(release):
    hands = pickle.loads(pickle.dumps(FreiHand(release)))
    assert (hands[5].image == FreiHand(release)[5].image).all()
    assert len(pickle.dumps(hands)) < 20_000


def test_a_missing_folder_a_zip_and_a_folder_above_are_told_apart(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="lmb.informatik"):
        FreiHand(tmp_path / "nowhere")
    (tmp_path / "pub.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match="archive; unpack"):
        FreiHand(tmp_path / "pub.zip")
    with pytest.raises(FileNotFoundError, match="one level down"):
        FreiHand(release.parent)
    with pytest.raises(ValueError, match="split must be"):
        FreiHand(release, "train")


def test_a_json_of_another_length_names_both_files(fresh):
    values = json.loads((fresh / "training_verts.json").read_text())
    (fresh / "training_verts.json").write_text(json.dumps(values[:1]))
    with pytest.raises(ValueError, match="training_verts.json has 1 entries.*has 2"):
        FreiHand(fresh)


def test_a_json_entry_of_another_shape_is_named(fresh):
    values = json.loads((fresh / "training_xyz.json").read_text())
    values[1] = values[1][:20]
    (fresh / "training_xyz.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"xyz\[1\]: expected numbers of shape \(21, 3\).*20"):
        FreiHand(fresh)


def test_a_cut_json_says_so(fresh):
    text = (fresh / "training_K.json").read_text()
    (fresh / "training_K.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="not whole JSON"):
        FreiHand(fresh)


def test_nan_in_a_label_names_the_sample_and_field(fresh):
    text = (fresh / "training_verts.json").read_text()
    values = json.loads(text)
    values[1][5][2] = float("nan")
    (fresh / "training_verts.json").write_text(json.dumps(values))
    hands = FreiHand(fresh)
    assert hands[0].vertices is not None
    with pytest.raises(SampleError, match=r"FreiHAND/training\[1\]: vertices should be finite"):
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
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 labelled pictures, first 00000001"):
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
    with pytest.raises(SampleError, match=r"training\[0\]: its mask is \(100, 90\)"):
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
    monkeypatch.setattr(files, "_parse_json_array", None)
    assert (load_json_array(path, (4, 3), "list", np.float64) == values).all()
    assert len(list((tmp_path / ".cache").iterdir())) == 1


def test_a_changed_json_is_parsed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CACHE_ABOVE_BYTES", 10)
    path = tmp_path / "list.json"
    path.write_text("[[1, 2], [3, 4]]")
    assert load_json_array(path, (2,), "list").sum() == 10
    path.write_text("[[1, 2], [3, 9]]")
    os.utime(path, ns=(1, 1))
    assert load_json_array(path, (2,), "list").sum() == 15


def test_a_read_only_folder_keeps_its_cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CACHE_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "ROOT", tmp_path / "workbook")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".cache").write_text("no folder can be made here")
    path = tmp_path / "set" / "list.json"
    path.write_text("[1, 2, 3, 4]")
    assert load_json_array(path, (), "list").tolist() == [1, 2, 3, 4]
    assert len(list((tmp_path / "workbook" / "data" / ".cache").glob("*.npy"))) == 1
    assert files.find_cache(path, "other") is None
    monkeypatch.setattr(files, "ROOT", path)  # nowhere at all: the array stays in memory
    assert files.store_cache(path, "x.npy", np.arange(3)).tolist() == [0, 1, 2]


def test_picture_sizes_come_from_headers(tmp_path):
    image = np.zeros((30, 50, 3), np.uint8)
    for kind in (".jpg", ".png"):
        data = cv2.imencode(kind, image)[1].tobytes()
        assert picture_size(data) == (50, 30)
        assert decode_picture(data, "a").shape == (30, 50, 3)
    assert picture_size(b"GIF89a") is None
    assert decode_picture(cv2.imencode(".jpg", image)[1].tobytes(), "a", 2).shape == (15, 25, 3)


def test_reduced_decoding_keeps_red_red():
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 2] = 255
    data = cv2.imencode(".jpg", red)[1].tobytes()
    for reduce in (1, 2, 4, 8):
        assert decode_picture(data, "a", reduce)[2, 2].argmax() == 0


# METRO's TSV


@pytest.fixture
def metro(tmp_path):
    """METRO's layout written by hand: three rows, everything a label may hold."""
    return write_metro(tmp_path)


def write_metro(folder, split="train", ends="\n", lineidx=True, dummy=False, nested=False, hw=None):
    rows = {"img": [], "label": [], "hw": [], "linelist": []}
    for index in range(3):
        hand = make_hand(index)
        data = cv2.imencode(".jpg", hand.image[:, :, ::-1])[1].tobytes()
        solid = np.concatenate([hand.joints, np.ones((21, 1))], axis=1)
        flat = np.concatenate([hand.joints_2d, np.ones((21, 1))], axis=1)
        label = {
            "center": [112, 112], "scale": 0.9, "has_2d_joints": int(not dummy),
            "2d_joints": (flat * (not dummy)).tolist(), "has_3d_joints": int(not dummy),
            "3d_joints": (solid * (not dummy)).tolist(), "has_hrnet_2d_joints": 1,
            "hrnet_2d_joints": flat.tolist(), "has_smpl": 1,
            "pose": [1.0] * 48 if dummy else hand.pose.tolist(),
            "betas": [1.0] * 10 if dummy else hand.betas.tolist(),
        }  # fmt: skip
        if nested:
            label["2d_joints"], label["3d_joints"] = [label["2d_joints"]], [label["3d_joints"]]
        key = f"{index:08d}.jpg"
        rows["img"].append(f"{key}\t{base64.b64encode(data).decode()}")
        rows["label"].append(f"{key}\t{json.dumps([label])}")
        rows["hw"].append(f"{key}\t{hw or json.dumps([{'height': 224, 'width': 224}])}")
        rows["linelist"].append(str(index))
    for name, lines in rows.items():
        path = folder / f"{split}.{name}.tsv"
        path.write_bytes("".join(line + ends for line in lines).encode())
        if lineidx:
            offsets = np.cumsum([0] + [len(line + ends) for line in lines[:-1]])
            path.with_suffix(".lineidx").write_text("".join(f"{o}{ends}" for o in offsets))
    names = {name: f"{split}.{name}.tsv" for name in rows}
    (folder / f"{split}.yaml").write_text("".join(f"{k}: {v}{ends}" for k, v in names.items()))
    return folder / f"{split}.yaml"


def check_metro(path):
    hands = FreiHandTsv(path)
    assert len(hands) == 3 and hands.split == "train"
    for index in range(3):
        truth, sample = make_hand(index), hands[index]
        assert np.allclose(sample.joints, truth.joints, atol=1e-6)
        assert np.allclose(sample.joints_2d, truth.joints_2d) and sample.valid_2d.all()
        assert np.allclose(sample.pose, truth.pose) and np.allclose(sample.betas, truth.betas)
        assert np.abs(sample.image.astype(int) - truth.image).mean() < 5
        assert sample.vertices is None and sample.intrinsics is None
    return hands


def test_the_tsv_layout_reads_as_metro_wrote_it(metro):
    hands = check_metro(metro)
    assert hands.frame(1) == (111.5, 111.5, 180.0)
    assert hands.groups.tolist() == [0, 1, 2]


@pytest.mark.parametrize("options", [
    {"ends": "\r\n"}, {"lineidx": False}, {"nested": True}, {"hw": "224 224"},
])  # fmt: skip
def test_the_tsv_layout_reads_in_every_variant(tmp_path, options):
    check_metro(write_metro(tmp_path, **options))


def test_a_missing_line_index_is_written_as_metro_needs_it(tmp_path):
    path = write_metro(tmp_path, lineidx=False)
    FreiHandTsv(path)
    data = (tmp_path / "train.label.tsv").read_bytes()
    offsets = [int(x) for x in (tmp_path / "train.label.lineidx").read_text().split()]
    assert offsets == [0, *(i + 1 for i, c in enumerate(data[:-1]) if c == 10)]
    assert find_lines(tmp_path / "train.label.tsv").tolist() == offsets


def test_a_stale_or_foreign_line_index_is_rebuilt(metro):
    label, picture = (metro.parent / f"train.{name}.lineidx" for name in ("label", "img"))
    picture.write_text(label.read_text())
    check_metro(metro)
    label.write_text("0\n12\n99999999\n")
    assert TsvFile(metro.parent / "train.label.tsv").rebuilt
    label.write_text("zero\n")
    check_metro(metro)
    os.utime(label, ns=(10, 10))
    assert TsvFile(metro.parent / "train.label.tsv").rebuilt
    assert not TsvFile(metro.parent / "train.label.tsv").rebuilt


def test_a_test_split_with_dummy_poses_has_no_truth(tmp_path):
    sample = FreiHandTsv(write_metro(tmp_path, split="test", dummy=True))[1]
    assert sample.joints is None and sample.pose is None and sample.joints_2d is None


def test_a_composite_yaml_joins_files(tmp_path):
    write_metro(tmp_path)
    write_metro(tmp_path, split="more")
    (tmp_path / "both.linelist.tsv").write_text("1\t2\n0\t0\n")
    names = {n: [f"train.{n}.tsv", f"more.{n}.tsv"] for n in ("img", "label", "hw")}
    lines = [f"{name}: [{', '.join(both)}]" for name, both in names.items()]
    path = tmp_path / "both.yaml"
    path.write_text("\n".join(["composite: true", "linelist: both.linelist.tsv", *lines]))
    hands = FreiHandTsv(path)
    assert len(hands) == 2
    assert np.allclose(hands[0].joints, make_hand(2).joints, atol=1e-6)
    assert np.allclose(hands[1].joints, make_hand(0).joints, atol=1e-6)


def test_a_tsv_cut_in_the_middle_of_a_row_names_the_sample(metro):
    path = metro.parent / "train.img.tsv"
    path.write_bytes(path.read_bytes()[:-3001])
    hands = FreiHandTsv(metro)
    assert hands[1].key == "00000001.jpg"
    with pytest.raises(SampleError, match=r"FreiHAND-TSV/train\[2\].*cut off"):
        hands[2]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="img.tsv has 1 rows.*label.tsv 3"):
        FreiHandTsv(metro)
    write_metro(metro.parent)
    path.write_bytes(path.read_bytes()[:-3001])
    skipping = FreiHandTsv(metro, on_error="skip")
    assert len(list(skipping)) == 2 and list(skipping.skipped) == [2]


def test_a_cut_label_and_a_foreign_key_are_named(metro):
    label = metro.parent / "train.label.tsv"
    text = label.read_text()
    label.write_text(text[:-50] + "\n")
    with pytest.raises(SampleError, match=r"train\[2\]: the label of '00000002.jpg' is not whole"):
        FreiHandTsv(metro)[2]
    label.write_text(text.replace("00000001.jpg", "00000009.jpg"))
    with pytest.raises(SampleError, match=r"train\[1\]: the picture's key is 00000001.jpg"):
        FreiHandTsv(metro)[1]
    label.write_text(text.replace('"pose": [', '"pose": [0.5, '))
    with pytest.raises(SampleError, match=r"train\[0\]: label field pose should have shape"):
        FreiHandTsv(metro)[0]


def test_wrong_sizes_and_line_lists_are_named(tmp_path):
    path = write_metro(tmp_path, hw="224 100")
    with pytest.raises(SampleError, match=r"hw file says \(224, 100\)"):
        FreiHandTsv(path)[0]
    (tmp_path / "train.linelist.tsv").write_text("0\n7\n")
    with pytest.raises(ValueError, match=r"train\[1\].*row 7"):
        FreiHandTsv(path)
    (tmp_path / "train.linelist.tsv").write_text("zero\n")
    with pytest.raises(ValueError, match="needs one or two integers"):
        FreiHandTsv(path)
    (tmp_path / "train.linelist.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="linelist"):
        FreiHandTsv(path)


def test_a_missing_tsv_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="hand_lib.data.convert"):
        FreiHandTsv(tmp_path / "train.yaml")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        FreiHandTsv(tmp_path)
    (tmp_path / "train.yaml").write_text("img: no.tsv\nlabel: no.tsv\n")
    with pytest.raises(FileNotFoundError, match="no.tsv"):
        FreiHandTsv(tmp_path / "train.yaml")
    (tmp_path / "train.yaml").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="is not YAML"):
        FreiHandTsv(tmp_path / "train.yaml")
    (tmp_path / "train.yaml").write_text("just text")
    with pytest.raises(ValueError, match="img and label"):
        FreiHandTsv(tmp_path / "train.yaml")


def test_tsv_groups_put_backgrounds_of_a_hand_together(release, tmp_path):
    hands = FreiHandTsv(write_freihand_tsv(tmp_path, FreiHand(release)))
    assert hands.groups.tolist() == FreiHand(release).groups.tolist()
    assert len(hands.versions) == 4
    travelled = pickle.loads(pickle.dumps(hands))
    assert (travelled[3].image == hands[3].image).all()
