"""Exhibits as tables of a terminal of any width."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tombola.report.terminal import first_exhibits, grid_table

Made = Any


def printed(made: Made, part: str, width: int, color_system: Any = None) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=color_system, force_terminal=True)
    console.print(grid_table(made.exhibit(part), console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def columns(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if "batch size" in line]
    return re.findall(r"\d+\.\d\d%", line)


@pytest.mark.parametrize(("width", "shown"), [(220, 9), (110, 9), (80, 5)])
def test_as_many_columns_as_fit_and_always_the_dense_one(made: Made, width: int, shown: int) -> None:
    text = printed(made, "accuracy", width)
    assert max(map(len, text.splitlines())) <= width
    assert columns(text)[0] == "0.00%"
    assert len(columns(text)) == shown
    assert "…" not in text
    assert ("Not all columns fit here" in text or "Nor do all columns" in " ".join(text.split())) == (
        shown < 9
    )


def test_spreads_go_before_columns_do(made: Made) -> None:
    assert "95.60 ± 0.17%" in printed(made, "accuracy", 220)
    narrow = printed(made, "accuracy", 110)
    assert "±" not in narrow
    assert "95.60%" in narrow
    assert "Spreads do not fit here." in narrow


def test_winning_and_failed_cells_are_marked_without_colours_too(made: Made) -> None:
    text = printed(made, "accuracy", 220)
    winning = sum(entry.cell.winning for entry in made.exhibit("accuracy").entries if entry.cell)
    assert text.count("%+") == winning > 0
    assert len(re.findall(r"%\*", text)) == 1
    assert "+: winning ticket" in text
    assert "*: at least one run failed to train" in text


def test_with_colours_winning_is_an_underline(made: Made) -> None:
    text = printed(made, "accuracy", 220, "standard")
    assert "\x1b[1;4m" in text
    assert "%+" not in text


def test_what_is_not_computed_is_a_dash(made: Made) -> None:
    gaps = made.only(
        [
            replace(one, value=None, state="missing", curve=None) if one.key.momentum == 0.9 else one
            for one in made.numbers
        ]
    )
    text = printed(gaps, "accuracy", 220)
    assert text.count("\N{EN DASH} ") == 4 * 9


def test_names_are_not_taken_for_styles_or_commands(made: Made) -> None:
    for name in ("[bold]loud[/bold]", "bell\x07\x1b[31m"):
        hostile = made.only(
            [replace(one, key=replace(one.key, dataset=name)) for one in made.numbers] + list(made.numbers)
        )
        text = printed(hostile, "accuracy", 300)
        assert "\x07" not in text
        assert "\x1b[31m" not in text
        assert ("[bold]loud[/bold]" in text) == (name.startswith("["))


def test_a_screen_has_the_first_tables_and_always_one(made: Made) -> None:
    exhibit = made.exhibit("accuracy")
    grid = exhibit.grid()
    assert grid
    rows = len(grid.rows)
    fitting = 20 // rows
    assert first_exhibits([exhibit] * 30) == [exhibit] * fitting
    assert first_exhibits([exhibit] * fitting) == [exhibit] * fitting
    entries = tuple(
        replace(entry, key=replace(entry.key, batch_size=size))
        for entry in exhibit.entries
        for size in range(1, 30)
    )
    longer = replace(exhibit, entries=entries)
    assert first_exhibits([longer, exhibit]) == [longer]
    assert first_exhibits([exhibit, longer, exhibit]) == [exhibit]
    assert first_exhibits([]) == []
