"""Tracking: the driver enters finished jobs into trackers, each in a thread of its own.

A tracker may be slow, or its server not there: no training waits for it, and one that fails is told in a line
and left alone. What it lacks then is entered by the next call, since trackers know jobs by their names.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from tombola.errors import TombolaError, TrackerError
from tombola.lab.deadline import Stop
from tombola.lab.driver import ForwardingProgress, Progress
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.task import one_line
from tombola.lab.tracked_job import tracked_jobs
from tombola.lab.tracker import Tracker
from tombola.table.number import many

# Seconds without a job entered after which a tracker is not waited for at the end: MLflow may make a database
# first. When work had to stop, which has to end within 25 seconds, seconds for all that is left.
_PATIENCE, _PATIENCE_STOPPED = 120.0, 5.0
# Seconds after which it is told that a tracker is waited for.
_TOLD_AFTER = 3.0
# Characters of the error of another library.
_LONGEST = 200
# Jobs in a row that a tracker refuses after which it, and not what they hold, is at fault.
_MOST_IN_A_ROW = 3


def enter_jobs(
    store: Store,
    tracker: Tracker,
    names: Sequence[str],
    entered: Callable[[str], None],
    left_out: Callable[[TombolaError], None],
) -> None:
    """Enters those of some finished runs and measures that a tracker does not hold.

    entered: is called with the name of each. left_out: with the error of each that cannot be read, or that
    the tracker refuses: a stranger's job may hold what it does not take.

    Raises whatever the tracker raises where it is at fault itself: what it wrote to is not there (OSError),
    or it refuses three jobs in a row.
    """
    _Entering(store, tracker, entered, left_out).enter(names)


class _Entering:
    """Enters jobs into a tracker, as :func:`enter_jobs` in several calls."""

    def __init__(
        self,
        store: Store,
        tracker: Tracker,
        entered: Callable[[str], None],
        left_out: Callable[[TombolaError], None],
    ) -> None:
        self._store, self._tracker, self._entered, self._left_out = store, tracker, entered, left_out
        self._in_a_row = 0

    def enter(self, names: Sequence[str]) -> None:
        for job in tracked_jobs(self._store, self._tracker.absent(names), self._left_out):
            try:
                self._tracker.add(job)
            except OSError:
                raise
            except Exception as error:  # of another library, which may raise anything
                self._in_a_row += 1
                if self._in_a_row == _MOST_IN_A_ROW:
                    raise
                self._left_out(TrackerError(f"job {job.name[:12]}: {one_line(error)[:_LONGEST]}"))
            else:
                self._in_a_row = 0
                self._entered(job.name)


class Tracking:
    """Enters jobs as they finish, and at the end waits for what is left. Use it around a run of jobs.

    trackers: by name; without any, nothing happens.
    say, warn: are called with a line at the end, and with one for a failure; from other threads, too.
    stop: when work had to stop there is less time at the end.
    """

    def __init__(
        self,
        store: Store,
        trackers: Mapping[str, Tracker],
        say: Callable[[str], None],
        warn: Callable[[str], None],
        stop: Stop,
    ) -> None:
        self._threads = [_Thread(store, name, tracker, say, warn) for name, tracker in trackers.items()]
        self._stop = stop

    def __enter__(self) -> Tracking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.close()
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            deadline = time.monotonic() + _PATIENCE_STOPPED
            for thread in self._threads:
                thread.wait(deadline if self._stop.is_due() else None)

    def add(self, names: Iterable[str]) -> None:
        """Enters finished jobs, unless they are there already."""
        listed = list(names)
        for thread in self._threads:
            thread.add(listed)

    def progress(self, progress: Progress) -> Progress:
        """A progress that passes on all calls, and has each job that is done entered."""
        return _TrackedProgress(progress, self) if self._threads else progress


class _TrackedProgress(ForwardingProgress):
    """Passes calls on to another progress; jobs that are done are tracked."""

    def __init__(self, progress: Progress, tracking: Tracking) -> None:
        super().__init__(progress)
        self._tracking = tracking

    def done(self, job: Job, failed: str | None) -> None:
        super().done(job, failed)
        if failed is None:
            self._tracking.add([job.name])


class _Thread(threading.Thread):
    """Enters jobs into one tracker. It is a daemon: a process that ends does not wait for it."""

    def __init__(
        self,
        store: Store,
        name: str,
        tracker: Tracker,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._tracker, self._say, self._warn = tracker, say, warn
        self._names: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        self._seen: set[str] = set()
        self._entered = 0
        self._left_out: list[TombolaError] = []
        self._entry = _Entering(store, tracker, self._count, self._left_out.append)
        self._moved = time.monotonic()  # when it last did anything

    def add(self, names: Sequence[str]) -> None:
        self._names.put(names)

    def close(self) -> None:
        """No more jobs will come."""
        self._names.put(None)

    def run(self) -> None:
        try:
            while (names := self._names.get()) is not None:
                self._moved = time.monotonic()
                unseen = [name for name in dict.fromkeys(names) if name not in self._seen]
                self._seen.update(unseen)
                self._entry.enter(unseen)
            self._say(tracked_line(self.name, self._tracker, self._entered, self._left_out))
        except (Exception, SystemExit) as error:  # of another library, which may raise anything
            self._warn(f"{self.name} takes no more jobs: {one_line(error)[:_LONGEST]}; {self._remedy()}")

    def wait(self, deadline: float | None) -> None:
        """Waits for the thread to end: to a time, or as long as it enters jobs."""
        self.join(_TOLD_AFTER)
        if self.is_alive():
            self._say(f"waiting for {self.name} to take the last jobs")
        while self.is_alive():
            end = self._moved + _PATIENCE if deadline is None else deadline
            if time.monotonic() > end:
                self._warn(f"{self.name} does not answer; {self._remedy()}")
                return
            self.join(0.2)

    def _count(self, name: str) -> None:
        self._entered += 1
        self._moved = time.monotonic()

    def _remedy(self) -> str:
        return f"tombola track all --to {self.name} enters what it lacks, and so does the same command"


def tracked_line(name: str, tracker: Tracker, entered: int, left_out: Sequence[TombolaError]) -> str:
    """What came of tracking, in a line."""
    jobs = f"{many(entered, 'job')} entered" if entered else "nothing new"
    left = f"; {len(left_out)} left out, first {left_out[0]}" if left_out else ""
    return f"{name}: {jobs} {tracker.place()}{left}"
