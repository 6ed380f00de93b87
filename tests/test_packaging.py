"""What stands beside the package: its description on PyPI, its citation, its versions in every place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from scripts import module_of

from tombola.version import __version__

ROOT = Path(__file__).parents[1]
# All that PyPI cannot find: links and pictures without a scheme, other than within the page.
_RELATIVE = re.compile(r"\]\((?!https?://|#|mailto:)[^)]+\)")


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    return module_of(ROOT / "setup.py", "tombola_setup")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def test_the_description_on_pypi_has_absolute_addresses(setup: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    relative = _RELATIVE.findall(readme)
    assert relative
    text = setup.description(readme, "https://github.com/who/tombola", "1.2.3")
    assert not _RELATIVE.findall(text)
    assert text.count("https://raw.githubusercontent.com/who/tombola/v1.2.3/docs/images/") == readme.count(
        "](docs/images/"
    )
    assert "(https://github.com/who/tombola/blob/v1.2.3/docs/design.md)" in text
    # Nothing else changes.
    back = text.replace("https://raw.githubusercontent.com/who/tombola/v1.2.3/", "").replace(
        "https://github.com/who/tombola/blob/v1.2.3/", ""
    )
    assert back == readme


@pytest.mark.parametrize(
    ("written", "absolute"),
    [
        ("[a](b.md#c)", "[a](https://github.com/w/t/blob/v1/b.md#c)"),
        ("![a](b.png)", "![a](https://raw.githubusercontent.com/w/t/v1/b.png)"),
        ("[a](#c)", "[a](#c)"),
        ("[a](https://x.org/b)", "[a](https://x.org/b)"),
    ],
)
def test_a_link_leads_where_it_led(setup: ModuleType, written: str, absolute: str) -> None:
    assert setup.description(written, "https://github.com/w/t", "1") == absolute


def test_what_links_of_the_readme_lead_to_is_there() -> None:
    for link in _RELATIVE.findall((ROOT / "README.md").read_text()):
        assert (ROOT / link[2:-1].partition("#")[0]).exists(), link


def test_the_version_is_one_everywhere(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == __version__ == citation["version"]
    assert citation["license"] == project["license"]
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()


def test_the_address_of_the_repository_stands_in_one_place(project: dict[str, Any]) -> None:
    source = project["urls"]["Source"]
    assert all(address.startswith(source) for address in project["urls"].values())
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    owner = source.removeprefix("https://github.com/").partition("/")[0]
    if owner == "OWNER":  # which the release replaces
        assert f"s#{source}#" in release
    for name in ("README.md", "CITATION.cff", "CHANGELOG.md"):
        assert source not in (ROOT / name).read_text(), name


def test_pythons_that_are_promised_are_those_that_ci_runs(project: dict[str, Any]) -> None:
    promised = {name.rsplit(" ", 1)[1] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert promised <= set(re.findall(r'"(3\.\d+)"', workflow))
    assert min(promised, key=lambda text: int(text[2:])) == project["requires-python"].removeprefix(">=")


def test_linters_before_a_commit_are_those_of_ci() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pinned = {text for hook in hooks for text in hook.get("additional_dependencies", ())}
    assert pinned <= set((ROOT / "constraints.txt").read_text().splitlines())


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)
