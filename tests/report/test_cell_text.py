"""Cells as text: digits, spread, marks, intervals and how many runs there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tombola.report.cell_text import (
    MINUS,
    CellText,
    cell_text,
    difference_text,
    inside_text,
    interval_text,
    usual_runs,
)
from tombola.table.compare import SideBySide
from tombola.table.key import Key
from tombola.table.number import Cell, measured

ACCURACY = Key(metric="val_accuracy")


def of(values: list[float], key: Key = ACCURACY) -> Cell:
    return measured(key, values, epochs=20)


@pytest.mark.parametrize(
    ("metric", "values", "text"),
    [
        ("val_accuracy", [95.0], "95.00%"),
        ("val_accuracy", [94.0, 96.0], "95.00 ± 1.41%"),
        ("barrier", [-0.4], f"{MINUS}0.40"),
        ("convergence", [0.9876], "0.988"),
        ("first_stable_epoch", [2.0, 3.0, 2.0], "2.3 ± 0.6"),
        ("untrained.loss", [0.0123456], "0.01235"),
    ],
)
def test_digits_and_unit_are_those_of_the_metric(metric: str, values: list[float], text: str) -> None:
    assert cell_text(of(values, Key(metric=metric))).text == text


def test_a_mean_of_three_runs_or_more_has_its_interval() -> None:
    # By hand: with 2 degrees of freedom Student's quantile is 4.303, the standard error 1/√3.
    assert interval_text(of([94.0, 95.0, 96.0])) == "[92.52, 97.48]"
    assert interval_text(of([94.0, 96.0])) == interval_text(of([94.0])) == ""
    assert cell_text(of([94.0, 95.0, 96.0])).interval == "[92.52, 97.48]"


def test_printed_numbers_have_no_interval() -> None:
    printed = Cell(key=ACCURACY, mean=95.0, std=1.0, runs=3, epochs=200)
    assert cell_text(printed) == CellText("95.00 ± 1.00%")


def test_runs_are_told_where_they_are_not_the_usual_number() -> None:
    assert cell_text(of([94.0, 96.0]), 3).runs == "2 runs"
    assert cell_text(of([94.0, 96.0]), 2).runs == cell_text(of([94.0, 96.0])).runs == ""
    pair = of([1.0], Key(metric="barrier", over="pairs"))
    assert cell_text(pair, 3).runs == "1 pair"


def test_a_mean_of_some_of_its_runs_says_of_how_many() -> None:
    assert cell_text(replace(of([94.0, 96.0]), missing=1)).runs == "2 of 3"
    assert cell_text(replace(of([94.0]), missing=1, undefined=1), 1).runs == "1 of 3"


def test_marks_are_those_of_the_cell() -> None:
    shown = cell_text(replace(of([94.0]), winning=True, clearly=True))
    assert (shown.winning, shown.clearly, shown.failed) == (True, True, False)
    shown = cell_text(replace(of([94.0]), failed=True))
    assert (shown.winning, shown.clearly, shown.failed) == (False, False, True)


def test_the_usual_number_of_runs_is_that_of_most_cells_and_the_larger_of_two() -> None:
    one, three = of([94.0]), of([94.0, 95.0, 96.0])
    assert usual_runs([one, one, three]) == 1
    assert usual_runs([one, three]) == 3
    assert usual_runs([]) is None


@pytest.mark.parametrize(
    ("metric", "difference", "text"),
    [
        ("val_accuracy", 0.8, "+0.80"),
        ("val_accuracy", -2.2, f"{MINUS}2.20"),
        ("val_accuracy", -0.001, "+0.00"),
        ("untrained.loss", 0.00012, "+0.0001"),
        ("val_accuracy", None, ""),
    ],
)
def test_a_difference_has_its_sign_and_never_a_negative_zero(
    metric: str, difference: float | None, text: str
) -> None:
    assert difference_text(SideBySide(Key(metric=metric), None, None, difference, None, None, "")) == text


def test_where_the_papers_number_lies_is_a_word() -> None:
    words = [
        inside_text(SideBySide(ACCURACY, None, None, None, None, inside, ""))
        for inside in (True, False, None)
    ]
    assert words == ["inside", "outside", ""]
