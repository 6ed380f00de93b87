"""Running experiments, and what they have to show so far.

All jobs that the items want go to the lab at once, each once, so that what they share is trained once and
every slot has work. Items that learn from results what to ask next, searches, go on round by round until none
wants more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tombola.data.imageset import Data
from tombola.data.load import load_data
from tombola.errors import DataError
from tombola.experiments.bound import Bound
from tombola.lab.deadline import Stop
from tombola.lab.driver import Outcome, Progress
from tombola.lab.item import jobs_of, wanted_of
from tombola.lab.job import data_behind
from tombola.lab.lab import Lab
from tombola.lab.thinning import ThinningProgress
from tombola.table.number import many
from tombola.table.table import Table


@dataclass(frozen=True)
class Done:
    """How far an experiment is.

    jobs: those that its items ask for, not those behind them; finished: how many are in the store.
    searches: of those that follow from results; over: how many of them.
    """

    experiment: Bound
    jobs: int
    finished: int
    searches: int = 0
    over: int = 0

    def __str__(self) -> str:
        parts = [f"{self.finished} of {many(self.jobs, 'job')}"] if self.jobs else []
        searches = "search" if self.searches == 1 else "searches"
        parts += [f"{self.over} of {self.searches} {searches}"] if self.searches else []
        return f"{self.experiment.name:<21}  {self.experiment.title}: {', '.join(parts)} done"

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        return {
            "name": self.experiment.name, "title": self.experiment.title, "jobs": self.jobs,
            "finished": self.finished, "searches": self.searches, "searches_over": self.over,
            "left_out": None,
        }  # fmt: skip


@dataclass(frozen=True)
class LeftOut:
    """An experiment that is not shown or run, and why."""

    name: str
    title: str
    cause: str

    def __str__(self) -> str:
        return f"{self.name:<21}  {self.title}: not at this scale ({self.cause})"

    def to_json(self) -> dict[str, Any]:
        """The same as an object, with the fields of :class:`Done`."""
        return {
            "name": self.name, "title": self.title, "jobs": 0, "finished": 0, "searches": 0,
            "searches_over": 0, "left_out": self.cause,
        }  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What came of running experiments.

    outcome: of all jobs. skipped: experiments whose data cannot be loaded, with the cause.
    """

    outcome: Outcome
    skipped: dict[str, str]


def done(experiment: Bound, lab: Lab | None) -> Done:
    """How far an experiment is; without a lab nothing is done. What no store keeps is not counted."""
    jobs = [job for job in jobs_of(experiment.items) if job.stored]
    results = None if lab is None else lab.results()
    counts = [item.searches(results) for item in experiment.items]
    return Done(
        experiment,
        jobs=len(jobs),
        finished=0 if lab is None else sum(map(lab.has, jobs)),
        searches=sum(searches for _, searches in counts),
        over=sum(over for over, _ in counts),
    )


def run_experiments(
    lab: Lab,
    experiments: Sequence[Bound],
    *,
    keep_going: bool = False,
    progress: Progress | None = None,
    begun: Callable[[], object] | None = None,
    stop: Stop | None = None,
    recompute: Sequence[str] = (),
    keep: Literal["all", "needed"] = "all",
) -> Ran:
    """Compute what is missing of some experiments.

    keep_going: leave out those that need data which cannot be loaded, instead of stopping before anything is
        run. Jobs that fail are told in the outcome either way, and the others run.
    begun: called once, when nothing is refused any more and before the first job.
    stop: ends all of it, with what is left in the outcome; see :func:`~tombola.lab.deadline.stopping`.
    recompute: names of functions and networks whose results, and all made from them, are removed first.
    keep: "needed" removes the weights of runs once nothing of the experiments needs them, see
        :mod:`tombola.lab.thinning`.

    Raises :class:`~tombola.errors.DataError` as said and where no experiment is left, and what ``Lab.run``
    raises.
    """
    skipped = unloadable(lab, experiments)
    chosen = [experiment for experiment in experiments if experiment.name not in skipped]
    if skipped and not (keep_going and chosen):
        raise DataError(_refusal(skipped) + " (with --keep-going the others are)" * bool(chosen))
    if begun is not None:
        begun()
    items = [item for experiment in chosen for item in experiment.items]
    outcome = Outcome()
    results = lab.results()
    run = lab.run if stop is None else partial(lab.run, stop_after=stop)
    # Finished jobs go along in the first round: the outcome counts them, and their data is checked.
    jobs = list({job.name: job for job in (*jobs_of(items), *wanted_of(items, results))}.values())
    requested: set[str] = set()
    thinning = ThinningProgress(progress or Progress(), lab.store) if keep == "needed" else None
    while jobs:
        if thinning is not None:
            thinning.expect(jobs)
        requested.update(job.name for job in jobs)
        _add(outcome, run(jobs, progress=thinning or progress, recompute=recompute))
        recompute = ()
        if outcome.left:  # a search would want it again
            break
        # One that is wanted again cannot be read: it is damaged, and what needs it has failed.
        unavailable = requested | outcome.failed.keys()
        jobs = [job for job in wanted_of(items, results) if job.name not in unavailable]
    return Ran(outcome, skipped)


def collect(lab: Lab, experiments: Iterable[Bound]) -> Table:
    """Every number of some experiments, gaps included; each result is read once."""
    results = lab.results()
    return Table(number for experiment in experiments for number in experiment.numbers(results))


def unloadable(lab: Lab, experiments: Iterable[Bound]) -> dict[str, str]:
    """The experiments with something left to compute whose data cannot be loaded, with the cause."""
    results = lab.results()
    causes: dict[str, str] = {}  # by data set, empty for one that can be loaded
    refused: dict[str, str] = {}
    for experiment in experiments:
        for name, source in data_behind(wanted_of(experiment.items, results)).items():
            if name not in causes:
                causes[name] = _cause(source)
            if causes[name]:
                refused[experiment.name] = causes[name]
    return refused


def _refusal(skipped: Mapping[str, str]) -> str:
    """Which experiments cannot be run, cause by cause."""
    by_cause: dict[str, list[str]] = {}
    for name, cause in skipped.items():
        by_cause.setdefault(cause, []).append(name)
    return "; ".join(f"{', '.join(names)} cannot be run: {cause}" for cause, names in by_cause.items())


def _cause(source: str | Data) -> str:
    """Why data cannot be loaded; empty if it can."""
    try:
        load_data(source)
    except DataError as error:
        return str(error)
    return ""


def _add(total: Outcome, more: Outcome) -> None:
    counted = {*total.finished_before, *total.computed}
    total.finished_before += [name for name in more.finished_before if name not in counted]
    total.computed += more.computed
    total.failed |= more.failed
    total.left, total.not_begun, total.stopped = more.left, more.not_begun, more.stopped
