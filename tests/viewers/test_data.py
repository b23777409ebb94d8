import numpy as np
import pytest

from hand_lib.data.sample import HandSample
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.evaluation import describe as numbers
from hand_lib.hand.model import HandModel
from hand_lib.render.camera import project
from hand_lib.viewers import data as d

FACES = HandModel.builtin().faces.numpy()


@pytest.fixture(scope="module")
def hands():
    data = SyntheticHands(64, seed=5, count=24)
    return [data[n] for n in range(24)]


@pytest.fixture(scope="module")
def description(hands):
    return numbers.describe(hands, count=0)


class Faulty(list):
    def __getitem__(self, index):
        if index == 2:
            raise ValueError("mine/training[2]: the JPEG is cut off")
        return super().__getitem__(index)


def test_description_measures_each_sample(hands, description):
    assert len(description) == 24 and description.index.tolist() == list(range(24))
    joints = hands[3].joints.astype(float)
    expected = np.linalg.norm(joints[10] - joints[9]) * 1000
    assert np.isclose(description.bones_mm[3, numbers.BONE_NAMES.index("middle_pip")], expected)
    assert np.isclose(description.brightness[5], hands[5].image.mean())
    assert np.nanmax(description.reprojection_px) < 0.01
    assert np.allclose(np.linalg.norm(description.toward_camera, axis=1), 1)


def test_viewpoint_is_the_direction_of_the_camera_in_the_hand_s_axes():
    model = HandModel.builtin()
    rest = model.regress_joints(model.vertices.numpy())
    flip = np.diag([1.0, -1, -1])  # palm (-z at rest) now away from the camera
    for turn, palm_angle, dorsal in ((np.eye(3), 0, -1), (flip, 180, 1)):
        joints = ((rest - rest[0]) @ turn.T).astype(np.float32)
        sample = HandSample(np.zeros((8, 8, 3), np.uint8), joints=joints, root=[0, 0, 0.6])
        row = numbers.describe([sample], 0)
        assert abs(row.palm_angle_deg[0] - palm_angle) < 25
        assert row.toward_camera[0, 2] * dorsal > 0.9


def test_samples_that_cannot_be_read_are_listed_and_left_out(hands):
    found = numbers.describe(Faulty(hands[:5]), 0)
    assert len(found) == 4 and found.broken == ("mine/training[2]: the JPEG is cut off",)
    with pytest.raises(ValueError, match="none of 1 samples"):
        numbers.describe(_AlwaysBroken(), 0)


class _AlwaysBroken:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("broken")


def test_a_subset_is_spread_by_the_seed_and_repeatable(hands):
    first, again, other = (numbers.describe(hands, 8, s).index.tolist() for s in (0, 0, 1))
    assert first == again != other and len(set(first)) == 8


def test_the_same_pose_seen_from_elsewhere_is_the_nearest(hands):
    turned = hands[0].joints.astype(float) @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).T * 1.1
    twin = HandSample(hands[1].image, joints=turned)
    found = numbers.describe([*hands, twin], 0)
    assert numbers.nearest_in_pose(found, 0, 2).tolist() == [0, 24]


def test_an_impossible_bone_is_the_oddest(hands):
    joints = hands[4].joints.copy()
    joints[8] += (joints[8] - joints[7]) * 6
    odd = HandSample(hands[4].image, joints=joints)
    found = numbers.describe([*hands, odd], 0)
    assert numbers.ordered(found, "oddest first")[0] == 24


def test_orders_go_through_every_sample_once(description):
    for by in numbers.ORDERS:
        assert sorted(numbers.ordered(description, by)) == list(range(24))
    dark = numbers.ordered(description, "darkest first")
    assert (np.diff(description.brightness[dark]) >= 0).all()
    with pytest.raises(ValueError, match="oddest"):
        numbers.ordered(description, "size")


def test_left_hands_are_described_as_the_right_hands_they_mirror(hands):
    sample = hands[6]
    mirrored = HandSample(
        sample.image[:, ::-1], joints=sample.joints * [-1, 1, 1], root=sample.root * [-1, 1, 1],
        side="left",
    )  # fmt: skip
    one, other = (numbers.describe([s], 0) for s in (sample, mirrored))
    assert np.isclose(one.palm_angle_deg, other.palm_angle_deg)
    assert np.allclose(one.toward_camera, other.toward_camera) and other.left[0]


def test_pictures_show_what_is_known(hands):
    assert len(d.sample_pictures(hands[0], FACES)) == 3
    bare = HandSample(hands[0].image)
    assert len(d.sample_pictures(bare, FACES)) == 1
    shown = d.sample_pictures(hands[0], FACES)
    assert np.array_equal(shown[0], hands[0].image) and not np.array_equal(shown[2], shown[0])


def test_camera_pyramid_projects_onto_the_picture_s_corners():
    intrinsics = np.array([[300.0, 0, 110], [0, 310, 90], [0, 0, 1]])
    image, root = np.zeros((200, 224, 3), np.uint8), np.array([0, 0, 0.5])
    sample = HandSample(image, joints=np.zeros((21, 3)), root=root, intrinsics=intrinsics)
    camera = d.sample_figure(sample).data[-1]
    walk = np.stack([camera[axis] for axis in "xyz"], 1).astype(float)
    expected = [[-0.5, -0.5], [223.5, -0.5], [223.5, 199.5], [-0.5, 199.5]]
    assert np.allclose(walk[[0, 3, 6]], 0)
    assert np.allclose(project(walk[[1, 2, 4, 5]], intrinsics), expected, atol=1e-3)


def test_figures_hold_mesh_joints_and_camera(hands, description):
    figure = d.sample_figure(hands[0], FACES)
    assert [t.type for t in figure.data] == ["mesh3d"] + ["scatter3d"] * 6
    assert figure.data[-1].name == "camera"
    mesh = np.stack([figure.data[0].x, figure.data[0].y, figure.data[0].z], 1)
    assert np.allclose(mesh, hands[0].vertices + hands[0].root, atol=1e-6)
    sphere, still = d.viewpoint_sphere(description)
    hand, *axes, dots = sphere.data
    assert len(hand.x) == 389 and len(dots.x) == 24 and np.asarray(still).std() > 5
    assert [axis.text[1] for axis in axes] == ["fingers", "thumb", "palm", "back"]
    assert len(d.histograms(description).axes) == 6


def test_browser_moves_through_the_order_it_is_given(hands, description):
    panel = d.browser(hands, description, FACES)
    before = bytes(panel.pictures.value)
    panel.order.value = "darkest first"
    row = numbers.ordered(description, "darkest first")[3]
    panel.place.value = 3
    x = np.asarray(panel.scene.data[0].x)
    assert np.allclose(x, (hands[row].vertices + hands[row].root)[:, 0], atol=1e-6)
    assert bytes(panel.pictures.value) != before
