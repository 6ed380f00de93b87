"""What many jobs of a store share: tensors under their fingerprint, and data sets under their name.

Shared tensors (``objects/``) are dense starts and the caller's own tickets, runs and data. They may come from
an untrusted source, so they are compared with their fingerprint once a process, before they are used. The
record of a data set (``data/``) says where it is loaded from and which pixels the store's results are of.
"""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola import files
from tombola.data.imageset import Data, ImageSet
from tombola.data.load import load_data
from tombola.errors import DataError, NetworkError, StoreError, TicketError, TombolaError, reason
from tombola.lab.description import is_data_name, is_fingerprint, own_values, shared_start
from tombola.lab.store import Store, read_json, write_json
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import OTHER_FORM

OBJECT = "tombola.object/1"
_SPLITS = ("train", "test")
_PARTS = ("images", "labels")
# Held while data are loaded: slots that begin together share one copy of the images.
_loading = threading.Lock()


def put_object(
    store: Store, fingerprint: str, tensors: Mapping[str, Tensor], details: Mapping[str, Any]
) -> None:
    """Write tensors under their fingerprint, unless they are there."""
    path = object_path(store, fingerprint)
    if not path.exists():
        files.write_tensors(path, OBJECT, details, tensors)


def put_value(store: Store, fingerprint: str, value: Ticket | Run) -> None:
    """Write a ticket or run of the caller's own, unless one with the same tensors is there.

    One with its dense start replaces one without, and the caller's replaces any other file: a fingerprint
    does not cover everything that a file from an untrusted source could hold.
    """
    ticket = value.ticket if isinstance(value, Run) else value
    details, tensors = value.pack(start="whole" if ticket.complete else "surviving")
    path = object_path(store, fingerprint)
    if not (path.exists() and _holds(path, tensors)):
        files.write_tensors(path, OBJECT, details, tensors)
        _object.cache_clear()


def _holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has these tensors, with or without those of a dense start."""
    try:
        _, kept = _object(path)
    except TombolaError:
        return False
    same_names = {name: kept[name] for name in tensors if name in kept}
    return files.fingerprint(tensors) == files.fingerprint(same_names)


def stored_object(store: Store, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Details and tensors under a fingerprint; read and verified once a process.

    Raises :class:`~tombola.errors.StoreError` if they are damaged.
    """
    return _object(object_path(store, fingerprint))


def object_path(store: Store, fingerprint: str) -> Path:
    """The file of shared tensors; :class:`~tombola.errors.StoreError` for what is no fingerprint."""
    if not is_fingerprint(fingerprint):
        raise StoreError(f"{fingerprint!r:.60} is no fingerprint of tensors; what names it is damaged")
    return store.root / "objects" / f"{fingerprint}.safetensors"


def needed_objects(store: Store, name: str) -> set[str]:
    """Fingerprints of the shared tensors that a result needs to be read, and its job to be run."""
    start = shared_start(store.details(name))
    return own_values(store.description(name)) | ({start} if start else set())


def lacks_start(store: Store, name: str) -> bool:
    """Whether the dense start of a finished job's ticket or run should be in the store and is gone."""
    try:
        return start_is_gone(store, store.details(name))
    except StoreError:
        return False  # its own damage is reported when it is read


def start_is_gone(store: Store, details: Mapping[str, Any]) -> bool:
    """Whether the dense start of a packed ticket or run should be in the store and is gone."""
    start = shared_start(details)
    return start is not None and not object_path(store, start).exists()


def register_data(store: Store, name: str, source: str | Data) -> Data:
    """Load a data set, and record under its name where workers find it and which pixels it has.

    Raises :class:`~tombola.errors.StoreError` if the store's results under that name come from other pixels,
    or from the same that were mirrored otherwise.
    """
    if not is_data_name(name):
        raise StoreError(f"data name {name!r} cannot name a file; choose a short one without slashes")
    data = load_data(source)
    record = data_record(store, name)
    remedy = "rename the data or use another store"
    if record is not None and record["fingerprint"] != data.fingerprint:
        raise StoreError(
            f"the store at {store.root} has results for other pixels under the data name {name!r} "
            f"(fingerprint {record['fingerprint'][:12]}, now {data.fingerprint[:12]}); {remedy}"
        )
    if record is not None and record["mirrored"] not in (None, data.mirrored):
        raise StoreError(
            f"the store at {store.root} has results with mirrored={record['mirrored']} under the data name "
            f"{name!r}, now it is {data.mirrored}; {remedy}"
        )
    if data.source is None:
        tensors = {
            f"{split}.{part}": getattr(getattr(data, split), part) for split in _SPLITS for part in _PARTS
        }
        put_object(store, data.fingerprint, tensors, {})
    details: dict[str, Any] = {
        "name": name,
        "source": data.source,
        "fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "mirrored": data.mirrored,
    }
    if data.normalization is not None:
        details["normalization"] = [list(values) for values in data.normalization]
    if data.vocabulary is not None:
        details["vocabulary"] = data.vocabulary
    if record != details:
        write_json(store.root / "data" / f"{name}.json", details)
    return data


def stored_data(store: Store, name: str) -> Data:
    """The data set that a name stands for in a store, checked against its fingerprint.

    Raises :class:`~tombola.errors.DataError` if this machine cannot load it.
    """
    record = data_record(store, name)
    if record is None:
        raise StoreError(f"the store at {store.root} knows no data {name!r}")
    with _loading:
        return _data(store.root, json.dumps(record))


def data_record(store: Store, name: str) -> dict[str, Any] | None:
    """The record of a data name in a store; None if there is none.

    Raises :class:`~tombola.errors.StoreError` if it is damaged.
    """
    path = store.root / "data" / f"{name}.json"
    try:
        record = {"name": name, "source": None, "mirrored": None} | read_json(path)
        kinds: dict[str, Any] = {
            "name": str, "fingerprint": str, "source": str | None, "mirrored": bool | None
        }  # fmt: skip
        kinds |= {key: list for key in ("class_names", "normalization") if key in record}
        kinds |= {"vocabulary": int} if "vocabulary" in record else {}
        for key, kind in kinds.items():
            if not isinstance(record.get(key), kind):
                raise ValueError(f"its {key} is {record.get(key)!r:.60}")
        return record
    except FileNotFoundError:
        return None
    except (OSError, *OTHER_FORM) as error:
        raise StoreError(f"{path} is damaged: {reason(error)}; delete it") from error


# The start of a chain is read and checked once a process, not once a round.
@lru_cache(maxsize=8)
def _object(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        return read_object(path)
    except TicketError as error:
        if isinstance(error.__cause__, NetworkError):
            raise  # not damaged: its network is not declared here
        raise StoreError(f"{error}; delete it and the job that made it, and run again") from error


def read_object(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Details and tensors of a file that is named by their fingerprint, which is verified.

    The fingerprint of data also covers what only their record says; :func:`unsourced_data` verifies it.

    Raises :class:`~tombola.errors.TicketError` if the file is damaged or holds something else.
    """
    details, tensors = files.read_tensors(path, OBJECT)
    if tensors.keys() == {f"{split}.{part}" for split in _SPLITS for part in _PARTS}:
        return details, tensors
    if "ticket" in details:
        fingerprint = Run.unpack(details, tensors).fingerprint
    elif "start" in details:
        fingerprint = Ticket.unpack(details, tensors).fingerprint
    else:
        fingerprint = files.fingerprint(tensors)
    if fingerprint != path.stem:
        raise TicketError(f"{path} holds something else than its name says, {fingerprint[:12]}")
    return details, tensors


# Cached by the record too: another store may be put at the same place.
@lru_cache(maxsize=4)
def _data(root: Path, record_text: str) -> Data:
    """The data set of a record, given as JSON."""
    record = json.loads(record_text)
    name, source, fingerprint = record["name"], record["source"], record["fingerprint"]
    if source is None:
        return unsourced_data(Store(root, create=False), record)
    try:
        data = load_data(source)
    except DataError as error:
        raise DataError(
            f"data {name!r} is not at hand on {platform.node()}: {error}; load it there once, or keep "
            "it where all machines see it (TOMBOLA_CACHE names the cache)"
        ) from error
    if data.fingerprint != fingerprint:
        raise StoreError(
            f"data {name!r} at {source} on {platform.node()} has other pixels than this store's results; "
            "give that machine the same files and an empty cache (TOMBOLA_CACHE names it)"
        )
    return data


def unsourced_data(store: Store, record: Mapping[str, Any]) -> Data:
    """The caller's own data set, which no source can give again, from the tensors in the store.

    Raises :class:`~tombola.errors.StoreError` unless it has the fingerprint of its record.
    """
    name, path = record["name"], object_path(store, record["fingerprint"])
    remedy = f"delete {path} and give the data again"
    try:
        _, tensors = read_object(path)
        train, test = (ImageSet(*(tensors[f"{split}.{part}"] for part in _PARTS)) for split in _SPLITS)
        statistics = record.get("normalization")
        data = Data(
            name, train, test, tuple(record["class_names"]), bool(record["mirrored"]),
            normalization=None if statistics is None else (tuple(statistics[0]), tuple(statistics[1])),
            vocabulary=record.get("vocabulary"),
        )  # fmt: skip
        fingerprint = data.fingerprint
    except TombolaError as error:
        raise StoreError(f"data {name!r} cannot be used: {error}; {remedy}") from error
    except OTHER_FORM as error:
        cause = f"{type(error).__name__} {reason(error)}"
        raise StoreError(f"data {name!r} are damaged: {cause}; {remedy}") from error
    if fingerprint != record["fingerprint"]:
        raise StoreError(
            f"data {name!r} are altered: the results here are of other pixels or class names; {remedy}"
        )
    return data
