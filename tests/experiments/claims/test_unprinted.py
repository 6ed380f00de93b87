"""Claims over figures that print no numbers, each on made-up cells of which a few speak against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tombola.experiments.claims.all_claims import claim_named
from tombola.experiments.claims.claim import judge
from tombola.experiments.claims.lookups import (
    barrier,
    barrier_to_next,
    dense_run,
    few_shot_of_round,
    late_forgetting,
    path_error,
    probe_of_round,
    ticket_convergence,
    ticket_of_round,
    untrained,
    without,
)
from tombola.experiments.claims.quantities import Quantity
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    PAIRS,
    R18_C10,
    R18_C100,
    R34_TIN,
    ROUNDS,
    STABLE,
    UNSTABLE,
    VGG_C100,
    Configuration,
    Pair,
)
from tombola.table.key import Key, sparsity_after
from tombola.table.number import Cell, measured

PLAIN_100, MOMENTUM_256 = Configuration(0.0, 100), Configuration(0.9, 256)
SPARSITY = ROUNDS[5]


class Change:
    """Collects the keys that the functions of claims ask for, and gives each of them one value."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def find(self, key: Key) -> Quantity:
        self.keys.append(key)
        return Quantity(0.0)


def changed(cells: Mapping[Key, Cell], change: Change, *values: float) -> dict[Key, Cell]:
    """The cells with other runs at the collected keys."""
    return {**cells, **{key: measured(key, values, epochs=200) for key in change.keys}}


def verdict(name: str, cells: Mapping[Key, Cell]) -> tuple[str, list[str]]:
    """The status of a claim and the words of what speaks against it."""
    found = judge(claim_named(name), cells)
    return found.status, [words for words, comparison in found.comparisons if not comparison.holds]


@pytest.fixture
def change() -> Change:
    return Change()


def test_c1_fails_for_a_configuration_with_a_barrier_of_two_points(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    barrier(change.find, R34_TIN, PLAIN_100)
    assert verdict("C1", changed(confirming, change, 2.0)) == ("partly", ["0.0/100"])
    assert verdict("C1", changed(confirming, change, 2.01)) == ("holds", [])


def test_c2_fails_where_pretraining_helps_one_configuration_with_momentum_most(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    barrier(change.find, R34_TIN, MOMENTUM_256.rewound)
    # From 40 to 1: more than any without momentum.
    assert verdict("C2", changed(confirming, change, 1.0)) == (
        "fails",
        ["relative drops", "only slightly for mu=0.9"],
    )
    # From 40 to 31: 22.5%.
    assert verdict("C2", changed(confirming, change, 31.0)) == ("holds", [])


def test_c2_holds_partly_where_pretraining_does_not_help_one_without_momentum(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    barrier(change.find, R34_TIN, STABLE.rewound)
    assert verdict("C2", changed(confirming, change, 10.0)) == ("partly", ["relative drops"])


@pytest.mark.parametrize("rival", [c for c in CONFIGURATIONS if c != STABLE])
def test_c3_fails_with_any_rival_as_low(
    rival: Configuration, confirming: Mapping[Key, Cell], change: Change
) -> None:
    barrier(change.find, R34_TIN, rival)
    assert verdict("C3", changed(confirming, change, 10.0))[0] == "fails"
    assert verdict("C3", changed(confirming, change, 10.1))[0] == "holds"


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("configuration", "value"), [(PLAIN_100, 0.3), (STABLE, 0.3), (MOMENTUM_256, 0.1)])
def test_c8_is_decided_by_every_configuration_of_every_pair(
    pair: Pair, configuration: Configuration, value: float, confirming: Mapping[Key, Cell], change: Change
) -> None:
    late_forgetting(change.find, pair, configuration)
    assert verdict("C8", changed(confirming, change, value)) == ("partly", [pair.name])


def test_c9_is_decided_by_accuracies_and_barriers_of_both_ends(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    without(change.find, "val_accuracy", "easiest_removed", 20)
    assert verdict("C9", changed(confirming, change, 95.6)) == ("partly", ["accuracy, easiest 20% removed"])
    assert verdict("C9", changed(confirming, change, 94.4)) == ("partly", ["accuracy, easiest 20% removed"])
    change.keys.clear()
    without(change.find, "barrier", "easiest_removed", 10)
    assert verdict("C9", changed(confirming, change, 19.0)) == ("holds", [])
    assert verdict("C9", changed(confirming, change, 18.9)) == ("partly", ["barrier, easiest 10% removed"])
    change.keys.clear()
    without(change.find, "barrier", "hardest_removed", 30)
    assert verdict("C9", changed(confirming, change, 20.0)) == ("partly", ["barrier, hardest 30% removed"])


def test_c10_is_not_confirmed_by_a_tie(confirming: Mapping[Key, Cell], change: Change) -> None:
    without(change.find, "barrier_reached", "easiest_removed", 30)
    assert verdict("C10", changed(confirming, change, 0.5)) == ("partly", ["30% removed"])


def test_c11_is_about_one_pair_only(confirming: Mapping[Key, Cell], change: Change) -> None:
    path_error(change.find, R18_C10, STABLE)
    assert verdict("C11", changed(confirming, change, 90.0)) == ("partly", ["R18/C10, 0.0/256"])
    change.keys.clear()
    path_error(change.find, VGG_C100, UNSTABLE)
    assert verdict("C11", changed(confirming, change, 99.0)) == ("holds", [])
    assert verdict("C11", changed(confirming, change, 99.1)) == (
        "partly",
        ["VGG16/C100, all configurations"],
    )


def test_c16_counts_the_failures_of_all_rounds(confirming: Mapping[Key, Cell], change: Change) -> None:
    ticket_of_round(change.find, R34_TIN, MOMENTUM_256.rewound, ROUNDS[7])
    [key] = change.keys
    cells = {**confirming, key: replace(confirming[key], failed=True)}
    assert verdict("C16", cells) == ("partly", ["all rounds, 0.9/256 pretrained"])


@pytest.mark.parametrize(("sparsity", "configuration"), [(67.23, STABLE), (89.26, PLAIN_100.rewound)])
def test_c20_compares_tickets_with_their_own_dense_network(
    sparsity: float, configuration: Configuration, confirming: Mapping[Key, Cell], change: Change
) -> None:
    barrier(change.find, R34_TIN, configuration, sparsity)
    words = f"{configuration} at {sparsity}"
    # Dense barriers are 10, of which half is asked, and 3.
    limit = 5.0 if configuration == STABLE else 3.0
    assert verdict("C20", changed(confirming, change, limit)) == ("partly", [words])
    assert verdict("C20", changed(confirming, change, limit - 0.1)) == ("holds", [])


def test_c21_needs_a_round_from_which_all_barriers_stay_small(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    vanishes = "R18/C10, sparsity at which it vanishes"
    barrier_to_next(change.find, R18_C10, STABLE, ROUNDS[19])
    assert verdict("C21", changed(confirming, change, 2.0)) == ("partly", [vanishes])  # never
    assert verdict("C21", changed(confirming, change, 1.9)) == ("holds", [])
    change.keys.clear()
    for sparsity in ROUNDS[:-1]:
        barrier_to_next(change.find, R18_C10, STABLE, sparsity)
    assert verdict("C21", changed(confirming, change, 0.5)) == ("partly", [vanishes])  # all along
    assert verdict("C21", changed(confirming, change, 20.0)) == ("partly", [vanishes])  # never


def test_c21_reports_the_sparsity_after_the_last_large_barrier(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    def onset() -> float:
        [comparison] = [
            comparison
            for words, comparison in judge(claim_named("C21"), changed(confirming, change, 3.0)).comparisons
            if words.startswith("R34/TIN")
        ]
        return comparison.left.value

    assert onset() == 67.23
    barrier_to_next(change.find, R34_TIN, STABLE, sparsity_after(8))
    assert onset() == sparsity_after(9)
    barrier_to_next(change.find, R34_TIN, STABLE, sparsity_after(6))
    assert onset() == sparsity_after(9)


def test_c21_says_that_onsets_differ(confirming: Mapping[Key, Cell], change: Change) -> None:
    barrier_to_next(change.find, VGG_C100, STABLE, ROUNDS[4])  # large there too: all set in after five
    assert verdict("C21", changed(confirming, change, 20.0)) == ("partly", ["it differs"])


@pytest.mark.parametrize("batch_size", [1024, 2048])
def test_c25_asks_for_less_than_five_points(
    batch_size: int, confirming: Mapping[Key, Cell], change: Change
) -> None:
    configuration = Configuration(0.9, batch_size, pretrained=True)
    barrier(change.find, R18_C10, configuration)
    assert verdict("C25", changed(confirming, change, 5.0)) == ("partly", [f"{configuration}"])


def test_c32_compares_with_the_barrier_once_that_is_there(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    # The drops of VGG16 rank 0.0/256, 0.9/256, 0.0/100, 0.9/100; with its barriers in that order the barrier
    # correlates perfectly, and the first stable epoch by 0.8.
    cells = dict(confirming)
    for height, configuration in enumerate((STABLE, MOMENTUM_256, PLAIN_100, UNSTABLE)):
        change.keys.clear()
        barrier(change.find, VGG_C100, configuration)
        cells = changed(cells, change, float(height))
    assert verdict("C32", cells) == ("partly", ["VGG16/C100, against the dense barrier"])


def test_c45_measures_growth_by_the_spread(confirming: Mapping[Key, Cell], change: Change) -> None:
    probe_of_round(change.find, R18_C100, UNSTABLE, SPARSITY)
    # Round 0 has 20 with a spread of 0.01.
    assert verdict("C45", changed(confirming, change, 20.5, 20.51, 20.52)) == (
        "partly",
        ["R18/C100, 0.9/100, five prunings"],
    )
    # So wide a spread leaves it open whether they grow.
    assert verdict("C45", changed(confirming, change, 19.0, 20.5, 22.0)) == ("undecided", [])
    # A single run has no spread to measure by.
    assert verdict("C45", changed(confirming, change, 20.5))[0] == "not computable yet"


@pytest.mark.parametrize(("pair", "chance"), [(R18_C10, 10.0), (VGG_C100, 1.0), (R34_TIN, 0.5)])
def test_c46_allows_a_point_above_chance(
    pair: Pair, chance: float, confirming: Mapping[Key, Cell], change: Change
) -> None:
    words = [f"{pair.name}, 0.0/256 pretrained"]
    for recalibrated in (False, True):  # with the statistics of its start, or of the train images
        change.keys.clear()
        untrained(change.find, pair, STABLE.rewound, 96.48, recalibrated=recalibrated)
        assert verdict("C46", changed(confirming, change, chance + 1.0)) == ("holds", [])
        assert verdict("C46", changed(confirming, change, chance + 1.1)) == ("partly", words)


def test_c46_is_not_decided_by_one_reading_of_batch_norm(confirming: Mapping[Key, Cell]) -> None:
    def cells(metric: str, above: float) -> dict[Key, Cell]:
        return {
            key: replace(cell, mean=cell.mean + above) if key.metric == metric else cell
            for key, cell in confirming.items()
        }

    first, second = "untrained_accuracy", "recalibrated_untrained_accuracy"
    # At chance with the statistics of the start, as an initialisation's are, and above it with measured ones.
    assert judge(claim_named("C46"), cells(second, 5.0)).status == "fails"
    assert judge(claim_named("C46"), cells(first, 5.0)).status == "fails"
    of_first = {key: cell for key, cell in confirming.items() if key.metric != second}
    assert judge(claim_named("C46"), of_first).status == "not computable yet"


def test_c57_follows_features_over_rounds_once_they_are_there(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    few_shot_of_round(change.find, R34_TIN, STABLE, SPARSITY)
    assert verdict("C57", changed(confirming, change, 20.0)) == (
        "partly",
        ["R34/TIN, 0.0/256, five prunings"],
    )
    cells = dict(confirming)
    for sparsity in ROUNDS:  # falls while the probe rises
        change.keys.clear()
        few_shot_of_round(change.find, R34_TIN, STABLE.rewound, sparsity)
        cells = changed(cells, change, 50.0 - sparsity / 5)
    assert verdict("C57", cells)[1] == [
        "R34/TIN, 0.0/256 pretrained, five prunings",
        "R34/TIN, 0.0/256 pretrained, over rounds",
    ]


def test_c60_is_about_each_half_of_each_pair(confirming: Mapping[Key, Cell], change: Change) -> None:
    ticket_convergence(change.find, VGG_C100, MOMENTUM_256.rewound, 89.26)
    assert verdict("C60", changed(confirming, change, 0.95)) == ("partly", ["VGG16/C100, 0.0/256 pretrained"])


def test_c62_is_about_both_measures_of_each_pair_and_batch_size(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    dense_run(change.find, "hessian_trace", R18_C10, MOMENTUM_256)
    against = ["R18/C10, trace at batch size 256"]
    assert verdict("C62", changed(confirming, change, 0.5)) == ("partly", against)
    dense_run(change.find, "adaptive_sharpness", R18_C10, MOMENTUM_256)
    against += ["R18/C10, sharpness at batch size 256"]
    assert verdict("C62", changed(confirming, change, 0.5)) == ("partly", against)


def test_c63_fails_where_momentum_leaves_more_small_margins(
    confirming: Mapping[Key, Cell], change: Change
) -> None:
    dense_run(change.find, "small_margin_percent", VGG_C100, UNSTABLE)
    assert verdict("C63", changed(confirming, change, 9.5)) == ("partly", ["VGG16/C100 at batch size 100"])
