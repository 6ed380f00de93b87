"""Cells as text: mean and spread with the digits of their metric, and the marks that stand with them.

Every form of a table, HTML, Markdown, LaTeX and terminal, writes its cells with these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tombola.table.compare import SideBySide
from tombola.table.key import Key
from tombola.table.metrics import metric_of
from tombola.table.number import LEAST_RUNS, Cell, mean_interval

MINUS = "\N{MINUS SIGN}"
INSIDE_SIGNS = {None: "", True: "✓", False: "✗"}
"""Whether the paper's number lies in the interval of our mean, as a sign; nothing where that is unknown."""


NONE_UNDEFINED: Mapping[Key, bool] = {}


@dataclass(frozen=True)
class CellText:
    """What a table shows of a cell.

    text: such as ``"4.72 ± 0.46%"``. interval: the 95% interval of the mean of three runs or more, such as
    ``"[4.2, 5.3]"``. runs: such as ``"2 runs"`` or ``"1 pair"``, where they differ from the table's.
    """

    text: str
    winning: bool = False
    clearly: bool = False
    failed: bool = False
    interval: str = ""
    runs: str = ""


def cell_text(cell: Cell, usual_runs: int | None = None) -> CellText:
    """The text and marks of a cell; runs are told where they are not the usual number, or some miss."""
    metric = metric_of(cell.key.metric)
    text = metric.text(cell.mean)
    if cell.std is not None:
        text += f" ± {metric.text(cell.std)}"
    runs = cell.counted if cell.runs != (usual_runs or cell.runs) else ""
    if cell.missing:
        runs = f"{cell.runs} of {cell.runs + cell.missing + cell.undefined}"
    return CellText(
        text + metric.suffix, cell.winning, bool(cell.clearly), cell.failed, interval_text(cell), runs
    )


def undefined_text(failed: bool) -> CellText:
    """What a table shows where all numbers of a key are undefined; failed: whether a run behind them did."""
    return CellText("undefined", failed=failed)


def interval_text(cell: Cell) -> str:
    """The 95% interval of a mean of three values or more; nothing for fewer."""
    interval = mean_interval(cell) if len(cell.values) >= LEAST_RUNS else None
    if interval is None:
        return ""
    metric = metric_of(cell.key.metric)
    return f"[{metric.text(interval[0])}, {metric.text(interval[1])}]"


def usual_runs(cells: Iterable[Cell]) -> int | None:
    """The number of runs, or of pairs, that most cells rest on; None without cells."""
    counts = Counter(cell.runs for cell in cells)
    return max(counts, key=lambda runs: (counts[runs], runs)) if counts else None


def difference_text(comparison: SideBySide) -> str:
    """Ours minus theirs with its sign; empty where one of the two is missing."""
    if comparison.difference is None:
        return ""
    digits = metric_of(comparison.key.metric).digits
    digits = 4 if digits is None else digits
    # Adding 0.0 turns a negative zero that rounding leaves into a positive one.
    return f"{round(comparison.difference, digits) + 0.0:+.{digits}f}".replace("-", MINUS)


def inside_text(comparison: SideBySide) -> str:
    """Whether the paper's number lies in the interval of our mean, as a word; empty where that is unknown."""
    return {None: "", True: "inside", False: "outside"}[comparison.inside]
