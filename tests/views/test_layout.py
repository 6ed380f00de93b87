"""Where cells stand: the paper's tables, and what has no layout of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tombola.experiments.cells import Metric, Place
from tombola.report.layout import LAYOUTS, column_texts, grid, value_text

from tombola.errors import StudyError
from tombola.experiments.paper.printed import printed_cells

# Rows and columns of each table, counted in the paper.
SHAPES = {
    "table1": (4, 3), "table2": (8, 5), "table3": (4, 4), "table4": (8, 4), "table5": (10, 4),
    "table6": (11, 4), "table7": (9, 4), "table8": (4, 3), "table9": (4, 3), "table10": (4, 3),
    "table11": (16, 5), "table12": (8, 5), "table13": (16, 5), "table14": (6, 5), "table15": (4, 4),
    "table16": (8, 4), "table17": (9, 4), "table18": (9, 4), "table19": (10, 4), "table20": (10, 4),
    "table21": (9, 4), "table22": (9, 4), "table23": (3, 4),
}  # fmt: skip


@pytest.mark.parametrize("study", SHAPES)
def test_the_papers_tables_have_its_rows_and_columns_without_a_gap(study: str) -> None:
    table = grid(study, printed_cells())
    assert (len(table.rows), len(table.columns)) == SHAPES[study]
    assert set(table.places.values()) == {place for place in printed_cells() if place.study == study}
    assert len(table.places) == len(table.rows) * len(table.columns)


def test_every_table_of_the_paper_has_a_layout() -> None:
    assert [study for study in LAYOUTS if study.startswith("table")] == list(SHAPES)


def test_columns_are_headed_as_in_the_paper() -> None:
    def heads(study: str) -> list[str]:
        table = grid(study, printed_cells())
        return [" ".join(column_texts(table.column_names, column)) for column in table.columns]

    assert heads("table2") == ["0.00%", "67.23%", "89.26%", "96.48%", "98.85%"]
    assert heads("table5") == ["67.23% block 4", "67.23% block 8", "89.26% block 4", "89.26% block 8"]
    assert heads("table6") == ["MNIST", "CIFAR-100", "TinyImageNet", "EuroSAT"]
    assert heads("table7") == ["1%", "2%", "5%", "10%"]
    assert heads("table15")[:2] == ["μ = 0.0 batch 100", "μ = 0.0 batch 256"]
    assert heads("table23")[:2] == ["least forgotten 1%", "least forgotten 10%"]


def test_a_column_that_only_we_have_stands_at_its_number() -> None:
    extra = [replace(place, sparsity=73.79) for place in printed_cells() if place.study == "table2"]
    table = grid("table2", [*printed_cells(), *extra])
    assert table.columns == ((0.0,), (67.23,), (73.79,), (89.26,), (96.48,), (98.85,))
    assert len(table.rows) == 8


def test_places_that_would_cover_each_other_get_rows_of_their_own() -> None:
    printed = [place for place in printed_cells() if place.study == "table2"]
    ours = [replace(place, network="convnet", dataset="digits") for place in printed]
    table = grid("table2", [*printed, *ours])
    assert table.row_names[0] in ("network", "dataset")
    assert len(table.rows) == 16
    assert set(table.places.values()) == {*printed, *ours}


def test_several_keys_can_be_needed_to_tell_rows_apart() -> None:
    (place,) = [place for place in printed_cells() if place.study == "table2"][:1]
    places = [
        replace(place, network=network, dataset=dataset)
        for network, dataset in (("a", "c"), ("b", "c"), ("a", "d"))
    ]
    table = grid("table2", places)
    assert set(table.places.values()) == set(places)
    assert {"network", "dataset"} <= set(table.row_names)


def own(metric: Metric = "val_accuracy", **keys: object) -> Place:
    return Place(study="mine", metric=metric, **keys)  # type: ignore[arg-type]


def test_a_study_without_layout_has_a_few_sparsities_across_and_what_varies_down() -> None:
    places = [
        own(network="convnet", momentum=mu, sparsity=sparsity) for mu in (0.0, 0.9) for sparsity in (0, 20.0)
    ]
    table = grid("mine", places)
    assert (table.row_names, table.column_names) == (("momentum",), ("sparsity",))


def test_measures_of_a_study_without_layout_stand_beside_each_other() -> None:
    places = [
        own(metric, momentum=0.0, sparsity=float(sparsity))
        for sparsity in range(20)
        for metric in ("barrier", "val_accuracy")
    ]
    table = grid("mine", places)
    assert (table.row_names, table.column_names) == (("sparsity",), ("metric",))
    assert len(table.rows) == 20


def test_a_single_cell_is_a_table() -> None:
    table = grid("mine", [own(dataset="digits")])
    assert (table.rows, table.columns) == ((("digits",),), (("val_accuracy",),))


def test_a_study_without_cells_is_refused_in_one_line() -> None:
    with pytest.raises(StudyError, match=r"no cell of the study 'table99'; a table needs at least one"):
        grid("table99", printed_cells())


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
        ("metric", "unforgettable_percent", "unforgettable"),
        ("dataset", "my_data", "my_data"),
    ],
)
def test_values_are_written_for_readers(name: str, value: object, text: str) -> None:
    assert value_text(name, value) == text
