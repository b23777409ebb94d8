"""Notebooks run from the command line with parameters that exist, and with no others."""

import io
import subprocess
import sys

import nbformat
import pytest

from hand_lib import launch

PARAMETERS = 'run: str = ""  # name\nsteps: int = 3  # how many\nrate: float = 0.5\n'
CHECK = "from hand_lib.training.config import *\nrefuse_unknown_parameters(globals())"


@pytest.fixture
def notebook(tmp_path):
    """A notebook with three parameters, the check, and a printed answer."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, CHECK, "steps * rate")]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.metadata["kernelspec"] = kernel
    path = tmp_path / "book.ipynb"
    nbformat.write(book, path)
    return path


def test_a_notebook_runs_with_its_parameters_and_leaves_no_stamps(notebook, tmp_path):
    output = launch.launch(notebook, tmp_path / "new" / "out.ipynb", {"steps": 5, "rate": 2})
    book = nbformat.read(output, as_version=4)
    assert book.cells[-1].outputs[0]["data"]["text/plain"] == "10.0"
    assert "papermill" not in book.metadata
    assert all("papermill" not in cell.metadata for cell in book.cells)
    assert book.cells[0].metadata["tags"] == ["parameters"]


def test_a_kernel_says_nothing_of_its_own(notebook, tmp_path, capfd):
    launch.launch(notebook, tmp_path / "out.ipynb", log=sys.stderr)
    assert capfd.readouterr() == ("", "")


def test_what_is_printed_beside_a_progress_bar_starts_a_line_of_its_own():
    text = io.StringIO()
    screen = launch._Screen(text)
    screen.write("\r 40% of it")
    screen.lines.write("step 4\n")
    screen.lines.write("step ")
    screen.lines.write("5\n")
    screen.write("\r100% of it\n")
    screen.lines.write("done\n")
    screen.write("\r 7%\r   \r")  # erased
    screen.lines.write("more\n")
    expected = "\r 40% of it\nstep 4\nstep 5\n\r100% of it\ndone\n\r 7%\r   \rmore\n"
    assert text.getvalue() == expected


def test_an_unknown_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    with pytest.raises(ValueError, match="'stepz'; did you mean 'steps'.*run, steps, rate"):
        launch.launch(notebook, tmp_path / "out.ipynb", {"stepz": 5})
    assert not (tmp_path / "out.ipynb").exists()


def test_papermill_alone_is_stopped_by_the_notebook_itself(notebook, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"),
         "-p", "stepz", "5"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "unknown parameter 'stepz'; did you mean 'steps'? Valid: run, steps, rate" in done.stderr


def test_values_must_have_the_type_of_the_default(notebook):
    checked = launch.checked_parameters(notebook, {"run": 7, "steps": 4, "rate": 1})
    assert checked == {"run": "7", "steps": 4, "rate": 1.0}
    assert isinstance(checked["rate"], float)
    with pytest.raises(TypeError, match="steps should be int like its default 3, found 'many'"):
        launch.checked_parameters(notebook, {"steps": "many"})


def test_the_defaults_are_read_as_values(notebook):
    assert launch.parameters_of(notebook) == {"run": "", "steps": 3, "rate": 0.5}


def test_the_command_line_lists_refuses_and_reports(notebook, tmp_path, capsys):
    assert launch.main([str(notebook), "--list"]) == 0
    assert "steps = 3" in capsys.readouterr().out
    assert launch.main([str(notebook), "-p", "stepz", "5"]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
    assert launch.main(["no-such-notebook"]) == 2
    assert "no notebook 'no-such-notebook'" in capsys.readouterr().err


def test_a_failing_cell_gives_exit_code_one_and_leaves_the_notebook(notebook, tmp_path, capsys):
    book = nbformat.read(notebook, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell("raise RuntimeError('no luck')"))
    nbformat.write(book, notebook)
    assert launch.main([str(notebook), "-o", str(tmp_path / "out.ipynb")]) == 1
    assert "RuntimeError: no luck" in capsys.readouterr().err
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs


def test_a_stop_by_the_user_says_how_to_go_on(notebook, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "launch", stopped)
    assert launch.main([str(notebook)]) == 130
    assert "stopped; a training goes on with: -p resume" in capsys.readouterr().err


def test_notebooks_are_found_by_path_and_by_the_beginning_of_their_name(notebook, monkeypatch):
    monkeypatch.setattr(launch, "NOTEBOOKS", notebook.parent)
    assert launch.notebook_path("bo") == launch.notebook_path("book") == notebook
    assert launch.notebook_path(str(notebook)) == notebook
    with pytest.raises(FileNotFoundError, match="there are: book"):
        launch.notebook_path("else")


def test_stripping_stamps_keeps_outputs(notebook):
    book = nbformat.read(notebook, as_version=4)
    book.metadata["papermill"] = {"duration": 3}
    book.cells[0].metadata["papermill"] = {"start_time": "now"}
    nbformat.write(book, notebook)
    launch.strip_stamps(notebook)
    text = notebook.read_text()
    assert "papermill" not in text and "parameters" in text


def test_of_a_progress_bar_its_end_is_kept(notebook):
    book = nbformat.read(notebook, as_version=4)
    out = [("stdout", "one\n"), ("stderr", "\rbar:  1%|"), ("stderr", "\rbar:  9%|"),
           ("stdout", "two\n"), ("stderr", "warning\n"), ("stderr", "\rbar: 100%|#|\n"),
           ("stderr", "\n")]  # fmt: skip
    book.cells[1].outputs = [nbformat.v4.new_output("stream", name=n, text=t) for n, t in out]
    nbformat.write(book, notebook)
    launch.strip_stamps(notebook)
    outputs = nbformat.read(notebook, as_version=4).cells[1].outputs
    assert [o.text for o in outputs] == ["one\ntwo\n", "warning\n", "bar: 100%|#|\n"]


def test_the_executed_notebook_lands_in_the_run_it_made(notebook, monkeypatch, tmp_path):
    from hand_lib.training import checkpoints

    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    output = launch.launch(notebook, parameters={"run": "mine"})
    assert output == tmp_path / "runs" / "mine" / "book.ipynb" and output.exists()


def test_a_refreshed_notebook_is_fit_for_git_and_a_failing_one_stays_as_it_was(notebook):
    book = nbformat.read(notebook, as_version=4)
    noisy = "import sys, ipywidgets\nprint('noise', file=sys.stderr)\nipywidgets.IntSlider(3)"
    book.cells.append(nbformat.v4.new_code_cell(noisy))
    nbformat.write(book, notebook)
    assert launch.refresh(notebook) == notebook
    book = nbformat.read(notebook, as_version=4)
    assert [cell.execution_count for cell in book.cells] == [1, 2, 3, 4]
    assert book.cells[2].outputs[0]["data"]["text/plain"] == "1.5"
    (panel,) = book.cells[3].outputs
    assert set(panel["data"]) == {"text/plain"} and "JupyterLab" in panel["data"]["text/plain"]
    assert "widgets" not in book.metadata
    before = notebook.read_text()
    broken = nbformat.read(notebook, as_version=4)
    broken.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(broken, notebook)
    before = notebook.read_text()
    with pytest.raises(Exception, match="division"):
        launch.refresh(notebook)
    assert notebook.read_text() == before
    assert [p.name for p in notebook.parent.glob("*.ipynb")] == [notebook.name]
