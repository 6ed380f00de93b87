"""Our numbers beside the paper's: difference, and whether theirs lies in the interval of our mean.

The interval is Student's: as wide as the mean of so many runs would vary if runs were drawn again. It says
nothing where there is one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

from tombola.errors import StudyError
from tombola.measures.statistics import sample_std
from tombola.studies.cells import Cell, Place


@dataclass(frozen=True)
class SideBySide:
    """One place, with what stands there in our results and in the paper; None where nothing does.

    difference: our mean minus theirs, in the unit of the cell.
    interval: of our mean at the asked confidence; None for a single run, or number of several runs.
    inside: whether theirs lies in it, ends included.
    remark: what could not be said, and why; empty where everything could.
    """

    place: Place
    ours: Cell | None
    theirs: Cell | None
    difference: float | None
    interval: tuple[float, float] | None
    inside: bool | None
    remark: str


def side_by_side(
    ours: Mapping[Place, Cell], theirs: Mapping[Place, Cell], *, confidence: float = 0.95
) -> list[SideBySide]:
    """Every place of theirs in its order, then the places that only we have.

    confidence: share of such intervals that hold the true mean, between 0 and 1.

    Raises :class:`~tombola.errors.StudyError` for a confidence outside that.
    """
    if not 0 < confidence < 1:
        raise StudyError(f"confidence is {confidence}; it must lie between 0 and 1, such as 0.95")
    places = list(dict.fromkeys([*theirs, *ours]))
    return [_beside(place, ours.get(place), theirs.get(place), confidence) for place in places]


def mean_interval(cell: Cell, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of a cell's own runs; None for fewer than two."""
    std = sample_std(cell.values) if cell.values else None
    if std is None:
        return None
    runs = len(cell.values)
    half = float(stdtrit(runs - 1, (1 + confidence) / 2)) * std / math.sqrt(runs)
    return cell.mean - half, cell.mean + half


def _beside(place: Place, ours: Cell | None, theirs: Cell | None, confidence: float) -> SideBySide:
    interval = mean_interval(ours, confidence) if ours else None
    if ours is None or theirs is None:
        remark = "not computed yet" if ours is None else "the paper prints no number"
        return SideBySide(place, ours, theirs, None, interval, None, remark)
    difference = ours.mean - theirs.mean
    if interval is None:
        one = "run" if ours.runs == 1 else f"number of {ours.counted}"
        return SideBySide(place, ours, theirs, difference, None, None, f"one {one}: no interval")
    inside = interval[0] <= theirs.mean <= interval[1]
    return SideBySide(place, ours, theirs, difference, interval, inside, "")
