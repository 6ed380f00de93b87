"""Claims 47 to 52, on the transfer of frozen tickets of 89.26% (Section 5.1, Appendix E.2)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import frozen_dense, retrained, transferred
from tombola.experiments.claims.quantities import Quantity, highest, lowest, middle
from tombola.experiments.paper.settings import (
    HALVES,
    MOMENTUM,
    PLAIN,
    R18_C10,
    R18_C100,
    R34_TIN,
    STABLE,
    UNSTABLE,
    Pair,
)

_TARGETS = {
    R18_C10: ("MNIST", "CIFAR-100", "TinyImageNet", "EuroSAT"),
    R18_C100: ("MNIST", "CIFAR-10", "TinyImageNet", "EuroSAT"),
    R34_TIN: ("MNIST", "CIFAR-10", "CIFAR-100", "EuroSAT"),
}
_DOWNWARDS = (
    *((R18_C100, target) for target in ("MNIST", "EuroSAT", "CIFAR-10")),
    *((R34_TIN, target) for target in ("MNIST", "CIFAR-10", "CIFAR-100", "EuroSAT")),
)
"""From a more complex source to a simpler target: MNIST, EuroSAT and CIFAR-10, CIFAR-100, TinyImageNet."""
_FROZEN = (STABLE, UNSTABLE)
"""The configurations whose frozen dense networks are tabulated."""


@claim(
    47,
    "0.0/256 tickets transfer better than mu=0.9 tickets to every target, with and without pretraining.",
    section="5.1, Appendix E.2",
    rests_on=("table6", "table19", "table20"),
)
def stable_tickets_transfer_better(find: Find) -> Checks:
    for pair, targets in _TARGETS.items():
        for target in targets:
            unstable = highest(transferred(find, pair, c, target) for c in MOMENTUM)
            yield f"{pair.name} to {target}", transferred(find, pair, STABLE, target) > unstable
            unstable = highest(transferred(find, pair, c.rewound, target) for c in MOMENTUM)
            rewound = transferred(find, pair, STABLE.rewound, target)
            yield f"{pair.name} to {target}, pretrained", rewound > unstable


@claim(
    48,
    "From CIFAR-10, stable tickets beat the frozen trained dense network on every target.",
    section="5.1",
    rests_on=("table6",),
)
def stable_tickets_beat_frozen_dense_networks(find: Find) -> Checks:
    for configuration in (STABLE, *(c.rewound for c in PLAIN)):
        for target in _TARGETS[R18_C10]:
            dense = _best_frozen_dense(find, R18_C10, target)
            yield f"{configuration} to {target}", transferred(find, R18_C10, configuration, target) > dense


@claim(
    49,
    "The most unstable tickets beat the frozen dense network of their own configuration only on some "
    "targets.",
    section="5.1",
    rests_on=("table6",),
)
def unstable_tickets_beat_it_sometimes(find: Find) -> Checks:
    leads = [
        transferred(find, R18_C10, UNSTABLE, target) - frozen_dense(find, R18_C10, UNSTABLE, target)
        for target in _TARGETS[R18_C10]
    ]
    yield "its best target", highest(leads) > 0
    yield "its worst target", lowest(leads) < 0


@claim(
    50,
    "No frozen transfer reaches the retrained dense network.",
    section="5.1",
    rests_on=("table6",),
)
def retraining_is_out_of_reach(find: Find) -> Checks:
    for target in _TARGETS[R18_C10]:
        best = highest([_best_ticket(find, R18_C10, target), _best_frozen_dense(find, R18_C10, target)])
        yield target, best < retrained(find, target)


@claim(
    51,
    "Going from a more complex source to a simpler target, the frozen trained dense network mostly beats "
    "the best ticket.",
    section="Appendix E.2",
    rests_on=("table19", "table20"),
)
def dense_networks_transfer_better_downwards(find: Find) -> Checks:
    leads = [
        _best_ticket(find, pair, target) - _best_frozen_dense(find, pair, target)
        for pair, target in _DOWNWARDS
    ]
    yield "best ticket over best dense network, the middle one of seven", middle(leads) < 0


@claim(
    52,
    "CIFAR-100 tickets transfer better than TinyImageNet tickets.",
    section="Appendix E.2",
    rests_on=("table19", "table20"),
)
def cifar_tickets_transfer_better(find: Find) -> Checks:
    for target in ("MNIST", "CIFAR-10", "EuroSAT"):
        yield target, _best_ticket(find, R18_C100, target) > _best_ticket(find, R34_TIN, target)


def _best_ticket(find: Find, pair: Pair, target: str) -> Quantity:
    return highest(transferred(find, pair, c, target) for half in HALVES for c in half)


def _best_frozen_dense(find: Find, pair: Pair, target: str) -> Quantity:
    return highest(frozen_dense(find, pair, configuration, target) for configuration in _FROZEN)
