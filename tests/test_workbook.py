"""Notebooks run from the command line with parameters that exist; what notebooks share is made."""

import io
import json
import subprocess
import sys

import nbformat
import pytest

from hand_lib import ROOT, files, workbook
from hand_lib.data.freihand import FreiHand

PARAMETERS = 'run: str = ""  # name\nsteps: int = 3  # how many\nrate: float = 0.5\n'
CHECK = "from hand_lib.training.config import *\nrefuse_unknown_parameters(globals())"
SCORES = {
    "template only": {"root_mpvpe_mm": 96.0, "root_mpjpe_mm": 100.0, "pa_mpvpe_mm": 15.0,
                      "pa_mpjpe_mm": 18.0},
    "this run": {"root_mpvpe_mm": 48.0, "root_mpjpe_mm": 50.0, "pa_mpvpe_mm": 12.0,
                 "pa_mpjpe_mm": 18.9},
}  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A workbook's folder of its own."""
    monkeypatch.setattr(workbook, "ROOT", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.fixture
def notebook(root):
    """A notebook with three parameters, the check, and a printed answer."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, CHECK, "steps * rate")]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.metadata["kernelspec"] = kernel
    path = root / "book.ipynb"
    nbformat.write(book, path)
    return path


def append_cell(notebook, source):
    book = nbformat.read(notebook, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(book, notebook)


def finished_run(root, name, status="finished"):
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({"status": status}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_notebook_runs_with_its_parameters_quietly_and_leaves_no_stamps(
    notebook, tmp_path, capfd
):
    append_cell(notebook, "import sys\nsys.stderr.write('\\r 1%|\\r 9%|\\r100%|#|\\n')")
    parameters = {"steps": 5, "rate": 2}
    output = workbook.run_notebook(
        notebook, parameters, tmp_path / "new" / "out.ipynb", log=sys.stderr
    )
    book = nbformat.read(output, as_version=4)
    assert book.cells[-2].outputs[0]["data"]["text/plain"] == "10.0"
    texts = [out.text for out in book.cells[-1].outputs if out.get("name") == "stderr"]
    assert texts == ["100%|#|\n"]  # of a progress bar its end is kept
    assert "papermill" not in book.metadata
    assert all("papermill" not in cell.metadata for cell in book.cells)
    assert book.cells[0].metadata["tags"] == ["parameters"]
    assert capfd.readouterr() == ("", "\r 1%|\r 9%|\r100%|#|\n")  # the bar goes on in the log


def test_papermill_alone_is_stopped_by_the_notebook_itself(notebook, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"),
         "-p", "stepz", "5"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "unknown parameter 'stepz'; did you mean 'steps'? Valid: run, steps, rate" in done.stderr


def test_values_are_read_as_the_type_beside_the_name(notebook):
    given = {"run": 7, "steps": "4", "rate": "1"}
    checked = workbook.checked_parameters(notebook, given)
    assert checked == {"run": "7", "steps": 4, "rate": 1.0}
    assert isinstance(checked["rate"], float)
    for wrong in ("many", 2.5, True):
        with pytest.raises(TypeError, match="steps should be int like its default 3, found"):
            workbook.checked_parameters(notebook, {"steps": wrong})


@pytest.mark.parametrize("name", ["2024_05_01", "1e3", "0x10", "007", "None", "True", "[1]", "'a'"])
def test_a_run_is_called_what_was_typed(notebook, name):
    assert workbook.checked_parameters(notebook, {"run": name}) == {"run": name}


def test_a_switch_is_typed_as_true_or_false(notebook):
    book = nbformat.read(notebook, as_version=4)
    book.cells[0].source += "quick: bool = True\nmore: str = None\n"
    nbformat.write(book, notebook)
    checked = workbook.checked_parameters(notebook, {"quick": "false", "more": "12"})
    assert checked == {"quick": False, "more": "12"}
    with pytest.raises(TypeError, match="quick should be bool like its default True, found 'no'"):
        workbook.checked_parameters(notebook, {"quick": "no"})


def test_the_command_line_lists_refuses_and_reports(notebook, capsys):
    assert workbook.main([str(notebook), "--list"]) == 0
    assert "steps = 3" in capsys.readouterr().out
    assert workbook.main([str(notebook), "-p", "stepz", "5"]) == 2
    assert "did you mean 'steps'? Valid: run, steps, rate" in capsys.readouterr().err
    assert workbook.main(["no-such-notebook"]) == 2
    assert "no notebook 'no-such-notebook'" in capsys.readouterr().err


def test_a_failing_cell_keeps_the_good_copy_and_makes_no_folder(notebook, root, capsys):
    good = workbook.run_notebook(notebook, {"run": "mine"})
    assert good == root / "runs" / "mine" / "book.ipynb"
    before = good.read_text()
    append_cell(notebook, "raise RuntimeError('no luck')")
    assert workbook.main([str(notebook), "-p", "run", "mine"]) == 1
    assert "RuntimeError: no luck" in capsys.readouterr().err
    assert good.read_text() == before
    failed = nbformat.read(good.with_name("book.failed.ipynb"), as_version=4)
    assert failed.cells[-1].outputs
    assert workbook.main([str(notebook), "-p", "run", "typo"]) == 1
    assert not (root / "runs" / "typo").exists()
    assert (root / "runs" / "notebooks" / "book.failed.ipynb").exists()


def test_a_kernel_that_dies_is_one_line(notebook, capsys):
    append_cell(notebook, "import os\nos._exit(9)")
    assert workbook.main([str(notebook)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "its kernel died" in line


@pytest.mark.parametrize("problem, code, said", [
    (KeyboardInterrupt, 130, "the same command goes on from here"),
    (OSError("disk full"), 2, "disk full"),
])  # fmt: skip
def test_a_stop_by_the_user_or_by_the_disk_is_answered(monkeypatch, capsys, problem, code, said):
    def stopped(_):
        raise problem

    monkeypatch.setattr(workbook, "run_all", stopped)
    assert workbook.main([]) == code and said in capsys.readouterr().err


def test_notebooks_are_found_by_path_and_by_the_beginning_of_their_name(notebook, monkeypatch):
    monkeypatch.setattr(workbook, "NOTEBOOKS", notebook.parent)
    assert workbook.notebook_path("bo") == workbook.notebook_path("book") == notebook
    assert workbook.notebook_path(str(notebook)) == notebook
    with pytest.raises(FileNotFoundError, match="there are: book"):
        workbook.notebook_path("else")


def test_a_refreshed_notebook_is_fit_for_git_and_a_failing_one_stays_as_it_was(notebook):
    append_cell(notebook, "import sys, ipywidgets\nprint('noise', file=sys.stderr)\n"
                "ipywidgets.IntSlider(3)")  # fmt: skip
    append_cell(notebook, "from IPython.display import display\n"
                "display({'image/jpeg': b'me'}, raw=True, metadata={'private': True})")  # fmt: skip
    assert workbook.run_notebook(notebook, refresh=True) == notebook
    book = nbformat.read(notebook, as_version=4)
    assert [cell.execution_count for cell in book.cells] == [1, 2, 3, 4, 5]
    assert book.cells[2].outputs[0]["data"]["text/plain"] == "1.5"
    (panel,) = book.cells[3].outputs
    assert set(panel["data"]) == {"text/plain"} and "JupyterLab" in panel["data"]["text/plain"]
    assert "widgets" not in book.metadata
    (own,) = book.cells[4].outputs
    assert set(own["data"]) == {"text/plain"} and "your own" in own["data"]["text/plain"]
    append_cell(notebook, "1 / 0")
    before = notebook.read_text()
    with pytest.raises(Exception, match="division"):
        workbook.run_notebook(notebook, refresh=True)
    assert notebook.read_text() == before
    assert [p.name for p in notebook.parent.glob("*.ipynb")] == [notebook.name]


def test_runs_are_compared_with_the_best_single_mesh():
    reference = ROOT / "runs" / "reference"
    rows = workbook.comparison({"this run": reference}, count=40, progress=False)
    assert list(rows) == ["template only", "this run"]
    for key, _ in workbook.TABLE_KEYS.values():
        assert 0 < rows["this run"][key] < rows["template only"][key]


def test_a_named_run_is_taken_and_an_unknown_one_answered_with_the_known(root):
    folder = finished_run(root, "mine")
    for name in ("runs/mine", "mine", str(folder)):
        assert workbook.ensure_run(name) == folder
    with pytest.raises(FileNotFoundError, match="mine"):
        workbook.ensure_run("runs/other")
    reference = finished_run(root, "reference")
    assert workbook.ensure_run() == reference


def test_data_made_by_another_version_is_replaced_and_foreign_folders_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(workbook, "DATA_COUNT", 6)
    monkeypatch.setattr(workbook, "DATA_SIZE", 64)
    folder = workbook.ensure_data(tmp_path / "set")
    assert len(FreiHand(folder, "training")) == 6
    stamp = next(
        p for p in folder.iterdir() if p.is_file() and "fingerprint" in p.read_text()[:2000]
    )
    picture = sorted((folder / "training" / "rgb").iterdir())[0]
    before = picture.stat().st_mtime_ns
    workbook.ensure_data(folder)
    assert picture.stat().st_mtime_ns == before
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"fingerprint": "older"}))
    workbook.ensure_data(folder)
    assert picture.stat().st_mtime_ns > before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="not empty"):
        workbook.ensure_data(tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.jpg").exists()


def test_the_whole_run_passes_on_what_each_notebook_needs(root, monkeypatch):
    called = []
    monkeypatch.setattr(workbook, "IN_ORDER", ("01_a", "03_train", "04_evaluation", "05_demo"))
    monkeypatch.setattr(
        workbook, "run_notebook", lambda name, given, *_: called.append((name, given))
    )
    monkeypatch.setattr(workbook, "comparison", lambda runs: SCORES)
    log = io.StringIO()
    assert workbook.run_all("small", log) == SCORES
    assert called == [
        ("01_a", {}),
        ("03_train", {"preset": "small", "run": "small"}),
        ("04_evaluation", {"runs": "runs/small"}),
        ("05_demo", {"run": "runs/small"}),
    ]
    text = log.getvalue()
    assert "[2/4] 03_train" in text and "05_demo.ipynb" in text
    table = workbook.table(SCORES)
    assert table in text and "96.0  " in table and table.splitlines()[0].count("PA") == 2
    assert all(words in table for words in ("48.0 (-50 %)", "12.0 (-20 %)", "18.9 (+5 %)"))
    finished_run(root, "small")
    finished_run(root, "half", status="interrupted")
    called.clear()
    workbook.run_all("small", log)
    assert [name for name, _ in called] == ["01_a", "04_evaluation", "05_demo"]
    workbook.run_all("half", log)
    assert ("03_train", {"preset": "small", "resume": "half"}) in called
