"""The rasteriser agrees with projection and ray casting; light and overlays do what they say."""

import numpy as np
import pytest
from benchmarks.render import naive_depth

from hand_lib.hand.model import HandModel
from hand_lib.render.camera import guessed_intrinsics, project
from hand_lib.render.raster import barycentric_at, draw_faces, make_buffer, rasterise, to_screen
from hand_lib.render.render import draw_meshes, for_screen, render_mesh

CAMERA = np.array([[90.0, 0, 30.3], [0, 95.0, 34.6], [0, 0, 1]])


def ball(radius=0.3, centre=(0.02, -0.03, 1.2), steps=14):
    """A sphere of triangles, counter-clockwise seen from outside."""
    import trimesh

    mesh = trimesh.creation.uv_sphere(radius=radius, count=[steps, 2 * steps])
    return np.asarray(mesh.vertices) + centre, np.asarray(mesh.faces)


def test_depth_equals_that_of_the_naive_loop_of_the_benchmark():
    vertices, faces = ball()
    ours = rasterise(vertices, faces, CAMERA, 64).depth
    theirs = naive_depth(vertices, faces, CAMERA, 64)
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.sum() > 1000 and (np.isfinite(ours) != np.isfinite(theirs)).sum() < 5
    np.testing.assert_allclose(ours[both], theirs[both], atol=1e-5)


def test_a_picked_point_projects_back_to_its_pixel():
    vertices, faces = ball()
    fragments = rasterise(vertices, faces, CAMERA, (70, 64))
    rows, columns = np.nonzero(fragments.face >= 0)
    seen, screen = fragments.face[rows, columns], to_screen(vertices, CAMERA)
    shares = np.stack(barycentric_at.py_func(screen, faces, seen, columns, rows), 1)
    points = np.einsum("nk,nkc->nc", shares, vertices[faces[seen]])
    pixels = project(points, CAMERA)
    assert np.abs(pixels - np.stack([columns, rows], 1)).max() < 1e-4
    np.testing.assert_allclose(points[:, 2], fragments.depth[rows, columns], atol=1e-5)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)


def test_faces_that_share_an_edge_leave_no_hole_and_no_pixel_twice():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2) * 4
    inner = ((grid > 0) & (grid < 32)).all(1)
    grid[inner] += rng.integers(-4, 5, (inner.sum(), 2)) / 4  # many pixels exactly on edges
    corner = (np.arange(8)[:, None] * 9 + np.arange(8)).reshape(-1)
    upper = np.stack([corner, corner + 9, corner + 1], 1)
    lower = np.stack([corner + 1, corner + 9, corner + 10], 1)
    faces = np.concatenate([upper, lower])
    vertices = np.concatenate([grid, np.ones((81, 1))], 1)
    count = np.zeros((40, 40), int)
    for face in faces:
        count += rasterise(vertices, face[None], np.eye(3), 40).face >= 0
    assert (count[:32, :32] == 1).all()
    assert count.sum() == 32 * 32  # left and top borders belong to the square, right and bottom not


def test_screen_positions_agree_with_projection():
    points = np.array([[0.1, -0.2, 0.7], [0.0, 0.05, 1.3]])
    expected = project(points, CAMERA)
    np.testing.assert_allclose(to_screen(points, CAMERA)[:, :2], expected, atol=1e-12)
    np.testing.assert_allclose(to_screen(points, CAMERA)[:, 2], 1 / points[:, 2])
    fine = to_screen(points, CAMERA, supersample=3)[:, :2]
    np.testing.assert_allclose((fine + 0.5) / 3 - 0.5, expected, atol=1e-12)
    assert to_screen(np.array([[0, 0, -1.0]]), CAMERA)[0, 2] == 0


def test_triangles_behind_the_camera_are_left_out():
    vertices, faces = ball(centre=(0, 0, -1.2))
    assert (rasterise(vertices, faces, CAMERA, 32).face == -1).all()


def test_one_sided_drawing_shows_only_faces_that_look_at_the_camera():
    vertices, faces = ball()
    front, both, back = (make_buffer(64, 64) for _ in range(3))  # the larger, the nearer
    for buffer, cull in ((front, 1), (both, 0), (back, -1)):
        screen = to_screen(vertices, CAMERA)
        draw_faces(screen, 0, faces.astype(np.int32), 0, cull, 64, 64, buffer)
    np.testing.assert_array_equal(front, both)
    assert (back[front > 0] < front[front > 0]).all() and back.any()


def test_coverage_of_the_silhouette_follows_the_area():
    triangle = np.array([[4.25, 3.5, 1], [20.75, 9.25, 1], [7.5, 25.25, 1]])
    white, black = (
        render_mesh(triangle, [[0, 2, 1]], (9, 9, 9), np.eye(3), 32, paper, supersample=8)
        for paper in ((255, 255, 255), (0, 0, 0))
    )
    cover = 1 - (white[..., 0].astype(float) - black[..., 0]) / 255
    a, b = triangle[1] - triangle[0], triangle[2] - triangle[0]
    area = abs(a[0] * b[1] - a[1] * b[0]) / 2
    assert abs(cover.sum() - area) < 0.01 * area
    assert len(np.unique(cover)) > 10


def test_a_sphere_is_brightest_towards_its_lamp_and_shines_there():
    vertices, faces = ball(radius=0.25, centre=(0, 0, 2.0), steps=40)
    camera = np.array([[400.0, 0, 64], [0, 400, 64], [0, 0, 1]])
    picture = render_mesh(vertices, faces, (120, 40, 40), camera, 128).astype(int)
    along = picture[np.arange(34, 95), np.arange(34, 95)]  # from the lamp, upper left, away
    peak = along[:, 0].argmax()
    assert peak < 30 and (np.diff(along[peak:, 0]) <= 1).all()
    assert along[peak, 0] > along[-1, 0] + 40
    assert along[peak, 2] / along[peak, 0] > along[-1, 2] / along[-1, 0]  # a white highlight


def test_nooks_are_darker():
    vertices, faces = ball(radius=0.05, centre=(0, 0, 0.6))
    wall = np.array([[-1.0, -1, 0.62], [1, -1, 0.62], [1, 1, 0.62], [-1, 1, 0.62]])
    wall_faces = np.array([[0, 2, 1], [0, 3, 2]])
    camera = np.array([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
    alone = render_mesh(wall, wall_faces, (180, 180, 180), camera, 64).astype(int)
    joined = np.concatenate([wall, vertices]), np.concatenate([wall_faces, faces + 4])
    both = render_mesh(*joined, (180, 180, 180), camera, 64)
    covered = rasterise(vertices, faces, camera, 64).face >= 0
    change = (alone - both)[~covered]
    assert change.min() >= 0 and change.max() > 10 and np.median(change) == 0


def test_the_nearer_of_two_surfaces_hides_the_other():
    near, faces = ball(radius=0.1, centre=(0, 0, 1.0))
    far, _ = ball(radius=0.3, centre=(0, 0, 1.5))
    both = np.concatenate([faces, faces + len(near)])
    for order in (1, -1):
        meshes, colours = [near, far][::order], [(255, 0, 0), (0, 0, 255)][::order]
        colours = np.repeat(colours, len(near), axis=0)
        picture = render_mesh(np.concatenate(meshes), both, colours, CAMERA, 64)
        middle = picture[34, 30]
        assert middle[0] > 100 and middle[2] < 60
        assert picture[34, 16, 2] > picture[34, 16, 0]


def test_background_and_alpha_mix_as_stated():
    vertices, faces = ball()
    background = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    solid = render_mesh(vertices, faces, (9, 99, 9), CAMERA, 64, background=background)
    outside = rasterise(vertices, faces, CAMERA, 64).face < 0
    mask = ~outside
    outside[1:-1, 1:-1] &= (
        outside[:-2, 1:-1] & outside[2:, 1:-1] & outside[1:-1, 2:] & outside[1:-1, :-2]
    )
    np.testing.assert_array_equal(solid[outside], background[outside])
    half = render_mesh(vertices, faces, (9, 99, 9), CAMERA, 64, background=background, alpha=0.5)
    mean = (solid.astype(float) + background) / 2
    assert np.abs(half - mean)[mask].max() <= 1
    assert (render_mesh(vertices, faces, (9, 99, 9), CAMERA, 64)[0, 0] == 255).all()


def test_vertex_colours_are_interpolated_with_perspective():
    slanted = np.array([[-1.0, -1, 1], [1, -1, 4], [1, 1, 4], [-1, 1, 1]])
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 255, 255], [0, 0, 0]])
    camera = np.array([[40.0, 0, 40], [0, 40, 40], [0, 0, 1]])
    fragments = rasterise(slanted, faces, camera, 80)
    face, screen = fragments.face[40, 40], to_screen(slanted, camera)
    shares = barycentric_at.py_func(screen, faces, face, 40, 40)
    share = shares @ np.array([0, 1, 1, 0.0])[faces[face]]
    depth = fragments.depth[40, 40]
    assert abs(share - (depth - 1) / 3) < 1e-4  # linear in depth, not in pixels
    picture, mask = render_mesh(slanted, faces, colours, camera, 80), fragments.face >= 0
    assert np.diff(picture[40, mask[40], 0][1:].astype(int)).min() >= -1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vertices": np.zeros((3, 2))}, "vertices"),
        ({"faces": np.array([[0, 1, 900]])}, "900"),
        ({"faces": np.zeros((2, 4), int)}, "faces"),
        ({"intrinsics": np.eye(4)}, "intrinsics"),
        ({"intrinsics": None}, "intrinsics"),
        ({"size": 0}, "pixel"),
        ({"colours": np.zeros((5, 3))}, "colour"),
        ({"background": np.zeros((3, 3, 3))}, "background"),
    ],
)
def test_wrong_input_is_named(change, message):
    call = {"vertices": np.ones((3, 3)), "faces": [[0, 1, 2]], "intrinsics": np.eye(3), "size": 8}
    with pytest.raises(ValueError, match=message):
        render_mesh(**(call | change))


MODEL = HandModel.builtin()
VERTICES, FACES = MODEL.vertices.numpy().astype(float), MODEL.faces.numpy()
PHOTO = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
MATRIX = guessed_intrinsics(200, 150)


@pytest.mark.parametrize("place", [(0, 0, 0.5), (-0.2, 0.1, 0.5), (0.26, 0, 0.45), (0, 0, 0.12)])
def test_the_window_shows_what_the_whole_picture_would(place):
    hand = VERTICES + place
    whole = render_mesh(
        hand, FACES, intrinsics=MATRIX, size=(150, 200), background=PHOTO, alpha=0.85
    ).astype(int)
    assert np.abs(draw_meshes(PHOTO, hand, FACES, MATRIX) - whole).max() <= 1


def test_a_hand_out_of_sight_leaves_the_picture_as_it_is():
    for place in ((5, 0, 0.5), (0, 0, -1.0)):
        assert np.array_equal(draw_meshes(PHOTO, VERTICES + place, FACES, MATRIX), PHOTO)


def test_a_shrunken_picture_keeps_its_points():
    small, matrix, scale = for_screen(PHOTO, MATRIX, longest=100)
    assert small.shape == (75, 100, 3) and scale == 0.5
    points = VERTICES + [0, 0, 0.5]
    assert np.allclose((project(points, MATRIX) + 0.5) * 0.5 - 0.5, project(points, matrix))
    same, matrix, scale = for_screen(PHOTO, MATRIX, longest=200)
    assert same is PHOTO and matrix is MATRIX and scale == 1
