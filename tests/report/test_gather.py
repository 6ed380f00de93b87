"""What a report is given: numbers, gaps, what is missing, and what the numbers were made with."""

import json
from pathlib import Path

import pytest
from tombola.experiments.running import fitting, run_studies
from tombola.report.origin import Origin

import tombola as tb
from tombola.experiments.paper.jobs import Work
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.studies import STUDIES, studies_named, study_named
from tombola.experiments.plan import plan
from tombola.report.gather import gather

STUDIED = studies_named(["table2", "fig1", "table15"])


@pytest.fixture(scope="module")
def work() -> Work:
    scale = scale_named("tiny")
    return Work(overridden(scale, epochs=2, seeds=1, configs=["0.0/256"], rounds=5, columns=(5,)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, work: Work) -> tb.Lab:
    """With all of fig1, and so the dense networks of table2."""
    made = tb.Lab(tmp_path_factory.mktemp("gather") / "store")
    run_studies(made, studies_named(["fig1"]), work).outcome.raise_failures()
    return made


def test_what_is_finished_has_a_number_and_the_rest_a_place(lab: tb.Lab, work: Work) -> None:
    report = gather(lab, STUDIED, work)
    places = {place for place in report.places if place.study == "fig1"}
    assert places <= set(report.cells)
    table = [place for place in report.places if place.study == "table2"]
    assert sorted(place.sparsity for place in table if place in report.cells) == [0.0, 0.0]
    assert len(table) == 4
    assert report.titles["fig1"] == study_named("fig1").title
    assert [picture.name for picture in report.pictures] == ["fig1"]
    assert report.note == work.scale.note
    assert report.provenance["scale"] == str(work.scale)


def test_what_is_missing_has_the_epochs_that_are_left(lab: tb.Lab, work: Work) -> None:
    report = gather(lab, STUDIED, work)
    missing = {name: epochs for name, _, epochs in report.missing}
    # Of each chain five trainings, of two epochs from the initialisation and of one from the first epoch.
    assert missing["table2"] == 5 * 2 + 5 * 1
    assert "fig1" not in missing
    planned = plan(STUDIED, work, store=lab.store)
    left = {each.name: each.epochs_left for each in planned.studies}
    assert {name: round(epochs) for name, epochs in left.items() if name in missing} == missing
    assert report.missing_together == (planned.jobs - planned.finished, round(planned.epochs_left))
    # Five trainings of each chain; masks are no jobs of their own.
    assert {name: jobs for name, jobs, _ in report.missing}["table2"] == 2 * 5


def test_studies_beside_give_claims_their_cells_and_are_not_shown(lab: tb.Lab, work: Work) -> None:
    report = gather(lab, studies_named(["table2"]), work, beside=studies_named(["fig1"]))
    assert {place.study for place in report.places} == {"table2"}
    assert {place.study for place in report.cells} == {"table2", "fig1"}
    assert (report.pictures, [name for name, *_ in report.missing]) == ([], ["table2"])
    assert {place.study for place in report.origins} == {"table2"}


def test_origins_are_those_of_the_runs_behind_a_number(lab: tb.Lab, work: Work) -> None:
    report = gather(lab, studies_named(["fig1"]), work)
    expected = Origin("cpu", "float32", f"tombola {tb.__version__}, torch {report.provenance['torch']}")
    assert {place: set(found) for place, found in report.origins.items()} == {
        place: {expected} for place in report.places
    }
    # One of the runs behind each barrier, as if another version had made it.
    (job, *_) = study_named("fig1").jobs(work)
    run = next(need for need in job.needs if need.declaration.name == "train")
    file = lab.store.folder(run.name) / "provenance.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"torch": "1.0"}))
    try:
        mixed = gather(lab, studies_named(["fig1"]), work).origins
    finally:
        file.write_text(before)
    found = {origin for origins in mixed.values() for origin in origins}
    assert found == {expected, Origin("cpu", "float32", f"tombola {tb.__version__}, torch 1.0")}


def test_searches_have_the_origins_of_the_runs_they_rest_on(work: Work, lab: tb.Lab) -> None:
    searched = studies_named(["table15"])
    assert set(map(len, gather(lab, searched, work).origins.values())) == {0}
    run_studies(lab, searched, work).outcome.raise_failures()
    report = gather(lab, searched, work)
    assert set(report.cells) == set(report.origins) == set(report.places)
    assert {origin.device for origins in report.origins.values() for origin in origins} == {"cpu"}


def test_studies_that_a_scale_does_not_fit_are_told_apart(work: Work, tmp_path: Path) -> None:
    fit, others = fitting(STUDIES, work)
    assert {study.name for study in fit} | others.keys() == {study.name for study in STUDIES}
    assert (
        others["table14"]
        == "table14 has none of the configurations 0.0/256; add one of its 0.3/256, 0.6/256, 0.95/256, or "
        "leave it out"
    )
    assert "takes 10 prunings" in others["table6"]
    assert "table2" in {study.name for study in fit}
