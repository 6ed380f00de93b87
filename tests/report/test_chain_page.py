"""The page of an experiment: in one piece, escaped, with every picture and every number of its tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tombola.report.cell_text import cell_text
from tombola.report.figure import draw, svg_text
from tombola.report.page import report_html

Made = Any
ReadPage = Callable[[str], Any]


def page_of(made: Made, **more: Any) -> str:
    """The page with its pictures."""
    report = made.report(**more)
    return report_html(
        report,
        {exhibit.name: svg_text(draw(exhibit.picture)) for exhibit in report.exhibits if exhibit.picture},
    )


@pytest.fixture(scope="module")
def full() -> str:
    from .conftest import Made as MadeUp
    from .conftest import chain_numbers

    return page_of(MadeUp(tuple(chain_numbers())))


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split()).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_is_well_formed_and_holds_every_exhibit(full: str, made: Made, read_page: ReadPage) -> None:
    assert full.startswith("<!DOCTYPE html>")
    assert "<title>An experiment that was made up</title>" in full
    page = read_page(full)
    assert page.open == []
    headings = [exhibit.heading for exhibit in made.exhibits]
    assert [a["aria-label"] for tag, a in page.tags if tag == "svg" and a.get("role") == "img"] == headings
    assert [tag for tag, _ in page.tags].count("table") == len(headings)


def test_the_page_loads_nothing_and_runs_nothing(full: str, read_page: ReadPage) -> None:
    page = read_page(full)
    assert not {"script", "link", "img", "iframe", "object", "image", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in full
    assert all(part.startswith("#") for part in full.split("url(")[1:])


def test_no_two_elements_of_the_page_share_an_id_and_every_link_leads_somewhere(
    full: str, read_page: ReadPage
) -> None:
    tags = read_page(full).tags
    ids = [a["id"] for _, a in tags if a.get("id")]
    assert len(ids) > 50
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a in tags if tag == "a"} <= set(ids)


def test_every_number_of_the_tables_is_on_the_page(full: str, made: Made) -> None:
    text = text_of(full)
    for exhibit in made.exhibits:
        for cell in exhibit.cells.values():
            assert cell_text(cell).text in text


def test_the_page_of_an_experiment_says_nothing_of_the_paper_and_judges_no_claims(full: str) -> None:
    text = text_of(full)
    assert "The paper prints no numbers" not in text
    assert "Claims" not in text
    for words in ("How to read this", "Winning", "device cpu", "table.json", "1 of 144 runs failed to train"):
        assert words in text


def test_winning_and_failed_cells_are_marked(made: Made) -> None:
    text = report_html(made.report(), {})
    article = text[text.index("<h3>Test accuracy") :]
    article = article[: article.index("</article>")]
    winning = sum(entry.cell.winning for entry in made.exhibit("accuracy").entries if entry.cell)
    assert article.count('<td><span class="winning">') == winning > 0
    assert article.count("</span>*") == 1
    assert "at least one run failed" in article


def test_names_from_outside_are_escaped(made: Made) -> None:
    hostile = made.only(
        [replace(one, key=replace(one.key, dataset="<script>alert(1)</script>")) for one in made.numbers]
        + [
            replace(one, key=replace(one.key, dataset='"><img src=x onerror="alert(2)">'))
            for one in made.numbers
        ]
    )
    text = page_of(replace(hostile, title='a "fast" <b>title</b>'))
    assert "<script" not in text
    assert "<img" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_one_seed_and_missing_numbers_make_a_page(made: Made) -> None:
    alone = made.only(
        [
            replace(one, value=None, state="missing", curve=None) if one.key.momentum == 0.9 else one
            for one in made.numbers
            if one.seed == 0
        ]
    )
    text = page_of(alone, missing=[("demo", 7, 84)], missing_together=(7, 84))
    assert "None" not in text_of(text).replace("None of the 36 runs failed", "")
    assert "they need 7 jobs and 84 epochs" in text_of(text)


def test_several_experiments_stand_under_their_names(made: Made) -> None:
    other = replace(made, name="other")
    report = replace(made.report(), exhibits=[*made.exhibits, *other.exhibits])
    text = report_html(report, {})
    assert text.index("<h2>demo</h2>") < text.index("<h2>other</h2>")
