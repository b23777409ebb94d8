"""What an hour of training buys: one thing changed at a time, every candidate given the same time.

    python -m benchmarks.ablation 64000 --seeds 0 1                    # every candidate
    python -m benchmarks.ablation 64000 --only base "frozen, two stages"

in the folder ``notebooks``. The base sees so many pictures; a candidate whose step takes half the
time a picture sees twice as many. What a step takes is measured before, in turns with the base's
and in the process's own time, so that a busy machine stretches neither. A row goes into
``ablation.csv`` as soon as it is known, and one that is there is not trained again; notebook 07
shows ``table()``.
"""

import argparse
import csv
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.stopwatch import milliseconds
from hand_lib.data.loader import HandLoader
from hand_lib.network.losses import total_loss
from hand_lib.training.config import TrainConfig, make_config, replace
from hand_lib.training.loop import train
from hand_lib.training.setup import build_setup, make_optimizer, set_train_mode, update_average

KEPT = Path(__file__).with_suffix(".csv")
"""The rows that notebook 07 shows."""

STAGES = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
CANDIDATES = {
    "base": {},
    "frozen, two stages": {"frozen": STAGES[:4]},
    "frozen, three stages": {"frozen": STAGES},
    "random weights": {"pretrained": False, "encoder_learning_rate": 1e-3},
    "view 64": {"view_size": 64},
    "view 80": {"view_size": 80},
    "view 112": {"view_size": 112},
    "view 128": {"view_size": 128, "encoder_stride": 16},
    "view 128, one stage more": {"view_size": 128},
    "one crop": {"n_crops": 1},
    "three crops": {"n_crops": 3},
    "batch 64": {"batch_size": 64},
    "batch 128": {"batch_size": 128},
    "rate 5e-4": {"learning_rate": 5e-4},
    "rate 2e-3": {"learning_rate": 2e-3},
    "encoder's rate 1e-4": {"encoder_learning_rate": 1e-4},
    "encoder's rate 1e-3": {"encoder_learning_rate": 1e-3},
    "no averaging": {"ema_decay": 0.0},
    "long averaging": {"ema_decay": 0.9995},
    "canonical loss 5": {"loss_canonical": 5.0},
    "no correspondence": {"loss_correspondence": 0.0},
}
"""Name -> fields of the config that differ from the base's."""

ENCODER_RATE = 5e-4
"""The base's rate for the encoder: half of the rest's, as preset ``small`` had it before the row
"encoder's rate 1e-3" was measured."""

NUMBERS = ("pictures", "step_ratio", "plain_mm", "pa_mm", "joints_2d_percent", "cpu_seconds")


def base_config(pictures: int, seed: int = 0, **changes) -> TrainConfig:
    """Preset ``small`` with ``ENCODER_RATE`` on pictures never seen before, until they end."""
    config = make_config(
        "small", minutes=0.0, seed=seed, workers=1, threads=1, precision="fp32", device="cpu",
        train_images=4 * pictures, validation_images=512, validate_every=10**6,
        checkpoint_every=10**6, **{"encoder_learning_rate": ENCODER_RATE} | changes,
    )  # fmt: skip
    steps = max(1, pictures // config.batch_size)
    return replace(config, steps=steps, warmup_steps=min(100, steps // 5 or 1))


def step_of(config: TrainConfig):
    """A training step on one batch, as ``training.loop.fit`` does it, as a function."""
    setup = build_setup(replace(config, train_images=4 * config.batch_size, validation_images=2),
                        lambda line: None)  # fmt: skip
    network = setup.network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, config)
    batch = next(iter(HandLoader(setup.train_data, config.batch_size)))

    def step():
        set_train_mode(network, config)
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        total_loss(network(images), batch, network, config)[0].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(network, network, 0.5, 1)

    return step


def step_ratio(config: TrainConfig, base: TrainConfig, repeats: int = 3) -> float:
    """Process time that ``config`` takes for a picture of a step, over that of ``base``."""
    if config == base:
        return 1.0
    mine, other = milliseconds([step_of(config), step_of(base)], repeats, time.process_time)
    return mine / config.batch_size / (other / base.batch_size)


def measure(name: str, pictures: int, seed: int, say=None) -> dict:
    """Train a candidate in the time in which the base sees ``pictures``; its row."""
    torch.set_num_threads(1)
    base = base_config(pictures, seed)
    ratio = step_ratio(base_config(pictures, seed, **CANDIDATES[name]), base)
    config = base_config(round(pictures / ratio), seed, **CANDIDATES[name])
    folder, before = tempfile.mkdtemp(prefix="ablation-"), time.process_time()
    try:
        result = train(config, f"{folder}/run", say=say or (lambda line: None))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = result.metrics["validation"]
    values = (
        result.step * config.batch_size, round(ratio, 3), round(found["vertices_mm"], 2),
        round(found["vertices_pa_mm"], 2), round(found["joints_2d_percent"], 2),
        round(time.process_time() - before),
    )  # fmt: skip
    row = {"candidate": name, "seed": seed, "time_of_pictures": pictures}
    return row | dict(zip(NUMBERS, values, strict=True))


def read_rows(path=KEPT) -> list[dict]:
    """The rows measured so far; none without the file."""
    path = Path(path)
    lines = csv.DictReader(path.read_text().splitlines() if path.exists() else [])
    return [
        {name: cell if name == "candidate" else float(cell) for name, cell in line.items()}
        for line in lines
    ]


def add_row(row: dict, path=KEPT) -> None:
    """Append a row; the first one brings the heading."""
    new = not Path(path).exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows=None) -> str:
    """Rows as text, those of equal time together, means over seeds, the best PA error first.

    In brackets: the difference to the base of the same time.
    """
    rows = read_rows() if rows is None else rows
    if not rows:
        return "no ablation measured yet: python -m benchmarks.ablation 64000"
    lines = [f"{'time of':>8s}  {'':26s} {'pictures':>8s} {'seeds':>5s} {'plain, mm':>15s} "
             f"{'PA, mm':>15s} {'2-D, %':>15s}"]  # fmt: skip
    for budget in sorted({row["time_of_pictures"] for row in rows}):
        means = {}
        for name in CANDIDATES:
            mine = [r for r in rows if (r["candidate"], r["time_of_pictures"]) == (name, budget)]
            if mine:
                means[name] = {n: sum(r[n] for r in mine) / len(mine) for n in NUMBERS}
                means[name]["seeds"] = len(mine)
        base = means.get("base")
        for name, mean in sorted(means.items(), key=lambda item: item[1]["pa_mm"]):
            cells = []
            for number in ("plain_mm", "pa_mm", "joints_2d_percent"):
                more = f" ({mean[number] - base[number]:+.2f})" if base and name != "base" else ""
                cells.append(f"{mean[number]:.2f}{more:8s}".rjust(15))
            head = f"{budget:8.0f}  {name:26s} {mean['pictures']:8.0f} {mean['seeds']:5d}"
            lines.append(" ".join([head, *cells]).rstrip())
    return "\n".join(lines)


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("pictures", type=int, help="that the base sees")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--rows", type=Path, default=KEPT, help="the file of results")
    given = parser.parse_args(arguments)
    for seed in given.seeds:
        for name in given.only:
            known = ("candidate", "seed", "time_of_pictures")
            done = [tuple(row[key] for key in known) for row in read_rows(given.rows)]
            if (name, seed, given.pictures) not in done:
                add_row(measure(name, given.pictures, seed), given.rows)
    sys.stdout.write(table(read_rows(given.rows)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
