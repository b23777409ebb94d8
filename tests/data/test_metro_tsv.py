"""METRO's TSV layout as it is read and written, and what is said about broken files."""

import base64
import json
import pickle

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand

from hand_lib.data.crops import HandCrops
from hand_lib.data.freihand import FreiHand
from hand_lib.data.metro_tsv import FreiHandTsv, line_starts, write_freihand_tsv
from hand_lib.files import SampleError
from hand_lib.hand.model import HandModel


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


def test_a_test_time_crop_shows_what_metros_does(metro):
    """Its crop, restated: corners by a map that truncates, a cut, a bilinear resize."""
    size, side = 224, 200 * 0.9
    there = np.array([[size / side, 0, size * (0.5 - 112 / side)]] * 2 + [[0, 0, 1]])
    there[1] = there[1, [1, 0, 2]]

    def moved(points, matrix):  # METRO counts pixels from 1
        points = np.atleast_2d(points) - 1.0
        return (points @ matrix[:2, :2].T + matrix[:2, 2]).astype(int) + 1

    hands = FreiHandTsv(metro)
    item, sample = HandCrops(hands, size).item(1), hands[1]
    (left, top), (right, bottom) = moved([[1, 1], [225, 225]], np.linalg.inv(there)) - 1
    theirs = cv2.resize(sample.image[top:bottom, left:right], (size, size)).transpose(2, 0, 1)
    assert np.abs(theirs.astype(int) - item["image"])[:, 1:-1, 1:-1].max() <= 2
    joints = 2 * moved(sample.joints_2d + 1, there) / size - 1
    assert np.abs(joints - item["joints_2d"]).max() < 2 * 1.5 / size  # theirs are whole pixels


def test_the_tsv_layout_reads_as_metro_wrote_it(metro):
    hands = check_metro(metro)
    assert hands.crop_square(1) == (111.5, 111.5, 180.0)
    assert hands.groups.tolist() == [0, 1, 2]


@pytest.mark.parametrize("options", [
    {"ends": "\r\n"}, {"lineidx": False}, {"nested": True}, {"hw": "224 224"},
])  # fmt: skip
def test_the_tsv_layout_reads_in_every_variant(tmp_path, options):
    check_metro(write_metro(tmp_path, **options))


def test_a_foreign_line_index_does_no_harm_and_a_changed_file_is_read_anew(metro):
    label, picture = (metro.parent / f"train.{name}.lineidx" for name in ("label", "img"))
    picture.write_text(label.read_text())
    check_metro(metro)
    rows = metro.parent / "train.label.tsv"
    rows.write_text("".join(f"{line}\n" for line in rows.read_text().splitlines()[:2]))
    with pytest.raises(ValueError, match="img.tsv has 3 rows.*label.tsv 2"):
        FreiHandTsv(metro)


def test_a_test_split_with_dummy_poses_has_no_truth(tmp_path):
    sample = FreiHandTsv(write_metro(tmp_path, split="test", dummy=True))[1]
    assert sample.joints is None and sample.pose is None and sample.joints_2d is None


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


def test_wrong_line_lists_are_named(tmp_path):
    path = write_metro(tmp_path)
    (tmp_path / "train.linelist.tsv").write_text("0\n7\n")
    with pytest.raises(ValueError, match=r"train\[1\].*row 7"):
        FreiHandTsv(path)
    (tmp_path / "train.linelist.tsv").write_text("zero\n")
    with pytest.raises(ValueError, match="needs one whole number"):
        FreiHandTsv(path)
    (tmp_path / "train.linelist.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="linelist"):
        FreiHandTsv(path)


def test_a_missing_tsv_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="hand_lib.data.open"):
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
    assert hands.backgrounds == 4
    travelled = pickle.loads(pickle.dumps(hands))
    assert (travelled[3].image == hands[3].image).all()


def test_a_tsv_with_a_hand_model_takes_vertices_from_the_pose(release, tmp_path):
    model = HandModel.builtin(flat_mean=False)
    hands = FreiHandTsv(write_freihand_tsv(tmp_path, FreiHand(release)), model=model)
    posed = model(*(model.template.new_tensor(x)[None] for x in (hands[1].pose, hands[1].betas)))
    expected = (posed.vertices[0] - posed.joints[0, :1]).numpy()
    assert np.allclose(hands[1].vertices, expected, atol=1e-6)


def test_line_indices_we_write_point_to_the_lines(release, tmp_path):
    write_freihand_tsv(tmp_path, FreiHand(release))
    for path in tmp_path.glob("*.tsv"):
        offsets = np.loadtxt(path.with_suffix(".lineidx"), int).tolist()
        data = path.read_bytes()
        assert offsets == [0, *(i + 1 for i, c in enumerate(data[:-1]) if c == 10)]
        assert [*offsets, len(data)] == line_starts(path).tolist()


def test_a_failed_run_leaves_nothing(tmp_path):
    for hands, what in (([make_hand(0), make_hand(1, side="left")], "right hands"),
                        ([], "no samples")):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            write_freihand_tsv(tmp_path / "tsv", hands)
        assert not list((tmp_path / "tsv").iterdir())
