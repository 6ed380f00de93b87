"""Archives: a zip file of readable files, each with its checksum, that carries results from store to store.

:mod:`tombola.lab.export` says which files of a store go in. An archive may come from an untrusted source:
reading it executes nothing, its members have fixed places, and all is verified before anything reaches the
store. Members are stored or deflated. What one inflates to is bounded by what it declares, and the sum by the
room on the disk.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import json
import os
import re
import shutil
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import IO, Any

from tombola import disk
from tombola.data.catalogue import CATALOGUE
from tombola.errors import (
    JobError,
    NetworkError,
    StoreError,
    TicketError,
    TombolaError,
    Undeclared,
    Undefined,
    reason,
    unwritable,
)
from tombola.lab.description import describes, is_data_name, shared_start
from tombola.lab.finished import load_result
from tombola.lab.objects import data_record, lacks_start, needed_objects, object_path, read_object
from tombola.lab.starts import StartMakers
from tombola.lab.store import RECORD, Store, write_json
from tombola.untrusted import (
    LARGEST_TENSORS,
    LONGEST_TEXT,
    OTHER_FORM,
    check_readable,
    json_object,
    open_regular,
)

_KIND = "tombola.export/1"
_MANIFEST = "manifest.json"
# The only members that are read. A name within a file never becomes another path in a store.
_MEMBER = re.compile(
    r"jobs/(?P<job>[0-9a-f]{64})/(?P<file>(?:job|result|provenance)\.json|history\.csv|(?:result|ticket|forgetting)\.safetensors|thin)"
    r"|objects/(?P<object>[0-9a-f]{64})\.safetensors"
    r"|data/(?P<data>[^/\0]{1,200})\.json"
)

Member = tuple[str, Path | None]
"""The name of a member and the file it is copied from; None for an empty one, the mark of a thin job."""

# Bytes that are copied at a time: a result may be larger than the memory.
_PART = 2**20
# Bytes of the largest archive.
_LARGEST = 2**40
# Bytes that deflate makes of one at most: two bits stand for 258 (zlib.net/zlib_tech.html).
_MOST_INFLATED = 1032
# Bytes before the name of a member in the file.
_HEADER = 30


def write_archive(
    jobs: Iterable[str], file: str | os.PathLike[str], members: Iterable[Member], *, compress: bool = False
) -> None:
    """Write an archive atomically.

    jobs: names of the jobs that it is said to hold; those behind them are members too.
    compress: whether members are deflated.

    Raises :class:`~tombola.errors.StoreUnwritable` if the file cannot be written, and
    :class:`~tombola.errors.StoreError` if it would hold more than is read again.
    """
    path = Path(file)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with disk.new_file(partial) as written, zipfile.ZipFile(written, "w", method) as archive:
            checksums = {}
            for member, source in members:
                info = zipfile.ZipInfo(member)
                info.compress_type = method
                with _opened_member(member, source) as content:
                    info.file_size = content.seek(0, os.SEEK_END)
                    content.seek(0)
                    with archive.open(info, "w") as target:
                        checksums[member] = _copy(content, target)
            manifest = {"kind": _KIND, "jobs": list(jobs), "checksums": checksums}
            archive.writestr(_MANIFEST, _manifest_text(manifest))
        disk.sync_file(partial)
        disk.replace(partial, path)
        with suppress(OSError):  # a folder that cannot be opened: the file is whole there
            disk.sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        disk.remove(partial, missing_ok=True)


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    """The list of contents; StoreError for one that would not be read again."""
    text = json.dumps(manifest, indent=1)
    try:
        check_readable(text)
    except ValueError as error:
        raise StoreError(
            f"the export's list of contents cannot be written: {error}; export fewer jobs"
        ) from error
    return text


class _Opened(FileIO):
    """An archive as :mod:`zipfile` reads it, which would ask for as much memory as the file says.

    size: in bytes.
    """

    @cached_property
    def size(self) -> int:
        return os.fstat(self.fileno()).st_size

    def read(self, count: int | None = -1, /) -> Any:
        left = max(0, self.size - self.tell())
        count = left if count is None or count < 0 else min(count, left)
        if count > LONGEST_TEXT:
            raise ValueError(f"its list of members has {count:,} bytes; at most {LONGEST_TEXT:,} are read")
        return super().read(count)


def _longest(member: str) -> int:
    """Bytes that a member may have."""
    return LARGEST_TENSORS if member.endswith(".safetensors") else LONGEST_TEXT


def _opened_member(member: str, source: Path | None) -> AbstractContextManager[IO[bytes]]:
    """What an archive's member is copied from."""
    return io.BytesIO() if source is None else disk.open_to_read(source, _longest(member))


def import_(store: Store, file: str | os.PathLike[str]) -> list[str]:
    """Put the results of an archive into a store, and return the names of their jobs.

    Jobs that are there stay as they are. Jobs behind the results come with their numbers only.

    Raises :class:`~tombola.errors.StoreError` for a file that is damaged, altered or no export, or whose
    results are of other pixels, or mirrored otherwise, than the store's under the same data name.
    """
    path = Path(file)
    folder = store.root / "work" / f".import.{uuid.uuid4().hex[:8]}"
    try:
        # A store of its own first, which is read like any other before anything of it is taken over.
        incoming = Store(folder)
        try:
            with (
                open_regular(path, _LARGEST, follow=True) as opened,
                _Opened(opened.fileno(), closefd=False) as content,
                zipfile.ZipFile(content) as archive,
            ):
                names = _unpack(archive, incoming, content.size)
        except (OSError, EOFError, zipfile.BadZipFile, struct.error, zlib.error, *OTHER_FORM) as error:
            raise StoreError(f"{path} is damaged or no export: {reason(error)}") from error
        try:
            _check_jobs(incoming, store)
            _check_shared(incoming)
        except (TombolaError, *OTHER_FORM) as error:
            cause = reason(error).replace(str(incoming.root), "")
            raise StoreError(f"{path} is damaged or no export: {cause}") from error
        _check_data(incoming, store)
        _take_over(incoming, store)
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    finally:
        disk.remove_tree(folder, ignore_errors=True)
    return names


def _unpack(archive: zipfile.ZipFile, incoming: Store, size: int) -> list[str]:
    """Write the members of an archive to their places in a store, and return the names of the archive's jobs.

    size: of the file in bytes.

    Raises ValueError unless the members are exactly those of the manifest, with its checksums.
    """
    members = _declared_members(archive, size)
    _check_room(incoming, sum(info.file_size for info in members.values()))
    content = io.BytesIO()
    _copy_member(archive, archive.getinfo(_MANIFEST), content)
    manifest = json_object(content.getvalue(), "the manifest")
    if manifest["kind"] != _KIND:
        raise ValueError(f"it holds {manifest['kind']!r}, not {_KIND!r}")
    checksums = manifest["checksums"]
    if checksums.keys() != members.keys() - {_MANIFEST}:
        raise ValueError("members are missing or too many")
    for member, checksum in checksums.items():
        parts = _MEMBER.fullmatch(member)
        if parts is None or not is_data_name(parts["data"] or "-"):
            raise ValueError(f"{member!r} belongs in no store")
        job = parts["job"]
        path = incoming.folder(job) / parts["file"] if job else incoming.root / member
        if _unpack_member(archive, members[member], path) != checksum:
            raise ValueError(f"{member} does not match its checksum")
    names = [str(name) for name in manifest["jobs"]]
    if not all(f"jobs/{name}/job.json" in checksums for name in names):
        raise ValueError("a job that it is of is not in it")
    return names


def _declared_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name, as its directory declares them, before anything of them is read.

    Raises ValueError for members that share a name or bytes of the file, or that are too long.
    """
    infos = archive.infolist()
    if sum(info.compress_size for info in infos) > size:
        raise ValueError("its members are larger than the file")
    members = {info.filename: info for info in infos}
    if len(members) < len(infos):
        raise ValueError("two of its members have one name")
    infos = sorted(infos, key=lambda info: info.header_offset)
    for info, end in zip(infos, [*(info.header_offset for info in infos[1:]), size], strict=True):
        if not 0 <= info.header_offset <= end - _HEADER - info.compress_size:
            raise ValueError("its members share bytes of the file")
    for member, info in members.items():
        if info.file_size > _longest(member):
            raise ValueError(f"{member} has {info.file_size:,} bytes; at most {_longest(member):,} are read")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member} is neither stored nor deflated, as members of an export are")
        most = info.compress_size * (_MOST_INFLATED if info.compress_type == zipfile.ZIP_DEFLATED else 1)
        if info.file_size > most:
            raise ValueError(f"{member} cannot have the {info.file_size:,} bytes that it declares")
    return members


def _check_room(incoming: Store, needed: int) -> None:
    """Raises StoreUnwritable where the disk has less room than so many bytes."""
    free = shutil.disk_usage(incoming.root).free
    if needed > free:
        full = OSError(errno.ENOSPC, f"the export takes {needed:,} bytes, and {free:,} are free")
        raise unwritable(incoming.root.parent.parent, full)


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> str:
    """Write a member to a new file, not atomically, and return its SHA-256; errors as of ``_copy_member``."""
    try:
        disk.make_folder(path.parent, parents=True, exist_ok=True)
        with disk.new_file(path) as file:
            return _copy_member(archive, info, file)
    except OSError as error:
        raise unwritable(path, error) from error


def _copy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes]) -> str:
    """Copy a member, inflated if need be, and return its SHA-256.

    Raises ValueError unless it has the bytes that it declares; of more, only one is read.
    """
    longer = copy.copy(info)
    longer.file_size += 1  # zipfile stops there without a word
    with archive.open(longer) as content:
        checksum = _copy(content, target)
    if target.tell() != info.file_size:
        raise ValueError(f"{info.filename} has not the {info.file_size:,} bytes that it declares")
    return checksum


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a file of any size, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while part := source.read(_PART):
        digest.update(part)
        target.write(part)
    return digest.hexdigest()


def _check_jobs(incoming: Store, store: Store) -> None:
    """Raises for jobs that are not what their names say, and results that could not be read in the store."""
    makers = StartMakers(incoming)
    for name in incoming.names():
        if not describes(incoming.description(name), name):
            raise StoreError(f"the description of job {name[:12]} is of another job")
        incoming.numbers(name)
        incoming.check(name)
        if incoming.is_thin(name):
            incoming.details(name)  # of its ticket, if that is there
            if (incoming.folder(name) / RECORD).exists():
                incoming.forgetting_tensors(name)
            continue
        incoming.packed(name)
        if lacks_start(incoming, name):
            _check_lost_start(incoming, name, store, makers)
            continue
        # Of a function or network that is not declared here only the checksums can be verified.
        with suppress(JobError, Undeclared, Undefined):
            load_result(incoming, name)


def _check_lost_start(incoming: Store, name: str, store: Store, makers: StartMakers) -> None:
    """Raises StoreError for a ticket whose dense start is in neither store and is not made again by a job."""
    start = shared_start(incoming.details(name)) or ""
    if not makers.is_made_again(name) and not object_path(store, start).exists():
        raise StoreError(
            f"the dense start {start[:12]} of job {name[:12]} is lost: it is not in the file, and no job "
            "there makes it again; export once more from where it is"
        )


def _check_shared(incoming: Store) -> None:
    """Raises for damaged data, and for shared tensors that no result needs or that do not fit their names."""
    complete = [name for name in incoming.names() if not incoming.is_thin(name)]
    needed = set().union(*(needed_objects(incoming, name) for name in complete))
    for path in (incoming.root / "objects").iterdir():
        if path.stem not in needed:
            raise StoreError(f"no result in it needs {path.name}")
        try:
            read_object(path)
        except TicketError as error:
            if not isinstance(error.__cause__, NetworkError):  # not declared here: checked when it is
                raise
    for record in (incoming.root / "data").iterdir():
        data_record(incoming, record.name.removesuffix(".json"))


def _check_data(incoming: Store, store: Store) -> None:
    """Raises StoreError for results of other pixels than the store's under the same name.

    Only built-in names may say where data is read from: an archive does not choose what this machine reads or
    fetches. Any other data are given by the user when they are needed, and their pixels are compared.
    """
    for path in sorted((incoming.root / "data").iterdir()):
        name = path.name.removesuffix(".json")
        theirs, ours = data_record(incoming, name), data_record(store, name)
        if theirs is None:
            continue
        if ours is not None and ours["fingerprint"] != theirs["fingerprint"]:
            raise StoreError(
                f"the file has results for other pixels under the data name {name!r} than the store "
                f"at {store.root}; use another store"
            )
        if ours is not None and not _mirrored_alike(theirs, ours):
            raise StoreError(
                f"the file has results with mirrored={theirs['mirrored']} under the data name {name!r}, the "
                f"store at {store.root} with mirrored={ours['mirrored']}; use another store"
            )
        if theirs["source"] not in ("digits", *CATALOGUE):
            write_json(path, theirs | {"source": None}, synced=False)


def _mirrored_alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two records of data agree on mirroring, as far as both have it."""
    return None in (first["mirrored"], second["mirrored"]) or first["mirrored"] == second["mirrored"]


def _take_over(incoming: Store, store: Store) -> None:
    """Move all into the store; complete results last, when everything that they need is there."""
    for folder in ("objects", "data"):
        disk.sync_folder(incoming.root / folder, files=True)
        for path in sorted((incoming.root / folder).iterdir()):
            if not (store.root / folder / path.name).exists():
                disk.replace(path, store.root / folder / path.name)
        disk.sync_folder(store.root / folder)
    for name in sorted(incoming.names(), key=incoming.is_thin, reverse=True):
        store.take_in(name, incoming.folder(name))
