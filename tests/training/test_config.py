"""The configuration is refused at the door when it is wrong, and survives a round trip."""

import dataclasses
import re

import pytest

from hand_lib.training import config
from hand_lib.training.config import PRESETS, TrainConfig, config_from_json, make_config, replace


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_survives_json(preset):
    made = make_config(preset)
    assert made.preset == preset
    assert config_from_json(made.to_json()) == made
    assert make_config(preset, batch_size=None) == made  # None keeps what the preset says


def test_youtubehand_is_the_published_recipe():
    made = make_config("youtubehand")
    published = dict(
        learning_rate=1e-4, batch_size=64, epochs=38, schedule="step", drop_epochs=(30,), seed=88,
        weight_decay=0.0, decoder="youtubehand", image_size=224, augmentation="metro",
        loss_vertices=1.0, loss_joints=1.0, joint_distance="squared", loss_joints_2d=0.1,
        loss_edges=1.0, loss_normals=0.1, ema_decay=0.0, clip=0.0, warmup_steps=0,
        precision="fp32",
    )  # fmt: skip
    assert {name: getattr(made, name) for name in published} == published


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(ValueError, match="'backbnoe'; did you mean 'backbone'") as error:
        make_config("small", backbnoe="resnet50")
    assert all(field.name in str(error.value) for field in dataclasses.fields(TrainConfig))
    with pytest.raises(ValueError, match="did you mean 'small'.*quick, small, youtubehand, full"):
        make_config("smal")


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 2.5), ("batch_size", "8"), ("batch_size", True), ("learning_rate", "fast"),
     ("learning_rate", float("nan")), ("freeze_norm", 1), ("backbone", 18), ("factors", [2, 2.5]),
     ("factors", 2), ("channels", "64"), ("pretrained", 1), ("batch_size", 0),
     ("learning_rate", -1.0), ("image_size", 3), ("ema_decay", 1.0), ("schedule", "cosin"),
     ("precision", "fp16"), ("factors", [2, 1])],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name_with_what_is_expected_and_found(name, value):
    with pytest.raises(ValueError, match=f"^{name} should be .*, found {re.escape(repr(value))}$"):
        make_config("small", **{name: value})


def test_whole_numbers_pass_for_floats_and_lists_for_tuples():
    made = make_config("small", learning_rate=1, factors=[2, 2], pretrained="weights.pth")
    assert (made.learning_rate, made.factors, made.pretrained) == (1.0, (2, 2), "weights.pth")
    assert isinstance(made.learning_rate, float)


def test_steps_and_epochs_exclude_each_other_and_pieces_are_equal():
    assert (replace(make_config("full"), steps=10).epochs, make_config("small").epochs) == (0, 0)
    assert replace(make_config("small"), epochs=3).steps == 0
    with pytest.raises(ValueError, match="^give either steps or epochs"):
        make_config("small", steps=3, epochs=3)
    with pytest.raises(ValueError, match="^batch_size 32 cannot be cut into accumulate=3"):
        make_config("small", accumulate=3)


@pytest.mark.parametrize("text", ["{", "[]", '{"batchsize": 3}', '{"steps": 5, "seed": -1}'])
def test_a_broken_config_file_is_refused_by_name(text):
    with pytest.raises(ValueError, match="^run/config.json: "):
        config_from_json(text, "run/config.json")


CELL = 'preset: str = "small"  # which\nrun: str = ""\nseed: int = 88\n'


def test_a_notebook_makes_its_config_from_its_parameters():
    cells = {"In": ["", "preset = 'small'\nseed = None\nrun = ''", "# Parameters\nseed = 3"]}
    made = config.config_from_notebook({**cells, "preset": "small", "seed": 3, "run": "x"})
    assert made == make_config("small", seed=3)
    text = "steps=20 backbone='resnet 50' start_from=007"
    made = config.config_from_notebook({"preset": "small", "changes": text})
    assert (made.steps, made.backbone, made.start_from) == (20, "resnet 50", "007")
    again = config.config_from_notebook({"preset": "full", "changes": "seed=5"}, made)
    assert again == config.replace(made, seed=5)
    assert config.config_from_notebook({"preset": "full", "clip": None}) == make_config("full")


def test_a_parameter_that_papermill_injects_must_exist_but_not_what_a_person_types():
    config.refuse_unknown_parameters({"In": ["", CELL, "# Parameters\nseed = 3\n"]})
    config.refuse_unknown_parameters({"In": ["", CELL, "x = 3", "config = 4"], "x": 3})
    config.refuse_unknown_parameters({"x": 3})
    with pytest.raises(ValueError, match="'sede'; did you mean 'seed'.*preset, run, seed"):
        config.refuse_unknown_parameters({"In": ["", CELL, "# Parameters\nsede = 3\n"]})


def test_what_one_types_is_read_by_the_kind_of_its_field():
    words = "steps 20 factors [2,2] pretrained True start_from 007 backbone resnet18 clip 1e-1"
    assert config.changes_from_words(words.split()) == {
        "steps": 20, "factors": [2, 2], "pretrained": True, "start_from": "007",
        "backbone": "resnet18", "clip": 0.1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="'steps' has no value"):
        config.changes_from_words(["steps"])
