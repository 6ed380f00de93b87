"""Moving results between stores: a zip file of readable files, each with its checksum.

It holds the results whole, the dense starts that they need to be read, and of everything behind them the
numbers and histories. An export of tickets holds what goes on elsewhere without any weights: tickets and the
forgetting records of runs, and only those dense starts that no job makes again. Nothing in either is executed
on reading, and nothing in it chooses where it is put.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import tempfile
import uuid
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tombola.atomic import sync_folder
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
from tombola.lab.description import data_names, is_data_name, own_values, shared_start
from tombola.lab.execute import load_result
from tombola.lab.job import described_function, describes, result_type
from tombola.lab.objects import data_record, lacks_start, read_object
from tombola.lab.starts import cause_to_carry, is_made_again
from tombola.lab.store import RECORD, Store, write_json
from tombola.lab.tickets import (
    Choice,
    chosen_tickets,
    following_tickets,
    is_ticket,
    with_ancestors,
    write_missing_tickets,
)
from tombola.training.trunk import Point
from tombola.untrusted import OTHER_FORM, json_object

_KIND = "tombola.export/1"
_MANIFEST = "manifest.json"
_NUMBERS = ("job.json", "result.json", "provenance.json", "history.csv")
# The only members that are read. A name within a file never becomes another path in a store.
_MEMBER = re.compile(
    r"jobs/(?P<job>[0-9a-f]{64})/(?P<file>(?:job|result|provenance)\.json|history\.csv|(?:result|ticket|forgetting)\.safetensors|thin)"
    r"|objects/(?P<object>[0-9a-f]{64})\.safetensors"
    r"|data/(?P<data>[^/\0]{1,200})\.json"
)

Member = tuple[str, Path | None]
"""A member of an export, and where it lies; None for the mark of a job whose tensors stay behind."""

# Bytes that are copied at a time: a result may be larger than the memory.
_PART = 2**20


@dataclass(frozen=True)
class Exported:
    """What an export of tickets holds.

    jobs: all in it but tickets; tickets: those with their masks.
    carried: the dense starts that go along whole, each with its size in bytes and why no job makes it again.
    """

    jobs: int
    tickets: int
    carried: dict[str, tuple[int, str]]


def export_tickets(
    store: Store,
    names: Iterable[str] | None,
    file: str | os.PathLike[str],
    tickets: str | int | Iterable[str | int] = "all",
) -> Exported:
    """Write what goes on elsewhere without any weights: tickets, numbers, histories and forgetting records.

    names: as for :func:`export`.
    tickets: whose masks: ``"all"``, the ``"newest"`` of each chain, those of rounds by their numbers, or
        several of these. Of the others there are the numbers.

    A dense start that can be made again from its seed stays behind; any other goes along whole. Tickets that
    a store of before has only within its runs, and the next one of a chain whose last run is whole, are
    written down first.

    Raises as :func:`export` does, and :class:`~tombola.errors.StoreError` for a ticket whose start is gone.
    """
    choice = Choice.of(tickets)
    asked = _asked(store, names)
    write_missing_tickets(store, with_ancestors(store, asked))
    # Those of all rounds may have come about just now.
    asked = sorted(store.names() if names is None else {*asked, *following_tickets(store, asked)})
    behind = with_ancestors(store, asked)
    chosen = chosen_tickets(store, behind, choice)
    carried = _carried(store, behind, chosen)
    with tempfile.TemporaryDirectory() as place:
        _write(asked, file, _ticket_members(store, behind, chosen, set(carried), Path(place)))
    counted = sum(not is_ticket(store, name) for name in behind)
    return Exported(counted, len(chosen), carried)


def _carried(store: Store, behind: Collection[str], chosen: Collection[str]) -> dict[str, tuple[int, str]]:
    """The dense starts of tickets that no job makes again: their sizes, and why."""
    carried: dict[str, tuple[int, str]] = {}
    for name in sorted(behind):
        if store.is_thin(name) or not (name in chosen or _is_start(store, name)):
            continue
        start = shared_start(store.details(name))
        cause = cause_to_carry(store, name) if start and start not in carried else None
        if start is None or cause is None:
            continue
        path = _object(store, start)
        if not path.exists():
            raise StoreError(f"the dense start {start[:12]} of job {name[:12]} is gone, and {cause}")
        carried[start] = path.stat().st_size, cause
    return carried


def _is_start(store: Store, name: str) -> bool:
    """Whether a finished job is a ticket that no round made: an initialisation, a pretraining or the like."""
    return "start_kept" in store.details(name) and not is_ticket(store, name)


def _ticket_members(
    store: Store, behind: Collection[str], chosen: Collection[str], carried: Collection[str], place: Path
) -> Iterator[Member]:
    """What goes into an export of tickets; ``place`` is a folder for what is written only for it."""
    values: set[str] = set()
    for name in sorted(behind):
        _check_finished(store, name)
        folder, details = store.folder(name), store.details(name)
        start = shared_start(details) if not store.is_thin(name) else None
        light = not store.is_thin(name) and not _holds_weights(details) and not _is_point(store, name)
        whole = light or name in chosen or (start in carried and _is_start(store, name))
        if whole:
            store.packed(name)  # refuses what is damaged
        for part in (*_NUMBERS, *(["result.safetensors"] if whole else [])):
            if (folder / part).exists():
                yield f"jobs/{name}/{part}", folder / part
        if light:
            values |= own_values(store.description(name))
        if whole:
            continue
        if store.is_thin(name) or (folder / "result.safetensors").exists():
            yield f"jobs/{name}/thin", None
        if "ticket" in details and not store.is_thin(name):
            store.write_record(name, place / RECORD)
            yield f"jobs/{name}/{RECORD}", place / RECORD
        elif (folder / RECORD).exists():
            yield f"jobs/{name}/{RECORD}", folder / RECORD
    yield from _shared_members(store, behind, set(carried) | values)


def _is_point(store: Store, name: str) -> bool:
    """Whether a finished job is a point of a trunk: weights to branch off from, which a job makes again."""
    try:
        return result_type(described_function(store.description(name))) is Point
    except JobError:
        return False  # of a function that is not known here


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
    asked = _asked(store, names)
    for name in asked:
        if weights and not (names is None and store.is_thin(name)):
            store.packed(name)  # refuses what is damaged or thin
    _write(asked, file, _members(store, asked, weights))


def _asked(store: Store, names: Iterable[str] | None) -> list[str]:
    """The finished jobs that names or their beginnings stand for; None for all."""
    if isinstance(names, str):
        raise JobError(f"names is {names!r}, one text; give a list of names, [{names!r}]")
    return sorted(store.names()) if names is None else [store.find(name) for name in names]


def _write(asked: Iterable[str], file: str | os.PathLike[str], members: Iterable[Member]) -> None:
    """Write an export, whole or not at all."""
    path = Path(file)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(beside, "x", zipfile.ZIP_STORED) as archive:
            checksums = {}
            for member, source in members:
                info = zipfile.ZipInfo(member)
                info.file_size = source.stat().st_size if source else 0
                with (
                    archive.open(info, "w") as target,
                    source.open("rb") if source else io.BytesIO() as content,
                ):
                    checksums[member] = _copy(content, target)
            manifest = {"kind": _KIND, "jobs": list(asked), "checksums": checksums}
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _members(store: Store, asked: Collection[str], weights: bool) -> Iterator[Member]:
    """What goes into an export."""
    behind = with_ancestors(store, asked)
    objects: set[str] = set()
    for name in sorted(behind):
        _check_finished(store, name)
        folder, details = store.folder(name), store.details(name)
        whole = name in asked and not store.is_thin(name) and (weights or not _holds_weights(details))
        parts = [*_NUMBERS, "result.safetensors" if whole else "ticket.safetensors"]
        parts += [RECORD] * weights
        for part in parts:
            if (folder / part).exists():
                yield f"jobs/{name}/{part}", folder / part
        if whole:
            objects |= _objects_of(store, name)
        elif store.is_thin(name) or (folder / "result.safetensors").exists():
            yield f"jobs/{name}/thin", None
    yield from _shared_members(store, behind, objects)


def _check_finished(store: Store, name: str) -> None:
    """Refuse to export a job whose text files were altered."""
    if not describes(store.description(name), name):
        raise store.damaged(name, "job.json was altered: it describes another job")
    store.check(name)


def _object(store: Store, fingerprint: str) -> Path:
    return store.root / "objects" / f"{fingerprint}.safetensors"


def _shared_members(store: Store, behind: Collection[str], objects: Collection[str]) -> Iterator[Member]:
    """Tensors and data sets that exported jobs share."""
    for fingerprint in sorted(objects):
        path = _object(store, fingerprint)
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
        _check(taken, path, store)
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
        if found is None or not is_data_name(found["data"] or "-"):
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


def _check(taken: Store, path: Path, store: Store) -> None:
    """Refuse jobs that are not what their names say, and results that cannot be read in the store."""
    needed: set[str] = set()
    try:
        for each in taken.names():
            if not describes(taken.description(each), each):
                raise StoreError(f"the description of job {each[:12]} is of another job")
            taken.numbers(each)
            taken.check(each)
            if taken.is_thin(each):
                taken.details(each)  # of its ticket, if that is there
                if (taken.folder(each) / RECORD).exists():
                    taken.record(each)
                continue
            taken.packed(each)
            needed |= _objects_of(taken, each)
            if lacks_start(taken, each):
                _check_lost_start(taken, each, store)
                continue
            # Of a function or network that is not known here: its checksums were verified.
            with suppress(JobError, Undeclared):
                load_result(taken, each)
        for path in (taken.root / "objects").iterdir():
            if path.stem not in needed:
                raise StoreError(f"no result in it needs {path.name}")
            _check_object(path)
        for record in (taken.root / "data").iterdir():
            data_record(taken, record.name.removesuffix(".json"))
    except (TombolaError, *OTHER_FORM) as error:
        told = reason(error).replace(str(taken.root), "")
        raise StoreError(f"{path} is damaged or no export: {told}") from error


def _check_lost_start(taken: Store, name: str, store: Store) -> None:
    """Refuse a ticket whose dense start neither the file nor the store has, and no job in the file makes."""
    start = shared_start(taken.details(name)) or ""
    if not is_made_again(taken, name) and not _object(store, start).exists():
        raise StoreError(
            f"the dense start {start[:12]} of job {name[:12]} is lost: it is not in the file, and no job "
            "there makes it again; export once more from where it is"
        )


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
