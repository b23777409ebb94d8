import numpy as np
import pytest
import torch
import trimesh
from mesh_shapes import icosphere

from hand_lib.mesh import topology as g


@pytest.fixture
def sphere():
    return icosphere(2)


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
    ours = np.linalg.norm(g.face_normals(vertices, faces), axis=1) / 2
    areas = trimesh.Trimesh(vertices, faces, process=False).area_faces
    assert np.allclose(ours, areas)


def broken_meshes():
    v, f = icosphere(1)
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


def pair(noise, count=50, seed=0):
    """Sources, the same turned and moved with noise, and the rotations between them."""
    rng = np.random.default_rng(seed)
    source = rng.normal(0, 0.05, (count, 40, 3))
    rotation = np.stack([random_rotation(rng) for _ in range(count)])
    target = 1.7 * source @ rotation.swapaxes(1, 2) + rng.normal(size=(count, 1, 3))
    return source, target + noise * rng.normal(0, 0.05, source.shape), rotation


def test_alignment_recovers_a_known_motion():
    source, target, rotation = pair(0.0)
    aligned, found = g.procrustes(source, target)
    assert np.allclose(aligned, target) and np.allclose(found, rotation)
    assert np.array_equal(aligned, g.procrustes_align(source, target))
    with pytest.raises(ValueError, match="alike"):
        g.procrustes_align(source, target[:, :20])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reflections", [False, True])
def test_alignment_mirrors_only_when_allowed_tensors_as_arrays(reflections, dtype):
    source, target, _ = (array.astype(dtype) for array in pair(0.3))
    target[::2] *= dtype([-1, 1, 1])
    motion = g.procrustes(source, target, reflections)
    assert motion[0].dtype == motion[1].dtype == dtype
    mirrored = np.linalg.det(motion[1]) < 0
    assert mirrored[::2].all() == reflections and not mirrored[1::2].any()
    found = g.procrustes(torch.tensor(source), torch.tensor(target), reflections)
    digits = 4 if dtype == np.float32 else 11
    for mine, theirs in zip(found, motion, strict=True):
        np.testing.assert_almost_equal(mine.numpy(), theirs, digits)


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
