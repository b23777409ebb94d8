"""One picture's geometry: place the parts, aim the camera, light the vertices, draw the buffers."""

from typing import NamedTuple

import numba as nb
import numpy as np

from hand_lib.data.synthetic import layout as parts
from hand_lib.render.raster import DEPTH_STEPS, ID_BITS, PAD, draw_faces, make_buffer

SHADOW_SIDE = 96
SHADOW_REACH = 0.17
"""Pixels a side of the lamp's depth map, and metres it covers each way from the hand's middle."""

SCREEN, NORMAL, POINT, SKY, LAMP = 0, 3, 6, 9, 12
"""Columns of ``Scratch.corners`` where each triple starts."""
_F = np.float32
_U = np.uint64  # indices known to be positive: no look whether to count from the end


class Posed(NamedTuple):
    """The hands of a batch of pictures, metres, wrists at the origin, camera axes."""

    vertices: np.ndarray  # (B, V, 3) float32
    joints: np.ndarray  # (B, 21, 3) float32
    second: np.ndarray  # (N, V, 3) float32 of those second hands that there are, as right hands
    second_row: np.ndarray  # (B,) int64 where in ``second`` a picture's second hand stands


class Scratch(NamedTuple):
    """Buffers that are filled again for every picture of a batch; sub-pixels are 2 x 2."""

    points: np.ndarray  # (V, 3) float32, relative to the wrist
    normals: np.ndarray  # (V, 3) float32
    corners: np.ndarray  # (V, 16) float32, what shading interpolates, in one line of memory:
    # x, y in sub-pixels and 1/z; normal; point in camera space; light from all around; x, y seen
    # from the lamp and 1 + metres towards it; nothing
    seen: np.ndarray  # the camera's buffer, 2 S sub-pixels a side (``render.raster``)
    lamp_seen: np.ndarray  # the lamp's buffer
    active: np.ndarray  # (P,) int8: 0 absent, 1 drawn, -1 drawn mirrored


def make_scratch(layout, size: int) -> Scratch:
    """Buffers for pictures of ``size`` pixels a side."""
    count = int(layout.vertex_start[-1])
    vertices = (np.zeros((count, width), np.float32) for width in (3, 3, 16))
    buffers = (make_buffer(side, side) for side in (2 * size, SHADOW_SIDE))
    return Scratch(*vertices, *buffers, np.zeros(len(parts.PARTS), np.int8))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _dress(p, points, arm, frame, first):
    """Rings of a sleeve from vertex ``first`` on, outside the skin of the forearm.

    Those over the hand's root lie where the arm is continued straight.
    """
    around, stations = arm.shape[1], parts.ARM_STATIONS
    for k in range(parts.SLEEVE_STATIONS.shape[0]):
        d, s = p.sleeve_start + parts.SLEEVE_STATIONS[k], 0
        flare = p.sleeve_flare * np.exp(-parts.SLEEVE_STATIONS[k] * 25.0) + 0.0012 * np.sin(k * 2.1)
        while s < stations.shape[0] - 2 and stations[s + 1] < d:
            s += 1
        t, wide = np.float64((d - stations[s]) / (stations[s + 1] - stations[s])), 1.0
        if d < 0.0:
            t, wide = 0.0, 1.0 - 3.0 * d
        ring, centre = arm[s] * (1 - t) + arm[s + 1] * t, np.zeros(3, np.float32)
        for i in range(around):
            centre[:] = centre + ring[i] / around
        offsets = ring.astype(np.float32) - centre
        for i in range(around):
            length = np.sqrt((offsets[i] ** 2).astype(np.float64).sum()) + 1e-9
            out = points[first + k * around + i]
            out[:] = centre + offsets[i] * (wide + (p.sleeve_thickness + flare) / length)
            if d < 0.0:
                out -= d * frame[:, 0]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _limb(p, points, rim, frame, side, first):
    """Forearm behind a hand, its vertices from ``first`` on, and the sleeve that is worn on it.

    side: 1, or -1 where the arm leaves to the other side.
    """
    arm = parts.forearm(points[rim], frame, p.arm_bend, side * p.arm_side, p.arm_girth)
    stop = first + arm[1:].size // 3
    points[first:stop] = arm[1:].copy().reshape(-1, 3)
    if p.sleeve_start < 1.0:
        _dress(p, points, arm, frame, stop)
    if p.arm_cut > 0.0:  # ends in a ring at its length, the rings behind it in the middle of that
        around, last, stations = arm.shape[1], 0, parts.ARM_STATIONS
        length = stations[-1] - p.arm_cut
        while stations[last + 1] <= length:
            last += 1
        t = (length - stations[last]) / (stations[last + 1] - stations[last])
        ring, middle = points[first + last * around : first + (last + 1) * around], np.zeros(3)
        ring[:] = arm[last] * (1 - t) + arm[last + 1] * t
        for i in range(around):
            middle += ring[i] / around
        points[first + (last + 1) * around : stop] = middle


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _grasped(thing, out, grid, joints, frame):
    """A solid where the fingers would hold it, as large as the room between them."""
    centre = 0.3 * joints[9] + 0.25 * joints[12] + 0.2 * joints[8] + 0.25 * joints[4]
    reach, radius = np.sqrt(((joints[12] - joints[9]) ** 2).astype(np.float64).sum()), 0.0
    for k in (6, 10, 14):
        radius += np.sqrt(((joints[k] - centre) ** 2).sum()) / 3
    radius = min(0.05, max(0.008, radius - 0.008))
    opened = min(1.0, max(0.0, (reach - 0.045) / 0.045))
    jitter = thing.turn  # columns: dorsal, distal, radial (the long axis lies across the palm)
    turn = frame[:, 2:] * jitter[0] + frame[:, :1] * jitter[1] + frame[:, 1:2] * jitter[2]
    centre += thing.place - frame[:, 2] * radius * 0.9 * opened
    parts.superquadric(grid, centre, turn, radius * thing.size, thing.roundness, out)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def aim(p, joints, size, root, lens):
    """Where the wrist stands and what the camera sees: a square round the hand.

    joints: (21, 3).   size: pixels.   root: (3,) metres, lens: (3,) focal length, cx, cy in pixels;
    both filled.   returns the middle x, y and the side of the hand's square, tangents.
    """
    root[0], root[1], root[2] = p.distance * p.off_axis[0], p.distance * p.off_axis[1], p.distance
    left, right, top, bottom = 1e9, -1e9, 1e9, -1e9
    for j in range(21):
        z = max(joints[j, 2] + root[2], 0.05)
        x, y = (joints[j, 0] + root[0]) / z, (joints[j, 1] + root[1]) / z
        left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
    bound = max(right - left, bottom - top, 0.06 / root[2])
    side = bound * p.framing
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    lens[0] = size / side
    lens[1] = (size - 1) / 2 - lens[0] * (middle_x - p.shift[0] * side)
    lens[2] = (size - 1) / 2 - lens[0] * (middle_y - p.shift[1] * side)
    return middle_x, middle_y, bound


@nb.njit(cache=True, nogil=True, error_model="numpy")
def place_parts(p, b, posed, layout, scratch, size, root, lens):
    """Fill points (relative to the wrist) and ``active`` for picture b; aim the camera.

    p: its record of ``PARAMETERS``.   posed: ``Posed``.   root, lens: see ``aim``.
    """
    start, points, active = layout.vertex_start, scratch.points, scratch.active
    joints = posed.joints[b]
    worn, two = int(p.sleeve_start < 1.0), p.second  # and in the order of PARTS:
    active[:] = np.array([1, 1, worn, p.object.on, p.occluder.on, two, two, two * worn], np.int8)
    points[: start[1]] = posed.vertices[b]
    middle_x, middle_y, bound = aim(p, joints, size, root, lens)
    _limb(p, points, layout.rim, p.frame, 1, start[parts.ARM])
    if p.object.on > 0:
        out = points[start[parts.OBJECT] : start[parts.OBJECT + 1]]
        _grasped(p.object, out, layout.grid, joints, p.frame)
    if p.occluder.on > 0:
        o = p.occluder
        z = max(0.4 * root[2], root[2] - o.place[2])
        x, y = (middle_x + o.place[0] * bound) * z, (middle_y + o.place[1] * bound) * z
        centre = np.array([x - root[0], y - root[1], z - root[2]])
        out = points[start[parts.OCCLUDER] : start[parts.OCCLUDER + 1]]
        parts.superquadric(layout.grid, centre, o.turn, o.size, o.roundness, out)
    if p.second != 0:
        first, stop = start[parts.HAND2], start[parts.SLEEVE2 + 1]
        points[first : start[parts.HAND2 + 1]] = posed.second[posed.second_row[b]]
        _limb(p, points, layout.rim + first, p.second_frame, -1, start[parts.ARM2])
        points[first:stop, 0] *= p.second  # a left hand is a mirrored right one
        points[first:stop] += p.second_place


@nb.njit(cache=True, nogil=True, error_model="numpy")
def light_vertices(p, layout, scratch, root, lens):
    """Normals, light from all around, places on the screen and seen from the lamp."""
    points, normals, active = scratch.points, scratch.normals, scratch.active
    corners, key, s = scratch.corners, p.key, p.sky
    normals[:] = _F(0)
    # two axes across the lamp's direction
    ax, ay, az = (_F(0), key[2], -key[1]) if abs(key[0]) < 0.7 else (-key[2], _F(0), key[0])
    long = _F(1) / np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax * long, ay * long, az * long
    bx, by, bz = key[1] * az - key[2] * ay, key[2] * ax - key[0] * az, key[0] * ay - key[1] * ax
    middle = np.zeros(3, np.float32)
    for v in range(layout.vertex_start[1]):
        middle += points[v]
    middle *= _F(1) / _F(layout.vertex_start[1])
    per_metre, reach = _F(SHADOW_SIDE / (2 * SHADOW_REACH)), _F(SHADOW_REACH)
    for part in range(active.shape[0]):
        if active[part] != 0:
            first, stop = layout.face_start[part], layout.face_start[part + 1]
            parts.add_normals(points, layout.faces, first, stop, normals)
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
            dx, dy, dz = px - middle[0], py - middle[1], pz - middle[2]
            corners[v, LAMP] = (dx * ax + dy * ay + dz * az + reach) * per_metre
            corners[v, LAMP + 1] = (dx * bx + dy * by + dz * bz + reach) * per_metre
            corners[v, LAMP + 2] = _F(1) + dx * key[0] + dy * key[1] + dz * key[2]
            px, py, pz = px + root[0], py + root[1], pz + root[2]
            corners[v, POINT], corners[v, POINT + 1], corners[v, POINT + 2] = px, py, pz
            w = 1.0 / np.float64(pz) if pz > _F(0.02) else 0.0
            corners[v, SCREEN] = 2 * (px * w * lens[0] + lens[1]) + 0.5
            corners[v, SCREEN + 1] = 2 * (py * w * lens[0] + lens[2]) + 0.5
            corners[v, SCREEN + 2] = w


@nb.njit(cache=True, nogil=True, error_model="numpy")
def draw_buffers(p, layout, scratch, side):
    """Nearest faces as the camera, ``side`` sub-pixels wide, and as the lamp see them."""
    scratch.seen[:] = 0
    scratch.lamp_seen[:] = 0
    for part in range(scratch.active.shape[0]):
        turn = scratch.active[part]
        if turn == 0:
            continue
        first, stop = layout.face_start[part], layout.face_start[part + 1]
        faces = layout.faces[first:stop]
        cull = 0 if part in (parts.SLEEVE, parts.SLEEVE2) else turn
        draw_faces(scratch.corners, SCREEN, faces, first, cull, side, side, scratch.seen)
        if p.shadow > 0:
            # the lamp's axes are left-handed: faces that look at it turn the other way
            lamp, wide = scratch.lamp_seen, SHADOW_SIDE
            draw_faces(scratch.corners, LAMP, faces, first, -cull, wide, wide, lamp)


@nb.njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def share_lit(lamp_seen, u, v, w, step, bias):
    """Share of the lamp that reaches a point: nine looks into its depth map."""
    i, j = int(u), int(v)
    if i < step or j < step or i >= SHADOW_SIDE - step - 1 or j >= SHADOW_SIDE - step - 1:
        return _F(1)
    a, b = u - _F(i), v - _F(j)
    top = np.int64((w + bias) * DEPTH_STEPS) << ID_BITS
    one, none, d = _F(0.5), _F(0), _U(step)
    at, down, total = _U(j * (SHADOW_SIDE + PAD) + i), _U(step * (SHADOW_SIDE + PAD)), none
    for k in range(3):
        m = at + _U(k) * down - down
        line = one if lamp_seen[m] < top else none
        line += (one if lamp_seen[m - d] < top else none) * (_F(1) - a)
        line += (one if lamp_seen[m + d] < top else none) * a
        total += line * (_F(0.5) if k == 1 else _F(0.5) * b if k == 2 else _F(0.5) * (_F(1) - b))
    return total
