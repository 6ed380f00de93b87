"""A study of one's own as a table for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tombola.measures.statistics import mean, sample_std
from tombola.report.table import MISSING
from tombola.studies.own_cells import OwnCell

if TYPE_CHECKING:
    from rich.table import Table


def own_table(name: str, cells: Sequence[OwnCell]) -> Table:
    """Every quantity of every chain in a row, over the sparsities: mean and sample standard deviation.

    A star stands for failed runs.
    """
    from rich.table import Table
    from rich.text import Text

    axes = _axes(cells)
    rounds = {cell.row.round: f"{100 * cell.row.sparsity:.2f}%" for cell in cells}
    table = Table(title=name, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("network", "data", *axes, "quantity"):
        table.add_column(heading, no_wrap=True)
    for _, heading in sorted(rounds.items()):
        table.add_column(heading, justify="right", no_wrap=True)
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for cell in cells:
        varied = [str(cell.row.recipe[axis]) for axis in axes]
        key = (cell.row.network, cell.row.data, *varied, cell.quantity)
        rows.setdefault(key, {})[cell.row.round] = _text(cell)
    for key, by_round in rows.items():
        table.add_row(*map(Text, key), *(by_round.get(number, MISSING) for number in sorted(rounds)))
    return table


def own_csv(cells: Sequence[OwnCell]) -> str:
    """One line a number: where it stands, mean, sample standard deviation and the values of the runs."""
    axes = _axes(cells)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "network",
            "data",
            *axes,
            "round",
            "sparsity",
            "quantity",
            "mean",
            "std",
            "runs",
            "values",
            "starred",
        ]
    )
    for cell in cells:
        row, std = cell.row, sample_std(cell.values)
        writer.writerow(
            [
                row.network, row.data, *(row.recipe[axis] for axis in axes), row.round, row.sparsity,
                cell.quantity, mean(cell.values), "" if std is None else std, len(cell.values),
                " ".join(map(str, cell.values)), cell.starred,
            ]
        )  # fmt: skip
    return text.getvalue()


def _axes(cells: Sequence[OwnCell]) -> list[str]:
    """The fields in which the recipes differ."""
    return list(dict.fromkeys(axis for cell in cells for axis in cell.row.recipe))


def _text(cell: OwnCell) -> str:
    std = sample_std(cell.values)
    spread = "" if std is None else f" ± {std:.2g}"
    return f"{mean(cell.values):.4g}{spread}{'*' * cell.starred}"
