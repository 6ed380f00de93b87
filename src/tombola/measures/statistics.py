"""Means, spreads and confidence intervals over runs that differ in their seeds, as in the paper's tables.

Spreads are sample standard deviations (reading D11), and the raw values stay at hand. Failed runs are counted
and starred, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tombola import seeds
from tombola.errors import RecipeError
from tombola.registry import declare
from tombola.training.run import Run


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def sample_std(values: Sequence[float]) -> float | None:
    """The sample (n - 1) standard deviation; None for a single value, whose spread is unknown."""
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Summary:
    """The values of one setting over its seeds, such as accuracies in percent, with their mean and spread.

    values: one a run, failed runs included.
    failed: how many of the runs diverged or stayed near chance.
    """

    values: tuple[float, ...]
    failed: int = 0

    def __post_init__(self) -> None:
        if not self.values:
            raise RecipeError("no runs to summarize; give at least one")

    @property
    def mean(self) -> float:
        """The mean over all runs."""
        return mean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for a single run."""
        return sample_std(self.values)

    @property
    def starred(self) -> bool:
        """Whether the entry has a star in a table: at least one run failed."""
        return self.failed > 0


@declare("summarize", stored=False)
def summarize(runs: Sequence[Run]) -> Summary:
    """The test accuracies of runs, in percent, with the failed ones counted."""
    return Summary(tuple(run.accuracy for run in runs), sum(run.failed for run in runs))


def is_winning(ticket: Sequence[float], dense: Sequence[float]) -> bool:
    """Whether tickets win: their mean accuracy is at least that of the dense network trained alike.

    Failed runs count as they are; none is left out.
    """
    return mean(ticket) >= mean(dense)


def is_clearly_winning(
    ticket: Sequence[float], dense: Sequence[float], *, tolerance: float | None = None
) -> bool:
    """Whether tickets win by a margin: their mean is at least the dense mean plus a tolerance (reading C6).

    tolerance: in the unit of the values; by default one sample standard deviation of the dense runs. Below 0
        it gives the lenient sense of "similar or better".

    Raises :class:`~tombola.errors.RecipeError` if it would be the spread of a single dense run.
    """
    margin = sample_std(dense) if tolerance is None else tolerance
    if margin is None:
        raise RecipeError("one dense run has no spread to win by; give tolerance, or more runs")
    return mean(ticket) >= mean(dense) + margin


@dataclass(frozen=True)
class Difference:
    """The mean of one setting minus that of another.

    mean: in the unit of the values.
    low, high: ends of the confidence interval.
    confidence: its level, such as 0.95.
    method: ``"welch"`` or ``"bootstrap"``.
    """

    mean: float
    low: float
    high: float
    confidence: float
    method: str

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    method: Literal["welch", "bootstrap"] = "welch",
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """The mean of ``first`` minus the mean of ``second``, with a confidence interval.

    first, second: values of independent runs; at least two each.
    confidence: level of the interval, above 0 and below 1.
    method: Welch's t interval, or the percentiles of bootstrap resamples of either setting. With the three
        runs that are usual here a bootstrap interval is too narrow; Welch's rests on normal values.
    resamples, seed: number of bootstrap resamples, and of the stream that they are drawn from.

    Raises :class:`~tombola.errors.RecipeError` for a single value or a setting out of range.
    """
    for values in (first, second):
        if len(values) < 2:
            raise RecipeError(
                f"a difference of {len(first)} and {len(second)} values; it needs 2 or more of each"
            )
    if not 0 < confidence < 1:
        raise RecipeError(f"confidence is {confidence}; it must be above 0 and below 1, such as 0.95")
    if method not in ("welch", "bootstrap"):
        raise RecipeError(f"method is {method!r}; it must be 'welch' or 'bootstrap'")
    if resamples < 1:
        raise RecipeError(f"resamples is {resamples}; it must be at least 1")
    if method == "welch":
        low, high = _welch(first, second, confidence)
    else:
        low, high = _bootstrap(first, second, confidence, resamples, seed)
    return Difference(mean(first) - mean(second), low, high, confidence, method)


def _welch(first: Sequence[float], second: Sequence[float], confidence: float) -> tuple[float, float]:
    """Welch's interval: t with the degrees of freedom of Welch and Satterthwaite."""
    from scipy import stats  # takes a third of a second, which only an interval is worth

    shares = [(sample_std(values) or 0.0) ** 2 / len(values) for values in (first, second)]
    center = mean(first) - mean(second)
    if sum(shares) == 0:
        return center, center
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True)
    )
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(shares))
    return center - reach, center + reach


def _bootstrap(
    first: Sequence[float], second: Sequence[float], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The percentiles of differences between means of values drawn again, each setting by itself."""
    import numpy as np

    draws = seeds.generator("bootstrap", seed)
    means = [
        draws.choice(np.asarray(values, dtype=float), size=(resamples, len(values))).mean(axis=1)
        for values in (first, second)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    return float(low), float(high)
