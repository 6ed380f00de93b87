"""Writes a report to disk: the page, the whole table, and every exhibit as files of its own."""

from __future__ import annotations

from pathlib import Path

from tombola.disk import write_whole
from tombola.report.board import board_csv
from tombola.report.drawing_pool import drawn
from tombola.report.figure import KINDS, save_picture
from tombola.report.frame import to_csv
from tombola.report.gather import Report
from tombola.report.latex import to_latex
from tombola.report.markdown import to_markdown
from tombola.report.page import report_html
from tombola.untrusted import read_regular


def write_report(report: Report, folder: Path, *, files: bool = True, processes: int = 1) -> list[Path]:
    """Write the page and the whole table, and return the paths of everything written.

    The page is ``report.html``. ``table.csv`` and ``table.json`` hold every number with its gaps, the latter
    with the courses that numbers sum up. A board ``claims.csv`` of an earlier report is removed where claims
    are not judged.

    files: whether to write ``tables/*.csv``, ``.md`` and ``.tex`` (with the paper's numbers beside ours),
        ``figures/*.svg``, ``.png`` and ``.pdf``, and ``claims.csv``, too. Tables of which we have nothing are
        left out.
    processes: how many draw at once. More than one are spawned, which a script allows where it runs under
        ``if __name__ == "__main__"``.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to.
    """
    svgs: dict[str, str] = {}
    written: list[Path] = []
    pictures = [exhibit.picture for exhibit in report.exhibits if exhibit.picture]
    with drawn(pictures, KINDS if files else ["svg"], processes) as finished:
        # While the pictures are drawn.
        written.append(_write(folder / "table.csv", report.table.csv()))
        written.append(_write(folder / "table.json", report.table.json()))
        if files:
            written += _write_tables(report, folder / "tables")
        if not report.of_paper:
            _remove_board(folder / "claims.csv")
        elif files:
            written.append(_write(folder / "claims.csv", board_csv(report.board)))
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
        cells, grid, undefined = exhibit.cells, exhibit.grid(), exhibit.undefined
        if not (cells or undefined) or grid is None:
            continue
        printed = exhibit.printed or None
        for kind, text in (
            ("csv", to_csv(grid, cells, printed, undefined)),
            ("md", to_markdown(grid, cells, printed, report.note, undefined)),
            ("tex", to_latex(grid, cells, printed, report.note, undefined)),
        ):
            written.append(_write(folder / f"{exhibit.name}.{kind}", text))
    return written


def _remove_board(path: Path) -> None:
    """Remove the claims board of an earlier report; a file of other content stays."""
    try:
        if read_regular(path, follow=True).decode().startswith(board_csv(())):
            path.unlink()
    except (OSError, ValueError):  # not there, or nothing that a report wrote
        return


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode(), make_folder=True)
    return path
