"""SVG files and their inlined form: valid, repeatable, without clashing ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from matplotlib.figure import Figure

from tombola.report.figure import draw, inline_svg, png_bytes, svg_text

Made = Any


def barriers(made: Made) -> Figure:
    return draw(made.exhibit("barrier").picture)


@pytest.fixture
def curves(made: Made) -> Figure:
    return draw(made.exhibit("learning-curves").picture)


def test_equal_numbers_give_equal_files(made: Made) -> None:
    assert svg_text(barriers(made)) == svg_text(barriers(made))
    assert png_bytes(barriers(made)) == png_bytes(barriers(made))


def test_a_file_carries_no_date(made: Made) -> None:
    assert "dc:date" not in svg_text(barriers(made))


def test_inlined_references_meet_ids_that_carry_the_name(curves: Figure) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(curves), "curves", "Curves"))
    ids = [node.get("id") for node in element.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("curves-") for name in ids)
    text = ElementTree.tostring(element, encoding="unicode")
    references = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert references
    assert set(references) <= set(ids)


def test_an_inlined_picture_follows_the_page(made: Made) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(barriers(made)), "bars", "Error barriers"))
    assert (element.get("role"), element.get("aria-label")) == ("img", "Error barriers")
    assert element.get("viewBox")
    assert element.get("width") is element.get("height") is None
    text = ElementTree.tostring(element, encoding="unicode")
    assert {"var(--ink)", "var(--paper)", "var(--rule)"} <= set(re.findall(r"var\([^)]*\)", text))
    assert "#D55E00".lower() in text.lower()
