"""Make a finished run the reference model that ships, with the README's pictures.

``python -m benchmarks.publish RUN`` from ``notebooks/``; with ``--pictures`` it draws them alone.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.calibrate import calibrate, save_calibration
from hand_lib import ROOT
from hand_lib.data.open import load_examples
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import GESTURES
from hand_lib.hand.skin import skin_colours
from hand_lib.inference.predictor import Predictor
from hand_lib.render.images import read_image
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
    found = Predictor.load(run).predict_many(photos, ["whole"] * 8, [["right"]] * 8)
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


def turning(run, size: int = 230, frames: int = 32, count: int = 2) -> list[Image.Image]:
    """What opens the README, frame by frame: example, mesh over it, and the mesh, turning round.

    run: folder of a finished run.   size: of a picture, pixels.   count: rows, the first examples.
    """
    predictor, rows = Predictor.load(run), []
    middle, turns = (size - 1) / 2, np.linspace(0, 2 * np.pi, frames, endpoint=False)
    camera = np.array([[1.84 * size, 0, middle], [0, 1.84 * size, middle], [0, 0, 1]])
    paper = np.full((size, size, 3), 255, np.uint8)
    for example in load_examples()[:count]:
        photo = read_image(example.path)
        known = [example.box], [example.side], example.intrinsics
        hand = predictor.predict(photo, *known)[0]
        drawn = draw_meshes(photo, hand.camera_vertices, hand.faces, hand.intrinsics, alpha=1.0)
        points = hand.vertices - (hand.vertices.min(0) + hand.vertices.max(0)) / 2
        away = 4 * np.linalg.norm(points, axis=1).max()  # so that it always fits
        rows.append([flat.fit_square(picture, size) for picture in (photo, drawn)])
        for turn in turns:
            placed = points @ Rotation.from_rotvec([0, turn, 0]).as_matrix().T + [0, 0, away]
            rows[-1].append(draw_meshes(paper, placed, hand.faces, camera, alpha=1.0))
    titles = ["picture", "what the network sees", "turned"] + [""] * 3 * (count - 1)
    return [
        flat.image_grid([p for row in rows for p in (*row[:2], row[2 + n])], titles, columns=3)
        for n in range(frames)
    ]


def save_pictures(run, folder) -> None:
    """``overview.jpg`` and ``turning.webp`` of a run, at most half a megabyte each."""
    overview(run).save(folder / "overview.jpg", quality=90, optimize=True)
    first, *others = turning(run)
    first.save(folder / "turning.webp", save_all=True, append_images=others, duration=90, loop=0,
               quality=72, method=4)  # fmt: skip


def publish(run, target: Path = ROOT / "runs" / "reference") -> Path:
    """Copy a finished run to where the model that ships lies; what was there is replaced.

    run: name or folder.   returns the folder, with weights, config, scores, curves,
    ``confidence.json``, ``overview.jpg`` and ``turning.webp``.
    """
    run = ensure_run(str(run))
    target.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        shutil.copyfile(run / name, target / name)
    (target / "confidence.json").unlink(missing_ok=True)
    save_calibration(target, calibrate(Predictor.load(target)))
    save_pictures(target, target)
    return target


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("run", help="name or folder of a finished run")
    parser.add_argument("--pictures", action="store_true", help="draw its pictures and stop")
    given = parser.parse_args(arguments)
    if given.pictures:
        save_pictures(ensure_run(given.run), ensure_run(given.run))
    else:
        sys.stdout.write(f"{publish(given.run)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
