"""The background behind a synthetic hand."""

import numpy as np

from hand_lib.data.synthetic.backgrounds import pack_tiles
from hand_lib.data.synthetic.config import BACKGROUND
from hand_lib.data.synthetic.surroundings import lay_background


def test_a_tile_lies_as_it_is_when_nothing_turns_it():
    tile = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    ground, canvas = np.zeros(1, BACKGROUND), np.zeros((3, 64, 64), np.float32)
    for name in ("tile", "zoom", "flip", "gain"):
        ground[name] = 1
    ground["u"] = ground["v"] = 31.5 / 64
    lay_background(ground[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1), atol=1e-3)
    ground["u"] += 64 / 64  # one tile on, they repeat mirrored
    lay_background(ground[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1)[..., ::-1], atol=1e-3)
