"""Warnings point to the line that called the package."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb

LARGE = tb.Recipe(epochs=1, batch_size=5_000)


@pytest.mark.parametrize(
    "call",
    [
        lambda start, _: (tb.train(start, "digits", LARGE), _line())[1],
        lambda start, _: (next(tb.imp(start, "digits", LARGE, rounds=1)), _line())[1],
        lambda start, place: (tb.Lab(place).run(tb.job(tb.train, start, "digits", LARGE)), _line())[1],
    ],
)
def test_a_warning_points_to_the_callers_line(
    call: Callable[[tb.Ticket, Path], int], start: tb.Ticket, tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = call(start, tmp_path)
    places = [(entry.filename, entry.lineno) for entry in caught if "one partial batch" in str(entry.message)]
    assert places == [(__file__, line)]


def _line() -> int:
    return sys._getframe(1).f_lineno
