import math
from dataclasses import replace
from typing import Any

import pytest
from tombola.experiments.cells import Place, measured, sparsity_after
from tombola.experiments.entries import Entry, filled, jobs_of
from tombola.experiments.panels import consecutive_panels, over_sparsity
from tombola.experiments.results import Read, Reading, one_barrier, run_accuracy

import tombola as tb
from tombola.experiments.paper.jobs import Work
from tombola.experiments.paper.printed import printed_anywhere, printed_cells
from tombola.experiments.paper.scales import scale_named
from tombola.experiments.paper.studies import study_named
from tombola.lab.job import Job, job
from tombola.measures.connectivity import Barrier

R18 = ("ResNet-18", "CIFAR-10")
STARTS = tuple(job(tb.initialize, "convnet", "digits", seed=seed) for seed in range(3))


class Known:
    """Results that are given rather than read from a store."""

    def __init__(self, known: dict[Job, Any]) -> None:
        self._known = {job_.name: value for job_, value in known.items()}

    def of(self, job_: Job) -> Any:
        return self._known.get(job_.name)


def entry(
    sparsity: float, *jobs: Job, read: Read = run_accuracy, momentum: float = 0.9, **keys: Any
) -> Entry:
    place = Place(
        study="fig13", metric="val_accuracy", network="ResNet-18", dataset="CIFAR-10",
        momentum=momentum, batch_size=100, pretrained=False, sparsity=sparsity, **keys,
    )  # fmt: skip
    return Entry(place, jobs, read)


def results(*accuracies: float, failed: int | None = None) -> Any:
    runs = [{"accuracy": each, "failed": index == failed} for index, each in enumerate(accuracies)]
    return Known(dict(zip(STARTS, runs, strict=False)))


def test_a_cell_takes_one_value_of_each_run() -> None:
    (found,) = filled([entry(0.0, *STARTS)], results(80.0, 90.0, 10.0, failed=2), epochs=7)
    assert found.finished
    assert found.cell is not None
    assert found.cell.values == (80.0, 90.0, 10.0)
    assert (found.cell.mean, found.cell.runs, found.cell.epochs, found.cell.starred) == (60.0, 3, 7, True)


def test_some_of_the_runs_make_no_cell() -> None:
    (found,) = filled([entry(0.0, *STARTS)], results(80.0, 90.0), epochs=7)
    assert (found.finished, found.cell) == (False, None)


def test_what_is_undefined_for_every_run_is_finished_without_a_cell() -> None:
    undefined = entry(0.0, *STARTS, read=lambda run: Reading((), note="left out"))
    (found,) = filled([undefined], results(1.0, 2.0, 3.0), epochs=7)
    assert (found.finished, found.cell) == (True, None)


def test_what_is_undefined_for_some_runs_is_left_out_and_said_so() -> None:
    def read(run: dict[str, Any]) -> Reading:
        return Reading((), note="one is left out") if run["accuracy"] < 5 else Reading((run["accuracy"],))

    (found,) = filled([entry(0.0, *STARTS, read=read)], results(1.0, 20.0, 30.0), epochs=7)
    assert found.cell is not None
    assert (found.cell.values, found.cell.note) == ((20.0, 30.0), "one is left out")


def test_a_ticket_is_underlined_against_the_dense_network_of_its_own_row() -> None:
    known = Known(
        {STARTS[0]: {"accuracy": 80.0, "failed": False}, STARTS[1]: {"accuracy": 79.0, "failed": False}}
    )
    entries = [
        entry(0.0, STARTS[1]), entry(67.23, STARTS[0]), entry(89.26, STARTS[1]),
        entry(0.0, STARTS[0], momentum=0.0), entry(67.23, STARTS[1], momentum=0.0),
        # Few-shot accuracies are no winning tickets.
        entry(67.23, STARTS[0], subset_percent=1, subset_criterion="random_class_balanced"),
    ]  # fmt: skip
    found = filled(entries, known, epochs=7)  # type: ignore[arg-type]
    underlined = [each.cell.underlined for each in found if each.cell is not None]
    assert underlined == [False, True, True, False, False, False]


def test_a_line_is_missing_until_all_of_its_points_are_there() -> None:
    entries = [entry(0.0, STARTS[0]), entry(67.23, STARTS[2])]
    entries.append(entry(0.0, STARTS[1], momentum=0.0))
    (panel,) = over_sparsity("accuracy")(filled(entries, results(80.0, 90.0), epochs=7), results())
    assert [(line.label, list(line.x), list(line.y)) for line in panel.lines] == [
        ("μ = 0.9, batch 100", [0.0], [80.0]),
        ("μ = 0.0, batch 100", [0.0], [90.0]),
    ]
    assert panel.missing == panel.begun == ["μ = 0.9, batch 100"]
    assert panel.absent == []
    assert panel.marks == [0.0, 67.23]


def test_what_the_paper_prints_stands_at_the_points_where_it_prints_something() -> None:
    entries = [entry(0.0, STARTS[0]), entry(36.0, STARTS[1]), entry(67.23, STARTS[2])]
    paper = measured(replace(entries[2].place, study=""), [94.99], epochs=200)
    found = filled(entries, results(80.0, 81.0, 82.0), epochs=7, printed={paper.place: paper})
    (panel,) = over_sparsity("accuracy")(found, results())
    assert panel.lines[0].printed == [None, None, 94.99]


def test_the_papers_numbers_are_found_under_the_places_of_its_figures() -> None:
    work = Work(scale_named("paper"))
    for figure, table in {"fig13": "table11", "fig18": "table17", "fig21": "table21"}.items():
        places = {replace(entry.place, study="") for entry in study_named(figure).entries(work)}
        tickets = {
            replace(place, study="")
            for place in printed_cells()
            if place.study == table and place.baseline is None
        }
        assert tickets & places
        missed = [place for place in tickets - places if (place.network, place.dataset) == R18]
        assert missed == [], figure
    of_figure = entry(67.23).place
    beside = printed_anywhere()[replace(of_figure, study="")]
    assert (beside.mean, beside.place.study) == (94.99, "table11")
    assert len(printed_anywhere()) == len(printed_cells())


def test_a_path_is_drawn_as_far_as_its_segments_are_finished() -> None:
    lines = {
        STARTS[n]: Barrier(alphas=(0.0, 0.5, 1.0), errors=(n, n + 5.0, n + 1.0), losses=(0.0,) * 3)
        for n in (0, 2)
    }
    entries = [
        Entry(
            Place(
                study="fig10", metric="barrier_to_next", momentum=0.9, batch_size=100, pretrained=False,
                sparsity=sparsity_after(n),
            ),
            (STARTS[n],),
            one_barrier,
        )
        for n in range(3)
    ]  # fmt: skip
    known = Known(lines)
    _, path = consecutive_panels(filled(entries, known, epochs=7), known)  # type: ignore[arg-type]
    (line,) = path.lines
    assert list(line.x) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [None if math.isnan(y) else y for y in line.y] == [0.0, 5.0, 1.0, None, 2.0, 7.0, 3.0]
    assert path.begun == [line.label]


@pytest.mark.parametrize("count", [1, 3])
def test_a_spread_needs_several_runs(count: int) -> None:
    entries = [entry(0.0, *STARTS[:count])]
    (panel,) = over_sparsity("accuracy")(filled(entries, results(70.0, 80.0, 90.0), epochs=7), results())
    assert panel.lines[0].spread == (None if count == 1 else [10.0])


def test_a_job_of_two_entries_is_asked_for_once() -> None:
    assert jobs_of([entry(0.0, *STARTS[:2]), entry(67.23, *STARTS[1:])]) == list(STARTS)
