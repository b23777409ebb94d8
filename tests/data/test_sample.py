import dataclasses

import numpy as np
import pytest

from hand_lib.data.sample import HandSample

IMAGE = np.zeros((20, 30, 3), np.uint8)
WHERE = {"dataset": "mine", "split": "training", "index": 7}


def test_a_sample_is_converted_checked_and_frozen():
    sample = HandSample(IMAGE, joints=np.zeros((21, 3)), joints_2d=np.ones((21, 2)), **WHERE)
    assert isinstance(sample, HandSample) and sample.joints.dtype == np.float32
    assert sample.valid_2d.all() and sample.vertices is None
    assert sample.name == "mine/training[7]"
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.index = 3


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"joints": np.zeros((20, 3))}, "joints should be"),
        ({"vertices": np.full((778, 3), np.nan)}, "vertices should be finite"),
        ({"vertices": np.full((778, 3), 80.0)}, "metres"),
        ({"intrinsics": np.eye(4)}, "intrinsics"),
        ({"pose": np.zeros(45)}, "pose"),
        ({"mask": np.zeros((30, 20), bool)}, "mask"),
        ({"side": "Right"}, "side"),
        ({"joints_2d": np.zeros((21, 2)), "valid_2d": np.ones(20)}, "valid_2d"),
    ],
)
def test_wrong_fields_are_refused_naming_the_sample(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        HandSample(IMAGE, **fields, **WHERE)
    assert "mine/training[7]" in str(error.value)


@pytest.mark.parametrize("image", [np.zeros((20, 30)), IMAGE.astype(float), IMAGE[:0]])
def test_wrong_images_are_refused(image):
    with pytest.raises(ValueError, match="image should be"):
        HandSample(image, **WHERE)
