"""Committed notebooks: executed from a fresh kernel, small, free of machines and stamps."""

import json
import re

import pytest

from hand_lib import ROOT, workbook

BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def outputs(path):
    return [o for c in cells(path) for o in c["outputs"]]


def tags(cell):
    return cell["metadata"].get("tags", [])


def test_the_notebooks_are_numbered_once_each():
    assert [int(path.name[:2]) for path in BOOKS] == list(range(8))


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_it_was_executed_once_from_top_to_bottom(path):
    counts = [c["execution_count"] for c in cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for o in outputs(path) if o["output_type"] == "error"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_it_has_a_title_a_question_and_one_parameters_cell_of_typed_literals(path):
    first = "".join(cells(path, "markdown")[0]["source"])
    assert re.match(rf"# {path.name[:2]} [A-Z][^:\n]*: .*\n\n\*[^*]*\?", first)  # *a question?*
    assert [n for n, c in enumerate(cells(path)) if "parameters" in tags(c)] == [0]
    for line in cells(path)[0]["source"]:
        if line.strip() and not line.lstrip().startswith("#"):
            assert re.match(r"\w+: \w+( \| None)? = \S", line), line
            assert line.split(":")[0] in workbook.parameters_of(path), f"unread: {line}"


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_its_cells_are_thin(path):
    assert (5 if path.name[:2] != "00" else 3) <= len(cells(path)) <= 18
    for cell in cells(path):
        source = "".join(cell["source"])
        assert len(source.splitlines()) <= 25 and not re.search(r"^class ", source, re.M)


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_it_is_small_and_speaks_of_no_machine(path):
    text = path.read_text()
    book = json.loads(text)
    assert len(text) < 300_000
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert "papermill" not in book["metadata"] and "widgets" not in book["metadata"]
    for output in outputs(path):
        visible = json.dumps(output.get("text", "")) + json.dumps(
            output.get("data", {}).get("text/plain", "")
        )
        assert not re.search(r"/(home|root|work|tmp|Users)/", visible), visible[:300]


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_every_live_figure_has_a_still_beside_it_for_github(path):
    for output in outputs(path):
        data = output.get("data", {})
        if "application/vnd.plotly.v1+json" in data:
            assert "image/png" in data
        if "image/png" in data:
            assert len("".join(data["image/png"])) * 3 / 4 < 150_000


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_widget_cells_are_not_compared(path):
    for cell in cells(path):
        for output in cell["outputs"]:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                assert "nbval-ignore-output" in tags(cell)


def test_the_first_page_shows_no_code():
    assert all(cell["metadata"]["jupyter"]["source_hidden"] for cell in cells(BOOKS[0]))
