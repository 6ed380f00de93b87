"""SVG files and their inlined form: valid, repeatable, without clashing ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from tombola.report.figure import inline_svg, png_bytes, svg_text
from tombola.report.figures import training_curves
from tombola.report.stability import barriers


def test_equal_summaries_give_equal_files(summary: dict[str, Any]) -> None:
    assert svg_text(barriers(summary)) == svg_text(barriers(summary))
    assert png_bytes(barriers(summary)) == png_bytes(barriers(summary))


def test_a_file_carries_no_date(summary: dict[str, Any]) -> None:
    assert "dc:date" not in svg_text(barriers(summary))


def test_inlined_references_meet_ids_that_carry_the_name(summary: dict[str, Any]) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(training_curves(summary)), "curves", "Curves"))
    ids = [node.get("id") for node in element.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("curves-") for name in ids)
    text = ElementTree.tostring(element, encoding="unicode")
    references = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert references
    assert set(references) <= set(ids)


def test_an_inlined_picture_follows_the_page(summary: dict[str, Any]) -> None:
    element = ElementTree.fromstring(inline_svg(svg_text(barriers(summary)), "bars", "Error barriers"))
    assert (element.get("role"), element.get("aria-label")) == ("img", "Error barriers")
    assert element.get("viewBox")
    assert element.get("width") is element.get("height") is None
    text = ElementTree.tostring(element, encoding="unicode")
    assert {"var(--ink)", "var(--paper)", "var(--rule)"} <= set(re.findall(r"var\([^)]*\)", text))
    assert "#D55E00".lower() in text.lower()
