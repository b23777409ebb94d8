"""Where a prediction lands: a stand-in network that finds coloured dots tells the truth exactly."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hand_lib.inference.predictor import BOX_MARGIN, Predictor, check_box
from hand_lib.network.model import Prediction, predict_crops
from hand_lib.render.camera import apply_affine, crop_to_pixels, project

SIZE = 64


class DotFinder(torch.nn.Module):
    """Says that every joint is where the picture is brightest, on a flat hand of known size."""

    view_size = 0

    def __init__(self):
        super().__init__()
        self.register_buffer("faces", torch.tensor([[0, 1, 2]]))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("joints", torch.randn(21, 3, generator=generator) * 0.04)

    def forward(self, images):
        weight = images.float().mean(1) ** 4
        along = (2 * torch.arange(images.shape[-1]) + 1) / images.shape[-1] - 1
        total = weight.sum((1, 2))
        x = (weight.sum(1) * along).sum(1) / total
        y = (weight.sum(2) * along).sum(1) / total
        count = len(images)
        place = torch.stack([x, y], 1)[:, None].expand(count, 21, 2)
        joints = self.joints.expand(count, 21, 3)
        return Prediction(
            vertices=joints[:, :3],
            joints=joints,
            camera=torch.ones(count, 3),
            joints_2d=place + joints[..., :2] * 4,
        )


@pytest.fixture
def predictor():
    return Predictor(DotFinder(), SIZE, device="cpu")


def photo_with_dot(x, y, width=320, height=200):
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    bump = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
    return np.repeat(bump.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("box", [None, (170, 60, 260, 140), (100, 40, 318, 160)])
def test_a_point_of_the_crop_is_placed_where_it_is_in_the_picture(predictor, side, box):
    boxes = None if box is None else [box]
    hand = predictor.predict(photo_with_dot(205.0, 92.0), boxes, [side])[0]
    mirror = -1 if side == "left" else 1
    crop_px = 4 * predictor.network.joints[:, :2].numpy() * SIZE / 2
    scale = abs(np.linalg.det(hand.affine[:, :2])) ** 0.5
    expected = np.array([205.0, 92.0]) + crop_px * [mirror, 1] / scale
    assert np.abs(hand.joints_2d - expected).max() < 1.5


def test_a_left_hand_is_the_mirror_image_of_a_right_one(predictor):
    photo = photo_with_dot(205.0, 92.0)
    right = predictor.predict(photo, [(150, 50, 250, 150)], ["right"])[0]
    flipped = predictor.predict(photo[:, ::-1].copy(), [(69, 50, 169, 150)], ["left"])[0]
    assert np.allclose(flipped.vertices, right.vertices * [-1, 1, 1], atol=1e-6)
    assert np.allclose(flipped.joints_2d, [319, 0] + right.joints_2d * [-1, 1], atol=0.2)
    assert np.array_equal(flipped.faces, right.faces[:, ::-1])
    assert np.allclose(flipped.translation, right.translation * [-1, 1, 1], atol=2e-3)


def test_intrinsics_give_metric_places_and_their_absence_is_said(predictor):
    photo = photo_with_dot(205.0, 92.0)
    intrinsics = np.array([[300.0, 0, 150], [0, 300, 90], [0, 0, 1]])
    near = predictor.predict(photo, intrinsics=intrinsics)[0]
    far = predictor.predict(photo, intrinsics=np.diag([2.0, 2, 1]) @ intrinsics)[0]
    assert not near.assumed_intrinsics and 1.8 < far.translation[2] / near.translation[2] < 2.2
    assert predictor.predict(photo)[0].assumed_intrinsics
    again = project(near.joints + near.translation, near.intrinsics)
    assert np.abs(again - near.joints_2d).mean() < 12
    assert np.array_equal(near.camera_vertices, near.vertices + near.translation)


def test_batches_equal_single_pictures(predictor):
    photos = [photo_with_dot(x, 90.0) for x in (60.0, 150.0, 240.0)]
    boxes = [None, [(100, 50, 200, 150), (90, 40, 210, 160)], [(200, 50, 280, 130)]]
    together = predictor.predict_many(photos, boxes, batch_size=2)
    assert [len(hands) for hands in together] == [1, 2, 1]
    for photo, box, hands in zip(photos, boxes, together, strict=True):
        for one, other in zip(predictor.predict(photo, box), hands, strict=True):
            assert np.allclose(one.joints_2d, other.joints_2d, atol=1e-4)
    with pytest.raises(ValueError, match="3 pictures"):
        predictor.predict_many(photos, boxes[:2])


def test_the_crop_of_a_box_leaves_a_margin_around_it(predictor):
    hand = predictor.predict(photo_with_dot(205.0, 92.0), [(150, 50, 250, 130)])[0]
    corners = apply_affine(hand.affine, np.array([[200.0, 90.0], [150.0, 90.0]]))
    assert np.allclose(corners[0], (SIZE - 1) / 2)
    assert np.isclose(corners[0, 0] - corners[1, 0], SIZE / 2 / BOX_MARGIN)
    assert crop_to_pixels(-1.0, SIZE) == -0.5


def test_large_pictures_are_averaged_not_sampled(predictor):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    seen = []
    predictor.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predictor.predict(noise)
    assert seen[0].float().std() < 20  # white noise has 74


@pytest.mark.parametrize(
    "box, message",
    [
        ((10, 10, 5, 30), "x1 > x0"),
        ((10, 10, 12, 30), "4 pixels"),
        ((400, 10, 450, 60), "outside the picture of 320 x 200"),
        ((0, 0, np.nan, 10), "x0, y0, x1, y1"),
        ((1, 2, 3), "x0, y0, x1, y1"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(box, message):
    with pytest.raises(ValueError, match=message):
        check_box(box, 320, 200)


def test_wrong_input_is_answered(predictor):
    photo = photo_with_dot(100.0, 90.0)
    with pytest.raises(ValueError, match="'right' or 'left'"):
        predictor.predict(photo, sides=["Left"])
    with pytest.raises(ValueError, match="1 boxes and 2 sides"):
        predictor.predict(photo, sides=["left", "right"])
    with pytest.raises(ValueError, match="intrinsics"):
        predictor.predict(photo, intrinsics=np.eye(4))
    with pytest.raises(ValueError, match="uint8"):
        predictor.predict_crops(np.zeros((2, 64, 64, 3)))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run folder with untrained weights."""
    from hand_lib.hand.model import builtin_hierarchy
    from hand_lib.network.model import build_network
    from hand_lib.training.config import make_config
    from hand_lib.training.run_folder import save_model

    folder = tmp_path_factory.mktemp("runs") / "untrained"
    folder.mkdir()
    config = make_config("quick", seed=3, pretrained=False)
    torch.manual_seed(3)
    network = build_network(config, builtin_hierarchy(factors=config.factors)).eval()
    (folder / "config.json").write_text(config.to_json())
    save_model(folder, network.state_dict())
    return folder, network


def test_a_loaded_run_predicts_what_was_saved(run_folder):
    from hand_lib.training.config import make_config

    folder, network = run_folder
    predictor = Predictor.load(folder, device="cpu")
    size = make_config("quick").image_size
    crops = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    found = predictor.predict_crops(crops)
    with torch.inference_mode():
        expected = predict_crops(network, torch.from_numpy(crops).permute(0, 3, 1, 2))
    assert predictor.name == "untrained" and predictor.image_size == size
    assert np.allclose(found["vertices"], expected.vertices.numpy(), atol=1e-6)
    assert np.allclose(found["joints_2d"], expected.joints_2d.numpy(), atol=1e-5)


def test_a_folder_that_is_no_run_is_answered_with_what_is_missing(run_folder, tmp_path):
    folder, _ = run_folder
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        Predictor.load(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        Predictor.load(tmp_path)
    shutil.copy(folder / "model.safetensors", tmp_path)
    text = (folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("coarse_to_fine", "youtubehand"))
    with pytest.raises(ValueError, match="does not fit"):
        Predictor.load(tmp_path)


def test_every_kind_of_picture_gives_the_hand_at_the_same_place(predictor, tmp_path):
    """Here of one that is stored lying, shown after a quarter turn clockwise."""
    photo, path, exif = photo_with_dot(205.0, 92.0), tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    lying.save(path, exif=exif, quality=95)
    expected = predictor.predict(photo)[0].joints_2d
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.abs(predictor.predict(source)[0].joints_2d - expected).max() < 1.0
    assert predictor.predict_many([path, path])[1][0].side == "right"
