"""Which lengths a search for the first stable one asks about, and what it found: logic only, no training.

Lengths run from 0 to a budget, at which the answer is stable by definition. Stability is taken to be
monotonic: once stable, stable from there on. The search halves the interval between the longest unstable and
the shortest stable length, at the roundest number within (the one that the largest power of two divides). So
every search walks the same tree of lengths, whose points a trunk keeps on its way, and it errs to the longer
lengths, whose children are cheaper.

Everything follows from the answers so far: a search that is stopped, or asks several lengths at once, is the
same search.
"""

from __future__ import annotations

from collections.abc import Mapping

from tombola.errors import RecipeError


def bracket(answers: Mapping[int, bool], budget: int) -> tuple[int, int]:
    """The longest unstable length, and the shortest above it from which all answers are stable.

    answers: whether each length that was asked about is stable. -1 counts as unstable, the budget as stable.
    """
    low = max((length for length, stable in answers.items() if not stable), default=-1)
    return low, min((length for length, stable in answers.items() if stable and length > low), default=budget)


def questions(
    answers: Mapping[int, bool], budget: int, *, at_once: int = 1, neighbours: int = 1
) -> tuple[int, ...]:
    """The lengths to ask about next, in rising order; none when the search is over.

    at_once: how many at most; several at once take fewer rounds and more answers.
    neighbours: when the first stable length is found, as many more are asked about on each side of it, as a
        check that stability is monotonic. An unstable one above moves the search up.

    Raises :class:`~tombola.errors.RecipeError` for settings out of range.
    """
    for name, value, least in (("budget", budget, 1), ("at_once", at_once, 1), ("neighbours", neighbours, 0)):
        if value < least:
            raise RecipeError(f"{name} is {value}; it must be at least {least}")
    low, high = bracket(answers, budget)
    if high - low > 1:
        return _halving(low, high, at_once)
    beside = [*range(low - neighbours, low), *range(high + 1, high + neighbours + 1)]
    return tuple(k for k in beside if 0 <= k < budget and k not in answers)[:at_once]


def roundest(low: int, high: int) -> int:
    """The number strictly between two that the largest power of two divides; 0 only if there is no other."""
    inside = max(low + 1, 1)
    while inside < high:
        beyond = inside + (inside & -inside)
        if beyond >= high:
            return inside
        inside = beyond
    return 0


def is_monotonic(answers: Mapping[int, bool], budget: int) -> bool:
    """Whether no stable length lies below an unstable one."""
    low, _ = bracket(answers, budget)
    return not any(stable and length < low for length, stable in answers.items())


def _halving(low: int, high: int, count: int) -> tuple[int, ...]:
    """Lengths within an interval: its halving point, then that of the widest part left, and so on."""
    asked: list[int] = []
    gaps = [(low, high)]
    while gaps and len(asked) < count:
        gap = max(gaps, key=lambda ends: (ends[1] - ends[0], -ends[0]))
        gaps.remove(gap)
        middle = roundest(*gap)
        asked.append(middle)
        gaps += [ends for ends in ((gap[0], middle), (middle, gap[1])) if ends[1] - ends[0] > 1]
    return tuple(sorted(asked))
