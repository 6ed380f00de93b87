"""The lab: jobs, their store and an engine, as a user of the library meets them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tombola.errors import DataError, DeviceError, JobError, RecipeError
from tombola.lab.arguments import face
from tombola.lab.cluster import Crew, check_data, local_cluster, remote_cluster
from tombola.lab.deadline import BY_SIGTERM, Stop, Stopped, stopping
from tombola.lab.engine import Outcome, Progress, available_gpus, run_here, run_on_cluster
from tombola.lab.execute import Settings, evaluate, load_result
from tombola.lab.filesystem import check_file_system
from tombola.lab.item import Item, Itemized, Results
from tombola.lab.job import Job, all_needed, data_behind, everything_behind, values_behind
from tombola.lab.job_table import numbers_of_jobs
from tombola.lab.listing import finished_names
from tombola.lab.mixture import STRICT_REMEDY, distinct_origins, mixed_line, origin
from tombola.lab.objects import lacks_start, put_value, register_data
from tombola.lab.recompute import Removal
from tombola.lab.staleness import Record, tell_stale
from tombola.lab.starts import maker_of_start
from tombola.lab.store import NUMBERS, Store
from tombola.networks.versions import bare_name
from tombola.table.table import Table
from tombola.training.device import resolve_device
from tombola.training.run import Epoch, ForgettingRecord


class Lab:
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
        if bool(workers) + (scheduler is not None) + (scheduler_file is not None) > 1:
            raise RecipeError("workers, scheduler and scheduler_file exclude each other; give one of them")
        self.store = Store(store)
        self.workers = workers
        self.settings = settings or Settings()
        self.scheduler = Path(scheduler_file).absolute() if scheduler_file is not None else scheduler
        # Refused here rather than in every job. The machine that drives a cluster may have no GPU itself.
        self.device = resolve_device(self.settings.device if self.scheduler is None else "cpu")
        self._checked: dict[str, str] = {}
        self._sources: dict[str, Record] = {}
        self._ended = False  # by SIGTERM

    def run(
        self,
        jobs: Job | Iterable[Job],
        *,
        progress: Progress | None = None,
        whole: bool = False,
        stop_after: float | Stop | None = None,
        recompute: Iterable[str] = (),
    ) -> Outcome:
        """See to it that these jobs, and all that they need, are in the store.

        whole: with their tensors, even if those of a finished job were removed (see
            :func:`~tombola.lab.gc.gc`); otherwise its numbers are enough.
        stop_after: seconds after which work ends, within 25 more: trainings keep a checkpoint, and no job is
            begun whose like took longer than is left. What was not finished is in ``Outcome.left``; the same
            call continues. A :class:`~tombola.lab.deadline.Stop` is shared by several runs; see
            :func:`~tombola.lab.deadline.stopping`.
        recompute: names of functions, networks and initialisation schemes of the caller's own. Whatever the
            store has that was made by them, and all that was made from it, is removed before the first job is
            computed, so that what is asked for is computed anew; see :class:`~tombola.lab.recompute.Removal`.
            A call that is refused removes nothing.

        Jobs that fail are told in the outcome, and so are those that need them; the others go on. Tickets
        between trainings are counted neither there nor in the progress, unless they are asked for.

        SIGTERM stops the work like a time that is over, unless this process handles it otherwise or this is
        not its main thread: the call returns with ``Outcome.stopped``, and SIGTERM has its old meaning again.
        Whatever this lab is asked to compute afterwards is left, too: the process was told to end.

        Raises :class:`~tombola.errors.RecipeError` for a ``stop_after`` that is not above 0,
        :class:`~tombola.errors.StoreError` if the store cannot be written to or holds results of other
        pixels under a data name, :class:`~tombola.errors.DataError` for data that cannot be loaded, and
        :class:`~tombola.errors.ClusterError` for a cluster that does not answer or has no workers any more.
        """
        asked = [jobs] if isinstance(jobs, Job) else list(jobs)
        with stopping(stop_after) as stop:
            removal = Removal(self.store, recompute, asked)
            tell_stale(self.store, asked, self._sources, removal.names)
            needed = all_needed(asked)
            outcome = Outcome()
            outcome.found = [name for name in needed if self.store.has(name) and name not in removal.names]
            missing = _wanted(self.store, asked, needed, set(outcome.found), whole, removal.names)
            outcome.found = [name for name in outcome.found if name not in missing]
            between = {name for name, job in needed.items() if not job.counted} - {job.name for job in asked}
            outcome.found = [name for name in outcome.found if name not in between]
            with suppress(Stopped):
                with stop.interruptible():
                    self._check_data(asked, needed=bool(missing))
                progress = _Counted(progress or Progress(), between)
                progress.begin(len(outcome.found), len(missing.keys() - between))
                if missing:
                    if self._ended:
                        stop.now(BY_SIGTERM)
                    stop.check()
                    if self.scheduler is None:
                        self._look_for_mixtures(missing.values(), origin(self.device), removal.names)
                    check_file_system(self.store.root / "work")
                    self._bring_in_values(missing.values())
                    self._run(missing, progress, outcome, stop, removal)
                else:
                    self._remove(removal, progress, outcome, stop)
            over = {*outcome.computed, *outcome.failed, *between}
            outcome.left = [name for name in missing if name not in over]
            outcome.computed = [name for name in outcome.computed if name not in between]
            outcome.stopped = stop.cause if outcome.left and stop.is_due() else ""
            self._ended |= outcome.stopped == BY_SIGTERM
        return outcome

    def _remove(self, removal: Removal, progress: Progress, outcome: Outcome, stop: Stop) -> None:
        """Remove what is to be computed anew: the last step before that, when nothing refuses it any more."""
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
        """Run jobs where this lab runs them; Stopped if none could begin."""
        settings = replace(self.settings, stop_at=stop.at)
        if self.scheduler is not None:
            self._run_remotely(self.scheduler, settings, missing, progress, outcome, stop, removal)
        elif self.workers:
            # A worker on a GPU sees no other.
            settings = replace(settings, device=self.device.type)
            with ExitStack() as stack:
                with stop.interruptible():
                    client = stack.enter_context(local_cluster(self._crew(missing)))
                self._remove(removal, progress, outcome, stop)
                run_on_cluster(client, self.store, missing, settings, progress, outcome, stop=stop)
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
        """Run jobs on the workers of a cluster that is not this lab's."""
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
                for here in distinct_origins(client, kind):
                    self._look_for_mixtures(missing.values(), here, removal.names)
                check_data(client, self.store, data_behind(missing.values()))
            computing = [name for name, job in missing.items() if kind == "cuda" and _computes(job)]
            settings = replace(settings, device=kind)
            self._remove(removal, progress, outcome, stop)
            run_on_cluster(client, self.store, missing, settings, progress, outcome, computing, stop)

    def _look_for_mixtures(
        self, missing: Collection[Job], here: Mapping[str, str], removed: Collection[str]
    ) -> None:
        """Say, or refuse, before hours are spent, that trainings go on from results of another origin."""
        line = mixed_line(self.store, missing, here, removed)
        if line is not None and self.settings.strict:
            raise JobError(f"strict: {line}; {STRICT_REMEDY}")
        if line is not None:
            warnings.warn(line, stacklevel=3)

    def _crew(self, missing: Mapping[str, Job]) -> Crew:
        """The worker processes for these jobs."""
        work = max(1, sum(job.counted for job in missing.values()))
        if self.device.type == "cpu":
            return Crew(min(self.workers, work))
        slots = self.settings.slots or default_slots(missing.values())
        gpus = available_gpus()
        if self.device.index is not None:
            gpus = (gpus[self.device.index],)
        # No more GPUs than there is work for.
        gpus = gpus[: -(-work // slots)]
        return Crew(len(gpus), slots, gpus)

    def _check_data(self, asked: Iterable[Job], *, needed: bool) -> None:
        """See to it that the data behind jobs is what the store's results are of, and at hand for workers.

        Finished jobs too: a folder may have changed since. Only if it is not needed may it be gone.
        """
        for name, source in data_behind(asked).items():
            seen = source if isinstance(source, str) else source.fingerprint
            if self._checked.get(name) == seen:
                continue
            try:
                register_data(self.store, name, source)
            except DataError:
                if needed:
                    raise
            else:
                self._checked[name] = seen

    def _bring_in_values(self, jobs: Iterable[Job]) -> None:
        """Put the caller's own tickets and runs behind these jobs where workers find them."""
        for fingerprint, value in values_behind(jobs).items():
            put_value(self.store, fingerprint, value)

    def has(self, job: Job) -> bool:
        """Whether the result is there."""
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
            warnings.warn(
                f"{count} left out of the table, which tombola verify lists: {damaged[0]}", stacklevel=3
            )
        return Table(numbers)

    def result(self, job: Job) -> Any:
        """The result of a job, computed first if it is not there.

        Raises :class:`~tombola.errors.JobError` if it fails, and :class:`~tombola.errors.Unfinished` if the
        work was stopped by SIGTERM.
        """
        if not job.stored:
            self._finish(job.needs)
            self._check_data([job], needed=True)
            self._bring_in_values([job])
            return evaluate(self.store, job.description(), {})
        self._finish(job)
        return load_result(self.store, job.name)

    def _finish(self, jobs: Job | Iterable[Job]) -> None:
        """Compute jobs with their tensors; raises where any failed or was left."""
        outcome = self.run(jobs, whole=True)
        outcome.raise_failures()
        outcome.raise_left()

    def forgetting(self, job: Job) -> ForgettingRecord:
        """What happened to each training image in a finished run, whether or not its weights are there.

        Raises :class:`~tombola.errors.JobError` if the store has no record of it.
        """
        return ForgettingRecord.from_tensors(self.store.record(job.name))

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


class _Counted(Progress):
    """Progress that hears nothing of some jobs, unless one fails by itself."""

    def __init__(self, progress: Progress, silent: set[str]) -> None:
        self._progress, self._silent = progress, silent
        self._failed: set[str] = set()

    def begin(self, found: int, missing: int) -> None:
        self._progress.begin(found, missing)

    def removed(self, results: int, made_with: Sequence[str]) -> None:
        self._progress.removed(results, made_with)

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        self._progress.epoch(job, row, epochs)

    def done(self, job: Job, failed: str | None) -> None:
        blocked = any(need.name in self._failed for need in job.needs)
        if failed is not None:
            self._failed.add(job.name)
        if job.name not in self._silent or (failed is not None and not blocked):
            self._progress.done(job, failed)


def _computes(job: Job) -> bool:
    """Whether a job, or a call that is made again within it, computes on a device."""
    runtime = face(job.declaration.function).runtime
    return "device" in runtime or any(_computes(parent) for parent in job.parents if not parent.stored)


def _wanted(
    store: Store,
    asked: list[Job],
    needed: Mapping[str, Job],
    found: set[str],
    whole: bool,
    removed: Collection[str],
) -> dict[str, Job]:
    """Of the needed jobs, those that are missing and asked for, or that a missing one needs, in their order.

    A finished job makes the jobs behind it unnecessary, even if they are gone. A thin one is missing for
    whoever needs its tensors. Of one whose dense start is gone the job that made it is asked for again: a
    ticket suffices to go on, and the run that it was made from may stay as it is. What is to be removed is
    missing already.
    """
    wanted: set[str] = set()
    looked: set[tuple[str, bool]] = set()
    pending = [(job, whole) for job in asked]
    while pending:
        job, tensors = pending.pop()
        if (job.name, tensors) in looked:
            continue
        looked.add((job.name, tensors))
        there = job.stored and job.name in found and not (tensors and store.is_thin(job.name))
        if there and not (tensors and lacks_start(store, job.name)):
            continue
        if not there:
            wanted.add(job.name)
        maker = maker_of_start(store, job) if there else None
        if maker is not None and maker.name != job.name:
            if maker.name not in needed:  # read from the store: the ticket was named, and not written down
                needed = {**all_needed([maker]), **needed}
                found = {name for name in needed if store.has(name) and name not in removed}
            pending.append((maker, True))
        else:
            pending.extend((need, True) for need in job.needs)
    return {name: job for name, job in needed.items() if name in wanted}


_USUAL, _SMALL_STEPS = 3, 6
_SMALL_NETWORKS = frozenset({"convnet", "resnet20"})
_SMALL_BATCH = 32


def default_slots(jobs: Iterable[Job]) -> int:
    """Trainings at once on one GPU for these jobs and all behind them: what suits the largest of them."""
    networks, batches = set(), set()
    for each in everything_behind(jobs):
        if isinstance(each.arguments.get("network"), str):
            networks.add(bare_name(each.arguments["network"]))
        recipe = each.arguments.get("recipe")
        if isinstance(recipe, dict):
            batches.add(recipe.get("batch_size", _SMALL_BATCH + 1))
    small = (networks and networks <= _SMALL_NETWORKS) or (batches and max(batches) <= _SMALL_BATCH)
    return _SMALL_STEPS if small else _USUAL
