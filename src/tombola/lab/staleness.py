"""Results that were made by another text of the user's own function or network than the present one.

Names are declared and versions raised by hand, so an edit alone computes nothing anew. What a finished job
recorded of the source it was made by (see :mod:`tombola.source`) is compared with the source of today
whenever its result is used again, and an edit is told once. Initialisation schemes count as networks do.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, get_args

from tombola.errors import JobError, StoreError
from tombola.lab.job import Job, all_needed
from tombola.lab.store import Store
from tombola.registry import declaration
from tombola.source import FORM, Kind, Use, declared_here, is_same, source_fingerprint

Record = Mapping[Kind, Mapping[str, Any]]

# What this process has told already.
_told: set[Use] = set()


def tell_stale(
    store: Store, jobs: Iterable[Job], known: dict[str, Record], removed: Collection[str] = ()
) -> None:
    """Warn, once a process for each, of what the user declared and edited since.

    jobs: whose results are used, and those of all jobs behind them, as far as they are finished.
    known: what was read of finished jobs before; what is read now is added.
    removed: names of finished jobs that will be computed anew.
    """
    names = {
        kind: {name for name in own if source_fingerprint(kind, name) is not None}
        for kind, own in declared_here().items()
    }
    if not any(names.values()):
        return
    results = _edited(store, all_needed(jobs), names, known, removed)
    for use, count in results.items():
        if use not in _told:
            _told.add(use)
            warnings.warn(_words(use, count), stacklevel=3)


def forget_told(uses: Iterable[Use]) -> None:
    """Tell of these again, should they be edited once more: their results are being replaced."""
    _told.difference_update(uses)


def source_record(store: Store, name: str) -> Record | None:
    """The fingerprints that a finished job keeps, of this form; None if it is not there."""
    try:
        kept = store.provenance(name).get("source")
    except JobError:
        return None
    except StoreError:
        return {}  # its damage is told when its result is read
    if not isinstance(kept, dict) or kept.get("form") != FORM:
        return {}
    return {kind: value for kind in get_args(Kind) if isinstance(value := kept.get(kind), dict)}


def is_edited_network(store: Store, name: str, network: str) -> bool:
    """Whether a finished job was made with another text of the user's own network than the present one.

    network: as it stands in jobs.
    """
    kept = (source_record(store, name) or {}).get("networks", {}).get(network)
    return isinstance(kept, dict) and _differs(("networks", network), kept)


def _edited(
    store: Store,
    needed: Mapping[str, Job],
    names: Mapping[Kind, set[str]],
    known: dict[str, Record],
    removed: Collection[str],
) -> Counter[Use]:
    """What was edited, with the number of finished results that rest on it.

    needed: jobs, each after those behind it. Only those that involve the user's own are read.
    """
    results: Counter[Use] = Counter()
    involved: set[str] = set()
    older: dict[str, set[Use]] = {}  # by job: what was edited since, for it and for those behind it
    for name, job in needed.items():
        behind = [need.name for need in job.needs]
        if not (any(each in involved for each in behind) or _involves(job, names)):
            continue
        involved.add(name)
        if name in removed:
            continue
        record = known.get(name)
        if record is None:
            record = source_record(store, name)
            if record is None:
                continue
            known[name] = record
        edited = {use for use, kept in _entries(record) if _differs(use, kept)}
        older[name] = edited.union(*(older.get(each, ()) for each in behind))
        if job.counted:
            results.update(older[name])
    return results


def _entries(record: Record) -> Iterator[tuple[Use, Mapping[str, str]]]:
    for kind, entries in record.items():
        for name, kept in entries.items():
            if isinstance(kept, dict):
                yield (kind, name), kept


def _differs(use: Use, kept: Mapping[str, str]) -> bool:
    """Whether what is declared now is known to be another text."""
    present = source_fingerprint(*use)
    return present is not None and not is_same(kept, present)


def _involves(job: Job, names: Mapping[Kind, set[str]]) -> bool:
    """Whether a job itself, or a call that is made again within it, may run the user's own code."""
    parts = names["networks"] | names["inits"]
    pending = [job]
    while pending:
        each = pending.pop()
        if each.declaration.name in names["functions"]:
            return True
        if any(_names_part(value, parts) for value in each.arguments.values()):
            return True
        if any(not parts.isdisjoint(_parts_of(value)) for value in each.values.values()):
            return True
        pending.extend(parent for parent in each.parents if not parent.stored)
    return False


def _names_part(value: Any, parts: set[str]) -> bool:
    """Whether an argument names one of these networks and schemes, or a finished job of whichever."""
    if isinstance(value, str):
        return value in parts
    if isinstance(value, list):
        return any(_names_part(item, parts) for item in value)
    if isinstance(value, dict):
        return "job" in value or any(_names_part(item, parts) for item in value.values())
    return False


def _parts_of(value: Any) -> set[str]:
    """The network of a ticket or run, and the scheme that drew its first weights, if it is not its own."""
    network = getattr(value, "ticket", value).network
    return {network.written} if network.init is None else {network.written, network.init}


def _words(use: Use, count: int) -> str:
    """What was edited, how many results that concerns, and what to do."""
    kind, name = use
    results = f"{count} result{'s' * (count != 1)}"
    bare, _, version = name.partition("@")
    if kind == "functions":
        what, higher = f"{name} was edited", declaration(name).version + 1
        remedy = f'@declare("{name}", version={higher})'
    else:
        word, decorator = ("network", "network") if kind == "networks" else ("initialisation", "init")
        what, higher = f"{word} {name} was edited", int(version) + 1 if version.isdigit() else 2
        remedy = f'@declare_{decorator}("{bare}", version={higher})'
    return (
        f"{what} since {results} used here {'were' if count != 1 else 'was'} made with it under its name and "
        f"version: if its numbers changed, raise the version, {remedy}, or have all that rests on it "
        f'computed anew, by --recompute {name} or Lab.run(recompute=["{name}"])'
    )
