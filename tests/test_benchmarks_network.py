import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hand_lib import benchmarks_network
from hand_lib.hand_model import HandModel
from hand_lib.network import NetworkConfig, build_network
from hand_lib.sampling import build_hierarchy
from hand_lib.synthetic import SyntheticHands


@functools.cache
def hand():
    model = HandModel.builtin()
    faces = np.asarray(model.faces)
    return build_hierarchy(model.vertices.numpy(), faces, (2, 2), method="barycentric")


def test_rows_hold_positive_times_and_their_ratio():
    table = benchmarks_network.rows(hand(), 2, 64, 1, "regnety_002", (4, 8))
    assert len(table) == 3
    for row in table:
        assert row["ours_ms"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_ms"] / row["ours_ms"])
    assert table[-1]["encoder_ratio"] > 1


def test_variants_agree_and_are_timed():
    for table, ways in (
        (benchmarks_network.spiral_variants(hand(), 1, 1), 3),
        (benchmarks_network.upsampling_variants(hand(), 1, 1), 3),
    ):
        assert len(table) == ways
        assert all(value > 0 for row in table for name, value in row.items() if name != "what")


def test_the_comparison_gives_both_decoders_the_same_images_and_reports_both():
    said = []
    table = benchmarks_network.compare_decoders(
        32, (0,), channels=(4, 8), batch_size=8, test_images=4, reports=2, hierarchy=hand(),
        say=said.append,
    )  # fmt: skip
    assert table == said
    assert [(row["decoder"], row["images"]) for row in table] == [
        ("coarse_to_fine", 16), ("youtubehand", 16), ("coarse_to_fine", 32), ("youtubehand", 32),
    ]  # fmt: skip
    assert all(0 < row["pa_mm"] <= row["plain_mm"] for row in table)
    assert all(row["seconds"] > 0 for row in table)


def test_a_part_taken_out_does_nothing_any_more():
    names = list(benchmarks_network.ABLATIONS)
    table = benchmarks_network.ablate_decoder(
        16, (0,), batch_size=8, test_images=4, hierarchy=hand()
    )
    assert [row["decoder"] for row in table] == names
    assert len({row["plain_mm"] for row in table}) == len(names)
    with pytest.raises(ValueError, match="unknown parts .'nose'.*whole"):
        benchmarks_network.ablate_decoder(16, parts=("nose",), hierarchy=hand())
    images = torch.rand(2, 3, 64, 64)
    config = NetworkConfig("regnety_002", image_size=64)
    for name, field in (
        ("no canonical hand", "canonical.weight"),
        ("no correction along spirals", "mix.0.taps"),
        ("no features looked up in the image", "seen.weight"),
    ):
        network = build_network(config, hand())
        nn.init.normal_(network.decoder.correct.weight)
        nn.init.normal_(network.decoder.mix[0].narrow.weight)
        benchmarks_network.ABLATIONS[name][0](network.decoder)
        network.train()(images).vertices.square().sum().backward()
        gradient = network.decoder.get_parameter(field).grad
        assert gradient is None or gradient.abs().max() < 1e-9


def test_scores_of_the_truth_are_zero():
    test = SyntheticHands(64, 0, 3).render_batch(np.arange(3))

    class Truth(nn.Module):
        faces = torch.zeros(1)

        def forward(self, images):
            return SimpleNamespace(
                vertices=torch.as_tensor(test["vertices"]),
                joints_2d=torch.as_tensor(test["joints_2d"]),
            )

    scores = benchmarks_network.evaluate(Truth(), test)
    assert scores["plain_mm"] == scores["joints_px"] == 0 and scores["pa_mm"] < 1e-3
