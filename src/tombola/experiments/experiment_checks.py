"""What an experiment cannot be is refused here, field by field, before any of its jobs is written down.

Every message names the experiment, the field and its value, and what is allowed. What a single job would
refuse, such as a momentum of 2, is left to it.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from tombola.data.imageset import Data
from tombola.errors import ExperimentError, RecipeError, unknown
from tombola.experiments.diet_chains import Diet
from tombola.experiments.experiment_fields import (
    BETWEEN,
    COPIES,
    PRETRAINING_NOISE,
    ExperimentFields,
    choices_of,
    name_of,
)
from tombola.experiments.experiment_words import listed
from tombola.experiments.searches import CONTROLS, searches_of
from tombola.lab.job import Job
from tombola.measures.instability import DIFFERENCES
from tombola.pruning.prune import REWINDINGS
from tombola.seeds import NOISES
from tombola.ticket import Ticket
from tombola.training.length import is_length, iterations_of
from tombola.training.recipe import Recipe
from tombola.training.run import Run

LENGTHS = ("epochs", "warmup", "milestones")


def check_names(experiment: ExperimentFields) -> None:
    """Refuse a name that is none, and networks, data and measures that are not given by name."""
    name = experiment.name
    if not isinstance(name, str) or not name or name != os.path.basename(name):
        raise ExperimentError(f"an experiment is called {name!r}; its name must do as the name of a file")
    _check_subjects(experiment)
    _check_measures(experiment)


def check_values(experiment: ExperimentFields) -> None:
    """Refuse all else that no experiment can have, its lengths written as jobs have them."""
    _check_recipe(experiment)
    _check_numbers(experiment)
    _check_teacher(experiment)
    _check_diet(experiment)


def _check_subjects(experiment: ExperimentFields) -> None:
    """Refuse networks or data that are no lists of different names."""
    for key in ("networks", "data"):
        entries = getattr(experiment, key)
        if not is_list(entries) or not entries:
            raise ExperimentError(f"{experiment.name}: {key} is {entries!r:.60}; give a list of at least one")
        named = [isinstance(entry, str) or (key == "data" and isinstance(entry, Data)) for entry in entries]
        if not all(named):
            raise ExperimentError(
                f"{experiment.name}: {key} is {entries!r:.60}; they stand in it by their names"
            )
        _check_different(experiment, key, [name_of(entry) for entry in entries])


def _check_measures(experiment: ExperimentFields) -> None:
    """Refuse measures that are not given by name, with options by name."""
    if not isinstance(experiment.between, Mapping):
        raise ExperimentError(
            f"{experiment.name}: between is {experiment.between!r}; give measures for each of "
            f"{' and '.join(BETWEEN)}"
        )
    for key in experiment.between:
        if key not in BETWEEN:
            raise ExperimentError(
                f"{experiment.name}: {unknown('kind of runs to measure between', key, BETWEEN)}"
            )
    named = (
        ("measures", experiment.measures),
        ("searches", experiment.searches),
        ("predictors", experiment.predictors),
        *experiment.between.items(),
    )
    for key, measures in named:
        if isinstance(measures, str):
            raise ExperimentError(f"{experiment.name}: {key} is {measures!r}; give a list, [{measures!r}]")
        if not is_list(measures) and not isinstance(measures, Mapping):
            raise ExperimentError(f"{experiment.name}: {key} is {measures!r:.60}; give a list of measures")
        if not all(isinstance(name, str) for name in measures):
            raise ExperimentError(
                f"{experiment.name}: {key} is {measures!r:.60}; measures stand in it by their names"
            )
        for name, options in measures.items() if isinstance(measures, Mapping) else ():
            choices = options if is_list(options) else [options]
            if not choices or not all(isinstance(choice, Mapping) for choice in choices):
                raise ExperimentError(
                    f"{experiment.name}: {key} has {name} = {options!r:.60}; give its options by name, "
                    "or {}"
                )


def _check_recipe(experiment: ExperimentFields) -> None:
    """Refuse fields of the recipe that no training could have, and values that stand there twice."""
    if isinstance(experiment.recipe, Recipe):  # which refuses them itself
        return
    if not isinstance(experiment.recipe, Mapping):
        raise ExperimentError(
            f"{experiment.name}: recipe is {experiment.recipe!r:.60}; give its fields by name"
        )
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for key, content in experiment.recipe.items():
        if key not in fields:
            raise ExperimentError(f"{experiment.name}: {unknown('field of a recipe', key, list(fields))}")
        choices = choices_of(key, content)
        if not choices:
            raise ExperimentError(
                f"{experiment.name}: recipe has {key} = {content!r}; give at least one value"
            )
        counts = isinstance(fields[key].default, int | float)
        for value in choices:
            if counts and not _is_number(value) and not (key in LENGTHS and is_length(value)):
                raise ExperimentError(
                    f"{experiment.name}: recipe has {key} = {value!r:.60}; it must be a number"
                )
        _check_different(experiment, f"{key} of the recipe", choices)


def _check_numbers(experiment: ExperimentFields) -> None:
    """Refuse counts out of range, and epochs or rounds that stand there twice."""
    counts: list[tuple[str, object, int, float]] = [("rounds", experiment.rounds, 0, math.inf)]
    counts += [] if is_list(experiment.seeds) else [("seeds", experiment.seeds, 1, PRETRAINING_NOISE)]
    counts += [("copies", experiment.copies, 2, PRETRAINING_NOISE), ("early", experiment.early, 1, math.inf)]
    counts += [
        ("rewind", rewind, 0, math.inf) for rewind in experiment.rewinds if iterations_of(rewind) is None
    ]
    counts += [("copies_at", number, 0, math.inf) for number in experiment.copies_at or ()]
    for key, count, least, most in counts:
        if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= most:
            also = f" and at most {most}: noises from there on are of pretraining" * (most < math.inf)
            raise ExperimentError(
                f"{experiment.name}: {key} is {count!r}; it must be a whole number, at least {least}{also}"
            )
    _check_seeds(experiment)
    _check_causes(experiment)
    if not experiment.rewinds:
        raise ExperimentError(f"{experiment.name}: rewind is an empty list; give at least one epoch")
    if not isinstance(experiment.init, str | None):
        raise ExperimentError(
            f"{experiment.name}: init is {experiment.init!r:.60}; give the name of a scheme"
        )
    _check_different(experiment, "rewind", experiment.rewinds)
    _check_different(experiment, "copies_at", experiment.copies_at or ())
    _check_comparisons(experiment)
    if not experiment.differences or not all(
        differ_in in DIFFERENCES for differ_in in experiment.differences
    ):
        raise ExperimentError(
            f"{experiment.name}: differ_in is {experiment.differ_in!r:.60}; allowed are "
            f"{', '.join(DIFFERENCES)}"
        )
    _check_different(experiment, "differ_in", experiment.differences)
    fractions = (
        list(experiment.fraction) if isinstance(experiment.fraction, list | tuple) else [experiment.fraction]
    )
    if not all(map(_is_number, fractions)):
        raise ExperimentError(f"{experiment.name}: fraction is {experiment.fraction!r}; it must be a number")
    _check_pruning(experiment)


def _check_comparisons(experiment: ExperimentFields) -> None:
    """Refuse controls that there are not, and comparisons with rounds that there are not."""
    if not is_list(experiment.controls):
        raise ExperimentError(
            f"{experiment.name}: controls is {experiment.controls!r:.60}; give a list of names"
        )
    for control in experiment.controls:
        if control not in CONTROLS:
            raise ExperimentError(f"{experiment.name}: {unknown('control', str(control), CONTROLS)}")
    _check_different(experiment, "controls", experiment.controls)
    _check_different(
        experiment, "searches", [(search.name, search.options) for search in searches_of(experiment.searches)]
    )
    if (experiment.controls or experiment.searches) and experiment.rounds == 0:
        raise ExperimentError(
            f"{experiment.name}: rounds is 0, so there is no sparsity for searches and controls; "
            "give 1 or more"
        )
    _check_different(experiment, "compared_at", experiment.compared_at or ())
    for number in experiment.compared_at or ():
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= experiment.rounds:
            raise ExperimentError(
                f"{experiment.name}: compared_at has {number!r}; its rounds are from 1 to {experiment.rounds}"
            )


def _check_diet(experiment: ExperimentFields) -> None:
    """Refuse a diet that there is not, or one beside causes of noise with numbers of their own."""
    if not isinstance(experiment.diet, Mapping):
        raise ExperimentError(f"{experiment.name}: diet is {experiment.diet!r:.60}; give its fields by name")
    if not experiment.diet:
        return
    try:
        Diet.of(experiment.diet)
    except RecipeError as error:
        raise ExperimentError(f"{experiment.name}: {error}") from error
    if causes := [name for name in NOISES if getattr(experiment, name) is not None]:
        raise ExperimentError(f"{experiment.name}: a diet goes with one noise; leave out {causes[0]}")
    if experiment.teacher is not None:
        raise ExperimentError(f"{experiment.name}: a diet goes without distillation; leave out teacher")


def _check_seeds(experiment: ExperimentFields) -> None:
    """Refuse a list of seeds that are no different whole numbers, or whose noises are of pretraining."""
    if not is_list(experiment.seeds):
        return
    integral = [isinstance(seed, int) and not isinstance(seed, bool) for seed in experiment.seed_numbers]
    if not all(integral) or not integral:
        raise ExperimentError(
            f"{experiment.name}: seeds is {experiment.seeds!r:.60}; give how many, or a list of whole numbers"
        )
    _check_different(experiment, "seeds", experiment.seed_numbers)
    if experiment.own_pretraining_noise and not set(experiment.seed_numbers) <= set(range(PRETRAINING_NOISE)):
        raise ExperimentError(
            f"{experiment.name}: seeds is {experiment.seeds!r:.60}; with own_pretraining_noise they must be "
            f"from 0 to {PRETRAINING_NOISE - 1}: noises from there on are of pretraining"
        )


def _check_causes(experiment: ExperimentFields) -> None:
    """Refuse numbers of causes of noise that are not whole, or beside copies, which have their own."""
    for name, number in ((name, getattr(experiment, name)) for name in NOISES):
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool):
            raise ExperimentError(f"{experiment.name}: {name} is {number!r:.60}; it must be a whole number")
        if COPIES in experiment.between:
            raise ExperimentError(
                f"{experiment.name}: {name} is {number}, but copies differ in noises that they number "
                f"themselves; leave out {name}, or copies from between"
            )


def _check_teacher(experiment: ExperimentFields) -> None:
    """Refuse what is no teacher, or one that no recipe learns from."""
    if experiment.teacher is None:
        return
    if not isinstance(experiment.teacher, str | Job | Run | Ticket):
        raise ExperimentError(
            f"{experiment.name}: teacher is {experiment.teacher!r:.60}; give a run, a ticket, the job of "
            "one, or the name of a finished job"
        )
    losses = {recipe.loss for _, recipe in experiment.recipes()}
    if "distillation" not in losses:
        raise ExperimentError(
            f"{experiment.name}: a teacher is given, but loss is {listed(sorted(losses))}; "
            "use loss 'distillation'"
        )


def _check_pruning(experiment: ExperimentFields) -> None:
    """Refuse prunings that there are not."""
    for key in ("same_sign", "invert", "same_noise"):
        if not isinstance(getattr(experiment, key), bool):
            raise ExperimentError(
                f"{experiment.name}: {key} is {getattr(experiment, key)!r:.60}; give true or false"
            )
    if not is_list(experiment.exclude) or not all(isinstance(name, str) for name in experiment.exclude):
        raise ExperimentError(
            f"{experiment.name}: exclude is {experiment.exclude!r:.60}; give a list of names"
        )
    if not experiment.rewindings or not all(rewinding in REWINDINGS for rewinding in experiment.rewindings):
        raise ExperimentError(
            f"{experiment.name}: rewinding is {experiment.rewinding!r:.60}; allowed are "
            f"{', '.join(REWINDINGS)}"
        )
    _check_different(experiment, "rewinding", experiment.rewindings)
    scores = [experiment.score] if isinstance(experiment.score, str) else experiment.score
    if not is_list(scores) or not scores or not all(isinstance(name, str) for name in scores):
        raise ExperimentError(
            f"{experiment.name}: score is {experiment.score!r:.60}; give names of declared scores"
        )
    if not isinstance(experiment.scope, str):
        raise ExperimentError(f"{experiment.name}: scope is {experiment.scope!r:.60}; give its name")
    try:
        _check_different(experiment, "score", experiment.scores)
        experiment.prunings[0].prunings(experiment.rounds)
    except RecipeError as error:
        raise ExperimentError(f"{experiment.name}: {error}") from error


def _check_different(experiment: ExperimentFields, key: str, values: Sequence[object]) -> None:
    """Refuse a value that stands twice: its runs would count as more repetitions than there are."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ExperimentError(f"{experiment.name}: {key} has {value!r:.60} twice; give each value once")


def _is_number(value: object) -> bool:
    """Whether something is a number and no truth value, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether something is a list or the like, and no single text."""
    return isinstance(value, Sequence) and not isinstance(value, str)
