"""Youtubehand's published checkpoints and parameter counts (FORMATS: its model/network.py)."""

from pathlib import Path

import torch
from torch import Tensor

from hand_lib.network.encoders import read_state_dict, unwrap_state_dict
from hand_lib.network.model import HandNetwork

PUBLISHED = {
    "resnet18": ((64, 128, 256, 512), 36_405_862),
    "resnet50": ((256, 512, 1024, 2048), 418_884_198),
    "hrnet_w64": ((256, 512, 1024, 2048), 519_338_110),
}
"""Channels, fine to coarse, and number of parameters of the three networks it publishes.

The ResNets count their unused ImageNet classifier (513,000 and 2,049,000); HRNet has none.
"""


def parameter_counts(network: HandNetwork) -> dict[str, int]:
    """Parameters of a network: total, encoder, decoder, and total without an unused classifier."""
    count = {
        "total": _count(network),
        "encoder": _count(network.encoder),
        "decoder": _count(network.decoder),
    }
    unused = [p for n, p in network.encoder.named_parameters() if n.startswith("net.fc.")]
    keeps_classifier = hasattr(network.decoder, "cam_pred_1")
    count["without_classifier"] = count["total"] - sum(p.numel() for p in unused) * keeps_classifier
    return count


def load_youtubehand_state_dict(network: HandNetwork, state_dict: dict | str | Path) -> list[str]:
    """Copy a Youtubehand checkpoint into a ``decoder="youtubehand"`` network.

    state_dict: its names to tensors, maybe under ``model_state_dict``, or the path of
    ``state_dict.bin``.   The encoder may stand under ``backbone.``, ``en_layer.`` or both.
    returns the names of the file that have no place here (batch counters, a classifier that this
    encoder does not keep), so that nothing vanishes unsaid.
    raises ValueError listing what is missing, surplus or of the wrong shape; then nothing changes.
    """
    if not hasattr(network.decoder, "cam_pred_1"):
        raise TypeError(
            "Youtubehand checkpoints fit networks with decoder='youtubehand', "
            f"found {type(network.decoder).__name__}"
        )
    if isinstance(state_dict, str | Path):
        state_dict = read_state_dict(state_dict)
    given = unwrap_state_dict(state_dict)
    names = youtubehand_names(network)
    own = network.state_dict()
    loaded, missing, wrong, used = {}, [], [], set()
    for ours, theirs in names.items():
        found = [name for name in theirs if name in given]
        used.update(found)
        if not found:
            if not ours.endswith("num_batches_tracked") and ".net.fc." not in ours:
                missing.append(theirs[0])
            continue
        for name in found:
            if given[name].shape != own[ours].shape:
                expected, shape = tuple(own[ours].shape), tuple(given[name].shape)
                wrong.append(f"{name}: expected {expected}, found {shape}")
        if len(found) == 2 and not _equal(given[found[0]], given[found[1]]):
            wrong.append(f"{found[0]} and {found[1]} should be the same tensor, and differ")
        loaded[ours] = given[found[0]]
    surplus = [name for name in given if name not in used]
    ignored = [name for name in surplus if _is_classifier(name)]
    surplus = [name for name in surplus if name not in ignored]
    problems = [
        f"{len(list_)} {title}: {', '.join(list_[:5])}{', ...' if len(list_) > 5 else ''}"
        for title, list_ in (
            ("missing", missing), ("surplus", surplus), ("wrong", wrong),
        )
        if list_
    ]  # fmt: skip
    if problems:
        raise ValueError(
            "the checkpoint does not fit this network: " + "; ".join(problems) + ". Channels, "
            "encoder, spiral length and hierarchy must be those it was trained with"
        )
    network.load_state_dict(loaded, strict=False)
    return ignored


def youtubehand_state_dict(network: HandNetwork) -> dict[str, Tensor]:
    """The weights under Youtubehand's names, encoder entries doubled as in its own files."""
    own = network.state_dict()
    return {name: own[ours] for ours, both in youtubehand_names(network).items() for name in both}


def youtubehand_names(network: HandNetwork) -> dict[str, tuple[str, ...]]:
    """Our name of each learnt tensor (and batch statistic) -> its names in a checkpoint.

    The fixed arrays (spirals, sampling matrices, regressor) are in no checkpoint of Youtubehand.
    """
    learnt = set(dict(network.named_parameters()))
    names = {}
    for ours in network.state_dict():
        if ours.startswith("encoder.net."):
            rest = ours.removeprefix("encoder.net.")
            names[ours] = (f"backbone.{rest}", f"en_layer.{rest}")
        elif ours.startswith("decoder.") and ours in learnt:
            names[ours] = (_decoder_name(ours.removeprefix("decoder."), network),)
    return names


def _decoder_name(name: str, network: HandNetwork) -> str:
    if name.startswith("latent."):
        return name.replace("latent", "de_layers.0")
    if name.startswith("blocks."):
        _, block, rest = name.split(".", 2)
        return f"de_layers.{int(block) + 1}.{rest}"
    if name.startswith("last."):
        return name.replace("last", f"de_layers.{len(network.decoder.blocks) + 1}")
    return name


def _is_classifier(name: str) -> bool:
    return name.endswith(("classifier.weight", "classifier.bias", "fc.weight", "fc.bias"))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def _count(module) -> int:
    return sum(p.numel() for p in module.parameters())
