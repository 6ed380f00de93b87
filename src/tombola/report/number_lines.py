"""Single numbers as lines of a terminal: those of jobs, of the store, or of an experiment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from tombola.report.terminal import MISSING
from tombola.table.key import ITERATIONS
from tombola.table.metrics import metric_of
from tombola.table.number import Number
from tombola.untrusted import printable
from tombola.views.layout import NAMES, value_text

if TYPE_CHECKING:
    from tombola.table.table import Table

_POINT = re.compile(r"\[\d+\]")
"""In the name of a number that is one of a list, such as a point of a line."""
_HEADS = {
    "stand_in": "trained", **NAMES, "batch_size": "batch", "pretrained": "pre", "search_share": "search",
    "sparse_momentum": "sparse μ", "sparse_batch_size": "sparse batch", "subset_criterion": "of",
    **{name: name for name in ("epochs", "seed", "pair")},
}  # fmt: skip
"""What heads the columns in which numbers may differ, shorter than on a page."""
_GAP = "  "
_NARROWEST = 12
_LONGEST_COUNT = 1e12


def number_lines(table: Table, width: int) -> list[str]:
    """A line for each number that stands by itself, cut to the width of a terminal where that can be.

    Columns in which all agree are told once, above; further axes share one. What stands in
    for the network and data of a number is a column like them. Last comes how many numbers there are, and how
    many are missing, undefined or, being one of a list, not shown.
    """
    shown = [number for number in table if not _POINT.search(number.key.metric)]
    columns = {"measure": [number.key.metric for number in shown]}
    same = []
    for name, head in _HEADS.items():
        if name in ("metric", "over"):
            continue
        texts = [_field_text(number, name) for number in shown]
        if len(set(texts)) > 1:
            columns[head] = texts
        elif texts and texts[0]:
            same.append(f"{head} {texts[0]}")
    columns["value"] = [_value_text(number) for number in shown]
    columns["job"] = [_job_text(number) for number in shown]
    columns["more"] = [_further(number) for number in shown]
    heads = [f"all: {', '.join(same)}"] if same else []
    lines = _aligned({head: list(map(printable, texts)) for head, texts in columns.items()}, width)
    return [*map(printable, heads), *(lines if shown else []), _count(table, len(table) - len(shown))]


def _field_text(number: Number, name: str) -> str:
    """The value of a column of the table as text; a ticket needs no word for it."""
    if name == "baseline" and number.key.baseline is None:
        return ""
    in_iterations = number.key.get(ITERATIONS) is not None and not number.epochs
    own = {
        "epochs": None if in_iterations else number.epochs,
        "seed": number.seed, "pair": number.pair, "stand_in": number.stand_in,
    }  # fmt: skip
    return value_text(name, own[name] if name in own else number.key.get(name))


def _further(number: Number) -> str:
    """The further axes of a number, and what else is to be said of it."""
    axes = [f"{name}={value}" for name, value in number.key.more]
    return "; ".join(filter(None, (" ".join(axes), number.bound, number.note)))


def _value_text(number: Number) -> str:
    """A value with its unit; a star of a run that failed, or what stands in place of a value."""
    if number.value is None:
        return MISSING if number.state == "missing" else number.state + "*" * number.failed
    metric = metric_of(number.key.metric)
    if metric.digits is None and number.value.is_integer() and abs(number.value) < _LONGEST_COUNT:
        return f"{number.value:.0f}" + "*" * number.failed
    return metric.text(number.value) + metric.suffix + "*" * number.failed


def _job_text(number: Number) -> str:
    """The beginning of the name of the job behind a number, and how many others there are."""
    if not number.jobs:
        return ""
    others = f" +{len(number.jobs) - 1}" if len(number.jobs) > 1 else ""
    return number.jobs[0][:12] + others


def _aligned(columns: dict[str, list[str]], width: int) -> list[str]:
    """Texts in columns, values to the right; the last column is cut where a line would not fit."""
    columns = {name: texts for name, texts in columns.items() if name != "more" or any(texts)}
    widths = {name: max(map(cell_len, (name, *texts))) for name, texts in columns.items()}
    if "more" in columns:
        excess = sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width
        widths["more"] = max(min(widths["more"], _NARROWEST), widths["more"] - max(0, excess))

    def line(texts: Sequence[str]) -> str:
        fitted = [_fitted(text, name, widths[name]) for name, text in zip(columns, texts, strict=True)]
        return _GAP.join(fitted).rstrip()

    return [line(list(columns)), *map(line, zip(*columns.values(), strict=True))]


def _fitted(text: str, column: str, width: int) -> str:
    """A text as wide as its column."""
    room = width - cell_len(text)
    if room < 0:
        return set_cell_size(text, width - 1) + "…"
    return " " * room + text if column == "value" else text + " " * room


def _count(table: Table, points: int) -> str:
    """How many numbers there are, and how many are not computed, not defined, or not shown."""
    states = Counter(number.state for number in table)
    failed = sum(number.failed for number in table)
    parts = [f"{len(table):,} number{'s' * (len(table) != 1)}"]
    parts += [f"{states[state]:,} {state}" for state in ("missing", "undefined") if states[state]]
    parts += [f"{failed:,} of failed runs (*)"] if failed else []
    parts += (
        [f"{points:,} of lists, such as points of a line, only with --csv, --json or --markdown"]
        if points
        else []
    )
    return ", ".join(parts)
