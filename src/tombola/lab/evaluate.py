"""Library objects from what the store describes: results of finished jobs, and arguments of described calls.

A described call names its arguments (see :mod:`tombola.lab.job`); here they become tickets, runs and data
sets again, read from the store or, for calls that are not stored, computed again. :mod:`tombola.lab.execute`
calls jobs with them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tombola import files
from tombola.data.imageset import Data
from tombola.errors import JobError, NetworkError, StoreError, TicketError, TombolaError, Undeclared, reason
from tombola.lab.description import calls, parents
from tombola.lab.job import Job, call, checked_description, described_function, result_type
from tombola.lab.objects import stored_data, stored_object
from tombola.lab.results import Packed, unpack
from tombola.lab.staleness import is_edited_network
from tombola.lab.starts import lost_start
from tombola.lab.store import Store
from tombola.source import Use, declared_here, note_use, recorded_uses
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import OTHER_FORM


def load_result(store: Store, name: str) -> Any:
    """The result of a finished job as the library object it was.

    Raises :class:`~tombola.errors.StoreError` if it is damaged, and its subclass
    :class:`~tombola.errors.Undeclared` if its network is not declared here, or was edited since.
    """
    kind = result_type(described_function(checked_description(store, name)))
    packed = store.packed(name)
    try:
        return _unpacked(store, packed, kind)
    except (TicketError, NetworkError) as error:
        raise _reading_error(store, name, packed.details, error) from error
    except StoreError as error:
        cause = lost_start(store, name, packed.details)
        if cause is None:
            raise
        raise StoreError(cause) from error
    except OTHER_FORM as error:
        raise store.damaged(name, f"{type(error).__name__} {reason(error)}") from error


def finished_job(store: Store, prefix: str) -> Job:
    """The one finished job whose name begins so; what is behind it stays as described, not needed again.

    Raises :class:`~tombola.errors.JobError` if there is none or several, or for a function unknown here,
    and :class:`~tombola.errors.StoreError` if it is damaged.
    """
    description = checked_description(store, store.find(prefix))
    return Job(described_function(description), description["arguments"])


def run_or_ticket(path: str) -> Run | Ticket:
    """The run or ticket that a file holds."""
    return (Run if files.file_kind(path) == "tombola.run/1" else Ticket).load(path)


def subject_of(
    store: Store, measure: str, key: str, text: str, kinds: tuple[type, ...]
) -> Job | Ticket | Run:
    """A finished job by the beginning of its name, or a ticket or run out of a file.

    measure, key: what takes it, for the :class:`~tombola.errors.JobError` for one of none of these kinds.
    """
    wanted = " or ".join(kind.__name__.lower() for kind in kinds)
    if Path(text).is_file():
        loaded = run_or_ticket(text)
        if not isinstance(loaded, kinds):
            raise JobError(
                f"{measure}: {key} wants a {wanted}; {text} holds a {type(loaded).__name__.lower()}"
            )
        return loaded
    finished = finished_job(store, text)
    if result_type(finished.declaration) not in kinds:
        gives = finished.declaration.name
        remedy = "; tombola ls --function prune lists tickets" if Ticket in kinds else ""
        raise JobError(f"{measure}: {key} wants a {wanted}; job {finished.name[:12]} is of {gives}{remedy}")
    return finished


def evaluate(store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any]) -> Any:
    """The result of a described call, computed here, with its parents' results from the store."""
    return _evaluated(store, description, runtime, {})


def _evaluated(
    store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any], results: dict[str, Any]
) -> Any:
    """The result of a described call; ``results`` are those that it shares with others of the same job."""
    return call(described_function(description), _arguments(store, description, runtime, results), runtime)


def described_arguments(
    store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a described call as library objects, by parameter; parents' results from the store.

    runtime: what the lab passes to calls that run again within this one, such as the device.

    A result that is named several times is loaded, and a call computed, once.
    """
    return _arguments(store, description, runtime, {})


def _arguments(
    store: Store, description: Mapping[str, Any], runtime: Mapping[str, Any], results: dict[str, Any]
) -> dict[str, Any]:
    return {
        key: _described_argument(store, argument, runtime, results)
        for key, argument in description["arguments"].items()
    }


def data_fingerprints(store: Store, description: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprints of the data sets that a described call takes, by parameter."""
    return {
        key: _described_argument(store, argument, {}, {}).fingerprint
        for key, argument in description["arguments"].items()
        if _is_data(argument)
    }


def _reading_error(store: Store, name: str, details: Mapping[str, Any], error: TombolaError) -> TombolaError:
    """What to raise for a ticket or run with right checksums that does not go with what is declared here."""
    if isinstance(error.__cause__, NetworkError) and isinstance(error, TicketError):
        return Undeclared(
            f"job {name[:12]} cannot be read here: {error.__cause__}; import the file that declares it"
        )
    try:
        described = details.get("ticket", details)["network"]
        network, init = str(described["name"]), described.get("init")
    except OTHER_FORM:
        return store.damaged(name, str(error))
    if is_edited_network(store, name, network):
        return Undeclared(
            f"job {name[:12]} was made with another text of network {network}; raise its version, or "
            f"--recompute {network} replaces what was made with it"
        )
    own = declared_here()
    if isinstance(error, NetworkError) and (network in own["networks"] or init in own["inits"]):
        return Undeclared(f"job {name[:12]} cannot be read here: {error}; mend what declares it")
    return store.damaged(name, str(error))


def _unpacked(store: Store, packed: Packed, kind: Any) -> Any:
    """A packed result as an object of its declared type."""
    return unpack(packed, kind, lambda fingerprint: stored_object(store, fingerprint)[1])


def _described_argument(store: Store, value: Any, runtime: Mapping[str, Any], results: dict[str, Any]) -> Any:
    """The library object that an argument of a description stands for; other values are left as they are.

    results: of jobs by name and of calls by their description, as far as they were needed before.
    """
    if isinstance(value, list):
        return [_described_argument(store, item, runtime, results) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"data"}:
        return stored_data(store, value["data"])
    if "job" in value:
        if "call" not in value:
            name = value["job"]
            if name not in results:
                results[name] = load_result(store, name)
            return results[name]
        if _is_data(value):
            names = dict.fromkeys(_data_names(value))
            behind = tuple(stored_data(store, name).fingerprint for name in names)
            with _deriving:
                data, uses = _derived_data(
                    store.root, json.dumps(value["call"]), (*behind, *_versions_behind(store, value["call"]))
                )
            for use in uses:
                note_use(*use)
            return data
        text = json.dumps(value["call"], sort_keys=True)  # not by a name that a stranger may have written
        if text not in results:
            results[text] = _evaluated(store, value["call"], runtime, results)
        return results[text]
    if value.keys() == {"value", "type"}:
        details, tensors = stored_object(store, value["value"])
        packed = Packed({}, details, tensors)
        return _unpacked(store, packed, {"Ticket": Ticket, "Run": Run}[value["type"]])
    return value


# Derived once a process, like data that are loaded, so that one job after another shares what is on the
# device. By what is behind it, too: another store may come to lie at the same place, functions be declared
# anew, and results be replaced.
_deriving = threading.RLock()  # of data that are derived from derived ones


@lru_cache(maxsize=4)
def _derived_data(root: Path, call: str, behind: tuple[Hashable, ...]) -> tuple[Data, frozenset[Use]]:
    """The data set that a call returns, on any device, and what of the user's own was called for it."""
    with recorded_uses() as uses:
        data: Data = evaluate(Store(root), json.loads(call), {})
    return data, frozenset(uses)


def _versions_behind(store: Store, call: Mapping[str, Any]) -> Iterator[Hashable]:
    """What derived data depend on besides their call: functions as declared now, and times of results."""
    for described in calls(call):
        yield described_function(described).function
    for name in sorted(parents(call)):
        try:
            yield store.folder(name).stat().st_mtime_ns
        except OSError:
            yield None  # raised when it is read


def _is_data(argument: Any) -> bool:
    """Whether an argument of a description stands for a data set, loaded or derived by a call."""
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
