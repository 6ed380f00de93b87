"""What a report is made of: numbers, gaps, what is missing, and what the numbers were made with."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import StoreError
from tombola.experiments.bound import Bound
from tombola.experiments.compute import run_experiments
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.studies import STUDIES, study_named
from tombola.experiments.plan import plan
from tombola.experiments.study import bind
from tombola.lab.store import Store, read_json
from tombola.report.gather import Report, gather
from tombola.table.key import Key
from tombola.views.exhibit import Exhibit
from tombola.views.origin import Origin


@pytest.fixture(scope="module")
def work() -> PaperJobs:
    scale = scale_named("tiny")
    return PaperJobs(overridden(scale, epochs=2, seeds=1, configs=["0.0/256"], rounds=5, columns=(5,)))


def bound(work: PaperJobs, *names: str) -> list[Bound]:
    return [study_named(name).at(work) for name in names]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, work: PaperJobs) -> tb.Lab:
    """With all of fig1, and so the dense networks of table2."""
    lab = tb.Lab(tmp_path_factory.mktemp("gather") / "store")
    run_experiments(lab, bound(work, "fig1")).outcome.raise_failures()
    return lab


def exhibit_of(report: Report, name: str) -> Exhibit:
    (exhibit,) = [exhibit for exhibit in report.exhibits if exhibit.name == name]
    return exhibit


def keys_of(experiments: Iterable[Bound]) -> set[Key]:
    return {item.key for experiment in experiments for item in experiment.items}


def test_what_is_finished_has_a_number_and_the_rest_a_place(lab: tb.Lab, work: PaperJobs) -> None:
    report = gather(lab, bound(work, "table2", "fig1", "table15"), scale=str(work.scale), note="made up")
    figure = exhibit_of(report, "fig1")
    assert figure.entries
    assert all(entry.cell is not None for entry in figure.entries)
    assert {entry.key for entry in figure.entries} <= set(report.cells)
    table = exhibit_of(report, "table2")
    assert sorted(key.sparsity or 0.0 for key in table.cells) == [0.0, 0.0]
    assert len(table.entries) == 4
    assert [exhibit.name for exhibit in report.exhibits if exhibit.picture] == ["fig1"]
    assert (report.note, report.of_paper) == ("made up", True)
    assert report.provenance["scale"] == str(work.scale)


def test_the_table_has_every_number_with_its_gaps(lab: tb.Lab, work: PaperJobs) -> None:
    experiments = bound(work, "table2", "fig1", "table15")
    table = gather(lab, experiments).table
    assert {number.key for number in table} == keys_of(experiments)
    assert {number.state for number in table} == {"measured", "missing"}
    missing = {number.key.metric for number in table if number.state == "missing"}
    assert missing == {"val_accuracy", "first_stable_epoch"}


def test_exhibits_bear_the_names_of_stand_ins(lab: tb.Lab, work: PaperJobs) -> None:
    figure = exhibit_of(gather(lab, bound(work, "fig1")), "fig1")
    assert "TinyImageNet" not in figure.full_title
    assert work.scale.names["TinyImageNet"] in figure.full_title
    assert figure.printed == {}  # the paper's numbers say nothing beside those of stand-ins


def test_what_is_missing_has_the_epochs_that_are_left(lab: tb.Lab, work: PaperJobs) -> None:
    experiments = bound(work, "table2", "fig1", "table15")
    report = gather(lab, experiments)
    missing = {name: epochs for name, _, epochs in report.missing}
    # Of each chain five trainings, of two epochs from the initialisation and of one from the first epoch.
    assert missing["table2"] == 5 * 2 + 5 * 1
    assert "fig1" not in missing
    planned = plan(experiments, store=lab.store)
    left = {alone.name: alone.epochs_left for alone in planned.experiments}
    assert {name: round(epochs) for name, epochs in left.items() if name in missing} == missing
    assert report.missing_together == (planned.jobs - planned.finished, round(planned.epochs_left))
    # Five trainings of each chain; masks are no jobs of their own.
    assert {name: jobs for name, jobs, _ in report.missing}["table2"] == 2 * 5


def test_studies_beside_give_claims_their_cells_and_are_not_shown(lab: tb.Lab, work: PaperJobs) -> None:
    shown, beside = bound(work, "table2"), bound(work, "fig1")
    report = gather(lab, shown, beside=beside)
    assert [exhibit.name for exhibit in report.exhibits] == ["table2"]
    assert {number.key for number in report.table} == keys_of([*shown, *beside])
    assert keys_of(beside) <= set(report.cells)
    assert [name for name, *_ in report.missing] == ["table2"]
    assert set(report.exhibits[0].origins) == keys_of(shown)


def test_a_study_that_the_scale_does_not_fit_is_shown_with_the_cause(lab: tb.Lab, work: PaperJobs) -> None:
    left_out = study_named("table14").left_out("no such configurations")
    report = gather(lab, [left_out, *bound(work, "fig1")])
    assert [exhibit.name for exhibit in report.exhibits] == ["table14", "fig1"]
    assert report.exhibits[0] == left_out
    assert "table14" not in [name for name, *_ in report.missing]


def origins_of(report: Report) -> dict[Key, set[Origin]]:
    return {key: set(origins) for exhibit in report.exhibits for key, origins in exhibit.origins.items()}


def test_origins_are_those_of_the_runs_behind_a_number(lab: tb.Lab, work: PaperJobs) -> None:
    (figure,) = bound(work, "fig1")
    report = gather(lab, [figure])
    expected = Origin("cpu", "float32", f"tombola {tb.__version__}, torch {report.provenance['torch']}")
    assert origins_of(report) == {key: {expected} for key in keys_of([figure])}
    # One of the runs behind each barrier, as if another version had made it.
    job = figure.items[0].jobs[0]
    run = next(parent for parent in job.needs if parent.declaration.name == "train")
    file = lab.store.folder(run.name) / "provenance.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"torch": "1.0"}))
    try:
        mixed = origins_of(gather(lab, [figure]))
    finally:
        file.write_text(before)
    other = Origin("cpu", "float32", f"tombola {tb.__version__}, torch 1.0")
    assert {origin for origins in mixed.values() for origin in origins} == {expected, other}


def test_searches_have_the_origins_of_the_runs_they_rest_on(work: PaperJobs, lab: tb.Lab) -> None:
    searched = bound(work, "table15")
    assert set(map(len, origins_of(gather(lab, searched)).values())) == {0}
    run_experiments(lab, searched).outcome.raise_failures()
    report = gather(lab, searched)
    assert set(report.cells) == set(origins_of(report)) == keys_of(searched)
    assert {origin.device for origins in origins_of(report).values() for origin in origins} == {"cpu"}


def test_studies_that_a_scale_does_not_fit_are_told_apart(work: PaperJobs) -> None:
    fitting, others = bind(STUDIES, work)
    assert {study.name for study in fitting} | others.keys() == {study.name for study in STUDIES}
    assert (
        others["table14"]
        == "table14 has none of the configurations 0.0/256; add one of its 0.3/256, 0.6/256, 0.95/256, or "
        "leave it out"
    )
    assert "takes 10 prunings" in others["table6"]
    assert "table2" in {study.name for study in fitting}


def test_provenance_that_says_nothing_of_the_device_is_damage(
    lab: tb.Lab, work: PaperJobs, tmp_path: Path
) -> None:
    shutil.copytree(lab.store.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    for name in store.names():
        path = store.folder(name) / "provenance.json"
        path.write_text(json.dumps({"sums": read_json(path)["sums"], "precision": [], "device": {}}))
    with pytest.raises(StoreError, match=r"provenance\.json does not say its 'tombola'"):
        gather(tb.Lab(store.root), bound(work, "fig1"))
