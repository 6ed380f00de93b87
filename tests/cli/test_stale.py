"""A measure that is edited between two commands, each a process of its own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest

import tombola as tb
from tombola.lab.store import Store

STUDY = """import tombola as tb


def factor() -> float:
    return 1.0


@tb.declare("kept-weights")
def kept_weights(run: tb.Run) -> float:
    return factor() * run.ticket.kept


study = tb.OwnStudy(
    name="mine", recipe={"epochs": 1, "batch_size": 400}, rounds=1, fraction=0.5, measures=["kept-weights"]
)
"""


@pytest.fixture
def tombola(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Runs the command in another process, which must succeed: standard output and standard error."""
    environment = os.environ | {
        "TOMBOLA_STORE": str(tmp_path / "store"), "PYTHONPATH": str(Path(tb.__file__).parents[1])
    }  # fmt: skip

    def run(*arguments: object) -> tuple[str, str]:
        command = [sys.executable, "-m", "tombola.cli", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


def numbers(folder: Path) -> list[float]:
    """The numbers of the measure, as the last report wrote them."""
    rows = csv.DictReader((folder / "mine.csv").open())
    return [float(row["values"]) for row in rows if row["quantity"] == "kept-weights"]


@pytest.mark.long
def test_an_edit_is_told_a_version_is_new_and_recompute_replaces(
    tombola: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(STUDY)
    _, err = tombola("run", file, "--workers", 0)
    assert err == ""
    tombola("report", file, "--out", tmp_path)
    old = numbers(tmp_path)
    assert old[1] == pytest.approx(old[0] / 2, abs=1)

    file.write_text(STUDY.replace("return 1.0", "return 3.0"))
    out, err = tombola("run", file, "--workers", 0)
    assert "nothing to compute" in out
    (line,) = err.splitlines()
    assert line.startswith(
        "tombola: note: kept-weights was edited since 2 results used here were made with it"
    )
    assert line.endswith('--recompute kept-weights or Lab.run(recompute=["kept-weights"])')
    _, err = tombola("report", file, "--out", tmp_path)
    assert err.startswith("tombola: note: kept-weights was edited since 2 results")
    assert numbers(tmp_path) == old
    _, err = tombola("plan", file)
    assert err.startswith("tombola: note: kept-weights was edited since 2 results")
    assert err.count("\n") == 1

    before = set(Store(tmp_path / "store").names())
    raised = STUDY.replace("return 1.0", "return 3.0").replace('weights")', 'weights", version=2)')
    file.write_text(raised)
    out, err = tombola("run", file, "--workers", 0)
    assert "3 jobs were there already, 2 to compute" in out
    assert err == ""
    tombola("report", file, "--out", tmp_path)
    assert numbers(tmp_path) == [3 * value for value in old]
    assert before < set(Store(tmp_path / "store").names())

    file.write_text(STUDY.replace("return 1.0", "return 5.0"))
    out, err = tombola("run", file, "--workers", 1, "--recompute", "kept-weights")
    assert "removed 2 results, made with kept-weights or from such; if this run is interrupted, go on" in out
    assert "3 jobs were there already, 2 to compute" in out
    assert err == ""
    _, err = tombola("report", file, "--out", tmp_path)
    assert err == ""
    assert numbers(tmp_path) == [5 * value for value in old]

    file.write_text(STUDY.replace("return 1.0", "return 7.0"))
    store = Store(tmp_path / "store")
    runs = [name for name in store.names() if store.description(name)["function"] == "train"]
    for name, value in sorted((name, store.numbers(name)["sparsity"]) for name in runs):
        wanted = old[0] if value == 0 else old[1]
        out, err = tombola("measure", "kept-weights", name, "--import", file)
        assert out.splitlines()[1] == f"value: {5 * wanted:g}"
        assert err.startswith(
            "tombola: note: kept-weights was edited since 1 result used here was made with it"
        )
        out, err = tombola("measure", "kept-weights", name, "--import", file, "--recompute")
        assert out.splitlines()[1] == f"value: {7 * wanted:g}"
        assert err == ""


def test_studies_of_the_paper_have_nothing_of_ones_own_to_recompute(tmp_path: Path) -> None:
    command = ("-m", "tombola.cli", "run", "table1", "--recompute", "x", "--store", tmp_path / "s")
    done = forked.run(*command, env=os.environ)
    assert done.returncode == 2
    assert done.stderr == (
        "tombola: --recompute x is for what a file of your own declares; studies of the paper have no such "
        "file\n"
    )
    assert not (tmp_path / "s").exists()
