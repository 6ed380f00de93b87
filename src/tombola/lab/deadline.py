"""Stops: the time or signal at which a driver's jobs must end, in the driver and in its workers.

A driver stops after a time, or at SIGTERM, which Slurm and clouds send to all processes of a group. Workers
see no signals: the time travels in the settings, everything else through Dask (:func:`wind_up`, called by
:mod:`tombola.lab.halt`). A training writes a checkpoint at its next sign of life and ends with
:class:`Stopped`, which is no failure.
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

# Seconds after which work that ignores a stop is interrupted or its worker killed, and after which a command
# ends its process in any case. All is over within 25 s, closing the worker processes included.
PATIENCE, LAST = 10.0, 22.0
# Seconds between two looks of a thread that watches for a stop.
LOOK = 0.1


BY_SIGTERM = "by SIGTERM"
"""The cause of a stop by a signal."""


class Stopped(BaseException):
    """Ends work that must stop; no Exception, so that no function handles it as an error.

    like: seconds that the shortest job of the same kind took, if that is why this one was not begun.
    """

    def __init__(self, like: float | None = None) -> None:
        super().__init__(like)
        self.like = like


class Left(Exception):
    """Raised in a Dask task whose job was left, and by Dask for all that need it; ``like`` as for Stopped."""

    def __init__(self, like: float | None = None) -> None:
        super().__init__(like)
        self.like = like


class Stop:
    """When work must stop: at a time, or as soon as :meth:`now` is called.

    at: seconds since the epoch; machines must agree on it. None for no time.
    cause: why, in words; that of the time until :meth:`now` gives another.
    length: seconds from the start of the work until ``at``; None for no time.
    hurried: whether work that does not end by itself is not waited for.
    closes: whether a worker ends and the run goes on elsewhere.
    """

    hurried = closes = False

    def __init__(self, at: float | None = None, cause: str = "") -> None:
        self.at = at
        self.cause = cause
        self.length: float | None = None
        self._called = threading.Event()

    def now(self, cause: str) -> None:
        """Makes the stop due now, for this cause, unless it was due before."""
        if not self.is_due():
            self.cause = cause
            self._called.set()

    def is_due(self) -> bool:
        """Whether work must stop."""
        return self._called.is_set() or (self.at is not None and time.time() >= self.at)

    def seconds_left(self) -> float:
        """Seconds until it is due; infinite where no time is set."""
        if self._called.is_set():
            return 0.0
        return math.inf if self.at is None else max(0.0, self.at - time.time())

    def check(self) -> None:
        """Raises :class:`Stopped` if the stop is due."""
        if self.is_due():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleeps for some seconds, or until the stop is due."""
        self._called.wait(min(seconds, self.seconds_left()))

    @contextmanager
    def interruptible(self, patience: float = 0.0) -> Iterator[None]:
        """Lets :class:`Stopped` be raised anywhere meanwhile, once the stop is due for ``patience`` seconds.

        Only in the driver's main thread: workers are ended from outside.
        """
        yield


@contextmanager
def stopping(
    stop_after: float | Stop | None = None, *, at_last: Callable[[Stop], object] | None = None
) -> Iterator[Stop]:
    """A stop after some seconds, which SIGTERM to this process makes due as well.

    stop_after: seconds; None for no time. A stop is returned as it is, so that several runs share it.
    at_last: called in a thread of its own if the work is not over ``LAST`` seconds after the stop was due.

    SIGTERM is handled in the main thread only, and only if its handler is the default one; a second SIGTERM
    cuts short what the first one waits for. Afterwards it has its old meaning again.

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
    """A stop that handles SIGTERM, and interrupts the main thread where that loses no work."""

    def __init__(self, at: float | None = None, cause: str = "") -> None:
        super().__init__(at, cause)
        # Of what the main thread does now; None where it must not be interrupted.
        self._patience: float | None = None
        self._over = threading.Event()
        # Whether the watcher sent the next SIGTERM itself, and when that arrived.
        self._sent, self._handled = False, threading.Event()

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
        """Handles SIGTERM and watches the time meanwhile."""
        main = threading.current_thread() is threading.main_thread()
        handles = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        watcher = threading.Thread(target=self._watch, args=(handles, at_last), daemon=True, name="deadline")
        if handles:
            signal.signal(signal.SIGTERM, self._handle)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()
            if handles:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _handle(self, *_: object) -> None:
        """Handles SIGTERM in the main thread: from outside, or from the watcher to interrupt this thread."""
        due = self.is_due()
        if not self._sent:
            self.hurried = self.hurried or due
            self.now(BY_SIGTERM)
        self._sent = False
        self._handled.set()
        patience = self._patience
        if patience is not None and (patience == 0 or due):
            self._patience = None
            raise Stopped

    def _watch(self, handles: bool, at_last: Callable[[Stop], object] | None) -> None:
        """Interrupts the main thread once its patience is over, and at last calls ``at_last``."""
        due_for = 0.0
        while not self._over.wait(LOOK):
            if not self.is_due():
                continue
            due_for += LOOK  # counted, so that a process that was suspended has its time
            patience = self._patience
            if handles and patience is not None and due_for > patience:
                self._handled.clear()
                self._sent = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                # The signal must arrive while its handler is still in place.
                self._handled.wait(1.0)
            if due_for > LAST and at_last is not None:
                at_last(self)
                return


def in_words(seconds: float) -> str:
    """A time as ``--stop-after`` takes it: 90 s is "1m30s"."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    rounded = round(seconds)
    parts = (rounded // 3600, "h"), (rounded % 3600 // 60, "m"), (rounded % 60, "s")
    return "".join(f"{number}{unit}" for number, unit in parts if number)


# In a worker: the stops of the runs that this process works for, and how many jobs of each are running here.
_stops: dict[str, Stop] = {}
_running: Counter[str] = Counter()
_lock = threading.Lock()


@contextmanager
def at_work(run: str, at: float | None) -> Iterator[Stop]:
    """The stop of a run, while this thread works on one of its jobs."""
    with _lock:
        stop = _stops.setdefault(run, Stop(at))
        _running[run] += 1
    try:
        yield stop
    finally:
        with _lock:
            _running[run] -= 1


async def wind_up(run: str, patience: float) -> int:
    """Stops the work for a run in this process; how many of its jobs still run after some seconds."""
    with _lock:
        _stops.setdefault(run, Stop()).now("by its driver")
    return await _left_running({run}, patience)


async def wind_up_all(patience: float) -> int:
    """Stops all work in this process, because it ends; how many jobs still run after some seconds."""
    with _lock:
        runs = set(_stops)
        for run in runs:
            stop = _stops[run]
            stop.closes = not stop.is_due()
            stop.now("by the end of its worker")
    return await _left_running(runs, patience)


async def _left_running(runs: set[str], patience: float) -> int:
    """How many jobs of these runs still run here once none does, or after ``patience`` seconds."""
    give_up = time.monotonic() + patience
    while (count := sum(_running[run] for run in runs)) and time.monotonic() < give_up:
        await asyncio.sleep(LOOK / 2)
    return count
