"""From a config to network, data and loss: what it names is what is built."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_fixtures import foreign_hand

from hand_lib.data.crops import HandCrops
from hand_lib.data.freihand import write_freihand
from hand_lib.data.loader import HandLoader
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import HandModel, builtin_hierarchy
from hand_lib.network.model import build_network
from hand_lib.training import setup as setups
from hand_lib.training.config import PRESETS, make_config
from hand_lib.training.loop import train
from hand_lib.training.run_folder import load_network


@pytest.fixture(scope="module")
def hands():
    return SyntheticHands(size=48, seed=3, count=80)


@pytest.fixture(scope="module")
def freihand(hands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("freihand")
    write_freihand(folder, [hands[i] for i in range(12)])
    return folder


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_a_network_that_predicts(preset):
    config = make_config(preset, pretrained=False, **SMALLER.get(preset, {}))
    network = build_network(config, builtin_hierarchy(factors=config.factors)).eval()
    with torch.no_grad():
        prediction = network(torch.zeros(1, 3, config.image_size, config.image_size))
    assert prediction.vertices.shape == (1, 778, 3)


SMALLER = {"youtubehand": {"channels": (8, 8, 16, 16)}}  # the published widths take seconds


def test_pictures_kept_in_memory_are_those_of_the_set_in_order(hands):
    pool = setups.synthetic_data(make_config("small", train_images=80, image_size=48, seed=3))
    straight = hands.fetch_batch(np.arange(80))
    np.testing.assert_array_equal(pool.images.transpose(0, 3, 1, 2), straight["image"])
    for name in ("vertices", "joints_2d", "root", "intrinsics"):
        np.testing.assert_allclose(pool.arrays[name], straight[name], atol=1e-5)
    with pytest.raises(ValueError, match="train_images"):
        setups.synthetic_data(make_config("small", train_images=0))


def test_validation_hands_are_not_training_hands():
    config = make_config("small", train_images=16, validation_images=8, image_size=48)
    (pool,), validation, some = setups.training_sets(config)
    assert len(pool) == 16 and validation["image"].shape == (8, 3, 48, 48)
    seen = setups.training_crops(config, pool, builtin_hierarchy()).fetch_batch(np.arange(8))
    assert not np.array_equal(seen["image"], validation["image"].numpy())
    assert set(setups.LABELS) <= set(seen) and some["vertices"].shape == (16, 778, 3)


def test_a_freihand_folder_is_split_by_unique_hand(freihand):
    config = make_config("small", data=str(freihand), validation_images=4, image_size=48)
    (crops,), validation, some = setups.training_sets(config)
    assert len(crops) == 8 and len(validation["image"]) == 4
    assert validation["has_vertices"].all() and len(some["vertices"]) == 8
    other = replace(config, data="synthetic", train_images=8, workers=1, validation=str(freihand))
    (drawn,), validation, _ = setups.training_sets(other)
    assert isinstance(drawn, SyntheticHands)  # on the fly, by loading processes
    assert len(drawn) == 8 and len(validation["image"]) == 4


def test_data_sets_joined_by_plus_are_mixed(freihand):
    config = make_config(
        "small", data=f"{freihand}+synthetic", train_images=8, validation_images=4, image_size=48
    )
    sets, validation, _ = setups.training_sets(config)
    assert [len(data) for data in sets] == [8, 8] and len(validation["image"]) == 4
    crops = [setups.training_crops(config, data, builtin_hierarchy()) for data in sets]
    loader = HandLoader(crops, 16, seed=0)
    batch = next(iter(loader))
    assert sorted(batch["index"].tolist()) == list(range(16))


def test_training_crops_are_first_and_second_looks_with_surface_maps(hands):
    config = make_config("small", image_size=48, view_size=40)
    pool = setups.synthetic_data(replace(config, train_images=40, seed=3))
    batch = setups.training_crops(config, pool, builtin_hierarchy()).fetch_batch(np.arange(40))
    assert batch["image"].shape == (40, 3, 40, 40)
    assert batch["correspondence"].shape == (40, 4, 16, 16)
    upright = np.abs(batch["joints_2d"][:, [5, 9, 13, 17], 0].mean(1) - batch["joints_2d"][:, 0, 0])
    plain = HandCrops(pool, 40).fetch_batch(np.arange(40))
    first = np.abs(batch["joints_2d"] - plain["joints_2d"]).max((1, 2)) < 1e-6
    assert 5 <= first.sum() <= 25 and np.median(upright[~first]) < np.median(upright[first])
    theirs = make_config("youtubehand", channels=(8, 8, 16, 16), image_size=48, augmentation="none")
    crops = setups.training_crops(theirs, pool, builtin_hierarchy())
    assert crops.tight is None and crops.surface is None


def test_a_run_on_mano_keeps_its_mesh_and_loads_without_the_file(tmp_path):
    """Labels in another order of the vertices need that hand; the run folder then suffices."""
    arrays, order = foreign_hand(HandModel.builtin().arrays())
    np.savez(tmp_path / "MANO_RIGHT.npz", **arrays)
    some = SyntheticHands(size=48, seed=3, count=12)
    foreign = [replace(some[i], vertices=some[i].vertices[order]) for i in range(12)]
    write_freihand(tmp_path / "data", foreign)
    config = make_config(
        "quick", data=str(tmp_path / "data"), validation_images=2, image_size=48, steps=2,
        batch_size=4, backbone="regnety_002", pretrained=False,
        template=str(tmp_path / "MANO_RIGHT.npz"), threads=1,
    )  # fmt: skip
    train(config, tmp_path / "run", say=lambda line: None)
    (tmp_path / "MANO_RIGHT.npz").unlink()
    network, _ = load_network(tmp_path / "run")
    assert {tuple(sorted(f)) for f in network.faces.tolist()} == {
        tuple(sorted(f)) for f in arrays["f"].tolist()
    }
    with pytest.raises(ValueError, match="are not those of template='builtin'"):
        setups.build_setup(replace(config, template="builtin"))


def test_template_only_is_exact_for_one_hand_in_many_poses_of_the_camera():
    rng = np.random.default_rng(0)
    shape = rng.normal(0, 0.05, (30, 3))
    turned = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(20)]
    turned = np.stack([shape @ (q * np.linalg.det(q)) for q in turned]).astype(np.float32)
    validation = {
        "image": torch.zeros(20, 3, 8, 8), "vertices": torch.as_tensor(turned),
        "has_vertices": torch.ones(20, dtype=torch.bool),
        "valid_2d": torch.zeros(20, 21, dtype=torch.bool),
        "has_joints": torch.zeros(20, dtype=torch.bool), "joints": torch.zeros(20, 21, 3),
    }  # fmt: skip
    scores = setups.single_mesh_scores(
        {"vertices": turned, "joints": np.zeros((0, 21, 3))}, validation
    )
    assert scores["vertices_pa_mm"] < 1e-2
    errors = np.linalg.norm(turned - turned.mean(0), axis=-1)
    assert scores["vertices_mm"] == pytest.approx(1000 * errors.mean(), rel=1e-4)
    assert "joints_mm" not in scores


def test_the_real_network_trains_and_is_told_about(tmp_path):
    lines = []
    config = make_config(
        "quick", train_images=32, validation_images=8, image_size=64, batch_size=8, steps=3,
        log_every=1, device="cpu", threads=1,
    )  # fmt: skip
    result = train(config, tmp_path / "run", say=lines.append)
    assert result.step == 3 and "32 training images of 64 px, 8 to validate on" in lines[0]
    assert result.metrics["template_only"]["joints_pa_mm"] > 1
    assert result.log[1]["loss_joints_2d"] > 0
