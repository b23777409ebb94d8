"""How often a run finds the hand in a whole photograph by itself, and one where there is none.

    python -m benchmarks.finding runs/reference

in the folder ``notebooks``. Photographs of 1,280 x 960 are painted by the project: a hand of 120 to
400 pixels somewhere before some background, every second one a left hand; and backgrounds alone.
"""

import argparse
import sys
import time

import cv2
import numpy as np

from hand_lib.data.synthetic.backgrounds import background_bank
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.search import overlaps
from hand_lib.render.camera import crop_to_pixels
from hand_lib.training.run_folder import find_run

WIDTH, HEIGHT = 1280, 960
FOUND = 0.3
"""A hand counts as found where a box of a prediction shares so much of the union with its own."""


def photographs(count: int, seed: int = 0):
    """Yield pictures (960, 1280, 3) with one hand each, its box (4,) pixels and its side."""
    hands = SyntheticHands(
        WIDTH, seed, count, split="photographs", framing=(3.2, 10.6), shift=0.2, truncated=0.0,
        second_hand=0.0,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 3])
    for n in range(count):
        batch = hands.fetch_batch([n])
        joints = crop_to_pixels(batch["joints_2d"][0].astype(float), WIDTH)
        top = joints[:, 1].min() - rng.uniform(20, HEIGHT - 20 - np.ptp(joints[:, 1]))
        top = int(np.clip(top, 0, WIDTH - HEIGHT))
        picture, joints = batch["image"][0].transpose(1, 2, 0)[top:][:HEIGHT], joints - [0, top]
        if n % 2:
            picture, joints = picture[:, ::-1], [WIDTH - 1, 0] + joints * [-1, 1]
        box = np.concatenate([joints.min(axis=0), joints.max(axis=0)])
        yield np.ascontiguousarray(picture), box, ("right", "left")[n % 2]


def empty_photographs(count: int, seed: int = 0):
    """Yield pictures (960, 1280, 3) without a hand: painted tiles, large and in pieces."""
    tiles, rng = background_bank(64, 256, seed)[0], np.random.default_rng([seed, 4])

    def piece(width, height):
        tile, zoom = tiles[rng.integers(len(tiles))], rng.uniform(0.25, 1.0) * 256
        size = (zoom * np.array([width, height]) / max(width, height)).clip(2).astype(int)
        x, y = (int(v) for v in rng.integers(0, 257 - size))
        part = tile[y : y + size[1], x : x + size[0]].astype(np.float32)
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)

    for _ in range(count):
        picture = piece(WIDTH, HEIGHT)
        for _ in range(rng.integers(7)):
            x, y = rng.integers(0, [WIDTH - 120, HEIGHT - 120])
            width, height = rng.integers(120, [min(601, WIDTH - x), min(601, HEIGHT - y)])
            picture[y : y + height, x : x + width] = piece(int(width), int(height))
        picture = cv2.GaussianBlur(picture, None, rng.uniform(0.5, 2.5))
        noise = rng.uniform(0.5, 5) * rng.standard_normal((HEIGHT, WIDTH, 1), np.float32)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def measure(predictor, hands: int = 200, empty: int = 100, seed: int = 1) -> dict[str, float]:
    """Shares of hands found, of their sides named rightly, of pictures with false finds, seconds.

    False finds are boxes beside the hand and all in a picture without one; they are counted in the
    latter.
    """
    found, sides, false, spent = [], [], [], []
    for picture, box, side in photographs(hands, seed):
        began = time.process_time()
        seen = predictor.predict(picture)
        spent.append(time.process_time() - began)
        shares = [overlaps(np.array(hand.box), box) for hand in seen] or [0.0]
        found.append(max(shares) > FOUND)
        if found[-1]:
            sides.append(seen[int(np.argmax(shares))].side == side)
    false = [bool(predictor.predict(picture)) for picture in empty_photographs(empty, seed)]
    return {
        "found": float(np.mean(found)), "side": float(np.mean(sides or [0])),
        "false finds": float(np.mean(false or [0])), "seconds": float(np.median(spent)),
    }  # fmt: skip


def main(arguments=None) -> int:
    """``python -m benchmarks.finding RUN``; exit code 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finding", description=__doc__)
    parser.add_argument("run", help="name or folder of a run")
    parser.add_argument("--hands", type=int, default=200, help="photographs with a hand")
    parser.add_argument("--empty", type=int, default=100, help="photographs without")
    given = parser.parse_args(arguments)
    try:
        predictor = Predictor.load(find_run(given.run), device="cpu")
        numbers = measure(predictor, given.hands, given.empty)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(
        f"found {numbers['found']:.1%} of {given.hands} hands, {numbers['side']:.1%} of them with"
        f" their side; a false find in {numbers['false finds']:.1%} of {given.empty} pictures"
        f" without a hand; {numbers['seconds']:.2f} s of one core a picture\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
