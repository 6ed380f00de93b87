"""Rank correlations of a few configurations, with what so few can say: exact permutations and a bootstrap.

Spearman's rho (ties share their mean rank) and Kendall's tau-b. With a handful of points their normal
and t approximations are wrong, so significance comes from all orders of one series.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tombola import seeds

MOST_ENUMERATED = 8
"""Points of which all orders are tried, 40,320; of more, so many are drawn."""
_DRAWN = 20_000
_RESAMPLES = 10_000
_EQUAL = 1e-9  # so that an order as far from zero as the one observed counts as that far
CONFIDENCE = 0.95


_Features = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From rows of values to what is compared of each."""


@dataclass(frozen=True)
class RankCorrelation:
    """A rank correlation of two series over the same few points.

    value: -1 to 1. low, high: percentiles of a bootstrap over the points, at :data:`CONFIDENCE`; resamples in
        which a series is constant are left out, and with few points the interval is too narrow.
    p: the share of orders of one series whose correlation is as far from zero, two-sided; exact up to
        :data:`MOST_ENUMERATED` points.
    critical: the smallest correlation, in absolute value, whose p would be at most 1 - confidence; None where
        no order of these points reaches that.
    """

    value: float
    low: float
    high: float
    p: float
    critical: float | None


@dataclass(frozen=True)
class Agreement:
    """How far two series rank the same points alike. points: how many they are."""

    points: int
    spearman: RankCorrelation
    kendall: RankCorrelation


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement | None:
    """Both rank correlations of two equally long series; None for under three points or a constant one."""
    # In one order, so that resamples do not hang on that of the points.
    x, y = np.array(sorted(zip(first, second, strict=True)), dtype=float).reshape(-1, 2).T
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return None
    return Agreement(len(x), _correlation(x, y, _ranked), _correlation(x, y, _signs))


def _ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean ranks of each row ``(series, points)``."""
    below = (values[:, :, None] > values[:, None, :]).sum(axis=2, dtype=float)
    ties = (values[:, :, None] == values[:, None, :]).sum(axis=2, dtype=float)
    ranks = below + (ties - 1) / 2
    centred: NDArray[np.float64] = ranks - ranks.mean(axis=1, keepdims=True)
    return centred


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The order of every pair of points in each row, -1, 0 or 1."""
    rows, columns = np.triu_indices(values.shape[1], 1)
    signs: NDArray[np.float64] = np.sign(values[:, rows] - values[:, columns])
    return signs


def _cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of each row of one with that of the other, NaN where one is zero.

    Of centred ranks it is Spearman's rho, of the signs of all pairs Kendall's tau-b.
    """
    with np.errstate(invalid="ignore"):
        scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
        cosines: NDArray[np.float64] = (one * other).sum(axis=1) / scale
    return cosines


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64], features: _Features) -> RankCorrelation:
    fixed = features(x[None])
    value = float(_cosines(fixed, features(y[None]))[0])
    orders = _orders(len(x))
    # Ranks change places with their values.
    reordered = _ranked(y[None])[0][orders] if features is _ranked else features(y[orders])
    under_chance = np.abs(_cosines(fixed, reordered))
    p = float((under_chance >= abs(value) - _EQUAL).mean())
    draws = seeds.generator("bootstrap", 0).integers(len(x), size=(_RESAMPLES, len(x)))
    resampled = _cosines(features(x[draws]), features(y[draws]))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled[np.isfinite(resampled)], [tail, 1 - tail])
    return RankCorrelation(value, float(low), float(high), p, _critical(under_chance))


def _critical(under_chance: NDArray[np.float64]) -> float | None:
    """The smallest of some absolute correlations that at most 5% of them reach."""
    for value in np.unique(np.round(under_chance, 12)):
        if (under_chance >= value - _EQUAL).mean() <= 1 - CONFIDENCE + _EQUAL:
            return float(value)
    return None


@cache
def _orders(points: int) -> NDArray[np.int64]:
    """All orders of so many points, or many drawn ones."""
    if points <= MOST_ENUMERATED:
        return np.array(list(itertools.permutations(range(points))))
    draws = seeds.generator("permutations", points)
    drawn: NDArray[np.int64] = draws.permuted(np.tile(np.arange(points), (_DRAWN, 1)), axis=1)
    drawn[0] = np.arange(points)  # the observed one is an order too, so that no p is 0
    return drawn
