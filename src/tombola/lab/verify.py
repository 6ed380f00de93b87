"""Verification of a store: checksums, unfinished files, and jobs whose parents or shared tensors are gone.

Everything is read as it is read when it is used, but nothing in the store is executed; behind ``tombola
verify``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tombola import files
from tombola.errors import JobError, NetworkError, StoreError, TombolaError, Undeclared, Undefined, reason
from tombola.lab.description import describes, is_fingerprint, name_of, own_values, parents
from tombola.lab.finished import load_result
from tombola.lab.lease import free
from tombola.lab.objects import OBJECT, data_record, lacks_start, object_path, read_object, unsourced_data
from tombola.lab.staleness import is_edited_network
from tombola.lab.starts import StartMakers
from tombola.lab.store import RECORD, Store
from tombola.lab.tickets import is_ticket
from tombola.lab.user_code import altered_files
from tombola.networks.initialization import init_names
from tombola.networks.network import Network, network_names
from tombola.registry import declaration
from tombola.source import declared_here
from tombola.untrusted import OTHER_FORM, printable


class DeclaredOtherwise(str):
    """Words for a function or network that is declared here, but not as it was when results were made."""


@dataclass(frozen=True)
class Damage:
    """A damaged file or folder of a store.

    place: its path below the store's root; cause: what is wrong, and what to do about it.
    """

    place: str
    cause: str

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.cause}")


def verify(store: Store, not_rebuilt: Counter[str] | None = None) -> Iterator[Damage]:
    """Read everything in a store, and yield what is damaged as it is found.

    not_rebuilt: counts the results whose checksums are right but which could not be unpacked, by the network
        or function that is not declared in this process, or is declared in another version or text; the
        latter are :class:`DeclaredOtherwise`.

    A job that can be read, but whose parents are gone, is yielded too: it could not be computed again.
    """
    not_rebuilt = Counter() if not_rebuilt is None else not_rebuilt
    yield from _damaged_jobs(store, not_rebuilt)
    yield from _damaged_objects(store, not_rebuilt)
    yield from _damaged_data(store)
    for path in altered_files(store):
        yield Damage(
            f"files/{path.name}", "altered: it is not the file of that hash; delete it and run again"
        )
    yield from _cut_off_publications(store)


def _damaged_jobs(store: Store, not_rebuilt: Counter[str]) -> Iterator[Damage]:
    makers = StartMakers(store)
    for shelf in sorted((store.root / "jobs").iterdir()):
        for folder in sorted(shelf.iterdir()) if shelf.is_dir() else [shelf]:
            if folder.name.startswith("."):
                continue
            yield from (
                Damage(str(folder.relative_to(store.root)), cause)
                for cause in _causes(store, folder, not_rebuilt, makers)
            )


def _damaged_objects(store: Store, not_rebuilt: Counter[str]) -> Iterator[Damage]:
    takers = cache(_jobs_by_own_value)  # read once, if at all
    for path in sorted((store.root / "objects").iterdir()):
        if path.name.startswith("."):
            continue
        try:
            read_object(path)
        except TombolaError as error:
            undeclared = _undeclared_in_object(store, path, error, takers)
            if undeclared is not None:
                not_rebuilt[undeclared] += 1
            else:
                yield Damage(f"objects/{path.name}", f"{error}; delete it and the jobs that need it")


def _damaged_data(store: Store) -> Iterator[Damage]:
    kept = {path.stem for path in (store.root / "objects").iterdir()}
    for path in sorted((store.root / "data").glob("*.json")):
        try:
            record = data_record(store, path.name.removesuffix(".json"))
            if record is not None and record["source"] is None and record["fingerprint"] in kept:
                unsourced_data(store, record)
        except StoreError as error:
            yield Damage(f"data/{path.name}", str(error))


def _cut_off_publications(store: Store) -> Iterator[Damage]:
    for workplace in sorted((store.root / "work").iterdir()):
        if workplace.is_symlink() or not workplace.is_dir():
            continue
        with suppress(FileNotFoundError):  # its job is finished by now
            for staging in sorted(workplace.glob("publish.*")):
                if free(workplace) and staging.exists():  # still: so its owner has not published it meanwhile
                    yield Damage(
                        str(staging.relative_to(store.root)),
                        "a publication that was cut off; tombola gc removes it",
                    )


def _causes(store: Store, folder: Path, not_rebuilt: Counter[str], makers: StartMakers) -> Iterator[str]:
    """Yields what is wrong with a job's folder."""
    name = folder.name
    if not folder.is_dir() or not is_fingerprint(name) or folder.parent.name != name[:2]:
        yield "no job; it does not belong here"
        return
    try:
        description = store.description(name)
        if not describes(description, name):
            yield f"its description is of another job, {name_of(description)[:12]}, or in part; delete it"
            return
        behind, values = parents(description), own_values(description)
        store.numbers(name)
        store.check(name)
        if not store.is_thin(name):
            undeclared = _undeclared_in_result(store, name, description, makers)
            if undeclared is not None and not is_ticket(store, name):
                not_rebuilt[undeclared] += 1
        elif (folder / RECORD).exists():
            store.forgetting_tensors(name)
    except TombolaError as error:
        yield str(error)
        return
    except OTHER_FORM as error:
        yield f"job.json has another form: {type(error).__name__} {reason(error)}; delete {folder}"
        return
    for parent in sorted(behind):
        if not store.has(parent):
            yield f"made from job {parent[:12]}, which is gone; it is computed again when it is needed"
    for value in sorted(values):
        if not object_path(store, value).exists():
            yield f"made from a ticket or run {value[:12]} of the caller's own, which is gone"


def _undeclared_in_result(
    store: Store, name: str, description: Mapping[str, Any], makers: StartMakers
) -> str | None:
    """What a result cannot be unpacked without, because it is not declared here; None if it was unpacked.

    Raises what reading the result raises.
    """
    packed = store.packed(name)  # verifies the checksums, with or without a declaration
    if lacks_start(store, name) and makers.is_made_again(name):
        return None  # an import of tickets, whose start is computed again when it is needed
    try:
        load_result(store, name)
    except Undeclared:
        return _network(packed.details, [name], store)
    except Undefined:
        return None  # as the job was found
    except JobError:
        # The function is not declared here, or in another version.
        if not packed.tensors and "{'tensor'" in str(packed.numbers):
            raise StoreError(f"job {name[:12]} is damaged: its tensors are gone") from None
        return _function(description)
    return None


def _undeclared_in_object(
    store: Store, path: Path, error: TombolaError, takers: Callable[[Store], Mapping[str, list[str]]]
) -> str | None:
    """What a ticket or run of the caller's own cannot be unpacked without; None if it is damaged.

    takers: gives the names of the jobs that take each such ticket or run.
    """
    if isinstance(error.__cause__, NetworkError):
        return _network(files.read_description(path), [], store)
    try:
        details, _ = files.read_tensors(path, OBJECT)
        described = details.get("ticket", details)["network"]
    except (TombolaError, LookupError, TypeError):
        return None
    jobs = takers(store).get(path.stem, [])
    is_own = str(described["name"]) in declared_here()["networks"]
    if any(is_edited_network(store, name, str(described["name"])) for name in jobs) or (
        is_own and isinstance(error, NetworkError)
    ):
        return _network(details, jobs, store)
    return None


def _jobs_by_own_value(store: Store) -> dict[str, list[str]]:
    """The names of the jobs that take each ticket or run of the caller's own, by its fingerprint."""
    takers: dict[str, list[str]] = {}
    for name in store.names():
        with suppress(StoreError):  # reported with its job
            for value in own_values(store.description(name)):
                takers.setdefault(value, []).append(name)
    return takers


def _network(details: Mapping[str, Any], jobs: Iterable[str], store: Store) -> str:
    """Words for what of a ticket or run is not declared here, or not as when some jobs made or took it."""
    described = details.get("ticket", details)["network"]
    network = str(described["name"])
    name, _, version = network.partition("@")
    if name not in network_names():
        return f"network {network}"
    try:
        Network.described({**described, "init": None})
    except NetworkError:
        return DeclaredOtherwise(f"network {name}, version {version or '1'}")
    try:
        Network.described(described)
    except NetworkError:
        name, _, version = str(described["init"]).partition("@")
        if name not in init_names():
            return f"initialisation {described['init']}"
        return DeclaredOtherwise(f"initialisation {name}, version {version or '1'}")
    if any(is_edited_network(store, job, network) for job in jobs):
        return DeclaredOtherwise(f"network {network}, edited since")
    return DeclaredOtherwise(f"network {network}, which cannot be built")


def _function(description: Mapping[str, Any]) -> str:
    """Words for the function of a call; with its version if another one is declared here."""
    function = description["function"]
    try:
        declaration(function)
    except JobError:
        return f"function {function}"
    return DeclaredOtherwise(f"function {function}, version {description['version']}")
