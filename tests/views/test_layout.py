"""Where cells stand: the paper's tables, and what has no layout of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tombola.errors import ExperimentError
from tombola.experiments.paper.printed import printed_tables
from tombola.experiments.paper.studies import TABLES, study_named
from tombola.table.key import Key
from tombola.views.layout import Grid, grid, value_text

# Rows and columns of each table, counted in the paper.
SHAPES = {
    "table1": (4, 3), "table2": (8, 5), "table3": (4, 4), "table4": (8, 4), "table5": (10, 4),
    "table6": (11, 4), "table7": (9, 4), "table8": (4, 3), "table9": (4, 3), "table10": (4, 3),
    "table11": (16, 5), "table12": (8, 5), "table13": (16, 5), "table14": (6, 5), "table15": (4, 4),
    "table16": (8, 4), "table17": (9, 4), "table18": (9, 4), "table19": (10, 4), "table20": (10, 4),
    "table21": (9, 4), "table22": (9, 4), "table23": (3, 4),
}  # fmt: skip


def printed_grid(study: str, *more: Key) -> Grid:
    """A table of the paper as it prints it, and further keys laid out with it."""
    return grid(study, [*printed_tables()[study], *more], study_named(study).layout)


@pytest.mark.parametrize("study", SHAPES)
def test_the_papers_tables_have_its_rows_and_columns_without_a_gap(study: str) -> None:
    table = printed_grid(study)
    assert (len(table.rows), len(table.columns)) == SHAPES[study]
    assert set(table.keys.values()) == set(printed_tables()[study])
    assert len(table.keys) == len(table.rows) * len(table.columns)


def test_every_table_of_the_paper_has_a_layout() -> None:
    assert [study.name for study in TABLES if study.layout] == list(SHAPES)


def test_columns_are_headed_as_in_the_paper() -> None:
    def heads(study: str) -> list[str]:
        table = printed_grid(study)
        return [" ".join(table.column_heads(column)) for column in table.columns]

    assert heads("table2") == ["0.00%", "67.23%", "89.26%", "96.48%", "98.85%"]
    assert heads("table5") == ["67.23% block 4", "67.23% block 8", "89.26% block 4", "89.26% block 8"]
    assert heads("table6") == ["MNIST", "CIFAR-100", "TinyImageNet", "EuroSAT"]
    assert heads("table7") == ["1%", "2%", "5%", "10%"]
    assert heads("table15")[:2] == ["μ = 0.0 batch 100", "μ = 0.0 batch 256"]
    assert heads("table23")[:2] == ["least forgotten 1%", "least forgotten 10%"]


def test_rows_are_headed_as_in_the_paper() -> None:
    def heads(study: str, row: int) -> list[str]:
        table = printed_grid(study)
        return table.row_heads(table.rows[row])

    assert heads("table2", 0) == ["0.0", "100", "✗"]
    assert heads("table7", 8) == ["", "", "", "dense network"]
    # Shortened searches by the epochs that the paper prints, though a key has their share of the budget.
    assert {heads("table3", row)[0] for row in range(4)} == {"20", "50"}


def test_stand_ins_head_rows_and_columns_under_their_own_names() -> None:
    keys = [Key(metric="val_accuracy", dataset="CIFAR-10", target=target) for target in ("MNIST", "EuroSAT")]
    table = grid("table6", keys, study_named("table6").layout, names={"MNIST": "digits"})
    assert [table.column_heads(column) for column in table.columns] == [["digits"], ["EuroSAT"]]
    table = grid("mine", [replace(key, target=None) for key in keys], names={"CIFAR-10": "digits"})
    assert table.row_heads(table.rows[0]) == ["digits"]


def test_a_column_that_only_we_have_stands_at_its_number() -> None:
    extra = [replace(key, sparsity=73.79) for key in printed_tables()["table2"]]
    table = printed_grid("table2", *extra)
    assert table.columns == ((0.0,), (67.23,), (73.79,), (89.26,), (96.48,), (98.85,))
    assert len(table.rows) == 8


def test_keys_that_would_cover_each_other_get_rows_of_their_own() -> None:
    printed = list(printed_tables()["table2"])
    ours = [replace(key, network="convnet", dataset="digits") for key in printed]
    table = printed_grid("table2", *ours)
    assert table.row_names[0] in ("network", "dataset")
    assert len(table.rows) == 16
    assert set(table.keys.values()) == {*printed, *ours}


def test_several_fields_can_be_needed_to_tell_rows_apart() -> None:
    first = next(iter(printed_tables()["table2"]))
    keys = [
        replace(first, network=network, dataset=dataset)
        for network, dataset in (("a", "c"), ("b", "c"), ("a", "d"))
    ]
    table = grid("table2", keys, study_named("table2").layout)
    assert set(table.keys.values()) == set(keys)
    assert {"network", "dataset"} <= set(table.row_names)


def test_keys_that_differ_in_a_further_axis_alone_get_rows_of_their_own() -> None:
    first = next(iter(printed_tables()["table2"]))
    keys = [replace(first, more=(("lr", lr),)) for lr in (0.1, 0.2)]
    table = grid("table2", keys, study_named("table2").layout)
    assert set(table.keys.values()) == set(keys)
    assert table.row_names[0] == "lr"


def own(metric: str = "val_accuracy", **fields: object) -> Key:
    return Key(metric=metric, **fields)  # type: ignore[arg-type]


def test_a_study_without_layout_has_a_few_sparsities_across_and_what_varies_down() -> None:
    keys = [
        own(network="convnet", momentum=mu, sparsity=sparsity) for mu in (0.0, 0.9) for sparsity in (0, 20.0)
    ]
    table = grid("mine", keys)
    assert (table.row_names, table.column_names) == (("momentum",), ("sparsity",))


def test_measures_of_a_study_without_layout_stand_beside_each_other() -> None:
    keys = [
        own(metric, momentum=0.0, sparsity=float(sparsity))
        for sparsity in range(20)
        for metric in ("barrier", "val_accuracy")
    ]
    table = grid("mine", keys)
    assert (table.row_names, table.column_names) == (("sparsity",), ("metric",))
    assert len(table.rows) == 20


def test_a_single_cell_is_a_table() -> None:
    table = grid("mine", [own(dataset="digits")])
    assert (table.rows, table.columns) == ((("digits",),), (("val_accuracy",),))


def test_a_study_without_cells_is_refused_in_one_line() -> None:
    with pytest.raises(ExperimentError, match=r"no cell of the study 'table99'; a table needs at least one"):
        grid("table99", [])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("momentum", 0.0, "0.0"),
        ("sparse_momentum", 0.95, "0.95"),
        ("pretrained", True, "✓"),
        ("pretrained", False, "✗"),
        ("pretrained", None, ""),
        ("baseline", None, "ticket"),
        ("baseline", "frozen_dense", "frozen dense"),
        ("sparsity", 89.26, "89.26%"),
        ("sparsity", 90.0, "90.00%"),
        ("sparsity", 99.9999, "99.9999%"),
        ("sparsity", 99.99999999, "99.99999999%"),
        ("search_share", 0.25, "50"),
        ("metric", "unforgettable_percent", "unforgettable"),
        ("metric", "untrained.loss", "untrained.loss"),
        ("dataset", "my_data", "my_data"),
    ],
)
def test_values_are_written_for_readers(name: str, value: object, text: str) -> None:
    assert value_text(name, value) == text
