"""From a config to what the loop needs: network, training data, validation set, loss."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from hand_lib.data.augment import TightCrop
from hand_lib.data.crops import HandCrops, InMemoryDataset
from hand_lib.data.open import choose_hand, find_mano, is_builtin, open_data
from hand_lib.data.sample import split_unique
from hand_lib.data.surface_maps import SurfaceMaps
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.joints import fingertips_of
from hand_lib.mesh.topology import procrustes_align
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network, joint_regressor
from hand_lib.training.log import geometric_scores
from hand_lib.training.loop import Task
from hand_lib.training.provenance import fingerprint_arrays
from hand_lib.training.transfer import start_from

VALIDATION_SEED = 1_000_003
"""Seed of the synthetic validation hands; training ones are drawn with the run's own seed."""

LABELS = (
    "image", "vertices", "joints", "joints_2d", "root", "intrinsics", "valid_2d", "has_vertices",
    "has_joints", "index",
)  # fmt: skip
"""What a batch holds."""

_RENDER_CHUNK = 64
_BASELINE_HANDS = 1000


def build_task(config, say=tqdm.write) -> Task:
    """Network, data and loss as the config names them; says what it built."""
    from hand_lib.hand.model import builtin_hierarchy

    started = time.perf_counter()
    sets, validation, some = training_sets(config)
    hand = choose_hand(config.hand, some["vertices"])
    hierarchy = builtin_hierarchy(hand, config.factors)
    train_data = [training_crops(config, data, hierarchy) for data in sets]
    network = build_network(config, hierarchy, joint_regressor(hand))
    if config.start_from:
        fresh = start_from(network, config.start_from)
        say(f"weights of {config.start_from}; fresh: {', '.join(fresh) or 'none'}")
    seconds = time.perf_counter() - started
    count = sum(len(data) for data in train_data)
    say(
        f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters ({config.backbone},"
        f" {config.decoder}); {count} training images of {config.image_size} px, "
        f"{len(validation['image'])} to validate on, ready in {seconds:.0f} s; "
        f"fingertips: {fingertips_of(sets[0])}"
    )
    return Task(
        network,
        train_data,
        validation,
        total_loss,
        fingerprint_arrays({name: value.numpy() for name, value in validation.items()}),
        single_mesh_scores(some, validation),
        None if is_builtin(hand) else hierarchy,
    )


def training_sets(config) -> tuple[list, dict, dict]:
    """Data sets to train on, the validation set as one batch of tensors, some training hands.

    ``config.data`` may join several with "+". The third, ``vertices`` (N, V, 3) and ``joints``
    (N, 21, 3) metres, wrist at the origin, is what "template only" is made from.
    """
    sets, held_out, some = [], None, {}
    for place in config.data.split("+"):
        if place == "synthetic":
            training = synthetic_data(config)
        else:
            whole = open_data(place, model=find_mano(config.hand))
            share = min(0.5, config.validation_images / max(len(np.unique(whole.groups)), 1))
            training, held = split_unique(whole, share, seed=0)
            held_out = held_out or held
        sets.append(training)
        if not some:
            count = min(_BASELINE_HANDS, len(training))
            picks = np.linspace(0, len(training) - 1, count).astype(int)
            batch = HandCrops(training, config.image_size).fetch_batch(picks)
            some = {name: batch[name][batch[f"has_{name}"]] for name in ("vertices", "joints")}
    return sets, _validation(config, held_out), some


def training_crops(config, dataset, hierarchy) -> HandCrops:
    """What the network of ``config`` learns from ``dataset``: first and tight crops, labels.

    hierarchy: of the mesh that the labels are of.
    """
    tight = surface = None
    if config.decoder == "coarse_to_fine":
        tight = TightCrop() if config.n_crops > 1 else None
        if config.loss_correspondence:
            surface = SurfaceMaps(hierarchy.vertices[0], hierarchy.faces[0])
    return HandCrops(
        dataset, config.view_size or config.image_size, config.augmentation, config.seed,
        tight=tight, surface=surface,
    )  # fmt: skip


def synthetic_data(config):
    """Synthetic hands to train on: kept in memory, or with loader processes painted on the fly."""
    if config.workers:
        return SyntheticHands(config.image_size, config.seed, config.train_images)
    return synthetic_pool(config.image_size, config.train_images, config.seed)


def synthetic_pool(size: int, count: int, seed: int) -> InMemoryDataset:
    """Synthetic pictures kept in memory, rendered by two threads, with the time left shown.

    size: pixels.   count: pictures, number 0 to count - 1 of the endless set of that seed.
    """
    if count < 1:
        raise ValueError("train_images should be at least 1 for synthetic data")
    chunks = [range(at, min(at + _RENDER_CHUNK, count)) for at in range(0, count, _RENDER_CHUNK)]
    painters = [SyntheticHands(size, seed, count) for _ in range(2)]

    def render(job):
        number, chunk = job
        batch = painters[number % 2].fetch_batch(np.arange(chunk.start, chunk.stop))
        return {name: batch[name] for name in LABELS}

    with ThreadPoolExecutor(1) as left, ThreadPoolExecutor(1) as right:
        # each painter has one thread of its own: its scratch buffers are not shared
        jobs = [(left, right)[n % 2].submit(render, (n, chunk)) for n, chunk in enumerate(chunks)]
        hide = count < 2000
        progress = tqdm(jobs, desc="rendering", unit="batch", disable=hide, mininterval=1.0)
        batches = (_taken(jobs, n) for n, _ in enumerate(progress))
        return InMemoryDataset.from_batches(batches, count)


def _taken(jobs, number):
    """A job's result, which is then forgotten so that its memory is free again."""
    result = jobs[number].result()
    jobs[number] = None
    return result


def single_mesh_scores(hands: dict, validation: dict) -> dict:
    """Scores of "template only": the same mesh for every picture, the best for the training set.

    hands: vertices (N, V, 3) and joints (N, 21, 3) of training hands; either may be empty.
    The un-aligned error is that of their mean; the aligned one that of their mean after all were
    laid on each other (generalised Procrustes, Gower 1975), if that is smaller.
    """
    count, scores = len(validation["image"]), {}
    for name, points in hands.items():
        if len(points) == 0:
            continue
        shape = points[0]
        for _ in range(3):
            aligned = procrustes_align(points, np.broadcast_to(shape, points.shape))
            shape = aligned.mean(axis=0)
        plain, laid = (
            geometric_scores({name: np.repeat(mesh[None], count, axis=0)}, validation)
            for mesh in (points.mean(axis=0), shape.astype(points.dtype))
        )
        if plain:
            best = min(plain[f"{name}_pa_mm"], laid[f"{name}_pa_mm"])
            scores |= {f"{name}_mm": plain[f"{name}_mm"], f"{name}_pa_mm": best}
    return scores


def _validation(config, held_out) -> dict:
    """The validation set as one batch of tensors."""
    count = config.validation_images
    if config.validation:
        held_out = open_data(config.validation, model=find_mano(config.hand))
    if held_out is None:
        batch = SyntheticHands(config.image_size, VALIDATION_SEED, count).fetch_batch(
            np.arange(count)
        )
    else:
        picks = np.linspace(0, len(held_out) - 1, min(count, len(held_out))).astype(int)
        batch = HandCrops(held_out, config.image_size).fetch_batch(picks)
    return {name: torch.from_numpy(np.ascontiguousarray(batch[name])) for name in LABELS}
