"""What grows how: exponents, the file of rows, and the plot."""

import numpy as np
import pytest
from benchmarks import footprint, scale


def rows_of(panel, sizes, power):
    return [{"panel": panel, "size": n, "ms": 2.0 * n**power, "cores": 2} for n in sizes]


def test_exponents_are_those_of_the_rows_and_only_cores_count():
    assert scale.exponent(rows_of("scoring", (100, 1000, 10_000), 1.25)) == pytest.approx(1.25)
    loading = rows_of("loading", (1, 2), -1) + rows_of("loading", (4, 8), 0)
    assert scale.exponent(loading) == pytest.approx(-1)


def test_rows_are_kept_in_place_of_the_same_panels_and_shown(tmp_path, monkeypatch, capsys):
    assert scale.table([]) == "not measured yet: python -m benchmarks.scale"
    monkeypatch.setattr(scale, "KEPT", tmp_path / "rows.csv")
    monkeypatch.setattr(scale.keep, "__defaults__", (scale.KEPT,))
    made = {"loading": (1, 2, 4), "scoring": (100, 1000), "decimation": (1000, 2000)}
    monkeypatch.setattr(scale, "measure", lambda panel: rows_of(panel, made[panel], 1))
    for words in (["scoring", "loading"], ["decimation"], ["scoring"]):
        scale.main(words)
    rows = scale.read_rows(scale.KEPT)
    order = ["decimation"] * 2 + ["scoring"] * 2 + ["loading"] * 3
    assert [row["panel"] for row in rows] == order
    assert "size^ 1.00" in capsys.readouterr().out
    titles = [axis.get_title() for axis in scale.plot(rows).axes]
    assert titles == ["decimation: size^1.00", "scoring: size^1.00", "loading: size^1.00"]
    with pytest.raises(SystemExit):
        scale.main(["lading"])


def test_panels_give_works_of_growing_size(monkeypatch):
    monkeypatch.setattr(scale, "milliseconds", lambda works, repeats, clock: [works[0]() or 1.0])
    monkeypatch.setitem(scale.PANELS, "loading", (lambda: iter([(1, int), (2, int)]), "processes"))
    assert [row["size"] for row in scale.measure("loading")] == [1, 2]
    size, work = next(scale.decimation())
    assert size == 778 and len(work().vertices[1]) == 389


def test_the_memory_of_a_command_is_seen_and_a_failed_one_is_an_error():
    code = "import time; data = bytearray(300_000_000); time.sleep(0.5)"
    found = footprint.peak([footprint.sys.executable, "-c", code], pause=0.05)
    assert 0.3 < found["peak_gb"] < 0.6 and np.isfinite(found["first_tenth_gb"])
    with pytest.raises(RuntimeError, match="ended with 3"):
        footprint.peak([footprint.sys.executable, "-c", "raise SystemExit(3)"])
