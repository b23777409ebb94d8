import cv2
import numpy as np
import pytest

from hand_lib.render import camera as c

K = np.array([[520.0, 0, 118], [0, 510, 97], [0, 0, 1]])


def hand_points(rng, batch=3):
    return rng.normal(scale=0.05, size=(batch, 21, 3)) + [0.02, -0.03, 0.6]


def test_projection_of_the_optical_axis_is_the_principal_point():
    assert np.allclose(c.project(np.array([[0, 0, 0.7]]), K), [[118, 97]])


def test_projection_agrees_with_opencv():
    points = hand_points(np.random.default_rng(0))[0]
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)
    assert np.allclose(c.project(points, K), expected[:, 0])


def test_weak_perspective_is_scale_times_shifted_xy():
    points = hand_points(np.random.default_rng(1))
    cameras = np.array([[5.0, 0.1, -0.2], [4, 0, 0], [7, 0.05, 0.05]])
    found = c.project_weak_perspective(points, cameras)
    for b in range(3):
        assert np.allclose(found[b], cameras[b, 0] * (points[b, :, :2] + cameras[b, 1:]))


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


def test_positive_rotation_turns_the_content_clockwise_on_the_screen():
    affine = c.crop_affine((0, 0), 10, 10, rotation=np.pi / 2)
    right_of_centre = c.apply_affine(affine, np.array([[1.0, 0.0]]))[0] - 4.5
    assert np.allclose(right_of_centre, [0, 1])  # now below the centre


def test_inverse_affine_undoes_the_map():
    affine = c.crop_affine((31, 77), 90, 224, 0.3, True)
    points = np.random.default_rng(0).uniform(0, 224, (9, 2))
    assert np.allclose(
        c.apply_affine(c.invert_affine(affine), c.apply_affine(affine, points)), points
    )


def test_a_crop_without_area_is_refused():
    with pytest.raises(ValueError, match="positive"):
        c.crop_affine((0, 0), 0, 224)


def test_transformed_intrinsics_project_onto_the_crop():
    points = hand_points(np.random.default_rng(2))[0]
    affine = c.crop_affine((110, 90), 150, 128, 0.8)
    expected = c.apply_affine(affine, c.project(points, K))
    assert np.allclose(c.project(points, c.transform_intrinsics(affine, K)), expected)


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
    guess = c.default_intrinsics(640, 480, fov_deg=60)
    edge = guess[0, 0] * np.tan(np.deg2rad(30)) + guess[0, 2]
    assert np.isclose(edge, 639.5) and np.isclose(guess[1, 2], 239.5)
    with pytest.raises(ValueError, match="field of view"):
        c.default_intrinsics(640, 480, 180)


def test_translation_is_recovered_from_exact_projections_and_ignores_weightless_points():
    rng = np.random.default_rng(4)
    points = rng.normal(scale=0.05, size=(4, 21, 3))
    places = np.array([[0, 0, 0.5], [0.1, -0.05, 0.7], [-0.2, 0.1, 1.1], [0.0, 0.2, 0.4]])
    joints_2d = c.project(points + places[:, None], K)
    assert np.allclose(c.solve_translation(points, joints_2d, K), places)
    joints_2d[:, 5] += 40
    weights = np.ones((4, 21))
    weights[:, 5] = 0
    assert np.allclose(c.solve_translation(points, joints_2d, K, weights), places)
    with pytest.raises(ValueError, match="hand 2"):
        weights[2] = 0
        c.solve_translation(points, joints_2d, K, weights)
    with pytest.raises(ValueError, match=r"\(B, N, 3\)"):
        c.solve_translation(points[0], joints_2d, K)


def test_metric_translation_reprojects_the_wrist_at_the_weak_camera_place():
    camera = np.array([[6.0, 0.02, -0.01], [4.5, -0.05, 0.03]])
    intrinsics = np.stack([K, K * [[1.2], [1.2], [1]]])
    place = c.metric_translation(camera, intrinsics, 224)
    wrist = c.pixels_to_crop(c.project(place[:, None], intrinsics)[:, 0], 224)
    assert np.allclose(wrist, camera[:, :1] * camera[:, 1:])
    # a point in the wrist's plane lands where the weak camera puts it
    offset = np.array([[0.03, 0.02, 0.0]])
    seen = c.pixels_to_crop(c.project(place[:, None] + offset, intrinsics)[:, 0], 224)
    weak = c.project_weak_perspective(np.stack([offset, offset]), camera)[:, 0]
    assert np.allclose(seen, weak, atol=0.02)
