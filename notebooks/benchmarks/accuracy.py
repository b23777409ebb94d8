"""What the networks learn: ours beside Youtubehand's, and ours with one part taken out.

Every network sees the same images in the same order. ``compare_decoders()`` and
``ablate_decoder()`` return tables; from a shell, with the number of images and then the seeds:

    python -m benchmarks.accuracy compare 100000 0 1
    python -m benchmarks.accuracy ablate 32000 0

With ``--keep`` the table goes where notebook 07 shows it.
"""

import argparse
import dataclasses
import sys
import time

import numpy as np
import torch
from torch import nn

from benchmarks.network import QUARTER_CHANNELS
from hand_lib import ROOT
from hand_lib.data.sample import HandDataset
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.files import read_json, write_json
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.mesh.topology import procrustes_align
from hand_lib.network.losses import total_loss
from hand_lib.network.model import SHAPE_BLEND, build_network, predict_crops
from hand_lib.training.config import make_config
from hand_lib.training.setup import LABELS, make_optimizer, training_crops

KEPT = ROOT / "runs" / "reference" / "decoders.json"
"""The long tables that notebook 07 shows."""


@dataclasses.dataclass
class _Run:
    name: str
    config: object
    change: object = None  # what is done to the network before it learns
    shape_blend: float = SHAPE_BLEND  # how much the canonical hand says of the shape
    network: nn.Module | None = None
    optimizer: object = None
    seconds: float = 0.0


def compare_decoders(
    images: int = 100_000,
    seeds=(0, 1),
    encoder: str = "regnety_002",
    image_size: int = 64,
    channels=QUARTER_CHANNELS,
    batch_size: int = 32,
    learning_rates=(2e-3, 1e-3),
    test_images: int = 1000,
    reports: int = 5,
    hierarchy=None,
    device: str = "cpu",
    say=None,
) -> list[dict]:
    """Train our decoder and Youtubehand's side by side: same encoder, images and order.

    Each batch is drawn once and taken by both, by ours as first and second looks at its pictures.
    Each has its own losses and the learning rate of ``learning_rates`` (ours, Youtubehand's),
    AdamW, 100 warm-up steps and a cosine to zero, bf16 autocast; errors are measured on other
    hands: wrist-relative as they come (plain), after similarity alignment (PA), and of the
    projected joints in pixels.
    returns ``reports`` dicts per run: decoder, seed, images, plain_mm, pa_mm, joints_px, seconds.
    """
    same = dict(
        backbone=encoder, pretrained=False, encoder_learning_rate=0.0, image_size=image_size,
        view_size=0, weight_decay=1e-2,
    )  # fmt: skip
    ours = make_config("small", learning_rate=learning_rates[0], **same)
    published = dataclasses.asdict(make_config("youtubehand"))
    names = [name for name in published if name.startswith("loss_") or name == "joint_distance"]
    theirs = make_config(
        "small", learning_rate=learning_rates[1], decoder="youtubehand", channels=channels,
        **same, **{name: published[name] for name in names},
    )  # fmt: skip
    runs = [_Run("coarse_to_fine", ours), _Run("youtubehand", theirs)]
    return _side_by_side(runs, images, seeds, batch_size, test_images, reports, hierarchy, device,
                         say)  # fmt: skip


def ablate_decoder(
    images: int = 32_000,
    seeds=(0,),
    encoder: str = "regnety_002",
    image_size: int = 64,
    parts=None,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    test_images: int = 1000,
    reports: int = 1,
    hierarchy=None,
    device: str = "cpu",
    say=None,
) -> list[dict]:
    """Train our network whole and with one part taken out, on the same images in the same order.

    parts: names of ``ABLATIONS``, by default all.   returns what ``compare_decoders`` returns, with
    the part's name as ``decoder``.
    """
    unknown = set(parts or ()) - set(ABLATIONS)
    if unknown:
        raise ValueError(f"unknown parts {sorted(unknown)}; known: {', '.join(ABLATIONS)}")
    config = make_config(
        "small", backbone=encoder, pretrained=False, image_size=image_size, view_size=0,
        learning_rate=learning_rate, encoder_learning_rate=0.0,
    )  # fmt: skip
    runs = []
    for name in parts or ABLATIONS:
        change, fields = ABLATIONS[name]
        blend = 0.0 if change is _no_canonical else SHAPE_BLEND
        runs.append(_Run(name, dataclasses.replace(config, **fields), change, blend))
    return _side_by_side(runs, images, seeds, batch_size, test_images, reports, hierarchy, device,
                         say)  # fmt: skip


def _side_by_side(
    runs, images, seeds, batch_size, test_images, reports, hierarchy, device, say
) -> list[dict]:
    """Train several networks in step."""
    size = runs[0].config.image_size
    test = SyntheticHands(size, 1_000_003, test_images).fetch_batch(np.arange(test_images))
    steps, table = max(images // batch_size, 1), []
    hierarchy = hierarchy or builtin_hierarchy()
    for seed in seeds:
        data = SyntheticHands(size, seed, steps * batch_size)
        for run in runs:
            torch.manual_seed(seed)
            run.network = build_network(run.config, hierarchy)
            run.network.to(device, memory_format=torch.channels_last)
            if run.change:
                run.change(run.network.decoder)
            run.optimizer, run.seconds = make_optimizer(run.network, run.config), 0.0
        for step in range(steps):
            batch = data.fetch_batch(np.arange(step * batch_size, (step + 1) * batch_size))
            pace = min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
            for run in runs:
                _learn(run, {name: batch[name] for name in LABELS}, step, pace, hierarchy, device)
            if (step + 1) * reports // steps > step * reports // steps:
                for run in runs:
                    seen = (step + 1) * batch_size
                    row = {"decoder": run.name, "seed": seed, "images": seen}
                    row |= evaluate(run.network, test, run.config.n_crops, run.shape_blend)
                    row |= {"seconds": run.seconds}
                    table.append(row)
                    if say:
                        say(row)
    return table


def evaluate(network, test, n_crops=2, shape_blend=SHAPE_BLEND, batch_size=100) -> dict:
    """Vertex errors in mm, plain and aligned, and of the projected joints in px.   test: arrays."""
    was_training = network.training
    network.eval()
    vertices, joints_2d = [], []
    with torch.no_grad():
        for i in range(0, len(test["image"]), batch_size):
            images = torch.as_tensor(test["image"][i : i + batch_size]).to(network.faces.device)
            out = predict_crops(network, images, n_crops, shape_blend)
            vertices.append(out.vertices.cpu().double().numpy())
            joints_2d.append(out.joints_2d.cpu().numpy())
    network.train(was_training)
    vertices, joints_2d = np.concatenate(vertices), np.concatenate(joints_2d)
    true = test["vertices"].astype(np.float64)
    aligned = procrustes_align(vertices, true)
    pixels = np.linalg.norm(joints_2d - test["joints_2d"], axis=2) * test["image"].shape[-1] / 2
    return {
        "plain_mm": 1000 * float(np.linalg.norm(vertices - true, axis=2).mean()),
        "pa_mm": 1000 * float(np.linalg.norm(aligned - true, axis=2).mean()),
        "joints_px": float(pixels.mean()),
    }


@torch.no_grad()
def precision_gap(network, images) -> dict:
    """How far bfloat16 autocast moves the meshes of a network, mm.   images: (B, 3, S, S).

    returns mean_mm and median_mm over the hands, of the mean distance between their vertices.

    >>> precision_gap(load_network("runs/reference")[0], images)["mean_mm"] < 0.5
    True
    """
    network.eval()
    images = torch.as_tensor(images).to(network.faces.device)
    exact = network(images).vertices
    with torch.autocast(images.device.type, torch.bfloat16):
        rounded = network(images).vertices
    gap = 1000 * (rounded.float() - exact).norm(dim=2).mean(1)
    return {"mean_mm": gap.mean().item(), "median_mm": gap.median().item()}


class _Rendered(HandDataset):
    """The hands of one batch."""

    in_batches = True

    def __init__(self, batch: dict):
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["image"])

    def fetch_batch(self, indices, epochs=0) -> dict:
        return {name: values[indices] for name, values in self.batch.items()}


def _learn(run, batch, step, pace, hierarchy, device):
    """One step of one network.   batch: rendered pictures and labels."""
    start = time.perf_counter()
    if run.config.decoder == "coarse_to_fine":
        crops = training_crops(run.config, _Rendered(batch), hierarchy)
        batch = crops.fetch_batch(np.arange(len(crops)), step)
    batch = {name: torch.as_tensor(value).to(device) for name, value in batch.items()}
    for group in run.optimizer.param_groups:
        group["lr"] = run.config.learning_rate * pace
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16):
        prediction = run.network(images)
    loss, _ = total_loss(prediction, batch, run.network, run.config)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    run.seconds += time.perf_counter() - start


class _Average(nn.Module):
    def forward(self, grid):
        return grid.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)


def _average_grid(decoder):
    decoder.pool = _Average()


@torch.no_grad()
def _no_look_up(decoder):
    for layer in (decoder.image_features, decoder.at_joints):
        layer.requires_grad_(False).weight.zero_()


@torch.no_grad()
def _no_correction(decoder):
    decoder.correct.requires_grad_(False).weight.zero_()
    decoder.correct.bias.zero_()


@torch.no_grad()
def _no_canonical(decoder):
    decoder.blend_gate.requires_grad_(False).weight.zero_()
    decoder.blend_gate.bias.fill_(-30.0)


ABLATIONS = {
    "whole": (None, {}),
    "one look": (None, {"n_crops": 1}),
    "no surface maps": (None, {"loss_correspondence": 0.0}),
    "no heat or surface maps": (None, {"loss_correspondence": 0.0, "loss_heatmaps": 0.0}),
    "image averaged, not a grid": (_average_grid, {}),
    "no features looked up in the image": (_no_look_up, {}),
    "no correction along spirals": (_no_correction, {}),
    "no canonical hand": (_no_canonical, {"loss_canonical": 0.0, "loss_rotation": 0.0}),
    "no losses at coarse levels": (None, {"loss_intermediate": 0.0}),
}
"""Part taken out -> what is done to the decoder, and the fields of the config."""


MEASURES = {"plain_mm": "plain mm", "pa_mm": "PA mm", "joints_px": "2-D joints px"}
"""Columns of a row that are scores, and what to call them."""


def final_scores(rows) -> dict:
    """Mean over the seeds at the last number of images.   rows: of ``compare_decoders``.

    returns name -> dict of seeds (how many), images, plain_mm, pa_mm, joints_px.
    """
    found = {}
    for name in dict.fromkeys(row["decoder"] for row in rows):
        own = [row for row in rows if row["decoder"] == name]
        images = max(row["images"] for row in own)
        last = [row for row in own if row["images"] == images]
        means = {key: float(np.mean([row[key] for row in last])) for key in MEASURES}
        found[name] = {"seeds": len(last), "images": images} | means
    return found


def score_table(rows, beside: str) -> str:
    """The last scores as text, each with its difference to those of ``beside``.

    >>> print(score_table(kept_rows("compare"), beside="youtubehand"))
    """
    scores = final_scores(rows)
    if beside not in scores:
        raise ValueError(f"no rows of {beside!r}; there are: {', '.join(scores)}")
    wide = max(len(name) for name in scores)
    lines = [" " * wide + "".join(f"{words:>21}" for words in MEASURES.values())]
    for name, found in scores.items():
        line = f"{name:{wide}}"
        for key in MEASURES:
            change = found[key] / scores[beside][key] - 1
            line += f"{found[key]:12.2f}" + (f" ({change:+6.1%})" if name != beside else " " * 9)
        lines.append(line)
    images, seeds = scores[beside]["images"], scores[beside]["seeds"]
    return "\n".join([*lines, f"{images} images, {seeds} seed(s)"])


def kept_rows(kind: str, path=KEPT) -> list[dict]:
    """Rows that ``--keep`` saved for "compare" or "ablate"; none: an empty list."""
    return (read_json(path, optional=True) or {}).get(kind, [])


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("compare", "ablate"))
    parser.add_argument("images", type=int)
    parser.add_argument("seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--keep", action="store_true", help="save it where notebook 07 looks")
    given = parser.parse_args(arguments)
    run, beside = {
        "compare": (compare_decoders, "youtubehand"), "ablate": (ablate_decoder, "whole")
    }[given.kind]  # fmt: skip
    rows = run(given.images, given.seeds, say=lambda row: sys.stderr.write(f"{row}\n"))
    if given.keep:
        write_json(KEPT, (read_json(KEPT, optional=True) or {}) | {given.kind: rows})
    sys.stdout.write(score_table(rows, beside) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
