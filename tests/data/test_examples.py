import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from hand_lib.data.open import EXAMPLES as FOLDER
from hand_lib.data.open import load_examples
from hand_lib.render.images import read_image

EXAMPLES = load_examples()
_SPEC = importlib.util.spec_from_file_location("make_examples", FOLDER / "make.py")
make = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make)


@pytest.fixture(scope="module")
def drawn():
    return list(make.draw_examples())


def test_the_committed_pictures_are_what_the_workbook_draws(drawn):
    for example, (name, side, image, matrix, joints) in zip(EXAMPLES, drawn, strict=True):
        assert (example.name, example.side) == (name, side)
        stored = read_image(example.path).astype(int)
        assert stored.shape == image.shape and np.abs(stored - image).mean() < 6, name
        assert np.allclose(example.intrinsics, matrix, atol=0.01)
        assert np.allclose(example.joints_2d, joints, atol=0.01)


def test_they_are_small_varied_and_hold_their_hands():
    assert len(EXAMPLES) == 6 and {e.side for e in EXAMPLES} == {"left", "right"}
    assert sum(e.path.stat().st_size for e in EXAMPLES) < 150_000
    for example in EXAMPLES:
        inside = (example.joints_2d >= 0) & (example.joints_2d < Image.open(example.path).size)
        assert inside.all(axis=1).sum() >= 18
        low, high = example.joints_2d.min(axis=0), example.joints_2d.max(axis=0)
        assert np.allclose(example.box, [*low, *high], atol=0.02)
    extent = [max(e.box[2] - e.box[0], e.box[3] - e.box[1]) for e in EXAMPLES]
    assert min(extent) < 0.55 * 288 and max(extent) > 0.7 * 288


def test_they_can_be_written_anew_and_are_missed_when_absent(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(make, "draw_examples", lambda: drawn)
    folder = make.write_examples(tmp_path / "new")
    for example in load_examples(folder):
        assert Image.open(io.BytesIO(example.path.read_bytes())).format == "JPEG"
    assert (folder / "examples.json").read_text().count("hand_") == 6
    with pytest.raises(FileNotFoundError, match="python data/examples/make.py"):
        load_examples(tmp_path)
