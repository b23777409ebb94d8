"""The synthetic example pictures of ``data/examples``, on which the demo runs without yours.

``python -m hand_lib.data.examples`` draws them anew; beside each picture ``examples.json``
holds its side, a tight box, the camera's intrinsics and the true joints.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_lib import ROOT

FOLDER = ROOT / "data" / "examples"
SIZE, SEED, QUALITY = 288, 2024, 88
PICKS = ((6, "right"), (21, "left"), (13, "right"), (17, "left"), (9, "right"))
"""Number in ``SyntheticHands(SIZE, SEED)`` and the side shown; a left hand is mirrored."""
CLIP = (9, "right")
"""Seed of a ``MovingHand`` whose first frame is the sixth picture: the hand is small in it."""


@dataclass(frozen=True)
class Example:
    """One example with what is known of it."""

    name: str
    path: Path
    side: str  # "right" or "left"
    box: tuple  # x0, y0, x1, y1 pixels, tight around the joints
    intrinsics: np.ndarray  # (3, 3) pixels
    joints_2d: np.ndarray  # (21, 2) pixels


def load_examples(folder=None) -> list[Example]:
    """The examples in their order.   raises FileNotFoundError where they are missing."""
    folder = Path(folder or FOLDER)
    index = folder / "examples.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"{index} is missing; draw it with python -m hand_lib.data.examples"
        )
    return [
        Example(
            row["name"], folder / f"{row['name']}.jpg", row["side"], tuple(row["box_px"]),
            np.array(row["intrinsics_px"]), np.array(row["joints_2d_px"]),
        )
        for row in json.loads(index.read_text())
    ]  # fmt: skip


def draw_examples():
    """Yield name, side, image (H, W, 3) uint8, intrinsics and joints_2d of each example."""
    from hand_lib.data.synthetic.hands import SyntheticHands
    from hand_lib.data.synthetic.motion import CLEAR, MovingHand

    hands = SyntheticHands(SIZE, SEED, 32, **CLEAR)
    chosen = [(hands[n], side) for n, side in PICKS]
    chosen.append((MovingHand(SIZE, CLIP[0], 40)[0], CLIP[1]))
    for number, (sample, side) in enumerate(chosen, start=1):
        image, matrix = sample.image, np.array(sample.intrinsics, float)
        joints = np.array(sample.joints_2d, float)
        if side == "left":
            image = np.ascontiguousarray(image[:, ::-1])
            matrix[0, 2] = SIZE - 1 - matrix[0, 2]
            joints[:, 0] = SIZE - 1 - joints[:, 0]
        yield f"hand_{number}", side, image, matrix, joints


def write_examples(folder=None) -> Path:
    """Draw the examples into a folder.   returns its path."""
    from hand_lib.data.writers import encode_jpeg
    from hand_lib.files import write_text

    folder = Path(folder or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, side, image, matrix, joints in draw_examples():
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(image, QUALITY))
        row = {
            "name": name,
            "side": side,
            "box_px": [*joints.min(axis=0), *joints.max(axis=0)],
            "intrinsics_px": matrix,
            "joints_2d_px": joints,
        }
        rows.append(
            {k: v if isinstance(v, str) else np.round(v, 2).tolist() for k, v in row.items()}
        )
    text = ",\n".join(json.dumps(row) for row in rows)
    write_text(folder / "examples.json", f"[\n{text}\n]\n")
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{write_examples()}\n")
