"""Exhibits as tables of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tombola.report.cell_text import cell_text, usual_runs
from tombola.report.table import MISSING
from tombola.views.exhibit import Exhibit
from tombola.views.layout import NAMES

if TYPE_CHECKING:
    from rich.table import Table


def grid_table(exhibit: Exhibit) -> Table:
    """The table of an exhibit: means with their spreads; a star stands for failed runs."""
    from rich.table import Table
    from rich.text import Text

    grid, cells = exhibit.grid(), exhibit.cells
    table = Table(title=exhibit.full_title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    if grid is None:
        return table
    for name in grid.row_names:
        table.add_column(NAMES.get(name, name), no_wrap=True)
    for column in grid.columns:
        table.add_column(" ".join(grid.column_heads(column)), justify="right", no_wrap=True)
    usual = usual_runs(cells.values())
    for row in grid.rows:
        texts = [Text(head) for head in grid.row_heads(row)]
        for column in grid.columns:
            key = grid.keys.get((row, column))
            cell = cells.get(key) if key else None
            if cell is None:
                texts.append(Text(MISSING if key else ""))
                continue
            shown = cell_text(cell, usual)
            texts.append(Text(shown.text + "†" * shown.clearly + "*" * shown.failed))
        table.add_row(*texts)
    return table
