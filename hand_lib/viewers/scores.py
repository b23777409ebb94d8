"""Figures of an evaluation: tables, PCK curves, errors on the hand, per joint and by circumstance.

Everything takes ``evaluation.Evaluation`` objects or arrays; what runs measured and what others
published is never mixed in one style.
"""

from itertools import pairwise

import ipywidgets as widgets
import numpy as np

from hand_lib import metrics
from hand_lib.evaluation.describe import circumstances
from hand_lib.evaluation.freihand import MEANS
from hand_lib.evaluation.runs import Evaluation, compare_runs, error_parts, published_rows
from hand_lib.hand.joints import FINGER_COLOURS, FINGERS, JOINT_NAMES
from hand_lib.render.render import draw_meshes, for_screen
from hand_lib.viewers import figures, flat
from hand_lib.viewers.explorer import LiveFigure
from hand_lib.viewers.figures import DrawnHand

_COLUMNS = (
    ("pa_mpjpe_mm", "PA-MPJPE mm", ".1f"),
    ("pa_mpvpe_mm", "PA-MPVPE mm", ".1f"),
    ("pa_f_5", "F@5", ".3f"),
    ("pa_f_15", "F@15", ".3f"),
)


def _markdown(head, rows) -> str:
    """A table of Markdown from the texts of its head and its rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def results_table(evaluations) -> str:
    """Markdown: runs measured here, then published rows, each with its data, alignment, source."""
    head = ["", "method", *(title for _, title, _ in _COLUMNS), "data, alignment, source"]
    lines = []
    for one in evaluations:
        cells = (f"{one.scores.millimetres[key]:{form}}" for key, _, form in _COLUMNS)
        words = f"{one.test.words}; similarity (PA), rotation only"
        lines.append(["measured", *(f"**{cell}**" for cell in (one.name, *cells)), words])
    for row in published_rows():
        cells = [f"{row[key]:{form}}" if row[key] is not None else "" for key, _, form in _COLUMNS]
        extra = ", ".join(filter(None, (row["backbone"], row["year"])))
        name = f"{row['method']} ({extra})" if extra else row["method"]
        lines.append(["published", name, *cells, row["source"]])
    return _markdown(head, lines)


def means_table(evaluations) -> str:
    """Markdown: every mean error in mm with its 95 % interval, one column per run."""
    rows, placed = [], all(e.truth["has_camera"].all() for e in evaluations)
    for what, field in (("joints", "joint_errors"), ("vertices", "vertex_errors")):
        for kind, (_, words) in MEANS.items() if placed else list(MEANS.items())[1:]:
            rows.append([f"{what}, {words}"])
            for evaluation in evaluations:
                errors = 1000 * getattr(evaluation.scores, field)[kind].mean(1)
                interval = metrics.bootstrap_interval(errors)
                rows[-1].append("{:.1f} ({:.1f} to {:.1f})".format(*interval))
    pixels = (f"{np.nanmean(e.joint_error_px):.1f} of {e.image_size}" for e in evaluations)
    rows.append(("joints in the picture, px", *pixels))
    return _markdown(["mm", *(e.name for e in evaluations)], rows)


def parts_table(evaluations) -> str:
    """Markdown: what is left of the mean vertex error as more of the pose is put right."""
    parts = [error_parts(e) for e in evaluations]
    rows = [(words, *(f"{part[words].mean():.1f}" for part in parts)) for words in parts[0]]
    return _markdown(["vertices, mm", *(e.name for e in evaluations)], rows)


def pck_figure(evaluations):
    """Share of vertices within a distance, wrists together and PA, per run.  -> Matplotlib."""
    thresholds, (figure, ((axis,),)) = np.linspace(0, 0.05, 101), flat.chart()
    for evaluation in evaluations:
        for kind, words in (("rotation", "PA"), ("root", "wrists together")):
            errors = evaluation.scores.vertex_errors[kind]
            name = f"{evaluation.name}, {words}: AUC {metrics.auc(errors):.3f}"
            curve = 100 * metrics.pck(errors, thresholds)
            axis.plot(1000 * thresholds, curve, label=name, linewidth=1.8)
    axis.set(xlabel="distance, mm", ylabel="% of vertices")
    axis.legend(frameon=False)
    return figure


def joint_figure(evaluations):
    """PA error of each joint as bars in the fingers' colours, one row per run.  -> Matplotlib."""
    count = len(evaluations)
    figure, axes = flat.chart(count, 1, (7, 1.9 * count + 0.7), sharex=True, sharey=True)
    owner = {joint: finger for finger, joints in FINGERS.items() for joint in joints}
    colours = [FINGER_COLOURS[owner.get(joint, "wrist")] for joint in range(21)]
    for axis, evaluation in zip(axes[:, 0], evaluations, strict=True):
        errors = 1000 * evaluation.scores.joint_errors["rotation"].mean(0)
        axis.bar(range(21), errors, color=colours)
        axis.set(ylabel="PA error, mm", title=evaluation.name)
    axes[-1, 0].set_xticks(range(21), [n.replace("_", " ") for n in JOINT_NAMES], rotation=60)
    return figure


def finger_table(evaluations) -> str:
    """Markdown: mean PA joint error of wrist and fingers in mm, one column per run."""
    means = [metrics.mean_per_finger(1000 * e.scores.joint_errors["rotation"]) for e in evaluations]
    rows = [(finger, *(f"{mean[finger]:.1f}" for mean in means)) for finger in means[0]]
    return _markdown(["mm", *(e.name for e in evaluations)], rows)


def error_on_hand(evaluations, vertices, faces):
    """Mean PA error of each vertex painted on a hand, on one scale for all runs.

    vertices: (V, 3) metres in the rest frame of the hand model.   faces: (F, 3).
    returns a Plotly figure with one hand per run, to be turned, and a still of palms and backs.
    The scale ends at three times the best run's largest error, so that no failed run darkens all.
    """
    means = [1000 * e.scores.vertex_errors["rotation"].mean(0) for e in evaluations]
    largest, panels, titles = [float(mean.max()) for mean in means], [], []
    top = min(max(largest), 3 * min(largest))
    for evaluation, mean in zip(evaluations, means, strict=True):
        for side in ("palm", "back"):
            placed = figures.to_camera_view(np.asarray(vertices), side)
            panels.append(DrawnHand(placed, faces, error_mm=mean, error_max_mm=top))
            titles.append(f"{evaluation.name}, {side}\n0 to {top:.0f} mm, at most {mean.max():.0f}")
    live = figures.hand_figure(panels[::2], [f"{e.name}: turn it" for e in evaluations])
    return live, figures.still(panels, titles, size=206, columns=4)


def breakdown_figure(evaluations, bins: int = 6):
    """PA-MPVPE against viewpoint, turn, pose and occlusion with 95 % intervals.  -> Matplotlib.

    Bins hold equal shares of the first evaluation's hands; those of fewer than five are left out.
    """
    kinds = [circumstances(evaluation) for evaluation in evaluations]
    names = [name for name in kinds[0] if all(name in kind for kind in kinds)]
    figure, (axes,) = flat.chart(1, len(names), (2.7 * len(names), 2.9), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        edges = np.unique(np.quantile(kinds[0][name], np.linspace(0, 1, bins + 1)))
        for evaluation, kind in zip(evaluations, kinds, strict=True):
            rows = metrics.mean_by_bin(evaluation.pa_mm, kind[name], edges)
            rows = np.reshape([row for row in rows if row[2] >= 5], (-1, 6))
            low, high, _, mean, *ends = rows.T
            x, bars = (low + high) / 2, np.abs(np.array(ends) - mean)
            axis.errorbar(x, mean, bars, marker="o", markersize=4, label=evaluation.name)
        axis.set_xlabel(name)
    axes[0].set(ylabel="PA-MPVPE, mm", ylim=(0, None))
    if len(evaluations) > 1:
        axes[0].legend(frameon=False)
    return figure


def cases_picture(evaluation: Evaluation, rows, side: int = 112):
    """Each hand as three pictures one below the other: the crop, the truth, the prediction.

    rows: of the evaluation.   side: of a picture in pixels.   returns a PIL image with index and
    error above each. Meshes stand where truth and prediction say they are.
    """
    pictures, titles, truth = [], [], evaluation.truth
    for row, image in zip(rows, evaluation.pictures(rows), strict=True):
        small, intrinsics, _ = for_screen(image, truth["intrinsics"][row], longest=side)
        true = truth["vertices"][row] + truth["root"][row]
        found = evaluation.vertices[row] + evaluation.translation[row]
        column = [small]
        for vertices, colour in ((true, figures.TRUTH), (found, figures.PREDICTION)):
            near = vertices[:, 2].min() <= 0.02
            scene = vertices, evaluation.faces, intrinsics, colour
            column.append(small if near else draw_meshes(small, *scene))
        pictures.append(np.concatenate([flat.fit_square(part, side) for part in column]))
        titles.append(f"no. {row}: {evaluation.pa_mm[row]:.0f} mm")
    return flat.image_grid(pictures, titles, 4, labels=("picture", "truth", "prediction"))


def case_panels(evaluation: Evaluation, row: int):
    """Panels and titles of one hand: truth, prediction, and both with the error painted on."""
    faces, found = evaluation.faces, evaluation.vertices[row]
    true = evaluation.truth["vertices"][row]
    aligned = metrics.align(found[None], true[None], "rotation")[0]
    error = 1000 * np.linalg.norm(aligned - true, axis=1)
    panels = [
        DrawnHand(true, faces, colour=figures.TRUTH, name="truth"),
        DrawnHand(found, faces, name="prediction"),
        [DrawnHand(true, faces, colour=figures.TRUTH, opacity=0.35, name="truth"),
         DrawnHand(aligned, faces, error_mm=error, name="aligned prediction")],
    ]  # fmt: skip
    titles = [f"truth of hand {row}", "prediction", f"aligned, error {error.mean():.0f} mm"]
    return panels, titles


def case_browser(evaluation: Evaluation, rows):
    """Widget: choose one of ``rows``; crop, truth and prediction in linked 3-D views."""
    choices = {f"{r}: {evaluation.pa_mm[r]:.1f} mm": int(r) for r in rows}
    menu = widgets.Dropdown(options=choices, description="hand")
    crop, place = widgets.Image(), widgets.Box()
    crop.layout = {"width": "200px", "height": "200px", "object_fit": "contain"}

    def choose(_change=None):
        crop.value = flat.png_bytes(evaluation.pictures([menu.value])[0], 256)
        figure = figures.hand_figure(*case_panels(evaluation, menu.value))
        place.children = [LiveFigure(figure).link_cameras()]

    menu.observe(choose, "value")
    choose()
    row = widgets.HBox([crop, place], layout={"flex_flow": "row wrap"})
    return widgets.VBox([menu, row])


def summary(evaluations) -> str:
    """The answer in plain words: how good on what, where it is worst, and who beats whom.

    Each run is compared, hand by hand, with the one before it.
    """
    sentences = []
    for evaluation in evaluations:
        mean, low, high = metrics.bootstrap_interval(evaluation.pa_mm)
        fingers = metrics.mean_per_finger(evaluation.scores.joint_errors["rotation"])
        sentences.append(
            f"{evaluation.name}: PA-MPVPE {mean:.1f} mm ({low:.1f} to {high:.1f}) on "
            f"{evaluation.test.words}; weakest at the {max(fingers, key=fingers.get)}; "
            f"{len(evaluation.scores.mirrored)} of {len(evaluation.test)} fit better mirrored."
        )
    return "\n".join(sentences + [compare_runs(*pair) for pair in pairwise(evaluations)])
