"""The curve of error against pictures seen, through runs that began with other runs."""

from dataclasses import replace

import pytest

from hand_lib.training import lineage
from hand_lib.training.config import make_config


def leave_run(folder, ends, batch_size=10, view_size=0, start_from=""):
    """A run folder with validations at steps 0, 50 and 100 and the errors ``ends``."""
    folder.mkdir(parents=True)
    config = replace(
        make_config("quick"), batch_size=batch_size, view_size=view_size, start_from=start_from
    )
    (folder / "config.json").write_text(config.to_json())
    lines = ["step,seconds,loss,val_vertices_mm,val_vertices_pa_mm,val_joints_2d_percent"]
    for number, error in enumerate(ends):
        lines.append(f"{50 * number},{60.0 * number},,{error},{error / 2},{error / 4}")
        lines.append(f"{50 * number + 10},{60.0 * number + 5},0.5,,,")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


def test_a_curve_goes_on_through_the_runs_it_began_with(tmp_path):
    first, second, third = (str(tmp_path / name) for name in "abc")
    leave_run(tmp_path / "a", [80, 40, 32])
    leave_run(tmp_path / "b", [32, 24, 16], batch_size=30, view_size=64, start_from=first)
    lineage.keep_history(second, first)
    leave_run(tmp_path / "c", [16, 10, 8], start_from=second)
    lineage.keep_history(third, second)

    curve = lineage.learning_curve(third)
    assert [row["run"] for row in curve] == [0] * 3 + [1] * 3 + [2] * 3
    assert [row["pictures"] for row in curve] == [
        0, 500, 1000, 1000, 2500, 4000, 4000, 4500, 5000]  # fmt: skip
    assert [row["minutes"] for row in curve] == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    assert [row["vertices_mm"] for row in curve] == [80, 40, 32, 32, 24, 16, 16, 10, 8]
    assert {row["view_size"] for row in curve[3:6]} == {64}
    assert [row["vertices_mm"] for row in lineage.run_ends(curve)] == [32, 16, 8]
    assert lineage.learning_curve(first) == curve[:3]


def test_a_run_from_nothing_keeps_no_history(tmp_path):
    leave_run(tmp_path / "a", [80, 40, 32])
    (tmp_path / "b").mkdir()
    lineage.keep_history(tmp_path / "b", "")
    lineage.keep_history(tmp_path / "b", str(tmp_path / "gone"))
    assert not list((tmp_path / "b").iterdir())
    assert lineage.read_history(tmp_path / "a") == []


def test_the_trend_is_the_power_law_through_the_ends(tmp_path):
    rows = [
        {"run": run, "pictures": pictures, "vertices_mm": 100 * pictures**-0.25}
        for run, pictures in enumerate((10_000, 160_000, 810_000))
    ]
    rows.insert(1, {"run": 1, "pictures": 90_000, "vertices_mm": 99.0})  # not an end
    line = lineage.trend(rows, "vertices_mm")
    assert line.scale == pytest.approx(100)
    assert line.exponent == pytest.approx(0.25)
    assert line.pictures_for(2.5) == pytest.approx(40**4)
    assert lineage.trend(rows[:1], "vertices_mm") is None
    assert lineage.Trend(10.0, -0.1).pictures_for(5.0) == float("inf")


def test_a_foreign_history_is_refused_by_name(tmp_path):
    (tmp_path / "history.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(ValueError, match=r"history\.csv: expected the columns run, pictures"):
        lineage.read_history(tmp_path)


def test_a_damaged_history_is_refused_by_its_line(tmp_path):
    path = tmp_path / "history.csv"
    for damaged in ("0,100,0.1,64,80.0,x,20.0", "0,100,0.1", "0,1e2,0.1,64,8,8,8"):
        path.write_text(",".join(lineage.COLUMNS) + "\n0,0,0.0,64,90.0,,\n" + damaged + "\n")
        with pytest.raises(ValueError, match=r"history\.csv, line 3: expected 7 numbers"):
            lineage.read_history(tmp_path)
    path.write_text(",".join(lineage.COLUMNS) + "\n0,0,0.0,64,90.0,,\n")
    assert lineage.read_history(tmp_path)[0]["vertices_pa_mm"] is None
