"""Numbers, and the cells that they make: what is winning, how surely, and what is not there yet."""

import itertools
import math
import statistics
from dataclasses import replace

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from tombola.errors import ExperimentError
from tombola.table.key import Key
from tombola.table.number import (
    Cell,
    Number,
    Together,
    by_key,
    cell_of,
    cells_of,
    copies_of,
    difference_interval,
    longest,
    measured,
    sum_interval,
)

KEY = Key(metric="val_accuracy", network="ResNet-34", momentum=0.9, sparsity=67.23)
DENSE = replace(KEY, sparsity=0.0)
ACCURACIES = st.lists(st.floats(0, 100), min_size=3, max_size=8)


def number(key: Key, value: float | None, seed: int | None = None, **fields: object) -> Number:
    state = "missing" if value is None else "measured"
    return Number(**{"key": key, "value": value, "epochs": 20, "seed": seed, "state": state, **fields})


def numbers(key: Key, *values: float | None, **fields: object) -> list[Number]:
    return [number(key, value, seed, **fields) for seed, value in enumerate(values)]


# Cells


def test_a_measured_cell_holds_mean_and_sample_spread_of_its_runs() -> None:
    cell = measured(KEY, [90.0, 92.0, 97.0], epochs=20)
    assert cell.mean == 93.0
    # Deviations -3, -1 and 4: squares sum to 26, over n - 1 = 2.
    assert cell.std == pytest.approx(13**0.5)
    assert (cell.runs, cell.epochs, cell.values) == (3, 20, (90.0, 92.0, 97.0))


def test_a_single_run_has_no_spread() -> None:
    cell = measured(KEY, [90.0], epochs=20)
    assert (cell.mean, cell.std, cell.runs) == (90.0, None, 1)


def test_a_cell_without_runs_is_refused() -> None:
    with pytest.raises(
        ExperimentError, match=r"val_accuracy .* has no runs; a cell needs at least one value"
    ):
        measured(KEY, [], epochs=20)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(
        ExperimentError, match=rf"holds {value}; it must be finite: leave an undefined run out"
    ):
        measured(KEY, [90.0, value], epochs=20)
    with pytest.raises(ExperimentError, match="it must be finite"):
        Cell(key=KEY, mean=value, std=None, runs=1, epochs=20)
    with pytest.raises(
        ExperimentError, match=rf"is {value}; it must be finite: call it undefined and say why"
    ):
        number(KEY, value)


def test_a_gap_has_no_value_and_a_measured_number_has_one() -> None:
    with pytest.raises(ExperimentError, match="is measured and has the value None"):
        Number(key=KEY, value=None, epochs=20)
    with pytest.raises(ExperimentError, match=r"is missing and has the value 1\.0"):
        Number(key=KEY, value=1.0, epochs=20, state="missing")


def test_two_cells_of_one_key_are_refused() -> None:
    cells = [measured(KEY, [value], epochs=20) for value in (1.0, 2.0)]
    with pytest.raises(ExperimentError, match=r"two cells are of val_accuracy .*; each key has one"):
        by_key(cells)
    assert by_key(cells[:1]) == {KEY: cells[0]}


def test_a_cell_counts_what_is_missing_and_what_has_no_value() -> None:
    undefined = number(KEY, None, 2, state="undefined", note="a run that learned nothing is left out")
    cell = cell_of([*numbers(KEY, 90.0, None), undefined])
    assert cell is not None
    assert (cell.values, cell.missing, cell.undefined, cell.seeds) == ((90.0,), 1, 1, (0,))
    assert cell.note == "a run that learned nothing is left out"
    assert cell_of(numbers(KEY, None, None)) is None


def test_a_bound_is_told_with_how_many_values_are_one() -> None:
    cell = cell_of([number(KEY, 20.0, 0, bound="stable only at the end"), number(KEY, 5.0, 1)])
    assert cell is not None
    assert cell.note == "1 of 2 stable only at the end"


def test_a_number_of_several_runs_keeps_their_count_and_spread() -> None:
    cell = cell_of([number(KEY, 3.5, together=Together(3, 0.25))])
    assert cell is not None
    assert (cell.mean, cell.std, cell.runs, cell.values) == (3.5, 0.25, 3, (3.5,))


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=6))
def test_no_cell_hides_a_missing_run(values: list[float | None]) -> None:
    partial = cells_of(numbers(KEY, *values), partial=True)
    present = [value for value in values if value is not None]
    if not present:
        assert partial == {}
        return
    [cell] = partial[KEY]
    assert (list(cell.values), cell.missing) == (present, values.count(None))
    whole = cells_of(numbers(KEY, *values))
    assert (KEY in whole) is (None not in values)


@pytest.mark.parametrize(("copies", "pairs"), [(2, 1), (3, 3), (4, 6), (5, 10)])
def test_pairs_tell_how_many_copies_make_them(copies: int, pairs: int) -> None:
    assert len(list(itertools.combinations(range(copies), 2))) == pairs
    assert copies_of(pairs) == copies


# The budget


def test_budgets_are_never_compared_with_each_other() -> None:
    # At 20 epochs the ticket loses, at 200 it wins; the dense network of 20 epochs is below both.
    table = [
        *numbers(DENSE, 80.0), *numbers(KEY, 79.0),
        *numbers(DENSE, 90.0, epochs=200), *numbers(KEY, 91.0, epochs=200),
    ]  # fmt: skip
    short, long = cells_of(table)[KEY]
    assert (short.epochs, short.mean, short.winning) == (20, 79.0, False)
    assert (long.epochs, long.mean, long.winning) == (200, 91.0, True)
    assert longest(cells_of(table))[KEY] is not None
    assert longest(cells_of(table))[KEY].epochs == 200
    # Without the dense network of its own budget nothing is won.
    assert not cells_of(table[:1] + table[3:])[KEY][0].winning


# Winning


@given(ACCURACIES, ACCURACIES)
def test_a_ticket_wins_with_the_mean_of_its_own_dense_network(
    ticket: list[float], dense: list[float]
) -> None:
    # Where they differ in the last bits only, the order of a sum decides.
    assume(abs(statistics.fmean(ticket) - statistics.fmean(dense)) > 1e-9 or ticket == dense)
    cell = cells_of([*numbers(DENSE, *dense), *numbers(KEY, *ticket)])[KEY][0]
    assert cell.winning is (statistics.fmean(ticket) >= statistics.fmean(dense))


@pytest.mark.parametrize("failed", [KEY, DENSE])
def test_a_failed_run_on_either_side_wins_nothing(failed: Key) -> None:
    table = [
        *numbers(DENSE, 10.0, 10.0, failed=failed == DENSE),
        *numbers(KEY, 10.0, 10.0, failed=failed == KEY),
    ]
    cell = cells_of(table)[KEY][0]
    assert (cell.winning, cell.clearly) == (False, None)


@pytest.mark.parametrize(
    "key",
    [
        replace(KEY, baseline="permuted"),
        replace(KEY, subset_percent=10, subset_criterion="random_class_balanced"),
        replace(KEY, metric="barrier"),
    ],
)
def test_only_trained_tickets_win(key: Key) -> None:
    table = [*numbers(replace(key, sparsity=0.0), 10.0), *numbers(key, 20.0)]
    assert not cells_of(table)[key][0].winning


def test_a_ticket_wins_clearly_where_the_paired_interval_is_above_zero() -> None:
    # Differences 1, 1.1 and 0.9: mean 1, standard error 0.058, t(2) = 4.30: from 0.75 up.
    dense, ticket = (80.0, 85.0, 90.0), (81.0, 86.1, 90.9)
    assert cells_of([*numbers(DENSE, *dense), *numbers(KEY, *ticket)])[KEY][0].clearly is True
    # The same runs under other seeds are not paired, and the spread of 5 points hides it.
    others = [replace(entry, seed=(entry.seed or 0) + 3) for entry in numbers(KEY, *ticket)]
    assert cells_of([*numbers(DENSE, *dense), *others])[KEY][0].clearly is False
    # Two runs have no interval.
    assert cells_of([*numbers(DENSE, *dense[:2]), *numbers(KEY, *ticket[:2])])[KEY][0].clearly is None


# Intervals of differences


def interval(first: list[Number], second: list[Number], confidence: float) -> tuple[float, float] | None:
    cells = [cell_of(first), cell_of(second)]
    assert cells[0] is not None
    assert cells[1] is not None
    return difference_interval(cells[0], cells[1], confidence)


SPREAD = st.lists(st.integers(0, 1000).map(lambda value: value / 10), min_size=3, max_size=8)


@given(st.data(), st.floats(0.5, 0.999))
def test_runs_of_the_same_seeds_are_compared_pair_by_pair(data: st.DataObject, confidence: float) -> None:
    first = data.draw(SPREAD)
    second = data.draw(st.lists(st.integers(0, 1000), min_size=len(first), max_size=len(first)))
    differences = [one - other for one, other in zip(first, second, strict=True)]
    assume(statistics.stdev(differences) > 1e-6)
    expected = scipy.stats.ttest_rel(first, second).confidence_interval(confidence)
    between = interval(numbers(KEY, *first), numbers(DENSE, *map(float, second)), confidence)
    assert between == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


@given(SPREAD, SPREAD, st.floats(0.5, 0.999))
def test_runs_of_other_seeds_are_compared_by_welch(
    first: list[float], second: list[float], confidence: float
) -> None:
    assume(statistics.stdev(first) > 0 or statistics.stdev(second) > 0)
    others = [replace(entry, seed=(entry.seed or 0) + 100) for entry in numbers(DENSE, *second)]
    between = interval(numbers(KEY, *first), others, confidence)
    # By the formulas of Welch (1947), independently of the code: scipy refuses where one side has no spread.
    parts = [statistics.variance(first) / len(first), statistics.variance(second) / len(second)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(sum(parts))
    center = statistics.fmean(first) - statistics.fmean(second)
    assert between == pytest.approx((center - half, center + half), rel=1e-6, abs=1e-6)
    if min(statistics.stdev(first), statistics.stdev(second)) > 0:
        expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(confidence)
        assert between == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_pairs_of_one_seed_are_no_runs_of_several_seeds() -> None:
    first, second = (
        replace(measured(Key(metric="barrier", over="pairs", sparsity=at), values, epochs=4), seeds=(0, 0, 0))
        for at, values in ((0.0, [2.0, 2.1, 2.2]), (20.0, [1.0, 1.1, 1.2]))
    )
    low, high = difference_interval(first, second) or (0.0, 0.0)
    # Taken pair by pair the difference would be 1 with certainty; as independent values it is not.
    assert low < 0.9 < 1.1 < high


def test_a_cell_of_which_a_run_is_missing_wins_nothing() -> None:
    key = Key(metric="val_accuracy", sparsity=20.0)
    dense = [Number(key=replace(key, sparsity=0.0), value=90.0, epochs=4, seed=seed) for seed in range(2)]
    ticket = Number(key=key, value=95.0, epochs=4, seed=0)
    gap = Number(key=key, value=None, state="missing", epochs=4, seed=1)
    assert longest(cells_of([*dense, ticket], partial=True))[key].winning
    assert not longest(cells_of([*dense, ticket, gap], partial=True))[key].winning


def test_fewer_than_three_runs_have_no_interval() -> None:
    assert interval(numbers(KEY, 1.0, 2.0), numbers(DENSE, 1.0, 2.0, 3.0), 0.95) is None


def test_a_cell_beside_itself_does_not_differ() -> None:
    cell = cell_of(numbers(KEY, 1.0, 2.0, 4.0))
    assert cell is not None
    assert sum_interval([(1.0, cell), (-1.0, cell)]) is None
