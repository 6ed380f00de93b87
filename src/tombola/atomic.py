"""Files that appear at their place whole or not at all."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tombola.errors import unwritable


def write_whole(path: Path, content: bytes, *, make_folder: bool = False, synced: bool = True) -> None:
    """Write beside the place, force it to the disk, then rename: a reader never finds half a file.

    make_folder: make the folder too, if need be.
    synced: whether it must outlive a power cut; without, only the death of this process.

    Raises :class:`~tombola.errors.StoreUnwritable` when the place cannot be written to.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            beside.replace(path)
            if synced:
                _sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def sync_folder(folder: Path, *, files: bool = False) -> None:
    """Force the entries of a folder to the disk, so that a rename of it outlives a power cut.

    files: the content of its files too, all at the same time: a disk takes many together as fast as one.
    """
    others = [_syncers().submit(_sync, path) for path in folder.iterdir()] if files else []
    _sync(folder)
    for other in others:
        other.result()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # where a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def _syncers() -> ThreadPoolExecutor:
    """Threads that wait for the disk; kept, for jobs that take no longer than to start one."""
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="tombola-sync")
