import cv2
import numpy as np
import torch
from benchmarks.demo import photographs, rows
from benchmarks.stopwatch import table
from PIL import Image


def test_the_photographs_are_whole_jpegs_with_their_hands_inside(tmp_path):
    paths, boxes = photographs(tmp_path, count=3)
    for path, (x0, y0, x1, y1) in zip(paths, boxes, strict=True):
        picture = Image.open(path)
        assert (picture.format, picture.size) == ("JPEG", (640, 480))
        assert 0 <= x0 < x1 < 640 and 0 <= y0 < y1 < 480 and np.asarray(picture).std() > 5


def test_every_part_of_the_way_is_measured_and_threads_are_put_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    found = rows(repeats=1, count=3)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    alone, _, decode, _ = (row["ours_ms"] for row in found)
    assert len(found) == 4 and 0 < decode < alone
    assert all(np.isclose(r["ours_ms"] * r["photos_per_second"], 1e3) for r in found)
    assert "photos per second" in table(found)
