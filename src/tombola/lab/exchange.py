"""Moving results between stores: a zip file of readable files, each with its checksum.

It holds the results whole, the dense starts that they need to be read, and of everything behind them the
numbers and histories. Nothing in it is executed on reading, and nothing in it chooses where it is put.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import uuid
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tombola.data.catalogue import CATALOGUE
from tombola.errors import (
    JobError,
    NetworkError,
    StoreError,
    TicketError,
    TombolaError,
    Undeclared,
    reason,
    unwritable,
)
from tombola.lab.described import names_data
from tombola.lab.execute import load_result
from tombola.lab.job import describes
from tombola.lab.references import data_names, everything_behind, own_values, shared_start
from tombola.lab.shared import data_record, read_object
from tombola.lab.store import Store, write_json
from tombola.reading import OTHER_FORM, json_object
from tombola.whole import sync_folder

_KIND = "tombola.export/1"
_MANIFEST = "manifest.json"
_NUMBERS = ("job.json", "result.json", "provenance.json", "history.csv")
# The only members that are read. A name within a file never becomes another path in a store.
_MEMBER = re.compile(
    r"jobs/(?P<job>[0-9a-f]{64})/(?P<file>(?:job|result|provenance)\.json|history\.csv|(?:result|ticket)\.safetensors|thin)"
    r"|objects/(?P<object>[0-9a-f]{64})\.safetensors"
    r"|data/(?P<data>[^/\0]{1,200})\.json"
)

# Bytes that are copied at a time: a result may be larger than the memory.
_PART = 2**20


def export(
    store: Store, names: Iterable[str] | None, file: str | os.PathLike[str], *, weights: bool = True
) -> None:
    """Write results of finished jobs to one file, with all that they need to be read.

    names: of the jobs, or their beginnings; None for all that the store has, thin ones as they are.
    weights: without, runs and tickets are of numbers and histories only. What measures found stays whole.

    Raises :class:`~tombola.errors.JobError` for a job that is not there, and
    :class:`~tombola.errors.StoreError` if one or a job behind it is damaged, or one is thin though its
    weights are asked for, or the file cannot be written.
    """
    if isinstance(names, str):
        raise JobError(f"names is {names!r}, one text; give a list of names, [{names!r}]")
    asked = sorted(store.names()) if names is None else [store.find(name) for name in names]
    for name in asked:
        if weights and not (names is None and store.is_thin(name)):
            store.packed(name)  # refuses what is damaged or thin
    path = Path(file)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(beside, "x", zipfile.ZIP_STORED) as archive:
            checksums = {}
            for member, source in _members(store, asked, weights):
                info = zipfile.ZipInfo(member)
                info.file_size = source.stat().st_size if source else 0
                with (
                    archive.open(info, "w") as target,
                    source.open("rb") if source else io.BytesIO() as content,
                ):
                    checksums[member] = _copy(content, target)
            manifest = {"kind": _KIND, "jobs": asked, "checksums": checksums}
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _members(store: Store, asked: Collection[str], weights: bool) -> Iterator[tuple[str, Path | None]]:
    """What goes into an export, and where it lies; None for the mark of a job whose tensors stay behind."""
    behind = everything_behind(store, asked)
    objects: set[str] = set()
    for name in sorted(behind):
        if not describes(store.description(name), name):
            raise store.damaged(name, "job.json was altered: it describes another job")
        store.check(name)
        folder, details = store.folder(name), store.details(name)
        whole = name in asked and not store.is_thin(name) and (weights or not _holds_weights(details))
        parts = (*_NUMBERS, "result.safetensors" if whole else "ticket.safetensors")
        for part in parts:
            if (folder / part).exists():
                yield f"jobs/{name}/{part}", folder / part
        if whole:
            objects |= _objects_of(store, name)
        elif store.is_thin(name) or (folder / "result.safetensors").exists():
            yield f"jobs/{name}/thin", None
    for fingerprint in sorted(objects):
        path = store.root / "objects" / f"{fingerprint}.safetensors"
        if path.exists():
            yield f"objects/{fingerprint}.safetensors", path
    data = set().union(*(data_names(store.description(each)) for each in behind))
    for each in sorted(data):
        path = store.root / "data" / f"{each}.json"
        if path.exists():
            yield f"data/{each}.json", path


def _objects_of(store: Store, name: str) -> set[str]:
    """Fingerprints of the shared tensors that a whole result needs to be read, and its job to be run."""
    start = shared_start(store.details(name))
    return own_values(store.description(name)) | ({start} if start else set())


def _holds_weights(details: Mapping[str, Any]) -> bool:
    """Whether tensors so described are those of a run or of a ticket."""
    return "ticket" in details or "start_kept" in details


def import_(store: Store, file: str | os.PathLike[str]) -> list[str]:
    """Put the results that :func:`export` wrote into a store, and return the names of their jobs.

    What is there already stays. Jobs behind the results come with their numbers only.

    Raises :class:`~tombola.errors.StoreError` for a file that is damaged, altered or no export, or whose
    results are of other pixels, or mirrored otherwise, than the store's under the same data name.
    """
    path = Path(file)
    place = store.root / "work" / f".import.{uuid.uuid4().hex[:8]}"
    try:
        # A store of its own first, which is read like any other before anything of it is taken over.
        taken = Store(place)
        try:
            with zipfile.ZipFile(path) as archive:
                names = _unpack(archive, taken, path.stat().st_size)
        except (OSError, EOFError, zipfile.BadZipFile, struct.error, *OTHER_FORM) as error:
            raise StoreError(f"{path} is damaged or no export: {reason(error)}") from error
        _check(taken, path)
        _check_data(store, taken)
        _take_over(store, taken)
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return names


def _unpack(archive: zipfile.ZipFile, taken: Store, size: int) -> list[str]:
    """Write the members of an export where a store has them, if they fit its manifest; the names of its jobs.

    size: of the file in bytes; no export is larger unpacked.
    """
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("it is compressed, which an export never is")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise ValueError("its members are larger than the file")
    manifest = json_object(archive.read(_MANIFEST), "the manifest")
    if manifest["kind"] != _KIND:
        raise ValueError(f"it holds {manifest['kind']!r}, not {_KIND!r}")
    checksums = manifest["checksums"]
    if checksums.keys() != members.keys() - {_MANIFEST}:
        raise ValueError("members are missing or too many")
    for member, checksum in checksums.items():
        found = _MEMBER.fullmatch(member)
        if found is None or not names_data(found["data"] or "-"):
            raise ValueError(f"{member!r} belongs in no store")
        job = found["job"]
        path = taken.folder(job) / found["file"] if job else taken.root / member
        with archive.open(member) as content:
            if _written(content, path) != checksum:
                raise ValueError(f"{member} does not match its checksum")
    names = [str(name) for name in manifest["jobs"]]
    if not all(f"jobs/{name}/job.json" in checksums for name in names):
        raise ValueError("a job that it is of is not in it")
    return names


def _written(content: IO[bytes], path: Path) -> str:
    """Write a file that nobody else looks at yet, and return its checksum."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            return _copy(content, file)
    except OSError as error:
        raise unwritable(path, error) from error


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a file of any size, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while part := source.read(_PART):
        digest.update(part)
        target.write(part)
    return digest.hexdigest()


def _check(taken: Store, path: Path) -> None:
    """Refuse jobs that are not what their names say, and results that cannot be read."""
    needed: set[str] = set()
    try:
        for each in taken.names():
            if not describes(taken.description(each), each):
                raise StoreError(f"the description of job {each[:12]} is of another job")
            taken.numbers(each)
            taken.check(each)
            if taken.is_thin(each):
                taken.details(each)  # of its ticket, if that is there
                continue
            taken.packed(each)
            # Of a function or network that is not known here: its checksums were verified.
            with suppress(JobError, Undeclared):
                load_result(taken, each)
            needed |= _objects_of(taken, each)
        for path in (taken.root / "objects").iterdir():
            if path.stem not in needed:
                raise StoreError(f"no result in it needs {path.name}")
            _check_object(path)
        for record in (taken.root / "data").iterdir():
            data_record(taken, record.name.removesuffix(".json"))
    except (TombolaError, *OTHER_FORM) as error:
        told = reason(error).replace(str(taken.root), "")
        raise StoreError(f"{path} is damaged or no export: {told}") from error


def _check_object(path: Path) -> None:
    """Refuse tensors that are not what their name says."""
    try:
        read_object(path)
    except TicketError as error:
        if not isinstance(error.__cause__, NetworkError):  # not declared here: checked when it is
            raise


def _check_data(store: Store, taken: Store) -> None:
    """Refuse results of other pixels than the store's under the same name."""
    for record in sorted((taken.root / "data").iterdir()):
        name = record.name.removesuffix(".json")
        theirs, known = data_record(taken, name), data_record(store, name)
        if theirs is not None and known is not None and known["fingerprint"] != theirs["fingerprint"]:
            raise StoreError(
                f"the file has results for other pixels under the data name {name!r} than the store "
                f"at {store.root}; use another store"
            )
        if theirs is not None and known is not None and not _mirrored_alike(theirs, known):
            raise StoreError(
                f"the file has results with mirrored={theirs['mirrored']} under the data name {name!r}, the "
                f"store at {store.root} with mirrored={known['mirrored']}; use another store"
            )
        if theirs is not None and theirs["source"] not in ("digits", *CATALOGUE):
            # A stranger does not say what is read from this machine's disks, or fetched. Whoever has the data
            # gives it when it is needed, and its pixels are compared.
            write_json(record, theirs | {"source": None}, synced=False)


def _mirrored_alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two records of data say the same of mirroring, as far as both say it."""
    return None in (first["mirrored"], second["mirrored"]) or first["mirrored"] == second["mirrored"]


def _take_over(store: Store, taken: Store) -> None:
    """Move what was read into the store; whole results last, when all that they need is there."""
    for folder in ("objects", "data"):
        sync_folder(taken.root / folder, files=True)
        for path in sorted((taken.root / folder).iterdir()):
            if not (store.root / folder / path.name).exists():
                path.replace(store.root / folder / path.name)
        sync_folder(store.root / folder)
    for each in sorted(taken.names(), key=taken.is_thin, reverse=True):
        store.take_in(each, taken.folder(each))
