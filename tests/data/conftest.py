import pytest
from data_fixtures import write_freihand_fixture


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A release in FreiHAND's layout, to be left as it is: three hands on four backgrounds."""
    return write_freihand_fixture(tmp_path_factory.mktemp("freihand") / "pub")
