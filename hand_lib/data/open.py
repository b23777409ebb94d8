"""One door to data: the reader for a place, the hand that its labels are of, other layouts.

    python -m hand_lib.data.open data/freihand data/freihand_tsv --to tsv
    python -m hand_lib.data.open data/freihand_tsv/train.yaml data/freihand_again --to freihand

JPEG files are copied byte by byte; labels keep all their digits (as float32).
"""

import argparse
import contextlib
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from hand_lib import ROOT
from hand_lib.data.freihand import SPLITS, VERSIONS, FreiHand, write_freihand
from hand_lib.data.metro_tsv import FreiHandTsv, write_freihand_tsv
from hand_lib.data.sample import HandDataset, fits_mesh
from hand_lib.data.youtube import WrongHandModel, YouTubeHands
from hand_lib.files import read_json, resolve
from hand_lib.hand.model import HandModel

METRO_SPLITS = {"training": "train", "evaluation": "test"}
"""FreiHAND's name of a split and METRO's."""

LAYOUTS = ("freihand", "tsv")

EXAMPLES = ROOT / "data" / "examples"


def open_data(place, split="training", model=None, on_error="raise", **options) -> HandDataset:
    """A data set for whatever lies at a place.

    place: path, absolute or from the workbook's folder, of a folder in FreiHAND's or METRO's layout
    or of YouTube 3D Hands; or one METRO ``.yaml`` or YouTube ``.json``, whose pictures are looked
    for in its own folder.   split: "training" or "evaluation", where the place holds both; a
    download of the evaluation set alone opens as that.   model: MANO, the hand these data sets were
    labelled with; without it the files' own numbers alone are given.   on_error: "raise" or "skip".
    options: others of the reader.

    >>> open_data("data/freihand", "evaluation").dataset  # doctest: +SKIP
    'FreiHAND'
    """
    try:
        path = resolve(place, ROOT)
    except FileNotFoundError as error:
        what = "data/README.md says where data sets come from and how hands of yours are written"
        raise FileNotFoundError(f"{error}; {what}") from None
    if split not in SPLITS:
        raise ValueError(f"split must be 'training' or 'evaluation', found {split!r}")
    options |= {"model": model, "on_error": on_error}
    if path.is_dir() and not (path / f"{split}_K.json").is_file():
        names = ("train",) if split == "training" else ("test", "val")
        files = [path / form.format(n) for form in ("{}.yaml", "youtube_{}.json") for n in names]
        path = next((file for file in files if file.is_file()), path)
    if path.suffix in (".yaml", ".yml"):
        return FreiHandTsv(path, **options)
    if path.suffix == ".json":
        if model is None:  # meshes in the built-in hand's order, as our own tools write them
            with contextlib.suppress(WrongHandModel):
                return YouTubeHands(path, path.parent, HandModel.builtin(), on_error)
        return YouTubeHands(path, path.parent, model, on_error)
    if not (path / "training_K.json").is_file() and (path / "evaluation_K.json").is_file():
        split = "evaluation"
    posed = (path / f"{split}_mano.json").is_file()
    if (path / f"{split}_verts.json").is_file() or not posed:
        options["model"] = None
    return FreiHand(path, split, **options)


# which hand the labels are of: built-in and MANO have 778 vertices each, in other orders


def choose_hand(hand: str = "auto", vertices=None) -> HandModel:
    """The right hand whose vertices the data's are.

    hand: "builtin", the path of a MANO file, or "auto": the built-in hand or the MANO file in
    template/, whichever the vertices fit.   vertices: (N, V, 3) metres of some samples; without
    any, "auto" is the built-in hand.
    raises FileNotFoundError where MANO is needed and missing, ValueError where a hand does not fit.
    """
    model = HandModel.builtin() if hand in ("auto", "builtin") else find_mano(hand)
    if hand == "auto" and not fits(model, vertices) and (model := find_mano()) is None:
        raise FileNotFoundError(
            "the data's vertices are not those of the built-in hand; if they are MANO's "
            "(FreiHAND, YouTube 3D Hands), put MANO_RIGHT.pkl into template/ (free for "
            "research, from mano.is.tue.mpg.de) or name it with template=..."
        )
    if not fits(model, vertices):
        raise ValueError(
            f"the data's vertices are not those of template={hand!r}: joined by its faces they "
            "make no hand; 'auto' finds the one that fits, the built-in hand or MANO in template/"
        )
    return model


def find_mano(hand: str = "auto") -> HandModel | None:
    """The MANO file that ``hand`` names or that lies in template/, None where there is none."""
    if hand == "builtin":
        return None
    if hand != "auto":
        return HandModel.from_mano(resolve(hand, ROOT))
    paths = (ROOT / "template" / f"MANO_RIGHT.{kind}" for kind in ("pkl", "npz"))
    return next((HandModel.from_mano(path) for path in paths if path.is_file()), None)


def fits(model: HandModel, vertices) -> bool:
    """Whether (N, V, 3) vertices, if any, are in this model's order (``sample.fits_mesh``)."""
    if vertices is None or len(vertices) == 0:
        return True
    picks = np.linspace(0, len(vertices) - 1, min(32, len(vertices))).astype(int)
    return np.mean([fits_mesh(vertices[i], model) for i in picks]) > 0.5


def is_builtin(model: HandModel) -> bool:
    """Whether a hand has the vertices of the built-in one."""
    own = HandModel.builtin().vertices
    return model.vertices.shape == own.shape and bool((model.vertices - own).abs().max() < 1e-6)


# the pictures of data/examples, on which the demo runs without yours


def load_examples(folder=EXAMPLES) -> list[SimpleNamespace]:
    """The examples in their order, each with what is known of it.

    name; path; side, "right" or "left"; box, x0, y0, x1, y1 pixels, tight around the joints;
    intrinsics (3, 3) and joints_2d (21, 2) in pixels.
    raises FileNotFoundError where they are missing.
    """
    index = Path(folder) / "examples.json"
    if not index.is_file():
        raise FileNotFoundError(f"{index} is missing; draw it with python data/examples/make.py")
    return [
        SimpleNamespace(
            name=row["name"], path=index.with_name(f"{row['name']}.jpg"), side=row["side"],
            box=tuple(row["box_px"]), intrinsics=np.array(row["intrinsics_px"]),
            joints_2d=np.array(row["joints_2d_px"]),
        )
        for row in read_json(index)
    ]  # fmt: skip


# converting between layouts


def convert(source, target, to: str, split=None, versions=None, **options) -> list[str]:
    """Write every split at ``source``, or the one named, into ``target`` in another layout.

    source, target: paths, as ``files.resolve`` finds them.   to: "freihand" or "tsv".
    versions: of FreiHAND's training backgrounds.   options: of ``open_data``.
    returns one line a split on what was written and what skipped.
    """
    if to not in LAYOUTS:
        raise ValueError(f"to must be one of {', '.join(LAYOUTS)}, found {to!r}")
    source, target, lines = resolve(source), resolve(target, new=True), []
    splits = [split] if split else [
        ours for ours, theirs in METRO_SPLITS.items()
        if (source / f"{ours}_K.json").is_file() or (source / f"{theirs}.yaml").is_file()
    ] or ["training"]  # fmt: skip
    for split in splits:
        more = {}
        if (source / f"{split}_K.json").is_file():
            more = {"masks": True, "versions": versions if split == "training" else None}
        data = open_data(source, split, **options, **more)
        split = next((s for s in SPLITS if data.split in (s, METRO_SPLITS[s])), "training")
        bar = partial(tqdm, desc=f"{split} -> {to}", unit="hand", mininterval=0.5)
        if to == "tsv":
            where = write_freihand_tsv(target, data, METRO_SPLITS[split], progress=bar)
        else:
            where = write_freihand(target, data, split, progress=bar)
        lost = len(data.skipped) + len(data.missing)
        skipped = f", {lost} skipped" if lost else ""
        lines.append(f"{where}: {len(data) - len(data.skipped)} hands{skipped}")
    return lines


def main(arguments=None) -> int:
    """The command line; returns the exit status."""
    about = "Convert hand data sets between FreiHAND's own layout and METRO's TSV."
    parser = argparse.ArgumentParser(prog="python -m hand_lib.data.open", description=about)
    add, modes = parser.add_argument, ("raise", "skip")
    add("source", help="FreiHAND folder, METRO .yaml, or folder of .yaml files")
    add("target", help="folder to write into; made when absent")
    add("--to", required=True, choices=LAYOUTS, help="layout to write")
    add("--split", choices=SPLITS, help="one split only")
    add("--versions", nargs="+", choices=VERSIONS, help="backgrounds to take")
    add("--mano", dest="model", help="MANO_RIGHT.pkl: vertices from the parameters instead")
    add("--on-error", choices=modes, default="raise", help="what to do with broken ones")
    given = vars(parser.parse_args(arguments))
    try:
        if given["model"]:
            given["model"] = HandModel.from_mano(resolve(given["model"]))
        lines = convert(**given)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
