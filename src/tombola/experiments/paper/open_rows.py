"""Rows of studies on what the paper leaves open: sentences that it hints at or checks without printing a
number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import (
    barrier_heights,
    block_accuracy,
    line_excess,
    projected_excess,
    projection_error,
)
from tombola.experiments.paper.rows import Listing, columns, key_after, numbers
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    LAST_BLOCK,
    OPEN,
    PRETRAINED_PERCENT,
    TICKET,
    Pair,
)
from tombola.lab.item import Measured
from tombola.measures.heads import HEAD_RECIPE
from tombola.measures.instability import DIFFERENCES
from tombola.table.key import sparsity_after

AS_USUAL = "as in the paper"
HEADS: Mapping[str, Mapping[str, Any]] = {
    "lr 0.05": {"lr": 10 * HEAD_RECIPE.lr},
    "lr 0.0005": {"lr": HEAD_RECIPE.lr / 10},
    "batch size 400": {"batch_size": 400},
    "momentum 0": {"momentum": 0.0},
    "weight decay 0": {"weight_decay": 0.0},
}
"""Other ways of training a probe, each by what it changes in that of the paper (ours)."""
_TIMES = 4
_LONGER = f"epochs x {_TIMES}"
OTHER_HEADS = (_LONGER, *HEADS)
"""The names of all of them."""


def distant_rounds(*pairs: Pair) -> Listing:
    """Between the dense network and the tabulated tickets, each with each later one: whether basins merge.

    The error over the line from the one trained network to the other; and of the first one's weights, as far
    as the second keeps them, the error and that over the line to the second, batch norm measured anew.
    """

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            rounds = (0, *columns(work, pair))
            for configuration in work.scale.chosen(OPEN):
                for first, second in itertools.combinations(rounds, 2):
                    between = [
                        work.between_distant(pair, configuration, number, first, second)
                        for number in numbers(work)
                    ]
                    lines, projections = (tuple(jobs) for jobs in zip(*between, strict=True))
                    axis = (("to_sparsity", sparsity_after(second)),)
                    for metric, jobs, read in (
                        ("excess_to_round", lines, line_excess),
                        ("projection_error", projections, projection_error),
                        ("projection_excess", projections, projected_excess),
                    ):
                        key = key_after(metric, pair, configuration, first, more=axis)
                        yield work.measured(key, jobs, read)

    return listed


def causes_of_noise(pair: Pair) -> Listing:
    """Barriers between dense trainings that differ in all of their noise, or in one cause of it alone."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(CONFIGURATIONS):
            for cause in DIFFERENCES:
                key = key_after("barrier", pair, configuration, 0, more=(("differ_in", cause),))
                apart = work.instability_by(pair, configuration, cause)
                yield work.measured(key, (apart,), barrier_heights)

    return listed


def stability_by_length(pair: Pair) -> Listing:
    """Barriers between dense trainings by how long they were pretrained together, of the first run."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(OPEN):
            for percent in PRETRAINED_PERCENT:
                length = min(round(percent / 100 * work.scale.epochs), work.scale.epochs - 1)
                key = key_after(
                    "barrier", pair, configuration, 0, pretrained=None,
                    more=(("pretrained_percent", percent),),
                )  # fmt: skip
                yield work.measured(key, (work.pretrained(pair, configuration, length),), barrier_heights)

    return listed


def probe_hyperparameters(pair: Pair) -> Listing:
    """Probes after the last block of the tickets, trained as the paper does and in other ways."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        (n,) = columns(work, pair, TICKET)
        read = block_accuracy(work.subject(pair).blocks[LAST_BLOCK])
        for configuration in work.scale.chosen(CONFIGURATIONS):
            tickets = [work.tickets(pair, configuration, number)[n] for number in numbers(work)]
            key = key_after("probe_accuracy", pair, configuration, n, block=LAST_BLOCK)
            recipes = {AS_USUAL: {}, _LONGER: {"epochs": _TIMES * work.scale.head_epochs}, **HEADS}
            for name, changes in recipes.items():
                jobs = tuple(work.probe(pair, ticket, s, **changes) for s, ticket in enumerate(tickets))
                yield work.measured(replace(key, more=(("head", name),)), jobs, read)

    return listed
