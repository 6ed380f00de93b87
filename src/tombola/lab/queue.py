"""Queues: the jobs that the commands at work on a store will compute, for whoever watches it.

A driver writes the names of its jobs, and of those whose results they take, to the store when it begins and
removes the file when it ends; the file's time of change is its heartbeat. What became of each job the store
knows itself. Errors on writing are ignored, and no result depends on it: ``--keep needed``, ``tombola gc``,
``tombola rm`` and ``--recompute`` spare what a queue needs, and what is gone all the same is computed again.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola import disk
from tombola.errors import StoreError
from tombola.lab import process
from tombola.lab.description import is_fingerprint
from tombola.lab.job import Job
from tombola.lab.store import Store, read_json, write_json
from tombola.untrusted import OTHER_FORM, printable

# Of the form that tombola gc removes a day after its writer died.
_NAME = re.compile(r"\.queue\.[0-9a-f]{8}")
# Seconds between heartbeats, and without one after which a driver elsewhere counts as gone.
_HEARTBEAT, _GONE = 20.0, 120.0


@dataclass(frozen=True)
class Queue:
    """The jobs of a driver at work, finished or not.

    driver: its process, in words. begun: seconds since the epoch. jobs: functions by the names of jobs.
    made_from: by the name of a job, those that are made from its result. own: whether it is of this process,
        be it of another run in a thread of its own.
    """

    driver: str
    begun: float
    jobs: Mapping[str, str]
    made_from: Mapping[str, Sequence[str]]
    own: bool = False


@contextmanager
def announced(store: Store, jobs: Iterable[Job]) -> Iterator[None]:
    """Tells, as long as a block lasts, what this process has computed and what that is made from.

    Tickets are left out of its jobs.
    """
    path = store.root / "work" / f".queue.{uuid.uuid4().hex[:8]}"
    functions: dict[str, str] = {}
    made_from: dict[str, list[str]] = {}
    for job in jobs:
        if job.counted:
            functions[job.name] = job.declaration.name
        for need in job.needs:
            made_from.setdefault(need.name, []).append(job.name)
    written = {**process.identity(), "begun": time.time(), "jobs": functions, "made_from": made_from}
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_HEARTBEAT):
            with suppress(OSError):
                disk.set_time(path)

    _remove_dead(path.parent)
    with suppress(StoreError):
        write_json(path, written, synced=False)
    heart = threading.Thread(target=beat, name="tombola-queue", daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
        with suppress(OSError):
            disk.remove(path, missing_ok=True)


def _remove_dead(folder: Path) -> None:
    """Removes what drivers left that were killed on this machine."""
    for path in folder.glob(".queue.*"):
        with suppress(OSError, *OTHER_FORM):
            if _NAME.fullmatch(path.name) and process.runs(read_json(path)) is False:
                disk.remove(path, missing_ok=True)


class QueueReader:
    """Reads the queues of a store; each file once, since none changes."""

    def __init__(self, store: Store) -> None:
        self._store, self._folder = store, store.root / "work"
        self._read: dict[str, tuple[dict[str, Any], Queue] | None] = {}

    def queues(self) -> list[Queue]:
        """The queues of the drivers at work, the first that began first."""
        paths = {path.name: path for path in self._folder.glob(".queue.*") if _NAME.fullmatch(path.name)}
        self._read = {
            name: self._read[name] if name in self._read else _queue(path) for name, path in paths.items()
        }
        queues = [read[1] for name, read in self._read.items() if read and _is_at_work(paths[name], read[0])]
        return sorted(queues, key=lambda queue: queue.begun)

    def needing(self, name: str) -> Queue | None:
        """A queue with a job that is not there yet and is made from the result of another; None without."""
        for queue in self.queues():
            if not all(map(self._store.has, queue.made_from.get(name, ()))):
                return queue
        return None


def _queue(path: Path) -> tuple[dict[str, Any], Queue] | None:
    """The driver and the queue in a file, which anybody may have written; None for another form."""
    try:
        written = read_json(path)
        jobs = {name: printable(str(kind)) for name, kind in written["jobs"].items() if is_fingerprint(name)}
        made_from = {
            name: [job for job in needing if is_fingerprint(job)]
            for name, needing in written.get("made_from", {}).items()
        }
        driver = printable(f"process {written['pid']} on {written['host']}")
        own = all(written.get(key) == value for key, value in process.identity().items())
        return written, Queue(driver, float(written["begun"]), jobs, made_from, own)
    except (OSError, *OTHER_FORM):
        return None


def _is_at_work(path: Path, driver: Mapping[str, Any]) -> bool:
    """Whether a driver still runs; of one on another machine only its heartbeat tells."""
    with suppress(*OTHER_FORM):
        runs = process.runs(driver)
        if runs is not None:
            return runs
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False  # it ended just now
    return abs(age) < _GONE  # a date in the future is no heartbeat, but for clocks that differ
