"""Tests run two files at a time (``make test``) on cores that they share with their processes."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # who waits leaves the core to others
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # of notebooks and commands started here, too

FIRST = (
    "synthetic/test_hands", "mesh/test_hierarchy", "training/test_loop", "notebooks/03_train",
    "benchmarks/test_accuracy", "viewers/test_browser", "notebooks/07_benchmarks",
    "notebooks/06_weak_supervision", "notebooks/05_demo", "training/test_resume",
    "network/test_encoders", "notebooks/04_evaluation", "notebooks/02_mesh_sampling",
    "notebooks/01_data_exploration", "notebooks/00_start_here", "tests/test_workbook",
)  # fmt: skip
"""Who compiles kernels for all comes first, then what takes longest; 04 shows what 03 trained."""


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda i: order.get("/".join(i.path.with_suffix("").parts[-2:]), len(order)))


@pytest.fixture(scope="session")
def model():
    """The built-in right hand."""
    from hand_lib.hand.model import HandModel

    return HandModel.builtin()


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A folder in FreiHAND's layout: three hands on four backgrounds, with masks."""
    from data_fixtures import write_freihand_fixture

    return write_freihand_fixture(tmp_path_factory.mktemp("freihand") / "pub")
