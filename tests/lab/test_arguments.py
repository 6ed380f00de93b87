from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional

import pytest

from tombola.lab.arguments import alternatives, item_hint, value_hint, wants_float, wants_tuple


@pytest.mark.parametrize("hint", [float, float | None, Optional[float], None | float])  # noqa: UP045
def test_a_whole_number_means_a_float_where_only_a_float_is_declared(hint: Any) -> None:
    assert wants_float(hint)


@pytest.mark.parametrize("hint", [int, float | int, int | None, str, Any, tuple[float, ...], "float"])
def test_a_whole_number_stays_whole_elsewhere(hint: Any) -> None:
    assert not wants_float(hint)


def test_tuples_are_told_from_lists() -> None:
    assert all(map(wants_tuple, (tuple, tuple[int, ...], tuple[int, ...] | None)))
    assert not any(map(wants_tuple, (list, list[int], Sequence[int], int, Any)))


@pytest.mark.parametrize(
    ("hint", "first", "second"),
    [
        (list[int], int, int),
        (Sequence[str] | None, str, str),
        (tuple[float, ...], float, float),
        (tuple[float, str], float, str),
        (tuple[float], float, Any),
        (Literal["a", "b"] | list[int], int, int),
        (list, Any, Any),
        (Any, Any, Any),
        (None, Any, Any),
    ],
)
def test_the_items_of_a_sequence_have_the_type_of_their_place(hint: Any, first: Any, second: Any) -> None:
    assert (item_hint(hint, 0), item_hint(hint, 1)) == (first, second)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(dict[str, float], float), (Mapping[str, int] | None, int), (dict, Any), (list[int], Any), (Any, Any)],
)
def test_the_values_of_a_mapping_have_its_second_type(hint: Any, value: Any) -> None:
    assert value_hint(hint) == value


def test_a_type_that_is_no_union_is_its_only_alternative() -> None:
    assert alternatives(int) == (int,)
    assert alternatives(int | str) == (int, str)
