from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks import accuracy as benchmarks_accuracy
from network_fixtures import hand_hierarchy
from torch import nn

from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.network.model import Prediction, build_network
from hand_lib.training.config import make_config


def test_the_comparison_gives_both_decoders_the_same_images_and_reports_both():
    said = []
    table = benchmarks_accuracy.compare_decoders(
        16, (0,), channels=(4, 8), batch_size=8, test_images=4, reports=2,
        hierarchy=hand_hierarchy(), say=said.append,
    )  # fmt: skip
    assert table == said
    assert [(row["decoder"], row["images"]) for row in table] == [
        ("coarse_to_fine", 8), ("youtubehand", 8), ("coarse_to_fine", 16), ("youtubehand", 16),
    ]  # fmt: skip
    assert all(0 < row["pa_mm"] <= row["plain_mm"] for row in table)
    assert all(row["seconds"] > 0 for row in table)


def test_a_part_taken_out_does_nothing_any_more():
    names = list(benchmarks_accuracy.ABLATIONS)
    table = benchmarks_accuracy.ablate_decoder(
        8, (0,), batch_size=8, test_images=4, hierarchy=hand_hierarchy()
    )  # the surface maps are labels, so a run without them differs from the first step on
    assert [row["decoder"] for row in table] == names
    assert len({row["plain_mm"] for row in table}) == len(names)
    with pytest.raises(ValueError, match="unknown parts .'nose'.*whole"):
        benchmarks_accuracy.ablate_decoder(16, parts=("nose",), hierarchy=hand_hierarchy())
    images = torch.rand(2, 3, 64, 64)
    config = make_config("small", backbone="regnety_002", pretrained=False, image_size=64)
    assert benchmarks_accuracy.ABLATIONS["one look"][1] == {"n_crops": 1}
    for name, field in (
        ("no canonical hand", "canonical.weight"),
        ("no correction along spirals", "mix.0.taps"),
        ("no features looked up in the image", "image_features.weight"),
    ):
        network = build_network(config, hand_hierarchy())
        nn.init.normal_(network.decoder.correct.weight)
        nn.init.normal_(network.decoder.mix[0].narrow.weight)
        benchmarks_accuracy.ABLATIONS[name][0](network.decoder)
        network.train()(images).vertices.square().sum().backward()
        gradient = network.decoder.get_parameter(field).grad
        assert gradient is None or gradient.abs().max() < 1e-9


def _rows():
    """Two networks, two reports and two seeds; b is worse by ten, then twice as bad."""
    plain = {("a", 10): 50.0, ("b", 10): 60.0, ("a", 20): 20.0, ("b", 20): 40.0}
    return [
        {"decoder": name, "seed": seed, "images": images, "plain_mm": value + seed,
         "pa_mm": value / 2, "joints_px": 3.0, "seconds": 1.0}
        for seed in (0, 1) for (name, images), value in plain.items()
    ]  # fmt: skip


def test_last_scores_are_means_over_the_seeds_and_stand_beside_one_of_them():
    scores = benchmarks_accuracy.final_scores(_rows())
    assert scores["a"] == {
        "seeds": 2, "images": 20, "plain_mm": 20.5, "pa_mm": 10.0, "joints_px": 3.0
    }  # fmt: skip
    text = benchmarks_accuracy.score_table(_rows(), "b")
    assert "10.00 (-50.0%)" in text and "3.00 ( +0.0%)" in text and "20 images, 2 seed" in text
    with pytest.raises(ValueError, match="no rows of 'c'; there are: a, b"):
        benchmarks_accuracy.score_table(_rows(), "c")


def test_a_kept_table_joins_those_kept_before(tmp_path, monkeypatch, capsys):
    path = tmp_path / "kept.json"
    monkeypatch.setattr(benchmarks_accuracy, "KEPT", path)
    assert benchmarks_accuracy.kept_rows("compare", path) == []
    asked = []
    for name in ("compare_decoders", "ablate_decoder"):
        monkeypatch.setattr(
            benchmarks_accuracy, name, lambda images, seeds, say: asked.append((images, seeds)) or
            [row | {"decoder": {"a": "whole", "b": "youtubehand"}[row["decoder"]]}
             for row in _rows()])  # fmt: skip
    assert benchmarks_accuracy.main(["compare", "20", "0", "1", "--keep"]) == 0
    assert benchmarks_accuracy.main(["ablate", "20", "--keep"]) == 0
    assert asked == [(20, [0, 1]), (20, [0])]
    assert "youtubehand" in capsys.readouterr().out
    for kind in ("compare", "ablate"):
        assert len(benchmarks_accuracy.kept_rows(kind, path)) == 8


def test_scores_of_the_truth_are_zero():
    test = SyntheticHands(64, 0, 3).fetch_batch(np.arange(3))

    class Truth(nn.Module):
        faces, view_size = torch.zeros(1), 0

        def forward(self, images):
            vertices, joints_2d = (torch.as_tensor(test[n]) for n in ("vertices", "joints_2d"))
            return Prediction(vertices, torch.zeros(3, 21, 3), torch.ones(3, 3), joints_2d)

    scores = benchmarks_accuracy.evaluate(Truth(), test)
    assert scores["plain_mm"] == scores["joints_px"] == 0 and scores["pa_mm"] < 1e-3


def test_the_precision_gap_is_what_autocast_changes():
    class Linear(nn.Module):
        faces = torch.zeros(1)

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 6, bias=False)

        def forward(self, images):
            return SimpleNamespace(vertices=self.layer(images.mean((2, 3))).unflatten(1, (2, 3)))

    network = Linear()
    nn.init.constant_(network.layer.weight, 1 + 2**-9)  # bfloat16 makes it 1
    gap = benchmarks_accuracy.precision_gap(network, torch.ones(2, 3, 4, 4))
    assert gap["mean_mm"] == pytest.approx(1000 * 3**0.5 * 3 * 2**-9, rel=0.2)
    nn.init.constant_(network.layer.weight, 1.0)
    assert benchmarks_accuracy.precision_gap(network, torch.ones(2, 3, 4, 4))["mean_mm"] == 0
