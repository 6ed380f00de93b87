"""Running studies, and what they have to show so far.

All jobs of the studies asked for go to the lab at once, each once, so that what they share is trained once
and every slot has work. Searches then go on, round by round, until none asks for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tombola.data.imageset import Data
from tombola.data.load import load_data
from tombola.errors import DataError, StudyError
from tombola.lab.deadline import Stop
from tombola.lab.engine import Outcome, Progress
from tombola.lab.job import Job, data_behind
from tombola.lab.lab import Lab
from tombola.studies.cells import Cell, Place, by_place
from tombola.studies.paper.jobs import Work
from tombola.studies.results import Results
from tombola.studies.study import Shown, Study


@dataclass(frozen=True)
class Done:
    """How far a study is.

    jobs: those that its entries ask for, not those behind them; finished: how many are in the store.
    searches: of those that follow from results; over: how many of them.
    """

    study: Study
    jobs: int
    finished: int
    searches: int = 0
    over: int = 0

    def __str__(self) -> str:
        parts = [f"{self.finished} of {self.jobs} jobs"] if self.jobs else []
        parts += [f"{self.over} of {self.searches} searches"] if self.searches else []
        return f"{self.study.name:<21}  {self.study.title}: {', '.join(parts)} done"


@dataclass(frozen=True)
class Ran:
    """What came of running studies.

    outcome: of all jobs. skipped: studies whose data cannot be loaded, with the cause.
    """

    outcome: Outcome
    skipped: dict[str, str]


def fitting(studies: Iterable[Study], work: Work) -> tuple[list[Study], dict[str, str]]:
    """Those of some studies that a scale fits, and for the others why it does not."""
    fit, others = [], {}
    for study in studies:
        try:
            study.entries(work)
            study.searched(work)
            fit.append(study)
        except StudyError as error:
            others[study.name] = str(error)
    return fit, others


def done(study: Study, work: Work, lab: Lab | None) -> Done:
    """How far a study is at a scale; without a lab nothing is done."""
    jobs = study.jobs(work)
    searches = [search for searched in study.searched(work) for search in searched.searches]
    if lab is None:
        return Done(study, len(jobs), 0, len(searches), 0)
    results = Results(lab.store)
    over = sum(not search.progress(results)[1] for search in searches)
    return Done(study, len(jobs), sum(lab.has(job) for job in jobs), len(searches), over)


def run_studies(
    lab: Lab,
    studies: Sequence[Study],
    work: Work,
    *,
    keep_going: bool = False,
    progress: Progress | None = None,
    begun: Callable[[], object] | None = None,
    stop: Stop | None = None,
) -> Ran:
    """Compute whatever is missing of some studies.

    keep_going: leave out studies that need data which cannot be loaded, instead of stopping before anything
        is run. Jobs that fail are told in the outcome either way, and the others run.
    begun: called once, when nothing is refused any more and before the first job.
    stop: ends all of it, with what is left in the outcome; see :func:`~tombola.lab.deadline.stopping`.

    Raises :class:`~tombola.errors.StudyError` for a study that the scale does not fit,
    :class:`~tombola.errors.DataError` as said and where no study is left, and what ``Lab.run`` raises.
    """
    skipped = unloadable(lab, studies, work)
    chosen = [study for study in studies if study.name not in skipped]
    if skipped and not (keep_going and chosen):
        raise DataError(_refusal(skipped) + " (with --keep-going the others are)" * bool(chosen))
    if begun is not None:
        begun()
    searched = [each for study in chosen for each in study.searched(work)]
    outcome = Outcome()
    asked = [job for study in chosen for job in study.jobs(work)]
    results = Results(lab.store)
    run = lab.run if stop is None else partial(lab.run, stop_after=stop)
    while asked := _untried(asked + [job for each in searched for job in each.next_jobs(results)], outcome):
        _add(outcome, run(asked, progress=progress))
        asked = []
        if outcome.left:  # a search would ask for it again
            break
    return Ran(outcome, skipped)


def unloadable(lab: Lab, studies: Iterable[Study], work: Work) -> dict[str, str]:
    """The studies with something left to compute whose data cannot be loaded, with the cause."""
    results = Results(lab.store)
    causes: dict[str, str] = {}  # by data set, empty for one that can be loaded
    found: dict[str, str] = {}
    for study in studies:
        missing = [job for job in study.jobs(work) if not lab.has(job)]
        missing += [job for each in study.searched(work) for job in each.next_jobs(results)]
        for name, source in data_behind(missing).items():
            if name not in causes:
                causes[name] = _cause(source)
            if causes[name]:
                found[study.name] = causes[name]
    return found


def _refusal(skipped: Mapping[str, str]) -> str:
    """Which studies cannot be run, cause by cause."""
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


def collect(lab: Lab, studies: Iterable[Study], work: Work) -> list[Shown]:
    """What studies have to show so far; each result is read once."""
    results = Results(lab.store)
    return [study.shown(work, results) for study in studies]


def cells_of(shown: Iterable[Shown]) -> dict[Place, Cell]:
    """All cells of studies by place, as claims and comparisons take them."""
    return by_place(cell for each in shown for cell in each.cells)


def _untried(jobs: Iterable[Job], outcome: Outcome) -> list[Job]:
    """The jobs that have not failed; what a search asks again because it failed is not tried again."""
    return [job for job in jobs if job.name not in outcome.failed]


def _add(total: Outcome, more: Outcome) -> None:
    known = {*total.found, *total.computed}
    total.found += [name for name in more.found if name not in known]
    total.computed += more.computed
    total.failed |= more.failed
    total.left, total.not_begun, total.stopped = more.left, more.not_begun, more.stopped
