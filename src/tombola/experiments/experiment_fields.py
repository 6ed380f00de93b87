"""What an experiment declares, field by field, and the values that these fields stand for.

:class:`~tombola.experiments.experiment.Experiment` says what each field means. Checks, sentences, keys,
chains and measures of experiments are functions of these fields, in files of their own beside this one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tombola.data.augmentation import Augmentation
from tombola.data.imageset import Data
from tombola.declarations import as_written
from tombola.errors import ExperimentError
from tombola.experiments.searches import TicketSearch
from tombola.lab import call_values
from tombola.lab.teacher import Teacher
from tombola.measures.instability import Difference
from tombola.pruning.allocation import Scope
from tombola.pruning.prune import Pruning, Rates, Rewinding
from tombola.pruning.scores import DEFAULT, written_score
from tombola.seeds import NOISES
from tombola.table.key import Baseline, Scalar
from tombola.training.length import Length
from tombola.training.recipe import Recipe

T = TypeVar("T")
Measures = Sequence[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""Declared names, or a mapping from each to its options, or to a list of them."""

COPIES, ROUNDS, LATER = "copies", "rounds", "later_rounds"
BETWEEN = (COPIES, ROUNDS, LATER)
"""The runs that a measure of several can be taken between."""
PRETRAINING_NOISE = 100
"""Added to a seed for the noise of its late rewinding, where that is to have one of its own."""
_LISTS = ("milestones", "betas")
"""Fields of a recipe whose single value is a list."""


@dataclass(frozen=True)
class GridPoint:
    """A configuration of an experiment, of which it has a chain for each seed.

    varied: the fields of the recipe in which the configurations of the experiment differ.
    search: what finds its tickets in place of the prunings of a chain. control: of which tickets it has that.
    """

    network: str
    data: str | Data
    rewind: Length
    pruning: Pruning
    varied: Mapping[str, Any]
    recipe: Recipe
    search: TicketSearch | None = None
    control: Baseline | None = None


@dataclass(frozen=True)
class ExperimentFields:
    """The fields of an :class:`~tombola.experiments.experiment.Experiment`, not checked yet."""

    name: str
    networks: Sequence[str] = ("convnet",)
    data: Sequence[str | Data] = ("digits",)
    recipe: Mapping[str, Any] | Recipe = field(default_factory=dict)
    rounds: int = 0
    rewind: Length | Sequence[Length] = 0
    fraction: float | Sequence[float] = 0.2
    scope: Scope = "global"
    exclude: Sequence[str] = ()
    score: str | Sequence[str] = DEFAULT
    same_sign: bool = False
    invert: bool = False
    rewinding: Rewinding | Sequence[Rewinding] = "weights"
    seeds: int | Sequence[int] = 1
    init: str | None = None
    measures: Measures = ()
    between: Mapping[str, Measures] = field(default_factory=dict)
    copies: int = 3
    copies_at: Sequence[int] | None = None
    differ_in: Difference | Sequence[Difference] = "noise"
    own_pretraining_noise: bool = False
    title: str = ""
    same_noise: bool = False
    order_noise: int | None = None
    augmentation_noise: int | None = None
    searches: Measures = ()
    controls: Sequence[Baseline] = ()
    compared_at: Sequence[int] | None = None
    teacher: Teacher | str | None = None
    rates: Rates = ()
    diet: Mapping[str, Any] = field(default_factory=dict)
    predictors: Measures = ()
    early: int = 5

    def recipes(self) -> list[tuple[dict[str, Any], Recipe]]:
        """Every recipe of the grid, with the fields in which they differ."""
        if isinstance(self.recipe, Recipe):
            return [({}, self.recipe)]
        axes = {key: choices_of(key, value) for key, value in self.recipe.items() if _varies(key, value)}
        fixed = {key: value for key, value in self.recipe.items() if key not in axes}
        combined = itertools.product(*axes.values())
        varied = [dict(zip(axes, values, strict=True)) for values in combined]
        try:
            return [(fields, _recipe(fixed | fields)) for fields in varied]
        except TypeError as error:
            raise ExperimentError(f"{self.name}: the recipe does not fit: {error}") from error

    @property
    def rewinds(self) -> tuple[Length, ...]:
        """The places to rewind to."""
        return _several(self.rewind)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The number of each run, of its initialisation and of its noise."""
        return tuple(self.seeds) if isinstance(self.seeds, Sequence) else tuple(range(self.seeds))

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores, with their versions."""
        scores = [self.score] if isinstance(self.score, str) else self.score
        return tuple(map(written_score, scores))

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What the copies of a ticket differ in, for each kind of copies."""
        return _several(self.differ_in)

    @property
    def rewindings(self) -> tuple[Rewinding, ...]:
        """What goes back to the start, for each kind of chains."""
        return _several(self.rewinding)

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """How chains are pruned, by each score and with each rewinding.

        Raises :class:`~tombola.errors.RecipeError` for a setting out of range.
        """
        same = self.fraction, self.scope, self.exclude
        return tuple(
            Pruning(*same, as_written(score), self.same_sign, self.invert, rewinding, self.rates)
            for score, rewinding in itertools.product(self.scores, self.rewindings)
        )

    def teacher_of(self, point: GridPoint) -> Teacher | None:
        """What a configuration learns from: nothing but where it distils."""
        if point.recipe.loss != "distillation" or isinstance(self.teacher, str):
            return None
        return self.teacher


def numbered_causes(experiment: ExperimentFields) -> dict[str, Scalar]:
    """The numbers of causes of noise that are not the seed's, as keys have them.

    Relative to a single seed, so that runs of other seeds whose numbers go with theirs are repetitions.
    """
    seed = experiment.seed_numbers[0] if len(experiment.seed_numbers) == 1 else None
    numbers = {name: getattr(experiment, name) for name in NOISES}
    return {
        name: call_values.relative(number, seed)
        for name, number in numbers.items()
        if number not in (None, seed)
    }


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe of fields by name, those of its augmentation by theirs; TypeError for one that it lacks."""
    augmentation = values.get("augmentation", Augmentation())
    if isinstance(augmentation, Mapping):
        augmentation = Augmentation(**augmentation)
    if not isinstance(augmentation, Augmentation):
        raise TypeError(f"augmentation is {augmentation!r:.60}; give its fields by name")
    return Recipe(**{**values, "augmentation": augmentation})


def _several(choice: T | Sequence[T]) -> tuple[T, ...]:
    """The values of a field that takes one, as it is, or a list of them."""
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        return tuple(choice)
    return (choice,)


def choices_of(name: str, content: object) -> list[Any]:
    """The values of a field of a recipe, one or several."""
    return list(content) if _varies(name, content) and isinstance(content, list | tuple) else [content]


def _varies(name: str, content: object) -> bool:
    """Whether a field of a recipe has a list of values, not one that is a list, as milestones are."""
    if not isinstance(content, list | tuple):
        return False
    return name not in _LISTS or not content or all(isinstance(value, list | tuple) for value in content)


def name_of(data: str | Data) -> str:
    """The name of a data set, which may be given by it."""
    return data.name if isinstance(data, Data) else data
