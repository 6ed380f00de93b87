"""Jobs: calls of declared functions, written down.

A job's name is the SHA-256 of what would be called: the function's declared name and version, the arguments
that differ from their defaults, and the names of the jobs whose results are arguments. So a parameter with a
default can be added, and code be moved or renamed, without any job changing its name; and two tables that
need the same ticket share it without knowing of each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import JobError
from tombola.lab.arguments import Scribe, face, read, same_source, written_defaults
from tombola.lab.references import TICKETS
from tombola.registry import Declaration, declaration, declaration_of
from tombola.source import note_use
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import DEEPEST, depth


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a declared function. Made by :func:`job`.

    declaration: the function.
    arguments: those that differ from their defaults, as JSON values; jobs, also within lists, stand as
        :class:`Job`.
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

    @property
    def counted(self) -> bool:
        """Whether progress and plans count it. The tickets between two trainings are left out."""
        return self.declaration.name != TICKETS

    @cached_property
    def parents(self) -> tuple[Job, ...]:
        """The jobs among the arguments."""
        return tuple(_jobs_in(list(self.arguments.values())))

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
        return {
            "function": self.declaration.name,
            "version": self.declaration.version,
            "arguments": {key: _described(value) for key, value in self.arguments.items()},
        }

    def __repr__(self) -> str:
        return f"<job {self.declaration.name} {self.name[:12]}>"


def job(function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Job:
    """Write a call down instead of making it.

    function: a declared one; see :func:`tombola.declare`.
    arguments, options: as the function takes them, except that a :class:`Job` may stand for its result, and a
        name or folder for a data set. ``device`` and ``watch`` are left to the lab.

    Raises :class:`~tombola.errors.JobError` for a function that is not declared, an argument that cannot be
    written down, a call that does not fit the function, or too many that are not stored within each other.
    """
    declared = declaration_of(function)
    known, defaults = face(function), written_defaults(function)
    try:
        bound = known.signature.bind(*arguments, **options)
    except TypeError as error:
        raise JobError(f"{declared.name}: {error}") from None
    scribe = Scribe(declared.name, (Job,))
    written: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        encoded = scribe.write(key, value, known.hints.get(key, Any))
        if key not in defaults or encoded != defaults[key]:
            written[key] = encoded
    made = Job(declared.for_call(bound.arguments), written, scribe.data, scribe.values)
    # Worked out now, while the names of its parents are known: in a chain of hundreds of rounds the last name
    # would otherwise ask for all others at once, beyond the recursion limit.
    _ = made.name
    if any(not parent.stored for parent in made.parents):
        deep = depth(made.description())
        if deep > DEEPEST:
            raise JobError(
                f"{declared.name} takes calls within calls, described {deep} levels deep; a store reads "
                f"{DEEPEST}: declare the function of one of them with stored=True"
            )
    return made


def name_of(description: Mapping[str, Any]) -> str:
    """The name of a described job. A parent counts by its name alone."""
    arguments = {key: _named(value) for key, value in description["arguments"].items()}
    called = {"function": description["function"], "version": description["version"], "arguments": arguments}
    text = json.dumps(called, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def describes(description: Mapping[str, Any], name: str) -> bool:
    """Whether a call that was read is the one of that name, and so are all that are described within it."""
    pending: list[tuple[str, Any]] = [(name, description)]
    while pending:
        wanted, called = pending.pop()
        if name_of(called) != wanted:
            return False
        values = list(called["arguments"].values())
        while values:
            value = values.pop()
            if isinstance(value, list):
                values.extend(value)
            elif isinstance(value, dict) and {"job", "call"} <= value.keys():
                pending.append((value["job"], value["call"]))
    return True


def all_needed(jobs: Iterable[Job]) -> dict[str, Job]:
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


def data_behind(jobs: Iterable[Job]) -> dict[str, str | Data]:
    """All data sets that these jobs and those behind them take.

    Raises :class:`~tombola.errors.JobError` if two of them go by one name.
    """
    found: dict[str, str | Data] = {}
    for job_ in everything_behind(jobs):
        for name, source in job_.data.items():
            if not same_source(found.setdefault(name, source), source):
                raise JobError(f"two different data sets are called {name!r}; rename one of them")
    return found


def values_behind(jobs: Iterable[Job]) -> dict[str, Ticket | Run]:
    """All tickets and runs of the caller's own that these jobs and those behind them take."""
    return {name: value for job_ in everything_behind(jobs) for name, value in job_.values.items()}


def everything_behind(jobs: Iterable[Job]) -> Iterator[Job]:
    """These jobs and all behind them, stored or not, each once."""
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
    note_use("functions", described.name)
    known = face(described.function)
    unknown = sorted(set(arguments) - set(known.signature.parameters))
    if unknown:
        raise JobError(f"{described.name} has no parameter {unknown[0]!r}; the job is of another version")
    taken = {key: read(value, known.hints.get(key, Any)) for key, value in arguments.items()}
    if (changed := described.changed_by(taken)) is not None:
        raise JobError(
            f"the job asks for version {described.version} of {described.name}, but version {changed} gives "
            "this call other numbers; write the call down anew, as another job"
        )
    return described.function(**taken, **{key: runtime[key] for key in known.runtime & runtime.keys()})


def result_type(described: Declaration) -> Any:
    """What the function is declared to return."""
    return face(described.function).hints.get("return", Any)


def described_function(description: Mapping[str, Any]) -> Declaration:
    """The declaration a description refers to, at its version.

    Raises :class:`~tombola.errors.JobError` if no call has that version now. A call that a later version has
    changed is found all the same, so that its old result can be read; :func:`call` refuses to make it.
    """
    return declaration(description["function"]).at(description["version"])


def _jobs_in(value: Any) -> Iterator[Job]:
    if isinstance(value, Job):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _jobs_in(item)


def _described(value: Any) -> Any:
    if isinstance(value, Job):
        return {"job": value.name} | ({} if value.stored else {"call": value.description()})
    return [_described(item) for item in value] if isinstance(value, list) else value


def _named(value: Any) -> Any:
    """A described argument with its parents by name only."""
    if isinstance(value, list):
        return [_named(item) for item in value]
    return {"job": value["job"]} if isinstance(value, dict) and {"job", "call"} <= value.keys() else value
