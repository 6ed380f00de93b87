import math

import pytest
from tombola.experiments.cells import Cell, Place, by_place, measured, sparsity_after

from tombola.errors import StudyError

PLACE = Place(study="table2", metric="val_accuracy", network="ResNet-34", momentum=0.9, sparsity=67.23)


def test_a_measured_cell_holds_mean_and_sample_spread_of_its_runs() -> None:
    cell = measured(PLACE, [90.0, 92.0, 97.0], epochs=20)
    assert cell.mean == 93.0
    # Deviations -3, -1 and 4: squares sum to 26, over n - 1 = 2.
    assert cell.std == pytest.approx(13**0.5)
    assert (cell.runs, cell.epochs, cell.values) == (3, 20, (90.0, 92.0, 97.0))


def test_a_single_run_has_no_spread() -> None:
    cell = measured(PLACE, [90.0], epochs=20)
    assert (cell.mean, cell.std, cell.runs) == (90.0, None, 1)


def test_a_cell_without_runs_is_refused() -> None:
    with pytest.raises(StudyError, match=r"table2 .* has no runs; a cell needs at least one value"):
        measured(PLACE, [], epochs=20)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cell_with_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(StudyError, match=rf"holds {value}; it must be finite: leave an undefined run out"):
        measured(PLACE, [90.0, value], epochs=20)
    with pytest.raises(StudyError, match="it must be finite"):
        Cell(place=PLACE, mean=value, std=None, runs=1, epochs=20)


def test_two_cells_at_one_place_are_refused() -> None:
    cells = [measured(PLACE, [value], epochs=20) for value in (1.0, 2.0)]
    with pytest.raises(StudyError, match=r"two cells stand at table2 .*; each place holds one"):
        by_place(cells)
    assert by_place(cells[:1]) == {PLACE: cells[0]}


def test_a_place_is_named_by_the_keys_that_apply() -> None:
    assert str(PLACE) == "table2 val_accuracy ResNet-34 momentum=0.9 sparsity=67.23"


def test_sparsities_are_those_the_paper_heads_its_columns_with() -> None:
    # 73.79 is the text's, 99.62 that of 25 prunings.
    found = [sparsity_after(prunings) for prunings in (0, 5, 6, 10, 15, 20, 25)]
    assert found == [0.0, 67.23, 73.79, 89.26, 96.48, 98.85, 99.62]
    assert sparsity_after(1, fraction=0.5) == 50.0
