"""Tables as pandas frames and CSV: the paper's rows and columns, with mean, spread, runs and marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tombola.report.layout import NAMES, Grid, column_texts
from tombola.studies.cells import Cell, Place
from tombola.studies.side_by_side import SideBySide, side_by_side

if TYPE_CHECKING:
    from pandas import DataFrame

_OURS = ("mean", "std", "runs", "mark")
_BESIDE = ("paper", "difference", "inside")


def frame(table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None) -> DataFrame:
    """The table with a row index of the paper's keys, and columns under each of the paper's columns.

    Those are ``mean``, ``std`` (sample standard deviation), ``runs`` and ``mark`` ("underlined", "starred",
    both or nothing); with ``theirs`` also ``paper``, ``difference`` (ours minus theirs) and ``inside``
    (whether theirs lies in the 95% interval of our mean). What is not there is missing: NaN, NA or an empty
    text.
    """
    import pandas

    beside = _by_place(cells, theirs)
    quantities = _OURS if theirs is None else (*_OURS, *_BESIDE)
    rows = []
    for row in table.rows:
        values: list[Any] = []
        for column in table.columns:
            place = table.places.get((row, column))
            values += _values(beside.get(place) if place else None)[: len(quantities)]
        rows.append(values)
    index = pandas.MultiIndex.from_tuples(
        [tuple("" if value is None else value for value in row) for row in table.rows],
        names=[NAMES[name] for name in table.row_names],
    )
    columns = pandas.MultiIndex.from_product(
        [[", ".join(column_texts(table.column_names, column)) for column in table.columns], quantities]
    )
    made = pandas.DataFrame(rows, index=index, columns=columns)
    kinds = {"mean": float, "std": float, "runs": "Int64", "paper": float, "difference": float}
    kinds["inside"] = "boolean"
    return made.astype({column: kinds[column[1]] for column in columns if column[1] in kinds})


def to_csv(table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None) -> str:
    """The same as CSV with one line of headings, such as ``67.23% mean``."""
    made = frame(table, cells, theirs)
    made.columns = [" ".join(column) for column in made.columns]
    return str(made.reset_index().to_csv(index=False))


def _by_place(cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None) -> dict[Place, SideBySide]:
    return {beside.place: beside for beside in side_by_side(cells, theirs or {})}


def _values(beside: SideBySide | None) -> list[Any]:
    ours = beside.ours if beside else None
    theirs = beside.theirs if beside else None
    own = [None, None, None, ""] if ours is None else [ours.mean, ours.std, ours.runs, _mark(ours)]
    return [
        *own,
        theirs.mean if theirs else None,
        beside.difference if beside else None,
        beside.inside if beside else None,
    ]


def _mark(cell: Cell) -> str:
    return " ".join(["underlined"] * cell.underlined + ["starred"] * cell.starred)
