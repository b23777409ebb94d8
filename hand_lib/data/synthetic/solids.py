"""Surfaces around a synthetic hand: the forearm, what is worn on it, and solid objects.

Everything is float32 metres in camera axes.
"""

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True, error_model="numpy")
def forearm(rim, frame, bend, side, girth, stations, out):
    """Rings of the forearm that continues the open wrist.

    rim: (R, 3) metres, in order.   frame: (3, 3) columns distal, radial, dorsal.   bend, side:
    radians by which the forearm leaves the hand's direction (palm flexion; towards the thumb).
    girth: how much the arm widens.   out: (S, R, 3), filled; station 0 is the rim itself.
    """
    around = rim.shape[0]
    centre = np.zeros(3, np.float32)
    for i in range(around):
        for a in range(3):
            centre[a] += rim[i, a] / around
    place = centre.copy()
    for s in range(stations.shape[0]):
        d = stations[s]
        t = min(1.0, d / 0.05)
        t = t * t * (3 - 2 * t)
        cb, sb = np.cos(bend * t), np.sin(bend * t)
        cs, ss = np.cos(side * t), np.sin(side * t)
        # axes of the cross-section in the hand's frame: first turned to the side, then bent
        dx, dy, dz = cs * cb, ss, -cs * sb
        rx, ry, rz = -ss * cb, cs, ss * sb
        ux, uy, uz = sb, 0.0, cb
        if s > 0:
            step = d - stations[s - 1]
            for a in range(3):
                place[a] -= step * (frame[a, 0] * dx + frame[a, 1] * dy + frame[a, 2] * dz)
        grow = min(1.0, max(0.0, (d - 0.02) / 0.20))
        grow = grow * grow * (3 - 2 * grow) * girth
        for i in range(around):
            x = y = z = 0.0
            for a in range(3):
                offset = rim[i, a] - centre[a]
                x += offset * frame[a, 0]
                y += offset * frame[a, 1]
                z += offset * frame[a, 2]
            flat = 1.0 - 0.9 * t  # the rim need not be plane; further down the rings are
            x, y, z = x * flat, y * (1 + 0.40 * grow), z * (1 + 0.70 * grow)
            for a in range(3):
                out[s, i, a] = (
                    place[a]
                    + frame[a, 0] * (x * dx + y * rx + z * ux)
                    + frame[a, 1] * (x * dy + y * ry + z * uy)
                    + frame[a, 2] * (x * dz + y * rz + z * uz)
                )


@nb.njit(cache=True, nogil=True, error_model="numpy")
def around_arm(arm, stations, d, i, thickness, frame, out):
    """A point ``thickness`` metres outside the forearm's skin, d metres along, at its i-th side.

    Negative d lies over the hand's root, where the tube is continued straight.
    """
    last = stations.shape[0] - 1
    s = 0
    while s < last - 1 and stations[s + 1] < d:
        s += 1
    t = (d - stations[s]) / (stations[s + 1] - stations[s])
    wide = 1.0
    if d < 0.0:
        t, wide = 0.0, 1.0 - 3.0 * d
    around = arm.shape[1]
    length = 0.0
    centre = np.zeros(3, np.float32)
    for a in range(3):
        for k in range(around):
            centre[a] += (arm[s, k, a] * (1 - t) + arm[s + 1, k, a] * t) / around
        out[a] = arm[s, i, a] * (1 - t) + arm[s + 1, i, a] * t
        length += (out[a] - centre[a]) ** 2
    length = np.sqrt(length) + 1e-9
    for a in range(3):
        out[a] = centre[a] + (out[a] - centre[a]) * (wide + thickness / length)
        if d < 0.0:
            out[a] -= d * frame[a, 0]


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
