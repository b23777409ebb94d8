"""Steadiness and lag of the filters, on curves whose answer is known."""

import tracemalloc

import numpy as np
import pytest

from hand_lib.inference.video import OneEuro, jitter, smooth

FPS = 30.0
TIMES = np.arange(180) / FPS
RNG = np.random.default_rng(0)
REST = RNG.normal(0, 0.05, (1, 21, 3)).repeat(180, 0)
SLOW = REST + 0.01 * np.sin(2 * np.pi * 0.15 * TIMES)[:, None, None]
NOISE = RNG.normal(0, 0.002, REST.shape)


def lag_seconds(smoothed, reference, fps):
    """How late one sequence follows another: the shift at which they differ least."""
    shifts = np.linspace(-0.4, 0.4, 801)
    times = np.arange(len(reference)) / fps
    inner = slice(round(0.4 * fps), len(times) - round(0.4 * fps))
    one, other = (points.reshape(len(times), -1)[:, 0] for points in (smoothed, reference))
    cost = [((one - np.interp(times - s, times, other))[inner] ** 2).sum() for s in shifts]
    return float(shifts[int(np.argmin(cost))])


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_hand_at_rest_gets_steady_and_stays_where_it_is(both_ways):
    steady = smooth(REST + NOISE, TIMES, both_ways=both_ways)
    assert jitter(steady, TIMES) < 0.35 * jitter(REST + NOISE, TIMES)
    assert np.abs(steady[60:120].mean(axis=0) - REST[0]).max() < 0.001
    assert np.allclose(smooth(REST, TIMES, both_ways=both_ways), REST)


def test_the_causal_filter_lags_as_stated_and_both_ways_not_at_all():
    plain = OneEuro(min_cutoff_hz=1.2, beta=0.0)
    live = lag_seconds(smooth(SLOW, TIMES, plain, both_ways=False), SLOW, FPS)
    assert abs(live - plain.lag_at_rest_s) < 0.02
    assert abs(lag_seconds(smooth(SLOW, TIMES, plain), SLOW, FPS)) < 0.005


def test_speed_shortens_the_lag():
    fast = REST + 0.15 * np.sin(2 * np.pi * 0.8 * TIMES)[:, None, None]
    lags = [
        lag_seconds(smooth(fast, TIMES, OneEuro(beta=beta), both_ways=False), fast, FPS)
        for beta in (0.0, 3.0, 30.0)
    ]
    assert lags[0] > lags[1] > lags[2] and lags[2] < 0.03


def test_a_mesh_stays_a_blend_of_meshes():
    a, b = RNG.normal(0, 0.05, (2, 21, 3))
    way = np.clip(np.sin(TIMES * 3) + 0.5, 0, 1)[:, None, None]
    steady = smooth(a * (1 - way) + b * way, TIMES, both_ways=False)
    found = ((steady - a) * (b - a)).sum((1, 2)) / ((b - a) ** 2).sum()
    assert np.allclose(steady, a + found[:, None, None] * (b - a), atol=1e-9)


def test_the_live_filter_does_not_look_ahead():
    live = smooth(SLOW + NOISE, TIMES, OneEuro(2.0, 5.0), both_ways=False)
    first = smooth((SLOW + NOISE)[:40], TIMES[:40], OneEuro(2.0, 5.0), both_ways=False)
    assert np.allclose(live[:40], first)


def test_jitter_is_the_acceleration_also_when_frames_are_uneven():
    times = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.1, 50))
    path = times[:, None, None] ** 2 * np.ones((1, 4, 3))
    assert np.isclose(jitter(path, times), 2 * 3**0.5)


def test_smoothing_takes_the_memory_of_its_answer():
    points = np.zeros((400, 200, 3), np.float32)
    tracemalloc.start()
    smooth(points, np.arange(400) / FPS)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.2 * points.nbytes


def test_what_cannot_be_smoothed_is_answered():
    with pytest.raises(ValueError, match="positive"):
        OneEuro(min_cutoff_hz=0)
    with pytest.raises(ValueError, match=r"\(T, N, 2 or 3\)"):
        smooth(SLOW[0], TIMES)
    with pytest.raises(ValueError, match="frame 3"):
        smooth(SLOW[:5], [0, 1, 2, 2, 3])
    assert smooth(np.zeros((0, 2, 3)), np.zeros(0)).shape == (0, 2, 3)
