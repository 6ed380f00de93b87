"""The report on studies on disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tombola.experiments.cells import Place, by_place, measured
from tombola.report.studies_page import Report
from tombola.report.write_studies import write_studies

from tombola.errors import StoreError
from tombola.views.picture import Line, Panel, Picture

TABLE = Place(
    study="table2", metric="val_accuracy", network="ResNet-34", dataset="TinyImageNet",
    momentum=0.0, batch_size=256, pretrained=False, sparsity=0.0,
)  # fmt: skip
BARRIER = Place(study="fig3", metric="barrier", network="ResNet-18", dataset="CIFAR-10", sparsity=0.0)
PICTURE = Picture(
    "fig3", "Instability", "Two runs", [Panel("", "position", "error (%)", [Line("one", [0, 1], [2, 3])])]
)
REPORT = Report(
    cells=by_place([measured(TABLE, [59.0, 60.0], epochs=20), measured(BARRIER, [1.5], epochs=20)]),
    pictures=[PICTURE],
)


def names(paths: list[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_page_tables_figures_and_claims_are_written(tmp_path: Path) -> None:
    written = write_studies(REPORT, tmp_path / "new")
    expected = {f"tables/{study}.{kind}" for study in ("table2", "fig3") for kind in ("csv", "md", "tex")}
    expected |= {f"figures/fig3.{kind}" for kind in ("svg", "png", "pdf")} | {"claims.csv", "report.html"}
    assert names(written, tmp_path / "new") == expected
    assert sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file()) == sorted(written)
    markdown = (tmp_path / "new/tables/table2.md").read_text(encoding="utf-8")
    assert "59.50 ± 0.71% (paper 59.33%, +0.17, inside)" in markdown
    assert "paper" not in (tmp_path / "new/tables/fig3.md").read_text(encoding="utf-8")


def test_the_page_alone_when_asked(tmp_path: Path) -> None:
    assert names(write_studies(REPORT, tmp_path, files=False), tmp_path) == {"report.html"}
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_only_the_named_studies_are_written(tmp_path: Path) -> None:
    written = names(write_studies(REPORT, tmp_path, ["table2"]), tmp_path)
    assert {name for name in written if "fig" in name} == set()
    assert "tables/table2.csv" in written


def test_equal_results_give_equal_bytes_however_many_processes_draw(tmp_path: Path) -> None:
    report = replace(REPORT, pictures=[replace(PICTURE, name=name) for name in ("fig3", "fig1", "fig5")])
    first, second = (
        write_studies(report, tmp_path / str(processes), processes=processes) for processes in (1, 2)
    )
    assert len(first) == 2 * 3 + 3 * 3 + 2
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*: ") as caught:
        write_studies(REPORT, tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_pandas_and_matplotlib_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, tombola.report.write_studies; "
        "print([name for name in ('matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
