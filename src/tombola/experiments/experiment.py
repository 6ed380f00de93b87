"""Experiments of one's own: a grid of pruning chains, and what is measured on them.

One is written as a Python file that makes an :class:`Experiment`, or as a small TOML file with the same
fields. Networks and measures stand in it by their declared names. What it measures as items is in
:mod:`tombola.experiments.chain_items`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import ExperimentError, RecipeError, unknown
from tombola.experiments.bound import Bound
from tombola.experiments.chain_exhibits import exhibits_of
from tombola.experiments.chain_items import BETWEEN, ChainItem, measure_items, scalar
from tombola.lab import call_values
from tombola.lab.chains import imp_jobs
from tombola.lab.job import Job
from tombola.networks.versions import as_written
from tombola.pruning.allocation import Scope
from tombola.pruning.prune import Pruning
from tombola.pruning.scores import DEFAULT, written_score
from tombola.table.key import Key, Scalar, sparsity_of
from tombola.table.number import many
from tombola.training.recipe import Recipe

Measures = Sequence[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""Declared names, or a mapping from each to its options, or to a list of them."""

PRETRAINING_NOISE = 100
"""Added to a seed for the noise of its late rewinding, where that is to have one of its own."""


@dataclass(frozen=True)
class GridPoint:
    """A configuration of an experiment, of which it has a chain for each seed.

    varied: the fields of the recipe in which the configurations of the experiment differ.
    """

    network: str
    data: str | Data
    rewind: int
    score: str
    varied: Mapping[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Experiment:
    """Pruning chains of every network on every data set by every recipe, and measures of each round.

    name: of the experiment and its files. networks: declared names. data: names, folders, or sets themselves.
    recipe: a :class:`~tombola.Recipe`, or fields of one by name, where a list of values makes a recipe of
        each, in all combinations.
    rounds: number of prunings. rewind: epoch to rewind to. fraction: share that a round prunes, or a list
    with that of each round. scope, exclude, same_sign, invert: as for :func:`~tombola.prune`.
    score: what weights are ranked by, a declared name or a list of them, which makes chains by each.
    seeds: number of runs, which differ in initialisation and noise, or a list of their numbers.
    init: how the first weights are drawn, by the declared name of a scheme; None for each network's own.
    measures: declared names; those with options, as a mapping from the name to them. A measure takes the run
        or the ticket of a round and, if it wants, the data. The accuracy of the runs is always there.
    between: measures of several runs, in the same form, by what they are taken between: ``"copies"``, the
        trainings of a round's ticket under different noise, or ``"rounds"``, the runs of a round and of the
        next. A measure of two runs is taken of every pair.
    copies: how many trainings of each ticket there are then, the chain's own among them.
    copies_at: the rounds at which tickets have copies; None for all, which costs as many trainings again.
    own_pretraining_noise: whether late rewinding has a noise of its own, as in the paper, so that a rewound
        dense training is not the unrewound one over again.
    title: what it is about, for its page.
    same_noise: whether every round sees the noise of round 0 again.

    Raises :class:`~tombola.errors.ExperimentError` for fields that do not fit.
    """

    name: str
    networks: Sequence[str] = ("convnet",)
    data: Sequence[str | Data] = ("digits",)
    recipe: Mapping[str, Any] | Recipe = field(default_factory=dict)
    rounds: int = 0
    rewind: int | Sequence[int] = 0
    fraction: float | Sequence[float] = 0.2
    scope: Scope = "global"
    exclude: Sequence[str] = ()
    score: str | Sequence[str] = DEFAULT
    same_sign: bool = False
    invert: bool = False
    seeds: int | Sequence[int] = 1
    init: str | None = None
    measures: Measures = ()
    between: Mapping[str, Measures] = field(default_factory=dict)
    copies: int = 3
    copies_at: Sequence[int] | None = None
    own_pretraining_noise: bool = False
    title: str = ""
    same_noise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name != os.path.basename(self.name):
            raise ExperimentError(
                f"an experiment is called {self.name!r}; its name must do as the name of a file"
            )
        self._check_subjects()
        self._check_measures()
        self._check_recipe()
        self._check_numbers()

    def at(self) -> Bound:
        """Everything that it measures, as jobs, and how it is shown.

        Raises what :func:`~tombola.lab.chains.imp_jobs` and :func:`~tombola.lab.job.job` raise, and
        :class:`~tombola.errors.ExperimentError` for a measure of something else than runs or tickets.
        """
        epochs = {recipe.epochs for _, recipe in self.recipes()}
        return Bound(
            name=self.name,
            title=self.title or self.name,
            items=tuple(self._items()),
            show=partial(exhibits_of, scope=self.scope),
            about=self.about,
            budget=f"{_epochs_text(sorted(epochs))}, {self._seeds()}",
        )

    def chains(self) -> list[list[Job]]:
        """The trainings of each chain, the first of them dense; by configuration, and in each by seed.

        Raises as :func:`~tombola.lab.chains.imp_jobs`.
        """
        return [self._chain(point, seed) for point in self._grid() for seed in self.seed_numbers]

    @property
    def about(self) -> str:
        """What is trained, pruned and measured, in sentences."""
        return " ".join([self._trainings(), self._prunings(), self._repetitions()])

    def _trainings(self) -> str:
        """What is trained, and how, in sentences."""
        names = dict.fromkeys(["lr", "momentum", "batch_size", *self._recipe_fields])
        recipe = [
            f"{RECIPE_WORDS.get(name, name.replace('_', ' '))} {_listed(self._choices(name))}"
            for name in names
            if name != "epochs"
        ]
        init = f" The first weights are drawn by the scheme {self.init}." if self.init else ""
        return (
            f"{_listed(list(self.networks))} on {_listed(list(map(_name_of, self.data)))}, trained for "
            f"{_epochs_text(self._choices('epochs'))} with {', '.join(recipe)}.{init}"
        )

    def _prunings(self) -> str:
        """How tickets come about, in sentences."""
        if not self.rounds:
            return "Nothing is pruned."
        starts = [f"epoch {epoch}" if epoch else "initialisation" for epoch in self.rewinds]
        fractions = self.pruning(self.scores[0]).prunings(self.rounds)
        removed = [f"{100 * fraction:g}%" for fraction in fractions]
        sentences = [
            f"{many(self.rounds, 'round')} of pruning: the {_listed(removed, 'then')} {self._lowest()} "
            f"are removed, the rest go back to {_listed(starts, 'or')}"
            + (" (separate chains)" if len(starts) > 1 else "")
            + ", and the sparser network is trained again.",
            _SHARES.get(self.scope, ""),
            "Weights whose sign is another than at the start go first." if self.same_sign else "",
            f"Never pruned: {', '.join(self.exclude)}." if self.exclude else "",
            "What is left after a pruning is a ticket.",
        ]
        return " ".join(filter(None, sentences))

    def _lowest(self) -> str:
        """Which weights a pruning removes."""
        weights = "remaining weights of each layer" if self.scope == "layerwise" else "remaining weights"
        if self.scores == (DEFAULT,):
            return f"{'largest' if self.invert else 'smallest'} of the {weights}"
        scores = f"{_listed(self.scores, 'or')}{' (separate chains)' if len(self.scores) > 1 else ''}"
        return f"{'highest' if self.invert else 'lowest'} of the {weights} by the score {scores}"

    def _repetitions(self) -> str:
        """What is drawn anew in each run, in a sentence."""
        if not isinstance(self.seeds, int):
            number = "number" if len(self.seeds) > 1 else "numbers"
            noises = "the same in every round" if self.same_noise else "another in every round"
            return (
                f"{self._seeds().capitalize()} {number} the draw of the first weights and the noise of "
                f"training, {noises}: {_NOISE}."
            )
        draws = (
            "which is one draw of the first weights and of the noise of training"
            if self.seeds == 1
            else "which differ in the first weights and in the noise of training"
        )
        again = " The noise is the same in every round." if self.same_noise else ""
        return f"All of it with {self._seeds()}, {draws}: {_NOISE}.{again}"

    def _seeds(self) -> str:
        """How many seeds, or which: "2 seeds", "seed 7"."""
        if isinstance(self.seeds, int):
            return many(self.seeds, "seed")
        return f"seed{'s' * (len(self.seeds) > 1)} {_listed(self.seeds)}"

    @property
    def _recipe_fields(self) -> Mapping[str, Any]:
        """The fields of the recipe that are told: those given, of a whole recipe those that are not usual."""
        if not isinstance(self.recipe, Recipe):
            return self.recipe
        usual = vars(Recipe())
        return {
            name: value
            for name, value in vars(self.recipe).items()
            if name in _ALWAYS_TOLD or value != usual[name]
        }

    def _choices(self, name: str) -> list[object]:
        """The values of a field of the recipe, one or several."""
        return _choices_of(self._recipe_fields.get(name, getattr(Recipe, name, None)))

    def recipes(self) -> list[tuple[dict[str, Any], Recipe]]:
        """Every recipe of the grid, with the fields in which they differ."""
        if isinstance(self.recipe, Recipe):
            return [({}, self.recipe)]
        axes = {key: value for key, value in self.recipe.items() if isinstance(value, list | tuple)}
        fixed = {key: value for key, value in self.recipe.items() if key not in axes}
        combined = itertools.product(*axes.values())
        varied = [dict(zip(axes, values, strict=True)) for values in combined]
        try:
            return [(fields, Recipe(**fixed, **fields)) for fields in varied]
        except TypeError as error:
            raise ExperimentError(f"{self.name}: the recipe does not fit: {error}") from error

    @property
    def rewinds(self) -> tuple[int, ...]:
        """The epochs to rewind to."""
        return tuple(self.rewind) if isinstance(self.rewind, Sequence) else (self.rewind,)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The number of each run, of its initialisation and of its noise."""
        return tuple(self.seeds) if isinstance(self.seeds, Sequence) else tuple(range(self.seeds))

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores, with their versions."""
        scores = [self.score] if isinstance(self.score, str) else self.score
        return tuple(map(written_score, scores))

    def pruning(self, score: str) -> Pruning:
        """How the chains of a score are pruned.

        Raises :class:`~tombola.errors.RecipeError` for a setting out of range.
        """
        return Pruning(
            self.fraction, self.scope, self.exclude, as_written(score), self.same_sign, self.invert
        )

    def _grid(self) -> Iterator[GridPoint]:
        grid = itertools.product(self.networks, self.data, self.rewinds, self.scores, self.recipes())
        for network, data, rewind, score, (varied, recipe) in grid:
            yield GridPoint(network, data, rewind, score, varied, recipe)

    def _chain(self, point: GridPoint, seed: int) -> list[Job]:
        return imp_jobs(
            point.network, point.data, point.recipe, rounds=self.rounds, rewind=point.rewind,
            same_noise=self.same_noise, seed=seed, init=self.init,
            pretraining_noise=PRETRAINING_NOISE + seed if self.own_pretraining_noise else None,
            **vars(self.pruning(point.score)),
        )  # fmt: skip

    def _items(self) -> Iterator[ChainItem]:
        for point in self._grid():
            epochs = point.recipe.epochs
            if point.rewind >= epochs:
                raise RecipeError(f"{self.name}: rewind is {point.rewind} of {many(epochs, 'epoch')}")
            chains = {seed: self._chain(point, seed) for seed in self.seed_numbers}
            for number in range(self.rounds + 1):
                yield from measure_items(self, chains, self._key(point, number), number, point)

    def _key(self, point: GridPoint, number: int) -> Key:
        """The key of a round of the chains of a configuration, whose metric is still open."""
        more: list[tuple[str, Scalar]] = [
            # A column of the table is called epochs already.
            ("budget" if name == "epochs" else name, scalar(value))
            for name, value in point.varied.items()
            if name not in ("momentum", "batch_size")
        ]
        if len([epoch for epoch in self.rewinds if epoch]) > 1:
            more.append(("rewind", point.rewind))
        pruning = self.pruning(point.score)
        if self.scores != (DEFAULT,):
            more.append(("score", point.score))
        more += [
            (name, call_values.scalar(value))  # as the table has it of a single job
            for name in ("scope", "exclude", "same_sign", "invert")
            if (value := getattr(pruning, name)) != getattr(Pruning, name)
        ]
        return Key(
            metric="", network=point.network, dataset=_name_of(point.data), momentum=point.recipe.momentum,
            batch_size=point.recipe.batch_size, pretrained=point.rewind > 0,
            sparsity=sparsity_of(pruning.prunings(number)), more=tuple(more),
        )  # fmt: skip

    def _check_subjects(self) -> None:
        """Refuse networks or data that are no lists of different names."""
        for key in ("networks", "data"):
            entries = getattr(self, key)
            if not _is_list(entries) or not entries:
                raise ExperimentError(f"{self.name}: {key} is {entries!r:.60}; give a list of at least one")
            named = [
                isinstance(entry, str) or (key == "data" and isinstance(entry, Data)) for entry in entries
            ]
            if not all(named):
                raise ExperimentError(
                    f"{self.name}: {key} is {entries!r:.60}; they stand in it by their names"
                )
            self._check_different(key, [_name_of(entry) for entry in entries])

    def _check_measures(self) -> None:
        """Refuse measures that are not given by name, with options by name."""
        if not isinstance(self.between, Mapping):
            raise ExperimentError(
                f"{self.name}: between is {self.between!r}; give measures for each of {' and '.join(BETWEEN)}"
            )
        for key in self.between:
            if key not in BETWEEN:
                raise ExperimentError(
                    f"{self.name}: {unknown('kind of runs to measure between', key, BETWEEN)}"
                )
        for key, measures in (("measures", self.measures), *self.between.items()):
            if isinstance(measures, str):
                raise ExperimentError(f"{self.name}: {key} is {measures!r}; give a list, [{measures!r}]")
            if not _is_list(measures) and not isinstance(measures, Mapping):
                raise ExperimentError(f"{self.name}: {key} is {measures!r:.60}; give a list of measures")
            if not all(isinstance(name, str) for name in measures):
                raise ExperimentError(
                    f"{self.name}: {key} is {measures!r:.60}; measures stand in it by their names"
                )
            for name, options in measures.items() if isinstance(measures, Mapping) else ():
                choices = options if _is_list(options) else [options]
                if not choices or not all(isinstance(choice, Mapping) for choice in choices):
                    raise ExperimentError(
                        f"{self.name}: {key} has {name} = {options!r:.60}; give its options by name, or {{}}"
                    )

    def _check_recipe(self) -> None:
        """Refuse fields of the recipe that no training could have, and values that stand there twice."""
        if isinstance(self.recipe, Recipe):  # which refuses them itself
            return
        if not isinstance(self.recipe, Mapping):
            raise ExperimentError(f"{self.name}: recipe is {self.recipe!r:.60}; give its fields by name")
        fields = {field.name: field for field in dataclasses.fields(Recipe)}
        for key, content in self.recipe.items():
            if key not in fields:
                raise ExperimentError(f"{self.name}: {unknown('field of a recipe', key, list(fields))}")
            choices = _choices_of(content)
            if not choices:
                raise ExperimentError(f"{self.name}: recipe has {key} = {content!r}; give at least one value")
            counts = isinstance(fields[key].default, int | float)
            for value in choices:
                if counts and not _is_number(value):
                    raise ExperimentError(
                        f"{self.name}: recipe has {key} = {value!r:.60}; it must be a number"
                    )
            self._check_different(f"{key} of the recipe", choices)

    def _check_numbers(self) -> None:
        """Refuse counts out of range, and epochs or rounds that stand there twice."""
        counts: list[tuple[str, object, int, float]] = [("rounds", self.rounds, 0, math.inf)]
        counts += [] if _is_list(self.seeds) else [("seeds", self.seeds, 1, PRETRAINING_NOISE)]
        counts += [("copies", self.copies, 2, PRETRAINING_NOISE)]
        counts += [("rewind", rewind, 0, math.inf) for rewind in self.rewinds]
        counts += [("copies_at", number, 0, math.inf) for number in self.copies_at or ()]
        for key, count, least, most in counts:
            if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= most:
                also = f" and at most {most}: noises from there on are of pretraining" * (most < math.inf)
                raise ExperimentError(
                    f"{self.name}: {key} is {count!r}; it must be a whole number, at least {least}{also}"
                )
        self._check_seeds()
        if not self.rewinds:
            raise ExperimentError(f"{self.name}: rewind is an empty list; give at least one epoch")
        if not isinstance(self.init, str | None):
            raise ExperimentError(f"{self.name}: init is {self.init!r:.60}; give the name of a scheme")
        self._check_different("rewind", self.rewinds)
        self._check_different("copies_at", self.copies_at or ())
        fractions = list(self.fraction) if isinstance(self.fraction, list | tuple) else [self.fraction]
        if not all(map(_is_number, fractions)):
            raise ExperimentError(f"{self.name}: fraction is {self.fraction!r}; it must be a number")
        self._check_pruning()

    def _check_seeds(self) -> None:
        """Refuse a list of seeds that are no different whole numbers, or whose noises are of pretraining."""
        if not _is_list(self.seeds):
            return
        integral = [isinstance(seed, int) and not isinstance(seed, bool) for seed in self.seed_numbers]
        if not all(integral) or not integral:
            raise ExperimentError(
                f"{self.name}: seeds is {self.seeds!r:.60}; give how many, or a list of whole numbers"
            )
        self._check_different("seeds", self.seed_numbers)
        if self.own_pretraining_noise and not set(self.seed_numbers) <= set(range(PRETRAINING_NOISE)):
            raise ExperimentError(
                f"{self.name}: seeds is {self.seeds!r:.60}; with own_pretraining_noise they must be "
                f"from 0 to {PRETRAINING_NOISE - 1}: noises from there on are of pretraining"
            )

    def _check_pruning(self) -> None:
        """Refuse prunings that there are not."""
        for key in ("same_sign", "invert", "same_noise"):
            if not isinstance(getattr(self, key), bool):
                raise ExperimentError(f"{self.name}: {key} is {getattr(self, key)!r:.60}; give true or false")
        if not _is_list(self.exclude) or not all(isinstance(name, str) for name in self.exclude):
            raise ExperimentError(f"{self.name}: exclude is {self.exclude!r:.60}; give a list of names")
        scores = [self.score] if isinstance(self.score, str) else self.score
        if not _is_list(scores) or not scores or not all(isinstance(name, str) for name in scores):
            raise ExperimentError(f"{self.name}: score is {self.score!r:.60}; give names of declared scores")
        if not isinstance(self.scope, str):
            raise ExperimentError(f"{self.name}: scope is {self.scope!r:.60}; give its name")
        try:
            self._check_different("score", self.scores)
            self.pruning(self.scores[0]).prunings(self.rounds)
        except RecipeError as error:
            raise ExperimentError(f"{self.name}: {error}") from error

    def _check_different(self, key: str, values: Sequence[object]) -> None:
        """Refuse a value that stands twice: its runs would count as more repetitions than there are."""
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ExperimentError(f"{self.name}: {key} has {value!r:.60} twice; give each value once")


OwnStudy = Experiment
"""The name of an :class:`Experiment` in files that were written before it had this one."""

_SHARES: Mapping[str, str] = {
    "uniform": "Every layer keeps the same share of its weights.",
    "erk": "Layers keep shares of their weights in proportion to the sum over the product of their "
    "dimensions (Erdos-Renyi-Kernel).",
}
"""How many weights layers keep where the ranking does not tell."""

RECIPE_WORDS = {"batch_size": "batch size", "lr": "learning rate"}
_ALWAYS_TOLD = ("epochs", "lr", "momentum", "batch_size", "weight_decay", "schedule")
_NOISE = "the order and, where used, the augmentation of the images"


def _epochs_text(budgets: Sequence[object]) -> str:
    """Some budgets in words: "1 epoch", "10 and 20 epochs"."""
    return f"{_listed(budgets)} epoch{'' if list(budgets) == [1] else 's'}"


def _listed(values: Sequence[object], word: str = "and") -> str:
    """Values with a word before the last: "0.0 and 0.9"."""
    texts = [str(value) for value in values]
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _choices_of(content: object) -> list[object]:
    """The values of a field of a recipe, one or several."""
    return list(content) if isinstance(content, list | tuple) else [content]


def _name_of(data: str | Data) -> str:
    return data.name if isinstance(data, Data) else data


def _is_number(value: object) -> bool:
    """Whether something is a number and no truth value, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    """Whether something is a list or the like, and no single text."""
    return isinstance(value, Sequence) and not isinstance(value, str)
