"""Claims 53 to 61, on training tickets of 89.26% with little data (Section 5.2, Appendix F)."""

from __future__ import annotations

from tombola.experiments.claims.claim import Checks, Find, claim
from tombola.experiments.claims.lookups import (
    by_forgetting,
    few_shot,
    few_shot_dense,
    few_shot_of_round,
    probe,
    probe_of_round,
    ticket,
    ticket_convergence,
)
from tombola.experiments.claims.quantities import Quantity, highest, rank_correlation
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    PAIRS,
    R18_C10,
    R34_TIN,
    RESNETS,
    REWOUND,
    ROUNDS,
    STABLE,
    others,
)
from tombola.table.key import Baseline, Criterion

_SUBSETS = (1, 2, 5, 10)
"""Percent of the training images."""
_ENDS: tuple[Criterion, ...] = ("least_forgotten", "most_forgotten")


@claim(
    53,
    "0.0/256 tickets are the best of their half at every subset size.",
    section="5.2, Appendix F",
    rests_on=("table7", "table21", "table22"),
)
def stable_tickets_learn_best_from_little(find: Find) -> Checks:
    for pair in RESNETS:
        for stable in (STABLE, STABLE.rewound):
            for percent in _SUBSETS:
                rest = highest(
                    few_shot(find, pair, configuration, percent) for configuration in others(stable)
                )
                yield f"{pair.name}, {stable}, {percent}%", few_shot(find, pair, stable, percent) > rest


@claim(
    54,
    "0.0/256 tickets far exceed the dense network on small subsets.",
    section="5.2, Appendix F",
    rests_on=("table7", "table21", "table22"),
    ours="that far means at least twice",
)
def stable_tickets_exceed_the_dense_network(find: Find) -> Checks:
    for pair in RESNETS:
        yield f"{pair.name}, 1%", few_shot(find, pair, STABLE, 1) >= 2 * few_shot_dense(find, pair, 1)


@claim(
    55,
    "With 50 images per class of TinyImageNet about 75% of the full-data accuracy is recovered.",
    section="5.2",
    rests_on=("table7", "table2"),
    ours="that about means 70 to 80%",
)
def little_data_recovers_three_quarters(find: Find) -> Checks:
    reached = few_shot(find, R34_TIN, STABLE.rewound, 10)
    for words, sparsity in (("dense network", 0.0), ("ticket", 89.26)):
        full = ticket(find, R34_TIN, STABLE.rewound, sparsity)
        yield f"at least 0.70 of the {words}", reached >= 0.70 * full
        yield f"at most 0.80 of the {words}", reached <= 0.80 * full


@claim(
    56,
    "That is a relative gain of about 72% over a dense network trained on the same 10%.",
    section="5.2",
    rests_on=("table7",),
    ours="that about means 67 to 77%",
)
def little_data_gains_three_quarters(find: Find) -> Checks:
    reached, dense = few_shot(find, R34_TIN, STABLE.rewound, 10), few_shot_dense(find, R34_TIN, 10)
    yield "gain of at least 67%", reached >= 1.67 * dense
    yield "gain of at most 77%", reached <= 1.77 * dense


def _over_rounds(find: Find) -> Checks:
    for pair in RESNETS:
        for stable in (STABLE, STABLE.rewound):
            learned = [few_shot_of_round(find, pair, stable, sparsity) for sparsity in ROUNDS]
            probed = [probe_of_round(find, pair, stable, sparsity) for sparsity in ROUNDS]
            yield f"{pair.name}, {stable}, five prunings", learned[5] > learned[0]
            yield f"{pair.name}, {stable}, over rounds", rank_correlation(learned, probed) > 0.7


@claim(
    57,
    "Few-shot accuracy rises over the first prunings for stable configurations and follows the probe "
    "accuracy.",
    section="Appendix F",
    rests_on=(
        "table7",
        "table5",
        "table21",
        "table17",
        "table22",
        "table18",
        "fig23",
        "fig20",
        "fig21",
        "fig18",
        "fig22",
        "fig19",
    ),
    ours="the limit of 0.7 on the rank correlation",
    also=_over_rounds,
)
def little_data_follows_features(find: Find) -> Checks:
    for pair in RESNETS:
        configurations = (*CONFIGURATIONS, *REWOUND)
        learned = [few_shot(find, pair, configuration, 1) for configuration in configurations]
        probed = [probe(find, pair, configuration, 89.26) for configuration in configurations]
        yield f"{pair.name}, over configurations", rank_correlation(learned, probed) > 0.7


@claim(
    58,
    "Selecting by forgetting score does not convincingly beat random selection for the ticket.",
    section="Appendix F.1",
    rests_on=("table23", "table21"),
    ours="that convincingly means by half a point",
)
def forgetting_selects_no_better_than_chance(find: Find) -> Checks:
    for percent in (1, 10):
        selected = highest(by_forgetting(find, None, which, percent) for which in _ENDS)
        yield f"{percent}%", selected - few_shot(find, R18_C10, STABLE, percent) < 0.5


@claim(
    59,
    "At 10% the ticket prefers the most-forgotten samples; permuted ticket and dense network prefer the "
    "least-forgotten.",
    section="Appendix F.1",
    rests_on=("table23",),
)
def only_the_ticket_prefers_hard_samples(find: Find) -> Checks:
    def preference(baseline: Baseline | None, percent: int) -> Quantity:
        """Accuracy on the most forgotten samples over that on the least forgotten."""
        most = by_forgetting(find, baseline, "most_forgotten", percent)
        return most - by_forgetting(find, baseline, "least_forgotten", percent)

    yield "ticket, 10%", preference(None, 10) > 0
    yield "permuted, 10%", preference("permuted", 10) < 0
    yield "dense, 10%", preference("dense", 10) < 0
    yield "ticket, 1%", preference(None, 1) < 0
    yield "permuted, 1%", preference("permuted", 1) < 0
    yield "dense, 1%", preference("dense", 1) < 0


@claim(
    60,
    "Stable tickets train faster.",
    section="Abstract",
    rests_on=("ticket-convergence",),
)
def stable_tickets_train_faster(find: Find) -> Checks:
    for pair in PAIRS:
        for stable in (STABLE, STABLE.rewound):
            rest = highest(ticket_convergence(find, pair, c, 89.26) for c in others(stable))
            yield f"{pair.name}, {stable}", ticket_convergence(find, pair, stable, 89.26) > rest


@claim(
    61,
    "Permuting the mask destroys the few-shot gain: permuted tickets are no better than the dense network.",
    section="Appendix F.1",
    rests_on=("table23",),
    ours="the limit of 2 points",
)
def permuting_destroys_the_gain(find: Find) -> Checks:
    for which in _ENDS:
        for percent in (1, 10):
            permuted = by_forgetting(find, "permuted", which, percent)
            dense = by_forgetting(find, "dense", which, percent)
            yield f"{which.replace('_', ' ')}, {percent}%", abs(permuted - dense) < 2.0
