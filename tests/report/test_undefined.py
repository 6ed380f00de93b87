"""Barriers that are undefined because a run diverged: every form of a table says so, and no mean hides it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tombola.report.cell_text import MINUS
from tombola.report.frame import frame, to_csv
from tombola.report.latex import to_latex
from tombola.report.markdown import to_markdown
from tombola.report.number_lines import number_lines
from tombola.report.page import report_html
from tombola.report.terminal import grid_table
from tombola.report.write import write_report
from tombola.table.table import Table

Made = Any
WORDS = "the second run diverged"


@pytest.fixture
def gone(made: Made) -> Made:
    """Of one configuration all barriers at one sparsity are undefined, of another one of its pairs."""
    barriers = [one for one in made.numbers if one.key.metric.startswith("barrier")]
    lost = barriers[0].key
    partly = next(one for one in barriers if one.key != lost)

    def diverged(one: Any) -> Any:
        if one.key != lost and one is not partly:
            return one
        return replace(one, value=None, state="undefined", failed=True, note=WORDS, curve=None)

    return made.only([diverged(one) for one in made.numbers if one.key.metric == lost.metric])


def test_every_form_of_the_table_marks_them(gone: Made) -> None:
    (exhibit,) = [exhibit for exhibit in gone.exhibits if exhibit.undefined]
    grid, cells, undefined = exhibit.grid(), exhibit.cells, exhibit.undefined
    assert list(undefined.values()) == [True]
    console = Console(file=io.StringIO(), width=250)
    console.print(grid_table(exhibit, console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("undefined*") == 1
    assert "*: at least one run failed to train" in shown
    markdown = to_markdown(grid, cells, undefined=undefined)
    assert markdown.count(r"undefined\*") == 1
    assert "at least one run failed to train" in markdown
    latex = to_latex(grid, cells, undefined=undefined)
    assert latex.count("undefined$^*$") == 1
    assert to_csv(grid, cells, undefined=undefined).count("undefined starred") == 1
    marks = frame(grid, cells, undefined=undefined).astype(str).to_numpy().flatten().tolist()
    assert (marks.count("undefined starred"), marks.count("starred")) == (1, 1)


def test_the_page_its_notes_its_caption_and_its_findings_say_why(gone: Made, read_page: Any) -> None:
    page = read_page(report_html(gone.report(), {})).text
    assert "undefined*" in page.replace("\n", "")
    assert f": {WORDS}." in page
    assert "1 barrier is undefined, because a run diverged." in page
    (exhibit,) = [exhibit for exhibit in gone.exhibits if exhibit.undefined]
    assert exhibit.picture is not None
    assert "Not drawn: 1 undefined value, 1 of them because a run failed." in exhibit.picture.caption


def test_files_and_single_lines_mark_them_even_where_nothing_else_is_there(gone: Made, tmp_path: Any) -> None:
    alone = gone.only([one for one in gone.numbers if one.state == "undefined"])
    write_report(alone.report(), tmp_path, files=True)
    (path,) = [path for path in (tmp_path / "tables").glob("*.md") if "barrier" in path.name]
    assert r"undefined\*" in path.read_text()
    assert all(WORDS in (tmp_path / name).read_text() for name in ("table.csv", "table.json"))
    lines = "\n".join(number_lines(Table(alone.numbers), 200))
    assert "undefined*" in lines
    assert WORDS in lines
    assert MINUS not in lines
