import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.training.run import Epoch, History


def learned(run: tb.Run, errors: list[float]) -> tb.Run:
    """The run with another history: test errors in percent, before training and after each epoch."""
    rows = [Epoch(epoch, 0.1, 1.0, 50.0, 1.0, 100 - error, 0, 0.0) for epoch, error in enumerate(errors)]
    return replace(run, history=History(rows))


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([90, 10, 10, 10], 1.0),  # everything in the first epoch
        ([90, 90, 90, 10], 1 / 3),  # everything in the last of three
        ([90, 50, 30, 10], (40 + 60 + 80) / 3 / 80),
        ([90, 70], 1.0),  # a single epoch
        ([80, 20, 40], (60 + 40) / 2 / 40),  # better on the way than at the end: above 1
        ([80, 100, 60], (-20 + 20) / 2 / 20),
    ],
)
def test_equation_4_by_hand(run: tb.Run, errors: list[float], expected: float) -> None:
    found = tb.convergence(learned(run, errors))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("errors", [[90, 50, 90], [90, 50, 95], [90]])
def test_a_run_that_learned_nothing_has_no_convergence(run: tb.Run, errors: list[float]) -> None:
    assert tb.convergence(learned(run, errors)) is None


def test_an_undefined_accuracy_gives_none(run: tb.Run) -> None:
    assert tb.convergence(learned(run, [90, 50, math.nan])) is None


@given(st.lists(st.floats(0, 89), min_size=1, max_size=20), st.floats(0.1, 10))
def test_convergence_does_not_depend_on_the_scale_of_the_errors(
    run: tb.Run, errors: list[float], scale: float
) -> None:
    stretched = [100 - scale / 10 * (100 - error) for error in (90, *errors)]
    first, second = (tb.convergence(learned(run, some)) for some in ([90, *errors], stretched))
    assert first == pytest.approx(second, rel=1e-6)


def test_a_real_run_counts_from_the_error_before_any_step(run: tb.Run) -> None:
    errors = [100 - accuracy for accuracy in run.history.column("test_accuracy")]
    gains = [errors[0] - error for error in errors[1:]]
    assert tb.convergence(run) == pytest.approx(sum(gains) / 3 / gains[-1])


def test_a_rewound_run_counts_from_its_ticket(chain: list[tb.Run]) -> None:
    history = chain[2].history
    before, middle, end = history.column("test_accuracy")
    assert tb.convergence(chain[2]) == pytest.approx(
        ((middle - before) + (end - before)) / 2 / (end - before)
    )
