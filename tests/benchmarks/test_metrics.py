import pytest
from benchmarks import metrics as benchmarks_metrics

from hand_lib.evaluation.freihand import freihand_scores


def test_the_plain_loop_computes_the_same_scores():
    arrays = benchmarks_metrics.hand_like(6, vertices=60)
    plain = benchmarks_metrics.plain_scores(*arrays)
    assert plain == pytest.approx(freihand_scores(*arrays), abs=1e-6)
    assert 0 < plain["f_al_score_5"] < 1
