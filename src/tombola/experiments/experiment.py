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
from typing import Any, TypeGuard, TypeVar

import numpy

from tombola.data.augmentation import Augmentation
from tombola.data.imageset import Data
from tombola.declarations import as_written
from tombola.errors import ExperimentError, RecipeError, unknown
from tombola.experiments.bound import Bound
from tombola.experiments.chain_exhibits import exhibits_of
from tombola.experiments.chain_items import BETWEEN, COPIES, ChainItem, measure_items
from tombola.experiments.diet_chains import Diet
from tombola.experiments.searches import CONTROLS, TicketSearch, control_of, searches_of
from tombola.lab import call_values
from tombola.lab.chains import as_job, imp_jobs, training_job
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.teacher import Teacher, axes_of, named_teacher
from tombola.measures.instability import DIFFERENCES, Difference
from tombola.pruning.allocation import Scope
from tombola.pruning.prune import REWINDINGS, Pruning, Rates, Rewinding
from tombola.pruning.scores import DEFAULT, written_score
from tombola.seeds import NOISES
from tombola.table.key import ITERATIONS, Baseline, Key, Scalar, sparsity_of
from tombola.table.number import many
from tombola.ticket import Ticket
from tombola.training.length import Length, is_length, iterations_of, length_text, place_text, written_length
from tombola.training.recipe import Recipe, has_momentum
from tombola.training.run import Run

T = TypeVar("T")
Measures = Sequence[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""Declared names, or a mapping from each to its options, or to a list of them."""

PRETRAINING_NOISE = 100
"""Added to a seed for the noise of its late rewinding, where that is to have one of its own."""


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
class Experiment:
    """Pruning chains of every network on every data set by every recipe, and measures of each round.

    name: of the experiment and its files. networks: declared names. data: names, folders, or sets themselves.
    recipe: a :class:`~tombola.Recipe`, or fields of one by name, where a list of values makes a recipe of
        each, in all combinations, and fields of its augmentation stand in a mapping.
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

    Raises :class:`~tombola.errors.ExperimentError` for fields that do not fit.
    """

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

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name != os.path.basename(self.name):
            raise ExperimentError(
                f"an experiment is called {self.name!r}; its name must do as the name of a file"
            )
        for name in (*_NUMBERS, *NOISES):
            object.__setattr__(self, name, _as_pythons(getattr(self, name)))
        self._check_subjects()
        self._check_measures()
        self._write_lengths()
        self._check_recipe()
        self._check_numbers()
        self._check_teacher()
        self._check_diet()

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
            items=tuple(self._items()),
            show=partial(exhibits_of, scope=None if self.searches else self.scope),
            about=self.about,
            budget=f"{self._budgets()}, {self._seeds()}",
        )

    def chains(self, store: Store | None = None) -> list[list[Job]]:
        """The trainings of each chain, the first of them dense; by configuration, and in each by seed.

        store: as for :meth:`at`.

        Raises as :func:`~tombola.lab.chains.imp_jobs`.
        """
        if isinstance(self.teacher, str):
            return self.with_teacher(store).chains()
        return [self._chain(point, seed) for point in self._grid() for seed in self.seed_numbers]

    def with_teacher(self, store: Store | None) -> Experiment:
        """The same with its teacher found by its name in a store; without one only a file is found.

        Raises :class:`~tombola.errors.JobError` if there is none of that name, or several.
        """
        if not isinstance(self.teacher, str):
            return self
        return dataclasses.replace(self, teacher=named_teacher(store, self.teacher))

    def teacher_of(self, point: GridPoint) -> Teacher | None:
        """What a configuration learns from: nothing but where it distils."""
        if point.recipe.loss != "distillation" or isinstance(self.teacher, str):
            return None
        return self.teacher

    @property
    def about(self) -> str:
        """What is trained, pruned and measured, in sentences."""
        sentences = [self._trainings(), self._prunings(), self._comparisons(), self._repetitions()]
        return " ".join(filter(None, sentences))

    def _trainings(self) -> str:
        """What is trained, and how, in sentences."""
        names = dict.fromkeys(["lr", "momentum", "batch_size", *self._recipe_fields])
        recipe = [
            f"{RECIPE_WORDS.get(name, name.replace('_', ' '))} {_listed(self._choices(name))}"
            for name in names
            if name != "epochs" and not (name == "momentum" and self._choices("optimizer") == ["adamw"])
        ]
        init = f" The first weights are drawn by the scheme {self.init}." if self.init else ""
        taught = ""
        if self.teacher is not None:
            axes = {"teacher_job": self.teacher} if isinstance(self.teacher, str) else axes_of(self.teacher)
            network = f", a {axes['teacher']}" if axes.get("teacher") not in (None, "own") else ""
            taught = f" The teacher of distillation is {axes['teacher_job']}{network}."
        return (
            f"{_listed(list(self.networks))} on {_listed(list(map(_name_of, self.data)))}, trained for "
            f"{self._budgets()} with {', '.join(recipe)}.{taught}{init}"
        )

    def _prunings(self) -> str:
        """How tickets come about, in sentences."""
        if not self.rounds:
            return "Nothing is pruned."
        starts = list(map(place_text, self.rewinds))
        fractions = self.prunings[0].prunings(self.rounds)
        removed = [f"{100 * fraction:g}%" for fraction in fractions]
        sentences = [
            f"{many(self.rounds, 'round')} of pruning: the {_listed(removed, 'then')} {self._lowest()} "
            f"are removed, {self._going_back(_listed(starts, 'or'))}"
            + (" (separate chains)" if len(starts) * len(self.rewindings) > 1 else "")
            + ", and the sparser network is trained again.",
            _SHARES.get(self.scope, ""),
            "Weights whose sign is another than at the start go first." if self.same_sign else "",
            f"Never pruned: {', '.join(self.exclude)}." if self.exclude else "",
            f"Of other rates than the rest: {_rates_text(self.prunings[0].rates)}." if self.rates else "",
            "What is left after a pruning is a ticket.",
            str(Diet.of(self.diet)) if self.diet else "",
        ]
        return " ".join(filter(None, sentences))

    def _going_back(self, start: str) -> str:
        """What a pruning does with the weights that stay."""
        words = {
            "weights": f"the rest go back to {start}",
            "learning_rate": f"the rest stay as they are and the learning rate goes back to {start}",
        }
        return _listed([words[rewinding] for rewinding in self.rewindings], "or")

    def _lowest(self) -> str:
        """Which weights a pruning removes."""
        weights = "remaining weights of each layer" if self.scope == "layerwise" else "remaining weights"
        if self.scores == (DEFAULT,):
            return f"{'largest' if self.invert else 'smallest'} of the {weights}"
        scores = f"{_listed(self.scores, 'or')}{' (separate chains)' if len(self.scores) > 1 else ''}"
        return f"{'highest' if self.invert else 'lowest'} of the {weights} by the score {scores}"

    def _comparisons(self) -> str:
        """What tickets are compared with, in sentences."""
        places = self.compared_at
        where = None if places is None else f"round{'s' * (len(places) > 1)} {_listed(places)}"
        sentences = []
        if self.searches:
            labels = "; ".join(search.label for search in self._searches)
            sentences.append(
                f"At the sparsity of {where or 'each round'} tickets are also found by "
                f"{_listed(list(self._search_names))} ({labels}), and trained likewise."
            )
        if self.controls:
            controls = _listed([_CONTROLS[control] for control in self.controls])
            sentences.append(f"Controls of the tickets{f' of {where}' if where else ''}: {controls}.")
        return " ".join(sentences)

    def _repetitions(self) -> str:
        """What is drawn anew in each run, in a sentence."""
        own = "".join(
            f" The {name.replace('_', ' ')} has a number of its own, {number}."
            for name, number in self._causes.items()
        )
        if not isinstance(self.seeds, int):
            number = "number" if len(self.seeds) > 1 else "numbers"
            noises = "the same in every round" if self.same_noise else "another in every round"
            return (
                f"{self._seeds().capitalize()} {number} the draw of the first weights and the noise of "
                f"training, {noises}: {_NOISE}.{own}"
            )
        draws = (
            "which is one draw of the first weights and of the noise of training"
            if self.seeds == 1
            else "which differ in the first weights and in the noise of training"
        )
        again = " The noise is the same in every round." if self.same_noise else ""
        return f"All of it with {self._seeds()}, {draws}: {_NOISE}.{again}{own}"

    def _budgets(self) -> str:
        """How long trainings are: "12 epochs"."""
        return _lengths_text([recipe.epochs for _, recipe in self.recipes()])

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
        return _choices_of(name, self._recipe_fields.get(name, getattr(Recipe, name, None)))

    def recipes(self) -> list[tuple[dict[str, Any], Recipe]]:
        """Every recipe of the grid, with the fields in which they differ."""
        if isinstance(self.recipe, Recipe):
            return [({}, self.recipe)]
        axes = {key: _choices_of(key, value) for key, value in self.recipe.items() if _varies(key, value)}
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
    def _causes(self) -> dict[str, Scalar]:
        """The numbers of causes of noise that are not the seed's, as keys have them.

        Relative to a single seed, so that runs of other seeds whose numbers go with theirs are repetitions.
        """
        seed = self.seed_numbers[0] if len(self.seed_numbers) == 1 else None
        numbers = {name: getattr(self, name) for name in NOISES}
        return {
            name: call_values.relative(number, seed)
            for name, number in numbers.items()
            if number not in (None, seed)
        }

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

    @property
    def _searches(self) -> tuple[TicketSearch, ...]:
        return searches_of(self.searches)

    @property
    def _search_names(self) -> tuple[str, ...]:
        """The declared names of the searches, each once."""
        return tuple(dict.fromkeys(search.name for search in self._searches))

    def _grid(self) -> Iterator[GridPoint]:
        ways: list[tuple[Pruning, TicketSearch | None]] = [(pruning, None) for pruning in self.prunings]
        # Of a chain that a search stands beside it has the sparsities.
        ways += [(self.prunings[0], search) for search in self._searches]
        grid = itertools.product(self.networks, self.data, self.rewinds, ways, self.recipes())
        for network, data, rewind, (pruning, search), (varied, recipe) in grid:
            for control in (None, *self.controls):
                yield GridPoint(network, data, rewind, pruning, varied, recipe, search, control)

    def _chain(self, point: GridPoint, seed: int) -> list[Job]:
        """The trainings of a configuration, the first of them dense, then that of each round."""
        noises: dict[str, Any] = {
            "same_noise": self.same_noise, "seed": seed, "order_noise": self.order_noise,
            "augmentation_noise": self.augmentation_noise,
            "teacher": self.teacher_of(point),
        }  # fmt: skip
        common: dict[str, Any] = {
            "rounds": self.rounds, "rewind": point.rewind, "init": self.init,
            "pretraining_noise": PRETRAINING_NOISE + seed if self.own_pretraining_noise else None,
        }  # fmt: skip
        if self.diet:
            chain = Diet.of(self.diet).chain(
                point.network, point.data, point.recipe, seed=seed, same_noise=self.same_noise,
                pruning=point.pruning, **common,
            )  # fmt: skip
        else:
            chain = imp_jobs(
                point.network, point.data, point.recipe, **common, **noises, **vars(point.pruning)
            )
        if point.search is None and point.control is None:
            return chain
        tickets = [as_job(run.arguments["ticket"]) for run in chain]
        if point.search is not None:
            start = tickets[0]
            tickets = [start] + [
                point.search.ticket(
                    start, point.data, point.recipe, sparsity=self._sparsity(number), seed=seed
                )
                for number in range(1, self.rounds + 1)
            ]
        if point.control is not None:
            tickets[1:] = [control_of(ticket, point.control, seed) for ticket in tickets[1:]]
        return [training_job(ticket, point.data, point.recipe, **noises) for ticket in tickets]

    def _sparsity(self, number: int) -> float:
        """The share of the weights that is pruned after a round, to twelve digits."""
        prunings = self.prunings[0].prunings(number)
        return round(1 - math.prod((1 - fraction) ** count for fraction, count in prunings.items()), 12)

    def _numbers(self, point: GridPoint) -> Sequence[int]:
        """The rounds at which a configuration is measured; a control has no dense network of its own."""
        if point.search is None and point.control is None:
            return range(self.rounds + 1)
        compared = range(1, self.rounds + 1) if self.compared_at is None else self.compared_at
        return [0, *compared] if point.control is None else compared

    def _items(self) -> Iterator[ChainItem]:
        for point in self._grid():
            epochs = point.recipe.epochs
            if isinstance(point.rewind, int) and isinstance(epochs, int) and point.rewind >= epochs:
                raise RecipeError(f"{self.name}: rewind is {point.rewind} of {many(epochs, 'epoch')}")
            chains = {seed: self._chain(point, seed) for seed in self.seed_numbers}
            for number in self._numbers(point):
                yield from measure_items(self, chains, self._key(point, number), number, point)

    def _key(self, point: GridPoint, number: int) -> Key:
        """The key of a round of the chains of a configuration, whose metric is still open."""
        pruning = point.pruning
        more: list[tuple[str, Scalar]] = [
            _recipe_axis(name, value)
            for name, value in point.varied.items()
            if name not in ("momentum", "batch_size")
        ]
        more += self._fixed(point)
        if self.own_pretraining_noise and point.rewind:
            more.append(("pretraining_noise", call_values.relative(PRETRAINING_NOISE, 0)))
        if len([epoch for epoch in self.rewinds if epoch]) > 1:
            more.append(("rewind", point.rewind))
        if self.searches:
            more.append(("search", point.search.label if point.search else "iterative"))
        if self.scores != (DEFAULT,) and not point.search:
            more.append(("score", written_score(pruning.score)))
        if self.rewindings != ("weights",) and not point.search:
            more.append(("rewinding", pruning.rewinding))
        more += [
            (name, call_values.scalar(value))  # as the table has it of a single job
            for name in ("scope", "exclude", "same_sign", "invert", "rates")
            if not point.search and (value := getattr(pruning, name)) != getattr(Pruning, name)
        ]
        more += [
            (name, value)
            for name in ("init", "same_noise")
            if (value := getattr(self, name)) != getattr(Experiment, name)
        ]
        more += self._causes.items()
        more += Diet.of(self.diet).axes(searched=point.search is None) if self.diet else []
        if (teacher := self.teacher_of(point)) is not None:
            more += axes_of(teacher).items()
        momentum = point.recipe.momentum if has_momentum(point.recipe.optimizer) else None
        return Key(
            metric="", network=point.network, dataset=_name_of(point.data), momentum=momentum,
            batch_size=point.recipe.batch_size, pretrained=bool(point.rewind),
            sparsity=sparsity_of(pruning.prunings(number)), baseline=point.control, more=tuple(more),
        )  # fmt: skip

    def _fixed(self, point: GridPoint) -> Iterator[tuple[str, Scalar]]:
        """The fields of the recipe that all configurations share, where they are not at their defaults."""
        usual = Recipe()
        for name, value in vars(point.recipe).items():
            in_iterations = name == "epochs" and iterations_of(value) is not None
            unusual = name not in _IN_KEY and value != getattr(usual, name)
            if (unusual or in_iterations) and name not in point.varied:
                yield _recipe_axis(name, value)

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
        named = (("measures", self.measures), ("searches", self.searches), *self.between.items())
        for key, measures in named:
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

    def _write_lengths(self) -> None:
        """Write lengths as jobs have them, and refuse text that is none."""
        try:
            rewind = [written_length(length) for length in self.rewinds]
            object.__setattr__(self, "rewind", rewind if _is_list(self.rewind) else rewind[0])
            if isinstance(self.recipe, Mapping):
                lengths = {name: _written(self.recipe[name]) for name in _LENGTHS if name in self.recipe}
                object.__setattr__(self, "recipe", {**self.recipe, **lengths})
        except RecipeError as error:
            raise ExperimentError(f"{self.name}: {error}") from error

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
            choices = _choices_of(key, content)
            if not choices:
                raise ExperimentError(f"{self.name}: recipe has {key} = {content!r}; give at least one value")
            counts = isinstance(fields[key].default, int | float)
            for value in choices:
                if counts and not _is_number(value) and not (key in _LENGTHS and is_length(value)):
                    raise ExperimentError(
                        f"{self.name}: recipe has {key} = {value!r:.60}; it must be a number"
                    )
            self._check_different(f"{key} of the recipe", choices)

    def _check_numbers(self) -> None:
        """Refuse counts out of range, and epochs or rounds that stand there twice."""
        counts: list[tuple[str, object, int, float]] = [("rounds", self.rounds, 0, math.inf)]
        counts += [] if _is_list(self.seeds) else [("seeds", self.seeds, 1, PRETRAINING_NOISE)]
        counts += [("copies", self.copies, 2, PRETRAINING_NOISE)]
        counts += [
            ("rewind", rewind, 0, math.inf) for rewind in self.rewinds if iterations_of(rewind) is None
        ]
        counts += [("copies_at", number, 0, math.inf) for number in self.copies_at or ()]
        for key, count, least, most in counts:
            if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= most:
                also = f" and at most {most}: noises from there on are of pretraining" * (most < math.inf)
                raise ExperimentError(
                    f"{self.name}: {key} is {count!r}; it must be a whole number, at least {least}{also}"
                )
        self._check_seeds()
        self._check_causes()
        if not self.rewinds:
            raise ExperimentError(f"{self.name}: rewind is an empty list; give at least one epoch")
        if not isinstance(self.init, str | None):
            raise ExperimentError(f"{self.name}: init is {self.init!r:.60}; give the name of a scheme")
        self._check_different("rewind", self.rewinds)
        self._check_different("copies_at", self.copies_at or ())
        self._check_comparisons()
        if not self.differences or not all(differ_in in DIFFERENCES for differ_in in self.differences):
            raise ExperimentError(
                f"{self.name}: differ_in is {self.differ_in!r:.60}; allowed are {', '.join(DIFFERENCES)}"
            )
        self._check_different("differ_in", self.differences)
        fractions = list(self.fraction) if isinstance(self.fraction, list | tuple) else [self.fraction]
        if not all(map(_is_number, fractions)):
            raise ExperimentError(f"{self.name}: fraction is {self.fraction!r}; it must be a number")
        self._check_pruning()

    def _check_comparisons(self) -> None:
        """Refuse controls that there are not, and comparisons with rounds that there are not."""
        if not _is_list(self.controls):
            raise ExperimentError(f"{self.name}: controls is {self.controls!r:.60}; give a list of names")
        for control in self.controls:
            if control not in CONTROLS:
                raise ExperimentError(f"{self.name}: {unknown('control', str(control), CONTROLS)}")
        self._check_different("controls", self.controls)
        self._check_different("searches", [(search.name, search.options) for search in self._searches])
        if (self.controls or self.searches) and self.rounds == 0:
            raise ExperimentError(
                f"{self.name}: rounds is 0, so there is no sparsity for searches and controls; give 1 or more"
            )
        self._check_different("compared_at", self.compared_at or ())
        for number in self.compared_at or ():
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= self.rounds:
                raise ExperimentError(
                    f"{self.name}: compared_at has {number!r}; its rounds are from 1 to {self.rounds}"
                )

    def _check_diet(self) -> None:
        """Refuse a diet that there is not, or one beside causes of noise with numbers of their own."""
        if not isinstance(self.diet, Mapping):
            raise ExperimentError(f"{self.name}: diet is {self.diet!r:.60}; give its fields by name")
        if not self.diet:
            return
        try:
            Diet.of(self.diet)
        except RecipeError as error:
            raise ExperimentError(f"{self.name}: {error}") from error
        if causes := [name for name in NOISES if getattr(self, name) is not None]:
            raise ExperimentError(f"{self.name}: a diet goes with one noise; leave out {causes[0]}")
        if self.teacher is not None:
            raise ExperimentError(f"{self.name}: a diet goes without distillation; leave out teacher")

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

    def _check_causes(self) -> None:
        """Refuse numbers of causes of noise that are not whole, or beside copies, which have their own."""
        for name, number in ((name, getattr(self, name)) for name in NOISES):
            if number is None:
                continue
            if not isinstance(number, int) or isinstance(number, bool):
                raise ExperimentError(f"{self.name}: {name} is {number!r:.60}; it must be a whole number")
            if COPIES in self.between:
                raise ExperimentError(
                    f"{self.name}: {name} is {number}, but copies differ in noises that they number "
                    f"themselves; leave out {name}, or copies from between"
                )

    def _check_teacher(self) -> None:
        """Refuse what is no teacher, or one that no recipe learns from."""
        if self.teacher is None:
            return
        if not isinstance(self.teacher, str | Job | Run | Ticket):
            raise ExperimentError(
                f"{self.name}: teacher is {self.teacher!r:.60}; give a run, a ticket, the job of one, or "
                "the name of a finished job"
            )
        losses = {recipe.loss for _, recipe in self.recipes()}
        if "distillation" not in losses:
            raise ExperimentError(
                f"{self.name}: a teacher is given, but loss is {_listed(sorted(losses))}; "
                "use loss 'distillation'"
            )

    def _check_pruning(self) -> None:
        """Refuse prunings that there are not."""
        for key in ("same_sign", "invert", "same_noise"):
            if not isinstance(getattr(self, key), bool):
                raise ExperimentError(f"{self.name}: {key} is {getattr(self, key)!r:.60}; give true or false")
        if not _is_list(self.exclude) or not all(isinstance(name, str) for name in self.exclude):
            raise ExperimentError(f"{self.name}: exclude is {self.exclude!r:.60}; give a list of names")
        if not self.rewindings or not all(rewinding in REWINDINGS for rewinding in self.rewindings):
            raise ExperimentError(
                f"{self.name}: rewinding is {self.rewinding!r:.60}; allowed are {', '.join(REWINDINGS)}"
            )
        self._check_different("rewinding", self.rewindings)
        scores = [self.score] if isinstance(self.score, str) else self.score
        if not _is_list(scores) or not scores or not all(isinstance(name, str) for name in scores):
            raise ExperimentError(f"{self.name}: score is {self.score!r:.60}; give names of declared scores")
        if not isinstance(self.scope, str):
            raise ExperimentError(f"{self.name}: scope is {self.scope!r:.60}; give its name")
        try:
            self._check_different("score", self.scores)
            self.prunings[0].prunings(self.rounds)
        except RecipeError as error:
            raise ExperimentError(f"{self.name}: {error}") from error

    def _check_different(self, key: str, values: Sequence[object]) -> None:
        """Refuse a value that stands twice: its runs would count as more repetitions than there are."""
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ExperimentError(f"{self.name}: {key} has {value!r:.60} twice; give each value once")


OwnStudy = Experiment
"""The name of an :class:`Experiment` in files that were written before it had this one."""

_CONTROLS: Mapping[Baseline, str] = {
    "permuted": "the mask permuted within each layer",
    "randomized": "a random mask over all layers",
    "reinitialized": "the mask over another initialisation",
}

_SHARES: Mapping[str, str] = {
    "uniform": "Every layer keeps the same share of its weights.",
    "erk": "Layers keep shares of their weights in proportion to the sum over the product of their "
    "dimensions (Erdos-Renyi-Kernel).",
}
"""How many weights layers keep where the ranking does not tell."""

RECIPE_WORDS = {"batch_size": "batch size", "lr": "learning rate"}
_ALWAYS_TOLD = ("epochs", "lr", "momentum", "batch_size", "weight_decay", "schedule")
_IN_KEY = ("epochs", "momentum", "batch_size")
"""Fields of a recipe that are fields of a key or its budget."""
_NUMBERS = ("recipe", "rounds", "rewind", "fraction", "seeds", "copies", "copies_at")
"""Fields that are numbers or have them."""
_LENGTHS = ("epochs", "warmup", "milestones")
_LISTS = ("milestones", "betas")
"""Fields of a recipe whose single value is a list."""
_NOISE = "the order of the images and, where used, their augmentation and dropout"


def _recipe_axis(name: str, value: Any) -> tuple[str, Scalar]:
    """A field of a recipe as an axis of a key: as that of a single job has it, but augmentations in words."""
    if name == "epochs":  # a column of the table is called so already
        return ("budget", value) if iterations_of(value) is None else (ITERATIONS, iterations_of(value))
    return name, call_values.scalar(_in_words(value))


def _lengths_text(lengths: Sequence[Length]) -> str:
    """Some lengths in words: "1 epoch", "10 and 20 epochs", "2 epochs and 500 iterations"."""
    different = list(dict.fromkeys(lengths))
    in_epochs = sorted(length for length in different if isinstance(length, int))
    in_iterations = [length_text(length) for length in different if not isinstance(length, int)]
    epochs = [f"{_listed(in_epochs)} epoch{'' if in_epochs == [1] else 's'}"] if in_epochs else []
    return _listed([*epochs, *in_iterations])


def _rates_text(rates: Rates) -> str:
    """Rates of layers in words: "linear 0.5 times"."""
    return ", ".join(f"{name} {rate:g} times" for name, rate in dict(rates).items())


def _listed(values: Sequence[object], word: str = "and") -> str:
    """Values with a word before the last: "0.0 and 0.9"."""
    texts = [
        ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(_in_words(value))
        for value in values
    ]
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _in_words(value: object) -> object:
    """An augmentation by its fields or as it is in words; any other value as it is."""
    if isinstance(value, Mapping):
        value = Augmentation(**value)
    return str(value) if isinstance(value, Augmentation) else value


def _recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe of fields by name, those of its augmentation by theirs; TypeError for one that it lacks."""
    augmentation = values.get("augmentation", Augmentation())
    if isinstance(augmentation, Mapping):
        augmentation = Augmentation(**augmentation)
    if not isinstance(augmentation, Augmentation):
        raise TypeError(f"augmentation is {augmentation!r:.60}; give its fields by name")
    return Recipe(**{**values, "augmentation": augmentation})


def _as_pythons(value: Any) -> Any:
    """Numbers and arrays of numpy's as Python's, also within lists and mappings; anything else as it is."""
    if isinstance(value, numpy.generic | numpy.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(map(_as_pythons, value))
    if isinstance(value, Mapping):
        return {name: _as_pythons(item) for name, item in value.items()}
    return value


def _several(choice: T | Sequence[T]) -> tuple[T, ...]:
    """The values of a field that takes one, as it is, or a list of them."""
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        return tuple(choice)
    return (choice,)


def _choices_of(name: str, content: object) -> list[Any]:
    """The values of a field of a recipe, one or several."""
    return list(content) if _varies(name, content) and isinstance(content, list | tuple) else [content]


def _varies(name: str, content: object) -> bool:
    """Whether a field of a recipe has a list of values, not one that is a list, as milestones are."""
    if not isinstance(content, list | tuple):
        return False
    return name not in _LISTS or not content or all(isinstance(value, list | tuple) for value in content)


def _written(content: Any) -> Any:
    """Lengths, also within lists, as jobs have them; anything else as it is."""
    if isinstance(content, list | tuple):
        return [_written(value) for value in content]
    return written_length(content) if isinstance(content, str) else content


def _name_of(data: str | Data) -> str:
    return data.name if isinstance(data, Data) else data


def _is_number(value: object) -> bool:
    """Whether something is a number and no truth value, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether something is a list or the like, and no single text."""
    return isinstance(value, Sequence) and not isinstance(value, str)
