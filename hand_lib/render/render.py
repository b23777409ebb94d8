"""Pictures of meshes without OpenGL: light on what the rasteriser finds.

``raster`` finds the face in front at every pixel and where the pixel's ray meets it;
``render_mesh`` lights those points. Vertices are in camera axes (metres, x right, y down, z away)
and faces run counter-clockwise seen from outside.
"""

import numba as nb
import numpy as np
from PIL import Image

from hand_lib.mesh.topology import vertex_normals
from hand_lib.render.camera import project
from hand_lib.render.raster import NEAR, barycentric_at, check_scene, find_faces

PREDICTION = (226, 172, 138)
"""sRGB of predicted meshes in every figure."""
TRUTH = (122, 158, 196)
"""sRGB of true meshes."""
LONGEST_SIDE = 1600
"""Overlays of larger pictures are drawn at this size: enough for a screen, quick at any size."""
LARGE = 12_000_000
"""Hands in windows of so many bytes, 2000 x 2000 pixels, are drawn without sub-pixels."""

# Light of a still; directions point from the surface to the lamp, in camera axes, unit length.
_KEY = (-0.485, -0.661, -0.573)  # main lamp: above, left, beside the camera
_KEY_STRENGTH = 0.72
_FILL = (0.793, 0.149, -0.594)  # weaker lamp from the other side
_FILL_STRENGTH = 0.22
_AMBIENT = 0.30  # what reaches every point, halved on points that face the ground
_SPECULAR, _SHININESS = 0.10, 18.0
_OCCLUSION = 0.55  # how dark nooks between fingers become
_OCCLUSION_RADIUS = 0.018  # metres


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _occlusion(depth_inverse, focal, out):
    """Darkening of points with nearer surface around them on the image."""
    height, width = depth_inverse.shape
    angles = 0.3927 * np.arange(16).reshape(16, 1) + 2.399963 * np.arange(20)
    right, down = np.cos(angles), np.sin(angles)  # (16, 20), of each pixel of the pattern
    far = np.sqrt((np.arange(20) + 0.5) / 20.0)
    for y in range(height):
        for x in range(width):
            w = depth_inverse[y, x]
            out[y, x] = 1.0
            if w <= 0.0:
                continue
            z = 1.0 / w
            reach = max(2.0, _OCCLUSION_RADIUS * focal * w)
            hidden = 0.0
            turn = (x * 7 + y * 11) % 16  # rotates the pattern from pixel to pixel
            for k in range(20):
                distance = reach * far[k]
                u = int(x + distance * right[turn, k] + 0.5)
                v = int(y + distance * down[turn, k] + 0.5)
                if 0 <= u < width and 0 <= v < height and depth_inverse[v, u] > 0.0:
                    rise = z - 1.0 / depth_inverse[v, u]
                    if rise > 0.0:
                        slope = rise / (distance / (focal * w) + 1e-9)
                        near = 1.0 - min(1.0, rise / (2.5 * _OCCLUSION_RADIUS))
                        hidden += near * min(1.0, max(0.0, slope - 0.35) * 0.8)
            out[y, x] = 1.0 - _OCCLUSION * min(1.0, 1.6 * hidden / 20.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _unit(x, y, z):
    length = np.sqrt(x * x + y * y + z * z) + 1e-12
    return x / length, y / length, z / length


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _shade(screen, vertices, normals, colours, faces, ids, occlusion, out):
    """Fill (H, W, 4) float32 ``out`` with linear colour and coverage."""
    kx, ky, kz = _KEY
    fx, fy, fz = _FILL
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            t = ids[y, x]
            if t < 0:
                continue
            la, lb, lc = barycentric_at(screen, faces, t, x, y)
            a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
            nx = la * normals[a, 0] + lb * normals[b, 0] + lc * normals[c, 0]
            ny = la * normals[a, 1] + lb * normals[b, 1] + lc * normals[c, 1]
            nz = la * normals[a, 2] + lb * normals[b, 2] + lc * normals[c, 2]
            px = la * vertices[a, 0] + lb * vertices[b, 0] + lc * vertices[c, 0]
            py = la * vertices[a, 1] + lb * vertices[b, 1] + lc * vertices[c, 1]
            pz = la * vertices[a, 2] + lb * vertices[b, 2] + lc * vertices[c, 2]
            nx, ny, nz = _unit(nx, ny, nz)
            vx, vy, vz = _unit(-px, -py, -pz)
            # the side that the camera sees decides, not the interpolated normal
            area = (screen[b, 0] - screen[a, 0]) * (screen[c, 1] - screen[a, 1])
            area -= (screen[c, 0] - screen[a, 0]) * (screen[b, 1] - screen[a, 1])
            dim = 1.0
            if area > 0.0:
                nx, ny, nz, dim = -nx, -ny, -nz, 0.55
            # wrapped Lambert: light reaches a little past the terminator, as in skin
            key = max(0.0, (nx * kx + ny * ky + nz * kz + 0.25) / 1.25)
            fill = max(0.0, (nx * fx + ny * fy + nz * fz + 0.25) / 1.25)
            bright = _KEY_STRENGTH * key + _FILL_STRENGTH * fill + _AMBIENT * (0.75 - 0.25 * ny)
            hx, hy, hz = _unit(kx + vx, ky + vy, kz + vz)
            shine = max(0.0, nx * hx + ny * hy + nz * hz) ** _SHININESS * _SPECULAR * key
            for k in range(3):
                colour = la * colours[a, k] + lb * colours[b, k] + lc * colours[c, k]
                out[y, x, k] = dim * occlusion[y, x] * (colour * bright + shine)
            out[y, x, 3] = 1.0


def render_mesh(
    vertices, faces, colours=PREDICTION, intrinsics=None, size=256, background=None,
    supersample: int = 2, alpha: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Draw a mesh, smoothly shaded and anti-aliased.

    vertices: (V, 3) metres, camera axes.   faces: (F, 3).   colours: one sRGB colour (3,) or one
    per vertex (V, 3), 0 to 255.   intrinsics: (3, 3) pixels.   size: side in pixels or (H, W).
    background: None for white, a colour (3,), or an image (H, W, 3) uint8.   supersample:
    sub-pixels per pixel side.   alpha: opacity of the mesh.
    returns image (H, W, 3) uint8. Faces seen from behind are drawn darker. ``rasterise`` tells
    which face a pixel sees and how far it is.

    >>> triangle = np.array([[-1.0, -1, 2], [0, 1, 2], [1, -1, 2]])
    >>> camera = np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]])
    >>> render_mesh(triangle, np.array([[0, 1, 2]]), intrinsics=camera, size=16).shape
    (16, 16, 3)
    """
    vertices, faces, height, width = check_scene(vertices, faces, intrinsics, size)
    if np.shape(colours) not in ((3,), vertices.shape):
        raise ValueError(
            f"expected one colour (3,) or colours (V, 3) for {len(vertices)} vertices, "
            f"found {np.shape(colours)}"
        )
    linear = np.empty_like(vertices)
    linear[:] = (np.asarray(colours, np.float64) / 255) ** 2.2
    rows, columns = height * supersample, width * supersample
    fine = np.zeros((rows, columns, 4), dtype=np.float32)
    screen, ids, inverse_depth = find_faces(vertices, faces, intrinsics, rows, columns, supersample)
    occlusion = np.empty_like(inverse_depth)
    _occlusion(inverse_depth, float(intrinsics[0][0]) * supersample, occlusion)
    normals = vertex_normals(vertices, faces)
    _shade(screen, vertices, normals, linear, faces, ids, occlusion, fine)
    drawn = fine[..., 3] > 0
    fine[drawn, :3] = np.clip(fine[drawn, :3], 0, 1) ** (1 / 2.2)  # mixed as a screen shows them
    blocks = fine.reshape(height, supersample, width, supersample, 4).mean(axis=(1, 3))
    background = np.asarray((255, 255, 255) if background is None else background)
    if background.shape not in ((3,), (height, width, 3)):
        raise ValueError(
            f"background should be a colour (3,) or an image {(height, width, 3)}, "
            f"found {background.shape}"
        )
    blend = alpha * blocks[..., :3] * 255 + (1 - alpha * blocks[..., 3:]) * background
    return np.clip(np.round(blend), 0, 255).astype(np.uint8)


def draw_meshes(image, vertices, faces, intrinsics, colour=PREDICTION, alpha: float = 0.85):
    """A camera-space mesh over its picture.

    image: (H, W, 3) uint8.   vertices: (V, 3) metres, camera frame.   intrinsics: (3, 3) of this
    picture.   returns a new (H, W, 3) uint8. Only the window around the hand is rendered.
    """
    image = np.asarray(image)
    out, shifted = image.copy(), np.array(intrinsics, float)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = 0, 0, width, height
    if (vertices[:, 2] > NEAR).all():  # else its window is no bound
        points = project(vertices, shifted)
        x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int) - 2, 0, [width, height])
        x0, y0 = x0 - x0 % 8, y0 - y0 % 8  # the pattern of the shading repeats every 8 pixels
        x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(int) + 3, 0, [width, height])
    if x1 <= x0 or y1 <= y0:
        return out
    shifted[:2, 2] -= [x0, y0]
    window = image[y0:y1, x0:x1]
    out[y0:y1, x0:x1] = render_mesh(
        vertices, faces, colour, shifted, window.shape[:2], window, 1 + (window.size < LARGE), alpha
    )
    return out


def for_screen(image, intrinsics=None, longest: int = LONGEST_SIDE):
    """The picture shrunk to at most ``longest`` pixels a side, with what belongs to it.

    returns image (H', W', 3), intrinsics (3, 3) of it or None, and the scale, new pixels per old.
    """
    image = np.asarray(image)
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale == 1.0:
        return image, intrinsics, 1.0
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = np.asarray(Image.fromarray(image).resize(size, Image.BOX, reducing_gap=2.0))
    if intrinsics is not None:
        ratio = np.array([size[0] / image.shape[1], size[1] / image.shape[0]])
        intrinsics = np.array(intrinsics, float)
        intrinsics[:2, 2] = (intrinsics[:2, 2] + 0.5) * ratio - 0.5
        intrinsics[[0, 1], [0, 1]] *= ratio
    return small, intrinsics, scale
