"""Moving results between stores: a zip file of readable files, each with its checksum.

It holds the results whole, the dense starts that they need to be read, and of everything behind them the
numbers and histories. Nothing in it is executed on reading, and nothing in it chooses where it is put.
"""

from __future__ import annotations

import hashlib
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
from typing import Any

from tombola.data.catalogue import CATALOGUE
from tombola.errors import JobError, StoreError, TombolaError, reason, unwritable
from tombola.lab.described import names_data
from tombola.lab.execute import load_result
from tombola.lab.job import name_of
from tombola.lab.references import data_names, everything_behind, own_values, shared_start
from tombola.lab.shared import data_record
from tombola.lab.store import Store, write_json
from tombola.reading import OTHER_FORM, json_object
from tombola.whole import write_whole

_KIND = "tombola.export/1"
_MANIFEST = "manifest.json"
_NUMBERS = ("job.json", "result.json", "provenance.json", "history.csv")
# The only members that are read. A name within a file never becomes another path in a store.
_MEMBER = re.compile(
    r"jobs/(?P<job>[0-9a-f]{64})/(?P<file>(?:job|result|provenance)\.json|history\.csv|(?:result|ticket)\.safetensors|thin)"
    r"|objects/(?P<object>[0-9a-f]{64})\.safetensors"
    r"|data/(?P<data>[^/\\\0]{1,200})\.json"
)


def export(
    store: Store, names: Iterable[str] | None, file: str | os.PathLike[str], *, weights: bool = True
) -> None:
    """Write results of finished jobs to one file, with all that they need to be read.

    names: of the jobs, or their beginnings; None for all that the store has, thin ones as they are.
    weights: without, runs and tickets are of numbers and histories only. What measures found stays whole.

    Raises :class:`~tombola.errors.JobError` for a job that is not there, and
    :class:`~tombola.errors.StoreError` if one is damaged, or thin though its weights are asked for, or the
    file cannot be written.
    """
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
                content = source.read_bytes() if source else b""
                archive.writestr(member, content)
                checksums[member] = hashlib.sha256(content).hexdigest()
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
        folder, details = store.folder(name), store.details(name)
        whole = name in asked and not store.is_thin(name) and (weights or not _holds_weights(details))
        parts = (*_NUMBERS, "result.safetensors" if whole else "ticket.safetensors")
        for part in parts:
            if (folder / part).exists():
                yield f"jobs/{name}/{part}", folder / part
        if whole:
            start = shared_start(details)
            objects |= own_values(store.description(name)) | ({start} if start else set())
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


def _holds_weights(details: Mapping[str, Any]) -> bool:
    """Whether tensors so described are those of a run or of a ticket."""
    return "ticket" in details or "start_kept" in details


def import_(store: Store, file: str | os.PathLike[str]) -> list[str]:
    """Put the results that :func:`export` wrote into a store, and return the names of their jobs.

    What is there already stays. Jobs behind the results come with their numbers only.

    Raises :class:`~tombola.errors.StoreError` for a file that is damaged, altered or no export, or whose
    results are of other pixels than the store's under the same data name.
    """
    path = Path(file)
    try:
        with zipfile.ZipFile(path) as archive:
            names, content = _verified(archive)
    except (OSError, EOFError, zipfile.BadZipFile, struct.error, *OTHER_FORM) as error:
        raise StoreError(f"{path} is damaged or no export: {reason(error)}") from error
    place = store.root / "work" / f".import.{uuid.uuid4().hex[:8]}"
    try:
        # A store of its own first, which is read like any other before anything of it is taken over.
        taken = Store(place)
        for member, written in content.items():
            _unpack(taken, member, written)
        _check(taken, path)
        _check_data(store, taken)
        _take_over(store, taken)
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return names


def _verified(archive: zipfile.ZipFile) -> tuple[list[str], dict[str, bytes]]:
    """The names of the jobs and all members of an export, once they fit its manifest."""
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("it is compressed, which an export never is")
    manifest = json_object(archive.read(_MANIFEST), "the manifest")
    if manifest["kind"] != _KIND:
        raise ValueError(f"it holds {manifest['kind']!r}, not {_KIND!r}")
    checksums = manifest["checksums"]
    if checksums.keys() != members.keys() - {_MANIFEST}:
        raise ValueError("members are missing or too many")
    content = {}
    for member, checksum in checksums.items():
        found = _MEMBER.fullmatch(member)
        if found is None or not names_data(found["data"] or "-"):
            raise ValueError(f"{member!r} belongs in no store")
        content[member] = archive.read(member)
        if hashlib.sha256(content[member]).hexdigest() != checksum:
            raise ValueError(f"{member} does not match its checksum")
    names = [str(name) for name in manifest["jobs"]]
    if not all(f"jobs/{name}/job.json" in content for name in names):
        raise ValueError("a job that it is of is not in it")
    return names, content


def _unpack(taken: Store, member: str, content: bytes) -> None:
    """Write a member of an export where a store has it."""
    found = _MEMBER.fullmatch(member)
    assert found is not None  # checked when it was read
    job = found["job"]
    path = taken.folder(job) / found["file"] if job else taken.root / member
    write_whole(path, content, make_folder=True)


def _check(taken: Store, path: Path) -> None:
    """Refuse jobs that are not what their names say, and results that cannot be read."""
    try:
        for each in taken.names():
            description = taken.description(each)
            if name_of(description) != each:
                raise StoreError(f"the description of job {each[:12]} is of another job")
            taken.numbers(each)
            taken.provenance(each)
            if taken.is_thin(each):
                taken.details(each)  # of its ticket, if that is there
                continue
            taken.packed(each)
            with suppress(JobError):  # of a function that is not known here: its checksums were verified
                load_result(taken, each)
        for record in (taken.root / "data").iterdir():
            data_record(taken, record.name.removesuffix(".json"))
    except (TombolaError, *OTHER_FORM) as error:
        told = reason(error).replace(str(taken.root), "")
        raise StoreError(f"{path} is damaged or no export: {told}") from error


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
        if theirs is not None and theirs["source"] not in ("digits", *CATALOGUE):
            # A stranger does not say what is read from this machine's disks, or fetched. Whoever has the data
            # gives it when it is needed, and its pixels are compared.
            write_json(record, theirs | {"source": None})


def _take_over(store: Store, taken: Store) -> None:
    """Move what was read into the store; whole results last, when all that they need is there."""
    for folder in ("objects", "data"):
        for path in sorted((taken.root / folder).iterdir()):
            if not (store.root / folder / path.name).exists():
                path.replace(store.root / folder / path.name)
    for each in sorted(taken.names(), key=taken.is_thin, reverse=True):
        store.take_in(each, taken.folder(each))
