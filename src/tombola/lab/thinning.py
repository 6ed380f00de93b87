"""Thins the runs of an experiment as it goes: behind ``tombola run --keep needed``.

A run loses its weights once everything of the experiment that is made from it is in the store. Its numbers,
history, forgetting record and ticket stay. A later experiment that wants the weights has it trained again, as
after ``tombola gc --keep needed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from tombola.errors import StoreError
from tombola.lab.driver import ForwardingProgress, Progress
from tombola.lab.job import Job, all_needed
from tombola.lab.queue import QueueReader
from tombola.lab.store import Store


class ThinningProgress(ForwardingProgress):
    """Passes calls on to another progress, and thins runs whose weights no job expected needs any more.

    A run from which nothing is made keeps its weights, and so does one behind a job that failed. What cannot
    be thinned, stays. What another driver at work on the store still needs stays, too, as far as its queue
    tells (:mod:`tombola.lab.queue`): one that begins at the same moment may find weights gone, fails the jobs
    that need them, and trains the run again when it is started again.
    """

    def __init__(self, progress: Progress, store: Store) -> None:
        super().__init__(progress)
        self._store, self._queues = store, QueueReader(store)
        self._made_from: dict[str, set[str]] = {}
        self._missing = 0

    def expect(self, jobs: Iterable[Job]) -> None:
        """Tells that these jobs, and all behind them, will be computed unless they are there."""
        for name, job in all_needed(jobs).items():
            for need in job.needs:
                self._made_from.setdefault(need.name, set()).add(name)

    def begin(self, found: int, missing: int) -> None:
        super().begin(found, missing)
        self._missing = missing
        if not missing:
            self._thin_all_done()

    def done(self, job: Job, failed: str | None) -> None:
        super().done(job, failed)
        if failed is None:
            # Of tickets between trainings nothing is told here, so the runs behind them are looked at, too.
            behind = {need.name for need in job.needs}
            behind |= {further.name for need in job.needs for further in need.needs}
            for name in sorted(behind):
                self._thin_if_done(name)
            self._missing -= 1
            if not self._missing:
                self._thin_all_done()

    def _thin_all_done(self) -> None:
        """Thins what an earlier call left, which was cut off or kept weights; only once nothing is missing.

        Until then a result that is there may be one that is about to be removed and computed anew.
        """
        for name in sorted(self._made_from):
            self._thin_if_done(name)

    def _thin_if_done(self, name: str) -> None:
        """Thins a job if it is a run, and all that is made from it, here or by another driver, is there."""
        made_from_it = self._made_from.get(name)
        if not made_from_it or not all(map(self._store.has, made_from_it)):
            return
        with suppress(StoreError):
            is_whole_run = not self._store.is_thin(name) and "ticket" in self._store.details(name)
            if is_whole_run and self._queues.needing(name) is None:
                self._store.thin(name)
