import numpy as np
from benchmarks.demo import photographs
from PIL import Image


def test_the_photographs_are_whole_jpegs_with_their_hands_inside(tmp_path):
    paths, boxes = photographs(tmp_path, count=3)
    for path, (x0, y0, x1, y1) in zip(paths, boxes, strict=True):
        picture = Image.open(path)
        assert (picture.format, picture.size) == ("JPEG", (640, 480))
        assert 0 <= x0 < x1 < 640 and 0 <= y0 < y1 < 480 and np.asarray(picture).std() > 5
