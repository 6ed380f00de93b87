import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tombola.pruning.prune import (
    keep_globally,
    keep_highest,
    keep_layerwise,
    nearest_count,
    remaining_count,
)

# Few different values, so that ties are the rule; -1 stands for a non-finite weight.
scores = hnp.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1, 0, 0.25, 0.5, 1, 2]))


def lowest_first(values: np.ndarray, kept: np.ndarray, count: int) -> np.ndarray:
    """The independent reference: a stable sort of the kept positions, the first of which go."""
    positions = np.flatnonzero(kept)
    order = positions[np.argsort(values[positions], kind="stable")]
    result = kept.copy()
    result[order[: max(0, len(order) - count)]] = False
    return result


@pytest.mark.parametrize(
    ("total", "density", "count"),
    [(10, 0.8, 8), (5, 0.5, 3), (3, 0.5, 2), (7, 0.64, 4), (1, 0.4, 0), (0, 0.8, 0)],
)
def test_counts_are_rounded_to_the_nearest_integer_half_up(total: int, density: float, count: int) -> None:
    assert nearest_count(total, density) == count


@given(st.integers(1, 50_000_000), st.sampled_from([0.2, 0.1, 0.5, 0.3]))
def test_sparsity_never_drifts_by_more_than_one_weight_over_thirty_rounds(
    total: int, fraction: float
) -> None:
    exact = Fraction(str(fraction))
    density = 1.0
    for round_ in range(1, 31):
        density *= 1 - fraction
        assert abs(nearest_count(total, density) - total * (1 - exact) ** round_) <= 1


@given(st.integers(1, 3000), st.floats(0.01, 0.99), st.integers(1, 30))
def test_the_counts_of_a_chain_are_those_of_its_exact_density(
    total: int, fraction: float, rounds: int
) -> None:
    kept, density = np.ones(total, dtype=bool), 1.0
    for _ in range(rounds):
        kept = keep_highest(np.zeros(total, np.float32), kept, remaining_count(kept, density, fraction))
        density *= 1 - fraction
    assert abs(int(kept.sum()) - total * (1 - fraction) ** rounds) <= 0.5 + 1e-6


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0.01, 0.99), st.floats(0, 1))
def test_a_mask_at_another_density_loses_its_share_of_what_it_keeps(
    total: int, surviving: int, fraction: float, density: float
) -> None:
    surviving = min(surviving, total)
    kept = np.arange(total) < surviving
    count = remaining_count(kept, density, fraction)
    assert 0 <= count <= surviving
    if surviving != math.floor(total * density + 0.5):
        assert abs(count - surviving * (1 - fraction)) <= 0.5 + 1e-9


@given(scores, st.data())
def test_the_lowest_scores_go_first_and_ties_go_by_position(values: np.ndarray, data: st.DataObject) -> None:
    kept = data.draw(hnp.arrays(bool, len(values)))
    count = data.draw(st.integers(0, len(values)))
    assert np.array_equal(keep_highest(values, kept, count), lowest_first(values, kept, count))


def test_ties_by_hand() -> None:
    values = np.array([1, 2, 1, -1, 1, 2], dtype=np.float32)
    kept = np.array([1, 1, 0, 1, 1, 1], dtype=bool)
    assert keep_highest(values, kept, 3).tolist() == [False, True, False, False, True, True]
    assert keep_highest(values, kept, 1).tolist() == [False, False, False, False, False, True]


def test_the_given_mask_is_left_as_it_is() -> None:
    kept = np.ones(4, dtype=bool)
    for count in (2, 4, 9):
        assert keep_highest(np.zeros(4, np.float32), kept, count) is not kept
        assert kept.all()


@given(st.lists(scores, min_size=1, max_size=4), st.floats(0.05, 0.95), st.integers(1, 5), st.booleans())
def test_many_rounds_prune_what_a_stable_sort_prunes(
    layers: list[np.ndarray], fraction: float, rounds: int, layerwise: bool
) -> None:
    named = {f"layer {index}": values for index, values in enumerate(layers)}
    kept = {name: np.ones(len(values), dtype=bool) for name, values in named.items()}
    groups = [[name] for name in named] if layerwise else [list(named)]
    expected = {name: mask.copy() for name, mask in kept.items()}
    for round_ in range(rounds):
        allocate = keep_layerwise if layerwise else keep_globally
        after = allocate(named, kept, (1 - fraction) ** round_, fraction)
        assert all(not (after[name] & ~kept[name]).any() for name in named)
        kept = after
        for group in groups:
            values = np.concatenate([named[name] for name in group])
            mask = np.concatenate([expected[name] for name in group])
            count = math.floor(len(values) * (1 - fraction) ** (round_ + 1) + 0.5)
            mask = lowest_first(values, mask, count)
            for name in group:
                expected[name], mask = mask[: len(named[name])], mask[len(named[name]) :]
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[name], expected[name]) for name in named)
