"""Allocation: how many weights each layer keeps, and which they are, once every weight has a score.

One prune step removes a share of the weights that are left. ``"global"`` ranks the weights of all layers
together, ``"layerwise"`` takes the share from each layer, ``"uniform"`` and ``"erk"`` give each layer a
density of its own. Counts follow the exact density, so sparsity never drifts from 1 - 0.8^n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tombola.errors import RecipeError, unknown

Scope = Literal["global", "layerwise", "uniform", "erk"]
Values = npt.NDArray[np.floating]
"""The score of each weight of a layer, flat."""
Kept = npt.NDArray[np.bool_]
"""Whether each weight of a layer is kept, flat."""
Indices = npt.NDArray[np.int64]
"""Where some scores stand, ascending."""
Order = Callable[[Indices], npt.NDArray[np.int64]]
"""From where equal scores stand to numbers by which the first of them come first."""
Allocation = Callable[[Mapping[str, Values], Mapping[str, Kept], float, float], dict[str, Kept]]
"""From scores and kept weights of the layers, the density that there should be and the share that goes."""


def check_scope(scope: str, scopes: Sequence[str] = get_args(Scope)) -> None:
    """Raises RecipeError for an unknown scope."""
    if scope not in scopes:
        raise RecipeError(unknown("pruning scope", scope, scopes))


def allocation(
    scope: Scope, shapes: Mapping[str, Sequence[int]], rates: Mapping[str, float] | None = None
) -> Allocation:
    """The allocation of a scope for layers whose weights have these shapes.

    rates: of scope ``"layerwise"``: of each layer how fast it is pruned, in proportion to the others.
    """
    if scope == "global":
        return keep_globally
    if scope == "layerwise":
        return keep_layerwise if rates is None else partial(keep_at_rates, rates=rates)
    shares = {name: math.prod(shape) if scope == "uniform" else sum(shape) for name, shape in shapes.items()}

    def keep(
        scores: Mapping[str, Values], kept: Mapping[str, Kept], density: float, fraction: float
    ) -> dict[str, Kept]:
        return keep_in_shares(scores, kept, density, fraction, shares)

    return keep


def keep_globally(
    scores: Mapping[str, Values], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """One ranking over all layers, in the order given; ``fraction`` of the kept weights goes."""
    before = np.concatenate([kept[name] for name in scores])
    joined = keep_highest(
        np.concatenate(list(scores.values())), before, remaining_count(before, density, fraction)
    )
    ends = np.cumsum([len(layer) for layer in scores.values()])[:-1]
    return dict(zip(scores, np.split(joined, ends), strict=True))


def keep_layerwise(
    scores: Mapping[str, Values], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """A ranking for each layer; ``fraction`` of the kept weights of each goes."""
    return {
        name: keep_highest(layer, kept[name], remaining_count(kept[name], density, fraction))
        for name, layer in scores.items()
    }


def keep_at_rates(
    scores: Mapping[str, Values],
    kept: Mapping[str, Kept],
    density: float,
    fraction: float,
    rates: Mapping[str, float],
) -> dict[str, Kept]:
    """A ranking for each layer, of whose kept weights a share goes that is in proportion to its rate.

    As many go in all as :func:`keep_globally` removes. Source: Frankle & Carbin (2019), who prune output
    layers at half the rate.
    """
    before = np.concatenate([kept[name] for name in scores])
    counts = [int(kept[name].sum()) for name in scores]
    removed = shared_counts(
        sum(counts) - remaining_count(before, density, fraction),
        [_share_of(rates[name]) * count for name, count in zip(scores, counts, strict=True)],
        counts,
    )
    return {
        name: keep_highest(layer, kept[name], count - gone)
        for (name, layer), count, gone in zip(scores.items(), counts, removed, strict=True)
    }


def _share_of(rate: float) -> Fraction:
    """A rate as a fraction of small numbers where there is one, such as 1/10, and never 0."""
    return Fraction(rate).limit_denominator(10**6) or Fraction(rate)


def keep_in_shares(
    scores: Mapping[str, Values],
    kept: Mapping[str, Kept],
    density: float,
    fraction: float,
    shares: Mapping[str, int],
) -> dict[str, Kept]:
    """A ranking for each layer, which keeps its share of as many weights as :func:`keep_globally` keeps.

    shares: of the layers, in proportion: their sizes give all of them one density (``"uniform"``), the sums
        of their dimensions the Erdos-Renyi-Kernel densities (``"erk"``), which are in proportion to the sum
        over the product of the dimensions. Source: Mocanu et al. (2018), Evci et al. (2020).
    """
    before = np.concatenate([kept[name] for name in scores])
    total = remaining_count(before, density, fraction)
    counts = shared_counts(
        total, [shares[name] for name in scores], [int(kept[name].sum()) for name in scores]
    )
    return {
        name: keep_highest(layer, kept[name], count)
        for (name, layer), count in zip(scores.items(), counts, strict=True)
    }


def shared_counts(total: int, shares: Sequence[int | Fraction], most: Sequence[int]) -> list[int]:
    """``total`` in whole numbers in proportion to shares, none above its ``most``.

    What a layer cannot keep goes to the others in proportion. Remainders are rounded up from the largest on;
    of equal ones the last, since the first is pruned first.
    """
    exact: list[Fraction] = [Fraction(0)] * len(shares)
    open_layers = [index for index, share in enumerate(shares) if share and most[index]]
    left = total
    while open_layers:
        unit = left / sum((Fraction(shares[index]) for index in open_layers), Fraction(0))
        full = [index for index in open_layers if unit * shares[index] >= most[index]]
        for index in full or open_layers:
            exact[index] = Fraction(most[index]) if full else unit * shares[index]
        left -= sum(most[index] for index in full)
        open_layers = [index for index in open_layers if index not in full] if full else []
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (exact[index] - counts[index], index))
    for index in by_remainder[len(exact) - (total - sum(counts)) :]:
        counts[index] += 1
    return counts


def keep_highest(scores: Values, kept: Kept, count: int) -> Kept:
    """The ``count`` highest-scoring of the kept positions; pruned positions never rank again.

    If no more than ``count`` positions are kept already, all of them stay.
    """
    result = kept.copy()
    result[kept] = highest(scores[kept], count)
    return result


def highest(scores: Values, count: int, order: Order | None = None) -> Kept:
    """Which are the ``count`` highest scores; of equal ones the first are left out.

    order: gives the sort keys of some indices where scores do not stand in the order that decides.
    """
    chosen = np.ones(len(scores), dtype=bool)
    excess = len(scores) - count
    if excess <= 0:
        return chosen
    candidates = _candidates(scores, excess)
    values = scores if candidates is None else scores[candidates]
    threshold = np.partition(values, excess - 1)[excess - 1]
    below, ties = np.flatnonzero(values < threshold), np.flatnonzero(values == threshold)
    if candidates is not None:
        below, ties = candidates[below], candidates[ties]
    if order is not None and len(ties) > 1:
        ties = ties[np.argsort(order(ties), kind="stable")]
    chosen[below] = False
    chosen[ties[: excess - len(below)]] = False
    return chosen


def _candidates(scores: Values, rank: int) -> Indices | None:
    """Where scores stand among which are the ``rank`` lowest; None for all.

    Few go in a round, and a sample says below which score they are to be found.
    """
    if len(scores) > _LARGE:
        sample = scores[::_STRIDE]
        place = int(1.1 * rank / _STRIDE) + 10
        if place < len(sample):
            candidates = np.flatnonzero(scores <= np.partition(sample, place)[place])
            if len(candidates) >= rank:
                return candidates
    return None


_LARGE, _STRIDE = 100_000, 97


def remaining_count(kept: Kept, density: float, fraction: float) -> int:
    """The number of weights that stay when ``fraction`` of the kept ones goes.

    density: what earlier rounds should have left; followed where they did.
    """
    return remaining_of(int(kept.sum()), len(kept), density, fraction)


def remaining_of(count: int, total: int, density: float, fraction: float) -> int:
    """The same of ``count`` weights that are kept out of ``total``."""
    if count == nearest_count(total, density):
        return nearest_count(total, density * (1 - fraction))
    return nearest_count(count, 1 - fraction)


def nearest_count(total: int, density: float) -> int:
    """The number of weights out of ``total`` that stay at ``density``: nearest integer, half up."""
    return int(np.floor(total * density + 0.5))
