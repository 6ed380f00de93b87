"""The driver: runs a graph of jobs in this process, or on the workers of a Dask cluster.

A Dask worker is a process that stands for a device, its threads are the slots of that device (see
:mod:`tombola.lab.slots`). Results travel through the store, never through Dask: a task returns only whether
it computed anything. :class:`Progress` hears how a run of jobs gets on, :class:`Outcome` is what became of
it.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tombola.cores import intra_op_threads
from tombola.errors import ClusterError, DeviceError, JobError, StoreUnwritable, TombolaError, Unfinished
from tombola.lab.deadline import Left, Stop, Stopped
from tombola.lab.environment import versions
from tombola.lab.execute import Settings
from tombola.lab.halt import halting
from tombola.lab.job import Job
from tombola.lab.notebook import sent_definitions
from tombola.lab.placement import Chains
from tombola.lab.starts import awaited
from tombola.lab.store import Store
from tombola.lab.supervision import device_is_lost
from tombola.lab.task import one_line, run_task, run_when_free, waiting_topic
from tombola.training.run import Epoch

if TYPE_CHECKING:
    from distributed import Client


@dataclass
class Outcome:
    """What became of the jobs of one run.

    finished_before: names of jobs that needed no work; computed: by this call, or by another driver that it
        waited for; failed: with the cause of each.
    left: names of jobs that were not finished because the work had to stop; the same call continues.
    not_begun: of those, the ones that were not begun because their like took longer than was left, with the
        seconds of the shortest.
    removed: names of jobs whose results were removed first, to be computed anew.
    stopped: why work had to stop, such as "after 9m" or "by SIGTERM"; empty if it had not.
    """

    finished_before: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    not_begun: dict[str, float] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    stopped: str = ""

    def raise_left(self) -> None:
        """Raises :class:`~tombola.errors.Unfinished` if any job was left."""
        if self.left:
            more = f" (and {len(self.left) - 1} more)" if len(self.left) > 1 else ""
            why = f"stopped {self.stopped}" if self.stopped else "no time was left"
            raise Unfinished(f"{why}: job {self.left[0][:12]}{more} is left; the same again continues")

    def raise_failures(self) -> None:
        """Raises :class:`~tombola.errors.JobError` with the first cause if any job failed.

        Jobs that were left did not fail; see :meth:`raise_left`.
        """
        if self.failed:
            name, cause = next(iter(self.failed.items()))
            more = f" (and {len(self.failed) - 1} more)" if len(self.failed) > 1 else ""
            raise JobError(f"job {name[:12]} failed{more}: {cause}")

    def leave(self, name: str, like: float | None = None) -> None:
        """Notes that a job was left; like: as for :class:`~tombola.lab.deadline.Stopped`."""
        self.left.append(name)
        if like is not None:
            self.not_begun[name] = like


class Progress:
    """Is called while jobs run; this one ignores all calls, subclasses show them."""

    def begin(self, found: int, missing: int) -> None:
        """Called once: how many jobs are finished already and how many are to be computed."""

    def removed(self, results: int, made_with: Sequence[str]) -> None:
        """Called once, if results of some names were to be computed anew: so many were removed."""

    def started(self, job: Job) -> None:
        """A job begins in this process; one in a worker is not told."""

    def epoch(self, job: Job, row: Epoch, epochs: float) -> None:
        """A training in this process finished an epoch."""

    def waiting(self, job: Job, holder: str | None) -> None:
        """A job is waited for that "process 123 on host" computes; None: it is waited for no more."""

    def done(self, job: Job, failed: str | None) -> None:
        """A job is finished, or failed with a cause."""


class ForwardingProgress(Progress):
    """Passes all calls on to another progress; subclasses do more on some."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, found: int, missing: int) -> None:
        self._progress.begin(found, missing)

    def removed(self, results: int, made_with: Sequence[str]) -> None:
        self._progress.removed(results, made_with)

    def started(self, job: Job) -> None:
        self._progress.started(job)

    def epoch(self, job: Job, row: Epoch, epochs: float) -> None:
        self._progress.epoch(job, row, epochs)

    def waiting(self, job: Job, holder: str | None) -> None:
        self._progress.waiting(job, holder)

    def done(self, job: Job, failed: str | None) -> None:
        self._progress.done(job, failed)


class CountedProgress(ForwardingProgress):
    """Passes calls on to another progress; jobs that are not counted only if they fail by themselves."""

    def __init__(self, progress: Progress, uncounted: set[str]) -> None:
        super().__init__(progress)
        self._uncounted = uncounted
        self._failed: set[str] = set()

    def done(self, job: Job, failed: str | None) -> None:
        blocked = any(need.name in self._failed for need in job.needs)
        if failed is not None:
            self._failed.add(job.name)
        if job.name not in self._uncounted or (failed is not None and not blocked):
            super().done(job, failed)


def run_here(
    store: Store,
    jobs: Mapping[str, Job],
    settings: Settings,
    progress: Progress,
    outcome: Outcome,
    stop: Stop | None = None,
) -> None:
    """Runs jobs one after the other in this process, and notes in ``outcome`` what became of each.

    jobs: by name, in an order that respects their needs.
    """
    stop = stop or Stop(settings.stop_at)
    left = set(outcome.left)
    with intra_op_threads(settings.threads):
        for job in jobs.values():
            try:
                cause = _blocked(awaited(store, job, outcome.failed)) if outcome.failed else None
                if cause is None:
                    if left and any(awaited(store, job, left)):
                        raise Stopped
                    cause = _cause_of_failure(store, job, settings, progress, stop)
            except Stopped as stopped:
                outcome.leave(job.name, stopped.like)
                left.add(job.name)
            else:
                _enter(outcome, job, cause, progress)


def _cause_of_failure(
    store: Store, job: Job, settings: Settings, progress: Progress, stop: Stop
) -> str | None:
    """Runs a job in this process; returns the cause if it fails, and raises what would fail every job."""
    progress.started(job)
    try:
        on_epoch, on_wait = partial(progress.epoch, job), partial(progress.waiting, job)
        run_when_free(store, job.description(), settings, on_epoch, stop, on_wait)
    except StoreUnwritable:
        raise
    except Exception as error:  # a declared function may fail in any way
        if device_is_lost(error):
            raise DeviceError(
                f"the GPU failed this process for good ({one_line(error)}); run the same again, "
                "it goes on where it was"
            ) from error
        if stop.is_due() and not isinstance(error, TombolaError):
            raise Stopped from error  # signals may have ended what it rested on
        return one_line(error)
    return None


def run_on_cluster(
    client: Client,
    store: Store,
    jobs: Mapping[str, Job],
    settings: Settings,
    progress: Progress,
    outcome: Outcome,
    gpus: Collection[str] = (),
    stop: Stop | None = None,
    spread: bool = False,
) -> None:
    """Runs jobs on the workers of a Dask cluster, and notes in ``outcome`` what became of each.

    client: of the cluster; see :mod:`tombola.lab.cluster`.
    gpus: names of the jobs that ask for a GPU of their worker.
    spread: whether all workers are there, so that chains can be spread over them before they begin.

    Raises :class:`~tombola.errors.ClusterError` if the scheduler is lost,
    :class:`~tombola.errors.StoreUnwritable` if a worker cannot write to the store, and
    :class:`~tombola.errors.JobError` for a definition of a notebook that cannot be sent.
    """
    from dask.base import annotate
    from distributed import KilledWorker, as_completed

    stop = stop or Stop(settings.stop_at)
    root, driver = str(store.root), versions()
    # Of this run alone: another driver's may be of another store or other settings. Leases join the two.
    token = uuid.uuid4().hex[:8]
    keys = {name: f"{job.declaration.name}-{name}-{token}" for name, job in jobs.items()}
    # One value for all of its tasks.
    definitions, sent = f"definitions-{token}", sent_definitions(jobs.values())
    needs = {name: list(awaited(store, job, jobs)) for name, job in jobs.items()}
    graph = {
        keys[name]: (
            run_task, root, json.dumps(job.description()), settings, driver,
            [keys[need] for need in needs[name]], token, definitions if sent else sent,
        )
        for name, job in jobs.items()
    } | ({definitions: sent} if sent else {})  # fmt: skip
    resources = partial(_resources, frozenset(keys[name] for name in gpus)) if gpus else None
    annotations: dict[str, Any] = {}
    if spread:
        chains = Chains(jobs, needs)
        priorities = {keys[name]: priority for name, priority in chains.priorities().items() if priority}
        places = {keys[name]: worker for name, worker in chains.places(client.nthreads()).items()}
        annotations |= {"priority": partial(_priority, priorities)} if priorities else {}
        annotations |= {"workers": partial(_workers, places), "allow_other_workers": True} if places else {}
    with annotate(**annotations):
        submitted = client.get(graph, list(keys.values()), sync=False, resources=resources)
    futures = dict(zip(keys, submitted, strict=True))
    names = {future.key: name for name, future in futures.items()}
    resumed: Counter[str] = Counter()
    completed = as_completed(futures.values())
    with halting(client, store, token, futures, stop), _waits_told(client, token, jobs, progress):
        for future in completed:
            name, cause = names[future.key], None
            if future.status == "pending":  # resumed while it stood in line here
                completed.add(future)
                continue
            if future.status in ("cancelled", "lost"):
                if not stop.is_due():
                    raise ClusterError(
                        "the scheduler or its connection is gone; run the same again when it is back: it "
                        "goes on where it was"
                    )
                if not store.has(name) or store.is_thin(name):
                    outcome.left.append(name)
                    continue
            elif future.status != "finished":
                error = future.exception()
                if isinstance(error, StoreUnwritable):
                    raise error
                blocked = _blocked(need for need in needs[name] if futures[need].status == "error")
                if isinstance(error, Left):
                    outcome.leave(name, None if blocked else error.like)
                    continue
                if isinstance(error, KilledWorker) and error.task in names:
                    if stop.is_due():
                        outcome.left.append(name)
                        continue
                    # Dask counts every job that shared a worker with the culprit; the store knows who it is.
                    blamed = names[error.task]
                    if blamed == name and resumed[name] < settings.attempts:
                        resumed[name] += 1
                        future.retry()
                        completed.add(future)
                        continue
                    if blamed != name and blamed not in outcome.failed:
                        completed.add(future)  # until that one is resumed, or has failed
                        continue
                    last = error.last_worker.address
                    cause = f"every worker that took it died, at last {last}; see its log"
                cause = blocked or cause or one_line(error)
            _enter(outcome, jobs[name], cause, progress)


@contextmanager
def _waits_told(client: Client, run: str, jobs: Mapping[str, Job], progress: Progress) -> Iterator[None]:
    """Passes on what workers tell of the jobs that they wait for."""

    def tell(event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        if said["job"] in jobs:
            progress.waiting(jobs[said["job"]], said["holder"])

    topic = waiting_topic(run)
    client.subscribe_topic(topic, tell)
    try:
        yield
    finally:
        with suppress(Exception):  # a scheduler that is gone has no subscriptions either
            client.unsubscribe_topic(topic)


def _resources(gpus: Collection[str], key: str) -> dict[str, float]:
    """What a task asks of its worker."""
    return {"GPU": 1} if key in gpus else {}


def _priority(priorities: Mapping[str, int], key: str) -> int:
    """The priority of a task: the highest begins first."""
    return priorities.get(key, 0)


def _workers(places: Mapping[str, str], key: str) -> list[str]:
    """The preferred worker of a task; empty for no preference."""
    return [places[key]] if key in places else []


def _blocked(failed_needs: Iterable[str]) -> str | None:
    """The cause of failure of a job that needs failed ones; None if there are none."""
    failed = next(iter(failed_needs), None)
    return None if failed is None else f"needs job {failed[:12]}, which failed"


def _enter(outcome: Outcome, job: Job, cause: str | None, progress: Progress) -> None:
    """Enters a job into the outcome, as computed or as failed with a cause."""
    if cause is None:
        outcome.computed.append(job.name)
    else:
        outcome.failed[job.name] = cause
    progress.done(job, cause)
