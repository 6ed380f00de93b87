"""Rows of tickets: their accuracy by sparsity, after short searches, under other recipes, and untrained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tombola.studies.cells import Metric
from tombola.studies.claims.names import CONFIGURATIONS, Configuration, Pair
from tombola.studies.entries import Entry
from tombola.studies.results import measured_accuracy, run_accuracy
from tombola.studies.rows.listing import Listing, columns, numbers, place_of
from tombola.studies.settings import EIGHT, GRID_SEARCHES, SEARCH_SHARES
from tombola.studies.work import Work

_UNTRAINED: tuple[Metric, ...] = ("untrained_accuracy", "recalibrated_untrained_accuracy")


def ticket_accuracy(*pairs: Pair, of: tuple[Configuration, ...] = EIGHT, single_run: bool = False) -> Listing:
    """Accuracy of trained tickets at the tabulated sparsities, the dense network first."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        runs = range(1) if single_run else numbers(work)
        for pair in pairs:
            yield from _accuracies(work, study, pair, of, (0, *columns(work, study, pair)), runs)

    return listed


def round_accuracy(pair: Pair) -> Listing:
    """The same for every round."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        rounds = range(work.subject(pair).rounds + 1)
        return _accuracies(work, study, pair, EIGHT, rounds, numbers(work))

    return listed


def _accuracies(
    work: Work,
    study: str,
    pair: Pair,
    of: Iterable[Configuration],
    rounds: Iterable[int],
    runs: Iterable[int],
) -> Iterator[Entry]:
    for configuration in work.scale.chosen(of):
        chains = [work.runs(pair, configuration, number) for number in runs]
        for n in rounds:
            place = place_of(study, "val_accuracy", pair, configuration, n)
            yield Entry(place, tuple(chain[n] for chain in chains), run_accuracy)


def short_searches(pair: Pair, *, of: tuple[Configuration, ...]) -> Listing:
    """Full trainings of tickets whose mask search was cut short (AIMP)."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        work.scale.check_searches(study)
        for configuration in work.scale.chosen(of):
            for epochs in SEARCH_SHARES:
                searches = [work.short_search(pair, configuration, s, epochs) for s in numbers(work)]
                for n in columns(work, study, pair):
                    jobs = tuple(
                        work.trained(pair, tickets[n], configuration, s) for s, tickets in enumerate(searches)
                    )
                    place = place_of(study, "val_accuracy", pair, configuration, n, search_epochs=epochs)
                    yield Entry(place, jobs, run_accuracy)

    return listed


def grid_of_sparse_training(pair: Pair) -> Listing:
    """Tickets of one configuration, trained with each of the four."""

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for searched in work.scale.chosen(GRID_SEARCHES):
            chains = [work.tickets(pair, searched, s) for s in numbers(work)]
            for sparse in work.scale.chosen(CONFIGURATIONS):
                for n in columns(work, study, pair):
                    jobs = tuple(
                        work.trained(pair, tickets[n], sparse, s) for s, tickets in enumerate(chains)
                    )
                    place = place_of(
                        study, "val_accuracy", pair, searched, n,
                        sparse_momentum=sparse.momentum, sparse_batch_size=sparse.batch_size,
                    )  # fmt: skip
                    yield Entry(place, jobs, run_accuracy)

    return listed


def untrained_accuracy(*pairs: Pair) -> Listing:
    """Accuracy of the tabulated tickets before any training, the dense start first, in both readings (D3).

    Each is a job of its own, so that the first is still found where only that was computed.
    """

    def listed(work: Work, study: str) -> Iterator[Entry]:
        for pair in pairs:
            for configuration in work.scale.chosen(EIGHT):
                chains = [work.tickets(pair, configuration, number) for number in numbers(work)]
                for metric in _UNTRAINED:
                    anew = metric == "recalibrated_untrained_accuracy"
                    for n in (0, *columns(work, study, pair)):
                        jobs = tuple(work.untrained(pair, chain[n], recalibrated=anew) for chain in chains)
                        yield Entry(place_of(study, metric, pair, configuration, n), jobs, measured_accuracy)

    return listed
