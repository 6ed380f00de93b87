"""The folder of results is what the program makes of its store; the former results are in the table too.

``first_reading`` has what was published before: a store of the first reading of B4, and CSV files that
another program made of it. They are pinned: whatever the table becomes, it must give these numbers.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from scripts import module_of

from tombola.experiments.bound import jobs_behind
from tombola.experiments.compute import collect
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.settings import CONFIGURATIONS, R18_C10, STABLE, UNSTABLE
from tombola.experiments.paper.studies import studies_named
from tombola.lab.archive import import_
from tombola.lab.item import Measured
from tombola.lab.lab import Lab
from tombola.lab.store import Store
from tombola.table.key import Key, sparsity_after
from tombola.table.number import Cell, Number, longest
from tombola.table.table import Table

RESULTS = Path(__file__).parents[1] / "results"
FIRST = Path(__file__).parent / "first_reading"
STUDIES = (
    "table6", "table11", "table17", "table21", "fig3", "fig10", "fig13", "fig18", "fig21",
    "untrained-accuracy", "ticket-convergence",
)  # fmt: skip
LAST = 10


def rows(name: str) -> list[dict[str, str]]:
    with (FIRST / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def first_jobs(scale: str, **numbers: object) -> PaperJobs:
    """The jobs of the first results: ResNet-18 as the first reading of B4 started it."""
    scaled = overridden(scale_named(scale), copies=2, pairs=["R18/C10"], **numbers)  # type: ignore[arg-type]
    subject = replace(scaled.subjects[R18_C10], network="resnet18@1")
    return PaperJobs(replace(scaled, subjects={**scaled.subjects, R18_C10: subject}))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    store = Store(tmp_path_factory.mktemp("first") / "store")
    import_(store, FIRST / "store.zip")
    return Lab(store.root)


@pytest.fixture(scope="module")
def tenth(lab: Lab) -> Table:
    """What was run at a tenth of the budget, two seeds of some chains."""
    work = first_jobs("short", seeds=2, rounds=LAST, columns=(LAST // 2, LAST), stride=LAST // 2)
    return collect(lab, [study.at(work) for study in studies_named(STUDIES)])


@pytest.fixture(scope="module")
def full(lab: Lab) -> Table:
    """What was run at the paper's budget, three seeds of some."""
    work = first_jobs("paper", seeds=3)
    return collect(lab, [study.at(work) for study in studies_named(["table8", "fig6", "fig3", "table11"])])


def of_configuration(text: str) -> dict[str, object]:
    plain = text.removesuffix(" pretrained")
    momentum, batch_size = plain.split("/")
    return {"momentum": float(momentum), "batch_size": int(batch_size), "pretrained": plain != text}


def numbers_of(table: Table, **fields: object) -> list[Number]:
    return [
        number
        for number in table
        if number.value is not None
        and all(
            value == (number.seed if name == "seed" else getattr(number.key, name))
            for name, value in fields.items()
        )
    ]


@pytest.mark.parametrize("name", ["table06", "table11", "table17", "table21"])
def test_every_cell_of_a_published_table_is_in_the_table(name: str, tenth: Table) -> None:
    cells = longest(tenth.cells(partial=True))
    read = {
        "momentum": float, "batch_size": int, "sparsity": float, "block": int, "subset_percent": int,
        "pretrained": lambda text: text == "True",
    }  # fmt: skip
    for row in rows(f"tenth/{name}.csv"):
        fields = {
            field: read.get(field, str)(row[field])  # type: ignore[operator]
            for field in ("metric", "target", *read, "subset_criterion", "baseline")
            if row.get(field)
        }
        pair = {
            "network": "ResNet-18",
            "dataset": row["target"] if "retrained" in row.get("baseline", "") else "CIFAR-10",
        }
        cell = cells[Key(**pair, **fields)]  # type: ignore[arg-type]
        assert round(cell.mean, 4) == float(row["ours"])
        assert (cell.runs, cell.epochs) == (int(row["seeds"]), int(row["epochs"]))


def test_every_accuracy_of_a_round_is_in_the_table(tenth: Table) -> None:
    for row in rows("tenth/accuracy.csv"):
        for n in range(LAST + 1):
            (number,) = numbers_of(
                tenth, metric="val_accuracy", over="seeds", sparsity=sparsity_after(n), target=None,
                subset_percent=None, baseline=None, seed=int(row["seed"]),
                **of_configuration(row["configuration"]),
            )  # fmt: skip
            assert number.value == float(row[str(n)])


def test_every_probe_and_few_shot_accuracy_is_in_the_table(tenth: Table) -> None:
    for row in rows("tenth/probes.csv"):
        if not row["prunings"].isdigit():
            continue  # permuted tickets are of 0.0/256 alone in the tables
        for block in (4, 8):
            (number,) = numbers_of(
                tenth, metric="probe_accuracy", block=block, sparsity=sparsity_after(int(row["prunings"])),
                baseline=None, seed=int(row["seed"]), **of_configuration(row["configuration"]),
            )  # fmt: skip
            assert number.value == float(row[f"block {block}"])
    for row in rows("tenth/few-shot.csv"):
        for percent in (1, 10):
            (number,) = numbers_of(
                tenth, metric="val_accuracy", subset_percent=percent, baseline=None, seed=int(row["seed"]),
                sparsity=sparsity_after(int(row["prunings"])), **of_configuration(row["configuration"]),
            )  # fmt: skip
            assert number.value == float(row[f"{percent}%"])


def test_every_barrier_is_in_the_table(tenth: Table, full: Table) -> None:
    for name, table in (("tenth/barriers.csv", tenth), ("barriers.csv", full)):
        for row in rows(name):
            fields = of_configuration(row["configuration"])
            if row["seed"] == "0":
                (copies,) = numbers_of(table, metric="barrier", sparsity=0.0, subset_percent=None, **fields)
                assert round(copies.value or 0.0, 3) == float(row["copies, 0 prunings"])
                assert copies.curve is not None
                assert round(max(copies.curve.y), 3) == float(row["copies, 0 prunings, largest"])
            for n in range(LAST):
                if row["seed"] == "0" and row.get(f"{n} to {n + 1}"):
                    (step,) = numbers_of(
                        table, metric="barrier_to_next", sparsity=sparsity_after(n), **fields
                    )
                    assert round(step.value or 0.0, 3) == float(row[f"{n} to {n + 1}"])


def test_every_dense_run_of_the_full_budget_is_in_the_table(full: Table) -> None:
    runs = [row for row in rows("runs.csv") if row["weight_decay"] == "0.0005"]
    assert len(runs) == 8
    for row in runs:
        for metric in ("val_accuracy", "forgetting_events", "unforgettable_percent", "convergence"):
            (number,) = numbers_of(
                full, metric=metric, over="seeds", sparsity=0.0, momentum=float(row["momentum"]),
                batch_size=int(row["batch_size"]), pretrained=False, seed=int(row["seed"]),
            )  # fmt: skip
            assert round(number.value or 0.0, 4) == float(row[metric])


def test_every_mean_of_the_full_budget_is_in_the_table(full: Table) -> None:
    cells = longest(full.cells(partial=True))
    for row in rows("table08.csv"):
        if row["weight_decay"] != "0.0005" or row["metric"] == "summed_forgetting_events":
            continue  # the sum needs the records of the runs, which the store has no more
        key = Key(
            metric=row["metric"], network="ResNet-18", dataset="CIFAR-10", sparsity=0.0, pretrained=False,
            momentum=float(row["momentum"]), batch_size=int(row["batch_size"]),
        )  # fmt: skip
        assert (round(cells[key].mean, 4), cells[key].runs) == (float(row["ours"]), int(row["seeds"]))
        assert round(cells[key].std or 0.0, 4) == float(row["ours_std"] or 0)


def lines_of(table: Table, metric: str) -> Mapping[tuple[str, float], Cell]:
    cells = longest(table.cells(partial=True))
    return {(str(key), key.sparsity or 0.0): cell for key, cell in cells.items() if key.metric == metric}


@pytest.mark.parametrize(
    ("name", "metric", "column"),
    [
        ("figure13", "val_accuracy", "test accuracy (%)"),
        ("figure18", "probe_accuracy", "probe accuracy (%)"),
        ("figure21", "val_accuracy", "test accuracy (%)"),
        ("figure10", "barrier_to_next", "error barrier to the next round (points)"),
        ("ticket-convergence", "convergence", "convergence (Eq. 4)"),
        ("untrained-accuracy", "untrained_accuracy", "test accuracy (%)"),
    ],
)
def test_every_point_of_a_published_figure_is_in_the_table(
    name: str, metric: str, column: str, tenth: Table
) -> None:
    points = lines_of(tenth, metric)
    shown = [row for row in rows(f"tenth/{name}.csv") if row.get(column)]
    assert shown
    for row in shown:
        value, sparsity = float(row[column]), float(row["sparsity (%)"])
        momentum, batch_size = row["line"].removeprefix("μ = ").split(", batch ")
        here = [
            cell
            for (text, at), cell in points.items()
            if at == pytest.approx(sparsity, abs=1e-6)
            and f"momentum={float(momentum):g} batch_size={batch_size} " in text
        ]
        # Of a start, which all chains share, a second seed came by another chain.
        assert value in {round(number, 6) for cell in here for number in (cell.mean, *cell.values)}, row


def run_module() -> ModuleType:
    return module_of(RESULTS / "run.py", "results_run")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("results") / "store")
    import_(store, RESULTS / "store.zip")
    return store


def test_what_is_published_is_what_the_program_makes_of_the_store(store: Store) -> None:
    from tombola.report.frame import to_csv

    work = run_module().scale_jobs()
    results = Lab(store.root).results()
    paths = sorted((RESULTS / "tables").glob("*.csv"))
    assert paths
    for path in paths:
        (exhibit,) = studies_named([path.stem])[0].at(work).exhibits(results)
        grid = exhibit.grid()
        assert grid is not None
        assert to_csv(grid, exhibit.cells, exhibit.printed or None) == path.read_text(), path.name


def test_a_chain_goes_on_from_the_store_without_training_anything_again(store: Store) -> None:
    run = run_module()
    work = run.scale_jobs()
    for configuration in CONFIGURATIONS:
        jobs = list(run.chain_jobs(work, configuration, 10, store))
        trained = [n for n, job in enumerate(work.runs(R18_C10, configuration, 0)) if store.has(job.name)]
        assert trained == list(range(len(trained)))
        # The next round, if one is left, needs its ticket, which is there, and no barrier asks for a run
        # without weights.
        tickets = work.tickets(R18_C10, configuration, 0)
        ticket = tickets[min(len(trained), len(tickets) - 1)]
        assert store.has(ticket.name)
        assert not store.is_thin(ticket.name)
        barriers = [job for job in jobs if job.declaration.name == "barrier"]
        ends = [job.arguments[name] for job in barriers for name in ("first", "second")]
        assert not [end for end in ends if store.has(end.name) and store.is_thin(end.name)]


def test_the_commands_of_the_readme_report_all_that_is_run(store: Store) -> None:
    """But the permuted masks, which are of no study."""
    run = run_module()
    work = run.scale_jobs()
    commands = re.findall(r"--scale paper ([^`]*?)(?:--out|--csv)", (RESULTS / "README.md").read_text())
    for command in commands:
        options = re.findall(r"--(\w+) (\S+)", command.replace("\\\n", " "))
        assert {f"{name} {value}" for name, value in options} >= set(work.scale.changes), command
    assert len(commands) == 2
    names = ("fig3", "recalibrated-barriers", "noise-causes", "basins", "small-margins", "distant-rounds")
    shown = {job.name for study in studies_named(names) for job in jobs_behind([study.at(work)])}
    for part in (run.copies_jobs, run.causes_jobs, run.ends_jobs, run.distant_jobs):
        for configuration in (STABLE, UNSTABLE):
            assert {job.name for job in part(work, configuration, run.LAST, store)} <= shown, part.__name__


def test_items_of_the_published_scale_are_of_single_runs(store: Store) -> None:
    work = run_module().scale_jobs()
    items = studies_named(["table11"])[0].at(work).items
    assert all(isinstance(item, Measured) and len(item.jobs) == 1 for item in items)
