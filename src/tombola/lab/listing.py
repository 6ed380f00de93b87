"""What a store or a file holds, in words: the texts behind ``tombola ls`` and ``tombola show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tombola.errors import JobError, StoreError
from tombola.lab.store import Store


def listing(store: Store, function: str | None = None) -> RenderableType:
    """One line for each finished job, oldest first."""
    rows = []
    damaged = []
    for name in store.names():
        try:
            description = store.description(name)
            if function is None or description["function"] == function:
                provenance = store.provenance(name)
                rows.append((provenance["started"], name, description, store.numbers(name), provenance))
        except StoreError as error:
            damaged.append(Text(str(error), style="red"))
    if not rows and not damaged:
        return Group(_line(f"no {function + ' ' if function else ''}jobs in the store at {store.root}"))
    table = Table(box=None, pad_edge=False, caption_justify="left")
    cells = [
        (
            name[:12],
            description["function"],
            _arguments(description),
            _result(numbers),
            started[5:16].replace("T", " "),
            f"{provenance['seconds']:.1f}",
        )
        for started, name, description, numbers, provenance in sorted(rows, key=lambda row: row[:2])
    ]
    columns = ("job", "function", "arguments", "result", "started", "seconds")
    for column, *texts in zip(columns, *cells, strict=True):
        # One line a job: what does not fit is cut from the arguments, which tombola show has whole.
        room = None if column == "arguments" else min(30, max(map(len, texts), default=0))
        justify: Literal["left", "right"] = "right" if column == "seconds" else "left"
        table.add_column(column, justify=justify, no_wrap=room is not None, min_width=room)
    for row in cells:
        table.add_row(*(Text(text, no_wrap=True, overflow="ellipsis") for text in row))
    total = sum(row[4]["seconds"] for row in rows)
    return Group(table, *damaged, _line(f"{len(rows)} jobs, {total:.0f} s of work, in {store.root}"))


def _line(text: str) -> Text:
    """A line that is not broken, for the sake of the path in it."""
    return Text(text, style="dim", no_wrap=True, overflow="ignore")


def show_job(store: Store, prefix: str) -> RenderableType:
    """A job's description, result, provenance and parents."""
    name = store.find(prefix)
    description = store.description(name)
    tree = Tree(Text(f"{description['function']} {name}", style="bold"))
    _add_arguments(store, tree, description, depth=3)
    provenance = Tree("provenance")
    for key, value in store.provenance(name).items():
        provenance.add(escape(f"{key}: {_brief(value)}"))
    result = Tree("result")
    for key, value in store.numbers(name).items():
        result.add(escape(f"{key}: {_brief(value)}"))
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
        tree.add(escape(f"{key}: {value}"))
    return tree


def _add_arguments(store: Store, tree: Tree, description: Mapping[str, Any], depth: int) -> None:
    """The arguments of a call as branches; jobs among them with theirs, to some depth."""
    for key, value in description["arguments"].items():
        if not (isinstance(value, dict) and "job" in value):
            tree.add(escape(f"{key}: {_brief(value)}"))
            continue
        known = value.get("call") or (store.description(value["job"]) if store.has(value["job"]) else None)
        if known is None:
            tree.add(f"{key}: job {value['job'][:12]} (gone)")
            continue
        label = f"{key}: {known['function']}" + ("" if "call" in value else f" {value['job'][:12]}")
        branch = tree.add(escape(label))
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
            return f"{value['call']['function']}(...)" if "call" in value else str(value["job"])[:12]
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
