"""What a photograph costs from its path to a mesh in the full frame.

``rows()`` gives dicts of what, ours_ms, theirs_ms (None: nobody else was run) and photos a second,
in CPU milliseconds a photograph on one thread.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.stopwatch import few_threads, milliseconds, row
from hand_lib import ROOT
from hand_lib.data.freihand import encode_jpeg
from hand_lib.render.images import read_image

WIDTH, HEIGHT = 640, 480


def photographs(folder, count: int = 24, seed: int = 0) -> tuple[list[Path], list[tuple]]:
    """JPEG files of 640 x 480 with a hand somewhere on a painted background, and the hands' boxes.

    returns paths and boxes (x0, y0, x1, y1) in pixels.
    """
    from hand_lib.data.synthetic.backgrounds import background_bank
    from hand_lib.data.synthetic.hands import SyntheticHands

    rng = np.random.default_rng(seed)
    tiles = background_bank(8, 256, seed)[0]
    hands = SyntheticHands(256, seed=900 + seed, count=count)
    paths, boxes = [], []
    for n in range(count):
        tile = cv2.resize(tiles[n % len(tiles)], (WIDTH, WIDTH), interpolation=cv2.INTER_CUBIC)
        picture = tile[:HEIGHT].astype(np.float32) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
        sample = hands[n]
        x, y = rng.integers(0, [WIDTH - 256, HEIGHT - 256], endpoint=True)
        picture[y : y + 256, x : x + 256] = sample.image
        path = Path(folder) / f"{n:03d}.jpg"
        path.write_bytes(encode_jpeg(np.clip(picture, 0, 255).astype(np.uint8), 90))
        joints = np.clip(sample.joints_2d, 0, 255) + [x, y]
        paths.append(path)
        boxes.append((*joints.min(axis=0), *joints.max(axis=0)))
    return paths, boxes


def rows(run=None, repeats: int = 5, count: int = 24) -> list[dict]:
    """Measure on one thread; the median of ``repeats`` turns.   run: folder; default: reference."""
    from hand_lib.inference.predictor import Predictor

    predictor = Predictor.load(run or ROOT / "runs" / "reference", device="cpu")
    with few_threads(), tempfile.TemporaryDirectory() as folder:
        return _measure(predictor, *photographs(folder, count), repeats)


def _measure(predictor, paths, boxes, repeats):
    from hand_lib.render.render import draw_meshes

    given, sides = [[box] for box in boxes], [["right"]] * len(boxes)
    pictures = [read_image(path) for path in paths]
    hands = [h for (h,) in predictor.predict_many(pictures, given, sides)]

    def drawn():
        for picture, hand in zip(pictures, hands, strict=True):
            draw_meshes(picture, hand.camera_vertices, hand.faces, hand.intrinsics)

    works = {
        "photo 640 x 480, path to full-frame mesh, one by one": lambda: [
            predictor.predict(path, box, ["right"]) for path, box in zip(paths, given, strict=True)
        ],
        "the same in one call, batches of 32": lambda: predictor.predict_many(paths, given, sides),
        "of that: reading and decoding the JPEG": lambda: [read_image(path) for path in paths],
        "beside that: drawing the mesh over the photo": drawn,
    }
    spent = milliseconds(works.values(), repeats, time.process_time)
    each = [one / len(paths) for one in spent]
    return [row(what, ms, photos_per_second=1e3 / ms) for what, ms in zip(works, each, strict=True)]
