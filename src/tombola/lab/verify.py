"""Walking a store for damage: checksums, half folders, and jobs whose parents or shared tensors are gone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola import files
from tombola.declared import declaration
from tombola.errors import JobError, NetworkError, StoreError, TombolaError, Undeclared, reason
from tombola.lab.execute import load_result
from tombola.lab.job import describes, name_of
from tombola.lab.lease import free
from tombola.lab.own_files import altered_files
from tombola.lab.references import own_values, parents
from tombola.lab.shared import data_record, given_data, lacks_start, read_object
from tombola.lab.starts import is_made_again
from tombola.lab.store import RECORD, Store
from tombola.lab.tickets import is_ticket
from tombola.reading import OTHER_FORM

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Damage:
    """Something that is wrong in a store.

    place: the file or folder, below the store's root; cause: what is wrong, and what to do about it.
    """

    place: str
    cause: str

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


def verify(store: Store, not_rebuilt: Counter[str] | None = None) -> Iterator[Damage]:
    """Read everything in a store, and yield what is damaged as it is found.

    not_rebuilt: counts, by the network or function that is not declared in this process, the results whose
        checksums are right but which could not be put together. Nothing in the store is run to declare them.

    A job that can still be read, but whose parents are gone, is told too: it could not be computed again from
    what is there.
    """
    not_rebuilt = Counter() if not_rebuilt is None else not_rebuilt
    for shelf in sorted((store.root / "jobs").iterdir()):
        for folder in sorted(shelf.iterdir()) if shelf.is_dir() else [shelf]:
            if folder.name.startswith("."):
                continue
            yield from (
                Damage(str(folder.relative_to(store.root)), cause)
                for cause in _wrong_with(store, folder, not_rebuilt)
            )
    for path in sorted((store.root / "objects").iterdir()):
        if path.name.startswith("."):
            continue
        try:
            read_object(path)
        except TombolaError as error:
            if isinstance(error.__cause__, NetworkError):  # of one that is not declared here
                not_rebuilt[_network(files.read_description(path))] += 1
            else:
                yield Damage(f"objects/{path.name}", f"{error}; delete it and the jobs that need it")
    kept = {path.stem for path in (store.root / "objects").iterdir()}
    for path in sorted((store.root / "data").glob("*.json")):
        try:
            record = data_record(store, path.name.removesuffix(".json"))
            if record is not None and record["source"] is None and record["fingerprint"] in kept:
                given_data(store.root, record)
        except StoreError as error:
            yield Damage(f"data/{path.name}", str(error))
    for path in altered_files(store):
        yield Damage(
            f"files/{path.name}", "altered: it is not the file of that hash; delete it and run again"
        )
    for workplace in sorted((store.root / "work").iterdir()):
        if workplace.is_symlink() or not workplace.is_dir():
            continue
        with suppress(FileNotFoundError):  # its job is finished by now
            for half in sorted(workplace.glob("publish.*")):
                if free(workplace) and half.exists():  # still: so its owner has not published it meanwhile
                    yield Damage(
                        str(half.relative_to(store.root)),
                        "a publication that was cut off; tombola gc removes it",
                    )


def _wrong_with(store: Store, folder: Path, not_rebuilt: Counter[str]) -> Iterator[str]:
    """What is wrong with a job's folder."""
    name = folder.name
    if not folder.is_dir() or not _NAME.fullmatch(name) or folder.parent.name != name[:2]:
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
            undeclared = _read(store, name, description)
            if undeclared is not None and not is_ticket(store, name):
                not_rebuilt[undeclared] += 1
        elif (folder / RECORD).exists():
            store.record(name)
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
        if not (store.root / "objects" / f"{value}.safetensors").exists():
            yield f"made from a ticket or run {value[:12]} of the caller's own, which is gone"


def _read(store: Store, name: str, description: Mapping[str, Any]) -> str | None:
    """Read a result whole, as whoever needs it would; raises what that would raise.

    Comes back with what is not declared here, where only the checksums could be checked.
    """
    packed = store.packed(name)  # checks the checksums, whoever declared the function
    if lacks_start(store, name) and is_made_again(store, name):
        return None  # on purpose, until somebody needs it
    try:
        load_result(store, name)
    except Undeclared:
        return _network(packed.details)
    except JobError:
        # Of a function that is not known here, or of another version.
        if not packed.tensors and "{'tensor'" in str(packed.numbers):
            raise StoreError(f"job {name[:12]} is damaged: its tensors are gone") from None
        return _function(description)
    return None


def _network(details: Mapping[str, Any]) -> str:
    """The network of a packed ticket or run, in words."""
    return f"network {details.get('ticket', details)['network']['name']}"


def _function(description: Mapping[str, Any]) -> str:
    """The function of a described call, in words; with its version if it is declared here with another."""
    function = description["function"]
    try:
        declaration(function)
    except JobError:
        return f"function {function}"
    return f"function {function}, version {description['version']}"
