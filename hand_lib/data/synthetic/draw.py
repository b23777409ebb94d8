"""From knobs to the parameters of each picture: poses, viewpoints, skin, clothes, light, camera."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.data.synthetic.config import PARAMETERS, Draws, SyntheticConfig
from hand_lib.data.synthetic.layout import ARM_STATIONS
from hand_lib.hand.joints import REST_JOINTS
from hand_lib.hand.poses import pose_joints

SKIN_TONES = np.array(
    [(248, 222, 205), (240, 205, 180), (226, 180, 150), (205, 152, 118), (170, 118, 86),
     (132, 88, 62), (98, 63, 45), (66, 44, 35)], float
)  # fmt: skip
"""sRGB, lightest to darkest; pictures interpolate and vary them."""
FLESH = 0.009  # metres from the bones of a finger to its skin


def linear(srgb):
    """sRGB 0 to 255 -> linear light 0 to 1 (exponent 2.2)."""
    return (np.clip(srgb, 0, 255) / 255.0) ** 2.2


def _between(range_, place):
    """Where 0..1 lies in a range (low, high)."""
    return range_[0] + (range_[1] - range_[0]) * place


def _about(axis: str, angle):
    return Rotation.from_euler(axis, angle[:, None]).as_matrix()


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _circle(turns, reach, depth):
    """Places (B, 3): so far from the axis of view, in a direction in turns, and so deep."""
    angle = 2 * np.pi * turns
    return np.stack([reach * np.cos(angle), reach * np.sin(angle), depth], 1)


def sample_viewpoints(config: SyntheticConfig, draws: Draws) -> NDArray:
    """Rotations (B, 3, 3) that take distal, radial, dorsal of the hand into camera axes.

    "photographs": its long axis points mostly up, to a side or down in the image, palm, back or an
    edge faces the camera, and it tilts; a few come from any direction. "sphere": all do.
    """
    u, n = draws.uniform(8), draws.normal(4)
    anywhere = Rotation.from_quat(_unit(n)).as_matrix()
    spread = draws.normal(3) * np.deg2rad([config.in_plane_deg, config.turn_deg, config.tilt_deg])
    shares = config.up_share, config.side_share, config.down_share
    kind = (u[:, :1] >= np.cumsum(shares)).sum(axis=1)
    side = np.where(u[:, 1] < 0.5, -1, 1) * np.pi / 2
    in_plane = np.choose(kind, [0.0, side, np.pi, 2 * np.pi * u[:, 2]]) + spread[:, 0]
    kind = (u[:, 3:4] >= np.cumsum([config.palm_share, config.back_share])).sum(axis=1)
    edge = np.where(u[:, 4] < 0.6, 1, -1) * np.pi / 2
    turn = np.choose(kind, [np.pi, 0.0, edge]) + spread[:, 1]
    far = np.where(u[:, 5] < 0.15, 0.42 * np.pi * (2 * u[:, 6] - 1), 0)
    # fingers up, back of the hand to the camera: distal -y, radial -x, dorsal -z
    start = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]], float)
    turned = _about("z", in_plane) @ _about("x", spread[:, 2] + far) @ start @ _about("x", turn)
    free = (u[:, 7] < config.any_direction) | (config.viewpoints == "sphere")
    return np.where(free[:, None, None], anywhere, turned)


def mix_poses(config: SyntheticConfig, draws: Draws, banks) -> NDArray:
    """Poses (B, 16, 3): one of the banks' (``layout.Banks``), or on the way between two of them."""
    free, gestures, picks = banks.poses, banks.gestures, []
    for _ in range(2):
        named, one = draws.chance(config.gestures), gestures[draws.whole(len(gestures))]
        picks.append(np.where(named[:, None, None], one, free[draws.whole(len(free))]))
    u = draws.uniform(2)
    way = np.where(u[:, 0] < 1 - config.between, 0.0, u[:, 1])[:, None, None]
    jitter = np.deg2rad(1.5) * draws.normal(48).reshape(-1, 16, 3)
    pose = picks[0] * (1 - way) + picks[1] * way + jitter * banks.moves
    pose[:, 0] = 0
    return pose


def _tone(config, draws):
    """Linear albedo (B, 3) of a person's skin."""
    place = draws.uniform(None, *config.skin_tone) * (len(SKIN_TONES) - 1)
    low = np.minimum(place.astype(int), len(SKIN_TONES) - 2)
    part = (place - low)[:, None]
    srgb = SKIN_TONES[low] * (1 - part) + SKIN_TONES[low + 1] * part
    warm = draws.normal(2)
    srgb = srgb * (1 + 0.04 * warm[:, :1]) + warm[:, 1:] * np.array([3.0, -1.5, -5.0])
    return linear(srgb)


def _cloth(draws, tiles, out):
    u = draws.uniform(9)
    grey = 8 + 235 * u[:, :1] ** 1.2
    tint = u[:, 1:4] - u[:, 1:4].mean(axis=1, keepdims=True)
    out["colour"] = linear(grey + tint * 260 * u[:, 4:5] ** 2)
    out["pattern"] = np.where(u[:, 5] < 0.45, 0.15 + 0.75 * u[:, 6], 0.04)
    out["scale"], out["shift"] = 0.15 + 0.85 * u[:, 7], u[:, 8]
    out["tile"] = draws.whole(tiles)


def _harmonics(directions):
    """Real spherical harmonics up to order 2 at unit directions (B, 3) -> (B, 9)."""
    x, y, z = directions.T
    second = [1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z,
              0.546274 * (x * x - y * y)]  # fmt: skip
    return np.stack([0 * x + 0.282095, 0.488603 * y, 0.488603 * z, 0.488603 * x, *second], 1)


_COSINE = np.array([np.pi, *[2 * np.pi / 3] * 3, *[np.pi / 4] * 5])  # Ramamoorthi, Hanrahan 2001


def _temperature(u, strength):
    """Lamp colours (B, 3) from warm to cool, luminance about 1."""
    return np.exp((u - 0.5)[:, None] * strength * np.array([0.55, 0.0, -0.75]))


def _light(config, draws, out):
    n, u = draws.normal(6), draws.uniform(8)
    # mostly above and before the hand
    out["key"] = _unit(n[:, :3] * [1.0, 0.8, 0.7] + [0, -0.75, -0.75])
    low, high = config.key_light
    direct = low * (high / low) ** u[:, 0] if low > 1e-6 else high * u[:, 0]
    out["key_colour"] = direct[:, None] * _temperature(u[:, 1], config.lamp_warmth)
    sky = np.zeros((len(u), 9, 3))
    above, below = np.array([[0, -1.0, -0.2]]), np.array([[0, 1.0, -0.1]])
    for direction, strengths, place, warmth in (
        (above, config.sky_above, u[:, 2], u[:, 3]),
        (n[:, 3:6], config.sky_anywhere, u[:, 4], u[:, 5]),
        (below, config.sky_below, u[:, 6], 0.25 + 0.5 * u[:, 7]),
    ):
        weights = _harmonics(_unit(direction)) * _COSINE / np.pi
        weights = weights * _between(strengths, place)[:, None]
        sky += weights[..., None] * _temperature(warmth, config.sky_warmth)[:, None]
    sky[:, 0] += draws.uniform(None, *config.sky_even)[:, None] / 0.282095
    # a surface that faces the camera receives about 1 in all, whatever the lamps are
    facing = np.array([[0, -0.35, -0.94]])
    level = np.einsum("k,bkc->bc", _harmonics(facing)[0], sky).mean(1)
    level += 0.8 * direct * np.clip(out["key"] @ facing[0], 0.15, 1)
    gain = np.exp(config.exposure * draws.normal() - 0.08) / level
    out["sky"] = sky * gain[:, None, None]
    out["key_colour"] *= gain[:, None]
    out["gloss"] = _between(config.specular, draws.uniform() ** 2)
    out["gloss_power"] = 8 * 6 ** draws.uniform()
    out["shadow"] = draws.uniform(None, *config.shadow)
    out["shadow_m"] = draws.uniform(None, *config.softness_m)
    out["occlusion"] = draws.uniform(None, *config.occlusion)


def _camera(config, draws, out, size):
    u, camera = draws.uniform(10), out["camera"]
    camera["gain"] = np.exp(config.tint * draws.normal(3) * [1.0, 0.4, 1.0])
    camera["contrast"] = _between(config.contrast, u[:, 0])
    moved, soft = u[:, 1] < config.motion_blur, u[:, 2] < config.defocus
    width = _between(config.blur_px, u[:, 3] ** 1.5) * size / 128
    camera["motion_px"] = np.where(moved, 2.2 * width, 0)
    camera["defocus_px"] = np.where(soft & ~moved, width, 0)
    camera["motion_angle"] = np.pi * u[:, 4]
    camera["noise"] = _between(config.noise, u[:, 5] ** 2)
    quality = _between(config.jpeg_quality, u[:, 7])
    camera["jpeg_quality"] = np.where(u[:, 6] < config.jpeg, np.rint(quality), 0)
    camera["grain_u"], camera["grain_v"] = draws.whole(4096), draws.whole(4096)


def _background(config, draws, out, kinds):
    u, n, ground = draws.uniform(9), draws.normal(4), out["background"]
    # photographs are in the bank only if asked for
    chosen = np.flatnonzero(np.isin(kinds, (*config.backgrounds, "photographs")))
    for name in ("tile", "second_tile"):
        ground[name] = chosen[draws.whole(len(chosen))]
    ground["u"], ground["v"] = u[:, 0], u[:, 1]
    ground["zoom"] = 0.35 * (2.9 ** u[:, 2])  # share of the tile that the picture shows
    ground["angle"] = np.where(u[:, 3] < 0.6, 0.25 * (u[:, 4] - 0.5), 2 * np.pi * u[:, 4])
    ground["flip"] = np.where(u[:, 5] < 0.5, -1, 1)
    ground["gain"] = np.exp(0.25 * n[:, :1] + 0.06 * n[:, 1:])
    ground["bias"] = 18 * (u[:, 6] - 0.5)
    ground["edge"] = np.where(u[:, 7] < config.background_edge, 1 + 4 * u[:, 8], 0)
    cast = draws.uniform(4)
    out["cast"] = np.where(cast[:, 0] < config.drop_shadow, 0.25 + 0.5 * cast[:, 1], 0)
    out["cast_offset"] = -out["key"][:, :2] * (0.02 + 0.10 * cast[:, 2:3])
    out["cast_spread"] = 0.02 + 0.06 * cast[:, 3]


def _arm(config, draws, out, tiles):
    n = draws.normal(3)
    out["arm_bend"] = np.deg2rad(config.forearm_bend_deg) * n[:, 0]
    out["arm_side"] = np.deg2rad(config.forearm_side_deg) * n[:, 1]
    out["arm_girth"] = np.clip(1 + config.forearm_girth * n[:, 2], 0.3, 1.7)
    length = draws.uniform(None, *config.forearm_m) * draws.chance(config.forearm)
    out["arm_cut"] = np.maximum(ARM_STATIONS[-1] - length.astype(np.float32), 0)
    u = draws.uniform(4)
    start = np.where(u[:, 0] < 0.3, -0.012 + 0.02 * u[:, 1], 0.01 + 0.13 * u[:, 1])
    worn = draws.chance(config.sleeve) & (start <= length)
    out["sleeve_start"] = np.where(worn, start, 9.0)
    out["sleeve_thickness"], out["sleeve_flare"] = 0.002 + 0.007 * u[:, 2], 0.006 * u[:, 3]
    _cloth(draws, tiles, out["sleeve_cloth"])


def _solids(config, draws, out, tiles):
    """What the hand holds, and what stands before it."""
    for name, share in (("object", config.object_in_hand), ("occluder", config.occluder)):
        u, n, solid = draws.uniform(8), draws.normal(6), out[name]
        kind = draws.whole(3)  # box, cylinder, ball
        sharp = 0.08 + 0.25 * u[:, 0]
        solid["roundness"][:, 0] = np.where(kind == 2, 0.9, sharp)
        solid["roundness"][:, 1] = np.where(kind == 0, sharp, 1)
        solid["on"] = draws.chance(share)
        if name == "object":  # half axes in units of the room between the fingers
            solid["size"] = [0.5, 0.35, 0.6] + u[:, 1:4] * [0.7, 0.85, 3.0]
            solid["place"] = n[:, 3:6] * 0.004
        else:
            solid["size"] = 0.012 + 0.05 * u[:, 1:4] ** np.array([1, 1, 0.5])
            solid["place"] = _circle(u[:, 4], 0.32 + 0.45 * u[:, 5], 0.04 + 0.10 * u[:, 6])
        turn = n[:, :3] * (0.35 if name == "object" else 1.2)
        solid["turn"] = Rotation.from_rotvec(turn).as_matrix()
        _cloth(draws, tiles, solid["cloth"])


def _second_hand(config, draws, out, banks, axes):
    """Another hand: anywhere near, or lying on the first, palm to palm, or between its fingers.

    A left hand is a right one mirrored in x. Mirrored in a plane along the palm it prays with the
    first; in one along the middle, and moved to its back, it covers it.
    """
    on, left = draws.chance(config.second_hand), draws.chance(0.85)
    pose, view = mix_poses(config, draws, banks), sample_viewpoints(config, draws)
    u, n = draws.uniform(8), draws.normal(4)
    place = _circle(u[:, 0], 0.11 + 0.09 * u[:, 1], 0.12 * (u[:, 2] - 0.35))
    touching = draws.chance(config.touching)
    pray, own = u[:, 3] < 0.65, u[:, 4] < 0.4
    pose[touching & ~own] = out["pose"][touching & ~own]
    frame = np.asarray(out["frame"], float)
    normal = np.where(pray[:, None], frame[:, :, 2], frame[:, :, 1])
    mirror = np.eye(3) - 2 * normal[:, :, None] * normal[:, None]
    # turned about the back's axis: a little, or across the first hand
    angle = np.where(u[:, 5] < 0.7, 0.2 * n[:, 0], np.sign(n[:, 1]) * (0.6 + u[:, 6]))
    twist = Rotation.from_rotvec(frame[:, :, 2] * angle[:, None]).as_matrix()
    close = np.diag([-1.0, 1, 1]) @ twist @ mirror @ frame
    # how far both reach towards each other, by their joints and the thickness of fingers
    first, second = (_reach(hand, axes) for hand in (out["pose"], pose))  # (B, 16)
    between = u[:, 7] < 0.4  # fingers go between fingers, or pads touch
    prayed = (first + second).max(axis=1) + 2 * FLESH - np.where(between, 0.016, 0.002)
    gap = np.where(pray, prayed, -(second.max(axis=1) + 2.2 * FLESH))
    across = np.where(between, 0.010, 0.003 * n[:, 2])
    beside = -gap[:, None] * frame[:, :, 2] + across[:, None] * frame[:, :, 1]
    beside += 0.012 * n[:, 3:4] * frame[:, :, 0]
    view = np.where(touching[:, None, None], close, view)
    out["second"] = np.where(on, np.where(left | touching, -1, 1), 0)
    out["second_place"] = np.where(touching[:, None], beside, place)
    pose[:, 0] = Rotation.from_matrix(view @ axes.T).as_rotvec()
    out["second_pose"], out["second_frame"] = pose, view


def _reach(pose, axes):
    """(B, 16) metres by which joints stand out to the palm's side from the wrist's middle."""
    still = pose.astype(float) * (np.arange(16) > 0)[:, None]
    return np.maximum(-((pose_joints(still)[1] - REST_JOINTS[0]) @ axes[:, 2]), 0)


def sample_parameters(config: SyntheticConfig, seed: int, indices, size: int, banks) -> NDArray:
    """The parameters of each picture.

    indices: (B,) whole numbers.   size: side of the pictures, pixels (blur is scaled with it).
    banks: ``layout.Banks``.   returns (B,) of ``PARAMETERS``, a function of (seed, index) only.
    """
    draws = Draws(seed, indices)
    out = np.zeros(len(draws.table), PARAMETERS)
    out["index"] = indices
    axes, tiles = banks.axes, len(banks.materials.tiles)
    pose, frame = mix_poses(config, draws, banks), sample_viewpoints(config, draws)
    pose[:, 0] = Rotation.from_matrix(frame @ axes.T).as_rotvec()
    out["pose"], out["frame"] = pose, frame
    out["betas"] = np.clip(config.betas_spread * draws.normal(10), -2.5, 2.5)
    low, high = config.distance_m
    out["distance"] = low * (high / low) ** draws.uniform()
    tangent = np.tan(np.deg2rad(config.off_axis_deg) * np.sqrt(draws.uniform()))
    out["off_axis"] = _circle(draws.uniform(), tangent, tangent)[:, :2]
    u, cut = draws.uniform(3), draws.chance(config.truncated)[:, None]
    out["framing"] = _between(config.framing, u[:, 0] ** 1.3)
    near = np.clip(config.shift * draws.normal(2), -0.4, 0.4)
    out["shift"] = np.where(cut, 0.9 * (u[:, 1:3] - 0.5), near)
    out["skin"], same = _tone(config, draws), draws.chance(0.8)[:, None]
    out["second_skin"] = np.where(same, out["skin"], _tone(config, draws))
    for name in (detail := out["detail"]).dtype.names:
        detail[name] = draws.uniform(None, *config.detail)
    dark = 1 - np.clip(out["skin"].mean(axis=1) / 0.5, 0, 1)  # palms of dark hands differ more
    detail["palm"] *= 0.35 + 0.9 * dark
    detail["vein"] *= draws.uniform() ** 2
    polish = draws.chance(config.nail_polish)[:, None]
    colour = draws.uniform(3) ** 1.5 * np.array([1.0, 0.6, 0.7])
    bare = out["skin"] * 0.62 + np.array([0.36, 0.22, 0.20]) * 0.5
    out["nail"] = np.where(polish, colour, bare)
    _light(config, draws, out)
    _arm(config, draws, out, tiles)
    _solids(config, draws, out, tiles)
    _background(config, draws, out, banks.kinds)
    _camera(config, draws, out, size)
    _second_hand(config, draws, out, banks, axes)
    return out
