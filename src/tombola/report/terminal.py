"""Exhibits as tables of a terminal, as wide as it is: first spreads are left out, then columns in between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tombola.report.cell_text import cell_text, undefined_text, usual_runs
from tombola.untrusted import printable
from tombola.views.exhibit import Exhibit
from tombola.views.layout import NAMES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "\N{EN DASH}"
"""What stands where a number is not computed yet."""

# Rows of numbers that are printed on a terminal before what else there is is only named.
_MOST_ROWS = 20


def empty_table(title: str, caption: str = "", padding: int = 1) -> Table:
    """A terminal table in the one look they all have, without columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title),
        caption=Text(caption) if caption else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        padding=(0, padding),
    )


def first_exhibits(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """What fits about a screen: the first exhibit, and those after it while their rows are few in all."""
    rows = 0
    for place, exhibit in enumerate(exhibits):
        rows += len(grid.rows) if (grid := exhibit.grid()) else 0
        if place > 0 and rows > _MOST_ROWS:
            return list(exhibits[:place])
    return list(exhibits)


def grid_table(exhibit: Exhibit, console: Console | None = None) -> Table:
    """The table of an exhibit: means with their spreads, winning tickets underlined, failed runs starred.

    console: where it will be printed. Where its width does not suffice, spreads are left out, and then
        columns evenly, but for the first; where it shows no styles, a plus sign stands for the underline.
        Default: the standard output.
    """
    from rich import get_console

    console = console or get_console()
    count = len(grid.columns) if (grid := exhibit.grid()) else 0
    narrower = itertools.product((False,), range(1, max(count, 2)), (1, 0))
    for spreads, step, padding in ((True, 1, 1), *narrower):
        table = _grid_table(exhibit, console.color_system is not None, spreads, step, padding)
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    return table


def _grid_table(exhibit: Exhibit, styled: bool, spreads: bool, step: int, padding: int) -> Table:
    """The same with every so many columns, and so many spaces at both sides of each."""
    from rich.text import Text

    grid, cells, undefined = exhibit.grid(), exhibit.cells, exhibit.undefined
    if grid is None:
        return empty_table(exhibit.full_title)
    shown = grid.columns[::step]
    caption = _caption(exhibit, styled, spreads, len(shown) < len(grid.columns))
    table = empty_table(exhibit.full_title, caption, padding)
    for name in grid.row_names:
        table.add_column(Text(NAMES.get(name, name)), no_wrap=True)
    for column in shown:
        table.add_column(Text("\n".join(grid.column_heads(column))), justify="right", no_wrap=True)
    usual = usual_runs(cells.values())
    for row in grid.rows:
        texts = [Text(printable(head)) for head in grid.row_heads(row)]
        for column in shown:
            key = grid.keys.get((row, column))
            cell = cells.get(key) if key else None
            if key in undefined:
                text = undefined_text(undefined[key])
            elif cell is None:
                texts.append(Text(f"{MISSING} " if key else ""))
                continue
            else:
                text = cell_text(cell if spreads else replace(cell, std=None), usual)
            marks = "+" * (text.winning and not styled) + "†" * text.clearly + "*" * text.failed
            texts.append(
                Text.assemble((text.text, "bold underline" if text.winning and styled else ""), marks or " ")
            )
        table.add_row(*texts)
    return table


def _caption(exhibit: Exhibit, styled: bool, spreads: bool, left_out: bool) -> str:
    """What the marks of a table mean, as far as they occur."""
    cells = exhibit.cells.values()
    sentences = []
    if any(cell.winning for cell in cells):
        sentences.append(f"{'Underlined' if styled else '+'}: winning ticket, no less accurate than dense.")
    if any(cell.clearly for cell in cells):
        sentences.append("†: better beyond the noise of the seeds.")
    if any(cell.failed for cell in cells):
        sentences.append("*: at least one run failed to train; it is part of the mean.")
    elif any(exhibit.undefined.values()):
        sentences.append("*: at least one run failed to train.")
    if not spreads and any(cell.std is not None for cell in cells):
        sentences.append("Spreads do not fit here.")
    if left_out:
        sentences.append(
            "Nor do all columns." if "Spreads do not fit here." in sentences else "Not all columns fit here."
        )
    return " ".join(sentences)
