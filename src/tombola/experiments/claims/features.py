"""Claims 40 to 46, on features in untrained tickets (Sections 5.1 and 6.3, Appendix E.1)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import (
    probe,
    probe_of_round,
    random_dense_probe,
    ticket,
    untrained,
)
from tombola.experiments.claims.quantities import Quantity, highest, lowest, spread
from tombola.experiments.paper.settings import (
    HALVES,
    LAST_BLOCK,
    MOMENTUM,
    PAIRS,
    PLAIN,
    PRUNED,
    R18_C10,
    R18_C100,
    R34_TIN,
    RESNETS,
    STABLE,
    UNSTABLE,
    Configuration,
    Pair,
    others,
)

_MIDDLE_BLOCK = 4
_COLUMNS = tuple((sparsity, block) for sparsity in (67.23, 89.26) for block in (_MIDDLE_BLOCK, LAST_BLOCK))
"""Of Table 5: sparsity and block."""
_PROBED = {R34_TIN: (67.23, 89.26), R18_C10: (89.26, 96.48), R18_C100: (89.26, 96.48)}
"""The tabulated sparsities of each pair."""


@claim(
    40,
    "A layerwise-permuted ticket encodes no better features than a random dense network (TinyImageNet).",
    section="5.1",
    rests_on=("table5",),
    ours="that no better means within a point",
)
def permuted_tickets_are_as_good_as_random(find: Find) -> Checks:
    for sparsity, block in _COLUMNS:
        permuted = probe(find, R34_TIN, STABLE, sparsity, block, baseline="permuted")
        random = random_dense_probe(find, sparsity, block)
        yield f"{sparsity}, block {block}", abs(permuted - random) < 1.0


@claim(
    41,
    "On TinyImageNet unpretrained mu=0.9 tickets are worse than random dense; pretrained mu=0.0 tickets "
    "are much better.",
    section="5.1",
    rests_on=("table5",),
    ours="that much better means more than 1.5 times",
)
def features_lie_on_both_sides_of_random(find: Find) -> Checks:
    for sparsity, block in _COLUMNS:
        random = random_dense_probe(find, sparsity, block)
        worse = highest(probe(find, R34_TIN, c, sparsity, block) for c in MOMENTUM)
        yield f"mu=0.9, {sparsity}, block {block}", worse < random
        better = lowest(probe(find, R34_TIN, c.rewound, sparsity, block) for c in PLAIN)
        yield f"mu=0.0 pretrained, {sparsity}, block {block}", better > 1.5 * random


@claim(
    42,
    "In stable tickets deeper blocks carry better features than middle ones; in unstable tickets they do "
    "not.",
    section="5.1, Appendix E.1",
    rests_on=("table5", "table17", "table18"),
    ours="the limit of half a point",
)
def features_deepen_in_stable_tickets(find: Find) -> Checks:
    def deepening(pair: Pair, configuration: Configuration) -> Quantity:
        """Last block over middle block, at the one of both sparsities where that is less."""
        return lowest(
            probe(find, pair, configuration, sparsity)
            - probe(find, pair, configuration, sparsity, _MIDDLE_BLOCK)
            for sparsity in _PROBED[pair]
        )

    for pair in RESNETS:
        for stable in (configuration.rewound for configuration in PLAIN):
            yield f"{pair.name}, {stable}", deepening(pair, stable) > 0.5
        for unstable in MOMENTUM:
            yield f"{pair.name}, {unstable}", deepening(pair, unstable) <= 0.5


@claim(
    43,
    "On CIFAR-10 and CIFAR-100 (not on TinyImageNet) unpretrained 0.0/256 tickets are strong frozen "
    "feature extractors.",
    section="Appendix E.1",
    rests_on=("table17", "table18", "table5"),
    ours="that strong means 30 points above the others",
)
def stable_tickets_extract_features_on_cifar(find: Find) -> Checks:
    def lead(pair: Pair) -> Quantity:
        permuted = probe(find, pair, STABLE, 89.26, baseline="permuted")
        return probe(find, pair, STABLE, 89.26) - permuted

    for pair in (R18_C10, R18_C100):
        yield f"{pair.name}, over the permuted ticket", lead(pair) > 30.0
        rest = highest(probe(find, pair, configuration, 89.26) for configuration in others(STABLE))
        yield f"{pair.name}, over the others", probe(find, pair, STABLE, 89.26) - rest > 30.0
    yield f"{R34_TIN.name}, over the permuted ticket", lead(R34_TIN) <= 30.0


@claim(
    44,
    "Probing recovers more than 15% of the trained dense accuracy on TinyImageNet, independent of late "
    "rewinding.",
    section="6.3",
    rests_on=("table2", "table5"),
)
def probing_recovers_dense_accuracy(find: Find) -> Checks:
    for configuration in (STABLE, STABLE.rewound):
        dense = ticket(find, R34_TIN, configuration, 0.0)
        yield f"{configuration}", probe(find, R34_TIN, configuration, 89.26) > 0.15 * dense


@claim(
    45,
    "Features of stable tickets grow over the first prunings and stay flat for unstable ones.",
    section="Appendix E.1",
    rests_on=("fig20", "fig18", "fig19"),
    ours="the limit of three standard deviations after five prunings",
)
def features_grow_in_stable_tickets(find: Find) -> Checks:
    for pair in RESNETS:
        for configuration in (STABLE, STABLE.rewound, UNSTABLE):
            first, later = (probe_of_round(find, pair, configuration, sparsity) for sparsity in (0.0, 67.23))
            growth, limit = later - first, 3 * spread(first, later)
            grows = growth > limit if configuration != UNSTABLE else growth <= limit
            yield f"{pair.name}, {configuration}, five prunings", grows


@claim(
    46,
    "No ticket of meaningful sparsity predicts better than chance with no training at all.",
    section="5.1",
    rests_on=("untrained-accuracy",),
    ours="chance plus one point as the limit, in both batch-norm readings: statistics of the ticket's start, "
    "and measured on the train images",
)
def untrained_tickets_guess(find: Find) -> Checks:
    # The paper most likely evaluated tickets with the statistics of their start (D3). Those of an
    # initialisation leave a network near chance whatever its mask: by them alone the claim could hardly fail.
    for pair in PAIRS:
        for half in HALVES:
            for configuration in half:
                best = highest(
                    untrained(find, pair, configuration, sparsity, recalibrated=recalibrated)
                    for sparsity in PRUNED
                    for recalibrated in (False, True)
                )
                yield f"{pair.name}, {configuration}", best <= 100 - pair.chance_error + 1.0
