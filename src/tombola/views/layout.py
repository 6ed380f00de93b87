"""Where the cells of a table stand: which fields of their keys head rows, and which head columns.

A study of the paper names them as the paper lays its table out. Without a layout it follows a rule: what
varies heads the rows, metrics and a few sparsities head the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tombola.errors import ExperimentError
from tombola.table.key import KEY_FIELDS, Key
from tombola.table.metrics import metric_of, metric_order

Values = tuple[Any, ...]
"""Values of some fields of a key, in the order of their names."""


@dataclass(frozen=True)
class Layout:
    """The fields of a key that head the rows and the columns of a table."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]


_MOST_COLUMNS = 8

NAMES = {
    "metric": "measure",
    "over": "over",
    "reading": "reading",
    "network": "network",
    "dataset": "data",
    "target": "target",
    "momentum": "μ",
    "batch_size": "batch size",
    "pretrained": "pretrained",
    "search_share": "search epochs",
    "sparse_momentum": "μ of sparse training",
    "sparse_batch_size": "batch size of sparse training",
    "block": "block",
    "sparsity": "sparsity",
    "subset_percent": "subset",
    "subset_criterion": "subset by",
    "baseline": "kind",
}
"""What heads the column of a field; a further axis has its own name."""

_BASELINES = {None: "ticket", "dense": "dense network", "retrained_dense": "retrained dense network"}
_PAPER_EPOCHS = 200  # of a full training: the paper heads rows of shorter searches by their epochs


@dataclass(frozen=True)
class Grid:
    """A table before its numbers: which key stands where.

    name: for files and labels, such as ``"table2"``. title: such as "Table 2: Accuracy of tickets".
    row_names, column_names: fields of a key.
    rows, columns: the values of those fields.
    keys: by row and column; a pair that is not there is a gap for good.
    names: what networks and data are called, where something stands in for them.
    """

    name: str
    title: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: tuple[Values, ...]
    columns: tuple[Values, ...]
    keys: Mapping[tuple[Values, Values], Key]
    names: Mapping[str, str] = field(default_factory=dict)

    def row_heads(self, row: Values) -> list[str]:
        """What stands at the beginning of a row."""
        texts = [value_text(name, value) for name, value in zip(self.row_names, row, strict=True)]
        return [self.names.get(text, text) for text in texts]

    def column_heads(self, column: Values) -> list[str]:
        """The lines that head a column: values that do not speak for themselves come with their name."""
        named = {"momentum": "μ = ", "batch_size": "batch ", "block": "block "}
        texts = [value_text(name, value) for name, value in zip(self.column_names, column, strict=True)]
        texts = [self.names.get(text, text) for text in texts]
        return [named.get(name, "") + text for name, text in zip(self.column_names, texts, strict=True)]


def grid(
    name: str,
    keys: Iterable[Key],
    layout: Layout | None = None,
    title: str = "",
    names: Mapping[str, str] | None = None,
) -> Grid:
    """Lay out some keys.

    keys: in the order in which rows and columns shall stand; numbers that head columns are sorted.

    Raises :class:`~tombola.errors.ExperimentError` if there are none.
    """
    keys = list(dict.fromkeys(keys))
    if not keys:
        raise ExperimentError(
            f"no cell of the study {name!r}; a table needs at least one, of ours or the paper's"
        )
    layout = layout or _layout_by_rule(keys)
    row_names = tuple(name for name in layout.rows if name != "baseline" or _varies(keys, name))
    column_names = layout.columns
    # Keys that the layout would put on top of each other differ in a field that must head rows too.
    while clashing := _clashing(keys, row_names, column_names):
        row_names = (clashing, *row_names)
    placed = {(_values(key, row_names), _values(key, column_names)): key for key in keys}
    columns = list(dict.fromkeys(column for _, column in placed))
    if all(isinstance(value, int | float) for column in columns for value in column):
        columns.sort()
    if column_names == ("metric",):
        columns.sort(key=lambda column: metric_order(column[0]))
    rows = tuple(dict.fromkeys(row for row, _ in placed))
    return Grid(name, title or name, row_names, column_names, rows, tuple(columns), placed, names or {})


def value_text(name: str, value: Any) -> str:
    """How the value of a field is written at the head of a row."""
    if name == "baseline":
        return str(_BASELINES.get(value) or str(value).replace("_", " "))
    if value is None:
        return ""
    if name == "pretrained":
        return "✓" if value else "✗"
    if name in ("momentum", "sparse_momentum"):
        return momentum_text(value)
    if name == "search_share":
        return f"{value * _PAPER_EPOCHS:g}"
    if name == "sparsity":
        return f"{value:.2f}%" if round(value, 2) == value else f"{percent_text(value)}%"
    if name == "subset_percent":
        return f"{value}%"
    if name == "metric":
        return metric_of(value).label
    return str(value).replace("_", " ") if name == "subset_criterion" else str(value)


def percent_text(percent: float) -> str:
    """A percentage in as few digits as it takes to tell it from any other: 20, 89.26, 99.999999."""
    short = f"{percent:g}"
    return short if float(short) == percent else str(percent)


def momentum_text(momentum: float) -> str:
    """Momentum with at least one decimal: 0.0, 0.9, 0.95."""
    return f"{momentum:.1f}" if round(momentum, 1) == momentum else f"{momentum:g}"


def _layout_by_rule(keys: Sequence[Key]) -> Layout:
    # What values are of follows from the metric; it heads rows only where two keys differ in nothing else.
    varying = [name for name in fields_of(keys) if name != "over" and _varies(keys, name)]
    columns = ["metric"] if "metric" in varying or "sparsity" not in varying else []
    sparsities = {key.sparsity for key in keys}
    if not columns and len(sparsities) <= _MOST_COLUMNS:
        columns = ["sparsity"]
    columns = columns or ["metric"]
    rows = tuple(name for name in varying if name not in columns)
    return Layout(rows or ("dataset",), tuple(columns))


def _clashing(keys: Sequence[Key], rows: tuple[str, ...], columns: tuple[str, ...]) -> str | None:
    """A field in which two keys of one slot differ; None if each has a slot of its own."""
    slots: dict[tuple[Values, Values], Key] = {}
    for key in keys:
        other = slots.setdefault((_values(key, rows), _values(key, columns)), key)
        if other != key:
            return next(name for name in fields_of(keys) if key.get(name) != other.get(name))
    return None


def fields_of(keys: Sequence[Key]) -> list[str]:
    """The fields of some keys, with all further axes."""
    return [*KEY_FIELDS, *dict.fromkeys(name for key in keys for name, _ in key.more)]


def _varies(keys: Sequence[Key], name: str) -> bool:
    return len({key.get(name) for key in keys}) > 1


def _values(key: Key, names: Sequence[str]) -> Values:
    return tuple(key.get(name) for name in names)
