"""``--json`` of every command that prints a table: what docs/json.md promises, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import tombola as tb
from tombola.cli.console import write_json
from tombola.cli.main import COMMANDS
from tombola.lab.store import Store
from tombola.table.table import COLUMNS, REAL, TRUTH, WHOLE

Result = tuple[int, str, str]
_GUIDE = Path(__file__).parents[2] / "docs" / "json.md"
# One configuration of one pair: all of them take seconds.
_ONE = ("--configs", "0.0/256", "--pairs", "R18/C10")
_WITHOUT = {"export", "convert", "import", "push", "pull", "track", "watch"}
_TYPES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "whole": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "truth": lambda value: isinstance(value, bool),
    "scalar": lambda value: isinstance(value, str | int | float),
    "any": lambda value: True,
}


def _schemas() -> dict[str, Any]:
    blocks = re.findall(r'```json title="(\S+)"\n(.*?)```', _GUIDE.read_text(), re.DOTALL)
    return {name: json.loads(block) for name, block in blocks}


def _refused(token: str) -> NoReturn:
    raise AssertionError(f"{token} is no JSON")


def _check(value: Any, schema: Any, where: str) -> None:
    """Compare a value with its description: the same fields, and values of their types."""
    if isinstance(schema, str):
        optional = schema.endswith("?") and value is None
        assert optional or _TYPES[schema.removesuffix("?")](value), f"{where} is {value!r}, not {schema}"
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for place, item in enumerate(value):
            _check(item, schema[0], f"{where}[{place}]")
    else:
        assert isinstance(value, dict), where
        types = {name.removesuffix("?"): kind for name, kind in schema.items() if name != "*"}
        if "*" in schema:
            types = dict.fromkeys(value, schema["*"]) | types
        optional_names = {name[:-1] for name in schema if name.endswith("?")}
        assert types.keys() - optional_names <= value.keys() <= types.keys(), where
        for name, item in value.items():
            _check(item, types[name], f"{where}.{name}")


@pytest.fixture
def told(tombola: Callable[..., Result]) -> Callable[..., Any]:
    """Runs a command with --json and compares what it prints with its block in the guide."""

    def run(name: str, *arguments: object, code: int = 0, store: Store | None = None) -> Any:
        place = ["--store", store.root] if store else []
        returned, out, err = tombola(*arguments, *place, "--json")
        assert returned == code, err
        assert out.isascii()
        value = json.loads(out, parse_constant=_refused)
        _check(value, _schemas()[name], name)
        return value

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, list[tb.Job]]:
    """A store with two short trainings, a barrier between them, and one training that diverges."""
    lab = tb.Lab(tmp_path_factory.mktemp("json") / "store")
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    rates = (0.1, 0.2, 1e30)
    jobs = [tb.job(tb.train, start, "digits", tb.Recipe(epochs=1, batch_size=400, lr=lr)) for lr in rates]
    jobs.append(tb.job(tb.barrier, jobs[0], jobs[1], "digits", points=3))
    lab.run(jobs).raise_failures()
    return lab, jobs


def test_what_the_store_holds(told: Callable[..., Any], store: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, (slow, fast, diverged, barrier) = store
    listed = told("ls", "ls", store=lab.store)
    assert {job["name"] for job in listed["jobs"]} == set(lab.store.names())
    shown = told("show", "show", barrier.name, store=lab.store)
    assert {ancestor["name"] for ancestor in shown["ancestors"]} == set(lab.store.names()) - {
        barrier.name,
        diverged.name,
    }
    assert told("show", "show", diverged.name, store=lab.store)["history"][1]["train_loss"] is None
    told("diff", "diff", slow.name, fast.name, store=lab.store)
    compared = told("compare", "compare", slow.name, fast.name, diverged.name, store=lab.store)
    assert compared["differing"] == ["lr"]
    assert [run["fields"] for run in compared["runs"]] == [{"lr": lr} for lr in (0.1, 0.2, 1e30)]
    assert [run["failed"] for run in compared["runs"]][2] is True
    assert compared["runs"][0]["numbers"]["val_accuracy"] == lab.result(slow).accuracy


def test_files_and_measures(
    told: Callable[..., Any], store: tuple[tb.Lab, list[tb.Job]], tmp_path: Path
) -> None:
    lab, (slow, _, _, barrier) = store
    lab.result(slow).ticket.save(tmp_path / "ticket.safetensors")
    told("show-file", "show", tmp_path / "ticket.safetensors")
    measured = told(
        "measure",
        "measure",
        "barrier",
        slow.name,
        store[1][1].name,
        "--data",
        "digits",
        "--points",
        3,
        store=lab.store,
    )
    assert (measured["job"], measured["failed"]) == (barrier.name, lab.result(barrier).failures())
    assert measured["numbers"]["height"] == lab.result(barrier).height
    undefined = told("measure", "measure", "margins", store[1][2].name, "--data", "digits", store=lab.store)
    assert undefined["failed"] == "the run diverged, so there is no margin of it"
    assert undefined["numbers"] == {}
    figure = tmp_path / "slice.png"
    options = ("--data", "digits", "--points", 3, "--directions", 2, "--figure", figure)
    told("measure", "measure", "slice", store[1][1].name, *options, store=lab.store)
    assert figure.read_bytes().startswith(b"\x89PNG")
    listed = told("ls", "ls", store=lab.store)
    assert listed["damaged"] == []
    assert [job["result"] for job in listed["jobs"] if job["function"] == "slice"] == [
        "surface of 3 by 3 positions on the test images"
    ]


def test_the_state_of_a_store(
    told: Callable[..., Any], store: tuple[tb.Lab, list[tb.Job]], tmp_path: Path
) -> None:
    lab, (slow, _, _, barrier) = store
    shutil.copytree(lab.store.root, tmp_path / "store")  # that of the command
    told("gc", "gc", "--keep", "tickets")
    told("doctor", "doctor")
    upgrades = told("upgrades", "upgrades")
    assert {slow.name, barrier.name} <= {*upgrades["valid"]["names"]}
    assert told("rm", "rm", slow.name)["orphans"] == [barrier.name]
    assert told("verify", "verify")["damaged"] == []
    (Store(tmp_path / "store").folder(slow.name) / "result.json").write_text("{}")
    damaged = told("verify", "verify", code=2)["damaged"]
    assert [Path(item["place"]).name for item in damaged] == [slow.name]


def test_the_paper(told: Callable[..., Any], store: tuple[tb.Lab, list[tb.Job]]) -> None:
    told("studies", "studies", "--scale", "tiny", *_ONE)
    assert told("plan", "plan", "table2", "--scale", "tiny")["experiments"][0]["name"] == "table2"
    assert len(told("claims", "claims", *_ONE, store=store[0].store)["claims"]) >= 61


def test_work(told: Callable[..., Any], tombola: Callable[..., Result], tmp_path: Path) -> None:
    chain = told("imp", "imp", "--rounds", 1, "--epochs", 1, "--recipe.batch-size", 400, "--device", "cpu")
    assert [row["round"] for row in chain["rounds"]] == [0, 1]
    shelved = told("shelf", "shelf", "--source", tmp_path / "store")["tickets"]
    assert [ticket["sparsity"] for ticket in shelved] == [chain["rounds"][1]["sparsity"]]
    told("upgrades", "upgrades", "--device", "cpu")
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\nnetworks = ["convnet"]\ndata = ["digits"]\nrounds = 1\nseeds = 1\n'
        "[recipe]\nepochs = 1\nbatch_size = 400\n"
    )
    ran = told("run", "run", own, "--workers", 0)
    assert {*ran["computed"], *ran["finished_before"]} >= {chain["rounds"][0]["job"]}
    (experiment,) = ran["experiments"]
    assert experiment["name"] == "own"
    assert experiment["jobs"] == experiment["finished"] > 0
    numbers = ran["numbers"]
    assert {number["metric"] for number in numbers if "curve" in number} >= {"val_accuracy"}
    code, out, _ = tombola("table", own, "--json")
    assert (code, json.loads(out)) == (0, numbers)
    report = told("report", "report", own, "--out", tmp_path / "out", "--page-only")
    assert Path(report["report"]).exists()


def test_predictors(told: Callable[..., Any], tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\nnetworks = ["convnet"]\ndata = ["digits"]\nrounds = 1\nseeds = 1\n'
        "[recipe]\nepochs = 1\nbatch_size = [200, 400, 800]\nlr = [0.1, 0.2]\n"
    )
    told("run", "run", own, "--workers", 0)
    rows = told("predictors", "predictors", own)
    assert [row["lr"] for row in rows if row["metric"] == "gain"] == [0.1, 0.2] * 3
    noises = [row["batch_size"] * row["value"] / row["lr"] for row in rows if row["metric"] == "candidate"]
    assert noises == pytest.approx([1 / (1 - 0.9)] * 6)  # the default momentum
    correlations = {row["metric"]: row["value"] for row in rows if row["metric"].startswith("spearman")}
    assert correlations["spearman_low"] <= correlations["spearman"] <= correlations["spearman_high"]


def test_the_shelf(told: Callable[..., Any], tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "tickets")
    ticket = tb.job(tb.prune, tb.job(tb.initialize, "convnet", "digits"), fraction=0.5)
    lab.run(ticket).raise_failures()
    [entry] = told("shelf", "shelf", "--source", lab.store.root)["tickets"]
    assert (entry["job"], entry["sparsity"], entry["start"]) == (ticket.name, 0.5, "there")


def test_every_command_with_a_table_is_in_the_guide() -> None:
    listed = {name for name in COMMANDS if f"`{name}`" in _GUIDE.read_text().split("In the blocks")[0]}
    assert listed == COMMANDS.keys()
    # demo prints what run does, table what docs/table.md says.
    elsewhere = {"demo", "table"}
    assert {name.removesuffix("-file") for name in _schemas()} == COMMANDS.keys() - _WITHOUT - elsewhere


def test_the_numbers_of_a_run_have_the_columns_of_the_table_with_their_types() -> None:
    (number,) = _schemas()["run"]["numbers"]
    types = {name.removesuffix("?"): kind for name, kind in number.items()}
    assert types.pop("*") == "scalar?"  # further axes
    assert types.pop("curve") == {"x": ["number"], "y": ["number?"]}
    columns = dict.fromkeys(COLUMNS, "text")
    columns |= dict.fromkeys(WHOLE, "whole") | dict.fromkeys(REAL, "number") | dict.fromkeys(TRUTH, "truth")
    assert types == columns


def test_gaps_and_undefined_numbers_fit_the_guide(
    store: tuple[tb.Lab, list[tb.Job]], tombola: Callable[..., Result]
) -> None:
    lab, (_, _, diverged, _) = store
    lab.run(tb.job(tb.margins, diverged, "digits")).raise_failures()
    _, out, _ = tombola("table", "--store", lab.store.root, "--json")
    gone = tb.Lab(lab.store.root).table([tb.job(tb.margins, tb.job(tb.prune, diverged), "digits")]).records()
    numbers = [*json.loads(out), *gone]
    assert {number["state"] for number in numbers} == {"measured", "undefined", "missing"}
    _check(numbers, _schemas()["run"]["numbers"], "table")


def test_numbers_that_json_has_no_token_for_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"values": (float("nan"), [float("inf")], 1.5), "text": "\x1b[2J\u202e"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"values": [None, [None], 1.5], "text": "\x1b[2J\u202e"}
    assert out.isascii()
    assert "\x1b" not in out
