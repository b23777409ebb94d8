"""What is in my data, to look at: samples with their labels, viewpoints, a browser.

A mesh is drawn as a surface where its faces are known, and as points otherwise (meshes in MANO's
order without MANO's file); over the picture by the labels' own camera, by the scale and place that
joints and 2-D joints share, or where the data set has the mesh in pixels already. ``faces`` (F, 3)
may be None everywhere here.
"""

import html

import ipywidgets as widgets
import numpy as np

from hand_lib.evaluation.describe import BONE_NAMES, ORDERS, Description, nearest_in_pose, ordered
from hand_lib.hand.model import builtin_hierarchy
from hand_lib.render.camera import fit_weak_perspective, project
from hand_lib.render.render import draw_meshes
from hand_lib.viewers import figures, flat
from hand_lib.viewers.explorer import LiveFigure

_FAR_M = 100.0


def mesh_in_picture(sample) -> np.ndarray | None:
    """(V, 3) x, y pixels of the picture and depth on the same scale, or None where unknown.

    Without a camera scale and shift are those that carry the joints onto joints_2d.
    """
    if sample.vertices_px is not None or sample.vertices is None:
        return sample.vertices_px
    if sample.root is not None and sample.intrinsics is not None:
        placed = sample.vertices.astype(float) + sample.root
        scale = sample.intrinsics[0, 0] / placed[:, 2].mean()
        return np.c_[project(placed, sample.intrinsics), placed[:, 2] * scale]
    if sample.joints is None or sample.joints_2d is None or sample.valid_2d.sum() < 3:
        return None
    labels = (one[None, sample.valid_2d] for one in (sample.joints, sample.joints_2d))
    ((scale, x, y),) = fit_weak_perspective(*(one.astype(float) for one in labels))
    return (sample.vertices + [x, y, 0]) * scale


def sample_pictures(sample, faces=None) -> list[np.ndarray]:
    """The picture, its joints, and its mesh drawn over it; up to three images (H, W, 3) uint8.

    What the labels do not tell stays away.
    """
    pictures, pixels = [sample.image], mesh_in_picture(sample)
    if sample.joints_2d is not None and sample.valid_2d.any():
        pictures.append(flat.draw_joints(sample.image, sample.joints_2d, sample.valid_2d))
    if pixels is not None and faces is None:
        pictures.append(flat.draw_points(sample.image, pixels))
    elif pixels is not None:  # a camera so far away that it sees in parallel
        metre = 0.19 / max(np.ptp(pixels, axis=0).max(), 1e-6)  # about a hand, for the light's sake
        middle, focal = pixels.mean(axis=0), _FAR_M / metre
        camera = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
        placed = (pixels - middle) * metre + [0, 0, _FAR_M]
        pictures.append(draw_meshes(sample.image, placed, _wound(sample, faces), camera))
    return pictures


def _wound(sample, faces):
    """The faces of a model of right hands as this sample's hand has them, outside out."""
    return faces[:, ::-1] if faces is not None and sample.side == "left" else faces


def sample_hand(sample, faces=None, more=()) -> figures.DrawnHand:
    """Mesh and joints of one sample in space; a mesh known in pixels alone is shown in pixels."""
    place = np.zeros(3) if sample.root is None else sample.root
    vertices = None if sample.vertices is None else sample.vertices + place
    joints = None if sample.joints is None else sample.joints + place
    vertices = sample.vertices_px if vertices is None and joints is None else vertices
    wound = None if vertices is None else _wound(sample, faces)
    return figures.DrawnHand(
        vertices, wound, joints, figures.TRUTH, opacity=0.55, name="mesh", more=more
    )


def sample_figure(sample, faces=None, height: int = 420):
    """Mesh, joints and camera of one sample in 3-D (Plotly); the camera where it is known.

    It is a pyramid whose base is the picture, drawn 12 cm from the camera.
    """
    if sample.root is None or sample.intrinsics is None:
        return figures.hand_figure([sample_hand(sample, faces)], height=height)
    bottom, right = np.array(sample.image.shape[:2]) - 0.5
    base = [[-0.5, -0.5, 1], [right, -0.5, 1], [right, bottom, 1], [-0.5, bottom, 1]]
    corners = 0.12 * np.array([[0, 0, 0], *base]) @ np.linalg.inv(sample.intrinsics).T
    walk = corners[[0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]]
    hand = sample_hand(sample, faces, [figures.Stroke([walk], (85, 85, 85), 3, name="camera")])
    eye, span = {"x": -1.6, "y": -0.6, "z": -0.7}, np.ptp(hand.places(), axis=0)
    return figures.hand_figure([hand], height=height).update_layout(
        scene_camera={"eye": eye, "projection": {"type": "perspective"}},
        scene_aspectmode="manual",  # of "data" a narrow page shows no more than the middle
        scene_aspectratio=dict(zip("xyz", 1.2 * span / span.max(), strict=True)),
    )


def sample_still(sample, faces=None, size: int = 200):
    """Picture, joints, mesh over the picture, and the mesh from the side, in one row. -> PIL."""
    panels = [flat.fit_square(p, size) for p in sample_pictures(sample, faces)]
    titles = ["picture", "joints", "mesh"]
    if sample.joints_2d is None or not sample.valid_2d.any():
        titles.remove("joints")
    hand, titles = sample_hand(sample, faces), titles[: len(panels)]
    if hand.vertices is not None or hand.joints is not None:
        panels.append(np.asarray(figures.still([hand], view="left", size=size)))
        titles.append("from the left")
    return flat.image_grid(panels, titles, columns=4)


def viewpoint_sphere(description: Description):
    """From where the hands are seen, on a sphere around a hand: Plotly figure and still.

    A dot is a camera. Colour: how it sees the hand turned, cyan with the fingers up, red down.
    """
    known = np.isfinite(description.toward_camera).all(axis=1)
    points, turn = description.toward_camera[known], description.turn_deg[known]
    if not len(points):
        blank = np.full((42, 340, 3), 255, np.uint8)
        return None, flat.image_grid([blank], ["viewpoint: not known without joints"])
    shown, colours = figures.to_camera_view(points), figures.mapped("hsv", turn / 360 + 0.5)
    coarse = builtin_hierarchy()  # its second level keeps the notebook light
    rest = figures.to_camera_view(coarse.vertices[1])
    rest = 1.1 * (rest - (rest.min(0) + rest.max(0)) / 2) / np.ptp(rest, axis=0).max()
    axes = tuple(
        figures.Stroke([[[0, 0, 0], end]], (90, 90, 90), 3, texts=("", name))
        for name, end in {
            "fingers": (0, -1.2, 0), "thumb": (0.9, 0, 0), "palm": (0, 0, -1.2), "back": (0, 0, 1.2)
        }.items()
    )  # fmt: skip
    hand = figures.DrawnHand(rest, coarse.faces[1], more=axes)
    flat_hand = figures.DrawnHand(rest, coarse.faces[1], more=axes[:2])  # palm and back: titles
    dots = figures.DrawnHand(shown, colour=colours, name="cameras")
    halves, titles = [], []
    for name, side in (("palm", shown[:, 2] < 0), ("back", shown[:, 2] >= 0)):
        half = figures.DrawnHand(shown[side], colour=colours[side])
        halves.append([flat_hand, half] if side.any() else [flat_hand])
        titles.append(f"{name} seen: {side.mean():.0%}\ncyan: fingers up, red: down")
    figure = figures.hand_figure([[hand, dots]], ["every dot is a camera: turn it"], height=340)
    return figure, figures.still(halves, titles, ["front", "back"], 340)


def histograms(description: Description):
    """Viewpoint, turn, pose, fill, brightness and hand size as small histograms (Matplotlib)."""
    shown = {
        "palm to camera, degrees": description.palm_angle_deg,
        "turn in the picture, degrees": description.turn_deg,
        "distance to mean pose, radii": description.pose_spread,
        "hand over picture": description.fill,
        "brightness, 0 to 255": description.brightness,
        "middle finger's first bone, mm": description.bones_mm[:, BONE_NAMES.index("middle_pip")],
    }
    shown = {title: v[np.isfinite(v)] for title, v in shown.items() if np.isfinite(v).any()}
    lines = 2 if len(shown) > 3 else 1
    figure, axes = flat.chart(lines, 3, (7.6, 1.5 * lines), grid=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, (title, values) in zip(axes.flat, shown.items(), strict=False):
        axis.hist(values, bins=24, color="#4c78a8")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
    return figure


def browser(dataset, description: Description, faces):
    """Widget: go through the samples in any order, picture and mesh beside a 3-D viewer.

    faces: as ``surface`` gives them.   returns a widget with ``.order``, ``.place``, ``.pictures``
    and ``.scene``.
    """
    by = widgets.Dropdown(options=list(ORDERS), description="order", layout={"width": "230px"})
    place = widgets.IntSlider(
        0, min=0, max=len(description) - 1, description="place", layout={"width": "220px"},
        style={"description_width": "40px"},
    )  # fmt: skip
    fitted = {"max_width": "100%", "object_fit": "contain"}
    caption, near, pictures = widgets.HTML(), *(widgets.Image(layout=fitted) for _ in range(2))
    scene = LiveFigure()

    def draw(_=None):
        row = int(ordered(description, by.value)[place.value])
        sample = dataset[int(description.index[row])]
        shown = [flat.fit_square(p, 150) for p in sample_pictures(sample, faces)]
        pictures.value = flat.png_bytes(flat.image_grid(shown, columns=3), 256)
        caption.value = html.escape(f"{sample.name}, {sample.side}")
        others = description.index[nearest_in_pose(description, row, 5)[1:]]
        small = [flat.fit_square(dataset[int(other)].image, 112) for other in others]
        near.value = flat.png_bytes(flat.image_grid(small, columns=4), 256) if small else b""
        new = sample_figure(sample, faces, 400)
        with scene.batch_update():
            scene.draw(new.data)
            scene.layout = new.layout.update(width=370)

    by.observe(draw, "value")
    place.observe(draw, "value")
    left = [widgets.HBox([by, place]), caption, pictures, widgets.HTML("nearest in pose:"), near]
    left = widgets.VBox(left, layout={"width": "470px", "max_width": "100%"})
    panel = widgets.HBox([left, scene], layout={"flex_flow": "row wrap"})
    panel.order, panel.place, panel.scene, panel.pictures = by, place, scene, pictures
    draw()
    return panel
