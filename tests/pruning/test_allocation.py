import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tombola as tb
from tombola.pruning.allocation import (
    Scope,
    allocation,
    keep_globally,
    keep_highest,
    keep_layerwise,
    nearest_count,
    remaining_count,
    shared_counts,
)

# Few different values, so that ties are the rule; minus infinity is that of a non-finite weight.
levels = st.sampled_from([-math.inf, -1, 0, 0.25, 0.5, 1, 2])
scores = hnp.arrays(np.float32, st.integers(1, 40), elements=levels)
# Of a convolution, a linear layer and the like.
shapes = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=4), min_size=1, max_size=6)


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


def reference_counts(total: int, shares: list[float], most: list[int]) -> list[float]:
    """What each layer keeps, before rounding: min(most, unit * share), the unit found by bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        unit = (low + high) / 2
        enough = sum(min(limit, unit * share) for share, limit in zip(shares, most, strict=True)) >= total
        low, high = (low, unit) if enough else (unit, high)
    return [min(limit, high * share) for share, limit in zip(shares, most, strict=True)]


@given(shapes, st.floats(0.02, 0.98), st.integers(1, 6), st.sampled_from(["uniform", "erk"]), st.data())
def test_layers_keep_their_shares_of_exactly_what_global_pruning_keeps(
    shapes: list[list[int]], fraction: float, rounds: int, scope: Scope, data: st.DataObject
) -> None:
    named = {f"layer {index}": shape for index, shape in enumerate(shapes)}
    kept = {name: np.ones(math.prod(shape), dtype=bool) for name, shape in named.items()}
    density = 1.0
    for _ in range(rounds):
        values = {
            name: data.draw(hnp.arrays(np.float32, math.prod(shape), elements=levels))
            for name, shape in named.items()
        }
        after = allocation(scope, named)(values, kept, density, fraction)
        density *= 1 - fraction
        assert not any((after[name] & ~kept[name]).any() for name in named)
        sizes = [math.prod(shape) for shape in shapes]
        total = math.floor(sum(sizes) * density + 0.5)
        assert sum(int(keep.sum()) for keep in after.values()) == total
        # The raw densities as they are written in Evci et al.: sum over product of the dimensions.
        raw = [sum(shape) / math.prod(shape) if scope == "erk" else 1 for shape in shapes]
        shares = [share * size for share, size in zip(raw, sizes, strict=True)]
        expected = reference_counts(total, shares, [int(keep.sum()) for keep in kept.values()])
        for (name, keep), count in zip(after.items(), expected, strict=True):
            assert abs(int(keep.sum()) - count) < 1 + 1e-5
            assert np.array_equal(keep, lowest_first(values[name], kept[name], int(keep.sum())))
        kept = after


@pytest.mark.parametrize(
    ("total", "shares", "most", "counts"),
    [
        # All of one density.
        (50, [20, 80], [20, 80], [10, 40]),
        # A full layer, whose excess of 20 goes to the others as 1 to 2.
        (60, [10, 10, 20], [0 + 5, 40, 80], [5, 18, 37]),
        # Two layers are full one after the other: 40 in three parts, then 35 in two.
        (40, [1, 1, 1], [5, 15, 100], [5, 15, 20]),
        # The larger remainder is rounded up; of equal ones the last.
        (4, [3, 5], [9, 9], [1, 3]),
        (1, [1, 1], [9, 9], [0, 1]),
        (2, [1, 1, 1], [9, 9, 9], [0, 1, 1]),
        (0, [1, 1], [9, 9], [0, 0]),
        (18, [1, 7], [9, 9], [9, 9]),
    ],
)
def test_shares_by_hand(total: int, shares: list[int], most: list[int], counts: list[int]) -> None:
    assert shared_counts(total, shares, most) == counts


def test_densities_of_the_kernel_by_hand(run: tb.Run) -> None:
    """A fifth of the 8,456 weights of the convnet, three layers in proportion to 30, 38 and 54."""
    ticket = tb.prune(run, fraction=0.8, scope="erk")
    shapes = [tuple(keep.shape) for keep in ticket.mask.values()]
    dims = [sum(shape) for shape in shapes]
    unit = 1691 / sum(dims)
    full = [unit * each >= math.prod(shape) for each, shape in zip(dims, shapes, strict=True)]
    assert any(full)
    assert not all(full)
    left = 1691 - sum(math.prod(shape) for shape, is_full in zip(shapes, full, strict=True) if is_full)
    unit = left / sum(each for each, is_full in zip(dims, full, strict=True) if not is_full)
    for keep, each, is_full in zip(ticket.mask.values(), dims, full, strict=True):
        if is_full:
            assert keep.all()
        else:
            assert abs(int(keep.sum()) - unit * each) < 1
    assert ticket.kept == tb.prune(run, fraction=0.8).kept == 1691


def test_uniform_densities_are_those_of_the_whole(run: tb.Run) -> None:
    first = tb.prune(run, fraction=0.5)
    ticket = tb.prune(replace(run, ticket=first), fraction=0.5, scope="uniform", exclude=["14.weight"])
    assert torch.equal(ticket.mask["14.weight"], first.mask["14.weight"])
    others = {name: keep for name, keep in ticket.mask.items() if name != "14.weight"}
    before = {name: int(first.mask[name].sum()) for name in others}
    share = sum(int(keep.sum()) for keep in others.values()) / sum(keep.numel() for keep in others.values())
    assert share == pytest.approx(
        0.5 * sum(before.values()) / sum(keep.numel() for keep in others.values()), abs=1e-3
    )
    for name, keep in others.items():
        assert int(keep.sum()) == pytest.approx(min(share * keep.numel(), before[name]), abs=1)


@pytest.mark.parametrize("share", [0.0001, 0.04, 0.6, 0.9999])
@pytest.mark.parametrize("kind", ["distinct", "tied", "sorted", "hidden"])
def test_of_very_many_scores_the_lowest_go_first_too(kind: str, share: float) -> None:
    """More than a sample is taken of, and orders that a sample of every 97th would be deceived by."""
    values = np.random.default_rng(0).normal(size=150_000)
    if kind == "tied":
        values = values.round(1)
    elif kind == "sorted":
        values.sort()
    elif kind == "hidden":
        values[::97] = -9
    kept = np.random.default_rng(1).random(len(values)) < 0.9
    count = int(kept.sum() * (1 - share))
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
