"""Claims 22 to 27, on other batch sizes and momenta of ResNet-18 on CIFAR-10 (Appendices C.1 and C.2)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import barrier, drop, gain, ticket
from tombola.experiments.claims.quantities import rank_correlation
from tombola.experiments.paper.settings import R18_C10, TABULATED, Configuration

_LARGEST = Configuration(0.9, 2048)
_MOMENTA = (0.0, 0.3, 0.6, 0.9, 0.95)
_BOTH_HALVES = (False, True)


@claim(
    22,
    "Small batches give higher accuracy at low sparsity but degrade more at high sparsity; very large "
    "batches degrade less.",
    section="Appendix C.1",
    rests_on=("table13",),
)
def small_batches_degrade_more(find: Find) -> Checks:
    for pretrained in _BOTH_HALVES:
        for momentum in (0.0, 0.9):
            smallest = Configuration(momentum, 8, pretrained)
            largest = Configuration(momentum, 2048, pretrained)
            words = f"{smallest} and {largest}"
            yield (
                f"dense, {words}",
                ticket(find, R18_C10, smallest, 0.0) > ticket(find, R18_C10, largest, 0.0),
            )
            yield f"drop, {words}", drop(find, R18_C10, smallest) > drop(find, R18_C10, largest)


@claim(
    23,
    "mu=0.9 with a very large batch (2048) gives winning tickets without pretraining.",
    section="Appendix C.1",
    rests_on=("table13",),
)
def momentum_wins_with_very_large_batches(find: Find) -> Checks:
    for sparsity in (67.23, 89.26, 96.48):
        yield f"{sparsity}", gain(find, R18_C10, _LARGEST, sparsity) >= 0


@claim(
    24,
    "Too much stability can hurt: at mu=0.9/BS=2048 late rewinding makes tickets worse at high sparsity.",
    section="Appendix C.1",
    rests_on=("table13",),
    ours="the limit of half a point",
)
def rewinding_can_hurt(find: Find) -> Checks:
    for sparsity in (96.48, 98.85):
        rewound = ticket(find, R18_C10, _LARGEST.rewound, sparsity)
        yield f"{sparsity}", ticket(find, R18_C10, _LARGEST, sparsity) - rewound > 0.5


@claim(
    25,
    "At very large batches even momentum with 2 epochs of pretraining is nearly stable.",
    section="Appendix C.1",
    rests_on=("fig17",),
    ours="that nearly stable means a barrier below 5 points",
)
def very_large_batches_are_nearly_stable(find: Find) -> Checks:
    for batch_size in (1024, 2048):
        configuration = Configuration(0.9, batch_size, pretrained=True)
        yield f"{configuration}", barrier(find, R18_C10, configuration) < 5.0


@claim(
    26,
    "Higher momentum gives a better dense network and a larger accuracy drop through pruning, over five "
    "values of mu.",
    section="Appendix C.2",
    rests_on=("table11", "table14"),
    ours="the limit of 0.9 on the rank correlation",
)
def momentum_helps_dense_and_hurts_sparse(find: Find) -> Checks:
    for pretrained in _BOTH_HALVES:
        configurations = [Configuration(momentum, 256, pretrained) for momentum in _MOMENTA]
        half = "pretrained" if pretrained else "not pretrained"
        dense = [ticket(find, R18_C10, configuration, 0.0) for configuration in configurations]
        yield f"dense, {half}", rank_correlation(_MOMENTA, dense) >= 0.9
        drops = [drop(find, R18_C10, configuration) for configuration in configurations]
        yield f"drop, {half}", rank_correlation(_MOMENTA, drops) >= 0.9


@claim(
    27,
    "mu=0.3 is slightly better than mu=0.0 at BS=256.",
    section="Appendix C.2",
    rests_on=("table14", "table11"),
)
def a_little_momentum_is_better(find: Find) -> Checks:
    for pretrained in _BOTH_HALVES:
        for sparsity in TABULATED:
            none, little = (Configuration(momentum, 256, pretrained) for momentum in (0.0, 0.3))
            better = ticket(find, R18_C10, little, sparsity) - ticket(find, R18_C10, none, sparsity)
            yield f"{little} at {sparsity}", better > 0
