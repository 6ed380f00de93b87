"""The folder of results says what its store holds."""

import csv
import importlib.util
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tombola.lab.exchange import import_
from tombola.lab.store import Store

FOLDER = Path(__file__).parents[1] / "results"


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("show", FOLDER / "show.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Pictures are as their points; drawing them takes the time.
    monkeypatch.setattr(module, "picture_files", lambda *_: {})
    yield module
    del sys.modules["cifar10"]


def test_every_number_comes_from_the_store_beside_it(show: ModuleType, tmp_path: Path) -> None:
    store, out = Store(tmp_path / "store"), tmp_path / "out"
    import_(store, FOLDER / "store.zip")
    show.main(store.root, out)
    kept = {path.relative_to(FOLDER) for path in FOLDER.rglob("*.csv")}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == kept
    for path in kept:
        if "figure" in path.name:
            assert all((FOLDER / path).with_suffix(kind).exists() for kind in (".svg", ".png"))
        assert (out / path).read_text() == (FOLDER / path).read_text(), path


def test_a_mean_is_that_of_the_runs_beside_it() -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (FOLDER / name).open() as file:
            keys = {"momentum": "0.0", "batch_size": "256", "weight_decay": "0.0005"}
            return [row for row in csv.DictReader(file) if keys.items() <= row.items()]

    runs = rows("runs.csv")
    assert len(runs) == 3
    for row in rows("table08.csv"):
        values = [float(run[row["metric"]]) for run in runs]
        assert float(row["ours"]) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert float(row["ours_std"]) == pytest.approx(statistics.stdev(values), abs=1e-3)
