"""The report on disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tombola.errors import StoreError
from tombola.experiments.paper.printed import comparable_tables
from tombola.experiments.paper.studies import study_named
from tombola.report.gather import Report
from tombola.report.write import write_report
from tombola.table.key import Key
from tombola.table.number import Number, entries_of
from tombola.table.table import Table, read_csv
from tombola.views.exhibit import Exhibit
from tombola.views.picture import Line, Panel, Picture

ACCURACY = Key(
    metric="val_accuracy", network="ResNet-34", dataset="TinyImageNet",
    momentum=0.0, batch_size=256, pretrained=False, sparsity=0.0,
)  # fmt: skip
BARRIER = Key(metric="barrier", over="pairs", network="ResNet-18", dataset="CIFAR-10", sparsity=0.0)
PICTURE = Picture(
    "fig3", "Instability", "Two runs", [Panel("", "position", "error (%)", [Line("one", [0, 1], [2, 3])])]
)
ACCURACIES = [Number(key=ACCURACY, value=value, epochs=20, seed=n) for n, value in enumerate((59.0, 60.0))]
BARRIERS = [Number(key=BARRIER, value=1.5, epochs=20, pair=0)]
TABLE2 = Exhibit(
    name="table2",
    heading="Table 2",
    entries=tuple(entries_of([(ACCURACY, ACCURACIES)])),
    layout=study_named("table2").layout,
    printed=comparable_tables()["table2"],
)
FIG3 = Exhibit(
    name="fig3", heading="Figure 3", entries=tuple(entries_of([(BARRIER, BARRIERS)])), picture=PICTURE
)
REPORT = Report(exhibits=[TABLE2, FIG3], table=Table([*ACCURACIES, *BARRIERS]))


def names(paths: list[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_page_tables_figures_and_claims_are_written(tmp_path: Path) -> None:
    written = write_report(REPORT, tmp_path / "new")
    expected = {f"tables/{study}.{kind}" for study in ("table2", "fig3") for kind in ("csv", "md", "tex")}
    expected |= {f"figures/fig3.{kind}" for kind in ("svg", "png", "pdf")}
    expected |= {"claims.csv", "report.html", "table.csv", "table.json"}
    assert names(written, tmp_path / "new") == expected
    assert sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file()) == sorted(written)
    markdown = (tmp_path / "new/tables/table2.md").read_text(encoding="utf-8")
    assert "59.50 ± 0.71% (paper 59.33%, +0.17)" in markdown
    assert "paper" not in (tmp_path / "new/tables/fig3.md").read_text(encoding="utf-8")


def test_the_whole_table_is_written_with_its_gaps(tmp_path: Path) -> None:
    absent = Number(key=replace(ACCURACY, sparsity=67.23), value=None, state="missing", epochs=20, seed=0)
    report = replace(REPORT, table=Table([*ACCURACIES, absent, *BARRIERS]))
    write_report(report, tmp_path)
    content = read_csv((tmp_path / "table.csv").read_text(encoding="utf-8"))
    assert content.numbers == (*ACCURACIES, absent, *BARRIERS)


def test_the_page_names_the_files_that_are_beside_it_in_every_case(tmp_path: Path) -> None:
    written = names(write_report(REPORT, tmp_path, files=False), tmp_path)
    assert written == {"report.html", "table.csv", "table.json"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "The files table.csv and table.json beside this page" in page


def test_only_the_exhibits_of_the_report_are_written(tmp_path: Path) -> None:
    written = names(write_report(replace(REPORT, exhibits=[TABLE2]), tmp_path), tmp_path)
    assert {name for name in written if "fig" in name} == set()
    assert "tables/table2.csv" in written


def test_a_table_of_which_we_have_nothing_is_left_out(tmp_path: Path) -> None:
    written = names(write_report(replace(REPORT, exhibits=[replace(TABLE2, entries=())]), tmp_path), tmp_path)
    assert written == {"claims.csv", "report.html", "table.csv", "table.json"}


def test_the_board_of_an_earlier_report_is_removed_and_no_other_file(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    stand_ins = replace(REPORT, exhibits=[TABLE2], of_paper=False)
    write_report(stand_ins, tmp_path, files=False)
    assert not (tmp_path / "claims.csv").exists()
    (tmp_path / "claims.csv").write_text("of another kind\n")
    write_report(stand_ins, tmp_path)
    assert (tmp_path / "claims.csv").read_text() == "of another kind\n"


def test_a_report_that_is_not_of_the_paper_has_no_claims(tmp_path: Path) -> None:
    written = names(write_report(replace(REPORT, exhibits=[TABLE2], of_paper=False), tmp_path), tmp_path)
    assert "claims.csv" not in written
    assert "tables/table2.csv" in written


def test_equal_results_give_equal_bytes_however_many_processes_draw(tmp_path: Path) -> None:
    figures = [
        replace(FIG3, name=name, picture=replace(PICTURE, name=name)) for name in ("fig3", "fig1", "fig5")
    ]
    report = replace(REPORT, exhibits=[TABLE2, *figures])
    first, second = (
        write_report(report, tmp_path / str(processes), processes=processes) for processes in (1, 2)
    )
    # Four tables and three figures in three kinds each; the page, the claims and the whole table in two.
    assert len(first) == 4 * 3 + 3 * 3 + 4
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*: ") as caught:
        write_report(REPORT, tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_pandas_and_matplotlib_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, tombola.report.write; "
        "print([name for name in ('matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_process_that_draws_imports_no_torch() -> None:
    code = "import sys, tombola.report.drawing_pool; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
