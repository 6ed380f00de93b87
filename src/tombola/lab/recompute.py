"""Replacing what was made by a user's own function or with their network, and all that was made from it.

The finished jobs leave the store first, those that rest on others before these: whatever interrupts that, no
result is left whose parents are of another time. They are then missing like any other, and are computed when
they are asked for.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tombola import files
from tombola.atomic import sync_folder
from tombola.errors import JobError, StoreError, TombolaError, unknown, unwritable
from tombola.lab.description import calls, is_fingerprint, own_values, parents
from tombola.lab.job import Job, all_needed
from tombola.lab.lease import free
from tombola.lab.objects import object_path
from tombola.lab.staleness import forget_told, source_record
from tombola.lab.store import Store
from tombola.networks.initialization import init_names, written_init
from tombola.networks.network import Network, network_names
from tombola.networks.versions import bare_name
from tombola.registry import declaration, function_names
from tombola.source import Kind, Use, declared_here


class Removal:
    """The results of functions and networks, and all that was made from them, which are to leave a store.

    They are looked for at once, and removed by :meth:`carry_out`: when nothing can refuse the work any more.

    uses: names of functions, networks and initialisation schemes of the user's own, each of the version that
        is declared here unless one is named.
    jobs: that will be computed next. Of those that are concerned, the checkpoints are removed too.
    names: of the jobs whose results are to be removed.

    Raises :class:`~tombola.errors.JobError` for another name, and :class:`~tombola.errors.StoreError` while
    a job is under way in the store, for nobody knows what it takes, or if one cannot be read.
    """

    def __init__(self, store: Store, uses: Iterable[str], jobs: Iterable[Job] = ()) -> None:
        if isinstance(uses, str):
            raise JobError(f"names is {uses!r}, one text; give a list of names, [{uses!r}]")
        self.uses = tuple(uses)
        self._store, self._jobs = store, list(jobs)
        self._parts = {use for name in self.uses for use in _uses(name)}
        self._behind: dict[str, set[str]] = {}
        self.names: set[str] = set()
        self._look()

    def carry_out(self) -> list[str]:
        """Remove them; the names of the jobs, once they are gone.

        Raises :class:`~tombola.errors.StoreError` if a job is under way by now, or one cannot be removed.
        """
        self._look()  # again: others may have worked in the store meanwhile
        for workplace in _begun(self._store, all_needed(self._jobs), self._parts, self.names):
            shutil.rmtree(workplace)
        _remove(self._store, self.names, self._behind)
        forget_told(self._parts)
        return sorted(self.names)

    def _look(self) -> None:
        if not self.uses:
            return
        described = {name: self._store.description(name) for name in self._store.names()}
        self._behind = {name: parents(description) for name, description in described.items()}
        made_by_them = {
            name
            for name, description in described.items()
            if any(_rests_on(self._store, name, description, *part) for part in self._parts)
        }
        self.names = _with_descendants(made_by_them, self._behind)
        _check_idle(self._store)


def remove_results(store: Store, names: Iterable[str], jobs: Iterable[Job] = ()) -> list[str]:
    """Remove the results of functions and networks, and all that was made from them; the names of their jobs.

    Arguments and errors are those of :class:`Removal`.
    """
    return Removal(store, names, jobs).carry_out()


def remove_jobs(store: Store, names: Iterable[str]) -> list[str]:
    """Remove finished jobs and all that was made from them; the names of all of them.

    Raises :class:`~tombola.errors.StoreError` as :class:`Removal` does.
    """
    behind = {name: parents(store.description(name)) for name in store.names()}
    concerned = _with_descendants(behind.keys() & set(names), behind)
    _check_idle(store)
    _remove(store, concerned, behind)
    return sorted(concerned)


def _remove(store: Store, names: set[str], behind: Mapping[str, set[str]]) -> None:
    """Remove finished jobs, each before those that it was made from; ``behind`` says which these are."""
    place = store.root / "work" / f".recompute.{uuid.uuid4().hex[:8]}"
    try:
        if names:
            place.mkdir()
        for generation in _generations(names, behind):
            for name in generation:
                store.folder(name).rename(place / name)
            for shelf in {store.folder(name).parent for name in generation}:
                sync_folder(shelf)  # before any that these were made from goes
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    shutil.rmtree(place, ignore_errors=True)  # what stays of it, tombola gc removes


def _uses(name: str) -> list[Use]:
    """What a name was declared for, as it stands in jobs: a function, a network, a scheme or several."""
    own = declared_here()
    uses: list[Use] = [("functions", name)] if name in own["functions"] else []
    is_network, is_init = bare_name(name) in network_names(), bare_name(name) in init_names()
    if is_network:
        network = Network.of(name, channels=1, size=(1, 1), classes=1).written
        uses += [("networks", network)] if network in own["networks"] else []
    if is_init:
        init = written_init(name)
        uses += [("inits", init)] if init in own["inits"] else []
    if uses:
        return uses
    if name in function_names() or is_network or is_init:
        raise JobError(f"{name} is tombola's own and gives other numbers in another version only; name yours")
    names = [each for declared in own.values() for each in declared]
    raise JobError(unknown("function, network or initialisation of your own", name, names))


def _rests_on(store: Store, name: str, description: Mapping[str, Any], kind: Kind, declared: str) -> bool:
    """Whether a finished job was made by a function or with a network itself, whatever is behind it."""
    if kind == "functions":
        version = declaration(declared).version
        return any(call["function"] == declared and call["version"] == version for call in calls(description))
    if any(declared in _texts(call["arguments"]) for call in calls(description)):
        return True
    if declared in (source_record(store, name) or {}).get(kind, {}):
        return True
    values = own_values(description)  # tickets and runs of the caller's own, made elsewhere
    return any(
        _part_of(store, value, "name" if kind == "networks" else "init") == declared for value in values
    )


def _texts(value: Any) -> set[str]:
    """All texts within a described argument, not those of a call within it."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set() if "job" in value or value.keys() == {"data"} else _texts(list(value.values()))
    return set().union(*map(_texts, value)) if isinstance(value, list) else set()


def _part_of(store: Store, value: str, key: str) -> str | None:
    """What the description of a network says of a ticket or run of the caller's own; None if nothing."""
    try:
        details = files.read_description(object_path(store, value))
        return str(details.get("ticket", details)["network"][key])
    except (TombolaError, OSError, LookupError, TypeError):
        return None


def _with_descendants(names: set[str], behind: Mapping[str, set[str]]) -> set[str]:
    """These finished jobs and all that were made from them."""
    children: dict[str, list[str]] = {}
    for name, made_from in behind.items():
        for parent in made_from:
            children.setdefault(parent, []).append(name)
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(children.get(name, ()))
    return reached


def _generations(names: set[str], behind: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Jobs in groups, each before all that its jobs were made from."""
    children = dict.fromkeys(names, 0)
    for name in names:
        for parent in behind[name] & names:
            children[parent] += 1
    group = [name for name, count in children.items() if count == 0]
    while group:
        yield group
        following = []
        for name in group:
            for parent in behind[name] & names:
                children[parent] -= 1
                if children[parent] == 0:
                    following.append(parent)
        group = following


def _check_idle(store: Store) -> None:
    """Refuse while a job is under way, which may be made from what is to be removed."""
    for workplace in sorted((store.root / "work").iterdir()):
        if is_fingerprint(workplace.name) and not free(workplace):
            raise StoreError(
                f"job {workplace.name[:12]} is under way in {store.root}, and may rest on what is to be "
                "computed anew; wait for it or stop it, and run the same again"
            )


def _begun(store: Store, needed: Mapping[str, Job], uses: set[Use], removed: set[str]) -> Iterator[Path]:
    """The places of unfinished jobs that are concerned, with their checkpoints."""
    concerned = set(removed)
    for name, job in needed.items():
        if name in concerned:
            continue
        if any(need.name in concerned for need in job.needs) or any(
            _rests_on(store, name, job.description(), *use) for use in uses
        ):
            concerned.add(name)
            if store.workplace(name).is_dir():
                yield store.workplace(name)
