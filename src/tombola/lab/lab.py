"""The lab: runs jobs and remembers their results; the library's front door to the store and the driver.

:meth:`Lab.run` checks the data and the store, decides which of the jobs behind its own are missing, and hands
those to :mod:`tombola.lab.driver`, in this process, in worker processes of this machine or on a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tombola.cores import check_per_core
from tombola.errors import DataError, DeviceError, JobError, RecipeError
from tombola.lab.arguments import job_signature
from tombola.lab.cluster import check_data, local_cluster, remote_cluster
from tombola.lab.deadline import BY_SIGTERM, Stop, Stopped, stopping
from tombola.lab.driver import CountedProgress, Outcome, Progress, run_here, run_on_cluster
from tombola.lab.evaluate import evaluate
from tombola.lab.execute import Settings
from tombola.lab.filesystem import check_file_system
from tombola.lab.finished import load_result
from tombola.lab.item import Item, Itemized, Results
from tombola.lab.job import Job, all_needed, data_behind, values_behind
from tombola.lab.job_table import numbers_of_jobs
from tombola.lab.listing import finished_names
from tombola.lab.mixture import STRICT_REMEDY, distinct_origins, mixed_line, origin
from tombola.lab.objects import lacks_start, put_value, register_data
from tombola.lab.queue import announced
from tombola.lab.recompute import Removal
from tombola.lab.slots import crew_for
from tombola.lab.staleness import Record, warn_stale
from tombola.lab.starts import maker_of_start
from tombola.lab.store import NUMBERS, Store
from tombola.one_line import OneLine
from tombola.table.table import Table
from tombola.training.device import resolve_device
from tombola.training.footprint import DataFootprint
from tombola.training.run import ForgettingRecord
from tombola.warn import warn


class Lab(OneLine):
    """Runs jobs once and remembers their results.

    store: a folder; by default ``TOMBOLA_STORE`` or the platform's place for user data.
    workers: processes to run jobs in, one a CPU core; 0 runs them one after the other in this process. On
        GPUs any other number means one process a GPU, each with ``settings.slots`` jobs at once.
    settings: device, threads and checkpoints; see :class:`~tombola.lab.execute.Settings`.
    scheduler, scheduler_file: instead of ``workers``, the address of a Dask scheduler whose workers share the
        store's file system, or the file it wrote; see :func:`~tombola.lab.cluster.remote_cluster`. The
        device is then the workers': "auto" takes their GPUs if any of them has one.

    Raises :class:`~tombola.errors.StoreError` if the store cannot be used.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        workers: int = 0,
        settings: Settings | None = None,
        scheduler: str | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if workers < 0:
            raise RecipeError(f"workers is {workers}; it must be 0 (no processes of their own) or more")
        check_per_core("workers", workers)
        if bool(workers) + (scheduler is not None) + (scheduler_file is not None) > 1:
            raise RecipeError("workers, scheduler and scheduler_file exclude each other; give one of them")
        self.store = Store(store)
        self.workers = workers
        self.settings = settings or Settings()
        self.scheduler = Path(scheduler_file).absolute() if scheduler_file is not None else scheduler
        # Refused here rather than in every job. The machine that drives a cluster may have no GPU itself.
        self.device = resolve_device(self.settings.device if self.scheduler is None else "cpu")
        self._checked: dict[str, str] = {}
        self._footprints: dict[str, DataFootprint] = {}
        self._sources: dict[str, Record] = {}
        self._terminated = False  # by SIGTERM

    def _in_one_line(self) -> str:
        return f"<lab in {self.store.root}, jobs run in {self._where()}>"

    def _facts(self) -> dict[str, object]:
        settings = self.settings
        return {
            "store": self.store.root,
            "jobs run in": self._where(),
            "device": settings.device,
            "mode": settings.mode,
            "threads on a CPU": settings.threads,
            "strict": settings.strict,
        }

    def _where(self) -> str:
        if self.scheduler is not None:
            return f"the workers of {self.scheduler}"
        return f"{self.workers} worker processes" if self.workers else "this process"

    def run(
        self,
        jobs: Job | Iterable[Job],
        *,
        progress: Progress | None = None,
        whole: bool = False,
        stop_after: float | Stop | None = None,
        recompute: Iterable[str] = (),
    ) -> Outcome:
        """Computes these jobs, and all that they need, unless the store has their results.

        whole: with their tensors, even if those of a finished job were removed (see
            :func:`~tombola.lab.gc.gc`); otherwise its numbers are enough.
        stop_after: seconds after which work ends, within 25 more: trainings keep a checkpoint, and no job is
            begun whose like took longer than is left. What was not finished is in ``Outcome.left``; the same
            call continues. A :class:`~tombola.lab.deadline.Stop` is shared by several runs; see
            :func:`~tombola.lab.deadline.stopping`.
        recompute: names of functions, networks and initialisation schemes of the caller's own. Their results,
            and all results made from those, are removed before the first job is computed, so that these jobs
            are computed anew; see :class:`~tombola.lab.recompute.Removal`. A call that is refused removes
            nothing.

        Jobs that fail are in ``Outcome.failed``, and so are those that need them; the others go on. Tickets
        between trainings are counted neither there nor in the progress, unless they are among ``jobs``.

        SIGTERM stops the work like a time that is over, unless this process handles it otherwise or this is
        not its main thread: the call returns with ``Outcome.stopped``, and SIGTERM has its old meaning again.
        Later calls on this lab leave all their jobs, too: the process was told to end.

        Raises :class:`~tombola.errors.RecipeError` for a ``stop_after`` that is not above 0,
        :class:`~tombola.errors.StoreError` if the store cannot be written to or holds results of other
        pixels under a data name, :class:`~tombola.errors.DataError` for data that cannot be loaded, and
        :class:`~tombola.errors.ClusterError` for a cluster that does not answer or has no workers any more.
        """
        wanted = [jobs] if isinstance(jobs, Job) else list(jobs)
        with stopping(stop_after) as stop:
            removal = Removal(self.store, recompute, wanted)
            warn_stale(self.store, wanted, self._sources, removal.names)
            needed = all_needed(wanted)
            finished = {name for name in needed if self.store.has(name) and name not in removal.names}
            missing = _missing_jobs(self.store, wanted, needed, finished, whole, removal.names)
            uncounted = {name for name, job in needed.items() if not job.counted}
            uncounted -= {job.name for job in wanted}
            outcome = Outcome()
            outcome.finished_before = [
                name for name in needed if name in finished and name not in missing and name not in uncounted
            ]
            with suppress(Stopped):
                with stop.interruptible():
                    self._check_data(wanted, needed=bool(missing))
                progress = CountedProgress(progress or Progress(), uncounted)
                progress.begin(len(outcome.finished_before), len(missing.keys() - uncounted))
                if missing:
                    if self._terminated:
                        stop.now(BY_SIGTERM)
                    stop.check()
                    if self.scheduler is None:
                        self._check_mixtures(missing.values(), origin(self.device), removal.names)
                    check_file_system(self.store.root / "work")
                    self._put_values(missing.values())
                    with announced(self.store, missing.values()):
                        self._run(missing, progress, outcome, stop, removal)
                else:
                    self._remove(removal, progress, outcome, stop)
            ended = {*outcome.computed, *outcome.failed, *uncounted}
            outcome.left = [name for name in missing if name not in ended]
            outcome.computed = [name for name in outcome.computed if name not in uncounted]
            outcome.stopped = stop.cause if outcome.left and stop.is_due() else ""
            self._terminated |= outcome.stopped == BY_SIGTERM
        return outcome

    def _remove(self, removal: Removal, progress: Progress, outcome: Outcome, stop: Stop) -> None:
        """Removes results that are to be computed anew; the last step before that, after all checks."""
        if not removal.uses:
            return
        stop.check()
        outcome.removed = removal.carry_out()
        for name in outcome.removed:
            self._sources.pop(name, None)
        progress.removed(len(outcome.removed), removal.uses)

    def _run(
        self,
        missing: Mapping[str, Job],
        progress: Progress,
        outcome: Outcome,
        stop: Stop,
        removal: Removal,
    ) -> None:
        """Runs jobs where this lab runs them; raises Stopped if none could begin."""
        settings = replace(self.settings, stop_at=stop.at)
        if self.scheduler is not None:
            self._run_remotely(self.scheduler, settings, missing, progress, outcome, stop, removal)
        elif self.workers:
            # A worker on a GPU sees no other.
            settings = replace(settings, device=self.device.type)
            crew = crew_for(
                missing.values(), self.device, self.workers, self.settings.slots, self._footprints
            )
            with ExitStack() as stack:
                with stop.interruptible():
                    client = stack.enter_context(local_cluster(crew))
                self._remove(removal, progress, outcome, stop)
                spread = len(crew.slots) > 1
                run_on_cluster(
                    client, self.store, missing, settings, progress, outcome, stop=stop, spread=spread
                )
        else:
            self._remove(removal, progress, outcome, stop)
            run_here(self.store, missing, settings, progress, outcome, stop)

    def _run_remotely(
        self,
        scheduler: str | Path,
        settings: Settings,
        missing: Mapping[str, Job],
        progress: Progress,
        outcome: Outcome,
        stop: Stop,
        removal: Removal,
    ) -> None:
        """Runs jobs on the workers of a cluster that was started elsewhere."""
        with ExitStack() as stack:
            with stop.interruptible():
                client, gpus = stack.enter_context(remote_cluster(scheduler, self.store))
            device = self.settings.device
            if device == "auto":
                device = "cuda" if gpus else "cpu"
            kind = torch.device(device).type
            if kind == "cuda" and not gpus:
                raise DeviceError(
                    f"device {device!r} asked for, but no worker of {scheduler} sees a GPU; start one where "
                    "there is one, or use cpu or auto"
                )
            with stop.interruptible():
                for worker_origin in distinct_origins(client, kind):
                    self._check_mixtures(missing.values(), worker_origin, removal.names)
                check_data(client, self.store, data_behind(missing.values()))
            computing = [name for name, job in missing.items() if kind == "cuda" and _needs_device(job)]
            settings = replace(settings, device=kind)
            self._remove(removal, progress, outcome, stop)
            run_on_cluster(client, self.store, missing, settings, progress, outcome, computing, stop)

    def _check_mixtures(
        self, missing: Collection[Job], here: Mapping[str, str], removed: Collection[str]
    ) -> None:
        """Warns, or raises JobError if strict, if trainings go on from results of another origin."""
        line = mixed_line(self.store, missing, here, removed)
        if line is not None and self.settings.strict:
            raise JobError(f"strict: {line}; {STRICT_REMEDY}")
        if line is not None:
            warn(line)

    def _check_data(self, jobs: Iterable[Job], *, needed: bool) -> None:
        """Registers the data behind jobs in the store; StoreError if its results are of other pixels.

        Behind finished jobs too: a folder may have changed since. Data that are gone raise only if
        ``needed``.
        """
        for name, source in data_behind(jobs).items():
            version = source if isinstance(source, str) else source.fingerprint
            if self._checked.get(name) == version:
                continue
            try:
                data = register_data(self.store, name, source)
            except DataError:
                if needed:
                    raise
            else:
                self._checked[name] = version
                self._footprints[name] = DataFootprint.of(data)

    def _put_values(self, jobs: Iterable[Job]) -> None:
        """Puts the caller's own tickets and runs behind these jobs into the store, for workers to load."""
        for fingerprint, value in values_behind(jobs).items():
            put_value(self.store, fingerprint, value)

    def has(self, job: Job) -> bool:
        """Whether the store has the result of a job."""
        return self.store.has(job.name)

    def results(self) -> Results:
        """The finished jobs of the store, each read once; what no store keeps is computed when asked for."""
        return Results(self.store, self.result)

    def table(self, *contents: Tabled | Iterable[Tabled]) -> Table:
        """Every number of some jobs or experiments as one table, gaps included; see docs/table.md.

        contents: jobs, or beginnings of the names of finished ones; experiments at a scale, or items of them;
            or lists of these. Without any, all finished runs and measures of the store, oldest first: tickets
            and data are left out, and what is damaged too, with a warning.

        A number that an experiment asks for has the key that it has there; that of a job by itself is read
        off its description and those behind it.

        Raises :class:`~tombola.errors.JobError` for a name that no job or several have, and
        :class:`~tombola.errors.StoreError` for a damaged result.
        """
        results = self.results()
        if not contents:
            return self._whole_table(results)
        jobs: list[Job | str] = []
        items: list[Item] = []
        for content in _flat(contents):
            if isinstance(content, str):
                jobs.append(self.store.find(content))
            elif isinstance(content, Job):
                jobs.append(content)
            else:
                items += getattr(content, "items", [content])
        numbers = [number for item in items for number in item.numbers(results)]
        of_jobs, _ = numbers_of_jobs(results, jobs, numbers)
        return Table([*numbers, *of_jobs])

    def _whole_table(self, results: Results) -> Table:
        """The numbers of all finished runs and measures."""
        names, damaged = finished_names(self.store)
        numbers, unreadable = numbers_of_jobs(results, names, strict=False, measured_only=True)
        damaged += unreadable
        if damaged:
            count = f"{len(damaged)} damaged job{'s' * (len(damaged) != 1)}"
            warn(f"{count} left out of the table, which tombola verify lists: {damaged[0]}")
        return Table(numbers)

    def result(self, job: Job) -> Any:
        """The result of a job, computed first if the store does not have it.

        Raises :class:`~tombola.errors.JobError` if it fails, and :class:`~tombola.errors.Unfinished` if the
        work was stopped by SIGTERM.
        """
        if not job.stored:
            self._finish(job.needs)
            self._check_data([job], needed=True)
            self._put_values([job])
            return evaluate(self.store, job.description(), {})
        self._finish(job)
        return load_result(self.store, job.name)

    def _finish(self, jobs: Job | Iterable[Job]) -> None:
        """Computes jobs with their tensors; raises if any failed or was left."""
        outcome = self.run(jobs, whole=True)
        outcome.raise_failures()
        outcome.raise_left()

    def forgetting(self, job: Job) -> ForgettingRecord:
        """What happened to each training image in a finished run, whether or not its weights are there.

        Raises :class:`~tombola.errors.JobError` if the store has no record of it.
        """
        return ForgettingRecord.from_tensors(self.store.forgetting_tensors(job.name))

    def numbers(self, job: Job) -> dict[str, Any]:
        """The numbers of a finished job's result, read without its tensors.

        Raises :class:`~tombola.errors.StoreError` if they are damaged.
        """
        self.store.check(job.name, NUMBERS)
        return self.store.numbers(job.name)


Tabled = Job | str | Item | Itemized
"""What a table can be asked for."""


def _flat(contents: Iterable[Tabled | Iterable[Tabled]]) -> Iterator[Tabled]:
    """Each of some contents, and each of those that are lists."""
    for content in contents:
        if isinstance(content, Iterable) and not isinstance(content, str):
            yield from content
        else:
            yield content


def _needs_device(job: Job) -> bool:
    """Whether a job, or a call that is not stored and runs again within it, computes on a device."""
    runtime = job_signature(job.declaration.function).runtime
    return "device" in runtime or any(_needs_device(parent) for parent in job.parents if not parent.stored)


def _missing_jobs(
    store: Store,
    wanted: list[Job],
    needed: Mapping[str, Job],
    finished: set[str],
    whole: bool,
    removed: Collection[str],
) -> dict[str, Job]:
    """Of the needed jobs, those to compute: missing ones that are wanted or that another missing one needs.

    A finished job makes the jobs behind it unnecessary, even if they are gone. One whose tensors were removed
    is missing where its tensors are needed. If a finished ticket's dense start is gone, the job that made the
    start is missing and not the run behind the ticket, because a ticket suffices to go on. Results that are
    to be removed are missing already. The order is that of ``needed``.
    """
    missing: set[str] = set()
    visited: set[tuple[str, bool]] = set()
    pending = [(job, whole) for job in wanted]
    while pending:
        job, tensors = pending.pop()
        if (job.name, tensors) in visited:
            continue
        visited.add((job.name, tensors))
        is_there = job.stored and job.name in finished and not (tensors and store.is_thin(job.name))
        if is_there and not (tensors and lacks_start(store, job.name)):
            continue
        if not is_there:
            missing.add(job.name)
        maker = maker_of_start(store, job) if is_there else None
        if maker is not None and maker.name != job.name:
            if maker.name not in needed:  # read from the store: the ticket is known by its name alone
                needed = {**all_needed([maker]), **needed}
                finished = {name for name in needed if store.has(name) and name not in removed}
            pending.append((maker, True))
        else:
            pending.extend((need, True) for need in job.needs)
    return {name: job for name, job in needed.items() if name in missing}
