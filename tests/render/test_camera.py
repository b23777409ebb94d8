import cv2
import numpy as np
import pytest

from hand_lib.render import camera as c

K = np.array([[520.0, 0, 118], [0, 510, 97], [0, 0, 1]])


def hand_points(rng, batch=3):
    return rng.normal(scale=0.05, size=(batch, 21, 3)) + [0.02, -0.03, 0.6]


def test_projection_agrees_with_opencv():
    points = hand_points(np.random.default_rng(0))[0]
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)
    assert np.allclose(c.project(points, K), expected[:, 0])


def test_crop_units_span_the_outer_edges_of_the_pixels_and_invert():
    assert np.allclose(c.pixels_to_crop(np.array([-0.5, 223.5]), 224), [-1, 1])
    x = np.linspace(-3, 300, 7)
    assert np.allclose(c.crop_to_pixels(c.pixels_to_crop(x, 224), 224), x)


def test_crop_affine_moves_image_content_where_it_says():
    image = np.zeros((100, 120), np.uint8)
    cv2.circle(image, (40, 60), 6, 255, -1)
    for rotation, mirror in ((0.0, False), (0.9, False), (-2.0, True)):
        affine = c.crop_affine((50, 55), 60, 128, rotation, mirror)
        warped = cv2.warpAffine(image, affine, (128, 128)).astype(float)
        rows, columns = np.mgrid[:128, :128]
        centre = [(warped * columns).sum() / warped.sum(), (warped * rows).sum() / warped.sum()]
        assert np.allclose(centre, c.apply_affine(affine, np.array([[40.0, 60.0]]))[0], atol=0.3)
        middle = c.apply_affine(affine, np.array([[50.0, 55.0]]))
        assert np.allclose(middle, 63.5)
        assert np.allclose(c.apply_affine(c.invert_affine(affine), middle), [[50, 55]])


def test_positive_rotation_turns_the_content_clockwise_on_the_screen():
    affine = c.crop_affine((0, 0), 10, 10, rotation=np.pi / 2)
    right_of_centre = c.apply_affine(affine, np.array([[1.0, 0.0]]))[0] - 4.5
    assert np.allclose(right_of_centre, [0, 1])  # now below the centre


def test_a_crop_without_area_is_refused():
    with pytest.raises(ValueError, match="positive"):
        c.crop_affine((0, 0), 0, 224)


@pytest.mark.parametrize(
    "rotation, mirror", [(0.0, False), (1.2, False), (-2.5, True), (3.1, True)]
)
def test_crop_camera_splits_a_crop_into_a_motion_and_plain_intrinsics(rotation, mirror):
    points = hand_points(np.random.default_rng(3))[0]
    affine = c.crop_affine((110, 90), 150, 128, rotation, mirror)
    motion, plain = c.crop_camera(affine, K)
    expected = c.apply_affine(affine, c.project(points, K))
    assert np.allclose(c.project(points @ motion.T, plain), expected)
    assert np.allclose(motion @ motion.T, np.eye(3)) and np.allclose(motion[2], [0, 0, 1])
    assert np.isclose(np.linalg.det(motion), -1 if mirror else 1)
    assert plain[1, 0] == 0 and plain[0, 0] > 0 and plain[1, 1] > 0


def test_guessed_camera_sees_the_long_side_under_the_given_angle():
    guess = c.guessed_intrinsics(640, 480, fov_deg=60)
    edge = guess[0, 0] * np.tan(np.deg2rad(30)) + guess[0, 2]
    assert np.isclose(edge, 639.5) and np.isclose(guess[1, 2], 239.5)


def test_translation_is_recovered_from_exact_projections():
    rng = np.random.default_rng(4)
    points = rng.normal(scale=0.05, size=(4, 21, 3))
    places = np.array([[0, 0, 0.5], [0.1, -0.05, 0.7], [-0.2, 0.1, 1.1], [0.0, 0.2, 0.4]])
    joints_2d = c.project(points + places[:, None], K)
    assert np.allclose(c.solve_translation(points, joints_2d, K), places)


def test_crops_of_a_batch_equal_single_crops():
    rng = np.random.default_rng(0)
    centers, sides = rng.uniform(0, 200, (20, 2)), rng.uniform(20, 300, 20)
    turns, mirror = rng.uniform(-3, 3, 20), rng.uniform(size=20) < 0.5
    affines = c.crop_affine(centers, sides, 96, turns, mirror)
    intrinsics = np.tile(np.eye(3), (20, 1, 1))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = rng.uniform(300, 900, (2, 20))
    intrinsics[:, :2, 2] = rng.uniform(0, 200, (20, 2))
    motions, plain = c.crop_camera(affines, intrinsics)
    for row in range(20):
        expected = c.crop_affine(centers[row], sides[row], 96, turns[row], mirror[row])
        assert np.allclose(affines[row], expected)
        motion, camera = c.crop_camera(expected, intrinsics[row])
        assert np.allclose(motions[row], motion) and np.allclose(plain[row], camera)


def test_the_weak_camera_is_recovered_from_arrays_and_from_tensors():
    torch = pytest.importorskip("torch")
    cameras = np.array([[5.0, 0.02, -0.03], [8.0, -0.01, 0.0]])
    points = np.random.default_rng(1).normal(0, 0.05, (2, 21, 3))
    flat = c.project_weak_perspective(points, cameras)
    assert np.allclose(c.fit_weak_perspective(points, flat), cameras)
    found = c.fit_weak_perspective(torch.tensor(points), torch.tensor(flat))
    assert np.allclose(found.numpy(), cameras)
    point = torch.zeros(1, 21, 3, requires_grad=True)
    c.fit_weak_perspective(point, torch.zeros(1, 21, 2)).sum().backward()
    assert point.grad.isfinite().all()


def test_cameras_in_other_units_or_axes_are_refused_with_what_to_change():
    assert c.check_intrinsics(K.tolist(), 224, 224).shape == (3, 3)
    for bad, words in (
        (K * [[1 / 224], [1 / 224], [1]], "look normalised"),
        (K * [[1], [-1], [1]], "should be positive"),
        (K[:, :2], r"\(3, 3\)"),
        ([400, 400, 112, 112], r"\(3, 3\)"),
        (K * np.nan, "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            c.check_intrinsics(bad, 224, 224)


@pytest.mark.parametrize("view, tight", [(60, False), (16, True)])
def test_the_view_is_as_wide_as_shows_hands_where_they_were_read(view, tight):
    points = np.random.default_rng(4).normal(0, 0.04, (2, 21, 3))
    camera = c.guessed_intrinsics(320, 240, view)
    places = np.array([[0.0, 0.0, 0.7 if tight else 1.2], [0.05, 0.02, 0.9 if tight else 1.5]])
    flat = c.project(points + places[:, None], camera)
    sides = 1.4 * np.ptp(flat, axis=1).max(axis=1)
    found = c.fit_view(points, flat, sides, 320, 240)
    placed = points + c.solve_translation(points, flat, found)[:, None]
    apart = np.linalg.norm(c.project(placed, found) - flat, axis=2).mean(1) / sides
    assert apart.mean() < c.DRAWN_WITHIN
    assert (found[0, 0] > 1.5 * c.guessed_intrinsics(320, 240)[0, 0]) == tight
    assert found[0, 0] <= 1.1 * camera[0, 0]
