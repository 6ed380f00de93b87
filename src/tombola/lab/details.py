"""What one job or file holds, and how two jobs differ: behind ``tombola show`` and ``tombola diff``."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tombola.errors import JobError, StoreError
from tombola.lab.description import brief, parents
from tombola.lab.lineages import Lineages
from tombola.lab.listing import dim_line, job_row
from tombola.lab.measurement import measurement_of
from tombola.lab.store import TICKET_KIND, Store
from tombola.registry import declaration
from tombola.table.metrics import FACTORS, metric_name, metric_of
from tombola.table.number import many
from tombola.untrusted import OTHER_FORM, printable

# The column of a run's history that is drawn, and what a line of text is drawn with.
_ACCURACY = "test_accuracy"
_BLOCKS = "▁▂▃▄▅▆▇█"
# Parts of the provenance that differ between any two jobs.
_ALWAYS_DIFFERENT = frozenset({"sums", "pid", "started"})
# Of tombola's own numbers by how their names end; a standard error has the unit of what it is the error of.
_UNITS = {
    "standard_error": "",
    "accuracy": "%",
    "accuracies": "%",
    "error": "%",
    "errors": "%",
    "loss": "nats",
    "losses": "nats",
}
# Lines of each part of what is shown of a job, and characters of one of them.
_MOST_LINES, _LONGEST_LEAF = 500, 2_000


def show_job(store: Store, prefix: str) -> RenderableType:
    """A finished job: arguments, learning curve, result, all jobs that it was made from, and provenance."""
    name = store.find(prefix)
    description = store.description(name)
    tree = Tree(Text(_cut(printable(f"{description['function']} {name}")), style="bold"))
    _add_arguments(store, tree, description, depth=3)
    provenance, result = Tree("provenance"), Tree("result")
    for branch, entries in ((provenance, store.provenance(name)), (result, store.numbers(name))):
        for key, value in islice(entries.items(), _MOST_LINES):
            branch.add(_leaf(key, brief(value)))
        if len(entries) > _MOST_LINES:
            branch.add(f"... {len(entries) - _MOST_LINES:,} more not shown")
    curve, origin = _learning_curve(store, name), _origin(store, name)
    folder = dim_line(f"folder: {store.folder(name)}")
    return Group(tree, *curve, result, *origin, provenance, folder)


def _learning_curve(store: Store, name: str) -> list[RenderableType]:
    """The test accuracy of a run over its epochs on one line; nothing for other jobs."""
    try:
        accuracies = [float(row[_ACCURACY]) for row in store.history(name) if row.get(_ACCURACY)]
    except (StoreError, *OTHER_FORM):
        return []  # its numbers are shown all the same
    accuracies = [accuracy for accuracy in accuracies if math.isfinite(accuracy)]
    if len(accuracies) < 2:
        return []
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    ends = f"{accuracies[0]:.2f}% to {accuracies[-1]:.2f}%, best {accuracies[best]:.2f}%"
    return [Text(f"test accuracy {sparkline(accuracies)} {ends}")]


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A curve as a line of block characters, from the lowest of its values to the highest.

    width: the most characters; of more values each character is the last of its share.
    """
    if len(values) > width:
        values = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    low, high = min(values), max(values)
    if low == high:
        return _BLOCKS[0] * len(values)
    # Halved, so that the span of any two finite numbers is one.
    span = high / 2 - low / 2
    return "".join(_BLOCKS[round((value / 2 - low / 2) / span * (len(_BLOCKS) - 1))] for value in values)


@dataclass(frozen=True)
class Ancestor:
    """A job that another was made from; function and result are empty unless it is finished and whole."""

    name: str
    state: Literal["finished", "gone", "damaged"]
    function: str = ""
    result: str = ""

    def __str__(self) -> str:
        what = f"{self.function}: {self.result}" if self.state == "finished" else f"({self.state})"
        return f"{self.name[:12]} {what}"


def ancestors(store: Store, name: str) -> tuple[list[Ancestor], bool]:
    """The jobs that a finished job was made from, the nearest first, and whether there are more."""
    listed: list[Ancestor] = []
    pending, seen = deque(sorted(parents(store.description(name)))), {name}
    while pending and len(listed) < _MOST_LINES:
        parent = pending.popleft()
        if parent in seen:
            continue
        seen.add(parent)
        if not store.has(parent):
            listed.append(Ancestor(parent, "gone"))
            continue
        try:
            row = job_row(store, parent)
            pending.extend(sorted(parents(store.description(parent))))
        except (StoreError, *OTHER_FORM):
            listed.append(Ancestor(parent, "damaged"))
            continue
        listed.append(Ancestor(parent, "finished", row.function, row.result))
    return listed, bool(pending)


def _origin(store: Store, name: str) -> list[RenderableType]:
    """All finished jobs that a job was made from, a line each, the nearest first."""
    listed, more = ancestors(store, name)
    if not listed:
        return []
    tree = Tree(f"made from {len(listed)} and more jobs" if more else f"made from {many(len(listed), 'job')}")
    for ancestor in listed:
        tree.add(Text(_cut(printable(str(ancestor)))))
    return [tree]


def job_json(store: Store, prefix: str) -> dict[str, Any]:
    """What :func:`show_job` shows, as an object; a number of the history that is not finite is null."""
    name = store.find(prefix)
    description = store.description(name)
    listed, more = ancestors(store, name)
    try:
        history = [{column: float(text) for column, text in row.items()} for row in store.history(name)]
    except (StoreError, *OTHER_FORM):
        history = []  # its numbers are told all the same
    return {
        "name": name,
        "function": description["function"],
        "arguments": description["arguments"],
        "numbers": store.numbers(name),
        "history": history,
        "ancestors": [asdict(ancestor) for ancestor in listed],
        "more_ancestors": more,
        "provenance": store.provenance(name),
        "folder": str(store.folder(name)),
    }


def show_file(path: Path) -> RenderableType:
    """The facts of a ticket or run file; :class:`~tombola.errors.JobError` for any other file."""
    kind, facts = _file_facts(path)
    tree = Tree(Text(f"{kind} {path}", style="bold"))
    for key, value in facts.items():
        tree.add(_leaf(key, value))
    return tree


def file_json(path: Path) -> dict[str, Any]:
    """What :func:`show_file` shows, as an object."""
    kind, facts = _file_facts(path)
    return {"file": str(path), "kind": kind, "facts": facts}


def _file_facts(path: Path) -> tuple[str, dict[str, Any]]:
    """The kind of a ticket or run file, and its facts in words."""
    from tombola import files
    from tombola.ticket import Ticket
    from tombola.training.run import Run

    kind = files.file_kind(path)
    if kind not in (TICKET_KIND, "tombola.run/1"):
        raise JobError(f"{path} holds {kind!r}; show knows tickets and runs")
    loaded = Ticket.load(path) if kind == TICKET_KIND else Run.load(path)
    ticket = loaded if isinstance(loaded, Ticket) else loaded.ticket
    facts: dict[str, Any] = {
        "network": json.dumps(ticket.network.description()),
        "sparsity": f"{100 * ticket.sparsity:.2f}% ({ticket.kept:,} of {ticket.total:,} prunable weights)",
        "round": ticket.round,
        "start": f"{ticket.start_fingerprint[:12]}, taken at {ticket.place}",
        "dense start": "in this file" if ticket.complete else "elsewhere",
    }
    if ticket.hub is not None:
        facts["pulled from"] = f"{ticket.hub.repository}, revision {ticket.hub.revision}"
    return kind, (facts | loaded.summary() if isinstance(loaded, Run) else facts)


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
                parent_tree.add(_leaf(key, brief(value)))
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


@dataclass(frozen=True)
class JobDifference:
    """What two finished jobs differ in; by part, what differs, with its value in each (None: it has none).

    The parts: ``measured``, the fields of the keys of their numbers; ``arguments``, ``numbers`` and
    ``provenance``, as they are written. units: what follows a number on a terminal, by part and key.
    """

    first: str
    second: str
    parts: Mapping[str, Mapping[str, tuple[Any, Any]]]
    units: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def __rich__(self) -> RenderableType:
        if not any(self.parts.values()):
            return Text(f"{self.first[:12]} and {self.second[:12]} differ in nothing")
        table = Table("", self.first[:12], self.second[:12], box=None, pad_edge=False)
        for part, differences in self.parts.items():
            for index, (key, pair) in enumerate(islice(differences.items(), _MOST_LINES)):
                if index == 0:
                    table.add_row(Text(part, style="bold"))
                unit = self.units.get((part, key), "")
                cells = ("-" if value is None else _cut(printable(brief(value))) + unit for value in pair)
                table.add_row(Text(f"  {_cut(printable(key))}"), *map(Text, cells))
            if len(differences) > _MOST_LINES:
                table.add_row(Text(f"  ... {len(differences) - _MOST_LINES:,} more"))
        return table

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        parts = {part: {key: list(pair) for key, pair in pairs.items()} for part, pairs in self.parts.items()}
        return {"first": self.first, "second": self.second, **parts}


def difference(store: Store, first: str, second: str) -> JobDifference:
    """What two finished jobs differ in, each by its name or the beginning of it.

    Raises :class:`~tombola.errors.JobError` for a name that is not in the store, and
    :class:`~tombola.errors.StoreError` for a damaged job.
    """
    names = store.find(first), store.find(second)
    lineages = Lineages(store, ())

    def pairs(entries: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
        here, there = map(flattened, entries)
        keys = dict.fromkeys((*here, *there))
        return {key: (here.get(key), there.get(key)) for key in keys if here.get(key) != there.get(key)}

    measured = [
        {"function": item.function, **item.fields, "seed": item.seed}
        for item in (measurement_of(lineages, name) for name in names)
    ]
    parts = {
        "measured": pairs(measured),
        "arguments": pairs([store.description(name)["arguments"] for name in names]),
        "numbers": pairs([store.numbers(name) for name in names]),
        "provenance": pairs(
            [
                {key: value for key, value in store.provenance(name).items() if key not in _ALWAYS_DIFFERENT}
                for name in names
            ]
        ),
    }
    functions = {str(store.description(name)["function"]) for name in names}
    units = {("numbers", key): _unit(functions, key) for key in parts["numbers"]}
    return JobDifference(
        *names, parts, {("measured", "sparsity"): "%", ("provenance", "seconds"): " s"} | units
    )


def _unit(functions: Collection[str], key: str) -> str:
    """What follows a number of jobs of one function, as its name or the table has it; empty without one."""
    if len(functions) != 1:
        return ""
    (function,) = functions
    quantity = key.removeprefix("value").removeprefix(".")
    last = quantity.rpartition(".")[2]
    unit = _UNITS.get(last, _UNITS.get(last.rpartition("_")[2])) if _is_built_in(function) else None
    if unit is None:
        names = {metric_name(function, quantity, between) for between in ("", "copies")} - FACTORS.keys()
        unit = next((metric.unit for metric in map(metric_of, sorted(names)) if metric.unit), "")
    return unit if unit in ("", "%") else f" {unit}"


def _is_built_in(function: str) -> bool:
    """Whether the declared function of that name is tombola's own; another's errors may be anything."""
    with suppress(JobError):  # it is not declared here
        return declaration(function).function.__module__.startswith("tombola.")
    return False


def flattened(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Objects within objects as one, their keys joined by points; lists stay."""
    flat: dict[str, Any] = {}
    pending = deque([("", entries)])
    while pending:
        prefix, part = pending.popleft()
        for key, value in part.items():
            if isinstance(value, Mapping) and value and "job" not in value:
                pending.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat
