"""Listings of a store and details of one job or file: the texts behind ``tombola ls`` and ``tombola show``.

A listing reads one line for each job from an index in the store (``.index.json``), which is written again
whenever it is missing, from another version of tombola, or a job is newer than it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.tree import Tree

from tombola.disk import write_whole
from tombola.errors import JobError, StoreError, reason
from tombola.lab.description import TICKET_FUNCTION
from tombola.lab.store import TICKET_KIND, Store, is_at_its_place, read_json
from tombola.untrusted import OTHER_FORM, printable
from tombola.version import __version__

_INDEX = ".index.json"
# Between two columns of a listing.
_GAP = "  "
# Lines of each part of what is shown of a job, and characters of one of them.
_MOST_LINES, _LONGEST_LEAF = 500, 2_000


class JobRow(NamedTuple):
    """A finished job on one line; ``started`` as ISO 8601 text."""

    name: str
    function: str
    arguments: str
    result: str
    started: str
    seconds: float


def listing(store: Store, function: str | None = None, *, tickets: bool = False) -> RenderableType:
    """A table with one line for each finished job, oldest first, and the errors of damaged ones.

    function: only jobs of this function.
    tickets: also the tickets of rounds; by default they are only counted, unless ``function`` is theirs.
    """
    every, damaged = _indexed_rows(store)
    shown = tickets or function == TICKET_FUNCTION
    rows = [row for row in every if function is None or row.function == function]
    hidden = 0 if function else sum(row.function == TICKET_FUNCTION for row in rows if not shown)
    rows = [row for row in rows if shown or row.function != TICKET_FUNCTION]
    if not rows and not damaged:
        return Group(_dim_line(f"no {function + ' ' if function else ''}jobs in the store at {store.root}"))
    rows.sort(key=_age)
    total = sum(row.seconds for row in rows)
    return Group(
        _JobTable(rows),
        *(Text(printable(str(error)), style="red") for error in damaged),
        _dim_line(f"{len(rows)} jobs, {_hidden_tickets(hidden)}{total:.0f} s of work, in {store.root}"),
    )


def finished_names(store: Store) -> tuple[list[str], list[StoreError]]:
    """The names of all finished jobs but tickets, oldest first, and the errors of those that are damaged."""
    rows, damaged = _indexed_rows(store)
    return [row.name for row in sorted(rows, key=_age) if row.function != TICKET_FUNCTION], damaged


def _age(row: JobRow) -> tuple[str, str]:
    """What finished jobs are sorted by: when they were begun."""
    return row.started, row.name


def _hidden_tickets(tickets: int) -> str:
    """The part of the last line that counts tickets left out."""
    return f"{tickets} ticket{'s' if tickets != 1 else ''} not listed (--tickets), " if tickets else ""


class _JobTable:
    """A table of jobs as wide as the terminal. Rich's own table takes seconds for thousands of rows."""

    def __init__(self, rows: Sequence[JobRow]) -> None:
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
        ]

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


def _dim_line(text: str) -> Text:
    """A line that is not broken where it is too long, so that the path in it can be copied."""
    return Text(text, style="dim", no_wrap=True, overflow="ignore")


def _indexed_rows(store: Store) -> tuple[list[JobRow], list[StoreError]]:
    """A row for each finished job, and the errors of those that cannot be read; updates the index."""
    index = _index(store)
    rows: dict[str, tuple[int, JobRow]] = {}
    damaged = []
    for name, changed in _change_times(store):
        entry = index.get(name)
        if entry is not None and entry[0] == changed:
            rows[name] = entry
            continue
        try:
            description, provenance = store.description(name), store.provenance(name)
            row = _checked_row(
                name, description["function"], _arguments_line(description),
                _result_line(store, store.numbers(name), description), provenance["started"],
                provenance["seconds"],
            )  # fmt: skip
        except StoreError as error:
            damaged.append(error)
        except OTHER_FORM as error:
            cause = f"its numbers have another form: {type(error).__name__} {reason(error)}"
            damaged.append(store.damaged(name, cause))
        else:
            rows[name] = changed, row
    if rows != index:
        content = {"tombola": __version__, "rows": [[changed, *row] for changed, row in rows.values()]}
        with suppress(StoreError):  # a store of another user's, or a full disk: the jobs are read again then
            write_whole(store.root / _INDEX, json.dumps(content).encode())
    return [row for _, row in rows.values()], damaged


def _change_times(store: Store) -> list[tuple[str, int]]:
    """The names of finished jobs, each with the time its folder was last changed, in nanoseconds."""
    times = []
    with os.scandir(store.root / "jobs") as shelves:
        for shelf in shelves:
            if len(shelf.name) == 2 and _is_folder(shelf):
                with os.scandir(shelf) as folders:
                    times += [
                        (folder.name, folder.stat().st_mtime_ns)
                        for folder in folders
                        if is_at_its_place(folder.name, shelf.name) and _is_folder(folder)
                    ]
    return times


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; links that go round in circles are none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _index(store: Store) -> dict[str, tuple[int, JobRow]]:
    """The rows of the index by job, each with its change time; {} if another version of tombola wrote it."""
    try:
        content = read_json(store.root / _INDEX)
        if content["tombola"] != __version__:
            return {}
        return {name: (changed, _checked_row(name, *row)) for changed, name, *row in content["rows"]}
    except (OSError, *OTHER_FORM):
        return {}


def _checked_row(
    name: str, function: object, arguments: object, result: object, started: object, seconds: Any
) -> JobRow:
    """A row of values from a file, each of the type that it is declared with."""
    return JobRow(name, str(function), str(arguments), str(result), str(started), float(seconds))


def show_job(store: Store, prefix: str) -> RenderableType:
    """A finished job's arguments, with those of the jobs behind it, its result and provenance."""
    name = store.find(prefix)
    description = store.description(name)
    tree = Tree(Text(_cut(printable(f"{description['function']} {name}")), style="bold"))
    _add_arguments(store, tree, description, depth=3)
    provenance, result = Tree("provenance"), Tree("result")
    for branch, entries in ((provenance, store.provenance(name)), (result, store.numbers(name))):
        for key, value in islice(entries.items(), _MOST_LINES):
            branch.add(_leaf(key, _brief(value)))
        if len(entries) > _MOST_LINES:
            branch.add(f"... {len(entries) - _MOST_LINES:,} more not shown")
    return Group(tree, result, provenance, _dim_line(f"folder: {store.folder(name)}"))


def show_file(path: Path) -> RenderableType:
    """The facts of a ticket or run file; :class:`~tombola.errors.JobError` for any other file."""
    from tombola import files
    from tombola.ticket import Ticket
    from tombola.training.run import Run

    kind = files.file_kind(path)
    if kind not in (TICKET_KIND, "tombola.run/1"):
        raise JobError(f"{path} holds {kind!r}; show knows tickets and runs")
    loaded = Ticket.load(path) if kind == TICKET_KIND else Run.load(path)
    ticket = loaded if isinstance(loaded, Ticket) else loaded.ticket
    facts = {
        "network": json.dumps(ticket.network.description()),
        "sparsity": f"{100 * ticket.sparsity:.2f}% ({ticket.kept:,} of {ticket.total:,} prunable weights)",
        "round": ticket.round,
        "start": f"{ticket.start_fingerprint[:12]}, taken at {ticket.place}",
        "dense start": "in this file" if ticket.complete else "elsewhere",
    }
    if isinstance(loaded, Run):
        facts |= loaded.summary()
    tree = Tree(Text(f"{kind} {path}", style="bold"))
    for key, value in facts.items():
        tree.add(_leaf(key, value))
    return tree


def _leaf(key: str, value: object) -> Text:
    """A leaf of a tree; brackets and control characters in it change nothing on a terminal."""
    return Text(_cut(printable(f"{key}: {value}")))


def _cut(text: str) -> str:
    """A text without what is beyond its longest length."""
    return text if len(text) <= _LONGEST_LEAF else f"{text[:_LONGEST_LEAF]}…"


def _add_arguments(store: Store, tree: Tree, description: Mapping[str, Any], depth: int) -> None:
    """Add the arguments of a call to a tree, and to some depth those of the jobs among them.

    The nearest first, up to so many lines: few jobs can have any number of paths to those behind them.
    """
    read = cache(lambda name: store.description(name) if store.has(name) else None)
    pending, lines = deque([(tree, description, depth)]), 0
    while pending and lines < _MOST_LINES:
        parent_tree, call, levels = pending.popleft()
        shown = list(islice(call["arguments"].items(), _MOST_LINES - lines))
        lines += len(shown)
        for key, value in shown:
            if not (isinstance(value, dict) and "job" in value):
                parent_tree.add(_leaf(key, _brief(value)))
                continue
            parent = value.get("call") or read(value["job"])
            if parent is None:
                parent_tree.add(_leaf(key, f"job {value['job'][:12]} (gone)"))
                continue
            label = parent["function"] + ("" if "call" in value else f" {value['job'][:12]}")
            branch = parent_tree.add(_leaf(key, label))
            if levels > 0:
                pending.append((branch, parent, levels - 1))
            else:
                branch.add("...")
        if len(shown) < len(call["arguments"]):
            parent_tree.add(f"... {len(call['arguments']) - len(shown):,} more arguments not shown")
    if pending:
        tree.add(f"... what {len(pending):,} of these jobs and calls were made from is not shown")


def _arguments_line(description: Mapping[str, Any]) -> str:
    """The arguments of a call on one line."""
    return ", ".join(f"{key} {_brief(value)}" for key, value in description["arguments"].items())


def _brief(value: Any) -> str:
    """A JSON value in few words; a reference as its job, data or function."""
    if isinstance(value, dict):
        if "job" in value:
            call = value.get("call")
            return f"{call.get('function')}(...)" if isinstance(call, dict) else str(value["job"])[:12]
        if value.keys() == {"data"}:
            return str(value["data"])
        return "{" + ", ".join(f"{key} {_brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        items = [_brief(item) for item in value]
        return "[" + ", ".join(items if len(items) <= 6 else [*items[:3], "...", items[-1]]) + "]"
    return str(value)


def _result_line(store: Store, numbers: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """A result in few words: accuracy, sparsity, barrier or else its value; a star where a run failed."""
    if "accuracy" in numbers:
        star = "*" if numbers["failed"] else ""
        return f"{numbers['accuracy']:.2f}%{star} at {100 * numbers['sparsity']:.2f}% sparsity"
    if "sparsity" in numbers:
        step = f", step {numbers['step']}" if "step" in numbers else ""
        return f"{100 * numbers['sparsity']:.2f}% sparsity at epoch {numbers['epoch']}{step}"
    value = numbers.get("value", numbers)
    if isinstance(value, dict) and "errors" in value:
        errors = [item for item in value["errors"] if isinstance(item, float)]
        star = "*" * _has_failed_end(store, value, description["arguments"])
        if any(isinstance(loss, dict) for loss in value.get("losses", ())):  # {"float": "nan"}
            return f"barrier undefined{star}"
        return f"barrier {max(errors) - (errors[0] + errors[-1]) / 2:.2f} points{star}"
    return _brief(value)[:60]


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
