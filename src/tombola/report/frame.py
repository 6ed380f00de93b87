"""Tables as pandas frames and CSV: the paper's rows and columns, with mean, spread, runs and marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tombola.report.cell_text import NONE_UNDEFINED
from tombola.table.compare import SideBySide, side_by_side
from tombola.table.key import Key
from tombola.table.number import Cell
from tombola.views.layout import NAMES, Grid, value_text

if TYPE_CHECKING:
    from pandas import DataFrame

_OURS = ("mean", "std", "runs", "mark")
_COMPARED = ("paper", "difference", "inside")


def frame(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None = None,
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> DataFrame:
    """The table as a frame: rows under what heads them, and several columns for each column of the table.

    Those are ``mean``, ``std`` (sample standard deviation), ``runs`` and ``mark`` ("underlined", "starred",
    both or nothing; "undefined" where numbers are computed and have no value, "starred" too if a run failed);
    with ``theirs`` also ``paper``, ``difference`` (ours minus theirs) and ``inside`` (whether theirs lies in
    the 95% interval of our mean). What is not there is missing: NaN, NA or an empty text.
    """
    import pandas

    comparisons = {row.key: row for row in side_by_side(cells, theirs or {})}
    quantities = _OURS if theirs is None else (*_OURS, *_COMPARED)
    rows = []
    for row in table.rows:
        values: list[Any] = []
        for column in table.columns:
            key = table.keys.get((row, column))
            of_cell = _cell_values(comparisons.get(key) if key else None)
            if key and key in undefined:
                of_cell[_OURS.index("mark")] = "undefined" + " starred" * undefined[key]
            values += of_cell[: len(quantities)]
        rows.append(values)
    index = pandas.MultiIndex.from_tuples(
        [tuple(map(_index_value, table.row_names, row)) for row in table.rows],
        names=[NAMES.get(name, name) for name in table.row_names],
    )
    columns = pandas.MultiIndex.from_product(
        [[", ".join(table.column_heads(column)) for column in table.columns], quantities]
    )
    frame = pandas.DataFrame(rows, index=index, columns=columns)
    kinds = {"mean": float, "std": float, "runs": "Int64", "paper": float, "difference": float}
    kinds["inside"] = "boolean"
    return frame.astype({column: kinds[column[1]] for column in columns if column[1] in kinds})


def to_csv(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None = None,
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> str:
    """The frame as CSV with one line of headings, such as ``67.23% mean``."""
    content = frame(table, cells, theirs, undefined)
    content.columns = [" ".join(column) for column in content.columns]
    return str(content.reset_index().to_csv(index=False))


def _index_value(name: str, value: Any) -> Any:
    """A value that heads a row: as it is, a share of the search as the epochs that the paper prints."""
    if value is None:
        return ""
    return int(value_text(name, value)) if name == "search_share" else value


def _cell_values(comparison: SideBySide | None) -> list[Any]:
    """The quantities of a cell in the order of their columns, ours first."""
    ours = comparison.ours if comparison else None
    theirs = comparison.theirs if comparison else None
    own = [None, None, None, ""] if ours is None else [ours.mean, ours.std, ours.runs, _mark(ours)]
    return [
        *own,
        theirs.mean if theirs else None,
        comparison.difference if comparison else None,
        comparison.inside if comparison else None,
    ]


def _mark(cell: Cell) -> str:
    return " ".join(["underlined"] * cell.winning + ["starred"] * cell.failed)
