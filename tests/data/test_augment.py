"""Random changes: reproducible, distributed as promised, labels never left behind."""

import numpy as np
import pytest

from hand_lib.data.augment import (
    AUGMENTATIONS,
    COLUMNS,
    Augmentation,
    TightCrop,
    augmentation,
    colour_tables,
    degrade,
    draw_changes,
    tight_affines,
    uniforms,
)
from hand_lib.data.crops import HandCrops, InMemoryDataset
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.render.camera import KNUCKLES


@pytest.fixture(scope="module")
def pool():
    return InMemoryDataset(SyntheticHands(64, seed=3, count=24), 64, margin=1.0)


def test_metro_changes_follow_metros_distribution():
    changes = draw_changes(AUGMENTATIONS["metro"], uniforms(0, 0, np.arange(20_000)))
    turned = changes.rotation[changes.rotation != 0]
    assert len(turned) / 20_000 == pytest.approx(0.4, abs=0.015)
    assert np.abs(turned).max() == pytest.approx(np.pi)
    assert np.mean(np.abs(turned) < np.pi / 2) == pytest.approx(0.683, abs=0.02)  # within 1 sigma
    assert changes.scale.min() == 0.75 and changes.scale.max() == 1.25
    assert np.mean(changes.scale == 0.75) == pytest.approx(0.159, abs=0.01)
    assert changes.gain.min() == pytest.approx(0.6, abs=0.01)
    assert changes.gain.max() == pytest.approx(1.4, abs=0.01)
    assert np.abs(np.corrcoef(changes.gain.T) - np.eye(3)).max() < 0.03
    assert not changes.shift.any() and not changes.offset.any()
    rng = np.random.default_rng(1)  # METRO's own draws
    turn = np.clip(rng.normal(size=20_000) * 90, -180, 180) * (rng.uniform(size=20_000) > 0.6)
    scale = np.clip(1 + 0.25 * rng.normal(size=20_000), 0.75, 1.25)
    gain = rng.uniform(0.6, 1.4, (20_000, 3))
    pairs = (np.rad2deg(changes.rotation) / 90, turn / 90), (changes.scale, scale)
    for ours, theirs in (*pairs, (changes.gain, gain)):
        for power in (1, 2, 4):
            assert (ours**power).mean() == pytest.approx((theirs**power).mean(), abs=0.05)


def test_no_augmentation_changes_nothing():
    levels = np.arange(256)[:, None]
    for config in (None, Augmentation()):
        changes = draw_changes(config, uniforms(0, 5, np.arange(50)))
        assert not changes.rotation.any() and (changes.scale == 1).all()
        assert not changes.shift.any() and (colour_tables(changes) == levels).all()


def test_augmentations_have_names():
    assert augmentation("metro").rotation_deg == 90 and augmentation("none") is None
    mine = Augmentation(blur=0.5)
    assert augmentation(mine) is mine
    with pytest.raises(ValueError, match="unknown augmentation 'meto'; known: none, default"):
        augmentation("meto")


def test_colour_tables_multiply_shift_and_clip():
    config = Augmentation(gain=0.4, brightness=0.3, contrast=0.3)
    changes = draw_changes(config, uniforms(0, 0, np.arange(6)))
    tables = colour_tables(changes)
    exact = np.arange(256)[None, :, None] * changes.gain[:, None] + changes.offset[:, None, None]
    assert tables.shape == (6, 256, 3)
    assert np.abs(tables - np.clip(exact, 0, 255)).max() <= 0.51


def test_blur_occluder_and_jpeg_each_leave_their_mark():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    random = np.append(np.zeros(12), np.random.default_rng(1).uniform(0, 1, 28))
    for name in ("blur", "occluder", "jpeg"):
        out = degrade(image.copy(), Augmentation(**{name: 1.0}), random)
        assert out.shape == image.shape and out.dtype == np.uint8 and (out != image).any()
    blurred = degrade(image.copy(), Augmentation(blur=1.0, blur_share=0.05), random)
    assert blurred.std() < image.std()
    flat = np.full((64, 64, 3), 90, np.uint8)
    for shape in (0.1, 0.9):  # an ellipse, a box
        random[12 + 11] = shape
        covered = (degrade(flat.copy(), Augmentation(occluder=1.0), random) != 90).any(2).mean()
        assert 0.002 < covered < 0.25
    assert (degrade(image.copy(), Augmentation(), random) == image).all()


def test_training_crops_become_tight_with_exact_labels(pool):
    always = TightCrop(fraction=1.0, turn_deg=0.0, scale=0.0, shift=0.0)
    batch = HandCrops(pool, 48, tight=always).fetch_batch(np.arange(24))
    places = batch["joints_2d"]
    along = places[:, list(KNUCKLES)].mean(1) - places[:, 0]
    assert np.abs(along[:, 0]).max() < 1e-4 and (along[:, 1] < 0).all()
    points = batch["joints"] + batch["root"][:, None]
    image = (points / points[..., 2:]) @ batch["intrinsics"].swapaxes(1, 2)
    known = (2 * image[..., :2] + 1) / 48 - 1
    assert np.abs(known - places).max() * 24 < 0.01
    plain = HandCrops(pool, 48).fetch_batch(np.arange(24))
    np.testing.assert_allclose(batch["joints"][..., 2], plain["joints"][..., 2], atol=1e-6)
    lengths = [np.linalg.norm(b["joints"], axis=2) for b in (batch, plain)]
    np.testing.assert_allclose(*lengths, atol=1e-6)


def test_a_share_of_the_crops_stays_first_and_the_same_seed_the_same_crops(pool):
    plain = HandCrops(pool, 48).fetch_batch(np.arange(24))["joints_2d"]
    crops = HandCrops(pool, 48, seed=5, tight=TightCrop(fraction=0.5))
    one, again = (crops.fetch_batch(np.arange(24), epoch)["joints_2d"] for epoch in (0, 0))
    other = crops.fetch_batch(np.arange(24), 1)["joints_2d"]
    same = (np.abs(one - plain).max((1, 2)) < 1e-6).sum()
    assert (one == again).all() and (one != other).any() and 4 <= same <= 20


def test_hands_without_enough_joints_keep_their_first_crop(pool):
    affines = np.tile(np.eye(3)[:2], (3, 1, 1))
    places = np.tile(pool.arrays["joints_2d"][:1] * 20 + 32, (3, 1, 1)).astype(float)
    valid = np.ones((3, 21), bool)
    valid[1, 0] = False  # no wrist
    valid[2, 9:] = False  # fewer than half
    random = np.full((3, COLUMNS), 0.3)
    tight = tight_affines(affines, places, valid, random, 64, TightCrop(fraction=1.0))
    assert (tight[0] != affines[0]).any() and (tight[1:] == affines[1:]).all()
