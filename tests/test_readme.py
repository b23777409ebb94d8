"""Every command of the READMEs works as typed, from the workbook's folder and from notebooks/."""

import importlib
import json
import re
import shlex
from types import SimpleNamespace

import pytest

from hand_lib import ROOT, workbook
from hand_lib.data.freihand import write_freihand

PAGES = ("README.md", "data/README.md", "runs/README.md", "template/README.md",
         "notebooks/COMING_FROM_YOUTUBEHAND.md")  # fmt: skip
LEFT_OUT = ("python main.py", "make ", "tensorboard ", "pip install", "docker run", "papermill")
STARTS = ("python ", "torchrun ", *LEFT_OUT)


def commands() -> dict[str, str]:
    """Command -> page: lines of code blocks and `code` in the text that begin like commands."""
    found = {}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.S)
        blocks = [block for language, block in blocks if language in ("", "bash")]
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
        for line in [line for block in blocks for line in block.splitlines()] + spans:
            if line.startswith(STARTS) and not line.startswith(LEFT_OUT):
                found[line.split("  #")[0].strip()] = page
    return found


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A workbook's folder with a small data set, where long work is noted instead of done."""
    for module in ("hand_lib.files", "hand_lib.data.open", "hand_lib.evaluation.freihand"):
        if hasattr(importlib.import_module(module), "ROOT"):
            monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    from hand_lib.data.synthetic.hands import SyntheticHands

    hands = SyntheticHands(64, 0, 4)
    write_freihand(tmp_path / "data" / "freihand", [hands[n] for n in range(4)])
    (tmp_path / "notebooks").mkdir()
    done = []
    monkeypatch.setattr(workbook, "run_notebook", lambda name, given, *_: done.append(
        workbook.checked_parameters(workbook.notebook_path(name), given)))  # fmt: skip
    monkeypatch.setattr("hand_lib.training.loop.train", lambda *given, **_: done.append(given))
    monkeypatch.setattr(
        "hand_lib.evaluation.freihand.score_file", lambda *given, **_: done.append(given)
    )
    runs = "hand_lib.evaluation.runs"
    found = SimpleNamespace(in_camera=tuple, scores=None, words="")
    monkeypatch.setattr(f"{runs}.open_test_set", lambda *given: done.append(given) or found)
    monkeypatch.setattr(f"{runs}.evaluate_predictor", lambda *_, **__: found)
    monkeypatch.setattr(f"{runs}.write_predictions", lambda path, *_: path)
    monkeypatch.setattr("hand_lib.network.youtubehand.convert_checkpoint",
                        lambda *given: done.append(given) or {"ignored": []})  # fmt: skip
    monkeypatch.setattr("hand_lib.inference.predictor.Predictor.load", lambda run: run)
    note = "hand_lib.inference.__main__.process_pictures", "hand_lib.inference.video.process_video"
    monkeypatch.setattr(note[0], lambda *given, **_: (done.append(given) or ["written"], {}))
    monkeypatch.setattr(note[1], lambda *given, **_: done.append(given) or {})
    monkeypatch.setattr("hand_lib.inference.video.Frames", lambda *given: given)
    return tmp_path, done


def test_every_command_of_the_readmes_is_understood_as_typed(folders, monkeypatch):
    root, done = folders
    assert len(commands()) >= 10
    for folder in (root, root / "notebooks"):
        monkeypatch.chdir(folder)
        for command, page in commands().items():
            words = shlex.split(command)
            if words[1] != "-m" and "-m" in words:  # torchrun and its own options
                words = ["python", *words[words.index("-m") :]]
            if words[1] != "-m":
                assert (ROOT / words[1]).is_file(), f"{page}: {command}"
                continue
            module = importlib.import_module(words[2])
            if hasattr(module, "__path__"):
                module = importlib.import_module(f"{words[2]}.__main__")
            before = len(done)
            status = module.main(words[3:]) if len(words) > 3 else 0
            assert status in (0, None), f"{page}, from {folder.name}: {command}"
            assert len(done) > before or "data.open" in command or len(words) == 3, command


def test_every_parameter_that_the_readme_sets_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    known = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        known |= set(workbook.parameters_of(path))
    assert set(re.findall(r"-p (\w+) ", text)) <= known


def test_the_rooms_of_the_readme_are_those_of_the_module_and_their_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(hand_lib/\w+\) \|.*\| (.*) \|$", text, re.M)
    rooms = {path.parent.name for path in (ROOT / "hand_lib").glob("*/__init__.py")}
    assert {room for room, _ in rows} == rooms and len(rows) == 10
    for room, names in rows:
        module = importlib.import_module(f"hand_lib.{room}")
        assert len(names := re.findall(r"`(\w+)`", names)) == 3
        assert all(getattr(module, name) is not None for name in names)
    assert len(text.splitlines()) <= 130


def test_the_notebooks_speak_of_commands_that_exist():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        for module in re.findall(r"python -m ((?:hand_lib|benchmarks)[\w.]*\w)", text):
            assert hasattr(importlib.import_module(module), "main"), f"{path.name}: {module}"
