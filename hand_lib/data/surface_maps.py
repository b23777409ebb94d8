"""Surface maps: which piece of skin each cell of a crop shows, drawn from a labelled mesh.

They are what ``image_head`` learns to read. Any sample with vertices and a camera has one, a real
one too; whatever stands in front of the hand is not in it.
"""

import numba as nb
import numpy as np

from hand_lib.render.raster import ID_MASK, PAD, draw_faces

CELLS = 16
"""Cells along a side of a labelled surface map."""

SURFACE_UNIT = 0.05
"""Metres: rest positions in surface maps are in this unit, about the middle of the mesh."""


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _draw(screens, faces, places, out):
    """Fill out (B, 4, n, n), zero before, with two rays along either side of each cell."""
    cells = out.shape[2]
    side = 2 * cells
    seen = np.empty(side * (side + PAD) + PAD, np.int64)
    for i in range(screens.shape[0]):
        seen[:] = 0
        draw_faces(screens[i], 0, faces, 0, 0, side, side, seen)
        for y in range(side):
            for x in range(side):
                key = seen[y * (side + PAD) + x]
                if key > 0:
                    out[i, 0, y // 2, x // 2] += 1
                    for k in range(3):
                        out[i, 1 + k, y // 2, x // 2] += places[key & ID_MASK, k]
        for y in range(cells):
            for x in range(cells):
                rays = out[i, 0, y, x]
                if rays > 0:
                    out[i, 0, y, x] = rays / 4
                    for k in range(3):
                        out[i, 1 + k, y, x] /= rays


class SurfaceMaps:
    """Draws the surface maps of batches of hands that share a topology.

    rest: (V, 3) metres, the mesh at rest.   faces: (F, 3).

    >>> maps = SurfaceMaps(model.template, model.faces)
    >>> maps.draw(vertices, roots, intrinsics, 64).shape        # B hands in crops of 64 px
    (B, 4, 16, 16)
    """

    def __init__(self, rest, faces):
        rest = np.asarray(rest, np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        places = (rest - rest.mean(0)) / SURFACE_UNIT
        self.places = places[self.faces].mean(1).astype(np.float32)  # one per face is fine enough

    def draw(self, vertices, roots, intrinsics, size: int) -> np.ndarray:
        """(B, 4, n, n) float32: share of the cell that shows the hand, mean rest position there.

        vertices: (B, V, 3) metres, wrist at the origin.   roots: (B, 3) metres, the wrist in the
        camera's frame.   intrinsics: (B, 3, 3) of the crop, pixels.   size: of the crop.
        A hand that is not wholly in front of the camera has an empty map.
        """
        points = np.asarray(vertices, np.float64) + np.asarray(roots, np.float64)[:, None]
        out = np.zeros((len(points), 4, CELLS, CELLS), np.float32)
        ahead = np.flatnonzero((points[..., 2] > 0.01).all(1))
        if len(ahead):
            points = points[ahead]
            image = points / points[..., 2:] @ intrinsics[ahead].astype(float).swapaxes(1, 2)
            xy = (image[..., :2] + 0.5) * (2 * CELLS / size) - 0.5
            drawn = np.zeros((len(ahead), *out.shape[1:]), np.float32)
            screens = np.concatenate([xy, 1 / points[..., 2:]], axis=2)
            _draw(np.ascontiguousarray(screens), self.faces, self.places, drawn)
            out[ahead] = drawn
        return out
