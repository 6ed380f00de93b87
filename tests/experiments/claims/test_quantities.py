import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tombola.experiments.claims.quantities import (
    Quantity,
    average,
    derived,
    highest,
    lowest,
    middle,
    of_cell,
    pooled_std,
    rank_correlation,
    spread,
    starred,
)
from tombola.table.key import Key
from tombola.table.number import Cell, measured


def cell(*values: float, failed: bool = False, sparsity: float = 0.0, seeds: bool = False) -> Cell:
    made_up = measured(Key(metric="val_accuracy", sparsity=sparsity), values, epochs=20, failed=failed)
    return replace(made_up, seeds=tuple(range(len(values)))) if seeds else made_up


def number(*values: float, seeds: bool = False) -> Quantity:
    return of_cell(cell(*values, seeds=seeds))


def test_a_comparison_refuses_to_be_asked_for_its_truth() -> None:
    low, high = number(1.0), number(2.0)
    with pytest.raises(TypeError, match=r"a comparison is listed, not asked; ask for its \.holds"):
        bool(low < high)
    with pytest.raises(TypeError, match="listed, not asked"):
        low < high < 3.0  # noqa: B015
    with pytest.raises(TypeError, match="listed, not asked"):
        max(low, high)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="listed, not asked"):
        _ = (low < high) and (high < 3.0)


@pytest.mark.parametrize(("left", "right"), [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
def test_comparisons_are_those_of_the_values(left: float, right: float) -> None:
    first, second = Quantity(left), Quantity(right)
    assert (first < second).holds == (left < right)
    assert (first <= second).holds == (left <= right)
    assert (first > second).holds == (left > right)
    assert (first >= second).holds == (left >= right)
    assert (first > right).gap == left - right
    assert (right < first).holds == (right < left)


def test_arithmetic_keeps_the_value_and_the_cells() -> None:
    first, second = number(5.0), number(2.0)
    for found, expected in (
        (first - second, 3.0),
        (first * 2, 10.0),
        (2 * first, 10.0),
        (abs(second - first), 3.0),
        (average(first, second), 3.5),
        (first / second, 2.5),
    ):
        assert found.value == expected
        assert set(found.cells) <= {*first.cells, *second.cells}
        assert found.cells
    assert (first - 1.0).value == 4.0
    assert (first / second).weights is None
    assert math.isnan((first / Quantity(0.0)).value)


def test_the_chosen_number_decides_alone() -> None:
    low, high, mid = number(1.0), number(9.0), number(4.0)
    assert highest([low, high, mid]) is high
    assert lowest([low, high, mid]) is low
    assert middle([low, high, mid]) is mid
    for choose in (highest, lowest, middle):
        assert math.isnan(choose([low, Quantity(math.nan), high]).value)
    with pytest.raises(ValueError, match="asked of 2 numbers; their count must be odd"):
        middle([low, high])


def test_an_undefined_number_makes_all_that_follows_undefined() -> None:
    undefined, known = Quantity(math.nan), number(1.0)
    for found in (
        undefined - known,
        known - undefined,
        abs(undefined),
        average(known, undefined),
        highest([known, undefined]),
        highest([undefined, known]),
        lowest([known, undefined]),
        lowest([undefined, known]),
        derived(3.0, [known, undefined]),
        rank_correlation([known, undefined, known], [1.0, 2.0, 3.0]),
        spread(undefined),
    ):
        assert math.isnan(found.value)
        assert not (found > 0).holds
        assert not (found > 0).defined
        assert not (known > found).defined


def test_starred_cells_are_counted() -> None:
    cells = [cell(1.0, failed=True), cell(2.0), cell(3.0, failed=True)]
    assert starred(map(of_cell, cells)).value == 2
    assert starred([]).value == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9))
def test_rank_correlation_is_that_of_scipy(points: list[tuple[int, int]]) -> None:
    first, second = ([float(value) for value in series] for series in zip(*points, strict=True))
    found = rank_correlation([number(value) for value in first], second).value
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(scipy.stats.spearmanr(first, second).statistic), abs=1e-9)


def test_a_correlation_of_exactly_nine_tenths_reaches_nine_tenths() -> None:
    # One neighbouring pair of five swapped: 1 - 6 * 2 / (5 * 24).
    assert (rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 5.0, 4.0]) >= 0.9).holds


def test_the_pooled_spread_by_hand() -> None:
    # Variances 13 (three runs) and 2 (two runs): (2 * 13 + 1 * 2) / 3.
    assert pooled_std([cell(90.0, 92.0, 97.0), cell(4.0, 6.0)]) == pytest.approx(math.sqrt(28 / 3))
    assert pooled_std([cell(90.0, 92.0), cell(4.0)]) is None


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=4))
def test_over_equal_numbers_of_runs_it_is_the_root_mean_variance(runs: list[list[float]]) -> None:
    expected = math.sqrt(statistics.mean(statistics.variance(values) for values in runs))
    assert pooled_std([cell(*values) for values in runs]) == pytest.approx(expected, abs=1e-6)


THREE, OTHERS = (50.0, 50.6, 51.3), (49.0, 49.9, 50.8)


def test_noise_is_the_reach_of_the_interval_of_the_difference() -> None:
    compared = number(*THREE) > number(*OTHERS)
    expected = scipy.stats.ttest_ind(THREE, OTHERS, equal_var=False).confidence_interval(0.95)
    assert compared.noise == pytest.approx((expected.high - expected.low) / 2)
    one = number(*THREE) > 49.0
    expected = scipy.stats.ttest_1samp(THREE, 49.0).confidence_interval(0.95)
    assert one.noise == pytest.approx((expected.high - expected.low) / 2)


def test_runs_of_the_same_seeds_are_paired() -> None:
    compared = number(*THREE, seeds=True) > number(*OTHERS, seeds=True)
    expected = scipy.stats.ttest_rel(THREE, OTHERS).confidence_interval(0.95)
    assert compared.noise == pytest.approx((expected.high - expected.low) / 2)
    assert not compared.within_noise
    assert (number(*THREE) > number(*OTHERS)).within_noise


def test_a_weighted_sum_has_the_noise_of_its_parts() -> None:
    first, second, third = (number(*values, seeds=True) for values in (THREE, OTHERS, (10.0, 12.0, 15.0)))
    compared = abs(first - second) - average(first, third) > 1.5 * second
    sums = [a - b - (a + c) / 2 - 1.5 * b for a, b, c in zip(THREE, OTHERS, (10, 12, 15), strict=True)]
    assert compared.gap == pytest.approx(statistics.mean(sums))
    reach = scipy.stats.t.ppf(0.975, 2) * statistics.stdev(sums) / math.sqrt(3)
    assert compared.noise == pytest.approx(reach)


def test_only_the_deciding_cells_make_noise() -> None:
    # The noisy one is lower and does not decide.
    decided = highest([number(20.0, 40.0, 60.5), number(51.0, 51.1, 51.2)]) > number(50.0, 50.1, 50.2)
    assert decided.noise == pytest.approx(
        (number(51.0, 51.1, 51.2) > number(50.0, 50.1, 50.2)).noise or math.nan
    )
    assert not decided.within_noise


def test_noise_is_unknown_for_few_runs_printed_cells_and_other_units() -> None:
    printed = Cell(key=cell(1.0).key, mean=50.0, std=0.1, runs=3, epochs=200)
    runs = number(*THREE)
    for comparison in (
        runs > number(50.0),
        runs > number(50.0, 51.0),
        runs > of_cell(printed),
        runs / runs > 1.0,
        rank_correlation([runs, number(*OTHERS)], [1.0, 2.0]) > 0,
        Quantity(1.0) > 0,
    ):
        assert comparison.noise is None
        assert not comparison.within_noise


def test_a_cell_that_stands_on_both_sides_counts_once() -> None:
    pair = number(50.0, 51.0)
    assert (pair - 1.0 > pair).cells == pair.cells


def test_a_comparison_reads_as_its_numbers() -> None:
    assert str(number(52.49) > number(57.09)) == "52.49 > 57.09"
