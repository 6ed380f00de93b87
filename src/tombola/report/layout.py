"""Where the cells of a table stand: rows and columns as the paper lays them out.

A layout names the keys of a place that head rows and those that head columns. A study without one (a figure's
numbers, a user's own study) is laid out by rule: what varies heads the rows, measures and a few sparsities
head the columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from tombola.errors import StudyError
from tombola.report.style import momentum_text
from tombola.studies.cells import Metric, Place

Key = tuple[Any, ...]
"""Values of some keys of a place, in the order of their names."""


@dataclass(frozen=True)
class Layout:
    """The keys of a place that head the rows and the columns of a table."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]


_TICKET = ("momentum", "batch_size", "pretrained")
_KIND = (*_TICKET, "baseline")
_DENSE = Layout(_TICKET[:2], ("metric",))
_TICKETS = Layout(_TICKET, ("sparsity",))
_PROBES = Layout(_KIND, ("sparsity", "block"))
_TRANSFER = Layout(_KIND, ("target",))
_LITTLE_DATA = Layout(_KIND, ("subset_percent",))

LAYOUTS: Mapping[str, Layout] = {
    "table1": _DENSE,
    "table2": _TICKETS,
    "table3": Layout(("search_epochs", "momentum", "pretrained", "batch_size"), ("sparsity",)),
    "table4": Layout((*_TICKET, "sparse_momentum", "sparse_batch_size"), ("sparsity",)),
    "table5": _PROBES,
    "table6": _TRANSFER,
    "table7": _LITTLE_DATA,
    "table8": _DENSE,
    "table9": _DENSE,
    "table10": _DENSE,
    "table11": Layout(("dataset", *_TICKET), ("sparsity",)),
    "table12": _TICKETS,
    "table13": Layout(("momentum", "pretrained", "batch_size"), ("sparsity",)),
    "table14": Layout(("batch_size", "pretrained", "momentum"), ("sparsity",)),
    "table15": Layout(("network", "dataset"), ("momentum", "batch_size")),
    "table16": Layout(("search_epochs", *_TICKET), ("sparsity",)),
    "table17": _PROBES,
    "table18": _PROBES,
    "table19": _TRANSFER,
    "table20": _TRANSFER,
    "table21": _LITTLE_DATA,
    "table22": _LITTLE_DATA,
    "table23": Layout(("baseline",), ("subset_criterion", "subset_percent")),
    "recalibrated-barriers": Layout(("network", "dataset", "sparsity", *_TICKET), ("metric",)),
    "literal-blocks": _PROBES,
}
"""The paper's tables by name, and our own."""

_KEYS = tuple(field.name for field in fields(Place) if field.name != "study")
_MOST_COLUMNS = 8

NAMES = {
    "metric": "measure",
    "network": "network",
    "dataset": "data",
    "target": "target",
    "momentum": "μ",
    "batch_size": "batch size",
    "pretrained": "pretrained",
    "search_epochs": "search epochs",
    "sparse_momentum": "μ of sparse training",
    "sparse_batch_size": "batch size of sparse training",
    "block": "block",
    "sparsity": "sparsity",
    "subset_percent": "subset",
    "subset_criterion": "subset by",
    "baseline": "kind",
}
"""What heads the column of a key."""

_BASELINES = {None: "ticket", "dense": "dense network", "retrained_dense": "retrained dense network"}
_ORDER: tuple[str, ...] = get_args(Metric)
"""Measures in the order in which they head columns, where they stand side by side."""
_METRICS = {
    "val_accuracy": "validation accuracy",
    "forgetting_events": "forgetting events a run",
    "forgetting_spread": "their spread over images",
    "summed_forgetting_events": "forgetting events of three runs, halved",
    "unforgettable_percent": "unforgettable",
    "first_stable_epoch": "first stable epoch",
    "barrier_to_next": "barrier to the next ticket",
    "barrier": "barrier (points)",
    "recalibrated_barrier": "recalibrated barrier (points)",
}


@dataclass(frozen=True)
class Grid:
    """A table before its numbers: which place stands where.

    title: such as "Table 2: Accuracy of tickets".
    row_names, column_names: keys of a place.
    rows, columns: the values of those keys.
    places: by row and column; a pair that is not there is a gap for good.
    """

    study: str
    title: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: tuple[Key, ...]
    columns: tuple[Key, ...]
    places: Mapping[tuple[Key, Key], Place]


def grid(study: str, places: Iterable[Place], title: str = "") -> Grid:
    """Lay out the places of one study; places of other studies are left out.

    places: in the order in which rows and columns shall stand; numbers that head columns are sorted.

    Raises :class:`~tombola.errors.StudyError` if the study has none.
    """
    own = list(dict.fromkeys(place for place in places if place.study == study))
    if not own:
        raise StudyError(
            f"no cell of the study {study!r}; a table needs at least one, of ours or the paper's"
        )
    layout = LAYOUTS.get(study) or _layout_by_rule(own)
    row_names = tuple(name for name in layout.rows if name != "baseline" or _varies(own, name))
    column_names = layout.columns
    # Places that the layout would put on top of each other differ in a key that must head rows too.
    while clashing := _clashing(own, row_names, column_names):
        row_names = (clashing, *row_names)
    placed = {(_key(place, row_names), _key(place, column_names)): place for place in own}
    columns = list(dict.fromkeys(column for _, column in placed))
    if all(isinstance(value, int | float) for column in columns for value in column):
        columns.sort()
    if column_names == ("metric",):
        columns.sort(key=lambda column: _ORDER.index(column[0]))
    rows = tuple(dict.fromkeys(row for row, _ in placed))
    title = f"{spoken(study)}: {title}" if title else spoken(study)
    return Grid(study, title, row_names, column_names, rows, tuple(columns), placed)


def spoken(study: str) -> str:
    """``"table2"`` as "Table 2"; names that the paper does not have as they are."""
    kind = re.fullmatch(r"(table|fig)(\d+)", study)
    return f"{'Table' if kind[1] == 'table' else 'Figure'} {kind[2]}" if kind else study


def value_text(name: str, value: Any) -> str:
    """How a key's value is written at the head of a row."""
    if name == "baseline":
        return str(_BASELINES.get(value) or str(value).replace("_", " "))
    if value is None:
        return ""
    if name == "pretrained":
        return "✓" if value else "✗"
    if name in ("momentum", "sparse_momentum"):
        return momentum_text(value)
    if name == "sparsity":
        return f"{value:.2f}%"
    if name == "subset_percent":
        return f"{value}%"
    if name == "metric":
        return _METRICS.get(value) or str(value).replace("_", " ")
    return str(value).replace("_", " ") if name == "subset_criterion" else str(value)


def column_texts(names: Sequence[str], key: Key) -> list[str]:
    """The lines that head a column: values that do not speak for themselves come with their name."""
    named = {"momentum": "μ = ", "batch_size": "batch ", "block": "block "}
    return [named.get(name, "") + value_text(name, value) for name, value in zip(names, key, strict=True)]


def _layout_by_rule(places: Sequence[Place]) -> Layout:
    varying = [name for name in _KEYS if _varies(places, name)]
    columns = ["metric"] if "metric" in varying or "sparsity" not in varying else []
    sparsities = {place.sparsity for place in places}
    if not columns and len(sparsities) <= _MOST_COLUMNS:
        columns = ["sparsity"]
    columns = columns or ["metric"]
    rows = tuple(name for name in varying if name not in columns)
    return Layout(rows or ("dataset",), tuple(columns))


def _clashing(places: Sequence[Place], rows: tuple[str, ...], columns: tuple[str, ...]) -> str | None:
    """A key in which two places of one slot differ; None if each has a slot of its own."""
    seen: dict[tuple[Key, Key], Place] = {}
    for place in places:
        other = seen.setdefault((_key(place, rows), _key(place, columns)), place)
        if other != place:
            return next(name for name in _KEYS if getattr(place, name) != getattr(other, name))
    return None


def _varies(places: Sequence[Place], name: str) -> bool:
    return len({getattr(place, name) for place in places}) > 1


def _key(place: Place, names: Sequence[str]) -> Key:
    return tuple(getattr(place, name) for name in names)
