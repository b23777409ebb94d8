"""Make a finished run the reference model that ships, with the README's picture.

``python -m benchmarks.publish RUN`` from ``notebooks/``.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.calibrate import calibrate, save_calibration
from hand_lib import ROOT
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import GESTURES
from hand_lib.hand.skin import skin_colours
from hand_lib.inference.predictor import Predictor
from hand_lib.render.render import draw_meshes
from hand_lib.viewers import figures, flat
from hand_lib.workbook import ensure_run

PUBLISHED = ("config.json", "model.safetensors", "metrics.json", "log.csv", "provenance.json")
"""What a run leaves in ``runs/reference`` when it becomes the model that ships."""
SHOWN = ("spread", "point", "victory", "ok", "fist", "thumbs_up", "grasp", "call_me")


def example_pictures(count: int = 6, size: int = 224) -> list[np.ndarray]:
    """Synthetic photographs (size, size, 3) uint8 of whole hands, always the same.

    Nothing is in front of them, as one would hold a hand into a camera.
    """
    clear = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0}
    hands = SyntheticHands(size, seed=2024, count=count, **clear)
    return [hands[n].image for n in range(count)]


def overview(run) -> Image.Image:
    """One picture of it all, for the README: gestures, synthetic photographs, predictions.

    run: folder of a finished run.   returns a PIL image, 1200 pixels wide.
    """
    model = HandModel.builtin()
    pose = torch.tensor(np.stack([GESTURES[n] for n in SHOWN]), dtype=torch.float32)
    posed = figures.to_camera_view(model(pose).vertices.numpy())
    faces, tones = model.faces.numpy(), np.linspace(0.05, 0.95, len(SHOWN))
    hands = [
        figures.DrawnHand(v, faces, colour=skin_colours(tone=t, seed=n))
        for n, (v, t) in enumerate(zip(posed, tones, strict=True))
    ]
    rows = [np.asarray(figures.still(hands, size=148, columns=8))]
    photos = example_pictures(8)
    found = Predictor.load(run).predict_many(photos)
    drawn = [
        draw_meshes(photo, hand.camera_vertices, hand.faces, hand.intrinsics)
        for photo, (hand,) in zip(photos, found, strict=True)
    ]
    for pictures in (photos, drawn):
        small = [flat.fit_square(p, 146) for p in pictures]
        rows.append(np.asarray(flat.image_grid(small, columns=8, gap=6)))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(r, ((0, 6), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return Image.fromarray(np.concatenate(rows))


def publish(run, target: Path = ROOT / "runs" / "reference") -> Path:
    """Copy a finished run to where the model that ships lies; what was there is replaced.

    run: name or folder.   returns the folder, with weights, config, scores, curves,
    ``confidence.json`` and ``overview.jpg``.
    """
    run = ensure_run(str(run))
    target.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        shutil.copyfile(run / name, target / name)
    (target / "confidence.json").unlink(missing_ok=True)
    save_calibration(target, calibrate(Predictor.load(target)))
    overview(target).save(target / "overview.jpg", quality=90, optimize=True)
    return target


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("run", help="name or folder of a finished run")
    sys.stdout.write(f"{publish(parser.parse_args(arguments).run)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
