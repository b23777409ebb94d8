import os

import cv2
import numba
import pytest
import torch
from benchmarks import stopwatch as benchmarks
from benchmarks.stopwatch import answer, compared, machine, ratio_chart, speed_up, table

FAST = {"what": "a walk", "ours_ms": 2.0, "theirs_ms": 30.0, "ratio": 15.0}
SLOW = {"what": "a step / plain loop", "ours_ms": 4.0, "theirs_ms": 3.0, "ratio": 4 / 3}
ALONE = {"what": "encode", "ours_ms": 0.25, "theirs_ms": None, "ratio": None}
UNLIKE = {"what": "step / forward + backward: x", "ours_ms": 10.0, "theirs_ms": 8.0, "ratio": 1.25}
ROWS = [FAST, SLOW, ALONE, UNLIKE]


def test_faster_always_means_theirs_over_ours_whatever_a_row_calls_its_ratio():
    assert [speed_up(row) for row in ROWS] == [15, 0.75, None, 0.8]


def test_rows_of_unlike_work_or_of_one_side_are_not_compared():
    assert compared(ROWS) == [FAST, SLOW]
    assert "without loss" in benchmarks.why_unlike(UNLIKE)
    assert benchmarks.why_unlike(FAST) is None


def test_the_table_has_a_line_a_row_and_explains_its_stars():
    head, *lines, note = table(ROWS).splitlines()
    assert head.split() == ["ours,", "ms", "theirs,", "ms", "faster"]
    assert [line.split()[-1] for line in lines] == ["x", "x", "-", "x*"]
    assert "15 x" in lines[0] and "0.75 x" in lines[1] and "0.80 x*" in lines[3]
    assert note == f"* not counted: {benchmarks.why_unlike(UNLIKE)}"
    assert len({len(line.rstrip("*")) for line in lines if line.endswith(("x", "-"))}) == 1


def test_times_are_medians_in_milliseconds_without_the_first_turn():
    ticks, calls = iter(range(100)), []
    works = [lambda: calls.append("a"), lambda: calls.append("b")]
    spent = benchmarks.milliseconds(works, 3, lambda: next(ticks), finish=lambda: next(ticks))
    assert calls == ["a", "b"] * 4 and spent == [2000, 2000]
    assert benchmarks.row("it", 2.0, 6.0, mb=1) == {
        "what": "it", "ours_ms": 2.0, "theirs_ms": 6.0, "ratio": 3.0, "mb": 1,
    }  # fmt: skip
    before = torch.get_num_threads()
    with benchmarks.few_threads(1):
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
    assert torch.get_num_threads() == before


def test_the_answer_counts_fair_wins_and_names_draws_and_losses():
    draws = [{**FAST, "what": f"near {ms}", "theirs_ms": ms} for ms in (1.9, 2.1)]
    first, *rest = answer([*ROWS, *draws], seconds=3.2).splitlines()
    assert first == "faster in 1 of 4 comparisons, measured in 3 s"
    assert rest == [
        "a draw, 0.95 x: near 1.9",
        "a draw, 1.05 x: near 2.1",
        "slower, 0.75 x: a step / plain loop",
    ]
    assert answer([FAST]) == "faster in 1 of 1 comparisons"


def test_the_chart_has_a_bar_from_one_to_each_ratio():
    (axis,) = ratio_chart(ROWS, "speeds").axes
    bars = axis.patches
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx([15, 0.75, 0.8])
    assert [bar.get_alpha() < 1 for bar in bars] == [False, False, True]
    assert axis.get_xscale() == "log" and axis.get_title() == "speeds"
    assert axis.get_xlim()[0] < 0.75 and axis.get_xlim()[1] > 15
    assert bars[0].get_facecolor()[:3] != bars[1].get_facecolor()[:3]
    with pytest.raises(ValueError, match="at least one row"):
        ratio_chart([ALONE])


def test_threads_are_held_and_the_machine_says_so():
    before = torch.get_num_threads(), numba.get_num_threads(), cv2.getNumThreads()
    try:
        benchmarks.use_threads(1)
        assert (torch.get_num_threads(), numba.get_num_threads(), cv2.getNumThreads()) == (1, 1, 1)
        line = machine()
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
        cv2.setNumThreads(before[2])
    for words in (f"{os.cpu_count()} cores", "threads in use: 1", f"torch {torch.__version__}"):
        assert words in line
    assert "GPU: " in line and "\n" not in line
    with pytest.raises(ValueError, match="from 1 to .* got 0"):
        benchmarks.use_threads(0)
