"""Figures of weak supervision show what they say; ticking a box is kept on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.detections import make_pictures

from hand_lib.fitting.fit import Reason, follow_fit
from hand_lib.inference.weak_labels import fit_keypoints
from hand_lib.viewers import fitting as v


@pytest.fixture(scope="module")
def reviewed():
    scene = make_pictures(12, size=96, bad=0.4)
    return scene, fit_keypoints(scene.keypoints, scene.intrinsics, boxes=scene.boxes)


def has(picture, colour):
    """Is a colour in the picture?"""
    return (np.abs(np.asarray(picture).astype(int) - colour).sum(2) < 12).any()


def test_keypoints_are_drawn_on_their_frames_and_unseen_ones_are_not(reviewed):
    scene, _labels = reviewed
    drawn = np.asarray(v.keypoint_grid(scene.images, scene.keypoints, [0, 1, 2], 96))
    assert drawn.shape[1] >= 3 * 96
    hidden = replace(scene.keypoints, confidence=0 * scene.keypoints.confidence)
    plain = np.asarray(v.keypoint_grid(scene.images, hidden, [0, 1, 2], 96))
    assert (plain != drawn).any()
    np.testing.assert_allclose(plain[-96:, :96].astype(int), scene.images[0], atol=25)


def test_nothing_detected_is_said(reviewed):
    scene, _labels = reviewed
    with pytest.raises(ValueError, match="no hand was detected"):
        v.keypoint_grid(scene.images, scene.keypoints, [])


def test_the_steps_shown_begin_with_the_guess_and_end_with_the_fit(reviewed):
    scene, labels = reviewed
    row = int(labels.rows("right")[0])
    model = labels.models["right"]
    found = scene.keypoints
    paths = follow_fit(model, found.points[row], found.confidence[row], scene.intrinsics[row])
    steps = v.step_choice(paths[0], 4)
    assert steps[0] == 0 and steps[-1] == len(paths[0]) - 1 and steps == sorted(set(steps))
    panel = v.fit_steps_panel(model, paths[0])
    first = np.array(panel.figure.data[0].x)
    assert panel.slider.value == 0 and panel.slider.max == steps[-1]
    panel.slider.value = steps[-1]
    assert np.abs(first - panel.figure.data[0].x).max() > 1e-4
    assert f"{paths[0][-1].reprojection_px[0]:.1f} px" in panel.figure.layout.annotations[0].text
    picture = v.fit_steps_still(
        model, scene.images[row], found.points[row], found.confidence[row], paths[0], steps, 80
    )
    assert picture.width >= len(steps) * 80 and picture.height >= 160


def test_the_review_frames_kept_hands_green_and_rejected_ones_red(reviewed):
    scene, labels = reviewed
    for row in range(len(labels)):
        picture = v.labelled_picture(labels, scene.images, row, 96)
        wanted, other = v.GOOD, v.BAD
        if not labels.fit.accepted[row]:
            wanted, other = other, wanted
        np.testing.assert_array_equal(picture[0, 0], wanted)
        assert not has(picture[:5], other)
    rows = v.mixed_rows(labels, 6)
    assert len(rows) == 6 and not labels.fit.accepted[rows].all()
    assert v.review_grid(labels, scene.images, rows, 96, 3).height > 2 * 96


def test_a_tick_overrules_and_is_saved(reviewed, tmp_path):
    scene, labels = reviewed
    path = tmp_path / "review.json"
    panel = v.review_panel(labels, scene.images, path, side=64)
    row = int(np.flatnonzero(labels.fit.accepted)[0])
    grid = panel.children[-1]
    before = grid.children[row].children[0].value
    panel.checks[row].value = False
    assert not labels.fit.accepted[row] and "saved" in panel.message.value
    assert json.loads(path.read_text())["hands"][labels.name(row)]["keep"] is False
    assert grid.children[row].children[0].value != before
    assert "rejected by you" in grid.children[row].children[2].value
    panel.checks[row].value = True
    assert json.loads(path.read_text())["hands"][labels.name(row)]["keep"] is True


def test_a_review_outlives_its_panel_and_one_of_other_hands_is_set_aside(tmp_path):
    scene, path = make_pictures(5, size=64, bad=0.0), tmp_path / "review.json"

    def panel_of(labels):
        return v.review_panel(labels, scene.images, path, side=48, page=2)

    panel = panel_of(fit_keypoints(scene.keypoints, scene.intrinsics))
    panel.checks[4].value = False  # on a page that was never opened
    again = fit_keypoints(scene.keypoints, scene.intrinsics)
    again.automatic[1] = again.fit.reason[1] = Reason.POSE  # filters that judge otherwise
    again.fit.accepted[1] = False
    panel = panel_of(again)
    assert panel.checks[4].value is False and "1 overruled" in panel.message.value
    assert again.fit.reason[4] is Reason.BY_A_PERSON and not again.fit.accepted[1]
    grid = panel.children[-1]
    assert panel.pager.max == 3 and len(grid.children) == 2
    panel.pager.value = 3
    assert [card.children[1] for card in grid.children] == [panel.checks[4]]
    others = make_pictures(2, size=64, bad=0.0)
    others.keypoints.names[:] = ["a", "b"]
    labels = fit_keypoints(others.keypoints, others.intrinsics)
    panel = v.review_panel(labels, others.images, path, side=48)
    assert "review-before.json" in panel.message.value and panel.checks[0].value
    assert len(json.loads((tmp_path / "review-before.json").read_text())["hands"]) == 5


def test_a_hand_without_a_fit_cannot_be_ticked(tmp_path):
    scene = make_pictures(2, size=64, bad=0.0)
    scene.keypoints.confidence[0, 5:] = 0
    labels = fit_keypoints(scene.keypoints, scene.intrinsics)
    panel = v.review_panel(labels, scene.images, tmp_path / "review.json", side=64)
    panel.checks[0].value = True
    assert panel.checks[0].value is False and "nothing was fitted" in panel.message.value


def test_what_was_kept_is_counted(reviewed):
    _scene, labels = reviewed
    bars, spread = v.kept_figure(labels).axes
    counts = {text.get_text(): bar.get_width()
              for text, bar in zip(bars.get_yticklabels(), bars.patches, strict=True)}  # fmt: skip
    assert counts == dict(labels.reasons())
    assert sum(patch.get_height() for patch in spread.patches) == len(labels)
