"""The fixed benchmark, pinned: what ``synthetic-test`` looked like when its numbers were reported.

Another processor or library rounds the last bit differently, so what is compared survives that,
within tolerances: mean and spread of each number that all pictures are made of, and of some
pictures the mean colours of 4 x 4 cells and the places of joints.
"""

import json

import numpy as np
from numpy.typing import NDArray

from hand_lib import ROOT
from hand_lib.data.synthetic.config import flat_fields
from hand_lib.data.synthetic.hands import SYNTHETIC_TEST, VERSION, synthetic_test

PIN = ROOT / "template" / "synthetic-test.json"
CELLS = 4
PINNED_PICTURES = 64
GREY_TOLERANCE = 1.0
"""Grey levels that the mean of a cell may be off: code that only rounds otherwise stays below 0.1,
another light, pose or background is far above."""
JOINT_TOLERANCE_MM = 0.1
NUMBER_TOLERANCE = 1e-5
"""Share that a mean may be off; one picture's number of 2,000 changes it far more."""


def cell_means(images: NDArray) -> NDArray:
    """Mean colours of CELLS x CELLS cells.   images: (B, 3, S, S).   returns (B, 3, CELLS, CELLS).

    >>> cell_means(np.full((1, 3, 8, 8), 7, np.uint8)).shape
    (1, 3, 4, 4)
    """
    edges = np.linspace(0, images.shape[-1], CELLS + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(images.astype(float), edges[:-1], 2), edges[:-1], 3)
    wide = np.diff(edges)
    return sums / (wide[:, None] * wide)


def number_means(records: NDArray) -> dict:
    """Mean absolute value and root mean square of each field.   records: (B,) of ``PARAMETERS``."""
    fields = flat_fields(records)
    del fields["index"]
    return {k: [float(np.abs(v).mean()), float(np.sqrt((v**2).mean()))] for k, v in fields.items()}


def describe_benchmark() -> dict:
    """What is pinned, as JSON takes it: recipe, means of all numbers drawn, cells and joints."""
    hands = synthetic_test()
    indices = np.linspace(0, len(hands) - 1, PINNED_PICTURES).astype(int)
    batch = hands.fetch_batch(indices)
    joints = 1000 * (batch["joints"] + batch["root"][:, None])[:, [0, 4, 8, 12, 16, 20]]
    return {
        "version": VERSION,
        **SYNTHETIC_TEST,
        "numbers": number_means(hands.parameters(np.arange(len(hands)))),
        "indices": indices.tolist(),
        "cells": np.round(cell_means(batch["image"]), 1).tolist(),
        "joints_mm": np.round(joints, 2).tolist(),
    }


def pin_benchmark() -> None:
    """Write ``template/synthetic-test.json``: only when the pictures are meant to change.

    PYTHONPATH=.:tests python -c "import synthetic_check; synthetic_check.pin_benchmark()"
    """
    PIN.write_text(json.dumps(describe_benchmark()) + "\n", encoding="ascii")


def check_benchmark(count: int = PINNED_PICTURES) -> list[str]:
    """What of ``synthetic-test`` is not as pinned; an empty list when all is.

    count: how many of the pinned pictures to draw and compare.
    """
    pinned, hands = json.loads(PIN.read_text(encoding="ascii")), synthetic_test()
    now = {"version": VERSION, **SYNTHETIC_TEST}
    found = [f"{key} {now[key]} (pinned {pinned[key]})" for key in now if now[key] != pinned[key]]
    numbers = number_means(hands.parameters(np.arange(len(hands))))
    for name in sorted(set(numbers) | set(pinned["numbers"])):
        pair = numbers.get(name, [np.nan] * 2), pinned["numbers"].get(name, [np.nan] * 2)
        if not np.allclose(*pair, rtol=NUMBER_TOLERANCE, atol=NUMBER_TOLERANCE**2):
            found.append(f"the numbers drawn for {name}")
    if found:
        return found
    batch = hands.fetch_batch(pinned["indices"][:count])
    cells = np.abs(cell_means(batch["image"]) - np.array(pinned["cells"][:count])).max()
    joints = 1000 * (batch["joints"] + batch["root"][:, None])[:, [0, 4, 8, 12, 16, 20]]
    joints = np.abs(joints - np.array(pinned["joints_mm"][:count])).max()
    if joints > JOINT_TOLERANCE_MM:
        found.append(f"joints, by up to {joints:.2f} mm")
    if cells > GREY_TOLERANCE:
        found.append(f"pictures, by up to {cells:.1f} grey levels in the mean of a cell")
    return found
