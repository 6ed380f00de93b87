"""The report on studies on disk: the page, and every table and figure as files of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.atomic import write_whole
from tombola.report.board import board, board_csv
from tombola.report.drawing import drawn
from tombola.report.figure import KINDS, save_picture
from tombola.report.frame import to_csv
from tombola.report.latex import to_latex
from tombola.report.layout import grid
from tombola.report.markup import to_markdown
from tombola.report.studies_page import Report, known_studies, studies_html
from tombola.studies.cells import by_study
from tombola.studies.claims.all_claims import judge_all
from tombola.studies.paper.printed import comparable_cells, printed_cells


def write_studies(
    report: Report,
    folder: Path,
    studies: Sequence[str] | None = None,
    *,
    files: bool = True,
    processes: int = 1,
) -> list[Path]:
    """Write ``report.html`` and return the paths of everything written.

    studies: which to show, as for :func:`~tombola.report.studies_page.studies_html`.
    files: whether to write ``tables/*.csv``, ``.md`` and ``.tex`` (with the paper's numbers beside ours),
        ``figures/*.svg``, ``.png`` and ``.pdf``, and ``claims.csv`` too. Tables of which we have nothing are
        left out.
    processes: how many draw at once. More than one are spawned, which a script allows where it runs under
        ``if __name__ == "__main__"``.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to.
    """
    shown = set(studies if studies is not None else known_studies(report))
    svgs: dict[str, str] = {}
    written: list[Path] = []
    pictures = [picture for picture in report.pictures if picture.name in shown]
    with drawn(pictures, KINDS if files else ["svg"], processes) as made:
        if files:  # while the pictures are drawn
            written += _write_tables(report, folder / "tables", shown)
            rows = board(judge_all(printed_cells()), judge_all(report.cells))
            written.append(_write(folder / "claims.csv", board_csv(rows)))
        for picture, contents in made:
            svgs[picture.name] = contents["svg"].decode()
            if files:
                written += save_picture(picture, folder / "figures", contents)
    written.append(_write(folder / "report.html", studies_html(report, svgs, studies)))
    return written


def _write_tables(report: Report, folder: Path, shown: set[str]) -> list[Path]:
    written = []
    ours, theirs = by_study(report.cells), by_study(comparable_cells())
    for study, own in ours.items():
        if study not in shown:
            continue
        printed = theirs.get(study, {})
        table = grid(study, [*printed, *report.places, *own], report.titles.get(study, ""))
        beside = printed or None
        for kind, text in (
            ("csv", to_csv(table, own, beside)),
            ("md", to_markdown(table, own, beside, report.note)),
            ("tex", to_latex(table, own, beside, report.note)),
        ):
            written.append(_write(folder / f"{study}.{kind}", text))
    return written


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode(), make_folder=True)
    return path
