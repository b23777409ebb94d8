"""Files: the rule of paths, natural order, files that appear whole, JSON with a byte-order mark."""

import json
import os

import pytest

from hand_lib import ROOT
from hand_lib.files import natural_key, read_json, resolve, write_json, write_text


def test_a_relative_path_counts_from_here_and_then_from_the_workbook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand_lib").mkdir()
    assert resolve("hand_lib") == tmp_path / "hand_lib"
    assert resolve("hand_lib", base=ROOT) == ROOT / "hand_lib"
    assert resolve("hand_lib/files.py") == ROOT / "hand_lib" / "files.py"
    assert resolve(tmp_path) == tmp_path == resolve(".")
    (tmp_path / "mine").write_text("")
    assert resolve("mine", base=ROOT) == tmp_path / "mine"


def test_a_path_that_is_nowhere_names_both_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no/such.*" + f"{tmp_path}/no/such.*{ROOT}/no/su"):
        resolve("no/such")
    assert resolve("new", new=True) == tmp_path / "new"
    assert resolve("new", base=ROOT, new=True) == ROOT / "new"


def test_names_are_sorted_as_people_count():
    names = ["b2", "a10.png", "A9.png", "a09.png", "10", "9", "x", "³", "٣"]
    found = sorted(names, key=natural_key)
    assert found.index("A9.png") < found.index("a10.png") and found.index("9") < found.index("10")


def test_json_is_read_with_any_byte_order_mark_and_errors_name_the_file(tmp_path):
    path = tmp_path / "some.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(json.dumps({"a": "ä"}, ensure_ascii=False).encode(encoding))
        assert read_json(path) == {"a": "ä"}
    for damaged in (b'{"a": ', b'{"a": "\xe4"}', b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"some\.json is not whole JSON"):
            read_json(path)
    with pytest.raises(FileNotFoundError, match="other"):
        read_json(tmp_path / "other")
    assert read_json(tmp_path / "other", optional=True) is None


def test_a_written_file_appears_whole_and_says_why_it_cannot(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": (1, 2.5)})
    assert read_json(tmp_path / "a.json") == {"x": None, "y": [1, 2.5]}
    write_text(tmp_path / "a.json", "ä")
    assert (tmp_path / "a.json").read_bytes() == "ä".encode() and len(os.listdir(tmp_path)) == 1
    with pytest.raises(OSError, match=r"no/b.txt could not be written \(No such file"):
        write_text(tmp_path / "no" / "b.txt", "")
