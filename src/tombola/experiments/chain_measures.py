"""What is measured on the chains of an experiment: the runs of every round, each alone and between several.

A measure is any declared function of a run, a ticket, two runs or a list; data and recipe of the chains are
handed to it where it asks for them, and options where the experiment has them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_origin

from tombola.data.imageset import Data
from tombola.errors import ExperimentError, unknown
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.experiment_fields import COPIES, LATER, ROUNDS, ExperimentFields, GridPoint, Measures
from tombola.experiments.searches import recipe_with
from tombola.lab.arguments import alternatives, item_hint, job_signature
from tombola.lab.chains import as_job
from tombola.lab.job import Job, job, result_type
from tombola.lab.results import number_names
from tombola.measures.connectivity import barrier, check_points
from tombola.measures.instability import Difference, copies, instability
from tombola.measures.layers import layer_sparsity
from tombola.registry import declaration
from tombola.table.key import Key, Over, Scalar, sparsity_of
from tombola.table.metrics import LAYER_SPARSITY
from tombola.ticket import Ticket
from tombola.training.length import whole_epochs
from tombola.training.loop import pretrain
from tombola.training.recipe import Recipe
from tombola.training.run import Run
from tombola.views.predictors import EARLY

SECOND = "second_sparsity"
"""The axis that tells which later round a round was measured with, as the table has it of single jobs."""

Take = Callable[[Sequence[Job]], list[Job]]
"""From the runs that a measure is taken of, one or several, to the measures."""


def measure_items(
    experiment: ExperimentFields, chains: Mapping[int, Sequence[Job]], key: Key, number: int, point: GridPoint
) -> Iterator[ChainItem]:
    """The runs of a round of the chains of a configuration, one a seed, and every measure of them.

    chains: by seed. key: of the round. Of the last round of a pruning also how sparse each layer is.

    Raises :class:`~tombola.errors.ExperimentError` for a measure of something else than runs or tickets.
    """
    epochs = whole_epochs(point.recipe.epochs)
    runs = tuple(chain[number] for chain in chains.values())
    yield ChainItem(key, "", runs, tuple(chains), epochs)
    if number and number == experiment.rounds and point.control is None:
        layers = tuple(job(layer_sparsity, run.arguments["ticket"]) for run in runs)
        yield ChainItem(key, LAYER_SPARSITY, layers, tuple(chains), epochs)
    if not number and point.search is None and point.control is None:
        yield from _early_items(experiment, chains, key, point)
    for between, differ_in, measures in _measured(experiment):
        groups = [
            (seed, group)
            for seed, chain in chains.items()
            if (group := _runs(experiment, between, differ_in, chain, number, seed, point))
        ]
        axes = () if differ_in == "noise" else (("differ_in", differ_in),)
        for name, quantity, options, varied in _named_measures(experiment, measures):
            take, over = _taken(experiment, between, name, options, point)
            for apart, members in _with_each_later(between, over, groups, number, point):
                jobs = [(seed, measure) for seed, group in members for measure in take(group)]
                if jobs:
                    yield ChainItem(
                        replace(key, more=(*key.more, *axes, *apart)), name,
                        tuple(measure for _, measure in jobs), tuple(seed for seed, _ in jobs), epochs,
                        between, "seeds" if between == LATER else over, quantity, varied,
                        options.get("recalibrate") is True,
                    )  # fmt: skip


def _early_items(
    experiment: ExperimentFields, chains: Mapping[int, Sequence[Job]], key: Key, point: GridPoint
) -> Iterator[ChainItem]:
    """The predictors of a configuration: measures of the network early in its dense training, one a seed."""
    epochs = whole_epochs(point.recipe.epochs)
    for name, quantity, options, varied in _named_measures(experiment, experiment.predictors):
        function, subjects, others = _parameters(experiment, name, options, point)
        if list(subjects.values()) not in ([Run], [Ticket]) or not _takes_ticket(function, *subjects):
            raise ExperimentError(
                f"{experiment.name}: predictor {name!r} takes {_text_of(subjects)}; it must take one ticket "
                "and, if it wants, the data and the recipe"
            )
        (subject,) = subjects
        trains = any(isinstance(value, Recipe) for value in others.values())
        jobs = tuple(
            job(function, **{subject: _early(experiment, chain, seed, point, trains=trains)}, **others)
            for seed, chain in chains.items()
        )
        early = replace(key, more=(*key.more, (EARLY, experiment.early)))
        yield ChainItem(
            early, name, jobs, tuple(chains), epochs, quantity=quantity, options=varied,
            recalibrated=options.get("recalibrate") is True,
        )  # fmt: skip


def _early(
    experiment: ExperimentFields, chain: Sequence[Job], seed: int, point: GridPoint, *, trains: bool
) -> Job:
    """The ticket that a predictor is taken of: where its training begins, if it trains by itself."""
    start = as_job(chain[0].arguments["ticket"])
    if trains or (isinstance(point.rewind, int) and point.rewind >= experiment.early):
        return start
    return job(
        pretrain, start, point.data, point.recipe, epochs=experiment.early, noise=seed,
        order_noise=experiment.order_noise, augmentation_noise=experiment.augmentation_noise,
        teacher=experiment.teacher_of(point),
    )  # fmt: skip


def _with_each_later(
    between: str, over: Over, groups: Sequence[tuple[int, list[Job]]], number: int, point: GridPoint
) -> Iterator[tuple[tuple[tuple[str, Scalar], ...], Sequence[tuple[int, list[Job]]]]]:
    """The groups of runs that a measure is taken of, with what tells them apart.

    A measure of two runs is taken of a round with each later one; one of several of all of them together.
    """
    if between != LATER or over != "pairs" or not groups:
        yield (), groups
        return
    for offset in range(1, len(groups[0][1])):
        sparsity = sparsity_of(point.pruning.prunings(number + offset))
        yield ((SECOND, sparsity),), [(seed, [runs[0], runs[offset]]) for seed, runs in groups]


def _measured(experiment: ExperimentFields) -> Iterator[tuple[str, Difference, Measures]]:
    """What measures are taken between, what copies differ in, and the measures."""
    yield "", "noise", experiment.measures
    for between, measures in experiment.between.items():
        for differ_in in experiment.differences if between == COPIES else ("noise",):
            yield between, differ_in, measures


def _runs(
    experiment: ExperimentFields,
    between: str,
    differ_in: Difference,
    chain: Sequence[Job],
    number: int,
    seed: int,
    point: GridPoint,
) -> list[Job]:
    """The runs of one seed that a measure at a round is taken of; none without a next round, or copies."""
    if between == COPIES:
        if experiment.copies_at is not None and number not in experiment.copies_at:
            return []
        # The chain's own training is the first copy, for its noise is the seed.
        noises = range(seed, seed + experiment.copies)
        ticket = chain[number].arguments["ticket"]
        runs = copies(
            job, ticket, point.data, point.recipe, noises=noises, differ_in=differ_in,
            teacher=experiment.teacher_of(point),
        )  # fmt: skip
        return [as_job(run) for run in runs]
    if between in (ROUNDS, LATER) and (point.search is not None or point.control is not None):
        return []  # one does not follow from the other
    if between == ROUNDS:
        return list(chain[number : number + 2]) if number < experiment.rounds else []
    if between == LATER:
        return list(chain[number:]) if number < experiment.rounds else []
    return [chain[number]]


def _named_measures(
    experiment: ExperimentFields, measures: Measures
) -> Iterator[tuple[str, str, Mapping[str, Any], tuple[tuple[str, Scalar], ...]]]:
    """Of each measure its name, the wanted number, its options, and those that tell it apart."""
    by_name = measures if isinstance(measures, Mapping) else {name: {} for name in measures}
    for text, choices in by_name.items():
        name, _, quantity = text.partition(".")
        if quantity:
            _check_quantity(experiment, name, quantity)
        options = [choices] if isinstance(choices, Mapping) else list(choices)
        names = dict.fromkeys(option for chosen in options for option in chosen)
        varied = [
            name for name in names if any(chosen.get(name) != options[0].get(name) for chosen in options)
        ]
        for chosen in options:
            # Whether batch norm is measured anew stands in the key of every number.
            told_by_key = {"recalibrate"} if chosen.get("recalibrate") in (None, True) else set()
            apart = [option for option in varied if option not in told_by_key and option in chosen]
            axes = tuple((f"{name}.{option}", scalar(chosen[option])) for option in apart)
            yield name, quantity, chosen, axes


def _taken(
    experiment: ExperimentFields, between: str, name: str, options: Mapping[str, Any], point: GridPoint
) -> tuple[Take, Over]:
    """How a measure is taken, and what its values are of."""
    if not between:
        return _of_one(experiment, name, options, point), "seeds"
    take, of_pairs = _of_several(experiment, name, options, point)
    if between == ROUNDS:
        return take, "rounds"
    return take, "pairs" if of_pairs else "copies"


def scalar(value: Any) -> Scalar:
    """A value as the axis of a key has it: a number or text as it is, all else as text."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _check_quantity(experiment: ExperimentFields, name: str, quantity: str) -> None:
    """Refuse a number that the result of a measure does not have, as far as its type tells."""
    kinds = alternatives(result_type(declaration(name)))
    if {bool, int, float} & set(kinds):
        raise ExperimentError(
            f"{experiment.name}: measure {name!r} gives a single number; leave out {quantity!r}"
        )
    names = [key for kind in kinds if isinstance(kind, type) for key in number_names(kind)]
    first = re.split(r"[.\[]", quantity)[0]
    if names and first not in names:
        raise ExperimentError(f"{experiment.name}: {unknown(f'number of measure {name!r}', first, names)}")


def _of_one(experiment: ExperimentFields, name: str, options: Mapping[str, Any], point: GridPoint) -> Take:
    """How a measure is taken of the run of a round, or of its ticket."""
    function, subjects, others = _parameters(experiment, name, options, point)
    if list(subjects.values()) not in ([Run], [Ticket]):
        raise ExperimentError(
            f"{experiment.name}: measure {name!r} takes {_text_of(subjects)}; here a measure takes one run "
            "or ticket and, if it wants, the data and the recipe; one of several runs belongs under between"
        )
    ((subject, kind),) = subjects.items()

    def take(runs: Sequence[Job]) -> list[Job]:
        (run,) = runs
        return [job(function, **{subject: run if kind is Run else run.arguments["ticket"]}, **others)]

    return take


def _of_several(
    experiment: ExperimentFields, name: str, options: Mapping[str, Any], point: GridPoint
) -> tuple[Take, bool]:
    """How a measure is taken of a list of runs, or of every pair of them, and whether it is of pairs."""
    function, subjects, others = _parameters(experiment, name, options, point)
    if function in (barrier, instability) and isinstance(points := options.get("points"), int):
        check_points(points)  # rather than in each of its jobs
    if list(subjects.values()) not in ([Run, Run], [list]):
        raise ExperimentError(
            f"{experiment.name}: measure {name!r} takes {_text_of(subjects)}; between runs a measure takes "
            "two of them, or a list, and, if it wants, the data and the recipe"
        )

    def take(runs: Sequence[Job]) -> list[Job]:
        if len(subjects) == 1:
            return [job(function, **{key: list(runs) for key in subjects}, **others)]
        pairs = itertools.combinations(runs, 2)
        return [job(function, **dict(zip(subjects, pair, strict=True)), **others) for pair in pairs]

    return take, len(subjects) == 2


def _parameters(
    experiment: ExperimentFields, name: str, options: Mapping[str, Any], point: GridPoint
) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """A measure's function, the parameters for runs or a ticket with their kinds, and all other arguments.

    A measure that asks for a recipe gets that of the chain; an option may have fields to replace in it.
    """
    function = declaration(name).function
    interface = job_signature(function)
    required = [
        key
        for key, parameter in interface.signature.parameters.items()
        if parameter.default is parameter.empty
    ]
    kinds = {key: _kind(interface.hints.get(key, Any)) for key in required}
    of_point: dict[Any, Any] = {Data: point.data, Recipe: point.recipe}
    others = {key: of_point[kind] for key, kind in kinds.items() if kind in of_point} | dict(options)
    defaults = {key: parameter.default for key, parameter in interface.signature.parameters.items()}
    for key, value in options.items():
        recipe = point.recipe if kinds.get(key) is Recipe else defaults.get(key)
        if isinstance(recipe, Recipe) and isinstance(value, Mapping):
            others[key] = recipe_with(recipe, value, f"{experiment.name}: {key} of measure {name!r}")
    return function, {key: kind for key, kind in kinds.items() if key not in others}, others


def _takes_ticket(function: Callable[..., Any], subject: str) -> bool:
    """Whether a parameter of a measure takes a ticket, perhaps beside a run."""
    return Ticket in alternatives(job_signature(function).hints.get(subject, Any))


def _kind(hint: Any) -> Any:
    """Whether a parameter takes a run, a ticket, data, a recipe or a list of runs; None if none of these."""
    kinds = alternatives(hint)
    for kind in (Run, Ticket, Data, Recipe):
        if kind in kinds:
            return kind
    return list if get_origin(hint) and Run in alternatives(item_hint(hint, 0)) else None


def _text_of(subjects: Mapping[str, Any]) -> str:
    return ", ".join(subjects) or "nothing"
