"""A cell as text: mean and spread with the digits of its measure, and its marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tombola.studies.cells import Cell, Metric
from tombola.studies.side_by_side import SideBySide

_DIGITS: dict[Metric, int] = {
    "val_accuracy": 2,
    "probe_accuracy": 2,
    "untrained_accuracy": 2,
    "recalibrated_untrained_accuracy": 2,
    "forgetting_events": 2,
    "forgetting_spread": 2,
    "summed_forgetting_events": 2,
    "late_forgetting_events": 4,
    "unforgettable_percent": 2,
    "convergence": 3,
    "first_stable_epoch": 1,
    "barrier": 2,
    "recalibrated_barrier": 2,
    "barrier_to_next": 2,
    "highest_path_error": 2,
    "barrier_reached": 2,
}
_PERCENT: set[Metric] = {
    "val_accuracy",
    "probe_accuracy",
    "untrained_accuracy",
    "recalibrated_untrained_accuracy",
    "unforgettable_percent",
    "highest_path_error",
}

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Entry:
    """What a table shows of a cell.

    text: such as ``"4.72 ± 0.46%"``. runs: such as ``"2 runs"`` or ``"1 pair"``, where they differ from the
    table's.
    """

    text: str
    underlined: bool = False
    starred: bool = False
    runs: str = ""


def entry(cell: Cell, usual_runs: int | None = None) -> Entry:
    """The text and marks of a cell; its runs are told where they are not the usual number."""
    digits = _DIGITS[cell.place.metric]
    text = _signed(f"{cell.mean:.{digits}f}")
    if cell.std is not None:
        text += f" ± {cell.std:.{digits}f}"
    text += "%" if cell.place.metric in _PERCENT else ""
    runs = cell.counted if cell.runs != (usual_runs or cell.runs) else ""
    return Entry(text, cell.underlined, cell.starred, runs)


def usual_runs(cells: Iterable[Cell]) -> int | None:
    """The number of runs, or of pairs, that most cells rest on; None without cells."""
    counts = Counter(cell.runs for cell in cells)
    return max(counts, key=lambda runs: (counts[runs], runs)) if counts else None


def difference_text(beside: SideBySide) -> str:
    """Ours minus theirs with its sign, or nothing."""
    if beside.difference is None:
        return ""
    digits = _DIGITS[beside.place.metric]
    # Adding 0.0 turns a negative zero that rounding leaves into a positive one.
    return _signed(f"{round(beside.difference, digits) + 0.0:+.{digits}f}")


def inside_text(beside: SideBySide) -> str:
    """Whether the paper's number lies in the interval of our mean: a word, or nothing where it is unknown."""
    return {None: "", True: "inside", False: "outside"}[beside.inside]


def _signed(number: str) -> str:
    return number.replace("-", MINUS)
