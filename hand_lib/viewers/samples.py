"""One labelled picture to look at: joints, mesh and camera, with whatever its labels tell.

A mesh is drawn as a surface where its faces are known, and as points otherwise (meshes in MANO's
order without MANO's file); over the picture by the labels' own camera, by the scale and place that
joints and 2-D joints share, or where the data set has the mesh in pixels already.
"""

import cv2
import numpy as np

from hand_lib.render.camera import project
from hand_lib.viewers import figures as viewers

_FAR_M = 100.0


def look(dataset, index: int):
    """A sample, and its mesh in pixels (V, 3) where the data set itself has it so, else None."""
    sample = dataset[index]
    pixels = dataset.vertices_px(index) if hasattr(dataset, "vertices_px") else None
    return sample, pixels


def mesh_in_picture(sample, mesh_px=None) -> np.ndarray | None:
    """(V, 3) x, y pixels of the picture and depth on the same scale, or None where unknown.

    mesh_px: what ``look`` found.   Without a camera the scale s and shift t come from the joints
    as the least squares of s X + t = joints_2d over those that are known.
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

    faces: (F, 3), None draws points.   mesh_px: what ``look`` found. What the labels do not tell
    stays away.
    """
    pictures = [sample.image]
    if sample.joints_2d is not None and sample.valid_2d.any():
        pictures.append(viewers.draw_joints(sample.image, sample.joints_2d, sample.valid_2d))
    wound = None if faces is None else faces[:, ::-1] if sample.side == "left" else faces
    camera = all(v is not None for v in (sample.root, sample.intrinsics, sample.vertices))
    pixels = mesh_in_picture(sample, mesh_px)
    if pixels is None:
        return pictures
    if wound is None:
        pictures.append(draw_points(sample.image, pixels))
    elif camera:
        placed = sample.vertices + sample.root
        pictures.append(viewers.overlay(sample.image, placed, wound, sample.intrinsics))
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
    return viewers.overlay(image, placed, faces, intrinsics)


def draw_points(image, pixels, colour=viewers.TRUTH) -> np.ndarray:
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
    hand = viewers.Hand(solid, wound, joints, viewers.TRUTH, opacity=0.55)
    figure = viewers.hand_figure([hand], [sample.name], height=height)
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
    panels = [viewers.fit_square(p, size) for p in sample_pictures(sample, faces, mesh_px)]
    titles = ["picture"]
    if sample.joints_2d is not None and sample.valid_2d.any():
        titles.append("joints")
    titles += ["mesh"] * (len(panels) - len(titles))
    vertices = sample.vertices if sample.vertices is not None else mesh_px
    if vertices is not None or sample.joints is not None:
        panels.append(_from_the_side(sample, vertices, faces, size))
        titles.append("from the left")
    return viewers.image_grid(panels, titles, columns=4)


def _from_the_side(sample, vertices, faces, size):
    wound = faces[:, ::-1] if faces is not None and sample.side == "left" else faces
    if vertices is not None and wound is None:
        turned = np.asarray(vertices, float) @ viewers.VIEWS["left"].T
        low, high = turned.min(0), turned.max(0)
        turned = (turned - (low + high) / 2) * (0.86 * size / (high - low)[:2].max())
        paper = np.full((size, size, 3), viewers.PAPER, np.uint8)
        return draw_points(paper, turned + [(size - 1) / 2, (size - 1) / 2, 0])
    hand = viewers.Hand(vertices, wound, sample.joints, viewers.TRUTH, opacity=0.55)
    return np.asarray(viewers.still([hand], view="left", size=size))
