"""Interpolation and barriers, read back from the drawn figure."""

from __future__ import annotations

from typing import Any

import pytest

from tombola.report.stability import barriers, interpolation, shown_curves


def test_interpolation_has_four_panels_with_units(summary: dict[str, Any]) -> None:
    panels = interpolation(summary).axes
    assert [axes.get_title() for axes in panels] == [
        "dense networks, from initialisation",
        "dense networks, from epoch 2",
        "tickets, 83% pruned, from initialisation",
        "tickets, 83% pruned, from epoch 2",
    ]
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["test error (%)"] * 2
    assert all("position" in axes.get_xlabel() for axes in panels[2:])
    assert [len(axes.lines) for axes in panels] == [4, 4, 4, 4]


def test_a_panel_without_curves_says_so(summary: dict[str, Any]) -> None:
    summary["curves"] = [c for c in summary["curves"] if c["kind"] == "dense"]
    panels = interpolation(summary).axes
    assert [text.get_text() for text in panels[2].texts] == ["not measured"]


def test_only_the_sparsest_tickets_are_shown(summary: dict[str, Any]) -> None:
    sparsest = [c for c in summary["curves"] if c["kind"] == "ticket"]
    denser = [curve | {"sparsity": 0.36} for curve in sparsest]
    assert shown_curves(summary | {"curves": denser + summary["curves"]}) == summary["curves"]


def test_bars_are_as_high_as_the_barriers_and_say_so(summary: dict[str, Any]) -> None:
    (axes,) = barriers(summary).axes
    assert "percentage points" in axes.get_ylabel()
    heights = sorted(bar.get_height() for bar in axes.patches)
    assert heights == pytest.approx(sorted(curve["barrier"] for curve in summary["curves"]))
    texts = [text.get_text() for text in axes.texts]
    assert {"18.2", "0.8", "stable\nbelow 2"} <= set(texts)


def test_the_line_of_stability_lies_at_two_points(summary: dict[str, Any]) -> None:
    (axes,) = barriers(summary).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 2.0]]
    for curve in summary["curves"]:
        curve["barrier"] = 0.1
    assert barriers(summary).axes[0].get_ylim()[1] > 2.0


def test_no_curves_and_curves_without_a_barrier_are_survived(summary: dict[str, Any]) -> None:
    summary["curves"][0]["barrier"] = None
    assert len(barriers(summary).axes[0].patches) == len(summary["curves"]) - 1
    summary["curves"] = []
    assert "not measured" in [text.get_text() for text in barriers(summary).axes[0].texts]
    interpolation(summary)
