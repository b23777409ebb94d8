"""Geometry of a synthetic scene: its layout, and the hand's skinning in numba.

One scene is one list of vertices and faces with a fixed layout (``Layout``); what a picture does
not contain is not drawn. Everything is float32 metres in camera axes.
"""

from typing import NamedTuple

import numba as nb
import numpy as np

from hand_lib.hand.joints import (
    MANO_FINGERS,
    MANO_PARENTS,
    MANO_TO_21,
    TIPS_21,
    fingertip_vertices,
)
from hand_lib.mesh.topology import boundary_loops
from hand_lib.render.raster import ID_MASK

PARTS = ("hand", "arm", "sleeve", "watch", "ring", "object", "occluder", "hand2", "arm2", "sleeve2")
HAND, ARM, SLEEVE, WATCH, RING, OBJECT, OCCLUDER, HAND2, ARM2, SLEEVE2 = range(len(PARTS))

ARM_STATIONS = np.array(
    [0.0, 0.006, 0.014, 0.024, 0.036, 0.052, 0.075, 0.105, 0.15, 0.21, 0.29, 0.40], np.float32
)
"""Metres along the forearm from the open rim of the wrist."""
SLEEVE_STATIONS = np.array([0.0, 0.003, 0.012, 0.03, 0.06, 0.10, 0.16, 0.24, 0.34], np.float32)
BAND_RINGS = 4
CHUNK = 128
"""Coordinates whose corrections are summed for all hands before going on."""
_U = np.uint64  # places known to be positive: no look whether to count from the end
GRID = (13, 18)
"""Latitudes and longitudes of an object's surface."""


class Body(NamedTuple):
    """A hand model's arrays as the kernels read them."""

    template: np.ndarray  # (3 V,) float32 metres, vertex by vertex
    directions: np.ndarray  # (145, 3 V) float32, ten shapes, then 135 pose corrections
    rest: np.ndarray  # (16, 3) float32 joints of the template
    joint_shapes: np.ndarray  # (10, 16, 3) float32
    bone: np.ndarray  # (V, K) int32 joints that move a vertex
    weight: np.ndarray  # (V, K) float32
    parents: np.ndarray  # (16,) int32
    tips: np.ndarray  # (5,) int32 fingertip vertices, thumb to little finger
    rim: np.ndarray  # (16,) int32 vertices of the open wrist, in order
    axes: np.ndarray  # (3, 3) float32, columns distal, radial, dorsal of the rest hand
    finger_radius: np.ndarray  # (5,) float32 metres at the proximal phalanx


class Layout(NamedTuple):
    """Where each part of ``PARTS`` lies in the scene's vertices and faces."""

    vertex_start: np.ndarray  # (P + 1,) int64
    face_start: np.ndarray  # (P + 1,) int64
    faces: np.ndarray  # (F, 3) int32
    face_part: np.ndarray  # (F,) uint8 part of each face
    uv: np.ndarray  # (V, 2) float32 texture place of parts that carry a texture
    grid: np.ndarray  # (G, 2) float32 latitude and longitude of an object's vertices


def make_body(arrays: dict) -> Body:
    """From MANO's arrays (``mano_files.read_mano``) to the kernels' arrays.

    A surface without a rim of open edges (a closed stand-in) takes the 16 vertices farthest behind
    the wrist as its rim.
    """
    template = np.asarray(arrays["v_template"], np.float64)
    regressor, weights = arrays["J_regressor"], arrays["weights"]
    shapes, poses = arrays["shapedirs"][:, :, :10], arrays["posedirs"]
    rest = regressor @ template
    count = int((np.abs(weights) > 0).sum(axis=1).max())
    bone = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :count]
    directions = np.concatenate([shapes, poses], axis=2).transpose(2, 0, 1)
    distal = rest[4] - rest[0]
    distal /= np.linalg.norm(distal)
    radial = rest[1] - rest[7]
    radial -= distal * (distal @ radial)
    radial /= np.linalg.norm(radial)
    axes = np.stack([distal, radial, np.cross(distal, radial)], axis=1)
    loops = boundary_loops(np.asarray(arrays["f"], np.int64))
    local = (template - rest[0]) @ axes
    rim = loops[0] if loops else np.argsort(local[:, 0])[:16]
    angle = np.arctan2(*(local[rim, 1:] - local[rim, 1:].mean(axis=0)).T[::-1])
    rim = rim[np.argsort(angle)]
    tips = arrays.get("fingertips", fingertip_vertices())
    return Body(
        _f32(template.reshape(-1)),
        _f32(directions.reshape(len(directions), -1)),
        _f32(rest),
        _f32(np.einsum("jv,vak->kja", regressor, shapes)),
        np.ascontiguousarray(bone, np.int32),
        _f32(np.take_along_axis(weights, bone, axis=1)),
        np.asarray(MANO_PARENTS, np.int32),
        np.asarray(tips, np.int32),
        np.ascontiguousarray(rim, np.int32),
        _f32(axes),
        _f32(_finger_radii(template, rest, weights)),
    )


def _f32(array):
    return np.ascontiguousarray(array, np.float32)


def _finger_radii(template, rest, weights):
    radii = []
    for base, _, _ in MANO_FINGERS.values():
        along = rest[base + 1] - rest[base]
        length = np.linalg.norm(along)
        offset = template - rest[base]
        place = offset @ along / length**2
        band = (np.abs(place - 0.55) < 0.25) & (weights.argmax(axis=1) == base)
        away = offset - place[:, None] * along
        radii.append(np.linalg.norm(away[band], axis=1).mean() if band.any() else 0.009)
    return radii


def _tube_faces(first) -> np.ndarray:
    """Faces of a tube that look out if the rings run clockwise seen along the tube.

    first: vertex ids (rings, around).
    """
    a, b = first[:-1], first[1:]
    c, d = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
    return np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([c, b, d], -1).reshape(-1, 3)]
    )


def make_layout(faces, rim, vertices: int = 778) -> Layout:
    """Lay out the scene's parts.   faces: (F, 3) of the hand.   rim: (R,) its open border."""
    faces, around = np.asarray(faces, np.int64), len(rim)
    latitudes, longitudes = GRID
    rings = {
        "arm": len(ARM_STATIONS) - 1, "sleeve": len(SLEEVE_STATIONS), "watch": BAND_RINGS,
        "ring": BAND_RINGS,
    }  # fmt: skip
    vertex_start, face_start, all_faces, all_uv = [0], [0], [], []
    for part in PARTS:
        first = vertex_start[-1]
        kind = part.rstrip("2")
        if kind == "hand":
            count, part_faces, uv = vertices, faces + first, np.zeros((vertices, 2))
        elif kind in rings:
            n = rings[kind]
            ids = first + np.arange(n * around).reshape(n, around)
            if kind == "arm":
                ids = np.concatenate([(rim + first - vertices)[None], ids])
            count, part_faces = n * around, _tube_faces(ids)
            steps = {"sleeve": SLEEVE_STATIONS / 0.3}.get(kind, np.linspace(0, 1, n))
            uv = np.stack(np.meshgrid(np.abs(np.linspace(-1, 1, around)), steps), -1).reshape(-1, 2)
        else:
            ids = first + np.arange(latitudes * longitudes).reshape(latitudes, longitudes)
            count, part_faces = latitudes * longitudes, _tube_faces(ids)[:, ::-1]
            v, u = np.meshgrid(
                np.linspace(0, 1, latitudes), np.abs(np.linspace(-1, 1, longitudes)), indexing="ij"
            )
            uv = np.stack([u.reshape(-1), v.reshape(-1)], 1)
        vertex_start.append(first + count)
        face_start.append(face_start[-1] + len(part_faces))
        all_faces.append(part_faces)
        all_uv.append(uv)
    if face_start[-1] > ID_MASK:
        raise ValueError(
            f"a scene may have {ID_MASK} faces, this hand of {len(faces)} faces makes "
            f"{face_start[-1]}; take a hand model of fewer faces"
        )
    latitude = np.linspace(-np.pi / 2, np.pi / 2, latitudes)
    longitude = np.linspace(0, 2 * np.pi, longitudes, endpoint=False)
    grid = np.stack(np.meshgrid(latitude, longitude, indexing="ij"), -1).reshape(-1, 2)
    return Layout(
        np.array(vertex_start),
        np.array(face_start),
        np.ascontiguousarray(np.concatenate(all_faces), np.int32),
        np.repeat(np.arange(len(PARTS), dtype=np.uint8), np.diff(face_start)),
        _f32(np.concatenate(all_uv)),
        _f32(grid),
    )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def rotation_matrix(vector, out):
    """Rodrigues' formula.   vector: (3,) axis-angle radians.   out: (3, 3), filled."""
    x, y, z = np.float64(vector[0]), np.float64(vector[1]), np.float64(vector[2])
    angle = np.sqrt(x * x + y * y + z * z)
    if angle < 1e-8:
        s, c = 1.0, 0.5
    else:
        s, c = np.sin(angle) / angle, (1.0 - np.cos(angle)) / (angle * angle)
    out[0, 0], out[0, 1], out[0, 2] = 1 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y
    out[1, 0], out[1, 1], out[1, 2] = c * x * y + s * z, 1 - c * (x * x + z * z), c * y * z - s * x
    out[2, 0], out[2, 1], out[2, 2] = c * x * z - s * y, c * y * z + s * x, 1 - c * (x * x + y * y)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def blend_shapes(body, poses, betas, shaped):
    """Rest surfaces of many hands with their shape and pose corrections.

    poses: (B, 16, 3) axis-angle.   betas: (B, 10).   shaped: (B, 3 V), filled. Each piece of the
    correction table is read once for all hands, so it stays near the processor.
    """
    batch, count, d = shaped.shape[0], shaped.shape[1], body.directions
    turns, one = np.empty((batch, 16, 9), np.float32), np.float32(1)
    for b in range(batch):
        for j in range(1, 16):
            turn = turns[b, j].reshape(3, 3)
            rotation_matrix(poses[b, j], turn)
            for a in range(3):
                turn[a, a] -= one
    for start in range(0, count, CHUNK):
        first, wide = _U(start), _U(min(CHUNK, count - start))
        for b in range(batch):
            for x in range(wide):
                shaped[b, first + x] = body.template[first + x]
            for k in range(10):
                c = np.float32(betas[b, k])
                for x in range(wide):
                    shaped[b, first + x] += c * d[k, first + x]
            for j in range(1, 16):
                c0, c1, c2 = turns[b, j, 0], turns[b, j, 1], turns[b, j, 2]
                c3, c4, c5 = turns[b, j, 3], turns[b, j, 4], turns[b, j, 5]
                c6, c7, c8 = turns[b, j, 6], turns[b, j, 7], turns[b, j, 8]
                k = 9 * j + 1
                for x in range(wide):
                    i = first + x
                    shaped[b, i] += (
                        (c0 * d[k, i] + c1 * d[k + 1, i] + c2 * d[k + 2, i])
                        + (c3 * d[k + 3, i] + c4 * d[k + 4, i] + c5 * d[k + 5, i])
                        + (c6 * d[k + 6, i] + c7 * d[k + 7, i] + c8 * d[k + 8, i])
                    )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def skin(body, pose, betas, shaped, vertices, joints):
    """Linear blend skinning with shape and pose corrections, as ``HandModel`` defines it.

    pose: (16, 3) axis-angle.   betas: (10,).   shaped: (3 V,) of ``blend_shapes``.
    vertices: (V, 3), joints: (21, 3), filled: metres, wrist at the origin.
    """
    count = vertices.shape[0]
    local = np.empty((16, 3, 3), np.float32)
    rest = body.rest.copy()
    for j in range(16):
        rotation_matrix(pose[j], local[j])
    for k in range(10):
        c = np.float32(betas[k])
        for j in range(16):
            for a in range(3):
                rest[j, a] += c * body.joint_shapes[k, j, a]
    world = np.empty((16, 3, 4), np.float32)
    for j in range(16):
        parent = body.parents[j]
        for a in range(3):
            for b in range(3):
                if parent < 0:
                    world[j, a, b] = local[j, a, b]
                else:
                    world[j, a, b] = (
                        world[parent, a, 0] * local[j, 0, b]
                        + world[parent, a, 1] * local[j, 1, b]
                        + world[parent, a, 2] * local[j, 2, b]
                    )
            if parent < 0:
                world[j, a, 3] = 0.0
            else:
                world[j, a, 3] = world[parent, a, 3] + (
                    world[parent, a, 0] * (rest[j, 0] - rest[parent, 0])
                    + world[parent, a, 1] * (rest[j, 1] - rest[parent, 1])
                    + world[parent, a, 2] * (rest[j, 2] - rest[parent, 2])
                )
        for a in range(3):
            joints[MANO_21[j], a] = world[j, a, 3]
    for j in range(16):  # so that maps act on rest points themselves
        for a in range(3):
            for b in range(3):
                world[j, a, 3] -= world[j, a, b] * rest[j, b]
    maps, blend = world.reshape(16, 12), np.empty(12, np.float32)
    for v in range(count):
        for i in range(12):
            blend[i] = np.float32(0)
        for k in range(body.bone.shape[1]):
            w = body.weight[v, k]
            if w == 0.0:  # the strongest come first
                break
            j = _U(body.bone[v, k])
            for i in range(12):
                blend[i] += w * maps[j, i]
        x, y, z = shaped[3 * v], shaped[3 * v + 1], shaped[3 * v + 2]
        for a in range(3):
            vertices[v, a] = (
                blend[4 * a] * x + blend[4 * a + 1] * y + blend[4 * a + 2] * z + blend[4 * a + 3]
            )
    for k in range(5):
        for a in range(3):
            joints[TIPS[k], a] = vertices[body.tips[k], a]


MANO_21 = tuple(int(j) for j in MANO_TO_21)
TIPS = TIPS_21


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
