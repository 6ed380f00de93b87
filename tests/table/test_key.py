import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import ExperimentError
from tombola.experiments.paper.printed import comparable_cells, printed_cells, printed_tables
from tombola.table.key import KEY_FIELDS, Key, sparsity_after, sparsity_of

KEY = Key(metric="val_accuracy", network="ResNet-34", momentum=0.9, sparsity=67.23)


def test_a_key_is_named_by_the_fields_that_apply() -> None:
    assert str(KEY) == "val_accuracy ResNet-34 momentum=0.9 sparsity=67.23"


def test_sparsities_are_those_the_paper_heads_its_columns_with() -> None:
    # 73.79 is the text's, 99.62 that of 25 prunings.
    sparsities = [sparsity_after(prunings) for prunings in (0, 5, 6, 10, 15, 20, 25)]
    assert sparsities == [0.0, 67.23, 73.79, 89.26, 96.48, 98.85, 99.62]
    assert sparsity_after(1, fraction=0.5) == 50.0


def test_sparsities_that_two_decimals_do_not_tell_apart_have_more() -> None:
    assert [sparsity_after(prunings, 0.9) for prunings in (1, 4, 5, 6)] == [90.0, 99.99, 99.999, 99.9999]
    for fraction, rounds in ((0.2, 60), (0.5, 30), (0.9, 10), (0.001, 100)):
        sparsities = [sparsity_after(prunings, fraction) for prunings in range(rounds + 1)]
        assert sparsities == sorted(set(sparsities))
        assert sparsities[-1] < 100
        for prunings, sparsity in enumerate(sparsities):
            assert abs(sparsity - 100 * (1 - (1 - fraction) ** prunings)) <= 0.005


def test_sparsities_after_rounds_of_different_fractions() -> None:
    assert sparsity_of({}) == sparsity_of({0.5: 0, 0.2: 0}) == 0.0
    assert sparsity_of({0.2: 5}) == sparsity_after(5)
    assert sparsity_of({0.5: 1, 0.2: 1}) == sparsity_of({0.2: 1, 0.5: 1}) == 60.0
    sparsities = [sparsity_of({0.5: 20, 0.05: rounds}) for rounds in range(1, 100)]
    assert sparsities == sorted(set(sparsities))
    assert sparsities[-1] < 100


def test_each_of_the_770_printed_numbers_has_a_key_of_its_own() -> None:
    keys = [key for table in printed_tables().values() for key in table]
    assert len(keys) == len(set(keys)) == len(printed_cells()) == len(comparable_cells()) == 770


def test_a_field_or_axis_is_read_by_its_name() -> None:
    key = Key(metric="barrier", batch_size=100, more=(("lr", 0.1),))
    assert (key.get("batch_size"), key.get("lr"), key.get("dataset"), key.get("scope")) == (
        100,
        0.1,
        None,
        None,
    )
    assert "more" not in KEY_FIELDS


@given(st.permutations([("lr", 0.1), ("rewind", 2), ("scope", "layerwise"), ("nesterov", False)]))
def test_the_order_of_further_axes_does_not_matter(axes: list[tuple[str, object]]) -> None:
    given_order, sorted_order = Key(metric="m", more=tuple(axes)), Key(metric="m", more=tuple(sorted(axes)))
    assert given_order == sorted_order
    assert hash(given_order) == hash(sorted_order)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["momentum", "search_share", "sparse_momentum", "sparsity"])
def test_a_key_that_would_not_equal_itself_is_refused(name: str, value: float) -> None:
    with pytest.raises(ExperimentError, match=rf"{name} of a key is {value}; it must be finite"):
        Key(metric="m", **{name: value})
    with pytest.raises(ExperimentError, match=rf"axis 'lr' of a key is {value}"):
        Key(metric="m", more=(("lr", value),))


def test_axes_that_no_table_could_tell_apart_are_refused() -> None:
    with pytest.raises(ExperimentError, match="an axis of a key is called 'network', as another one is"):
        Key(metric="m", more=(("network", "convnet"),))
    with pytest.raises(ExperimentError, match="an axis of a key is called 'lr'"):
        Key(metric="m", more=(("lr", 0.1), ("a", 1), ("lr", 0.2)))


def test_keys_that_differ_in_any_field_are_different() -> None:
    values = {"over": "pairs", "reading": "literal", "target": "MNIST", "pretrained": True, "block": 4}
    keys = [Key(metric="m"), *(Key(metric="m", **{name: value}) for name, value in values.items())]
    assert all(first != second for first, second in itertools.combinations(keys, 2))
