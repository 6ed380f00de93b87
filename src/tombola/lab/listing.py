"""What a store or a file holds, in words: the texts behind ``tombola ls`` and ``tombola show``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.tree import Tree

from tombola.atomic import write_whole
from tombola.errors import JobError, StoreError, reason
from tombola.lab.references import TICKETS
from tombola.lab.store import Store
from tombola.untrusted import OTHER_FORM, json_object, printable
from tombola.version import __version__

# Between two columns of a listing.
_GAP = "  "


def listing(store: Store, function: str | None = None, *, tickets: bool = False) -> RenderableType:
    """One line for each finished job, oldest first.

    tickets: also those of rounds; without, they are only counted, unless ``function`` asks for them.
    """
    every, damaged = indexed(store, _arguments, _result)
    shown = tickets or function == TICKETS
    rows = [row for row in every if function is None or row.function == function]
    hidden = 0 if function else sum(row.function == TICKETS for row in rows if not shown)
    rows = [row for row in rows if shown or row.function != TICKETS]
    if not rows and not damaged:
        return Group(_line(f"no {function + ' ' if function else ''}jobs in the store at {store.root}"))
    rows.sort(key=_age)
    total = sum(row.seconds for row in rows)
    return Group(
        _Lines(rows),
        *(Text(printable(str(error)), style="red") for error in damaged),
        _line(f"{len(rows)} jobs, {_not_shown(hidden)}{total:.0f} s of work, in {store.root}"),
    )


def finished_names(store: Store) -> tuple[list[str], list[StoreError]]:
    """The names of all finished jobs but tickets, oldest first, and the errors of those that are damaged."""
    rows, damaged = indexed(store, _arguments, _result)
    return [row.name for row in sorted(rows, key=_age) if row.function != TICKETS], damaged


def _age(row: Row) -> tuple[str, str]:
    """What finished jobs are sorted by: when they were begun."""
    return row.started, row.name


def _not_shown(tickets: int) -> str:
    """What a listing says of tickets that it leaves out."""
    return f"{tickets} ticket{'s' if tickets != 1 else ''} not listed (--tickets), " if tickets else ""


class _Lines:
    """A table of jobs as wide as the terminal. Rich's own takes seconds for thousands of rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
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
        # One line a job: what does not fit is cut from the arguments, which tombola show has whole.
        room = options.max_width - sum(widths) + widths[2] - len(_GAP) * (len(header) - 1)
        if room < min(widths[2], 20):
            widths = [width if column == 2 else min(width, 30) for column, width in enumerate(widths)]
            room = options.max_width - sum(widths) + widths[2] - len(_GAP) * (len(header) - 1)
        widths[2] = max(1, min(widths[2], room))
        yield Segment(_row_of(header, widths) + "\n", Style(bold=True))
        yield Segment("".join(_row_of(cells, widths) + "\n" for cells in self._cells))


def _row_of(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table, its last column to the right."""
    fitted = [_fit(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return _GAP.join([*fitted[:-1], cells[-1].rjust(widths[-1])])


def _fit(cell: str, width: int) -> str:
    length = cell_len(cell)
    return cell + " " * (width - length) if length <= width else set_cell_size(cell, width - 1) + "…"


def _line(text: str) -> Text:
    """A line that is not broken, for the sake of the path in it."""
    return Text(text, style="dim", no_wrap=True, overflow="ignore")


def show_job(store: Store, prefix: str) -> RenderableType:
    """A job's description, result, provenance and parents."""
    name = store.find(prefix)
    description = store.description(name)
    tree = Tree(Text(printable(f"{description['function']} {name}"), style="bold"))
    _add_arguments(store, tree, description, depth=3)
    provenance = Tree("provenance")
    for key, value in store.provenance(name).items():
        provenance.add(_leaf(key, _brief(value)))
    result = Tree("result")
    for key, value in store.numbers(name).items():
        result.add(_leaf(key, _brief(value)))
    return Group(tree, result, provenance, _line(f"folder: {store.folder(name)}"))


def show_file(path: Path) -> RenderableType:
    """What a ticket or run file holds."""
    from tombola import files
    from tombola.ticket import Ticket
    from tombola.training.run import Run

    kind = files.file_kind(path)
    if kind not in ("tombola.ticket/1", "tombola.run/1"):
        raise JobError(f"{path} holds {kind!r}; show knows tickets and runs")
    loaded = Ticket.load(path) if kind == "tombola.ticket/1" else Run.load(path)
    ticket = loaded if isinstance(loaded, Ticket) else loaded.ticket
    facts = {
        "network": json.dumps(ticket.network.description()),
        "sparsity": f"{100 * ticket.sparsity:.2f}% ({ticket.kept:,} of {ticket.total:,} prunable weights)",
        "round": ticket.round,
        "start": f"{ticket.start_fingerprint[:12]}, taken at epoch {ticket.epoch}",
        "dense start": "in this file" if ticket.complete else "elsewhere",
    }
    if isinstance(loaded, Run):
        facts |= loaded.summary()
    tree = Tree(Text(f"{kind} {path}", style="bold"))
    for key, value in facts.items():
        tree.add(_leaf(key, value))
    return tree


def _leaf(key: str, value: Any) -> str:
    return escape(printable(f"{key}: {value}"))


def _add_arguments(store: Store, tree: Tree, description: Mapping[str, Any], depth: int) -> None:
    """The arguments of a call as branches; jobs among them with theirs, to some depth."""
    for key, value in description["arguments"].items():
        if not (isinstance(value, dict) and "job" in value):
            tree.add(_leaf(key, _brief(value)))
            continue
        known = value.get("call") or (store.description(value["job"]) if store.has(value["job"]) else None)
        if known is None:
            tree.add(_leaf(key, f"job {value['job'][:12]} (gone)"))
            continue
        label = known["function"] + ("" if "call" in value else f" {value['job'][:12]}")
        branch = tree.add(_leaf(key, label))
        if depth > 0:
            _add_arguments(store, branch, known, depth - 1)
        else:
            branch.add("...")


def _arguments(description: Mapping[str, Any]) -> str:
    """The arguments of a call on one line."""
    return ", ".join(f"{key} {_brief(value)}" for key, value in description["arguments"].items())


def _brief(value: Any) -> str:
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


def _result(numbers: Mapping[str, Any]) -> str:
    """The most telling number of a result."""
    if "accuracy" in numbers:
        star = "*" if numbers["failed"] else ""
        return f"{numbers['accuracy']:.2f}%{star} at {100 * numbers['sparsity']:.2f}% sparsity"
    if "sparsity" in numbers:
        return f"{100 * numbers['sparsity']:.2f}% sparsity at epoch {numbers['epoch']}"
    value = numbers.get("value", numbers)
    if isinstance(value, dict) and "errors" in value:
        errors = [item for item in value["errors"] if isinstance(item, float)]
        return f"barrier {max(errors) - (errors[0] + errors[-1]) / 2:.2f} points"
    return _brief(value)[:60]


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
        content = {"tombola": __version__, "rows": [[age, *row] for age, row in found.values()]}
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
        if content["tombola"] != __version__:
            return {}
        return {name: (age, _row(name, *rest)) for age, name, *rest in content["rows"]}
    except (OSError, *OTHER_FORM):
        return {}


def _row(name: str, function: Any, arguments: Any, result: Any, started: Any, seconds: Any) -> Row:
    return Row(name, str(function), str(arguments), str(result), str(started), float(seconds))
