import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.experiments import demo
from tombola.experiments.demo import DemoSettings, demo_cells, demo_summary
from tombola.lab.store import read_json

TINY = DemoSettings(epochs=3, rounds=2, rewind=1, seeds=2, momenta=(0.0, 0.9), batch_sizes=(200, 400))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    return tb.Lab(tmp_path_factory.mktemp("demo") / "store")


@pytest.fixture(scope="module")
def summary(lab: tb.Lab) -> dict[str, Any]:
    cells = demo_cells(TINY)
    outcome = lab.run([job for cell in cells for job in cell.jobs()])
    outcome.raise_failures()
    return demo_summary(lab, TINY, cells, len(outcome.computed), 1.26)


@pytest.fixture(scope="module")
def trainings(lab: tb.Lab, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Every training in the store as its files say, read without the code under test."""
    found = []
    jobs = {path.parent.name: read_json(path) for path in lab.store.root.glob("jobs/*/*/job.json")}

    def start_of(argument: dict) -> dict:
        """The job whose weights a ticket goes back to."""
        made = jobs[argument["job"]]
        if made["function"] == "prune":
            return start_of(jobs[made["arguments"]["run"]["job"]]["arguments"]["ticket"])
        return made

    for name, job in jobs.items():
        if job["function"] == "train":
            folder = lab.store.folder(name)
            recipe = {"momentum": 0.9, **job["arguments"]["recipe"]}
            with (folder / "history.csv").open() as file:
                history = list(csv.DictReader(file))
            found.append(
                {
                    **read_json(folder / "result.json"),
                    "momentum": recipe["momentum"],
                    "batch_size": recipe["batch_size"],
                    "rewind": int(start_of(job["arguments"]["ticket"])["function"] == "pretrain"),
                    "noise": job["arguments"].get("noise", 0),
                    "history": history,
                }
            )
    return found


def test_the_demo_is_eight_configurations_with_chains_and_barriers() -> None:
    cells = demo_cells(DemoSettings())
    assert [(cell.rewind, cell.momentum, cell.batch_size) for cell in cells] == [
        (0, 0.0, 32), (0, 0.0, 128), (0, 0.9, 32), (0, 0.9, 128),
        (2, 0.0, 32), (2, 0.0, 128), (2, 0.9, 32), (2, 0.9, 128),
    ]  # fmt: skip
    for cell in cells:
        # Two seeds: two chains of eleven trainings, and each kind of barrier twice.
        assert [len(chain) for chain in cell.chains] == [11, 11]
        barriers = (cell.dense_barriers, cell.recalibrated_barriers, cell.ticket_barriers)
        assert [len(jobs) for jobs in barriers] == [2, 0 if cell.rewind else 2, 2]
        assert len(cell.jobs()) == 22 + (4 if cell.rewind else 6)


def test_a_barrier_is_between_two_noise_copies_of_one_ticket() -> None:
    for cell in demo_cells(TINY):
        for barriers, place in ((cell.dense_barriers, 0), (cell.ticket_barriers, -1)):
            for seed, (line, chain) in enumerate(zip(barriers, cell.chains, strict=True)):
                first, second = line.parents
                assert first is chain[place]
                ticket, copy = (run.arguments["ticket"] for run in (first, second))
                assert ticket is copy
                noises = [run.arguments.get("noise", 0) for run in (first, second)]
                assert noises == [seed, 2 + seed]


def test_no_two_trainings_of_the_demo_share_their_noise_by_mistake() -> None:
    """Chains draw from 0 and 1, their copies from 2 and 3, pretrainings from 4 and 5."""
    for cell in demo_cells(TINY):
        if cell.rewind:
            noises = [chain[0].parents[0].arguments["noise"] for chain in cell.chains]
            assert noises == [4, 5]
            assert all(chain[0].parents[0].arguments.get("epochs", 2) == 1 for chain in cell.chains)


def test_chains_of_a_seed_share_their_initialisation() -> None:
    starts = set()
    for cell in demo_cells(TINY):
        for chain in cell.chains:
            start = chain[0].parents[0]
            starts.add((start.parents[0] if cell.rewind else start).name)
    assert len(starts) == 2


def test_the_summary_has_exactly_what_is_promised(summary: dict[str, Any]) -> None:
    assert set(summary) == {"settings", "units", "rows", "dense", "curves", "training", "provenance"}
    assert set(summary["rows"][0]) == {
        "momentum", "batch_size", "rewind", "round", "sparsity", "accuracy_mean", "accuracy_std",
        "accuracies", "winning", "failed_runs",
    }  # fmt: skip
    assert set(summary["dense"][0]) == {
        "momentum", "batch_size", "barrier", "barrier_recalibrated", "forgetting_events", "forgetting_std",
        "unforgettable", "never_learned", "convergence", "accuracy",
    }  # fmt: skip
    assert set(summary["curves"][0]) == {
        "kind", "momentum", "batch_size", "rewind", "sparsity", "alphas", "errors", "barrier", "barriers",
    }  # fmt: skip
    assert set(summary["training"][0]) == {
        "momentum", "batch_size", "epochs", "test_error", "forgetting_events",
    }  # fmt: skip
    assert set(summary["provenance"]) == {
        "tombola", "torch", "hardware", "threads", "python", "jobs", "computed", "seconds",
    }  # fmt: skip
    # Four configurations from two kinds of start: three rounds, and two curves; dense ones once.
    assert [len(summary[part]) for part in ("rows", "dense", "curves", "training")] == [24, 4, 16, 4]
    assert summary["settings"]["epochs"] == 3
    assert summary["settings"]["device"] == "cpu"


def test_the_summary_can_be_written_as_json(summary: dict[str, Any]) -> None:
    json.dumps(summary, allow_nan=False)


def test_rows_are_the_mean_and_spread_over_the_seeds(
    summary: dict[str, Any], trainings: list[dict[str, Any]]
) -> None:
    dense: dict[tuple, float] = {}
    for row in summary["rows"]:
        found = sorted(
            (run["noise"], run["accuracy"])
            for run in trainings
            if run["noise"] < 2
            and all(run[key] == row[key] for key in ("momentum", "batch_size", "rewind", "round"))
        )
        accuracies = [accuracy for _, accuracy in found]
        assert [noise for noise, _ in found] == [0, 1]
        assert row["accuracies"] == accuracies
        assert row["accuracy_mean"] == pytest.approx(statistics.fmean(accuracies))
        assert row["accuracy_std"] == pytest.approx(statistics.stdev(accuracies))
        configuration = row["momentum"], row["batch_size"], row["rewind"]
        if row["round"] == 0:
            dense[configuration] = statistics.fmean(accuracies)
            assert row["winning"] is None
        else:
            assert row["winning"] == (statistics.fmean(accuracies) >= dense[configuration])
        # A tenth of the test images is chance; below two tenths a run has failed.
        assert row["failed_runs"] == sum(accuracy < 20 for accuracy in accuracies)
        assert row["sparsity"] == pytest.approx(1 - 0.8 ** row["round"], abs=1 / 8456)


def test_the_dense_table_is_of_the_dense_runs_without_rewinding(
    summary: dict[str, Any], trainings: list[dict[str, Any]], lab: tb.Lab
) -> None:
    lines = [
        (read_json(path.parent / "job.json"), read_json(path)["value"])
        for path in lab.store.root.glob("jobs/*/*/result.json")
        if read_json(path.parent / "job.json")["function"] == "barrier"
    ]
    for row, curve in zip(summary["dense"], summary["training"], strict=True):
        said = {"momentum": row["momentum"], "batch_size": row["batch_size"], "rewind": 0, "round": 0}
        runs = [
            run
            for run in trainings
            if all(run[key] == value for key, value in said.items()) and run["noise"] < 2
        ]
        assert row["accuracy"] == pytest.approx(statistics.fmean(run["accuracy"] for run in runs))
        events = [sum(int(epoch["forgetting_events"]) for epoch in run["history"]) / 1198 for run in runs]
        assert row["forgetting_events"] == pytest.approx(statistics.fmean(events))
        speeds = []
        for run in runs:
            accuracies = [float(epoch["test_accuracy"]) for epoch in run["history"]]
            gains = [accuracy - accuracies[0] for accuracy in accuracies[1:]]
            if gains[-1] > 0:
                speeds.append(statistics.fmean(gains) / gains[-1])
        expected = statistics.fmean(speeds) if speeds else None
        assert row["convergence"] == (expected if expected is None else pytest.approx(expected))
        errors = [[100 - float(epoch["test_accuracy"]) for epoch in run["history"]] for run in runs]
        assert curve["epochs"] == [0, 1, 2, 3]
        assert curve["test_error"] == pytest.approx(
            [statistics.fmean(pair) for pair in zip(*errors, strict=True)]
        )
        assert curve["forgetting_events"][0] is None
        assert sum(curve["forgetting_events"][1:]) == pytest.approx(row["forgetting_events"])
        assert 0 <= row["unforgettable"] <= 1
        assert 0 <= row["never_learned"] <= 1198
    # Eight configurations of two seeds: a dense and a ticket barrier each, and four of them recalibrated.
    assert len(lines) == 8 * 2 * 2 + 4 * 2


def test_barriers_are_recomputed_from_the_errors_along_the_line(summary: dict[str, Any], lab: tb.Lab) -> None:
    cells = {(cell.momentum, cell.batch_size, cell.rewind): cell for cell in demo_cells(TINY)}
    for curve in summary["curves"]:
        cell = cells[curve["momentum"], curve["batch_size"], curve["rewind"]]
        jobs = cell.dense_barriers if curve["kind"] == "dense" else cell.ticket_barriers
        values = [read_json(lab.store.folder(job.name) / "result.json")["value"] for job in jobs]
        heights = [max(v["errors"]) - (v["errors"][0] + v["errors"][-1]) / 2 for v in values]
        assert curve["barriers"] == pytest.approx(heights)
        assert curve["barrier"] == pytest.approx(statistics.fmean(heights))
        assert curve["alphas"] == pytest.approx([index / 20 for index in range(21)])
        columns = zip(*(v["errors"] for v in values), strict=True)
        assert curve["errors"] == pytest.approx([statistics.fmean(column) for column in columns])
        assert curve["sparsity"] == pytest.approx(0.0 if curve["kind"] == "dense" else 0.36, abs=1 / 8456)
        if curve["kind"] == "dense" and curve["rewind"] == 0:
            (row,) = (
                row
                for row in summary["dense"]
                if (row["momentum"], row["batch_size"]) == (curve["momentum"], curve["batch_size"])
            )
            assert row["barrier"] == pytest.approx(curve["barrier"])


def test_where_the_numbers_come_from_is_said(summary: dict[str, Any], lab: tb.Lab) -> None:
    made = summary["provenance"]
    # Two initialisations, eight pretrainings, and for each of eight configurations and two seeds three
    # trainings, two copies of them and two barriers; in four of them a recalibrated barrier.
    jobs = 2 + 8 + 8 * 2 * (3 + 2 + 2) + 4 * 2
    assert made["jobs"] == made["computed"] == jobs
    # Beside them the two tickets of each of those chains, which are not counted.
    assert len(list(lab.store.names())) == jobs + 8 * 2 * 2
    assert made["seconds"] == 1.3
    assert made["tombola"] == tb.__version__


def test_a_second_demo_computes_nothing(lab: tb.Lab, summary: dict[str, Any]) -> None:
    outcome = lab.run([job for cell in demo_cells(TINY) for job in cell.jobs()])
    assert outcome.computed == []


def test_one_seed_alone_has_no_spread(tmp_path: Path) -> None:
    settings = replace(TINY, epochs=2, rounds=1, seeds=1, momenta=(0.9,), batch_sizes=(400,))
    lab = tb.Lab(tmp_path / "store")
    cells = demo_cells(settings)
    lab.run([job for cell in cells for job in cell.jobs()]).raise_failures()
    summary = demo_summary(lab, settings, cells, 0, 0.0)
    assert len(summary["rows"]) == 4
    assert [row["accuracy_std"] for row in summary["rows"]] == [None] * 4


def test_runs_that_learned_nothing_have_no_convergence(
    lab: tb.Lab, summary: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = demo_cells(TINY)
    speeds = iter([None, 0.5, *[None] * 100])
    monkeypatch.setattr(demo, "convergence", lambda run: next(speeds))
    dense = demo_summary(lab, TINY, cells, 0, 0.0)["dense"]
    assert [row["convergence"] for row in dense] == [0.5, None, None, None]
