"""The report of an experiment on disk."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tombola.errors import StoreError
from tombola.report.write import write_report
from tombola.table.table import read_csv

Made = Any


def small(made: Made) -> Made:
    """Two pictures of it are enough."""
    return made.only([one for one in made.numbers if one.key.metric in ("val_accuracy", "convergence")])


def test_every_file_is_written_and_named(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    report = small(made).report()
    files = write_report(report, out)
    parts = ("accuracy", "convergence", "learning-curves", "runs")
    expected = {f"figures/demo-{part}.{kind}" for part in parts for kind in ("svg", "png", "pdf")}
    expected |= {f"tables/demo-{part}.{kind}" for part in parts for kind in ("csv", "md", "tex")}
    expected |= {"table.csv", "table.json", "report.html"}
    assert {path.relative_to(out).as_posix() for path in files} == expected
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(files)
    for path in files:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_numbers_come_back_as_they_were(made: Made, tmp_path: Path) -> None:
    write_report(made.report(), tmp_path, files=True)
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    again = read_csv(text)
    assert [(n.key, n.value, n.seed, n.failed) for n in again] == [
        (n.key, n.value, n.seed, n.failed) for n in made.numbers
    ]
    assert len(list(csv.DictReader(text.splitlines()))) == len(made.numbers)
    rows = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row.get("curve", {}).get("y") for row in rows] == [
        list(n.curve.y) if n.curve else None for n in made.numbers
    ]


def test_the_same_numbers_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    report = small(made).report()
    first, second = (write_report(report, tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_an_earlier_report_is_replaced(made: Made, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("an earlier report")
    write_report(small(made).report(), tmp_path, files=False)
    assert "an earlier report" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "table.csv", "table.json"}


def test_a_folder_that_cannot_be_made_is_one_line(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*table\.csv: ") as caught:
        write_report(small(made).report(), tmp_path / "file" / "out")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(made: Made, tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*table\.csv"):
        write_report(small(made).report(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_matplotlib_is_not_imported_before_a_picture_is_drawn() -> None:
    code = "import sys, tombola.report.write, tombola.report.terminal; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
