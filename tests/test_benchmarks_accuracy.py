from types import SimpleNamespace

import numpy as np
import pytest
import torch
from network_fixtures import hand_hierarchy
from torch import nn

from hand_lib import benchmarks_accuracy
from hand_lib.network import NetworkConfig, build_network
from hand_lib.synthetic import SyntheticHands


def test_the_comparison_gives_both_decoders_the_same_images_and_reports_both():
    said = []
    table = benchmarks_accuracy.compare_decoders(
        32, (0,), channels=(4, 8), batch_size=8, test_images=4, reports=2,
        hierarchy=hand_hierarchy(), say=said.append,
    )  # fmt: skip
    assert table == said
    assert [(row["decoder"], row["images"]) for row in table] == [
        ("coarse_to_fine", 16), ("youtubehand", 16), ("coarse_to_fine", 32), ("youtubehand", 32),
    ]  # fmt: skip
    assert all(0 < row["pa_mm"] <= row["plain_mm"] for row in table)
    assert all(row["seconds"] > 0 for row in table)


def test_a_part_taken_out_does_nothing_any_more():
    names = list(benchmarks_accuracy.ABLATIONS)
    table = benchmarks_accuracy.ablate_decoder(
        16, (0,), batch_size=8, test_images=4, hierarchy=hand_hierarchy()
    )  # the surface maps are labels, so a run without them differs from the first step on
    assert [row["decoder"] for row in table] == names
    assert len({row["plain_mm"] for row in table}) == len(names)
    with pytest.raises(ValueError, match="unknown parts .'nose'.*whole"):
        benchmarks_accuracy.ablate_decoder(16, parts=("nose",), hierarchy=hand_hierarchy())
    images = torch.rand(2, 3, 64, 64)
    config = NetworkConfig("regnety_002", image_size=64)
    assert benchmarks_accuracy.ABLATIONS["one look"][1] == 1
    for name, field in (
        ("no canonical hand", "canonical.weight"),
        ("no correction along spirals", "mix.0.taps"),
        ("no features looked up in the image", "seen.weight"),
    ):
        network = build_network(config, hand_hierarchy())
        nn.init.normal_(network.decoder.correct.weight)
        nn.init.normal_(network.decoder.mix[0].narrow.weight)
        benchmarks_accuracy.ABLATIONS[name][0](network.decoder)
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

    scores = benchmarks_accuracy.evaluate(Truth(), test)
    assert scores["plain_mm"] == scores["joints_px"] == 0 and scores["pa_mm"] < 1e-3
