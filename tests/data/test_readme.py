"""The reader and the batches of data/README.md, as they are printed there."""

import pickle
import re

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand, write_freihand_fixture

from hand_lib import ROOT
from hand_lib.data.crops import HandCrops
from hand_lib.data.sample import split_unique
from hand_lib.files import SampleError
from hand_lib.hand.joints import JOINT_SOURCES

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "data" / "README.md").read_text(), re.DOTALL)


def write_ho3d(folder):
    """Four hands of two sequences as HO-3D has them."""
    hands = [make_hand(number) for number in range(4)]
    for number, hand in enumerate(hands):
        sequence = folder / "train" / f"ABF{number // 2}"
        for kind in ("rgb", "meta"):
            (sequence / kind).mkdir(parents=True, exist_ok=True)
        picture = sequence / "rgb" / f"{number:04d}.png"
        cv2.imwrite(str(picture), hand.image[:, :, ::-1])
        joints = (hand.joints.astype(float) + hand.root) * [1, -1, -1]
        joints = joints[np.argsort(JOINT_SOURCES["manopth_raw"])]
        label = {"handJoints3D": joints, "camMat": hand.intrinsics.astype(float), "objName": "mug"}
        data = pickle.dumps(label, protocol=2)
        (sequence / "meta" / f"{number:04d}.pkl").write_bytes(data)
    return hands


def test_the_reader_of_thirty_lines_reads_ho3d(tmp_path):
    truth, names = write_ho3d(tmp_path), {}
    source = next(block for block in BLOCKS if "class Ho3d" in block)
    exec(source, names)
    hands = names["Ho3d"](tmp_path)
    assert len(source[source.index("class") :].splitlines()) <= 34 and len(hands) == 4
    for hand, sample in zip(truth, hands, strict=True):
        for field in ("joints", "root", "joints_2d", "intrinsics"):
            np.testing.assert_allclose(getattr(hand, field), getattr(sample, field), atol=1e-3)
        assert (hand.image == sample.image).all()
    batch = HandCrops(hands, 64, "default").fetch_batch(range(4), 1)
    assert batch["has_joints"].all() and not batch["has_vertices"].any()
    plain = HandCrops(hands, 64).fetch_batch(range(4))["joints_2d"]
    assert np.abs(np.abs(plain).max((1, 2)) - 1 / 1.6).max() < 0.01  # the joints fill their square
    training, validation = split_unique(hands, 0.5)
    assert not set(training.groups) & set(validation.groups)
    (tmp_path / "train" / "ABF1" / "rgb" / "0003.png").write_bytes(b"")
    with pytest.raises(SampleError, match="0003.png"):
        hands[3]


def test_the_batches_come_as_printed(tmp_path):
    source = next(block for block in BLOCKS if "HandLoader" in block)
    names, folder = {}, write_freihand_fixture(tmp_path / "freihand", unique=20)
    source = source.replace('"data/freihand"', repr(str(folder))).replace("workers=4", "workers=0")
    exec(source, names)
    assert names["batch"]["image"].shape[1:] == (3, 224, 224) and len(names["both"]) > 0
