"""The first stable epoch in a lab: the search of :mod:`tombola.measures.first_stable` over jobs.

Which lengths of pretraining are measured next depends on results, so the search is no single job. When it is
run again it takes the same path, and its earlier results come from the store.
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.data.imageset import DataLike
from tombola.errors import RecipeError
from tombola.lab.chains import as_job
from tombola.lab.deadline import Stop
from tombola.lab.driver import Progress
from tombola.lab.job import Job, job
from tombola.lab.lab import Lab
from tombola.measures.connectivity import Recalibrate, Split
from tombola.measures.first_stable import (
    Branches,
    FirstStable,
    check_start,
    questions,
    shares_trunk,
    stabilities,
)
from tombola.measures.instability import Difference, Instability
from tombola.measures.limits import STABLE_BELOW
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe


def first_stable_epochs(
    lab: Lab,
    starts: Sequence[Job | Ticket],
    data: DataLike,
    recipe: Recipe,
    *,
    noise: int = 0,
    noises: Sequence[int] = (0, 1, 2),
    differ_in: Difference = "noise",
    neighbours: int = 1,
    at_once: int | None = None,
    points: int = 21,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    threshold: float = STABLE_BELOW,
    progress: Progress | None = None,
    stop_after: float | Stop | None = None,
) -> list[FirstStable]:
    """The first stable epoch of each start, searched for all starts at the same time.

    :func:`~tombola.measures.first_stable.over_starts` makes an entry of the paper's table of them.

    at_once: lengths that are measured together for one start. By default as many as the lab's workers have
        slots for; more at once take fewer rounds and more epochs.
    progress: shows the jobs of each round of the search.
    stop_after: for all rounds together; see :func:`~tombola.lab.deadline.stopping`.
    The other arguments are as for :func:`~tombola.measures.first_stable.first_stable_epoch`.

    Raises :class:`~tombola.errors.JobError` if a job fails, and :class:`~tombola.errors.Unfinished` if one
    was left because the work had to stop: the same call continues.
    """
    if not starts:
        raise RecipeError("no start to search from; give at least one")
    for start in starts:
        check_start(lab.result(start) if isinstance(start, Job) else start)
    if at_once is None:
        children = len(noises) - shares_trunk(recipe, noise, noises)
        at_once = max(1, lab.workers // (len(starts) * max(1, children)))
    searches = [
        Branches(
            job, start, data, recipe,
            noise=noise, noises=noises, differ_in=differ_in, points=points, recalibrate=recalibrate,
            split=split, threshold=threshold,
        )
        for start in starts
    ]  # fmt: skip
    measured: list[dict[int, Instability]] = [{} for _ in starts]  # by length, for each start

    def next_jobs() -> dict[tuple[int, int], Job]:
        """The instabilities that the searches need next, by the start's number and the length."""
        return {
            (number, length): as_job(searches[number].instability(length))
            for number, lengths in enumerate(measured)
            for length in questions(
                stabilities(lengths), searches[number].budget, at_once=at_once, neighbours=neighbours
            )
        }

    while jobs := next_jobs():
        outcome = lab.run(jobs.values(), progress=progress, stop_after=stop_after)
        outcome.raise_failures()
        outcome.raise_left()
        for (number, length), instability_job in jobs.items():
            measured[number][length] = lab.result(instability_job)
    return [search.found(lengths) for search, lengths in zip(searches, measured, strict=True)]
