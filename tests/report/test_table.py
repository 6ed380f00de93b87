"""The terminal tables as they come out of a console."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tombola.report.table import accuracy_table, dense_table


def console(width: int, styled: bool = False) -> Console:
    system = {"force_terminal": True, "color_system": "standard"} if styled else {"color_system": None}
    return Console(width=width, file=io.StringIO(), **system)  # type: ignore[arg-type]


def printed(table: Table, where: Console) -> str:
    where.print(table)
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def lines_of(summary: dict[str, Any], width: int) -> list[str]:
    where = console(width)
    return printed(accuracy_table(summary, where), where).splitlines()


def test_winning_cells_are_underlined_and_no_others(summary: dict[str, Any]) -> None:
    table = accuracy_table(summary, console(200, styled=True))
    for number, chain in enumerate(rows_by_chain(summary)):
        for column, row in zip(table.columns[3:], chain, strict=True):
            cell = list(column.cells)[number]
            assert isinstance(cell, Text)
            assert any("underline" in str(span.style) for span in cell.spans) == bool(row["winning"])


def rows_by_chain(summary: dict[str, Any]) -> list[list[dict[str, Any]]]:
    keys = sorted({(r["rewind"], r["momentum"], r["batch_size"]) for r in summary["rows"]})
    return [
        [r for r in summary["rows"] if (r["rewind"], r["momentum"], r["batch_size"]) == key] for key in keys
    ]


def test_failed_cells_are_starred_and_explained(summary: dict[str, Any]) -> None:
    lines = lines_of(summary, 120)
    assert [line.split()[:3] for line in lines if "51.1*" in line] == [["0.9", "32", "initial"]]
    assert "at least one run failed to train" in " ".join(" ".join(lines).split())
    for row in summary["rows"]:
        row["failed_runs"] = 0
    assert "*" not in " ".join(lines_of(summary, 120))


def test_marks_are_characters_where_no_styles_are_shown(summary: dict[str, Any]) -> None:
    lines = lines_of(summary, 120)
    assert sum(line.count("+") for line in lines) == 1 + sum(bool(r["winning"]) for r in summary["rows"])
    assert "+: winning ticket" in " ".join(lines)


@pytest.mark.parametrize(("width", "columns"), [(200, 9), (120, 9), (80, 9), (60, 5)])
def test_as_many_rounds_as_fit_are_shown_and_nothing_is_cut(
    summary: dict[str, Any], width: int, columns: int
) -> None:
    lines = lines_of(summary, width)
    assert max(map(len, lines)) <= width
    (heading,) = [line.split() for line in lines if "batch" in line]
    assert len(heading) == 3 + columns
    assert (heading[3], heading[-1]) == ("0.0%", "83.2%")
    assert "…" not in "".join(lines)


def test_failures_in_rounds_left_out_are_still_told(summary: dict[str, Any]) -> None:
    text = " ".join(" ".join(lines_of(summary, 60)).split())
    assert "Runs failed in rounds that are not shown here." in text


def test_a_round_that_a_chain_lacks_is_a_dash(summary: dict[str, Any]) -> None:
    summary["rows"].remove(summary["rows"][8])
    assert sum(line.split().count("\N{EN DASH}") for line in lines_of(summary, 120)) == 1


def test_a_run_without_accuracy_is_a_starred_dash(summary: dict[str, Any]) -> None:
    summary["rows"][8] |= {"accuracy_mean": None, "accuracy_std": None, "failed_runs": 2, "winning": False}
    assert "\N{EN DASH}*" in " ".join(lines_of(summary, 120))


def test_dense_table_shows_its_measures_within_80_columns(summary: dict[str, Any]) -> None:
    summary["dense"][1]["convergence"] = None
    where = console(80)
    lines = printed(dense_table(summary), where).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.lstrip().startswith("0.")] == [
        ["0.0", "32", "1.5", "0.6", "0.31", "±", "0.77", "79.5%", "0.931"],
        ["0.0", "128", "0.8", "0.3", "0.22", "±", "0.61", "84.6%", "\N{EN DASH}"],
        ["0.9", "32", "18.2", "7.3", "0.74", "±", "1.22", "61.1%", "0.952"],
        ["0.9", "128", "10.1", "4.0", "0.52", "±", "1.03", "70.2%", "0.917"],
    ]
