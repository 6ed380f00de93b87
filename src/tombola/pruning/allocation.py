"""How many weights each layer keeps, given scores and the density that is wanted.

Counts are exact: the wanted density times the number of weights, rounded to the nearest integer (half up).
Because the density is the exact product over all rounds, sparsity never drifts from 1 - (1 - fraction)^n by
more than one weight. Where the weights do not stand at that density (a mask of the caller's own, layerwise
pruning after global pruning), the count is the share of those that are there. Ties break by position: the
weight that comes first is pruned first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tombola.pruning.scores import Scores

Kept = npt.NDArray[np.bool_]


def nearest_count(total: int, density: float) -> int:
    """The number of weights out of ``total`` that stay at ``density``: nearest integer, half up."""
    return int(np.floor(total * density + 0.5))


def remaining_count(kept: Kept, density: float, fraction: float) -> int:
    """The number of weights that stay when ``fraction`` of the kept ones goes.

    density: what earlier rounds should have left; followed where they did.
    """
    count = int(kept.sum())
    if count == nearest_count(len(kept), density):
        return nearest_count(len(kept), density * (1 - fraction))
    return nearest_count(count, 1 - fraction)


def keep_highest(scores: Scores, kept: Kept, count: int) -> Kept:
    """The ``count`` highest-scoring of the kept positions; pruned positions never rank again.

    If no more than ``count`` positions are kept already, all of them stay.
    """
    excess = int(kept.sum()) - count
    if excess <= 0:
        return kept.copy()
    ranked = scores[kept]
    threshold = np.partition(ranked, excess - 1)[excess - 1]
    pruned = ranked < threshold
    ties = np.flatnonzero(ranked == threshold)
    pruned[ties[: excess - int(pruned.sum())]] = True
    result = kept.copy()
    result[kept] = ~pruned
    return result


def keep_globally(
    scores: Mapping[str, Scores], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """One ranking over all layers, in the order given; ``fraction`` of the kept weights goes."""
    before = np.concatenate([kept[name] for name in scores])
    joined = keep_highest(
        np.concatenate(list(scores.values())), before, remaining_count(before, density, fraction)
    )
    ends = np.cumsum([len(layer) for layer in scores.values()])[:-1]
    return dict(zip(scores, np.split(joined, ends), strict=True))


def keep_layerwise(
    scores: Mapping[str, Scores], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """A ranking for each layer; ``fraction`` of the kept weights of each goes."""
    return {
        name: keep_highest(layer, kept[name], remaining_count(kept[name], density, fraction))
        for name, layer in scores.items()
    }
