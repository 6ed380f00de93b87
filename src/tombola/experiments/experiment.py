"""Experiments of one's own: a grid of pruning chains, and what is measured on them.

One is written as a Python file that makes an :class:`Experiment`, or as a small TOML file with the same
fields. Networks and measures stand in it by their declared names. Its chains are in
:mod:`tombola.experiments.experiment_chains`, what is measured on them in
:mod:`tombola.experiments.chain_measures`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy

from tombola.errors import ExperimentError, RecipeError
from tombola.experiments.bound import Bound
from tombola.experiments.chain_exhibits import exhibits_of
from tombola.experiments.experiment_chains import chain_of, grid_of, items_of
from tombola.experiments.experiment_checks import LENGTHS, check_names, check_values, is_list
from tombola.experiments.experiment_fields import ExperimentFields
from tombola.experiments.experiment_words import about_text, budgets_text, seeds_text
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.teacher import named_teacher
from tombola.seeds import NOISES
from tombola.training.length import written_length
from tombola.training.named_recipes import recipe_fields

_NUMBERS = ("recipe", "rounds", "rewind", "fraction", "seeds", "copies", "copies_at", "early")
"""Fields that are numbers or have them."""


@dataclass(frozen=True)
class Experiment(ExperimentFields):
    """Pruning chains of every network on every data set by every recipe, and measures of each round.

    name: of the experiment and its files. networks: declared names. data: names, folders, or sets themselves.
    recipe: a :class:`~tombola.Recipe`, or fields of one by name, where a list of values makes a recipe of
        each, in all combinations, and fields of its augmentation stand in a mapping. ``like`` among the
        fields is the name of a classic one (:func:`~tombola.named_recipe`), of which they replace some:
        ``{"like": "lenet300", "epochs": 6}``; in TOML ``recipe = "lenet300"`` is that recipe as it is.
    rounds: number of prunings. rewind: epoch to rewind to, or iteration as ``"500it"``; a list makes chains
    with each. fraction: share that a round prunes, or a list with that of each round.
    scope, exclude, same_sign, invert, rates: as for :func:`~tombola.prune`.
    score: what weights are ranked by, a declared name or a list of them, which makes chains by each.
    rewinding: what goes back to the start after a pruning, as for :func:`~tombola.prune`; a list, likewise.
    seeds: number of runs, which differ in initialisation and noise, or a list of their numbers.
    init: how the first weights are drawn, by the declared name of a scheme; None for each network's own.
    measures: declared names; those with options, as a mapping from the name to them. A measure takes the run
        or the ticket of a round and, if it wants, the data and the recipe, in which an option ``recipe`` may
        replace fields. The accuracy of the runs is always there.
    between: measures of several runs, in the same form, by what they are taken between: ``"copies"``, the
        trainings of a round's ticket under different noise, ``"rounds"``, the runs of a round and of the
        next, or ``"later_rounds"``, those of a round and of all later ones. A measure of two runs is taken of
        every pair of copies, and of a round with each later one.
    copies: how many trainings of each ticket there are then, the chain's own among them.
    copies_at: the rounds at which tickets have copies; None for all, which costs as many trainings again.
    differ_in: what copies differ in: the ``"noise"``, or data ``"order"`` or ``"augmentation"`` alone; a list
        of these makes copies of each kind.
    searches: other ways to tickets of the sparsity of each round, in the form of measures: functions from a
        start, and data and recipe if they want, and a ``sparsity`` to a ticket, such as
        ``{"prune-at-initialization": [{"score": "snip"}, {"score": "random", "scope": "erk"}]}``.
    controls: what every ticket is compared with, trained likewise: ``"permuted"`` (its mask, within each
        layer), ``"randomized"`` or ``"reinitialized"``.
    compared_at: the rounds at whose sparsity there are searches and controls; None for all.
    own_pretraining_noise: whether late rewinding has a noise of its own, as in the paper, so that a rewound
        dense training is not the unrewound one over again.
    title: what it is about, for its page.
    same_noise: whether every round sees the noise of round 0 again.
    order_noise, augmentation_noise: numbers of the two causes of the noise apart, as for
        :func:`~tombola.train`, the same for every seed; None for that of the seed.
    teacher: what recipes of loss ``"distillation"`` learn from, late rewinding included: the job of a run or
        ticket, one of these itself, or as text the beginning of the name of a finished job, or a file.
    diet: which stages see a part of the train images only, after Paul et al. (2022), by the fields of
        :class:`~tombola.experiments.diet_chains.Diet`: ``{"share": 0.25, "chosen": "least_forgotten",
        "stages": ["search"]}``. Empty for none.
    predictors: measures that are taken early in the dense training of each configuration alone, in the same
        form: of the network after ``early`` epochs, such as ``"gradient-noise.scale"``, or, where a measure
        trains by a recipe itself, as ``"early-bird.latest"``, of the start. They and every other number of
        the dense networks are compared with how the tickets do (:mod:`tombola.views.predictors`).
    early: that epoch; 5 if nothing is said, and where a chain rewinds to a later one, its start.

    Raises :class:`~tombola.errors.ExperimentError` for fields that do not fit.
    """

    def __post_init__(self) -> None:
        for name in (*_NUMBERS, *NOISES):
            object.__setattr__(self, name, _as_pythons(getattr(self, name)))
        object.__setattr__(self, "recipe", _written_out(self.recipe, self.name))
        check_names(self)
        self._write_lengths()
        check_values(self)

    def at(self, store: Store | None = None) -> Bound:
        """Everything that it measures, as jobs, and how it is shown.

        store: where a teacher that goes by its name is found, such as ``lab.store``.

        Raises what :func:`~tombola.lab.chains.imp_jobs` and :func:`~tombola.lab.job.job` raise, and
        :class:`~tombola.errors.ExperimentError` for a measure of something else than runs or tickets.
        """
        if isinstance(self.teacher, str):
            return self.with_teacher(store).at()
        return Bound(
            name=self.name,
            title=self.title or self.name,
            items=tuple(items_of(self)),
            show=partial(exhibits_of, scope=None if self.searches else self.scope),
            about=self.about,
            budget=f"{budgets_text(self)}, {seeds_text(self)}",
        )

    def chains(self, store: Store | None = None) -> list[list[Job]]:
        """The trainings of each chain, the first of them dense; by configuration, and in each by seed.

        store: as for :meth:`at`.

        Raises as :func:`~tombola.lab.chains.imp_jobs`.
        """
        if isinstance(self.teacher, str):
            return self.with_teacher(store).chains()
        return [chain_of(self, point, seed) for point in grid_of(self) for seed in self.seed_numbers]

    def with_teacher(self, store: Store | None) -> Experiment:
        """The same with its teacher found by its name in a store; without one only a file is found.

        Raises :class:`~tombola.errors.JobError` if there is none of that name, or several.
        """
        if not isinstance(self.teacher, str):
            return self
        return dataclasses.replace(self, teacher=named_teacher(store, self.teacher))

    @property
    def about(self) -> str:
        """What is trained, pruned and measured, in sentences."""
        return about_text(self)

    def _write_lengths(self) -> None:
        """Write lengths as jobs have them, and refuse text that is none."""
        try:
            rewind = [written_length(length) for length in self.rewinds]
            object.__setattr__(self, "rewind", rewind if is_list(self.rewind) else rewind[0])
            if isinstance(self.recipe, Mapping):
                lengths = {name: _written(self.recipe[name]) for name in LENGTHS if name in self.recipe}
                object.__setattr__(self, "recipe", {**self.recipe, **lengths})
        except RecipeError as error:
            raise ExperimentError(f"{self.name}: {error}") from error


OwnStudy = Experiment
"""The name of an :class:`Experiment` in files that were written before it had this one."""


def _as_pythons(value: Any) -> Any:
    """Numbers and arrays of numpy's as Python's, also within lists and mappings; anything else as it is."""
    if isinstance(value, numpy.generic | numpy.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(map(_as_pythons, value))
    if isinstance(value, Mapping):
        return {name: _as_pythons(item) for name, item in value.items()}
    return value


def _written_out(recipe: Any, experiment: str) -> Any:
    """A recipe that goes by a name, or has fields ``like`` a named one, by its fields; any other as it is."""
    like = recipe if isinstance(recipe, str) else recipe.get("like") if isinstance(recipe, Mapping) else None
    if like is None:
        return recipe
    own = {} if isinstance(recipe, str) else {key: value for key, value in recipe.items() if key != "like"}
    try:
        return {**recipe_fields(like), **own}
    except RecipeError as error:
        raise ExperimentError(f"{experiment}: {error}") from error


def _written(content: Any) -> Any:
    """Lengths, also within lists, as jobs have them; anything else as it is."""
    if isinstance(content, list | tuple):
        return [_written(value) for value in content]
    return written_length(content) if isinstance(content, str) else content
