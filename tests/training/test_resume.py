"""A run that was killed, at any moment, continues as if nothing had happened."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_training import quiet, toy_config, toy_task

from hand_lib.files import written_atomically
from hand_lib.training import checkpoints
from hand_lib.training.loop import train

TIMES = ("seconds", "images_per_s")


class Runs:
    """Processes that train and can be killed; they are forked from one that has imported torch."""

    def __init__(self):
        script = Path(__file__).with_name("toy_training.py")
        self.server = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, folder, **job) -> int:
        self.server.stdin.write(json.dumps({"folder": str(folder), **job}) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())["pid"]

    def end(self) -> int:
        return json.loads(self.server.stdout.readline())["status"]

    def run(self, folder, **job) -> int:
        self.start(folder, **job)
        return self.end()


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.server.stdin.close()
    runs.server.wait(timeout=20)


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert runs.run(folder) == 0
    return folder


def assert_same_run(folder, whole):
    """Losses, validation scores, weights, optimiser and averages are the same, bit for bit."""
    rows, expected = checkpoints.read_log(folder), checkpoints.read_log(whole)
    strip = lambda row: {name: row[name] for name in row if name not in TIMES}  # noqa: E731
    assert [strip(row) for row in rows] == [strip(row) for row in expected]
    state, other = checkpoints.load_state(folder), checkpoints.load_state(whole)
    for name in ("step", "smooth"):
        assert state[name] == other[name]
    assert_equal_tensors(state["network"], other["network"])
    assert_equal_tensors(state["average"], other["average"])
    assert_equal_tensors(state["optimizer"]["state"], other["optimizer"]["state"])
    assert torch.equal(state["random"]["torch"], other["random"]["torch"])
    assert_equal_tensors(checkpoints.load_model(folder), checkpoints.load_model(whole))
    assert not list(folder.glob(".*.tmp"))


def assert_equal_tensors(one, other):
    assert one.keys() == other.keys()
    for name in one:
        if isinstance(one[name], dict):
            assert_equal_tensors(one[name], other[name])
        else:
            assert torch.equal(one[name], other[name]), name


def wait_for_a_moment(pid, folder, moments):
    """Until a run's log has grown by a random number of lines, and a random while longer."""
    log = folder / "log.csv"

    def lines():
        return log.read_text().count("\n") if log.exists() else 0

    wanted = lines() + moments.randrange(8)
    try:
        while lines() < wanted:
            os.kill(pid, 0)
            time.sleep(0.002)
    except ProcessLookupError:  # it finished
        return
    time.sleep(moments.uniform(0, 0.03))


def test_a_run_killed_at_twenty_random_moments_is_bit_identical(runs, whole, tmp_path):
    moments = random.Random(1)
    folder, kills, lives = tmp_path / "run", 0, 0
    while kills < 20:
        lives += 1
        assert lives < 400, "runs end before they can be killed"
        pid = runs.start(folder)
        wait_for_a_moment(pid, folder, moments)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if runs.end() == -signal.SIGKILL:
            kills += 1
            state = folder / "state.pt"
            if state.exists():
                checkpoints.load_state(folder)  # never half a file
        else:  # it finished: check it, then begin another one
            assert_same_run(folder, whole)
            folder = tmp_path / f"run{lives}"
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    ("where", "call"),
    [("rename", 1), ("rename", 4), ("rename", 9), ("sync", 9), ("validation", 1),
     ("validation", 2), ("backward", 7)],
)  # fmt: skip
def test_a_run_killed_in_the_middle_of_something_is_bit_identical(
    runs, whole, tmp_path, where, call
):
    folder = tmp_path / "run"
    assert runs.run(folder, die={"where": where, "call": call}) == -signal.SIGKILL
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == list(range(1, 25))
    assert [event.step for event in events.Images("validation hands")] == [0, 6, 12, 18, 24]


def test_a_polite_stop_saves_the_step_it_was_in_and_leaves_a_report(runs, whole, tmp_path):
    folder = tmp_path / "run"
    pid = runs.start(folder)
    while not (folder / "state.pt").exists():
        time.sleep(0.005)
    os.kill(pid, signal.SIGTERM)
    assert runs.end() == 1
    assert "interrupted" in (folder / "report.txt").read_text()
    step = json.loads((folder / "metrics.json").read_text())["step"]
    assert checkpoints.load_state(folder)["step"] == step
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


def test_a_second_run_into_a_folder_is_refused_while_the_first_one_lives(tmp_path):
    with checkpoints.locked(tmp_path / "run"):
        with pytest.raises(RuntimeError, match=f"in use by process {os.getpid()}"):
            train(toy_config(), tmp_path / "run", task=toy_task(toy_config()), say=quiet)


def test_a_new_run_into_the_folder_of_an_old_one_is_refused(whole):
    with pytest.raises(FileExistsError, match="resume="):
        train(toy_config(), whole, task=toy_task(toy_config()), say=quiet)


def test_resuming_with_another_config_says_what_differs(whole):
    with pytest.raises(ValueError, match="learning_rate was 0.01, now 0.5"):
        train(toy_config(learning_rate=0.5), resume=whole, say=quiet)


def test_resuming_with_another_config_is_possible_on_request(runs, tmp_path):
    folder = tmp_path / "run"
    assert runs.run(folder, config={"steps": 8}) == 0
    longer = toy_config(steps=12)
    result = train(longer, resume=folder, allow_changes=True, task=toy_task(longer), say=quiet)
    assert result.step == 12
    assert [row["step"] for row in result.log][-1] == 12


def test_resuming_where_nothing_ran_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run"):
        train(resume=tmp_path / "nothing", say=quiet)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path, monkeypatch):
    checkpoints.save_state(tmp_path, {"step": 1})
    original = torch.save

    def no_space(state, path):
        original(state, path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="state.pt could not be written .No space left"):
        checkpoints.save_state(tmp_path, {"step": 2})
    assert checkpoints.load_state(tmp_path) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_that_cannot_write_stops_with_a_report_and_goes_on_bit_identical(
    runs, whole, tmp_path
):
    folder = tmp_path / "run"
    assert runs.run(folder, die={"where": "disk", "call": 3}) == 1
    report = (folder / "report.txt").read_text()
    assert "state.pt could not be written" in report and "disk full?" in report
    assert "checkpoint  step 4" in report and "steps       8 of 24" in report
    assert json.loads((folder / "metrics.json").read_text())["status"] == "failed"
    assert not list(folder.glob(".*.tmp"))
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


def test_what_a_failed_write_took_is_given_back_while_its_writer_is_still_open(tmp_path):
    with pytest.raises(OSError, match="file could not be written .No space"):
        with written_atomically(tmp_path / "file") as temporary:
            writer = open(temporary, "wb")  # as in the traceback of torch's writer
            writer.write(bytes(100_000))
            writer.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
    assert os.fstat(writer.fileno()).st_size == 0 and not list(tmp_path.iterdir())
    writer.close()


def test_half_a_checkpoint_is_refused_by_name(tmp_path):
    checkpoints.save_state(tmp_path, {"step": 1, "weights": torch.zeros(1000)})
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="state.pt is damaged"):
        checkpoints.load_state(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch evil",))

    torch.save({"step": Evil()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="not one of our checkpoints"):
        checkpoints.load_state(tmp_path)


def test_saved_weights_read_back_equal(tmp_path):
    weights = {"a": torch.randn(3, 4).T, "b": torch.arange(5)}
    weights["c"] = weights["b"]  # two names for one tensor
    checkpoints.save_model(tmp_path, weights, step=3)
    assert_equal_tensors(checkpoints.load_model(tmp_path), weights)
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        checkpoints.load_model(tmp_path / "other")


def test_the_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = checkpoints.Log(tmp_path, -1)
    for step in range(1, 6):
        log.add({"step": step, "loss": 0.1 / step})
    log.add({"step": 6, "loss": 0.5, "extra": 1.0})
    with open(tmp_path / "log.csv", "a") as file:
        file.write("7,0.1")  # a line torn by a kill
    rows = checkpoints.Log(tmp_path, 3).rows
    assert rows == checkpoints.read_log(tmp_path)
    assert rows == [{"step": s, "loss": 0.1 / s, "extra": None} for s in (1, 2, 3)]
