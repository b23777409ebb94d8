"""Notebook 07, a topic at a time: which benchmark it is, and how thoroughly it is measured.

>>> rows = measure("scoring", quick=True)
>>> print(table(rows))
"""

import torch

from benchmarks import accuracy, data, demo, mesh, metrics, model, network, render, training
from benchmarks.ablation import table as equal_times  # noqa: F401
from benchmarks.scale import plot as scale_plot  # noqa: F401
from benchmarks.scale import table as scale_table  # noqa: F401
from benchmarks.stopwatch import answer, machine, ratio_chart, table, use_threads  # noqa: F401
from hand_lib import ROOT
from hand_lib.data.synthetic.hands import synthetic_test
from hand_lib.inference.predictor import load_network
from hand_lib.training.config import make_config


def measure(topic: str, quick: bool = True, threads: int = 1) -> list[dict]:
    """The rows of a topic, as ``stopwatch.table`` prints them.

    topic: one of the names below.   quick: few repeats and small batches.
    threads: of the hand model; the others take one, or what ``use_threads`` set.
    """
    topics = {
        "hand model": lambda: model.measure_hand_model(64, 20 if quick else 100, threads),
        "levels and spirals": lambda: mesh.rows(repeats=5 if quick else 15, big=not quick),
        "networks": lambda: network.rows(batch=4 if quick else 16, repeats=4 if quick else 7),
        "training step": lambda: _training(quick),
        "scoring": lambda: metrics.rows(40 if quick else 500, 3),
        "loading": lambda: data.rows(5, 16 if quick else 64),
        "drawing": lambda: render.benchmark_render(
            batch=32 if quick else 64, repeats=3 if quick else 9
        ),
        "photographs": lambda: demo.rows(repeats=3 if quick else 9),
    }
    if topic not in topics:
        raise ValueError(f"unknown topic {topic!r}; there are: {', '.join(topics)}")
    return topics[topic]()


def _training(quick: bool) -> list[dict]:
    if not quick:
        return training.rows(device="cpu")
    config = make_config("small", image_size=64, batch_size=16, decoder="coarse_to_fine",
                         backbone="regnety_002", pretrained=False, ema_decay=0.99)  # fmt: skip
    return training.step_costs(config, torch.device("cpu"), repeats=10)


def gpu_table(quick: bool = True) -> str:
    """The training step at 224 px and batch 64, where CUDA is present; else a line that says so."""
    if not torch.cuda.is_available():
        return "no CUDA GPU here, so there is nothing to measure on one"
    return training.gpu_table(repeats=5 if quick else 30)


def ablations() -> str:
    """The kept table of what each part of our network brings."""
    return accuracy.score_table(accuracy.kept_rows("ablate"), beside="whole")


def bfloat16_gap(quick: bool = True) -> str:
    """How far the reference model's meshes in bfloat16 are from those in float32, in a sentence."""
    images = synthetic_test().fetch_batch(range(40 if quick else 400))["image"]
    gap = accuracy.precision_gap(load_network(ROOT / "runs" / "reference")[0], images)
    return (f"bfloat16 beside float32: mean {gap['mean_mm']:.2f} mm, median "
            f"{gap['median_mm']:.2f} mm between the two meshes of a hand")  # fmt: skip
