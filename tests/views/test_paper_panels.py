"""Panels of figures, from entries whose numbers are worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from tombola.report.figure import draw
from tombola.table.key import Key, sparsity_after
from tombola.table.number import Curve, Entry, Number, entries_of, measured
from tombola.views.chain_panels import Names, sparsity_panels
from tombola.views.paper_panels import consecutive_panels, over_sparsity
from tombola.views.picture import Panel, Picture


def key(sparsity: float, metric: str = "val_accuracy", momentum: float = 0.9, **fields: Any) -> Key:
    return Key(
        metric=metric, network="ResNet-18", dataset="CIFAR-10", momentum=momentum, batch_size=100,
        pretrained=False, sparsity=sparsity, **fields,
    )  # fmt: skip


def numbers(key: Key, *values: float | None) -> tuple[Key, list[Number]]:
    """One number a run, None for one that is not computed yet."""
    return key, [
        Number(key=key, value=value, state="missing" if value is None else "measured", epochs=7, seed=seed)
        for seed, value in enumerate(values)
    ]


def test_a_line_is_missing_until_all_of_its_points_are_there() -> None:
    entries = entries_of(
        [numbers(key(0.0), 80.0), numbers(key(67.23), None), numbers(key(0.0, momentum=0.0), 90.0)]
    )
    (panel,) = over_sparsity("accuracy", marks=(0.0, 67.23, 89.26))(entries)
    assert [(line.label, list(line.x), list(line.y)) for line in panel.lines] == [
        ("μ = 0.9, batch 100", [0.0], [80.0]),
        ("μ = 0.0, batch 100", [0.0], [90.0]),
    ]
    assert panel.missing == panel.begun == ["μ = 0.9, batch 100"]
    assert panel.absent == []
    assert panel.marks == [0.0, 67.23]


def test_a_line_of_which_nothing_is_there_is_absent() -> None:
    (panel,) = over_sparsity("accuracy")(entries_of([numbers(key(0.0), None, None)]))
    assert panel.lines == []
    assert panel.missing == panel.absent == ["μ = 0.9, batch 100"]


def test_some_of_the_runs_make_no_point() -> None:
    entries = entries_of([numbers(key(0.0), 80.0, 90.0), numbers(key(67.23), 70.0, None)])
    (panel,) = over_sparsity("accuracy")(entries)
    assert (list(panel.lines[0].x), list(panel.lines[0].y)) == ([0.0], [85.0])
    assert panel.missing == ["μ = 0.9, batch 100"]


@pytest.mark.parametrize("of_paper", [True, False])
def test_a_round_that_is_not_there_breaks_the_line_and_one_at_its_end_ends_it(of_paper: bool) -> None:
    keys = [key(sparsity_after(n)) for n in range(6)]
    values = [(None, None), (80.0, 90.0), (80.0, None), (70.0, 70.0), (60.0, 62.0), (None, None)]
    entries = entries_of([numbers(one, *runs) for one, runs in zip(keys, values, strict=True)])
    make = over_sparsity("accuracy") if of_paper else panels_of_chains
    ((line,),) = (panel.lines for panel in make(entries))
    assert list(line.x) == [sparsity_after(n) for n in (1, 2, 3, 4)]
    assert [None if math.isnan(y) else y for y in line.y] == [85.0, None, 70.0, 61.0]
    spread = [None if math.isnan(std) else std for std in line.spread or ()]
    assert spread == [pytest.approx(50**0.5), None, 0.0, pytest.approx(2**0.5)]
    assert list(line.failed) == [False] * 4
    figure = draw(Picture("chain", "", "", [Panel("", "", "", [line], by_round=True)]))
    drawn = [np.asarray(one.get_ydata()) for one in figure.axes[0].lines if one.get_linestyle() != "None"]
    assert [np.isnan(ys).tolist() for ys in drawn if len(ys) == 4] == [[False, True, False, False]]


def panels_of_chains(entries: list[Entry]) -> list[Panel]:
    return sparsity_panels(entries, Names.of(entry.key for entry in entries), "accuracy")


def test_what_the_paper_prints_stands_at_the_points_where_it_prints_something() -> None:
    paper = measured(key(67.23), [94.99], epochs=200)
    groups = [numbers(key(sparsity), value) for sparsity, value in ((0.0, 80.0), (36.0, 81.0), (67.23, 82.0))]
    (panel,) = over_sparsity("accuracy")(entries_of(groups, {paper.key: paper}))
    assert panel.lines[0].printed == [None, None, 94.99]


def test_a_path_is_drawn_as_far_as_its_segments_are_finished() -> None:
    keys = [key(sparsity_after(n), "barrier_to_next", over="rounds") for n in range(3)]
    groups = [
        (
            keys[n],
            [
                Number(
                    key=keys[n], value=4.5, epochs=7,
                    curve=Curve((0.0, 0.5, 1.0), (n, n + 5.0, n + 1.0)),
                )
            ],
        )
        for n in (0, 2)
    ]  # fmt: skip
    groups.insert(1, numbers(keys[1], None))
    _, path = consecutive_panels(entries_of(groups))
    (line,) = path.lines
    assert list(line.x) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [None if math.isnan(y) else y for y in line.y] == [0.0, 5.0, 1.0, None, 2.0, 7.0, 3.0]
    assert path.begun == [line.label]


@pytest.mark.parametrize("count", [1, 3])
def test_a_spread_needs_several_runs(count: int) -> None:
    (panel,) = over_sparsity("accuracy")(entries_of([numbers(key(0.0), *(70.0, 80.0, 90.0)[:count])]))
    assert panel.lines[0].spread == (None if count == 1 else [10.0])


def test_a_point_at_which_a_run_failed_is_marked() -> None:
    failing = key(67.23)
    groups = [
        numbers(key(0.0), 80.0),
        (failing, [Number(key=failing, value=10.0, epochs=7, failed=True)]),
    ]
    (panel,) = over_sparsity("accuracy")(entries_of(groups))
    assert panel.lines[0].failed == [False, True]
