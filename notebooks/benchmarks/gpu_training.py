"""Go on with a model on a GPU for some minutes, and carry the weights away in small pieces.

    python -m benchmarks.gpu_training OUT --minutes 9.5 --start runs/reference
    python -m benchmarks.gpu_training OUT --join runs/gpu

in the folder ``notebooks``; the second puts the newest whole pieces in OUT together again: a run
folder that ``Predictor`` loads, ``publish`` publishes and another call starts from. Pictures are
painted by one process a core; the schedule, the score on synthetic-test included, ends in time.
NAME VALUE pairs change fields of ``TrainConfig``. Rehearsed on a CPU, in miniature::

    python -m benchmarks.gpu_training runs/gpu --minutes 1 --count 20 batch_size 8 workers 1
"""

import argparse
import contextlib
import copy
import hashlib
import io
import json
import shutil
import statistics
import sys
import tarfile
import threading
import time
from pathlib import Path

import torch

from hand_lib import ROOT
from hand_lib.data.crops import HandCrops
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.evaluation.runs import evaluate_run, open_test_set
from hand_lib.files import read_json, write_json
from hand_lib.metrics import mesh_errors
from hand_lib.training.config import TrainConfig, changes_from_words, replace
from hand_lib.training.loop import train
from hand_lib.training.run_folder import find_run, read_config
from hand_lib.training.runtime import cores, training_legs
from hand_lib.training.setup import build_setup

PIECE = 15_000_000
"""Bytes that a piece has at most; two sets of pieces are kept, so that one is always whole."""

CARRIED = (
    "config.json", "model.safetensors", "metrics.json", "provenance.json", "log.csv", "score.json",
)  # fmt: skip
"""What of a run folder goes into the pieces; the last two may be missing."""

EVERY = 120.0
"""Seconds between two sets of pieces."""


def leg_config(start, view: int = 128, **changes) -> TrainConfig:
    """The config of a leg that goes on from ``start``: large batches of pictures never seen before.

    view: pixels the encoder sees; it keeps the stages that it had.   changes: other fields.
    """
    before, gpu = read_config(start), torch.cuda.is_available()
    batch = changes.get("batch_size") or (512 if gpu else before.batch_size)
    rate = 8e-4 * (batch / 128) ** 0.5  # 128 pictures a step learnt well at 8e-4
    settings = dict(
        start_from=str(start), pretrained=False, frozen=(), seed=9000 + len(training_legs(start)),
        encoder_stride=before.encoder_stride or _stride(before), view_size=view,
        image_size=max(view, before.image_size), train_images=8_000_000, workers=cores(),
        batch_size=batch, accumulate=1, learning_rate=rate, encoder_learning_rate=rate / 2,
        schedule="cosine", warmup_steps=100, steps=1_000_000, device="auto", threads=0,
        precision="bf16" if gpu else "auto", validate_every=1000, checkpoint_every=250,
    )  # fmt: skip
    return replace(before, **settings | changes)


def _stride(config) -> int:
    """Stride of the deepest stage that an encoder of this config has."""
    from hand_lib.network.encoders import GridEncoder

    return GridEncoder(config.backbone, config.view_size or config.image_size).strides[-1]


def go_on(
    start, out, minutes: float, view: int = 128, run: str = "gpu", count: int = 0, say=print,
    **changes,
) -> Path:  # fmt: skip
    """Train from the weights of a run for some minutes; the new run folder.

    start: name or folder.   out: folder for the pieces.   minutes: everything included.   run: name
    of the new folder in ``runs/``, replaced if it is there.   count: pictures of synthetic-test to
    score on, 0 for all.
    """
    began, gpu, out = time.monotonic(), torch.cuda.is_available(), Path(out)
    torch.set_float32_matmul_precision("high")
    config = leg_config(find_run(start), view, **changes)
    setup = build_setup(config, say)
    say(f"{config.workers} processes paint, {painted_per_second(config):.0f} pictures/s each")
    if gpu:
        size = config.view_size or config.image_size
        say("compiled" if compiles(setup.network, size) else "not compiled: slower, not wrong")
    spent = (time.monotonic() - began) / 60
    reserve = min(0.75, minutes / 4)  # for the score
    config = replace(config, minutes=max(0.05, minutes - spent - reserve))
    say(f"ready after {60 * spent:.0f} s; trains for {config.minutes:.1f} min")
    folder = ROOT / "runs" / run
    shutil.rmtree(folder, ignore_errors=True)
    with pieces_beside(folder, out) as write:
        result = train(config, folder, setup=setup, say=say)
        write()
        speeds = [row["images_per_s"] for row in result.log if row["images_per_s"]]
        pictures = result.step * config.batch_size
        score = {
            "pictures": pictures,
            "pictures_per_s": round(pictures / result.metrics["seconds"]),
            "pictures_per_s_median": round(statistics.median(speeds or [0])),
        } | test_score(folder, count)
        write_json(folder / "score.json", score)
        write()
    say(json.dumps(score))
    say(f"{(time.monotonic() - began) / 60:.1f} min in all")
    return folder


def test_score(run, count: int = 0) -> dict:
    """Mean errors on synthetic-test: vertices, plain and PA (mm), 2-D joints (% of the crop)."""
    found = evaluate_run(run, open_test_set(count=count))
    errors = mesh_errors(found.vertices, found.truth["vertices"])
    pixels = found.joint_error_px / found.image_size
    return {
        "test_pictures": len(found.vertices),
        "vertices_mm": round(1000 * float(errors["plain"].mean()), 2),
        "vertices_pa_mm": round(1000 * float(errors["pa"].mean()), 2),
        "joints_2d_percent": round(100 * float(pixels[pixels == pixels].mean()), 2),
    }


test_score.__test__ = False


def painted_per_second(config, count: int = 128) -> float:
    """Pictures that one process paints in a second; it compiles and warms up on the way."""
    crops = HandCrops(SyntheticHands(config.image_size, config.seed, 2 * count), config.image_size)
    for rows in (range(count), range(count, 2 * count)):
        start = time.perf_counter()
        crops.fetch_batch(list(rows))
    return count / (time.perf_counter() - start)


def compiles(network, size: int) -> bool:
    """Compile a network in its place if a copy of it runs forward and backward compiled."""
    trial = copy.deepcopy(network).to("cuda", memory_format=torch.channels_last).train()
    trial.compile(dynamic=False)
    images = torch.full((32, 3, size, size), 127, dtype=torch.uint8, device="cuda")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            trial(images.contiguous(memory_format=torch.channels_last)).vertices.mean().backward()
    except Exception:  # no compiler there, or one of the many kinds of not being able to
        return False
    network.compile(dynamic=False)
    return True


@contextlib.contextmanager
def pieces_beside(run, out, every: float = EVERY):
    """Inside the block a thread cuts the run into pieces now and then; gives a function for now."""
    stop, lock, turn = threading.Event(), threading.Lock(), iter("ab" * 100_000)

    def write():
        with lock:
            if (Path(run) / "model.safetensors").exists():
                cut_into_pieces(run, out, next(turn))

    def watch():
        while not stop.wait(every):
            write()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield write
    finally:
        stop.set()
        thread.join()


def cut_into_pieces(run, out, name: str = "a", limit: int = PIECE) -> list[Path]:
    """Write what of a run is carried away as ``name.00``, ... of at most ``limit`` bytes each.

    ``name.json``, written last, tells the step, the number of pieces and the sha256 of all.
    """
    run, out = Path(run), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{name}.*"):
        old.unlink()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for part in CARRIED:
            if (run / part).exists():
                archive.add(run / part, arcname=part)
    content = whole.getvalue()
    starts = range(0, len(content), limit)
    paths = [out / f"{name}.{number:02d}" for number in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        path.write_bytes(content[start : start + limit])
    step = (read_json(run / "metrics.json", optional=True) or {}).get("step", 0)
    note = {"written": time.time(), "step": step, "pieces": len(paths)}
    write_json(out / f"{name}.json", note | {"sha256": hashlib.sha256(content).hexdigest()})
    return paths


def join_pieces(out, run) -> Path:
    """Put the newest whole set of pieces together again.   run: the folder to write.

    raises FileNotFoundError where no set is whole, FileExistsError where ``run`` holds a run.
    """
    out, run, problems = Path(out), Path(run), []
    if (run / "model.safetensors").exists():
        raise FileExistsError(f"{run} holds a run already; choose another folder")
    notes = [(read_json(path), path) for path in out.glob("?.json")]
    for note, path in sorted(notes, key=lambda pair: -pair[0]["written"]):
        pieces = [path.with_suffix(f".{number:02d}") for number in range(note["pieces"])]
        content = b"".join(piece.read_bytes() for piece in pieces if piece.exists())
        if hashlib.sha256(content).hexdigest() != note["sha256"]:
            problems.append(f"{path.name} tells of {note['pieces']} pieces that are not all whole")
            continue
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(run, filter="data")
        return run
    raise FileNotFoundError(f"{out} holds no whole set of pieces: {'; '.join(problems) or 'none'}")


def main(arguments=None) -> int:
    """The command line; 0, or 2 for a wrong request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_training", description=__doc__)
    parser.add_argument("out", help="folder of the pieces")
    parser.add_argument("--join", metavar="RUN", help="put the pieces in OUT together there")
    parser.add_argument("--start", default="runs/reference", help="the run to go on from")
    parser.add_argument("--minutes", type=float, default=9.5, help="everything included")
    parser.add_argument("--view", type=int, default=128, help="pixels that the encoder sees")
    parser.add_argument("--run", default="gpu", help="name of the new run in runs/")
    parser.add_argument("--count", type=int, default=0, help="pictures to score on; 0: all")
    parser.add_argument("changes", nargs="*", metavar="NAME VALUE", help="fields of the config")
    given = parser.parse_intermixed_args(arguments)
    say = lambda line: print(line, flush=True)  # noqa: E731, T201
    try:
        if given.join:
            say(join_pieces(given.out, find_run(given.join)))
            return 0
        options = changes_from_words(given.changes)
        go_on(given.start, given.out, given.minutes, given.view, given.run, given.count, say,
              **options)  # fmt: skip
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
