import pytest
from benchmarks import network as benchmarks_network
from network_fixtures import hand_hierarchy


def test_rows_hold_positive_times_and_their_ratio():
    table = benchmarks_network.rows(hand_hierarchy(), 2, 64, 1, "regnety_002", (4, 8))
    assert len(table) == 3
    for row in table:
        assert row["ours_ms"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_ms"] / row["ours_ms"])
    assert table[-1]["encoder_ratio"] > 1
