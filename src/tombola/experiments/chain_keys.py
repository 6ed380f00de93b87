"""Keys of an experiment's rounds: in what its configurations differ, and what of them is not as usual.

The table reads the same fields off the description of a single job (:mod:`tombola.lab.lineages`), so that a
number has one key, whether an experiment or its jobs are asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tombola.experiments.diet_chains import Diet
from tombola.experiments.experiment_fields import (
    PRETRAINING_NOISE,
    ExperimentFields,
    GridPoint,
    name_of,
    numbered_causes,
)
from tombola.experiments.experiment_words import in_words
from tombola.lab import call_values
from tombola.lab.teacher import axes_of
from tombola.pruning.prune import Pruning
from tombola.pruning.scores import DEFAULT, written_score
from tombola.table.key import ITERATIONS, Key, Scalar, sparsity_of
from tombola.training.length import iterations_of
from tombola.training.recipe import Recipe, has_momentum

_IN_KEY = ("epochs", "momentum", "batch_size")
"""Fields of a recipe that are fields of a key or its budget."""


def key_of_round(experiment: ExperimentFields, point: GridPoint, number: int) -> Key:
    """The key of a round of the chains of a configuration, whose metric is still open."""
    pruning = point.pruning
    more: list[tuple[str, Scalar]] = [
        _recipe_axis(name, value)
        for name, value in point.varied.items()
        if name not in ("momentum", "batch_size")
    ]
    more += _fixed(experiment, point)
    if experiment.own_pretraining_noise and point.rewind:
        more.append(("pretraining_noise", call_values.relative(PRETRAINING_NOISE, 0)))
    if len([epoch for epoch in experiment.rewinds if epoch]) > 1:
        more.append(("rewind", point.rewind))
    if experiment.searches:
        more.append(("search", point.search.label if point.search else "iterative"))
    if experiment.scores != (DEFAULT,) and not point.search:
        more.append(("score", written_score(pruning.score)))
    if experiment.rewindings != ("weights",) and not point.search:
        more.append(("rewinding", pruning.rewinding))
    more += [
        (name, call_values.scalar(value))  # as the table has it of a single job
        for name in ("scope", "exclude", "same_sign", "invert", "rates")
        if not point.search and (value := getattr(pruning, name)) != getattr(Pruning, name)
    ]
    more += [
        (name, value)
        for name in ("init", "same_noise")
        if (value := getattr(experiment, name)) != getattr(ExperimentFields, name)
    ]
    more += numbered_causes(experiment).items()
    more += Diet.of(experiment.diet).axes(searched=point.search is None) if experiment.diet else []
    if (teacher := experiment.teacher_of(point)) is not None:
        more += axes_of(teacher).items()
    momentum = point.recipe.momentum if has_momentum(point.recipe.optimizer) else None
    return Key(
        metric="", network=point.network, dataset=name_of(point.data), momentum=momentum,
        batch_size=point.recipe.batch_size, pretrained=bool(point.rewind),
        sparsity=sparsity_of(pruning.prunings(number)), baseline=point.control, more=tuple(more),
    )  # fmt: skip


def _fixed(experiment: ExperimentFields, point: GridPoint) -> Iterator[tuple[str, Scalar]]:
    """The fields of the recipe that all configurations share, where they are not at their defaults."""
    usual = Recipe()
    for name, value in vars(point.recipe).items():
        in_iterations = name == "epochs" and iterations_of(value) is not None
        unusual = name not in _IN_KEY and value != getattr(usual, name)
        if (unusual or in_iterations) and name not in point.varied:
            yield _recipe_axis(name, value)


def _recipe_axis(name: str, value: Any) -> tuple[str, Scalar]:
    """A field of a recipe as an axis of a key: as that of a single job has it, but augmentations in words."""
    if name == "epochs":  # a column of the table is called so already
        return ("budget", value) if iterations_of(value) is None else (ITERATIONS, iterations_of(value))
    return name, call_values.scalar(in_words(value))
