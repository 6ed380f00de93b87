"""Clusters of Dask workers: those of this machine, started and ended here, and any other, by its address.

Workers of another cluster are plain ``dask worker`` processes that share the store's file system: as many
slots as ``--nthreads``, and the GPU that ``CUDA_VISIBLE_DEVICES`` leaves them. See docs/cluster.md.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tombola.errors import ClusterError, reason, unwritable
from tombola.lab.environment import different, versions
from tombola.lab.store import Store
from tombola.version import __version__

_SINGLE_THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Seconds that a scheduler, or the file that names it, may take to appear: they are often started together.
_PATIENCE = 30.0
# Seconds that the start of a local cluster may still take once it is stopped.
_DESERTED = 10.0
# Seconds between two looks at whether there are workers at all; without any after which that is worth a line,
# and after which nobody waits any longer.
_LOOK_EVERY, _REMARKABLE, _WITHOUT_WORKERS = 1.0, 60.0, 600.0


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


@contextmanager
def local_cluster(crew: Crew) -> Iterator[Any]:
    """A client of worker processes of this machine, which are ended afterwards.

    On loopback only, and closed to other users of this machine; see :mod:`tombola.lab.private`.

    Raises :class:`~tombola.errors.ClusterError` if they have ended and none comes up again.
    """
    import dask
    from distributed import Client, Nanny, SpecCluster

    from tombola.lab.private import Scheduler, Worker, one_key, private_options

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {
        # Memory is bounded by the number of slots; a worker paused by Dask would only look hung.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.tick.limit": "1h",
        # Nobody looks at what Dask would sample of every worker a hundred times a second.
        "distributed.worker.profile.enabled": False,
        "distributed.comm.timeouts.connect": "60s",
        # A worker that is not back in time Dask gives up for good, and whoever waits for it waits for ever.
        # To begin anew may take minutes where the machine is busy, or Python lies on a network.
        "distributed.deploy.lost-worker-timeout": "365 days",
        # Not Dask's own MALLOC_TRIM_THRESHOLD_, which gives memory back to the system after every small step
        # of a training: a third of its time.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_SINGLE_THREADED, 1),
    }
    with private_options() as private, dask.config.set(options | private):
        security = one_key()
        ends = {"host": "127.0.0.1", "protocol": "tls://", "security": security, "dashboard": False}
        # A dashboard at a fixed port would complain, in a second cluster, that it is taken.
        scheduler = {"cls": Scheduler, "options": ends | {"dashboard_address": "127.0.0.1:0"}}
        workers = {}
        for place in range(crew.processes):
            options = ends | {
                "worker_class": Worker,
                "nthreads": crew.slots,
                "memory_limit": 0,
                "silence_logs": logging.CRITICAL,
                "env": {"CUDA_VISIBLE_DEVICES": crew.gpus[place]} if crew.gpus else {},
            }
            workers[place] = {"cls": Nanny, "options": options}
        cluster = _started(
            lambda: SpecCluster(
                workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
            )
        )
        with cluster, Client(cluster) as client, _ended_without_workers(cluster, client):
            yield client


def _started(start: Callable[[], Any]) -> Any:
    """The cluster that ``start`` gives; whoever is interrupted meanwhile need not wait until it is up.

    It starts in a thread of its own, because the signals that its processes must not see are this thread's.
    """
    up, deserted, lock = threading.Event(), threading.Event(), threading.Lock()
    results: list[Any] = []

    def work() -> None:
        try:
            with _signals_held_back():
                results.append(start())
        except BaseException as error:  # raised where it is waited for
            results.append(error)
        with lock:
            up.set()
        if deserted.is_set():
            close()

    def close() -> None:
        if not isinstance(results[0], BaseException):
            results[0].close()

    threading.Thread(target=work, name="start of a cluster", daemon=True).start()
    try:
        up.wait()
    except BaseException:
        # What it starts in, a private folder above all, must outlast the start, unless that takes too long.
        with suppress(BaseException):
            up.wait(_DESERTED)
        with lock:
            deserted.set()
            is_up = up.is_set()
        if is_up:
            close()
        raise
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


@contextmanager
def _ended_without_workers(cluster: Any, client: Any) -> Iterator[None]:
    """Close the client of a cluster that has been without any worker for too long: whoever waits is told."""
    over, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        # Looks are counted, not time: whoever was suspended with the workers gives them their time.
        missed = 0.0
        while not over.wait(_LOOK_EVERY):
            missed = 0.0 if cluster.scheduler.workers else missed + _LOOK_EVERY
            if missed == _REMARKABLE:
                warnings.warn("the worker processes ended; waiting for one to come up again", stacklevel=2)
            if missed > _WITHOUT_WORKERS:
                given_up.set()
                client.close()
                return

    with _signals_held_back():
        watcher = threading.Thread(target=watch, name="watch over workers", daemon=True)
        watcher.start()
    try:
        yield
    except Exception as error:
        if not given_up.is_set():
            raise
        raise ClusterError(
            f"the worker processes ended, and none came up again within {_WITHOUT_WORKERS:g} s; see whether "
            "there is memory, and what python -c 'import tombola' says; then run the same again: it goes on "
            "where it was"
        ) from error
    finally:
        over.set()
        watcher.join()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start threads and processes that never see Ctrl-C or SIGTERM: the driver acts, and then ends them.

    They inherit the blocked signals; one that arrives meanwhile reaches this thread afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Its own start would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remote_cluster(scheduler: str | Path, store: Store) -> Iterator[tuple[Any, bool]]:
    """A client of a cluster that somebody else started, and whether any of its workers sees a GPU.

    scheduler: its address, ``tcp://host:port`` or ``tls://host:port``, or the file it wrote with
        ``--scheduler-file``. TLS is set up in Dask's own configuration.

    Raises :class:`~tombola.errors.ClusterError` if it does not answer, or if a worker has another environment
    or does not see the store.
    """
    from distributed import Client

    from tombola.lab.workers import Slots

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    address = _address_in(scheduler) if isinstance(scheduler, Path) else scheduler
    silent = ""
    try:
        _knock(address)
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, ImportError, TypeError) as error:
        silent = reason(error) or type(error).__name__
    if silent:
        # A client that did not come up goes now: collected while another starts, it would wait for that one's
        # lock, and that one for it.
        gc.collect()
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {silent}; start one with dask scheduler, or leave the "
            "scheduler out to use this machine"
        )
    with client, client.as_current():
        if not client.nthreads():
            warnings.warn(f"no workers at {address} yet; jobs begin when the first is there", stacklevel=2)
            client.wait_for_workers(1)
        client.register_plugin(Slots(), name="tombola")
        yield client, _checked_workers(client, store)


def _knock(address: str) -> None:
    """See that somebody listens at an address, before a client is made that could not be ended cleanly."""
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    scheme, place = parse_address(address)
    get_backend(scheme)
    host, port = parse_host_port(place)
    socket.create_connection((host, port), timeout=_PATIENCE).close()


def _address_in(file: Path) -> str:
    """The address in a scheduler file, which may be about to appear."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > give_up:
                raise ClusterError(
                    f"no scheduler named in {file}: {reason(error)}; start one with dask scheduler "
                    f"--scheduler-file {file}"
                ) from error
        time.sleep(0.1)


def _checked_workers(client: Any, store: Store) -> bool:
    """Ask every worker what it is, before hours are spent; whether any sees a GPU."""
    from tombola.lab.workers import environment

    token = store.root / "work" / f".seen.{uuid.uuid4().hex[:8]}"
    try:
        token.touch()
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    try:
        answers = client.run(environment, str(token), on_error="return")
    finally:
        token.unlink(missing_ok=True)
    here = environment(str(token))
    for address, there in answers.items():
        if isinstance(there, BaseException):
            raise ClusterError(
                f"the worker at {address} cannot run tombola: {type(there).__name__}: {reason(there)}; "
                f"install tombola {__version__} there"
            )
        told = different(there, {what: here[what] for what in versions()}, f"{there['host']} ({address})")
        if told is not None:
            raise ClusterError(told)
        if not there["store"]:
            raise ClusterError(
                f"the worker on {there['host']} ({address}) does not see the store at {store.root}; it must "
                "be on a file system that all machines share, under the same path"
            )
        if there["trouble"] is not None:
            raise ClusterError(f"the worker at {address} cannot use the store: {there['trouble']}")
    return any(there["gpu"] for there in answers.values())


def check_data(client: Any, store: Store, names: Collection[str]) -> None:
    """See that every machine can load the data that jobs take, before hours are spent.

    names: of data that are registered in the store.

    Raises :class:`~tombola.errors.ClusterError` with what is lacking on the first machine that cannot.
    """
    from tombola.lab.workers import lacking

    if not names:
        return
    # One worker of each is asked: the others there have the same disks.
    machines = {host: address for address, host in client.run(socket.gethostname).items()}
    found = client.run(lacking, str(store.root), sorted(names), workers=sorted(machines.values()))
    for address, told in found.items():
        if told is not None:
            raise ClusterError(f"the worker at {address} lacks data: {told}")
