from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from toy_evaluation import KnowingPredictor, toy_samples, toy_set

from hand_lib.evaluation import runs as evaluation
from hand_lib.viewers import figures, flat
from hand_lib.viewers import scores as viewers_scores


@pytest.fixture(scope="module")
def runs(model):
    """Two evaluations of twelve toy hands: one errs by some 3 mm per vertex, the other by 8."""
    samples = toy_samples(model, 12)
    test = toy_set(samples, "twelve toy hands")
    good, bad = (
        KnowingPredictor(model, samples, name, jitter=jitter)
        for name, jitter in (("good", 0.002), ("bad", 0.005))
    )
    return [evaluation.evaluate_predictor(predictor, test) for predictor in (good, bad)]


def test_the_results_table_keeps_measured_and_published_apart(runs):
    lines = viewers_scores.results_table(runs).splitlines()
    assert len(lines) == 2 + 2 + len(evaluation.published_rows())
    assert {line.count("|") for line in lines} == {8}
    assert lines[2].startswith("| measured | **good**") and "twelve toy hands" in lines[2]
    assert f"**{runs[0].scores.millimetres['pa_mpvpe_mm']:.1f}**" in lines[2]
    assert all(line.startswith("| published |") for line in lines[4:])
    assert "**" not in "".join(lines[4:])


def test_the_table_of_means_has_an_interval_around_each_mean(runs):
    text = viewers_scores.means_table(runs)
    row = next(line for line in text.splitlines() if line.startswith("| vertices, PA: rotation"))
    mean, rest = row.split(" | ")[1].split(" (")
    low, high = rest.rstrip(")").split(" to ")
    assert float(low) <= float(mean) <= float(high)
    assert float(mean) == pytest.approx(runs[0].scores.millimetres["pa_mpvpe_mm"], abs=0.051)
    assert "of 64" in text.splitlines()[-1] and len(text.splitlines()) == 2 + 10 + 1


def test_a_chart_becomes_a_picture_of_its_size(runs):
    figure = viewers_scores.pck_figure(runs)
    picture = flat.as_picture(figure, dpi=50)
    assert picture.mode == "RGB" and picture.size == (350, 160)
    assert len(flat.png_bytes(picture)) < 20_000


def test_pck_curves_rise_to_all_vertices_and_name_their_area(runs):
    lines = viewers_scores.pck_figure(runs).axes[0].lines
    assert len(lines) == 4
    for line in lines:
        x, y = line.get_data()
        assert x[-1] == 50 and (np.diff(y) >= 0).all() and y[-1] == pytest.approx(100)
        assert "AUC 0." in line.get_label()
    assert (lines[0].get_ydata() >= lines[2].get_ydata()).all()  # good over bad


def test_joint_bars_are_the_mean_errors_of_the_joints(runs):
    axes = viewers_scores.joint_figure(runs).axes
    heights = [patch.get_height() for patch in axes[1].patches]
    np.testing.assert_allclose(heights, 1000 * runs[1].scores.joint_errors["rotation"].mean(0))


def test_the_table_of_parts_ends_with_the_aligned_error(runs):
    lines = viewers_scores.parts_table(runs).splitlines()
    assert lines[0] == f"| vertices, mm | {runs[0].name} | {runs[1].name} |"
    assert len(lines) == 2 + 6
    first = [f"{run.scores.millimetres['root_mpvpe_mm']:.1f}" for run in runs]
    last = [f"{run.pa_mm.mean():.1f}" for run in runs]
    assert [cell.strip() for cell in lines[2].split("|")[2:4]] == first
    assert [cell.strip() for cell in lines[-1].split("|")[2:4]] == last


def test_the_error_is_painted_on_one_scale_for_all_runs(runs, model):
    rest, faces = model(torch.zeros(1, 16, 3)).vertices[0].numpy(), model.faces.numpy()
    figure, picture = viewers_scores.error_on_hand(runs, rest, faces)
    last = 1000 * runs[1].scores.vertex_errors["rotation"].mean(0)
    trace = figure.data[1]
    assert len(figure.data) == 2 and trace.cmax == last.max()
    np.testing.assert_allclose(trace.intensity, last, rtol=1e-5)
    first, second = np.array_split(np.asarray(picture).astype(int), 2, axis=1)
    darkness = [(half.sum(-1) < 350).sum() for half in (first, second)]  # small errors are dark
    assert darkness[0] > 2 * darkness[1]


def test_a_failed_run_does_not_darken_the_scale_of_the_others(runs, model):
    errors = {"rotation": 100 * runs[1].scores.vertex_errors["rotation"]}
    failed = replace(runs[1], scores=replace(runs[1].scores, vertex_errors=errors))
    rest, faces = model(torch.zeros(1, 16, 3)).vertices[0].numpy(), model.faces.numpy()
    figure, _ = viewers_scores.error_on_hand([failed, runs[0]], rest, faces)
    best = 1000 * runs[0].scores.vertex_errors["rotation"].mean(0).max()
    assert figure.data[1].cmax == pytest.approx(3 * best)


def test_the_breakdown_has_a_panel_per_circumstance_and_a_line_per_run(runs):
    figure = viewers_scores.breakdown_figure(runs, bins=2)
    names = [axis.get_xlabel() for axis in figure.axes]
    assert len(names) == 4 and names[0].startswith("palm to camera")
    highest = max(line.get_ydata().max() for axis in figure.axes for line in axis.lines)
    assert {axis.get_ylim()[0] for axis in figure.axes} == {0}
    assert all(axis.get_ylim()[1] >= highest for axis in figure.axes)
    points = figure.axes[2].lines[0].get_ydata()  # two bins of six hands by pose
    assert len(points) == 2 and np.mean(points) == pytest.approx(runs[0].pa_mm.mean(), rel=1e-6)


def test_case_pictures_show_crop_truth_and_prediction(runs):
    picture = np.asarray(viewers_scores.cases_picture(runs[0], [3, 5], side=64))
    below = picture[-192:, -132:-68].astype(int)  # hand 3 on grey 30
    assert (below[:64] == 30).all()
    for part, colour in ((below[64:128], figures.TRUTH), (below[128:], figures.PREDICTION)):
        drawn = part[(part != 30).any(-1)].mean(0)
        assert len(part[(part != 30).any(-1)]) > 100
        assert np.argmax(drawn) == np.argmax(colour)


def test_a_prediction_behind_the_camera_leaves_its_picture_bare(runs):
    behind = replace(runs[0], translation=-runs[0].translation)
    picture = np.asarray(viewers_scores.cases_picture(behind, [3], side=64))
    assert (picture[-64:, -64:] == 30).all()


def test_case_panels_are_truth_prediction_and_both(runs):
    panels, titles = viewers_scores.case_panels(runs[0], 3)
    assert titles[0] == "truth of hand 3" and f"{runs[0].pa_mm[3]:.0f} mm" in titles[2]
    np.testing.assert_array_equal(panels[0].vertices, runs[0].truth["vertices"][3])
    np.testing.assert_array_equal(panels[1].vertices, runs[0].vertices[3])
    assert panels[2][1].error_mm.mean() == pytest.approx(runs[0].pa_mm[3], rel=1e-5)


def test_the_browser_changes_the_hand_when_another_is_chosen(runs):
    rows = [5, 2, 7]
    box = viewers_scores.case_browser(runs[1], rows)
    menu, (crop, place) = box.children[0], box.children[1].children
    before, picture = place.children[0], crop.value
    assert isinstance(before, go.FigureWidget)
    menu.value = rows[2]
    assert place.children[0] is not before and crop.value != picture
    assert place.children[0].layout.annotations[0].text.endswith(str(rows[2]))


def test_the_verdict_names_run_error_data_weakest_finger_and_the_better_run(runs):
    good, bad, comparison = viewers_scores.summary(runs).splitlines()
    assert comparison.startswith("bad is worse than good by ")
    assert len(viewers_scores.summary(runs[:1]).splitlines()) == 1
    assert good.startswith(f"good: PA-MPVPE {runs[0].pa_mm.mean():.1f} mm (")
    assert "twelve toy hands" in bad and "0 of 12 fit better mirrored" in bad
