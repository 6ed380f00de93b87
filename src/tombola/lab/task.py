"""One job as a task of a Dask worker: the driver submits :func:`run_task`, keyed by the job's name.

A job that another owner works on is waited for without holding a slot. Errors cross to the driver as plain
:class:`~tombola.errors.TombolaError`, because one that cannot be unpickled there would be waited for for
ever. Dask is imported only when a job runs.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tombola.errors import ClusterError, DeviceError, JobError, StoreUnwritable, TombolaError
from tombola.lab.deadline import Left, Stop, Stopped, at_work
from tombola.lab.description import name_of
from tombola.lab.environment import difference_here
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.lease import free, holder_text
from tombola.lab.notebook import declare_sent
from tombola.lab.store import Store
from tombola.lab.supervision import apart_from_suspects, device_is_lost
from tombola.training.run import Epoch

# Seconds between two looks at a job that another owner works on: the first pause, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
# Seconds of waiting after which it is told.
_TOLD_AFTER = 1.0


def run_task(
    root: str,
    description: str,
    settings: Settings,
    driver: Mapping[str, str],
    needs: list[bool],
    run: str = "",
    sent: bytes = b"",
) -> bool:
    """Runs a job in a Dask worker and returns whether it was computed here.

    driver: the driver's versions. Workers that joined later have not been asked for theirs, nor whether they
        see the store.
    needs: the results of the tasks before this one; they only order the graph.
    run: names the run that the job belongs to, which may be stopped.
    sent: what the driver declares without a file (:mod:`tombola.lab.notebook`).
    """
    from distributed import Reschedule

    with at_work(run, settings.stop_at) as stop:
        try:
            return _run_in_worker(root, description, settings, driver, stop, sent, run)
        except Stopped as stopped:
            left = Left(stopped.like)
    if stop.closes:
        raise Reschedule  # for another worker to continue
    raise left


def _run_in_worker(
    root: str,
    description: str,
    settings: Settings,
    driver: Mapping[str, str],
    stop: Stop,
    sent: bytes,
    run: str,
) -> bool:
    """Runs a job; what it raises can be pickled and unpickled."""
    stop.check()
    version_error = difference_here(driver)
    if version_error is not None:
        raise ClusterError(version_error)
    if not (Path(root) / "work").is_dir():
        raise ClusterError(
            f"the worker on {socket.gethostname()} does not see the store at {root}; it must be on a file "
            "system that all machines share, under the same path"
        )
    # For the whole process and for good: its other slots rest on the same number.
    if torch.get_num_threads() != settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        declare_sent(sent)
        call = json.loads(description)
        on_wait = partial(_tell_waiting, run, call)
        return run_when_free(Store(root, create=False), call, settings, None, stop, on_wait)
    except Exception as error:
        if device_is_lost(error):
            _end_process()  # every other slot of it would fail too
        if stop.is_due() and not isinstance(error, TombolaError):
            raise Stopped from error  # signals may have ended what it rested on
        sendable = error if isinstance(error, TombolaError) else JobError(one_line(error))
        if isinstance(error, StoreUnwritable | DeviceError):  # a fault of the machine more than of the job
            sendable = type(error)(f"{error} (on {socket.gethostname()})")
        sendable.__cause__ = sendable.__context__ = sendable.__traceback__ = None
    raise sendable


def run_when_free(
    store: Store,
    description: Mapping[str, Any],
    settings: Settings,
    on_epoch: Callable[[Epoch, float], None] | None,
    stop: Stop,
    on_wait: Callable[[str | None], None] = lambda _: None,
) -> bool:
    """Runs a job; while another owner works on it, waits with growing pauses and without a slot.

    on_wait: called with that owner in words after a second of waiting, and with None when it is over.

    Returns and raises what :func:`~tombola.lab.execute.execute` does, :class:`LeaseHeld` apart.
    """
    name = name_of(description)
    while True:
        try:
            if not _in_worker():
                return execute(store, description, settings, on_epoch, stop=stop)
            end_process = _end_process if _has_nanny() else None
            with apart_from_suspects(store.workplace(name), _without_slot):
                return execute(store, description, settings, on_epoch, end_process=end_process, stop=stop)
        except LeaseHeld:
            with _without_slot():
                pause, waited, announced = _FIRST_PAUSE, 0.0, False
                while (not store.has(name) or store.is_thin(name)) and not free(store.workplace(name)):
                    if waited > _TOLD_AFTER and not announced:
                        on_wait(holder_text(store.workplace(name)))
                        announced = True
                    waited += pause
                    # A little chance keeps many waiters from asking all at once; it touches no result.
                    stop.wait(pause * random.uniform(0.8, 1.2))
                    stop.check()
                    pause = min(pause * 1.5, _LONGEST_PAUSE)
                if announced:
                    on_wait(None)


def waiting_topic(run: str) -> str:
    """The topic of Dask's events on which workers tell the driver of a run what they wait for."""
    return f"tombola-waiting-{run}"


def _tell_waiting(run: str, description: Mapping[str, Any], holder: str | None) -> None:
    """Tells the driver that a job is waited for, or no more."""
    from distributed import get_worker

    get_worker().log_event(waiting_topic(run), {"job": name_of(description), "holder": holder})


@contextmanager
def _without_slot() -> Iterator[None]:
    """Lets the Dask worker begin another task meanwhile; afterwards this thread waits for a slot again."""
    from distributed import rejoin, secede

    if not _in_worker():
        yield
        return
    secede()
    yield
    rejoin()


def _in_worker() -> bool:
    """Whether this thread is a slot of a Dask worker."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _has_nanny() -> bool:
    """Whether the process of this Dask worker is started again after it ends."""
    from distributed import get_worker

    return get_worker().nanny is not None


def _end_process() -> None:
    """Ends this process at once; its jobs resume in the one that its nanny starts."""
    os._exit(1)


def one_line(error: BaseException) -> str:
    """The cause of a failure as one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TombolaError) else f"{type(error).__name__}: {text}"
