"""Items of pruning chains: the runs of every round, measures of one run, and measures between several."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_origin

from tombola.data.imageset import Data
from tombola.errors import StudyError, unknown
from tombola.lab.arguments import alternatives, item_hint, job_signature
from tombola.lab.chains import as_job
from tombola.lab.item import Guess, Results
from tombola.lab.job import Job, job, result_type
from tombola.lab.results import number_names, numbers_of
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import copies
from tombola.registry import declaration
from tombola.table.key import Key, Over
from tombola.table.metrics import metric_name
from tombola.table.number import Curve, Number
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run

if TYPE_CHECKING:
    from tombola.experiments.experiment import Experiment, Measures

COPIES, ROUNDS = "copies", "rounds"
BETWEEN = (COPIES, ROUNDS)
"""The runs that a measure of several can be taken between."""
_OVER: Mapping[str, Over] = {"": "seeds", COPIES: "pairs", ROUNDS: "rounds"}

Take = Callable[[Sequence[Job]], list[Job]]
"""From the runs that a measure is taken of, one or several, to the measures."""


@dataclass(frozen=True)
class ChainItem:
    """One measure of the chains of one recipe at one round.

    key: of all its numbers but for the metric. measure: its declared name; empty for the runs themselves.
    jobs: one a seed; of a measure of two runs one a pair. seeds: of each job.
    between: the runs that it was taken between, such as ``"copies"``; empty for a single one.
    quantity: the number of it that is wanted, such as ``"height"``; empty for all.
    recalibrated: whether it measures batch-norm statistics anew.
    """

    key: Key
    measure: str
    jobs: tuple[Job, ...]
    seeds: tuple[int, ...]
    epochs: int
    between: str = ""
    quantity: str = ""
    recalibrated: bool = False

    def numbers(self, results: Results) -> list[Number]:
        """Every number of its measure, for each run or pair in turn; a gap for what is not computed yet."""
        finished = {job.name: result for job in self.jobs if (result := results.of(job)) is not None}
        values = {name: self._values(result) for name, result in finished.items()}
        metrics = list(dict.fromkeys(metric for one in values.values() for metric in one))
        return [
            self._number(metric, place, results, finished.get(job.name), values.get(job.name))
            for metric in metrics or [self._metric("")]
            for place, job in enumerate(self.jobs)
        ]

    def _values(self, result: Any) -> dict[str, float]:
        """The wanted numbers of a result by metric; of a run its accuracy."""
        if not self.measure:
            return {"val_accuracy": result["accuracy"]}
        wanted = re.compile(rf"{re.escape(self.quantity)}(?![^.\[])" if self.quantity else "")
        return {self._metric(name): value for name, value in numbers_of(result).items() if wanted.match(name)}

    def _metric(self, quantity: str) -> str:
        if not self.measure:
            return "val_accuracy"
        return metric_name(self.measure, quantity, self.between, recalibrated=self.recalibrated)

    def _number(
        self, metric: str, place: int, results: Results, result: Any, values: Mapping[str, float] | None
    ) -> Number:
        job, over = self.jobs[place], _OVER[self.between]
        number = Number(
            key=replace(self.key, metric=metric, over=over), value=None, state="missing",
            epochs=self.epochs, seed=self.seeds[place], pair=self._pair(place), jobs=(job.name,),
        )  # fmt: skip
        if values is None:
            return number
        failed = any(results.of(run)["failed"] for run in _runs_behind(job))
        if not math.isfinite(values.get(metric, math.nan)):  # a diverged run has an infinite loss
            return replace(number, state="undefined", failed=failed)
        curve = _course(result) if self.measure else results.curve(job)
        return replace(number, state="measured", value=values[metric], failed=failed, curve=curve)

    def _pair(self, place: int) -> int | None:
        """Which pair of the copies of one seed a job is of."""
        if self.between != COPIES:
            return None
        return place - self.seeds.index(self.seeds[place])

    def wanted(self, results: Results) -> list[Job]:
        """Those of its jobs that are not finished."""
        return [job for job in self.jobs if not results.has(job)]

    def planned(self, results: Results | None, guess: Guess) -> tuple[Job, ...]:
        """All of its jobs, whatever is guessed."""
        return self.jobs

    def done(self, results: Results) -> list[Job]:
        """Those of its jobs that are finished."""
        return [job for job in self.jobs if results.has(job)]

    def searches(self, results: Results | None) -> tuple[int, int]:
        """None: it asks once."""
        return 0, 0


def _runs_behind(measure: Job) -> list[Job]:
    """A run itself, or the runs that a measure was taken of."""
    return [job for job in (measure, *measure.needs) if result_type(job.declaration) is Run]


def _course(result: Any) -> Curve | None:
    """The error along a line between two runs, of a barrier."""
    return Curve(result.alphas, result.errors) if isinstance(result, Barrier) else None


def measure_items(
    experiment: Experiment,
    chains: Sequence[Sequence[Job]],
    key: Key,
    number: int,
    data: str | Data,
    recipe: Recipe,
) -> Iterator[ChainItem]:
    """The runs of a round of some chains, one a seed, and every measure of them.

    Raises :class:`~tombola.errors.StudyError` for a measure of something else than runs or tickets.
    """
    seeds = tuple(range(len(chains)))
    yield ChainItem(key, "", tuple(chain[number] for chain in chains), seeds, recipe.epochs)
    for between, measures in (("", experiment.measures), *experiment.between.items()):
        groups = [
            (seed, group)
            for seed, chain in enumerate(chains)
            if (group := _runs(experiment, between, chain, number, seed, data, recipe))
        ]
        for name, quantity, options, take in _taken(experiment, between, measures, data):
            jobs = [(seed, measure) for seed, group in groups for measure in take(group)]
            if jobs:
                yield ChainItem(
                    key, name, tuple(measure for _, measure in jobs), tuple(seed for seed, _ in jobs),
                    recipe.epochs, between, quantity, options.get("recalibrate") is True,
                )  # fmt: skip


def _runs(
    experiment: Experiment,
    between: str,
    chain: Sequence[Job],
    number: int,
    seed: int,
    data: Any,
    recipe: Recipe,
) -> list[Job]:
    """The runs of one seed that a measure at a round is taken of; none where there is no next round, or no copies."""
    if between == COPIES:
        if experiment.copies_at is not None and number not in experiment.copies_at:
            return []
        # The chain's own training is the first copy, for its noise is the seed.
        noises = range(seed, seed + experiment.copies)
        runs = copies(job, chain[number].arguments["ticket"], data, recipe, noises=noises)
        return [as_job(run) for run in runs]
    if between == ROUNDS:
        return list(chain[number : number + 2]) if number < experiment.rounds else []
    return [chain[number]]


def _taken(
    experiment: Experiment, between: str, measures: Measures, data: str | Data
) -> Iterator[tuple[str, str, Mapping[str, Any], Take]]:
    """Each of some measures by name, which number of it is wanted, with which options, and how it is taken."""
    options = measures if isinstance(measures, Mapping) else {name: {} for name in measures}
    for text, choices in options.items():
        name, _, quantity = text.partition(".")
        if quantity:
            _check_quantity(experiment, name, quantity)
        for chosen in [choices] if isinstance(choices, Mapping) else choices:
            take = (_of_several if between else _of_one)(experiment, name, chosen, data)
            yield name, quantity, chosen, take


def _check_quantity(experiment: Experiment, name: str, quantity: str) -> None:
    """Refuse a number that the result of a measure does not have, as far as its type tells."""
    kinds = alternatives(result_type(declaration(name)))
    if {bool, int, float} & set(kinds):
        raise StudyError(f"{experiment.name}: measure {name!r} gives a single number; leave out {quantity!r}")
    names = [key for kind in kinds if isinstance(kind, type) for key in number_names(kind)]
    first = re.split(r"[.\[]", quantity)[0]
    if names and first not in names:
        raise StudyError(f"{experiment.name}: {unknown(f'number of measure {name!r}', first, names)}")


def _of_one(experiment: Experiment, name: str, options: Mapping[str, Any], data: str | Data) -> Take:
    """How a measure is taken of the run of a round, or of its ticket."""
    function, subjects, others = _parameters(experiment, name, options, data)
    if list(subjects.values()) not in ([Run], [Ticket]):
        raise StudyError(
            f"{experiment.name}: measure {name!r} takes {_text_of(subjects)}; here a measure takes one run or "
            "ticket and, if it wants, the data; one of several runs belongs under between"
        )
    ((subject, kind),) = subjects.items()

    def take(runs: Sequence[Job]) -> list[Job]:
        (run,) = runs
        return [job(function, **{subject: run if kind is Run else run.arguments["ticket"]}, **others)]

    return take


def _of_several(experiment: Experiment, name: str, options: Mapping[str, Any], data: str | Data) -> Take:
    """How a measure is taken of a list of runs, or of every pair of them."""
    function, subjects, others = _parameters(experiment, name, options, data)
    if list(subjects.values()) not in ([Run, Run], [list]):
        raise StudyError(
            f"{experiment.name}: measure {name!r} takes {_text_of(subjects)}; between runs a measure takes two of "
            "them, or a list, and, if it wants, the data"
        )

    def take(runs: Sequence[Job]) -> list[Job]:
        if len(subjects) == 1:
            return [job(function, **{key: list(runs) for key in subjects}, **others)]
        pairs = itertools.combinations(runs, 2)
        return [job(function, **dict(zip(subjects, pair, strict=True)), **others) for pair in pairs]

    return take


def _parameters(
    experiment: Experiment, name: str, options: Mapping[str, Any], data: str | Data
) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """A measure's function, the parameters for runs or a ticket with their kinds, and all other arguments."""
    function = declaration(name).function
    interface = job_signature(function)
    required = [
        key
        for key, parameter in interface.signature.parameters.items()
        if parameter.default is parameter.empty and key not in options
    ]
    kinds = {key: _kind(interface.hints.get(key, Any)) for key in required}
    of_data = [key for key, kind in kinds.items() if kind is Data]
    others = {**dict.fromkeys(of_data, data), **options}
    return function, {key: kind for key, kind in kinds.items() if kind is not Data}, others


def _kind(hint: Any) -> Any:
    """Whether a parameter takes a run, a ticket, data or a list of runs; None if nothing of these."""
    kinds = alternatives(hint)
    for kind in (Run, Ticket, Data):
        if kind in kinds:
            return kind
    return list if get_origin(hint) and Run in alternatives(item_hint(hint, 0)) else None


def _text_of(subjects: Mapping[str, Any]) -> str:
    return ", ".join(subjects) or "nothing"
