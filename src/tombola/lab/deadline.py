"""Work that stops on time: when a driver's jobs must end, and how those hear of it that do them.

A driver stops after a time, or when SIGTERM comes, which Slurm and clouds send to all processes of a group.
Workers see no signals: the time travels in the settings, everything else through Dask (:func:`wind_up`).
A training keeps a checkpoint at its next stretch and ends with :class:`Stopped`, which is no failure.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tombola.errors import RecipeError

# Seconds after which work that takes no notice is interrupted or its worker killed, and after which a command
# ends whatever is still under way. All is over within 25 s, closing the worker processes included.
PATIENCE, LAST = 10.0, 22.0
# Seconds between two looks of whoever waits for a stop beside its work.
LOOK = 0.1


BY_SIGTERM = "by SIGTERM"
"""The cause of a stop that a signal asked for."""


class Stopped(BaseException):
    """The work ends because it must stop. Like KeyboardInterrupt, no function should take it for an error.

    like: seconds that the shortest job of the same kind took, if that is why this one was not begun.
    """

    def __init__(self, like: float | None = None) -> None:
        super().__init__(like)
        self.like = like


class Left(Exception):
    """What Dask is told of a job that was left, and says of all that need it; ``like`` as for Stopped."""

    def __init__(self, like: float | None = None) -> None:
        super().__init__(like)
        self.like = like


class Stop:
    """Says when work must stop: at a time, or as soon as somebody says so.

    at: seconds since the epoch; machines must agree on it. None for no time.
    cause: words for why; those of the time until :meth:`now` has others.
    length: seconds that were given in all; None for no time.
    hurried: whether nobody should wait for work that has not ended by itself.
    closes: whether it is a worker that ends, and not the run.
    """

    hurried = closes = False

    def __init__(self, at: float | None = None, cause: str = "") -> None:
        self.at = at
        self.cause = cause
        self.length: float | None = None
        self._said = threading.Event()

    def now(self, cause: str) -> None:
        """It is due now, unless it was before."""
        if not self.is_due():
            self.cause = cause
            self._said.set()

    def is_due(self) -> bool:
        """Whether work must stop."""
        return self._said.is_set() or (self.at is not None and time.time() >= self.at)

    def seconds_left(self) -> float:
        """Seconds until it is due; infinite where no time is set."""
        if self._said.is_set():
            return 0.0
        return math.inf if self.at is None else max(0.0, self.at - time.time())

    def check(self) -> None:
        """Raise :class:`Stopped` if it is due."""
        if self.is_due():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until it is due."""
        self._said.wait(min(seconds, self.seconds_left()))

    @contextmanager
    def interruptible(self, patience: float = 0.0) -> Iterator[None]:
        """Meanwhile :class:`Stopped` may be raised anywhere, so many seconds after it is due.

        Only in the driver's main thread: workers are ended from outside.
        """
        yield


# In the driver


@contextmanager
def stopping(
    stop_after: float | Stop | None = None, *, at_last: Callable[[Stop], object] | None = None
) -> Iterator[Stop]:
    """A stop after some seconds, which SIGTERM makes due as well: this process hears it meanwhile.

    stop_after: seconds; None for no time. One that is a stop already is given back as it is, so that several
        runs share it.
    at_last: called in a thread of its own if the work is not over ``LAST`` seconds after it was due.

    SIGTERM is heard in the main thread only, and only where nobody else handles it or has it ignored; a
    second one cuts short what the first one waits for. Afterwards it has its old meaning again.

    Raises :class:`~tombola.errors.RecipeError` for a time that is not above 0.
    """
    if isinstance(stop_after, Stop):
        yield stop_after
        return
    if stop_after is not None and not stop_after > 0:
        raise RecipeError(f"stop_after is {stop_after}; it must be more than 0 seconds")
    if stop_after is None or math.isinf(stop_after):
        stop = _DriverStop()
    else:
        stop = _DriverStop(time.time() + stop_after, f"after {in_words(stop_after)}")
        stop.length = stop_after
    with stop.listening(at_last):
        yield stop


class _DriverStop(Stop):
    """A stop that hears SIGTERM, and interrupts the main thread where that has nothing to lose."""

    def __init__(self, at: float | None = None, cause: str = "") -> None:
        super().__init__(at, cause)
        # Of what the main thread does; None where it must not be interrupted.
        self._patience: float | None = None
        self._over = threading.Event()
        self._prodded, self._heard = False, threading.Event()

    @contextmanager
    def interruptible(self, patience: float = 0.0) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._patience = self._patience, patience
        try:
            if self.is_due() and patience == 0:
                raise Stopped
            yield
        finally:
            self._patience = before

    @contextmanager
    def listening(self, at_last: Callable[[Stop], object] | None) -> Iterator[None]:
        """Hear SIGTERM, and watch the time."""
        main = threading.current_thread() is threading.main_thread()
        hears = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        watcher = threading.Thread(target=self._watch, args=(hears, at_last), daemon=True, name="deadline")
        if hears:
            signal.signal(signal.SIGTERM, self._hear)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()
            if hears:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _hear(self, *_: object) -> None:
        """SIGTERM, in the main thread: the system's, or the watcher's to interrupt what the thread does."""
        due = self.is_due()
        if not self._prodded:
            self.hurried = self.hurried or due
            self.now(BY_SIGTERM)
        self._prodded = False
        self._heard.set()
        patience = self._patience
        if patience is not None and (patience == 0 or due):
            self._patience = None
            raise Stopped

    def _watch(self, hears: bool, at_last: Callable[[Stop], object] | None) -> None:
        due_for = 0.0
        while not self._over.wait(LOOK):
            if not self.is_due():
                continue
            due_for += LOOK  # counted, so that a process that was suspended has its time
            patience = self._patience
            if hears and patience is not None and due_for > patience:
                self._heard.clear()
                self._prodded = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                # The signal must not come when nobody hears it any more.
                self._heard.wait(1.0)
            if due_for > LAST and at_last is not None:
                at_last(self)
                return


def in_words(seconds: float) -> str:
    """A time as it is given to ``--stop-after``: 90 s is "1m30s"."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    parts = (whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s")
    return "".join(f"{number}{unit}" for number, unit in parts if number)


# In a worker

# Of the runs that this process works for: their stops, and how many of their jobs are under way here.
_stops: dict[str, Stop] = {}
_under_way: Counter[str] = Counter()
_lock = threading.Lock()


@contextmanager
def at_work(run: str, at: float | None) -> Iterator[Stop]:
    """The stop of a run, while this thread works on one of its jobs."""
    with _lock:
        stop = _stops.setdefault(run, Stop(at))
        _under_way[run] += 1
    try:
        yield stop
    finally:
        with _lock:
            _under_way[run] -= 1


async def wind_up(run: str, patience: float) -> int:
    """Stop the work for a run in this process; how many of its jobs are under way after some seconds."""
    with _lock:
        _stops.setdefault(run, Stop()).now("by its driver")
    return await _ended({run}, patience)


async def wind_up_all(patience: float) -> int:
    """Stop all work in this process, because it ends; the runs go on elsewhere."""
    with _lock:
        runs = set(_stops)
        for run in runs:
            stop = _stops[run]
            stop.closes = not stop.is_due()
            stop.now("by the end of its worker")
    return await _ended(runs, patience)


async def _ended(runs: set[str], patience: float) -> int:
    """Wait until no job of these runs is under way here; how many still are after some seconds."""
    give_up = time.monotonic() + patience
    while (count := sum(_under_way[run] for run in runs)) and time.monotonic() < give_up:
        await asyncio.sleep(LOOK / 2)
    return count
