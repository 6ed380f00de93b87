"""Runs one job under its lease and publishes its result: the same in this process and in a worker.

The job's arguments come from :mod:`tombola.lab.evaluate`, the lease's semantics from
:mod:`tombola.lab.lease`, checkpoints and counted attempts from :mod:`tombola.lab.supervision`. ``Settings``
say how, and travel with jobs.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy
import torch

from tombola.cores import check_per_core
from tombola.disk import write_whole
from tombola.errors import RecipeError, StoreError, StoreUnwritable, TombolaError, Undefined, unknown
from tombola.lab import lease as leases
from tombola.lab.arguments import job_signature
from tombola.lab.deadline import PATIENCE, Stop
from tombola.lab.description import arguments_line, name_of
from tombola.lab.durations import check_time_left
from tombola.lab.evaluate import data_fingerprints, described_arguments
from tombola.lab.job import call, described_function, result_type
from tombola.lab.mixture import mixtures
from tombola.lab.objects import put_object
from tombola.lab.results import pack, pack_undefined
from tombola.lab.slots import check_slots
from tombola.lab.starts import check_same_start
from tombola.lab.store import Store
from tombola.lab.supervision import (
    LabWatch,
    Solitude,
    append_to_log,
    count_attempt,
    count_shortage,
    device_is_lost,
    end_hung,
    forget_attempts,
    forget_log,
    memory_was_short,
)
from tombola.lab.training_progress import TrainingReport
from tombola.lab.user_code import import_stored
from tombola.source import fingerprints_of, recorded_uses
from tombola.ticket import Ticket
from tombola.training.device import (
    ENGINE_VERSIONS,
    Mode,
    convolution_plans,
    gpu_libraries,
    hardware_name,
    process_settings,
    resolve_device,
)
from tombola.training.run import Epoch, Run
from tombola.version import __version__


@dataclass(frozen=True)
class Settings:
    """How jobs are run; none of it enters their names.

    device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``.
    mode: what may be chosen on a GPU, as for :func:`tombola.train`; recorded with each run.
    files: the user's own Python files that are imported before a job, by their hash in the store.
    slots: jobs at once on each GPU; None for what suits the networks and batch sizes.
    threads: intra-op threads of a slot on a CPU. Another number gives other last bits, so it is recorded.
    checkpoint_every: seconds of wall time between checkpoints of a training.
    hung_after: seconds without a sign of life (a few steps, a pass over the test images) after which a job
        counts as hung and its worker process is ended, as if the job had killed it; ``math.inf`` for never.
        Loading what a job needs does not count, and a function that takes no ``watch`` never counts as hung.
    attempts: how often a job's process may die before the job fails as one that kills its worker.
    strict: refuse trainings that go on from results of another engine version, torch or kind of device.
    stop_at: seconds since the epoch at which work must end, on every machine; set by ``Lab.run``.
    """

    device: str = "auto"
    mode: Mode = "default"
    files: tuple[str, ...] = ()
    slots: int | None = None
    threads: int = 1
    checkpoint_every: float = 60.0
    hung_after: float = 7200.0
    attempts: int = 5
    strict: bool = False
    stop_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("slots", "threads", "attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name} is {value}; it must be at least 1")
        check_slots(self.slots)
        check_per_core("threads", self.threads)
        if self.mode not in get_args(Mode):
            raise RecipeError(unknown("mode", self.mode, get_args(Mode)))
        if not self.checkpoint_every >= 0:
            raise RecipeError(f"checkpoint_every is {self.checkpoint_every}; it must be 0 seconds or more")
        if not self.hung_after > 0:
            raise RecipeError(f"hung_after is {self.hung_after}; it must be more than 0 seconds")


class LeaseHeld(Exception):
    """Another owner works on the job."""


def execute(
    store: Store,
    description: Mapping[str, Any],
    settings: Settings,
    on_epoch: Callable[[Epoch, float], None] | None = None,
    *,
    end_process: Callable[[], None] | None = None,
    stop: Stop | None = None,
) -> bool:
    """Runs one job and publishes its result; False if the store had it already.

    end_process: ends this process, so that its nanny starts another; called if the job hangs.
    stop: when it must end; by default at ``settings.stop_at``.

    Raises :class:`LeaseHeld` while another owner works on it, :class:`~tombola.lab.deadline.Stopped` if it
    must stop or cannot end in time, and what the job itself raises.
    """
    name = name_of(description)
    if store.has(name) and not store.is_thin(name):
        return False
    stop = stop or Stop(settings.stop_at)
    stop.check()
    if stop.at is not None:
        check_time_left(store, name, description, stop, hardware_name(resolve_device(settings.device)))
    for fingerprint in settings.files:
        import_stored(store, fingerprint)
    workplace = store.workplace(name)
    lease = leases.acquire(workplace)
    if lease is None:
        raise LeaseHeld(name)
    try:
        if store.has(name) and not store.is_thin(name):
            lease.clear()
            return False
        count_attempt(workplace, settings.attempts, name)
        report = TrainingReport(workplace, description["function"], arguments_line(description))
        report.begin()
        solitude = Solitude(resolve_device(settings.device))
        try:
            if end_process is not None:
                lease.hung = partial(end_hung, workplace, threading.get_ident(), end_process)
            watch = LabWatch(
                workplace,
                lease,
                every=settings.checkpoint_every,
                hung_after=settings.hung_after,
                on_epoch=on_epoch,
                report=report,
                stop=stop,
            )
            _compute_and_publish(store, name, description, settings, watch, stop)
        except leases.LeaseLost:
            raise LeaseHeld(name) from None
        except BaseException as error:
            # A workplace that cannot be written to may be one that another owner took over and removed.
            if isinstance(error, StoreUnwritable) and lease.is_ours() is False:
                raise LeaseHeld(name) from None
            if isinstance(error, Exception):
                _record_failure(workplace, error)
            if device_is_lost(error):  # the process will have to end, like one that was killed
                append_to_log(workplace, _error_line(error))
                if memory_was_short(error) and solitude.lasts():
                    count_shortage(workplace)
            else:
                forget_attempts(workplace)
                forget_log(workplace)
                # What failed is told by its function, too.
                report.begin() if isinstance(error, Exception) else report.forget()
            raise
        lease.clear()
        return True
    finally:
        lease.release()


def _compute_and_publish(
    store: Store,
    name: str,
    description: Mapping[str, Any],
    settings: Settings,
    watch: LabWatch,
    stop: Stop,
) -> None:
    """Computes a job's result and publishes it with its provenance."""
    started, since = time.time(), time.monotonic()
    device = resolve_device(settings.device)
    mixed = mixtures(store, description, device, strict=settings.strict)
    # Measures compute in the mode of the trainings that share their process.
    mode = process_settings(settings.mode) if device.type == "cuda" else nullcontext()
    with mode, recorded_uses() as uses:
        runtime = {"device": device, "mode": settings.mode, "watch": watch}
        with stop.interruptible(PATIENCE):
            function = described_function(description)
            arguments: dict[str, Any] = {}
            try:
                arguments = described_arguments(store, description, runtime)
                with watch.expecting_signs("watch" in job_signature(function.function).runtime):
                    value = call(function, arguments, runtime)
                packed = pack(value)
            except Undefined as error:
                if result_type(function) in (Ticket, Run):
                    raise  # others go on from these
                value, packed = None, pack_undefined(error)
    provenance = _provenance(store, description, settings, device, started, time.monotonic() - since, value)
    if mixed:
        provenance["mixed"] = mixed
    if sources := fingerprints_of(uses):
        provenance["source"] = sources
    if pulled := _pulled(arguments.values()):
        provenance["pulled"] = pulled
    # Published even if the lease was lost meanwhile: the first of two equal results stays.
    if packed.start is not None:
        fingerprint, start = packed.start
        if isinstance(value, Ticket):
            check_same_start(store, name, fingerprint)
        put_object(store, fingerprint, start, {})
    store.publish(name, description, packed, provenance)


def _pulled(arguments: Iterable[Any]) -> list[dict[str, str]]:
    """The revisions of repositories that tickets and runs among some arguments were pulled from."""
    values = [item for value in arguments for item in (value if isinstance(value, list | tuple) else [value])]
    tickets = (value.ticket if isinstance(value, Run) else value for value in values)
    origins = {ticket.hub for ticket in tickets if isinstance(ticket, Ticket) and ticket.hub is not None}
    return [origin.description() for origin in sorted(origins, key=str)]


def _record_failure(workplace: Path, error: Exception) -> None:
    """Writes the cause of a failure to the workplace."""
    try:
        text = str(error) if isinstance(error, TombolaError) else traceback.format_exc()
        write_whole(workplace / "error.txt", f"{text}\n".encode(errors="replace"), synced=False)
    except StoreError:
        pass  # a full disk, say: the error itself is on its way to the user already


def _error_line(error: BaseException) -> str:
    """The type of an error and the first line of its text."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _provenance(
    store: Store,
    description: Mapping[str, Any],
    settings: Settings,
    device: torch.device,
    started: float,
    seconds: float,
    value: Any,
) -> dict[str, Any]:
    """The record of where, when and by which versions a result was computed."""
    return {
        "tombola": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        "host": socket.gethostname(),
        "device": device.type,
        "hardware": hardware_name(device),
        "threads": settings.threads if device.type == "cpu" else None,
        "precision": value.precision if isinstance(value, Run) else None,
        "engine": value.engine if isinstance(value, Run) else None,
        "engine_version": ENGINE_VERSIONS[device.type],
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "pid": os.getpid(),
        "data": data_fingerprints(store, description),
    } | (
        {"mode": settings.mode, "convolution_plans": convolution_plans(device)} | gpu_libraries(device)
        if device.type == "cuda"
        else {}
    )
