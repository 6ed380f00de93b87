"""Running one job where its parents' results are: the same in this process and in a worker."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy
import torch

from tombola.data.imageset import Data
from tombola.errors import (
    NetworkError,
    RecipeError,
    StoreError,
    StoreUnwritable,
    TicketError,
    TombolaError,
    Undeclared,
    reason,
    unknown,
)
from tombola.lab import lease as leases
from tombola.lab.arguments import job_signature
from tombola.lab.deadline import PATIENCE, Stop
from tombola.lab.description import calls, parents
from tombola.lab.durations import check_time_left
from tombola.lab.job import Job, call, checked_description, described_function, name_of, result_type
from tombola.lab.mixture import mixtures
from tombola.lab.objects import put_object, stored_data, stored_object
from tombola.lab.results import Packed, pack, unpack
from tombola.lab.staleness import is_edited_network
from tombola.lab.starts import check_same_start, lost_start
from tombola.lab.store import Store
from tombola.lab.supervision import (
    LabWatch,
    count_attempt,
    device_is_lost,
    end_hung,
    forget_attempts,
    forget_log,
    note,
)
from tombola.lab.training_progress import Teller, forget_under_way
from tombola.lab.user_code import import_stored
from tombola.source import Use, declared_here, fingerprints_of, note_use, recorded_uses
from tombola.ticket import Ticket
from tombola.training.device import (
    ENGINE_VERSION,
    Mode,
    gpu_libraries,
    hardware_name,
    process_settings,
    resolve_device,
)
from tombola.training.run import Epoch, Run
from tombola.untrusted import OTHER_FORM
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
        Loading what a job needs does not count, and of a function that takes no ``watch`` nothing is known.
    attempts: how often a job's process may die under it before it is given up as one that kills its worker.
    strict: refuse trainings that go on from results of another engine version, torch or kind of device.
    stop_at: seconds since the epoch at which work must end, on whatever machine; set by ``Lab.run``.
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
        for what in ("slots", "threads", "attempts"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise RecipeError(f"{what} is {value}; it must be at least 1")
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
    on_epoch: Callable[[Epoch, int], None] | None = None,
    *,
    end_process: Callable[[], None] | None = None,
    stop: Stop | None = None,
) -> bool:
    """Run one job and publish its result; False if it was there already.

    end_process: ends this process, for whoever started it to start another; called if the job hangs.
    stop: when it must end; by default at ``settings.stop_at``.

    Raises :class:`LeaseHeld` while another owner works on it, :class:`~tombola.lab.deadline.Stopped` if it
    must stop or cannot end in time, and whatever the job itself raises.
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
        try:
            if end_process is not None:
                lease.hung = partial(end_hung, workplace, threading.get_ident(), end_process)
            every, hung_after = settings.checkpoint_every, settings.hung_after
            watch = LabWatch(
                workplace, lease, every=every, hung_after=hung_after, on_epoch=on_epoch, stop=stop
            )
            watch.teller = Teller(workplace, description["function"])
            _compute(store, name, description, settings, watch, stop)
        except leases.LeaseLost:
            raise LeaseHeld(name) from None
        except BaseException as error:
            # What cannot be written may be a place that another owner took over, and cleared away.
            if isinstance(error, StoreUnwritable) and lease.is_ours() is False:
                raise LeaseHeld(name) from None
            if isinstance(error, Exception):
                _record_failure(workplace, error)
            if device_is_lost(error):  # the process will have to end, like one that was killed
                note(workplace, _first_line(error))
            else:
                forget_attempts(workplace)
                forget_log(workplace)
                forget_under_way(workplace)
            raise
        lease.clear()
        return True
    finally:
        lease.release()


def _compute(
    store: Store,
    name: str,
    description: Mapping[str, Any],
    settings: Settings,
    watch: LabWatch,
    stop: Stop,
) -> None:
    """Make a job's result and publish it."""
    started, since = time.time(), time.monotonic()
    device = resolve_device(settings.device)
    mixed = mixtures(store, description, device, strict=settings.strict)
    # Measures compute in the mode of the trainings beside them.
    quiet = process_settings(settings.mode) if device.type == "cuda" else nullcontext()
    with quiet, recorded_uses() as uses:
        runtime = {"device": device, "mode": settings.mode, "watch": watch}
        with stop.interruptible(PATIENCE):
            arguments = _arguments(store, description, runtime)
            function = described_function(description)
            with watch.at_work("watch" in job_signature(function.function).runtime):
                value = call(function, arguments, runtime)
    packed = pack(value)
    provenance = _provenance(store, description, settings, device, started, time.monotonic() - since, value)
    if mixed:
        provenance["mixed"] = mixed
    if sources := fingerprints_of(uses):
        provenance["source"] = sources
    # Published even if the lease was lost meanwhile: the first of two equal results stays.
    if packed.start is not None:
        fingerprint, start = packed.start
        if isinstance(value, Ticket):
            check_same_start(store, name, fingerprint)
        put_object(store, fingerprint, start, {})
    store.publish(name, description, packed, provenance)


def evaluate(store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any]) -> Any:
    """What a described call gives, its parents' results taken from the store."""
    return call(described_function(description), _arguments(store, description, runtime), runtime)


def _arguments(store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """What a described call is called with, parents' results taken from the store."""
    return {key: _argument(store, value, runtime) for key, value in description["arguments"].items()}


def load_result(store: Store, name: str) -> Any:
    """The result of a finished job as the library object it was.

    Raises :class:`~tombola.errors.StoreError` if it is damaged, and its subclass
    :class:`~tombola.errors.Undeclared` if its network is not known here, or was edited since.
    """
    description = checked_description(store, name)
    kind = result_type(described_function(description))
    packed = store.packed(name)
    try:
        return _unpack(store, packed, kind)
    except (TicketError, NetworkError) as error:
        raise _unread(store, name, packed.details, error) from error
    except StoreError as error:
        cause = lost_start(store, name)
        if cause is None:
            raise
        raise StoreError(cause) from error
    except OTHER_FORM as error:
        raise store.damaged(name, f"{type(error).__name__} {reason(error)}") from error


def _unread(store: Store, name: str, details: Mapping[str, Any], error: TombolaError) -> TombolaError:
    """What to raise for a ticket or run, its checksums right, that does not go with what is declared here."""
    if isinstance(error.__cause__, NetworkError) and isinstance(error, TicketError):
        return Undeclared(
            f"job {name[:12]} cannot be read here: {error.__cause__}; import the file that declares it"
        )
    described = details.get("ticket", details)["network"]
    network = str(described["name"])
    if is_edited_network(store, name, network):
        return Undeclared(
            f"job {name[:12]} was made with another text of network {network}; raise its version, or "
            f"--recompute {network} replaces what was made with it"
        )
    own = declared_here()
    if isinstance(error, NetworkError) and (
        network in own["networks"] or described.get("init") in own["inits"]
    ):
        return Undeclared(f"job {name[:12]} cannot be read here: {error}; mend what declares it")
    return store.damaged(name, str(error))


def _unpack(store: Store, packed: Packed, kind: Any) -> Any:
    return unpack(packed, kind, lambda fingerprint: stored_object(store, fingerprint)[1])


def _argument(store: Store, value: Any, runtime: Mapping[str, Any]) -> Any:
    """The library object that an argument of a description stands for; plain values are left as they are."""
    if isinstance(value, list):
        return [_argument(store, item, runtime) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"data"}:
        return stored_data(store, value["data"])
    if "job" in value:
        if "call" not in value:
            return load_result(store, value["job"])
        if _is_data(value):
            behind = tuple(stored_data(store, name).fingerprint for name in _data_names(value))
            with _deriving:
                data, uses = _derived_data(
                    store.root, json.dumps(value["call"]), (*behind, *_made(store, value["call"]))
                )
            for use in uses:
                note_use(*use)
            return data
        return evaluate(store, value["call"], runtime)
    if value.keys() == {"value", "type"}:
        details, tensors = stored_object(store, value["value"])
        packed = Packed({}, details, tensors)
        return _unpack(store, packed, {"Ticket": Ticket, "Run": Run}[value["type"]])
    return value


# Made once a process, like data that are loaded, so that one job after another shares what is on the device.
# By what is behind it, too: another store may come to lie at the same place, functions be declared anew, and
# results be replaced.
_deriving = threading.RLock()  # of data that are derived from derived ones


@lru_cache(maxsize=4)
def _derived_data(root: Path, call: str, behind: tuple[Hashable, ...]) -> tuple[Data, frozenset[Use]]:
    """The data set that a call gives, on whatever device, and what of the user's own was called for it."""
    with recorded_uses() as uses:
        data: Data = evaluate(Store(root), json.loads(call), {})
    return data, frozenset(uses)


def _made(store: Store, call: Mapping[str, Any]) -> Iterator[Hashable]:
    """By what the calls within a call are made now, and when the stored results that they take were."""
    for each in calls(call):
        yield described_function(each).function
    for name in sorted(parents(call)):
        try:
            yield store.folder(name).stat().st_mtime_ns
        except OSError:
            yield None  # told when it is read


def _is_data(argument: Any) -> bool:
    """Whether an argument of a description stands for a data set, loaded or made by a call."""
    if _is_call(argument):
        return result_type(described_function(argument["call"])) is Data
    return isinstance(argument, dict) and argument.keys() == {"data"}


def _is_call(argument: Any) -> bool:
    """Whether an argument is the result of a call that is not stored, described in full."""
    return isinstance(argument, dict) and argument.keys() == {"job", "call"}


def _data_names(value: Any) -> Iterator[str]:
    """The names of the data sets behind an argument, as far as its calls are described in full."""
    if isinstance(value, list):
        for item in value:
            yield from _data_names(item)
    elif _is_call(value):
        yield from _data_names(list(value["call"]["arguments"].values()))
    elif isinstance(value, dict) and value.keys() == {"data"}:
        yield value["data"]


def _record_failure(workplace: Path, error: Exception) -> None:
    """Leave the cause at the workplace."""
    try:
        text = str(error) if isinstance(error, TombolaError) else traceback.format_exc()
        (workplace / "error.txt").write_text(text + "\n")
    except OSError:
        pass  # a full disk, say: the error itself is on its way to the user already


def _first_line(error: BaseException) -> str:
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
    """Where and by what a result was made."""
    data = {
        key: _argument(store, argument, {}).fingerprint
        for key, argument in description["arguments"].items()
        if _is_data(argument)
    }
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
        "engine_version": ENGINE_VERSION,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "pid": os.getpid(),
        "data": data,
    } | ({"mode": settings.mode} | gpu_libraries(device) if device.type == "cuda" else {})


def finished_job(store: Store, prefix: str) -> Job:
    """The one finished job whose name begins so; what is behind it stays as described, not needed again.

    Raises :class:`~tombola.errors.JobError` if there is none or several, or for a function unknown here,
    and :class:`~tombola.errors.StoreError` if it is damaged.
    """
    name = store.find(prefix)
    description = checked_description(store, name)
    return Job(described_function(description), description["arguments"])
