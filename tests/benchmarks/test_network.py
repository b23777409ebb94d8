import pytest
import torch
from benchmarks import network as benchmarks_network
from network_fixtures import hand_hierarchy


def test_rows_hold_positive_times_and_their_ratio():
    table = benchmarks_network.rows(hand_hierarchy(), 2, 64, 1, "regnety_002", (4, 8))
    assert len(table) == 3
    for row in table:
        assert row["ours_ms"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_ms"] / row["ours_ms"])
    assert table[-1]["encoder_ratio"] > 1


def test_variants_agree_and_are_timed():
    for table, ways in (
        (benchmarks_network.spiral_variants(hand_hierarchy(), 1, 1), 3),
        (benchmarks_network.folded_variants(hand_hierarchy(), 1, 1), 3),
        (benchmarks_network.upsampling_variants(hand_hierarchy(), 1, 1), 3),
    ):
        assert len(table) == ways
        assert all(value > 0 for row in table for name, value in row.items() if name != "what")


def test_kept_megabytes_count_what_backward_needs_once():
    x = torch.ones(250_000, requires_grad=True)  # 1 MB
    assert benchmarks_network.kept_megabytes(lambda: x + 1) == 0
    assert benchmarks_network.kept_megabytes(lambda: x * x) == 1
    assert benchmarks_network.kept_megabytes(lambda: (x * x).exp()) == 2
