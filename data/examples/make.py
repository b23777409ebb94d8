"""Draws the synthetic example pictures of this folder, on which the demo runs without yours.

    python data/examples/make.py

Beside each picture ``examples.json`` holds its side, a tight box, the camera's intrinsics and the
true joints; ``hand_lib.data.open.load_examples`` reads them.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hand_lib.data.freihand import encode_jpeg
from hand_lib.data.open import EXAMPLES
from hand_lib.data.synthetic.hands import CLEAR, MovingHand, SyntheticHands
from hand_lib.files import write_text

SIZE, SEED, QUALITY = 288, 2024, 88
PICKS = ((3, "right"), (39, "left"), (31, "right"), (11, "left"), (23, "right"))
"""Number in ``SyntheticHands(SIZE, SEED)`` and the side shown; a left hand is mirrored."""
CLIP = (3, "right")
"""Seed of a ``MovingHand`` whose first frame is the sixth picture: the hand is small in it."""


def draw_examples():
    """Yield name, side, image (H, W, 3) uint8, intrinsics and joints_2d of each example."""
    hands = SyntheticHands(SIZE, SEED, 64, **CLEAR)
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


def write_examples(folder=EXAMPLES) -> Path:
    """Draw the examples into a folder.   returns its path."""
    folder, rows = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for name, side, image, matrix, joints in draw_examples():
        (folder / f"{name}.jpg").write_bytes(encode_jpeg(image, QUALITY))
        numbers = {
            "box_px": [*joints.min(axis=0), *joints.max(axis=0)],
            "intrinsics_px": matrix,
            "joints_2d_px": joints,
        }
        numbers = {key: np.round(value, 2).tolist() for key, value in numbers.items()}
        rows.append({"name": name, "side": side} | numbers)
    text = ",\n".join(json.dumps(row) for row in rows)
    write_text(folder / "examples.json", f"[\n{text}\n]\n")
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{write_examples()}\n")
