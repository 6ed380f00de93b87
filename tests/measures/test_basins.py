"""Basins: joined runs against scipy's connected components, and barriers over the line between the ends."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

import tombola as tb
from tombola.errors import RecipeError
from tombola.measures.basins import basins_of
from tombola.measures.connectivity import Barrier


def line(*errors: float, losses: tuple[float, ...] | None = None) -> Barrier:
    alphas = tuple(place / (len(errors) - 1) for place in range(len(errors)))
    return Barrier(alphas, errors, losses or tuple(0.1 for _ in errors))


# Over the line between the ends


def test_the_excess_is_over_the_line_between_the_ends_by_hand() -> None:
    # Between 10 and 30 the straight line is at 15, 20 and 25.
    assert line(10, 17, 24, 28, 30).excess == pytest.approx(4)
    assert line(10, 17, 24, 28, 30).height == 10  # half the difference of the ends at least
    assert line(10, 12, 20, 22, 30).excess == 0
    both = line(10, 17, 24, 28, 30, losses=(1.0, 1.0, 2.5, 1.0, 3.0))
    assert both.loss_excess == pytest.approx(0.5)
    assert math.isnan(line(10, 20, 30, losses=(1.0, math.inf, 1.0)).excess)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=9))
def test_excess_and_height_bound_each_other(errors: list[float]) -> None:
    one = line(*errors)
    assert one.excess == pytest.approx(line(*errors[::-1]).excess, abs=1e-9)
    assert 0 <= one.excess <= one.height + abs(errors[0] - errors[-1]) / 2 + 1e-9
    assert one.height <= one.excess + abs(errors[0] - errors[-1]) / 2 + 1e-9


# Which runs are joined


@given(st.integers(2, 7), st.data())
def test_basins_are_the_connected_components_of_scipy(runs: int, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(runs), 2))
    drawn = st.sampled_from([0.0, 1.9, 2.0, 50.0, math.nan])
    heights = data.draw(st.lists(drawn, min_size=len(pairs), max_size=len(pairs)))
    joined = np.zeros((runs, runs))
    for (first, second), height in zip(pairs, heights, strict=True):
        joined[first, second] = height < 2
    count, labels = connected_components(joined, directed=False)
    found = basins_of(heights, runs)
    assert len(set(found)) == count
    assert all((found[one] == found[two]) == (labels[one] == labels[two]) for one, two in pairs)
    assert list(dict.fromkeys(found)) == list(range(count))


def test_a_basin_may_rest_on_ways_over_other_runs() -> None:
    lines = (line(0, 0, 0), line(0, 9, 0), line(0, 1, 0))
    chained = tb.Basins(lines, basins_of([one.height for one in lines], 3))
    assert (chained.of, chained.count, chained.largest, chained.closed) == ((0, 0, 0), 1, 3, False)
    assert chained.joined == pytest.approx(2 / 3)
    apart = (line(0, 9, 0), line(0, 9, 0), line(0, 1, 0))
    two = tb.Basins(apart, basins_of([one.height for one in apart], 3))
    assert (two.of, two.count, two.largest, two.closed) == ((0, 1, 1), 2, 2, True)


def test_lines_are_those_of_barrier_and_either_barrier_may_count(
    chain: list[tb.Run], digits: tb.Data
) -> None:
    found = tb.basins(chain, digits, points=3)
    expected = [tb.barrier(*pair, digits, points=3) for pair in itertools.combinations(chain, 2)]
    assert found.lines == tuple(expected)
    assert found.heights == tuple(one.height for one in expected)
    limit = sorted(one.excess for one in expected)[1]
    by_excess = tb.basins(chain, digits, by="excess", threshold=limit, points=3)
    assert by_excess.heights == tuple(one.excess for one in expected)
    assert by_excess.joined == sum(one.excess < limit for one in expected) / 3
    assert tb.basins([chain[0], chain[0]], digits, points=3).count == 1


@pytest.mark.parametrize(
    ("runs", "options", "words"),
    [(1, {}, r"basins of 1 run\(s\); give at least two"), (2, {"by": "loss"}, "no barrier 'loss'")],
)
def test_what_makes_no_basins_is_refused(
    chain: list[tb.Run], digits: tb.Data, runs: int, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        tb.basins(chain[:runs], digits, **options)
