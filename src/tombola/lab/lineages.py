"""Lineages: what the result of a described job is of, read off its description and those behind it.

Seeds, data, recipes and prunings stand in different calls of a chain. They are followed here from the first
weights on, by name, through the descriptions of jobs or of the store; :mod:`tombola.lab.job_table` makes keys
of them. Each step below says what one function makes of the lineage of its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tombola.lab.arguments import written_defaults
from tombola.lab.call_values import options_of, real, references, relative, scalar, whole
from tombola.lab.data_lineages import (
    fitted_data,
    forgotten_part,
    part_taken,
    part_without,
    random_part,
    selected_part,
)
from tombola.lab.job import Job
from tombola.lab.lineage import (
    Fields,
    Lineage,
    drawn_by,
    followed,
    named_axes,
    ranked_axes,
    ranking_of,
    recipe_of,
    unranked_axes,
)
from tombola.lab.lineage_reader import LineageReader
from tombola.lab.store import Store
from tombola.pruning.learned_mask import edge_popup
from tombola.seeds import NOISES
from tombola.table.key import Scalar


class Lineages(LineageReader):
    """The lineages of jobs, and what each function makes of that of its arguments.

    store, jobs: as for :class:`~tombola.lab.lineage_reader.LineageReader`.
    """

    def __init__(self, store: Store, jobs: Iterable[Job]) -> None:
        super().__init__(store, jobs)
        self._steps = {
            "initialize": self._initialized, "pretrain": self._pretrained, "trunk": self._pretrained,
            "ticket_at": self._taken_at, "prune": self._pruned, "train": self._trained,
            "permute": self._permuted, "randomize": self._randomized, "densify": self._densified,
            "reinitialize": self._reinitialized, "subset": partial(random_part, self),
            "forgotten-subset": partial(forgotten_part, self),
            "drop-by-difficulty": partial(part_without, self),
            "fit_images": partial(fitted_data, self), "take": partial(part_taken, self),
            "prune-at-initialization": self._pruned_at_initialization,
            "edge-popup": self._edge_popup, "supermask": self._supermask,
            "shuffle-start": partial(self._acted_on, "shuffle_start"),
            "signed-constant": partial(self._acted_on, "signed_constant"),
            "rescale": partial(self._acted_on, "rescale"),
            "freeze-pruned": partial(self._acted_on, "freeze_pruned"),
            "selected": partial(selected_part, self),
            "rehead": self._reheaded, "transfer-training": self._trained_on_target,
            "pretrain-on-part": self._pretrained_on_part, "at-same-step": self._at_same_step,
            "perturb": self._perturbed,
        }  # fmt: skip

    def _initialized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        data = self.subject(arguments.get("data"), "data")
        init = {"init": scalar(arguments["init"])} if arguments.get("init") is not None else {}
        network = arguments.get("network")
        return Lineage(
            kind="ticket", network=network if isinstance(network, str) else None, dataset=data.dataset,
            seed=whole(arguments.get("seed", 0)), prunings={}, axes=init,
        )  # fmt: skip

    def _pretrained(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        start = self.subject(arguments.get("start"), "ticket")
        noise, axes = arguments.get("noise"), dict(start.axes)
        if whole(noise) is not None and noise != start.seed:
            axes["pretraining_noise"] = relative(noise, start.seed)
        for name, number in _causes(arguments).items():
            axes[f"pretraining_{name}"] = relative(number, start.seed)
        taught, taught_by = _taught(arguments.get("teacher"), self.first(arguments.get("teacher")))
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
        part = self.subject(arguments.get("part"), "data")
        percent, criterion = part.subset_percent, part.subset_criterion
        chosen = {"pretraining_subset": criterion, "pretraining_subset_percent": percent}
        axes = {f"pretraining_{axis}": value for axis, value in part.axes.items()}
        axes |= {axis: value for axis, value in chosen.items() if value is not None}
        hidden = {f"pretraining_{axis}": value for axis, value in part.hidden.items()}
        return replace(start, axes={**start.axes, **axes}, hidden={**start.hidden, **hidden})

    def _at_same_step(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        return self.subject(arguments.get("ticket"), "ticket")

    def _taken_at(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        point = self.first(arguments.get("point"))
        return replace(point, kind="ticket") if point else self.subject(arguments.get("start"), "ticket")

    def _pruned(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        run = self.subject(arguments.get("run"), "ticket")
        fraction = real(arguments.get("fraction", 0.2))
        prunings = None
        if run.prunings is not None and fraction is not None and 0 < fraction < 1:
            prunings = {**run.prunings, fraction: run.prunings.get(fraction, 0) + 1}
        scored, hidden = self._scored(arguments.get("data"), run)
        rankings = followed(run.rankings, ranking_of(arguments) | scored)
        axes = {**unranked_axes(run), **ranked_axes(rankings)}
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
        start = self.subject(arguments.get("start"), "ticket")
        sparsity, rounds = real(arguments.get("sparsity")), whole(arguments.get("rounds"))
        prunings = None
        if start.prunings == {} and sparsity is not None and 0 < sparsity < 1:
            prunings = {sparsity: 1}
        rankings = followed((), ranking_of(arguments))
        axes = {**start.axes, **ranked_axes(rankings)}
        axes |= {} if rounds is None else {"pruning_rounds": rounds}
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
        return replace(learned, axes={**learned.axes, **named_axes(arguments, ("dynamic_scaling", "draw"))})

    def _learned(self, mask: str, arguments: Mapping[str, Any]) -> Lineage:
        """A start under a mask whose learning counts as its search."""
        start = self.subject(arguments.get("start"), "ticket")
        data = self.subject(arguments.get("data"), "data")
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
        ticket = self.subject(arguments.get("ticket"), "ticket")
        options = options_of(arguments)
        if whole(options.get("seed")) is not None:
            options["seed"] = relative(options["seed"], ticket.seed)
        return replace(ticket, axes={**ticket.axes, function: scalar(options) if options else True})

    def _scored(self, value: Any, run: Lineage) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """The data of a score as axes, and as hidden ones, where the run was trained on others.

        A ticket that was never trained has all images of its data set for its own.
        """
        on, name = self.subject(value, "data"), _referred(value)
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
        ticket = self.subject(arguments.get("ticket"), "run")
        data = self.subject(arguments.get("data"), "data")
        noise = whole(arguments.get("noise"))
        axes = {**ticket.axes, **data.axes, **named_axes(arguments, ("noise_round",))}
        if ticket.dataset is not None and data.dataset != ticket.dataset:
            axes["search_dataset" if ticket.prunings else "start_dataset"] = ticket.dataset
        taught, taught_by = _taught(arguments.get("teacher"), self.first(arguments.get("teacher")))
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
        ticket = self.subject(arguments.get("ticket"), "ticket")
        drawn, hidden = drawn_by(baseline, arguments, ticket.seed)
        axes = {**ticket.axes, **drawn, **named_axes(arguments, names)}
        if ticket.baseline is not None:
            axes["control_of"] = ticket.baseline
        return replace(ticket, baseline=baseline, axes=axes, hidden={**ticket.hidden, **hidden})

    def _permuted(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        return self._control(arguments, "permuted")

    def _randomized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        control = self._control(arguments, "randomized")
        scope = named_axes(arguments, ("scope",))
        return replace(control, axes={**control.axes, **{f"mask_{key}": item for key, item in scope.items()}})

    def _reinitialized(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        control = self._control(arguments, "reinitialized", "keep_signs")
        return replace(control, rewind=0, pretraining=None)

    def _reheaded(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        """A ticket for other data; one that goes on from a run's trained weights is told by that."""
        subject = self.first(arguments.get("subject"))
        ticket = self.subject(arguments.get("subject"), "ticket")
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
        axes: dict[str, Scalar] = {**run.axes, **drawn, "rehead": True, **named_axes(arguments, ("size",))}
        return replace(run, axes=axes, hidden={**run.hidden, **hidden})

    def _perturbed(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        ticket = self.subject(arguments.get("ticket"), "ticket")
        drawn, hidden = drawn_by("perturbation", arguments, ticket.seed)
        axes = {**ticket.axes, **drawn, "perturbed_by": real(arguments.get("distance"))}
        return replace(ticket, axes=axes, hidden={**ticket.hidden, **hidden})

    def _densified(self, name: str, arguments: Mapping[str, Any]) -> Lineage:
        ticket = self.subject(arguments.get("ticket"), "ticket")
        axes = {**unranked_axes(ticket), "densified": True}
        return replace(
            ticket, prunings={}, search=None, search_noise=None, search_causes={}, axes=axes, pruned="",
            ticket="", trained_on="", rankings=(),
        )  # fmt: skip


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
