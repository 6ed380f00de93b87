"""Atomic writes: a file appears with its full content or not at all, and then outlives a power loss."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tombola.errors import unwritable


def write_whole(path: Path, content: bytes, *, make_folder: bool = False, synced: bool = True) -> None:
    """Write a file atomically: to a temporary file in the same folder, forced to the disk, then renamed.

    make_folder: make the folder too, if need be.
    synced: whether the file must outlive a power loss; otherwise only the death of this process.

    Raises :class:`~tombola.errors.StoreUnwritable` when the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if synced:
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def sync_folder(folder: Path, *, files: bool = False) -> None:
    """Force the entries of a folder to the disk, so that a rename of it outlives a power loss.

    files: the content of its files too, all at the same time: a disk writes many together as fast as one.
    """
    pending = [_sync_threads().submit(_sync, path) for path in folder.iterdir()] if files else []
    _sync(folder)
    for sync in pending:
        sync.result()


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
