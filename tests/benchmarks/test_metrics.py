import pytest
from benchmarks import metrics as benchmarks_metrics

from hand_lib.evaluation.freihand import freihand_scores


def test_the_plain_loop_computes_the_same_scores():
    arrays = benchmarks_metrics.hand_like(6, vertices=60)
    plain = benchmarks_metrics.plain_scores(*arrays)
    assert plain == pytest.approx(freihand_scores(*arrays), abs=1e-6)
    assert 0 < plain["f_al_score_5"] < 1


def test_rows_hold_both_times_and_their_ratio():
    rows = benchmarks_metrics.rows(count=4, repeats=1)
    assert [list(row)[:4] for row in rows] == [["what", "ours_ms", "theirs_ms", "ratio"]] * 2
    for row in rows:
        assert row["ratio"] == pytest.approx(row["theirs_ms"] / row["ours_ms"])
    assert rows[0]["largest_difference"] < 1e-6
