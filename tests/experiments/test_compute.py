"""Experiments run on stand-in images, and what they show against the files of the store."""

import csv
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.errors import DataError
from tombola.experiments import compute
from tombola.experiments.bound import Bound
from tombola.experiments.claims.all_claims import claim_named, judge_all
from tombola.experiments.claims.claim import judge
from tombola.experiments.compute import collect, done, run_experiments, unloadable
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import Scale, overridden, scale_named
from tombola.experiments.paper.settings import R34_TIN, Configuration
from tombola.experiments.paper.studies import studies_named, study_named
from tombola.experiments.plan import plan
from tombola.lab.driver import Outcome
from tombola.lab.stable import first_stable_epochs
from tombola.table.key import Key
from tombola.table.number import Cell, longest
from tombola.views.exhibit import Exhibit

NAMES = (
    "table1", "table2", "table5", "table7", "table23", "fig1", "fig2", "fig6", "fig7", "fig20",
    "ticket-convergence",
)  # fmt: skip
SCALE = overridden(
    scale_named("tiny"), configs=["0.0/256", "0.9/100"], rounds=10, columns=(5, 10), epochs=2, copies=3
)
TIN = "stand-in-tinyimagenet"


def only_tin(scale: Scale) -> Scale:
    """The scale with the stand-in of TinyImageNet for every pair, so that few trainings do."""
    subject = scale.subjects[R34_TIN]
    return replace(scale, subjects=dict.fromkeys(scale.subjects, subject))


@pytest.fixture(scope="module")
def work() -> PaperJobs:
    return PaperJobs(only_tin(SCALE))


@pytest.fixture(scope="module")
def experiments(work: PaperJobs) -> list[Bound]:
    return [study.at(work) for study in studies_named(NAMES)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    return tb.Lab(tmp_path_factory.mktemp("studies") / "store")


def exhibits_of(lab: tb.Lab, experiments: list[Bound]) -> dict[str, Exhibit]:
    results = lab.results()
    return {exhibit.name: exhibit for bound in experiments for exhibit in bound.exhibits(results)}


@pytest.fixture(scope="module")
def before(experiments: list[Bound], lab: tb.Lab) -> dict[str, Exhibit]:
    """What is shown while nothing is computed."""
    assert {number.state for number in collect(lab, experiments)} == {"missing"}
    return exhibits_of(lab, experiments)


@pytest.fixture(scope="module")
def ran(experiments: list[Bound], lab: tb.Lab, before: dict[str, Exhibit]) -> compute.Ran:
    ran = run_experiments(lab, experiments)
    ran.outcome.raise_failures()
    return ran


@pytest.fixture(scope="module")
def shown(experiments: list[Bound], lab: tb.Lab, ran: compute.Ran) -> dict[str, Exhibit]:
    return exhibits_of(lab, experiments)


@pytest.fixture(scope="module")
def cells(experiments: list[Bound], lab: tb.Lab, ran: compute.Ran) -> dict[Key, Cell]:
    return longest(collect(lab, experiments).cells())


def stored(lab: tb.Lab, function: str) -> list[dict[str, Any]]:
    """All finished jobs of a function as their files say: call and result."""
    finished = []
    for path in _descriptions(lab):
        call = json.loads(path.read_text())
        if call["function"] == function:
            result = json.loads(path.with_name("result.json").read_text())
            finished.append({"call": call["arguments"], "result": result, "name": path.parent.name})
    return finished


def _descriptions(lab: tb.Lab) -> Iterator[Path]:
    return lab.store.root.glob("jobs/*/*/job.json")


def recipe_of(entry: dict[str, Any]) -> tuple[float, int]:
    recipe = entry["call"]["recipe"]
    return recipe.get("momentum", 0.9), recipe.get("batch_size", 256)


def cell_at(cells: Mapping[Key, Cell], **fields: Any) -> Cell:
    (cell,) = (
        cell for key, cell in cells.items() if all(key.get(name) == value for name, value in fields.items())
    )
    return cell


def test_what_is_not_computed_is_a_gap(before: dict[str, Exhibit]) -> None:
    for exhibit in before.values():
        assert exhibit.entries
        assert exhibit.cells == {}
        if exhibit.picture:
            assert all(panel.lines == [] for panel in exhibit.picture.panels)
            assert all(panel.missing for panel in exhibit.picture.panels)
    assert {verdict.status for verdict in judge_all({})} == {"not computable yet"}


def test_a_finished_study_has_a_cell_for_every_key(shown: dict[str, Exhibit]) -> None:
    for exhibit in shown.values():
        assert all(entry.finished for entry in exhibit.entries)
        gaps = [entry.key for entry in exhibit.entries if entry.cell is None]
        # A run that learned nothing has no convergence.
        assert [key for key in gaps if key.metric != "convergence"] == []


def test_a_finished_study_is_not_run_again(experiments: list[Bound], lab: tb.Lab, ran: compute.Ran) -> None:
    again = run_experiments(lab, experiments)
    assert again.outcome.computed == []
    assert ran.skipped == again.skipped == {}
    status = done(next(bound for bound in experiments if bound.name == "table2"), lab)
    assert (status.jobs, status.finished) == (4 * 2 * 3, 24)
    assert str(status).endswith("24 of 24 jobs done")


def test_the_table_of_all_has_the_cells_of_each(shown: dict[str, Exhibit], cells: dict[Key, Cell]) -> None:
    assert cells.keys() == {key for exhibit in shown.values() for key in exhibit.cells}
    for exhibit in shown.values():
        for key, cell in exhibit.cells.items():
            # Whether a ticket wins is seen where its dense network stands beside it.
            assert replace(cell, winning=False, clearly=None) == replace(
                cells[key], winning=False, clearly=None
            )


def test_accuracies_are_those_in_the_store(lab: tb.Lab, shown: dict[str, Exhibit]) -> None:
    accuracies = [
        entry["result"]["accuracy"]
        for entry in stored(lab, "train")
        # Of the tenth round, on all images, from the initialisation: the first row is epoch 0.
        if entry["result"]["round"] == 10
        and entry["call"]["data"] == {"data": TIN}
        and recipe_of(entry) == (0.9, 100)
        and (lab.store.folder(entry["name"]) / "history.csv").read_text().splitlines()[1].startswith("0,")
    ]
    cell = cell_at(shown["table2"].cells, momentum=0.9, pretrained=False, sparsity=89.26)
    assert sorted(cell.values) == sorted(accuracies)
    assert (cell.runs, cell.epochs) == (2, 2)
    assert cell.mean == pytest.approx(statistics.mean(accuracies))
    assert cell.std == pytest.approx(statistics.stdev(accuracies))


def test_tickets_as_good_as_their_dense_network_win(shown: dict[str, Exhibit]) -> None:
    table = shown["table2"].cells
    tickets = [cell for key, cell in table.items() if key.sparsity]
    assert len(tickets) == 8
    for cell in tickets:
        dense = table[replace(cell.key, sparsity=0.0)]
        assert cell.winning == (cell.mean >= dense.mean and not cell.failed and not dense.failed)


def test_barriers_are_eq_3_on_the_stored_errors(lab: tb.Lab, cells: dict[Key, Cell]) -> None:
    by_hand = set()
    for entry in stored(lab, "instability"):
        errors = [line["errors"] for line in entry["result"]["value"]["lines"]]
        by_hand.add(tuple(max(line) - (line[0] + line[-1]) / 2 for line in errors))
    heights = {cell.values for key, cell in cells.items() if key.metric == "barrier"}
    assert heights == by_hand
    assert {len(pairs) for pairs in by_hand} == {3}  # pairs of three copies


def test_probes_stand_at_the_middle_and_the_last_block(lab: tb.Lab, cells: dict[Key, Cell]) -> None:
    accuracies = [entry["result"]["value"]["accuracy"] for entry in stored(lab, "probe")]
    for block, index in ((4, 1), (8, 3)):
        probed = {value for key, cell in cells.items() if key.block == block for value in cell.values}
        assert probed == {accuracy[index] for accuracy in accuracies}


def test_the_dense_row_on_little_data_is_the_stable_configuration(
    lab: tb.Lab, shown: dict[str, Exhibit]
) -> None:
    cell = cell_at(shown["table7"].cells, baseline="dense", subset_percent=10)
    assert (cell.key.momentum, cell.key.sparsity) == (None, 0.0)
    accuracies = [
        entry["result"]["accuracy"]
        for entry in stored(lab, "train")
        if entry["call"]["data"].get("call", {}).get("function") == "subset"
        and entry["result"]["round"] == 0
        and recipe_of(entry) == (0.0, 256)
        and "call" not in entry["call"]["ticket"]
        and entry["call"]["data"]["call"]["arguments"]["share"] == 0.1
    ]
    assert sorted(cell.values) == sorted(accuracies)


def test_claims_can_be_judged_on_what_was_run_but_stand_ins_say_nothing_of_the_paper(
    cells: dict[Key, Cell],
) -> None:
    verdict = judge(claim_named("C56"), cells)
    assert verdict.status in ("holds", "partly", "fails")
    assert verdict.epochs == (2,)
    assert {cell.stand_in for cell in cells.values()} == {f"convnet on {TIN}"}
    assert {verdict.status for verdict in judge_all(cells)} == {"not computable yet"}


def test_stand_ins_bear_their_own_names_and_have_no_printed_numbers_beside_them(
    shown: dict[str, Exhibit],
) -> None:
    assert shown["table2"].title == f"Accuracy of tickets by sparsity, convnet on {TIN}"
    for exhibit in shown.values():
        assert exhibit.printed == {}
        assert all(entry.printed is None for entry in exhibit.entries)


def test_a_picture_of_instability_has_a_path_and_a_height_for_each(shown: dict[str, Exhibit]) -> None:
    picture = shown["fig1"].picture
    assert picture is not None
    paths, heights = picture.panels
    assert [line.label for line in paths.lines] == [
        "μ = 0.0, batch 256", "μ = 0.9, batch 100",
        "μ = 0.0, batch 256, late rewinding", "μ = 0.9, batch 100, late rewinding",
    ]  # fmt: skip
    assert paths.lines[0].x == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [line.label for line in heights.lines] == [line.label for line in paths.lines]
    assert [line.pretrained for line in heights.lines] == [False, False, True, True]
    assert {len(line.y) for line in heights.lines} == {1}
    assert picture.note == "a small network on stand-in images: proves the machinery, not the science"
    assert "Scale tiny, rounds 10" in picture.caption


def test_a_picture_over_sparsity_has_a_point_for_every_round(shown: dict[str, Exhibit]) -> None:
    picture = shown["fig2"].picture
    assert picture is not None
    assert [panel.title for panel in picture.panels] == [
        "without late rewinding", "with late rewinding",
        "path without late rewinding", "path with late rewinding",
    ]  # fmt: skip
    line = picture.panels[0].lines[0]
    assert not any(line.printed)  # the paper's numbers are not of stand-ins
    assert [round(x) for x in line.x] == [0, 20, 36, 49, 59, 67, 74, 79, 83, 87]
    assert list(picture.panels[0].marks) == list(line.x)
    assert picture.panels[0].missing == []
    # The path goes through every trained ticket: ten lines of three points, each from round to round.
    path = picture.panels[2].lines[0]
    assert list(path.x) == [n + alpha for n in range(10) for alpha in (0.0, 0.5, 1.0)]
    assert path.y[2] == path.y[3]
    assert list(picture.panels[2].marks) == list(range(11))


def test_forgetting_is_drawn_by_epoch_and_image(lab: tb.Lab, shown: dict[str, Exhibit]) -> None:
    picture = shown["fig6"].picture
    assert picture is not None
    assert [panel.title for panel in picture.panels] == [f"({letter}) convnet on {TIN}" for letter in "abcd"]
    histories = []
    for entry in stored(lab, "train"):
        with (lab.store.folder(entry["name"]) / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        dense = entry["result"]["round"] == 0 and entry["call"]["data"] == {"data": TIN}
        own = entry["call"].get("noise", 0) in (0, 1) and recipe_of(entry) == (0.9, 100)
        if dense and own and rows[0]["epoch"] == "0":
            histories.append([int(row["forgetting_events"]) / 360 for row in rows[1:]])
    # Runs 0 and 1, and the copy of run 0 under noise 1, which is of one start and drawn nowhere.
    assert len(histories) == 3
    line = picture.panels[3].lines[1]
    assert (line.momentum, line.batch_size, list(line.x)) == (0.9, 100, [1, 2])
    pairs = itertools.combinations(histories, 2)
    assert any(
        list(line.y) == pytest.approx([statistics.mean(events) for events in zip(*pair, strict=True)])
        for pair in pairs
    )


def test_removal_is_drawn_from_the_full_set_on(shown: dict[str, Exhibit]) -> None:
    picture = shown["fig7"].picture
    assert picture is not None
    paths, heights, accuracies = picture.panels
    assert [line.label for line in paths.lines] == [
        "all images",
        *(f"{which} {share}% removed" for which in ("easiest", "hardest") for share in (10, 20, 30)),
    ]
    for panel in (heights, accuracies):
        assert [line.label for line in panel.lines] == ["easiest removed", "hardest removed"]
        assert all(list(line.x) == [0, 10, 20, 30] for line in panel.lines)
        assert panel.lines[0].y[0] == panel.lines[1].y[0]
    kept = cell_at(
        shown["fig7"].cells, metric="val_accuracy", subset_criterion="hardest_removed", subset_percent=70
    )
    assert accuracies.lines[1].y[3] == kept.mean
    assert kept.runs == 3


def test_probes_are_drawn_by_half_and_block(shown: dict[str, Exhibit]) -> None:
    picture = shown["fig20"].picture
    assert picture is not None
    assert [panel.title for panel in picture.panels] == [
        "(a) without late rewinding, middle block", "(b) with late rewinding, middle block",
        "(a) without late rewinding, last block", "(b) with late rewinding, last block",
    ]  # fmt: skip
    assert [list(line.x) for line in picture.panels[0].lines] == [[0.0, 67.23, 89.26]] * 2
    # Before any pruning all configurations without late rewinding have one random dense network.
    first, second = picture.panels[2].lines
    assert first.y[0] == second.y[0]


def test_images_chosen_by_forgetting_are_trained_on_by_three_networks(
    lab: tb.Lab, shown: dict[str, Exhibit]
) -> None:
    chosen = [
        entry
        for entry in stored(lab, "train")
        if entry["call"]["data"].get("call", {}).get("function") == "forgotten-subset"
    ]
    assert len(chosen) == 3 * 4 * 2  # networks, subsets, runs
    functions = {path.parent.name: json.loads(path.read_text())["function"] for path in _descriptions(lab)}

    def kind(ticket: dict[str, Any]) -> str:
        return str(ticket["call"]["function"] if "call" in ticket else functions[ticket["job"]])

    assert {kind(entry["call"]["ticket"]) for entry in chosen} == {"initialize", "permute", "prune"}
    values = [value for cell in shown["table23"].cells.values() for value in cell.values]
    assert sorted(values) == sorted(entry["result"]["accuracy"] for entry in chosen)


def test_the_first_stable_epoch_is_that_of_the_librarys_own_search(tmp_path: Path) -> None:
    work = PaperJobs(only_tin(overridden(SCALE, configs=["0.9/100"], epochs=4, seeds=1)))
    lab = tb.Lab(tmp_path / "store")
    study = study_named("table15").at(work)
    assert done(study, lab).over == 0
    run_experiments(lab, [study]).outcome.raise_failures()
    (exhibit,) = study.exhibits(lab.results())
    before = set(lab.store.names())
    configuration = Configuration(0.9, 100)
    (stable,) = first_stable_epochs(
        lab, [work.start(R34_TIN, 0)], work.subject(R34_TIN).data, work.recipe(R34_TIN, configuration),
        noise=0, noises=(0, 1, 2), neighbours=0, points=5,
    )  # fmt: skip
    assert set(lab.store.names()) == before
    # All four pairs stand for one here, and search the same.
    assert [cell.values for cell in exhibit.cells.values()] == [(float(stable.epoch),)] * 4
    status = done(study, lab)
    assert (status.searches, status.over) == (4, 4)
    # Of a search that is over the plan knows what it asked, whatever the paper found.
    cost = plan([study], store=lab.store)
    assert (cost.epochs_left, cost.finished) == (0.0, cost.jobs)
    assert cost.cheapest == cost.dearest == cost.epochs


def test_data_that_cannot_be_loaded_stops_the_studies_that_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = PaperJobs(overridden(scale_named("tiny"), epochs=2, seeds=1))
    lab = tb.Lab(tmp_path / "store")
    experiments = [study.at(work) for study in studies_named(["table1", "table8"])]
    real = compute.load_data

    def load(source: Any) -> tb.Data:
        if source == "digits":
            raise DataError("no digits here")
        return real(source)

    monkeypatch.setattr(compute, "load_data", load)
    assert unloadable(lab, experiments) == {"table8": "no digits here"}
    with pytest.raises(DataError, match="table8 cannot be run: no digits here"):
        run_experiments(lab, experiments)
    assert list(lab.store.names()) == []
    ran = run_experiments(lab, experiments, keep_going=True)
    assert ran.skipped == {"table8": "no digits here"}
    shown = exhibits_of(lab, experiments)
    # Of one run: no sum over three.
    assert {name: len(exhibit.cells) for name, exhibit in shown.items()} == {"table1": 4 * 4, "table8": 0}
    assert unloadable(lab, experiments[:1]) == {}


def test_a_search_whose_jobs_fail_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tb.Lab(tmp_path / "store")
    calls = []

    def fail(jobs: Any, *, progress: Any = None, recompute: Any = ()) -> Outcome:
        calls.append(len(jobs))
        return Outcome(failed={job.name: "out of memory" for job in jobs})

    monkeypatch.setattr(lab, "run", fail)
    study = study_named("table15").at(PaperJobs(only_tin(overridden(SCALE, seeds=1))))
    ran = run_experiments(lab, [study])
    assert len(calls) == 1
    assert set(ran.outcome.failed.values()) == {"out of memory"}
