"""The table of what pays, and that its candidates are what they say."""

import pytest
from benchmarks import ablation


def test_every_candidate_is_a_config_and_differs_from_the_others():
    base = ablation.base_config(3200)
    made = {name: ablation.base_config(3200, **more) for name, more in ablation.CANDIDATES.items()}
    assert made.pop("base") == base and base.steps == 100
    assert all(config != base for config in made.values()) and len(set(made.values())) == len(made)


def test_rows_are_kept_once_and_the_table_compares_equal_times(tmp_path, monkeypatch, capsys):
    path, asked = tmp_path / "rows.csv", []

    def measure(name, pictures, seed):
        asked.append((name, pictures, seed))
        numbers = (pictures, 1.0, 30.0 + seed, 12.0 if name == "base" else 11.0, 8.0, 60)
        row = {"candidate": name, "seed": seed, "time_of_pictures": pictures}
        return row | dict(zip(ablation.NUMBERS, numbers, strict=True))

    monkeypatch.setattr(ablation, "measure", measure)
    words = ["--only", "base", "batch 64", "--rows", str(path)]
    for _ in range(2):
        assert ablation.main(["640", "--seeds", "0", "1", *words]) == 0
    ablation.main(["320", *words])
    assert len(asked) == len(ablation.read_rows(path)) == 6
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert [line.split()[0] for line in lines] == ["320", "320", "640", "640"]
    assert "batch 64" in lines[2] and "30.50 (+0.00)" in lines[2] and "(-1.00)" in lines[2]
    assert ablation.table([]).startswith("no ablation measured yet")
    with pytest.raises(SystemExit):
        ablation.main(["640", "--only", "bse"])
