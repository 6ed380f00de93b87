"""Claims 62 and 63: what the paper supposes of momentum in 6.1 and 4.1, and does not measure."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import dense_run
from tombola.experiments.paper.settings import MOMENTUM, PAIRS, PLAIN


@claim(
    62,
    "The basin that is found with momentum is narrower than those found without.",
    section="6.1",
    rests_on=("basins",),
    ours="that narrow means a large trace of the Hessian and a large adaptive sharpness (rho 0.5) of the "
    "train loss, batch norm fixed; the trace also grows as weights shrink",
)
def momentum_ends_in_narrower_basins(find: Find) -> Checks:
    for pair in PAIRS:
        for without_momentum, with_momentum in zip(PLAIN, MOMENTUM, strict=True):
            for metric, words in (("hessian_trace", "trace"), ("adaptive_sharpness", "sharpness")):
                gap = dense_run(find, metric, pair, with_momentum) - dense_run(
                    find, metric, pair, without_momentum
                )
                yield f"{pair.name}, {words} at batch size {with_momentum.batch_size}", gap > 0


@claim(
    63,
    "Momentum leads models to generalise on difficult samples, those of small margin.",
    section="4.1",
    rests_on=("small-margins",),
    ours="that difficult are test images which are wrong, or right by less than half of the probability, and "
    "that momentum leaves fewer",
)
def momentum_leaves_fewer_small_margins(find: Find) -> Checks:
    for pair in PAIRS:
        for without_momentum, with_momentum in zip(PLAIN, MOMENTUM, strict=True):
            shares = [
                dense_run(find, "small_margin_percent", pair, one)
                for one in (with_momentum, without_momentum)
            ]
            yield f"{pair.name} at batch size {with_momentum.batch_size}", shares[0] - shares[1] < 0
