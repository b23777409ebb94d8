"""Pictures of meshes without OpenGL: a z-buffer rasteriser in numba, shading, overlays.

A picture is made in two steps: ``rasterise`` finds the face in front at every pixel and where the
pixel's ray meets it, ``render_mesh`` lights those points. Vertices are in camera axes (metres,
x right, y down, z away) and faces run counter-clockwise seen from outside.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numba as nb
import numpy as np

from hand_lib.geometry import vertex_normals

NEAR = 1e-3
"""Metres; a triangle with a corner nearer to the camera than this (or behind it) is left out."""

SKIN = (224, 172, 140)


class Fragments(NamedTuple):
    """What each pixel sees: one face, where on it, how far."""

    face: np.ndarray  # (H, W) int32 index of the face in front, -1 where there is none
    barycentric: np.ndarray  # (H, W, 3) float32, perspective-correct, rows sum to 1; 0 where none
    depth: np.ndarray  # (H, W) float32 metres along z; inf where there is none


@dataclass(frozen=True)
class Light:
    """Light of a still; directions point from the surface to the lamp, in camera axes."""

    key: tuple = (-0.55, -0.75, -0.65)  # main lamp: above, left, beside the camera
    key_strength: float = 0.72
    fill: tuple = (0.8, 0.15, -0.6)  # weaker lamp from the other side
    fill_strength: float = 0.22
    ambient: float = 0.30  # what reaches every point, halved on points that face the ground
    specular: float = 0.10  # strength of the highlight
    shininess: float = 18.0
    occlusion: float = 0.55  # how dark nooks between fingers become, 0 for none
    occlusion_radius: float = 0.018  # metres


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_faces(screen, faces, first_id, cull, inverse_depth, ids):
    """Draw triangles into a buffer of inverse depth and face ids.

    screen: (V, 3) x_px, y_px, 1/z (0 or less: not drawable).   faces: (F, 3).
    first_id: id of the first face.   cull: 1 leaves out faces that show their back, -1 those that
    show their front, 0 none.   inverse_depth: (H, W), 0 where empty; ids: (H, W) int32; both are
    updated.

    Every edge is evaluated from its lower to its higher vertex, so two faces that share an edge get
    the same number with opposite signs: a pixel on a shared edge belongs to exactly one of them,
    the one for which the edge is a left or a top edge.
    """
    height, width = ids.shape
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        wa, wb, wc = np.float64(screen[a, 2]), np.float64(screen[b, 2]), np.float64(screen[c, 2])
        if wa <= 0.0 or wb <= 0.0 or wc <= 0.0:
            continue
        xa, ya = np.float64(screen[a, 0]), np.float64(screen[a, 1])
        xb, yb = np.float64(screen[b, 0]), np.float64(screen[b, 1])
        xc, yc = np.float64(screen[c, 0]), np.float64(screen[c, 1])
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if area == 0.0 or (cull == 1 and area > 0.0) or (cull == -1 and area < 0.0):
            continue
        if area < 0.0:  # a front face turns the other way in a frame with y down
            b, c = c, b
            xb, yb, wb, xc, yc, wc = xc, yc, wc, xb, yb, wb
            area = -area
        left = max(0, int(np.ceil(min(xa, xb, xc))))
        right = min(width - 1, int(np.floor(max(xa, xb, xc))))
        top = max(0, int(np.ceil(min(ya, yb, yc))))
        bottom = min(height - 1, int(np.floor(max(ya, yb, yc))))
        if left > right or top > bottom:
            continue
        # an edge p -> q: inside where (q - p) x (pixel - p) > 0; on it only for left and top edges
        own_a = yc < yb or (yc == yb and xc > xb)
        own_b = ya < yc or (ya == yc and xa > xc)
        own_c = yb < ya or (yb == ya and xb > xa)
        sa, sb, sc = 1.0, 1.0, 1.0
        pax, pay, qax, qay = xb, yb, xc, yc
        if b > c:
            pax, pay, qax, qay, sa = xc, yc, xb, yb, -1.0
        pbx, pby, qbx, qby = xc, yc, xa, ya
        if c > a:
            pbx, pby, qbx, qby, sb = xa, ya, xc, yc, -1.0
        pcx, pcy, qcx, qcy = xa, ya, xb, yb
        if a > b:
            pcx, pcy, qcx, qcy, sc = xb, yb, xa, ya, -1.0
        dax, day = (qax - pax) * sa, (qay - pay) * sa
        dbx, dby = (qbx - pbx) * sb, (qby - pby) * sb
        dcx, dcy = (qcx - pcx) * sc, (qcy - pcy) * sc
        # 1/z is affine on the screen
        scale = 1.0 / area
        w_right = -(day * wa + dby * wb + dcy * wc) * scale
        ia = 1.0 / day if abs(day) > 1e-9 else 0.0
        ib = 1.0 / dby if abs(dby) > 1e-9 else 0.0
        ic = 1.0 / dcy if abs(dcy) > 1e-9 else 0.0
        for y in range(top, bottom + 1):
            ra, rb, rc = dax * (y - pay), dbx * (y - pby), dcx * (y - pcy)
            # a span that is a little too wide, then the exact test from both ends
            low, high = np.float64(left), np.float64(right)
            if ia > 0.0:
                high = min(high, pax + ra * ia + 1e-3)
            elif ia < 0.0:
                low = max(low, pax + ra * ia - 1e-3)
            if ib > 0.0:
                high = min(high, pbx + rb * ib + 1e-3)
            elif ib < 0.0:
                low = max(low, pbx + rb * ib - 1e-3)
            if ic > 0.0:
                high = min(high, pcx + rc * ic + 1e-3)
            elif ic < 0.0:
                low = max(low, pcx + rc * ic - 1e-3)
            if low > high:
                continue
            first, last = int(np.ceil(low)), int(np.floor(high))
            while first <= last:
                ea, eb, ec = (
                    ra - day * (first - pax),
                    rb - dby * (first - pbx),
                    rc - dcy * (first - pcx),
                )
                if (
                    (ea > 0.0 or (ea == 0.0 and own_a))
                    and (eb > 0.0 or (eb == 0.0 and own_b))
                    and (ec > 0.0 or (ec == 0.0 and own_c))
                ):
                    break
                first += 1
            while first < last:
                ea, eb, ec = (
                    ra - day * (last - pax),
                    rb - dby * (last - pbx),
                    rc - dcy * (last - pcx),
                )
                if (
                    (ea > 0.0 or (ea == 0.0 and own_a))
                    and (eb > 0.0 or (eb == 0.0 and own_b))
                    and (ec > 0.0 or (ec == 0.0 and own_c))
                ):
                    break
                last -= 1
            if first > last:
                continue
            ea, eb, ec = (
                ra - day * (first - pax),
                rb - dby * (first - pbx),
                rc - dcy * (first - pcx),
            )
            w = (ea * wa + eb * wb + ec * wc) * scale
            for x in range(first, last + 1):
                if w > inverse_depth[y, x]:
                    inverse_depth[y, x] = w
                    ids[y, x] = first_id + t
                w += w_right


@nb.njit(cache=True, nogil=True, error_model="numpy")
def barycentric_at(screen, faces, face, x, y):
    """Perspective-correct barycentric coordinates of the ray through pixel (x, y) on one face."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    ax, ay = np.float64(screen[a, 0]) - x, np.float64(screen[a, 1]) - y
    bx, by = np.float64(screen[b, 0]) - x, np.float64(screen[b, 1]) - y
    cx, cy = np.float64(screen[c, 0]) - x, np.float64(screen[c, 1]) - y
    la = (bx * cy - cx * by) * screen[a, 2]
    lb = (cx * ay - ax * cy) * screen[b, 2]
    lc = (ax * by - bx * ay) * screen[c, 2]
    total = la + lb + lc
    return la / total, lb / total, lc / total


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(screen, faces, inverse_depth, ids, barycentric, depth):
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            if ids[y, x] >= 0:
                la, lb, lc = barycentric_at(screen, faces, ids[y, x], x, y)
                barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2] = la, lb, lc
                depth[y, x] = 1.0 / inverse_depth[y, x]


def to_screen(vertices, intrinsics, supersample: int = 1) -> np.ndarray:
    """Pixels and inverse depth of camera-space vertices.

    vertices: (V, 3) metres.   intrinsics: (3, 3) pixels.   supersample: sub-pixels per pixel side.
    returns (V, 3) float64: x, y in sub-pixels, 1/z (0 where the vertex is not in front of NEAR).
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    depth = vertices[:, 2]
    seen = depth > NEAR
    safe = np.where(seen, depth, 1.0)
    image = (vertices / safe[:, None]) @ np.asarray(intrinsics, dtype=np.float64).T
    xy = (image[:, :2] + 0.5) * supersample - 0.5
    return np.ascontiguousarray(np.concatenate([xy, (seen / safe)[:, None]], axis=1))


def rasterise(vertices, faces, intrinsics, size, two_sided: bool = True) -> Fragments:
    """Find the face that each pixel's ray meets first.

    vertices: (V, 3) metres, camera axes.   faces: (F, 3).   intrinsics: (3, 3) pixels.
    size: side of the picture in pixels, or (H, W).   two_sided: draw faces seen from behind too.
    returns ``Fragments`` (face, barycentric, depth).

    >>> triangle = np.array([[-1.0, -1, 2], [0, 1, 2], [1, -1, 2]])
    >>> camera = np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]])
    >>> int(rasterise(triangle, np.array([[0, 1, 2]]), camera, 16).face[8, 8])
    0
    """
    vertices, faces, height, width = _check(vertices, faces, intrinsics, size)
    screen = to_screen(vertices, intrinsics)
    inverse_depth = np.zeros((height, width))
    ids = np.full((height, width), -1, dtype=np.int32)
    draw_faces(screen, faces, 0, 0 if two_sided else 1, inverse_depth, ids)
    barycentric = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    _resolve(screen, faces, inverse_depth, ids, barycentric, depth)
    return Fragments(ids, barycentric, depth)


def _check(vertices, faces, intrinsics, size):
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"expected vertices (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected faces (F, 3), found {faces.shape}")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(
            f"faces name vertices {faces.min()} to {faces.max()}, but there are {len(vertices)}"
        )
    if np.shape(intrinsics) != (3, 3):
        raise ValueError(f"expected intrinsics (3, 3), found {np.shape(intrinsics)}")
    height, width = (size, size) if np.isscalar(size) else size
    if height < 1 or width < 1:
        raise ValueError(f"the picture needs at least one pixel, found size {size}")
    return vertices, np.ascontiguousarray(faces, dtype=np.int32), int(height), int(width)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _occlusion(depth_inverse, focal, radius, strength, out):
    """Darkening of points with nearer surface around them within ``radius`` metres on the image."""
    height, width = depth_inverse.shape
    for y in range(height):
        for x in range(width):
            w = depth_inverse[y, x]
            out[y, x] = 1.0
            if w <= 0.0:
                continue
            z = 1.0 / w
            reach = max(2.0, radius * focal * w)
            hidden = 0.0
            turn = ((x * 7 + y * 11) % 16) * 0.3927  # rotates the pattern from pixel to pixel
            for k in range(20):
                angle = turn + 2.399963 * k
                distance = reach * np.sqrt((k + 0.5) / 20.0)
                u = int(x + distance * np.cos(angle) + 0.5)
                v = int(y + distance * np.sin(angle) + 0.5)
                if 0 <= u < width and 0 <= v < height and depth_inverse[v, u] > 0.0:
                    rise = z - 1.0 / depth_inverse[v, u]
                    if rise > 0.0:
                        slope = rise / (distance / (focal * w) + 1e-9)
                        near = 1.0 - min(1.0, rise / (2.5 * radius))
                        hidden += near * min(1.0, max(0.0, slope - 0.35) * 0.8)
            out[y, x] = 1.0 - strength * min(1.0, 1.6 * hidden / 20.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _shade(screen, vertices, normals, colours, faces, ids, occlusion, lamps, out):
    """Fill (H, W, 4) float32 ``out`` with linear colour and coverage.

    lamps: (12,) key direction, strength, fill direction, strength, ambient, specular, shininess, -.
    """
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
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
            far = np.sqrt(px * px + py * py + pz * pz) + 1e-12
            nx, ny, nz = nx / length, ny / length, nz / length
            vx, vy, vz = -px / far, -py / far, -pz / far
            # the side that the camera sees decides, not the interpolated normal
            area = (screen[b, 0] - screen[a, 0]) * (screen[c, 1] - screen[a, 1])
            area -= (screen[c, 0] - screen[a, 0]) * (screen[b, 1] - screen[a, 1])
            dim = 1.0
            if area > 0.0:
                nx, ny, nz, dim = -nx, -ny, -nz, 0.55
            key = nx * lamps[0] + ny * lamps[1] + nz * lamps[2]
            fill = nx * lamps[4] + ny * lamps[5] + nz * lamps[6]
            # wrapped Lambert: light reaches a little past the terminator, as in skin
            key = max(0.0, (key + 0.25) / 1.25)
            fill = max(0.0, (fill + 0.25) / 1.25)
            light = lamps[3] * key + lamps[7] * fill + lamps[8] * (0.75 - 0.25 * ny)
            hx, hy, hz = lamps[0] + vx, lamps[1] + vy, lamps[2] + vz
            half = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-12
            shine = max(0.0, (nx * hx + ny * hy + nz * hz) / half) ** lamps[10] * lamps[9] * key
            for k in range(3):
                colour = la * colours[a, k] + lb * colours[b, k] + lc * colours[c, k]
                out[y, x, k] = dim * occlusion[y, x] * (colour * light + shine)
            out[y, x, 3] = 1.0


def _linear(colours):
    return (np.asarray(colours, dtype=np.float64) / 255.0) ** 2.2


def _stack(meshes):
    """Join several (vertices, faces, colours) into one mesh with linear colours per vertex."""
    parts, offset = [], 0
    for vertices, faces, colours in meshes:
        colours = np.asarray(colours)
        if colours.shape not in ((3,), (len(vertices), 3)):
            raise ValueError(
                f"expected one colour (3,) or colours (V, 3) for {len(vertices)} vertices, "
                f"found {colours.shape}"
            )
        colours = np.broadcast_to(_linear(colours), (len(vertices), 3))
        parts.append((vertices, vertex_normals(vertices, faces), colours, faces + offset))
        offset += len(vertices)
    return (np.ascontiguousarray(np.concatenate(part)) for part in zip(*parts, strict=True))


def render_mesh(
    vertices,
    faces,
    colours=SKIN,
    intrinsics=None,
    size=256,
    lights: Light | None = None,
    background=None,
    supersample: int = 2,
    two_sided: bool = True,
    alpha: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one mesh, or several in one picture, smoothly shaded and anti-aliased.

    vertices: (V, 3) metres, camera axes, or a list of such arrays.   faces: (F, 3), or a list (one
    for all meshes is enough).   colours: one sRGB colour (3,) or one per vertex (V, 3), 0 to 255,
    or a list.   intrinsics: (3, 3) pixels.   size: side in pixels or (H, W).   background: None
    for white, a colour (3,), or an image (H, W, 3) uint8.   alpha: opacity of the meshes.
    supersample: sub-pixels per pixel side.   two_sided: draw faces seen from behind, darker.
    returns image (H, W, 3) uint8, mask (H, W) bool (pixel centre covered), depth (H, W) float32
    metres at pixel centres, inf where nothing is.

    >>> image, mask, depth = render_mesh(
    ...     np.array([[-1.0, -1, 2], [0, 1, 2], [1, -1, 2]]), np.array([[0, 1, 2]]),
    ...     intrinsics=np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]]), size=16)
    >>> image.shape, round(float(depth[8, 8]), 3)
    ((16, 16, 3), 2.0)
    """
    if intrinsics is None:
        raise ValueError("render_mesh needs intrinsics (3, 3); camera.default_intrinsics makes one")
    lights = lights or Light()
    several = isinstance(vertices, (list, tuple))
    vertices = list(vertices) if several else [vertices]
    faces = list(faces) if several and isinstance(faces, (list, tuple)) else [faces] * len(vertices)
    listed = several and isinstance(colours, list)
    colours = colours if listed else [colours] * len(vertices)
    if not len(vertices) == len(faces) == len(colours):
        raise ValueError(
            f"expected one entry per mesh, found {len(vertices)} vertex arrays, {len(faces)} "
            f"face arrays and {len(colours)} colours"
        )
    checked = [_check(v, f, intrinsics, size) for v, f in zip(vertices, faces, strict=True)]
    height, width = checked[0][2:]
    joined = ((v, f, c) for (v, f, _, _), c in zip(checked, colours, strict=True))
    points, normals, albedo, triangles = _stack(joined)
    triangles = triangles.astype(np.int32)
    cull = 0 if two_sided else 1

    fine = np.zeros((height * supersample, width * supersample, 4), dtype=np.float32)
    inverse_depth = np.zeros(fine.shape[:2])
    ids = np.full(fine.shape[:2], -1, dtype=np.int32)
    screen = to_screen(points, intrinsics, supersample)
    draw_faces(screen, triangles, 0, cull, inverse_depth, ids)
    occlusion = np.ones_like(inverse_depth)
    if lights.occlusion > 0:
        focal = float(intrinsics[0][0]) * supersample
        radius, strength = lights.occlusion_radius, lights.occlusion
        _occlusion(inverse_depth, focal, radius, strength, occlusion)
    _shade(
        screen, points, normals, albedo, triangles, ids, occlusion, _lamps(lights), fine
    )  # fmt: skip
    fine[..., :3] = np.clip(fine[..., :3], 0, 1) ** (
        1 / 2.2
    )  # mix sub-pixels as a screen shows them
    blocks = fine.reshape(height, supersample, width, supersample, 4).mean(axis=(1, 3))
    image = _over(blocks[..., :3], blocks[..., 3:], background, alpha)
    fragments = rasterise(points, triangles, intrinsics, (height, width), two_sided)
    return image, fragments.face >= 0, fragments.depth


def _lamps(lights):
    key, fill = (np.asarray(d, float) / np.linalg.norm(d) for d in (lights.key, lights.fill))
    strengths = (lights.ambient, lights.specular, lights.shininess, 0.0)
    return np.array([*key, lights.key_strength, *fill, lights.fill_strength, *strengths])


def _over(premultiplied, coverage, background, alpha):
    background = np.asarray((255, 255, 255) if background is None else background)
    shape = coverage.shape[:2]
    if background.shape not in ((3,), (*shape, 3)):
        raise ValueError(
            f"background should be a colour (3,) or an image {(*shape, 3)}, "
            f"found {background.shape}"
        )
    blend = alpha * premultiplied * 255 + (1 - alpha * coverage) * background
    return np.clip(np.round(blend), 0, 255).astype(np.uint8)
