"""Jobs: calls of declared functions that are written down instead of made.

A job's name is the SHA-256 of what would be called: the function's declared name and version, the arguments
that differ from their defaults, and the names of the jobs whose results are arguments. So a parameter with a
default can be added, and code be moved or renamed, without any job changing its name, and two tables that
need the same ticket share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import JobError
from tombola.lab.arguments import ArgumentWriter, from_json, job_signature, same_source, written_defaults
from tombola.lab.description import MOST_REFERENCES, TICKET_FUNCTION, by_name, call_name, is_reference
from tombola.registry import Declaration, declaration, declaration_of
from tombola.source import note_use
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import DEEPEST, depth


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a declared function, written down by :func:`job`.

    declaration: of the function, at the version that the call has.
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
        """The job's SHA-256 in 64 hexadecimal digits."""
        # As name_of its description, which would be written out only to be read again.
        arguments = {key: _by_name(value) for key, value in self.arguments.items()}
        return call_name(self.declaration.name, self.declaration.version, arguments)

    @property
    def stored(self) -> bool:
        """Whether the result is kept; a job that is not stored is run again where its result is needed."""
        return self.declaration.stored

    @property
    def counted(self) -> bool:
        """Whether progress and plans count the job; the tickets of rounds are left out."""
        return self.declaration.name != TICKET_FUNCTION

    @property
    def parents(self) -> tuple[Job, ...]:
        """The jobs among the arguments."""
        return tuple(_jobs_in(self.arguments.values()))

    @cached_property
    def needs(self) -> tuple[Job, ...]:
        """The stored jobs whose results must be there before this one can run."""
        needs: dict[str, Job] = {}
        for parent in self.parents:
            if parent.stored:
                needs[parent.name] = parent
            else:
                needs |= {job_.name: job_ for job_ in parent.needs}
        return tuple(needs.values())

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Levels of lists and objects within each other in the description, and results and data sets named.

        Those of calls described in full count too.
        """
        levels, references = _extent_of(self.arguments.values())
        return 2 + levels, references

    def description(self) -> dict[str, Any]:
        """The call as JSON values. A parent that is not stored is described in full."""
        return {
            "function": self.declaration.name,
            "version": self.declaration.version,
            "arguments": {key: _argument_json(value) for key, value in self.arguments.items()},
        }

    def __repr__(self) -> str:
        return f"<job {self.declaration.name} {self.name[:12]}>"


def job(function: Callable[..., object], /, *arguments: Any, **options: Any) -> Job:
    """A call as a job, which is not made.

    function: a declared one; see :func:`tombola.declare`.
    arguments, options: as the function takes them, except that a :class:`Job` may stand for its result, and a
        name or folder for a data set. ``device``, ``mode`` and ``watch`` are left to the lab. Of a public
        function wrong types are refused as in its call.

    Raises :class:`~tombola.errors.JobError` for a function that is not declared, an argument that cannot be
    written down, a call that does not fit the function, or too many that are not stored within each other.
    """
    declared = declaration_of(function)
    called, defaults = job_signature(declared.function), written_defaults(declared.function)
    try:
        by_parameter = called.bind(arguments, options)
    except TypeError as error:
        raise JobError(f"{declared.name}: {error}") from None
    writer = ArgumentWriter(declared.name, (Job,))
    written: dict[str, Any] = {}
    for key, value in by_parameter.items():
        if key in defaults and value is defaults[key]:  # a default as it is written
            continue
        encoded = writer.write(key, value, called.hints.get(key, Any))
        if key not in defaults or encoded != defaults[key]:
            written[key] = encoded
    for key, other in declared.default_to.items():
        if key in written and written[key] == written.get(other, defaults.get(other)):
            del written[key]
    written_call = Job(declared.for_call(by_parameter), written, writer.data, writer.values)
    # Computed now, when its parents have theirs: in a chain of hundreds of rounds the last name would
    # otherwise need all others at once, beyond the recursion limit.
    _ = written_call.name
    if any(map(_may_be_large, written.values())):
        _check_size(written_call)
    return written_call


def _may_be_large(value: object) -> bool:
    """Whether an argument can make a description deep or long: a list, or a call described in full."""
    return isinstance(value, list) or (isinstance(value, Job) and not value.stored)


def _check_size(written_call: Job) -> None:
    """Raises JobError for a call whose description a store would not read."""
    function = written_call.declaration.name
    levels, references = written_call.extent
    if levels > DEEPEST:
        raise JobError(
            f"{function} takes calls within calls, described {levels} levels deep; a store reads {DEEPEST}: "
            "declare the function of one of them with stored=True"
        )
    if references > MOST_REFERENCES:
        raise JobError(
            f"{function} names {references:,} results and data sets, counting those of calls within it; "
            f"a store reads {MOST_REFERENCES:,}: declare functions of calls within it with stored=True, or "
            "give fewer"
        )


def all_needed(jobs: Iterable[Job]) -> dict[str, Job]:
    """These jobs and all stored ones behind them by name, every job after those that it needs."""
    ordered: dict[str, Job] = {}
    pending = list(jobs)[::-1]
    while pending:  # an explicit stack: a chain of hundreds of rounds must not hit the recursion limit
        job_ = pending[-1]
        missing = [needed for needed in job_.needs if needed.name not in ordered]
        if missing:
            pending += reversed(missing)
        else:
            pending.pop()
            if job_.stored:
                ordered.setdefault(job_.name, job_)
    return ordered


def data_behind(jobs: Iterable[Job]) -> dict[str, str | Data]:
    """The data sets that these jobs and those behind them take, by name.

    Raises :class:`~tombola.errors.JobError` if two of them have one name.
    """
    sources: dict[str, str | Data] = {}
    for job_ in everything_behind(jobs):
        for name, source in job_.data.items():
            if not same_source(sources.setdefault(name, source), source):
                raise JobError(f"two different data sets are called {name!r}; rename one of them")
    return sources


def values_behind(jobs: Iterable[Job]) -> dict[str, Ticket | Run]:
    """The caller's own tickets and runs that these jobs and those behind them take, by fingerprint."""
    return {name: value for job_ in everything_behind(jobs) for name, value in job_.values.items()}


def everything_behind(jobs: Iterable[Job]) -> Iterator[Job]:
    """Yields these jobs and all behind them, stored or not, each once."""
    seen: set[int] = set()
    pending = list(jobs)
    while pending:
        job_ = pending.pop()
        if id(job_) not in seen:
            seen.add(id(job_))
            yield job_
            pending.extend(job_.parents)


def call(described: Declaration, arguments: Mapping[str, Any], runtime: Mapping[str, Any]) -> Any:
    """The result of a declared function for the arguments of a description and what the lab fills in.

    Raises :class:`~tombola.errors.JobError` where the function has other parameters, or other numbers, by
    now.
    """
    note_use("functions", described.name)
    called = job_signature(described.function)
    unknown = sorted(set(arguments) - set(called.signature.parameters))
    if unknown:
        raise JobError(f"{described.name} has no parameter {unknown[0]!r}; the job is of another version")
    values = {key: from_json(value, called.hints.get(key, Any)) for key, value in arguments.items()}
    if (changed := described.changed_by(values)) is not None:
        raise JobError(
            f"the job asks for version {described.version} of {described.name}, but version {changed} gives "
            "this call other numbers; give its data loaded, as tombola.load_data(DATA), since their size "
            "decides the version; an older job is written down anew"
        )
    return described.function(**values, **{key: runtime[key] for key in called.runtime & runtime.keys()})


def result_type(described: Declaration) -> Any:
    """The type that a declared function returns, by its annotation."""
    return job_signature(described.function).hints.get("return", Any)


def runs_behind(measure: Job) -> list[Job]:
    """The runs that a measure was taken of; of a run itself."""
    if result_type(measure.declaration) is Run:
        return [measure]
    return [job_ for job_ in measure.needs if result_type(job_.declaration) is Run]


def described_function(description: Mapping[str, Any]) -> Declaration:
    """The declaration that a description refers to, at its version.

    Raises :class:`~tombola.errors.JobError` if no call has that version now. A call whose numbers a later
    version changed has a declaration too, so that its old result can be read; :func:`call` refuses to make
    it.
    """
    return declaration(description["function"]).at(description["version"])


def described_type(description: Mapping[str, Any]) -> Any:
    """The type that a described call returns; raises as :func:`described_function`."""
    return result_type(described_function(description))


def _jobs_in(values: Iterable[object]) -> list[Job]:
    jobs: list[Job] = []
    for value in values:
        if isinstance(value, Job):
            jobs.append(value)
        elif isinstance(value, list):
            jobs += _jobs_in(value)
    return jobs


def _argument_json(value: object) -> object:
    """An argument of a job as JSON, jobs as references."""
    if isinstance(value, Job):
        return {"job": value.name} | ({} if value.stored else {"call": value.description()})
    return [_argument_json(item) for item in value] if isinstance(value, list) else value


def _by_name(value: object) -> object:
    """An argument of a job with names in place of jobs and of calls described in full."""
    if isinstance(value, Job):
        return {"job": value.name}
    return [_by_name(item) for item in value] if isinstance(value, list) else by_name(value)


def _extent_of(values: Iterable[object]) -> tuple[int, int]:
    """The levels of the deepest of these arguments, and how many results and data sets all of them name."""
    extents = [_extent(value) for value in values]
    return max((levels for levels, _ in extents), default=0), sum(references for _, references in extents)


def _extent(value: object) -> tuple[int, int]:
    """Levels of lists and objects of an argument, and how many results and data sets it names."""
    if isinstance(value, Job):
        levels, references = (0, 0) if value.stored else value.extent
        return 1 + levels, 1 + references
    if isinstance(value, list):
        levels, references = _extent_of(value)
        return 1 + levels, references
    return (depth(value), int(is_reference(value))) if isinstance(value, dict) else (0, 0)
