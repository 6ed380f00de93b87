"""``tombola compare``: what tells jobs written by hand apart, numbers, curves, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import JobError
from tombola.lab.comparison import comparison
from tombola.lab.results import Packed
from tombola.lab.store import Store
from tombola.report.comparison import columns_of, comparison_picture, write_comparison

CURVES = {"slow": [10.0, 40.0, 60.5], "fast": [10.0, 90.0, 80.25], "lost": [10.0, math.nan, math.nan]}


@pytest.fixture
def written(tmp_path: Path) -> tuple[Store, dict[str, str]]:
    """A store with three trainings and the initialisation behind them, none of which was ever run."""
    store = Store(tmp_path / "store")
    start = tb.job(tb.initialize, "convnet", "digits", seed=3)
    jobs = {
        "slow": tb.job(tb.train, start, "digits", tb.Recipe(epochs=2, momentum=0.0)),
        "fast": tb.job(tb.train, start, "digits", tb.Recipe(epochs=2, lr=0.5)),
        "lost": tb.job(tb.train, start, "digits", tb.Recipe(epochs=2, lr=1e9)),
    }
    provenance = {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.5}
    for name, job in jobs.items():
        rows = [
            {
                "epoch": epoch, "lr": 0.1, "train_loss": math.inf if name == "lost" else 2.0 - epoch,
                "train_accuracy": 50.0, "test_loss": 1.0, "test_accuracy": accuracy,
                "forgetting_events": 0, "seconds": 0.5,
            }
            for epoch, accuracy in enumerate(CURVES[name])
        ]  # fmt: skip
        numbers = {
            "accuracy": 10.0 if name == "lost" else CURVES[name][-1],
            "best_accuracy": max(CURVES[name]),
            "sparsity": 0.0,
            "round": 0,
            "failed": name == "lost",
            "diverged": name == "lost",
            "nonfinite_at_pruning": 0,
        }
        store.publish(job.name, job.description(), Packed(numbers, {}, {}, rows), provenance)
    numbers = {"sparsity": 0.0, "epoch": 0}
    store.publish(start.name, start.description(), Packed(numbers, {}, {}), provenance)
    return store, {name: job.name for name, job in jobs.items()} | {"start": start.name}


def test_runs_stand_side_by_side(written: tuple[Store, dict[str, str]]) -> None:
    store, names = written
    compared = comparison(store, [names["slow"][:10], names["fast"], names["lost"], names["slow"]])
    assert [run.name for run in compared.runs] == [names["slow"], names["fast"], names["lost"]]
    # What one leaves at its default has the default where another has something else.
    assert compared.differing == ("momentum", "lr")
    assert [run.fields["lr"] for run in compared.runs] == [tb.Recipe().lr, 0.5, 1e9]
    assert compared.shared["seed"] == 3
    texts = {column.head: list(column.texts) for column in columns_of(compared)}
    assert texts["test accuracy"] == ["60.50%", "80.25%", "10.00%*"]
    assert texts["best"] == ["60.50%", "90.00%", "10.00%"]
    assert texts["to the first"] == ["", "+19.75", "\N{MINUS SIGN}50.50"]
    assert texts["μ"] == ["0.0", "0.9", "0.9"]


def test_learning_curves_lie_over_one_another(written: tuple[Store, dict[str, str]], tmp_path: Path) -> None:
    store, names = written
    compared = comparison(store, [names["slow"], names["lost"]])
    accuracy, loss = comparison_picture(compared).panels
    assert [line.label[:8] for line in accuracy.lines] == [names["slow"][:8], names["lost"][:8]]
    assert list(accuracy.lines[0].x) == [0, 1, 2]
    assert list(accuracy.lines[0].y) == CURVES["slow"]
    assert list(loss.lines[0].y) == [2.0, 1.0, 0.0]
    # Infinity cannot be drawn.
    assert all(map(math.isnan, loss.lines[1].y))
    page = write_comparison(compared, tmp_path / "page").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert names["lost"] in page
    assert {path.suffix for path in (tmp_path / "page" / "figures").iterdir()} == {".svg", ".png", ".pdf"}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["slow"], "1 training named; compare shows from 2 to 50 different ones"),
        (["slow", "slow"], "1 training named; compare shows from 2 to 50 different ones"),
        ([], "0 trainings named; compare shows from 2 to 50 different ones"),
        (["slow", "start"], "is of 'initialize' and has no learning curve; compare takes trainings"),
    ],
)
def test_what_has_no_learning_curve_is_refused(
    written: tuple[Store, dict[str, str]], chosen: list[str], message: str
) -> None:
    store, names = written
    with pytest.raises(JobError, match=message):
        comparison(store, [names[name] for name in chosen])


def test_a_strangers_text_is_inert_on_the_page(
    written: tuple[Store, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = written
    compared = comparison(store, [names["slow"], names["fast"]])
    compared.runs[1].fields["<b>lr</b>"] = "<script>alert(1)</script>"
    page = write_comparison(compared, tmp_path / "page").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
