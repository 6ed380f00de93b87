"""What every experiment of chains shows: the order of its exhibits, and its pictures as they are drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tombola.report.figure import draw
from tombola.report.style import ConfigurationStyle
from tombola.table.key import Key
from tombola.table.number import Number, cells_of
from tombola.views.chain_panels import Names

Made = Any


def drawn(made: Made, part: str) -> Figure:
    picture = made.exhibit(part).picture
    assert picture is not None
    return draw(picture)


def stars(axes: Axes) -> list[tuple[float, float]]:
    """Where stars stand, in pixels."""
    axes.get_figure(root=True).canvas.draw()
    found = []
    for line in axes.lines:
        if line.get_marker() == "*":
            found += [tuple(point) for point in line.get_transform().transform(line.get_xydata())]
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_experiment_shows_the_same_things_in_the_same_order(made: Made) -> None:
    assert [exhibit.name.removeprefix("demo-") for exhibit in made.exhibits] == [
        "accuracy", "barrier", "recalibrated_barrier", "forgetting_events", "convergence",
        "learning-curves", "layers", "runs",
    ]  # fmt: skip
    for exhibit in made.exhibits:
        assert exhibit.picture is not None
        assert exhibit.grid() is not None


def test_one_run_has_no_spread_to_show(made: Made) -> None:
    alone = made.only([one for one in made.numbers if one.seed == 0])
    assert "demo-runs" not in [exhibit.name for exhibit in alone.exhibits]
    figure = drawn(alone, "accuracy")
    assert not [part for axes in figure.axes for part in axes.collections if isinstance(part, PolyCollection)]


def test_a_row_is_a_configuration_and_a_column_a_sparsity(made: Made) -> None:
    grid = made.exhibit("accuracy").grid()
    assert grid.row_names == ("momentum", "batch_size", "pretrained")
    assert [column[0] for column in grid.columns][:3] == [0.0, 20.0, 36.0]
    assert len(grid.rows) == 8
    layers = made.exhibit("layers").grid()
    assert layers.row_names[-1] == "layer"
    assert len(layers.rows) == 8 * 3


def test_accuracy_panels_are_the_starts_with_one_scale_and_units(made: Made) -> None:
    left, right = drawn(made, "accuracy").axes
    assert [axes.get_title() for axes in (left, right)] == ["without late rewinding", "with late rewinding"]
    assert left.get_ylabel() == "test accuracy (%)"
    assert left.get_xlabel() == "sparsity (% of weights pruned)"
    assert left.get_ylim() == right.get_ylim()
    for axes in (left, right):
        colors = {to_hex(line.get_color()).upper() for line in axes.lines if len(line.get_xdata()) == 9}
        assert colors == {ConfigurationStyle(0.0, size).color.upper() for size in (32, 128)}


def test_filled_markers_are_the_winning_tickets(made: Made) -> None:
    exhibit = made.exhibit("accuracy")
    winning = sum(entry.cell.winning for entry in exhibit.entries if entry.cell)
    figure = drawn(made, "accuracy")
    filled = 0
    for axes in figure.axes:
        for line in axes.lines:
            marked = line.get_marker() in ("o", "D") and line.get_linestyle() == "None"
            if marked and to_hex(line.get_markerfacecolor()) == to_hex(line.get_color()):
                filled += len(line.get_xdata())
    assert filled == winning > 0
    shown = set(legend(figure))
    assert {"winning ticket", "not winning, or dense"} <= shown
    assert any(text.startswith("a run failed") for text in shown)


def test_a_failed_run_stands_on_the_edge_with_its_accuracy_and_does_not_set_the_scale(made: Made) -> None:
    initial, rewound = drawn(made, "accuracy").axes
    (star,) = stars(initial)
    low = initial.transAxes.transform((0, 0))[1]
    assert low < star[1] < low + 40
    assert initial.get_ylim()[0] > 80
    assert "10%" in [text.get_text() for text in initial.texts]
    assert stars(rewound) == []


def test_no_star_hides_another(made: Made) -> None:
    failing = made.only(
        [
            replace(one, value=10.0 + 2 * (one.seed or 0), failed=True)
            if one.key.metric == "val_accuracy" and one.key.sparsity == 79.03 and one.key.momentum == 0.9
            and not one.key.pretrained
            else one
            for one in made.numbers
        ]
    )  # fmt: skip
    axes = drawn(failing, "accuracy").axes[0]
    assert len(stars(axes)) == 4
    for one, other in combinations(stars(axes), 2):
        assert math.dist(one, other) > 10
    assert "10\N{EN DASH}12%" in [text.get_text() for text in axes.texts]


def test_only_failures_are_shown_on_the_whole_scale(made: Made) -> None:
    failing = made.only([replace(one, failed=True) for one in made.numbers])
    assert drawn(failing, "accuracy").axes[0].get_ylim() == (0.0, 100.0)


@pytest.mark.parametrize(("highest", "scale"), [(18.2, "linear"), (88.0, "symlog")])
def test_one_high_barrier_does_not_flatten_the_others(made: Made, highest: float, scale: str) -> None:
    one = {"momentum": 0.9, "batch_size": 32, "pretrained": False, "sparsity": 0.0}
    figure = drawn(made.changed("barrier", highest, **one), "barrier")
    bars = [axes for axes in figure.axes if axes.patches]
    assert len(bars) == 2
    dense, tickets = bars
    assert dense.get_yscale() == scale
    assert tickets.get_yscale() == "linear"
    assert dense.get_ylim()[1] > highest
    heights = {round(patch.get_height(), 1) for patch in dense.patches}
    assert {highest, 1.5, 0.8} <= heights
    # Of the panel's height, what stands between the lowest bar's foot and the limit of 2 points.
    limit = dense.transData.transform((0, 2.0))[1] - dense.transData.transform((0, 0.0))[1]
    assert limit > (0.2 if scale == "symlog" else 0.05) * dense.get_window_extent().height
    texts = [text.get_text() for text in dense.texts]
    assert f"{highest:.1f}" in texts
    assert "stable below 2 points" in legend(figure)


def test_barriers_are_courses_where_every_round_has_copies(made: Made) -> None:
    more: list[Number] = []
    for one in made.numbers:
        if one.key.metric == "barrier" and one.key.sparsity == 0.0:
            more += [replace(one, key=replace(one.key, sparsity=sparsity)) for sparsity in (20.0, 36.0)]
    figure = drawn(made.only([*made.numbers, *more]), "barrier")
    assert not [axes for axes in figure.axes if axes.patches]
    assert figure.axes[-1].get_xlabel() == "sparsity (% of weights pruned)"


def test_learning_curves_go_down_to_the_last_error_on_a_logarithmic_axis(made: Made) -> None:
    figure = drawn(made, "learning-curves")
    assert [axes.get_title() for axes in figure.axes][::2] == [
        "dense networks, without late rewinding",
        "tickets, 83.22% pruned, without late rewinding",
    ]
    for axes in figure.axes[:2]:
        assert axes.get_yscale() == "log"
        assert axes.get_xlabel() == "epoch"
    assert figure.axes[0].get_ylabel() == "test error (%)"
    line = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(line.get_xdata()) == [0, 6, 12]
    assert line.get_ydata()[-1] == pytest.approx(100 - 95.6)


def test_an_error_of_zero_is_drawn_on_a_linear_axis(made: Made) -> None:
    perfect = made.only(
        [
            replace(one, curve=replace(one.curve, y=(90.0, 1.0, 0.0)))
            for one in made.numbers
            if one.key.metric == "val_accuracy"
        ]
    )  # fmt: skip
    assert drawn(perfect, "learning-curves").axes[0].get_yscale() == "linear"


def test_layers_are_named_in_the_order_of_the_network(made: Made) -> None:
    axes = drawn(made, "layers").axes[0]
    names = ["first.weight", "second.weight", "last.weight"]
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    line = next(line for line in axes.lines if len(line.get_xdata()) == 3)
    assert list(line.get_ydata()) == pytest.approx([0.6, 0.7, 0.8])


def test_each_run_stands_beside_its_mean(made: Made) -> None:
    dense, _ = drawn(made, "runs").axes
    dashes = [line for line in dense.lines if len(line.get_xdata()) == 2]
    points = [line for line in dense.lines if line.get_marker() in ("o", "D") and len(line.get_xdata()) == 1]
    assert len(dashes) == 8
    assert len(points) == 8 * 2
    assert dashes[0].get_ydata()[0] == pytest.approx(95.6)
    assert sorted(line.get_ydata()[0] for line in points)[0] == pytest.approx(94.1 - 0.3 - 0.12 - 0.07)


def test_what_is_missing_is_named(made: Made) -> None:
    gaps = made.only(
        [
            replace(one, value=None, state="missing", curve=None) if one.key.momentum == 0.9 else one
            for one in made.numbers
        ]
    )
    for exhibit in gaps.exhibits:
        assert exhibit.picture is not None
        labels = {label for panel in exhibit.picture.panels for label in panel.missing}
        assert labels == {
            f"μ = 0.9, batch {size}{late}" for size in (32, 128) for late in ("", ", late rewinding")
        }


def test_labels_come_from_whatever_varies() -> None:
    keys = [
        Key(metric="val_accuracy", network=network, dataset="digits", momentum=0.9, batch_size=100,
            pretrained=False, sparsity=0.0, more=(("lr", lr), ("gamma", 0.1)))
        for network in ("convnet", "vgg16") for lr in (0.1, 0.2)
    ]  # fmt: skip
    names = Names.of(keys)
    assert names.label(keys[1]) == "μ = 0.9, batch 100, lr 0.2"
    assert names.full(keys[2]) == "vgg16 on digits, μ = 0.9, batch 100, lr 0.1"
    assert Names.of(keys[:2]).full(keys[0]) == "μ = 0.9, batch 100, lr 0.1"
    late = replace(keys[0], pretrained=True)
    assert Names.of([keys[0], late]).label(late) == "μ = 0.9, batch 100, late rewinding"


def test_a_failed_run_at_chance_wins_nothing_even_against_chance(made: Made) -> None:
    chance = made.only(
        [replace(one, value=10.0, failed=True) for one in made.numbers if one.key.metric == "val_accuracy"]
    )
    cells = [cell for group in cells_of(chance.numbers).values() for cell in group]
    assert cells
    assert not any(cell.winning for cell in cells)
