"""Other ways to a ticket than a chain of prunings, as an experiment names them, and controls of tickets.

A search is any declared function from a start and a sparsity to a :class:`~tombola.Ticket`, such as
``"prune-at-initialization"``. What it finds is trained by the recipe of the chains, at their sparsities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tombola.data.augmentation import Augmentation
from tombola.data.imageset import Data
from tombola.errors import ExperimentError, unknown
from tombola.lab.arguments import alternatives, job_signature
from tombola.lab.job import Job, job, result_type
from tombola.pruning.controls import permute, randomize, reinitialize
from tombola.registry import Declaration, declaration
from tombola.table.key import Baseline
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe

CONTROLS: tuple[Baseline, ...] = ("permuted", "randomized", "reinitialized")
"""The controls of a ticket that an experiment can name, as keys name them."""

OTHER_DRAW = 100
"""Added to a seed for the initialisation of its reinitialised controls."""


@dataclass(frozen=True)
class TicketSearch:
    """A declared function that finds a ticket, and its options.

    label: what tells it from others of its experiment.
    """

    name: str
    options: Mapping[str, Any]
    label: str

    def ticket(self, start: Job, data: str | Data, recipe: Recipe, *, sparsity: float, seed: int) -> Job:
        """The ticket that it finds for a start.

        Its parameters are filled in by what they take: a ticket, data, a recipe, and ``sparsity`` and
        ``noise`` by their names. An option may have fields to replace in the recipe.

        Raises :class:`~tombola.errors.ExperimentError` for a function that is no such search.
        """
        declared = declaration(self.name)
        by_name = {"sparsity": sparsity, "noise": seed}
        by_kind: dict[Any, Any] = {Ticket: start, Data: data, Recipe: recipe}
        filled: dict[str, Any] = {}
        interface = job_signature(declared.function)
        for key, parameter in interface.signature.parameters.items():
            kinds = alternatives(interface.hints.get(key, Any))
            kind = next((kind for kind in by_kind if kind in kinds), None)
            if key in by_name:
                filled[key] = by_name[key]
            elif kind is not None and parameter.default is parameter.empty:
                filled[key] = by_kind[kind]
        options = {
            key: recipe_with(recipe, value, f"{key} of search {self.name!r}")
            if filled.get(key) is recipe and isinstance(value, Mapping)
            else value
            for key, value in self.options.items()
        }
        self._check(declared, filled, start)
        return job(declared.function, **filled | options)

    def _check(self, declared: Declaration, filled: Mapping[str, Any], start: Job) -> None:
        """Raises ExperimentError for a function that does not go from a start and a sparsity to a ticket."""
        if result_type(declared) is not Ticket or "sparsity" not in filled or start not in filled.values():
            raise ExperimentError(
                f"search {self.name!r} is no function from a ticket and a sparsity to a ticket; "
                "prune-at-initialization is one"
            )
        for name in self.options:
            if name in filled and not isinstance(filled[name], Recipe):
                raise ExperimentError(f"search {self.name!r} has {name}, which the rounds and seeds give it")


def recipe_with(recipe: Recipe, changes: Mapping[str, Any], what: str) -> Recipe:
    """A recipe with some fields changed; ExperimentError, which says what it is, for one that it lacks."""
    names = [field.name for field in fields(Recipe)]
    for name in changes:
        if name not in names:
            raise ExperimentError(f"{what}: {unknown('field of a recipe', str(name), names)}")
    augmentation = changes.get("augmentation", recipe.augmentation)
    if isinstance(augmentation, Mapping):
        augmentation = Augmentation(**augmentation)
    return replace(recipe, **{**changes, "augmentation": augmentation})


def searches_of(written: Sequence[str] | Mapping[str, Any]) -> tuple[TicketSearch, ...]:
    """The searches that an experiment names, in the form of its measures."""
    by_name = written if isinstance(written, Mapping) else {name: {} for name in written}
    searches = []
    for name, choices in by_name.items():
        for options in [choices] if isinstance(choices, Mapping) else choices:
            in_words = ", ".join(_option_text(option, value) for option, value in options.items())
            named = name if len(by_name) > 1 or not in_words else ""
            searches.append(TicketSearch(name, options, " ".join(filter(None, [named, in_words]))))
    return tuple(searches)


def _option_text(option: str, value: object) -> str:
    """An option in words; a score speaks for itself, and what is switched on needs no value."""
    return str(value) if option == "score" else option if value is True else f"{option} {value}"


def control_of(ticket: Job, control: Baseline, seed: int) -> Job:
    """The control of a ticket, drawn by the seed; the other initialisation by a number of its own."""
    if control == "permuted":
        return job(permute, ticket, seed=seed)
    if control == "randomized":
        return job(randomize, ticket, seed=seed)
    return job(reinitialize, ticket, seed=OTHER_DRAW + seed)
