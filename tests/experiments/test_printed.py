"""The printed numbers against the paper, read off by eye, and against what follows from them."""

import itertools
import statistics
from dataclasses import replace

import pytest

from tombola.experiments.paper.printed import printed_cells, printed_tables
from tombola.table.key import Key
from tombola.table.number import Cell

TIN = {"network": "ResNet-34", "dataset": "TinyImageNet"}
C10 = {"network": "ResNet-18", "dataset": "CIFAR-10"}
C100 = {"network": "ResNet-18", "dataset": "CIFAR-100"}
VGG = {"network": "VGG16", "dataset": "CIFAR-100"}
STABLE = {"momentum": 0.0, "batch_size": 256, "pretrained": False}
UNSTABLE = {"momentum": 0.9, "batch_size": 100, "pretrained": False}
LAST = {"momentum": 0.9, "batch_size": 256, "pretrained": True}
RANDOM = {"subset_criterion": "random_class_balanced"}
ACCURACY, PROBE = {"metric": "val_accuracy"}, {"metric": "probe_accuracy"}

# Of each table one or two cells, with mean and std as the paper prints them.
BY_EYE = [
    ("table1", TIN | STABLE | {"metric": "convergence", "sparsity": 0.0}, 0.771, 0.109),
    ("table1", TIN | UNSTABLE | {"metric": "forgetting_events", "sparsity": 0.0}, 42.78, 14.37),
    ("table2", TIN | STABLE | ACCURACY | {"sparsity": 89.26}, 60.20, None),
    ("table2", TIN | LAST | ACCURACY | {"sparsity": 98.85}, 52.49, None),
    ("table3", TIN | UNSTABLE | ACCURACY | {"search_share": 0.25, "sparsity": 98.85}, 39.04, None),
    (
        "table4",
        TIN | STABLE | ACCURACY | {"sparse_momentum": 0.0, "sparse_batch_size": 256, "sparsity": 96.48},
        59.98,
        None,
    ),
    ("table5", TIN | STABLE | PROBE | {"block": 8, "sparsity": 89.26}, 5.53, 0.70),
    ("table5", TIN | PROBE | {"block": 4, "sparsity": 67.23, "baseline": "random_dense"}, 3.66, 0.82),
    ("table6", C10 | LAST | ACCURACY | {"target": "EuroSAT", "sparsity": 89.26}, 70.86, 1.43),
    (
        "table6",
        C10 | UNSTABLE | ACCURACY | {"target": "CIFAR-100", "sparsity": 0.0, "baseline": "frozen_dense"},
        19.15,
        0.22,
    ),
    ("table7", TIN | UNSTABLE | ACCURACY | RANDOM | {"sparsity": 89.26, "subset_percent": 10}, 8.36, 13.61),
    ("table8", C10 | STABLE | {"metric": "unforgettable_percent", "sparsity": 0.0}, 42.18, 1.18),
    ("table9", C100 | UNSTABLE | {"metric": "convergence", "sparsity": 0.0}, 0.814, 0.001),
    ("table10", VGG | STABLE | {"metric": "forgetting_events", "sparsity": 0.0}, 13.84, 7.77),
    ("table11", C10 | STABLE | ACCURACY | {"sparsity": 0.0}, 93.63, None),
    ("table11", C100 | LAST | ACCURACY | {"sparsity": 96.48}, 74.35, None),
    ("table12", VGG | UNSTABLE | ACCURACY | {"sparsity": 98.85}, 55.91, None),
    ("table14", C10 | LAST | ACCURACY | {"momentum": 0.95, "sparsity": 98.85}, 91.18, 0.19),
    (
        "table15",
        VGG | UNSTABLE | {"metric": "first_stable_epoch", "pretrained": None, "sparsity": 0.0},
        85,
        0.8,
    ),
    ("table16", C10 | UNSTABLE | ACCURACY | {"search_share": 0.1, "sparsity": 67.23}, 95.18, None),
    ("table17", C10 | STABLE | PROBE | {"block": 8, "sparsity": 89.26}, 82.87, 0.84),
    ("table18", C100 | STABLE | PROBE | {"block": 4, "sparsity": 96.48, "baseline": "permuted"}, 7.18, 0.34),
    ("table19", C100 | STABLE | ACCURACY | {"target": "CIFAR-10", "sparsity": 89.26}, 67.60, 0.89),
    ("table20", TIN | LAST | ACCURACY | {"target": "MNIST", "sparsity": 89.26}, 86.63, 5.18),
    ("table21", C10 | STABLE | ACCURACY | RANDOM | {"sparsity": 89.26, "subset_percent": 1}, 85.43, 0.58),
    (
        "table22",
        C100 | ACCURACY | RANDOM | {"sparsity": 0.0, "subset_percent": 10, "baseline": "dense"},
        34.34,
        0.48,
    ),
    (
        "table23",
        C10
        | STABLE
        | ACCURACY
        | {"sparsity": 89.26, "subset_percent": 10, "subset_criterion": "most_forgotten"},
        91.40,
        0.15,
    ),
]


@pytest.mark.parametrize(("table", "fields", "mean", "std"), BY_EYE)
def test_a_cell_stands_where_the_paper_prints_it(
    table: str, fields: dict[str, object], mean: float, std: float | None
) -> None:
    cell = printed_tables()[table][Key(**fields)]  # type: ignore[arg-type]
    assert (cell.mean, cell.std, cell.runs, cell.epochs) == (mean, std, 3, 200)


def test_every_table_has_as_many_cells_as_the_paper() -> None:
    sizes = [12, 40, 16, 32, 40, 44, 36, 12, 12, 12, 80, 40, 80, 30, 16, 32, 36, 36, 40, 40, 36, 36, 12]
    assert [len(printed_tables()[f"table{number}"]) for number in range(1, 24)] == sizes
    # No two tables print the same number, so that none needs its table to be told apart.
    assert len(printed_cells()) == sum(sizes) == 770


def test_starred_cells_are_those_with_failed_runs() -> None:
    starred = [cell.mean for cell in printed_cells().values() if cell.failed]
    assert starred == [35.95, 35.69, 15.09, 35.10, 35.95, 35.69, 15.09, 14.94]


def test_underlined_tickets_reach_their_own_dense_network() -> None:
    cells = printed_cells()
    underlined = [cell for cell in cells.values() if cell.winning]
    assert len(underlined) == 23
    for cell in underlined:
        assert cell.mean >= cells[replace(cell.key, sparsity=0.0)].mean


def test_the_spread_of_single_runs_is_not_taken_for_one() -> None:
    single = printed_tables()["table13"].values()
    assert {(cell.runs, cell.std) for cell in single} == {(1, None)}


def test_an_unmarked_failure_is_as_printed_and_named_in_its_note() -> None:
    [cell] = [cell for cell in printed_cells().values() if cell.std == 13.61]
    two_at_chance = [0.50, 0.50, 24.08]
    assert cell.mean == pytest.approx(statistics.mean(two_at_chance), abs=0.005)
    assert cell.std == pytest.approx(statistics.stdev(two_at_chance), abs=0.005)
    assert not cell.failed
    assert "two of three runs at chance" in cell.note


def test_first_stable_epochs_are_means_of_three_whole_numbers() -> None:
    def possible(cell: Cell) -> bool:
        near = range(int(cell.mean) - 6, int(cell.mean) + 8)
        return any(
            round(statistics.mean(epochs), 1) == cell.mean and round(statistics.pstdev(epochs), 1) == cell.std
            for epochs in itertools.combinations_with_replacement(near, 3)
        )

    cells = printed_tables()["table15"].values()
    assert len(cells) == 16
    assert all(possible(cell) for cell in cells)


def test_the_printed_numbers_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        printed_cells()[Key(metric="barrier")] = None  # type: ignore[index]
