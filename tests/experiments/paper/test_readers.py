import math
from dataclasses import replace
from typing import Any

import pytest

from tombola.experiments.paper.readers import (
    barrier_heights,
    convergence_of,
    forgetting_events,
    highest_errors,
    late_forgetting,
    levels_reached,
    line_excess,
    mask_distance,
    noise_scale,
    one_barrier,
    projected_excess,
    projection_error,
    run_accuracy,
    unforgettable,
)
from tombola.measures.axial import AxialProjection
from tombola.measures.connectivity import Barrier
from tombola.measures.early_bird import EarlyBird
from tombola.measures.gradient_noise import GradientNoise
from tombola.measures.instability import Instability
from tombola.measures.learning import Forgetting, ForgettingCurve, Learning
from tombola.table.number import Curve

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
RISING = Barrier(ALPHAS, (10.0, 40.0, 80.0, 75.0, 20.0), (0.0,) * 5)
FLAT = Barrier(ALPHAS, (10.0, 9.5, 9.0, 9.5, 10.0), (0.0,) * 5)
COPIES = Instability((RISING, FLAT, RISING), (0, 1, 2), failed=0)


def a_run(**change: Any) -> Learning:
    forgetting = Forgetting(1.5, 0.5, unforgettable=0.4, never_learned=2)
    events = ForgettingCurve(tuple(range(1, 9)), (0, 80, 60, 40, 30, 20, 10, 6))
    return Learning(
        **{"images": 40, "forgetting": forgetting, "curve": events, "convergence": 0.8, "failed": False}
        | change
    )


def test_barriers_of_pairs_are_worked_out_by_hand() -> None:
    # Largest error minus the mean of both ends: 80 - 15; and an end is the largest: 10 - 10.
    heights = barrier_heights(COPIES)
    assert heights.values == (65.0, 0.0, 65.0)
    assert heights.note == "one value a pair of 3 noise copies"
    assert highest_errors(COPIES).values == (80.0, 10.0, 80.0)


def test_a_barrier_brings_the_error_along_its_line() -> None:
    barrier = one_barrier(RISING)
    assert barrier.values == (65.0,)
    assert barrier.curves == (Curve(ALPHAS, RISING.errors),)
    assert barrier_heights(COPIES).curves == tuple(
        Curve(ALPHAS, line.errors) for line in (RISING, FLAT, RISING)
    )


def test_a_level_is_reached_at_nine_tenths_of_the_largest_error() -> None:
    # 0.9 * 80 = 72, first exceeded in the middle; 0.9 * 10 = 9, right at the first end.
    assert levels_reached(COPIES).values == (0.5, 0.0, 0.5)


def test_late_forgetting_is_of_the_last_quarter_of_the_epochs() -> None:
    late = late_forgetting(a_run())
    assert late.values == pytest.approx(((10 + 6) / 2 / 40,))
    # By epoch and image, of 40 images.
    (curve,) = late.curves
    assert curve.x == (1, 2, 3, 4, 5, 6, 7, 8)
    assert curve.y == pytest.approx((0.0, 2.0, 1.5, 1.0, 0.75, 0.5, 0.25, 0.15))


def test_shares_are_in_percent_and_events_a_mean() -> None:
    assert unforgettable(a_run()).values == (40.0,)
    assert forgetting_events(a_run()).values == (1.5,)


def test_a_run_that_learned_nothing_is_left_out_of_convergence_and_said_so() -> None:
    reading = convergence_of(a_run(convergence=None, failed=True))
    assert (reading.values, reading.failed) == ((), True)
    assert reading.note == "a run that learned nothing is left out"


def test_early_measures_that_say_nothing_are_left_out_with_the_cause() -> None:
    noises = [noise_scale(GradientNoise(6.0, squared, 9, 1)) for squared in (2.0, -0.1)]
    assert [(noise.values, noise.note) for noise in noises] == [
        ((3.0,), ""),
        ((), "the gradient has vanished"),
    ]
    distances = [mask_distance(EarlyBird(None, None, listed, 0.5)) for listed in ((0.25,), ())]
    assert [one.values for one in distances] == [(0.5,), ()]
    assert distances[1].note == "a single mask has no distance"


def test_failed_copies_and_runs_are_told() -> None:
    assert barrier_heights(Instability((RISING,), (0, 1), failed=1)).failed
    assert run_accuracy({"accuracy": 10.0, "failed": True}).failed
    assert not math.isnan(run_accuracy({"accuracy": 10.0, "failed": False}).values[0])


def test_lines_between_distant_rounds_are_read_over_the_line_between_their_ends() -> None:
    interpolated = Barrier((0.0, 0.5, 1.0), (90.0, 80.0, 10.0), (2.3, 2.0, 0.3))
    anew = Barrier((0.0, 0.5, 1.0), (20.0, 18.0, 10.0), (0.6, 0.5, 0.3), ends=("trained", "diverged"))
    projection = AxialProjection(1.0, 2.0, 0.9, anew, replace(interpolated, recalibrated=anew))
    # Half way from 90 to 10 is 50, from 20 to 10 it is 15.
    assert line_excess(interpolated).values == (30.0,)
    assert projected_excess(projection).values == (3.0,)
    assert projected_excess(projection).failures == ("the second run diverged",)
    assert projection_error(projection).values == (20.0,)
