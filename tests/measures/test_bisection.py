import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import RecipeError
from tombola.measures.first_stable import bracket, is_monotonic, questions, roundest


def search(
    stable: Callable[[int], bool], budget: int, *, at_once: int = 1, neighbours: int = 0
) -> list[tuple[int, ...]]:
    """The rounds of questions, answered by an oracle."""
    answers: dict[int, bool] = {}
    rounds = []
    while lengths := questions(answers, budget, at_once=at_once, neighbours=neighbours):
        assert len(lengths) <= at_once
        assert list(lengths) == sorted(set(lengths) - answers.keys())
        assert all(0 <= length < budget for length in lengths)
        answers |= {length: stable(length) for length in lengths}
        rounds.append(lengths)
    return rounds


def found(stable: Callable[[int], bool], rounds: list[tuple[int, ...]], budget: int) -> int:
    return bracket({length: stable(length) for lengths in rounds for length in lengths}, budget)[1]


budgets = st.integers(1, 300)


@given(budgets.flatmap(lambda budget: st.tuples(st.just(budget), st.integers(0, budget))), st.integers(1, 9))
def test_the_first_stable_length_is_found_wherever_it_is(case: tuple[int, int], at_once: int) -> None:
    budget, first = case
    rounds = search(lambda length: length >= first, budget, at_once=at_once)
    assert found(lambda length: length >= first, rounds, budget) == first


@given(budgets.flatmap(lambda budget: st.tuples(st.just(budget), st.integers(0, budget))))
def test_few_lengths_are_asked_about(case: tuple[int, int]) -> None:
    budget, first = case
    rounds = search(lambda length: length >= first, budget)
    assert len(rounds) <= math.floor(math.log2(budget)) + 2


def test_the_papers_budget_takes_at_most_nine_steps_as_in_the_paper() -> None:
    steps = [len(search(lambda length, first=first: length >= first, 200)) for first in range(201)]
    assert max(steps) == 9
    assert sum(steps) / len(steps) < 8


def test_a_search_by_hand() -> None:
    rounds = search(lambda length: length >= 43, 200)
    assert rounds == [(128,), (64,), (32,), (48,), (40,), (44,), (42,), (43,)]


def test_stable_from_the_beginning_and_only_at_the_end() -> None:
    assert search(lambda length: True, 12) == [(8,), (4,), (2,), (1,), (0,)]
    rounds = search(lambda length: False, 12)
    assert rounds == [(8,), (10,), (11,)]
    assert found(lambda length: False, rounds, 12) == 12


@pytest.mark.parametrize(("low", "high", "middle"), [
    (-1, 200, 128), (-1, 1, 0), (-1, 2, 1), (128, 200, 192), (40, 44, 42), (42, 44, 43), (0, 2, 1), (5, 9, 8),
])  # fmt: skip
def test_an_interval_is_halved_at_its_roundest_number(low: int, high: int, middle: int) -> None:
    assert roundest(low, high) == middle


@given(st.integers(-1, 300), st.integers(2, 300))
def test_no_number_within_is_rounder(low: int, width: int) -> None:
    middle = roundest(low, low + width)
    assert low < middle < low + width
    powers = [number & -number for number in range(low + 1, low + width)]
    assert middle & -middle == max(powers)


def test_several_lengths_at_once_are_those_that_one_at_a_time_would_come_to() -> None:
    assert questions({}, 200, at_once=3) == (64, 128, 192)
    assert questions({64: True, 128: True, 192: True}, 200, at_once=3) == (16, 32, 48)
    assert len(search(lambda length: length >= 43, 200, at_once=3)) == 4
    assert len(search(lambda length: length >= 43, 200, at_once=200)) == 1


# Neighbours, and answers that are not monotonic


def test_the_neighbours_of_the_found_length_are_asked_about_last() -> None:
    # Found by 8, 4, 6 and 5; 6 was asked about on the way.
    assert search(lambda length: length >= 5, 12, neighbours=1) == [(8,), (4,), (6,), (5,), (3,)]
    rounds = search(lambda length: length >= 5, 12, neighbours=2, at_once=4)
    asked = {length for lengths in rounds for length in lengths}
    assert {2, 3, 4, 5, 6, 7} <= asked


@given(budgets.flatmap(lambda budget: st.tuples(st.just(budget), st.integers(0, budget))), st.integers(0, 3))
def test_a_monotonic_oracle_is_found_to_be_so_and_its_neighbours_were_asked(
    case: tuple[int, int], neighbours: int
) -> None:
    budget, first = case
    rounds = search(lambda length: length >= first, budget, neighbours=neighbours)
    answers = {length: length >= first for lengths in rounds for length in lengths}
    assert bracket(answers, budget)[1] == first
    assert is_monotonic(answers, budget)
    beside = range(max(0, first - 1 - neighbours), min(budget, first + neighbours + 1))
    assert answers.keys() >= set(beside)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 3))
def test_any_oracle_ends_in_a_length_from_which_all_answers_are_stable(
    oracle: list[bool], at_once: int, neighbours: int
) -> None:
    budget = len(oracle)
    rounds = search(oracle.__getitem__, budget, at_once=at_once, neighbours=neighbours)
    answers = {length: oracle[length] for lengths in rounds for length in lengths}
    first = bracket(answers, budget)[1]
    assert all(stable for length, stable in answers.items() if length >= first)
    assert first == 0 or answers[first - 1] is False
    sequence = [answers[length] for length in sorted(answers)]
    assert is_monotonic(answers, budget) == (sequence == sorted(sequence))


def test_an_unstable_neighbour_above_moves_the_search_up_and_is_reported() -> None:
    unstable = {0, 1, 2, 3, 5}
    rounds = search(lambda length: length not in unstable, 16, neighbours=1)
    answers = {length: length not in unstable for lengths in rounds for length in lengths}
    assert bracket(answers, 16)[1] == 6
    assert answers[4]
    assert not is_monotonic(answers, 16)


def test_a_stable_neighbour_below_is_reported_and_changes_nothing() -> None:
    rounds = search(lambda length: length in (2, *range(4, 16)), 16, neighbours=1)
    answers = {length: length in (2, *range(4, 16)) for lengths in rounds for length in lengths}
    assert bracket(answers, 16)[1] == 4
    assert answers[2]
    assert not is_monotonic(answers, 16)


@pytest.mark.parametrize(
    ("budget", "settings", "words"),
    [
        (0, {}, "budget is 0; it must be at least 1"),
        (5, {"at_once": 0}, "at_once is 0; it must be at least 1"),
        (5, {"neighbours": -1}, "neighbours is -1; it must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(budget: int, settings: dict[str, int], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        questions({}, budget, **settings)
