import itertools
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

import tombola as tb
from tombola.errors import RecipeError
from tombola.measures.statistics import (
    Summary,
    difference,
    is_clearly_winning,
    is_winning,
    mean,
    sample_std,
    summarize,
)
from tombola.training.run import History

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


# Summaries


def test_an_entry_of_the_papers_table_7_is_two_runs_at_chance_and_one_above() -> None:
    """8.36 +- 13.61, with 200 classes at half a percent of chance: the sample standard deviation."""
    entry = Summary((0.50, 0.50, 24.08), failed=2)
    assert round(entry.mean, 2) == 8.36
    assert round(entry.std, 2) == 13.61
    assert entry.starred
    assert entry.values == (0.50, 0.50, 24.08)


def test_an_entry_of_the_papers_table_2_is_one_failure_beside_two_of_its_mean() -> None:
    """0.9/100 at 89.26% has a star: one run at 0.5, the others 53.68 in the mean."""
    entry = Summary((0.5, 53.18, 54.18), failed=1)
    assert entry.mean == pytest.approx((0.5 + 2 * 53.68) / 3)
    assert entry.starred


def at(run: tb.Run, accuracy: float) -> tb.Run:
    rows = [*run.history[:-1], replace(run.history[-1], test_accuracy=accuracy)]
    return replace(run, history=History(rows))


def test_runs_are_summed_up_with_their_failures_counted_and_kept(run: tb.Run) -> None:
    found = summarize([at(run, 90.0), at(run, 11.0), at(run, 94.0)])  # chance is 10
    assert found == Summary((90.0, 11.0, 94.0), failed=1)
    assert found.mean == 65.0
    assert not summarize([at(run, 90.0)]).starred
    assert summarize([at(run, 90.0)]).std is None


def test_no_runs_cannot_be_summed_up() -> None:
    with pytest.raises(RecipeError, match="no runs to summarize; give at least one"):
        summarize([])


def test_a_summary_is_a_job_that_is_not_stored() -> None:
    recipe = tb.Recipe(epochs=1, batch_size=400)
    start = tb.job(tb.initialize, "convnet", "digits")
    runs = [tb.job(tb.train, start, "digits", recipe, noise=noise) for noise in (1, 2)]
    made = tb.job(summarize, runs)
    assert not made.stored
    assert [needed.name for needed in made.needs] == [run.name for run in runs]


# Winning by a margin


def test_winning_clearly_takes_one_deviation_of_the_dense_runs_by_default() -> None:
    dense = [89.0, 90.0, 91.0]  # deviation 1
    assert is_clearly_winning([91.0, 91.0], dense)
    assert not is_clearly_winning([90.9, 90.9], dense)
    assert is_winning([90.9, 90.9], dense)


def test_the_tolerance_can_be_said_and_may_be_lenient() -> None:
    dense = [89.0, 90.0, 91.0]
    assert is_clearly_winning([90.5], dense, tolerance=0.5)
    assert not is_clearly_winning([90.5], dense, tolerance=0.6)
    assert is_clearly_winning([89.5], dense, tolerance=-0.5)
    assert is_clearly_winning([90.0], dense, tolerance=0.0) == is_winning([90.0], dense)


def test_one_dense_run_has_no_spread_to_win_by() -> None:
    with pytest.raises(RecipeError, match="one dense run has no spread to win by; give tolerance"):
        is_clearly_winning([91.0], [90.0])
    assert is_clearly_winning([91.0], [90.0], tolerance=1.0)


# Differences


values = st.lists(st.floats(0, 100).map(lambda value: round(value, 2)), min_size=2, max_size=8)


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy's, of values without spread
@given(values, values, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_welchs_interval_is_that_of_scipy(first: list[float], second: list[float], confidence: float) -> None:
    assume(len(set(first)) > 1 or len(set(second)) > 1)
    found = difference(first, second, confidence=confidence)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)
    assert found.mean == pytest.approx(statistics.fmean(first) - statistics.fmean(second), abs=1e-9)


def test_welchs_interval_by_hand() -> None:
    # Means 2 and 5, variances 1 and 4 over 3: shares 1/3 and 4/3, error sqrt(5/3).
    # Degrees of freedom (5/3)^2 / ((1/9 + 16/9) / 2) = (25/9) / (17/18) = 50/17; t is 3.2194 there.
    found = difference([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert found.mean == -3.0
    reach = stats.t.ppf(0.975, 50 / 17) * (5 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((-3 - reach, -3 + reach))
    assert not found.excludes_zero
    assert (found.confidence, found.method) == (0.95, "welch")


def test_settings_without_any_spread_differ_by_exactly_their_means() -> None:
    found = difference([60.15, 60.15], [59.0, 59.0, 59.0])
    assert found.low == found.high == found.mean == pytest.approx(1.15)
    assert found.excludes_zero


def test_the_bootstrap_is_that_of_all_resamples() -> None:
    first, second = [1.0, 2.0, 6.0], [0.0, 5.0, 7.5]
    found = difference(first, second, method="bootstrap", confidence=0.8, resamples=200_000)
    every = [
        statistics.fmean(again) - statistics.fmean(other)
        for again in itertools.product(first, repeat=3)
        for other in itertools.product(second, repeat=3)
    ]
    expected = np.quantile(every, [0.1, 0.9], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)
    assert found.mean == pytest.approx(3 - 12.5 / 3)
    assert found.method == "bootstrap"


def test_the_bootstrap_draws_from_its_own_stream_and_touches_no_global_one() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    some, others = [1.0, 2.5, 9.0, 11.1, 12.3], [3.0, 4.2, 7.7, 8.4]
    drawn = [difference(some, others, method="bootstrap", resamples=500, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize(
    ("second", "settings", "words"),
    [
        ([1.0], {}, "a difference of 2 and 1 values; it needs 2 or more of each"),
        ([1.0, 2.0], {"confidence": 1.0}, r"confidence is 1\.0; it must be above 0 and below 1"),
        ([1.0, 2.0], {"method": "student"}, "method is 'student'; it must be 'welch' or 'bootstrap'"),
        ([1.0, 2.0], {"resamples": 0, "method": "bootstrap"}, "resamples is 0; it must be at least 1"),
    ],
)
def test_a_difference_that_means_nothing_is_refused(second: list[float], settings: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        difference([1.0, 2.0], second, **settings)
