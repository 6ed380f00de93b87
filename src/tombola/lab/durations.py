"""How long jobs of one kind took in this store, so that none is begun that cannot end in time.

Two jobs are of one kind if they call the same function with the same arguments on results of the same origin;
seeds, noise numbers, and which tickets or runs they take may differ.
"""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tombola.errors import StoreError, TombolaError
from tombola.lab.deadline import Stop, Stopped
from tombola.lab.description import objects_in, parents
from tombola.lab.store import HISTORY, Store
from tombola.untrusted import OTHER_FORM

# Arguments that say which of many equal jobs one is, and not how much there is to do.
_NUMBERS = {"seed", "noise", "noise_round"}
# Functions whose results a training begins late from, so that it has fewer epochs to do.
_PRETRAINING = {"pretrain", "trunk"}
# Seconds between two looks at which jobs have been finished since.
_LOOK_EVERY = 1.0


def check_time_left(
    store: Store, name: str, description: Mapping[str, Any], stop: Stop, hardware: str
) -> None:
    """Refuse to begin a job that cannot end in time, if a time is set and its like took longer.

    One that left a checkpoint was begun already: whatever it gains is kept, so it goes on.

    Raises :class:`~tombola.lab.deadline.Stopped` with the seconds that the shortest of its like took.
    """
    if stop.at is None or (store.workplace(name) / "checkpoint").exists():
        return
    like = shortest(store, description, hardware)
    if like is not None and like > stop.seconds_left():
        raise Stopped(like)


def shortest(store: Store, description: Mapping[str, Any], hardware: str) -> float | None:
    """Seconds of the shortest finished job of the same kind on the same hardware; None if there is none."""
    with _lock:
        try:
            return _finished(store.root).shortest(description, hardware)
        except (TombolaError, *OTHER_FORM):
            return None  # of what is damaged nothing is known


_lock = threading.Lock()


@dataclass(frozen=True)
class _Call:
    """What is kept of a described call.

    kind: its function with the arguments that do not differ between jobs of one kind.
    origin: what it says itself of where results made from it come from.
    parents: names of the stored jobs whose results it takes.
    """

    kind: str
    origin: frozenset[str]
    parents: frozenset[str]


class _Finished:
    """The finished jobs of a store; each is read once, since none changes."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root, create=False)
        self._calls: dict[str, _Call] = {}
        self._by_kind: dict[str, list[str]] = {}
        self._seconds: dict[str, tuple[str, float] | None] = {}
        self._looked = float("-inf")

    def shortest(self, description: Mapping[str, Any], hardware: str) -> float | None:
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._look()
            self._looked = time.monotonic()
        call = _call(description)
        origin = self._origin(call)
        like = [
            self._took(name)
            for name in self._by_kind.get(call.kind, [])
            if self._origin(self._calls[name]) == origin
        ]
        return min((took[1] for took in like if took is not None and took[0] == hardware), default=None)

    def _look(self) -> None:
        for name in self._store.names():
            if name not in self._calls:
                with suppress(TombolaError, *OTHER_FORM):
                    self._by_kind.setdefault(self._of(name).kind, []).append(name)

    def _of(self, name: str) -> _Call:
        if name not in self._calls:
            self._calls[name] = _call(self._store.description(name))
        return self._calls[name]

    def _origin(self, call: _Call) -> frozenset[str]:
        """What all calls behind a call say of where its results come from."""
        origin, seen, pending = set(call.origin), set[str](), list(call.parents)
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                behind = self._of(name)
                origin |= behind.origin
                pending.extend(behind.parents)
        return frozenset(origin)

    def _took(self, name: str) -> tuple[str, float] | None:
        """Hardware and seconds of a finished job, if they can be read."""
        if name not in self._seconds:
            self._seconds[name] = None
            with suppress(StoreError, OSError, *OTHER_FORM):
                made = self._store.provenance(name)
                # Of a training that was interrupted the provenance has the last part only.
                epochs = _seconds_of_epochs(self._store.folder(name) / HISTORY)
                self._seconds[name] = str(made["hardware"]), max(float(made["seconds"]), epochs)
        return self._seconds[name]


@cache
def _finished(root: Path) -> _Finished:
    return _Finished(root)


def _seconds_of_epochs(table: Path) -> float:
    """The seconds of all epochs of a training's history; 0 of what has none."""
    if not table.exists():
        return 0.0
    with table.open(newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def _call(description: Mapping[str, Any]) -> _Call:
    arguments = description["arguments"]
    plain = {key: _plain(value) for key, value in arguments.items() if key not in _NUMBERS}
    kind = json.dumps([description["function"], description["version"], plain], sort_keys=True)
    return _Call(kind, frozenset(_origin(description, top=True)), frozenset(parents(description)))


def _origin(description: Mapping[str, Any], *, top: bool) -> Iterator[str]:
    """Where the results that a call and those described in full within it start from, as texts."""
    arguments = description["arguments"]
    inner = list(_results_in(list(arguments.values())))
    yield from (f"value {value['value']}" for value in inner if "value" in value)
    for value in inner:
        if "call" in value:
            yield from _origin(value["call"], top=False)
    plain = {key: value for key, value in arguments.items() if key not in _NUMBERS}
    if not inner:
        yield json.dumps([description["function"], plain], sort_keys=True)
    elif description["function"] in _PRETRAINING:
        yield json.dumps([description["function"], arguments.get("epochs")])


def _results_in(value: Any) -> Iterator[dict[str, Any]]:
    """The references in an argument to jobs and to the caller's own tickets and runs."""
    return (item for item in objects_in(value) if "job" in item or item.keys() == {"value", "type"})


def _plain(value: Any) -> Any:
    """An argument without saying which job or value it is."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return "result" if any(True for _ in _results_in(value)) else value
