"""Claims 12 to 21, on tickets against sparsity (Section 4.2, Appendices B and C)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import barrier, barrier_to_next, drop, gain, ticket, ticket_of_round
from tombola.experiments.claims.quantities import Comparison, Quantity, derived, highest, lowest, starred
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    MOMENTUM,
    PAIRS,
    PLAIN,
    PRUNED,
    R34_TIN,
    RESNETS,
    REWOUND,
    ROUNDS,
    STABLE,
    TABULATED,
    UNSTABLE,
    VGG_C100,
    Configuration,
    Pair,
    others,
)


@claim(
    12,
    "Winning tickets exist without pretraining for mu=0.0/BS=256, and for no other unpretrained "
    "configuration.",
    section="4.2",
    rests_on=("table2", "table11", "table12"),
)
def only_the_stable_configuration_wins(find: Find) -> Checks:
    for pair in PAIRS:
        yield f"{pair.name}, {STABLE}", _best_gain(find, pair, STABLE) >= 0
        for configuration in others(STABLE):
            yield f"{pair.name}, {configuration}", _best_gain(find, pair, configuration) < 0


@claim(
    13,
    "Beyond 73.79% sparsity (6 prunings) 0.0/256 without pretraining beats every other unpretrained "
    "configuration on TinyImageNet.",
    section="4.2",
    rests_on=("table2",),
    ours="the limits of 2 and 4 points",
)
def stable_tickets_lead_beyond_six_prunings(find: Find) -> Checks:
    def lead(sparsity: float) -> Quantity:
        return _lead(find, R34_TIN, sparsity)

    yield "not yet at 67.23", lead(67.23) < 0
    yield "89.26", lead(89.26) > 2.0
    yield "96.48", lead(96.48) > 4.0
    yield "98.85", lead(98.85) > 4.0


@claim(
    14,
    "The crossing point, where 0.0/256 overtakes all other unpretrained configurations, lies at a higher "
    "sparsity for VGG16 than for the ResNets.",
    section="Appendix C",
    rests_on=("table12", "table2", "table11"),
)
def vgg_crosses_later(find: Find) -> Checks:
    def crossing(pair: Pair) -> Quantity:
        leads = {sparsity: _lead(find, pair, sparsity) for sparsity in PRUNED}
        ahead = [sparsity for sparsity, lead in leads.items() if lead.value > 0]
        return derived(min(ahead, default=math.inf), leads.values())  # it may never overtake them

    for pair in RESNETS:
        yield f"crossing of {VGG_C100.name} after {pair.name}", crossing(VGG_C100) > crossing(pair)


@claim(
    15,
    "Less unstable configurations lose less accuracy through pruning.",
    section="4.2",
    rests_on=("table2", "table11", "table12"),
)
def stable_tickets_lose_least(find: Find) -> Checks:
    for pair in PAIRS:
        least = lowest(drop(find, pair, configuration) for configuration in others(STABLE))
        yield f"{pair.name}, {STABLE} loses least", drop(find, pair, STABLE) < least
        most = highest(drop(find, pair, configuration) for configuration in others(UNSTABLE))
        yield f"{pair.name}, {UNSTABLE} loses most", drop(find, pair, UNSTABLE) > most


def _failures_of_rounds(find: Find) -> Checks:
    for configuration in (*CONFIGURATIONS, *REWOUND):
        tickets = [ticket_of_round(find, R34_TIN, configuration, sparsity) for sparsity in ROUNDS]
        yield f"all rounds, {configuration}", _failing_as_claimed(configuration, tickets)


@claim(
    16,
    "On TinyImageNet only mu=0.9/BS=100 has runs that stay at chance, with and without pretraining.",
    section="4.2",
    rests_on=("table2", "fig16"),
    also=_failures_of_rounds,
)
def only_the_unstable_configuration_fails(find: Find) -> Checks:
    for configuration in (*CONFIGURATIONS, *REWOUND):
        tickets = [ticket(find, R34_TIN, configuration, sparsity) for sparsity in TABULATED]
        yield f"{configuration}", _failing_as_claimed(configuration, tickets)


@claim(
    17,
    "At extreme sparsity (98.85%) 0.0/256 without pretraining beats late-rewound tickets of the unstable "
    "mu=0.9 configurations.",
    section="1.1",
    rests_on=("table2", "table11", "table12"),
)
def stable_tickets_beat_rewound_unstable_ones(find: Find) -> Checks:
    for pair in PAIRS:
        rewound = highest(ticket(find, pair, configuration.rewound, 98.85) for configuration in MOMENTUM)
        yield pair.name, ticket(find, pair, STABLE, 98.85) > rewound


@claim(
    18,
    "At higher sparsities the stable tickets beat all other tested configurations, even pretrained ones.",
    section="7",
    rests_on=("table2", "table11", "table12"),
)
def stable_tickets_beat_all_rewound_ones(find: Find) -> Checks:
    for pair in PAIRS:
        rewound = highest(ticket(find, pair, configuration, 98.85) for configuration in REWOUND)
        yield pair.name, ticket(find, pair, STABLE, 98.85) > rewound


@claim(
    19,
    "With late rewinding, winning tickets appear for mu=0.0.",
    section="4.2",
    rests_on=("table2", "table11", "table12"),
)
def rewound_tickets_without_momentum_win(find: Find) -> Checks:
    for pair in PAIRS:
        for configuration in PLAIN:
            rewound = configuration.rewound
            yield f"{pair.name}, {rewound}", _best_gain(find, pair, rewound) >= 0


@claim(
    20,
    "Unpretrained 0.0/256 tickets at 67.23% and 89.26% have a clearly lower barrier than the dense "
    "network; the same is true of pretrained mu=0.0 tickets.",
    section="Appendix B.1",
    rests_on=("fig1", "fig8", "fig9"),
    ours="that clearly lower means less than half",
)
def tickets_are_more_stable_than_dense_networks(find: Find) -> Checks:
    for sparsity in (67.23, 89.26):
        dense = barrier(find, R34_TIN, STABLE)
        yield f"{STABLE} at {sparsity}", barrier(find, R34_TIN, STABLE, sparsity) < 0.5 * dense
        for rewound in (configuration.rewound for configuration in PLAIN):
            dense = barrier(find, R34_TIN, rewound)
            yield f"{rewound} at {sparsity}", barrier(find, R34_TIN, rewound, sparsity) < dense


@claim(
    21,
    "For 0.0/256 without pretraining, the barrier between the trained tickets of rounds n and n+1 "
    "vanishes from some round on, at a sparsity that differs by network and dataset.",
    section="6.1, Appendix B.2",
    rests_on=("fig2", "fig10", "fig11", "fig12"),
)
def consecutive_tickets_become_connected(find: Find) -> Checks:
    def onset(pair: Pair) -> Quantity:
        """The sparsity from which all barriers stay below 2; 0 if that never sets in or held all along."""
        heights = {sparsity: barrier_to_next(find, pair, STABLE, sparsity) for sparsity in ROUNDS[:-1]}
        apart = [sparsity for sparsity, height in heights.items() if height.value >= 2.0]
        connected = [sparsity for sparsity in heights if sparsity > max(apart, default=math.inf)]
        return derived(min(connected, default=0.0), heights.values())

    for pair in PAIRS:
        yield f"{pair.name}, sparsity at which it vanishes", onset(pair) > 0
    onsets = [onset(pair) for pair in PAIRS]
    yield "it differs", highest(onsets) > lowest(onsets)


def _best_gain(find: Find, pair: Pair, configuration: Configuration) -> Quantity:
    return highest(gain(find, pair, configuration, sparsity) for sparsity in PRUNED)


def _lead(find: Find, pair: Pair, sparsity: float) -> Quantity:
    """The stable configuration's accuracy over the best of the three others."""
    rest = highest(ticket(find, pair, configuration, sparsity) for configuration in others(STABLE))
    return ticket(find, pair, STABLE, sparsity) - rest


def _failing_as_claimed(configuration: Configuration, tickets: Sequence[Quantity]) -> Comparison:
    """Some of the tickets have failed runs if it is the unstable configuration, and none if it is not."""
    unstable = configuration in (UNSTABLE, UNSTABLE.rewound)
    return starred(tickets) > 0 if unstable else starred(tickets) <= 0
