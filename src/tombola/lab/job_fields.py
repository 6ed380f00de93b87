"""What each finished job measured, as fields to choose it by: behind ``tombola ls --where``.

They are read off the descriptions of a job and of all behind it, which takes PyTorch, and then kept in an
index (``.fields.json``). What is kept of a job counts as long as its folder and those of all jobs behind it
are the same; a change of one has the fields of all that rest on it read again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tombola.errors import JobError, StoreError
from tombola.lab.description import parents
from tombola.lab.index import read_index, write_index
from tombola.lab.store import Store
from tombola.source import declared_here
from tombola.table.key import Scalar
from tombola.untrusted import OTHER_FORM

_INDEX = ".fields.json"

Fields = Mapping[str, Scalar]


class _IndexedFields(NamedTuple):
    """What is kept of a job.

    changed: when its folder was changed, in nanoseconds. behind: the jobs whose results it takes, whether
    they are there or not. fields: None if it is damaged.
    """

    changed: int
    behind: tuple[str, ...]
    fields: Fields | None


def fields_of_jobs(store: Store, names: Iterable[str], changed: Mapping[str, int]) -> dict[str, Fields]:
    """The fields of some finished jobs, in their order, without those that are damaged.

    changed: for each job of the store the time of its last change, taken before.
    """
    # What an own function gives, only a process knows that declares it; the index is for all.
    own = any(declared_here().values())
    entries = _read(store, names, changed) if own else _indexed(store, changed)
    kept = ((name, entries[name].fields) for name in names if name in entries)
    return {name: fields for name, fields in kept if fields is not None}


def _indexed(store: Store, changed: Mapping[str, int]) -> dict[str, _IndexedFields]:
    """What is known of all jobs of a store; updates the index."""
    index = _index(store)
    odd = {name for name in changed if name not in index}
    odd |= {name for name, entry in index.items() if entry.changed != changed.get(name)}
    if not odd:
        return index
    outdated = _resting_on(odd, index)
    entries = {name: entry for name, entry in index.items() if name not in outdated}
    entries |= _read(store, (name for name in changed if name in outdated), changed)
    # What could not be read is read again next time: it may have been another process or a disk.
    kept = {name: entry for name, entry in entries.items() if entry.fields is not None}
    if kept != index:
        rows = [[name, entry.changed, entry.behind, entry.fields] for name, entry in kept.items()]
        write_index(store, _INDEX, rows)
    return entries


def _resting_on(names: set[str], index: Mapping[str, _IndexedFields]) -> set[str]:
    """Some jobs and all that take their results, directly or not."""
    taken_by: dict[str, list[str]] = defaultdict(list)
    for name, entry in index.items():
        for parent in entry.behind:
            taken_by[parent].append(name)
    reached, pending = set(names), list(names)
    while pending:
        new = [child for child in taken_by[pending.pop()] if child not in reached]
        reached.update(new)
        pending += new
    return reached


def _read(store: Store, names: Iterable[str], changed: Mapping[str, int]) -> dict[str, _IndexedFields]:
    """What the descriptions of some jobs, and of those behind them, say."""
    from tombola.lab.lineages import Lineages
    from tombola.lab.measurement import measurement_of

    lineages, entries = Lineages(store, ()), {}
    for name in names:
        behind: tuple[str, ...] = ()
        fields: dict[str, Scalar] | None = None
        try:
            behind = tuple(sorted(parents(lineages.description(name))))
            measured = measurement_of(lineages, name)
            fields = {
                **measured.hidden, **measured.fields, "function": measured.function,
                "kind": measured.kind, "epochs": measured.epochs, "seed": measured.seed,
            }  # fmt: skip
        except (JobError, StoreError, *OTHER_FORM):  # damaged, or removed by another process just now
            pass
        entries[name] = _IndexedFields(changed[name], behind, fields)
    return entries


def _index(store: Store) -> dict[str, _IndexedFields]:
    """What the index has of each job; {} if it has another form."""
    try:
        return {str(name): _checked_entry(*row) for name, *row in read_index(store, _INDEX)}
    except OTHER_FORM:
        return {}


def _checked_entry(changed: object, behind: list[Any], fields: dict[str, Any] | None) -> _IndexedFields:
    """An entry of values from a file; ValueError or TypeError if one is of another type."""
    if not isinstance(changed, int) or not isinstance(behind, list) or not isinstance(fields, dict | None):
        raise TypeError("an entry of another form")
    if fields is not None and not all(isinstance(value, Scalar | None) for value in fields.values()):
        raise TypeError("a field of another type")
    return _IndexedFields(changed, tuple(map(str, behind)), fields)
