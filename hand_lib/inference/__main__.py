"""A folder of pictures in; overlay pictures, meshes and numbers out.

    python -m hand_lib.inference images/ --run runs/reference --out out/demo

For ``photo.jpg`` it writes ``photo_img.jpg``, the picture with the meshes over it, ``photo.ply``
with all hands where they stand in the camera's frame, and ``photo.json`` with every number, the
hand model's angles among them; ``index.csv`` and ``index.json`` list the hands of all pictures.
``--rigged`` adds a GLB with bones for each hand.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from hand_lib.files import find_run
from hand_lib.inference.export import (
    MESH_FORMATS,
    save_hands,
    save_index,
    save_predictions,
    save_rigged,
)
from hand_lib.inference.frames import find_pictures, read_pictures
from hand_lib.inference.predictor import Predictor
from hand_lib.render.images import exif_focal
from hand_lib.render.render import PREDICTION, draw_meshes


def process_pictures(
    predictor, place, folder, boxes=None, side=None, focal=None, kind="ply", rigged=False,
    progress=True,
) -> tuple[list[Path], dict[str, str]]:  # fmt: skip
    """Predict every picture of a place and write the results; see the module's text.

    place: a folder or one picture.   folder: where results go.   boxes: None, "detect" or "whole"
    as in ``Predictor.predict``.   side: of one hand a picture; None: any number, of both sides.
    focal: pixels, None: by EXIF or assumed.
    kind: of the mesh files.   rigged: also ``photo_rigged.glb``, a second hand's ``_rigged_2``.
    returns the overlays' paths, and what was left out and why.
    """
    folder, written, found = Path(folder), [], {}
    paths, left_out = find_pictures(place)
    folder.mkdir(parents=True, exist_ok=True)
    stems = [Path(name).stem for name in paths]
    pictures = read_pictures(paths, left_out)
    for name, picture in tqdm(pictures, "pictures", len(paths), disable=not progress):
        sides = [side] if side and boxes != "detect" else None
        hands = predictor.predict(picture, boxes, sides, focal or exif_focal(paths[name]))
        drawn, found[name] = picture, hands
        for hand in hands:
            drawn = draw_meshes(drawn, hand.camera_vertices, hand.faces, hand.intrinsics)
        stem = Path(name).stem if stems.count(Path(name).stem) == 1 else name  # a.jpg beside a.png
        written.append(folder / f"{stem}_img.jpg")
        Image.fromarray(drawn).save(written[-1], quality=92)
        save_predictions(folder / f"{stem}.json", hands)
        if hands:
            save_hands(folder / f"{stem}.{kind}", hands, PREDICTION)
        for n, hand in enumerate(hands if rigged else ()):
            tail = f"_{n + 1}" if n else ""
            save_rigged(folder / f"{stem}_rigged{tail}.glb", *hand.parameters, PREDICTION)
    save_index(folder, found)
    return written, left_out


def main(arguments=None) -> int:
    """The command line; the exit code is 0, or 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.inference", description=__doc__)
    parser.add_argument("pictures", help="a folder of pictures, or one picture")
    parser.add_argument("--run", default="reference", help="name or folder of a run")
    parser.add_argument("--out", default="out", help="where the results go")
    parser.add_argument("--detect", action="store_const", const="detect", dest="boxes",
                        help="let MediaPipe find the hands, not the network")  # fmt: skip
    parser.add_argument("--whole", action="store_const", const="whole", dest="boxes",
                        help="one hand fills each picture")  # fmt: skip
    parser.add_argument("--side", choices=("right", "left"), help="look for one hand of this side")
    parser.add_argument("--focal", type=float, help="focal length in pixels, if you know it")
    parser.add_argument("--mesh", default="ply", choices=[kind[1:] for kind in MESH_FORMATS])
    parser.add_argument("--rigged", action="store_true", help="also a GLB with bones per hand")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(arguments)
    try:
        written, left_out = process_pictures(
            Predictor.load(find_run(given.run)), given.pictures, given.out,
            given.boxes, given.side, given.focal, given.mesh,
            given.rigged, not given.quiet,
        )  # fmt: skip
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    for name, reason in left_out.items():
        sys.stderr.write(f"left out: {name}: {reason}\n")
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0 if written else 2


if __name__ == "__main__":
    sys.exit(main())
