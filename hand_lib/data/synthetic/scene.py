"""One picture's geometry: place the parts, aim the camera, light the vertices, draw the buffers."""

from typing import NamedTuple

import numba as nb
import numpy as np

from hand_lib.data.synthetic.layout import (
    ARM,
    ARM_STATIONS,
    BAND_RINGS,
    HAND,
    HAND2,
    OBJECT,
    OCCLUDER,
    PARTS,
    RING,
    SLEEVE,
    SLEEVE2,
    SLEEVE_STATIONS,
    WATCH,
    add_normals,
    blend_shapes,
    rotation_matrix,
    skin,
)
from hand_lib.data.synthetic.solids import around_arm, forearm, superquadric
from hand_lib.hand.joints import FINGERS, MANO_FINGERS
from hand_lib.render.raster import draw_faces, make_buffer

SHADOW_SIDE = 96
SHADOW_REACH = 0.17
"""Pixels a side of the lamp's depth map, and metres it covers each way from the hand's middle."""

_BAND = (0.0, 1.0, 1.0, 0.0)
_BASES = tuple(chain[0] for chain in FINGERS.values())
_FIRST_BONES = tuple(chain[0] for chain in MANO_FINGERS.values())
"""Per finger its first joint, in the 21 order and in MANO's."""


SCREEN, NORMAL, POINT, SKY, LAMP = 0, 3, 6, 9, 12
"""Columns of ``Scratch.corners`` where each triple starts."""
_F = np.float32
_U = np.uint64  # places known to be positive: no look whether to count from the end


class Scratch(NamedTuple):
    """Buffers that one worker fills again for every picture; sub-pixels are 2 x 2."""

    points: np.ndarray  # (V, 3) float32, relative to the wrist
    normals: np.ndarray  # (V, 3) float32
    corners: np.ndarray  # (V, 16) float32, what shading interpolates, in one line of memory:
    # x, y in sub-pixels and 1/z; normal; point in camera space; light from all around; x, y seen
    # from the lamp and 1 + metres towards it; nothing
    seen: np.ndarray  # the camera's buffer, 2 S sub-pixels a side (``render.raster``)
    lamp_seen: np.ndarray  # the lamp's buffer
    arm: np.ndarray  # (stations, R, 3) float32
    active: np.ndarray  # (P,) int8: 0 absent, 1 drawn, -1 drawn mirrored
    canvas: np.ndarray  # (3, S, S) float32 sRGB 0 to 255
    spare: np.ndarray  # (3, S, S) float32
    cast: np.ndarray  # (34, 34) float32 how much of the hand covers a cell


def make_scratch(layout, size: int) -> Scratch:
    """Buffers for pictures of ``size`` pixels a side."""
    count, rim = int(layout.vertex_start[-1]), int(layout.vertex_start[2] - layout.vertex_start[1])
    around = rim // (len(ARM_STATIONS) - 1)

    def floats(*shape):
        return np.zeros(shape, np.float32)

    return Scratch(
        floats(count, 3), floats(count, 3), floats(count, 16),
        make_buffer(2 * size, 2 * size), make_buffer(SHADOW_SIDE, SHADOW_SIDE),
        floats(len(ARM_STATIONS), around, 3), np.zeros(len(PARTS), np.int8),
        floats(3, size, size), floats(3, size, size), floats(34, 34),
    )  # fmt: skip


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _dress(points, arm, frame, first, sleeve, stations):
    """Rings of a sleeve from vertex ``first`` on."""
    around = arm.shape[1]
    for s in range(stations.shape[0]):
        d = sleeve[0] + stations[s]
        flare = sleeve[2] * np.exp(-stations[s] * 25.0) + 0.0012 * np.sin(s * 2.1)
        for i in range(around):
            out = points[first + s * around + i]
            around_arm(arm, ARM_STATIONS, d, i, sleeve[1] + flare, frame, out)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _limb(points, rim, arm, frame, angles, cut, first):
    """Forearm behind a hand whose vertices start at ``first - V``; also fills ``arm``.

    cut: metres that are missing at its end, which is closed; ``arm`` is whole all the same.
    """
    around = rim.shape[0]
    border = np.empty((around, 3), np.float32)
    for i in range(around):
        for a in range(3):
            border[i, a] = points[rim[i], a]
    forearm(border, frame, angles[0], angles[1], angles[2], ARM_STATIONS, arm)
    for s in range(1, arm.shape[0]):
        for i in range(around):
            for a in range(3):
                points[first + (s - 1) * around + i, a] = arm[s, i, a]
    if cut > 0.0:
        _cut_limb(points, arm, ARM_STATIONS[-1] - cut, first)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _cut_limb(points, arm, length, first):
    """End a forearm at ``length`` metres: a ring there, and the rings behind it in its middle."""
    around, last = arm.shape[1], 0
    while ARM_STATIONS[last + 1] <= length:
        last += 1
    t = (length - ARM_STATIONS[last]) / (ARM_STATIONS[last + 1] - ARM_STATIONS[last])
    ring, middle = points[first + last * around : first + (last + 1) * around], np.zeros(3)
    for i in range(around):
        for a in range(3):
            ring[i, a] = arm[last, i, a] * (1 - t) + arm[last + 1, i, a] * t
            middle[a] += ring[i, a] / around
    for v in range(first + (last + 1) * around, first + (arm.shape[0] - 1) * around):
        for a in range(3):
            points[v, a] = middle[a]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _frame(body, pose, out):
    """Columns distal, radial, dorsal of the hand in camera axes."""
    turn = np.empty((3, 3), np.float64)
    rotation_matrix(pose[0], turn)
    for a in range(3):
        for b in range(3):
            out[a, b] = (
                turn[a, 0] * body.axes[0, b]
                + turn[a, 1] * body.axes[1, b]
                + turn[a, 2] * body.axes[2, b]
            )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _finger_ring(points, first, around, joints, frame, body, ring):
    finger = int(ring[0])
    base = _BASES[finger]
    first_bone = _FIRST_BONES[finger]
    along, across, up = np.empty(3), np.empty(3), np.empty(3)
    length = rest = 0.0
    for a in range(3):
        along[a] = joints[base + 1, a] - joints[base, a]
        length += along[a] * along[a]
        rest += (body.rest[first_bone + 1, a] - body.rest[first_bone, a]) ** 2
    length, rest = np.sqrt(length), np.sqrt(rest)
    for a in range(3):
        along[a] /= length
    wide = 0.0
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        across[a] = along[b] * frame[c, 2] - along[c] * frame[b, 2]
        wide += across[a] * across[a]
    for a in range(3):
        across[a] /= np.sqrt(wide) + 1e-9
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        up[a] = across[b] * along[c] - across[c] * along[b]
    scale = length / rest
    for s in range(BAND_RINGS):
        place = ring[1] * length - ring[2] * (s / 3.0 - 0.5)
        radius = body.finger_radius[finger] * scale + ring[3] * _BAND[s] * 2.0 - 0.0004
        for i in range(around):
            angle = 2 * np.pi * i / around
            for a in range(3):
                round_part = np.cos(angle) * across[a] + np.sin(angle) * up[a]
                points[first + s * around + i, a] = (
                    joints[base, a] + place * along[a] + radius * round_part
                )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _grasped(points, first, grid, joints, frame, thing):
    centre = np.zeros(3)
    for a in range(3):
        centre[a] = (
            0.3 * joints[9, a] + 0.25 * joints[12, a] + 0.2 * joints[8, a] + 0.25 * joints[4, a]
        )
    radius = 0.0
    reach = 0.0
    for a in range(3):
        reach += (joints[12, a] - joints[9, a]) ** 2
    for k in (6, 10, 14):
        far = 0.0
        for a in range(3):
            far += (joints[k, a] - centre[a]) ** 2
        radius += np.sqrt(far) / 3
    radius = min(0.05, max(0.008, radius - 0.008))
    opened = min(1.0, max(0.0, (np.sqrt(reach) - 0.045) / 0.045))
    turn, jitter = np.empty((3, 3)), np.empty((3, 3))
    rotation_matrix(thing[6:9], jitter)
    for a in range(3):  # columns: dorsal, distal, radial (the long axis lies across the palm)
        for b in range(3):
            turn[a, b] = (
                frame[a, 2] * jitter[0, b] + frame[a, 0] * jitter[1, b] + frame[a, 1] * jitter[2, b]
            )
        centre[a] += thing[9 + a] - frame[a, 2] * radius * 0.9 * opened
    size = radius * thing[3:6].astype(np.float64)
    superquadric(grid, centre, turn, size, thing[1:3], points[first : first + grid.shape[0]])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def place_shaped(p, body, layout, scratch, shaped, joints, second_joints, root, view):
    """Fill points (relative to the wrist) and ``active``; aim the camera.

    p: one record of ``PARAMETERS``.   shaped: (3 V,) of ``blend_shapes``.   joints: (21, 3), root:
    (3,), view: (3,) focal, cx, cy in pixels; all filled.
    """
    start, points, active = layout.vertex_start, scratch.points, scratch.active
    hand_vertices = start[1]
    around = body.rim.shape[0]
    active[:] = 0
    skin(body, p.pose, p.betas, shaped, points[:hand_vertices], joints)
    root[0], root[1], root[2] = p.distance * p.off_axis[0], p.distance * p.off_axis[1], p.distance
    left, right, top, bottom = 1e9, -1e9, 1e9, -1e9
    for j in range(21):
        z = max(joints[j, 2] + root[2], 0.05)
        x, y = (joints[j, 0] + root[0]) / z, (joints[j, 1] + root[1]) / z
        left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
    bound = max(right - left, bottom - top, 0.06 / root[2])
    side = bound * p.framing
    size = scratch.canvas.shape[1]
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    view[0] = size / side
    view[1] = (size - 1) / 2 - view[0] * (middle_x - p.shift[0] * side)
    view[2] = (size - 1) / 2 - view[0] * (middle_y - p.shift[1] * side)

    frame = np.empty((3, 3), np.float32)
    _frame(body, p.pose, frame)
    active[HAND] = active[ARM] = 1
    _limb(points, body.rim, scratch.arm, frame, p.arm, p.forearm_cut, start[ARM])
    if p.sleeve[0] < 1.0:
        active[SLEEVE] = 1
        _dress(points, scratch.arm, frame, start[SLEEVE], p.sleeve, SLEEVE_STATIONS)
    if p.watch[0] < 1.0:
        active[WATCH] = 1
        for s in range(BAND_RINGS):
            d = p.watch[0] + p.watch[1] * s / (BAND_RINGS - 1)
            for i in range(around):
                thick = (0.0005 + p.watch[2]) * _BAND[s]
                out = points[start[WATCH] + s * around + i]
                facing = 0.0
                for a in range(3):
                    out[a] = scratch.arm[1, i, a] - scratch.arm[1, (i + around // 2) % around, a]
                length = np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2) + 1e-9
                for a in range(3):
                    facing += out[a] * frame[a, 2] / length
                if facing > 0.72:
                    thick += p.watch[3] * _BAND[s]
                around_arm(scratch.arm, ARM_STATIONS, d, i, thick, frame, out)
    if p.ring[0] >= 0:
        active[RING] = 1
        _finger_ring(points, start[RING], around, joints, frame, body, p.ring)
    if p.object[0] > 0:
        active[OBJECT] = 1
        _grasped(points, start[OBJECT], layout.grid, joints, frame, p.object)
    if p.occluder[0] > 0:
        active[OCCLUDER] = 1
        o = p.occluder
        turn, centre = np.empty((3, 3)), np.empty(3)
        rotation_matrix(o[6:9], turn)
        z = max(0.4 * root[2], root[2] - o[11])
        centre[0] = (middle_x + o[9] * bound) * z - root[0]
        centre[1] = (middle_y + o[10] * bound) * z - root[1]
        centre[2] = z - root[2]
        first = start[OCCLUDER]
        out = points[first : first + layout.grid.shape[0]]
        superquadric(layout.grid, centre, turn, o[3:6].astype(np.float64), o[1:3], out)
    if p.second[0] > 0:
        _second(p, body, layout, scratch, second_joints, frame)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _shape_one(body, pose, betas):
    poses, shape = np.empty((1, 16, 3), np.float32), np.empty((1, 10), np.float32)
    for k in range(10):
        shape[0, k] = betas[k]
    for j in range(16):
        for a in range(3):
            poses[0, j, a] = pose[j, a]
    shaped = np.empty((1, body.template.shape[0]), np.float32)
    blend_shapes(body, poses, shape, shaped)
    return shaped[0]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def place_parts(p, body, layout, scratch, joints, second_joints, root, view):
    """``place_shaped`` for one record alone."""
    shaped = _shape_one(body, p.pose, p.betas)
    place_shaped(p, body, layout, scratch, shaped, joints, second_joints, root, view)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _second(p, body, layout, scratch, joints, frame):
    start, points, active = layout.vertex_start, scratch.points, scratch.active
    first, stop = start[HAND2], start[SLEEVE2 + 1]
    shaped, vertices = _shape_one(body, p.second_pose, p.second_betas), first + start[1]
    skin(body, p.second_pose, p.second_betas, shaped, points[first:vertices], joints)
    _frame(body, p.second_pose, frame)
    angles, arm_start = p.second[5:8], start[HAND2 + 1]
    _limb(points, body.rim + first, scratch.arm, frame, angles, p.forearm_cut, arm_start)
    mirror = p.second[1] > 0
    active[HAND2] = active[HAND2 + 1] = -1 if mirror else 1
    if p.second_sleeve[0] < 1.0:
        active[SLEEVE2] = -1 if mirror else 1
        _dress(points, scratch.arm, frame, start[SLEEVE2], p.second_sleeve, SLEEVE_STATIONS)
    for v in range(first, stop):
        if mirror:
            points[v, 0] = -points[v, 0]
        for a in range(3):
            points[v, a] += p.second[2 + a]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def light_vertices(p, layout, scratch, root, view):
    """Normals, light from all around, places on the screen and seen from the lamp."""
    points, normals, active = scratch.points, scratch.normals, scratch.active
    corners, key, s = scratch.corners, p.key, p.sky
    normals[:] = _F(0)
    # two axes across the lamp's direction
    ax, ay, az = (_F(0), key[2], -key[1]) if abs(key[0]) < 0.7 else (-key[2], _F(0), key[0])
    long = _F(1) / np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax * long, ay * long, az * long
    bx, by, bz = key[1] * az - key[2] * ay, key[2] * ax - key[0] * az, key[0] * ay - key[1] * ax
    mx, my, mz = _F(0), _F(0), _F(0)
    count = layout.vertex_start[1]
    share = _F(1) / _F(count)
    for v in range(count):
        mx, my, mz = mx + points[v, 0], my + points[v, 1], mz + points[v, 2]
    mx, my, mz = mx * share, my * share, mz * share
    per_metre, reach = _F(SHADOW_SIDE / (2 * SHADOW_REACH)), _F(SHADOW_REACH)
    kx, ky, kz = key[0], key[1], key[2]
    rx, ry, rz = root[0], root[1], root[2]
    for part in range(active.shape[0]):
        if active[part] != 0:
            first, stop = layout.face_start[part], layout.face_start[part + 1]
            add_normals(points, layout.faces, first, stop, normals)
    for part in range(active.shape[0]):
        if active[part] == 0:
            continue
        sign = _F(active[part])
        for i in range(layout.vertex_start[part], layout.vertex_start[part + 1]):
            v = _U(i)
            x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
            length = sign / (np.sqrt(x * x + y * y + z * z) + _F(1e-12))
            x, y, z = x * length, y * length, z * length
            normals[v, 0], normals[v, 1], normals[v, 2] = x, y, z
            corners[v, NORMAL], corners[v, NORMAL + 1], corners[v, NORMAL + 2] = x, y, z
            h1, h2, h3 = _F(0.488603) * y, _F(0.488603) * z, _F(0.488603) * x
            h4, h5, h7 = _F(1.092548) * x * y, _F(1.092548) * y * z, _F(1.092548) * x * z
            h6 = _F(0.315392) * (_F(3) * z * z - _F(1))
            h8 = _F(0.546274) * (x * x - y * y)
            for c in range(3):
                light = _F(0.282095) * s[0, c] + h1 * s[1, c] + h2 * s[2, c] + h3 * s[3, c]
                light += h4 * s[4, c] + h5 * s[5, c] + h6 * s[6, c] + h7 * s[7, c] + h8 * s[8, c]
                corners[v, SKY + c] = max(light, _F(0.03))
            px, py, pz = points[v, 0], points[v, 1], points[v, 2]
            dx, dy, dz = px - mx, py - my, pz - mz
            corners[v, LAMP] = (dx * ax + dy * ay + dz * az + reach) * per_metre
            corners[v, LAMP + 1] = (dx * bx + dy * by + dz * bz + reach) * per_metre
            corners[v, LAMP + 2] = _F(1) + dx * kx + dy * ky + dz * kz
            px, py, pz = px + rx, py + ry, pz + rz
            corners[v, POINT], corners[v, POINT + 1], corners[v, POINT + 2] = px, py, pz
            w = 1.0 / np.float64(pz) if pz > _F(0.02) else 0.0
            corners[v, SCREEN] = 2 * (px * w * view[0] + view[1]) + 0.5
            corners[v, SCREEN + 1] = 2 * (py * w * view[0] + view[2]) + 0.5
            corners[v, SCREEN + 2] = w


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_buffers(p, layout, scratch):
    """Nearest faces as the camera sees them and as the lamp sees them."""
    scratch.seen[:] = 0
    scratch.lamp_seen[:] = 0
    shadow, side = p.shadow[0] > 0, 2 * scratch.canvas.shape[1]
    for part in range(scratch.active.shape[0]):
        turn = scratch.active[part]
        if turn == 0:
            continue
        first, stop = layout.face_start[part], layout.face_start[part + 1]
        faces = layout.faces[first:stop]
        cull = 0 if part in (SLEEVE, SLEEVE2, WATCH, RING) else turn
        draw_faces(scratch.corners, SCREEN, faces, first, cull, side, side, scratch.seen)
        if shadow and part not in (WATCH, RING):
            # the lamp's axes are left-handed: faces that look at it turn the other way
            turned = 0 if cull == 0 else -turn
            draw_faces(
                scratch.corners, LAMP, faces, first, turned, SHADOW_SIDE, SHADOW_SIDE,
                scratch.lamp_seen,
            )  # fmt: skip
