"""Does it teach? One network trained on true meshes, on fits to noisy 2-D keypoints, on mixtures.

    python -m benchmarks.weak_supervision N n STEPS SEED [--out table.json] [--preset small]

N synthetic pictures whose truth is known; n of them keep it. From the others only 2-D keypoints are
taken: noise of 3 px at 224 px, 15 % missing, what lies outside the picture missing too. They are
fitted and filtered, and the default network is trained for STEPS steps on (a) the truth of all
pictures, (b) the accepted fits, (c) the n true ones alone, (d) these and the fits.
"""

import argparse
import copy
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.detections import MISSING, NOISE_PX, spoil
from hand_lib import ROOT
from hand_lib.data.crops import InMemoryDataset
from hand_lib.data.sample import Subset
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.files import read_json, write_json
from hand_lib.fitting.fit import fit_hands
from hand_lib.fitting.prior import network_prior
from hand_lib.hand.model import HandModel, builtin_hierarchy
from hand_lib.inference.predictor import Predictor
from hand_lib.inference.weak_labels import fitted_hand
from hand_lib.mesh.topology import procrustes_align
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network
from hand_lib.render.camera import crop_affine, crop_to_pixels, pixels_to_crop, transform_intrinsics
from hand_lib.training.config import make_config, replace
from hand_lib.training.loop import train
from hand_lib.training.setup import (
    LABELS,
    TrainingSetup,
    single_mesh_scores,
    synthetic_data,
    training_crops,
)

SIDE = 224
"""Pixels of the picture that keypoints are counted in."""

TABLE = ROOT / "runs" / "reference" / "weak_supervision.json"
"""Where the long table is kept, for the notebook to show."""

HELD_OUT_SEED = 7_000_003
TRUE_SHARE = 0.25
"""Share of true hands among those that a mixture shows, at least."""

_CHUNK = 512


def weak_labels(
    truth: InMemoryDataset, seed: int, model=None, progress=None, predictor=None
) -> tuple[dict, dict]:
    """Labels of all pictures from spoilt 2-D keypoints alone, and how good they are.

    truth: synthetic pictures in memory; of its labels only the projected joints and the intrinsics
    are looked at.   model: the hand to fit.   progress: wraps an iterator, as ``tqdm`` does.
    predictor: a ``Predictor`` whose meshes are the prior of the fits; None: key points alone.
    returns labels as the pool holds them, with ``accepted`` (N,) bool, and numbers: accepted share,
    errors (mm) of the accepted meshes, plain and aligned, and of keypoints and fits in 2-D (px).
    """
    model = model or HandModel.builtin()
    size, rng = truth.images.shape[1], np.random.default_rng([seed, 6])
    zoom = crop_affine(((size - 1) / 2,) * 2, size, SIDE)
    exact = crop_to_pixels(truth.arrays["joints_2d"].astype(float), SIDE)
    cameras = transform_intrinsics(
        np.broadcast_to(zoom, (len(truth), 2, 3)), truth.arrays["intrinsics"].astype(float)
    )
    points, confidence = spoil(exact, rng, NOISE_PX, MISSING)
    outside = (np.abs(exact - (SIDE - 1) / 2) > SIDE / 2).any(2)
    confidence[outside] = 0
    labels = {name: values.copy() for name, values in truth.arrays.items()}
    labels["accepted"], plain, aligned, flat = np.zeros(len(truth), bool), [], [], []
    starts = range(0, len(truth), _CHUNK)
    for at in progress(starts) if progress else starts:
        rows = slice(at, at + _CHUNK)
        prior = None if predictor is None else _prior(predictor.predict_crops(truth.images[rows]))
        fit = fit_hands(model, points[rows], confidence[rows], cameras[rows], prior=prior)
        good = np.flatnonzero(fit.accepted)
        labels["accepted"][rows] = fit.accepted
        if not len(good):
            continue
        vertices, joints = fitted_hand(model, fit, good)
        here = at + good
        true = truth.arrays["vertices"][here]
        labels["vertices"][here] = vertices - joints[:, :1]
        labels["joints"][here], labels["root"][here] = joints - joints[:, :1], joints[:, 0]
        labels["joints_2d"][here] = pixels_to_crop(fit.joints_2d[good], SIDE)
        plain.append(np.linalg.norm(labels["vertices"][here] - true, axis=2).mean(1))
        moved = procrustes_align(labels["vertices"][here], true)
        aligned.append(np.linalg.norm(moved - true, axis=2).mean(1))
        flat.append(np.linalg.norm(fit.joints_2d[good] - exact[here], axis=2).ravel())
    seen = confidence > 0
    labels["has_vertices"] = labels["has_joints"] = labels["accepted"]
    raw = np.linalg.norm(points - exact, axis=2)[seen]
    numbers = {"accepted": float(labels["accepted"].mean()), "keypoint_px": float(raw.mean())}
    if plain:
        numbers |= {
            "plain_mm": 1000 * float(np.concatenate(plain).mean()),
            "pa_mm": 1000 * float(np.concatenate(aligned).mean()),
            "fit_px": float(np.concatenate(flat).mean()),
        }
    return labels, numbers


def _prior(said):
    """What a network says of crops (``Predictor.predict_crops``), in pixels of ``SIDE``."""
    read = said.get("joints_2d_direct")
    return network_prior(
        said["vertices"],
        crop_to_pixels(said["joints_2d"].astype(float), SIDE),
        None if read is None else crop_to_pixels(read.astype(float), SIDE),
    )


def prior_study(run="reference", count: int = 256, seed: int = 0) -> dict:
    """Do weak labels get better where a trained network is at hand? Fits against hidden truth.

    run: name or folder of a run.   count: synthetic pictures that no run was trained on; their key
    points are spoilt as in ``weak_labels``.   returns name -> numbers of ``weak_labels``, of fits
    to key points alone and of fits whose prior is what the network says of the picture.
    """
    predictor = Predictor.load(run)
    size = predictor.image_size
    truth = InMemoryDataset(SyntheticHands(size, HELD_OUT_SEED + seed, count), size, margin=1.0)
    given = {"key points alone": None, "with the network": predictor}
    return {name: weak_labels(truth, seed, predictor=who)[1] for name, who in given.items()}


def prior_table(found: dict) -> str:
    """The result of ``prior_study`` as text."""
    lines = [f"{'fits':20}{'accepted':>9}{'PA mm':>8}{'plain mm':>10}{'2-D px':>8}"]
    for name, row in found.items():
        pa, plain, flat = (row.get(key, np.nan) for key in ("pa_mm", "plain_mm", "fit_px"))
        lines.append(f"{name:20}{row['accepted']:9.1%}{pa:8.2f}{plain:10.2f}{flat:8.2f}")
    return "\n".join(lines)


def relabelled(pool: InMemoryDataset, labels: dict) -> InMemoryDataset:
    """The same pictures, shared in memory, under other labels."""
    other = copy.copy(pool)
    other.arrays = {name: labels[name] for name in pool.arrays}
    return other


def training_sets(pool: InMemoryDataset, labels: dict, true_count: int, seed: int = 0) -> dict:
    """The four sets of the table: name -> list of data sets.

    pool: all pictures with their truth.   labels: of ``weak_labels``.   true_count: how many keep
    their truth in (c) and (d), the first ones. In (d) these are shown so often that every fourth
    picture is one of them.
    """
    if not 0 < true_count < len(pool):
        raise ValueError(f"n should lie between 0 and N = {len(pool)}, found {true_count}")
    accepted = np.flatnonzero(labels["accepted"])
    if len(accepted) == 0:
        raise ValueError(f"none of {len(pool)} fits was accepted; nothing to train on")
    weak, few = relabelled(pool, labels), np.arange(true_count)
    rest = accepted[accepted >= true_count]
    wanted = int(np.ceil(TRUE_SHARE / (1 - TRUE_SHARE) * len(rest)))
    often = np.tile(few, -(-max(wanted, true_count) // true_count))[: max(wanted, true_count)]
    return {
        "a": [Subset(pool, np.arange(len(pool)))],
        "b": [Subset(weak, accepted)],
        "c": [Subset(pool, few)],
        "d": [Subset(pool, often), Subset(weak, rest)],
    }


NAMES = {
    "a": "truth of all",
    "b": "fits to 2-D keypoints only",
    "c": "truth of a few",
    "d": "truth of a few and fits",
}


def compare(
    count: int, true_count: int, steps: int, seed: int = 0, preset: str = "small", folder=None,
    held_out: int = 1000, only=None, say=None, **settings,
) -> dict:  # fmt: skip
    """Train the default network on each of the four sets and score it on unseen true pictures.

    count: pictures N.   true_count: n that keep their truth.   steps: of every training.
    preset, settings: of ``make_config``.   folder: where the runs go (removed when None).
    held_out: pictures to score on.   only: letters of the rows to train, default all.
    returns the settings, the quality of the labels, and per row ``pa_mm`` and ``plain_mm``, mean
    vertex errors; ``ratio`` is that of PA to row (a).
    """
    say = say or (lambda text: None)
    config = make_config(
        preset, **{"steps": steps, "train_images": count, "seed": seed, "minutes": 0.0, **settings}
    )
    started = time.perf_counter()
    pool = synthetic_data(replace(config, workers=0))
    labels, quality = weak_labels(pool, seed)
    say(f"{count} pictures, {quality['accepted']:.1%} of the fits accepted, "
        f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    batch = SyntheticHands(config.image_size, HELD_OUT_SEED, held_out).fetch_batch(
        np.arange(held_out)
    )
    validation = {name: torch.from_numpy(np.ascontiguousarray(batch[name])) for name in LABELS}
    few = np.linspace(0, count - 1, min(1000, count)).astype(int)
    baseline = single_mesh_scores(
        {name: pool.arrays[name][few] for name in ("vertices", "joints")}, validation
    )
    sets = training_sets(pool, labels, true_count, seed)
    base = Path(folder) if folder else ROOT / "runs" / f".weak-{seed}-{count}-{steps}"
    try:
        rows = _train_rows({key: sets[key] for key in only or sets}, config, base, validation,
                           baseline, say)  # fmt: skip
    finally:
        if folder is None:
            shutil.rmtree(base, ignore_errors=True)
    if "a" in rows:
        for row in rows.values():
            row["ratio"] = row["pa_mm"] / rows["a"]["pa_mm"]
    return {
        "N": count, "n": true_count, "steps": steps, "seed": seed, "preset": preset,
        "settings": settings, "held_out": held_out, "labels": quality,
        "template_only": {"pa_mm": baseline["vertices_pa_mm"], "plain_mm": baseline["vertices_mm"]},
        "rows": rows,
    }  # fmt: skip


def _train_rows(sets, config, base, validation, baseline, say) -> dict:
    """Train on each of the sets, from the same weights, and score: letter -> row of the table."""
    hierarchy, rows = builtin_hierarchy(factors=config.factors), {}
    for key, parts in sets.items():
        data = [training_crops(config, part, hierarchy) for part in parts]
        shutil.rmtree(base / key, ignore_errors=True)
        torch.manual_seed(config.seed)
        network = build_network(config, hierarchy)
        setup = TrainingSetup(network, data, validation, total_loss, baseline=baseline)
        began = time.perf_counter()
        result = train(config, base / key, setup=setup, say=lambda text: None)
        scores = result.metrics["validation"]
        rows[key] = {
            "name": NAMES[key], "pictures": sum(len(np.unique(part.indices)) for part in parts),
            "pa_mm": scores["vertices_pa_mm"], "plain_mm": scores["vertices_mm"],
            "seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip
        say(f"({key}) {NAMES[key]}: PA {rows[key]['pa_mm']:.2f} mm, "
            f"plain {rows[key]['plain_mm']:.2f} mm, {rows[key]['seconds']:.0f} s")  # fmt: skip
    return rows


def table(result: dict) -> str:
    """The result of ``compare`` as text."""
    labels, single = result["labels"], result["template_only"]
    lines = [
        f"{result['N']} pictures, {result['n']} with truth, {result['steps']} steps of preset "
        f"{result['preset']}, scored on {result['held_out']} others",
        f"fits: {labels['accepted']:.1%} accepted; their meshes are off by "
        f"{labels.get('plain_mm', np.nan):.1f} mm, aligned {labels.get('pa_mm', np.nan):.1f} mm; "
        f"2-D {labels.get('fit_px', np.nan):.1f} px where the keypoints were off by "
        f"{labels['keypoint_px']:.1f} px",
        "",
        f"{'trained on':34}{'pictures':>9}{'PA mm':>8}{'plain mm':>10}{'PA / (a)':>10}",
        f"{'    nothing: template only':43}{single['pa_mm']:8.2f}{single['plain_mm']:10.2f}",
    ]
    for key, row in result["rows"].items():
        ratio = f"{row['ratio']:10.2f}" if "ratio" in row else ""
        lines.append(
            f"({key}) {row['name']:30}{row['pictures']:9d}{row['pa_mm']:8.2f}"
            f"{row['plain_mm']:10.2f}{ratio}"
        )
    return "\n".join(lines)


def saved_table(path=TABLE) -> str:
    """The long table as text, or how to make it."""
    result = read_json(Path(path), optional=True)
    if result is None:
        return "not made yet: python -m benchmarks.weak_supervision 40000 1000 5000 0 --keep"
    return table(result)


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weak_supervision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("N", "n", "STEPS", "SEED"):
        parser.add_argument(name, type=int)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--only", help="letters of the rows to train, for instance ab")
    parser.add_argument("--keep", action="store_true", help="save it where notebook 06 looks")
    parser.add_argument("--out", help="save the table as JSON here")
    given = parser.parse_args(arguments)
    try:
        result = compare(
            given.N, given.n, given.STEPS, given.SEED, given.preset, only=given.only,
            say=lambda text: sys.stderr.write(text + "\n"),
        )  # fmt: skip
    except ValueError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(table(result) + "\n")
    for path in filter(None, (given.out, TABLE if given.keep else None)):
        write_json(Path(path), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
