"""Optimiser, learning rate and averaged weights: what turns gradients into steps."""

import copy
import math

import torch
from torch import nn

from hand_lib.training.config import TrainConfig


def planned_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Steps of the whole run.

    >>> planned_steps(TrainConfig(epochs=2), steps_per_epoch=10)
    20
    """
    return config.steps or config.epochs * steps_per_epoch


def rate_factor(config: TrainConfig, step: int, epoch: int, progress: float) -> float:
    """Learning rate of a step as a share of the configured one.

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

    The encoder's parameters, whose names begin with ``encoder.`` or ``en_layer.``, have their own
    learning rate; vectors (biases, normalisation) are not decayed. Each group keeps ``base_lr``.
    """
    groups = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            encoder = name.startswith(("encoder.", "en_layer.", "backbone."))
            groups.setdefault((encoder, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ValueError("the network has no trainable parameters")
    settings = []
    for (encoder, matrix), parameters in groups.items():
        rate = config.learning_rate
        if encoder and config.encoder_learning_rate:
            rate = config.encoder_learning_rate
        decay = config.weight_decay if matrix else 0.0
        settings.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=True)


def set_rate(optimizer, factor: float) -> float:
    """Set every group's learning rate to its base times ``factor``; returns the last group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[-1]["lr"]


class AveragedWeights:
    """Exponential average of a network's weights and of its normalisation statistics.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) at update n, so
    that early averages follow quickly. ``network`` is a copy that holds the average.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self._averages, self._source = _floating(self.network), network

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Move the average towards the weights.   count: updates made before this one."""
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self._averages, _floating(self._source), 1 - decay)


def _floating(network: nn.Module) -> list[torch.Tensor]:
    """Parameters and running statistics; fixed tables are left out."""
    statistics = [
        buffer
        for name, buffer in network.named_buffers()
        if name.rsplit(".", 1)[-1] in ("running_mean", "running_var")
    ]
    return [parameter.detach() for parameter in network.parameters()] + statistics


def freeze_normalisation(network: nn.Module) -> None:
    """Let batch normalisation use its stored statistics and leave them as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to run the network under bf16 autocast: asked for, or "auto" and native here."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
