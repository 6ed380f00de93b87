"""Cache of decoded data sets, one safetensors file each, so that only the first load decodes.

A file is named after its source and stamped with what it was decoded from; another stamp means that the
source has changed, and the file is rebuilt. The cache never stops a load: a damaged file is rebuilt, and
where nothing can be written the data set is decoded again next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tombola.data.bounds import check_size
from tombola.data.imageset import Data, ImageSet
from tombola.errors import DataError
from tombola.untrusted import OTHER_FORM, check_regular
from tombola.warn import warn

# Raised whenever decoding or the file's contents change meaning, so that old files are rebuilt.
LAYOUT = 1

# Room for what a cache file has beside the tensors of a data set, in bytes.
_HEADER = 2**24


@dataclass(frozen=True)
class CacheEntry:
    """The cache file of a data set.

    stamp: identifies what the file must have been decoded from.
    """

    file: Path
    stamp: str


def folder() -> Path:
    """The user's cache folder for data sets; the environment variable TOMBOLA_CACHE moves it."""
    if root := os.environ.get("TOMBOLA_CACHE"):
        return Path(root).expanduser() / "data"
    # Only needed here: own tensors and digits do without it.
    from platformdirs import user_cache_path

    return user_cache_path("tombola") / "data"


def entry_of(name: str, source: str, origin: Path | None) -> CacheEntry:
    """The cache file of the data set ``name`` loaded from ``source``, and the stamp that it must have.

    origin: the local folder it is decoded from, or None. Every file in it counts, by size and last change.
    """
    readable = re.sub(r"[^\w.-]", "_", name)
    stamp = hashlib.sha256(f"layout {LAYOUT}\n{source}\n".encode())
    for line in _listing(origin) if origin else ():
        stamp.update(line.encode(errors="surrogateescape"))
    tail = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:16]
    return CacheEntry(folder() / f"{readable}-{tail}.safetensors", stamp.hexdigest())


def _listing(origin: Path) -> Iterator[str]:
    """One line for each file below a folder, in sorted order: path, bytes, and nanoseconds of last change."""
    for parent, folders, files in os.walk(origin):  # nor does reading follow linked folders
        folders.sort()
        for file in sorted(files):
            path = os.path.join(parent, file)
            try:
                status = os.stat(path)
            except OSError:  # a dangling link
                continue
            yield f"{os.path.relpath(path, origin)}\0{status.st_size}\0{status.st_mtime_ns}\n"


def read(entry: CacheEntry) -> Data | None:
    """The cached data set, its tensors mapped from the file; None if there is none or it is outdated.

    A damaged file gives a warning and None.
    """
    try:
        check_regular(entry.file, sys.maxsize)
        check_size(entry.file.stat().st_size - _HEADER, "it")
        with safe_open(str(entry.file), framework="pt") as file:
            description = file.metadata() or {}
            if description.get("stamp") != entry.stamp:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        if description["checksum"] != _checksum(tensors):
            raise DataError("checksum differs")
        data = Data(
            description["name"],
            ImageSet(tensors["train_images"], tensors["train_labels"]),
            ImageSet(tensors["test_images"], tensors["test_labels"]),
            class_names=tuple(json.loads(description["class_names"])),
            mirrored=json.loads(description["mirrored"]),
            source=description["source"],
        )
        # Into the slots of the cached properties: computing them again would read every pixel several times.
        vars(data).update(mean=tensors["mean"], std=tensors["std"], fingerprint=description["fingerprint"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SafetensorError, DataError, OSError, *OTHER_FORM) as error:
        warn(f"{entry.file} is damaged ({error}) and will be rebuilt")
        return None
    return data


def write(entry: CacheEntry, data: Data) -> None:
    """Write a data set to the cache; warns if the file cannot be written."""
    tensors = {
        "train_images": data.train.images,
        "train_labels": data.train.labels,
        "test_images": data.test.images,
        "test_labels": data.test.labels,
        "mean": data.mean,
        "std": data.std,
    }
    description = {
        "stamp": entry.stamp,
        "checksum": _checksum(tensors),
        "fingerprint": data.fingerprint,
        "name": data.name,
        "source": data.source or "",
        "class_names": json.dumps(data.class_names),
        "mirrored": json.dumps(data.mirrored),
    }
    # Written under another name and renamed, so that another process never sees half a file.
    partial = entry.file.with_name(f"{entry.file.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, str(partial), metadata=description)
            os.replace(partial, entry.file)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        warn(
            f"data sets cannot be kept in {entry.file.parent} ({error}); "
            "each load decodes anew (set TOMBOLA_CACHE to a folder that can be written)"
        )


def _checksum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 over all tensors, which finds a damaged file many times faster than the fingerprint's hash."""
    total = 0
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].numpy().data, total)
    return f"{total:08x}"
