"""Accuracy by sparsity and training curves, read back from the drawn figure."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from tombola.report.figures import accuracy_by_sparsity, training_curves
from tombola.report.style import Configuration


def test_both_panels_of_accuracy_have_axes_with_units(summary: dict[str, Any]) -> None:
    panels = accuracy_by_sparsity(summary).axes
    assert [axes.get_title() for axes in panels] == ["trained from initialisation", "trained from epoch 2"]
    assert [axes.get_xlabel() for axes in panels] == ["sparsity (% of weights pruned)"] * 2
    assert panels[0].get_ylabel() == "test accuracy (%)"
    assert panels[0].get_ylim() == panels[1].get_ylim()


def test_ticks_stand_at_the_rounds_and_are_evenly_spaced(summary: dict[str, Any]) -> None:
    axes = accuracy_by_sparsity(summary).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "0",
        "20",
        "36",
        "49",
        "59",
        "67",
        "74",
        "79",
        "83",
    ]
    places = [axes.transData.transform((tick, 95.0))[0] for tick in axes.get_xticks()]
    steps = [after - before for before, after in pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 8)


def test_filled_markers_are_the_winning_tickets(summary: dict[str, Any]) -> None:
    axes = accuracy_by_sparsity(summary).axes[1]
    points = [line for line in axes.lines if line.get_marker() in "oD" and len(line.get_xdata()) == 1]
    filled = {
        (round(float(point.get_xdata()[0]), 3), round(float(point.get_ydata()[0]), 6))
        for point in points
        if to_hex(point.get_markerfacecolor()) == to_hex(point.get_color())
    }
    winning = {
        (round(100 * row["sparsity"], 3), round(row["accuracy_mean"], 6))
        for row in summary["rows"]
        if row["winning"] and row["rewind"] == 2
    }
    assert filled == winning


def stars(axes: Axes) -> list[tuple[float, float]]:
    """Where stars are seen, in pixels."""
    found = [line for line in axes.lines if line.get_marker() == "*"]
    return [tuple(line.get_transform().transform(line.get_xydata())[0]) for line in found]


def test_a_failed_run_is_a_star_on_the_edge_that_does_not_set_the_scale(summary: dict[str, Any]) -> None:
    initial, rewound = accuracy_by_sparsity(summary).axes
    (star,) = stars(initial)
    left, low = initial.transData.transform((79.02848, initial.get_ylim()[0]))
    assert star[0] == pytest.approx(left)
    assert low < star[1] < low + 20
    assert initial.get_ylim()[0] > 80
    assert "10%" in [text.get_text() for text in initial.texts]
    assert stars(rewound) == []


def test_no_star_hides_another(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        if row["round"] == 7 and row["rewind"] == 0 and row["momentum"] == 0.9:
            row |= {"failed_runs": 2, "accuracies": [10.0, 12.0], "accuracy_mean": 11.0}
    axes = accuracy_by_sparsity(summary).axes[0]
    assert len(stars(axes)) == 4
    for one, other in combinations(stars(axes), 2):
        assert math.dist(one, other) > 10
    assert "10\N{EN DASH}12%" in [text.get_text() for text in axes.texts]


def test_a_failed_run_within_the_scale_stands_at_its_own_accuracy(summary: dict[str, Any]) -> None:
    row = summary["rows"][5]
    row |= {"failed_runs": 1, "accuracies": [92.0, 98.0], "accuracy_mean": 95.0}
    axes = accuracy_by_sparsity(summary).axes[0]
    assert 92.0 in [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "*"]


def test_only_failures_are_shown_on_the_whole_scale(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        row |= {"failed_runs": 2, "accuracies": [10.0, 10.0], "accuracy_mean": 10.0, "winning": False}
    assert accuracy_by_sparsity(summary).axes[0].get_ylim() == (0.0, 100.0)


def test_one_seed_has_no_spread_and_is_drawn(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        row |= {"accuracy_std": None, "accuracies": row["accuracies"][1:], "failed_runs": 0}
    assert len(accuracy_by_sparsity(summary).axes) == 2


def test_training_panels_have_axes_with_units_and_configured_lines(summary: dict[str, Any]) -> None:
    left, right = training_curves(summary).axes
    assert [left.get_xlabel(), right.get_xlabel()] == ["epoch", "epoch"]
    assert left.get_ylabel() == "test error (%)"
    assert right.get_ylabel().replace("\n", " ") == "forgetting events per image in an epoch"
    for axes in (left, right):
        colors = [line.get_color() for line in axes.lines]
        assert colors == [
            Configuration(m, b).color for m, b in ((0.0, 32), (0.0, 128), (0.9, 32), (0.9, 128))
        ]


def test_a_missing_epoch_is_left_out_of_its_curve(summary: dict[str, Any]) -> None:
    left, right = training_curves(summary).axes
    assert list(left.lines[0].get_xdata()) == list(range(13))
    assert list(right.lines[0].get_xdata()) == list(range(1, 13))


def test_an_error_of_zero_is_drawn_on_a_linear_axis(summary: dict[str, Any]) -> None:
    assert training_curves(summary).axes[0].get_yscale() == "log"
    summary["training"][0]["test_error"][-1] = 0.0
    assert training_curves(summary).axes[0].get_yscale() == "linear"


def test_no_training_says_so(summary: dict[str, Any]) -> None:
    axes = training_curves(summary | {"training": []}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["not measured"]
