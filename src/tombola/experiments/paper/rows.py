"""Rows of the paper's tables and figures on tickets, barriers and learning, as items of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import (
    barrier_heights,
    convergence_of,
    forgetting_events,
    forgetting_spread,
    highest_errors,
    late_forgetting,
    levels_reached,
    measured_accuracy,
    one_barrier,
    recalibrated_heights,
    run_accuracy,
    summed_events,
    unforgettable,
)
from tombola.experiments.paper.settings import (
    CONFIGURATIONS,
    CONTROL,
    EIGHT,
    GRID_SEARCHES,
    REMOVED,
    SEARCH_SHARES,
    Configuration,
    Pair,
    key_of,
)
from tombola.lab.item import Measured, Read
from tombola.lab.job import Job
from tombola.measures.difficulty import Difficulty
from tombola.table.key import Criterion, Key, sparsity_after

Listing = Callable[[PaperJobs], Iterable[Measured]]
"""Lists the items of a study at a scale."""


def key_after(
    metric: str, pair: Pair, configuration: Configuration | None, prunings: int, **fields: Any
) -> Key:
    """The key of a pair and configuration after so many prunings; ``fields`` are further ones of it."""
    return key_of(metric, pair, configuration, sparsity_after(prunings), **fields)


def numbers(work: PaperJobs) -> range:
    """The number of each run: runs of tables differ in initialisation and noise (reading C7)."""
    return range(work.scale.seeds)


def columns(work: PaperJobs, pair: Pair, *wanted: int) -> tuple[int, ...]:
    """The prunings of a study's columns, those of the scale unless others are given.

    Of several given ones those are left out that no round reaches and that the scale's columns do without.

    Raises :class:`~tombola.errors.ExperimentError` where the scale has no such round.
    """
    scale = work.scale
    rounds = scale.subjects[pair].rounds
    kept = tuple(prunings for prunings in wanted if prunings <= rounds or prunings in scale.columns)
    shown = kept or wanted or scale.columns
    for prunings in sorted(shown, reverse=True):  # the message names what is enough for all
        work.scale.check_round(pair, prunings)
    return shown


_UNTRAINED: tuple[str, ...] = ("untrained_accuracy", "recalibrated_untrained_accuracy")


def ticket_accuracy(*pairs: Pair, of: tuple[Configuration, ...] = EIGHT, single_run: bool = False) -> Listing:
    """Accuracy of trained tickets at the tabulated sparsities, the dense network first."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        runs = range(1) if single_run else numbers(work)
        for pair in pairs:
            yield from _accuracies(work, pair, of, (0, *columns(work, pair)), runs)

    return listed


def round_accuracy(pair: Pair) -> Listing:
    """The same for every round."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        rounds = range(work.subject(pair).rounds + 1)
        return _accuracies(work, pair, EIGHT, rounds, numbers(work))

    return listed


def _accuracies(
    work: PaperJobs,
    pair: Pair,
    of: Iterable[Configuration],
    rounds: Iterable[int],
    runs: Iterable[int],
) -> Iterator[Measured]:
    for configuration in work.scale.chosen(of):
        chains = [work.runs(pair, configuration, number) for number in runs]
        for n in rounds:
            key = key_after("val_accuracy", pair, configuration, n)
            yield work.measured(key, tuple(chain[n] for chain in chains), run_accuracy)


def short_searches(pair: Pair, *, of: tuple[Configuration, ...]) -> Listing:
    """Full trainings of tickets whose mask search was cut short (AIMP)."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        work.scale.check_searches()
        for configuration in work.scale.chosen(of):
            for epochs, share in SEARCH_SHARES.items():
                searches = [work.short_search(pair, configuration, s, epochs) for s in numbers(work)]
                for n in columns(work, pair):
                    jobs = tuple(
                        work.trained(pair, tickets[n], configuration, s) for s, tickets in enumerate(searches)
                    )
                    key = key_after("val_accuracy", pair, configuration, n, search_share=share)
                    yield work.measured(key, jobs, run_accuracy)

    return listed


def grid_of_sparse_training(pair: Pair) -> Listing:
    """Tickets of one configuration, trained with each of the four."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for searched in work.scale.chosen(GRID_SEARCHES):
            chains = [work.tickets(pair, searched, s) for s in numbers(work)]
            for sparse in work.scale.chosen(CONFIGURATIONS):
                for n in columns(work, pair):
                    jobs = tuple(
                        work.trained(pair, tickets[n], sparse, s) for s, tickets in enumerate(chains)
                    )
                    key = key_after(
            "val_accuracy", pair, searched, n,
                        sparse_momentum=sparse.momentum, sparse_batch_size=sparse.batch_size,
                    )  # fmt: skip
                    yield work.measured(key, jobs, run_accuracy)

    return listed


def untrained_accuracy(*pairs: Pair) -> Listing:
    """Accuracy of the tabulated tickets before any training, the dense start first, in both readings (D3).

    Each is a job of its own, so that the first is still found where only that was computed.
    """

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            for configuration in work.scale.chosen(EIGHT):
                chains = [work.tickets(pair, configuration, number) for number in numbers(work)]
                for metric in _UNTRAINED:
                    anew = metric == "recalibrated_untrained_accuracy"
                    for n in (0, *columns(work, pair)):
                        jobs = tuple(work.untrained(pair, chain[n], recalibrated=anew) for chain in chains)
                        yield work.measured(
                            key_after(metric, pair, configuration, n), jobs, measured_accuracy
                        )

    return listed


_BARRIERS: tuple[tuple[str, Read], ...] = (
    ("barrier", barrier_heights),
    ("highest_path_error", highest_errors),
)
_READINGS: tuple[tuple[str, Read], ...] = (
    ("barrier", barrier_heights),
    ("recalibrated_barrier", recalibrated_heights),
)
_ENDS: tuple[tuple[Criterion, Difficulty], ...] = (
    ("easiest_removed", "easiest"),
    ("hardest_removed", "hardest"),
)


def instability_of(pair: Pair, *, prunings: int = 0, of: tuple[Configuration, ...] = EIGHT) -> Listing:
    """Barriers between noise copies of a dense network or ticket, and the largest errors on their lines."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        if prunings:
            columns(work, pair, prunings)
        for configuration in work.scale.chosen(of):
            jobs = (work.instability(pair, configuration, prunings),)
            for metric, read in _BARRIERS:
                yield work.measured(key_after(metric, pair, configuration, prunings), jobs, read)

    return listed


def recalibrated_instability(*subjects: tuple[Pair, int]) -> Listing:
    """Both readings of the barrier (D3) beside each other, of dense networks and of tickets by prunings."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair, prunings in subjects:
            if prunings:
                columns(work, pair, prunings)
            for configuration in work.scale.chosen(EIGHT):
                for metric, read in _READINGS:
                    anew = metric == "recalibrated_barrier"
                    job = work.instability(pair, configuration, prunings, recalibrated=anew)
                    yield work.measured(key_after(metric, pair, configuration, prunings), (job,), read)

    return listed


def barriers_between_rounds(pair: Pair) -> Listing:
    """Barriers between the trained tickets of consecutive rounds of the first run (reading E1)."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(EIGHT):
            for n, barrier in enumerate(work.between_rounds(pair, configuration)):
                key = key_after("barrier_to_next", pair, configuration, n)
                yield work.measured(key, (barrier,), one_barrier)

    return listed


def without_samples(pair: Pair) -> Listing:
    """The dense network on all images, and without the easiest or the hardest of them (reading E3)."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen((CONTROL,)):
            all_images = key_after("barrier", pair, configuration, 0)
            yield from _of_copies(work, all_images, work.instability(pair, configuration))
            for criterion, which in _ENDS:
                for percent in REMOVED:
                    key = replace(all_images, subset_criterion=criterion, subset_percent=100 - percent)
                    yield from _of_copies(work, key, work.without(pair, configuration, which, percent))

    return listed


def _of_copies(work: PaperJobs, key: Key, instability: Job) -> Iterator[Measured]:
    yield work.measured(key, (instability,), barrier_heights)
    yield work.measured(replace(key, metric="barrier_reached"), (instability,), levels_reached)
    runs: list[Job] = instability.arguments["runs"]
    yield work.measured(replace(key, metric="val_accuracy", over="copies"), tuple(runs), run_accuracy)


_COLUMNS: tuple[tuple[str, Read], ...] = (
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

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(CONFIGURATIONS):
            for metric, read in _COLUMNS:
                yield _learned(work, pair, configuration, 0, metric, read)
            if jobs := work.summed_forgetting(pair, configuration):
                key = key_after("summed_forgetting_events", pair, configuration, 0)
                yield work.measured(key, jobs, summed_events)

    return listed


def late_dense_forgetting(*pairs: Pair) -> Listing:
    """Forgetting late in the training of dense networks without late rewinding."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                yield _learned(work, pair, configuration, 0, "late_forgetting_events", late_forgetting)

    return listed


def ticket_convergence(*pairs: Pair) -> Listing:
    """Convergence of the trainings of the tabulated tickets, the dense network first."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            for configuration in work.scale.chosen(EIGHT):
                for n in (0, *columns(work, pair)):
                    yield _learned(work, pair, configuration, n, "convergence", convergence_of)

    return listed


def _learned(
    work: PaperJobs, pair: Pair, configuration: Configuration, n: int, metric: str, read: Read
) -> Measured:
    jobs = tuple(work.learning(work.runs(pair, configuration, number)[n]) for number in numbers(work))
    return work.measured(key_after(metric, pair, configuration, n), jobs, read)
