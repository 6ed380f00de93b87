"""Removing what nothing needs from a store: weights by a policy, places of dead owners, loose tensors.

A finished job is never removed, only thinned: its numbers, history, provenance and ticket stay, its other
tensors go, and are computed again if a new job asks for them. What any result needs to be read stays.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tombola.errors import RecipeError, StoreError, StoreUnwritable, reason, unknown
from tombola.lab.description import is_fingerprint, own_values, parents, shared_start
from tombola.lab.lease import free
from tombola.lab.objects import data_record
from tombola.lab.store import FOLDERS, Store

Keep = Literal["all", "needed", "tickets"]

# How files are called until they are whole; see tombola.atomic.
_BESIDE = re.compile(r"\..+\.[0-9a-f]{8}")
# Places of work that are no job's: an import, results that are replaced, and what is tried of a file system.
_PASSING = re.compile(r"\.(import|recompute|tried)\.[0-9a-f]{8}")
# Seconds that everything stays: somebody may be about to need it.
_GRACE = 86400.0


@dataclass(frozen=True)
class Removal:
    """Something that nothing needs.

    place: the file or folder, below the store's root; cause: why it can go; size: in bytes.
    """

    place: str
    cause: str
    size: int

    def __str__(self) -> str:
        return f"{self.place}: {self.cause} ({self.size:,} bytes)"


def gc(store: Store, keep: Keep = "all", *, dry_run: bool = True, grace: float = _GRACE) -> list[Removal]:
    """What nothing in a store needs; removed unless ``dry_run``.

    keep: "all" leaves every result whole; "needed" takes the weights of runs that other finished jobs were
        made from; "tickets" those of all runs. The ticket of a run always stays.
    grace: seconds for which everything stays that was written. While a job is under way, only places of dead
        owners go: a driver may be about to need the rest.

    Raises :class:`~tombola.errors.StoreError` if something cannot be removed, a folder of the store is a link
    to elsewhere, or a job cannot be read: then nobody knows what it needs (see
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
    found = [*_dead_places(store, oldest), *_cut_off_files(store, oldest)]
    if not _busy(store):
        if keep != "all":
            found += _weights(store, keep, oldest)
        found += _loose_objects(store, oldest)
    if not dry_run:
        try:
            for removal in found:
                _remove(store, removal)
        except OSError as error:
            raise StoreUnwritable(f"cannot remove from {store.root}: {reason(error)}") from error
    return found


def _busy(store: Store) -> bool:
    """Whether anybody works on a job in a store."""
    return any(not free(place) for place in _places(store))


def _places(store: Store) -> Iterator[Path]:
    """The places of work in a store; anything else, and what links lead to, is not the store's to judge."""
    for place in sorted((store.root / "work").iterdir()):
        ours = is_fingerprint(place.name) or _PASSING.fullmatch(place.name)
        if ours and place.is_dir() and not place.is_symlink():
            yield place


def _dead_places(store: Store, oldest: float) -> Iterator[Removal]:
    """Places whose owners are dead; a checkpoint of an unfinished job stays, since it goes on from there."""
    for place in _places(store):
        if not free(place) or not _is_older(place, oldest):
            continue
        with suppress(FileNotFoundError):  # somebody took it up just now, and finished
            inside = sorted(place.iterdir())
            if store.has(place.name) and not store.is_thin(place.name):
                yield _removal(store, place, "its job is finished")
            elif not any(path.name.startswith("checkpoint") for path in inside):
                yield _removal(store, place, "its owner is gone and left no checkpoint")
            else:
                for half in (path for path in inside if path.name.startswith("publish.")):
                    yield _removal(store, half, "a publication that was cut off")


def _cut_off_files(store: Store, oldest: float) -> Iterator[Removal]:
    """Files that were being written beside their place when their writer died."""
    for folder in (store.root, *(store.root / name for name in ("data", "files", "work"))):
        for path in sorted(folder.glob(".*")):
            if _BESIDE.fullmatch(path.name) and path.is_file() and _is_older(path, oldest):
                yield _removal(store, path, "a file that was cut off")


def _weights(store: Store, keep: Keep, oldest: float) -> Iterator[Removal]:
    """Tensors of runs that the policy does not keep."""
    names = list(store.names())
    behind = set().union(*(parents(store.description(name)) for name in names))
    for name in names:
        folder = store.folder(name)
        path = folder / "result.safetensors"
        if (keep == "needed" and name not in behind) or not _is_older(path, oldest):
            continue
        if folder.is_symlink() or folder.parent.is_symlink():
            continue
        if "ticket" in store.details(name):  # a run; a ticket is what stays
            why = "weights of a run that others were made from" if name in behind else "weights of a run"
            yield _removal(store, path, why)


def _loose_objects(store: Store, oldest: float) -> Iterator[Removal]:
    """Shared tensors that no finished job, no data set and no ticket of a thinned run refers to."""
    needed: set[str] = set()
    for name in store.names():
        needed |= own_values(store.description(name))
        start = shared_start(store.details(name))
        if start is not None:
            needed.add(start)
    for record in (store.root / "data").glob("*.json"):
        found = data_record(store, record.stem)
        if found is not None:
            needed.add(found["fingerprint"])
    for path in sorted((store.root / "objects").iterdir()):
        if path.stem not in needed and _is_older(path, oldest):
            yield _removal(store, path, "no job refers to it")


def _removal(store: Store, path: Path, cause: str) -> Removal:
    return Removal(str(path.relative_to(store.root)), cause, _size(path))


def _is_older(path: Path, oldest: float) -> bool:
    """Whether something was last written by then; not if it is gone: drivers go on while a store is read."""
    try:
        return path.stat().st_mtime <= oldest
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    """In bytes; what is gone meanwhile counts for nothing."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            return sum(_size(each) for each in path.iterdir())
        return path.lstat().st_size
    return 0


def _remove(store: Store, removal: Removal) -> None:
    path = store.root / removal.place
    if path.name == "result.safetensors":
        store.thin(path.parent.name)
    elif path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif free(path if path.parent.name == "work" else path.parent):  # still, at this moment
        with suppress(FileNotFoundError):  # somebody else removes it as well
            shutil.rmtree(path)
