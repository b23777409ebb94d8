"""What all synthetic pictures share: how a scene is laid out, its solid shapes, what it is made of.

One scene is one list of vertices and faces with a fixed layout (``Layout``); what a picture does
not contain is not drawn. Everything is float32 metres in camera axes.
"""

import functools
from typing import NamedTuple

import numba as nb
import numpy as np
import torch

from hand_lib.data.synthetic.backgrounds import background_bank, photograph_bank
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import DRAWN, GESTURES, sample_poses
from hand_lib.hand.skin import skin_texels, to_builtin_rest
from hand_lib.mesh.topology import boundary_loops

PARTS = ("hand", "arm", "sleeve", "object", "occluder", "hand2", "arm2", "sleeve2")
HAND, ARM, SLEEVE, OBJECT, OCCLUDER, HAND2, ARM2, SLEEVE2 = range(len(PARTS))

ARM_STATIONS = np.array(
    [0.0, 0.006, 0.014, 0.024, 0.036, 0.052, 0.075, 0.105, 0.15, 0.21, 0.29, 0.40], np.float32
)
"""Metres along the forearm from the open rim of the wrist."""
SLEEVE_STATIONS = np.array([0.0, 0.003, 0.012, 0.03, 0.06, 0.10, 0.16, 0.24, 0.34], np.float32)
GRID = (13, 18)
"""Latitudes and longitudes of an object's surface."""
_U = np.uint64  # indices known to be positive: no look whether to count from the end


class Layout(NamedTuple):
    """Where each part of ``PARTS`` lies in the scene's vertices and faces."""

    vertex_start: np.ndarray  # (P + 1,) int64
    face_start: np.ndarray  # (P + 1,) int64
    faces: np.ndarray  # (F, 3) int32
    face_part: np.ndarray  # (F,) uint8 part of each face
    uv: np.ndarray  # (V, 2) float32 texture coordinates of parts that carry a texture
    grid: np.ndarray  # (G, 2) float32 latitude and longitude of an object's vertices
    rim: np.ndarray  # (R,) int32 vertices of the hand's open wrist, in order


class Materials(NamedTuple):
    """What all pictures are painted with."""

    layout: Layout
    texels: np.ndarray  # (N,) uint64, a byte for each channel of the skin (``skin.CHANNELS``)
    tiles: np.ndarray  # (N, T, T) uint32 backgrounds and patterns: bytes red, green, blue, 0


def make_layout(template, faces, rest) -> tuple[Layout, np.ndarray]:
    """Lay out the scene's parts.

    template: (V, 3) and faces: (F, 3) of the hand.   rest: (16, 3) its joints, metres.
    returns the layout, and the hand's axes (3, 3) at rest: columns distal, radial, dorsal.
    """
    distal, radial = rest[4] - rest[0], rest[1] - rest[7]
    distal = distal / np.linalg.norm(distal)
    radial = radial - distal * (distal @ radial)
    radial = radial / np.linalg.norm(radial)
    axes = np.stack([distal, radial, np.cross(distal, radial)], axis=1)
    rim, faces, vertices = boundary_loops(faces)[0], np.asarray(faces, np.int64), len(template)
    around = (template - rest[0])[rim] @ axes[:, 1:]
    around = around - around.mean(axis=0)
    rim = rim[np.argsort(np.arctan2(around[:, 1], around[:, 0]))].astype(np.int32)  # in order
    arm, (latitudes, longitudes) = np.linspace(0, 1, len(ARM_STATIONS) - 1), GRID
    rings = {"arm": arm, "sleeve": SLEEVE_STATIONS / 0.3}  # where they lie in the texture
    vertex_start, face_start, all_faces, all_uv = [0], [0], [], []
    for part in PARTS:
        first, kind = vertex_start[-1], part.rstrip("2")
        if kind == "hand":
            part_faces, uv = faces + first, np.zeros((vertices, 2))
        else:
            steps = rings.get(kind, np.linspace(0, 1, latitudes))
            around = len(rim) if kind in rings else longitudes
            uv = np.stack(np.meshgrid(np.abs(np.linspace(-1, 1, around)), steps), -1).reshape(-1, 2)
            ids = first + np.arange(len(uv)).reshape(-1, around)
            if kind == "arm":
                ids = np.concatenate([(rim + first - vertices)[None], ids])
            a, b = ids[:-1], ids[1:]  # out, if the rings run clockwise seen along
            c, d = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
            part_faces = [np.stack(one, -1).reshape(-1, 3) for one in ((a, b, c), (c, b, d))]
            part_faces = np.concatenate(part_faces)[:, :: 1 if kind in rings else -1]
        vertex_start.append(first + len(uv))
        face_start.append(face_start[-1] + len(part_faces))
        all_faces.append(part_faces)
        all_uv.append(uv)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, latitudes)
    longitude = np.linspace(0, 2 * np.pi, longitudes, endpoint=False)
    grid = np.stack(np.meshgrid(latitude, longitude, indexing="ij"), -1).reshape(-1, 2)
    layout = Layout(
        np.array(vertex_start),
        np.array(face_start),
        np.ascontiguousarray(np.concatenate(all_faces), np.int32),
        np.repeat(np.arange(len(PARTS), dtype=np.uint8), np.diff(face_start)),
        np.concatenate(all_uv).astype(np.float32),
        grid.astype(np.float32),
        rim,
    )
    return layout, axes


@nb.njit(cache=True, nogil=True, error_model="numpy")
def forearm(rim, frame, bend, side, girth):
    """Rings of the forearm that continues the open wrist.

    rim: (R, 3) metres, in order.   frame: (3, 3) columns distal, radial, dorsal.   bend, side:
    radians by which the forearm leaves the hand's direction (palm flexion; towards the thumb).
    girth: how much the arm widens.   returns (S, R, 3); station 0 is the rim itself.
    """
    around, centre = rim.shape[0], np.zeros(3, np.float32)
    for i in range(around):
        for a in range(3):
            centre[a] += rim[i, a] / around
    along, across, up = np.zeros(around), np.zeros(around), np.zeros(around)  # of the frame
    for a in range(3):
        offset = rim[:, a] - centre[a]
        along += offset * frame[a, 0]
        across += offset * frame[a, 1]
        up += offset * frame[a, 2]
    place, out = centre.copy(), np.empty((ARM_STATIONS.shape[0], around, 3), np.float32)
    for s in range(ARM_STATIONS.shape[0]):
        d = ARM_STATIONS[s]
        t = min(1.0, d / 0.05)
        t = t * t * (3 - 2 * t)
        cb, sb = np.cos(bend * t), np.sin(bend * t)
        cs, ss = np.cos(side * t), np.sin(side * t)
        # axes of the cross-section in the hand's frame: first turned to the side, then bent
        dx, dy, dz = cs * cb, ss, -cs * sb
        rx, ry, rz = -ss * cb, cs, ss * sb
        ux, uy, uz = sb, 0.0, cb
        step = d - ARM_STATIONS[s - 1] if s > 0 else d
        grow = min(1.0, max(0.0, (d - 0.02) / 0.20))
        grow = grow * grow * (3 - 2 * grow) * girth
        # the rim need not be plane; further down the rings are
        x, y, z = along * (1.0 - 0.9 * t), across * (1 + 0.40 * grow), up * (1 + 0.70 * grow)
        for a in range(3):
            place[a] -= step * (frame[a, 0] * dx + frame[a, 1] * dy + frame[a, 2] * dz)
            out[s, :, a] = (
                place[a]
                + frame[a, 0] * (x * dx + y * rx + z * ux)
                + frame[a, 1] * (x * dy + y * ry + z * uy)
                + frame[a, 2] * (x * dz + y * rz + z * uz)
            )
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy")
def superquadric(grid, centre, rotation, size, exponents, out):
    """A solid between box, cylinder and ball.

    grid: (G, 2) latitude, longitude.   rotation: (3, 3).   size: (3,) half axes, metres.
    exponents: (2,) near 0 flat with edges, 1 round.   out: (G, 3), filled.
    x = sx |cos u|^e1 |cos v|^e2, y = sy |cos u|^e1 |sin v|^e2, z = sz |sin u|^e1 with their signs
    (Barr 1981).
    """
    for i in range(grid.shape[0]):
        cu, su = np.cos(grid[i, 0]), np.sin(grid[i, 0])
        cv, sv = np.cos(grid[i, 1]), np.sin(grid[i, 1])
        wide = abs(cu) ** exponents[0]
        x = size[0] * wide * np.sign(cv) * abs(cv) ** exponents[1]
        y = size[1] * wide * np.sign(sv) * abs(sv) ** exponents[1]
        z = size[2] * np.sign(su) * abs(su) ** exponents[0]
        for a in range(3):
            out[i, a] = centre[a] + rotation[a, 0] * x + rotation[a, 1] * y + rotation[a, 2] * z


@nb.njit(cache=True, nogil=True, error_model="numpy")
def add_normals(vertices, faces, start, stop, normals):
    """Add the area-weighted normals of faces[start:stop] to ``normals`` (V, 3)."""
    for t in range(start, stop):
        a, b, c = _U(faces[t, 0]), _U(faces[t, 1]), _U(faces[t, 2])
        ux, uy = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1]
        uz, wx = vertices[b, 2] - vertices[a, 2], vertices[c, 0] - vertices[a, 0]
        wy, wz = vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz


def pack_tiles(tiles: np.ndarray) -> np.ndarray:
    """(N, T, T, 3) uint8 -> (N, T, T) uint32, as pictures read them: the bytes red, green, blue, 0.

    >>> hex(int(pack_tiles(np.array([[[[1, 2, 3]]]], np.uint8))[0, 0, 0]))
    '0x30201'
    """
    return tiles.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)


class Banks(NamedTuple):
    """What all pictures share: the hand, its poses, what it is painted with, and film grain."""

    model: HandModel  # float64, so that a picture does not depend on its neighbours in a batch
    axes: np.ndarray  # (3, 3) columns distal, radial, dorsal of the rest hand
    materials: Materials
    poses: np.ndarray  # (N, 16, 3) from the pose prior
    moves: np.ndarray  # (16, 3) bool, the angles that these poses use
    gestures: np.ndarray  # (G, 16, 3)
    kinds: np.ndarray  # (N,) words, the kind of each tile
    grain: np.ndarray  # (256, 256) float32


@functools.lru_cache(maxsize=4)
def make_banks(background_folder=None) -> Banks:
    """Paint and pose what all pictures share; once per process, about three seconds.

    background_folder: pictures that are one more kind of background.
    """
    if background_folder is not None:
        banks, more = make_banks(None), pack_tiles(photograph_bank(background_folder))
        tiles = np.concatenate([banks.materials.tiles, more])
        kinds = np.concatenate([banks.kinds, np.full(len(more), "photographs")])
        return banks._replace(materials=banks.materials._replace(tiles=tiles), kinds=kinds)
    model = HandModel.builtin(flat_mean=True, dtype=torch.float64)
    arrays = model.arrays()
    template, faces = arrays["v_template"], arrays["f"]
    rest = arrays["J_regressor"] @ template
    layout, axes = make_layout(template, faces, rest)
    arm = forearm(template[layout.rim].astype(np.float32), axes, 0.0, 0.0, 1.0)[1:]
    surface = np.concatenate([template, arm.reshape(-1, 3)])
    surface = to_builtin_rest(surface, arrays["weights"], rest)
    texels = skin_texels(surface, layout.faces[: layout.face_start[ARM + 1]])
    texels, (tiles, kinds) = texels.view(np.uint64).reshape(-1), background_bank()
    materials = Materials(layout, texels, pack_tiles(tiles))
    rng = np.random.default_rng([0, 11])
    poses = sample_poses(4096, rng, gestures_share=0.0)
    moves = np.abs(poses).max(axis=0) > 1e-3
    gestures = np.stack([GESTURES[name] for name in DRAWN])
    grain = rng.standard_normal((256, 256)).astype(np.float32)
    return Banks(model, axes, materials, poses, moves, gestures, kinds, grain)
