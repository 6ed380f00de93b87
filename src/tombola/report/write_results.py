"""The report on studies on disk: the page, and every table and figure as files of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.report.board import board, board_csv
from tombola.report.draw import draw, save_picture
from tombola.report.frame import to_csv
from tombola.report.layout import grid
from tombola.report.markup import to_latex, to_markdown
from tombola.report.results import Results, known_studies, results_html
from tombola.report.svg import svg_text
from tombola.studies.claims.board import judge_all
from tombola.studies.paper.printed import printed_cells
from tombola.whole import write_whole


def write_results(
    results: Results, folder: Path, studies: Sequence[str] | None = None, *, files: bool = True
) -> list[Path]:
    """Write ``report.html`` and return the paths of everything written.

    studies: which to show, as for :func:`~tombola.report.results.results_html`.
    files: whether to write ``tables/*.csv``, ``.md`` and ``.tex`` (with the paper's numbers beside ours),
        ``figures/*.svg``, ``.png`` and ``.pdf``, and ``claims.csv`` too. Tables of which we have nothing are
        left out.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to.
    """
    shown = set(studies if studies is not None else known_studies(results))
    svgs: dict[str, str] = {}
    written: list[Path] = []
    for picture in results.pictures:
        if picture.name in shown:
            figure = draw(picture)
            svgs[picture.name] = svg_text(figure)
            if files:
                written += save_picture(picture, folder / "figures", figure, svg=svgs[picture.name])
    if files:
        written += _write_tables(results, folder / "tables", shown)
        rows = board(judge_all(printed_cells()), judge_all(results.cells))
        written.append(_write(folder / "claims.csv", board_csv(rows)))
    written.append(_write(folder / "report.html", results_html(results, svgs, studies)))
    return written


def _write_tables(results: Results, folder: Path, shown: set[str]) -> list[Path]:
    written = []
    theirs = printed_cells()
    for study in dict.fromkeys(place.study for place in results.cells if place.study in shown):
        printed = {place: cell for place, cell in theirs.items() if place.study == study}
        table = grid(study, [*printed, *results.cells])
        beside = printed or None
        for kind, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
            written.append(_write(folder / f"{study}.{kind}", write(table, results.cells, beside)))
    return written


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode(), make_folder=True)
    return path
