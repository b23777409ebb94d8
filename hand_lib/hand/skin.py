"""How the built-in hand's skin looks: nails, creases, palms and tones as colours per vertex.

Light leaves skin after passing pigment and blood (Beer and Lambert):

    colour = base * exp(-melanin * MELANIN - blood * BLOOD),   linear light, per channel

so one number, melanin, spans human skin from pale to deep, and palms, lips of creases, knuckles and
fingertips differ by how much melanin and blood they have. The masks that say where are made once
from the rest pose and stored in template/hand.npz.

>>> skin_colours(tone=0.3, seed=1).shape
(778, 3)
"""

from functools import lru_cache

import igl
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.hand.joints import (
    FINGER_NAMES,
    FRAMES,
    HALF_BREADTHS,
    MANO_FINGERS,
    REST_CHAIN,
    REST_JOINTS,
)
from hand_lib.hand.mano import builtin_path
from hand_lib.mesh.topology import vertex_normals

MASKS = ("palm", "nail", "crease", "knuckle", "red", "vein")
"""Columns of the stored masks, each in 0..1: hairless palm side, nail plate, skin lines, stretched
skin over knuckles, places rich in blood, veins of the back."""

MELANIN = np.array([1.0, 1.55, 2.05])
BLOOD = np.array([0.16, 1.0, 0.80])
BASE = np.array([0.90, 0.71, 0.60])
MELANIN_RANGE = (0.02, 2.25)
"""Melanin of tone 0 and tone 1. Chosen by eye so that the tones run through the ten of the Monk
scale; absorption falls with wavelength as it does for melanin and haemoglobin (Jacques 2013)."""

# Lines of the palm in millimetres of the rest frame (x distal, y radial).
_PALM_LINES = (
    ((78.0, 37.0), (72.0, 22.0), (60.0, 8.0), (42.0, 0.0), (20.0, 3.0), (8.0, 6.0)),
    ((77.0, 37.0), (74.0, 20.0), (66.0, 0.0), (54.0, -20.0), (48.0, -33.0)),
    ((93.0, 14.0), (84.0, 4.0), (76.0, -14.0), (73.0, -32.0), (74.0, -44.0)),
    ((2.0, 27.0), (3.5, 8.0), (3.0, -10.0), (1.0, -28.0)),
)
# Veins of the back of the hand, same frame.
_VEINS = (
    ((-24.0, 10.0), (10.0, 8.0), (40.0, 13.0), (64.0, 15.0), (90.0, 15.0)),
    ((10.0, 8.0), (34.0, -2.0), (62.0, -5.0), (88.0, -5.0)),
    ((34.0, -2.0), (52.0, -18.0), (78.0, -25.0)),
    ((-24.0, -12.0), (10.0, -15.0), (52.0, -18.0)),
    ((64.0, 15.0), (62.0, -5.0)),
)


def _step(low: float, high: float, x: NDArray) -> NDArray:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _line_distance(points: NDArray, line) -> NDArray:
    """Distance of points (N, 2) to a polyline."""
    line = np.asarray(line, float)
    best = np.full(len(points), np.inf)
    for a, b in zip(line[:-1], line[1:], strict=True):
        along = b - a
        t = np.clip((points - a) @ along / (along @ along), 0, 1)
        np.minimum(best, np.linalg.norm(points - a - t[:, None] * along, axis=1), out=best)
    return best


def _on_digit(points: NDArray, name: str):
    """Nearest phalanx of points (N, 3) mm; their place along, across, dorsal; their distance."""
    chain = REST_CHAIN[name] * 1000.0
    best, phalanx, local = np.full(len(points), np.inf), np.zeros(len(points), int), 0 * points
    for i, joint in enumerate(MANO_FINGERS[name]):
        offset = (points - chain[i]) @ FRAMES[joint]
        length = np.linalg.norm(chain[i + 1] - chain[i])
        gap = offset - np.stack([np.clip(offset[:, 0], 0, length), *np.zeros((2, len(points)))], 1)
        distance = np.linalg.norm(gap, axis=1)
        closer = distance < best
        best, phalanx = np.where(closer, distance, best), np.where(closer, i, phalanx)
        local = np.where(closer[:, None], offset, local)
    return phalanx, local, best


def skin_masks(points: NDArray, normals: NDArray, blur_mm: float = 0.0) -> NDArray[np.float64]:
    """The masks at points of the rest surface, whatever the mesh.

    points: (N, 3) metres, rest frame.   normals: (N, 3) unit.   blur_mm: what thin lines and nail
    borders are widened by, about half the spacing of the points.
    returns (N, 6) in 0..1, columns as in ``MASKS``.
    """
    points = np.asarray(points, dtype=np.float64) * 1000.0
    where = [_on_digit(points, name) for name in FINGER_NAMES]
    nearest = np.argmin([w[2] for w in where], axis=0)
    masks = {name: np.zeros(len(points)) for name in MASKS}
    thin = np.hypot(1.0, blur_mm)
    faint = 1.0 / thin  # a widened line is a fainter line
    broad = np.hypot(1.0, 1.7 * blur_mm)  # the palm's points lie further apart

    up, palmar = normals[:, 2], -normals[:, 2]
    for k, (name, (phalanx, local, distance)) in enumerate(zip(FINGER_NAMES, where, strict=True)):
        own = (nearest == k) & (distance < 22.0)
        chain = REST_CHAIN[name] * 1000.0
        lengths = np.linalg.norm(np.diff(chain, axis=0), axis=1)
        frames = FRAMES[list(MANO_FINGERS[name])]
        facing = (normals * frames[phalanx, :, 2]).sum(1)
        tube = own * np.where(phalanx > 0, 1.0, _step(0.3, 0.6, local[:, 0] / lengths[0]))
        palmar = palmar * (1 - tube) - facing * tube
        back, front = _step(0.05, 0.6, facing), _step(0.0, 0.5, -facing)

        plate = own & (phalanx == 2)
        u = (local[:, 0] - 0.66 * lengths[2]) / (0.34 * lengths[2] + 0.4 * blur_mm)
        v = local[:, 1] / (0.80 * (1000.0 * HALF_BREADTHS[name][3]) + 0.25 * blur_mm)
        edge = 1 - (np.abs(u) ** 3.2 + np.abs(v) ** 3.2)
        soft = 0.18 + 0.16 * blur_mm
        masks["nail"] += plate * _step(-soft, soft, edge) * _step(0.15, 0.45, facing)
        masks["red"] += plate * front * _step(0.25, 0.6, local[:, 0] / lengths[2]) * 0.8

        folds = [(1, 0.0), (1, -2.4), (2, 0.0)]
        folds += [(0, 0.46 * lengths[0])] if name != "thumb" else [(1, 2.0)]
        for joint, shift in folds:
            along = (points - (chain[joint] + shift * frames[joint, :, 0])) @ frames[joint, :, 0]
            masks["crease"] += own * front * faint * np.exp(-((along / (0.8 * thin)) ** 2))
        for joint in (1, 2):
            along = (points - chain[joint]) @ frames[joint, :, 0]
            over = own * back * np.exp(-((along / 5.0) ** 2))
            masks["knuckle"] += over
            wrinkle = 0.5 + 0.5 * np.cos(2 * np.pi * along / 2.6)
            masks["crease"] += 0.55 * over * (wrinkle if blur_mm < 0.8 else 0.35)
        if name != "thumb":
            spot = points - chain[0] - np.array([0.0, 0, 8.0])
            bump = np.exp(-(spot[:, 0] ** 2 + spot[:, 1] ** 2) / 60.0)
            masks["knuckle"] += (
                0.8 * (bump * _step(0.2, 0.6, normals[:, 2])) * (points[:, 0] < 92.0)
            )

    masks["palm"] = _step(-0.25, 0.40, palmar) * _step(-16.0, 2.0, points[:, 0])
    flat = points[:, :2]
    hand_palm = masks["palm"] * (points[:, 0] < 100.0) * (-up > 0.1)
    for line in _PALM_LINES:
        close = np.exp(-((_line_distance(flat, line) / (0.9 * broad)) ** 2))
        masks["crease"] += 1.1 / broad * close * _step(0.1, 0.6, -up)
    for centre, size in (((40.0, 24.0), 16.0), ((36.0, -28.0), 16.0), ((84.0, -4.0), 24.0)):
        gap = ((flat - centre) ** 2).sum(1)
        masks["red"] += 0.6 * hand_palm * np.exp(-gap / size**2)
    masks["red"] += 0.45 * masks["knuckle"]
    back = _step(0.3, 0.8, up) * (points[:, 0] < 95.0)
    for line in _VEINS:
        close = np.exp(-((_line_distance(flat, line) / np.hypot(1.9, blur_mm)) ** 2))
        masks["vein"] = np.maximum(masks["vein"], back * close)
    return np.clip(np.stack([masks[name] for name in MASKS], axis=1), 0, 1)


@lru_cache(maxsize=1)
def stored() -> dict[str, NDArray]:
    """The built-in hand's v_template (778, 3), f (1538, 3), masks (778, 6), shape_names (10,)."""
    with np.load(builtin_path()) as arrays:
        return {key: arrays[key] for key in ("v_template", "f", "masks", "shape_names")}


def shape_names() -> tuple[str, ...]:
    """Names of the ten shape directions of the built-in hand, in the order of its betas."""
    return tuple(str(name) for name in stored()["shape_names"])


def waves(points: NDArray, period: tuple, rng: np.random.Generator, count: int = 40) -> NDArray:
    """Smooth noise in space with zero mean and unit spread: a sum of plane waves.

    points: (N, 3).   period: (shortest, longest) wave, in the unit of the points.   returns (N,).
    """
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(*np.log(period), count))
    steps = (direction * 2 * np.pi / length[:, None]).T
    phase = np.asarray(points) @ steps + rng.uniform(0, 2 * np.pi, count)
    return np.cos(phase).sum(axis=1) * np.sqrt(2.0 / count)


def skin_colours(tone: float = 0.28, seed: int = 0) -> NDArray[np.uint8]:
    """Skin colour of every vertex of the built-in hand.

    tone: 0 palest to 1 deepest.   seed: redness, veins, nails and mottling of one person.
    returns (778, 3) uint8 sRGB.
    """
    return _colours(stored()["v_template"], stored()["masks"], tone, seed)


def _colours(points, masks, tone, seed) -> NDArray[np.uint8]:
    """``skin_colours`` at points (N, 3) of the rest surface, where the masks are (N, 6)."""
    if not 0.0 <= tone <= 1.0:
        raise ValueError(f"tone goes from 0 (palest) to 1 (deepest), found {tone}")
    rng = np.random.default_rng(seed)
    palm, nail, crease, knuckle, red, vein = masks.astype(np.float64).T
    flush, sun, veins, polish = 1 + 0.5 * rng.uniform(-1, 1, 4)
    patches = waves(points, (0.008, 0.05), rng)
    melanin = MELANIN_RANGE[0] + (MELANIN_RANGE[1] - MELANIN_RANGE[0]) * tone**1.25
    paler = np.clip(0.62 - 0.1 * sun, 0.3, 0.75)  # share of pigment that palms lack
    pigment = melanin * (1 - paler * palm) * (1 + 0.35 * knuckle * (1 - palm))
    pigment = pigment * (1 + 0.05 * patches) + 0.035 * np.clip(patches, 0, None) * (1 - palm)
    pigment = pigment * (1 + 0.30 * crease) + 0.05 * crease
    spots = waves(points, (0.008, 0.05), rng)
    blood = 0.15 + 0.20 * flush * red + 0.10 * palm + 0.05 * spots
    blood = np.clip(blood + 0.16 * crease, 0.02, None)
    pigment = pigment * (1 - nail) + (0.35 * melanin + 0.02) * nail
    blood = blood * (1 - nail) + (0.20 + 0.06 * polish) * nail
    light = BASE * np.exp(-pigment[:, None] * MELANIN - blood[:, None] * BLOOD)
    light = light * (1 - 0.10 * veins * vein[:, None] * np.array([1.25, 0.75, 0.35]))
    light = light * (1 - 0.12 * crease[:, None]) + 0.006 + 0.03 * nail[:, None]
    return np.round(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)


@lru_cache(maxsize=1)
def _subdivision() -> tuple:
    """Two rounds of subdivision (Loop 1987): matrix (V', 778), faces, points and masks at rest."""
    rest, faces = (stored()[key] for key in ("v_template", "f"))
    once, faces = igl.loop_matrix(faces, len(rest))
    twice, faces = igl.loop_matrix(faces, once.shape[0])
    matrix = (twice @ once).tocsr()
    points = matrix @ rest.astype(np.float64)
    masks = skin_masks(points, vertex_normals(points, faces), 0.7)
    uneven = waves(points, (0.003, 0.010), np.random.default_rng(2))
    uneven = np.clip(0.55 + 0.4 * uneven, 0.1, 1)  # or lines over knuckles look like rings
    masks[:, MASKS.index("crease")] *= np.maximum(masks[:, MASKS.index("palm")], uneven)
    return matrix, faces, points, masks


@lru_cache(maxsize=8)
def _fine_colours(tone) -> NDArray[np.uint8]:
    return _colours(*_subdivision()[2:], tone, 0)


def fine_skin(vertices: NDArray, faces: NDArray, tone: float = 0.28) -> tuple:
    """The built-in hand in detail, for pictures: rounder, its nails and creases sharp.

    vertices: (778, 3) in any pose.   faces: (1538, 3), of the right or the left hand.
    returns vertices (12000 or so, 3), faces, and colours of the vertices.
    """
    matrix, fine, _, _ = _subdivision()
    fine = fine if np.array_equal(faces, stored()["f"]) else fine[:, ::-1]
    return matrix @ vertices, fine, _fine_colours(tone)


TEXELS = 8
"""Texels along two edges of each face, by barycentric coordinates: no unwrapping is needed."""
CHANNELS = ("palm", "nail", "crease", "red", "vein", "mottle", "fine", "knuckle")
"""What a texel holds; red, mottle and fine are neutral at 128."""


def texel_points(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Rest positions of all texels.   returns points (F T T, 3) and barycentrics (T T, 3).

    Texel (i, j) of a face stands for barycentric coordinates a = (i + 1/2) / T, b = (j + 1/2) / T
    of its first two corners; texels beyond the third edge repeat its border.
    """
    i, j = np.meshgrid(np.arange(TEXELS), np.arange(TEXELS), indexing="ij")
    a, b = ((k.ravel() + 0.5) / TEXELS for k in (i, j))
    over = np.maximum(a + b, 1.0)
    weights = np.stack([a / over, b / over, 1 - (a + b) / over], axis=1)
    return np.einsum("tk,fkc->ftc", weights, vertices[faces]).reshape(-1, 3), weights


def skin_texels(vertices: NDArray, faces: NDArray) -> NDArray[np.uint8]:
    """The skin of a surface in detail: the masks at its texels, and two scales of mottling.

    vertices: (V, 3) metres at rest, in the built-in hand's rest frame.   faces: (F, 3).
    returns (F T T, 8) uint8 in the order of ``CHANNELS``.
    """
    points, weights = texel_points(vertices, faces)
    normals = vertex_normals(vertices, faces)[faces]
    normals = np.einsum("tk,fkc->ftc", weights, normals).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    masks = dict(zip(MASKS, skin_masks(points, normals).T, strict=True))
    rng = np.random.default_rng(1)
    masks["mottle"] = 0.5 + 0.2 * waves(points, (0.009, 0.035), rng)
    masks["fine"] = 0.5 + 0.2 * waves(points, (0.004, 0.010), rng, 60)
    masks["red"] = 0.5 + 0.33 * masks["red"]
    channels = np.stack([masks[name] for name in CHANNELS], axis=1)
    return np.round(np.clip(channels, 0, 1) * 255).astype(np.uint8)


def to_builtin_rest(points: NDArray, weights: NDArray, rest: NDArray) -> NDArray:
    """Points (N, 3) of a rest hand where they lie on the built-in one's, joint by joint.

    weights: (V, 16) of the first V points; the others belong to the wrist.   rest: (16, 3) joints.
    """
    middle, goal = rest.mean(axis=0), REST_JOINTS.mean(axis=0)
    turn, _ = Rotation.align_vectors(REST_JOINTS - goal, rest - middle)
    scale = np.linalg.norm(REST_JOINTS - goal) / np.linalg.norm(rest - middle)
    moved, joints = (scale * turn.apply(p - middle) + goal for p in (points, rest))
    belongs = np.zeros((len(points), 16))
    belongs[: len(weights)], belongs[len(weights) :, 0] = weights, 1
    return moved + belongs @ (REST_JOINTS - joints)
