import math
import statistics

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import ExperimentError
from tombola.table.compare import side_by_side
from tombola.table.key import Key
from tombola.table.number import Cell, by_key, mean_interval, measured

KEYS = [Key(metric="val_accuracy", sparsity=sparsity) for sparsity in (0.0, 67.23, 89.26)]


def printed(key: Key, value: float) -> Cell:
    return Cell(key=key, mean=value, std=0.1, runs=3, epochs=200)


def test_the_interval_is_students_by_hand() -> None:
    # Mean 93, sample std sqrt(13), three runs; the 95% point of t with 2 degrees of freedom is 4.3027.
    low, high = mean_interval(measured(KEYS[0], [90.0, 92.0, 97.0], epochs=20)) or (0, 0)
    half = 4.30265 * math.sqrt(13) / math.sqrt(3)
    assert (low, high) == (pytest.approx(93 - half, abs=1e-4), pytest.approx(93 + half, abs=1e-4))


@given(st.lists(st.floats(0, 100), min_size=3, max_size=6), st.floats(0.5, 0.999))
def test_the_interval_is_that_of_scipy(values: list[float], confidence: float) -> None:
    interval = mean_interval(measured(KEYS[0], values, epochs=20), confidence)
    scale = statistics.stdev(values) / math.sqrt(len(values))
    if scale > 0:
        mean = statistics.fmean(values)
        expected = scipy.stats.t.interval(confidence, len(values) - 1, loc=mean, scale=scale)
        assert interval == pytest.approx(expected, rel=1e-6, abs=1e-6)
    else:
        assert interval == pytest.approx((values[0], values[0]))


def test_ours_beside_theirs() -> None:
    ours = by_key([measured(KEYS[0], [90.0, 91.0, 92.0], epochs=20)])
    # Student's interval at 95% is 91 +- 2.48, at 50% 91 +- 0.47.
    [inside] = side_by_side(ours, {KEYS[0]: printed(KEYS[0], 92.0)})
    assert (inside.difference, inside.inside, inside.remark) == (pytest.approx(-1.0), True, "")
    [outside] = side_by_side(ours, {KEYS[0]: printed(KEYS[0], 94.0)})
    assert (outside.difference, outside.inside) == (pytest.approx(-3.0), False)
    [narrow] = side_by_side(ours, {KEYS[0]: printed(KEYS[0], 92.0)}, confidence=0.5)
    assert narrow.inside is False
    assert narrow.interval == pytest.approx((90.529, 91.471), abs=0.001)


def test_two_runs_have_no_interval() -> None:
    ours = by_key([measured(KEYS[0], [90.0, 95.0], epochs=20)])
    [row] = side_by_side(ours, {KEYS[0]: printed(KEYS[0], 70.0)})
    assert (row.difference, row.interval, row.inside) == (22.5, None, None)


def test_one_run_has_a_difference_and_no_interval_and_says_so() -> None:
    ours = by_key([measured(KEYS[0], [90.0], epochs=20)])
    [row] = side_by_side(ours, {KEYS[0]: printed(KEYS[0], 92.0)})
    assert (row.difference, row.interval, row.inside) == (-2.0, None, None)
    assert row.remark == "one run: no interval"


def test_what_one_side_lacks_is_a_gap_with_a_remark() -> None:
    ours = by_key(measured(key, [90.0, 91.0, 92.0], epochs=20) for key in (KEYS[2], KEYS[1]))
    theirs = by_key(printed(key, 92.0) for key in KEYS[:2])
    rows = side_by_side(ours, theirs)
    assert [row.key for row in rows] == KEYS
    assert [row.remark for row in rows] == ["not computed yet", "", "the paper prints no number"]
    assert rows[0].ours is None
    assert rows[2].theirs is None
    assert rows[2].interval is not None
    assert all(row.difference is None and row.inside is None for row in (rows[0], rows[2]))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ExperimentError, match=rf"confidence is {confidence}; it must lie between 0 and 1"):
        side_by_side({}, {}, confidence=confidence)
