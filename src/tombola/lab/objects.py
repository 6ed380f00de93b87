"""What many jobs of a store share: tensors by their fingerprint, and data sets by their name."""

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
from tombola.lab.description import is_data_name, is_fingerprint, shared_start
from tombola.lab.store import Store, read_json, write_json
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import OTHER_FORM

OBJECT = "tombola.object/1"
_SPLITS = ("train", "test")
_PARTS = ("images", "labels")
# So that slots that begin together have one copy of the images between them.
_loading = threading.Lock()


def put_object(
    store: Store, fingerprint: str, tensors: Mapping[str, Tensor], details: Mapping[str, Any]
) -> None:
    """Keep tensors under their fingerprint, once."""
    path = _object_path(store.root, fingerprint)
    if not path.exists():
        files.write_tensors(path, OBJECT, details, tensors)


def put_value(store: Store, fingerprint: str, value: Ticket | Run) -> None:
    """Keep a ticket or run of the caller's own, unless one with the same tensors is there already.

    One with its dense start replaces one without, and the caller's replaces whatever else lies there: a
    fingerprint does not cover everything that a stranger could have put under it.
    """
    ticket = value.ticket if isinstance(value, Run) else value
    details, tensors = value.pack(start="whole" if ticket.complete else "surviving")
    path = _object_path(store.root, fingerprint)
    if not (path.exists() and _holds(path, tensors)):
        files.write_tensors(path, OBJECT, details, tensors)
        _object.cache_clear()


def _holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an object has these tensors, perhaps beside those of the dense start."""
    try:
        _, there = _object(path)
    except TombolaError:
        return False
    return files.fingerprint(tensors) == files.fingerprint({k: there[k] for k in tensors if k in there})


def stored_object(store: Store, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Details and tensors kept under a fingerprint."""
    return _object(_object_path(store.root, fingerprint))


def lacks_start(store: Store, name: str) -> bool:
    """Whether the dense start that a finished job leaves to the store is gone from it."""
    try:
        start = shared_start(store.details(name))
    except StoreError:
        return False  # its own damage is told when it is read
    return start is not None and not _object_path(store.root, start).exists()


def register_data(store: Store, name: str, source: str | Data) -> Data:
    """Make a data name known to all workers of a store, and load it.

    Raises :class:`~tombola.errors.StoreError` if the store's results under that name come from other pixels,
    or from the same that were mirrored otherwise.
    """
    if not is_data_name(name):
        raise StoreError(f"data name {name!r} cannot name a file; choose a short one without slashes")
    data = load_data(source)
    known = data_record(store, name)
    remedy = "rename the data or use another store"
    if known is not None and known["fingerprint"] != data.fingerprint:
        raise StoreError(
            f"the store at {store.root} has results for other pixels under the data name {name!r} "
            f"(fingerprint {known['fingerprint'][:12]}, now {data.fingerprint[:12]}); {remedy}"
        )
    if known is not None and known["mirrored"] not in (None, data.mirrored):
        raise StoreError(
            f"the store at {store.root} has results with mirrored={known['mirrored']} under the data name "
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
    if known != details:
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
    """What a data name stands for in a store, if anything.

    Raises :class:`~tombola.errors.StoreError` if it is damaged.
    """
    record = store.root / "data" / f"{name}.json"
    try:
        found = {"name": name, "source": None, "mirrored": None} | read_json(record)
        kinds: dict[str, Any] = {
            "name": str, "fingerprint": str, "source": str | None, "mirrored": bool | None
        }  # fmt: skip
        kinds |= {key: list for key in ("class_names", "normalization") if key in found}
        for key, kind in kinds.items():
            if not isinstance(found.get(key), kind):
                raise ValueError(f"its {key} is {found.get(key)!r:.60}")
        return found
    except FileNotFoundError:
        return None
    except (OSError, *OTHER_FORM) as error:
        raise StoreError(f"{record} is damaged: {reason(error)}; delete it") from error


def _object_path(root: Path, fingerprint: str) -> Path:
    if not is_fingerprint(fingerprint):
        raise StoreError(f"{fingerprint!r:.60} is no fingerprint of tensors; what names it is damaged")
    return root / "objects" / f"{fingerprint}.safetensors"


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
    """Details and tensors in a file that lies under their fingerprint, once they are proven to be its.

    The fingerprint of data is also over what only their record says; :func:`given_data` proves it.

    Raises :class:`~tombola.errors.TicketError` if the file is damaged or holds something else.
    """
    details, tensors = files.read_tensors(path, OBJECT)
    if tensors.keys() == {f"{split}.{part}" for split in _SPLITS for part in _PARTS}:
        return details, tensors
    if "ticket" in details:
        found = Run.unpack(details, tensors).fingerprint
    elif "start" in details:
        found = Ticket.unpack(details, tensors).fingerprint
    else:
        found = files.fingerprint(tensors)
    if found != path.stem:
        raise TicketError(f"{path} holds something else than its name says, {found[:12]}")
    return details, tensors


# By what the record says: another store may come to lie at the same place.
@lru_cache(maxsize=4)
def _data(root: Path, text: str) -> Data:
    record = json.loads(text)
    name, source, fingerprint = record["name"], record["source"], record["fingerprint"]
    if source is None:
        return given_data(root, record)
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


def given_data(root: Path, record: Mapping[str, Any]) -> Data:
    """The caller's own data that a record of a store names, from the tensors there.

    Raises :class:`~tombola.errors.StoreError` unless they have the fingerprint of the record.
    """
    name, path = record["name"], _object_path(root, record["fingerprint"])
    remedy = f"delete {path} and give the data again"
    try:
        _, tensors = read_object(path)
        train, test = (ImageSet(*(tensors[f"{split}.{part}"] for part in _PARTS)) for split in _SPLITS)
        given = record.get("normalization")
        data = Data(
            name, train, test, tuple(record["class_names"]), bool(record["mirrored"]),
            normalization=None if given is None else (tuple(given[0]), tuple(given[1])),
        )  # fmt: skip
        found = data.fingerprint
    except TombolaError as error:
        raise StoreError(f"data {name!r} cannot be used: {error}; {remedy}") from error
    except OTHER_FORM as error:
        cause = f"{type(error).__name__} {reason(error)}"
        raise StoreError(f"data {name!r} are damaged: {cause}; {remedy}") from error
    if found != record["fingerprint"]:
        raise StoreError(
            f"data {name!r} are altered: the results here are of other pixels or class names; {remedy}"
        )
    return data
