"""Skin in detail: what the hand's surface looks like at every spot of its rest pose.

Each face of hand and forearm carries TEXELS x TEXELS spots, found by barycentric coordinates, so no
unwrapping is needed. A spot holds how much it is palm, nail, crease, red, vein, and how mottled;
the picture's own colours and strengths are mixed in later. Lengths in millimetres below.
"""

import numpy as np
from numpy.typing import NDArray

from hand_lib.hand.joints import MANO_FINGERS
from hand_lib.mesh.topology import vertex_normals

TEXELS = 8
CHANNELS = ("palm", "nail", "crease", "red", "vein", "mottle", "fine", "knuckle")

_THUMB_DORSAL = np.array([-0.30, 0.81, 0.50])
# creases of the palm, in units of the palm's length (x distal) and half breadth (y radial)
_PALM_LINES = (
    ((0.62, 0.95), (0.66, 0.45), (0.55, 0.05), (0.33, -0.08), (0.08, 0.06)),  # round the thumb
    ((0.64, 0.90), (0.70, 0.35), (0.66, -0.20), (0.52, -0.75)),  # across the middle
    ((0.97, 0.30), (0.88, 0.02), (0.80, -0.40), (0.77, -0.95)),  # below the fingers
)


def _smooth(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def texel_points(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Rest places of all spots.   returns points (F T T, 3) and barycentrics (T T, 3).

    Spot (i, j) of a face stands for barycentric coordinates a = (i + 1/2) / T, b = (j + 1/2) / T of
    its first two corners; spots beyond the third edge repeat its border.
    """
    i, j = np.meshgrid(np.arange(TEXELS), np.arange(TEXELS), indexing="ij")
    a, b = ((k.ravel() + 0.5) / TEXELS for k in (i, j))
    over = np.maximum(a + b, 1.0)
    a, b = a / over, b / over
    weights = np.stack([a, b, 1 - a - b], axis=1)
    return np.einsum("tk,fkc->ftc", weights, vertices[faces]).reshape(-1, 3), weights


def waves(points: NDArray, period: tuple, seed: int, count: int = 40) -> NDArray:
    """Smooth noise in space with zero mean and unit spread: a sum of plane waves.

    points: (N, 3).   period: (shortest, longest) wave, in the unit of the points.
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.exp(rng.uniform(*np.log(period), count))
    waves_to = (direction * 2 * np.pi / length[:, None]).T.astype(np.float32)
    phase = points.astype(np.float32) @ waves_to + rng.uniform(0, 2 * np.pi, count).astype(
        np.float32
    )
    return np.cos(phase).sum(axis=1) * np.sqrt(2.0 / count)


def _line_distance(points, line):
    """Distance (N,) of points (N, 2) from a polyline."""
    best = np.full(len(points), np.inf, np.float32)
    line = line.astype(np.float32)
    for start, end in zip(line[:-1], line[1:], strict=True):
        along = end - start
        t = np.clip((points - start) @ along / (along @ along), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - start - t[:, None] * along, axis=1))
    return best


def _spline(points, steps=5):
    """A denser polyline through the points (Catmull-Rom)."""
    points = np.asarray(points, float)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
                   + (3 * b - a - 3 * c + d) * t**3)
        )  # fmt: skip
    return np.concatenate([*pieces, points[-1:]])


def skin_atlas(body, faces: NDArray, weights: NDArray, arm_vertices: NDArray, arm_faces) -> NDArray:
    """Channels of every spot of hand and forearm.

    body: ``synthetic_body.Body``.   faces: (F, 3) of the hand.   weights: (V, 16) skin weights.
    arm_vertices: (A, 3) forearm at rest, metres.   arm_faces: (G, 3), indices below V mean the
    hand's vertices, V + i the arm's.
    returns ((F + G) T T, 8) uint8 in the order of ``CHANNELS``; mottle, fine and red are 128 where
    neutral.
    """
    hand = body.template.reshape(-1, 3).astype(float)
    origin, axes = body.rest[0].astype(float), body.axes.astype(float)
    local = (
        (np.concatenate([hand, arm_vertices]) - origin) @ axes * 1000
    )  # x distal, y radial, z dorsal
    rest = (body.rest - body.rest[0]).astype(float) @ axes * 1000
    tips = (hand[body.tips] - origin) @ axes * 1000
    everything = np.concatenate([faces, arm_faces])
    points, bary = texel_points(local, everything)
    points = points.astype(np.float32)
    normals = vertex_normals(local, everything)
    normal = np.einsum("tk,fkc->ftc", bary, normals[everything]).reshape(-1, 3)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    normal = normal.astype(np.float32)
    arm_weights = np.zeros((len(arm_vertices), 16))
    arm_weights[:, 0] = 1
    skin = np.concatenate([weights, arm_weights])
    share = np.einsum("tk,fkc->ftc", bary, skin[everything]).reshape(-1, 16).astype(np.float32)

    nail, crease, knuckle = (np.zeros(len(points), np.float32) for _ in range(3))
    red = np.zeros(len(points), np.float32)
    finger_palm = np.zeros(len(points), np.float32)
    on_finger = np.zeros(len(points), np.float32)
    for number, (name, joints) in enumerate(MANO_FINGERS.items()):
        chain = np.concatenate([rest[list(joints)], tips[number : number + 1]])
        belongs = _smooth(0.3, 0.7, share[:, list(joints)].sum(axis=1))
        dorsal = _THUMB_DORSAL if name == "thumb" else np.array([0, 0, 1.0])
        if name == "little":
            dorsal = np.array([0, -0.22, 1.0])
        for level in range(3):
            start, end = chain[level], chain[level + 1]
            length = np.linalg.norm(end - start)
            along = ((end - start) / length).astype(np.float32)
            up = dorsal - along * (along @ dorsal)
            up /= np.linalg.norm(up)
            up, across = up.astype(np.float32), np.cross(up, along).astype(np.float32)
            offset = points - start.astype(np.float32)
            a, s = offset @ along, offset @ across
            back = normal @ up
            nearest = share[:, joints[level]] > 0.35
            palmar = belongs * _smooth(0.1, -0.45, back)
            dorsal_side = belongs * _smooth(0.05, 0.5, back)
            if level > 0:  # the joint between this segment and the one before
                window = np.exp(-((a / 7.0) ** 2))
                for shift, depth in ((0.0, 1.0), (2.4 if level == 1 else 99.0, 0.6)):
                    bow = 0.012 * s * s
                    crease = np.maximum(
                        crease, depth * palmar * np.exp(-(((a - shift + bow) / 0.75) ** 2))
                    )
                ripple = 0.5 + 0.5 * np.cos(2 * np.pi * (a + 0.02 * s * s) / 2.6)
                wide = 6.5 if level == 1 else 4.0
                knuckle = np.maximum(
                    knuckle, dorsal_side * np.exp(-((a / wide) ** 2)) * (0.25 + 0.75 * ripple**3)
                )
                red += 0.55 * dorsal_side * window
            elif name != "thumb":
                web = 0.42 * length
                bow = 0.01 * s * s
                crease = np.maximum(crease, palmar * np.exp(-(((a - web + bow) / 0.8) ** 2)))
                red += 0.5 * dorsal_side * np.exp(-((a / 9.0) ** 2))
            if level == 2:
                wide = 6.6 if name == "thumb" else 5.2 if name != "little" else 4.5
                tall, middle = 0.27 * length, 0.66 * length
                super_ellipse = ((a - middle) / tall) ** 4 + (s / wide) ** 4
                face_up = _smooth(0.15, 0.45, back) * nearest
                nail = np.maximum(nail, face_up * _smooth(1.25, 0.85, super_ellipse))
                fold = face_up * np.exp(-(((super_ellipse - 1.35) / 0.35) ** 2))
                crease = np.maximum(crease, 0.55 * fold * (a < middle + 0.8 * tall))
                red += 0.7 * belongs * _smooth(0.35, 0.8, a / length) * (1 - face_up)
        finger_palm += belongs * _smooth(0.15, -0.35, normal @ dorsal)
        on_finger += belongs

    palm_length = rest[4, 0]
    half = 0.5 * (rest[1, 1] - rest[7, 1]) + 9
    middle = 0.5 * (rest[1, 1] + rest[7, 1])
    plane = np.stack([points[:, 0] / palm_length, (points[:, 1] - middle) / half], axis=1)
    palm_side = (1 - np.clip(on_finger, 0, 1)) * _smooth(0.05, -0.35, normal[:, 2])
    scale = np.array([palm_length, half], np.float32)
    for line in _PALM_LINES:
        distance = _line_distance(plane * scale, _spline(line) * scale)
        crease = np.maximum(crease, 0.9 * palm_side * np.exp(-((distance / 0.95) ** 2)))
    for x in (-3.0, -7.5):  # bracelets of the wrist
        bow = 0.006 * points[:, 1] ** 2
        crease = np.maximum(
            crease, 0.6 * palm_side * np.exp(-(((points[:, 0] - x - bow) / 1.0) ** 2))
        )
    behind = _smooth(-25, 5, points[:, 0])
    palm = np.clip(palm_side * behind + finger_palm, 0, 1)
    palm = np.maximum(palm, 0.25 * palm_side)
    red += 0.55 * palm_side * behind * _smooth(8, 30, np.abs(points[:, 1] - middle))

    dorsal_hand = (1 - np.clip(on_finger, 0, 1)) * _smooth(0.0, 0.5, normal[:, 2])
    inner_arm = _smooth(5, -25, points[:, 0]) * 0.5
    stretched = points * [0.45, 1.0, 1.0]
    ridge = 1 - np.abs(waves(stretched, (22.0, 40.0), 5))
    vein = _smooth(0.72, 0.98, ridge) * np.maximum(dorsal_hand, inner_arm * palm_side)
    mottle = waves(points, (9.0, 35.0), 1)
    fine = waves(points, (4.0, 10.0), 2, 60)
    # wrinkles across the back of the hand and the arm
    knuckle = np.maximum(
        knuckle, 0.25 * dorsal_hand * _smooth(0.4, 1.4, waves(points, (3.0, 7.0), 3))
    )
    channels = [palm, nail, crease, 0.5 + 0.33 * red, vein]
    channels += [0.5 + 0.2 * mottle, 0.5 + 0.2 * fine, knuckle]
    return np.round(np.clip(np.stack(channels, axis=1), 0, 1) * 255).astype(np.uint8)
