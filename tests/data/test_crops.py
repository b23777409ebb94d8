"""Crops, hands in memory, parts: exact labels, the same always."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
from data_fixtures import make_hand, write_freihand_fixture

from hand_lib.data.augment import Augmentation
from hand_lib.data.crops import CELLS, SURFACE_UNIT, HandCrops, InMemoryDataset, SurfaceMaps
from hand_lib.data.freihand import FreiHand
from hand_lib.data.loader import HandLoader
from hand_lib.data.sample import HandDataset, Subset, split_unique
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.files import SampleError
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.render.camera import crop_to_pixels, project

STRONG = Augmentation(
    rotation_deg=90, scale=0.3, shift=0.2, gain=0.3, brightness=0.2, contrast=0.2, blur=0.3,
    jpeg=0.3, occluder=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    root = write_freihand_fixture(tmp_path_factory.mktemp("crops") / "pub", unique=5)
    return FreiHand(root)


def reprojection_px(batch, size):
    """Largest distance between 2-D joints and the projected 3-D joints, pixels of the crop."""
    points = np.asarray(batch["joints"], float) + np.asarray(batch["root"], float)[:, None]
    pixels = project(points, np.asarray(batch["intrinsics"], float))
    return np.abs(pixels - crop_to_pixels(np.asarray(batch["joints_2d"], float), size)).max()


def test_augmented_joints_project_onto_augmented_joints(hands):
    batch = HandCrops(hands, 224, STRONG).fetch_batch(np.arange(20), 3)
    assert reprojection_px(batch, 224) < 0.01
    plain = HandCrops(hands, 224).fetch_batch(np.arange(20), 3)
    assert reprojection_px(plain, 224) < 0.01
    assert (batch["image"] != plain["image"]).any()


def test_augmented_vertices_move_with_the_joints(hands):
    plain, moved = (HandCrops(hands, 128, a).fetch_batch(np.arange(20)) for a in (None, STRONG))
    for row in range(20):
        turn = np.linalg.lstsq(plain["joints"][row], moved["joints"][row], rcond=None)[0]
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-4)
        assert np.allclose(plain["vertices"][row] @ turn, moved["vertices"][row], atol=1e-5)
        assert np.allclose(plain["root"][row] @ turn, moved["root"][row], atol=1e-5)
    assert np.allclose(moved["intrinsics"][:, [0, 1], [1, 0]], 0, atol=0.03 * 1131)


def dotted_hand(size, side="right"):
    """A picture with a smooth dot at each of five joints; nothing else."""
    rng = np.random.default_rng(1)
    joints_2d = rng.uniform(size * 0.3, size * 0.7, (21, 2))
    joints_2d[:5] = size * np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7], [0.7, 0.7]])
    joints_2d[:5] += rng.uniform(-3, 3, (5, 2))
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for u, v in joints_2d[:5]:
        image += 250 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (size / 60) ** 2))
    image = np.repeat(np.rint(image)[:, :, None], 3, axis=2).astype(np.uint8)
    return replace(make_hand(0, size, joints_2d=joints_2d, side=side), image=image)


def centroid_errors(item, size):
    """How far each dot's centre of mass lies from its label, pixels."""
    image, errors = item["image"][0].astype(float), []
    y, x = np.mgrid[:size, :size]
    for u, v in crop_to_pixels(item["joints_2d"][:5].astype(float), size):
        near = (x - u) ** 2 + (y - v) ** 2 < (size / 14) ** 2
        weight = image * near
        errors += [np.hypot((weight * x).sum() / weight.sum() - u,
                            (weight * y).sum() / weight.sum() - v)]  # fmt: skip
    return np.array(errors)


@pytest.mark.parametrize("size", [224, 64])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_picture_moves_exactly_with_its_joints(size, side):
    turning = Augmentation(rotation_deg=60, scale=0.1, shift=0.05)
    crops = HandCrops([dotted_hand(224, side)], size, turning)
    errors = np.concatenate([centroid_errors(crops.item(0, epoch), size) for epoch in range(6)])
    assert errors.max() < 0.12 and errors.mean() < 0.05


def test_pictures_shrunk_while_decoding_stay_in_place(tmp_path):
    folder = tmp_path / "training" / "rgb"
    folder.mkdir(parents=True)
    hand = dotted_hand(896)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 98]
    assert cv2.imwrite(str(folder / "00000000.jpg"), hand.image[:, :, ::-1], flags)

    class OneFile(HandDataset):
        def __len__(self):
            return 1

        def jpeg(self, index):
            return (folder / "00000000.jpg").read_bytes()

        def labels(self, index):
            return {name: getattr(hand, name) for name in ("joints_2d", "joints", "intrinsics")}

    for size, expected in ((112, 8), (224, 4), (448, 2), (500, 1)):
        assert OneFile().read(0, size)[1] == expected
        assert centroid_errors(HandCrops(OneFile(), size).item(0), size).max() < 0.1


def test_a_left_hand_becomes_the_mirrored_right_hand():
    right = dotted_hand(224)
    intrinsics = right.intrinsics.copy()
    intrinsics[0, 2] = 223 - intrinsics[0, 2]
    flip = np.float32([-1, 1, 1])
    joints_2d = right.joints_2d * np.float32([-1, 1]) + np.float32([223, 0])
    left = replace(
        right, image=right.image[:, ::-1], joints=right.joints * flip, root=right.root * flip,
        vertices=right.vertices * flip, joints_2d=joints_2d, intrinsics=intrinsics, side="left",
    )  # fmt: skip
    one, other = (HandCrops([hand], 96).item(0) for hand in (right, left))
    for name in ("vertices", "joints", "root", "joints_2d", "intrinsics"):
        assert np.allclose(one[name], other[name], atol=1e-4), name
    assert np.abs(one["image"].astype(int) - other["image"]).max() <= 1


def test_an_item_follows_from_seed_epoch_and_index(hands):
    crops = HandCrops(hands, 64, STRONG, seed=4)
    batch = crops.fetch_batch([3, 11, 7], [2, 0, 2])
    again = HandCrops(hands, 64, STRONG, seed=4).item(7, 2)
    for name, value in again.items():
        assert np.array_equal(batch[name][2], value), name
    assert (crops.item(7, 3)["image"] != again["image"]).any()
    assert (HandCrops(hands, 64, STRONG, seed=5).item(7, 2)["image"] != again["image"]).any()
    assert np.array_equal(crops[7]["image"], crops.item(7, 0)["image"])
    with pytest.raises(IndexError, match="20 crops"):
        crops[20]


def test_unknown_truth_is_zero_and_flagged():
    bare = make_hand(
        0, with_pose=False, joints=None, vertices=None, root=None, intrinsics=None, joints_2d=None
    )
    item = HandCrops([bare], 64, "metro").item(0)
    assert not item["has_vertices"] and not item["has_joints"] and not item["has_camera"]
    assert not item["valid_2d"].any() and not item["joints_2d"].any() and not item["joints"].any()
    assert item["intrinsics"][0, 0] > 0 and np.isfinite(item["intrinsics"]).all()
    valid = np.arange(21) < 4
    partly = HandCrops([make_hand(0, valid_2d=valid)], 64).item(0)
    assert (partly["valid_2d"] == valid).all() and not partly["joints_2d"][4:].any()


def test_crops_refuse_what_cannot_work(hands):
    with pytest.raises(ValueError, match="empty"):
        HandCrops([], 64)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        HandCrops(hands, 4)
    few = replace(make_hand(2), vertices=np.zeros((100, 3)))
    with pytest.raises(SampleError, match=r"training\[2\].*expected 778 vertices, found"):
        HandCrops([few], 64).item(0)


# memory pools


def test_a_memory_pool_gives_what_the_files_give(hands):
    turning = Augmentation(rotation_deg=30, scale=0.05, shift=0.02)
    for augment in (None, turning):
        direct = HandCrops(hands, 64, augment).fetch_batch(np.arange(20), 1)
        pool = InMemoryDataset(hands, 64, margin=1.5, threads=2)
        pooled = HandCrops(pool, 64, augment).fetch_batch(np.arange(20), 1)
        for name in ("vertices", "joints", "root", "joints_2d", "valid_2d", "has_vertices"):
            assert np.allclose(direct[name], pooled[name], atol=1e-4), name
        assert np.allclose(direct["intrinsics"], pooled["intrinsics"], rtol=1e-4)
        difference = np.abs(direct["image"].astype(int) - pooled["image"])
        assert difference.mean() < 6
    assert len(pool) == 20 and pool.groups.tolist() == hands.groups.tolist()
    assert reprojection_px(pooled, 64) < 0.01


def broken_release(folder):
    root = write_freihand_fixture(folder, unique=6, versions=1, masks=False)
    path = root / "training" / "rgb" / "00000002.jpg"
    path.write_bytes(path.read_bytes()[:500])
    return FreiHand(root)


def test_a_broken_sample_is_named_or_replaced_and_counted(tmp_path):
    hands = broken_release(tmp_path / "pub")
    with pytest.raises(SampleError, match=r"FreiHAND/training\[2\].*cut off"):
        HandCrops(hands, 32).fetch_batch([0, 2])
    hands.on_error = "skip"
    part = Subset(hands, [3, 2, 5])
    assert [sample.index for sample in part] == [3, 5] and "[2]" in part.skipped[1]
    patient = HandCrops(Subset(hands, range(6)), 32)
    batch = patient.fetch_batch([0, 2])
    assert batch["index"].tolist() == [0, 3]
    assert np.array_equal(batch["image"][1], patient.item(3)["image"])
    loader = HandLoader(patient, 4)
    assert sum(len(batch["index"]) for batch in loader) == 6 and loader.skipped == {2}
    pool = InMemoryDataset(hands, 32)
    assert len(pool) == 5 and 2 not in pool.groups


def test_a_worker_says_which_sample_it_died_of(tmp_path):
    hands = broken_release(tmp_path / "pub")
    with pytest.raises(SampleError, match=r"FreiHAND/training\[2\].*cut off"):
        list(HandLoader(HandCrops(hands, 32), 6, workers=1))

    class Odd(list):
        dataset = "odd"

        def __getitem__(self, index):
            raise RuntimeError("no such thing")

    with pytest.raises(SampleError, match=r"odd/\[0\]: RuntimeError: no such thing"):
        HandCrops(Odd([1]), 32).item(0)


# parts


def test_backgrounds_of_one_hand_never_straddle_the_split(hands):
    training, validation = split_unique(hands, 0.4, seed=1)
    assert len(training) == 12 and len(validation) == 8
    assert not set(training.groups) & set(validation.groups)
    again = split_unique(hands, 0.4, seed=1)[1]
    assert again.indices.tolist() == validation.indices.tolist()
    assert split_unique(hands, 0.4, seed=2)[1].indices.tolist() != validation.indices.tolist()
    assert validation[3].index == validation.indices[3]
    item = HandCrops(validation, 64).item(2)
    direct = HandCrops(hands, 64).item(int(validation.indices[2]))
    assert np.array_equal(item["image"], direct["image"])
    for share in (0, 1):
        with pytest.raises(ValueError, match=r"\(0, 1\)"):
            split_unique(hands, share)
    with pytest.raises(ValueError, match="cannot be split"):
        split_unique([1], 0.5)
    parts = split_unique(InMemoryDataset(hands, 32), 0.2)
    assert HandCrops(parts[1], 32).fetch_batch([0, 1])["image"].shape == (2, 3, 32, 32)


def test_crops_of_a_part_travel_to_a_worker(hands):
    crops = HandCrops(Subset(hands, [7, 2]), 32, "metro", seed=3)
    travelled = pickle.loads(pickle.dumps(crops))
    assert np.array_equal(travelled.item(1, 4)["image"], crops.item(1, 4)["image"])
    assert len(pickle.dumps(crops)) < 30_000


# surface maps


def test_surface_maps_show_the_rest_position_of_what_is_seen():
    """A palm-sized square that is its own rest mesh, seen straight on."""
    steps = np.linspace(-0.05, 0.05, 11)
    x, y = np.meshgrid(steps, steps)
    rest = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    faces = np.concatenate([np.stack([corner, corner + 11, corner + 1], 1),
                            np.stack([corner + 1, corner + 11, corner + 12], 1)])  # fmt: skip
    camera = np.array([[[320.0, 0, 31.5], [0, 320, 31.5], [0, 0, 1]]])
    maps = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, 0.5]]), camera, 64)
    assert maps.shape == (1, 4, CELLS, CELLS)
    # 0.1 m at 0.5 m and 320 px is 64 px: the square fills the crop
    centres = ((np.arange(CELLS) + 0.5) / CELLS - 0.5) * 0.1 / SURFACE_UNIT
    assert (maps[0, 0] == 1).all()
    np.testing.assert_allclose(maps[0, 1], np.tile(centres, (CELLS, 1)), atol=0.2)
    np.testing.assert_allclose(maps[0, 2], np.tile(centres[:, None], (1, CELLS)), atol=0.2)
    behind = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, -0.5]]), camera, 64)
    assert (behind == 0).all()


def test_surface_maps_cover_what_the_renderer_shows():
    hands = SyntheticHands(64, seed=3, count=24).fetch_batch(np.arange(24))
    mesh = builtin_hierarchy()
    maps = SurfaceMaps(mesh.vertices[0], mesh.faces[0]).draw(
        hands["vertices"], hands["root"], hands["intrinsics"], 64
    )
    mask = hands["mask"].reshape(24, 16, 4, 16, 4).mean((2, 4))
    # the mask leaves out what an object hides, the map does not
    both = (maps[:, 0] > 0.5) & (mask > 0.5)
    assert both.sum() / (mask > 0.5).sum() > 0.9
