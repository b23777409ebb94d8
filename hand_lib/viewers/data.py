"""What is in my data, to look at: samples with their labels, viewpoints, a browser.

A mesh is drawn as a surface where its faces are known, and as points otherwise (meshes in MANO's
order without MANO's file); over the picture by the labels' own camera, by the scale and place that
joints and 2-D joints share, or where the data set has the mesh in pixels already.
"""

import numpy as np
import plotly.graph_objects as go

from hand_lib.data.synthetic.backgrounds import KINDS
from hand_lib.data.synthetic.config import SyntheticConfig
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.render.camera import project
from hand_lib.render.render import draw_meshes
from hand_lib.viewers import figures, flat
from hand_lib.viewers.describe import (
    BONE_NAMES,
    ORDERS,
    Description,
    nearest_in_pose,
    ordered,
    sample_and_mesh,
)

_FAR_M = 100.0


def mesh_in_picture(sample, mesh_px=None) -> np.ndarray | None:
    """(V, 3) x, y pixels of the picture and depth on the same scale, or None where unknown.

    mesh_px: what ``sample_and_mesh`` found.   Without a camera the scale s and shift t come from
    the joints as the least squares of s X + t = joints_2d over those that are known.
    """
    if mesh_px is not None or sample.vertices is None:
        return mesh_px
    if sample.root is not None and sample.intrinsics is not None:
        placed = sample.vertices.astype(float) + sample.root
        scale = sample.intrinsics[0, 0] / placed[:, 2].mean()
        return np.c_[project(placed, sample.intrinsics), placed[:, 2] * scale]
    if sample.joints is None or sample.joints_2d is None or sample.valid_2d.sum() < 3:
        return None
    known = sample.valid_2d
    solid, flat = sample.joints[known, :2].astype(float), sample.joints_2d[known].astype(float)
    centred = solid - solid.mean(0)
    scale = (centred * (flat - flat.mean(0))).sum() / max((centred**2).sum(), 1e-12)
    shift = flat.mean(0) - scale * solid.mean(0)
    return sample.vertices * scale + np.append(shift, 0)


def sample_pictures(sample, faces=None, mesh_px=None) -> list[np.ndarray]:
    """The picture, its joints, and its mesh drawn over it; up to three images (H, W, 3) uint8.

    faces: (F, 3), None draws points.   mesh_px: what ``sample_and_mesh`` found. What the labels do
    not tell stays away.
    """
    pictures, pixels = [sample.image], mesh_in_picture(sample, mesh_px)
    if sample.joints_2d is not None and sample.valid_2d.any():
        pictures.append(flat.draw_joints(sample.image, sample.joints_2d, sample.valid_2d))
    if pixels is None:
        return pictures
    if faces is None:
        return [*pictures, flat.draw_points(sample.image, pixels)]
    wound = _wound(sample, faces)
    if mesh_px is None and sample.root is not None and sample.intrinsics is not None:
        placed = sample.vertices + sample.root
        return [*pictures, draw_meshes(sample.image, placed, wound, sample.intrinsics)]
    return [*pictures, _overlay_pixels(sample.image, pixels, wound)]


def _wound(sample, faces):
    """The faces of a model of right hands as this sample's hand has them, outside out."""
    return faces[:, ::-1] if faces is not None and sample.side == "left" else faces


def _overlay_pixels(image, pixels, faces):
    """A mesh in pixels over its picture, by a camera so far away that it sees in parallel."""
    middle = pixels.mean(axis=0)
    metre = 0.19 / max(np.ptp(pixels, axis=0).max(), 1e-6)  # about a hand, for the light's sake
    placed = (pixels - middle) * metre + [0, 0, _FAR_M]
    focal = _FAR_M / metre
    intrinsics = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    return draw_meshes(image, placed, faces, intrinsics)


def camera_frame(intrinsics, size, depth: float = 0.12) -> np.ndarray:
    """Corners of the camera's pyramid: (5, 3) metres, the camera first, then its picture's corners.

    size: (H, W).   depth: metres from the camera to the drawn picture.
    """
    height, width = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5],
                        [-0.5, height - 0.5]])  # fmt: skip
    rays = np.concatenate([corners, np.ones((4, 1))], axis=1) @ np.linalg.inv(intrinsics).T
    return np.concatenate([np.zeros((1, 3)), rays * depth])


def sample_hand(sample, faces=None, mesh_px=None) -> figures.DrawnHand:
    """Mesh and joints of one sample in space; see ``sample_pictures`` for the parameters.

    A mesh known in pixels alone is shown in pixels.
    """
    place = np.zeros(3) if sample.root is None else sample.root
    vertices = None if sample.vertices is None else sample.vertices + place
    joints = None if sample.joints is None else sample.joints + place
    vertices = mesh_px if vertices is None and joints is None else vertices
    wound = None if vertices is None else _wound(sample, faces)
    return figures.DrawnHand(vertices, wound, joints, figures.TRUTH, opacity=0.55, name="mesh")


def sample_figure(sample, faces=None, mesh_px=None, height: int = 420):
    """Mesh, joints and camera of one sample in 3-D (Plotly); the camera where it is known.

    faces, mesh_px: as in ``sample_pictures``.
    """
    hand = sample_hand(sample, faces, mesh_px)
    figure = figures.hand_figure([hand], [sample.name], height=height)
    figure.update_layout(template=None)  # seven kilobytes that hidden axes do not need
    if sample.root is not None and sample.intrinsics is not None:
        corners = camera_frame(sample.intrinsics, sample.image.shape[:2])
        x, y, z = corners[[0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]].astype(np.float32).T
        line = {"color": "#555", "width": 3}
        figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line=line, name="camera")
        eye = {"x": -1.6, "y": -0.6, "z": -0.7}
        figure.update_layout(scene={"camera": {"eye": eye, "projection": {"type": "perspective"}}})
    return figure


def sample_still(sample, faces=None, mesh_px=None, size: int = 200):
    """Picture, joints, mesh over the picture, and the mesh from the side, in one row. -> PIL image.

    faces, mesh_px: as in ``sample_pictures``.
    """
    panels = [flat.fit_square(p, size) for p in sample_pictures(sample, faces, mesh_px)]
    joints = sample.joints_2d is not None and sample.valid_2d.any()
    titles = ["picture", *(["joints"] if joints else []), "mesh"][: len(panels)]
    hand = sample_hand(sample, faces, mesh_px)
    if hand.vertices is not None or hand.joints is not None:
        panels.append(np.asarray(figures.still([hand], view="left", size=size)))
        titles.append("from the left")
    return flat.image_grid(panels, titles, columns=4)


def viewpoint_sphere(description: Description, size: int = 340):
    """From where the hands are seen, on the hand's own sphere: Plotly figure and still.

    Colour: how the hand is turned in the picture, cyan where the fingers point up, red down.
    """
    import matplotlib

    known = np.isfinite(description.toward_camera).all(axis=1)
    points, turn = description.toward_camera[known], description.turn_deg[known]
    if not len(points):
        blank = np.full((size // 8, size, 3), 255, np.uint8)
        return None, flat.image_grid([blank], ["viewpoint: not known without joints"])
    colours = 255 * matplotlib.colormaps["hsv"](turn / 360 + 0.5)[:, :3]
    shown, halves, titles = figures.to_camera_view(points), [], []
    for name, side in (("palm", shown[:, 2] < 0), ("back", shown[:, 2] >= 0)):
        if side.any():
            halves.append(figures.DrawnHand(shown[side], colour=colours[side], name=name))
            titles.append(f"{name} seen: {side.mean():.0%}\ncyan: fingers up, red: down")
    figure = figures.hand_figure([halves], height=size)
    figure.update_layout(template=None)
    views = ["front" if half.name == "palm" else "back" for half in halves]
    return figure, figures.still(halves, titles, views, size)


def histograms(description: Description):
    """Viewpoint, turn, pose, fill, brightness and hand size as small histograms (Matplotlib)."""
    import matplotlib.pyplot as plt

    shown = {
        "palm to camera, degrees": description.palm_angle_deg,
        "turn in the picture, degrees": description.turn_deg,
        "distance to mean pose, radii": description.pose_spread,
        "hand over picture": description.fill,
        "brightness": description.brightness,
        "middle finger's first bone, mm": description.bones_mm[:, BONE_NAMES.index("middle_pip")],
    }
    shown = {title: v[np.isfinite(v)] for title, v in shown.items() if np.isfinite(v).any()}
    lines = 2 if len(shown) > 3 else 1
    figure, axes = plt.subplots(lines, 3, figsize=(7.6, 1.5 * lines), layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, (title, values) in zip(axes.flat, shown.items(), strict=False):
        axis.hist(values, bins=24, color="#4c78a8")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
    return flat.finished(figure, grid=False)


def browser(dataset, description: Description, faces):
    """Widget: go through the samples in any order, picture and mesh beside a 3-D viewer.

    faces: as ``surface`` gives them.   returns a widget with ``.order``, ``.place``, ``.pictures``
    and ``.scene``.
    """
    import html

    import ipywidgets as widgets

    by = widgets.Dropdown(options=list(ORDERS), description="order")
    place = widgets.IntSlider(0, min=0, max=len(description) - 1, description="place")
    caption, pictures, near = widgets.HTML(), widgets.Image(), widgets.Image()
    scene = go.FigureWidget()

    def draw(_=None):
        row = int(ordered(description, by.value)[place.value])
        sample, mesh_px = sample_and_mesh(dataset, int(description.index[row]))
        shown = [flat.fit_square(p, 220) for p in sample_pictures(sample, faces, mesh_px)]
        pictures.value = flat.png_bytes(flat.image_grid(shown, columns=3), 256)
        caption.value = html.escape(f"{sample.name}, {sample.side}")
        others = description.index[nearest_in_pose(description, row, 6)[1:]]
        small = [flat.fit_square(dataset[int(other)].image, 110) for other in others]
        near.value = flat.png_bytes(flat.image_grid(small, columns=5), 256) if small else b""
        new = sample_figure(sample, faces, mesh_px, 400)
        with scene.batch_update():
            scene.data = []
            scene.add_traces(new.data)
            scene.layout = new.layout

    by.observe(draw, "value")
    place.observe(draw, "value")
    label = widgets.HTML("nearest in pose:")
    left = widgets.VBox([widgets.HBox([by, place]), caption, pictures, label, near])
    panel = widgets.HBox([left, scene])
    panel.order, panel.place, panel.scene, panel.pictures = by, place, scene, pictures
    draw()
    return panel


PLAIN = {
    "sleeve": 0.0, "object_in_hand": 0.0, "occluder": 0.0,
    "second_hand": 0.0, "nail_polish": 0.0, "motion_blur": 0.0, "defocus": 0.0, "jpeg": 0.0,
    "noise": (0.0, 0.0), "tint": 0.0, "truncated": 0.0, "drop_shadow": 0.0, "exposure": 0.0,
    "shift": 0.0, "framing": (1.3, 1.3), "key_light": (0.6, 0.6), "contrast": (1.0, 1.0),
    "skin_tone": (0.3, 0.3), "backgrounds": ("smooth",), "between": 0.0,
}  # fmt: skip
"""Nothing in the way, nothing wrong with the camera."""

VARIATIONS = {
    "viewpoints": "sphere", "any_direction": 1.0, "distance_m": 0.25, "framing": 2.0,
    "truncated": 1.0, "gestures": 1.0, "between": 1.0, "betas_spread": 2.5, "skin_tone": 0.95,
    "detail": 2.0, "nail_polish": 1.0, "forearm": 0.0, "forearm_m": 0.04, "forearm_girth": 2.0,
    "forearm_bend_deg": 80.0, "forearm_side_deg": 45.0, "sleeve": 1.0, "object_in_hand": 1.0,
    "occluder": 1.0, "second_hand": 1.0, "touching": 1.0, "key_light": 1.5, "lamp_warmth": 3.0,
    "sky_above": 5.0, "sky_anywhere": 5.0, "sky_below": 2.0, "sky_even": 5.0, "sky_warmth": 3.0,
    "shadow": 1.0, "softness_m": 0.02, "occlusion": 1.0, "specular": 0.4, "drop_shadow": 1.0,
    "background_edge": 1.0, "exposure": 0.8, "tint": 0.25, "contrast": 1.5, "motion_blur": 1.0,
    "defocus": 1.0, "noise": 12.0, "jpeg": 1.0,
}  # fmt: skip
"""The one knob that each picture of the wall turns, and how far; of a range both its ends."""
_LAMP, _NO_LAMP = {"key_light": (1.5, 1.5)}, {"key_light": (0.0, 0.0)}
BESIDES = {
    "second_hand": {"touching": 0.0}, "touching": {"second_hand": 1.0},
    **dict.fromkeys(("lamp_warmth", "shadow", "specular"), _LAMP),
    "softness_m": _LAMP | {"shadow": (1.0, 1.0)},
    **dict.fromkeys(("sky_above", "sky_anywhere", "sky_below", "sky_even"), _NO_LAMP),
    "sky_warmth": _NO_LAMP, "occlusion": _NO_LAMP, "background_edge": {"backgrounds": KINDS},
    "motion_blur": {"blur_px": (2.0, 2.0)}, "defocus": {"blur_px": (1.5, 1.5)},
    "jpeg": {"jpeg_quality": (10, 10)},
}  # fmt: skip
"""What else a knob needs to be seen."""


def variations(size: int = 64, seed: int = 4, index: int = 264) -> dict[str, np.ndarray]:
    """One picture (size, size, 3) for each of VARIATIONS and for each kind of background.

    >>> made = variations(32)
    >>> len(made), made["sleeve"].shape
    (51, (32, 32, 3))
    """
    settings = {"none of them": {}}
    for name, value in VARIATIONS.items():
        ranged = isinstance(getattr(SyntheticConfig, name), tuple)
        settings[name] = BESIDES.get(name, {}) | {name: (value, value) if ranged else value}
    settings |= {f"on {kind}": {"backgrounds": (kind,)} for kind in KINDS}
    return {
        name: SyntheticHands(size, seed, index + 1, **(PLAIN | turned))[index].image
        for name, turned in settings.items()
    }


def variation_grid(size: int = 64, columns: int = 13):
    """``variations`` in rows with their names, as a PIL image."""
    pictures = variations(size)
    names = [name.replace("_", "\n", 1).replace(" ", "\n", 1) for name in pictures]
    return flat.image_grid(pictures.values(), names, columns, gap=8)
