"""The engine: runs a graph of jobs in this process, or on the cores of this machine through Dask.

A Dask worker is a process that stands for a device, its threads are the slots of that device; on a CPU every
core is a worker of its own. Results travel through the store, never through Dask: what a task returns is only
whether it computed anything. Tasks are keyed by the job's name, so a job is run once.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import torch

from tombola.errors import JobError, StoreUnwritable, TombolaError
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.job import Job, name_of
from tombola.lab.lease import free
from tombola.lab.store import Store
from tombola.training.history import Epoch

_SINGLE_THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Outcome:
    """What became of the jobs that were asked for.

    found: names of jobs that were there already; computed: by this call; failed: with the cause of each.
    """

    found: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise :class:`~tombola.errors.JobError` with the first cause if any job failed."""
        if self.failed:
            name, cause = next(iter(self.failed.items()))
            more = f" (and {len(self.failed) - 1} more)" if len(self.failed) > 1 else ""
            raise JobError(f"job {name[:12]} failed{more}: {cause}")


class Progress:
    """Somebody to tell how a run of jobs gets on; this one does nothing."""

    def begin(self, found: int, missing: int) -> None:
        """Called once: how many jobs are there already and how many are to be computed."""

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        """A training in this process finished an epoch."""

    def done(self, job: Job, failed: str | None) -> None:
        """A job is finished, or failed with a cause."""


def run_here(
    store: Store, jobs: Mapping[str, Job], settings: Settings, progress: Progress, outcome: Outcome
) -> None:
    """Run jobs one after the other in this process; ``jobs`` in an order that respects their needs."""
    with intra_op_threads(settings.threads):
        for job in jobs.values():
            cause = _blocked(job, outcome.failed)
            if cause is None:
                try:
                    _run_patiently(store, job.description(), settings, partial(progress.epoch, job))
                except StoreUnwritable:
                    raise  # it would fail every job
                except Exception as error:  # a declared function may fail in any way
                    cause = _one_line(error)
            _note(outcome, job, cause, progress)


@dataclass(frozen=True)
class Crew:
    """The worker processes of one machine.

    processes: their number; on GPUs one for each.
    slots: threads of each process, which each run a job at a time: one on a CPU.
    gpus: for each process the GPU it sees, as in ``CUDA_VISIBLE_DEVICES``; empty on a CPU.
    """

    processes: int
    slots: int = 1
    gpus: tuple[str, ...] = ()


def run_locally(
    store: Store,
    jobs: Mapping[str, Job],
    settings: Settings,
    progress: Progress,
    outcome: Outcome,
    crew: Crew,
) -> None:
    """Run jobs on worker processes of this machine, which are started and stopped here, on loopback only."""
    from distributed import as_completed

    root = str(store.root)
    graph: dict[str, Any] = {}
    for name, job in jobs.items():
        needs = [need.name for need in job.needs if need.name in jobs]
        graph[name] = (_task, root, json.dumps(job.description()), settings, needs)
    with _local_cluster(crew) as client:
        futures = dict(zip(graph, client.get(graph, list(graph), sync=False), strict=True))
        for future in as_completed(futures.values()):
            cause = None
            if future.status != "finished":
                error = future.exception()
                if isinstance(error, StoreUnwritable):
                    raise error
                broken = {name for name, other in futures.items() if other.status == "error"}
                cause = _blocked(jobs[future.key], broken) or _one_line(error)
            _note(outcome, jobs[future.key], cause, progress)


def _blocked(job: Job, failed: Collection[str]) -> str | None:
    """Why a job could not even begin, if one that it needs is among the failed."""
    blocked = next((need.name for need in job.needs if need.name in failed), None)
    return f"needs job {blocked[:12]}, which failed" if blocked else None


def _note(outcome: Outcome, job: Job, cause: str | None, progress: Progress) -> None:
    if cause is None:
        outcome.computed.append(job.name)
    else:
        outcome.failed[job.name] = cause
    progress.done(job, cause)


def _task(root: str, description: str, settings: Settings, needs: list[bool]) -> bool:
    """What a Dask worker does for a job; ``needs`` are results of the tasks before it, and not looked at."""
    # For the whole process and for good: its other slots rest on the same number.
    if torch.get_num_threads() != settings.threads:
        torch.set_num_threads(settings.threads)
    return _run_patiently(Store(root), json.loads(description), settings, None)


def _run_patiently(
    store: Store,
    description: Mapping[str, Any],
    settings: Settings,
    on_epoch: Callable[[Epoch, int], None] | None,
) -> bool:
    """Run a job; while another owner works on it, wait with growing pauses and without a slot."""
    while True:
        try:
            return execute(store, description, settings, on_epoch)
        except LeaseHeld:
            name = name_of(description)
            with _slot_given_up():
                pause = 0.2
                while not store.has(name) and not free(store.workplace(name)):
                    # A little chance keeps many waiters from asking all at once; it touches no result.
                    time.sleep(pause * random.uniform(0.8, 1.2))
                    pause = min(pause * 1.5, 10.0)


@contextmanager
def _slot_given_up() -> Iterator[None]:
    """Let the Dask worker begin another task meanwhile, and wait for a slot again afterwards."""
    from distributed import get_worker, rejoin, secede

    try:
        get_worker()
    except ValueError:  # not in a worker
        yield
        return
    secede()
    yield
    rejoin()


@contextmanager
def _local_cluster(crew: Crew) -> Iterator[Any]:
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {
        # Memory is bounded by the number of slots; a worker paused by Dask would only look hung.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": "60s",
        # Not Dask's own MALLOC_TRIM_THRESHOLD_, which gives memory back to the system after every small step
        # of a training: a third of its time.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_SINGLE_THREADED, 1),
    }
    with dask.config.set(options):
        # A dashboard at a fixed port would complain, in a second cluster, that it is taken.
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
        workers = {}
        for place in range(crew.processes):
            options = {
                "host": "127.0.0.1",
                "nthreads": crew.slots,
                "memory_limit": 0,
                "dashboard": False,
                "silence_logs": logging.CRITICAL,
                "env": {"CUDA_VISIBLE_DEVICES": crew.gpus[place]} if crew.gpus else {},
            }
            workers[place] = {"cls": Nanny, "options": options}
        with _interrupts_held_back():
            cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start threads and processes that never see Ctrl-C: it is for the driver alone, which then ends them.

    They inherit the blocked signal; one that arrives meanwhile reaches this thread afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Its own start would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
