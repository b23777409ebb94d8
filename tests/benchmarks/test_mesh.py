"""The benchmark compares like with like."""

import numpy as np
from benchmarks.mesh import field_hierarchy, field_spirals, split_faces
from mesh_shapes import icosphere

from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import check_mesh, euler_characteristic, face_normals


def test_both_ways_walk_the_same_spirals():
    vertices, faces = icosphere(2)
    vertices = vertices * [1, 1.1, 1.3]
    slow = field_spirals(vertices, faces, 27)
    np.testing.assert_array_equal(slow, extract_spirals(vertices, faces, 27))


def test_both_ways_make_levels_of_the_same_sizes():
    vertices, faces = icosphere(1)
    levels, ups = field_hierarchy(vertices, faces, (2, 2))
    assert tuple(len(v) for v, _ in levels) == build_hierarchy(vertices, faces, (2, 2)).sizes
    assert [u.shape for u in ups] == [(42, 21), (21, 11)]


def test_split_faces_keep_area_and_topology():
    vertices, faces = icosphere(1)
    fine_vertices, fine_faces = split_faces(vertices, faces, 3)
    check_mesh(fine_vertices, fine_faces)
    assert len(fine_faces) == 9 * len(faces)
    assert euler_characteristic(fine_faces) == 2
    fine, coarse = face_normals(fine_vertices, fine_faces), face_normals(vertices, faces)
    assert np.isclose(*(np.linalg.norm(normals, axis=1).sum() for normals in (fine, coarse)))
