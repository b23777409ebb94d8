"""From knobs to the numbers of each picture: poses, viewpoints, skin, clothes, light, camera."""

import numpy as np
from numpy.typing import NDArray

from hand_lib.data.synthetic.config import PARAMETERS, Draws, SyntheticConfig
from hand_lib.data.synthetic.layout import ARM_STATIONS

SKIN_TONES = np.array(
    [(248, 222, 205), (240, 205, 180), (226, 180, 150), (205, 152, 118), (170, 118, 86),
     (132, 88, 62), (98, 63, 45), (66, 44, 35)], float
)  # fmt: skip
"""sRGB, lightest to darkest; pictures interpolate and vary them."""


def linear(srgb):
    """sRGB 0 to 255 -> linear light 0 to 1 (exponent 2.2)."""
    return (np.clip(srgb, 0, 255) / 255.0) ** 2.2


def rotations_from(vectors: NDArray) -> NDArray:
    """Axis-angle (B, 3) -> (B, 3, 3)."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[..., 0], 1e-12)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def vectors_from(rotations: NDArray) -> NDArray:
    """(B, 3, 3) -> axis-angle (B, 3), by unit quaternions."""
    m = rotations
    diagonal = np.stack([m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], 1)
    trace = diagonal.sum(1)
    square = np.concatenate([1 + trace[:, None], 1 - trace[:, None] + 2 * diagonal], 1)
    best = square.argmax(1)
    off = np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], 1)
    add = m + m.transpose(0, 2, 1)
    rows = np.empty((len(m), 4, 4))
    rows[:, 0, 0], rows[:, 0, 1:] = square[:, 0], off
    for k in range(3):
        rows[:, k + 1, 0], rows[:, k + 1, 1:] = off[:, k], add[:, k]
        rows[:, k + 1, k + 1] = square[:, k + 1]
    q = rows[np.arange(len(m)), best]
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    q *= np.where(q[:, :1] < 0, -1, 1)
    sine = np.linalg.norm(q[:, 1:], axis=1)
    angle = 2 * np.arctan2(sine, q[:, 0])
    return q[:, 1:] * (angle / np.maximum(sine, 1e-12))[:, None]


def _about(axis, angle):
    vectors = np.zeros((len(angle), 3))
    vectors[:, axis] = angle
    return rotations_from(vectors)


def viewpoint_rotations(config: SyntheticConfig, draws: Draws, purpose: str = "view") -> NDArray:
    """Rotations (B, 3, 3) that take distal, radial, dorsal of the hand into camera axes.

    "photographs": the hand's long axis points mostly up, to a side or down in the image, the palm,
    the back or an edge faces the camera, and it tilts out of the image plane. "sphere": uniform.
    """
    u = draws.uniform(purpose, 8)
    n = draws.normal(purpose + "-spread", 4)
    if config.viewpoints == "sphere":
        a, b, c = np.sqrt(1 - u[:, 0]), np.sqrt(u[:, 0]), 2 * np.pi * u[:, 1:3]
        x, y = a * np.sin(c[:, 0]), a * np.cos(c[:, 0])
        z, w = b * np.sin(c[:, 1]), b * np.cos(c[:, 1])
        rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
                2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]  # fmt: skip
        return np.stack(rows, 1).reshape(-1, 3, 3)
    spread = np.deg2rad(config.in_plane_deg)
    edges = np.cumsum([config.up_share, config.side_share, config.down_share])
    kind = (u[:, :1] >= edges).sum(axis=1)
    side = np.where(u[:, 1] < 0.5, -1, 1)
    middle = np.choose(kind, [0 * side, side * np.pi / 2, 0 * side + np.pi, 2 * np.pi * u[:, 2]])
    in_plane = middle + spread * n[:, 0] * np.choose(kind, [1, 1, 1.3, 1])
    edges = np.cumsum([config.palm_share, config.back_share])
    kind = (u[:, 3:4] >= edges).sum(axis=1)
    edge = np.where(u[:, 4] < 0.6, 1, -1) * np.pi / 2
    turn = (
        np.choose(kind, [np.pi + 0 * edge, 0 * edge, edge]) + np.deg2rad(config.turn_deg) * n[:, 1]
    )
    tail = np.where(u[:, 5] < 0.15, np.pi * 0.42 * (2 * u[:, 6] - 1), 0)
    tilt = np.deg2rad(config.tilt_deg) * n[:, 2] + tail
    # fingers up, back of the hand to the camera: distal -y, radial -x, dorsal -z
    start = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]], float)
    return _about(2, in_plane) @ _about(0, tilt) @ start @ _about(0, turn)


def mix_poses(draws: Draws, config: SyntheticConfig, banks, purpose: str) -> NDArray:
    """Poses (B, 16, 3): one of the banks', or on the way between two of them.

    banks: ``synthetic.Banks``, with poses of the prior and named gestures.   purpose: whose hand.
    """
    free, gestures, share = banks.poses, banks.gestures, config.gestures
    batch = len(draws.keys)
    picks = []
    for k in (1, 2):
        named = draws.chance(f"{purpose}{k}", share)[:, None, None]
        one = gestures[draws.whole(f"{purpose}{k}-gesture", len(gestures))]
        picks.append(np.where(named, one, free[draws.whole(f"{purpose}{k}-free", len(free))]))
    u = draws.uniform(purpose + "-way", 2)
    way = np.where(u[:, 0] < 1 - config.between, 0.0, u[:, 1])[:, None, None]
    pose = picks[0] * (1 - way) + picks[1] * way
    jitter = draws.normal(purpose + "-jitter", 48).reshape(batch, 16, 3)
    pose = pose + np.deg2rad(1.5) * jitter * banks.moves
    pose[:, 0] = 0
    return pose


def _tone(draws, config, purpose):
    place = draws.uniform(purpose, None, *config.skin_tone) * (len(SKIN_TONES) - 1)
    low = np.minimum(place.astype(int), len(SKIN_TONES) - 2)
    part = (place - low)[:, None]
    srgb = SKIN_TONES[low] * (1 - part) + SKIN_TONES[low + 1] * part
    warm = draws.normal(purpose + "-warm", 2)
    srgb = srgb * (1 + 0.04 * warm[:, :1]) + warm[:, 1:] * np.array([3.0, -1.5, -5.0])
    return linear(srgb)


def _cloth(draws, purpose, tiles):
    """Linear colour, tile, tile scale, share of the pattern."""
    u = draws.uniform(purpose, 8)
    grey = 8 + 235 * u[:, :1] ** 1.2
    tint = u[:, 1:4] - u[:, 1:4].mean(axis=1, keepdims=True)
    colour = linear(grey + tint * 260 * u[:, 4:5] ** 2)
    pattern = np.where(u[:, 5] < 0.45, 0.15 + 0.75 * u[:, 6], 0.04)
    scale = 0.15 + 0.85 * draws.uniform(purpose + "-scale")
    return np.column_stack([colour, draws.whole(purpose + "-tile", tiles), scale, pattern, u[:, 7]])


def _harmonics(directions):
    """Real spherical harmonics up to order 2 at unit directions (B, 3) -> (B, 9)."""
    x, y, z = directions.T
    one = np.ones_like(x)
    return np.stack(
        [0.282095 * one, 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y,
         1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z,
         0.546274 * (x * x - y * y)], 1
    )  # fmt: skip


_COSINE = np.array([np.pi, *[2 * np.pi / 3] * 3, *[np.pi / 4] * 5])  # Ramamoorthi, Hanrahan 2001


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _temperature(u, strength=1.0):
    """Lamp colours (B, 3) from warm to cool, luminance about 1."""
    t = (u - 0.5)[:, None] * strength
    return np.exp(t * np.array([0.55, 0.0, -0.75]))


def _light(config, draws, out):
    n, u = draws.normal("lamp", 6), draws.uniform("lamp-level", 8)
    key = n[:, :3] * [1.0, 0.8, 0.7] + [0, -0.75, -0.75]  # mostly above and before the hand
    out["key"] = _unit(key)
    low, high = config.key_light
    direct = low * (high / max(low, 1e-6)) ** u[:, 0] if low > 0 else high * u[:, 0]
    out["key_colour"] = direct[:, None] * _temperature(u[:, 1], config.lamp_warmth)
    sky = np.zeros((len(u), 9, 3))
    lobes = [
        (np.tile([0, -1.0, -0.2], (len(u), 1)), config.sky_above, u[:, 2], u[:, 3]),
        (n[:, 3:6], config.sky_anywhere, u[:, 4], u[:, 5]),
        (np.tile([0, 1.0, -0.1], (len(u), 1)), config.sky_below, u[:, 6], 0.25 + 0.5 * u[:, 7]),
    ]
    for direction, (low, high), place, warmth in lobes:
        strength = low + (high - low) * place
        weights = _harmonics(_unit(direction)) * _COSINE / np.pi
        colour = _temperature(warmth, config.sky_warmth)
        sky += (weights * strength[:, None])[..., None] * colour[:, None]
    even = draws.uniform("sky-even", None, *config.sky_even)
    sky[:, 0] += even[:, None] / 0.282095
    # a surface that faces the camera receives about 1 in all, whatever the lamps are
    facing = np.array([[0, -0.35, -0.94]])
    level = np.einsum("k,bkc->bc", _harmonics(facing)[0], sky).mean(1)
    level += 0.8 * direct * np.clip(out["key"] @ facing[0], 0.15, 1)
    gain = np.exp(config.exposure * draws.normal("exposure") - 0.08) / level
    out["sky"] = sky * gain[:, None, None]
    out["key_colour"] *= gain[:, None]
    gloss = draws.uniform("gloss", 2)
    low, high = config.specular
    out["gloss"][:, 0] = low + (high - low) * gloss[:, 0] ** 2
    out["gloss"][:, 1] = 8 * 6 ** gloss[:, 1]
    out["shadow"][:, 0] = draws.uniform("shadow", None, *config.shadow)
    out["shadow"][:, 1] = draws.uniform("shadow-softness", None, *config.softness_m)
    out["shadow"][:, 2] = draws.uniform("occlusion", None, *config.occlusion)


def _camera(config, draws, out, size, kinds):
    u, n = draws.uniform("photograph", 12), draws.normal("photograph-tint", 6)
    out["camera"][:, :3] = np.exp(config.tint * n[:, :3] * [1.0, 0.4, 1.0])
    low, high = config.contrast
    out["camera"][:, 3] = low + (high - low) * u[:, 0]
    motion, focus = u[:, 1] < config.motion_blur, u[:, 2] < config.defocus
    kind = np.where(motion, 2, np.where(focus, 1, 0))
    low, high = config.blur_px
    width = (low + (high - low) * u[:, 3] ** 1.5) * size / 128
    out["camera"][:, 4] = kind
    out["camera"][:, 5] = width * np.where(motion, 2.2, 1)
    out["camera"][:, 6] = np.pi * u[:, 4]
    low, high = config.noise
    out["camera"][:, 7] = low + (high - low) * u[:, 5] ** 2
    low, high = config.jpeg_quality
    out["camera"][:, 8] = np.where(u[:, 6] < config.jpeg, low + (high - low) * u[:, 7], 0)
    out["camera"][:, 9:11] = np.floor(u[:, 8:10] * 4096)
    b = draws.uniform("background", 12)
    ground = out["background"]
    chosen = np.flatnonzero(np.isin(kinds, config.backgrounds))
    for column, purpose in ((0, "tile1"), (10, "tile2")):
        ground[:, column] = chosen[draws.whole(purpose, len(chosen))]
    ground[:, 1:3] = b[:, :2]
    ground[:, 3] = 0.35 * (2.9 ** b[:, 2])  # share of the tile that the picture shows
    ground[:, 4] = np.where(b[:, 3] < 0.6, 0.25 * (b[:, 4] - 0.5), 2 * np.pi * b[:, 4])
    ground[:, 5] = np.where(b[:, 5] < 0.5, -1, 1)
    ground[:, 6:9] = np.exp(0.25 * n[:, 3:4] + 0.06 * draws.normal("background-tint", 3))
    ground[:, 9] = 18 * (b[:, 6] - 0.5)
    edge = b[:, 7] < config.background_edge  # to a second tile
    ground[:, 11] = np.where(edge, 1 + 4 * b[:, 8], 0)
    cast = draws.uniform("drop-shadow", 4)
    strength = np.where(cast[:, 0] < config.drop_shadow, 0.25 + 0.5 * cast[:, 1], 0)
    away = -out["key"][:, :2] * (0.02 + 0.10 * cast[:, 2:3])
    out["drop_shadow"] = np.column_stack([strength, away, 0.02 + 0.06 * cast[:, 3]])


def _things(config, draws, out, tiles):
    """Forearm, sleeves, watch, ring, objects, occluders."""
    arm = draws.normal("arm", 3)
    out["arm"] = np.column_stack(
        [
            np.deg2rad(config.forearm_bend_deg) * arm[:, 0],
            np.deg2rad(config.forearm_side_deg) * arm[:, 1],
            np.clip(1 + config.forearm_girth * arm[:, 2], 0.3, 1.7),
        ]
    )
    length = draws.uniform("forearm-length", None, *config.forearm_m)
    length = np.where(draws.chance("forearm", config.forearm), length, 0)
    out["forearm_cut"] = np.maximum(ARM_STATIONS[-1] - length.astype(np.float32), 0)
    u = draws.uniform("sleeve", 4)
    start = np.where(u[:, 0] < 0.3, -0.012 + 0.02 * u[:, 1], 0.01 + 0.13 * u[:, 1])
    start = np.where(draws.chance("sleeve", config.sleeve) & (start <= length), start, 9.0)
    out["sleeve"] = np.column_stack([start, 0.002 + 0.007 * u[:, 2], 0.006 * u[:, 3]])
    out["sleeve_cloth"] = _cloth(draws, "sleeve-cloth", tiles)
    u = draws.uniform("watch", 6)
    place = np.where(draws.chance("watch", config.watch), 0.012 + 0.03 * u[:, 0], 9.0)
    place = np.where(start < 0.06, 9.0, place)
    dial = np.where(u[:, 1] < 0.6, 0.003 + 0.005 * u[:, 2], 0)
    wide = 0.008 + 0.018 * u[:, 3]
    place = np.where(place + wide <= length, place, 9.0)
    out["watch"] = np.column_stack([place, wide, 0.0015 + 0.002 * u[:, 4], dial])
    metal = np.array(
        [[0.75, 0.72, 0.68], [0.78, 0.58, 0.22], [0.05, 0.05, 0.06], [0.3, 0.12, 0.06]]
    )
    out["watch_colour"] = metal[draws.whole("watch-metal", 4)]
    u = draws.uniform("ring", 4)
    finger = np.where(u[:, 0] < 0.55, 3, draws.whole("ring-finger", 5))
    finger = np.where(draws.chance("ring", config.ring), finger, -1)
    out["ring"] = np.column_stack(
        [finger, 0.35 + 0.25 * u[:, 1], 0.0015 + 0.003 * u[:, 2], 0.0006 + 0.001 * u[:, 3]]
    )
    out["ring_colour"] = metal[draws.whole("ring-metal", 3)]
    for name, share in (("object", config.object_in_hand), ("occluder", config.occluder)):
        u, n = draws.uniform(name, 8), draws.normal(name + "-turn", 6)
        kind = draws.whole(name + "-kind", 3)  # box, cylinder, ball
        sharp = 0.08 + 0.25 * u[:, 0]
        first = np.choose(kind, [sharp, sharp, 0.9 + 0 * sharp])
        second = np.choose(kind, [sharp, 1 + 0 * sharp, 1 + 0 * sharp])
        on = draws.chance(name, share)
        if name == "object":
            size = np.stack([0.5 + 0.7 * u[:, 1], 0.35 + 0.85 * u[:, 2], 0.6 + 3.0 * u[:, 3]], 1)
            place = n[:, 3:6] * 0.004
            rest = place
        else:
            size = 0.012 + 0.05 * u[:, 1:4] ** np.array([1, 1, 0.5])
            turn = 2 * np.pi * u[:, 4]
            reach = 0.32 + 0.45 * u[:, 5]
            rest = np.stack([reach * np.cos(turn), reach * np.sin(turn), 0.04 + 0.10 * u[:, 6]], 1)
        numbers = [on, first, second, *size.T, *(n[:, :3] * (0.35 if name == "object" else 1.2)).T]
        numbers += [*rest.T]
        out[name][:, : len(numbers)] = np.column_stack(numbers)
        out[name + "_cloth"] = _cloth(draws, name + "-cloth", tiles)


def draw_parameters(config: SyntheticConfig, seed: int, indices, size: int, banks) -> NDArray:
    """The numbers of each picture.

    indices: (B,) whole numbers.   size: side of the pictures, pixels (blur is scaled with it).
    banks: ``synthetic.Banks``.   returns (B,) of ``PARAMETERS``, a function of (seed, index) only.
    """
    draws = Draws(seed, indices)
    out = np.zeros(len(draws.keys), PARAMETERS)
    out["index"] = indices
    axes = np.asarray(banks.body.axes, np.float64)
    tiles = len(banks.tiles)

    pose = mix_poses(draws, config, banks, "pose")
    pose[:, 0] = vectors_from(viewpoint_rotations(config, draws) @ axes.T)
    out["pose"] = pose
    out["betas"] = np.clip(config.betas_spread * draws.normal("betas", 10), -2.5, 2.5)
    low, high = config.distance_m
    out["distance"] = low * (high / low) ** draws.uniform("distance")
    angle = np.deg2rad(config.off_axis_deg) * np.sqrt(draws.uniform("off-axis"))
    turn = 2 * np.pi * draws.uniform("off-axis-turn")
    out["off_axis"] = np.tan(angle)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    u = draws.uniform("framing", 4)
    low, high = config.framing
    out["framing"] = low + (high - low) * u[:, 0] ** 1.3
    cut = draws.chance("truncated", config.truncated)[:, None]
    near = config.shift * draws.normal("shift", 2)
    out["shift"] = np.where(cut, 0.9 * (u[:, 1:3] - 0.5), np.clip(near, -0.4, 0.4))

    out["skin"] = _tone(draws, config, "tone")
    same = draws.chance("same-person", 0.8)[:, None]
    out["second_skin"] = np.where(same, out["skin"], _tone(draws, config, "tone2"))
    d = draws.uniform("detail", 8, *config.detail)
    dark = 1 - np.clip(out["skin"].mean(axis=1) / 0.5, 0, 1)  # palms of dark hands differ more
    d[:, 0] *= 0.35 + 0.9 * dark
    d[:, 4] *= draws.uniform("veins") ** 2
    out["skin_detail"] = d
    polish = draws.chance("nail-polish", config.nail_polish)[:, None]
    colour = draws.uniform("polish", 3) ** 1.5 * np.array([1.0, 0.6, 0.7])
    bare = out["skin"] * 0.62 + np.array([0.36, 0.22, 0.20]) * 0.5
    out["nail"] = np.where(polish, colour, bare)

    _light(config, draws, out)
    _things(config, draws, out, tiles)
    _camera(config, draws, out, size, banks.kinds)
    _second_hand(config, draws, out, banks, axes)
    return out


def _second_hand(config, draws, out, banks, axes):
    on, left = draws.chance("second", config.second_hand), draws.chance("second-left", 0.85)
    pose = mix_poses(draws, config, banks, "pose2")
    view = viewpoint_rotations(config, draws, "view2")
    pose[:, 0] = vectors_from(view @ axes.T)
    out["second_pose"] = pose
    out["second_betas"] = out["betas"]
    u = draws.uniform("second", 4)
    turn = 2 * np.pi * u[:, 0]
    reach = 0.11 + 0.09 * u[:, 1]
    place = np.stack([reach * np.cos(turn), reach * np.sin(turn), 0.12 * (u[:, 2] - 0.35)], 1)
    arm = out["arm"] * [1, -1, 1]
    out["second"] = np.column_stack([on, left, place, arm])
    out["second_sleeve"] = out["sleeve"]
