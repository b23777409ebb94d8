"""Synthetic hands on disk in FreiHAND's own layout, which its reader takes for the real set."""

import errno
import functools
import json
import shutil
from pathlib import Path

from hand_lib.data.freihand import encode_jpeg, write_freihand
from hand_lib.data.synthetic.hands import VERSION, SyntheticHands

STAMP = "synthetic.json"
_LABEL_BYTES = 34_000
"""JSON of one sample, measured: 778 vertices as decimals, joints and the hand's parameters."""


def estimate_bytes(count: int, hands: SyntheticHands) -> int:
    """Bytes that ``count`` pictures with labels will need, from a few pictures of this set."""
    few = min(8, hands.count)
    pictures = hands.fetch_batch(list(range(few)))["image"].transpose(0, 2, 3, 1)
    picture = sum(len(encode_jpeg(image)) for image in pictures) / few
    return int(count * (1.6 * picture + _LABEL_BYTES + 8192))  # masks; files end on a block


def write_synthetic_freihand(
    folder, count: int = 1000, size: int = 224, seed: int = 0, split: str = "training",
    progress: bool = True, **knobs,
) -> Path:  # fmt: skip
    """Write ``count`` synthetic hands as FreiHAND's release has them, or reuse them.

    folder: made when absent.   size: side of the pictures, pixels (FreiHAND's are 224).
    split: "training" or "evaluation".   progress: a bar on stderr.   knobs: see ``SyntheticHands``.
    returns the folder, with ``<split>/rgb``, ``<split>/mask`` and ``<split>_{K,xyz,verts,mano,
    scale}.json``. It is written beside its place and appears whole by a rename. A folder that
    already holds exactly this set is kept as it is; one that holds anything else is refused.
    """
    hands = SyntheticHands(size, seed, count, split=split, **knobs)
    folder = Path(folder)
    recipe = {
        "version": VERSION, "count": count, "size": size, "seed": seed, "split": split,
        "fingerprint": hands.fingerprint(),
    }  # fmt: skip
    stamp = folder / STAMP
    if stamp.is_file():
        found = json.loads(stamp.read_text(encoding="ascii"))
        if found == recipe:
            return folder
        differ = [key for key in recipe if found.get(key) != recipe[key]]
        raise ValueError(
            f"{folder} holds other synthetic hands ({', '.join(differ)} differ: "
            f"{[found.get(key) for key in differ]}, wanted {[recipe[key] for key in differ]}); "
            f"choose another folder or delete it"
        )
    if folder.is_mount():
        raise ValueError(f"{folder} is where a disk is mounted; choose a folder below it")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and has no {STAMP}; choose another folder")
    partial = folder.with_name(folder.name + ".part")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        needed, free = estimate_bytes(count, hands), shutil.disk_usage(partial).free
        if needed > free:
            raise OSError(
                f"{folder}: {count} hands of {size} px need about {needed / 1e6:.0f} MB, "
                f"{free / 1e6:.0f} MB are free; lower count or size, or choose another disk"
            )
        write_freihand(partial, hands, split, progress=_bar(split) if progress else None)
        (partial / STAMP).write_text(json.dumps(recipe), encoding="ascii")
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        words = "the disk became full, nothing was kept; make room and run the same again"
        raise OSError(error.errno, words, str(folder)) from error
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    return folder


def _bar(split: str):
    from tqdm import tqdm

    return functools.partial(tqdm, desc=f"synthetic {split}", unit="hand")
