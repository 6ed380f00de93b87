"""What is known of where a ticket, a run or data comes from, and the fields of a key that follow from it.

One is read off the descriptions of jobs (:mod:`tombola.lab.lineages`), which may come from strangers: a value
of another type than it should have counts as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tombola.lab.arguments import written_defaults
from tombola.lab.call_values import axis_name, real, relative, scalar, whole
from tombola.pruning.prune import prune
from tombola.seeds import NOISES
from tombola.table.key import ITERATIONS, Scalar, sparsity_of
from tombola.training.length import is_length, iterations_of
from tombola.training.recipe import Recipe, has_momentum

Kind = Literal["ticket", "run", "data", "measure"]
Description = Mapping[str, Any]
Fields = Mapping[str, Scalar]
"""Fields of a key and further axes by name; None where one is not known."""
Rankings = tuple[tuple[Fields, int], ...]
"""What the prunings of a chain ranked by, as axes without defaults, and how many in a row did so."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a ticket, a run, data or a measure comes from; None where that is not known.

    network, dataset, seed: of the first weights; the data of a run is what it was trained on.
    rewind: place of late rewinding, an epoch or iterations as text; 0 without.
    prunings: how many by each fraction.
    pretraining, search, training: recipes of late rewinding, of the last run that was pruned, and of the run.
    noise, search_noise: numbers of the noise of the run and of the pruned one.
    causes, search_causes: of each of the two, numbers of the causes of noise that are not that of the noise.
    subset_percent, subset_criterion, baseline: as in a key. axes: what else tells it from others.
    hidden: what two lineages may differ in and usually do not; told only where they would be mistaken.
    ticket: name of the trained ticket, pruned: of the run that the ticket was pruned from, trained_on: of the
        data of the last training; empty without.
    rankings: of the prunings behind it.
    """

    kind: Kind
    network: str | None = None
    dataset: str | None = None
    seed: int | None = None
    rewind: int | str = 0
    prunings: Mapping[float, int] | None = None
    pretraining: Fields | None = None
    search: Fields | None = None
    training: Fields | None = None
    noise: int | None = None
    search_noise: int | None = None
    causes: Mapping[str, int] = field(default_factory=dict)
    search_causes: Mapping[str, int] = field(default_factory=dict)
    subset_percent: int | None = None
    subset_criterion: str | None = None
    baseline: str | None = None
    axes: Fields = field(default_factory=dict)
    hidden: Fields = field(default_factory=dict)
    ticket: str = ""
    pruned: str = ""
    trained_on: str = ""
    rankings: Rankings = ()

    @property
    def epochs(self) -> int:
        """Budget of the full trainings behind it, in whole epochs; 0 where nothing was trained.

        Also 0 for a budget in iterations, which is an axis: how many epochs it is, only the data tell.
        """
        recipe = self.training or self.search or self.pretraining or {}
        return whole(recipe.get("epochs")) or 0

    @property
    def sparsity(self) -> float | None:
        """Percent of the prunable weights that are pruned, by the number of prunings."""
        if self.prunings is None:
            return None
        return sparsity_of(self.prunings)

    def fields(self) -> dict[str, Scalar]:
        """What a key has of it, with all further axes."""
        base = self.search or self.training or self.pretraining or {}
        fields: dict[str, Scalar] = {
            "network": self.network, "dataset": self.dataset, "momentum": real(base.get("momentum")),
            "batch_size": whole(base.get("batch_size")), "pretrained": self._pretrained,
            "sparsity": self.sparsity, "subset_percent": self.subset_percent,
            "subset_criterion": self.subset_criterion, "baseline": self.baseline,
        }  # fmt: skip
        if self.rewind:
            fields["rewind"] = self.rewind
        fields |= {name: value for name, value in base.items() if name not in _USUAL}
        if self.search is not None and self.training is not None:
            fields |= _differing(self.search, self.training)
        if self.pretraining is not None and base is not self.pretraining:
            fields |= {
                f"pretraining_{name}": value
                for name, value in self.pretraining.items()
                if base.get(name) != value and self._is_odd_pretraining(name, value)
            }
        fields |= self._noises()
        return {**fields, **self.axes}

    @property
    def _pretrained(self) -> bool | None:
        return None if self.network is None and not self.rewind else bool(self.rewind)

    def _is_odd_pretraining(self, name: str, value: Scalar) -> bool:
        """Whether late rewinding had this value neither from the mask search nor from the sparse training."""
        return self.training is None or self.training.get(name) != value

    def _noises(self) -> dict[str, Scalar]:
        """The noises that are not the seed's; that of the search where it differs from the run's."""
        fields: dict[str, Scalar] = {}
        if self.noise is not None and self.noise != self.seed:
            fields["noise"] = relative(self.noise, self.seed)
        run_noise = self.seed if self.noise is None else self.noise
        if self.search_noise is not None and self.search_noise != run_noise:
            fields["search_noise"] = relative(self.search_noise, self.seed)
        for name in NOISES:
            own, searched = self.causes.get(name), self.search_causes.get(name)
            if own is not None:
                fields[name] = relative(own, self.seed)
            if self.search is not None and own != searched:
                number = (self.search_noise or 0) if searched is None else searched
                fields[f"search_{name}"] = relative(number, self.seed)
        return fields

    def number_of(self, name: str) -> int:
        """The number of one of :data:`~tombola.seeds.NOISES`: its own, or that of the noise."""
        return self.causes.get(name, self.noise or 0)


_USUAL = ("epochs", "momentum", "batch_size")
_DEFAULTS: Fields = {name: getattr(Recipe(), name) for name in _USUAL}


def _differing(search: Fields, training: Fields) -> dict[str, Scalar]:
    """What a key has of a sparse training by another recipe than the mask search."""
    fields: dict[str, Scalar] = {}
    if any(search.get(name) != training.get(name) for name in ("momentum", "batch_size")):
        fields["sparse_momentum"] = real(training.get("momentum"))
        fields["sparse_batch_size"] = whole(training.get("batch_size"))
    budgets = whole(search.get("epochs")), whole(training.get("epochs"))
    if budgets[0] != budgets[1] and budgets[0] and budgets[1]:
        fields["search_share"] = budgets[0] / budgets[1]
    for name in dict.fromkeys((*search, *training)):
        if name not in _USUAL and search.get(name) != training.get(name):
            fields[f"sparse_{name}"] = training.get(name, _default(name))
    return fields


def _default(name: str) -> Scalar:
    """What a recipe has where it says nothing; None for iterations: it has epochs then."""
    if name == ITERATIONS:
        return None
    value = getattr(Recipe(), name, None)
    return value if isinstance(value, str | int | float) else "default"


_RANKING: Fields = {
    name: scalar(written_defaults(prune)[name])
    for name in ("scope", "exclude", "score", "same_sign", "invert", "rewinding", "rates")
}
"""The arguments of a pruning that tell its tickets from others of that sparsity, with their defaults."""


def recipe_of(arguments: Mapping[str, Any]) -> dict[str, Scalar] | None:
    """The recipe of a call: its budget, momentum and batch size, and what is not at its default.

    A budget in iterations stands in it as their number. AdamW has no momentum.
    """
    written = arguments.get("recipe")
    if not isinstance(written, dict):
        return None
    values = {name if name in _USUAL else axis_name("recipe", name): value for name, value in written.items()}
    recipe = {**_DEFAULTS, **{name: scalar(value) for name, value in values.items()}}
    budget = recipe["epochs"]
    if isinstance(budget, str) and is_length(budget):
        recipe |= {"epochs": None, ITERATIONS: iterations_of(budget)}
    if not has_momentum(recipe.get("optimizer")):
        recipe["momentum"] = None
    return recipe


def drawn_by(
    prefix: str, arguments: Mapping[str, Any], seed: int | None
) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """The seed of a draw as an axis, where it is given and not the run's own; and as a hidden one."""
    own, name = whole(arguments.get("seed")), f"{prefix}.seed"
    differs = own is not None and seed is not None and own != seed
    return {name: relative(own, seed)} if differs else {}, {name: own or 0}


def named_axes(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scalar]:
    """Some arguments as axes, those that are given."""
    return {name: scalar(arguments[name]) for name in names if arguments.get(name) is not None}


def ranking_of(arguments: Mapping[str, Any]) -> dict[str, Scalar]:
    """What a pruning ranks by, without defaults."""
    return {name: value for name, value in named_axes(arguments, _RANKING).items() if value != _RANKING[name]}


def followed(rankings: Rankings, ranking: Fields) -> Rankings:
    """What prunings ranked by, with one more."""
    if rankings and rankings[-1][0] == ranking:
        return (*rankings[:-1], (ranking, rankings[-1][1] + 1))
    return (*rankings, (ranking, 1))


def ranked_axes(rankings: Rankings) -> dict[str, Scalar]:
    """What prunings ranked by, as axes: once where all agree, and else that of each in their order."""
    axes: dict[str, Scalar] = {}
    for name in dict.fromkeys(name for ranking, _ in rankings for name in ranking):
        values = [(ranking.get(name, _RANKING.get(name, "default")), count) for ranking, count in rankings]
        first = values[0][0]
        if all(value == first for value, _ in values):
            axes[name] = first
        else:
            texts = [(value if isinstance(value, str) else json.dumps(value), n) for value, n in values]
            axes[name] = ", ".join(text for text, count in texts for _ in range(count))
    return axes


def unranked_axes(lineage: Lineage) -> dict[str, Scalar]:
    """The axes of a lineage but for what its prunings ranked by."""
    ranked = ranked_axes(lineage.rankings)
    return {name: value for name, value in lineage.axes.items() if name not in ranked}
