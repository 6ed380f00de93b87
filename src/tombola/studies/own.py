"""A study of one's own: a grid of pruning chains, and what is measured on them.

It is written as a Python file that makes an :class:`OwnStudy`, or as a small TOML file with the same entries.
Networks and measures stand in it by their declared names.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tombola.data.imageset import Data
from tombola.declared import Declaration, declaration
from tombola.errors import RecipeError, StudyError, unknown
from tombola.lab.chains import imp_jobs
from tombola.lab.hints import alternatives
from tombola.lab.job import Job, job
from tombola.lab.lab import Lab
from tombola.lab.numbers import numbers_of
from tombola.lab.writing import face
from tombola.studies.results import Results
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Measures = Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class OwnStudy:
    """Pruning chains of every network on every data set by every recipe, and measures of each round.

    name: of the study and its files. networks: declared names. data: names, folders, or sets themselves.
    recipe: fields of :class:`~tombola.Recipe`; a list of values makes a recipe of each, in all combinations.
    rounds: number of prunings. rewind: epoch to rewind to. fraction: share that a round prunes.
    seeds: number of runs, which differ in initialisation and noise.
    measures: declared names; those with options, as a mapping from the name to them. A measure takes the run
        or the ticket of a round and, if it wants, the data. The accuracy of the runs is always there.

    Raises :class:`~tombola.errors.StudyError` for entries that do not fit.
    """

    name: str
    networks: Sequence[str] = ("convnet",)
    data: Sequence[str | Data] = ("digits",)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 0
    rewind: int = 0
    fraction: float = 0.2
    seeds: int = 1
    measures: Measures = ()

    def __post_init__(self) -> None:
        if not self.name or self.name != os.path.basename(self.name):
            raise StudyError(f"a study is called {self.name!r}; its name must do as the name of a file")
        for key in ("networks", "data"):
            given = getattr(self, key)
            if isinstance(given, str | Data) or not given:
                raise StudyError(f"{self.name}: {key} is {given!r:.60}; give a list of at least one")
        if isinstance(self.measures, str):
            raise StudyError(f"{self.name}: measures is {self.measures!r}; give a list, [{self.measures!r}]")
        known = [each.name for each in dataclasses.fields(Recipe)]
        for key in self.recipe:
            if key not in known:
                raise StudyError(f"{self.name}: {unknown('entry of a recipe', key, known)}")
        for key, least in (("rounds", 0), ("rewind", 0), ("seeds", 1)):
            given = getattr(self, key)
            if not isinstance(given, int) or isinstance(given, bool) or given < least:
                raise StudyError(
                    f"{self.name}: {key} is {given!r}; it must be a whole number, at least {least}"
                )
        if not isinstance(self.fraction, int | float):
            raise StudyError(f"{self.name}: fraction is {self.fraction!r}; it must be a number")

    def recipes(self) -> list[tuple[dict[str, Any], Recipe]]:
        """Every recipe of the grid, with the fields in which they differ."""
        axes = {key: value for key, value in self.recipe.items() if isinstance(value, list | tuple)}
        fixed = {key: value for key, value in self.recipe.items() if key not in axes}
        combined = itertools.product(*axes.values())
        varied = [dict(zip(axes, values, strict=True)) for values in combined]
        try:
            return [(each, Recipe(**fixed, **each)) for each in varied]
        except TypeError as error:
            raise StudyError(f"{self.name}: the recipe does not fit: {error}") from error


@dataclass(frozen=True)
class Row:
    """One measure of one chain at one round.

    recipe: the fields in which the recipes of the study differ. jobs: one a run.
    """

    network: str
    data: str
    recipe: Mapping[str, Any]
    round: int
    sparsity: float
    measure: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class OwnCell:
    """A number of a row.

    quantity: its name, such as ``"untrained.loss"``. values: of the finished runs.
    starred: whether one of them failed.
    """

    row: Row
    quantity: str
    values: tuple[float, ...]
    starred: bool = False


def own_rows(study: OwnStudy) -> list[Row]:
    """Everything that a study measures, as jobs.

    Raises what :func:`~tombola.lab.chains.imp_jobs` and :func:`~tombola.lab.job.job` raise, and
    :class:`~tombola.errors.StudyError` for a measure of something else than a run or a ticket.
    """
    measures = study.measures
    options = measures if isinstance(measures, Mapping) else {name: {} for name in measures}
    taken = [(name, _of_a_round(study, declaration(name), given)) for name, given in options.items()]
    rows = []
    for network, data, (varied, recipe) in itertools.product(study.networks, study.data, study.recipes()):
        if study.rewind >= recipe.epochs:
            raise RecipeError(f"{study.name}: rewind is {study.rewind} of {recipe.epochs} epochs")
        chains = [
            imp_jobs(
                network, data, recipe, rounds=study.rounds, rewind=study.rewind, fraction=study.fraction,
                seed=seed,
            )
            for seed in range(study.seeds)
        ]  # fmt: skip
        label = data.name if isinstance(data, Data) else data
        for number, runs in enumerate(zip(*chains, strict=True)):
            place = (network, label, varied, number, 1 - (1 - study.fraction) ** number)
            rows.append(Row(*place, "run", runs))
            rows += [Row(*place, name, tuple(take(run, data) for run in runs)) for name, take in taken]
    return rows


def own_cells(lab: Lab, rows: Sequence[Row]) -> list[OwnCell]:
    """The numbers of rows as far as their jobs are finished; of runs the accuracy alone."""
    results = Results(lab)
    return [cell for row in rows for cell in _cells(lab, results, row)]


def _cells(lab: Lab, results: Results, row: Row) -> Iterator[OwnCell]:
    found: dict[str, list[float]] = {}
    starred = False
    for each in row.jobs:
        result = results.of(each) if each.stored else _unstored(lab, each)
        numbers = {} if result is None else numbers_of(result)
        if row.measure == "run" and numbers:
            starred = starred or bool(numbers["failed"])
            numbers = {"accuracy": numbers["accuracy"]}
        for key, value in numbers.items():
            found.setdefault(key, []).append(value)
    for key, values in found.items():
        name = key if row.measure == "run" else ".".join(filter(None, (row.measure, key)))
        yield OwnCell(row, name, tuple(values), starred)


def _unstored(lab: Lab, each: Job) -> Any:
    """The result of an exact and cheap measure, which no store keeps; None before it can be taken."""
    return lab.result(each) if all(map(lab.has, each.needs)) else None


def _of_a_round(
    study: OwnStudy, declared: Declaration, options: Mapping[str, Any]
) -> Callable[[Job, str | Data], Job]:
    """How a measure is taken of the run of a round."""
    known = face(declared.function)
    hints = {key: alternatives(known.hints.get(key, Any)) for key in known.signature.parameters}
    required = [
        key
        for key, parameter in known.signature.parameters.items()
        if parameter.default is parameter.empty and key not in options
    ]
    subjects = [key for key in required if Run in hints[key] or Ticket in hints[key]]
    other = [key for key in required if key not in subjects and Data not in hints[key]]
    if len(subjects) != 1 or other:
        wants = ", ".join(required) or "nothing"
        raise StudyError(
            f"{study.name}: measure {declared.name!r} takes {wants}; here a measure takes one run or ticket "
            "and, if it wants, the data, and its options are given"
        )
    (subject,) = subjects
    of_data = [key for key in required if key != subject]

    def take(run: Job, data: str | Data) -> Job:
        measured = run if Run in hints[subject] else run.arguments["ticket"]
        return job(declared.function, **{subject: measured}, **dict.fromkeys(of_data, data), **options)

    return take
