"""Garbage collection of a store: weights by a policy, workplaces of dead processes, unreferenced tensors.

A finished job is never removed, only thinned: its numbers, history, provenance and ticket stay, its other
tensors go, and are computed again if a new job needs them. What any result needs to be read stays. Behind
``tombola gc``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tombola import disk
from tombola.counts import bytes_text
from tombola.errors import RecipeError, StoreError, StoreUnwritable, reason, unknown
from tombola.lab.description import is_fingerprint, parents
from tombola.lab.lease import free, holder_text
from tombola.lab.objects import data_record, needed_objects
from tombola.lab.queue import QueueReader
from tombola.lab.store import FOLDERS, TENSORS, Store
from tombola.untrusted import printable

Keep = Literal["all", "needed", "tickets"]

# Names of files until they are complete; see tombola.disk.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}")
# Workplaces that are no job's: imports, results being replaced or removed, and trials of the file system.
_TEMPORARY = re.compile(r"\.(import|recompute|removed|tried)\.[0-9a-f]{8}")
# Seconds for which new files stay: a driver may be about to need them.
_GRACE = 86400.0


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing needs.

    place: its path below the store's root; cause: why it can go; size: in bytes.
    """

    place: str
    cause: str
    size: int

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.cause} ({bytes_text(self.size)})")


def gc(
    store: Store,
    keep: Keep = "all",
    *,
    dry_run: bool = True,
    grace: float = _GRACE,
    busy: str | None = None,
) -> list[Garbage]:
    """What nothing in a store needs; removed unless ``dry_run``.

    keep: "all" keeps the weights of every run; "needed" removes those of runs that other finished jobs were
        made from; "tickets" removes those of all runs. The ticket of a run always stays.
    grace: seconds for which new files stay.
    busy: what is at work on the store, as :func:`work_under_way` said; None to ask it here. While anything
        is, only workplaces of dead processes and unfinished files go: a driver may be about to need the rest.

    Raises :class:`~tombola.errors.StoreError` if something cannot be removed, a folder of the store is a link
    to elsewhere, or a job cannot be read, so that what it needs is unknown (see
    :func:`~tombola.lab.verify.verify`).
    """
    if keep not in get_args(Keep):
        raise RecipeError(unknown("policy of what to keep", keep, get_args(Keep)))
    for name in sorted(FOLDERS):
        if (store.root / name).is_symlink():
            raise StoreError(
                f"{store.root / name} is a link, and nothing is removed beyond the store; "
                "put the folder itself there, or make the whole store a link"
            )
    oldest = time.time() - grace
    garbage = [*_dead_workplaces(store, oldest), *_partial_files(store, oldest)]
    if not (work_under_way(store) if busy is None else busy):
        if keep != "all":
            garbage += _unneeded_weights(store, keep, oldest)
        garbage += _unreferenced_objects(store, oldest)
    if not dry_run:
        try:
            for name in store.names():
                store.finish_restoring(name)  # of one that was cut off
            for item in garbage:
                _remove(store, item)
        except OSError as error:
            raise StoreUnwritable(f"cannot remove from {store.root}: {reason(error)}") from error
    return garbage


def work_under_way(store: Store) -> str:
    """Who is at work on a store, perhaps between two jobs, in words; empty without one."""
    for queue in QueueReader(store).queues():
        return f"{queue.driver} is at work"
    for path in _workplaces(store):
        if not free(path):
            return printable(f"{holder_text(path)} holds work/{path.name[:12]}")
    return ""


def _workplaces(store: Store) -> Iterator[Path]:
    """The workplaces in a store, without links and entries that tombola did not make."""
    for path in sorted((store.root / "work").iterdir()):
        ours = is_fingerprint(path.name) or _TEMPORARY.fullmatch(path.name)
        if ours and path.is_dir() and not path.is_symlink():
            yield path


def _dead_workplaces(store: Store, oldest: float) -> Iterator[Garbage]:
    """Workplaces whose process is dead; one with a checkpoint of an unfinished job stays, to be resumed."""
    for workplace in _workplaces(store):
        if not free(workplace) or not _is_older(workplace, oldest):
            continue
        with suppress(FileNotFoundError):  # another process resumed the job just now, and finished it
            entries = sorted(workplace.iterdir())
            if store.has(workplace.name) and not store.is_thin(workplace.name):
                yield _garbage(store, workplace, "its job is finished")
            elif not any(path.name.startswith("checkpoint") for path in entries):
                yield _garbage(store, workplace, "its owner is gone and left no checkpoint")
            else:
                for staging in (path for path in entries if path.name.startswith("publish.")):
                    yield _garbage(store, staging, "a publication that was cut off")


def _partial_files(store: Store, oldest: float) -> Iterator[Garbage]:
    """Files whose writer died before they were complete."""
    for folder in (store.root, *(store.root / name for name in ("data", "files", "work"))):
        for path in sorted(folder.glob(".*")):
            if _PARTIAL.fullmatch(path.name) and path.is_file() and _is_older(path, oldest):
                yield _garbage(store, path, "a file that was cut off")


def _unneeded_weights(store: Store, keep: Keep, oldest: float) -> Iterator[Garbage]:
    """Tensors of runs that the policy does not keep."""
    names = list(store.names())
    behind = set().union(*(parents(store.description(name)) for name in names))
    for name in names:
        folder = store.folder(name)
        path = folder / TENSORS
        if (keep == "needed" and name not in behind) or not _is_older(path, oldest):
            continue
        if folder.is_symlink() or folder.parent.is_symlink():
            continue
        if "ticket" in store.details(name):  # a run; a ticket is what stays
            why = "weights of a run that others were made from" if name in behind else "weights of a run"
            yield _garbage(store, path, why)


def _unreferenced_objects(store: Store, oldest: float) -> Iterator[Garbage]:
    """Shared tensors that no finished job, no data set and no ticket of a thin run refers to."""
    needed: set[str] = set()
    for path in store.strays():
        raise StoreError(f"{path} is no job where it lies, and what it needs is unknown; delete {path}")
    for name in store.names():
        needed |= needed_objects(store, name)
    for path in (store.root / "data").glob("*.json"):
        record = data_record(store, path.stem)
        if record is not None:
            needed.add(record["fingerprint"])
    for path in sorted((store.root / "objects").iterdir()):
        if path.stem not in needed and _is_older(path, oldest):
            yield _garbage(store, path, "no job refers to it")


def _garbage(store: Store, path: Path, cause: str) -> Garbage:
    return Garbage(str(path.relative_to(store.root)), cause, _size(path))


def _is_older(path: Path, oldest: float) -> bool:
    """Whether a file or folder was last written before a time; False if it was removed meanwhile."""
    try:
        return path.stat().st_mtime <= oldest
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file or folder; 0 if it was removed meanwhile, or is too deep for paths."""
    with suppress(FileNotFoundError, RecursionError):
        if path.is_dir() and not path.is_symlink():
            return sum(_size(entry) for entry in path.iterdir())
        return path.lstat().st_size
    return 0


def _remove(store: Store, item: Garbage) -> None:
    path = store.root / item.place
    if path.name == TENSORS:
        store.thin(path.parent.name)
    elif path.is_symlink() or not path.is_dir():
        disk.remove(path, missing_ok=True)
    elif free(path if path.parent.name == "work" else path.parent):  # still, at this moment
        disk.remove_tree(path)
