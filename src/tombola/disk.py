"""Every change to the files of a store: the one place that writes, renames and removes them.

A file written whole appears with its full content or not at all, and then outlives a power loss. Because all
changes pass here, a test can let each of them fail in turn (``benchmarks/crashes.py``).
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from tombola.errors import OddFile, unwritable
from tombola.untrusted import NO_LINK, NO_WAIT, as_regular

# Where files have no newline translation of their own, as on POSIX, there is no such flag.
_BINARY = getattr(os, "O_BINARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
_APPENDED = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY


def write_whole(path: Path, content: bytes, *, make_folder: bool = False, synced: bool = True) -> None:
    """Write a file atomically: to a temporary file in the same folder, forced to the disk, then renamed.

    make_folder: make the folder too, if need be.
    synced: whether the file must outlive a power loss; otherwise only the death of this process.

    Raises :class:`~tombola.errors.StoreUnwritable` when the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if make_folder:
            os.makedirs(path.parent, exist_ok=True)
        try:
            write_part(temporary, content, synced=synced)
            replace(temporary, path)
            if synced:
                _sync(path.parent)
        finally:
            remove(temporary, missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_part(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write a new file in place: one that is renamed before it is read, or its folder is, or as a trial."""
    descriptor = os.open(path, _NEW, 0o666)
    try:
        _write_all(descriptor, content)
        if synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, which is made if need be.

    Raises :class:`~tombola.errors.OddFile` or OSError for anything else than a file, such as a pipe or
    link, and for one that has another name, too.
    """
    with open_to_append(path) as file:
        _write_all(file.fileno(), content)


def open_to_append(path: Path) -> FileIO:
    """A log, opened for what writes to it while a process dies; errors are those of :func:`append`."""
    file = as_regular(path, os.open(path, _APPENDED | NO_WAIT | NO_LINK, 0o666), "a")
    if os.fstat(file.fileno()).st_nlink > 1:  # the log of a job has one name; by others it is something else
        file.close()
        raise OddFile(path, "a file of several names, not one of this store alone")
    return file


def new_file(path: Path) -> BinaryIO:
    """A new file to be written in many parts; ``sync_file`` forces it to the disk."""
    return io.BufferedWriter(_NewFile(os.open(path, _NEW, 0o666)))


class _NewFile(io.RawIOBase):
    """A file whose every write passes this module."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def write(self, content: Any) -> int:
        return os.write(self._descriptor, content)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def make_folder(path: Path, *, parents: bool = False, exist_ok: bool = False) -> None:
    """Make a folder, with those above it if asked; FileExistsError unless it may be there already."""
    if parents:
        os.makedirs(path, exist_ok=exist_ok)
        return
    try:
        os.mkdir(path)
    except FileExistsError:
        if not (exist_ok and path.is_dir()):
            raise


def rename(path: Path, target: Path) -> None:
    """Move a file, or a folder to a free name; a folder never replaces another that holds anything."""
    os.rename(path, target)


def replace(path: Path, target: Path) -> None:
    """Move a file over another, in one step."""
    os.replace(path, target)


def link(path: Path, target: Path) -> None:
    """Give a file a second name; FileExistsError if the name is taken."""
    os.link(path, target)


def remove(path: Path, *, missing_ok: bool = False) -> None:
    """Remove a file."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


def remove_folder(path: Path) -> None:
    """Remove an empty folder; OSError if it is not."""
    os.rmdir(path)


def remove_tree(path: Path, *, ignore_errors: bool = False) -> None:
    """Remove a folder and all that is in it, as far as others do not; links are removed and never followed.

    ignore_errors: leave what cannot be removed.
    """
    with suppress(FileNotFoundError):
        shutil.rmtree(path, ignore_errors=ignore_errors)


def touch(path: Path) -> None:
    """Set the time of a file to now on the clock of its file server; the file is made if need be."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
    os.utime(path)


def set_time(path: Path, seconds: float | None = None) -> None:
    """Set the time of a file, in seconds since the epoch; None for now, on the clock of its file server."""
    os.utime(path, None if seconds is None else (seconds, seconds))


def sync_file(path: Path) -> None:
    """Force a file to the disk."""
    _sync(path)


def sync_folder(folder: Path, *, files: bool = False) -> None:
    """Force the entries of a folder to the disk, so that a rename of it outlives a power loss.

    files: the content of its files too, all at the same time: a disk writes many together as fast as one.
    """
    pending = [_sync_threads().submit(_sync, path) for path in folder.iterdir()] if files else []
    _sync(folder)
    for sync in pending:
        sync.result()


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a system writes at most 2 GiB at a time
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():  # where a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _sync_threads() -> ThreadPoolExecutor:
    """Threads that wait for the disk, kept because starting one takes as long as some jobs."""
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="tombola-sync")
