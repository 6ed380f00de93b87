"""The demo: an experiment like any other, whose page has the numbers that its files say."""

from __future__ import annotations

import csv
import inspect
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
import tombola.experiments.demo as module
from tombola.experiments.bound import jobs_behind
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.demo import demo
from tombola.experiments.from_file import read_experiments
from tombola.lab.job import Job, all_needed
from tombola.lab.store import read_json
from tombola.report.gather import gather_chains
from tombola.report.write import write_report
from tombola.table.number import Cell, longest
from tombola.table.table import Table

TINY = replace(
    demo, recipe={"epochs": 3, "lr": 0.3, "momentum": [0.0, 0.9], "batch_size": [400]}, rewind=[0, 1],
    rounds=2, copies_at=[0, 2],
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    lab = tb.Lab(tmp_path_factory.mktemp("demo") / "store")
    lab.run(jobs_behind([TINY.at()])).raise_failures()
    return lab


@pytest.fixture(scope="module")
def table(lab: tb.Lab) -> Table:
    return Table(TINY.at().numbers(lab.results()))


@pytest.fixture(scope="module")
def files(lab: tb.Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the tiny demo, as the command writes it."""
    folder = tmp_path_factory.mktemp("report")
    write_report(gather_chains(lab, [TINY.at()], {"computed now": "7 jobs in 3 s"}), folder)
    return folder


def items_of(experiment: tb.Experiment, measure: str = "") -> list[ChainItem]:
    return [i for i in experiment.at().items if isinstance(i, ChainItem) and i.measure == measure]


def trainings(lab: tb.Lab) -> Iterator[dict[str, Any]]:
    """Every training in the store as its files say, read without the code under test."""
    jobs = {path.parent.name: read_json(path) for path in lab.store.root.glob("jobs/*/*/job.json")}

    def start_of(argument: dict[str, Any]) -> dict[str, Any]:
        """The job whose weights a ticket goes back to."""
        made = jobs[argument["job"]]
        if made["function"] == "prune":
            return start_of(jobs[made["arguments"]["run"]["job"]]["arguments"]["ticket"])
        return made

    for name, job in jobs.items():
        if job["function"] == "train":
            folder = lab.store.folder(name)
            with (folder / "history.csv").open() as file:
                history = list(csv.DictReader(file))
            start = start_of(job["arguments"]["ticket"])
            late = start["function"] == "pretrain"
            initial = jobs[start["arguments"]["start"]["job"]] if late else start
            yield {
                **read_json(folder / "result.json"),
                "momentum": {"momentum": 0.9, **job["arguments"]["recipe"]}["momentum"],
                "late": late,
                "seed": initial["arguments"].get("seed", 0),
                "noise": job["arguments"].get("noise", 0),
                "history": history,
            }


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split()).replace("\N{NO-BREAK SPACE}", " ")


def test_the_demo_is_eight_configurations_with_chains_and_barriers() -> None:
    runs = items_of(demo)
    dense = [item for item in runs if item.key.sparsity == 0.0]
    assert [(item.key.pretrained, item.key.momentum, item.key.batch_size) for item in dense] == [
        (False, 0.0, 32), (False, 0.0, 128), (False, 0.9, 32), (False, 0.9, 128),
        (True, 0.0, 32), (True, 0.0, 128), (True, 0.9, 32), (True, 0.9, 128),
    ]  # fmt: skip
    # Two seeds: two chains of eleven trainings, and each kind of barrier twice at the first and last round.
    assert len(runs) == 8 * 11
    assert {len(item.jobs) for item in runs} == {2}
    barriers = items_of(demo, "barrier")
    assert [item.key.sparsity for item in barriers[:4]] == [0.0, 0.0, 89.26, 89.26]
    assert [item.recalibrated for item in barriers[:4]] == [False, True, False, True]
    assert len(barriers) == 8 * 2 * 2
    epochs = {item.epochs for item in runs}
    assert epochs == {8}


def test_a_copy_of_the_file_is_the_same_experiment(tmp_path: Path) -> None:
    copy = tmp_path / "my_demo.py"
    shutil.copy(inspect.getfile(module), copy)
    (experiment,) = read_experiments(copy).experiments
    assert experiment == demo


def test_a_barrier_is_between_two_noise_copies_of_one_ticket() -> None:
    for item in items_of(TINY, "barrier"):
        for seed, line in zip(item.seeds, item.jobs, strict=True):
            first, second = line.arguments["first"], line.arguments["second"]
            assert isinstance(first, Job)
            assert first.arguments["ticket"] is second.arguments["ticket"]
            noises = [run.arguments.get("noise", 0) for run in (first, second)]
            assert noises == [seed, seed + 1]


def test_late_rewinding_of_the_demo_has_a_noise_of_its_own() -> None:
    for item in items_of(TINY):
        if item.key.pretrained and not item.key.sparsity:
            starts = [run.arguments["ticket"] for run in item.jobs]
            assert [start.arguments["noise"] for start in starts] == [100, 101]


def test_chains_of_a_seed_share_their_initialisation() -> None:
    needed = all_needed(jobs_behind([TINY.at()]))
    assert sum(job.declaration.name == "initialize" for job in needed.values()) == 2


def test_accuracies_are_the_mean_and_spread_over_the_seeds(table: Table, lab: tb.Lab) -> None:
    found = list(trainings(lab))
    assert len(found) == 4 * 2 * (3 + 2)
    cells: dict[tuple[Any, ...], Cell] = {
        (key.momentum, key.pretrained, key.sparsity): cell
        for key, cell in longest(table.cells()).items()
        if key.metric == "val_accuracy"
    }
    assert len(cells) == 4 * 3
    for (momentum, late, sparsity), cell in cells.items():
        prunings = {0.0: 0, 20.0: 1, 36.0: 2}[sparsity]
        values = [
            run["accuracy"]
            for run in sorted(found, key=lambda run: run["seed"])
            if (run["momentum"], run["late"], run["round"]) == (momentum, late, prunings)
            and run["noise"] == run["seed"]
        ]
        assert list(cell.values) == values
        assert cell.mean == pytest.approx(statistics.fmean(values))
        assert cell.std == pytest.approx(statistics.stdev(values))
        # A tenth of the test images is chance; below two tenths a run has failed.
        assert cell.failed == any(value < 20 for value in values)
        dense = cells[momentum, late, 0.0]
        assert cell.winning == (
            prunings > 0 and cell.mean >= dense.mean and not cell.failed and not dense.failed
        )


def test_forgetting_and_convergence_are_recomputed_from_the_histories(table: Table, lab: tb.Lab) -> None:
    dense = [
        run for run in trainings(lab) if run["round"] == 0 and run["noise"] == run["seed"] and not run["late"]
    ]
    for run in dense:
        numbers = {
            number.key.metric: number
            for number in table
            if (number.key.momentum, number.key.pretrained, number.key.sparsity, number.seed)
            == (run["momentum"], False, 0.0, run["seed"])
            and number.key.over == "seeds"
        }
        events = [int(row["forgetting_events"]) / 1198 for row in run["history"][1:]]
        assert numbers["forgetting_events"].value == pytest.approx(sum(events))
        curve = numbers["forgetting_events"].curve
        assert curve is not None
        assert curve.y == pytest.approx(events)
        accuracies = [float(row["test_accuracy"]) for row in run["history"]]
        gains = [accuracy - accuracies[0] for accuracy in accuracies[1:]]
        expected = statistics.fmean(gains) / gains[-1] if gains[-1] > 0 else None
        convergence = numbers["convergence"]
        assert convergence.value == (expected if expected is None else pytest.approx(expected))
        assert convergence.state == ("undefined" if expected is None else "measured")
        learned = numbers["val_accuracy"].curve
        assert learned is not None
        assert learned.y == pytest.approx([100 - accuracy for accuracy in accuracies])
        unforgettable = numbers["unforgettable_percent"].value
        assert unforgettable is not None
        assert 0 <= unforgettable <= 100


def test_barriers_are_recomputed_from_the_errors_along_the_line(table: Table, lab: tb.Lab) -> None:
    checked = 0
    for number in table:
        if number.key.metric in ("barrier", "recalibrated_barrier"):
            (name,) = number.jobs
            errors = read_json(lab.store.folder(name) / "result.json")["value"]["errors"]
            assert number.value == pytest.approx(max(errors) - (errors[0] + errors[-1]) / 2)
            assert number.curve is not None
            assert number.curve.x == pytest.approx([index / 20 for index in range(21)])
            assert number.curve.y == pytest.approx(errors)
            checked += 1
    assert checked == 4 * 2 * 2 * 2


def test_the_page_has_the_numbers_of_the_table(files: Path, table: Table) -> None:
    text = text_of((files / "report.html").read_text(encoding="utf-8"))
    shown = 0
    for key, cell in longest(table.cells()).items():
        if key.metric == "val_accuracy":
            assert f"{cell.mean:.2f} ± {cell.std:.2f}%" in text
            shown += 1
    assert shown == 12
    assert "Winning tickets:" in text
    assert demo.title in text
    assert "computed now 7 jobs in 3 s" in text
    assert f"tombola {tb.__version__}" in text


def test_the_files_beside_the_page_are_the_tables_and_figures_of_its_exhibits(files: Path) -> None:
    names = {path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()}
    parts = (
        "accuracy", "barrier", "recalibrated_barrier", "forgetting_events", "forgetting_spread",
        "unforgettable_percent", "convergence", "recalibrated_untrained_accuracy", "learning-curves",
        "layers", "runs",
    )  # fmt: skip
    expected = {f"tables/demo-{part}.{kind}" for part in parts for kind in ("csv", "md", "tex")}
    expected |= {f"figures/demo-{part}.{kind}" for part in parts for kind in ("svg", "png", "pdf")}
    assert names - {"report.html", "table.csv", "table.json"} == expected


def test_a_page_says_what_its_numbers_were_made_with(lab: tb.Lab, tmp_path: Path) -> None:
    """Not what starts and tickets were, which have no precision; as jobs, starts count all the same."""
    shutil.copytree(lab.store.root, tmp_path / "store")
    jobs = {path.parent: read_json(path) for path in (tmp_path / "store").glob("jobs/*/*/job.json")}
    for folder, job in jobs.items():
        if job["function"] not in ("initialize", "pretrain", "prune"):
            file = folder / "provenance.json"
            file.write_text(json.dumps(read_json(file) | {"precision": "bfloat16"}))
    told = gather_chains(tb.Lab(tmp_path / "store"), [TINY.at()], {}).provenance
    assert (told["device"], told["precision"]) == ("cpu", "bfloat16")
    assert told["jobs"] == str(sum(job["function"] != "prune" for job in jobs.values()))


def test_a_second_demo_computes_nothing(lab: tb.Lab) -> None:
    assert lab.run(jobs_behind([TINY.at()])).computed == []
