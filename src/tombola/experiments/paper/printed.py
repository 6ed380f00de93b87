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

from tombola.experiments.paper.settings import EPOCHS, SEARCH_SHARES
from tombola.table.key import Key
from tombola.table.number import Cell, by_key

_FIELDS: dict[str, Callable[[str], Any]] = {
    "metric": str,
    "network": str,
    "dataset": str,
    "target": str,
    "momentum": float,
    "batch_size": int,
    "pretrained": lambda text: text == "1",
    "sparse_momentum": float,
    "sparse_batch_size": int,
    "block": int,
    "sparsity": float,
    "subset_percent": int,
    "subset_criterion": str,
    "baseline": str,
}


@cache
def printed_tables() -> Mapping[str, Mapping[Key, Cell]]:
    """The numbers of the paper's 23 tables, in their order, under the names ``"table1"`` to ``"table23"``."""
    return MappingProxyType({f"table{number}": _table(number) for number in range(1, 24)})


@cache
def printed_cells() -> Mapping[Key, Cell]:
    """Every number that the paper prints; no two tables print the same one."""
    return MappingProxyType(by_key(cell for table in printed_tables().values() for cell in table.values()))


@cache
def comparable_tables() -> Mapping[str, Mapping[Key, Cell]]:
    """The same under the keys of those numbers of ours that they can be compared with.

    The paper's forgetting events are in all likelihood of three runs together, so they stand beside our sums
    over three runs and not beside our means a run (reading D8).
    """
    return MappingProxyType(
        {name: by_key(map(_comparable, table.values())) for name, table in printed_tables().items()}
    )


@cache
def comparable_cells() -> Mapping[Key, Cell]:
    """The comparable numbers of all tables."""
    return MappingProxyType(by_key(_comparable(cell) for cell in printed_cells().values()))


def _comparable(cell: Cell) -> Cell:
    if cell.key.metric != "forgetting_events":
        return cell
    return replace(cell, key=replace(cell.key, metric="summed_forgetting_events"))


def _table(number: int) -> Mapping[Key, Cell]:
    file = resources.files("tombola.experiments.paper").joinpath(f"table{number:02d}.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return MappingProxyType(by_key(map(_cell, rows)))


def _cell(row: dict[str, str]) -> Cell:
    runs = int(row["runs"])
    fields = {name: read(row[name]) for name, read in _FIELDS.items() if row[name]}
    if row["search_epochs"]:
        fields["search_share"] = SEARCH_SHARES[int(row["search_epochs"])]
    return Cell(
        key=Key(**fields),
        mean=float(row["mean"]),
        # The 0.00 printed behind a single run says nothing of a spread.
        std=float(row["std"]) if row["std"] and runs > 1 else None,
        runs=runs,
        epochs=EPOCHS,
        failed=row["flag"] == "starred",
        winning=row["flag"] == "underlined",
        note=row["note"],
    )
