"""SVG files and their inlined form: valid, repeatable, without clashing ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tombola.report.figure import draw, inline_svg, png_bytes, svg_text
from tombola.views.picture import Line, Panel, Picture

LINES = [
    Line("μ = 0.0, batch 32", [0.0, 1.0, 2.0], [90.0, 20.0, 5.0], 0.0, 32, spread=[1.0, 2.0, 1.0]),
    Line("μ = 0.9, batch 128", [0.0, 1.0, 2.0], [90.0, 10.0, 4.0], 0.9, 128, spread=[1.0, 2.0, 1.0]),
]


@pytest.fixture
def picture() -> Picture:
    return Picture("fig99", "Test error", "Made up", [Panel("", "epoch", "test error (%)", LINES)])


def test_equal_pictures_give_equal_files(picture: Picture) -> None:
    assert svg_text(draw(picture)) == svg_text(draw(picture))
    assert png_bytes(draw(picture)) == png_bytes(draw(picture))


def test_a_file_carries_no_date(picture: Picture) -> None:
    assert "dc:date" not in svg_text(draw(picture))


def test_inlined_references_meet_ids_that_carry_the_name(picture: Picture) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(draw(picture)), "curves", "Curves"))
    ids = [node.get("id") for node in element.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("curves-") for name in ids)
    text = ElementTree.tostring(element, encoding="unicode")
    references = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert references
    assert set(references) <= set(ids)


def test_an_inlined_picture_follows_the_page(picture: Picture) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(draw(picture)), "bars", "Error barriers"))
    assert (element.get("role"), element.get("aria-label")) == ("img", "Error barriers")
    assert element.get("viewBox")
    assert element.get("width") is element.get("height") is None
    text = ElementTree.tostring(element, encoding="unicode")
    assert {"var(--ink)", "var(--paper)", "var(--rule)"} <= set(re.findall(r"var\([^)]*\)", text))
    assert "#D55E00".lower() in text.lower()
