"""What notebook 07 measures: every topic, so that nbval runs it, and both sides do the same."""

import cv2
import numpy as np
import pytest
from benchmarks import suite
from benchmarks.data import SIZE, freihand_like, metro_item
from benchmarks.demo import photographs
from benchmarks.mesh import field_hierarchy, field_spirals, split_faces
from benchmarks.metrics import hand_like, plain_scores
from mesh_shapes import icosphere
from PIL import Image

from hand_lib import ROOT
from hand_lib.data.freihand import FreiHand
from hand_lib.evaluation.freihand import freihand_scores
from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.mesh.spirals import extract_spirals
from hand_lib.mesh.topology import check_mesh, euler_characteristic, face_normals
from hand_lib.render.camera import apply_affine, crop_affine, pixels_to_crop


def test_a_topic_is_measured_and_an_unknown_one_answered_with_those_there_are(monkeypatch):
    row = {"what": "walk", "ours_ms": 1.0, "theirs_ms": 2.0, "ratio": 2.0}
    monkeypatch.setattr(suite.metrics, "rows", lambda count, repeats: [row | {"count": count}])
    assert suite.measure("scoring")[0]["count"] < suite.measure("scoring", quick=False)[0]["count"]
    with pytest.raises(ValueError, match="'scorring'; there are: hand model, .*scoring") as error:
        suite.measure("scorring")
    book = (ROOT / "notebooks" / "07_benchmarks.ipynb").read_text()
    topics = str(error.value).split("there are: ")[1].split(", ")
    assert len(topics) == 8 and all(f'suite.measure(\\"{topic}\\"' in book for topic in topics)


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


def test_the_plain_loop_computes_the_same_scores():
    arrays = hand_like(6, vertices=60)
    plain = plain_scores(*arrays)
    assert plain == pytest.approx(freihand_scores(*arrays), abs=1e-6)
    assert 0 < plain["f_al_score_5"] < 1


def test_metros_steps_agree_with_the_exact_map_to_within_its_rounding(tmp_path):
    hands = FreiHand(freihand_like(tmp_path, 3))
    sample, rng, turned = hands[1], np.random.default_rng(0), 0
    for _ in range(12):
        image, flat, solid = metro_item(
            hands.jpeg(1), sample.joints_2d, sample.joints, rng, normalise=False
        )
        turn = np.linalg.lstsq(sample.joints, solid, rcond=None)[0].T
        angle = np.arctan2(turn[1, 0], turn[0, 0])
        turned += abs(angle) > 0.01
        span = np.ptp(flat @ turn[:2, :2], axis=0) / np.ptp(sample.joints_2d, axis=0)
        side = 2 / span.mean()
        affine = crop_affine((111.5, 111.5), side, SIZE, angle)
        exact = apply_affine(affine, sample.joints_2d)
        error = (pixels_to_crop(exact, SIZE) - flat) * SIZE / 2
        assert np.abs(error - error.mean(0)).max() < 2.5 and np.abs(error.mean(0)).max() < 2
        expected = cv2.warpAffine(sample.image, affine, (SIZE, SIZE))
        near = [np.corrcoef(image[c].ravel(), expected[:, :, c].ravel())[0, 1] for c in range(3)]
        assert image.shape == (3, SIZE, SIZE) and min(near) > 0.8
    assert 1 <= turned <= 10


def test_the_photographs_are_whole_jpegs_with_their_hands_inside(tmp_path):
    paths, boxes = photographs(tmp_path, count=3)
    for path, (x0, y0, x1, y1) in zip(paths, boxes, strict=True):
        picture = Image.open(path)
        assert (picture.format, picture.size) == ("JPEG", (640, 480))
        assert 0 <= x0 < x1 < 640 and 0 <= y0 < y1 < 480 and np.asarray(picture).std() > 5
