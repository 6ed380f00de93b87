"""Entries: a place of a study with the jobs that fill it, and how their results become its cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.lab.job import Job
from tombola.measures.statistics import is_winning
from tombola.studies.cells import Cell, Place, measured
from tombola.studies.results import Read, Reading, Results


@dataclass(frozen=True)
class Entry:
    """What stands at a place, once it is computed.

    jobs: one a run. read: what the result of one says.
    """

    place: Place
    jobs: tuple[Job, ...]
    read: Read


@dataclass(frozen=True)
class Filled:
    """An entry as far as it is computed.

    finished: whether all of its jobs are; a mean of some of the runs would be no entry.
    cell: None until then, and where the number is undefined for every run.
    printed: what the paper prints there, if that is to be shown.
    """

    entry: Entry
    finished: bool
    cell: Cell | None
    printed: Cell | None = None

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.entry.place


def filled(
    entries: Iterable[Entry], results: Results, *, epochs: int, printed: Mapping[Place, Cell] | None = None
) -> list[Filled]:
    """Every entry as far as it is computed, in their order.

    epochs: budget of the trainings behind them. printed: the paper's cells, under places without a study.

    Tickets at least as good as their dense network are
    underlined (reading C6).
    """
    printed = printed or {}
    found = [
        replace(_filled(entry, results, epochs), printed=printed.get(replace(entry.place, study="")))
        for entry in entries
    ]
    dense = {each.place: each.cell for each in found if each.cell is not None and each.place.sparsity == 0}
    return [replace(each, cell=_underlined(each.cell, dense)) if each.cell else each for each in found]


def _filled(entry: Entry, results: Results, epochs: int) -> Filled:
    readings: list[Reading] = []
    for job in entry.jobs:
        result = results.of(job)
        if result is None:
            return Filled(entry, False, None)
        readings.append(entry.read(result))
    values = [value for reading in readings for value in reading.values]
    if not values:
        return Filled(entry, True, None)
    notes = dict.fromkeys(reading.note for reading in readings if reading.note)
    starred = any(reading.failed for reading in readings)
    together = readings[0].together
    cell = measured(
        entry.place, values, epochs=epochs, starred=starred, note="; ".join(notes), together=together
    )
    return Filled(entry, True, cell)


def _underlined(cell: Cell, dense: dict[Place, Cell]) -> Cell:
    place = cell.place
    if place.metric != "val_accuracy" or not place.sparsity or place.subset_percent or place.baseline:
        return cell
    own = dense.get(replace(place, sparsity=0.0))
    if own is None or not is_winning(cell.values, own.values):
        return cell
    return replace(cell, underlined=True)


def jobs_of(entries: Sequence[Entry]) -> list[Job]:
    """All jobs of some entries, each once."""
    return list({job.name: job for entry in entries for job in entry.jobs}.values())
