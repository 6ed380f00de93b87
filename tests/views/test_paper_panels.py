"""Panels of figures, from entries whose numbers are worked out by hand."""

import math
from typing import Any

import pytest

from tombola.table.key import Key, sparsity_after
from tombola.table.number import Curve, Number, entries_of, measured
from tombola.views.paper_panels import consecutive_panels, over_sparsity


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
