"""Smoothing of sequences: the One-Euro filter, causal for live use or both ways for recordings.

>>> steady = smooth(vertices, times, OneEuro(), both_ways=True)     # a recording: no lag
>>> lag_seconds(steady, vertices, fps=30.0)
0.0
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OneEuro:
    """Knobs of the One-Euro filter (Casiez, Roussel and Vogel, CHI 2012).

    A hand at rest is filtered with ``min_cutoff_hz``; each m/s of speed adds ``beta`` Hz, so a fast
    hand is followed at once. At rest the causal filter lags by 1 / (2 pi min_cutoff_hz) seconds.
    """

    min_cutoff_hz: float = 1.2  # at rest: lower is steadier and lags more
    beta: float = 14.0  # Hz per m/s: higher follows fast motion sooner
    speed_cutoff_hz: float = 1.5  # of the low-pass through which speed is measured

    def __post_init__(self):
        if not (self.min_cutoff_hz > 0 and self.beta >= 0 and self.speed_cutoff_hz > 0):
            raise ValueError(f"cutoffs should be positive and beta not negative, found {self}")

    @property
    def lag_at_rest_s(self) -> float:
        """Group delay of the causal filter for slow motion, seconds."""
        return 1 / (2 * np.pi * self.min_cutoff_hz)


class Follower:
    """The filter with its memory: call it with one frame after the other.

    All points of a frame share one cutoff, from their mean speed, so that a mesh stays a blend of
    meshes and is not torn.
    """

    def __init__(self, settings: OneEuro | None = None):
        self.settings = settings or OneEuro()
        self._last = None

    def __call__(self, points, time_s: float) -> np.ndarray:
        """points: (N, 2 or 3) metres.   time_s: later than the last.   returns them, smoothed."""
        points = np.asarray(points, float)
        if self._last is None:
            self._last = (points, np.zeros_like(points), time_s)
            return points
        value, velocity, before = self._last
        step = time_s - before
        if not step > 0:
            raise ValueError(f"times should increase, found {time_s} s after {before} s")
        share = _share(self.settings.speed_cutoff_hz, step)
        velocity = velocity + share * ((points - value) / step - velocity)
        speed = float(np.linalg.norm(velocity, axis=-1).mean())
        share = _share(self.settings.min_cutoff_hz + self.settings.beta * speed, step)
        value = value + share * (points - value)
        self._last = (value, velocity, time_s)
        return value


def _share(cutoff_hz, step_s):
    """Weight of the new value in a first-order low-pass."""
    turn = 2 * np.pi * cutoff_hz * step_s
    return turn / (1 + turn)


def smooth(points, times, settings: OneEuro | None = None, both_ways: bool = True) -> np.ndarray:
    """A whole sequence smoothed.

    points: (T, N, 2 or 3) metres.   times: (T,) seconds, increasing.   both_ways: the mean of a
    pass forwards and one backwards, whose lags cancel; False: what a live filter would show.
    returns (T, N, 2 or 3).
    """
    points, times = np.asarray(points, float), np.asarray(times, float)
    if points.ndim != 3 or times.shape != points.shape[:1]:
        raise ValueError(
            f"expected points (T, N, 2 or 3) and times (T,), found {points.shape}, {times.shape}"
        )
    if (np.diff(times) <= 0).any():
        frame = int(np.argmax(np.diff(times) <= 0)) + 1
        raise ValueError(f"times should increase, frame {frame} does not come after the last")
    if len(points) == 0:
        return points
    follow = Follower(settings)
    forwards = np.stack([follow(p, t) for p, t in zip(points, times, strict=True)])
    if not both_ways:
        return forwards
    follow = Follower(settings)
    backwards = [follow(p, -t) for p, t in zip(points[::-1], times[::-1], strict=True)]
    return (forwards + np.stack(backwards[::-1])) / 2


def lag_seconds(smoothed, reference, fps: float, reach_s: float = 0.5) -> float:
    """How late one sequence follows another: the delay at which they differ least.

    smoothed, reference: (T, ...) of equal shape.   reach_s: delays from minus to plus this are
    tried, to a fraction of a frame by a parabola through the best three.   returns seconds.
    """
    smoothed, reference = np.asarray(smoothed, float), np.asarray(reference, float)
    if smoothed.shape != reference.shape or len(smoothed) < 4:
        raise ValueError(
            f"expected two sequences of one shape, 4 frames or more, found {smoothed.shape} and "
            f"{reference.shape}"
        )
    reach = min(round(reach_s * fps), len(smoothed) // 2)
    middle = slice(reach, len(smoothed) - reach)
    steps = np.arange(-reach, reach + 1)
    kept = smoothed[middle]
    cost = np.array([((kept - np.roll(reference, s, axis=0)[middle]) ** 2).mean() for s in steps])
    best = int(np.clip(cost.argmin(), 1, len(steps) - 2))
    before, at, after = cost[best - 1 : best + 2]
    bend = before - 2 * at + after
    part = 0.0 if bend <= 0 else np.clip(0.5 * (before - after) / bend, -1, 1)
    return float((steps[best] + part) / fps)


def jitter(points, fps: float) -> float:
    """Restlessness of a sequence: root mean square acceleration of its points.

    points: (T, N, 2 or 3) metres.   returns m/s^2.
    """
    bend = np.diff(np.asarray(points, float), n=2, axis=0) * fps**2
    return float(np.sqrt((bend**2).sum(axis=-1).mean()))
