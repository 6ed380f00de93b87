"""Stale results: made with the user's own function, network, scheme, score or part of a recipe.

Names are declared and versions raised by hand, so an edit alone computes nothing anew. The source
fingerprints in a finished job's provenance (see :mod:`tombola.source`) are compared with those of the present
source whenever its result is used, and the user is warned once of each edit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, get_args

from tombola.declarations import BY_KIND
from tombola.errors import JobError, StoreError
from tombola.lab.job import Job, all_needed
from tombola.lab.store import Store
from tombola.registry import declaration
from tombola.source import FORM, Kind, Use, declared_here, is_same, source_fingerprint
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.warn import warn

Record = Mapping[Kind, Mapping[str, Any]]
"""The source fingerprints in a provenance: by kind, then by declared name."""

# The edits that this process has warned of.
_warned: set[Use] = set()


def warn_stale(
    store: Store, jobs: Iterable[Job], records: dict[str, Record], removed: Collection[str] = ()
) -> None:
    """Warn of the user's own definitions that were edited since results were made, once a process for each.

    jobs: whose results are used, and those of all jobs behind them, as far as they are finished.
    records: of finished jobs by name, as far as they were read before; those that are read now are added.
    removed: names of finished jobs that will be computed anew.
    """
    names = {
        kind: {name for name in own if source_fingerprint(kind, name) is not None}
        for kind, own in declared_here().items()
    }
    if not any(names.values()):
        return
    results = _stale_results(store, all_needed(jobs), names, records, removed)
    for use, count in results.items():
        if use not in _warned:
            _warned.add(use)
            warn(_warning(use, count))


def forget_warnings(uses: Iterable[Use]) -> None:
    """Warn of these definitions again after another edit; called when their results are replaced."""
    _warned.difference_update(uses)


def source_record(store: Store, name: str) -> Record | None:
    """The source fingerprints of a finished job, none if they have another form; None if it is not there."""
    try:
        kept = store.provenance(name).get("source")
    except JobError:
        return None
    except StoreError:
        return {}  # its damage is reported when its result is read
    if not isinstance(kept, dict) or kept.get("form") != FORM:
        return {}
    return {kind: value for kind in get_args(Kind) if isinstance(value := kept.get(kind), dict)}


def is_edited_network(store: Store, name: str, network: str) -> bool:
    """Whether the user's own network was edited since a finished job was made with it.

    network: its name with version, as jobs have it.
    """
    kept = (source_record(store, name) or {}).get("networks", {}).get(network)
    return isinstance(kept, dict) and _differs(("networks", network), kept)


def _stale_results(
    store: Store,
    needed: Mapping[str, Job],
    names: Mapping[Kind, set[str]],
    records: dict[str, Record],
    removed: Collection[str],
) -> Counter[Use]:
    """The edited definitions, each with the number of finished results that rest on it.

    needed: jobs, each after those behind it. Only those that can involve the user's own definitions are read.
    """
    results: Counter[Use] = Counter()
    involved: set[str] = set()
    edits: dict[str, set[Use]] = {}  # by job: what was edited since it and those behind it were made
    for name, job in needed.items():
        behind = [need.name for need in job.needs]
        if not (any(need in involved for need in behind) or _involves(job, names)):
            continue
        involved.add(name)
        if name in removed:
            continue
        record = records.get(name)
        if record is None:
            record = source_record(store, name)
            if record is None:
                continue
            records[name] = record
        edited = {use for use, kept in _entries(record) if _differs(use, kept)}
        edits[name] = edited.union(*(edits.get(need, ()) for need in behind))
        if job.counted:
            results.update(edits[name])
    return results


def _entries(record: Record) -> Iterator[tuple[Use, Mapping[str, str]]]:
    for kind, entries in record.items():
        for name, kept in entries.items():
            if isinstance(kept, dict):
                yield (kind, name), kept


def _differs(use: Use, kept: Mapping[str, str]) -> bool:
    """Whether the present source has another fingerprint; False if it has none to compare."""
    present = source_fingerprint(*use)
    return present is not None and not is_same(kept, present)


def _involves(job: Job, names: Mapping[Kind, set[str]]) -> bool:
    """Whether a job itself, or an unstored one that runs within it, may execute the user's own code."""
    parts = set().union(*(own for kind, own in names.items() if kind != "functions"))
    pending = [job]
    while pending:
        call = pending.pop()
        if call.declaration.name in names["functions"]:
            return True
        if any(_names_part(value, parts) for value in call.arguments.values()):
            return True
        if any(not parts.isdisjoint(_parts_of(value)) for value in call.values.values()):
            return True
        pending.extend(parent for parent in call.parents if not parent.stored)
    return False


def _names_part(value: object, parts: set[str]) -> bool:
    """Whether an argument names one of these networks, parts of a training, ..., or a finished job."""
    if isinstance(value, str):
        return value in parts
    if isinstance(value, list):
        return any(_names_part(item, parts) for item in value)
    if isinstance(value, dict):
        return "job" in value or any(_names_part(item, parts) for item in value.values())
    return False


def _parts_of(value: Ticket | Run) -> set[str]:
    """The network of a ticket or run, and its initialisation scheme if that is not the network's own."""
    network = (value.ticket if isinstance(value, Run) else value).network
    return {network.written} if network.init is None else {network.written, network.init}


def _warning(use: Use, count: int) -> str:
    """The warning for an edited definition: how many results it affects, and what to do."""
    kind, name = use
    results = f"{count} result{'s' * (count != 1)}"
    bare, _, version = name.partition("@")
    if kind == "functions":
        what, higher = f"{name} was edited", declaration(name).version + 1
        remedy = f'@declare("{name}", version={higher})'
    else:
        definitions = BY_KIND[kind]
        what, higher = f"{definitions.kind} {name} was edited", int(version) + 1 if version.isdigit() else 2
        remedy = f'@{definitions.decorator}("{bare}", version={higher})'
    return (
        f"{what} since {results} used here {'were' if count != 1 else 'was'} made with it under its name and "
        f"version: if its numbers changed, raise the version, {remedy}, or have all that rests on it "
        f'computed anew, by --recompute {name} or Lab.run(recompute=["{name}"])'
    )
