"""Dask clusters for the driver: one of this machine, started and ended here, or another by its address.

Workers of another cluster are plain ``dask worker`` processes that share the store's file system: as many
slots as ``--nthreads``, and the GPU that ``CUDA_VISIBLE_DEVICES`` leaves them. They are checked before
anything is computed. See docs/cluster.md.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tombola import disk
from tombola.errors import ClusterError, reason, unwritable
from tombola.lab.environment import difference, versions
from tombola.lab.slots import Crew
from tombola.lab.store import Store
from tombola.untrusted import read_regular
from tombola.version import __version__
from tombola.warn import warn

if TYPE_CHECKING:
    from distributed import Client


class _Closable(Protocol):
    def close(self) -> object: ...


C = TypeVar("C", bound=_Closable)

_SINGLE_THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Seconds that a scheduler, or the file that names it, may take to appear: they are often started together.
_PATIENCE = 30.0
# Seconds that the start of a local cluster may still take once it is interrupted.
_DESERTED = 10.0
# Seconds between two looks at whether there are workers at all; without any after which a line is printed,
# and after which the run ends.
_LOOK_EVERY, _REMARKABLE, _WITHOUT_WORKERS = 1.0, 60.0, 600.0
# Processes of one worker that end one after the other until it is tried whether one can import this package.
_SUSPICIOUS = 3
# What a worker imports, in a process that looks for it where a worker does.
_IMPORT = "import sys; sys.path[:] = sys.argv[1:]; import tombola.lab.private, tombola.lab.task"


@contextmanager
def local_cluster(crew: Crew) -> Iterator[Client]:
    """A client of new worker processes of this machine, which are ended afterwards.

    On loopback only, and closed to other users of this machine; see :mod:`tombola.lab.private`.

    Raises :class:`~tombola.errors.ClusterError` if they cannot start, or ended and none comes up again within
    ten minutes; at once if a new process cannot import this package.
    """
    import dask
    from dask.utils import key_split
    from distributed import Client, Nanny, SpecCluster, core

    from tombola.lab.private import Scheduler, Worker, new_certificate, private_options

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {
        # Memory is bounded by the number of slots; a worker paused by Dask would only look hung.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.tick.limit": "1h",
        # Nothing here reads what Dask would sample of every worker a hundred times a second.
        "distributed.worker.profile.enabled": False,
        "distributed.comm.timeouts.connect": "60s",
        # Dask gives a worker that is not back in time up for good, and its jobs would be waited for for ever.
        # A new start may take minutes where the machine is busy, or Python lies on a network.
        "distributed.deploy.lost-worker-timeout": "365 days",
        # Not Dask's own MALLOC_TRIM_THRESHOLD_, which gives memory back to the system after every small step
        # of a training: a third of its time.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_SINGLE_THREADED, 1),
    }
    with private_options() as private, dask.config.set(options | private):
        security = new_certificate()
        ends = {"host": "127.0.0.1", "protocol": "tls://", "security": security, "dashboard": False}
        # A dashboard at a fixed port would complain in a second cluster that the port is in use.
        scheduler = {"cls": Scheduler, "options": ends | {"dashboard_address": "127.0.0.1:0"}}
        workers = {}
        for number, slots in enumerate(crew.slots):
            options = ends | {
                "worker_class": Worker,
                "nthreads": slots,
                "memory_limit": 0,
                "silence_logs": logging.CRITICAL,
                "env": {"CUDA_VISIBLE_DEVICES": crew.gpus[number]} if crew.gpus else {},
            }
            workers[number] = {"cls": Nanny, "options": options}
        try:
            cluster = _start_interruptibly(
                lambda: SpecCluster(
                    workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
                )
            )
        except RuntimeError as error:  # Dask's, of a worker process that ended before it was up
            raise ClusterError(f"the worker processes do not start: {_import_error() or error}") from error
        try:
            with cluster, Client(cluster) as client, _ended_without_workers(cluster, client):
                yield client
        finally:
            # Dask's caches keep every handler that was called, and so its whole scheduler, and the keys of
            # 100,000 jobs. The first is private, and may be gone one day.
            handlers: Any = getattr(core, "_expects_comm", None)
            if hasattr(handlers, "cache_clear"):
                handlers.cache_clear()
            key_split.cache_clear()


def _start_interruptibly(start: Callable[[], C]) -> C:
    """The cluster that ``start`` returns; an interruption meanwhile closes it without waiting for its start.

    It starts in a thread of its own, because the signals that its processes must not see are this thread's.
    """
    up, deserted, lock = threading.Event(), threading.Event(), threading.Lock()
    results: list[C | BaseException] = []

    def work() -> None:
        try:
            with _signals_blocked():
                results.append(start())
        except BaseException as error:  # raised in the thread that waits
            results.append(error)
        with lock:
            up.set()
        if deserted.is_set():
            close()

    def close() -> None:
        if not isinstance(result := results[0], BaseException):
            result.close()

    threading.Thread(target=work, name="start of a cluster", daemon=True).start()
    try:
        up.wait()
    except BaseException:
        # Its private folder must outlast its start, unless that takes too long.
        with suppress(BaseException):
            up.wait(_DESERTED)
        with lock:
            deserted.set()
            is_up = up.is_set()
        if is_up:
            close()
        raise
    if isinstance(result := results[0], BaseException):
        raise result
    return result


@contextmanager
def _ended_without_workers(cluster: Any, client: Client) -> Iterator[None]:
    """Closes the client of a cluster without workers for ten minutes: its run ends by a ClusterError.

    At once if the processes that are to replace them cannot import this package.
    """
    over, given_up = threading.Event(), threading.Event()
    cause = f"none came up again within {_WITHOUT_WORKERS:g} s; see whether there is memory, and"

    def watch() -> None:
        # Looks are counted, not time: if all were suspended, the workers still have their ten minutes.
        nonlocal cause
        missed, begun, import_tried = 0.0, set[int](), False
        while not over.wait(_LOOK_EVERY):
            if cluster.scheduler.workers:
                missed, begun, import_tried = 0.0, set(), False
                continue
            missed += _LOOK_EVERY
            begun |= {nanny.pid for nanny in list(cluster.workers.values()) if nanny.pid}
            if not import_tried and len(begun) >= _SUSPICIOUS * len(cluster.workers):
                import_tried = True
                if error := _import_error():
                    cause, missed = f"no new one can import tombola: {error}; see", math.inf
            if missed == _REMARKABLE:
                warn("the worker processes ended; waiting for one to come up again")
            if missed > _WITHOUT_WORKERS:
                given_up.set()
                client.close()
                return

    with _signals_blocked():
        watcher = threading.Thread(target=watch, name="watch over workers", daemon=True)
        watcher.start()
    try:
        yield
    except Exception as error:
        if not given_up.is_set():
            raise
        raise ClusterError(
            f"the worker processes ended, and {cause} what python -c 'import tombola' says; then run the "
            "same again: it goes on where it was"
        ) from error
    finally:
        over.set()
        watcher.join()


def _import_error() -> str:
    """Why a new process cannot import what a worker needs, as one line; "" if it can, or does not say."""
    path = [str(entry) for entry in spawn.get_preparation_data("worker")["sys_path"]]
    command = [sys.executable, "-c", _IMPORT, *path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stderr.split("\n") if done.returncode == 1 else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM for the threads and processes that are started meanwhile.

    They never see these signals: the driver acts on them and then ends its workers. A signal that arrives
    meanwhile reaches this thread afterwards.
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
def remote_cluster(scheduler: str | Path, store: Store) -> Iterator[tuple[Client, bool]]:
    """A client of a cluster that was started elsewhere, and whether any of its workers sees a GPU.

    scheduler: its address, ``tcp://host:port`` or ``tls://host:port``, or the file it wrote with
        ``--scheduler-file``. TLS is set up in Dask's own configuration.

    Raises :class:`~tombola.errors.ClusterError` if it does not answer, or if a worker has another environment
    or does not see the store.
    """
    from distributed import Client

    from tombola.lab.workers import Slots

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    address = _address_in(scheduler) if isinstance(scheduler, Path) else scheduler
    cause = ""
    try:
        _try_connection(address)
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, ImportError, TypeError) as error:
        cause = reason(error) or type(error).__name__
    if cause:
        # Collects the client that did not come up now: collected while another starts, each would wait for
        # the other's lock.
        gc.collect()
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {cause}; start one with dask scheduler, or leave the "
            "scheduler out to use this machine"
        )
    with client, client.as_current():
        if not client.nthreads():
            warn(f"no workers at {address} yet; jobs begin when the first is there")
            client.wait_for_workers(1)
        client.register_plugin(Slots(), name="tombola")
        yield client, _checked_workers(client, store)


def _try_connection(address: str) -> None:
    """Raises OSError if nothing listens at an address; a client made without a scheduler ends uncleanly."""
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    scheme, location = parse_address(address)
    get_backend(scheme)
    host, port = parse_host_port(location)
    socket.create_connection((host, port), timeout=_PATIENCE).close()


def _address_in(file: Path) -> str:
    """The address in a scheduler file, which may appear within 30 s; ClusterError after that."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return str(json.loads(read_regular(file, follow=True))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > give_up:
                raise ClusterError(
                    f"no scheduler named in {file}: {reason(error)}; start one with dask scheduler "
                    f"--scheduler-file {file}"
                ) from error
        time.sleep(0.1)


def _checked_workers(client: Client, store: Store) -> bool:
    """Whether any worker sees a GPU; ClusterError if one has other versions or cannot use the store."""
    from tombola.lab.workers import worker_state

    token = store.root / "work" / f".seen.{uuid.uuid4().hex[:8]}"
    try:
        disk.touch(token)
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    try:
        answers = client.run(worker_state, str(token), on_error="return")
    finally:
        disk.remove(token, missing_ok=True)
    here = worker_state(str(token))
    driver = {name: here[name] for name in versions()}
    for address, there in answers.items():
        if isinstance(there, BaseException):
            raise ClusterError(
                f"the worker at {address} cannot run tombola: {type(there).__name__}: {reason(there)}; "
                f"install tombola {__version__} there"
            )
        version_error = difference(there, driver, f"{there['host']} ({address})")
        if version_error is not None:
            raise ClusterError(version_error)
        if not there["store"]:
            raise ClusterError(
                f"the worker on {there['host']} ({address}) does not see the store at {store.root}; it must "
                "be on a file system that all machines share, under the same path"
            )
        if there["trouble"] is not None:
            raise ClusterError(f"the worker at {address} cannot use the store: {there['trouble']}")
    return any(there["gpu"] for there in answers.values())


def check_data(client: Client, store: Store, names: Collection[str]) -> None:
    """Raises :class:`~tombola.errors.ClusterError` if a machine cannot load these data, and says why.

    names: of data that are registered in the store.
    """
    from tombola.lab.workers import data_trouble

    if not names:
        return
    # One worker of each machine: the others there have the same disks.
    machines = {host: address for address, host in client.run(socket.gethostname).items()}
    causes = client.run(data_trouble, str(store.root), sorted(names), workers=sorted(machines.values()))
    for address, cause in causes.items():
        if cause is not None:
            raise ClusterError(f"the worker at {address} lacks data: {cause}")
