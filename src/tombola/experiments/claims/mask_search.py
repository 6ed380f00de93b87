"""Claims 33 to 39, on shorter mask searches, and on mask search against sparse training (4.3, 4.4, D)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import short_search, ticket, trained_as
from tombola.experiments.claims.quantities import Quantity, highest, lowest
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    PRUNED,
    R18_C10,
    R34_TIN,
    STABLE,
    UNSTABLE,
    Configuration,
    Pair,
    others,
)

_SHORTEST, _SHORT = 20, 50
"""Epochs of the shorter mask searches."""
_MOMENTUM_256 = Configuration(0.9, 256)


@claim(
    33,
    "For the unstable 0.9/100, a 20-epoch mask search beats the full 200-epoch mask search.",
    section="4.3, Appendix D",
    rests_on=("table3", "table2", "table16", "table11"),
)
def short_search_helps_the_unstable(find: Find) -> Checks:
    for pair in (R34_TIN, R18_C10):
        for sparsity in PRUNED:
            gained = _over_full_search(find, pair, UNSTABLE, _SHORTEST, sparsity)
            yield f"{pair.name} at {sparsity}", gained > 0


@claim(
    34,
    "For 0.9/100, 50 epochs is worse than 20 epochs.",
    section="4.3, Appendix D",
    rests_on=("table3", "table16"),
)
def longer_search_hurts_the_unstable(find: Find) -> Checks:
    for pair in (R34_TIN, R18_C10):
        for sparsity in PRUNED:
            shorter, longer = (
                short_search(find, pair, UNSTABLE, epochs, sparsity) for epochs in (_SHORTEST, _SHORT)
            )
            yield f"{pair.name} at {sparsity}", shorter - longer > 0


@claim(
    35,
    "0.9/100 at 50 epochs falls below full IMP on CIFAR-10.",
    section="Appendix D",
    rests_on=("table16", "table11"),
)
def fifty_epochs_fall_below_full_search(find: Find) -> Checks:
    for sparsity in PRUNED:
        yield f"{sparsity}", _over_full_search(find, R18_C10, UNSTABLE, _SHORT, sparsity) < 0


@claim(
    36,
    "For stable mu=0.0 configurations a shorter mask search always hurts.",
    section="4.3, Appendix D",
    rests_on=("table3", "table2", "table16", "table11"),
)
def short_search_hurts_the_stable(find: Find) -> Checks:
    for pair, configuration in ((R34_TIN, STABLE), (R18_C10, STABLE), (R18_C10, Configuration(0.0, 100))):
        for epochs in (_SHORTEST, _SHORT):
            for sparsity in PRUNED:
                gained = _over_full_search(find, pair, configuration, epochs, sparsity)
                yield f"{pair.name}, {configuration}, {epochs} epochs at {sparsity}", gained < 0


@claim(
    37,
    "For 0.9/256 AIMP and IMP are about equal on CIFAR-10.",
    section="Appendix D",
    rests_on=("table16", "table11"),
    ours="that about equal means within 0.6 points",
)
def search_length_matters_little_between(find: Find) -> Checks:
    for epochs in (_SHORTEST, _SHORT):
        for sparsity in PRUNED:
            gained = _over_full_search(find, R18_C10, _MOMENTUM_256, epochs, sparsity)
            yield f"{epochs} epochs at {sparsity}", abs(gained) < 0.6


@claim(
    38,
    "Above 67.23% the mask search parameters matter more than the sparse training parameters: any 0.0/256 "
    "ticket beats any 0.9/100 ticket.",
    section="4.4",
    rests_on=("table4",),
)
def search_matters_more_than_training(find: Find) -> Checks:
    for sparsity in (89.26, 96.48, 98.85):
        worst_stable = lowest(trained_as(find, STABLE, sparse, sparsity) for sparse in CONFIGURATIONS)
        best_unstable = highest(trained_as(find, UNSTABLE, sparse, sparsity) for sparse in CONFIGURATIONS)
        yield f"{sparsity}", worst_stable - best_unstable > 0


@claim(
    39,
    "At 67.23% the sparse training parameters that are best for the dense network (0.9/100) are best for "
    "both tickets; at higher sparsity not.",
    section="4.4",
    rests_on=("table4",),
)
def best_dense_parameters_lose_their_lead(find: Find) -> Checks:
    def lead(searched: Configuration, sparsity: float) -> Quantity:
        rest = highest(trained_as(find, searched, sparse, sparsity) for sparse in others(UNSTABLE))
        return trained_as(find, searched, UNSTABLE, sparsity) - rest

    for searched in (STABLE, UNSTABLE):
        yield f"{searched} ticket, best at 67.23", lead(searched, 67.23) > 0
        yield f"{searched} ticket, not best at 98.85", lead(searched, 98.85) < 0


def _over_full_search(
    find: Find, pair: Pair, configuration: Configuration, epochs: int, sparsity: float
) -> Quantity:
    """Accuracy after so short a mask search over that after the full one."""
    return short_search(find, pair, configuration, epochs, sparsity) - ticket(
        find, pair, configuration, sparsity
    )
