"""What a listing says of each finished job, remembered in the store so that ten thousand are listed at once.

Finished jobs do not change, so what was read of one stays true for as long as its folder is as old as then.
The index is only ever a shortcut: it is written whole or not at all, and made again when it is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import tombola
from tombola.errors import StoreError, reason
from tombola.lab.store import Store
from tombola.reading import OTHER_FORM, json_object
from tombola.whole import write_whole

_FILE = ".index.json"


class Row(NamedTuple):
    """A finished job on one line; ``started`` as ISO 8601 text."""

    name: str
    function: str
    arguments: str
    result: str
    started: str
    seconds: float


def indexed(
    store: Store,
    arguments: Callable[[Mapping[str, Any]], str],
    result: Callable[[Mapping[str, Any]], str],
) -> tuple[list[Row], list[StoreError]]:
    """A row for each finished job, and the errors of those that cannot be read.

    arguments, result: how a description and a result's numbers become text.
    """
    known = _read(store)
    found: dict[str, tuple[int, Row]] = {}
    damaged = []
    for name, age in _ages(store):
        before = known.get(name)
        if before is not None and before[0] == age:
            found[name] = before
            continue
        try:
            description, made = store.description(name), store.provenance(name)
            row = _row(
                name, description["function"], arguments(description), result(store.numbers(name)),
                made["started"], made["seconds"],
            )  # fmt: skip
        except StoreError as error:
            damaged.append(error)
        except OTHER_FORM as error:
            cause = f"its numbers have another form: {type(error).__name__} {reason(error)}"
            damaged.append(store.damaged(name, cause))
        else:
            found[name] = age, row
    if found != known:
        content = {"tombola": tombola.__version__, "rows": [[age, *row] for age, row in found.values()]}
        with suppress(StoreError):  # somebody else's store, or a full disk: then it is read again next time
            write_whole(store.root / _FILE, json.dumps(content).encode())
    return [row for _, row in found.values()], damaged


def _ages(store: Store) -> list[tuple[str, int]]:
    """The finished jobs, each with the time its folder was last changed at, in nanoseconds."""
    found = []
    with os.scandir(store.root / "jobs") as shelves:
        for shelf in shelves:
            if len(shelf.name) == 2 and shelf.is_dir():
                with os.scandir(shelf) as folders:
                    found += [
                        (folder.name, folder.stat().st_mtime_ns) for folder in folders if folder.is_dir()
                    ]
    return found


def _read(store: Store) -> dict[str, tuple[int, Row]]:
    """What was remembered, if it was by this version of tombola: another may word it otherwise."""
    try:
        content = json_object((store.root / _FILE).read_bytes())
        if content["tombola"] != tombola.__version__:
            return {}
        return {name: (age, _row(name, *rest)) for age, name, *rest in content["rows"]}
    except (OSError, *OTHER_FORM):
        return {}


def _row(name: str, function: Any, arguments: Any, result: Any, started: Any, seconds: Any) -> Row:
    return Row(name, str(function), str(arguments), str(result), str(started), float(seconds))
