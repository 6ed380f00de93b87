"""The page: in one piece, escaped, with every picture and both tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tombola.report.demo_page import FIGURE_TITLES, report_html
from tombola.report.demo_write import PICTURES
from tombola.report.figure import svg_text
from tombola.report.figures import accuracy_by_sparsity, training_curves
from tombola.report.stability import barriers, interpolation

ReadPage = Callable[[str], Any]


@pytest.fixture
def svgs(summary: dict[str, Any]) -> dict[str, str]:
    draw = (accuracy_by_sparsity, interpolation, barriers, training_curves)
    return {function.__name__: svg_text(function(summary)) for function in draw}


def test_the_page_is_well_formed_and_holds_every_picture(
    summary: dict[str, Any], svgs: dict[str, str], read_page: ReadPage
) -> None:
    text = report_html(summary, svgs)
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>tombola demo</title>" in text
    page = read_page(text)
    assert page.open == []
    assert [a["aria-label"] for tag, a in page.tags if tag == "svg"] == list(FIGURE_TITLES.values())
    assert [tag for tag, _ in page.tags].count("table") == 2


def test_the_page_loads_nothing_and_runs_nothing(
    summary: dict[str, Any], svgs: dict[str, str], read_page: ReadPage
) -> None:
    text = report_html(summary, svgs)
    page = read_page(text)
    assert not {"script", "link", "img", "iframe", "object", "image", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text
    assert all(part.startswith("#") for part in text.split("url(")[1:])


def test_no_two_elements_of_the_page_share_an_id(
    summary: dict[str, Any], svgs: dict[str, str], read_page: ReadPage
) -> None:
    ids = [a["id"] for _, a in read_page(report_html(summary, svgs)).tags if a.get("id")]
    assert len(ids) > 50
    assert len(ids) == len(set(ids))


def test_names_from_outside_are_escaped(summary: dict[str, Any]) -> None:
    summary["settings"]["data"] = "<script>alert(1)</script>"
    summary["provenance"]["hardware"] = 'a "fast" <b>machine</b>'
    text = report_html(summary, {})
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_winning_and_failed_cells_are_marked(summary: dict[str, Any]) -> None:
    text = report_html(summary, {})
    winning = sum(bool(row["winning"]) for row in summary["rows"])
    assert text.count('<td><span class="winning">') == winning
    assert text.count("</span>*") == 1
    assert "at least one run failed" in text


def test_one_seed_and_missing_numbers_make_a_page(summary: dict[str, Any]) -> None:
    summary["settings"]["seeds"] = 1
    for row in summary["rows"]:
        row |= {"accuracy_std": None, "accuracies": row["accuracies"][:1]}
    for entry in summary["dense"]:
        entry["convergence"] = None
    text = report_html(summary, {})
    assert "over 1 seed." in " ".join(text.split())
    assert "None" not in text


def test_every_picture_that_is_written_has_a_place_on_the_page() -> None:
    assert list(PICTURES) == list(FIGURE_TITLES)
