"""Rendering and synthetic pictures timed beside the naive way, both sides in one process."""

import functools
import time

import numpy as np

from benchmarks.stopwatch import milliseconds, row
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.mesh.topology import vertex_normals
from hand_lib.render.raster import draw_faces, make_buffer, rasterise, to_screen


def naive_depth(vertices, faces, intrinsics, size: int) -> np.ndarray:
    """Depth (S, S) by a loop over faces with NumPy inside, the way one writes it first."""
    screen = to_screen(vertices, intrinsics)
    depth = np.full((size, size), np.inf)
    for a, b, c in screen[faces]:
        low = np.maximum(np.floor(np.min([a, b, c], axis=0)[:2]).astype(int), 0)
        high = np.minimum(np.ceil(np.max([a, b, c], axis=0)[:2]).astype(int), size - 1)
        if (low > high).any():
            continue
        y, x = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if area == 0:
            continue
        wa = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
        wb = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
        inside = (wa >= 0) & (wb >= 0) & (wa + wb <= 1)
        z = 1 / np.where(inside, wa * a[2] + wb * b[2] + (1 - wa - wb) * c[2], 1)
        window = depth[low[1] : high[1] + 1, low[0] : high[0] + 1]
        window[:] = np.where(inside & (z < window), z, window)
    return depth


def naive_sample(batch: dict, faces, size: int, rng: np.random.Generator) -> np.ndarray:
    """One shaded hand on noise in NumPy over ray-free rasterisation, without the trimmings.

    Flat background, one normal a face, no forearm, shadow, texture, blur or JPEG: less than half
    of what ``SyntheticHands`` paints.
    """
    points = (batch["vertices"][0] + batch["root"][0]).astype(float)
    found = rasterise(points, faces, batch["intrinsics"][0], size)
    seen = found.face >= 0
    normal = vertex_normals(points, faces)[faces[np.maximum(found.face, 0)]].mean(axis=2)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    light = 0.4 + 0.6 * np.clip(normal @ np.array([-0.5, -0.7, -0.5]), 0, 1)
    image = rng.uniform(0, 255, (size, size, 3))
    image[seen] = light[seen][:, None] * np.array([224, 172, 140])
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def benchmark_render(size: int = 128, batch: int = 64, repeats: int = 5) -> list[dict]:
    """Rows {what, ours_ms, theirs_ms, ratio}: milliseconds of CPU time on one thread, medians.

    A complete sample is pose, skinning, shading, shadow, texture, background, noise and labels.
    """
    hands = SyntheticHands(size=size, seed=0, count=100_000)
    start = iter(range(0, 90_000, batch))
    hands.fetch_batch(range(2))
    first = hands.fetch_batch([0])
    layout = hands.banks.materials.layout
    faces = np.ascontiguousarray(layout.faces[: layout.face_start[1]])
    points = (first["vertices"][0] + first["root"][0]).astype(float)
    intrinsics = first["intrinsics"][0]
    screen = to_screen(points, intrinsics)
    seen = make_buffer(size, size)

    def draw():
        seen[:] = 0
        draw_faces(screen, 0, faces, 0, 1, size, size, seen)

    def ours():
        place = next(start)
        hands.fetch_batch(range(place, place + batch))

    rng = np.random.default_rng(0)
    bare = functools.partial(naive_sample, first, faces, size, rng)
    sample, shaded = milliseconds([ours, bare], repeats, time.thread_time)
    (depth,) = milliseconds([draw], 20 * repeats, time.thread_time)
    loop = functools.partial(naive_depth, points, faces, intrinsics, size)
    (slow,) = milliseconds([loop], 1, time.thread_time)
    what = f"a complete sample at {size} px / plain NumPy shading of a bare hand"
    return [
        row(what, sample / batch, shaded),
        row(f"depth of a hand at {size} px / NumPy loop over faces", depth, slow),
    ]
