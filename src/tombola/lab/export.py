"""Exports: which files of a store go into an archive, to use its results or continue its chains elsewhere.

An export of results holds them in full, the dense starts that they need to be read, and of all jobs behind
them the numbers and histories. An export of tickets holds what a chain needs to go on without any weights:
tickets, the forgetting records of runs, and only those dense starts that no job makes again from a seed.
:mod:`tombola.lab.archive` writes and imports the file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import JobError, StoreError
from tombola.lab.archive import Member, write_archive
from tombola.lab.description import data_names, own_values, shared_start
from tombola.lab.job import described_type
from tombola.lab.objects import needed_objects, object_path
from tombola.lab.starts import StartMakers
from tombola.lab.store import DESCRIPTION, HISTORY, NUMBERS, PROVENANCE, RECORD, TENSORS, THIN, TICKET, Store
from tombola.lab.tickets import (
    Choice,
    chosen_tickets,
    following_tickets,
    is_ticket,
    with_ancestors,
    write_missing_tickets,
)
from tombola.training.trunk import Point

# Of every job in an export, as far as it has them.
_TEXTS = (DESCRIPTION, NUMBERS, PROVENANCE, HISTORY)


def export(
    store: Store,
    names: Iterable[str] | None,
    file: str | os.PathLike[str],
    *,
    weights: bool = True,
    compress: bool = False,
) -> None:
    """Write results of finished jobs to one file, with all that they need to be read.

    names: of the jobs, or their beginnings; None for all that the store has, thin ones as they are.
    weights: False reduces runs and tickets to numbers and histories. Results of measures stay complete.
    compress: deflate all; weights hardly shrink, but all else does.

    Raises :class:`~tombola.errors.JobError` for a job that is not there, and
    :class:`~tombola.errors.StoreError` if one or a job behind it is damaged, or one is thin though its
    weights are asked for, or the file cannot be written.
    """
    wanted = _full_names(store, names)
    for name in wanted:
        if weights and not (names is None and store.is_thin(name)):
            store.packed(name)  # raises for what is damaged or thin
    write_archive(wanted, file, _result_members(store, wanted, weights), compress=compress)


def _full_names(store: Store, names: Iterable[str] | None) -> list[str]:
    """The finished jobs that names or their beginnings stand for; None for all."""
    if isinstance(names, str):
        raise JobError(f"names is {names!r}, one text; give a list of names, [{names!r}]")
    return sorted(store.names()) if names is None else [store.find(name) for name in names]


def _result_members(store: Store, wanted: Collection[str], weights: bool) -> Iterator[Member]:
    """Yields the members of an export of results."""
    behind = with_ancestors(store, wanted)
    objects: set[str] = set()
    for name in sorted(behind):
        _check_texts(store, name)
        details = store.details(name)
        complete = name in wanted and not store.is_thin(name) and (weights or not _holds_weights(details))
        for part in (*_TEXTS, TENSORS if complete else TICKET, *[RECORD] * weights):
            if (path := store.file(name, part)).exists():
                yield f"jobs/{name}/{part}", path
        if complete:
            objects |= needed_objects(store, name)
        elif store.is_thin(name) or store.file(name, TENSORS).exists():
            yield f"jobs/{name}/{THIN}", None
    yield from _shared_members(store, behind, objects)


def _check_texts(store: Store, name: str) -> None:
    """Raises StoreError for a job whose text files were altered."""
    store.checked_description(name)
    store.check(name)


def _holds_weights(details: Mapping[str, Any]) -> bool:
    """Whether tensors with this description are those of a run or a ticket."""
    return "ticket" in details or "start_kept" in details


def _shared_members(store: Store, behind: Collection[str], objects: Collection[str]) -> Iterator[Member]:
    """Yields the tensors and records of data that exported jobs share."""
    for fingerprint in sorted(objects):
        path = object_path(store, fingerprint)
        if path.exists():
            yield f"objects/{path.name}", path
    for name in sorted(set().union(*(data_names(store.description(job)) for job in behind))):
        path = store.root / "data" / f"{name}.json"
        if path.exists():
            yield f"data/{path.name}", path


@dataclass(frozen=True)
class Exported:
    """What an export of tickets holds.

    jobs: how many jobs that are no tickets; tickets: how many tickets with their masks.
    carried: the dense starts in it by fingerprint, each with its bytes and why no job makes it again.
    """

    jobs: int
    tickets: int
    carried: dict[str, tuple[int, str]]


def export_tickets(
    store: Store,
    names: Iterable[str] | None,
    file: str | os.PathLike[str],
    tickets: str | int | Iterable[str | int] = "all",
    *,
    compress: bool = False,
) -> Exported:
    """Write tickets, numbers, histories and forgetting records: what a chain needs to go on without weights.

    names: as for :func:`export`.
    tickets: whose masks: ``"all"``, the ``"newest"`` of each chain, those of rounds by their numbers, or
        several of these. Of the others there are the numbers.
    compress: as for :func:`export`.

    A dense start that can be made again from its seed stays behind; any other is included. Tickets that an
    older store has only within its runs, and the next one of a chain whose last run has its weights, are
    added to the store first.

    Raises as :func:`export` does, and :class:`~tombola.errors.StoreError` for a ticket whose start is gone.
    """
    choice = Choice.of(tickets)
    wanted = _full_names(store, names)
    write_missing_tickets(store, with_ancestors(store, wanted))
    # Those of all rounds may have come about just now.
    wanted = sorted(store.names() if names is None else {*wanted, *following_tickets(store, wanted)})
    behind = with_ancestors(store, wanted)
    chosen = chosen_tickets(store, behind, choice)
    carried = _carried_starts(store, behind, chosen)
    with tempfile.TemporaryDirectory() as folder:
        members = _ticket_members(store, behind, chosen, set(carried), Path(folder))
        write_archive(wanted, file, members, compress=compress)
    return Exported(sum(not is_ticket(store, name) for name in behind), len(chosen), carried)


def _carried_starts(
    store: Store, behind: Collection[str], chosen: Collection[str]
) -> dict[str, tuple[int, str]]:
    """The dense starts of tickets that no job makes again: the size of each in bytes, and why."""
    carried: dict[str, tuple[int, str]] = {}
    makers = StartMakers(store)
    for name in sorted(behind):
        if store.is_thin(name) or not (name in chosen or _is_first_ticket(store, name)):
            continue
        start = shared_start(store.details(name))
        cause = makers.cause_to_carry(name) if start and start not in carried else None
        if start is None or cause is None:
            continue
        path = object_path(store, start)
        if not path.exists():
            raise StoreError(f"the dense start {start[:12]} of job {name[:12]} is gone, and {cause}")
        carried[start] = path.stat().st_size, cause
    return carried


def _is_first_ticket(store: Store, name: str) -> bool:
    """Whether a finished job is a ticket that no round made: an initialisation, a pretraining or the like."""
    return "start_kept" in store.details(name) and not is_ticket(store, name)


def _ticket_members(
    store: Store, behind: Collection[str], chosen: Collection[str], carried: Collection[str], scratch: Path
) -> Iterator[Member]:
    """Yields the members of an export of tickets; ``scratch`` is a folder for files written only for it."""
    values: set[str] = set()
    for name in sorted(behind):
        _check_texts(store, name)
        details, thin = store.details(name), store.is_thin(name)
        weightless = not thin and not _holds_weights(details) and not _is_point(store, name)
        start = shared_start(details) if not thin else None
        complete = weightless or name in chosen or (start in carried and _is_first_ticket(store, name))
        if complete:
            store.packed(name)  # raises for what is damaged
        for part in (*_TEXTS, *[TENSORS] * complete):
            if (path := store.file(name, part)).exists():
                yield f"jobs/{name}/{part}", path
        if weightless:
            values |= own_values(store.description(name))
        if complete:
            continue
        if thin or store.file(name, TENSORS).exists():
            yield f"jobs/{name}/{THIN}", None
        if "ticket" in details and not thin:
            store.write_forgetting_record(name, scratch / RECORD)
            yield f"jobs/{name}/{RECORD}", scratch / RECORD
        elif (path := store.file(name, RECORD)).exists():
            yield f"jobs/{name}/{RECORD}", path
    yield from _shared_members(store, behind, set(carried) | values)


def _is_point(store: Store, name: str) -> bool:
    """Whether a finished job is a point of a trunk: weights to branch off from, which a job makes again."""
    try:
        return described_type(store.description(name)) is Point
    except JobError:
        return False  # of a function that is not declared here
