"""Backgrounds that behave like photographs, painted from random numbers: no downloads.

A bank holds a few hundred square tiles, painted once; each picture cuts, turns, flips and tints a
piece of one. Kinds: ``leaves`` (overlapping shapes whose sizes follow a power law, which have the
edge and scale statistics of natural scenes; Lee, Mumford and Huang 2001), ``noise`` (1/f spectra;
Field 1987), ``room``, ``desk``, ``fabric`` (seen in perspective), ``foliage``, ``people`` (skin,
hair and clothes out of focus), ``bokeh``, ``smooth``. The user's own are ``photographs``.
"""

import contextlib
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hand_lib.files import check_folder, natural_key, resolve
from hand_lib.render.images import read_image


def _colour(rng, saturation=0.35, light=(20, 235)):
    """A random sRGB colour (3,) whose greyness varies: most things in photographs are dull."""
    grey = rng.uniform(*light)
    tint = rng.normal(0, 1, 3)
    tint -= tint.mean()
    return np.clip(grey + tint * saturation * rng.gamma(1.2, 0.5) * 90, 0, 255)


def _plain(colour, height, width=None) -> NDArray:
    return np.full((height, width or height, 3), colour, np.float32)


def spectrum(rng, size, exponent=1.0, channels=3) -> NDArray:
    """Noise (size, size, channels) with amplitude 1/f^exponent, zero mean and unit spread."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    amplitude = 1.0 / np.maximum(frequency, 1.0 / size) ** exponent
    amplitude[0, 0] = 0.0
    shape = (channels, *amplitude.shape)
    wave = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    noise = np.fft.irfft2(wave * amplitude, s=(size, size)).transpose(1, 2, 0)
    return (noise / noise.std(axis=(0, 1))).astype(np.float32)


def _noise(rng, size):
    grey = spectrum(rng, size, rng.uniform(0.8, 1.5), 1)
    colour = spectrum(rng, size, rng.uniform(0.9, 1.6), 3)
    spread = rng.uniform(15, 55)
    return _colour(rng) + spread * grey + rng.uniform(0, 0.5) * spread * colour


def _shape(rng, canvas, centre, radius, colour):
    """One filled disc, ellipse, rotated rectangle or polygon."""
    kind, angle = rng.integers(4), rng.uniform(0, 180)
    if kind == 0:
        cv2.circle(canvas, centre, max(1, int(radius)), colour, -1, cv2.LINE_AA)
    elif kind == 1:
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.2, 0.9))))
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
    else:
        if kind == 2:
            sides = 2 * radius, 2 * radius * rng.uniform(0.08, 1)
            corners = cv2.boxPoints((centre, sides, angle))
        else:
            turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
            reach = radius * rng.uniform(0.5, 1.2, len(turn))
            corners = np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None] + centre
        cv2.fillPoly(canvas, [corners.astype(np.int32)], colour, cv2.LINE_AA)


def _leaves(rng, size, count=None):
    palette = [_colour(rng, 0.6) for _ in range(rng.integers(4, 12))]
    canvas = _plain(palette[0], size)
    smallest, largest = rng.uniform(1.5, 6) * size / 256, size * rng.uniform(0.25, 0.6)
    count = int(count or rng.integers(150, 700))
    share = rng.uniform(0, 1, count)
    radii = 1 / np.sqrt(share / smallest**2 + (1 - share) / largest**2)  # as r^-3 between the two
    for radius in radii[np.argsort(-radii * rng.uniform(0.4, 1, count))]:
        centre = rng.integers(0, size, 2).tolist()
        colour = palette[rng.integers(len(palette))] + rng.normal(0, 12)
        _shape(rng, canvas, centre, radius, colour.tolist())
    return canvas + rng.uniform(2, 12) * spectrum(rng, size, rng.uniform(0.3, 1.0), 1)


def _rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _warped(rng, size, texture, strength=0.7):
    """A flat texture seen from a random slant."""
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    turned = (corners - size / 2) @ _rotation(rng.uniform(0, 2 * np.pi)).T
    target = turned * rng.uniform(1.4, 1.9)
    target *= 1 + strength * rng.uniform(-0.3, 0.3, (4, 1))
    matrix = cv2.getPerspectiveTransform(corners, (target + size / 2).astype(np.float32))
    kind = cv2.BORDER_REFLECT_101
    return cv2.warpPerspective(texture, matrix, (size, size), flags=cv2.INTER_AREA, borderMode=kind)


def _fabric(rng, size):
    y, x = np.mgrid[:size, :size].astype(np.float32)
    period = size / rng.uniform(6, 45)
    first, second, third = (_colour(rng, 0.9) for _ in range(3))
    kind = rng.integers(6)
    if kind == 0:  # stripes, hard or soft
        wave = np.clip(0.5 + rng.uniform(0.5, 6) * np.sin(2 * np.pi * x / period), 0, 1)[..., None]
        cloth = first * wave + second * (1 - wave)
    elif kind == 1:  # checks
        u, v = ((np.floor(t / period) % 2)[..., None] for t in (x, y))
        cloth = 0.5 * (first * u + second * (1 - u)) + 0.5 * (third * v + second * (1 - v))
    elif kind == 2:  # tiles or bricks with joints
        shifted = x + (np.floor(y / period) % 2) * period * rng.choice([0, 1.0])
        joint = (y % period < period * 0.08) | (shifted % (2 * period) < period * 0.08)
        cloth = np.where(joint[..., None], first, second + spectrum(rng, size, 0.9, 1) * 10)
    elif kind == 3:  # a print of small flowers or dots
        cloth = _plain(first, size)
        palette = [second, third, _colour(rng, 0.9)]
        for _ in range(int(rng.uniform(60, 400))):
            cx, cy = rng.uniform(0, size, 2)
            r = period * rng.uniform(0.15, 0.45)
            colour = palette[rng.integers(3)].tolist()
            for petal in range(rng.choice([1, 5])):
                at = (int(cx + r * np.cos(1.257 * petal)), int(cy + r * np.sin(1.257 * petal)))
                cv2.circle(cloth, at, max(1, int(r * 0.7)), colour, -1, cv2.LINE_AA)
    elif kind == 4:  # wood: stretched noise in rings
        field = cv2.resize(spectrum(rng, size, 1.3, 1)[: size // 8], (size, size))
        grain = np.sin(field * rng.uniform(2, 9) + y * 2 * np.pi / period / 4)[..., None]
        cloth = np.array([150, 105, 65]) * rng.uniform(0.4, 1.4) + grain * rng.uniform(6, 25)
    else:  # carpet
        cloth = first + rng.uniform(8, 40) * spectrum(rng, size, rng.uniform(0, 0.6), 1)
    return _warped(rng, size, cloth.astype(np.float32))


def _room(rng, size):
    canvas = _plain(_colour(rng, 0.3, (60, 240)), size)
    horizon = int(rng.uniform(0.3, 1.0) * size)
    canvas[horizon:] = _colour(rng, 0.3, (30, 210))
    for _ in range(rng.integers(2, 9)):  # doors, windows, cupboards, screens, in frames
        x, y = rng.uniform(-0.2, 0.9, 2) * size
        w, h = rng.uniform(0.08, 0.7, 2) * size
        inner, frame = _colour(rng, 0.5).tolist(), _colour(rng, 0.2).tolist()
        a, b = (int(x), int(y)), (int(x + w), int(y + h))
        cv2.rectangle(canvas, a, b, inner, -1)
        cv2.rectangle(canvas, a, b, frame, int(rng.integers(1, 8)))
    if rng.uniform() < 0.45:  # a shelf full of things
        x0, x1 = np.sort(rng.uniform(-0.1, 1.1, 2)) * size
        for top in np.arange(rng.uniform(0, 0.3), 1, rng.uniform(0.12, 0.35)) * size:
            x, tall = x0, rng.uniform(0.08, 0.2) * size
            hues, low = [_colour(rng, 1.0) for _ in range(4)], int(top + tall)
            while x < x1:
                wide = rng.uniform(0.015, 0.07) * size
                a, b = (int(x), int(top + tall * rng.uniform(0, 0.4))), (int(x + wide), low)
                hue = hues[rng.integers(4)] * rng.uniform(0.7, 1.2)
                cv2.rectangle(canvas, a, b, hue.tolist(), -1)
                x += wide * rng.uniform(1, 1.2)
            cv2.line(canvas, (int(x0), low), (int(x1), low), _colour(rng, 0.1).tolist(), 3)
    for _ in range(rng.integers(0, 5)):  # pipes, cables, edges
        ends = (rng.uniform(-0.2, 1.2, (2, 2)) * size).astype(int).tolist()
        cv2.line(canvas, *ends, _colour(rng, 0.2).tolist(), int(rng.integers(1, 12)), cv2.LINE_AA)
    canvas = _warped(rng, size, canvas, 0.5) if rng.uniform() < 0.5 else canvas
    return canvas + rng.uniform(1, 6) * spectrum(rng, size, 0.8, 1)


def _desk(rng, size):
    canvas = _plain(_colour(rng, 0.3, (40, 245)), size)
    if rng.uniform() < 0.4:
        canvas = _fabric(rng, size).astype(np.float32)
    for _ in range(rng.integers(2, 12)):
        w, h = (int(v) for v in rng.uniform(0.1, 0.6, 2) * size)
        paper = _colour(rng, 0.2, (150, 250)) if rng.uniform() < 0.5 else _colour(rng, 0.8)
        sheet, ink = _plain(paper, h, w), _colour(rng, 0.4, (0, 110)).tolist()
        kind = rng.integers(4)
        if kind == 0:  # writing
            gap = max(3, int(size * rng.uniform(0.012, 0.04)))
            for row in range(gap, h - gap, gap):
                x = gap
                while x < w - gap:
                    step = int(rng.uniform(1, 6) * gap / 2) + 1
                    cv2.line(sheet, (x, row), (min(x + step, w - gap), row), ink, max(1, gap // 4))
                    x += step + gap // 2
        elif kind == 1:  # keys
            gap = max(4, int(size * rng.uniform(0.02, 0.06)))
            for row in range(0, h, gap):
                for column in range((row // gap) % 2, w, gap):
                    cv2.rectangle(sheet, (column, row), (column + gap - 2, row + gap - 2), ink, -1)
        elif kind == 2:
            cv2.circle(sheet, (w // 2, h // 2), min(w, h) // 3, ink, int(rng.choice([-1, 2, 4])))
        turn, ends = np.deg2rad(rng.uniform(0, 360)), np.array([[0, 0], [w, 0], [0, h]], np.float32)
        place = (ends - [w / 2, h / 2]) @ _rotation(turn).T + rng.uniform(0, size, 2)
        matrix = cv2.getAffineTransform(ends, place.astype(np.float32))
        over = cv2.warpAffine(np.dstack([sheet, _plain(1, h, w)[..., 0]]), matrix, (size, size))
        shadow = cv2.GaussianBlur(np.roll(over[..., 3:], 3, (0, 1)), (0, 0), 4)[..., None]
        canvas = canvas * (1 - 0.4 * shadow) * (1 - over[..., 3:]) + over[..., :3]
    return canvas


def _foliage(rng, size):
    hue = np.array([[70, 105, 40], [120, 130, 60], [140, 95, 50], [95, 85, 70]])[rng.integers(4)]
    canvas = _plain(hue * 0.4, size)
    for depth in np.linspace(0.4, 1.3, 500):
        centre = rng.integers(0, size, 2).tolist()
        axes = [int(size * rng.uniform(*ends)) + 1 for ends in ((0.01, 0.06), (0.004, 0.02))]
        colour = (hue * depth * rng.uniform(0.7, 1.3) + rng.normal(0, 8, 3)).tolist()
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    return canvas


def _people(rng, size):
    """Torso, head and arms out of focus: skin that is not the hand's."""
    canvas = _room(rng, size) if rng.uniform() < 0.6 else _leaves(rng, size, 150)
    canvas = canvas.astype(np.float32)
    for _ in range(rng.integers(1, 3)):
        skin = np.array([232, 190, 160]) * rng.uniform(0.3, 1.05) ** np.array([0.7, 1.0, 1.2])
        middle = np.array([rng.uniform(0, size), rng.uniform(0.1, 0.7) * size])
        unit = rng.uniform(0.1, 0.3) * size
        cloth, hair = _colour(rng, 0.8), _colour(rng, 0.2, (5, 120))

        def at(dx, dy, middle=middle, unit=unit):
            return (middle + unit * np.array([dx, dy])).astype(int).tolist()

        torso, face = (int(1.9 * unit), int(2.6 * unit)), (int(0.75 * unit), int(unit))
        cv2.ellipse(canvas, at(0, 3.4), torso, 0, 0, 360, cloth.tolist(), -1, cv2.LINE_AA)
        cv2.circle(canvas, at(0, -0.25), int(1.02 * unit), hair.tolist(), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, at(0, 0.1), face, 0, 0, 360, skin.tolist(), -1, cv2.LINE_AA)
        for side in (-1, 1):
            end = at(side * rng.uniform(0.5, 3), rng.uniform(1, 5))
            limb = (skin if rng.uniform() < 0.5 else cloth * 0.9).tolist()
            cv2.line(canvas, at(side * 1.5, 2.2), end, limb, max(2, int(0.7 * unit)), cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 5) * size / 256)


def _bokeh(rng, size):
    canvas = cv2.GaussianBlur(_leaves(rng, size, 120).astype(np.float32), (0, 0), size / 22)
    for _ in range(rng.integers(3, 40)):
        disc = np.zeros((size, size), np.float32)
        centre = rng.integers(0, size, 2).tolist()
        cv2.circle(disc, centre, int(size * rng.uniform(0.01, 0.08)), 1.0, -1, cv2.LINE_AA)
        canvas += disc[..., None] * _colour(rng, 1.0) * rng.uniform(0.15, 0.6)
    return cv2.GaussianBlur(canvas, (0, 0), 1.2)


def _smooth(rng, size):
    y, x = np.mgrid[:size, :size] / size
    turn = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(turn) * x + np.sin(turn) * y)[..., None]
    return _colour(rng) * (1 - ramp) + _colour(rng, 0.2) * ramp + spectrum(rng, size, 0.9, 1) * 3


_PAINTERS = {
    "leaves": (_leaves, 0.18), "noise": (_noise, 0.09), "room": (_room, 0.19),
    "desk": (_desk, 0.15), "fabric": (_fabric, 0.12), "foliage": (_foliage, 0.07),
    "people": (_people, 0.08), "bokeh": (_bokeh, 0.06), "smooth": (_smooth, 0.06),
}  # fmt: skip
"""Each kind with its share of the bank."""
KINDS = tuple(_PAINTERS)


def paint_background(kind: str, size: int, rng: np.random.Generator) -> NDArray:
    """One background of a kind, lit and in focus unevenly: (size, size, 3) uint8 RGB.

    >>> paint_background("leaves", 64, np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    canvas = np.asarray(_PAINTERS[kind][0](rng, size), np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    fall = 1 + rng.normal(0, 0.25) * x + rng.normal(0, 0.3) * y
    fall -= rng.uniform(0, 0.5) * (x * x + y * y)
    canvas = (canvas - 110) * rng.uniform(0.6, 1.15) + 110 + rng.normal(0, 12)
    canvas = canvas * np.clip(fall, 0.3, 1.6)[..., None]
    if rng.uniform() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.gamma(1.0, 1.6) * size / 256 + 0.3)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def background_bank(count: int = 192, size: int = 256, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Tiles (count, size, size, 3) uint8, the same for a seed, and the kind of each (count,)."""
    kinds = np.repeat(KINDS, [int(np.ceil(share * count)) for _, share in _PAINTERS.values()])
    kinds = kinds[np.random.default_rng([seed, 1]).permutation(len(kinds))[:count]]
    rngs = (np.random.default_rng([seed, 2, i]) for i in range(count))
    return np.stack([*map(paint_background, kinds, repeat(size), rngs)]), kinds


def photograph_bank(folder, size: int = 256) -> NDArray:
    """Tiles (N, size, size, 3) uint8, 192 at most: the middles of those pictures that are read."""
    place, tiles = check_folder(resolve(folder), "background_folder", ""), []
    for path in sorted(filter(Path.is_file, place.iterdir()), key=natural_key):
        with contextlib.suppress(ValueError):
            picture = read_image(path)
            side = min(picture.shape[:2])
            top, left = ((extent - side) // 2 for extent in picture.shape[:2])
            square = picture[top : top + side, left : left + side]
            tiles.append(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))
        if len(tiles) == 192:
            break
    if not tiles:
        raise ValueError(f"background_folder: {place} holds no picture that can be read")
    return np.stack(tiles)
