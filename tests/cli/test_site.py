"""The site of docs/: built strictly, with every public name, and pages that say what the program says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scripts import module_of

import tombola as tb
from tombola.experiments.paper.studies import TABLES
from tombola.table.metrics import METRICS

ROOT = Path(__file__).parents[2]
_PACKAGES = ("zensical", "mkdocstrings_handlers", "nbconvert", "nbclient", "ipykernel")
_MISSING = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]

site = pytest.mark.site
needs_extra = pytest.mark.skipif(
    bool(_MISSING), reason=f"the extra docs is not installed: no {', '.join(_MISSING)}"
)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, its notebooks executed."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "docs" / "site" / "build.py"), "--out", str(out)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out / "html"


@site
@needs_extra
def test_the_site_is_built_strictly_with_every_public_name(html: Path) -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (html / "reference").rglob("index.html"))
    documented = set(re.findall(r'id="tombola\.(\w+)"', reference))
    assert {name for name in tb.__all__ if not name.startswith("__")} <= documented


@site
@needs_extra
def test_no_docstring_leaves_its_own_markup_on_a_page(html: Path) -> None:
    for page in (html / "reference").rglob("index.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r":(?:func|class|meth|mod):", text), page


@site
@needs_extra
def test_each_table_has_a_page_with_its_command_cost_and_readings(html: Path) -> None:
    for study in TABLES:
        text = (html / "paper" / study.name / "index.html").read_text(encoding="utf-8")
        words = re.sub(r"<[^>]+>", "", text)
        assert f"tombola run {study.name}" in words
        assert re.search(r"total: \d+ epochs shared", words)
        assert "Which readings matter" in words
    forgetting = (html / "paper" / "table1" / "index.html").read_text(encoding="utf-8")
    # The protocol names Table 1 in D7, and D8 is what its numbers of forgetting events are counted by.
    assert {"D7", "D8"} <= set(re.findall(r"<strong>([A-I]\d+)</strong>", forgetting))


@site
@needs_extra
def test_notebooks_are_shown_with_what_came_out(html: Path) -> None:
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        page = (html / "notebooks" / notebook.stem / "index.html").read_text(encoding="utf-8")
        assert re.search(rf'<img [^>]*src="[^"]*{notebook.stem}-\d+-\d+\.png"', page)


def _part(name: str) -> ModuleType:
    """A module of docs/site; this and its imports need nothing of the extra docs."""
    return module_of(ROOT / "docs" / "site" / f"{name}.py", f"site_{name}")


def test_every_public_name_is_of_a_topic_of_the_reference() -> None:
    text = "".join(_part("reference").python_pages(ROOT / "src").values())
    names = {name for name in tb.__all__ if not name.startswith("__")}
    assert names == set(re.findall(r"^::: tombola\.(\w+)$", text, re.MULTILINE))


def test_every_metric_has_one_place_where_its_reading_may_stand() -> None:
    comment_of = _part("paper_tables")._comment_of
    comments = {metric: comment_of(metric) for metric in METRICS}
    assert "D8" in comments["summed_forgetting_events"]
    assert comments["val_accuracy"] == ""


def test_every_page_stands_in_the_navigation_and_its_blocks_are_seen_by_the_site() -> None:
    configured = (ROOT / "docs" / "site" / "zensical.toml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f'"{page.relative_to(ROOT / "docs")}"' in configured, page
        # After the language a fence may have options such as title="ls", and no bare words.
        assert not re.search(r"^```\w+ +(?!\w+=)", page.read_text(encoding="utf-8"), re.MULTILINE), page


def test_notebooks_are_kept_without_outputs() -> None:
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        text = notebook.read_text(encoding="utf-8")
        assert '"outputs": []' in text
        assert '"output_type"' not in text


def test_no_page_asks_another_server_for_fonts_or_scripts() -> None:
    configured = (ROOT / "docs" / "site" / "zensical.toml").read_text(encoding="utf-8")
    assert "font = false" in configured
    assert "extra_javascript" not in configured
