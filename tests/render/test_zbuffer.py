"""The buffers of the synthetic painter: the nearest face, and the background behind it."""

import numpy as np

from hand_lib.data.synthetic.backgrounds import pack_tiles
from hand_lib.data.synthetic.config import PARAMETERS
from hand_lib.data.synthetic.ground import lay_background
from hand_lib.render.raster import draw_faces
from hand_lib.render.zbuffer import (
    DEPTH_STEPS,
    ID_BITS,
    ID_MASK,
    PAD,
    draw_seen,
    make_buffer,
)


def test_the_packed_rasteriser_sees_what_the_public_one_sees():
    rng = np.random.default_rng(0)
    corners = np.zeros((60, 16), np.float32)
    corners[:, 5:7], corners[:, 7] = rng.uniform(-30, 130, (60, 2)), rng.uniform(0.5, 3, 60)
    corners[:5, 7] = 0  # behind the camera
    faces = rng.integers(0, 60, (80, 3)).astype(np.int32)
    for cull in (0, 1, -1):
        seen, depth = make_buffer(100), np.zeros((100, 100))
        ids = np.full((100, 100), -1, np.int32)
        draw_seen(corners, 5, faces, 7, cull, 100, seen)
        draw_faces(np.ascontiguousarray(corners[:, 5:8]), faces, 7, cull, depth, ids)
        rows = seen[: 100 * (100 + PAD)].reshape(100, -1)[:, :100]
        assert ((rows > 0) == (ids >= 0)).all() and (ids >= 0).mean() > 0.3
        np.testing.assert_allclose((rows >> ID_BITS) / DEPTH_STEPS, depth, atol=1e-8)
        assert (np.where(rows > 0, rows & ID_MASK, -1) == ids).all()


def test_a_tile_lies_as_it_is_when_nothing_turns_it():
    tile = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    p, canvas = np.zeros(1, PARAMETERS), np.zeros((3, 64, 64), np.float32)
    p["background"][0] = [1, 31.5 / 64, 31.5 / 64, 1, 0, 1, 1, 1, 1, 0, 0, 0]
    lay_background(p[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1), atol=1e-3)
    p["background"][0, 1] += 64 / 64  # one tile on, they repeat mirrored
    lay_background(p[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1)[..., ::-1], atol=1e-3)
