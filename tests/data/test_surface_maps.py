"""The labels of the dense correspondence map: which piece of the rest pose a cell shows."""

import numpy as np

from hand_lib.data.crops import CELLS, SURFACE_UNIT, SurfaceMaps
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.hand.model import builtin_hierarchy


def test_surface_maps_show_the_rest_position_of_what_is_seen():
    """A palm-sized square that is its own rest mesh, seen straight on."""
    steps = np.linspace(-0.05, 0.05, 11)
    x, y = np.meshgrid(steps, steps)
    rest = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    faces = np.concatenate([np.stack([corner, corner + 11, corner + 1], 1),
                            np.stack([corner + 1, corner + 11, corner + 12], 1)])  # fmt: skip
    camera = np.array([[[320.0, 0, 31.5], [0, 320, 31.5], [0, 0, 1]]])
    maps = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, 0.5]]), camera, 64)
    assert maps.shape == (1, 4, CELLS, CELLS)
    # 0.1 m at 0.5 m and 320 px is 64 px: the square fills the crop
    centres = ((np.arange(CELLS) + 0.5) / CELLS - 0.5) * 0.1 / SURFACE_UNIT
    assert (maps[0, 0] == 1).all()
    np.testing.assert_allclose(maps[0, 1], np.tile(centres, (CELLS, 1)), atol=0.2)
    np.testing.assert_allclose(maps[0, 2], np.tile(centres[:, None], (1, CELLS)), atol=0.2)
    behind = SurfaceMaps(rest, faces).draw(rest[None], np.array([[0, 0, -0.5]]), camera, 64)
    assert (behind == 0).all()


def test_surface_maps_cover_what_the_renderer_shows():
    hands = SyntheticHands(64, seed=3, count=24).fetch_batch(np.arange(24))
    mesh = builtin_hierarchy()
    maps = SurfaceMaps(mesh.vertices[0], mesh.faces[0]).draw(
        hands["vertices"], hands["root"], hands["intrinsics"], 64
    )
    mask = hands["mask"].reshape(24, 16, 4, 16, 4).mean((2, 4))
    # the mask leaves out what an object hides, the map does not
    both = (maps[:, 0] > 0.5) & (mask > 0.5)
    assert both.sum() / (mask > 0.5).sum() > 0.9
