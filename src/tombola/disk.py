"""Every change to the files of a store: the one place that writes, renames and removes them.

A file written whole appears with its full content or not at all, and then outlives a power loss. Because all
changes pass here, a test can let each of them fail in turn (``benchmarks/crashes.py``).

Below a store, which others may write to, a change is made relative to a descriptor of the folder that is
changed, so that no folder that they swap for a link leads it elsewhere (:mod:`tombola.guarded`).
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from tombola.errors import OddFile, unwritable
from tombola.guarded import NOT_FOLLOWED, Folder, holding, opened
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
            _make_folders(path.parent)
        with holding(path) as folder:
            try:
                _write_part(folder, temporary, content, synced=synced)
                within = {"src_dir_fd": folder.descriptor, "dst_dir_fd": folder.descriptor}
                os.replace(folder.name(temporary), folder.name(path), **within)
                if synced:
                    _sync_entries(folder)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(folder.name(temporary), dir_fd=folder.descriptor)
    except OSError as error:
        raise unwritable(path, error) from error


def write_part(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write a new file in place: one that is renamed before it is read, or its folder is, or as a trial."""
    with holding(path) as folder:
        _write_part(folder, path, content, synced=synced)


def _write_part(folder: Folder, path: Path, content: bytes, *, synced: bool) -> None:
    descriptor = os.open(folder.name(path), _NEW, 0o666, dir_fd=folder.descriptor)
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
    with holding(path) as folder:
        flags = _APPENDED | NO_WAIT | NO_LINK
        file = as_regular(path, os.open(folder.name(path), flags, 0o666, dir_fd=folder.descriptor), "a")
    if os.fstat(file.fileno()).st_nlink > 1:  # the log of a job has one name; by others it is something else
        file.close()
        raise OddFile(path, "a file of several names, not one of this store alone")
    return file


@contextmanager
def open_to_read(path: Path, longest: int) -> Iterator[FileIO]:
    """A regular file for reading, below a guarded folder through no link: what is read is to leave the store.

    Arguments and errors are those of :func:`~tombola.untrusted.open_regular`.
    """
    flags = os.O_RDONLY | NO_WAIT | NO_LINK
    try:
        with holding(path) as folder:
            descriptor = os.open(folder.name(path), flags, dir_fd=folder.descriptor)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OddFile(path, "a link, or behind one, not a file of this store") from error
    with as_regular(path, descriptor, "r", longest) as file:
        yield file


def new_file(path: Path) -> BinaryIO:
    """A new file to be written in many parts; ``sync_file`` forces it to the disk."""
    with holding(path) as folder:
        return io.BufferedWriter(_NewFile(os.open(folder.name(path), _NEW, 0o666, dir_fd=folder.descriptor)))


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


def make_folder(path: Path, *, parents: bool = False, exist_ok: bool = False, private: bool = False) -> None:
    """Make a folder, with those above it if asked; FileExistsError unless it may be there already.

    private: nobody but its user can enter it.
    """
    try:
        with holding(path) as folder:
            os.mkdir(folder.name(path), 0o700 if private else 0o777, dir_fd=folder.descriptor)
    except FileNotFoundError:
        if not parents or path.parent == path:
            raise
        _make_folders(path.parent)
        make_folder(path, exist_ok=exist_ok, private=private)
    except FileExistsError:
        if not (exist_ok and path.is_dir()):
            raise


def _make_folders(path: Path) -> None:
    """Make a folder and those above it, as far as they are not there."""
    if not path.is_dir():
        make_folder(path, parents=True, exist_ok=True)


def rename(path: Path, target: Path) -> None:
    """Move a file, or a folder to a free name; a folder never replaces another that holds anything."""
    _move(os.rename, path, target)


def replace(path: Path, target: Path) -> None:
    """Move a file over another, in one step."""
    _move(os.replace, path, target)


def link(path: Path, target: Path) -> None:
    """Give a file a second name; FileExistsError if the name is taken."""
    _move(os.link, path, target, **NOT_FOLLOWED)


def _move(call: Any, path: Path, target: Path, **more: Any) -> None:
    """Call the system with a name in one folder and a name in another, or in the same."""
    with holding(path) as source:
        other = nullcontext(source) if str(target.parent) == source.path else holding(target)
        with other as folder:
            folders = {"src_dir_fd": source.descriptor, "dst_dir_fd": folder.descriptor}
            call(source.name(path), folder.name(target), **folders, **more)


def remove(path: Path, *, missing_ok: bool = False) -> None:
    """Remove a file."""
    try:
        with holding(path) as folder:
            os.unlink(folder.name(path), dir_fd=folder.descriptor)
    except FileNotFoundError:
        if not missing_ok:
            raise


def remove_folder(path: Path) -> None:
    """Remove an empty folder; OSError if it is not."""
    with holding(path) as folder:
        os.rmdir(folder.name(path), dir_fd=folder.descriptor)


def remove_tree(path: Path, *, ignore_errors: bool = False) -> None:
    """Remove a folder and all that is in it, as far as others do not; links are removed and never followed.

    ignore_errors: leave what cannot be removed.
    """
    with suppress(OSError if ignore_errors else FileNotFoundError), holding(path) as folder:
        try:
            shutil.rmtree(folder.name(path), ignore_errors=ignore_errors, dir_fd=folder.descriptor)
        except RecursionError:  # folders within each other, a thousand deep, as nobody makes but to do this
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path)) from None


def touch(path: Path) -> None:
    """Set the time of a file to now on the clock of its file server; the file is made if need be."""
    with holding(path) as folder:
        flags = os.O_WRONLY | os.O_CREAT | NO_WAIT | NO_LINK
        os.close(os.open(folder.name(path), flags, 0o666, dir_fd=folder.descriptor))
        os.utime(folder.name(path), dir_fd=folder.descriptor, **NOT_FOLLOWED)


def set_time(path: Path, seconds: float | None = None) -> None:
    """Set the time of a file, in seconds since the epoch; None for now, on the clock of its file server."""
    times = None if seconds is None else (seconds, seconds)
    with holding(path) as folder:
        os.utime(folder.name(path), times, dir_fd=folder.descriptor, **NOT_FOLLOWED)


def sync_file(path: Path) -> None:
    """Force a file to the disk."""
    with holding(path) as folder:
        _sync(folder, path)


def sync_folder(path: Path, *, files: bool = False) -> None:
    """Force the entries of a folder to the disk, so that a rename of it outlives a power loss.

    files: the content of its files too, all at the same time: a disk writes many together as fast as one.
    """
    with opened(path) as folder:
        pending: list[Future[None]] = []
        try:
            if files:
                pending.extend(_sync_threads().submit(_sync, folder, file) for file in path.iterdir())
            _sync_entries(folder)
        finally:
            wait(pending)  # they use the open folder
    for sync in pending:
        sync.result()


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a system writes at most 2 GiB at a time
        rest = rest[os.write(descriptor, rest) :]


def _sync(folder: Folder, path: Path) -> None:
    """Force a file of an open folder to the disk; OSError for a pipe or link in its place."""
    _force(os.open(folder.name(path), os.O_RDONLY | NO_WAIT | NO_LINK, dir_fd=folder.descriptor))


def _sync_entries(folder: Folder) -> None:
    """Force the names in an open folder to the disk."""
    if os.name != "nt":  # where a folder cannot be opened
        _force(
            os.open(folder.path if folder.descriptor is None else ".", os.O_RDONLY, dir_fd=folder.descriptor)
        )


def _force(descriptor: int) -> None:
    """Force an open file or folder to the disk, and close it."""
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _sync_threads() -> ThreadPoolExecutor:
    """Threads that wait for the disk, kept because starting one takes as long as some jobs."""
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="tombola-sync")


# A forked process has none of its parent's threads, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sync_threads.cache_clear)
