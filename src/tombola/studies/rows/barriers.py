"""Rows on barriers: between noise copies, between consecutive rounds, and without some of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tombola.lab.job import Job
from tombola.measures.difficulty import Difficulty
from tombola.studies.cells import Criterion, Metric, Place
from tombola.studies.claims.names import Configuration, Pair
from tombola.studies.entries import Entry
from tombola.studies.results import (
    Read,
    barrier_heights,
    highest_errors,
    levels_reached,
    one_barrier,
    recalibrated_heights,
    run_accuracy,
)
from tombola.studies.rows.listing import Listing, columns, place_of
from tombola.studies.settings import CONTROL, EIGHT, REMOVED
from tombola.studies.work import Work

_BARRIERS: tuple[tuple[Metric, Read], ...] = (
    ("barrier", barrier_heights),
    ("highest_path_error", highest_errors),
)
_READINGS: tuple[tuple[Metric, Read], ...] = (
    ("barrier", barrier_heights),
    ("recalibrated_barrier", recalibrated_heights),
)
_ENDS: tuple[tuple[Criterion, Difficulty], ...] = (
    ("easiest_removed", "easiest"),
    ("hardest_removed", "hardest"),
)


def instability_of(pair: Pair, *, prunings: int = 0, of: tuple[Configuration, ...] = EIGHT) -> Listing:
    """Barriers between noise copies of a dense network or ticket, and the largest errors on their lines."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        if prunings:
            columns(work, study, pair, prunings)
        for configuration in work.scale.chosen(of):
            jobs = (work.instability(pair, configuration, prunings),)
            for metric, read in _BARRIERS:
                yield Entry(place_of(study, metric, pair, configuration, prunings), jobs, read)

    return listed


def recalibrated_instability(*subjects: tuple[Pair, int]) -> Listing:
    """Both readings of the barrier (D3) beside each other, of dense networks and of tickets by prunings."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for pair, prunings in subjects:
            if prunings:
                columns(work, study, pair, prunings)
            for configuration in work.scale.chosen(EIGHT):
                for metric, read in _READINGS:
                    anew = metric == "recalibrated_barrier"
                    job = work.instability(pair, configuration, prunings, recalibrated=anew)
                    yield Entry(place_of(study, metric, pair, configuration, prunings), (job,), read)

    return listed


def barriers_between_rounds(pair: Pair) -> Listing:
    """Barriers between the trained tickets of consecutive rounds of the first run (reading E1)."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for configuration in work.scale.chosen(EIGHT):
            for n, barrier in enumerate(work.between_rounds(pair, configuration)):
                place = place_of(study, "barrier_to_next", pair, configuration, n)
                yield Entry(place, (barrier,), one_barrier)

    return listed


def without_samples(pair: Pair) -> Listing:
    """The dense network on all images, and without the easiest or the hardest of them (reading E3)."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for configuration in work.scale.chosen((CONTROL,)):
            whole = place_of(study, "barrier", pair, configuration, 0)
            yield from _of_copies(whole, work.instability(pair, configuration))
            for criterion, which in _ENDS:
                for percent in REMOVED:
                    place = replace(whole, subset_criterion=criterion, subset_percent=100 - percent)
                    yield from _of_copies(place, work.without(pair, configuration, which, percent))

    return listed


def _of_copies(place: Place, instability: Job) -> Iterator[Entry]:
    yield Entry(place, (instability,), barrier_heights)
    yield Entry(replace(place, metric="barrier_reached"), (instability,), levels_reached)
    runs: list[Job] = instability.arguments["runs"]
    yield Entry(replace(place, metric="val_accuracy"), tuple(runs), run_accuracy)
