"""Writes a report to disk: the page, the whole table, and every exhibit as files of its own."""

from __future__ import annotations

from pathlib import Path

from tombola.atomic import write_whole
from tombola.experiments.claims.all_claims import judge_all
from tombola.experiments.paper.printed import printed_cells
from tombola.report.board import board, board_csv
from tombola.report.drawing import drawn
from tombola.report.figure import KINDS, save_picture
from tombola.report.frame import to_csv
from tombola.report.gather import Report
from tombola.report.latex import to_latex
from tombola.report.markdown import to_markdown
from tombola.report.page import report_html


def write_report(report: Report, folder: Path, *, files: bool = True, processes: int = 1) -> list[Path]:
    """Write ``report.html`` and return the paths of everything written.

    files: whether to write ``table.csv``, every number with its gaps (of experiments of chains
        ``table.json``, too, which also has the courses that numbers sum up);
        ``tables/*.csv``, ``.md`` and ``.tex``
        (with the paper's numbers beside ours), ``figures/*.svg``, ``.png`` and ``.pdf``, and ``claims.csv``
        too. Tables of which we have nothing are left out.
    processes: how many draw at once. More than one are spawned, which a script allows where it runs under
        ``if __name__ == "__main__"``.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to.
    """
    svgs: dict[str, str] = {}
    written: list[Path] = []
    pictures = [exhibit.picture for exhibit in report.exhibits if exhibit.picture]
    with drawn(pictures, KINDS if files else ["svg"], processes) as finished:
        if files:  # while the pictures are drawn
            written.append(_write(folder / "table.csv", report.table.csv()))
            if report.glossary:
                written.append(_write(folder / "table.json", report.table.json()))
            written += _write_tables(report, folder / "tables")
            if report.of_paper:
                rows = board(judge_all(printed_cells()), judge_all(report.cells))
                written.append(_write(folder / "claims.csv", board_csv(rows)))
        for picture, contents in finished:
            svgs[picture.name] = contents["svg"].decode()
            if files:
                written += save_picture(picture, folder / "figures", contents)
    written.append(_write(folder / "report.html", report_html(report, svgs)))
    return written


def _write_tables(report: Report, folder: Path) -> list[Path]:
    """Write the table of every exhibit that has numbers of ours, in three forms; their paths."""
    written = []
    for exhibit in report.exhibits:
        cells, grid = exhibit.cells, exhibit.grid()
        if not cells or grid is None:
            continue
        printed = exhibit.printed or None
        for kind, text in (
            ("csv", to_csv(grid, cells, printed)),
            ("md", to_markdown(grid, cells, printed, report.note)),
            ("tex", to_latex(grid, cells, printed, report.note)),
        ):
            written.append(_write(folder / f"{exhibit.name}.{kind}", text))
    return written


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode(), make_folder=True)
    return path
