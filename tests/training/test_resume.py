"""A run that was killed, at any moment, continues as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_training import quiet, toy_config, toy_setup

from hand_lib import ROOT
from hand_lib.training import run_folder
from hand_lib.training.loop import train
from hand_lib.training.run_folder import read_log, write_log

TIMES = ("seconds", "images_per_s")


class Runs:
    """Processes that train and can be killed; they are forked from one that has imported torch."""

    def __init__(self):
        script = ROOT / "tests" / "toy_training.py"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.server = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment,
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
    rows, expected = read_log(folder), read_log(whole)
    strip = lambda row: {name: row[name] for name in row if name not in TIMES}  # noqa: E731
    assert [strip(row) for row in rows] == [strip(row) for row in expected]
    state, other = run_folder.load_state(folder), run_folder.load_state(whole)
    for name in ("step", "smooth"):
        assert state[name] == other[name]
    assert_equal_tensors(state["network"], other["network"])
    assert_equal_tensors(state["average"], other["average"])
    assert_equal_tensors(state["optimizer"]["state"], other["optimizer"]["state"])
    assert torch.equal(state["random"]["torch"], other["random"]["torch"])
    assert_equal_tensors(run_folder.load_model(folder), run_folder.load_model(whole))
    assert not list(folder.glob(".*.tmp"))


def assert_equal_tensors(one, other):
    assert one.keys() == other.keys()
    for name in one:
        if isinstance(one[name], dict):
            assert_equal_tensors(one[name], other[name])
        else:
            assert torch.equal(one[name], other[name]), name


def test_a_run_killed_at_random_moments_is_bit_identical(runs, whole, tmp_path):
    moments, folder = random.Random(1), tmp_path / "run"
    log = folder / "log.csv"
    for kill in range(3):  # each lets the log grow by some lines
        pid, wanted = runs.start(folder), 7 * kill + moments.randrange(2, 7)
        while not log.exists() or log.read_text().count("\n") < wanted:
            os.kill(pid, 0)
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert runs.end() == -signal.SIGKILL
        run_folder.load_state(folder)  # never half a file
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    ("where", "call"),
    [("rename", 11), ("rename", 13), ("validation", 2), ("backward", 7)],
)
def test_a_run_killed_in_the_middle_of_something_is_bit_identical(
    runs, whole, tmp_path, where, call
):
    folder = tmp_path / "run"
    assert runs.run(folder, die={"where": where, "call": call}) == -signal.SIGKILL
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == list(range(1, 25))


def test_a_polite_stop_saves_the_step_it_was_in_and_leaves_a_report(runs, whole, tmp_path):
    folder = tmp_path / "run"
    pid = runs.start(folder)
    while not (folder / "state.pt").exists():
        time.sleep(0.005)
    os.kill(pid, signal.SIGTERM)
    assert runs.end() == 1
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "interrupted"
    assert run_folder.load_state(folder)["step"] == metrics["step"] == metrics["checkpoint"]
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


def test_what_cannot_be_begun_or_continued_is_refused(whole, tmp_path):
    with pytest.raises(FileExistsError, match="resume="):
        train(toy_config(), whole, setup=toy_setup(toy_config()), say=quiet)
    with pytest.raises(ValueError, match="learning_rate was 0.01, now 0.5"):
        train(toy_config(learning_rate=0.5), resume=whole, say=quiet)
    with pytest.raises(FileNotFoundError, match="there is no run"):
        train(resume=tmp_path / "nothing", say=quiet)


def test_a_run_that_cannot_write_stops_with_a_report_and_goes_on_bit_identical(
    runs, whole, tmp_path
):
    folder = tmp_path / "run"
    assert runs.run(folder, die={"where": "disk", "call": 3}) == 1
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (
        "state.pt could not be written" in metrics["reason"] and "disk full?" in metrics["reason"]
    )
    assert [metrics[name] for name in ("status", "checkpoint", "step")] == ["failed", 4, 8]
    assert not list(folder.glob(".*.tmp"))
    assert runs.run(folder) == 0
    assert_same_run(folder, whole)


def test_the_log_reads_back_and_columns_may_come_late(tmp_path):
    rows = [{"step": step, "loss": 0.1 / step} for step in range(1, 4)]
    write_log(tmp_path, [*rows, {"step": 4, "loss": None, "extra": 1.0}])
    expected = [row | {"extra": None} for row in rows]
    assert read_log(tmp_path) == [*expected, {"step": 4, "loss": None, "extra": 1.0}]
    assert read_log(tmp_path / "nowhere") == []
