"""Files of a run: whole or not at all, found by name, read without running code, held by one."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import filelock
import pytest
import torch
from toy_training import quiet, run, toy_config, toy_setup

from hand_lib import ROOT
from hand_lib.files import written_atomically
from hand_lib.training import run_folder
from hand_lib.training.loop import train


def test_a_run_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    for name in ("small", "2024_05_01", "1e3", "007"):
        assert run_folder.find_run(name) == ROOT / "runs" / name
    assert run_folder.find_run("runs/small") == ROOT / "runs" / "small"
    assert run_folder.find_run(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert run_folder.find_run("mine/run") == tmp_path / "mine" / "run"
    (tmp_path / "runs" / "here").mkdir(parents=True)
    (tmp_path / "runs" / "here" / "config.json").write_text("{}")
    assert run_folder.find_run("runs/here") == tmp_path / "runs" / "here"


def test_the_shipped_run_is_read_by_its_name():
    assert run_folder.read_config("reference").n_crops == 3
    with pytest.raises(FileNotFoundError, match="config.json is missing: there is no run in"):
        run_folder.read_config("nowhere")


def test_a_second_run_into_a_folder_is_refused_while_the_first_one_lives(tmp_path):
    with run_folder.locked(tmp_path / "run"):
        with pytest.raises(RuntimeError, match="in use by another process"):
            train(toy_config(), tmp_path / "run", setup=toy_setup(toy_config()), say=quiet)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of_once(code, tmp_path, monkeypatch):
    def refuse(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", refuse)
    with pytest.warns(UserWarning, match="cannot be locked") as told:
        with run_folder.locked(tmp_path / "run"):
            pass
    assert len(told) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="run folder .*file/run cannot be written .*choose another"):
        train(toy_config(), tmp_path / "file" / "run", setup=toy_setup(toy_config()), say=quiet)


def test_training_loading_and_every_module_work_without_the_modules_of_unix(tmp_path):
    """As on Windows, which has neither fcntl nor resource; and where nobody set a language."""
    folder = tmp_path / "läuft 手"
    code = (
        "import psutil, sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "from toy_training import run\n"
        "run(sys.argv[1], steps=2)\n"
        "from hand_lib.training.run_folder import load_network\n"
        "load_network('runs/reference')\n"
        "import importlib, pkgutil, hand_lib\n"
        "for module in pkgutil.walk_packages(hand_lib.__path__, 'hand_lib.'):\n"
        "    importlib.import_module(module.name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{ROOT}"}
    environment |= {"LC_ALL": "C", "LANG": "", "PYTHONUTF8": ""}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "model.safetensors").exists()


def test_what_a_failed_write_took_is_given_back_while_its_writer_is_still_open(tmp_path):
    with pytest.raises(OSError, match="file could not be written .No space"):
        with written_atomically(tmp_path / "file") as temporary:
            writer = open(temporary, "wb")  # as in the traceback of torch's writer
            writer.write(bytes(100_000))
            writer.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
    assert os.fstat(writer.fileno()).st_size == 0 and not list(tmp_path.iterdir())
    writer.close()


def test_weights_that_do_not_fit_on_the_disk_are_one_sentence_and_leave_the_old_ones(tmp_path):
    resource = pytest.importorskip("resource")
    run_folder.save_model(tmp_path, {"weights": torch.ones(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="model.safetensors could not be written .File too large"):
            run_folder.save_model(tmp_path, {"weights": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run_folder.load_model(tmp_path)["weights"].sum() == 10
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    assert run_folder.load_state(tmp_path) is None and not run_folder.has_state(tmp_path)
    for step in (1, 2):
        run_folder.save_state(tmp_path, {"step": step, "weights": torch.zeros(1000)})
    path = tmp_path / "state.pt"
    assert run_folder.load_state(tmp_path)["step"] == 2
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.warns(UserWarning, match="state.pt is damaged: going on from previous.pt"):
        assert run_folder.load_state(tmp_path)["step"] == 1
    path.unlink()  # a kill between two renames
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_folder.load_state(tmp_path)["step"] == 1 and run_folder.has_state(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch evil",))

    torch.save({"step": Evil()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="state.pt is damaged or not one of our checkpoints"):
        run_folder.load_state(tmp_path)
    assert not Path("evil").exists()


def test_saved_weights_read_back_equal(tmp_path):
    weights = {"a": torch.randn(3, 4).T, "b": torch.arange(5)}
    run_folder.save_model(tmp_path, weights, step=3)
    back = run_folder.load_model(tmp_path)
    assert back.keys() == weights.keys() and all(torch.equal(back[k], weights[k]) for k in back)
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        run_folder.load_model(tmp_path / "other")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        run_folder.load_model(tmp_path)


def test_a_continued_run_keeps_where_it_came_from(tmp_path):
    run(tmp_path / "run", steps=2)
    longer = toy_config(steps=4)
    train(longer, resume=tmp_path / "run", allow_changes=True, setup=toy_setup(longer), say=quiet)
    notes = run_folder.read_json(tmp_path / "run" / "provenance.json")
    assert notes["continued_at_steps"] == [2] and notes["legs"] == []


def test_a_full_disk_keeps_what_was_and_one_without_sync_is_written(tmp_path, monkeypatch):
    def refuse(code):
        def call(*_):
            raise OSError(code, os.strerror(code))

        return call

    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    run_folder.save_state(tmp_path, {"step": 1})
    assert run_folder.load_state(tmp_path) == {"step": 1}
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="state.pt could not be written .No space left"):
        run_folder.save_state(tmp_path, {"step": 2})
    assert run_folder.load_state(tmp_path) == {"step": 1}
    assert not list(tmp_path.glob(".*.tmp"))
