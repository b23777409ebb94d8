"""Convert between FreiHAND's own layout and METRO's TSV, from the command line.

    python -m hand_lib.data.convert data/FreiHAND data/freihand_tsv --to tsv
    python -m hand_lib.data.convert data/freihand_tsv/train.yaml data/FreiHAND_again --to freihand

JPEG files are copied byte by byte; labels keep all their digits (as float32).
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from hand_lib.data.readers import (
    FREIHAND_VERSIONS,
    FreiHand,
    FreiHandTsv,
    Reader,
    write_freihand,
    write_freihand_tsv,
)

SPLITS = {"training": "train", "evaluation": "test"}
"""FreiHAND's name of a split and METRO's."""

LAYOUTS = ("freihand", "tsv")


def open_source(source, split=None, versions=None, model=None, on_error="raise") -> list[Reader]:
    """Readers of all splits at ``source``: a FreiHAND folder, a ``.yaml``, or a folder of those.

    split: "training" or "evaluation"; None takes all there are.   versions, model, on_error: as
    the readers take them.
    """
    source, other = Path(source).expanduser(), {"model": model, "on_error": on_error}
    names = list(SPLITS) if split is None else [split]
    if unknown := [name for name in names if name not in SPLITS]:
        raise ValueError(f"split must be training or evaluation, found {unknown[0]!r}")
    if source.suffix in (".yaml", ".yml"):
        return [FreiHandTsv(source, **other)]
    found = [name for name in names if (source / f"{name}_K.json").is_file()]
    if found:
        return [
            FreiHand(source, name, versions if name == "training" else None, **other)
            for name in found
        ]
    yamls = [source / f"{SPLITS[name]}.yaml" for name in names]
    if present := [path for path in yamls if path.is_file()]:
        return [FreiHandTsv(path, **other) for path in present]
    return [FreiHand(source, names[0], versions, **other)]  # says what is missing, and where


def convert(source, target, to: str, quiet: bool = False, **options) -> list[str]:
    """Write every split at ``source`` into ``target`` in another layout.

    to: "freihand" or "tsv".   options: of ``open_source``.   returns one line a split on what was
    written and what was skipped.
    """
    if to not in LAYOUTS:
        raise ValueError(f"to must be one of {', '.join(LAYOUTS)}, found {to!r}")
    lines = []
    for reader in open_source(source, **options):
        whole = {ours: ours for ours in SPLITS} | {theirs: ours for ours, theirs in SPLITS.items()}
        split = whole.get(reader.split, "training")
        progress = partial(
            tqdm, desc=f"{split} -> {to}", unit="hand", disable=quiet, mininterval=0.5
        )
        if to == "tsv":
            where = write_freihand_tsv(target, reader, SPLITS[split], progress=progress)
        else:
            where = write_freihand(target, reader, split, progress=progress)
        lost = len(reader.skipped) + len(reader.missing)
        skipped = f", {lost} skipped" if lost else ""
        lines.append(f"{where}: {len(reader) - len(reader.skipped)} hands{skipped}")
    return lines


def main(arguments=None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hand_lib.data.convert",
        description="Convert hand data sets between FreiHAND's own layout and METRO's TSV.",
    )
    parser.add_argument("source", help="FreiHAND folder, METRO .yaml, or folder of .yaml files")
    parser.add_argument("target", help="folder to write into; made when absent")
    parser.add_argument("--to", required=True, choices=LAYOUTS, help="layout to write")
    parser.add_argument("--split", choices=list(SPLITS), help="one split only")
    parser.add_argument(
        "--versions", nargs="+", choices=FREIHAND_VERSIONS, help="backgrounds to take"
    )
    parser.add_argument("--mano", help="MANO_RIGHT.pkl: vertices from the parameters instead")
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="what to do with broken ones"
    )
    given = parser.parse_args(arguments)
    try:
        model = None
        if given.mano:
            from hand_lib.hand.model import HandModel

            model = HandModel.from_mano(given.mano)
        lines = convert(
            given.source, given.target, given.to, split=given.split, versions=given.versions,
            model=model, on_error=given.on_error,
        )  # fmt: skip
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
