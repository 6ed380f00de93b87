"""Rows on how runs learn: forgetting and convergence of dense networks, convergence of tickets."""

from __future__ import annotations

from collections.abc import Iterator

from tombola.studies.cells import Metric
from tombola.studies.claims.names import CONFIGURATIONS, Configuration, Pair
from tombola.studies.entries import Entry
from tombola.studies.results import (
    Read,
    convergence_of,
    forgetting_events,
    forgetting_spread,
    late_forgetting,
    summed_events,
    unforgettable,
)
from tombola.studies.rows.listing import Listing, columns, numbers, place_of
from tombola.studies.settings import EIGHT
from tombola.studies.work import Work

_COLUMNS: tuple[tuple[Metric, Read], ...] = (
    ("forgetting_events", forgetting_events),
    ("forgetting_spread", forgetting_spread),
    ("unforgettable_percent", unforgettable),
    ("convergence", convergence_of),
)


def dense_learning(pair: Pair) -> Listing:
    """Forgetting and convergence of the dense network without late rewinding.

    Forgetting events stand there as Toneva et al. count them, a run, and where there are three runs also as
    the paper in all likelihood does, of the three together (reading D8).
    """

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for configuration in work.scale.chosen(CONFIGURATIONS):
            for metric, read in _COLUMNS:
                yield _entry(work, study, pair, configuration, 0, metric, read)
            if jobs := work.summed_forgetting(pair, configuration):
                place = place_of(study, "summed_forgetting_events", pair, configuration, 0)
                yield Entry(place, jobs, summed_events)

    return listed


def late_dense_forgetting(*pairs: Pair) -> Listing:
    """Forgetting late in the training of dense networks without late rewinding."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                yield _entry(work, study, pair, configuration, 0, "late_forgetting_events", late_forgetting)

    return listed


def ticket_convergence(*pairs: Pair) -> Listing:
    """Convergence of the trainings of the tabulated tickets, the dense network first."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for pair in pairs:
            for configuration in work.scale.chosen(EIGHT):
                for n in (0, *columns(work, study, pair)):
                    yield _entry(work, study, pair, configuration, n, "convergence", convergence_of)

    return listed


def _entry(
    work: Work, study: str, pair: Pair, configuration: Configuration, n: int, metric: Metric, read: Read
) -> Entry:
    jobs = tuple(work.learning(work.runs(pair, configuration, number)[n]) for number in numbers(work))
    return Entry(place_of(study, metric, pair, configuration, n), jobs, read)
