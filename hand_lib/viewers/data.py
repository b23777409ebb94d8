"""What is in my data, to look at: samples with their labels, viewpoints, a browser.

A mesh is drawn as a surface where its faces are known, and as points otherwise (meshes in MANO's
order without MANO's file); over the picture by the labels' own camera, by the scale and place that
joints and 2-D joints share, or where the data set has the mesh in pixels already.
"""

import cv2
import numpy as np
import plotly.graph_objects as go

from hand_lib.data.synthetic.backgrounds import KINDS
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.render.camera import project
from hand_lib.render.render import draw_meshes
from hand_lib.viewers import figures
from hand_lib.viewers.describe import (
    BONE_NAMES,
    ORDERS,
    Description,
    nearest_in_pose,
    ordered,
    sample_and_mesh,
)
from hand_lib.viewers.scores import as_picture, finished

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
    pictures = [sample.image]
    if sample.joints_2d is not None and sample.valid_2d.any():
        pictures.append(figures.draw_joints(sample.image, sample.joints_2d, sample.valid_2d))
    wound = None if faces is None else faces[:, ::-1] if sample.side == "left" else faces
    camera = all(v is not None for v in (sample.root, sample.intrinsics, sample.vertices))
    pixels = mesh_in_picture(sample, mesh_px)
    if pixels is None:
        return pictures
    if wound is None:
        pictures.append(draw_points(sample.image, pixels))
    elif camera:
        placed = sample.vertices + sample.root
        pictures.append(draw_meshes(sample.image, placed, wound, sample.intrinsics))
    else:
        pictures.append(_overlay_pixels(sample.image, pixels, wound))
    return pictures


def _overlay_pixels(image, pixels, faces):
    """A mesh in pixels over its picture, by a camera so far away that it sees in parallel."""
    middle = pixels.mean(axis=0)
    metre = 0.19 / max(np.ptp(pixels, axis=0).max(), 1e-6)  # about a hand, for the light's sake
    placed = (pixels - middle) * metre + [0, 0, _FAR_M]
    focal = _FAR_M / metre
    intrinsics = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    return draw_meshes(image, placed, faces, intrinsics)


def draw_points(image, pixels, colour=figures.TRUTH) -> np.ndarray:
    """Points over a picture, the near ones light and in front.

    image: (H, W, 3) uint8.   pixels: (V, 3) x, y and depth.   returns (H, W, 3) uint8.
    """
    image = np.ascontiguousarray(image).copy()
    depth = pixels[:, 2] - pixels[:, 2].min()
    light = 1.25 - 0.85 * depth / max(depth.max(), 1e-9)
    radius = max(1, round(np.ptp(pixels[:, :2], axis=0).max() / 60))
    for row in np.argsort(-pixels[:, 2]):
        at = [round(16 * float(v)) for v in pixels[row, :2]]
        shade = [min(255.0, float(c * light[row])) for c in colour]
        cv2.circle(image, at, radius * 16, shade, cv2.FILLED, cv2.LINE_AA, 4)
    return image


def camera_frame(intrinsics, size, depth: float = 0.12) -> np.ndarray:
    """Corners of the camera's pyramid: (5, 3) metres, the camera first, then its picture's corners.

    size: (H, W).   depth: metres from the camera to the drawn picture.
    """
    height, width = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5],
                        [-0.5, height - 0.5]])  # fmt: skip
    rays = np.concatenate([corners, np.ones((4, 1))], axis=1) @ np.linalg.inv(intrinsics).T
    return np.concatenate([np.zeros((1, 3)), rays * depth])


def sample_figure(sample, faces=None, mesh_px=None, height: int = 420):
    """Mesh, joints and camera of one sample in 3-D (Plotly); the camera where it is known.

    faces, mesh_px: as in ``sample_pictures``; a mesh known in pixels alone is shown in pixels.
    """
    place = np.zeros(3) if sample.root is None else sample.root
    vertices = None if sample.vertices is None else sample.vertices + place
    joints = None if sample.joints is None else sample.joints + place
    vertices = mesh_px if vertices is None and joints is None else vertices
    wound = faces[:, ::-1] if faces is not None and sample.side == "left" else faces
    solid = vertices if wound is not None else None
    hand = figures.DrawnHand(solid, wound, joints, figures.TRUTH, opacity=0.55)
    figure = figures.hand_figure([hand], [sample.name], height=height)
    figure.update_layout(template=None)  # seven kilobytes that hidden axes do not need
    if solid is None and vertices is not None:
        x, y, z = np.asarray(vertices, np.float32).T
        low = float(-z.max() - np.ptp(z))  # the far side stays blue, not white
        marker = {"size": 3, "color": -z, "colorscale": "Blues", "cmin": low}
        figure.add_scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name="vertices")
    if sample.root is not None and sample.intrinsics is not None:
        corners = camera_frame(sample.intrinsics, sample.image.shape[:2])
        path = corners[[0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]].astype(np.float32)
        line = {"color": "#555", "width": 3}
        figure.add_scatter3d(
            x=path[:, 0], y=path[:, 1], z=path[:, 2], mode="lines", line=line, name="camera"
        )
        eye = {"x": -1.6, "y": -0.6, "z": -0.7}
        figure.update_layout(scene={"camera": {"eye": eye, "projection": {"type": "perspective"}}})
    return figure


def sample_still(sample, faces=None, mesh_px=None, size: int = 200):
    """Picture, joints, mesh over the picture, and the mesh from the side, in one row. -> PIL image.

    faces, mesh_px: as in ``sample_pictures``.
    """
    panels = [figures.fit_square(p, size) for p in sample_pictures(sample, faces, mesh_px)]
    titles = ["picture"]
    if sample.joints_2d is not None and sample.valid_2d.any():
        titles.append("joints")
    titles += ["mesh"] * (len(panels) - len(titles))
    vertices = sample.vertices if sample.vertices is not None else mesh_px
    if vertices is not None or sample.joints is not None:
        panels.append(_from_the_side(sample, vertices, faces, size))
        titles.append("from the left")
    return figures.image_grid(panels, titles, columns=4)


def _from_the_side(sample, vertices, faces, size):
    wound = faces[:, ::-1] if faces is not None and sample.side == "left" else faces
    if vertices is not None and wound is None:
        turned = np.asarray(vertices, float) @ figures.VIEWS["left"].T
        low, high = turned.min(0), turned.max(0)
        turned = (turned - (low + high) / 2) * (0.86 * size / (high - low)[:2].max())
        paper = np.full((size, size, 3), figures.PAPER, np.uint8)
        return draw_points(paper, turned + [(size - 1) / 2, (size - 1) / 2, 0])
    hand = figures.DrawnHand(vertices, wound, sample.joints, figures.TRUTH, opacity=0.55)
    return np.asarray(figures.still([hand], view="left", size=size))


def viewpoint_sphere(description: Description, size: int = 340):
    """From where the hands are seen, on the hand's own sphere: Plotly figure and still.

    Colour: how the hand is turned in the picture.
    """
    known = np.isfinite(description.toward_camera).all(axis=1)
    points, turn = description.toward_camera[known], description.turn_deg[known]
    if not len(points):
        return None, figures.image_grid([np.full((size // 8, size, 3), 255, np.uint8)],
                                        ["viewpoint: not known without joints"])  # fmt: skip
    shown = figures.to_camera_view(points)
    x, y, z = shown.astype(np.float32).T
    marker = {"size": 3, "color": turn.astype(np.float32), "colorscale": "HSV", "cmin": -180,
              "cmax": 180, "colorbar": {"title": "turn, deg", "thickness": 12}}  # fmt: skip
    figure = go.Figure(go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker))
    figure.update_layout(
        scene=figures.scene_layout(), height=size, margin={"l": 0, "r": 0, "t": 0, "b": 0},
        template=None,
    )  # fmt: skip
    return figure, _sphere_still(shown, turn, size)


def _sphere_still(points, turn, size):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 3.3), layout="constrained")
    for axis, front in zip(axes, (True, False), strict=True):
        side = points[:, 2] < 0 if front else points[:, 2] >= 0
        across = points[side, 0] if front else -points[side, 0]
        dots = axis.scatter(
            across, points[side, 1], c=turn[side], s=6, cmap="hsv", vmin=-180, vmax=180
        )
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.8"))
        axis.set(xlim=(-1.1, 1.1), ylim=(1.1, -1.1), aspect="equal")
        axis.set_title(f"{'palm' if front else 'back'} seen: {side.mean():.0%}", fontsize=10)
        axis.axis("off")
    figure.colorbar(dots, ax=axes, label="turn in the picture, degrees", shrink=0.8)
    return as_picture(finished(figure, grid=False), 90)


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
    return finished(figure, grid=False)


def browser(dataset, description: Description, faces):
    """Widget: go through the samples in any order, picture and mesh beside a 3-D viewer.

    What could not be read is listed above. faces: as ``surface`` gives them.
    """
    import html

    import ipywidgets as widgets

    by = widgets.Dropdown(options=list(ORDERS), description="order")
    place = widgets.IntSlider(0, min=0, max=len(description) - 1, description="place")
    caption, pictures = widgets.HTML(), widgets.Image(format="png")
    near = widgets.Image(format="png")
    scene = go.FigureWidget(layout={"height": 400, "margin": {"l": 0, "r": 0, "t": 30, "b": 0}})
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in description.broken[:20])
    broken = widgets.HTML(f"could not be read:<ul>{lines}</ul>" if lines else "all could be read")

    def draw(_=None):
        row = int(ordered(description, by.value)[place.value])
        sample, mesh_px = sample_and_mesh(dataset, int(description.index[row]))
        shown = [figures.fit_square(p, 220) for p in sample_pictures(sample, faces, mesh_px)]
        pictures.value = figures.png_bytes(figures.image_grid(shown, columns=3), 256)
        caption.value = html.escape(f"{sample.name}, {sample.side}")
        others = [dataset[int(description.index[r])] for r in nearest_in_pose(description, row, 6)]
        small = [figures.fit_square(s.image, 110) for s in others[1:]]
        if small:
            near.value = figures.png_bytes(figures.image_grid(small, columns=5), 256)
        new = sample_figure(sample, faces, mesh_px)
        with scene.batch_update():
            scene.data = []
            scene.add_traces(new.data)
            scene.layout = new.layout

    by.observe(draw, "value")
    place.observe(draw, "value")
    label = widgets.HTML("nearest in pose:")
    left = widgets.VBox([broken, widgets.HBox([by, place]), caption, pictures, label, near])
    panel = widgets.HBox([left, scene])
    panel.order, panel.place, panel.scene, panel.pictures = by, place, scene, pictures
    panel.broken = broken
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
    "none of them": {},
    "viewpoints": {"viewpoints": "sphere"},
    "any_direction": {"any_direction": 1.0},
    "distance_m": {"distance_m": (0.25, 0.25)},
    "framing": {"framing": (2.0, 2.0)},
    "truncated": {"truncated": 1.0},
    "gestures": {"gestures": 1.0},
    "between": {"between": 1.0},
    "betas_spread": {"betas_spread": 2.5},
    "skin_tone": {"skin_tone": (0.95, 0.95)},
    "detail": {"detail": (2.0, 2.0)},
    "nail_polish": {"nail_polish": 1.0},
    "forearm": {"forearm": 0.0},
    "forearm_m": {"forearm_m": (0.04, 0.04)},
    "forearm_girth": {"forearm_girth": 2.0},
    "forearm_bend_deg": {"forearm_bend_deg": 80.0},
    "forearm_side_deg": {"forearm_side_deg": 45.0},
    "sleeve": {"sleeve": 1.0},
    "object_in_hand": {"object_in_hand": 1.0},
    "occluder": {"occluder": 1.0},
    "second_hand": {"second_hand": 1.0, "touching": 0.0},
    "touching": {"second_hand": 1.0, "touching": 1.0},
    "key_light": {"key_light": (1.5, 1.5)},
    "lamp_warmth": {"key_light": (1.5, 1.5), "lamp_warmth": 3.0},
    "sky_above": {"key_light": (0.0, 0.0), "sky_above": (5.0, 5.0)},
    "sky_anywhere": {"key_light": (0.0, 0.0), "sky_anywhere": (5.0, 5.0)},
    "sky_below": {"key_light": (0.0, 0.0), "sky_below": (2.0, 2.0)},
    "sky_even": {"key_light": (0.0, 0.0), "sky_even": (5.0, 5.0)},
    "sky_warmth": {"key_light": (0.0, 0.0), "sky_warmth": 3.0},
    "shadow": {"key_light": (1.5, 1.5), "shadow": (1.0, 1.0)},
    "softness_m": {"key_light": (1.5, 1.5), "shadow": (1.0, 1.0), "softness_m": (0.02, 0.02)},
    "occlusion": {"key_light": (0.0, 0.0), "occlusion": (1.0, 1.0)},
    "specular": {"key_light": (1.5, 1.5), "specular": (0.4, 0.4)},
    "drop_shadow": {"drop_shadow": 1.0},
    "background_edge": {"background_edge": 1.0, "backgrounds": KINDS},
    "exposure": {"exposure": 0.8},
    "tint": {"tint": 0.25},
    "contrast": {"contrast": (1.5, 1.5)},
    "motion_blur": {"motion_blur": 1.0, "blur_px": (2.0, 2.0)},
    "defocus": {"defocus": 1.0, "blur_px": (1.5, 1.5)},
    "noise": {"noise": (12.0, 12.0)},
    "jpeg": {"jpeg": 1.0, "jpeg_quality": (10, 10)},
}
"""What each picture of the wall sets besides PLAIN; some need a lamp to be seen."""


def variations(size: int = 64, seed: int = 4, index: int = 264) -> dict[str, np.ndarray]:
    """One picture (size, size, 3) for each of VARIATIONS and for each kind of background.

    >>> made = variations(32)
    >>> len(made), made["sleeve"].shape
    (51, (32, 32, 3))
    """
    settings = dict(VARIATIONS)
    for kind in KINDS:
        settings[f"on {kind}"] = {"backgrounds": (kind,)}
    return {
        name: SyntheticHands(size, seed, index + 1, **(PLAIN | turned))[index].image
        for name, turned in settings.items()
    }


def variation_grid(size: int = 64, seed: int = 4, index: int = 264, columns: int = 13):
    """``variations`` in rows with their names, as a PIL image."""
    pictures = variations(size, seed, index)
    names = [name.replace("_", "\n", 1).replace(" ", "\n", 1) for name in pictures]
    return figures.image_grid(pictures.values(), names, columns, gap=8)
