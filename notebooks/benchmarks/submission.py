"""From FreiHAND's evaluation pictures to a scored pred.json, as long as the real set, timed.

    python -m benchmarks.submission --count 396          # in notebooks; 3960 is the whole length

The set is synthetic, in FreiHAND's own layout and in METRO's, in a scratch folder; the run is
Youtubehand's ResNet-18 with random weights. Each road goes through the commands that a user types.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hand_lib.data.synthetic.hands import write_synthetic_freihand
from hand_lib.evaluation.predictions import read_predictions
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.network.model import build_network
from hand_lib.training.config import make_config
from hand_lib.training.run_folder import save_model


def untrained_run(folder: Path, backbone: str = "resnet18") -> Path:
    """A run of ``preset youtubehand`` that learnt nothing, which costs as much to use as any."""
    config = make_config("youtubehand", backbone=backbone, pretrained=False)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    save_model(folder, build_network(config, builtin_hierarchy()).state_dict())
    return folder


def timed_road(folder, count: int = 3960) -> dict[str, float]:
    """Seconds of every step, by name.   folder: an empty one, for some 200 MB."""
    folder, seconds = Path(folder), {}
    run = untrained_run(folder / "run")
    start = time.perf_counter()
    place = write_synthetic_freihand(folder / "freihand", count, 224, 5, "evaluation")
    seconds["pictures drawn"] = time.perf_counter() - start
    steps = {
        "to METRO's layout": ["data.open", place, folder / "tsv", "--to", "tsv"],
        "FreiHAND, predicted": ["evaluation.runs", run, "--data", place, "--out", folder / "a.zip"],
        "METRO, predicted": [
            "evaluation.runs", run, "--data", folder / "tsv/test.yaml", "--out", folder / "b.zip",
        ],
        "scored": ["evaluation.freihand", folder / "b.zip", "--truth", place],
    }  # fmt: skip
    for name, (module, *words) in steps.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", f"hand_lib.{module}", *map(str, words)], check=True)
        seconds[name] = time.perf_counter() - start
    one, other = (read_predictions(folder / name) for name in ("a.zip", "b.zip"))
    if one[1].shape != (count, 778, 3) or not np.allclose(one[1], other[1], atol=1e-5):
        raise AssertionError("the two layouts give other predictions")
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submission", description=__doc__)
    parser.add_argument("--count", type=int, default=3960)
    with tempfile.TemporaryDirectory() as scratch:
        found = timed_road(scratch, parser.parse_args().count)
    sys.stdout.write("".join(f"{name:24}{value:8.0f} s\n" for name, value in found.items()))
