"""A study of one's own: a grid of pruning chains, and what is measured on them.

It is written as a Python file that makes an :class:`OwnStudy`, or as a small TOML file with the same entries.
Networks and measures stand in it by their declared names. What it asks for as jobs: see
:mod:`tombola.studies.own_rows`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import StudyError, unknown
from tombola.training.recipe import Recipe

Measures = Sequence[str] | Mapping[str, Mapping[str, Any]]
"""Declared names, or a mapping from each to its options."""

COPIES, ROUNDS = "copies", "rounds"
BETWEEN = (COPIES, ROUNDS)
"""The runs that a measure of several can be taken between."""


@dataclass(frozen=True)
class OwnStudy:
    """Pruning chains of every network on every data set by every recipe, and measures of each round.

    name: of the study and its files. networks: declared names. data: names, folders, or sets themselves.
    recipe: fields of :class:`~tombola.Recipe`; a list of values makes a recipe of each, in all combinations.
    rounds: number of prunings. rewind: epoch to rewind to. fraction: share that a round prunes.
    seeds: number of runs, which differ in initialisation and noise. init: how the first weights are drawn, by
    the declared name of a scheme; None for each network's own.
    measures: declared names; those with options, as a mapping from the name to them. A measure takes the run
        or the ticket of a round and, if it wants, the data. The accuracy of the runs is always there.
    between: measures of several runs, in the same form, by what they are taken between: ``"copies"``, the
        trainings of a round's ticket under different noise, or ``"rounds"``, the runs of a round and of the
        next. A measure of two runs is taken of every pair.
    copies: how many trainings of each ticket there are then, the chain's own among them.

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
    init: str | None = None
    measures: Measures = ()
    between: Mapping[str, Measures] = field(default_factory=dict)
    copies: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name != os.path.basename(self.name):
            raise StudyError(f"a study is called {self.name!r}; its name must do as the name of a file")
        for key in ("networks", "data"):
            given = getattr(self, key)
            if not _is_list(given) or not given:
                raise StudyError(f"{self.name}: {key} is {given!r:.60}; give a list of at least one")
            if not all(isinstance(each, str) or (key == "data" and isinstance(each, Data)) for each in given):
                raise StudyError(f"{self.name}: {key} is {given!r:.60}; they stand in it by their names")
        if not isinstance(self.between, Mapping):
            raise StudyError(
                f"{self.name}: between is {self.between!r}; give measures for each of {' and '.join(BETWEEN)}"
            )
        for key in self.between:
            if key not in BETWEEN:
                raise StudyError(f"{self.name}: {unknown('kind of runs to measure between', key, BETWEEN)}")
        for key, given in (("measures", self.measures), *self.between.items()):
            if isinstance(given, str):
                raise StudyError(f"{self.name}: {key} is {given!r}; give a list, [{given!r}]")
            if not _is_list(given) and not isinstance(given, Mapping):
                raise StudyError(f"{self.name}: {key} is {given!r:.60}; give a list of measures")
            if not all(isinstance(name, str) for name in given):
                raise StudyError(f"{self.name}: {key} is {given!r:.60}; measures stand in it by their names")
            for name, options in given.items() if isinstance(given, Mapping) else ():
                if not isinstance(options, Mapping):
                    raise StudyError(
                        f"{self.name}: {key} has {name} = {options!r:.60}; give its options by name, or {{}}"
                    )
        self._check_recipe()
        for key, least in (("rounds", 0), ("rewind", 0), ("seeds", 1), ("copies", 2)):
            given = getattr(self, key)
            if not isinstance(given, int) or isinstance(given, bool) or given < least:
                raise StudyError(
                    f"{self.name}: {key} is {given!r}; it must be a whole number, at least {least}"
                )
        if not isinstance(self.init, str | None):
            raise StudyError(f"{self.name}: init is {self.init!r:.60}; give the name of a scheme")
        if not isinstance(self.fraction, int | float):
            raise StudyError(f"{self.name}: fraction is {self.fraction!r}; it must be a number")

    def _check_recipe(self) -> None:
        """Refuse entries of the recipe that no training could have, whatever the others are."""
        if not isinstance(self.recipe, Mapping):
            raise StudyError(f"{self.name}: recipe is {self.recipe!r:.60}; give its entries by name")
        known = {each.name: each for each in dataclasses.fields(Recipe)}
        for key, given in self.recipe.items():
            if key not in known:
                raise StudyError(f"{self.name}: {unknown('entry of a recipe', key, list(known))}")
            if isinstance(given, list | tuple) and not given:
                raise StudyError(f"{self.name}: recipe has {key} = {given!r}; give at least one value")
            counts = isinstance(known[key].default, int | float)
            for value in given if isinstance(given, list | tuple) else [given]:
                if counts and (not isinstance(value, int | float) or isinstance(value, bool)):
                    raise StudyError(f"{self.name}: recipe has {key} = {value!r:.60}; it must be a number")

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


def _is_list(given: object) -> bool:
    """Whether something is a list or the like, and no single text."""
    return isinstance(given, Sequence) and not isinstance(given, str)
