"""The engine: runs a graph of jobs in this process, or on the workers of a Dask cluster.

A Dask worker is a process that stands for a device, its threads are the slots of that device; on a CPU every
core is a worker of its own. Results travel through the store, never through Dask: what a task returns is only
whether it computed anything. Tasks are keyed by the job's name, so a job is run once.
"""

from __future__ import annotations

import json
import os
import random
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tombola.errors import ClusterError, DeviceError, JobError, StoreUnwritable, TombolaError, Unfinished
from tombola.lab.deadline import Left, Stop, Stopped, at_work
from tombola.lab.environment import different_here, versions
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.halt import halting
from tombola.lab.job import Job, name_of
from tombola.lab.lease import free
from tombola.lab.starts import awaited
from tombola.lab.store import Store
from tombola.lab.supervision import apart_from_suspects, device_is_lost
from tombola.training.run import Epoch


@dataclass
class Outcome:
    """What became of the jobs that were asked for.

    found: names of jobs that were there already; computed: by this call, or by another driver that it waited
        for; failed: with the cause of each.
    left: names of jobs that were not finished because the work had to stop; the same call continues.
    not_begun: of those, the ones that were not begun because their like took longer than was left, with the
        seconds of the shortest.
    removed: names of jobs whose results were removed first, to be computed anew.
    stopped: why work had to stop, such as "after 9m" or "by SIGTERM"; empty if it had not.
    """

    found: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    not_begun: dict[str, float] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    stopped: str = ""

    def raise_left(self) -> None:
        """Raise :class:`~tombola.errors.Unfinished` if any job was left."""
        if self.left:
            more = f" (and {len(self.left) - 1} more)" if len(self.left) > 1 else ""
            why = f"stopped {self.stopped}" if self.stopped else "no time was left"
            raise Unfinished(f"{why}: job {self.left[0][:12]}{more} is left; the same again continues")

    def raise_failures(self) -> None:
        """Raise :class:`~tombola.errors.JobError` with the first cause if any job failed.

        Jobs that were left did not fail; see :meth:`raise_left`.
        """
        if self.failed:
            name, cause = next(iter(self.failed.items()))
            more = f" (and {len(self.failed) - 1} more)" if len(self.failed) > 1 else ""
            raise JobError(f"job {name[:12]} failed{more}: {cause}")


class Progress:
    """Somebody to tell how a run of jobs gets on; this one does nothing."""

    def begin(self, found: int, missing: int) -> None:
        """Called once: how many jobs are there already and how many are to be computed."""

    def removed(self, results: int, made_with: Sequence[str]) -> None:
        """Called once, if results of some names were to be computed anew: so many were removed."""

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        """A training in this process finished an epoch."""

    def done(self, job: Job, failed: str | None) -> None:
        """A job is finished, or failed with a cause."""


def run_here(
    store: Store,
    jobs: Mapping[str, Job],
    settings: Settings,
    progress: Progress,
    outcome: Outcome,
    stop: Stop | None = None,
) -> None:
    """Run jobs one after the other in this process; ``jobs`` in an order that respects their needs."""
    stop = stop or Stop(settings.stop_at)
    with intra_op_threads(settings.threads):
        for job in jobs.values():
            cause = _blocked(store, job, outcome.failed)
            if cause is None:
                if any(awaited(store, job, outcome.left)):
                    outcome.left.append(job.name)
                    continue
                try:
                    _run_patiently(store, job.description(), settings, partial(progress.epoch, job), stop)
                except Stopped as stopped:
                    _leave(outcome, job.name, stopped.like)
                    continue
                except StoreUnwritable:
                    raise  # it would fail every job
                except Exception as error:  # a declared function may fail in any way
                    if device_is_lost(error):  # it would fail every job
                        raise DeviceError(
                            f"the GPU failed this process for good ({_one_line(error)}); run the same again, "
                            "it goes on where it was"
                        ) from error
                    if stop.is_due() and not isinstance(error, TombolaError):
                        # Signals may have ended what it rested on.
                        outcome.left.append(job.name)
                        continue
                    cause = _one_line(error)
            _note(outcome, job, cause, progress)


def run_on_cluster(
    client: Any,
    store: Store,
    jobs: Mapping[str, Job],
    settings: Settings,
    progress: Progress,
    outcome: Outcome,
    gpus: Collection[str] = (),
    stop: Stop | None = None,
) -> None:
    """Run jobs on the workers of a Dask cluster, all of them in one submission.

    client: of the cluster; see :mod:`tombola.lab.cluster`.
    gpus: names of the jobs that ask for a GPU of their worker.
    """
    from distributed import KilledWorker, as_completed

    stop = stop or Stop(settings.stop_at)
    root, ours = str(store.root), versions()
    # Of this run alone: another driver's may be of another store or other settings. Leases join the two.
    token = uuid.uuid4().hex[:8]
    keys = {name: f"{job.declaration.name}-{name}-{token}" for name, job in jobs.items()}
    graph: dict[str, Any] = {}
    for name, job in jobs.items():
        needs = [keys[need] for need in awaited(store, job, jobs)]
        graph[keys[name]] = (_task, root, json.dumps(job.description()), settings, ours, needs, token)
    resources = partial(_resources, frozenset(keys[name] for name in gpus)) if gpus else None
    futures = dict(zip(keys, client.get(graph, list(graph), sync=False, resources=resources), strict=True))
    names = {future.key: name for name, future in futures.items()}
    resumed: Counter[str] = Counter()
    completed = as_completed(futures.values())
    with halting(client, store, token, futures, stop):
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
                broken = {name for name, other in futures.items() if other.status == "error"}
                blocked = _blocked(store, jobs[name], broken)
                if isinstance(error, Left):
                    _leave(outcome, name, None if blocked else error.like)
                    continue
                if isinstance(error, KilledWorker) and error.task in names:
                    if stop.is_due():
                        outcome.left.append(name)
                        continue
                    # Dask counts whoever shared a worker with the culprit; the store knows better who it is.
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
                cause = blocked or cause or _one_line(error)
            _note(outcome, jobs[name], cause, progress)


def _resources(gpus: Collection[str], key: str) -> dict[str, float]:
    """What a task asks of its worker."""
    return {"GPU": 1} if key in gpus else {}


def _blocked(store: Store, job: Job, failed: Collection[str]) -> str | None:
    """Why a job could not even begin, if one that it needs is among the failed."""
    blocked = next(awaited(store, job, failed), None) if failed else None
    return f"needs job {blocked[:12]}, which failed" if blocked else None


def _leave(outcome: Outcome, name: str, like: float | None = None) -> None:
    """Note that a job was left; like: as for :class:`~tombola.lab.deadline.Stopped`."""
    outcome.left.append(name)
    if like is not None:
        outcome.not_begun[name] = like


def _note(outcome: Outcome, job: Job, cause: str | None, progress: Progress) -> None:
    if cause is None:
        outcome.computed.append(job.name)
    else:
        outcome.failed[job.name] = cause
    progress.done(job, cause)


def _task(
    root: str,
    description: str,
    settings: Settings,
    driver: Mapping[str, str],
    needs: list[bool],
    run: str = "",
) -> bool:
    """What a Dask worker does for a job; ``needs`` are results of the tasks before it, and not looked at.

    driver: its versions. Workers that come later were not asked for theirs, nor whether they see the store.
    run: names the run that the job belongs to, which may be stopped.
    """
    from distributed import Reschedule

    with at_work(run, settings.stop_at) as stop:
        try:
            return _work(root, description, settings, driver, stop)
        except Stopped as stopped:
            left = Left(stopped.like)
    if stop.closes:
        raise Reschedule  # for another worker to go on with
    raise left


def _work(root: str, description: str, settings: Settings, driver: Mapping[str, str], stop: Stop) -> bool:
    """Run a job in a worker; what it raises survives the way to the driver."""
    stop.check()
    differs = different_here(driver)
    if differs is not None:
        raise ClusterError(differs)
    if not (Path(root) / "work").is_dir():
        raise ClusterError(
            f"the worker on {socket.gethostname()} does not see the store at {root}; it must be on a file "
            "system that all machines share, under the same path"
        )
    # For the whole process and for good: its other slots rest on the same number.
    if torch.get_num_threads() != settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        return _run_patiently(Store(root, create=False), json.loads(description), settings, None, stop)
    except Exception as error:
        if device_is_lost(error):
            _end_process()  # every other slot of it would fail too
        if stop.is_due() and not isinstance(error, TombolaError):
            raise Stopped from error  # signals may have ended what it rested on
        # Only what surely survives the way to the driver, which would wait for anything else for ever.
        told = error if isinstance(error, TombolaError) else JobError(_one_line(error))
        if isinstance(error, StoreUnwritable | DeviceError):  # a fault of the machine more than of the job
            told = type(error)(f"{error} (on {socket.gethostname()})")
        told.__cause__ = told.__context__ = told.__traceback__ = None
    raise told


def _run_patiently(
    store: Store,
    description: Mapping[str, Any],
    settings: Settings,
    on_epoch: Callable[[Epoch, int], None] | None,
    stop: Stop,
) -> bool:
    """Run a job; while another owner works on it, wait with growing pauses and without a slot."""
    name = name_of(description)
    while True:
        try:
            if not _in_worker():
                return execute(store, description, settings, on_epoch, stop=stop)
            end_process = _end_process if _has_nanny() else None
            with apart_from_suspects(store.workplace(name), _slot_given_up):
                return execute(store, description, settings, on_epoch, end_process=end_process, stop=stop)
        except LeaseHeld:
            with _slot_given_up():
                pause = 0.2
                while (not store.has(name) or store.is_thin(name)) and not free(store.workplace(name)):
                    # A little chance keeps many waiters from asking all at once; it touches no result.
                    stop.wait(pause * random.uniform(0.8, 1.2))
                    stop.check()
                    pause = min(pause * 1.5, 10.0)


@contextmanager
def _slot_given_up() -> Iterator[None]:
    """Let the Dask worker begin another task meanwhile, and wait for a slot again afterwards."""
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
    """Whether somebody starts another process if that of this Dask worker ends."""
    from distributed import get_worker

    return get_worker().nanny is not None


def _end_process() -> None:
    """End this process at once; the jobs in it resume in the one that its nanny starts."""
    os._exit(1)


@contextmanager
def intra_op_threads(count: int) -> Iterator[None]:
    """That many intra-op threads, and afterwards what there was before."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)


def _one_line(error: BaseException) -> str:
    """The cause of a failure as one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TombolaError) else f"{type(error).__name__}: {text}"


def available_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, each as a worker is told to see it alone."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
