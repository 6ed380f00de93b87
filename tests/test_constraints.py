"""The tested versions are those of all dependencies, and of the PyTorch that captured steps are made for."""

import re
import tomllib
from pathlib import Path

from tombola.training.cuda import capture

ROOT = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_each_dependency_has_the_version_that_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    names = {re.split(r"[>=<\[ ]", text)[0].lower().replace("_", "-") for text in needed}
    assert names - {"tombola"} <= versions().keys()


def test_captured_steps_are_made_for_the_pytorch_that_was_tested() -> None:
    release = tuple(map(int, versions()["torch"].split(".")[:2]))
    assert release == capture._NEWEST
    assert ".".join(map(str, release)) in (ROOT / "README.md").read_text()
