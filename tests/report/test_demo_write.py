"""The report on disk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tombola.errors import StoreError
from tombola.report.demo_write import write_report

FIGURES = ("accuracy_by_sparsity", "interpolation", "barriers", "training_curves")


def test_every_file_is_written_and_named(summary: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    files = write_report(summary, out)
    expected = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert {path.relative_to(out).as_posix() for path in files} == expected | {"summary.json", "report.html"}
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(files)
    for path in files:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_summary_comes_back_as_it_was(summary: dict[str, Any], tmp_path: Path) -> None:
    summary["dense"][0]["convergence"] = None
    summary["rows"][3]["accuracy_std"] = None
    write_report(summary, tmp_path)
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text) == summary
    assert list(json.loads(text)) == list(summary)


def test_the_same_summary_gives_the_same_bytes(summary: dict[str, Any], tmp_path: Path) -> None:
    first = write_report(summary, tmp_path / "first")
    second = write_report(summary, tmp_path / "second")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_an_earlier_report_is_replaced(summary: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("an earlier report")
    write_report(summary, tmp_path)
    assert "an earlier report" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    summary["dense"][0]["barrier"] = math.nan
    with pytest.raises(ValueError, match="JSON compliant"):
        write_report(summary, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(summary: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*summary\.json: ") as caught:
        write_report(summary, tmp_path / "file" / "out")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*summary\.json"):
        write_report(summary, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_matplotlib_is_not_imported_before_a_picture_is_drawn() -> None:
    code = "import sys, tombola.report.demo_write, tombola.report.table; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
