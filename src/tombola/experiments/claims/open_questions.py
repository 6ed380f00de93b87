"""Q1 to Q8: possible answers to what the paper leaves open, or says without printing a number.

Each is judged like a claim, on studies of our own. The answers to one question may all fail.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from tombola.experiments.claims.claim import Checks, Find, question
from tombola.experiments.claims.lookups import ticket
from tombola.experiments.claims.quantities import Quantity, highest
from tombola.experiments.paper.open_rows import AS_USUAL, OTHER_HEADS
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    LAST_BLOCK,
    OPEN,
    PAIRS,
    PRETRAINED_PERCENT,
    PRUNED,
    R18_C10,
    STABLE,
    Configuration,
    Pair,
    key_of,
)
from tombola.measures.limits import STABLE_BELOW

_MINIMAL = 2.0


@question(
    1,
    "Basins merge: what is left of the trained dense network in the subspace of a ticket lies in the basin "
    "of that ticket's training.",
    section="6.1",
    rests_on=("distant-rounds", "table2", "table11", "table12"),
    ours="projection on the ticket's mask with batch norm measured anew; its error nearer to the ticket's "
    "than to chance, and less than 2 points over the line from the one to the other",
)
def basins_merge(find: Find) -> Checks:
    # From a plateau at chance there is no barrier on the way down either: the error counts, too.
    for pair in PAIRS:
        for sparsity in PRUNED:
            error = _between(find, "projection_error", pair, 0.0, sparsity)
            of_ticket = -1.0 * ticket(find, pair, STABLE, sparsity) - -100.0
            to_chance = -1.0 * error - -pair.chance_error
            yield f"error, {pair.name}, {sparsity}", error - of_ticket < to_chance
            over = _between(find, "projection_excess", pair, 0.0, sparsity)
            yield f"line, {pair.name}, {sparsity}", over < STABLE_BELOW


@question(
    2,
    "Basins vanish: in the subspace of a ticket the trained dense network classifies no better than chance.",
    section="6.1",
    rests_on=("distant-rounds",),
    ours="the same projection; chance plus one point as the limit",
)
def basins_vanish(find: Find) -> Checks:
    for pair in PAIRS:
        for sparsity in PRUNED:
            error = _between(find, "projection_error", pair, 0.0, sparsity)
            yield f"{pair.name}, {sparsity}", error >= pair.chance_error - 1.0


@question(
    3,
    "The basin that the tickets of 0.0/256 have reached lasts: trainings of distant rounds are joined too.",
    section="6.1",
    rests_on=("distant-rounds",),
    ours="all pairs of tabulated tickets; less than 2 points over the line between the end errors",
)
def the_late_basin_lasts(find: Find) -> Checks:
    for pair in PAIRS:
        for first, second in itertools.combinations(PRUNED, 2):
            over = _between(find, "excess_to_round", pair, first, second)
            yield f"{pair.name}, {first} and {second}", over < STABLE_BELOW


@question(
    4,
    "Data order separates dense trainings more than augmentation does.",
    section="6.4",
    rests_on=("noise-causes",),
    ours="barriers between copies that differ in one of the two alone",
)
def order_separates_more_than_augmentation(find: Find) -> Checks:
    for configuration in CONFIGURATIONS:
        order, augmentation = (_by_cause(find, configuration, cause) for cause in ("order", "augmentation"))
        yield f"{configuration}", order > augmentation


@question(
    5,
    "Data order alone, and augmentation alone, make dense trainings as unstable as both together.",
    section="6.4",
    rests_on=("noise-causes",),
    ours="that as unstable means at least nine tenths of the barrier",
)
def either_cause_is_enough(find: Find) -> Checks:
    for configuration in CONFIGURATIONS:
        both = _by_cause(find, configuration, "noise")
        for cause in ("order", "augmentation"):
            yield f"{configuration}, {cause}", _by_cause(find, configuration, cause) >= 0.9 * both


@question(
    6,
    "Stability to SGD noise rises monotonically with the length of pretraining.",
    section="Appendix C.3",
    rests_on=("stability-by-length",),
    ours="seven lengths up to 40% of the budget; a longer one has no higher barrier, or one below 2 points",
)
def stability_is_monotonic(find: Find) -> Checks:
    for configuration in OPEN:
        for shorter, longer in itertools.pairwise(PRETRAINED_PERCENT):
            limit = highest((_pretrained(find, configuration, shorter), Quantity(STABLE_BELOW)))
            words = f"{configuration}, {longer}% after {shorter}%"
            yield words, _pretrained(find, configuration, longer) <= limit


@question(
    7,
    "Other hyperparameters of a probe have a minimal impact on its accuracy.",
    section="5.1",
    rests_on=("probe-hyperparameters",),
    ours="six changes, one at a time; that minimal means within 2 points",
)
def probes_hardly_depend_on_their_recipe(find: Find) -> Checks:
    for configuration in CONFIGURATIONS:
        usual = _probe_by(find, configuration, AS_USUAL)
        for name in OTHER_HEADS:
            other = _probe_by(find, configuration, name)
            yield f"{configuration}, {name}", abs(other - usual) <= _MINIMAL


@question(
    8,
    "Other hyperparameters of a probe leave the order of the configurations as it is.",
    section="5.1",
    rests_on=("probe-hyperparameters",),
    ours="the same changes; 0.0/256 stays above the three others",
)
def probes_keep_their_order(find: Find) -> Checks:
    rest = [configuration for configuration in CONFIGURATIONS if configuration != STABLE]
    for name in OTHER_HEADS:
        others = highest(_probe_by(find, configuration, name) for configuration in rest)
        yield name, _probe_by(find, STABLE, name) > others


def _between(find: Find, metric: str, pair: Pair, first: float, second: float) -> Quantity:
    """A number of the trainings of 0.0/256 at two sparsities."""
    return find(key_of(metric, pair, STABLE, first, more=(("to_sparsity", second),)))


def _by_cause(find: Find, configuration: Configuration, cause: str) -> Quantity:
    key = key_of("barrier", R18_C10, configuration, 0.0)
    return find(replace(key, more=(("differ_in", cause),)))


def _pretrained(find: Find, configuration: Configuration, percent: int) -> Quantity:
    key = key_of("barrier", R18_C10, configuration, 0.0, pretrained=None)
    return find(replace(key, more=(("pretrained_percent", percent),)))


def _probe_by(find: Find, configuration: Configuration, head: str) -> Quantity:
    key = key_of("probe_accuracy", R18_C10, configuration, 89.26, block=LAST_BLOCK)
    return find(replace(key, more=(("head", head),)))
