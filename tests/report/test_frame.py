"""Tables as frames and CSV."""

from __future__ import annotations

import csv
import math

import pandas
import pytest

from tombola.experiments.paper.printed import printed_cells, printed_tables
from tombola.experiments.paper.studies import study_named
from tombola.report.frame import frame, to_csv
from tombola.table.key import Key
from tombola.table.number import Cell, by_key, measured
from tombola.views.layout import Grid, grid

KEYS = [
    Key(
        metric="val_accuracy", network="ResNet-34", dataset="TinyImageNet",
        momentum=0.0, batch_size=256, pretrained=False, sparsity=sparsity,
    )
    for sparsity in (0.0, 67.23, 89.26)
]  # fmt: skip


def ours() -> dict[Key, Cell]:
    """By hand: mean 60, sample standard deviation 1; a single run; nothing at 89.26%."""
    return by_key(
        [
            measured(KEYS[0], [59.0, 60.0, 61.0], epochs=20),
            measured(KEYS[1], [58.0], epochs=20, failed=True, winning=True),
        ]
    )


def printed_grid(study: str) -> Grid:
    """A table of the paper as it prints it."""
    return grid(study, printed_tables()[study], study_named(study).layout)


def test_the_frame_has_the_papers_rows_and_columns() -> None:
    printed = frame(printed_grid("table2"), printed_cells())
    assert list(printed.index.names) == ["μ", "batch size", "pretrained"]
    assert printed.shape == (8, 5 * 4)
    assert printed.loc[(0.9, 100, False), ("96.48%", "mean")] == 35.69
    assert printed.loc[(0.9, 100, False), ("96.48%", "mark")] == "starred"
    assert printed.loc[(0.0, 256, True), ("67.23%", "mark")] == "underlined"
    assert math.isnan(printed.loc[(0.9, 100, False), ("96.48%", "std")])


def test_every_printed_mean_is_in_its_frame() -> None:
    for study, printed in printed_tables().items():
        means = frame(printed_grid(study), printed_cells()).xs("mean", axis=1, level=1).to_numpy().ravel()
        assert sorted(means) == sorted(cell.mean for cell in printed.values())


def test_shortened_searches_are_named_by_the_epochs_that_the_paper_prints() -> None:
    searches = frame(printed_grid("table3"), printed_cells())
    assert set(searches.index.get_level_values("search epochs")) == {20, 50}


def test_our_cells_stand_beside_the_papers_with_difference_and_interval() -> None:
    row = frame(printed_grid("table2"), ours(), printed_cells()).loc[(0.0, 256, False)]
    dense = row["0.00%"]
    assert (dense["mean"], dense["std"], dense["runs"], dense["mark"]) == (60.0, 1.0, 3, "")
    # The paper prints 59.33; Student's interval of our mean is 60 ± 2.48.
    assert (dense["paper"], dense["inside"]) == (59.33, True)
    assert dense["difference"] == pytest.approx(0.67)
    single = row["67.23%"]
    assert (single["mark"], single["runs"]) == ("underlined starred", 1)
    assert single["difference"] == pytest.approx(58.0 - 59.95)
    assert pandas.isna(single["inside"])


def test_what_is_not_there_stays_empty() -> None:
    gap = frame(printed_grid("table2"), ours(), printed_cells()).loc[(0.0, 256, False), "89.26%"]
    assert pandas.isna(gap[["mean", "std", "runs", "difference", "inside"]]).all()
    assert (gap["mark"], gap["paper"]) == ("", 60.20)


def test_csv_has_one_line_of_headings_and_empty_gaps() -> None:
    rows = list(csv.DictReader(to_csv(printed_grid("table2"), ours()).splitlines()))
    assert len(rows) == 8
    (row,) = [row for row in rows if row["0.00% mean"]]
    assert (row["μ"], row["batch size"], row["pretrained"]) == ("0.0", "256", "False")
    assert (row["0.00% mean"], row["0.00% std"], row["0.00% runs"]) == ("60.0", "1.0", "3")
    assert (row["67.23% std"], row["67.23% mark"]) == ("", "underlined starred")
    assert {row[f"89.26% {quantity}"] for quantity in ("mean", "std", "runs", "mark")} == {""}
