import io

import numpy as np
import pytest
from PIL import Image

from hand_lib.data.examples import draw_examples, load_examples, write_examples
from hand_lib.render.images import read_image

EXAMPLES = load_examples()


def test_the_committed_pictures_are_what_the_workbook_draws():
    for example, (name, side, image, matrix, joints) in zip(EXAMPLES, draw_examples(), strict=True):
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


def test_they_can_be_written_anew_and_are_missed_when_absent(tmp_path):
    folder = write_examples(tmp_path / "new")
    for example in load_examples(folder):
        assert Image.open(io.BytesIO(example.path.read_bytes())).format == "JPEG"
    assert (folder / "examples.json").read_text().count("hand_") == 6
    with pytest.raises(FileNotFoundError, match="python -m hand_lib.data.examples"):
        load_examples(tmp_path)
