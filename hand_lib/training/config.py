"""The configuration of a training run: one frozen dataclass, its presets, and the door to it.

>>> make_config("small", batch_size=16).batch_size
16
"""

import ast
import dataclasses
import difflib
import json
import shlex
import typing
from typing import Annotated, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from hand_lib.files import find_run

# whole numbers pass for floats and lists for tuples; nothing else is converted
_Rules = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Every = Annotated[int, Field(ge=1, le=10**9)]
_Rate = Annotated[float, Field(ge=0, le=10)]
_Weight = Annotated[float, Field(ge=0)]
_Factor = Annotated[int, Field(ge=2)]
_Tuple = Field(strict=False)


@dataclass(frozen=True, config=_Rules)
class TrainConfig:
    """Everything that decides what a run computes: equal configs give equal weights."""

    preset: str = "small"  # the preset this config began as; a name, nothing is derived from it

    # data
    data: str = "synthetic"  # "synthetic", a FreiHAND folder, a METRO .yaml or a YouTube .json
    validation: str = ""  # the same kinds; "": held out from `data`
    train_images: _Count = 40_000  # synthetic images kept in memory; real data: 0 takes all
    validation_images: _Every = 256
    image_size: Annotated[int, Field(ge=32, le=1024)] = 64  # side of the square crop, pixels
    view_size: Annotated[int, Field(ge=0, le=1024)] = 0  # pixels the encoder sees; 0: image_size
    # 2: our network finds the hand, then reads a second crop of it, upright and tight; or 1
    n_crops: Annotated[int, Field(ge=1, le=8)] = 2
    augmentation: Literal["none", "default", "metro"] = "none"
    # loader processes for real data, painters of synthetic data; 0: a thread beside the loop
    workers: Annotated[int, Field(ge=0, le=256)] = 0

    template: str = "auto"  # whose vertices `data` has: "builtin", a MANO file, "auto": what fits

    # network
    backbone: str = "regnety_002"  # any timm encoder
    pretrained: bool | str = False  # ImageNet weights for the encoder, or a file that holds them
    # pixels a cell of its coarsest map is wide; 0: what leaves 4 x 4 cells (16 at 96 px, 32 at 128)
    encoder_stride: _Count = 0
    # fine-tuning: the run whose weights are the first ones, and whose network this is (OF_NETWORK)
    start_from: str = ""  # runs/reference
    decoder: Literal["coarse_to_fine", "youtubehand"] = "coarse_to_fine"  # ours, or Youtubehand's
    channels: Annotated[tuple[_Every, ...], _Tuple] | None = None  # fine to coarse; None: its own
    spiral_length: _Every | None = None  # None: the decoder's own
    dilation: _Every = 1  # of the spirals
    factors: Annotated[tuple[_Factor, ...], _Tuple] = (2, 2, 2, 2)  # how much coarser a level is

    # losses: weights of the terms of `losses.total_loss`, metres and crop units
    loss_vertices: _Weight = 10.0  # L1 between vertices
    loss_joints: _Weight = 20.0  # between 3-D joints
    joint_distance: Literal["l1", "squared"] = "l1"  # or squared, as Youtubehand has it
    loss_joints_2d: _Weight = 1.0  # between 2-D joints
    loss_edges: _Weight = 1.0  # L1 between edge lengths
    loss_normals: _Weight = 0.1  # cosine between predicted edges and true normals
    loss_intermediate: _Weight = 5.0  # L1 between vertices of intermediate, coarser meshes
    loss_canonical: _Weight = 5.0  # L1 between vertices in the palm's own frame
    loss_rotation: _Weight = 0.2  # L1 between entries of the palm's rotation
    loss_heatmaps: _Weight = 0.05  # cross entropy of the joints' heat maps
    loss_correspondence: _Weight = 0.5  # cross entropy of the hand's area, L1 in units of 5 cm

    # optimiser
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32  # images a step, of all processes
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1  # pieces that they are taken in
    steps: _Count = 0  # optimiser steps; 0: from `epochs`
    epochs: _Count = 0  # passes over the data; 0: from `steps`
    learning_rate: _Rate = 1e-3  # at the end of the warm-up
    encoder_learning_rate: _Rate = 0.0  # of the encoder alone; 0: the same
    weight_decay: _Rate = 0.0  # decoupled (AdamW), on matrices only; 0 is plain Adam
    warmup_steps: _Count = 0
    schedule: Literal["cosine", "step", "constant"] = "cosine"  # cosine falls to zero
    drop_epochs: Annotated[tuple[_Count, ...], _Tuple] = ()  # "step": a tenth after each of them
    clip: Annotated[float, Field(ge=0, le=1e9)] = 1.0  # largest norm of the gradient; 0: any
    ema_decay: Annotated[float, Field(ge=0, le=0.999999)] = 0.0  # of averaged weights; 0: none
    freeze_norm: bool = False  # batch normalisation keeps its statistics
    # modules of the timm encoder that are not trained, by name: ["conv_stem", "bn1", "blocks.0"]
    frozen: Annotated[tuple[str, ...], _Tuple] = ()

    # run
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 88
    # bf16 is autocast; "auto" measures a few steps of both and keeps the faster one
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # CPU threads; 0: torch's own choice
    minutes: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # hurries the schedule; 0: no limit
    log_every: _Every = 50  # steps between lines in log.csv and TensorBoard
    validate_every: _Every = 500  # steps
    checkpoint_every: _Every = 500  # steps
    # the run stops when the loss is this many times its running mean
    divergence_factor: Annotated[float, Field(ge=2, le=1e12)] = 100.0

    def __post_init__(self):
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(
                "give either steps or epochs, the other one stays 0; "
                f"found steps={self.steps}, epochs={self.epochs}"
            )
        size, many = self.batch_size, self.accumulate
        if size % many:
            raise ValueError(f"batch_size {size} cannot be cut into accumulate={many} equal pieces")
        object.__setattr__(self, "view_size", min(self.view_size, self.image_size))

    def to_json(self) -> str:
        """The config as JSON text that ``config_from_json`` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


FIELDS = tuple(field.name for field in dataclasses.fields(TrainConfig))
"""Names of all parameters, in order."""

OF_NETWORK = (
    "backbone", "encoder_stride", "decoder", "channels", "spiral_length", "dilation", "factors",
    "image_size", "view_size", "n_crops",
)  # fmt: skip
"""What a run has of the run that it starts from, where nothing else is asked for."""

RENAMED = {
    "hand": "template", "looks": "n_crops", "explode": "divergence_factor",
    "loss_levels": "loss_intermediate", "loss_heat": "loss_heatmaps",
    "loss_surface": "loss_correspondence",
}  # fmt: skip
"""Names in the ``config.json`` of earlier runs, and what they are called now."""

_SYNTHETIC = dict(
    image_size=128, view_size=96, backbone="tf_efficientnet_lite0", pretrained=True,
    learning_rate=1e-3, weight_decay=1e-2, warmup_steps=100,
    loss_edges=0.0, loss_normals=0.0, loss_canonical=50.0,
)  # fmt: skip

PRESETS = {
    "quick": dict(  # to see that everything works
        _SYNTHETIC | dict(image_size=96, view_size=64, warmup_steps=20), steps=120,
        train_images=1024, validation_images=64, ema_decay=0.9, validate_every=40, log_every=5,
    ),
    "small": dict(  # minutes on two CPU cores
        _SYNTHETIC, steps=5000, train_images=18_000, ema_decay=0.998, minutes=7.0,
    ),
    "youtubehand": dict(  # its published recipe
        data="data/freihand", train_images=0, image_size=224, augmentation="metro", workers=8,
        backbone="resnet18", pretrained=True, decoder="youtubehand", n_crops=1,
        batch_size=64, epochs=38, learning_rate=1e-4, schedule="step", drop_epochs=(30,),
        clip=0.0, precision="fp32",
        loss_vertices=1.0, loss_joints=1.0, joint_distance="squared", loss_joints_2d=0.1,
        loss_edges=1.0, loss_normals=0.1, loss_intermediate=0.0, loss_canonical=0.0,
        loss_rotation=0.0, loss_heatmaps=0.0, loss_correspondence=0.0,
    ),
    "full": dict(
        data="data/freihand", train_images=0, image_size=224, augmentation="default", workers=8,
        pretrained=True, batch_size=64, epochs=100, ema_decay=0.999,
    ),
}  # fmt: skip


def make_config(preset: str = "small", **overrides) -> TrainConfig:
    """The preset with some fields changed; unknown names and wrong values are refused.

    preset: a key of ``PRESETS``.   overrides: fields of ``TrainConfig``; None keeps the preset's.
    """
    check_name(preset, PRESETS, "preset")
    return replace(_checked({"preset": preset, **PRESETS[preset]}), **overrides)


def replace(config: TrainConfig, **overrides) -> TrainConfig:
    """A copy with some fields changed, not those that are None.

    ``steps`` given alone unsets ``epochs``, and back; ``start_from`` brings its run's network.
    """
    fields = dataclasses.asdict(config)
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if overrides.get("start_from"):
        path = find_run(overrides["start_from"]) / "config.json"
        if path.is_file():  # else it is said when the weights are wanted
            source = config_from_json(path.read_text(encoding="utf-8"), str(path))
            fields |= {name: getattr(source, name) for name in OF_NETWORK} | {"pretrained": False}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(one):
            overrides.setdefault(other, 0)
    return _checked(fields | overrides)


def _checked(fields: dict) -> TrainConfig:
    """The config of some fields, or a ValueError: name, what is expected, what was found."""
    for name in fields:
        check_name(name, FIELDS)
    try:
        return TrainConfig(**fields)
    except pydantic.ValidationError as error:
        found = error.errors()
    if not found[0]["loc"]:  # said by __post_init__
        raise ValueError(found[0]["msg"].removeprefix("Value error, "))
    name = found[0]["loc"][0]  # several problems with one name: "a list or None"
    words = [problem["msg"] for problem in found if problem["loc"][0] == name]
    words = [text.removeprefix("Input should be ").replace("valid tuple", "list") for text in words]
    words = " or ".join(dict.fromkeys(words))
    raise ValueError(f"{name} should be {words}, found {fields[name]!r}")


def config_from_json(text: str, name: str = "config.json") -> TrainConfig:
    """The config that ``to_json`` wrote, today or earlier.   name: what errors call the text."""
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"it should hold one object, found {type(fields).__name__}")
        return _checked({RENAMED.get(field, field): value for field, value in fields.items()})
    except ValueError as error:  # broken JSON is of this kind
        raise ValueError(f"{name}: {error}") from None


def refuse_unknown_parameters(namespace: dict) -> None:
    """Stop a notebook that papermill was given a parameter it does not have.

    namespace: the notebook's ``globals()``. Papermill runs values it was given as a cell of
    assignments after the parameters cell, whatever their names; here they are compared with the
    names that the first cell, the parameters cell, assigns. Without papermill nothing happens.
    """
    cells = [source for source in namespace.get("In", []) if source.strip()]
    injected = [source for source in cells[1:] if source.lstrip().startswith("# Parameters\n")]
    for name in _assigned("".join(injected[:1])):
        check_name(name, _assigned(cells[0]))


def config_from_notebook(namespace: dict, base: TrainConfig | None = None) -> TrainConfig:
    """The config of a notebook's parameters cell.

    namespace: the notebook's ``globals()``; ``preset``, any other field of ``TrainConfig``, and
    ``changes``, a text of further ones: "steps=200 batch_size=16". ``None`` keeps what the preset
    says.   base: begin with this one instead of the preset.   Unknown names are refused.
    """
    refuse_unknown_parameters(namespace)
    given = {name: namespace[name] for name in FIELDS if name in namespace}
    pairs = [word.partition("=") for word in shlex.split(namespace.get("changes") or "")]
    given |= changes_from_words([part for name, _, value in pairs for part in (name, value)])
    if base is None:
        return make_config(**given)
    given.pop("preset", None)
    return replace(base, **given)


def check_name(name: str, valid, kind: str = "parameter") -> None:
    """Raise a ValueError with the nearest matches and the whole list unless ``name`` is valid."""
    if name not in valid:
        near = difflib.get_close_matches(str(name), list(valid), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ";"
        raise ValueError(f"unknown {kind} {name!r}{hint} Valid: {', '.join(valid)}")


def changes_from_words(words: list[str]) -> dict:
    """Fields of a config as one types them: name, value, name, value, ...

    What a text field is given stays text, so that a run may be called 2024_05_01.

    >>> changes_from_words(["steps", "20", "factors", "[2, 2]", "start_from", "007"])
    {'steps': 20, 'factors': [2, 2], 'start_from': '007'}
    """
    if len(words) % 2:
        raise ValueError(f"{words[-1]!r} has no value; give NAME VALUE pairs")
    hints = typing.get_type_hints(TrainConfig)
    pairs = zip(words[::2], words[1::2], strict=True)
    return {name: text if hints.get(name) is str else literal(text) for name, text in pairs}


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
