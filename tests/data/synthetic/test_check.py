"""The pinned benchmark: the same on every machine, noticed when it is not."""

import json

import numpy as np
import pytest
import synthetic_check
from synthetic_check import NUMBER_TOLERANCE, check_benchmark, number_means

from hand_lib.data.synthetic.hands import SyntheticHands, synthetic_test


@pytest.fixture()
def pinned(tmp_path, monkeypatch):
    """A copy of the pin that a test may spoil."""
    pin = tmp_path / "synthetic-test.json"
    pin.write_bytes(synthetic_check.PIN.read_bytes())
    monkeypatch.setattr(synthetic_check, "PIN", pin)

    def change(**fields):
        pin.write_text(json.dumps(json.loads(pin.read_text()) | fields))
        return json.loads(pin.read_text())

    return change


def test_the_benchmark_is_the_pinned_one():
    assert check_benchmark(count=24) == []


def test_another_recipe_pose_or_picture_is_noticed(pinned):
    before = pinned()
    pinned(seed=1)
    assert check_benchmark(2) == [f"seed {before['seed']} (pinned 1)"]
    sky = before["numbers"]["sky"]
    pinned(seed=before["seed"], numbers=before["numbers"] | {"sky": [sky[0] * 1.0001, sky[1]]})
    assert check_benchmark(2) == ["the numbers drawn for sky"]
    cells = (np.array(before["cells"]) + 1.5).tolist()
    pinned(numbers=before["numbers"], cells=cells)
    assert check_benchmark(2)[0].startswith("pictures, by up to 1.5")
    joints = (np.array(before["joints_mm"]) + 0.3).tolist()
    pinned(cells=before["cells"], joints_mm=joints)
    assert check_benchmark(2)[0].startswith("joints, by up to 0.30 mm")


def test_last_bits_change_nothing_that_is_compared_and_one_knob_does(monkeypatch):
    draw = SyntheticHands.parameters

    def nudge(records):
        for name in records.dtype.names:
            values = records[name]
            if values.dtype.names:
                nudge(values)
            elif values.dtype.kind == "f":
                values[:] = np.where(values == np.round(values), values, values * (1 + 2e-7))
        return records

    def nudged(self, indices, epochs=0):
        return nudge(draw(self, indices))

    monkeypatch.setattr(SyntheticHands, "parameters", nudged)
    assert check_benchmark(count=8) == []
    monkeypatch.undo()
    records = draw(synthetic_test(), np.arange(2000))
    before = number_means(records)
    records["skin"][7] *= 1.2
    change = np.abs(np.divide(number_means(records)["skin"], before["skin"]) - 1)
    assert change.max() > NUMBER_TOLERANCE and before["pose"] == number_means(records)["pose"]
