"""Checks that a file system renames, links and keeps times as a store's leases and publication need it.

Most do. Some network and object stores, and old formats of USB sticks, do not, and results would be lost or
computed twice without a message. So the check runs in the store itself before anything is computed.
"""

from __future__ import annotations

import errno
import socket
import uuid
from pathlib import Path

from tombola import disk
from tombola.errors import StoreError, StoreUnwritable, unwritable
from tombola.lab.lease import HEARTBEAT

# Errors of a full disk say nothing about its file system.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_file_system(folder: Path) -> None:
    """Tries in a folder all that a store does to files.

    Raises :class:`~tombola.errors.StoreUnwritable` if it cannot be written to, and
    :class:`~tombola.errors.StoreError` if its file system lacks something.
    """
    trial = folder / f".tried.{uuid.uuid4().hex[:8]}"
    try:
        disk.make_folder(trial)
        disk.write_part(trial / "file", b"tried")
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        for ability, works in (
            ("replace a file by renaming another", _replaces),
            ("give a file a second name that is free", _links_once),
            ("rename a folder to a name that is free", _renames_folders),
            (f"tell times that lie {HEARTBEAT / 2:.0f} s apart", _tells_times_apart),
        ):
            try:
                is_able = works(trial)
            except OSError as error:
                if error.errno in _FULL:
                    raise _unwritable(folder, error) from error
                is_able = False
            if not is_able:
                raise StoreError(
                    f"the file system of {folder} on {socket.gethostname()} cannot {ability}; put the "
                    "store on a local disk, NFS 4, Lustre or GPFS"
                )
    finally:
        disk.remove_tree(trial, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> StoreUnwritable:
    """The error of a folder that this machine cannot write to."""
    return unwritable(f"{folder} on {socket.gethostname()}", error)


def _replaces(place: Path) -> bool:
    disk.write_part(place / "other", b"newer")
    disk.replace(place / "other", place / "file")
    return (place / "file").read_text() == "newer"


def _links_once(place: Path) -> bool:
    disk.link(place / "file", place / "second")
    try:
        disk.link(place / "file", place / "second")
    except FileExistsError:
        return True
    return False


def _renames_folders(place: Path) -> bool:
    for name in ("staging", "other"):
        disk.make_folder(place / name)
        disk.write_part(place / name / name, b"")
    disk.rename(place / "staging", place / "published")
    try:
        disk.rename(place / "other", place / "published")
    except OSError:
        return [path.name for path in (place / "published").iterdir()] == ["staging"]
    return False


def _tells_times_apart(place: Path) -> bool:
    seen = []
    for seconds in (0.0, HEARTBEAT / 2):
        disk.set_time(place / "file", 1e9 + seconds)
        seen.append((place / "file").stat().st_mtime)
    return seen[0] < seen[1]
