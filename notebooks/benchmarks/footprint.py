"""Memory and first call of the commands that people type, each in processes of its own.

    python -m benchmarks.footprint first                  # from `python` to the first mesh, in s
    python -m benchmarks.footprint photographs 1000       # of 12 megapixels, in one folder
    python -m benchmarks.footprint video 10 1280 720      # minutes, width, height
    python -m benchmarks.footprint run                    # `make run`; some minutes of training

in the folder ``notebooks``. Memory is the most that a command and all that it starts hold at once,
shared pages counted once where the system tells (Linux), and what it held after a tenth of the
time: what grows with the length of the job shows in the difference.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from hand_lib import ROOT

FIRST = """
from hand_lib.inference.predictor import Predictor
hand = Predictor.load("reference").predict({path!r}, [{box}], ["right"])[0]
assert hand.vertices.shape == (778, 3)
"""


def held(process) -> int:
    """Bytes that a process and its children hold now."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            memory = one.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:  # it ended meanwhile
            pass
    return total


def peak(command, pause: float = 0.2) -> dict[str, float]:
    """Run a command.   returns its seconds, and GB at most, over all and in the first tenth."""
    start, seen = time.perf_counter(), []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                seen.append(held(process))
            except psutil.Error:
                break
            time.sleep(pause)
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {running.returncode}")
    early = max(seen[: len(seen) // 10 + 1])
    return {"seconds": time.perf_counter() - start, "peak_gb": max(seen) / 1e9,
            "first_tenth_gb": early / 1e9}  # fmt: skip


def first_call() -> dict[str, float]:
    """Seconds from `python` to a mesh with cold caches of Numba and with warm ones."""
    from benchmarks.demo import photographs

    with tempfile.TemporaryDirectory() as folder:
        (path,), (box,) = photographs(folder, 1)
        code = FIRST.format(path=str(path), box=tuple(map(float, box)))
        found, cold = {}, os.environ | {"NUMBA_CACHE_DIR": f"{folder}/cold"}
        for name in ("cold", "warm"):
            start, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=cold, check=True)
            after = os.times()
            found[f"{name}_s"] = time.perf_counter() - start
            found[f"{name}_cpu_s"] = after[2] + after[3] - before[2] - before[3]
    return found


def folder_of_photographs(folder: Path, count: int) -> Path:
    """Photographs of 4000 x 3000: six of them, under as many names as asked."""
    from benchmarks.demo import photographs
    from hand_lib.data.freihand import encode_jpeg
    from hand_lib.render.images import read_image

    paths, _ = photographs(folder, 6)
    (folder / "photos").mkdir()
    for n in range(count):
        place = folder / "photos" / f"{n:04d}.jpg"
        if n < 6:
            large = cv2.resize(read_image(paths[n]), (4000, 3000), interpolation=cv2.INTER_CUBIC)
            place.write_bytes(encode_jpeg(large, 90))
        else:
            os.link(folder / "photos" / f"{n % 6:04d}.jpg", place)
    return folder / "photos"


def clip(folder: Path, minutes: float, width: int, height: int) -> Path:
    """A hand that moves to and fro, 30 frames a second."""
    from benchmarks.demo import photographs
    from hand_lib.inference.frames import write_video
    from hand_lib.render.images import read_image

    still = cv2.resize(read_image(photographs(folder, 1)[0][0]), (width, height))
    moved = (np.roll(still, int(10 * np.sin(n / 20)), 1) for n in range(round(1800 * minutes)))
    return write_video(folder / "clip.mp4", moved)


def measure(what: str, numbers) -> dict[str, float]:
    """What a command needs; see the module's text."""
    if what == "first":
        return first_call()
    if what == "run":
        return peak([sys.executable, "-m", "hand_lib.workbook"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if what == "photographs":
            words = (
                "hand_lib.inference",
                folder_of_photographs(folder, *(numbers or [1000])),
                "--out",
            )
        else:
            words = "hand_lib.inference.video", clip(folder, *(numbers or [10, 1280, 720]))
        command = [sys.executable, "-m", *map(str, words), f"{folder}/out", "--quiet"]
        return peak(command)


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("what", choices=("first", "photographs", "video", "run"))
    parser.add_argument("numbers", nargs="*", type=int, help="photographs; minutes, width, height")
    given = parser.parse_args(arguments)
    for name, value in measure(given.what, given.numbers).items():
        sys.stdout.write(f"{name:16s} {value:8.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
