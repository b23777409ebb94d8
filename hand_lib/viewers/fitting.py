"""Figures of weak supervision: keypoints, a fit step by step, the review, what was kept."""

import html
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from hand_lib.inference import weak_labels as weak
from hand_lib.inference.weak_labels import WeakLabels
from hand_lib.render.render import draw_meshes
from hand_lib.viewers import figures, flat
from hand_lib.viewers.explorer import slider_panel
from hand_lib.viewers.panels import pages

GOOD, BAD = (46, 139, 87), (190, 60, 50)
"""Frames of kept and of rejected hands."""


def keypoint_grid(frames, keypoints, rows, side: int = 150):
    """Detections over their frames, unseen joints left out.   rows: of the keypoints."""
    if len(rows) == 0:
        raise ValueError("no hand was detected in any frame; see the keypoints' problems")
    pictures, titles = [], []
    for row in rows:
        number, seen = int(keypoints.frames[row]), keypoints.confidence[row] > 0
        drawn = flat.draw_joints(frames[number], keypoints.points[row], seen)
        pictures.append(flat.fit_square(drawn, side))
        titles.append(f"{number} {keypoints.sides[row]}")
    return flat.image_grid(pictures, titles, 6)


def step_choice(path, count: int = 5) -> list[int]:
    """Steps of a fit worth showing: the first guess, the end, and between where most happens."""
    away = np.array([fit.reprojection_px[0] for fit in path])
    wanted = np.linspace(away[0], away[-1], count)
    chosen = {0, len(path) - 1} | {int(np.argmax(away <= level * 1.0001)) for level in wanted}
    return sorted(chosen)[: count - 1] + [len(path) - 1]


def step_hands(model, path, steps) -> list[figures.DrawnHand]:
    """Meshes of some steps, in the camera's frame.   path: of ``follow_fit``."""
    faces = np.asarray(model.faces)
    return [figures.DrawnHand(weak.fitted_hand(model, path[s], [0])[0][0], faces) for s in steps]


def fit_steps_panel(model, path):
    """The hand turning and closing until it fits, by a slider; see ``explorer.slider_panel``."""
    hands = step_hands(model, path, range(len(path)))

    def draw(step):
        return hands[step], f"{path[step].reprojection_px[0]:.1f} px from the keypoints"

    panel = slider_panel(draw, "step", len(path) - 1)
    points = np.concatenate([hand.vertices for hand in hands])
    for name, *ends in zip("xyz", points.min(0), points.max(0), strict=True):
        panel.figure.layout.scene[f"{name}axis"].range = [float(end) for end in ends]
    return panel


def fit_steps_still(model, image, points, confidence, path, steps, side: int = 190):
    """The same steps over the picture and from the side; the keypoints are drawn on top."""
    hands, seen, camera = step_hands(model, path, steps), confidence > 0, path[-1].intrinsics[0]
    meshes = (draw_meshes(image, hand.vertices, hand.faces, camera) for hand in hands)
    above = [flat.fit_square(flat.draw_joints(mesh, points, seen), side) for mesh in meshes]
    below = [np.asarray(figures.still([hand], view="right", size=side)) for hand in hands]
    titles = [f"step {s}\n{path[s].reprojection_px[0]:.1f} px" for s in steps]
    titles += ["from its right"] * len(steps)
    return flat.image_grid(above + below, titles, len(steps))


def labelled_picture(labels: WeakLabels, frames, row: int, side: int = 150) -> np.ndarray:
    """One detection as the review shows it: mesh, keypoints, a green or red frame."""
    found, fit = labels.keypoints, labels.fit
    image = frames[int(found.frames[row])]
    if np.isfinite(fit.pose[row]).all():
        model = labels.models[found.sides[row]]
        vertices = weak.fitted_hand(model, fit, [row])[0][0]
        if vertices[:, 2].min() > 0:
            faces = np.asarray(model.faces)
            image = draw_meshes(image, vertices, faces, fit.intrinsics[row], alpha=0.75)
    image = flat.draw_joints(image, found.points[row], found.confidence[row] > 0)
    picture, inner = flat.fit_square(image, side), (slice(5, -5), slice(5, -5))
    framed = np.full_like(picture, GOOD if fit.accepted[row] else BAD)
    framed[inner] = picture[inner]
    return framed


def review_grid(labels: WeakLabels, frames, rows, side: int = 150, columns: int = 6):
    """Kept and rejected hands with their reasons."""
    found, fit, titles = labels.keypoints, labels.fit, []
    for row in rows:
        reason = fit.kind(row) or f"kept, {fit.reprojection_px[row]:.1f} px"
        titles.append(f"{int(found.frames[row])} {found.sides[row]}\n{reason}")
    pictures = [labelled_picture(labels, frames, row, side) for row in rows]
    return flat.image_grid(pictures, titles, columns)


def mixed_rows(labels: WeakLabels, count: int) -> np.ndarray:
    """Rows to look at, in order: rejected ones first of all, then kept ones spread evenly."""
    bad = np.flatnonzero(~labels.fit.accepted)[: max(count // 2, 1)]
    good = np.flatnonzero(labels.fit.accepted)
    picks = np.linspace(0, len(good) - 1, min(count - len(bad), len(good))).astype(int)
    return np.sort(np.concatenate([bad, good[picks]]))


def review_panel(labels: WeakLabels, frames, path, side: int = 150, page: int = 12):
    """The review as widgets: tick what to keep; every change is saved at once.

    labels: changed in place.   path: JSON of ``save_review``; one that is there already is read
    first, so that decisions outlive the kernel, or renamed when it is of other hands.
    page: detections shown at a time.
    returns a widget with ``.checks``: row -> checkbox, ``.pager`` and ``.message``.
    """
    message, grid = widgets.HTML(), widgets.Box(layout={"flex_flow": "row wrap"})
    path, checks, cards, said = Path(path), {}, {}, ""
    try:
        if path.is_file():
            said = f", {weak.apply_review(path, labels)} overruled in {path.name}"
    except ValueError:  # nobody's work is lost
        aside = path.replace(path.with_name(f"{path.stem}-before{path.suffix}"))
        said = f"; {path.name} was of other hands and is now {aside.name}"

    def tell(text=""):
        message.value = f"{labels.fit.accepted.sum()} of {len(labels)} kept{text}"

    def decide(row, keep):
        try:
            weak.overrule(labels, row, keep)
        except ValueError as error:
            checks[row].value = False
            message.value = f"<span style='color: #c33'>{html.escape(str(error))}</span>"
            return
        if row in cards:
            fill(row)
        weak.save_review(path, labels)
        tell(", saved")

    def fill(row):
        why = labels.filters(row)
        if labels.fit.accepted[row] == bool(labels.automatic[row]):
            why = f"kept by you; {why}" if labels.fit.accepted[row] else "rejected by you"
        lines = f"<small>{html.escape(labels.name(row))}<br>{html.escape(why)}</small>"
        picture, _, text = cards[row].children
        picture.value = flat.png_bytes(labelled_picture(labels, frames, row, side), 64)
        text.value = f"<div style='line-height: 1.25'>{lines}</div>"

    def card(row):
        if row not in cards:
            picture = widgets.Image(format="png", width=side, height=side)
            text = widgets.HTML(layout={"width": f"{side}px", "height": "66px"})
            cards[row] = widgets.VBox([picture, checks[row], text], layout={"margin": "2px"})
            fill(row)
        return cards[row]

    def turn(_=None):
        first = page * (pager.value - 1)
        grid.children = [card(row) for row in range(len(labels))[first : first + page]]

    for row in range(len(labels)):
        kept = bool(labels.fit.accepted[row])
        checks[row] = widgets.Checkbox(value=kept, description="keep", indent=False)
        checks[row].layout.width = f"{side}px"
        checks[row].observe(lambda change, r=row: decide(r, change["new"]), "value")
    pager = pages(len(labels), page, turn)
    weak.save_review(path, labels)
    turn()
    tell(said)
    panel = widgets.VBox([pager, message, grid])
    panel.checks, panel.message, panel.pager = checks, message, pager
    return panel


def kept_figure(labels: WeakLabels):
    """How many hands go for which reason, and how far fits lie from their keypoints."""
    figure, ((bars, spread),) = flat.chart(1, 2, (8, 2.5), grid=False)
    names, numbers = zip(*labels.reasons().most_common(), strict=True)
    good, bad = np.array((GOOD, BAD)) / 255
    bars.barh(names, numbers, color=[good if name == "kept" else bad for name in names])
    bars.invert_yaxis()
    bars.set(xlabel="hands", title="What became of the detections")
    known = np.isfinite(labels.fit.reprojection_px)
    size = np.ptp(np.where(known[:, None, None], labels.fit.joints_2d, 0), axis=1).max(1)
    share = 100 * labels.fit.reprojection_px / np.maximum(size, 1e-6)
    edges = np.linspace(0, min(12.0, np.nanmax(share[known]) + 0.5), 25)
    kept = labels.fit.accepted
    for mask, colour, name in ((kept, good, "kept"), (~kept, bad, "rejected")):
        values = np.clip(share[known & mask], 0, edges[-1])
        spread.hist(values, edges, color=colour, alpha=0.75, label=name)
    title = "How far fits lie from keypoints"
    spread.set(xlabel="reprojection, % of the hand", ylabel="hands", title=title)
    spread.legend(frameon=False)
    return figure
