"""Our numbers beside the paper's: difference, and whether theirs lies in the interval of our mean.

The interval is Student's: as wide as the mean of so many runs would vary if runs were drawn again. It says
nothing where there is one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tombola.errors import ExperimentError
from tombola.table.key import Key
from tombola.table.number import Cell, mean_interval


@dataclass(frozen=True)
class SideBySide:
    """One key, with what stands there in our results and in the paper; None where nothing does.

    difference: our mean minus theirs, in the unit of the cell.
    interval: of our mean at the asked confidence; None for a single run, or number of several runs.
    inside: whether theirs lies in it, ends included.
    remark: what could not be said, and why; empty where everything could.
    """

    key: Key
    ours: Cell | None
    theirs: Cell | None
    difference: float | None
    interval: tuple[float, float] | None
    inside: bool | None
    remark: str


def side_by_side(
    ours: Mapping[Key, Cell], theirs: Mapping[Key, Cell], *, confidence: float = 0.95
) -> list[SideBySide]:
    """Every key of theirs in its order, then the keys that only we have.

    confidence: share of such intervals that hold the true mean, between 0 and 1.

    Raises :class:`~tombola.errors.ExperimentError` for a confidence outside that.
    """
    if not 0 < confidence < 1:
        raise ExperimentError(f"confidence is {confidence}; it must lie between 0 and 1, such as 0.95")
    keys = list(dict.fromkeys([*theirs, *ours]))
    return [_beside(key, ours.get(key), theirs.get(key), confidence) for key in keys]


def _beside(key: Key, ours: Cell | None, theirs: Cell | None, confidence: float) -> SideBySide:
    interval = mean_interval(ours, confidence) if ours else None
    if ours is None or theirs is None:
        remark = "not computed yet" if ours is None else "the paper prints no number"
        return SideBySide(key, ours, theirs, None, interval, None, remark)
    difference = ours.mean - theirs.mean
    if interval is None:
        one = "run" if ours.runs == 1 else f"number of {ours.counted}"
        return SideBySide(key, ours, theirs, difference, None, None, f"one {one}: no interval")
    inside = interval[0] <= theirs.mean <= interval[1]
    return SideBySide(key, ours, theirs, difference, interval, inside, "")
