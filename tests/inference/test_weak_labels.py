"""A badly detected film becomes labels: tracked, judged, reviewed, exported and read back."""

import json

import numpy as np
import pytest
from benchmarks.detections import make_film, make_pictures
from benchmarks.fitting import joint_errors_mm

from hand_lib.data.freihand import FreiHand, write_freihand
from hand_lib.fitting.fit import FitOptions, Reason
from hand_lib.fitting.keypoints import from_arrays, read_openpose
from hand_lib.inference.frames import Frames
from hand_lib.inference.weak_labels import (
    apply_review,
    fit_keypoints,
    kept_samples,
    match_frames,
    overrule,
    save_review,
    tracks,
    twice,
)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    scene = make_film(folder / "openpose", count=24, size=160)
    found = read_openpose(folder / "openpose")
    cameras = scene.intrinsics[found.frames]
    return scene, found, fit_keypoints(found, cameras, options=FitOptions(track=True))


@pytest.fixture(scope="module")
def pictures():
    scene = make_pictures(40, size=160)
    labels = fit_keypoints(scene.keypoints, scene.intrinsics, boxes=scene.boxes)
    return scene, labels


def test_every_fault_of_the_film_is_named_and_the_rest_is_kept(film):
    scene, found, labels = film
    where = zip(found.frames.tolist(), found.sides, strict=True)
    kind = {place: labels.fit.kind(row) for row, place in enumerate(where)}
    assert kind[5, "right"] == "jump"
    assert kind[8, "left"] == "wrong side" and not kind[8, "right"]
    assert kind[11, "right"] in ("reprojection", "one joint off")
    assert kind[20, "right"] == "confidence"
    assert any("000016" in p for p in found.problems)
    assert any("000018" in p and "60 numbers" in p for p in found.problems)
    assert any("000014" in name for name in found.empty)
    good = labels.rows("right")
    assert len(good) == 18 and labels.reasons()["kept"] == 18
    truth = scene.joints[found.frames[good]]
    assert joint_errors_mm(labels.fit.joints[good], truth).mean() < 8
    assert np.ptp(labels.fit.betas[good], axis=0).max() == 0  # one shape along the track


def test_corrupt_pictures_go_and_left_hands_stay_left(pictures):
    scene, labels = pictures
    bad = scene.kind != ""
    assert labels.fit.accepted[bad].mean() <= 0.15 and labels.fit.accepted[~bad].mean() > 0.9
    left = labels.rows("left")[~bad[labels.rows("left")]]
    assert len(left) >= 3
    assert joint_errors_mm(labels.fit.joints[left], scene.joints[left]).max() < 15


def test_a_review_overrules_is_saved_and_read_back(pictures, tmp_path):
    scene, labels = pictures
    path = tmp_path / "review.json"
    kept, gone = int(np.flatnonzero(labels.fit.accepted)[0]), int(
        np.flatnonzero(~labels.fit.accepted)[0]
    )  # fmt: skip
    overrule(labels, kept, False)
    overrule(labels, gone, True)
    save_review(path, labels)
    again = fit_keypoints(scene.keypoints, scene.intrinsics, boxes=scene.boxes)
    assert again.fit.accepted[kept] and not again.fit.accepted[gone]
    assert apply_review(path, again) == 2
    assert (again.fit.accepted == labels.fit.accepted).all()
    assert again.fit.reason[kept] is Reason.BY_A_PERSON and not again.fit.reason[gone]
    overrule(labels, kept, True)
    overrule(labels, gone, False)
    assert labels.fit.reason[gone] == labels.automatic[gone]


def test_a_broken_review_is_refused(pictures, tmp_path):
    _scene, labels = pictures
    path = tmp_path / "review.json"
    with pytest.raises(FileNotFoundError, match=r"review\.json"):
        apply_review(path, labels)
    for text, message in (
        ("{", "not a review"),
        ('{"hands": {"picture 99 right 0": {"keep": true}}}', "picture 99"),
        (json.dumps({"hands": {labels.name(0): {"keep": "yes"}}}), "true or false"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            apply_review(path, labels)


def test_what_could_not_be_fitted_cannot_be_kept():
    points = np.full((2, 21, 2), 30.0)
    points[1] = np.random.default_rng(0).uniform(0, 100, (21, 2))
    labels = fit_keypoints(from_arrays(points))
    with pytest.raises(ValueError, match="nothing was fitted"):
        overrule(labels, 0, True)


def test_no_hands_at_all_are_no_labels():
    labels = fit_keypoints(from_arrays(np.zeros((3, 21, 3))))
    assert len(labels) == 0 and labels.keypoints.empty == ["row 0", "row 1", "row 2"]
    assert list(kept_samples(labels, [])) == []


def test_exports_are_read_back(pictures, tmp_path):
    scene, single = pictures
    samples = list(kept_samples(single, scene.images, 96))
    back = FreiHand(write_freihand(tmp_path / "freihand", samples), "training")
    assert len(back) == len(samples) == single.fit.accepted.sum()
    for index in (0, len(back) - 1):  # the last ones are left hands, mirrored
        np.testing.assert_allclose(back[index].vertices, samples[index].vertices, atol=1e-5)
        np.testing.assert_allclose(back[index].joints_2d, samples[index].joints_2d, atol=0.05)
        assert back[index].image.shape == (96, 96, 3) and back[index].side == "right"
        low, high = back[index].joints_2d.min(0), back[index].joints_2d.max(0)
        assert (low > 0).all() and (high < 95).all()


def test_a_frame_that_cannot_be_read_is_left_out_and_named(pictures):
    scene, labels = pictures
    before = len(labels.keypoints.problems)
    broken = {n: image for n, image in enumerate(scene.images) if n != labels.rows("right")[0]}
    samples = list(kept_samples(labels, broken, None))
    assert len(samples) == labels.fit.accepted.sum() - 1
    assert "frame left out" in labels.keypoints.problems[before]
    del labels.keypoints.problems[before:]


def test_tracks_follow_the_nearest_hand_of_the_same_side():
    hand = np.random.default_rng(0).uniform(0, 40, (21, 2))
    rows = []
    for frame in range(4):
        rows += [(hand + (10 * frame, 0), "right"), (hand + (300 - 10 * frame, 0), "right"),
                 (hand + (10 * frame, 200), "left")]  # fmt: skip
    found = from_arrays(
        np.array([points for points, _ in rows]), side=[side for _, side in rows],
        frames=np.repeat(np.arange(4), 3),
    )  # fmt: skip
    lines = sorted(line.tolist() for line in tracks(found))
    assert lines == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_one_hand_detected_twice_is_found():
    hand = np.random.default_rng(0).uniform(0, 40, (21, 2))
    points = np.stack([hand, hand + 2, hand + 200])
    confidence = np.repeat([[0.5], [0.9], [0.9]], 21, axis=1)
    found = from_arrays(points, confidence, ["left", "right", "left"], [0, 0, 0])
    found.names = ["one frame"] * 3
    assert twice(found) == [0]


def test_detections_find_their_frames_by_name_or_number(tmp_path):
    from PIL import Image

    for name in ("b.png", "a.png"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name)
    hands = from_arrays(np.random.default_rng(0).uniform(1, 19, (4, 21, 2)), frames=[70, 71, 0, 9])
    hands.names[:] = ["b.png", "a_keypoints.json", "row 2", "row 3"]
    found = match_frames(hands, Frames(tmp_path))
    assert found.frames.tolist() == [1, 0, 0] and len(found.points) == 3
    np.testing.assert_array_equal(found.points, hands.points[:3])
    assert found.problems == ["row 3: frame 9 is not among the 2 frames"]
