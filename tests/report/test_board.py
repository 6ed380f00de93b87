"""The claims board as rows, table and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from rich.console import Console

from tombola.experiments.claims.all_claims import CLAIMS, claim_named, judge_all
from tombola.experiments.claims.claim import needed
from tombola.experiments.paper.printed import printed_cells
from tombola.report.board import Row, board, board_csv, board_table, counts
from tombola.table.key import Key
from tombola.table.number import Cell, by_key, measured


def made_up_runs(spread: float = 0.001, epochs: int = 20) -> dict[Key, Cell]:
    """Three runs around each printed number, of a shorter budget."""
    return {
        key: measured(
            key,
            [cell.mean - spread, cell.mean, cell.mean + spread],
            epochs=epochs,
            failed=cell.failed,
            winning=cell.winning,
        )
        for key, cell in printed_cells().items()
    }


def rows_for(cells: Mapping[Key, Cell]) -> dict[str, Row]:
    return {row.claim: row for row in board(judge_all(printed_cells()), judge_all(cells))}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return rows_for(made_up_runs())


def test_every_claim_has_a_row_in_the_papers_order(rows: dict[str, Row]) -> None:
    assert list(rows) == [f"C{number}" for number in range(1, 64)]
    assert [row.sentence for row in rows.values()] == [claim.sentence for claim in CLAIMS]


def test_runs_at_the_printed_numbers_get_the_papers_verdicts(rows: dict[str, Row]) -> None:
    assert sum(row.paper == row.ours for row in rows.values()) >= 60  # C29 counts in shares of the budget
    assert "The paper's own numbers: 36 hold, 12 partly, 15 not computable yet." in counts([*rows.values()])


def test_a_verdict_comes_with_its_comparisons_runs_and_budget(rows: dict[str, Row]) -> None:
    row = rows["C16"]
    assert (row.paper, row.ours, row.rests_on) == ("holds", "holds", "table2, fig16")
    assert row.remarks == "8 of 8 comparisons hold, 3 runs, 20 epochs, reduced budget"
    assert (row.reduced, row.lacking) == (True, "")


def test_a_full_budget_is_not_marked_as_reduced() -> None:
    row = rows_for(made_up_runs(epochs=200))["C16"]
    assert row.reduced is False
    assert "reduced" not in row.remarks


def test_gaps_below_the_spread_are_within_noise(rows: dict[str, Row]) -> None:
    assert not rows["C15"].noise
    noisy = rows_for(made_up_runs(spread=30.0))["C15"]
    assert noisy.noise
    assert noisy.ours == "undecided"
    assert noisy.remarks.endswith("within noise")


def test_undecided_claims_are_counted_between_failing_ones_and_those_not_computable() -> None:
    rows = [*rows_for(made_up_runs(spread=30.0)).values()]
    number = sum(row.ours == "undecided" for row in rows)
    assert number > 10
    assert f", {number} undecided, 15 not computable yet." in counts(rows).partition("Ours:")[2]
    lines = list(csv.DictReader(io.StringIO(board_csv(rows))))
    assert {line["noise"] for line in lines if line["ours"] == "undecided"} == {"yes"}


def test_what_cannot_be_computed_names_what_it_lacks(rows: dict[str, Row]) -> None:
    row = rows["C1"]
    assert (row.ours, row.remarks) == ("not computable yet", "4 cells missing")
    assert (row.reduced, row.noise, row.runs) == (None, None, "")
    assert rows_for({})["C16"].remarks == "40 cells missing"


def test_of_some_of_its_cells_a_claim_tells_how_it_stands() -> None:
    # C8 compares momentum 0.9 with 0.0 once in each of four pairs.
    keys = [key for key in needed(claim_named("C8")) if key.dataset == "CIFAR-10"]
    cells = by_key(measured(key, [1.0 + (key.momentum or 0)], epochs=20) for key in keys)
    row = rows_for(cells)["C8"]
    assert (row.ours, row.noise) == ("not computable yet", None)
    assert row.remarks == "12 cells missing, so far 1 of 1 hold, 4 in all, 1 run, 20 epochs, reduced budget"


def test_csv_has_a_line_for_each_claim(rows: dict[str, Row]) -> None:
    lines = list(csv.DictReader(io.StringIO(board_csv([*rows.values()]))))
    assert [line["claim"] for line in lines] == list(rows)
    assert (lines[15]["ours"], lines[15]["reduced"], lines[15]["epochs"]) == ("holds", "yes", "20")
    assert (lines[0]["ours"], lines[0]["reduced"], lines[0]["noise"]) == ("not computable yet", "", "")
    assert [line["sentence"] for line in lines] == [claim.sentence for claim in CLAIMS]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_terminal_and_shows_every_claim(rows: dict[str, Row], width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(board_table([*rows.values()], console))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert re.findall(r"^ +(C\d+) ", text, re.MULTILINE) == list(rows)
    assert "…" not in text
    assert ("rests on" in text) == (width >= 120)
    assert "no number" in text
    assert "36 hold" in " ".join(text.split())


def test_sentences_with_brackets_are_not_taken_for_styles(rows: dict[str, Row]) -> None:
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(board_table([replace(rows["C1"], sentence="[bold]loud[/bold]")], console))
    assert isinstance(console.file, io.StringIO)
    assert "[bold]loud[/bold]" in console.file.getvalue()
