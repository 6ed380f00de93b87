"""Jobs: calls of declared functions, written down.

A job's name is the SHA-256 of what would be called: the function's declared name and version, the arguments
that differ from their defaults, and the names of the jobs whose results are arguments. So a parameter with a
default can be added, and code be moved or renamed, without any job changing its name; and two tables that
need the same ticket share it without knowing of each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy

from tombola.data.catalogue import find
from tombola.data.imageset import Data
from tombola.declared import Declaration, declaration, declaration_of
from tombola.errors import JobError
from tombola.lab.hints import alternatives, item_hint, wants_float
from tombola.networks.network import Network
from tombola.ticket import Ticket
from tombola.training.run import Run

# Parameters that the lab fills in where a job runs. They say how, not what, and never enter a name.
RUNTIME = frozenset({"device", "watch"})


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a declared function. Made by :func:`job`.

    declaration: the function.
    arguments: those that differ from their defaults, as JSON values; jobs stand as :class:`Job`.
    data: the data sets among the arguments, by name: what each is loaded from, or the caller's own tensors.
    values: the caller's own tickets and runs among the arguments, by fingerprint.
    """

    declaration: Declaration
    arguments: Mapping[str, Any]
    data: Mapping[str, str | Data] = field(default_factory=dict)
    values: Mapping[str, Ticket | Run] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """64 hexadecimal digits that say what is called."""
        return name_of(self.description())

    @property
    def stored(self) -> bool:
        """Whether the result is kept; a job that is not stored is run again where its result is needed."""
        return self.declaration.stored

    @cached_property
    def parents(self) -> tuple[Job, ...]:
        """The jobs among the arguments."""
        return tuple(value for value in self.arguments.values() if isinstance(value, Job))

    @cached_property
    def needs(self) -> tuple[Job, ...]:
        """The stored jobs whose results must be there before this one can run."""
        found: dict[str, Job] = {}
        for parent in self.parents:
            for job_ in (parent,) if parent.stored else parent.needs:
                found[job_.name] = job_
        return tuple(found.values())

    def description(self) -> dict[str, Any]:
        """The call as JSON values. A parent that is not stored is described in full."""
        arguments = {}
        for key, value in self.arguments.items():
            if isinstance(value, Job):
                arguments[key] = {"job": value.name} | ({} if value.stored else {"call": value.description()})
            else:
                arguments[key] = value
        return {
            "function": self.declaration.name,
            "version": self.declaration.version,
            "arguments": arguments,
        }

    def __repr__(self) -> str:
        return f"<job {self.declaration.name} {self.name[:12]}>"


def job(function: Callable[..., Any], *arguments: Any, **options: Any) -> Job:
    """Write a call down instead of making it.

    function: a declared one; see :func:`tombola.declare`.
    arguments, options: as the function takes them, except that a :class:`Job` may stand for its result, and a
        name or folder for a data set. ``device`` and ``watch`` are left to the lab.

    Raises :class:`~tombola.errors.JobError` for a function that is not declared, an argument that cannot be
    written down, or a call that does not fit the function.
    """
    declared = declaration_of(function)
    parameters, hints = _face(function)
    try:
        bound = inspect.Signature(list(parameters.values())).bind(*arguments, **options)
    except TypeError as error:
        raise JobError(f"{declared.name}: {error}") from None
    scribe = _Scribe(declared.name)
    written: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        default = parameters[key].default
        encoded = scribe.write(key, value, hints.get(key, Any))
        if default is parameters[key].empty or encoded != scribe.write(key, default, hints.get(key, Any)):
            written[key] = encoded
    made = Job(declared, written, scribe.data, scribe.values)
    # Worked out now, while the names of its parents are known: in a chain of hundreds of rounds the last name
    # would otherwise ask for all others at once, beyond the recursion limit.
    _ = made.name
    return made


def name_of(description: Mapping[str, Any]) -> str:
    """The name of a described job. A parent counts by its name alone."""

    def named(value: Any) -> Any:
        return {"job": value["job"]} if isinstance(value, dict) and "call" in value else value

    arguments = {key: named(value) for key, value in description["arguments"].items()}
    called = {"function": description["function"], "version": description["version"], "arguments": arguments}
    text = json.dumps(called, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def all_needed(jobs: typing.Iterable[Job]) -> dict[str, Job]:
    """All stored jobs behind these, themselves included, every job after those that it needs."""
    ordered: dict[str, Job] = {}
    pending: list[tuple[Job, bool]] = [(job_, False) for job_ in reversed(list(jobs))]
    while pending:  # an explicit stack: a chain of hundreds of rounds must not hit the recursion limit
        job_, visited = pending.pop()
        if job_.stored and job_.name in ordered:
            continue
        if visited:
            ordered[job_.name] = job_
        else:
            if job_.stored:
                pending.append((job_, True))
            pending.extend((needed, False) for needed in reversed(job_.needs))
    return ordered


def data_behind(jobs: typing.Iterable[Job]) -> dict[str, str | Data]:
    """All data sets that these jobs and those behind them take."""
    found: dict[str, str | Data] = {}
    for job_ in _everything(jobs):
        found.update(job_.data)
    return found


def values_behind(jobs: typing.Iterable[Job]) -> dict[str, Ticket | Run]:
    """All tickets and runs of the caller's own that these jobs and those behind them take."""
    return {name: value for job_ in _everything(jobs) for name, value in job_.values.items()}


def _everything(jobs: typing.Iterable[Job]) -> Iterator[Job]:
    seen: set[int] = set()
    pending = list(jobs)
    while pending:
        job_ = pending.pop()
        if id(job_) not in seen:
            seen.add(id(job_))
            yield job_
            pending.extend(job_.parents)


def call(described: Declaration, arguments: Mapping[str, Any], runtime: Mapping[str, Any]) -> Any:
    """Call a declared function with arguments as read from a description and what the lab fills in."""
    parameters, hints = _face(described.function)
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        raise JobError(f"{described.name} has no parameter {unknown[0]!r}; the job is of another version")
    read = {key: _read(value, hints.get(key, Any)) for key, value in arguments.items()}
    taken = inspect.signature(described.function).parameters
    return described.function(**read, **{key: value for key, value in runtime.items() if key in taken})


def result_type(described: Declaration) -> Any:
    """What the function is declared to return."""
    return _face(described.function)[1].get("return", Any)


def described_function(description: Mapping[str, Any]) -> Declaration:
    """The declaration a description refers to; refused if its version is not the present one."""
    declared = declaration(description["function"])
    if declared.version != description["version"]:
        raise JobError(
            f"the job asks for version {description['version']} of {declared.name}; "
            f"here is version {declared.version}"
        )
    return declared


@cache
def _face(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The parameters that enter a job, and the types of all."""
    label = getattr(function, "__qualname__", repr(function))
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if key not in RUNTIME
    }
    for key, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise JobError(
                f"{label} cannot be a job: {key} has no name to be given by; write each parameter out"
            )
    try:
        return parameters, typing.get_type_hints(function)
    except NameError as error:
        raise JobError(
            f"{label} cannot be a job: its type hints cannot be read ({error}); import what they name at the "
            "top of its module"
        ) from error


class _Scribe:
    """Writes the arguments of one call down as JSON values, and gathers the data and values behind them."""

    def __init__(self, function: str) -> None:
        self._function = function
        self.data: dict[str, str | Data] = {}
        self.values: dict[str, Ticket | Run] = {}

    def write(self, key: str, value: Any, hint: Any, *, inner: bool = False) -> Any:
        if inner and isinstance(value, Job | Data | Ticket | Run):
            raise JobError(
                f"{self._function}: {key} is a {type(value).__name__} within another value; "
                "give it as an argument of its own"
            )
        if isinstance(value, Job):
            return value
        if isinstance(value, Data) or (hint is Data and isinstance(value, str | os.PathLike)):
            return self._write_data(value)
        if isinstance(value, Ticket | Run):
            name = value.fingerprint
            self.values[name] = value
            return {"value": name, "type": type(value).__name__}
        if isinstance(value, numpy.generic):
            value = value.item()
        if isinstance(value, bool | str | types.NoneType):
            return value
        if isinstance(value, int):
            return float(value) if wants_float(hint) else value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise JobError(f"{self._function}: {key} is {value}; a job takes finite numbers only")
            return value
        if isinstance(value, list | tuple):
            return [
                self.write(f"{key}[{index}]", item, item_hint(hint, index), inner=True)
                for index, item in enumerate(value)
            ]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._write_fields(key, value)
        if callable(value):
            return self._write_network(value)
        raise JobError(
            f"{self._function}: {key} is a {type(value).__name__}, which cannot be written down; "
            "give numbers, text, lists, dataclasses, data, tickets, runs or jobs"
        )

    def _write_data(self, value: Data | str | os.PathLike[str]) -> dict[str, str]:
        if isinstance(value, Data):
            name, source = value.name, value if value.source is None else value.source
        elif value == "digits":
            name, source = "digits", "digits"
        else:
            origin = find(value)
            name, source = origin.name, origin.source
        self.data[name] = source
        return {"data": name}

    def _write_fields(self, key: str, value: Any) -> dict[str, Any]:
        """The fields of a dataclass that differ from their defaults."""
        hints = typing.get_type_hints(type(value))
        written = {}
        for entry in dataclasses.fields(value):
            hint = hints[entry.name]
            place = f"{key}.{entry.name}"
            encoded = self.write(place, getattr(value, entry.name), hint, inner=True)
            if entry.default is not dataclasses.MISSING:
                default = entry.default
            elif entry.default_factory is not dataclasses.MISSING:
                default = entry.default_factory()
            else:
                written[entry.name] = encoded
                continue
            if encoded != self.write(place, default, hint, inner=True):
                written[entry.name] = encoded
        return written

    def _write_network(self, factory: Callable[..., Any]) -> str:
        known = Network.of(factory, channels=1, size=(1, 1), classes=1)
        if known.factory is not None:
            raise JobError(
                f"{self._function}: {known.name} is not declared and cannot enter a job; "
                "put @tombola.declare_network('a-name') above it"
            )
        return known.name


def _read(value: Any, hint: Any) -> Any:
    """A JSON value as the type that the parameter is declared with."""
    if isinstance(value, dict):
        for kind in alternatives(hint):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                hints = typing.get_type_hints(kind)
                return kind(**{key: _read(item, hints.get(key, Any)) for key, item in value.items()})
        return value
    if isinstance(value, list):
        return tuple(_read(item, item_hint(hint, index)) for index, item in enumerate(value))
    if isinstance(value, str) and Path in alternatives(hint):
        return Path(value)
    return value
