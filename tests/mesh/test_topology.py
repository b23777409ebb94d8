import numpy as np
import pytest
import trimesh

from hand_lib.mesh import topology as g


@pytest.fixture
def sphere():
    mesh = trimesh.creation.icosphere(2)
    return np.array(mesh.vertices), np.array(mesh.faces)


@pytest.fixture
def bowl(sphere):
    """The sphere without its top: one border."""
    vertices, faces = sphere
    faces = faces[vertices[faces].mean(axis=1)[:, 2] < 0.7]
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def test_meshes_of_other_libraries_are_taken_in_their_own_vertex_order(sphere):
    vertices, faces = sphere

    class PsbodyLike:
        v, f = vertices, faces.astype(np.uint32)

    for mesh in (PsbodyLike, trimesh.Trimesh(vertices, faces, process=False)):
        got_v, got_f = g.as_mesh_arrays(mesh)
        assert np.array_equal(got_v, vertices) and np.array_equal(got_f, faces)
    with pytest.raises(TypeError, match=r"\.v and \.f"):
        g.as_mesh_arrays(vertices)
    with pytest.raises(ValueError, match="whole numbers"):
        g.as_mesh_arrays(vertices, faces.astype(float))


def test_each_interior_edge_is_counted_once_and_euler_holds(sphere, bowl):
    vertices, faces = sphere
    assert len(g.unique_edges(faces)) * 2 == len(g.half_edges(faces)) == 3 * len(faces)
    assert g.euler_characteristic(faces) == 2
    assert g.euler_characteristic(bowl[1]) == 1
    assert g.euler_characteristic(trimesh.creation.torus(1, 0.3).faces) == 0


def test_border_is_one_loop_along_the_half_edges(sphere, bowl):
    assert g.boundary_loops(sphere[1]) == []
    (loop,) = g.boundary_loops(bowl[1])
    directed = {tuple(e) for e in g.half_edges(bowl[1]).tolist()}
    steps = list(zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True))
    assert all(step in directed and step[::-1] not in directed for step in steps)
    assert len(set(loop.tolist())) == len(loop)


def test_normals_point_out_of_a_sphere_and_areas_sum_to_its_surface(sphere):
    vertices, faces = sphere
    batch = np.stack([vertices, 2 * vertices])
    assert np.abs(g.vertex_normals(batch, faces) - vertices).max() < 0.03
    centres = vertices[faces].mean(axis=1)
    assert ((g.face_normals(vertices, faces) * centres).sum(axis=1) > 0).all()
    reference = trimesh.Trimesh(vertices, faces, process=False)
    assert np.allclose(g.face_areas(vertices, faces), reference.area_faces)


def test_volume_closes_borders_and_does_not_depend_on_where_the_mesh_is(bowl):
    vertices, faces = bowl
    (loop,) = g.boundary_loops(faces)
    lid = np.stack([np.full(len(loop), len(vertices)), np.roll(loop, -1), loop], axis=1)
    closed = trimesh.Trimesh(
        np.vstack([vertices, vertices[loop].mean(axis=0)]), np.vstack([faces, lid]), process=False
    )
    assert closed.is_watertight
    moved = np.stack([vertices, vertices + [5.0, -3, 2]])
    assert np.allclose(g.enclosed_volume(moved, faces), closed.volume)


def broken_meshes():
    mesh = trimesh.creation.icosphere(1)
    v, f = np.array(mesh.vertices), np.array(mesh.faces)
    nan = v.copy()
    nan[7, 1] = np.nan
    flat = v.copy()
    flat[f[3]] = v[f[3][0]]
    out_of_range = f.copy()
    out_of_range[5, 1] = 99
    twice = f.copy()
    twice[4] = [1, 1, 2]
    flipped = f.copy()
    flipped[6] = flipped[6][::-1]
    two_cones = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [0, 4, 5], [0, 5, 6], [0, 6, 4]])
    cone_points = np.array(
        [[0, 0, 0], [1, 0, 1], [0, 1, 1], [-1, -1, 1], [1, 0, -1], [0, 1, -1], [-1, -1, -1.0]]
    )
    a, b = f[0][:2]
    return [
        (v[:, :2], f, r"vertices should be \(V, 3\)"),
        (v, f[:, :2], r"faces should be \(F, 3\)"),
        (nan, f, "vertex 7 is not finite"),
        (v, out_of_range, "face 5"),
        (v, -1 - f, "face 0"),
        (v, twice, "face 4 names a vertex twice"),
        (v, np.vstack([f, f[2][[1, 2, 0]]]), "stands there twice"),
        (flat, f, "has no area"),
        (np.vstack([v, [3.0, 3, 3]]), np.vstack([f, [a, b, len(v)]]), "belongs to 3 faces"),
        (v, flipped, "opposite senses"),
        (np.vstack([v, [3.0, 3, 3]]), f, f"vertex {len(v)} belongs to no face"),
        (cone_points, two_cones, "meet at vertex 0"),
    ]


@pytest.mark.parametrize("vertices, faces, message", broken_meshes())
def test_a_broken_mesh_is_refused_with_the_index_that_offends(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        g.check_mesh(vertices, faces)


def test_clean_meshes_pass_the_check(sphere, bowl):
    g.check_mesh(*sphere)
    g.check_mesh(*bowl)


def test_alignment_recovers_a_known_motion():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 21, 3))
    rotation = np.stack([random_rotation(rng) for _ in range(5)])
    target = 1.7 * source @ rotation.swapaxes(1, 2) + rng.normal(size=(5, 1, 3))
    aligned, (scale, found, shift) = g.align_similarity(source, target)
    assert np.allclose(aligned, target) and np.allclose(scale, 1.7) and np.allclose(found, rotation)
    again = scale[:, None, None] * source @ found.swapaxes(1, 2) + shift[:, None]
    assert np.allclose(again, aligned)


def test_alignment_mirrors_only_when_allowed():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(21, 3))
    target = source * [-1, 1, 1]
    aligned, (_, rotation, _) = g.align_similarity(source, target)
    assert np.linalg.det(rotation) > 0 and np.abs(aligned - target).max() > 0.1
    aligned, (_, rotation, _) = g.align_similarity(source, target, reflections=True)
    assert np.linalg.det(rotation) < 0 and np.allclose(aligned, target)


def test_alignment_never_raises_the_squared_error():
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(2, 50, 21, 3))
    before = ((source - target) ** 2).sum(axis=(1, 2))
    for options in ({}, {"scale": False}, {"reflections": True}):
        aligned, (scale, _, _) = g.align_similarity(source, target, **options)
        assert (((aligned - target) ** 2).sum(axis=(1, 2)) <= before).all()
        assert options.get("scale", True) or (scale == 1).all()
    with pytest.raises(ValueError, match="alike"):
        g.align_similarity(source, target[:, :20])


def test_alignment_of_coinciding_points_is_finite():
    aligned, _ = g.align_similarity(
        np.zeros((21, 3)), np.random.default_rng(0).normal(size=(21, 3))
    )
    assert np.isfinite(aligned).all() and np.allclose(aligned, aligned[0])


def test_closest_points_lie_on_the_mesh_and_nothing_is_closer(sphere):
    vertices, faces = sphere
    points = np.random.default_rng(3).normal(size=(100, 3))
    face, barycentric, nearest, distance = g.closest_point_on_mesh(points, vertices, faces)
    assert (barycentric >= 0).all() and np.allclose(barycentric.sum(axis=1), 1)
    rebuilt = (vertices[faces[face]] * barycentric[..., None]).sum(axis=1)
    assert np.allclose(rebuilt, nearest, atol=1e-9)
    assert np.allclose(distance, np.linalg.norm(points - nearest, axis=1))
    samples = vertices[faces].mean(axis=1)
    closest_sample = np.linalg.norm(points[:, None] - samples, axis=2).min(axis=1)
    assert (distance <= closest_sample + 1e-9).all()


def test_edges_of_meshes_with_very_large_indices_are_found_all_the_same():
    far = 2**33
    edges = g.unique_edges(np.array([[0, far, 5], [5, far, 7]]))
    assert edges.tolist() == [[0, 5], [0, far], [5, 7], [5, far], [7, far]]
