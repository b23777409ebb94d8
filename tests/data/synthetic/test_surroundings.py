"""The background behind a synthetic hand."""

import numpy as np

from hand_lib.data.synthetic.backgrounds import pack_tiles
from hand_lib.data.synthetic.config import PARAMETERS
from hand_lib.data.synthetic.ground import lay_background


def test_a_tile_lies_as_it_is_when_nothing_turns_it():
    tile = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    p, canvas = np.zeros(1, PARAMETERS), np.zeros((3, 64, 64), np.float32)
    p["background"][0] = [1, 31.5 / 64, 31.5 / 64, 1, 0, 1, 1, 1, 1, 0, 0, 0]
    lay_background(p[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1), atol=1e-3)
    p["background"][0, 1] += 64 / 64  # one tile on, they repeat mirrored
    lay_background(p[0], pack_tiles(tile), canvas)
    np.testing.assert_allclose(canvas, tile[1].transpose(2, 0, 1)[..., ::-1], atol=1e-3)
