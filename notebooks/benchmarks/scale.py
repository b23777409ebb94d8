"""How cost grows with size: meshes, hands and processes, each measured in some minutes at most.

    python -m benchmarks.scale                # the four panels, kept in scale.csv for notebook 07
    python -m benchmarks.scale loading        # one of them anew
    python -m benchmarks.scale training       # pictures a second of two processes beside one

in the folder ``notebooks``, on a machine that does nothing else. The exponent of a panel is the
slope of log time over log size: 1 is linear, 0 costs the same whatever the size.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.stopwatch import few_threads, milliseconds
from hand_lib import ROOT
from hand_lib.files import written_atomically
from hand_lib.training.log import read_log
from hand_lib.training.runtime import cores

KEPT = Path(__file__).with_suffix(".csv")
"""The rows that notebook 07 shows: panel, size, milliseconds, cores of the machine."""

TRAINING_STEPS = 48


def decimation():
    """Yield vertices and work: a hand cut finer and finer, halved, with its up-sampling matrix."""
    from benchmarks.mesh import split_faces
    from hand_lib.hand.model import HandModel
    from hand_lib.mesh.hierarchy import build_hierarchy

    hand = HandModel.builtin()
    vertices, faces = np.asarray(hand.vertices, float), np.asarray(hand.faces)
    for parts in (1, 2, 4, 8, 16):
        fine = split_faces(vertices, faces, parts)
        yield len(fine[0]), lambda fine=fine: build_hierarchy(*fine, factors=(2,))


def scoring():
    """Yield hands and work: FreiHAND's scores of so many."""
    from benchmarks.metrics import hand_like
    from hand_lib.evaluation.freihand import freihand_scores

    for count in (100, 300, 1000, 3000, 10_000):
        hands = hand_like(count)
        yield count, lambda hands=hands: freihand_scores(*hands)


def prediction():
    """Yield hands and work: photographs of one hand each in one call, batches of 32."""
    from benchmarks.demo import photographs
    from hand_lib.inference.predictor import Predictor
    from hand_lib.render.images import read_image

    predictor = Predictor.load(ROOT / "runs" / "reference", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        paths, boxes = photographs(folder, 32)
        pictures = [read_image(path) for path in paths]
    for count in (1, 4, 16, 64, 256):
        given = [(pictures * 8)[:count], [[box] for box in boxes * 8][:count], [["right"]] * count]
        yield count, lambda given=given: predictor.predict_many(*given)


def loading(count: int = 64, batches: int = 60):
    """Yield processes and work: 1,920 augmented crops of 224 px JPEGs, after a first batch."""
    from benchmarks.data import freihand_like
    from hand_lib.data.crops import HandCrops
    from hand_lib.data.freihand import FreiHand
    from hand_lib.data.loader import HandLoader

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more processes than cores is what is asked
        crops = HandCrops(FreiHand(freihand_like(folder, count)), 224)
        for workers in (1, 2, 4, 8):
            stream = HandLoader(crops, 32, workers=workers).stream()
            for _ in range(4 * workers):  # they start, compile, and fill their pipes
                next(stream)
            yield workers, lambda stream=stream: [next(stream) for _ in range(batches)]
            stream.close()


PANELS = {
    "decimation": (decimation, "vertices"),
    "scoring": (scoring, "hands"),
    "prediction": (prediction, "hands"),
    "loading": (loading, "processes"),
}


def measure(panel: str) -> list[dict]:
    """The rows of a panel; CPU time on one thread, but for loading, which its processes share."""
    clock = time.perf_counter if panel == "loading" else time.process_time
    rows = []
    with few_threads():
        for size, work in PANELS[panel][0]():
            (ms,) = milliseconds([work], 3, clock)
            rows.append({"panel": panel, "size": size, "ms": round(ms, 3), "cores": cores()})
    return rows


def read_rows(path=KEPT) -> list[dict]:
    """The rows kept; none without the file."""
    path = Path(path)
    lines = csv.DictReader(path.read_text().splitlines() if path.exists() else [])
    return [
        {"panel": line["panel"], "size": int(line["size"]), "ms": float(line["ms"]),
         "cores": int(line["cores"])}
        for line in lines
    ]  # fmt: skip


def keep(rows, path=KEPT) -> None:
    """Put rows into the file, in place of those of the same panels."""
    new = {row["panel"] for row in rows}
    rows = [row for row in read_rows(path) if row["panel"] not in new] + rows
    with written_atomically(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: list(PANELS).index(row["panel"])))


def exponent(rows) -> float | None:
    """Slope of log ms over log size, least squares; None below two sizes.

    More processes than cores can gain nothing: their rows are left out.
    """
    if rows[0]["panel"] == "loading":
        rows = [row for row in rows if row["size"] <= row["cores"]]
    if len(rows) < 2:
        return None
    size, ms = np.log([[row["size"], row["ms"]] for row in rows]).T
    return float(np.polyfit(size, ms, 1)[0])


def table(rows=None) -> str:
    """A line for each panel: the exponent, and what the smallest and the largest size cost."""
    lines = []
    for panel, mine in _panels(read_rows() if rows is None else rows):
        power, (first, *_, last) = exponent(mine), mine
        power = "cannot be fitted" if power is None else f"time ~ size^{power:5.2f}"
        ends = ", ".join(f"{row['size']}: {row['ms'] / 1e3:.3g} s" for row in (first, last))
        lines.append(f"{panel:10s}  {power}   {PANELS[panel][1]} {ends}")
    return "\n".join(lines) or "not measured yet: python -m benchmarks.scale"


def _panels(rows):
    for panel in PANELS:
        mine = sorted((r for r in rows if r["panel"] == panel), key=lambda r: r["size"])
        if len(mine) > 1:
            yield panel, mine


def plot(rows=None):
    """A panel each, time over size on logarithmic axes, dotted what is linear.  -> figure."""
    import matplotlib.pyplot as plt

    rows = list(_panels(read_rows() if rows is None else rows))
    figure, axes = plt.subplots(1, max(len(rows), 1), figsize=(11, 2.8), layout="constrained")
    for axis, (panel, mine) in zip(np.atleast_1d(axes), rows, strict=False):
        size, ms = np.array([[row["size"], row["ms"]] for row in mine]).T
        linear = size[0] / size if panel == "loading" else size / size[0]
        axis.loglog(size, ms / 1e3, "o-", color="#c8875f")
        axis.loglog(size, ms[0] / 1e3 * linear, ":", color="0.5")
        power = exponent(mine)
        axis.set_title(panel if power is None else f"{panel}: size^{power:.2f}", fontsize=9)
        axis.set(xlabel=PANELS[panel][1], ylabel="seconds")
        if panel == "loading":  # less than a decade, whose small ticks overlap
            axis.set_xticks([], minor=True)
            axis.set_xticks(size, [f"{processes:g}" for processes in size])
        axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def training(steps: int = TRAINING_STEPS, **changes) -> dict[str, float]:
    """Pictures a second of preset ``small``: one process on a thread, one on two, two on one each.

    changes: of the config. The median over the logged steps but the first half.
    """
    words = dict(
        steps=steps, minutes=0.0, train_images=512, validation_images=8, workers=0, log_every=4,
        validate_every=10**6, checkpoint_every=10**6, precision="fp32", device="cpu",
    ) | changes  # fmt: skip
    words = [str(word) for pair in words.items() for word in pair]
    pair = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    found = {}
    for name, threads, before in (
        ("one process, one thread", 1, ()), ("one process, two threads", 2, ()),
        ("two processes, a thread each", 1, pair),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *before, "-m", "hand_lib.training.loop", "--preset", "small"]
            command += ["--folder", f"{folder}/run", "threads", str(threads), *words]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name} failed:\n{done.stderr[-1000:]}")
            speeds = [r["images_per_s"] for r in read_log(f"{folder}/run") if r["images_per_s"]]
            found[name] = statistics.median(speeds[len(speeds) // 2 :])
    return found


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=list(PANELS), help=f"{', '.join(PANELS)}, training"
    )
    for what in parser.parse_args(arguments).what:
        if what == "training":
            speeds = training()
            first = next(iter(speeds.values()))
            for name, speed in speeds.items():
                sys.stdout.write(f"{name:30s} {speed:6.1f} pictures/s  {speed / first:.2f} x\n")
        elif what in PANELS:
            keep(rows := measure(what))
            sys.stdout.write(table(rows) + "\n")
        else:
            parser.error(f"there are {', '.join(PANELS)} and training, not {what!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
