"""Claims 1 to 11, on dense training: instability, accuracy, forgetting, convergence (4.1, Appendix A)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import (
    barrier,
    dense_run,
    late_forgetting,
    path_error,
    ticket,
    without,
)
from tombola.experiments.claims.quantities import Quantity, average, highest, lowest
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    MOMENTUM,
    PAIRS,
    PLAIN,
    R18_C10,
    R34_TIN,
    STABLE,
    Configuration,
    others,
)

_PLAIN_100, _PLAIN_256 = PLAIN
_MOMENTUM_100, _MOMENTUM_256 = MOMENTUM
_REMOVED = (10, 20, 30)
"""Percent of the images left out; the paper does not print them (reading E3)."""


@claim(
    1,
    "A dense ResNet-34 on TinyImageNet trained from a random initialisation is unstable to SGD noise "
    "under all four configurations.",
    section="4.1",
    rests_on=("fig1",),
)
def dense_networks_are_unstable(find: Find) -> Checks:
    for configuration in CONFIGURATIONS:
        yield f"{configuration}", barrier(find, R34_TIN, configuration) > 2.0


@claim(
    2,
    "Two epochs of pretraining lower the barrier much for mu=0.0 and only slightly for mu=0.9.",
    section="4.1",
    rests_on=("fig1",),
    ours="that slightly means by less than a quarter",
)
def pretraining_helps_without_momentum(find: Find) -> Checks:
    def relative_drop(configuration: Configuration) -> Quantity:
        before = barrier(find, R34_TIN, configuration)
        return (before - barrier(find, R34_TIN, configuration.rewound)) / before

    with_momentum = highest(relative_drop(configuration) for configuration in MOMENTUM)
    yield "relative drops", lowest(relative_drop(configuration) for configuration in PLAIN) > with_momentum
    yield "only slightly for mu=0.9", with_momentum < 0.25


@claim(
    3,
    "Among runs from random initialisation, mu=0.0/BS=256 has the lowest barrier.",
    section="4.2",
    rests_on=("fig1",),
)
def stable_configuration_has_the_lowest_barrier(find: Find) -> Checks:
    rest = lowest(barrier(find, R34_TIN, configuration) for configuration in others(STABLE))
    yield R34_TIN.name, barrier(find, R34_TIN, STABLE) < rest


@claim(
    4,
    "Configurations with less instability generalise slightly worse when dense (momentum and small batch "
    "help the dense network).",
    section="4.1",
    rests_on=("table2", "table11", "table12"),
)
def instability_helps_the_dense_network(find: Find) -> Checks:
    for pair in PAIRS:
        dense = {c: ticket(find, pair, c, 0.0) for c in CONFIGURATIONS}
        without_momentum, with_momentum = [dense[c] for c in PLAIN], [dense[c] for c in MOMENTUM]
        yield f"{pair.name}, momentum", highest(without_momentum) < lowest(with_momentum)
        yield f"{pair.name}, batch size at 0.0", dense[_PLAIN_256] < dense[_PLAIN_100]
        yield f"{pair.name}, batch size at 0.9", dense[_MOMENTUM_256] < dense[_MOMENTUM_100]


@claim(
    5,
    "Momentum raises the mean number of forgetting events, and by more than a smaller batch does.",
    section="4.1",
    rests_on=("table1", "table8", "table9", "table10"),
)
def momentum_raises_forgetting(find: Find) -> Checks:
    for pair in PAIRS:
        events = {c: dense_run(find, "forgetting_events", pair, c) for c in CONFIGURATIONS}
        of_momentum = average(
            events[_MOMENTUM_100] - events[_PLAIN_100], events[_MOMENTUM_256] - events[_PLAIN_256]
        )
        of_batch_size = average(
            events[_PLAIN_100] - events[_PLAIN_256], events[_MOMENTUM_100] - events[_MOMENTUM_256]
        )
        yield f"{pair.name}, effect of momentum over that of batch size", of_momentum > of_batch_size
        yield f"{pair.name}, effect of batch size", of_batch_size > 0


@claim(
    6,
    "More instability goes with fewer unforgettable samples (momentum lowers the share; so does a "
    "smaller batch).",
    section="4.1",
    rests_on=("table1", "table8", "table9", "table10"),
)
def instability_leaves_fewer_unforgettable(find: Find) -> Checks:
    for pair in PAIRS:
        share = {c: dense_run(find, "unforgettable_percent", pair, c) for c in CONFIGURATIONS}
        without_momentum, with_momentum = [share[c] for c in PLAIN], [share[c] for c in MOMENTUM]
        yield f"{pair.name}, momentum", lowest(without_momentum) > highest(with_momentum)
        yield f"{pair.name}, batch size at 0.0", share[_PLAIN_100] < share[_PLAIN_256]
        yield f"{pair.name}, batch size at 0.9", share[_MOMENTUM_100] < share[_MOMENTUM_256]


@claim(
    7,
    "Training without momentum converges faster (Eq. 4 closer to 1).",
    section="4.1",
    rests_on=("table1", "table8", "table9", "table10"),
)
def training_without_momentum_converges_faster(find: Find) -> Checks:
    for pair in PAIRS:
        with_momentum = highest(dense_run(find, "convergence", pair, c) for c in MOMENTUM)
        yield pair.name, lowest(dense_run(find, "convergence", pair, c) for c in PLAIN) > with_momentum


@claim(
    8,
    "Late in training mu=0.9 has clearly more forgetting events per epoch than mu=0.0.",
    section="Appendix A",
    rests_on=("fig6",),
    ours="that late means in the last quarter of the epochs",
)
def momentum_forgets_late(find: Find) -> Checks:
    for pair in PAIRS:
        without_momentum = highest(late_forgetting(find, pair, c) for c in PLAIN)
        yield pair.name, lowest(late_forgetting(find, pair, c) for c in MOMENTUM) > without_momentum


@claim(
    9,
    "Removing the least-forgotten CIFAR-10 samples leaves accuracy unchanged and does not lower the "
    "barrier; removing as many most-forgotten samples lowers accuracy and lowers the barrier.",
    section="Appendix A.1",
    rests_on=("fig7",),
    ours="the fractions removed, and the limits of 0.5 and 1 point",
)
def hard_samples_make_the_barrier(find: Find) -> Checks:
    accuracy, height = without(find, "val_accuracy"), without(find, "barrier")
    for percent in _REMOVED:
        easiest = without(find, "val_accuracy", "easiest_removed", percent)
        hardest = without(find, "val_accuracy", "hardest_removed", percent)
        yield f"accuracy, easiest {percent}% removed", abs(easiest - accuracy) < 0.5
        yield f"accuracy, hardest {percent}% removed", accuracy - hardest > 1.0
        easiest = without(find, "barrier", "easiest_removed", percent)
        hardest = without(find, "barrier", "hardest_removed", percent)
        yield f"barrier, easiest {percent}% removed", easiest >= height - 1.0
        yield f"barrier, hardest {percent}% removed", hardest < height


@claim(
    10,
    "With the easiest samples removed the interpolation curve reaches its barrier level earlier.",
    section="Appendix A.1",
    rests_on=("fig7",),
    ours="the fractions removed, and that the level is 90% of the largest error",
)
def barrier_comes_earlier_without_easy_samples(find: Find) -> Checks:
    full = without(find, "barrier_reached")
    for percent in _REMOVED:
        yield f"{percent}% removed", without(find, "barrier_reached", "easiest_removed", percent) < full


@claim(
    11,
    "For ResNet-18/CIFAR-10 the mid-path error of mu=0.0/BS=256 exceeds chance error, unlike every other "
    "pair.",
    section="Appendix A",
    rests_on=("fig3", "fig1", "fig4", "fig5"),
)
def path_is_worse_than_chance(find: Find) -> Checks:
    yield f"{R18_C10.name}, {STABLE}", path_error(find, R18_C10, STABLE) > R18_C10.chance_error
    for pair in PAIRS:
        if pair != R18_C10:
            worst = highest(path_error(find, pair, configuration) for configuration in CONFIGURATIONS)
            yield f"{pair.name}, all configurations", worst <= pair.chance_error
