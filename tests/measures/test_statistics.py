import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.measures.statistics import is_winning, mean, sample_std

accuracies = st.lists(st.floats(0, 100), min_size=1, max_size=10)


@given(accuracies)
def test_the_mean_is_that_of_the_standard_library(values: list[float]) -> None:
    assert mean(values) == pytest.approx(statistics.fmean(values), abs=1e-12)


@given(accuracies)
def test_the_spread_is_the_sample_standard_deviation(values: list[float]) -> None:
    if len(values) == 1:
        assert sample_std(values) is None
    else:
        assert sample_std(values) == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_mean_and_spread_by_hand() -> None:
    assert mean([90.0, 92.0, 97.0]) == 93.0
    # Deviations -3, -1 and 4: squares sum to 26, over n - 1 = 2.
    assert sample_std([90.0, 92.0, 97.0]) == pytest.approx(13**0.5)
    assert sample_std([5.0]) is None


def test_the_mean_loses_no_digits_to_large_values() -> None:
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)


def test_a_ticket_wins_by_its_mean_and_also_when_it_draws() -> None:
    assert is_winning([91.0, 89.0], [90.0, 90.0])
    assert is_winning([90.1], [90.0, 90.0])
    assert not is_winning([89.99, 90.0], [90.0, 90.0])


def test_a_failed_run_counts_as_it_is() -> None:
    assert not is_winning([95.0, 10.0], [90.0, 91.0])
