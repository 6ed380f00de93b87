"""Claims 28 to 32, on how much pretraining makes the dense network stable (Appendix C.3, Section 6.2)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import barrier, budget, drop, first_stable, gain
from tombola.experiments.claims.quantities import highest, lowest, rank_correlation
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    MOMENTUM,
    PAIRS,
    PRUNED,
    R34_TIN,
    RESNETS,
    STABLE,
    VGG_C100,
    Configuration,
)


@claim(
    28,
    "Momentum and a smaller batch both postpone the first stable epoch, momentum far more.",
    section="Appendix C.3",
    rests_on=("table15",),
    ours="that far more means more than four times",
)
def momentum_postpones_stability(find: Find) -> Checks:
    for pair in PAIRS:
        epoch = {c: first_stable(find, pair, c) for c in CONFIGURATIONS}
        for batch_size in (100, 256):
            without_momentum, with_momentum = (epoch[Configuration(mu, batch_size)] for mu in (0.0, 0.9))
            yield f"{pair.name}, momentum at {batch_size}", with_momentum > 4 * without_momentum
        for mu in (0.0, 0.9):
            small, large = (epoch[Configuration(mu, batch_size)] for batch_size in (100, 256))
            yield f"{pair.name}, batch size at {mu}", small > large


@claim(
    29,
    "With momentum, stability comes at the earliest near 10% of training, at the latest near 42%.",
    section="Appendix C.3",
    rests_on=("table15",),
    ours="that near means within 2% of the training",
)
def stability_comes_between_10_and_42_percent(find: Find) -> Checks:
    epochs = [first_stable(find, pair, configuration) for pair in PAIRS for configuration in MOMENTUM]
    for words, epoch, share in (("earliest", lowest(epochs), 0.10), ("latest", highest(epochs), 0.42)):
        yield words, abs(epoch - share * budget(epoch)) <= 0.02 * budget(epoch)


@claim(
    30,
    "VGG16 needs more pretraining than the ResNets in every configuration.",
    section="Appendix C.3",
    rests_on=("table15",),
)
def vgg_needs_more_pretraining(find: Find) -> Checks:
    for configuration in CONFIGURATIONS:
        resnets = highest(first_stable(find, pair, configuration) for pair in RESNETS)
        yield f"{configuration}", first_stable(find, VGG_C100, configuration) > resnets


@claim(
    31,
    "Winning tickets can come from dense networks that are not stable at the rewind point used.",
    section="6.2",
    rests_on=("table15", "table2"),
)
def unstable_networks_can_win(find: Find) -> Checks:
    yield f"first stable epoch of {R34_TIN.name}, {STABLE}", first_stable(find, R34_TIN, STABLE) > 2.0
    best = highest(gain(find, R34_TIN, STABLE, sparsity) for sparsity in PRUNED)
    yield "its best ticket over the dense network", best >= 0


def _better_than_the_barrier(find: Find) -> Checks:
    for pair in PAIRS:
        drops = [drop(find, pair, configuration) for configuration in CONFIGURATIONS]
        epochs = [first_stable(find, pair, configuration) for configuration in CONFIGURATIONS]
        heights = [barrier(find, pair, configuration) for configuration in CONFIGURATIONS]
        by_barrier = rank_correlation(heights, drops)
        yield f"{pair.name}, against the dense barrier", rank_correlation(epochs, drops) >= by_barrier


@claim(
    32,
    "The time a dense network needs to become stable predicts how well its tickets do (better than the "
    "barrier itself).",
    section="6.2",
    rests_on=("table15", "table2", "table11", "table12", "fig1", "fig3", "fig4", "fig5"),
    ours="the limit of 0.8 on the rank correlation",
    also=_better_than_the_barrier,
)
def time_to_stability_predicts_tickets(find: Find) -> Checks:
    for pair in PAIRS:
        epochs = [first_stable(find, pair, configuration) for configuration in CONFIGURATIONS]
        drops = [drop(find, pair, configuration) for configuration in CONFIGURATIONS]
        yield pair.name, rank_correlation(epochs, drops) >= 0.8
