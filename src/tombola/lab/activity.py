"""What happens in a store: jobs under way and in line, learning curves, throughput, what was finished.

A :class:`Watcher` looks again and again without reading twice what does not change, so that watching costs
the trainings next to nothing. Everything is read through the guarded readers of the store, and texts that
anybody may have written are printable.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from pathlib import Path

from tombola.errors import StoreError
from tombola.lab.description import TICKET_FUNCTION
from tombola.lab.listing import JobRow, job_row, listing
from tombola.lab.queue import Queue, QueueReader
from tombola.lab.store import Store, is_at_its_place
from tombola.lab.training_progress import CurvePoint, TrainingProgress, thinned, trainings_in_progress
from tombola.lab.unfinished import UnfinishedJob, unfinished_jobs
from tombola.untrusted import OTHER_FORM, printable

# Finished jobs that are shown, runs whose curves are shown beside those under way, and jobs of a long list.
_MOST_RECENT, _MOST_CURVES, _MOST_LISTED = 12, 4, 100
# Looks that the course of the throughput goes back, and seconds over which finished jobs are counted.
_MOST_LOOKS, _LAST_SECONDS = 900, 3600.0
# Seconds after which nothing more can come to a folder without changing its time.
_SETTLED = 2.0


@dataclass(frozen=True)
class UnderWay:
    """A job that runs; training: how far it is, if it is a training and has reported."""

    job: UnfinishedJob
    training: TrainingProgress | None


@dataclass(frozen=True)
class QueueLine:
    """The jobs of one function in the queues of all drivers.

    seconds: of one of them, the mean of those finished; None without any.
    """

    function: str
    jobs: int
    finished: int
    running: int
    failed: int
    seconds: float | None

    @property
    def waiting(self) -> int:
        """Jobs that are not begun, or were interrupted."""
        return max(0, self.jobs - self.finished - self.running - self.failed)


@dataclass(frozen=True)
class LiveCurve:
    """The learning curve of a run. name: of its job. result: in words, if it is finished."""

    name: str
    result: str
    points: Sequence[CurvePoint]

    @property
    def label(self) -> str:
        return f"{self.name[:12]}, {self.result or 'under way'}"


@dataclass(frozen=True)
class Activity:
    """What happens in a store at one moment.

    moment: seconds since the epoch. drivers: the commands at work, in words. stopped: failed and interrupted
    jobs. recent: what was finished last, newest first. images: of training a second, of all trainings
    together. course: the same at earlier looks, as pairs of seconds since the epoch and images a second.
    last_hour: jobs finished in the last hour. total: finished jobs but tickets. left: seconds, None unknown.
    """

    moment: float
    root: Path
    drivers: Sequence[str]
    under_way: Sequence[UnderWay]
    stopped: Sequence[UnfinishedJob]
    queue: Sequence[QueueLine]
    recent: Sequence[JobRow]
    curves: Sequence[LiveCurve]
    images: float
    course: Sequence[tuple[float, float]]
    last_hour: int
    total: int
    left: float | None
    damaged: int

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self.under_way)


class Watcher:
    """Looks at a store as often as it is asked; not for several threads at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._queues = QueueReader(store)
        shown = listing(store, tickets=True)
        self._rows = {row.name: row for row in shown.finished}
        self._damaged = len(shown.damaged)
        self._ends = {row.name: _end(row) for row in shown.finished}
        self._unreadable: set[str] = set()
        self._shelves: dict[str, tuple[int, set[str]]] = {}
        self._histories: dict[str, Sequence[CurvePoint]] = {}
        self._course: deque[tuple[float, float]] = deque(maxlen=_MOST_LOOKS)

    def look(self) -> Activity:
        """What happens now."""
        moment = time.time()
        self._take_in_finished()
        trainings = trainings_in_progress(self.store)
        unfinished = list(unfinished_jobs(self.store, trainings))
        under_way = [UnderWay(job, trainings.get(job.name)) for job in unfinished if job.state == "running"]
        stopped = [job for job in unfinished if job.state != "running"]
        rows = [row for row in self._rows.values() if row.function != TICKET_FUNCTION]
        images = sum(one.training.images for one in under_way if one.training is not None)
        self._course.append((moment, images))
        queues = self._queues.queues()
        queue = self._queue_lines(queues, unfinished)
        return Activity(
            moment=moment,
            root=self.store.root,
            drivers=list(dict.fromkeys(queue.driver for queue in queues)),
            under_way=under_way[:_MOST_LISTED],
            stopped=stopped[:_MOST_LISTED],
            queue=queue,
            recent=self._last(rows, _MOST_RECENT),
            curves=self._curves(under_way, rows),
            images=images,
            course=tuple(self._course),
            last_hour=sum(moment - self._ends[row.name] < _LAST_SECONDS for row in rows),
            total=len(rows),
            left=_seconds_left(queue, len(under_way)),
            damaged=self._damaged,
        )

    @property
    def rows(self) -> Iterable[JobRow]:
        """The finished jobs as of the last look."""
        return self._rows.values()

    def _take_in_finished(self) -> None:
        """Reads the jobs that were finished since the last look, and forgets those that were removed."""
        names: set[str] = set()
        moment = time.time()
        for shelf in os.scandir(self.store.root / "jobs"):
            with suppress(OSError):  # removed just now, or a link in circles
                changed = shelf.stat().st_mtime_ns
                before = self._shelves.get(shelf.name)
                if before is None or before[0] != changed:
                    entries = {name for name in os.listdir(shelf.path) if is_at_its_place(name, shelf.name)}
                    # A job that comes within the same tick of a clock must not be missed.
                    settled = moment - changed / 1e9 > _SETTLED
                    before = self._shelves[shelf.name] = changed if settled else -1, entries
                names |= before[1]
        for name in self._rows.keys() - names:
            del self._rows[name]
        self._unreadable &= names
        for name in names - self._rows.keys() - self._unreadable:
            try:
                self._rows[name] = job_row(self.store, name)
                self._ends[name] = _end(self._rows[name])
            except (StoreError, *OTHER_FORM):  # what is damaged, tombola verify tells
                self._unreadable.add(name)

    def _last(self, rows: Iterable[JobRow], most: int) -> list[JobRow]:
        """The jobs that were finished last, newest first."""
        return nlargest(most, rows, key=lambda row: self._ends[row.name])

    def _queue_lines(self, queues: Sequence[Queue], unfinished: Sequence[UnfinishedJob]) -> list[QueueLine]:
        """What the drivers at work have to do, function by function."""
        names_by_function: dict[str, list[str]] = {}
        for name, function in {name: kind for queue in queues for name, kind in queue.jobs.items()}.items():
            names_by_function.setdefault(function, []).append(name)
        states = {job.name: job.state for job in unfinished}
        lines = []
        for function, names in names_by_function.items():
            finished = [self._rows[name] for name in names if name in self._rows and name not in states]
            states_here = Counter(states.get(name) for name in names)
            seconds = sum(row.seconds for row in finished) / len(finished) if finished else None
            lines.append(
                QueueLine(
                    function,
                    len(names),
                    len(finished),
                    states_here["running"],
                    states_here["failed"],
                    seconds,
                )
            )
        return lines

    def _curves(self, under_way: Sequence[UnderWay], rows: Sequence[JobRow]) -> list[LiveCurve]:
        """The curves of the trainings under way, and of the runs that were finished last."""
        curves = [
            LiveCurve(one.job.name, "", one.training.curve)
            for one in under_way
            if one.training is not None and one.training.curve
        ][: 2 * _MOST_CURVES]
        for row in self._last((row for row in rows if row.function == "train"), _MOST_CURVES):
            points = self._history(row.name)
            if points:
                curves.append(LiveCurve(row.name, printable(row.result), points))
        return curves

    def _history(self, name: str) -> Sequence[CurvePoint]:
        """The curve of a finished run, without its state before any step."""
        if name not in self._histories:
            points: Sequence[CurvePoint] = ()
            with suppress(StoreError, OSError, *OTHER_FORM):
                rows = self.store.history(name)[1:]
                points = thinned(
                    [CurvePoint(*(float(row[column]) for column in CurvePoint._fields)) for row in rows]
                )
            self._histories[name] = points
        return self._histories[name]


def _end(row: JobRow) -> float:
    """When a job was finished, in seconds since the epoch; 0 if its row does not say it."""
    try:
        return datetime.fromisoformat(row.started).timestamp() + row.seconds
    except (OSError, *OTHER_FORM):
        return 0.0


def _seconds_left(queue: Sequence[QueueLine], running: int) -> float | None:
    """How long the queues take at the pace of their finished jobs; None if nothing is known of a kind."""
    left = 0.0
    for line in queue:
        remaining = line.waiting + line.running / 2  # of one that runs, half is done on average
        if remaining and line.seconds is None:
            return None
        left += remaining * (line.seconds or 0.0)
    return left / max(1, running) if queue else None
