"""The paper's own numbers, read from the files beside this module into cells.

Each file holds the cells of one table with the printed digits, percentages in percent. ``runs`` is what the
text says (three unless said otherwise). A star in the column ``flag`` is a run that stayed at chance;
"underlined" is a winning ticket where the underline survived in the text that the numbers were read from:
23 cells, of 40 that reach their own dense mean. What had to be read into a table is in the column ``note``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from tombola.studies.cells import Cell, Place, by_place

EPOCHS = 200
"""The paper's budget of every full training, late rewinding included (Section 3.3)."""

_KEYS: dict[str, Callable[[str], Any]] = {
    "study": str,
    "metric": str,
    "network": str,
    "dataset": str,
    "target": str,
    "momentum": float,
    "batch_size": int,
    "pretrained": lambda text: text == "1",
    "search_epochs": int,
    "sparse_momentum": float,
    "sparse_batch_size": int,
    "block": int,
    "sparsity": float,
    "subset_percent": int,
    "subset_criterion": str,
    "baseline": str,
}


@cache
def printed_cells() -> Mapping[Place, Cell]:
    """Every number of the paper's 23 tables, in their order."""
    folder = resources.files("tombola.studies.paper")
    cells: list[Cell] = []
    for number in range(1, 24):
        text = folder.joinpath(f"table{number:02d}.csv").read_text(encoding="utf-8")
        cells += [_cell(row) for row in csv.DictReader(text.splitlines())]
    return MappingProxyType(by_place(cells))


@cache
def comparable_cells() -> Mapping[Place, Cell]:
    """The same under the places of those numbers of ours that they can be compared with.

    The paper's forgetting events are in all likelihood of three runs together, so they stand beside our sums
    over three runs and not beside our means a run (reading D8).
    """
    return MappingProxyType(by_place(_comparable(cell) for cell in printed_cells().values()))


def _comparable(cell: Cell) -> Cell:
    if cell.place.metric != "forgetting_events":
        return cell
    return replace(cell, place=replace(cell.place, metric="summed_forgetting_events"))


@cache
def printed_anywhere() -> Mapping[Place, Cell]:
    """Comparable cells without the table's name in their places, for figures of what a table prints."""
    return MappingProxyType({replace(place, study=""): cell for place, cell in comparable_cells().items()})


def _cell(row: dict[str, str]) -> Cell:
    runs = int(row["runs"])
    # The 0.00 printed behind a single run says nothing of a spread.
    std = float(row["std"]) if row["std"] and runs > 1 else None
    return Cell(
        place=Place(**{key: read(row[key]) for key, read in _KEYS.items() if row[key]}),
        mean=float(row["mean"]),
        std=std,
        runs=runs,
        epochs=EPOCHS,
        starred=row["flag"] == "starred",
        underlined=row["flag"] == "underlined",
        note=row["note"],
    )
