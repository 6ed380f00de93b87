"""Moving one result between stores: a zip file of readable files, each with its checksum.

It holds the result whole, the dense start that it needs to be read, and of everything behind it the numbers
and histories. Nothing in it is executed on reading, and nothing in it chooses where it is put.
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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

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
    r"jobs/(?P<job>[0-9a-f]{64})/(?P<file>job\.json|result\.json|provenance\.json|history\.csv|result\.safetensors)"
    r"|objects/(?P<object>[0-9a-f]{64})\.safetensors"
    r"|data/(?P<data>[^/\\\0]{1,200})\.json"
)


def export(store: Store, name: str, file: str | os.PathLike[str]) -> None:
    """Write a finished job's result to one file, with all that it needs to be read.

    name: of the job, or its beginning.

    Raises :class:`~tombola.errors.JobError` if there is none, and :class:`~tombola.errors.StoreError` if it
    is damaged, of numbers only, or the file cannot be written.
    """
    name = store.find(name)
    path = Path(file)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    store.packed(name)  # refuses what is damaged or thin
    try:
        with zipfile.ZipFile(beside, "x", zipfile.ZIP_STORED) as archive:
            checksums = {}
            for member, source in _members(store, name):
                content = source.read_bytes()
                archive.writestr(member, content)
                checksums[member] = hashlib.sha256(content).hexdigest()
            manifest = {"kind": _KIND, "job": name, "checksums": checksums}
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _members(store: Store, name: str) -> Iterator[tuple[str, Path]]:
    """What goes into an export, and where it lies."""
    behind = everything_behind(store, [name])
    for each in sorted(behind):
        for part in (*_NUMBERS, "result.safetensors") if each == name else _NUMBERS:
            if (store.folder(each) / part).exists():
                yield f"jobs/{each}/{part}", store.folder(each) / part
    start = shared_start(store.details(name))
    objects = own_values(store.description(name)) | ({start} if start else set())
    for fingerprint in sorted(objects):
        path = store.root / "objects" / f"{fingerprint}.safetensors"
        if path.exists():
            yield f"objects/{fingerprint}.safetensors", path
    data = set().union(*(data_names(store.description(each)) for each in behind))
    for each in sorted(data):
        path = store.root / "data" / f"{each}.json"
        if path.exists():
            yield f"data/{each}.json", path


def import_(store: Store, file: str | os.PathLike[str]) -> str:
    """Put the result that :func:`export` wrote into a store, and return its job's name.

    What is there already stays. Jobs behind the result come with their numbers only.

    Raises :class:`~tombola.errors.StoreError` for a file that is damaged, altered or no export, or whose
    results are of other pixels than the store's under the same data name.
    """
    path = Path(file)
    try:
        with zipfile.ZipFile(path) as archive:
            name, content = _verified(archive)
    except (OSError, EOFError, zipfile.BadZipFile, struct.error, *OTHER_FORM) as error:
        raise StoreError(f"{path} is damaged or no export: {reason(error)}") from error
    place = store.root / "work" / f".import.{uuid.uuid4().hex[:8]}"
    try:
        # A store of its own first, which is read like any other before anything of it is taken over.
        taken = Store(place)
        _unpack(taken, content, name)
        _check(taken, path, name)
        _check_data(store, taken)
        _take_over(store, taken, name)
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return name


def _verified(archive: zipfile.ZipFile) -> tuple[str, dict[str, bytes]]:
    """The job's name and all members of an export, once they fit its manifest."""
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
    if f"jobs/{manifest['job']}/job.json" not in content:
        raise ValueError("the job that it is of is not in it")
    return str(manifest["job"]), content


def _unpack(taken: Store, content: Mapping[str, bytes], name: str) -> None:
    """Write the members of an export where a store has them."""
    for member, written in content.items():
        found = _MEMBER.fullmatch(member)
        assert found is not None  # checked when it was read
        job = found["job"]
        path = taken.folder(job) / found["file"] if job else taken.root / member
        write_whole(path, written, make_folder=True)
        if job and job != name:
            taken.mark_thin(job)


def _check(taken: Store, path: Path, name: str) -> None:
    """Refuse jobs that are not what their names say, and a result that cannot be read."""
    try:
        for each in taken.names():
            description = taken.description(each)
            if name_of(description) != each:
                raise StoreError(f"the description of job {each[:12]} is of another job")
            taken.numbers(each)
            taken.provenance(each)
        for record in (taken.root / "data").iterdir():
            data_record(taken, record.name.removesuffix(".json"))
        taken.packed(name)
        with suppress(JobError):  # of a function that is not known here: its checksums were verified
            load_result(taken, name)
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


def _take_over(store: Store, taken: Store, name: str) -> None:
    """Move what was read into the store; the result itself last, when all that it needs is there."""
    for folder in ("objects", "data"):
        for path in sorted((taken.root / folder).iterdir()):
            if not (store.root / folder / path.name).exists():
                path.replace(store.root / folder / path.name)
    for each in sorted(taken.names(), key=lambda each: each == name):
        store.take_in(each, taken.folder(each))
