"""Rows on little data: training tickets on random subsets, and on images chosen by forgetting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import run_accuracy
from tombola.experiments.paper.rows import Listing, columns, key_after, numbers
from tombola.experiments.paper.settings import (
    CHOSEN_SUBSETS,
    CONTROL,
    EIGHT,
    SUBSETS,
    TICKET,
    Configuration,
    Pair,
)
from tombola.lab.item import Measured
from tombola.measures.difficulty import Forgotten
from tombola.table.key import Baseline, Criterion

_ENDS: tuple[tuple[Criterion, Forgotten], ...] = (("least_forgotten", "least"), ("most_forgotten", "most"))
_BODIES: tuple[Baseline | None, ...] = (None, "permuted", "dense")


def little_data(pair: Pair) -> Listing:
    """Tickets trained on class-balanced random subsets, and the dense network (reading H2)."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        columns(work, pair, TICKET)
        for configuration in work.scale.chosen(EIGHT):
            yield from _few_shot(work, pair, configuration, TICKET)
        for configuration in work.scale.chosen((CONTROL,)):
            for item in _few_shot(work, pair, configuration, 0):
                key = replace(item.key, momentum=None, batch_size=None, pretrained=None, baseline="dense")
                yield replace(item, key=key)

    return listed


def little_data_by_round(pair: Pair) -> Listing:
    """The same for the tickets of every round."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(EIGHT):
            for n in work.scale.curve_rounds(pair):
                yield from _few_shot(work, pair, configuration, n)

    return listed


def _few_shot(work: PaperJobs, pair: Pair, configuration: Configuration, prunings: int) -> Iterator[Measured]:
    for percent in SUBSETS:
        jobs = tuple(work.few_shot(pair, configuration, prunings, s, percent) for s in numbers(work))
        key = key_after(
            "val_accuracy", pair, configuration, prunings,
            subset_percent=percent, subset_criterion="random_class_balanced",
        )  # fmt: skip
        yield work.measured(key, jobs, run_accuracy)


def chosen_data(pair: Pair) -> Listing:
    """The ticket, the permuted ticket and the dense network on the least or most forgotten images."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        columns(work, pair, TICKET)
        for configuration in work.scale.chosen((CONTROL,)):
            for baseline in _BODIES:
                yield from _on_chosen(work, pair, configuration, baseline)

    return listed


def _on_chosen(
    work: PaperJobs, pair: Pair, configuration: Configuration, baseline: Baseline | None
) -> Iterator[Measured]:
    prunings = 0 if baseline == "dense" else TICKET
    bodies = [work.tickets(pair, configuration, s)[prunings] for s in numbers(work)]
    if baseline == "permuted":
        bodies = [work.permuted(ticket, s) for s, ticket in enumerate(bodies)]
    for criterion, which in _ENDS:
        for percent in CHOSEN_SUBSETS:
            jobs = tuple(
                work.on_chosen(pair, configuration, ticket, s, which, percent)
                for s, ticket in enumerate(bodies)
            )
            key = key_after(
            "val_accuracy", pair, configuration, prunings,
                baseline=baseline, subset_percent=percent, subset_criterion=criterion,
            )  # fmt: skip
            yield work.measured(key, jobs, run_accuracy)
