"""tombola push and pull against a hub on loopback, as they are typed."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola import cli
from tombola.table.table import read_csv

Command = Callable[..., str]

EXPERIMENT = """
networks = ["convnet"]
data = ["digits"]
rounds = 1
fraction = 0.5
seeds = 1
[recipe]
epochs = 1
batch_size = 600
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, tb.Job]:
    """A lab with one finished training."""
    lab = tb.Lab(tmp_path_factory.mktemp("commands") / "store")
    start = tb.job(tb.initialize, "convnet", "digits")
    job = tb.job(tb.train, start, "digits", tb.Recipe(epochs=1, batch_size=600, momentum=0.0))
    lab.run(job).raise_failures()
    return lab, job


@pytest.fixture
def tombola(
    trained: tuple[tb.Lab, tb.Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs the command in an empty folder; what it prints, or its one line where it refuses."""
    monkeypatch.setenv("TOMBOLA_STORE", str(trained[0].store.root))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["tombola", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit:
            line = capsys.readouterr().err
            assert re.fullmatch(r"tombola: [^\n]+\n", line), line
            return line.removeprefix("tombola: ").rstrip()
        return capsys.readouterr().out

    return run


def test_a_job_is_pushed_with_all_that_the_store_knows_and_pulled(
    hub: Any, tombola: Command, trained: tuple[tb.Lab, tb.Job], tmp_path: Path
) -> None:
    lab, job = trained
    shown = tombola("push", job.name[:10], "me/x", "--dry-run", "--private", "--license", "mit")
    assert (hub.asked, hub.repositories) == ([], {})
    assert re.search(r"run\.safetensors +[\d,]+ bytes", shown)
    assert f"would be pushed to {hub.address}/me/x (private); nothing was uploaded. Its card:" in shown
    for line in ("| data | digits |", "| momentum | 0.0 |", f"| job | {job.name} |", "| device | cpu |"):
        assert line in shown
    assert "mean = torch.tensor(" in shown
    # Where it was computed is nobody's business.
    assert lab.store.provenance(job.name)["host"] not in shown
    pushed = tombola("push", job.name[:10], "me/x")
    [commit] = hub.repositories["model", "me/x"].commits
    assert f"pushed to {hub.address}/me/x, revision {commit}" in pushed
    assert f"from me/x, revision {commit}" in tombola("pull", "me/x")
    assert tb.Run.load(tmp_path / "x.safetensors").fingerprint == lab.result(job).fingerprint
    assert f"pulled from: me/x, revision {commit}" in " ".join(tombola("show", "x.safetensors").split())
    assert tombola("pull", "me/x") == "x.safetensors is there already; say which file to write"
    # A file by itself, of a ticket.
    lab.result(job).ticket.save(tmp_path / "ticket.safetensors")
    assert "# again\n" in tombola("push", "ticket.safetensors", "me/again", "--dry-run")
    told = tombola("pull", "me/x", "again.safetensors", "--revision", commit)
    assert told.startswith("again.safetensors: <run of convnet: ")


def test_an_experiment_is_pushed_as_a_data_set_and_pulled(hub: Any, tombola: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(EXPERIMENT)
    assert "numbers.parquet" in tombola("push", "mine.toml", "me/numbers")
    assert hub.repositories.keys() == {("dataset", "me/numbers")}
    card = hub.files("me/numbers", "dataset")["README.md"].decode()
    assert "convnet on digits, trained for 1 epoch" in card
    told = tombola("pull", "datasets/me/numbers")
    table = read_csv((tmp_path / "numbers.csv").read_text())
    assert f"numbers.csv: {len(table)} numbers" in told
    assert f"{len(table)} missing" in card
    assert {number.state for number in table} == {"missing"}
    assert (
        tombola("pull", "datasets/me/numbers", "numbers.parquet")
        == "a table is written as .csv or .json; numbers.parquet is neither"
    )
    tombola("pull", "datasets/me/numbers", "numbers.json")
    assert len(json.loads((tmp_path / "numbers.json").read_text())) == len(table)


def test_what_cannot_be_pushed_or_pulled_is_told(hub: Any, tombola: Command) -> None:
    assert tombola("push", "fedcba98", "me/x").startswith("no job in ")
    assert (
        tombola("push", "mine.toml", "me/x")
        == "no file 'mine.toml'; give an experiment of your own that exists"
    )
    assert (
        tombola("push", "fedcba98", "me//x")
        == "'me//x' is no name of a repository; give user/name, such as me/x"
    )
    assert tombola("pull", "me/none").startswith(
        f"no repository 'me/none' on {hub.address}, or it is private"
    )
