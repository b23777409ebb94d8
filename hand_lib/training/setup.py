"""What a run trains, on what, towards what and how: from a config to a ``TrainingSetup``.

setup = build_setup(make_config("small"))
optimizer = make_optimizer(setup.network, config)
"""

import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hand_lib.data.augment import TightCrop
from hand_lib.data.crops import HandCrops, InMemoryDataset, SurfaceMaps
from hand_lib.data.open import choose_hand, find_mano, is_builtin, open_data
from hand_lib.data.sample import split_unique
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.files import find_run
from hand_lib.hand.joints import fingertips_of
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.hierarchy import MeshHierarchy, load_hierarchy
from hand_lib.metrics import align_together
from hand_lib.network.losses import total_loss
from hand_lib.network.model import build_network, carry_over, regressor_of
from hand_lib.training.config import TrainConfig, check_name
from hand_lib.training.log import geometric_scores
from hand_lib.training.run_folder import load_network

VALIDATION_SEED = 1_000_003
"""Seed of the synthetic validation hands; training ones are drawn with the run's own seed."""

LABELS = (
    "image", "vertices", "joints", "joints_2d", "root", "intrinsics", "valid_2d", "has_vertices",
    "has_joints", "index",
)  # fmt: skip
"""What a batch holds."""

_BASELINE_HANDS = 1000


@dataclass
class TrainingSetup:
    """What a run trains, on what, and towards what."""

    network: nn.Module
    train_data: object  # one or several data sets that ``loader.HandLoader`` takes
    validation: dict  # one batch of CPU tensors, as large as the validation set
    loss: Callable  # (prediction, batch, network, config) -> total, dict of its parts
    baseline: dict = field(default_factory=dict)  # scores of "template only" on the validation set
    hierarchy: object | None = None  # saved with the run where it is not the built-in hand's


def build_setup(config: TrainConfig, say=tqdm.write) -> TrainingSetup:
    """Network, data and loss as the config names them; says what it built."""
    started = time.perf_counter()
    sets, validation, some = training_sets(config)
    hand = choose_hand(config.template, some["vertices"])
    hierarchy = hierarchy_of(hand, config)
    train_data = [training_crops(config, data, hierarchy) for data in sets]
    network = build_network(config, hierarchy, regressor_of(hand))
    if config.start_from:
        fresh = start_from(network, config.start_from)
        say(f"weights of {config.start_from}; fresh: {', '.join(fresh) or 'none'}")
    for module in frozen_modules(network, config):
        module.requires_grad_(False)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    say(
        f"{millions:.2f} M parameters ({config.backbone}, {config.decoder}); "
        f"{sum(map(len, train_data))} training images of {config.image_size} px, "
        f"{len(validation['image'])} to validate on, ready in "
        f"{time.perf_counter() - started:.0f} s; fingertips: {fingertips_of(sets[0])}"
    )
    baseline, own = single_mesh_scores(some, validation), None if is_builtin(hand) else hierarchy
    return TrainingSetup(network, train_data, validation, total_loss, baseline, own)


def hierarchy_of(hand, config: TrainConfig) -> MeshHierarchy:
    """Levels of a hand's mesh: those of the run to start from where it has this mesh, or ours."""
    levels = find_run(config.start_from) / "hierarchy.npz"
    if config.start_from and levels.is_file():
        found = load_hierarchy(levels)
        if np.array_equal(found.faces[0], hand.faces):
            return found
    return builtin_hierarchy(hand, config.factors)


def training_sets(config: TrainConfig) -> tuple[list, dict, dict]:
    """Data sets to train on, the validation set as one batch of tensors, some training hands.

    ``config.data`` may join several with "+". The third, ``vertices`` (N, V, 3) and ``joints``
    (N, 21, 3) metres, wrist at the origin, is what "template only" is made from.
    """
    sets, held_out, model = [], None, find_mano(config.template)
    for place in config.data.split("+"):
        if place == "synthetic":
            sets.append(synthetic_data(config))
            continue
        whole = open_data(place, model=model)
        fraction = min(0.5, config.validation_images / max(len(np.unique(whole.groups)), 1))
        training, held = split_unique(whole, fraction, seed=0)
        sets.append(training)
        held_out = held_out or held
    if config.validation:
        held_out = open_data(config.validation, model=model)
    elif held_out is None:
        count = config.validation_images
        held_out = SyntheticHands(config.image_size, VALIDATION_SEED, count)
    hands = _some_crops(sets[0], config.image_size, _BASELINE_HANDS)
    some = {name: hands[name][hands[f"has_{name}"]] for name in ("vertices", "joints")}
    batch = _some_crops(held_out, config.image_size, config.validation_images)
    validation = {name: torch.from_numpy(np.ascontiguousarray(batch[name])) for name in LABELS}
    return sets, validation, some


def _some_crops(dataset, size: int, count: int) -> dict:
    """At most ``count`` crops, evenly spread, as one batch of arrays."""
    rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    return HandCrops(dataset, size).fetch_batch(rows)


def training_crops(config: TrainConfig, dataset, hierarchy) -> HandCrops:
    """What the network of ``config`` learns from ``dataset``: first and tight crops, labels.

    hierarchy: of the mesh that the labels are of.
    """
    ours = config.decoder == "coarse_to_fine"
    tight = TightCrop() if ours and config.n_crops > 1 else None
    surface = None
    if ours and config.loss_correspondence:
        surface = SurfaceMaps(hierarchy.vertices[0], hierarchy.faces[0])
    size = config.view_size or config.image_size
    return HandCrops(dataset, size, config.augmentation, config.seed, tight=tight, surface=surface)


def synthetic_data(config: TrainConfig):
    """Synthetic hands to train on: kept in memory, or with loader processes painted on the fly."""
    if config.train_images < 1:
        raise ValueError("train_images should be at least 1 for synthetic data, found 0")
    hands = SyntheticHands(config.image_size, config.seed, config.train_images)
    if config.workers:
        return hands
    bar = functools.partial(
        tqdm, desc="rendering", unit="batch", disable=len(hands) < 2000, mininterval=1.0
    )
    return InMemoryDataset(hands, config.image_size, margin=1.0, threads=2, progress=bar)


def single_mesh_scores(hands: dict, validation: dict) -> dict:
    """Scores of "template only": the same mesh for every picture, the best for the training set.

    hands: vertices (N, V, 3) and joints (N, 21, 3) of training hands; either may be empty.
    The un-aligned error is that of their mean; the aligned one that of their mean after all were
    laid on each other, if that is smaller.
    """
    count, scores = len(validation["image"]), {}
    for name, points in hands.items():
        if not len(points):
            continue
        plain, aligned = (
            geometric_scores({name: np.repeat(mesh[None], count, axis=0)}, validation)
            for mesh in (points.mean(axis=0), align_together(points)[1])
        )
        if plain:
            best = min(plain[f"{name}_pa_mm"], aligned[f"{name}_pa_mm"])
            scores |= {f"{name}_mm": plain[f"{name}_mm"], f"{name}_pa_mm": best}
    return scores


def learning_rate_factor(config: TrainConfig, step: int, epoch: int, progress: float) -> float:
    """Learning rate of a step over the configured one.

    step, epoch: number of steps and of whole epochs done before.   progress: 0 to 1.
    warm-up: linear from 1 / warmup_steps to 1.   "cosine": (1 + cos(pi progress)) / 2.
    "step": a tenth after each of ``drop_epochs`` passes over the data.
    """
    factor = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    elif config.schedule == "step":
        factor *= 0.1 ** sum(epoch >= drop for drop in config.drop_epochs)
    return factor


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; without weight decay it is Adam.

    The parameters of ``encoder`` have their own learning rate; vectors (biases, normalisation) are
    not decayed. Each group keeps ``base_lr``.
    """
    groups = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            kind = name.startswith("encoder."), parameter.ndim > 1
            groups.setdefault(kind, []).append(parameter)
    settings = []
    for (encoder, matrix), parameters in groups.items():
        rate = (encoder and config.encoder_learning_rate) or config.learning_rate
        decay = config.weight_decay if matrix else 0.0
        settings.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=True)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, count: int) -> None:
    """Move a copy of a network, statistics of normalisation included, towards what it has become.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) at update n, so
    that early averages follow quickly.   count: updates made before this one.
    """
    decay, ends = min(decay, (1 + count) / (10 + count)), ("running_mean", "running_var")
    moved = (
        [*net.parameters(), *(b for name, b in net.named_buffers() if name.endswith(ends))]
        for net in (average, network)
    )
    torch._foreach_lerp_(*moved, 1 - decay)


def frozen_modules(network: nn.Module, config: TrainConfig) -> list[nn.Module]:
    """The encoder's modules that ``config.frozen`` names; unknown names are refused."""
    modules = dict(network.encoder.net.named_modules()) if config.frozen else {}
    for name in config.frozen:
        check_name(name, modules, "module of the encoder in frozen:")
    return [modules[name] for name in config.frozen]


def set_train_mode(network: nn.Module, config: TrainConfig) -> None:
    """Train mode, but for what is frozen: batch normalisation there keeps its statistics."""
    network.train()
    frozen = frozen_modules(network, config)
    for module in network.modules() if config.freeze_norm else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen.append(module)
    for module in frozen:
        module.eval()


def start_from(network: nn.Module, run) -> list[str]:
    """Fill a fresh network with the weights of a run, whose mesh may be another one.

    run: name or folder of a run with the same backbone and decoder.
    returns the names of the weights that did not fit and stay fresh.
    raises ValueError where backbone or decoder differ, and what ``load_network`` raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # another hand is what this is for
        source, config = load_network(find_run(run))
    fresh = carry_over(source, network)
    if 2 * len(fresh) > len(network.state_dict()):
        raise ValueError(
            f"start_from={str(run)!r}: its network ({config.backbone}, {config.decoder}) is "
            f"another one; {len(fresh)} weights do not fit, {fresh[0]} for instance"
        )
    return fresh
