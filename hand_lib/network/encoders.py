"""Image encoders: any timm network by name, its weights, its pooled latent or its feature map."""

import contextlib
import difflib
import os
import socket
import urllib.parse
import warnings
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NormalizeImages(nn.Module):
    """Pixel values to what ImageNet weights expect: (image - mean) / std, both as buffers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) RGB, uint8 or float in [0, 1].   returns (B, 3, H, W) float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), found {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images.to(self.mean.dtype) - self.mean) / self.std


class PooledEncoder(nn.Module):
    """A timm classifier up to its pooled features: images -> latent (B, channels).

    The ResNets keep their unused ImageNet classifier, frozen, because Youtubehand does and counts
    it among its parameters; every other encoder is built without one.
    """

    def __init__(self, name: str, pretrained: bool | str = False):
        super().__init__()
        check_encoder_name(name)
        keep = name in ("resnet18", "resnet50")
        self.net = timm.create_model(name, pretrained=False, num_classes=1000 if keep else 0)
        self.channels = getattr(self.net, "head_hidden_size", self.net.num_features)
        if keep:
            self.net.fc.requires_grad_(False)
        load_encoder_weights(self.net, name, pretrained)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) normalised.   returns (B, channels), pooled, not classified."""
        return self.net.forward_head(self.net.forward_features(images), pre_logits=True)


class GridEncoder(nn.Module):
    """A timm network cut at one stage: images -> feature maps, fine to coarse.

    It stops at the deepest stage whose map is still at least ``min_grid`` cells wide at
    ``image_size``, because a hand's direction and its fingers need to know where things are, and
    gives that stage's map and up to two finer ones. ``channels`` and ``strides`` describe them.
    """

    def __init__(self, name, image_size: int, min_grid: int = 4, pretrained: bool | str = False):
        super().__init__()
        check_encoder_name(name)
        info = timm.create_model(name, pretrained=False, features_only=True).feature_info
        strides = info.reduction()
        fits = [i for i, stride in enumerate(strides) if image_size >= min_grid * stride]
        if not fits:
            raise ValueError(
                f"images of {image_size} px are too small for {name!r}: its first stage has stride "
                f"{strides[0]}, which leaves fewer than {min_grid} cells; "
                f"use at least {min_grid * strides[0]} px"
            )
        taken = fits[-3:]
        self.net = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=tuple(taken)
        )
        self.channels = tuple(info.channels()[i] for i in taken)
        self.strides = tuple(strides[i] for i in taken)
        self.channels_come_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        load_encoder_weights(self.net, name, pretrained)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: (B, 3, H, W) normalised.   returns (B, channels, H / stride, W / stride) each."""
        maps = tuple(self.net(images))
        return tuple(m.permute(0, 3, 1, 2) for m in maps) if self.channels_come_last else maps


def check_encoder_name(name: str) -> None:
    """Raise a ValueError with the nearest timm names when ``name`` is not one of them."""
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.3)
    raise ValueError(f"unknown encoder {name!r}; nearest timm names: {', '.join(near) or 'none'}")


def load_encoder_weights(net: nn.Module, name: str, pretrained: bool | str | Path) -> str:
    """Fill a timm network with ImageNet weights, or leave it random and say so in one warning.

    net: built by timm without weights, whole or cut.   pretrained: False leaves it random; True
    downloads ImageNet weights when they can be reached; a path reads a local .pth or .safetensors
    (also the original HRNet classification files).
    returns "random", "imagenet" or the file's path.
    """
    if pretrained is False or pretrained is None:
        return "random"
    if pretrained is not True:
        state = read_state_dict(pretrained)
        _load_by_name(net, _to_timm_names(state), str(pretrained))
        return str(pretrained)
    try:
        with _offline_unless_reachable():
            state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub raises its own family of errors; any means "not here"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(
            f"ImageNet weights of {name!r} cannot be had ({reason[:120]}); "
            "the encoder starts from random weights",
            stacklevel=3,
        )
        return "random"
    _load_by_name(net, state, f"timm's {name}")
    return "imagenet"


@contextlib.contextmanager
def _offline_unless_reachable(seconds: float = 3.0):
    """Without a network, look into the local cache only: the hub would retry for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    proxied = any(name.lower() == "https_proxy" for name in os.environ)
    if not before and not proxied:
        host = urllib.parse.urlparse(constants.ENDPOINT)
        try:
            socket.create_connection((host.hostname, host.port or 443), seconds).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors or from a PyTorch file read with ``weights_only=True``.

    A wrapper entry (``model_state_dict``, ``state_dict``, ``model``) is opened; a file that holds
    pickled objects instead of tensors is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}; give a .pth, .bin or .safetensors")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is not a plain state dict: it holds pickled objects, which may run code when "
            "opened, or it is damaged; use the state_dict file instead (for Youtubehand: "
            f"state_dict.bin, not model.bin) [{str(error).splitlines()[0][:100]}]"
        ) from error
    return unwrap_state_dict(state, str(path))


def unwrap_state_dict(state, source: str = "checkpoint") -> dict[str, Tensor]:
    """Open a wrapper, drop ``module.`` prefixes, check that only tensors are inside."""
    for wrapper in ("model_state_dict", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state:
        raise TypeError(f"{source}: expected a dict of tensors, found {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{source}: entry {key!r} should be a tensor, found {type(value).__name__}"
            )
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _to_timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the original HRNet classification files, some with a prefix, as timm has them."""
    for prefix in ("backbone.", "encoder."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    if any(key.startswith("incre_modules.") for key in state) and "fc.weight" in state:
        state = dict(state)
        for part in ("weight", "bias"):
            state[f"classifier.{part}"] = state.pop(f"fc.{part}")
    return state


def _load_by_name(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy the entries that ``net`` has; all of them must be there with the right shape."""
    own = net.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in own if k in state and state[k].shape != own[k].shape]
    if missing or wrong:
        detail = f"{len(missing)} missing ({', '.join(missing[:3])})" if missing else ""
        if wrong:
            k = wrong[0]
            shapes = f"expected {tuple(own[k].shape)}, found {tuple(state[k].shape)}"
            detail += f"{'; ' if detail else ''}{len(wrong)} of another shape ({k}: {shapes})"
        raise ValueError(f"weights from {source} do not fit the encoder: {detail}")
    net.load_state_dict({k: state[k] for k in own if k in state}, strict=False)
