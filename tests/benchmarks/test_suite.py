"""Notebook 07 measures every topic there is, so that nbval runs every benchmark."""

import pytest
from benchmarks import suite

from hand_lib import ROOT


def test_a_topic_is_measured_and_an_unknown_one_answered_with_those_there_are(monkeypatch):
    row = {"what": "walk", "ours_ms": 1.0, "theirs_ms": 2.0, "ratio": 2.0}
    monkeypatch.setattr(suite.metrics, "rows", lambda count, repeats: [row | {"count": count}])
    assert suite.measure("scoring")[0]["count"] < suite.measure("scoring", quick=False)[0]["count"]
    with pytest.raises(ValueError, match="'scorring'; there are: hand model, .*scoring") as error:
        suite.measure("scorring")
    book = (ROOT / "notebooks" / "07_benchmarks.ipynb").read_text()
    topics = str(error.value).split("there are: ")[1].split(", ")
    assert len(topics) == 8 and all(f'suite.measure(\\"{topic}\\"' in book for topic in topics)
