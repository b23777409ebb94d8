"""The configuration of a training run: one frozen dataclass, its presets, and the door to it.

>>> make_config("small", batch_size=16).batch_size
16
>>> make_config("small", backbnoe="resnet50")
Traceback (most recent call last):
ValueError: unknown parameter 'backbnoe'; did you mean 'backbone'? ...
"""

import ast
import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes: equal configs give equal weights."""

    preset: str = "small"  # the preset this config began as; a name, nothing is derived from it

    # data
    data: str = "synthetic"  # "synthetic", a FreiHAND folder, a METRO .yaml or a YouTube .json
    validation: str = ""  # the same kinds; "": held out from `data`
    train_images: int = 40_000  # synthetic images kept in memory; real data: 0 takes all
    validation_images: int = 256
    image_size: int = 64  # side of the square crop, pixels
    view_size: int = 0  # side of what the encoder is shown, at most image_size; 0: image_size
    n_crops: int = 2  # 2: our network finds the hand, then reads an upright, tight crop of it; or 1
    augmentation: str = "none"  # "none", "default" or "metro"
    workers: int = 0  # loader processes for real data; 0 loads in a thread beside the loop

    hand: str = "auto"  # whose vertices `data` has: "builtin", a MANO file, "auto": what fits

    # network
    backbone: str = "regnety_002"  # any timm encoder
    pretrained: bool | str = False  # ImageNet weights for the encoder, or a file that holds them
    start_from: str = ""  # folder of a run whose weights are the first ones, e.g. runs/reference
    decoder: str = "coarse_to_fine"  # ours, or "youtubehand"
    channels: tuple[int, ...] | None = None  # of the decoder, fine to coarse; None: its own
    spiral_length: int | None = None  # None: the decoder's own
    dilation: int = 1  # of the spirals
    factors: tuple[int, ...] = (2, 2, 2, 2)  # how much coarser each level of the hierarchy is

    # losses: weights of the terms of `losses.total_loss`, metres and crop units
    loss_vertices: float = 10.0  # L1 between vertices
    loss_joints: float = 20.0  # between 3-D joints
    joint_distance: str = "l1"  # "l1", or "squared" as Youtubehand has it
    loss_joints_2d: float = 1.0  # between 2-D joints
    loss_edges: float = 1.0  # L1 between edge lengths
    loss_normals: float = 0.1  # cosine between predicted edges and true normals
    loss_intermediate: float = 5.0  # L1 between vertices of intermediate, coarser meshes
    loss_canonical: float = 5.0  # L1 between vertices in the palm's own frame
    loss_rotation: float = 0.2  # L1 between entries of the palm's rotation
    loss_heatmaps: float = 0.05  # cross entropy of the joints' heat maps
    loss_correspondence: float = 0.5  # cross entropy of the hand's share, L1 in units of 5 cm

    # optimiser
    batch_size: int = 32  # images per step, over all processes and pieces together
    accumulate: int = 1  # pieces that a process cuts its share of a batch into
    steps: int = 0  # optimiser steps; 0: from `epochs`
    epochs: int = 0  # passes over the data; 0: from `steps`
    learning_rate: float = 1e-3  # at the end of the warm-up
    encoder_learning_rate: float = 0.0  # of the encoder alone; 0: the same
    weight_decay: float = 0.0  # decoupled (AdamW), on matrices only; 0 is plain Adam
    warmup_steps: int = 0
    schedule: str = "cosine"  # "cosine" (to zero), "step" or "constant"
    drop_epochs: tuple[int, ...] = ()  # "step": the rate is divided by ten after these epochs
    clip: float = 1.0  # largest norm of the gradient; 0: not clipped
    ema_decay: float = 0.0  # of the averaged weights that are validated and saved; 0: none
    freeze_norm: bool = False  # batch normalisation keeps its statistics

    # run
    seed: int = 88
    precision: str = "auto"  # "fp32", "bf16" (autocast) or "auto": bf16 where the hardware has it
    device: str = "auto"  # "auto" or "cpu"
    threads: int = 0  # CPU threads of torch; 0: torch's own choice
    minutes: float = 0.0  # a slow machine hurries its schedule to end in time; 0: no limit
    log_every: int = 50  # steps between lines in log.csv and TensorBoard
    validate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    explode: float = 100.0  # the run stops when the loss is this many times its running mean

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field, getattr(self, field.name)))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise ValueError(_unknown(f"value {value!r} of {name}", value, choices))
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} should lie in [{low:g}, {high:g}], found {getattr(self, name)!r}"
                )
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(
                "give either steps or epochs, the other one stays 0; "
                f"found steps={self.steps}, epochs={self.epochs}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulate={self.accumulate} "
                "equal pieces"
            )
        object.__setattr__(self, "view_size", min(self.view_size, self.image_size))
        if any(factor < 2 for factor in self.factors):
            raise ValueError(f"factors should all be 2 or more, found {self.factors}")

    def to_json(self) -> str:
        """The config as JSON text that ``config_from_json`` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


CHOICES = {
    "augmentation": ("none", "default", "metro"),
    "schedule": ("cosine", "step", "constant"),
    "joint_distance": ("l1", "squared"),
    "decoder": ("coarse_to_fine", "youtubehand"),
    "precision": ("auto", "fp32", "bf16"),
    "device": ("auto", "cpu"),
}

RENAMED = {
    "looks": "n_crops",
    "loss_levels": "loss_intermediate",
    "loss_heat": "loss_heatmaps",
    "loss_surface": "loss_correspondence",
}
"""Fields of older config.json files -> their names today."""

_MANY = 10**9
RANGES = {
    "train_images": (0, _MANY),
    "validation_images": (1, _MANY),
    "image_size": (32, 1024),
    "view_size": (0, 1024),
    "n_crops": (1, 8),
    "workers": (0, 256),
    "batch_size": (1, 65536),
    "accumulate": (1, 1024),
    "steps": (0, _MANY),
    "epochs": (0, _MANY),
    "learning_rate": (0, 10),
    "encoder_learning_rate": (0, 10),
    "weight_decay": (0, 10),
    "warmup_steps": (0, _MANY),
    "clip": (0, 1e9),
    "ema_decay": (0, 0.999999),
    "seed": (0, 2**31 - 1),
    "threads": (0, 1024),
    "minutes": (0, 1e6),
    "log_every": (1, _MANY),
    "validate_every": (1, _MANY),
    "checkpoint_every": (1, _MANY),
    "explode": (2, 1e12),
}

_FROM_SCRATCH = dict(
    image_size=96, view_size=64, backbone="resnet18", learning_rate=2e-3, weight_decay=1e-2,
    warmup_steps=100, loss_edges=0.0, loss_normals=0.0, loss_canonical=50.0,
)  # fmt: skip

PRESETS = {
    "quick": dict(  # to see that everything works
        **{**_FROM_SCRATCH, "warmup_steps": 20},
        steps=120,
        train_images=1024,
        validation_images=64,
        ema_decay=0.9,
        validate_every=40,
        log_every=5,
    ),
    "small": dict(  # minutes on two CPU cores
        **_FROM_SCRATCH,
        steps=5000,
        train_images=60_000,
        ema_decay=0.998,
        minutes=7.0,
    ),
    "youtubehand": dict(
        data="data/freihand",
        train_images=0,
        image_size=224,
        augmentation="metro",
        backbone="resnet18",
        pretrained=True,
        decoder="youtubehand",
        batch_size=64,
        epochs=38,
        learning_rate=1e-4,
        schedule="step",
        drop_epochs=(30,),
        clip=0.0,
        precision="fp32",
        loss_vertices=1.0,
        loss_joints=1.0,
        joint_distance="squared",
        loss_joints_2d=0.1,
        loss_edges=1.0,
        loss_normals=0.1,
        loss_intermediate=0.0,
        loss_canonical=0.0,
        loss_rotation=0.0,
        loss_heatmaps=0.0,
        loss_correspondence=0.0,
        n_crops=1,
        workers=8,
    ),
    "full": dict(
        data="data/freihand",
        train_images=0,
        image_size=224,
        augmentation="default",
        pretrained=True,
        batch_size=64,
        epochs=100,
        ema_decay=0.999,
        workers=8,
    ),
}


def make_config(preset: str = "small", **overrides) -> TrainConfig:
    """The preset with some fields changed; unknown names and wrong types are refused.

    preset: a key of ``PRESETS``.   overrides: fields of ``TrainConfig``; None keeps the preset's.
    """
    if preset not in PRESETS:
        raise ValueError(_unknown(f"preset {preset!r}", preset, PRESETS))
    return replace(TrainConfig(**{"preset": preset, **PRESETS[preset]}), **overrides)


def replace(config: TrainConfig, **overrides) -> TrainConfig:
    """A copy with some fields changed; ``steps`` given alone unsets ``epochs``, and back."""
    overrides = {name: value for name, value in overrides.items() if value is not None}
    for name in overrides:
        if name not in field_names():
            raise ValueError(_unknown(f"parameter {name!r}", name, field_names()))
    if overrides.get("steps"):
        overrides.setdefault("epochs", 0)
    if overrides.get("epochs"):
        overrides.setdefault("steps", 0)
    return dataclasses.replace(config, **overrides)


def config_from_json(text: str, name: str = "config.json") -> TrainConfig:
    """The config that ``to_json`` wrote.   name: what error messages call the text."""
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{name} should hold one object, found {type(fields).__name__}")
    fields = {RENAMED.get(field, field): value for field, value in fields.items()}
    for field in fields:
        if field not in field_names():
            raise ValueError(f"{name}: " + _unknown(f"parameter {field!r}", field, field_names()))
    return TrainConfig(**fields)


def field_names() -> tuple[str, ...]:
    """Names of all parameters, in order."""
    return tuple(field.name for field in dataclasses.fields(TrainConfig))


def differences(old: TrainConfig, new: TrainConfig) -> dict[str, tuple]:
    """Fields in which two configs differ: name -> (old value, new value)."""
    old, new = dataclasses.asdict(old), dataclasses.asdict(new)
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def refuse_unknown_parameters(namespace: dict) -> None:
    """Stop a notebook that papermill was given a parameter it does not have.

    namespace: the notebook's ``globals()``. Papermill runs values it was given as a cell of
    assignments after the parameters cell, whatever their names; here they are compared with the
    names that the first cell, the parameters cell, assigns. Without papermill nothing happens.
    """
    cells = [source for source in namespace.get("In", []) if source.strip()]
    injected = [source for source in cells[1:] if source.lstrip().startswith("# Parameters\n")]
    if not injected:
        return
    valid = _assigned(cells[0])
    for name in _assigned(injected[0]):
        check_parameter_name(name, valid)


def config_from_notebook(namespace: dict) -> TrainConfig:
    """The config of a notebook's parameters cell.

    namespace: the notebook's ``globals()``; ``preset`` and any other field of ``TrainConfig``.
    ``None`` keeps what the preset says. Unknown injected parameters are refused.
    """
    refuse_unknown_parameters(namespace)
    names = [name for name in field_names() if name in namespace]
    return make_config(**{name: namespace[name] for name in names})


def check_parameter_name(name: str, valid) -> None:
    """Raise a ValueError with the nearest matches and the whole list unless ``name`` is valid."""
    if name not in valid:
        raise ValueError(_unknown(f"parameter {name!r}", name, valid))


def literal(text: str):
    """A Python literal typed on a command line, or else the text itself.

    >>> literal("3"), literal("[2, 2]"), literal("True"), literal("resnet18")
    (3, [2, 2], True, 'resnet18')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _assigned(source: str) -> list[str]:
    """Names that the statements of a cell assign, in order."""
    names = []
    for statement in ast.parse(source).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def _unknown(what: str, name, valid) -> str:
    """Message for a name that is not in a list of valid ones."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ";"
    return f"unknown {what}{hint} Valid: {', '.join(str(v) for v in valid)}"


def _typed(field, value):
    """The value in the field's type, or a TypeError that names the field."""
    expected = _HINTS[field.name]
    kinds = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if isinstance(value, list | tuple) and all(_fits(v, inner) for v in value):
                return tuple(inner(v) for v in value)
        elif _fits(value, kind):
            return None if value is None else kind(value)
    wanted = " or ".join(_kind_name(kind) for kind in kinds)
    raise TypeError(f"{field.name} should be {wanted}, found {value!r} ({type(value).__name__})")


def _kind_name(kind) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a list of {typing.get_args(kind)[0].__name__}"
    return "None" if kind is types.NoneType else kind.__name__


def _fits(value, expected) -> bool:
    if isinstance(value, bool) or expected is bool:
        return isinstance(value, bool) and expected is bool
    if expected is float:
        return isinstance(value, int | float) and value == value
    return isinstance(value, expected)


_HINTS = typing.get_type_hints(TrainConfig)
