"""What a store holds, one line a job: behind ``tombola ls``.

A listing reads one line for each job from an index in the store (``.index.json``, :mod:`tombola.lab.index`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from tombola.counts import many
from tombola.errors import JobError, StoreError, reason
from tombola.lab.conditions import jobs_where, parse_condition
from tombola.lab.description import TICKET_FUNCTION, arguments_line, brief
from tombola.lab.index import change_times, read_index, write_index
from tombola.lab.job_fields import fields_of_jobs
from tombola.lab.store import Store
from tombola.lab.unfinished import UnfinishedJob, unfinished_jobs
from tombola.untrusted import OTHER_FORM, printable

_INDEX = ".index.json"
# Between two columns of a listing.
_GAP = "  "


class JobRow(NamedTuple):
    """A finished job on one line; ``started`` as ISO 8601 text."""

    name: str
    function: str
    arguments: str
    result: str
    started: str
    seconds: float


Sort = Literal["time", "seconds", "function", "name"]

_SORTS: Mapping[Sort, Callable[[JobRow], tuple[Any, ...]]] = {
    "time": lambda row: (row.started, row.name),
    "seconds": lambda row: (row.seconds, row.started, row.name),
    "function": lambda row: (row.function, row.started, row.name),
    "name": lambda row: (row.name,),
}


@dataclass(frozen=True)
class Listing:
    """The jobs of a store that were asked for, to be printed or written as JSON.

    finished: in the order asked for. unfinished: those that run, failed or were interrupted.
    hidden_tickets: tickets of rounds that were left out. damaged: errors of jobs that cannot be read.
    """

    store: Store
    finished: Sequence[JobRow]
    unfinished: Sequence[UnfinishedJob] = ()
    hidden_tickets: int = 0
    damaged: Sequence[StoreError] = ()
    filters: str = ""

    def __rich__(self) -> RenderableType:
        if not self.finished and not self.unfinished and not self.damaged:
            filters = f"{self.filters} " if self.filters else ""
            return Group(dim_line(f"no {filters}jobs in the store at {self.store.root}"))
        total = sum(row.seconds for row in self.finished)
        count = many(len(self.finished), "job")
        states = Counter(job.state for job in self.unfinished)
        unfinished = "".join(f"{number} {state}, " for state, number in sorted(states.items()))
        return Group(
            _JobTable(self.finished, self.unfinished),
            *(Text(printable(str(error)), style="red") for error in self.damaged),
            dim_line(
                f"{count}, {unfinished}{_hidden_tickets(self.hidden_tickets)}{total:.0f} s of work, "
                f"in {self.store.root}"
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """The same as an object: finished and unfinished jobs with their full names, and what is damaged."""
        return {
            "store": str(self.store.root),
            "jobs": [{"state": "finished", **row._asdict()} for row in self.finished],
            "unfinished": [asdict(job) for job in self.unfinished],
            "tickets_not_listed": self.hidden_tickets,
            "damaged": [str(error) for error in self.damaged],
        }


def listing(
    store: Store,
    function: str | None = None,
    *,
    tickets: bool = False,
    where: Sequence[str] = (),
    sort: Sort = "time",
    last: int | None = None,
) -> Listing:
    """The jobs of a store, oldest first, with those that were begun and not finished.

    function: only jobs of this function.
    tickets: also the tickets of rounds; by default they are only counted, unless ``function`` is theirs.
    where: conditions such as ``momentum=0.9``, see :mod:`tombola.lab.conditions`; what is unfinished is left
        out then, since nothing tells what it measures.
    last: only so many of the finished ones, from the end of the order that ``sort`` says.

    Raises :class:`~tombola.errors.JobError` for a condition that says nothing or names no field, and for
    fewer than one job.
    """
    if last is not None and last < 1:
        raise JobError(f"last is {last}; ask for at least one job")
    conditions = [parse_condition(text) for text in where]
    changed = change_times(store)
    every, damaged = _indexed_rows(store, changed)
    shown = tickets or function == TICKET_FUNCTION
    rows = [row for row in every if function is None or row.function == function]
    hidden = 0 if function or where else sum(row.function == TICKET_FUNCTION for row in rows if not shown)
    rows = [row for row in rows if shown or row.function != TICKET_FUNCTION]
    if where:
        chosen = jobs_where(fields_of_jobs(store, [row.name for row in rows], changed), conditions)
        rows = [row for row in rows if row.name in chosen]
    rows.sort(key=_SORTS[sort])
    unfinished = [
        job for job in unfinished_jobs(store) if not where and (function is None or job.function == function)
    ]
    filters = ", ".join([*([function] if function else []), *where])
    return Listing(store, rows[-last:] if last else rows, unfinished, hidden, damaged, filters)


def finished_names(store: Store) -> tuple[list[str], list[StoreError]]:
    """The names of all finished jobs but tickets, oldest first, and the errors of those that are damaged."""
    rows, damaged = _indexed_rows(store, change_times(store))
    return [row.name for row in sorted(rows, key=_SORTS["time"]) if row.function != TICKET_FUNCTION], damaged


def _hidden_tickets(tickets: int) -> str:
    """The part of the last line that counts tickets left out."""
    return f"{many(tickets, 'ticket')} not listed (--tickets), " if tickets else ""


class _JobTable:
    """A table of jobs as wide as the terminal. Rich's own table takes seconds for thousands of rows."""

    def __init__(self, rows: Sequence[JobRow], unfinished: Sequence[UnfinishedJob]) -> None:
        self._cells = [
            (
                printable(row.name[:12]),
                printable(row.function),
                printable(row.arguments),
                printable(row.result),
                printable(row.started[5:16].replace("T", " ")),
                f"{row.seconds:.1f}",
            )
            for row in rows
        ] + [(job.name[:12], printable(job.function), job.detail, job.state, "", "") for job in unfinished]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = ("job", "function", "arguments", "result", "started", "seconds")
        widths = [max(map(cell_len, column)) for column in zip(header, *self._cells, strict=True)]
        # One line a job: what does not fit is cut from the arguments, which tombola show prints in full.
        room = options.max_width - sum(widths) + widths[2] - len(_GAP) * (len(header) - 1)
        if room < min(widths[2], 20):
            widths = [width if column == 2 else min(width, 30) for column, width in enumerate(widths)]
            room = options.max_width - sum(widths) + widths[2] - len(_GAP) * (len(header) - 1)
        widths[2] = max(1, min(widths[2], room))
        yield Segment(_table_line(header, widths) + "\n", Style(bold=True))
        yield Segment("".join(_table_line(cells, widths) + "\n" for cells in self._cells))


def _table_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table, its last column right-aligned."""
    fitted = [_fit(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return _GAP.join([*fitted[:-1], cells[-1].rjust(widths[-1])])


def _fit(cell: str, width: int) -> str:
    """A cell padded or cut to a width."""
    length = cell_len(cell)
    return cell + " " * (width - length) if length <= width else set_cell_size(cell, width - 1) + "…"


def dim_line(text: str) -> Text:
    """A line that is not broken where it is too long, so that the path in it can be copied."""
    return Text(text, style="dim", no_wrap=True, overflow="ignore")


def _indexed_rows(store: Store, changed: Mapping[str, int]) -> tuple[list[JobRow], list[StoreError]]:
    """A row for each finished job, and the errors of those that cannot be read; updates the index.

    changed: for each job of the store the time of its last change.
    """
    index = _index(store)
    rows: dict[str, tuple[int, JobRow]] = {}
    damaged = []
    for name, time in changed.items():
        entry = index.get(name)
        if entry is not None and entry[0] == time:
            rows[name] = entry
            continue
        try:
            row = job_row(store, name)
        except JobError:
            continue  # removed by another process just now
        except StoreError as error:
            damaged.append(error)
        except OTHER_FORM as error:
            cause = f"its numbers have another form: {type(error).__name__} {reason(error)}"
            damaged.append(store.damaged(name, cause))
        else:
            rows[name] = time, row
    if rows != index:
        write_index(store, _INDEX, [[time, *row] for time, row in rows.values()])
    return [row for _, row in rows.values()], damaged


def job_row(store: Store, name: str) -> JobRow:
    """The row of a finished job, read from its files."""
    description, provenance = store.description(name), store.provenance(name)
    return _checked_row(
        name, description["function"], arguments_line(description),
        _result_line(store, store.numbers(name), description), provenance["started"], provenance["seconds"],
    )  # fmt: skip


def _index(store: Store) -> dict[str, tuple[int, JobRow]]:
    """The rows of the index by job, each with its change time; {} if it has another form."""
    try:
        return {name: (time, _checked_row(name, *row)) for time, name, *row in read_index(store, _INDEX)}
    except OTHER_FORM:
        return {}


def _checked_row(
    name: str, function: object, arguments: object, result: object, started: object, seconds: Any
) -> JobRow:
    """A row of values from a file, each of the type that it is declared with."""
    return JobRow(name, str(function), str(arguments), str(result), str(started), float(seconds))


def _result_line(store: Store, numbers: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """A result in few words: accuracy, sparsity, barrier, surface or its value; a star where a run failed."""
    if numbers.keys() == {"undefined"}:
        return shorten(f"undefined*: {numbers['undefined']}", 60, placeholder="…")
    if "accuracy" in numbers:
        star = "*" if numbers["failed"] else ""
        return f"{numbers['accuracy']:.2f}%{star} at {100 * numbers['sparsity']:.2f}% sparsity"
    if "sparsity" in numbers:
        step = f", step {numbers['step']}" if "step" in numbers else ""
        return f"{100 * numbers['sparsity']:.2f}% sparsity at epoch {numbers['epoch']}{step}"
    value = numbers.get("value", numbers)
    if isinstance(value, dict) and {"horizontal", "vertical", "split"} <= value.keys():
        positions = f"{len(value['horizontal'])} by {len(value['vertical'])} positions"
        return f"surface of {positions} on the {value['split']} images"
    errors = value.get("errors") if isinstance(value, dict) else None
    if isinstance(errors, list) and len(errors) > 1:
        star = "*" * _has_failed_end(store, value, description["arguments"])
        if any(isinstance(loss, dict) for loss in value.get("losses", ())):  # {"float": "nan"}
            return f"barrier undefined{star}"
        return f"barrier {max(errors) - (errors[0] + errors[-1]) / 2:.2f} points{star}"
    return brief(value)[:60]


def _has_failed_end(store: Store, barrier: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a run diverged or stayed at chance; where the barrier does not say so, as the store has it."""
    if barrier.get("ends"):
        return bool({*barrier["ends"]} - {"trained"})
    for end in ("first", "second"):
        with suppress(StoreError, *OTHER_FORM):  # no job, gone or damaged
            run = arguments[end]
            if store.numbers(run["job"]).get("failed") is True:
                return True
    return False
