"""From jobs and their results to numbers, gaps included, and to the cells of a table."""

from typing import Any

import pytest

import tombola as tb
from tombola.experiments.paper.readers import barrier_heights, run_accuracy, summed_events
from tombola.lab.item import Measured, Read, Reading, jobs_of, wanted_of
from tombola.lab.job import Job, job
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.measures.learning import SummedForgetting
from tombola.table.key import Key
from tombola.table.number import Curve, Entry, Number, entries_of, measured
from tombola.table.table import Table

STARTS = tuple(job(tb.initialize, "convnet", "digits", seed=seed) for seed in range(3))


class Finished:
    """Results held in memory rather than read from a store."""

    def __init__(self, results: dict[Job, Any]) -> None:
        self._results = {start.name: result for start, result in results.items()}

    def of(self, job_: Job) -> Any:
        return self._results.get(job_.name)

    def has(self, job_: Job) -> bool:
        return job_.name in self._results


def item(
    sparsity: float, *jobs: Job, read: Read = run_accuracy, momentum: float = 0.9, **fields: Any
) -> Measured:
    key = Key(
        **{
            "metric": "val_accuracy", "network": "ResNet-18", "dataset": "CIFAR-10", "momentum": momentum,
            "batch_size": 100, "pretrained": False, "sparsity": sparsity, **fields,
        }
    )  # fmt: skip
    return Measured(key, jobs, read, epochs=7)


def results(*accuracies: float, failed: int | None = None) -> Any:
    runs = [{"accuracy": accuracy, "failed": number == failed} for number, accuracy in enumerate(accuracies)]
    return Finished(dict(zip(STARTS, runs, strict=False)))


def filled(items: list[Measured], results: Any) -> list[Entry]:
    return entries_of((one.key, one.numbers(results)) for one in items)


def test_a_cell_takes_one_value_of_each_run() -> None:
    (entry,) = filled([item(0.0, *STARTS)], results(80.0, 90.0, 10.0, failed=2))
    assert entry.finished
    assert entry.failed
    assert entry.cell is not None
    assert (entry.cell.values, entry.cell.seeds) == ((80.0, 90.0, 10.0), (0, 1, 2))
    assert (entry.cell.mean, entry.cell.runs, entry.cell.epochs, entry.cell.failed) == (60.0, 3, 7, True)


def test_some_of_the_runs_make_no_cell() -> None:
    (entry,) = filled([item(0.0, *STARTS)], results(80.0, 90.0))
    assert (entry.finished, entry.cell) == (False, None)
    assert [(number.state, number.value, number.seed) for number in entry.numbers] == [
        ("measured", 80.0, 0), ("measured", 90.0, 1), ("missing", None, 2),
    ]  # fmt: skip
    assert [number.jobs for number in entry.numbers] == [(start.name,) for start in STARTS]


def test_what_is_undefined_for_every_run_is_finished_without_a_cell() -> None:
    undefined = item(0.0, *STARTS, read=lambda run: Reading((), note="left out"))
    (entry,) = filled([undefined], results(1.0, 2.0, 3.0))
    assert (entry.finished, entry.cell) == (True, None)
    assert {(number.state, number.note) for number in entry.numbers} == {("undefined", "left out")}


def test_what_is_undefined_for_some_runs_is_left_out_and_said_so() -> None:
    def read(run: dict[str, Any]) -> Reading:
        return Reading((), note="one is left out") if run["accuracy"] < 5 else Reading((run["accuracy"],))

    (entry,) = filled([item(0.0, *STARTS, read=read)], results(1.0, 20.0, 30.0))
    assert entry.cell is not None
    assert (entry.cell.values, entry.cell.note) == ((20.0, 30.0), "one is left out")
    assert (entry.cell.runs, entry.cell.seeds, entry.cell.undefined) == (2, (1, 2), 1)


def test_a_ticket_wins_against_the_dense_network_of_its_own_row() -> None:
    runs = Finished(
        {STARTS[0]: {"accuracy": 80.0, "failed": False}, STARTS[1]: {"accuracy": 79.0, "failed": False}}
    )
    items = [
        item(0.0, STARTS[1]), item(67.23, STARTS[0]), item(89.26, STARTS[1]),
        item(0.0, STARTS[0], momentum=0.0), item(67.23, STARTS[1], momentum=0.0),
        # Few-shot accuracies are no winning tickets.
        item(67.23, STARTS[0], subset_percent=1, subset_criterion="random_class_balanced"),
    ]  # fmt: skip
    winning = [entry.cell.winning for entry in filled(items, runs) if entry.cell is not None]
    assert winning == [False, True, True, False, False, False]


@pytest.mark.parametrize("failed", [0, 1])
def test_nothing_wins_where_a_run_of_the_ticket_or_of_its_dense_network_failed(failed: int) -> None:
    items = [item(0.0, STARTS[0]), item(67.23, STARTS[1])]
    assert [e.cell.winning for e in filled(items, results(10.0, 90.0)) if e.cell] == [False, True]
    entries = filled(items, results(10.0, 90.0, failed=failed))
    assert [e.cell.winning for e in entries if e.cell] == [False, False]
    assert [e.cell.failed for e in entries if e.cell] == [failed == 0, failed == 1]


def test_an_instability_gives_a_number_a_pair_with_the_line_it_sums_up() -> None:
    lines = tuple(Barrier((0.0, 0.5, 1.0), (10.0, height, 20.0), (0.0,) * 3) for height in (40.0, 60.0, 20.0))
    pairs = item(0.0, STARTS[0], read=barrier_heights, metric="barrier", over="pairs")
    numbers = pairs.numbers(Finished({STARTS[0]: Instability(lines, (0, 1, 2), failed=1)}))  # type: ignore[arg-type]
    # The largest error minus the mean of both ends, 15.
    assert [(number.pair, number.seed, number.value) for number in numbers] == [
        (0, None, 25.0), (1, None, 45.0), (2, None, 5.0),
    ]  # fmt: skip
    assert numbers[1].curve == Curve((0.0, 0.5, 1.0), (10.0, 60.0, 20.0))
    assert all(number.failed for number in numbers)


def test_noise_copies_are_told_apart_in_a_table() -> None:
    copies = item(0.0, *STARTS, over="copies")
    for accuracies, state in (((80.0, 90.0, 10.0), "measured"), ((80.0, 90.0), "missing")):
        table = Table(copies.numbers(results(*accuracies)))
        assert [(number.pair, number.seed) for number in table] == [(0, None), (1, None), (2, None)]
        assert [number.value for number in table][: len(accuracies)] == list(accuracies)
        assert table.numbers[2].state == state


def test_a_gap_for_all_pairs_gives_way_to_pairs_and_one_of_a_single_pair_does_not() -> None:
    barrier = item(0.0, metric="barrier", over="pairs").key
    pair = Number(key=barrier, value=5.0, epochs=7, pair=0)
    for_all = Number(key=barrier, value=None, state="missing", epochs=7)
    of_the_next_run = Number(key=barrier, value=None, state="missing", epochs=7, seed=1, pair=0)
    assert Table([for_all, pair]).numbers == (pair,)
    assert Table([pair, of_the_next_run]).numbers == (pair, of_the_next_run)


def test_a_number_of_several_runs_keeps_how_many_and_their_spread() -> None:
    summed = item(0.0, STARTS[0], read=summed_events, metric="summed_forgetting_events")
    forgetting = SummedForgetting(3.45, 4.56, images=5000, never_learned=2, failed=False)
    (entry,) = filled([summed], Finished({STARTS[0]: forgetting}))
    assert entry.cell is not None
    assert (entry.cell.mean, entry.cell.std, entry.cell.runs) == (3.45, 4.56, 3)
    assert entry.cell.values == (3.45,)


def test_a_job_of_two_items_is_asked_for_once() -> None:
    assert jobs_of([item(0.0, *STARTS[:2]), item(67.23, *STARTS[1:])]) == list(STARTS)


def test_what_is_finished_is_not_wanted_again() -> None:
    items = [item(0.0, *STARTS[:2]), item(67.23, *STARTS[1:])]
    assert wanted_of(items, results(80.0)) == list(STARTS[1:])
    assert wanted_of(items, results(80.0, 81.0, 82.0)) == []
    assert list(items[0].done(results(80.0))) == [STARTS[0]]
    assert list(items[0].planned(results(80.0), "dearest")) == list(STARTS[:2])
    assert items[0].searches(None) == (0, 0)


def test_a_stand_in_is_said_with_every_number_and_cell() -> None:
    tiny = Measured(item(0.0).key, STARTS[:2], run_accuracy, epochs=7, stand_in="convnet on digits")
    (entry,) = filled([tiny], results(80.0, 81.0))
    assert {number.stand_in for number in entry.numbers} == {"convnet on digits"}
    assert entry.cell is not None
    assert entry.cell.stand_in == "convnet on digits"


def test_what_the_paper_prints_stands_in_the_entry_of_its_key() -> None:
    items = [item(0.0, STARTS[0]), item(67.23, STARTS[1])]
    paper = measured(items[1].key, [94.99], epochs=200)
    groups = [(one.key, one.numbers(results(80.0, 81.0))) for one in items]
    assert [entry.printed for entry in entries_of(groups, {paper.key: paper})] == [None, paper]
