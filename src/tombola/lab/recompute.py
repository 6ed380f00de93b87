"""Recomputation of results of a user's own function or network, and of all results that were made from them.

The finished jobs are removed from the store, descendants first, so that an interruption at any moment leaves
no result whose parents were replaced. After that they are missing like any other job; behind ``--recompute``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tombola import disk, files
from tombola.declarations import BY_KIND, bare_name
from tombola.errors import JobError, StoreError, TombolaError, unknown, unwritable
from tombola.lab.description import calls, is_fingerprint, own_values, parents
from tombola.lab.job import Job, all_needed
from tombola.lab.lease import free
from tombola.lab.objects import object_path
from tombola.lab.queue import QueueReader
from tombola.lab.staleness import forget_warnings, source_record
from tombola.lab.store import Store
from tombola.networks.network import Network, network_names
from tombola.registry import declaration, function_names
from tombola.source import Kind, Use, declared_here


class Removal:
    """The removal from a store of the results of functions and networks, and of all that was made from them.

    The results are searched for on construction, and removed by :meth:`carry_out`, once nothing else can
    refuse the work.

    uses: names of functions, networks, initialisation schemes and scores of the user's own, in the version
        that is declared here unless the name has one.
    jobs: that will be computed next. The checkpoints of those that are affected are removed too.
    names: of the jobs whose results are to be removed.

    Raises :class:`~tombola.errors.JobError` for a name that is not declared by the user, and
    :class:`~tombola.errors.StoreError` while a job is under way in the store, since it may be made from these
    results, while another driver at work has one of them in its queue, or if a job cannot be read.
    """

    def __init__(self, store: Store, uses: Iterable[str], jobs: Iterable[Job] = ()) -> None:
        if isinstance(uses, str):
            raise JobError(f"names is {uses!r}, one text; give a list of names, [{uses!r}]")
        self.uses = tuple(uses)
        self._store, self._jobs = store, list(jobs)
        self._definitions = {use for name in self.uses for use in _definitions_of(name)}
        self._parents: dict[str, set[str]] = {}
        self.names: set[str] = set()
        self._search()

    def carry_out(self) -> list[str]:
        """Remove the results, and return the names of their jobs.

        Raises :class:`~tombola.errors.StoreError` if a job is under way by now, or one cannot be removed.
        """
        self._search()  # again: others may have worked in the store meanwhile
        for workplace in _affected_workplaces(
            self._store, all_needed(self._jobs), self._definitions, self.names
        ):
            disk.remove_tree(workplace)
        _remove(self._store, self.names, self._parents)
        forget_warnings(self._definitions)
        return sorted(self.names)

    def _search(self) -> None:
        if not self.uses:
            return
        descriptions = {name: self._store.description(name) for name in self._store.names()}
        self._parents = {name: parents(description) for name, description in descriptions.items()}
        direct = {
            name
            for name, description in descriptions.items()
            if any(_used(self._store, name, description, *definition) for definition in self._definitions)
        }
        self.names = _with_descendants(direct, self._parents)
        _check_idle(self._store, self.names)


def remove_results(store: Store, names: Iterable[str], jobs: Iterable[Job] = ()) -> list[str]:
    """Remove the results of functions and networks, and all that was made from them; returns the job names.

    Arguments and errors are those of :class:`Removal`.
    """
    return Removal(store, names, jobs).carry_out()


def remove_jobs(store: Store, names: Iterable[str]) -> list[str]:
    """Remove finished jobs and all that was made from them; returns the names of all of them.

    Raises :class:`~tombola.errors.StoreError` as :class:`Removal` does.
    """
    parents_of = {name: parents(store.description(name)) for name in store.names()}
    affected = _with_descendants(parents_of.keys() & set(names), parents_of)
    _check_idle(store, affected)
    _remove(store, affected, parents_of)
    return sorted(affected)


def _remove(store: Store, names: set[str], parents_of: Mapping[str, set[str]]) -> None:
    """Remove finished jobs, each before its parents."""
    trash = store.root / "work" / f".recompute.{uuid.uuid4().hex[:8]}"
    try:
        if names:
            disk.make_folder(trash)
        for generation in _generations(names, parents_of):
            for name in generation:
                disk.rename(store.folder(name), trash / name)
            for shelf in {store.folder(name).parent for name in generation}:
                disk.sync_folder(shelf)  # before any of their parents goes
    except OSError as error:
        raise unwritable(f"the store at {store.root}", error) from error
    disk.remove_tree(trash, ignore_errors=True)  # tombola gc removes what is left of it


def _definitions_of(name: str) -> list[Use]:
    """What the user declared under a name, as jobs have it: a function, network, score, ..., or several.

    Raises :class:`~tombola.errors.JobError` for a name that the user did not declare.
    """
    own = declared_here()
    uses: list[Use] = [("functions", name)] if name in own["functions"] else []
    is_network = bare_name(name) in network_names()
    if is_network:
        network = Network.of(name, channels=1, size=(1, 1), classes=1).written
        uses += [("networks", network)] if network in own["networks"] else []
    parts = [kind for kind in BY_KIND if kind != "networks" and bare_name(name) in BY_KIND[kind].names()]
    uses += [(kind, text) for kind in parts if (text := BY_KIND[kind].written(name)) in own[kind]]
    if uses:
        return uses
    if name in function_names() or is_network or parts:
        raise JobError(f"{name} is tombola's own and gives other numbers in another version only; name yours")
    names = [own_name for declared in own.values() for own_name in declared]
    raise JobError(unknown("definition of your own", name, names))


def _used(store: Store, name: str, description: Mapping[str, Any], kind: Kind, declared: str) -> bool:
    """Whether a finished job itself used a function, network, scheme or score, without the jobs behind it."""
    if kind == "functions":
        version = declaration(declared).version
        return any(call["function"] == declared and call["version"] == version for call in calls(description))
    if any(declared in _texts(call["arguments"]) for call in calls(description)):
        return True
    if declared in (source_record(store, name) or {}).get(kind, {}):
        return True
    if kind not in ("networks", "inits"):
        return False
    values = own_values(description)  # tickets and runs of the caller's own, made elsewhere
    return any(
        _part_of(store, value, "name" if kind == "networks" else "init") == declared for value in values
    )


def _texts(value: object) -> set[str]:
    """All texts in an argument of a description, without those in references."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set() if "job" in value or value.keys() == {"data"} else _texts(list(value.values()))
    return set().union(*map(_texts, value)) if isinstance(value, list) else set()


def _part_of(store: Store, value: str, key: str) -> str | None:
    """An entry of the network's description in a ticket or run of the caller's own; None if it has none."""
    try:
        details = files.read_description(object_path(store, value))
        return str(details.get("ticket", details)["network"][key])
    except (TombolaError, OSError, LookupError, TypeError):
        return None


def _with_descendants(names: set[str], parents_of: Mapping[str, set[str]]) -> set[str]:
    """These finished jobs and all that were made from them."""
    children: dict[str, list[str]] = {}
    for name, its_parents in parents_of.items():
        for parent in its_parents:
            children.setdefault(parent, []).append(name)
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(children.get(name, ()))
    return reached


def _generations(names: set[str], parents_of: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yields jobs in groups, every job in an earlier group than its parents."""
    children = dict.fromkeys(names, 0)
    for name in names:
        for parent in parents_of[name] & names:
            children[parent] += 1
    group = [name for name, count in children.items() if count == 0]
    while group:
        yield group
        following = []
        for name in group:
            for parent in parents_of[name] & names:
                children[parent] -= 1
                if children[parent] == 0:
                    following.append(parent)
        group = following


def _check_idle(store: Store, names: set[str]) -> None:
    """Raises StoreError while a job is under way, since it may be made from what is to be removed.

    And while another process has one of the jobs in its queue, or others that it makes from them.
    """
    for workplace in sorted((store.root / "work").iterdir()):
        if is_fingerprint(workplace.name) and not free(workplace):
            raise StoreError(
                f"job {workplace.name[:12]} is under way in {store.root}, and may rest on what is to be "
                "computed anew; wait for it or stop it, and run the same again"
            )
    for queue in QueueReader(store).queues():
        rest = sorted(names & (queue.jobs.keys() | queue.made_from.keys()))
        if rest and not queue.own:
            raise StoreError(
                f"{queue.driver} is at work on {store.root} with job {rest[0][:12]}, which is to be computed "
                "anew; wait for it or stop it, and run the same again"
            )


def _affected_workplaces(
    store: Store, needed: Mapping[str, Job], uses: set[Use], removed: set[str]
) -> Iterator[Path]:
    """Yields the workplaces, with checkpoints, of unfinished jobs that rest on these uses or removed jobs."""
    affected = set(removed)
    for name, job in needed.items():
        if name in affected:
            continue
        if any(need.name in affected for need in job.needs) or any(
            _used(store, name, job.description(), *use) for use in uses
        ):
            affected.add(name)
            if store.workplace(name).is_dir():
                yield store.workplace(name)
