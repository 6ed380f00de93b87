"""The grid of an experiment: its configurations, and the chain of each as jobs.

A configuration is pruned as a chain, or finds its tickets by a search of its own, or has controls of either;
all of them are trained by the recipe of the configuration.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from tombola.errors import RecipeError
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.chain_keys import key_of_round
from tombola.experiments.chain_measures import measure_items
from tombola.experiments.diet_chains import Diet
from tombola.experiments.experiment_fields import PRETRAINING_NOISE, ExperimentFields, GridPoint
from tombola.experiments.searches import TicketSearch, control_of, searches_of
from tombola.lab.chains import as_job, imp_jobs, training_job
from tombola.lab.job import Job
from tombola.pruning.prune import Pruning
from tombola.table.number import many


def grid_of(experiment: ExperimentFields) -> Iterator[GridPoint]:
    """Every configuration, a search beside the chain that it is compared with, and controls after each."""
    ways: list[tuple[Pruning, TicketSearch | None]] = [(pruning, None) for pruning in experiment.prunings]
    # Of a chain that a search stands beside it has the sparsities.
    ways += [(experiment.prunings[0], search) for search in searches_of(experiment.searches)]
    grid = itertools.product(
        experiment.networks, experiment.data, experiment.rewinds, ways, experiment.recipes()
    )
    for network, data, rewind, (pruning, search), (varied, recipe) in grid:
        for control in (None, *experiment.controls):
            yield GridPoint(network, data, rewind, pruning, varied, recipe, search, control)


def chain_of(experiment: ExperimentFields, point: GridPoint, seed: int) -> list[Job]:
    """The trainings of a configuration, the first of them dense, then that of each round."""
    noises: dict[str, Any] = {
        "same_noise": experiment.same_noise, "seed": seed, "order_noise": experiment.order_noise,
        "augmentation_noise": experiment.augmentation_noise,
        "teacher": experiment.teacher_of(point),
    }  # fmt: skip
    common: dict[str, Any] = {
        "rounds": experiment.rounds, "rewind": point.rewind, "init": experiment.init,
        "pretraining_noise": PRETRAINING_NOISE + seed if experiment.own_pretraining_noise else None,
    }  # fmt: skip
    if experiment.diet:
        chain = Diet.of(experiment.diet).chain(
            point.network, point.data, point.recipe, seed=seed, same_noise=experiment.same_noise,
            pruning=point.pruning, **common,
        )  # fmt: skip
    else:
        chain = imp_jobs(point.network, point.data, point.recipe, **common, **noises, **vars(point.pruning))
    if point.search is None and point.control is None:
        return chain
    tickets = [as_job(run.arguments["ticket"]) for run in chain]
    if point.search is not None:
        start = tickets[0]
        tickets = [start] + [
            point.search.ticket(
                start, point.data, point.recipe, sparsity=_sparsity(experiment, number), seed=seed
            )
            for number in range(1, experiment.rounds + 1)
        ]
    if point.control is not None:
        tickets[1:] = [control_of(ticket, point.control, seed) for ticket in tickets[1:]]
    return [training_job(ticket, point.data, point.recipe, **noises) for ticket in tickets]


def _sparsity(experiment: ExperimentFields, number: int) -> float:
    """The share of the weights that is pruned after a round, to twelve digits."""
    prunings = experiment.prunings[0].prunings(number)
    return round(1 - math.prod((1 - fraction) ** count for fraction, count in prunings.items()), 12)


def _numbers(experiment: ExperimentFields, point: GridPoint) -> Sequence[int]:
    """The rounds at which a configuration is measured; a control has no dense network of its own."""
    if point.search is None and point.control is None:
        return range(experiment.rounds + 1)
    compared = range(1, experiment.rounds + 1) if experiment.compared_at is None else experiment.compared_at
    return [0, *compared] if point.control is None else compared


def items_of(experiment: ExperimentFields) -> Iterator[ChainItem]:
    """Every measure of every round of every configuration.

    Raises :class:`~tombola.errors.RecipeError` for a place to rewind to that is not before the end.
    """
    for point in grid_of(experiment):
        epochs = point.recipe.epochs
        if isinstance(point.rewind, int) and isinstance(epochs, int) and point.rewind >= epochs:
            raise RecipeError(f"{experiment.name}: rewind is {point.rewind} of {many(epochs, 'epoch')}")
        chains = {seed: chain_of(experiment, point, seed) for seed in experiment.seed_numbers}
        for number in _numbers(experiment, point):
            yield from measure_items(
                experiment, chains, key_of_round(experiment, point, number), number, point
            )
