"""Index files of a store: what was read of its finished jobs, kept for as long as nothing of them changes.

An index is made again whenever it is missing, damaged or from another version of tombola or of indexes, and
of each job whose folder changed. Only listings rest on it, and nothing is lost with it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from tombola.disk import write_whole
from tombola.errors import StoreError
from tombola.lab.store import Store, is_at_its_place, read_json
from tombola.untrusted import OTHER_FORM
from tombola.version import __version__

# Raised whenever other things are read of the same job, so that old indexes are made again.
_FORM = 2


def change_times(store: Store) -> dict[str, int]:
    """For each finished job the time at which its folder was last changed, in nanoseconds."""
    times: dict[str, int] = {}
    with os.scandir(store.root / "jobs") as shelves:
        for shelf in shelves:
            if len(shelf.name) == 2 and _is_folder(shelf):
                with os.scandir(shelf) as folders:
                    times |= {
                        folder.name: folder.stat().st_mtime_ns
                        for folder in folders
                        if is_at_its_place(folder.name, shelf.name) and _is_folder(folder)
                    }
    return times


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; links that go round in circles are none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_index(store: Store, file: str) -> list[Any]:
    """The rows of an index, of any form; none if it is missing, damaged or of another version of tombola."""
    try:
        content = read_json(store.root / file)
        return list(content["rows"]) if content["tombola"] == [__version__, _FORM] else []
    except (OSError, *OTHER_FORM):
        return []


def write_index(store: Store, file: str, rows: list[Any]) -> None:
    """Keep the rows of an index, where the store can be written to; else they are made again next time."""
    content = {"tombola": [__version__, _FORM], "rows": rows}
    with suppress(StoreError):  # a store of another user's, or a full disk
        write_whole(store.root / file, json.dumps(content).encode())
