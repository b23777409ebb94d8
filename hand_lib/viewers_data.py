"""What is in my data? Numbers per sample, and pictures to look at them with.

``describe`` makes a table of properties of any data set of ``HandSample``s (synthetic, FreiHAND,
YouTube); the figures and the browser take that table and the samples themselves.
"""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from tqdm import tqdm

from hand_lib import viewers
from hand_lib.camera import project
from hand_lib.geometry import align_similarity
from hand_lib.joints import BONES, JOINT_NAMES
from hand_lib.statistics import in_plane_angles_deg, palm_angles_deg

BONE_NAMES = tuple(JOINT_NAMES[child] for child in BONES[:, 1])


@dataclass(frozen=True)
class Description:
    """Properties of N samples; NaN where a sample does not know one."""

    index: np.ndarray  # (N,) in the data set
    bones_mm: np.ndarray  # (N, 20) lengths
    palm_angle_deg: np.ndarray  # (N,) 0 the palm faces the camera, 180 the back does
    turn_deg: np.ndarray  # (N,) 0 fingers up, 90 to the right
    toward_camera: np.ndarray  # (N, 3) unit: the camera seen from the hand (distal, radial, dorsal)
    fill: np.ndarray  # (N,) side of the 2-D joints' square over the side of the picture
    brightness: np.ndarray  # (N,) mean grey level of the picture, 0 to 255
    pose: np.ndarray  # (N, 21, 3) joints, aligned to one hand: what is left is the pose
    reprojection_px: np.ndarray  # (N,) mean distance of projected joints and joints_2d
    left: np.ndarray  # (N,) bool
    broken: tuple[str, ...]  # what was wrong with samples that could not be read

    def __len__(self) -> int:
        return len(self.index)


def hand_axes(joints) -> np.ndarray:
    """Rows distal, radial, dorsal of right hands (N, 3, 3) from joints (N, 21, 3)."""
    distal = joints[:, 9] - joints[:, 0]
    across = joints[:, 5] - joints[:, 17]
    dorsal = np.cross(distal, across)
    radial = np.cross(dorsal, distal)
    axes = np.stack([distal, radial, dorsal], axis=1)
    return axes / np.maximum(np.linalg.norm(axes, axis=2, keepdims=True), 1e-12)


def describe(dataset, count: int = 400, seed: int = 0, progress: bool = True) -> Description:
    """Look at samples spread over a data set.

    dataset: anything with ``len`` and ``[index] -> HandSample``.   count: how many; 0: all.
    seed: which ones.   Samples that raise an error are listed in ``broken`` and left out.
    """
    total = len(dataset)
    picks = np.arange(total)
    if 0 < count < total:
        picks = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    rows, broken = [], []
    for index in tqdm(picks, desc="looking at samples", disable=not progress or len(picks) < 500):
        try:
            rows.append(_row(int(index), dataset[int(index)]))
        except (ValueError, OSError) as error:
            broken.append(str(error))
    if not rows:
        raise ValueError(f"none of {len(picks)} samples could be read; the first: {broken[0]}")
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    joints = columns.pop("joints")
    known = np.isfinite(joints).all(axis=(1, 2))
    pose = np.full_like(joints, np.nan)
    if known.any():
        reference = joints[known][0]
        for _ in range(3):
            pose[known], _motion = align_similarity(
                joints[known], np.broadcast_to(reference, joints[known].shape)
            )
            reference = pose[known].mean(axis=0)
    return Description(**columns, pose=pose, broken=tuple(broken))


def _row(index, sample) -> dict:
    nan = np.nan
    joints = np.full((21, 3), nan) if sample.joints is None else sample.joints.astype(float)
    mirror = -1.0 if sample.side == "left" else 1.0
    right = joints * [mirror, 1, 1]
    root = np.array([0, 0, 1.0]) if sample.root is None else sample.root * [mirror, 1, 1]
    bones = np.linalg.norm(joints[BONES[:, 1]] - joints[BONES[:, 0]], axis=1) * 1000
    view = hand_axes(right[None])[0] @ (-root / np.linalg.norm(root))
    fill, off = nan, nan
    if sample.joints_2d is not None and sample.valid_2d.any():
        seen = sample.joints_2d[sample.valid_2d]
        fill = np.ptp(seen, axis=0).max() / max(sample.image.shape[:2])
        if sample.root is not None and sample.intrinsics is not None and sample.joints is not None:
            projected = project(joints + sample.root, sample.intrinsics)[sample.valid_2d]
            off = np.linalg.norm(projected - seen, axis=1).mean()
    return {
        "index": index,
        "joints": right,
        "bones_mm": bones,
        "palm_angle_deg": palm_angles_deg(right[None], root[None])[0],
        "turn_deg": in_plane_angles_deg(right[None])[0],
        "toward_camera": view,
        "fill": fill,
        "brightness": sample.image.mean(),
        "reprojection_px": off,
        "left": sample.side == "left",
    }


def nearest_in_pose(description: Description, row: int, count: int = 5) -> np.ndarray:
    """Rows of the hands whose pose is nearest to that of ``row``, itself first.

    Distance: mean over joints after similarity alignment of all hands to one.
    """
    gap = np.linalg.norm(description.pose - description.pose[row], axis=2).mean(axis=1)
    return np.argsort(np.where(np.isnan(gap), np.inf, gap), kind="stable")[:count]


def oddness(description: Description) -> np.ndarray:
    """How far each sample is from the ordinary, (N,): the largest of several robust z-scores.

    Looked at: each bone's share of the hand's length, brightness, fill, reprojection error.
    z = |x - median| / (1.4826 median absolute deviation).
    """
    shares = description.bones_mm / description.bones_mm.sum(axis=1, keepdims=True)
    columns = [shares, description.brightness[:, None], description.fill[:, None]]
    columns.append(description.reprojection_px[:, None])
    values = np.concatenate(columns, axis=1)
    known = np.isfinite(values).any(axis=0)
    values = values[:, known]
    middle = np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    floor = 1e-3 * np.maximum(np.abs(middle), 1e-3)
    return np.nanmax(np.abs(values - middle) / np.maximum(spread, floor), axis=1)


def viewpoint_sphere(description: Description, size: int = 340):
    """From where the hands are seen, on the hand's own sphere: Plotly figure and still.

    Colour: how the hand is turned in the picture.
    """
    points = description.toward_camera[np.isfinite(description.toward_camera).all(axis=1)]
    turn = description.turn_deg[np.isfinite(description.toward_camera).all(axis=1)]
    shown = viewers.stand_up(points)
    x, y, z = shown.astype(np.float32).T
    marker = {"size": 3, "color": turn.astype(np.float32), "colorscale": "HSV", "cmin": -180,
              "cmax": 180, "colorbar": {"title": "turn, deg", "thickness": 12}}  # fmt: skip
    figure = go.Figure(go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker))
    figure.update_layout(
        scene=viewers.scene_layout(), height=size, margin={"l": 0, "r": 0, "t": 0, "b": 0}
    )
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
    picture = _figure_image(figure)
    plt.close(figure)
    return picture


def _figure_image(figure) -> np.ndarray:
    figure.set_dpi(90)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def histograms(description: Description):
    """Viewpoint, turn, fill, brightness and hand size as five small histograms (Matplotlib)."""
    import matplotlib.pyplot as plt

    shown = {
        "palm to camera, degrees": description.palm_angle_deg,
        "turn in the picture, degrees": description.turn_deg,
        "hand over picture": description.fill,
        "brightness": description.brightness,
        "middle finger's first bone, mm": description.bones_mm[:, BONE_NAMES.index("middle_pip")],
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(13, 2.3), layout="constrained")
    for axis, (title, values) in zip(axes, shown.items(), strict=True):
        axis.hist(values[np.isfinite(values)], bins=24, color="#4c78a8")
        axis.set_title(title, fontsize=10)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    plt.close(figure)
    return figure


def sample_pictures(sample, faces) -> list[np.ndarray]:
    """The picture, its joints, and its mesh drawn over it; three images (H, W, 3) uint8.

    Without a camera the mesh stays away.
    """
    pictures = [sample.image]
    if sample.joints_2d is not None:
        pictures.append(viewers.draw_joints(sample.image, sample.joints_2d, sample.valid_2d))
    if all(v is not None for v in (sample.root, sample.intrinsics, sample.vertices)):
        placed = sample.vertices + sample.root
        wound = faces[:, ::-1] if sample.side == "left" else faces
        pictures.append(viewers.overlay(sample.image, placed, wound, sample.intrinsics))
    return pictures


def camera_frame(intrinsics, size, depth: float = 0.12) -> np.ndarray:
    """Corners of the camera's pyramid: (5, 3) metres, the camera first, then its picture's corners.

    size: (H, W).   depth: metres from the camera to the drawn picture.
    """
    height, width = size
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5],
                        [-0.5, height - 0.5]])  # fmt: skip
    rays = np.concatenate([corners, np.ones((4, 1))], axis=1) @ np.linalg.inv(intrinsics).T
    return np.concatenate([np.zeros((1, 3)), rays * depth])


def sample_figure(sample, faces, height: int = 420):
    """Mesh, joints and camera of one sample in 3-D (Plotly); the camera where it is known."""
    place = np.zeros(3) if sample.root is None else sample.root
    vertices = None if sample.vertices is None else sample.vertices + place
    joints = None if sample.joints is None else sample.joints + place
    wound = faces[:, ::-1] if sample.side == "left" else faces
    hand = viewers.Hand(vertices, wound, joints, viewers.TRUTH, opacity=0.55)
    figure = viewers.hand_figure([hand], [sample.name], height=height)
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


ORDERS = {
    "index": lambda d: np.arange(len(d)),
    "oddest first": lambda d: -oddness(d),
    "palm to back": lambda d: d.palm_angle_deg,
    "turn": lambda d: d.turn_deg,
    "smallest in the picture first": lambda d: d.fill,
    "darkest first": lambda d: d.brightness,
    "largest hand first": lambda d: -d.bones_mm.sum(axis=1),
    "left hands first": lambda d: ~d.left,
}
"""Ways to go through the samples: name -> key per row of a ``Description``."""


def ordered(description: Description, by: str) -> np.ndarray:
    """Rows in the order of a name of ``ORDERS``; unknown values last."""
    if by not in ORDERS:
        raise ValueError(f"unknown order {by!r}; known: {', '.join(ORDERS)}")
    key = np.asarray(ORDERS[by](description), float)
    return np.argsort(np.where(np.isfinite(key), key, np.inf), kind="stable")


def browser(dataset, description: Description, faces):
    """Widget: go through the samples in any order, picture and mesh beside a 3-D viewer."""
    import ipywidgets as widgets

    by = widgets.Dropdown(options=list(ORDERS), description="order")
    place = widgets.IntSlider(0, min=0, max=len(description) - 1, description="place")
    pictures = widgets.Image(format="png")
    near = widgets.Image(format="png")
    scene = go.FigureWidget(layout={"height": 400, "margin": {"l": 0, "r": 0, "t": 30, "b": 0}})

    def draw(_=None):
        row = int(ordered(description, by.value)[place.value])
        sample = dataset[int(description.index[row])]
        shown = [viewers.fit_square(p, 220) for p in sample_pictures(sample, faces)]
        pictures.value = viewers.png_bytes(viewers.image_grid(shown, columns=3))
        others = [dataset[int(description.index[r])] for r in nearest_in_pose(description, row, 6)]
        small = [viewers.fit_square(s.image, 110) for s in others[1:]]
        near.value = viewers.png_bytes(viewers.image_grid(small, columns=5))
        new = sample_figure(sample, faces)
        with scene.batch_update():
            scene.data = []
            scene.add_traces(new.data)
            scene.layout = new.layout

    by.observe(draw, "value")
    place.observe(draw, "value")
    label = widgets.HTML("nearest in pose:")
    left = widgets.VBox([widgets.HBox([by, place]), pictures, label, near])
    panel = widgets.HBox([left, scene])
    panel.order, panel.place, panel.scene, panel.pictures = by, place, scene, pictures
    draw()
    return panel
