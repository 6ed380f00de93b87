"""Lineages: what the result of a described job is of, read off its description and those behind it.

Seeds, data, recipes and prunings stand in different calls of a chain. They are followed here from the first
weights on, by name, through the descriptions of jobs or of the store; :mod:`tombola.lab.job_table` makes keys
of them. Descriptions may come from strangers: a value of another type than it should have counts as unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from tombola.data.imageset import Data
from tombola.errors import JobError, StoreError
from tombola.lab.arguments import written_defaults
from tombola.lab.call_values import (
    axis_name,
    job_names,
    options_of,
    real,
    references,
    relative,
    scalar,
    whole,
)
from tombola.lab.job import Job, described_type, everything_behind
from tombola.lab.store import Store
from tombola.pruning.learned_mask import edge_popup
from tombola.pruning.prune import prune
from tombola.seeds import NOISES
from tombola.table.key import ITERATIONS, Scalar, sparsity_of
from tombola.ticket import Ticket
from tombola.training.length import is_length, iterations_of
from tombola.training.recipe import Recipe, has_momentum
from tombola.training.run import Run
from tombola.training.trunk import Point

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


_RANKING: Fields = {
    name: scalar(written_defaults(prune)[name])
    for name in ("scope", "exclude", "score", "same_sign", "invert", "rewinding", "rates")
}
"""The arguments of a pruning that tell its tickets from others of that sparsity, with their defaults."""
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


class Lineages:
    """The lineages of jobs by name, each read once.

    store: has the descriptions of finished jobs. jobs: those that may not be finished.
    """

    def __init__(self, store: Store, jobs: Iterable[Job]) -> None:
        self._store = store
        self._descriptions: dict[str, Description | None] = {}
        for job in everything_behind(jobs):
            self._add(job.name, job.description())
        self._lineages: dict[str, Lineage] = {}
        self._steps: dict[str, Callable[[str, Mapping[str, Any]], Lineage]] = {
            "initialize": self._initialized, "pretrain": self._pretrained, "trunk": self._pretrained,
            "ticket_at": self._taken_at, "prune": self._pruned, "train": self._trained,
            "permute": self._permuted, "randomize": self._randomized, "densify": self._densified,
            "reinitialize": self._reinitialized, "subset": self._subset,
            "forgotten-subset": self._forgotten_subset, "drop-by-difficulty": self._without,
            "fit_images": self._fitted, "take": self._part_taken,
            "prune-at-initialization": self._pruned_at_initialization,
            "edge-popup": self._edge_popup, "supermask": self._supermask,
            "shuffle-start": partial(self._acted_on, "shuffle_start"),
            "signed-constant": partial(self._acted_on, "signed_constant"),
            "rescale": partial(self._acted_on, "rescale"),
            "freeze-pruned": partial(self._acted_on, "freeze_pruned"),
            "selected": self._selected,
            "rehead": self._reheaded, "transfer-training": self._trained_on_target,
            "pretrain-on-part": self._pretrained_on_part, "at-same-step": self._at_same_step,
            "perturb": self._perturbed,
        }  # fmt: skip

    def description(self, name: str) -> Description:
        """The call that a job is.

        Raises :class:`~tombola.errors.JobError` if it is not there, and
        :class:`~tombola.errors.StoreError` if it is damaged.
        """
        if self._descriptions.get(name) is None:
            self._add(name, self._store.checked_description(name))
        return self._descriptions[name] or {}

    def of(self, name: str) -> Lineage:
        """The lineage of a job; what is behind a job that is gone or damaged is not known."""
        pending, opened = [name], set()
        while pending:  # an explicit stack: a chain of hundreds of rounds must not hit the recursion limit
            current = pending[-1]
            if current in self._lineages:
                pending.pop()
                continue
            description = self._readable(current)
            needed = [] if description is None else list(job_names(description["arguments"]))
            if current not in opened and any(parent not in self._lineages for parent in needed):
                opened.add(current)
                pending += [parent for parent in needed if parent not in opened]
                continue
            self._lineages[current] = (
                Lineage(kind="measure") if description is None else self._lineage(current, description)
            )
        return self._lineages[name]

    def within(self, value: Any) -> list[tuple[str, Lineage]]:
        """The jobs and the caller's own tickets and runs in an argument, by name, in their order."""
        lineages: list[tuple[str, Lineage]] = []
        for reference in references(value):
            if "job" in reference:
                lineages.append((reference["job"], self.of(reference["job"])))
            elif "data" in reference:
                lineages.append(("", Lineage(kind="data", dataset=reference["data"])))
            else:
                kind: Kind = "run" if reference["type"] == "Run" else "ticket"
                name = reference["value"]
                lineages.append((name, Lineage(kind=kind, axes={"own": name[:12]})))
        return lineages

    def _add(self, name: str, description: Description) -> None:
        """Remember a description, and those that are written out within it."""
        pending = [(name, description)]
        while pending:
            current, called = pending.pop()
            self._descriptions[current] = called
            pending += [
                (reference["job"], reference["call"])
                for value in called["arguments"].values()
                for reference in references(value)
                if "job" in reference and "call" in reference
            ]

    def _readable(self, name: str) -> Description | None:
        if name not in self._descriptions:
            try:
                self.description(name)
            except (JobError, StoreError):
                self._descriptions[name] = None
        return self._descriptions[name]

    def _lineage(self, name: str, description: Description) -> Lineage:
        """The lineage of a job, those behind it known."""
        arguments = description["arguments"]
        step = self._steps.get(description["function"])
        if step is not None:
            return step(name, arguments)
        before = self._first(list(arguments.values())) or Lineage(kind="measure")
        options = options_of(arguments)
        function = axis_name("own", description["function"])
        axes = {**before.axes, function: scalar(options) if options else True}
        kind = kind_of(description)
        if kind in ("ticket", "run"):  # an own function may have done anything to the mask
            return replace(before, kind=kind, axes=axes, prunings=None)
        return replace(before, kind=kind, axes=axes)

    def _first(self, value: Any) -> Lineage | None:
        """The lineage of the first job in an argument."""
        return next((lineage for _, lineage in self.within(value)), None)

    def _subject(self, value: Any, kind: Kind) -> Lineage:
        """The lineage of a ticket or run that is an argument, now as a result of another kind."""
        return replace(self._first(value) or Lineage(kind=kind), kind=kind)

    def _initialized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        data = self._subject(arguments.get("data"), "data")
        init = {"init": scalar(arguments["init"])} if arguments.get("init") is not None else {}
        network = arguments.get("network")
        return Lineage(
            kind="ticket", network=network if isinstance(network, str) else None, dataset=data.dataset,
            seed=whole(arguments.get("seed", 0)), prunings={}, axes=init,
        )  # fmt: skip

    def _pretrained(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        start = self._subject(arguments.get("start"), "ticket")
        noise, axes = arguments.get("noise"), dict(start.axes)
        if whole(noise) is not None and noise != start.seed:
            axes["pretraining_noise"] = relative(noise, start.seed)
        for name, number in _causes(arguments).items():
            axes[f"pretraining_{name}"] = relative(number, start.seed)
        taught, taught_by = _taught(arguments.get("teacher"), self._first(arguments.get("teacher")))
        axes |= {f"pretraining_{axis}": value for axis, value in taught.items()}
        hidden = {f"pretraining_{axis}": value for axis, value in taught_by.items()}
        epochs = arguments.get("epochs", 2)
        place = epochs if isinstance(epochs, str) else whole(epochs) or 0
        return replace(
            start, rewind=place, pretraining=recipe_of(arguments), axes=axes,
            hidden={**start.hidden, "pretraining_noise": whole(noise) or 0, **hidden},
        )  # fmt: skip

    def _pretrained_on_part(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        start = self._pretrained(name, arguments)
        part = self._subject(arguments.get("part"), "data")
        percent, criterion = part.subset_percent, part.subset_criterion
        chosen = {"pretraining_subset": criterion, "pretraining_subset_percent": percent}
        axes = {f"pretraining_{axis}": value for axis, value in part.axes.items()}
        axes |= {axis: value for axis, value in chosen.items() if value is not None}
        hidden = {f"pretraining_{axis}": value for axis, value in part.hidden.items()}
        return replace(start, axes={**start.axes, **axes}, hidden={**start.hidden, **hidden})

    def _at_same_step(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        return self._subject(arguments.get("ticket"), "ticket")

    def _taken_at(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        point = self._first(arguments.get("point"))
        return replace(point, kind="ticket") if point else self._subject(arguments.get("start"), "ticket")

    def _pruned(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        run = self._subject(arguments.get("run"), "ticket")
        fraction = real(arguments.get("fraction", 0.2))
        prunings = None
        if run.prunings is not None and fraction is not None and 0 < fraction < 1:
            prunings = {**run.prunings, fraction: run.prunings.get(fraction, 0) + 1}
        scored, hidden = self._scored(arguments.get("data"), run)
        rankings = _followed(run.rankings, _ranking(arguments) | scored)
        axes = {**_unranked(run), **_ranked(rankings)}
        if "noise_round" in axes:
            axes["search_noise_round"] = axes.pop("noise_round")
        if run.subset_criterion is not None:
            axes |= {"search_subset_percent": run.subset_percent, "search_subset": run.subset_criterion}
        pruned = next((parent for parent, _ in self.within(arguments.get("run"))), "")
        # A ticket that is pruned as it is keeps the search that it comes from.
        if run.training is not None:
            run = replace(
                run, search=run.training, search_noise=run.noise, search_causes=run.causes,
                training=None, noise=None, causes={},
            )  # fmt: skip
        return replace(
            run, prunings=prunings,
            subset_percent=None, subset_criterion=None, axes=axes, hidden={**run.hidden, **hidden}, ticket="",
            pruned=pruned, rankings=rankings,
        )  # fmt: skip

    def _pruned_at_initialization(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        start = self._subject(arguments.get("start"), "ticket")
        sparsity, rounds = real(arguments.get("sparsity")), whole(arguments.get("rounds"))
        prunings = None
        if start.prunings == {} and sparsity is not None and 0 < sparsity < 1:
            prunings = {sparsity: 1}
        rankings = _followed((), _ranking(arguments))
        axes = {**start.axes, **_ranked(rankings)} | ({} if rounds is None else {"pruning_rounds": rounds})
        return replace(start, prunings=prunings, axes=axes, rankings=rankings)

    def _edge_popup(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        sparsity = real(arguments.get("sparsity", written_defaults(edge_popup)["sparsity"]))
        learned = self._learned("edge-popup", arguments)
        if learned.prunings == {} and sparsity is not None and 0 < sparsity < 1:
            return replace(learned, prunings={sparsity: 1})
        return replace(learned, prunings=None)

    def _supermask(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        # How sparse it is its scores decide.
        learned = replace(self._learned("supermask", arguments), prunings=None)
        return replace(learned, axes={**learned.axes, **_named(arguments, ("dynamic_scaling", "draw"))})

    def _learned(self, mask: str, arguments: Mapping[str, Any]) -> Lineage:
        """A start under a mask whose learning counts as its search."""
        start = self._subject(arguments.get("start"), "ticket")
        data = self._subject(arguments.get("data"), "data")
        noise = whole(arguments.get("noise"))
        axes = {**start.axes, **{f"mask_{axis}": item for axis, item in data.axes.items()}, "mask": mask}
        if data.subset_criterion is not None:
            axes |= {"search_subset_percent": data.subset_percent, "search_subset": data.subset_criterion}
        if start.dataset is not None and data.dataset != start.dataset:
            axes["start_dataset"] = start.dataset
        return replace(
            start, dataset=data.dataset, search=recipe_of(arguments), search_noise=noise, axes=axes,
            hidden={**start.hidden, "search_noise": noise or 0},
        )  # fmt: skip

    def _acted_on(self, function: str, name: str, arguments: Mapping[str, Any]) -> Lineage:
        """A ticket over other values of its start."""
        ticket = self._subject(arguments.get("ticket"), "ticket")
        options = options_of(arguments)
        if whole(options.get("seed")) is not None:
            options["seed"] = relative(options["seed"], ticket.seed)
        return replace(ticket, axes={**ticket.axes, function: scalar(options) if options else True})

    def _scored(self, value: Any, run: Lineage) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """The data of a score as axes, and as hidden ones, where the run was trained on others.

        A ticket that was never trained has all images of its data set for its own.
        """
        on, name = self._subject(value, "data"), _referred(value)
        part: dict[str, Scalar] = dict(on.axes)
        if on.subset_criterion is not None:
            part |= {"subset": on.subset_criterion, "subset_percent": on.subset_percent}
        if name == run.trained_on if run.trained_on else on.dataset == run.dataset and not part:
            return {}, {}
        seed = whole(on.hidden.get("subset.seed"))
        if seed and seed != run.seed:  # 0 is that of a draw without a seed
            part.setdefault("subset.seed", relative(seed, run.seed))
        part["data"] = on.dataset
        axes: dict[str, Scalar] = {f"score_{axis}": item for axis, item in part.items() if item is not None}
        return axes, {f"score_{axis}": item for axis, item in on.hidden.items()}

    def _trained(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        ticket = self._subject(arguments.get("ticket"), "run")
        data = self._subject(arguments.get("data"), "data")
        noise = whole(arguments.get("noise"))
        axes = {**ticket.axes, **data.axes, **_named(arguments, ("noise_round",))}
        if ticket.dataset is not None and data.dataset != ticket.dataset:
            axes["search_dataset" if ticket.prunings else "start_dataset"] = ticket.dataset
        taught, taught_by = _taught(arguments.get("teacher"), self._first(arguments.get("teacher")))
        # A teacher that pretraining had too is told once.
        told_twice = {f"pretraining_{axis}": value for axis, value in taught.items()}.items()
        axes = {axis: value for axis, value in axes.items() if (axis, value) not in told_twice}
        return replace(
            ticket, dataset=data.dataset, training=recipe_of(arguments), noise=noise,
            causes=_causes(arguments), axes={**axes, **taught},
            subset_percent=data.subset_percent, subset_criterion=data.subset_criterion,
            hidden={**ticket.hidden, **data.hidden, "noise": noise or 0, **taught_by},
            ticket=next((parent for parent, _ in self.within(arguments.get("ticket"))), ""),
            trained_on=_referred(arguments.get("data")),
        )  # fmt: skip

    def _control(self, arguments: Mapping[str, Any], baseline: str, *names: str) -> Lineage:
        """A control of a ticket, drawn by a seed of its own."""
        ticket = self._subject(arguments.get("ticket"), "ticket")
        drawn, hidden = drawn_by(baseline, arguments, ticket.seed)
        axes = {**ticket.axes, **drawn, **_named(arguments, names)}
        if ticket.baseline is not None:
            axes["control_of"] = ticket.baseline
        return replace(ticket, baseline=baseline, axes=axes, hidden={**ticket.hidden, **hidden})

    def _permuted(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        return self._control(arguments, "permuted")

    def _randomized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        control = self._control(arguments, "randomized")
        scope = _named(arguments, ("scope",))
        return replace(control, axes={**control.axes, **{f"mask_{key}": item for key, item in scope.items()}})

    def _reinitialized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        control = self._control(arguments, "reinitialized", "keep_signs")
        return replace(control, rewind=0, pretraining=None)

    def _reheaded(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        """A ticket for other data; one that goes on from a run's trained weights is told by that."""
        subject = self._first(arguments.get("subject"))
        ticket = self._subject(arguments.get("subject"), "ticket")
        drawn, hidden = drawn_by("rehead", arguments, ticket.seed)
        axes: dict[str, Scalar] = {**ticket.axes, **drawn, "rehead": True}
        if subject is not None and subject.kind == "run":
            axes["fine_tuned"] = True
        if ticket.training is not None:
            ticket = replace(
                ticket, search=ticket.training, search_noise=ticket.noise, search_causes=ticket.causes,
                training=None, noise=None, causes={},
            )  # fmt: skip
        return replace(ticket, axes=axes, hidden={**ticket.hidden, **hidden})

    def _trained_on_target(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        """The training of a reheaded ticket on images that are fitted to it."""
        run = self._trained(name, arguments)
        drawn, hidden = drawn_by("rehead", arguments, run.seed)
        axes: dict[str, Scalar] = {**run.axes, **drawn, "rehead": True, **_named(arguments, ("size",))}
        return replace(run, axes=axes, hidden={**run.hidden, **hidden})

    def _perturbed(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        ticket = self._subject(arguments.get("ticket"), "ticket")
        drawn, hidden = drawn_by("perturbation", arguments, ticket.seed)
        axes = {**ticket.axes, **drawn, "perturbed_by": real(arguments.get("distance"))}
        return replace(ticket, axes=axes, hidden={**ticket.hidden, **hidden})

    def _densified(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        ticket = self._subject(arguments.get("ticket"), "ticket")
        axes = {**_unranked(ticket), "densified": True}
        return replace(
            ticket, prunings={}, search=None, search_noise=None, search_causes={}, axes=axes, pruned="",
            ticket="", trained_on="", rankings=(),
        )  # fmt: skip

    def _subset(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        return self._part(arguments, "random_class_balanced", arguments.get("share"))

    def _forgotten_subset(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        criterion = {"least": "least_forgotten", "most": "most_forgotten"}
        which = criterion.get(str(arguments.get("which")), "least_forgotten")
        return self._part(arguments, which, arguments.get("share"))

    def _without(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        share, which = real(arguments.get("share")), str(arguments.get("which"))
        criterion = {"easiest": "easiest_removed", "hardest": "hardest_removed"}
        kept = None if share is None else 1 - share
        return self._part(arguments, criterion.get(which, "easiest_removed"), kept)

    def _part(self, arguments: Mapping[str, Any], criterion: str, share: Any) -> Lineage:
        """A part of the train images of some data."""
        data = self._subject(arguments.get("data"), "data")
        run = self._first(arguments.get("run"))
        drawn, hidden = drawn_by("subset", arguments, None if run is None else run.seed)
        axes = {**data.axes, **drawn, **_named(arguments, ("shots",))}
        part = real(share)
        percent = round(100 * part, 6) if part is not None and 0 <= part <= 1 else None
        if percent is not None and percent != round(percent):
            axes["subset_share"] = part
        if data.subset_criterion is not None:
            axes["subset_of"] = data.subset_criterion
        return replace(
            data, subset_percent=None if percent is None else round(percent), subset_criterion=criterion,
            axes=axes, hidden={**data.hidden, **hidden},
        )  # fmt: skip

    def _selected(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        parents = self.within(arguments.get("selection"))
        selection = self._readable(parents[0][0]) if parents else None
        if selection is None:
            data = self._subject(arguments.get("data"), "data")
            return replace(data, axes={**data.axes, "selected": True})
        options = {**selection["arguments"], "data": arguments.get("data")}
        criterion = str(selection["function"])
        part = self._part(options, _CRITERIA.get(criterion, criterion), options.get("share"))
        axes = {**part.axes, **_named(options, ("keep", "skip", "balanced"))}
        if score := self._example_score(options.get("scores")):
            axes["example_score"] = score
        return replace(part, axes=axes)

    def _example_score(self, value: Any) -> str | None:
        """The score that a job gives, or a mean over such jobs; of a function of the user's own its name."""
        parents = self.within(value)
        while parents:  # a stranger may have taken means of means, as deep as a stack is not
            description = self._readable(parents[0][0])
            if description is None:
                return None
            function, arguments = str(description["function"]), description["arguments"]
            if function != "mean-scores":
                return str(arguments.get("score", _EXAMPLE_SCORES.get(function, function)))[:_LONGEST_SCORE]
            parents = self.within(arguments.get("scores"))
        return None

    def _part_taken(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        data = self._subject(arguments.get("data"), "data")
        indices = arguments.get("indices")
        drawn = hashlib.sha256(json.dumps(indices).encode()).hexdigest()[:12]
        return replace(data, axes={**data.axes, "part": drawn})

    def _fitted(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        data = self._subject(arguments.get("data"), "data")
        return replace(data, axes={**data.axes, **_named(arguments, ("size", "channels"))})


_CRITERIA = {
    "select-by-score": "by_score",
    "random-selection": "random",
    "herding": "herding",
    "k-center": "k_center",
}
"""How images were chosen by each function that selects them; a function of the user's own by its name."""
_EXAMPLE_SCORES = {"example-scores": "el2n", "forgetting-scores": "forgetting"}
"""The score of each function where its arguments do not name one."""
_LONGEST_SCORE = 60


def kind_of(description: Description) -> Kind:
    """What a described call gives; a measure where its function is not declared here."""
    try:
        kind = described_type(description)
    except JobError:
        return "measure"
    kinds: dict[Any, Kind] = {Ticket: "ticket", Point: "ticket", Run: "run", Data: "data"}
    return kinds.get(kind, "measure")


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


def _named(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Scalar]:
    """Some arguments as axes, those that are given."""
    return {name: scalar(arguments[name]) for name in names if arguments.get(name) is not None}


def _taught(value: Any, teacher: Lineage | None) -> tuple[Fields, Fields]:
    """The teacher of a distillation as axes, its network and sparsity; and as a hidden one, its name."""
    if value is None:
        return {}, {}
    axes: dict[str, Scalar] = {"teacher": (teacher.network if teacher else None) or "own"}
    if teacher is not None and teacher.sparsity:
        axes["teacher_sparsity"] = teacher.sparsity
    reference = next(references(value), {})
    name = reference.get("job") or reference.get("value")
    return axes, {"teacher_job": str(name)[:12]}


def _causes(arguments: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of causes of noise that a training has apart from that of its noise."""
    numbers = {name: whole(arguments.get(name)) for name in NOISES}
    return {name: number for name, number in numbers.items() if number is not None}


def _referred(value: Any) -> str:
    """The name of the job or data set that an argument is; empty if it is none."""
    reference = next(references(value), {})
    return str(reference.get("job") or reference.get("data") or "")


def _ranking(arguments: Mapping[str, Any]) -> dict[str, Scalar]:
    """What a pruning ranks by, without defaults."""
    return {name: value for name, value in _named(arguments, _RANKING).items() if value != _RANKING[name]}


def _followed(rankings: Rankings, ranking: Fields) -> Rankings:
    """What prunings ranked by, with one more."""
    if rankings and rankings[-1][0] == ranking:
        return (*rankings[:-1], (ranking, rankings[-1][1] + 1))
    return (*rankings, (ranking, 1))


def _ranked(rankings: Rankings) -> dict[str, Scalar]:
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


def _unranked(lineage: Lineage) -> dict[str, Scalar]:
    """The axes of a lineage but for what its prunings ranked by."""
    ranked = _ranked(lineage.rankings)
    return {name: value for name, value in lineage.axes.items() if name not in ranked}
