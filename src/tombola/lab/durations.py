"""Durations of finished jobs by kind, so that no job is begun that cannot end before its run must stop.

Two jobs are of one kind if they call the same function with the same arguments on results of the same origin;
seeds, noise numbers, and which tickets or runs they take may differ.
"""

from __future__ import annotations

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
from tombola.lab.store import Store
from tombola.seeds import NOISES
from tombola.untrusted import OTHER_FORM

# Arguments that tell equal jobs apart and do not change how much there is to do.
_NUMBERS = {"seed", "noise", "noise_round", *NOISES}
# Functions whose results a training begins late from, so that it has fewer epochs to do.
_PRETRAINING = {"pretrain", "trunk"}
# Seconds between two looks for newly finished jobs.
_LOOK_EVERY = 1.0


def check_time_left(
    store: Store, name: str, description: Mapping[str, Any], stop: Stop, hardware: str
) -> None:
    """Raises :class:`~tombola.lab.deadline.Stopped` if all finished jobs of the kind took too long.

    Too long is longer than the time left; the exception has the seconds of the shortest. A job with a
    checkpoint may always go on, because what it gains is kept, and so may every job if no time is set.
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
            return _durations(store.root).shortest(description, hardware)
        except (TombolaError, *OTHER_FORM):
            return None  # damaged results have no durations


_lock = threading.Lock()


@dataclass(frozen=True)
class _JobKind:
    """What a described call says of its kind.

    kind: its function with the arguments that do not differ between jobs of one kind.
    origin: what the call itself says of where its results come from.
    parents: names of the stored jobs whose results it takes.
    """

    kind: str
    origin: frozenset[str]
    parents: frozenset[str]


class _Durations:
    """The durations of the finished jobs of a store; each is read once, since none changes."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root, create=False)
        self._kinds: dict[str, _JobKind] = {}
        self._by_kind: dict[str, list[str]] = {}
        self._seconds: dict[str, tuple[str, float] | None] = {}
        self._updated = float("-inf")

    def shortest(self, description: Mapping[str, Any], hardware: str) -> float | None:
        """Seconds of the shortest such job; see the function of this name."""
        if time.monotonic() - self._updated > _LOOK_EVERY:
            self._update()
            self._updated = time.monotonic()
        job_kind = _job_kind(description)
        origin = self._full_origin(job_kind)
        durations = [
            self._duration(name)
            for name in self._by_kind.get(job_kind.kind, [])
            if self._full_origin(self._kinds[name]) == origin
        ]
        like = (seconds for other, seconds in filter(None, durations) if other == hardware)
        return min(like, default=None)

    def _update(self) -> None:
        """Enters newly finished jobs."""
        for name in self._store.names():
            if name not in self._kinds:
                with suppress(TombolaError, *OTHER_FORM):
                    self._by_kind.setdefault(self._kind_of(name).kind, []).append(name)

    def _kind_of(self, name: str) -> _JobKind:
        """The kind of a finished job."""
        if name not in self._kinds:
            self._kinds[name] = _job_kind(self._store.description(name))
        return self._kinds[name]

    def _full_origin(self, job_kind: _JobKind) -> frozenset[str]:
        """The origin of a call together with those of all calls behind it."""
        origin, seen, pending = set(job_kind.origin), set[str](), list(job_kind.parents)
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                behind = self._kind_of(name)
                origin |= behind.origin
                pending.extend(behind.parents)
        return frozenset(origin)

    def _duration(self, name: str) -> tuple[str, float] | None:
        """Hardware and seconds of a finished job, if they can be read."""
        if name not in self._seconds:
            self._seconds[name] = None
            with suppress(StoreError, OSError, *OTHER_FORM):
                provenance = self._store.provenance(name)
                # Of a training that was interrupted the provenance has the last part only.
                epochs = sum(float(row["seconds"]) for row in self._store.history(name))
                self._seconds[name] = str(provenance["hardware"]), max(float(provenance["seconds"]), epochs)
        return self._seconds[name]


@cache
def _durations(root: Path) -> _Durations:
    """The durations in a store, the same object at every call in this process."""
    return _Durations(root)


def _job_kind(description: Mapping[str, Any]) -> _JobKind:
    """The kind of a described call."""
    arguments = description["arguments"]
    common = {key: _without_names(value) for key, value in arguments.items() if key not in _NUMBERS}
    kind = json.dumps([description["function"], description["version"], common], sort_keys=True)
    return _JobKind(kind, frozenset(_described_origins(description)), frozenset(parents(description)))


def _described_origins(description: Mapping[str, Any]) -> Iterator[str]:
    """Where the results of a call and of those described in full within it start from, as texts."""
    arguments = description["arguments"]
    inner = list(_results_in(list(arguments.values())))
    yield from (f"value {value['value']}" for value in inner if "value" in value)
    for value in inner:
        if "call" in value:
            yield from _described_origins(value["call"])
    if not inner:
        common = {key: value for key, value in arguments.items() if key not in _NUMBERS}
        yield json.dumps([description["function"], common], sort_keys=True)
    elif description["function"] in _PRETRAINING:
        yield json.dumps([description["function"], arguments.get("epochs")])


def _results_in(value: Any) -> Iterator[dict[str, Any]]:
    """The references in an argument to jobs and to the caller's own tickets and runs."""
    return (item for item in objects_in(value) if "job" in item or item.keys() == {"value", "type"})


def _without_names(value: Any) -> Any:
    """An argument, with "result" in place of every job and value of the caller's own."""
    if isinstance(value, list):
        return [_without_names(item) for item in value]
    return "result" if any(True for _ in _results_in(value)) else value
