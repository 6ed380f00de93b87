"""What many jobs of a store share: tensors by their fingerprint, and data sets by their name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola import files
from tombola.data.imageset import Data, ImageSet
from tombola.data.load import load_data
from tombola.errors import DataError, StoreError, TicketError
from tombola.lab.store import Store, read_json, write_json

_KIND = "tombola.object/1"
_SPLITS = ("train", "test")


def put_object(
    store: Store, fingerprint: str, tensors: Mapping[str, Tensor], details: Mapping[str, Any]
) -> None:
    """Keep tensors under their fingerprint, once."""
    path = _object_path(store.root, fingerprint)
    if not path.exists():
        files.write_tensors(path, _KIND, details, tensors)


def stored_object(store: Store, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Details and tensors kept under a fingerprint."""
    return _object(_object_path(store.root, fingerprint))


def register_data(store: Store, name: str, source: str | Data) -> Data:
    """Make a data name known to all workers of a store, and load it.

    Raises :class:`~tombola.errors.StoreError` if the store's results under that name come from other pixels.
    """
    data = load_data(source)
    record = store.root / "data" / f"{name}.json"
    known = read_json(record) if record.exists() else None
    if known is not None and known["fingerprint"] != data.fingerprint:
        raise StoreError(
            f"the store at {store.root} has results for other pixels under the data name {name!r} "
            f"(fingerprint {known['fingerprint'][:12]}, now {data.fingerprint[:12]}); "
            "rename the data or use another store"
        )
    if data.source is None:
        tensors = {
            f"{split}.{part}": getattr(getattr(data, split), part)
            for split in _SPLITS
            for part in ("images", "labels")
        }
        put_object(store, data.fingerprint, tensors, {})
    details = {
        "name": name,
        "source": data.source,
        "fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "mirrored": data.mirrored,
    }
    if known != details:
        write_json(record, details)
    return data


def stored_data(store: Store, name: str) -> Data:
    """The data set that a name stands for in a store, checked against its fingerprint.

    Raises :class:`~tombola.errors.DataError` if this machine cannot load it.
    """
    return _data(store.root, name)


def _object_path(root: Path, fingerprint: str) -> Path:
    return root / "objects" / f"{fingerprint}.safetensors"


# The start of a chain is read once a process, not once a round.
@lru_cache(maxsize=8)
def _object(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        return files.read_tensors(path, _KIND)
    except TicketError as error:
        raise StoreError(f"the store lacks an object: {error}") from error


@lru_cache(maxsize=4)
def _data(root: Path, name: str) -> Data:
    try:
        record = read_json(root / "data" / f"{name}.json")
    except FileNotFoundError:
        raise StoreError(f"the store at {root} knows no data {name!r}") from None
    if record["source"] is None:
        _, tensors = _object(_object_path(root, record["fingerprint"]))
        train, test = (ImageSet(tensors[f"{split}.images"], tensors[f"{split}.labels"]) for split in _SPLITS)
        return Data(name, train, test, tuple(record["class_names"]), bool(record["mirrored"]))
    try:
        data = load_data(record["source"])
    except DataError as error:
        raise DataError(f"data {name!r} is not at hand on {os.uname().nodename}: {error}") from error
    if data.fingerprint != record["fingerprint"]:
        raise StoreError(f"data {name!r} at {record['source']} has other pixels than this store's results")
    return data
