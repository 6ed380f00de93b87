"""Rank correlations against scipy, and what few points can say by counting orders by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tombola.table.rank_correlation import agreement


@pytest.mark.parametrize("ties", [False, True])
def test_both_are_those_of_scipy(ties: bool) -> None:
    draws = np.random.default_rng(0)
    for points in (3, 6, 8):
        first, second = draws.normal(size=(2, points))
        if ties:
            first, second = np.round(first), np.round(second * 2)
        if len(set(first)) == 1 or len(set(second)) == 1:
            continue
        both = agreement(first.tolist(), second.tolist())
        assert both is not None
        assert both.points == points
        assert math.isclose(both.spearman.value, stats.spearmanr(first, second).statistic, abs_tol=1e-12)
        assert math.isclose(both.kendall.value, stats.kendalltau(first, second).statistic, abs_tol=1e-12)


def test_significance_counts_all_orders() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 3.0, 4.0, 6.0, 5.0]
    both = agreement(first, second)
    assert both is not None
    expected = stats.kendalltau(first, second, method="exact").pvalue
    assert math.isclose(both.kendall.p, expected, abs_tol=1e-9)
    values = [abs(stats.spearmanr(first, order).statistic) for order in itertools.permutations(second)]
    assert math.isclose(both.spearman.p, np.mean([value >= both.spearman.value - 1e-9 for value in values]))


def test_what_few_points_have_to_reach() -> None:
    rising = [float(number) for number in range(8)]
    three, four, six = (agreement(rising[:n], rising[:n]) for n in (3, 4, 6))
    assert three is not None
    assert four is not None
    assert six is not None
    # 2 of 3! orders are perfect, 2 of 4!; tables have 0.886 for six points.
    assert math.isclose(three.spearman.p, 1 / 3)
    assert math.isclose(four.spearman.p, 1 / 12)
    assert three.spearman.critical is four.spearman.critical is None
    assert six.spearman.critical == pytest.approx(0.8857, abs=1e-4)


def test_the_interval_holds_the_value_and_is_the_same_each_time() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0]
    both = agreement(first, second)
    assert both is not None
    assert both == agreement(first, second)
    for correlation in (both.spearman, both.kendall):
        assert -1 <= correlation.low < correlation.value < correlation.high <= 1


def test_more_points_are_judged_by_drawn_orders() -> None:
    rising = [float(number) for number in range(12)]
    both = agreement(rising, rising)
    assert both is not None
    assert 0 < both.spearman.p < 1e-3


def test_nothing_is_said_of_two_points_or_a_constant() -> None:
    assert agreement([1.0, 2.0], [2.0, 1.0]) is None
    assert agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
