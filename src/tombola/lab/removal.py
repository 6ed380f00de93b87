"""Removal of finished jobs from a store, and what others were made from them: behind ``tombola rm``.

A job leaves by one rename, under its lease, so that it is there whole or not at all; what a cut-off removal
leaves behind, :mod:`tombola.lab.gc` takes away. Shared tensors that nothing refers to any more are left to it
too.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tombola import disk
from tombola.errors import JobError, StoreError, StoreUnwritable, reason
from tombola.lab import lease as leases
from tombola.lab.description import parents
from tombola.lab.listing import JobRow, job_row
from tombola.lab.queue import QueueReader
from tombola.lab.store import Store
from tombola.untrusted import OTHER_FORM


@dataclass(frozen=True)
class RemovedJob:
    """A job to remove.

    row: what it is, or None if it cannot be read. size: bytes of its folder.
    """

    name: str
    row: JobRow | None
    size: int


def removals(
    store: Store, prefixes: Sequence[str], *, dependents: bool = False
) -> tuple[list[RemovedJob], list[str]]:
    """What would be removed with some jobs, and the names of finished jobs that would be orphaned.

    prefixes: jobs by name or the beginning of it. dependents: remove what was made from them as well, and
    first, so that a removal that is cut off orphans nothing.
    Orphaned jobs keep their results; what needs the removed ones again computes them again.

    Raises :class:`~tombola.errors.JobError` for no job or a name that is not in the store, and
    :class:`~tombola.errors.StoreError` for a job that lies behind a link.
    """
    if not prefixes:
        raise JobError("no job is named; tombola ls lists their names")
    chosen = dict.fromkeys(store.find(prefix) for prefix in prefixes)
    made_from = _made_from(store)
    behind = _all_made_from(made_from, chosen)
    names = [*(name for name in reversed(behind) if dependents), *chosen]
    for name in names:
        _check_links(store, name)
    orphans = [] if dependents else behind
    return [_removal(store, name) for name in names], orphans


def check_unneeded(store: Store, names: Iterable[str]) -> None:
    """Raises :class:`~tombola.errors.JobError` for a job that a driver needs for others that it computes.

    Asked of all before the first is removed: without what was made from it, a job may be needed again.
    """
    reader = QueueReader(store)
    for name in names:
        queue = reader.needing(name)
        if queue is not None:
            raise JobError(f"{queue.driver} needs job {name[:12]} for others that it computes; stop it first")


def remove_job(store: Store, name: str) -> None:
    """Remove a finished job; one that is gone already stays gone. :func:`check_unneeded` comes before.

    Raises :class:`~tombola.errors.JobError` while a process works on it,
    :class:`~tombola.errors.StoreError` for one that lies behind a link, and
    :class:`~tombola.errors.StoreUnwritable` if it cannot be removed.
    """
    _check_links(store, name)
    folder = store.folder(name)
    workplace = store.workplace(name)
    lease = leases.acquire(workplace)
    if lease is None:
        raise JobError(f"{leases.holder_text(workplace)} is working on job {name[:12]}; stop it first")
    aside = store.root / "work" / f".removed.{uuid.uuid4().hex[:8]}"
    try:
        with suppress(FileNotFoundError):
            disk.rename(folder, aside)
            disk.sync_folder(folder.parent)
            disk.remove_tree(aside)
    except OSError as error:
        raise StoreUnwritable(f"cannot remove {folder}: {reason(error)}") from error
    finally:
        lease.clear()
        lease.release()


def _check_links(store: Store, name: str) -> None:
    """Raises StoreError if a job's folder, or where it is moved on its way out, lies behind a link."""
    folder = store.folder(name)
    for place in (store.root / "work", store.root / "jobs", folder.parent, folder):
        if place.is_symlink():
            raise StoreError(f"{place} is a link, and nothing is removed beyond the store; remove it by hand")


def _made_from(store: Store) -> dict[str, list[str]]:
    """The finished jobs that were made from each job."""
    made_from: dict[str, list[str]] = {}
    for name in store.names():
        try:
            behind = parents(store.description(name))
        except (StoreError, *OTHER_FORM):
            continue  # damaged: what it was made from is not known
        for parent in behind:
            made_from.setdefault(parent, []).append(name)
    return made_from


def _all_made_from(made_from: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    """All jobs that were made from some, directly or not, without these, the nearest first."""
    seen = dict.fromkeys(names)
    first = len(seen)
    pending = deque(seen)
    while pending:
        for name in sorted(made_from.get(pending.popleft(), ())):
            if name not in seen:
                seen[name] = None
                pending.append(name)
    return list(seen)[first:]


def _removal(store: Store, name: str) -> RemovedJob:
    try:
        row = job_row(store, name)
    except (StoreError, *OTHER_FORM):
        row = None  # damaged ones can be removed, too
    size = sum(path.lstat().st_size for path in store.folder(name).iterdir())
    return RemovedJob(name, row, size)
