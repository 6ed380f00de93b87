"""Statistics over runs that differ in their seeds, as the paper's tables give them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def sample_std(values: Sequence[float]) -> float | None:
    """The sample (n - 1) standard deviation; None for a single value, whose spread is unknown."""
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def is_winning(ticket: Sequence[float], dense: Sequence[float]) -> bool:
    """Whether tickets win: their mean accuracy is at least that of the dense network trained alike.

    Failed runs count as they are; none is left out.
    """
    return mean(ticket) >= mean(dense)
