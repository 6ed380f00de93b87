"""Q1 to Q11: possible answers to what the paper leaves open, or says without printing a number.

Each is judged like a claim, on studies of our own. The answers to one question may all fail.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from tombola.experiments.claims.claim import Checks, Find, question
from tombola.experiments.claims.lookups import first_stable, gain, ticket
from tombola.experiments.claims.quantities import Quantity, highest, rank_correlation
from tombola.experiments.paper.open_rows import AS_USUAL, OTHER_HEADS
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    EIGHT,
    EQUAL_NOISE,
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
_ALIKE = 0.5
_GAINS = (67.23, 89.26)
_BEYOND_CHANCE = 0.738


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


@question(
    9,
    "Configurations that share lr / (batch (1 - momentum)) have tickets that gain alike, whatever momentum "
    "and batch size make of it.",
    section="6.2",
    rests_on=("equal-noise",),
    ours="three noises of three configurations each; gains over their own dense networks at 67.23 and "
    "89.26%; that alike means within half a point of the first of the three",
)
def equal_noise_gains_alike(find: Find) -> Checks:
    for family in EQUAL_NOISE:
        for sparsity in _GAINS:
            first_gain = gain(find, R18_C10, family[0], sparsity)
            for other in family[1:]:
                apart = abs(gain(find, R18_C10, other, sparsity) - first_gain)
                yield f"{other} beside {family[0]}, {sparsity}", apart <= _ALIKE


@question(
    10,
    "Tickets gain more the smaller lr / (batch (1 - momentum)) is, whatever momentum and batch size make of "
    "it.",
    section="6.2",
    rests_on=("equal-noise",),
    ours="the same nine configurations; each of the smallest noise above each of the largest, at 89.26%",
)
def less_noise_gains_more(find: Find) -> Checks:
    for quiet in EQUAL_NOISE[0]:
        for loud in EQUAL_NOISE[-1]:
            gains = [gain(find, R18_C10, one, _GAINS[-1]) for one in (quiet, loud)]
            yield f"{quiet} above {loud}", gains[0] > gains[1]


@question(
    11,
    "What is measured in the first epochs of a dense training predicts by how much its tickets gain.",
    section="6.2",
    rests_on=("predictors",),
    ours="over the eight configurations at 89.26%, by each of the recipe's lr / (batch (1 - momentum)), the "
    "gradient noise scale, the adaptive sharpness and the mask distance of epoch 5, the barrier to the first "
    "round and the first stable epoch; that it predicts means a rank correlation of 0.738 or more in "
    "absolute value, as less than 5% of all orders of eight have",
)
def early_measures_predict_gains(find: Find) -> Checks:
    gains = [gain(find, R18_C10, one, _GAINS[-1]) for one in EIGHT]
    noises = [1 / (one.batch_size * round(1 - one.momentum, 12)) for one in EIGHT]
    yield "the recipe's noise", abs(rank_correlation(noises, gains)) >= _BEYOND_CHANCE
    for metric in ("gradient_noise_scale", "early_sharpness", "mask_distance", "barrier_to_next"):
        early = [find(key_of(metric, R18_C10, one, 0.0)) for one in EIGHT]
        yield metric.replace("_", " "), abs(rank_correlation(early, gains)) >= _BEYOND_CHANCE
    stable = [first_stable(find, R18_C10, one) for one in EIGHT]
    yield "first stable epoch", abs(rank_correlation(stable, gains)) >= _BEYOND_CHANCE


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
