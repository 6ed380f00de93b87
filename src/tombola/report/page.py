"""The report as one HTML page: tables, figures and claims beside the paper's, and what is missing.

Everything comes as data: exhibits, what is missing and what it costs, and where the numbers come from. The
page has no script and loads nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from tombola.experiments.claims.quantities import Comparison
from tombola.experiments.paper.settings import EPOCHS
from tombola.measures.limits import STABLE_BELOW
from tombola.report.board import Row, counts
from tombola.report.cell_text import (
    INSIDE_SIGNS,
    CellText,
    cell_text,
    difference_text,
    undefined_text,
    usual_runs,
)
from tombola.report.figure import Sample, inline_svg, legend_of
from tombola.report.gather import Report
from tombola.report.markdown import table_note
from tombola.report.template import template
from tombola.table.compare import SideBySide, side_by_side
from tombola.table.key import Key
from tombola.table.number import Cell, many
from tombola.views.exhibit import Exhibit
from tombola.views.layout import NAMES, Grid
from tombola.views.origin import mixtures
from tombola.views.picture import Picture

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Slot:
    """One cell of a table on the page with the paper's number below it; a gap where ours is None."""

    ours: CellText | None
    paper: CellText | None
    difference: str
    inside: str


@dataclass(frozen=True)
class Sheet:
    """A table on the page: headings line by line, and rows of heads and slots.

    has_printed: whether the paper prints numbers that stand below ours.
    """

    names: list[str]
    columns: list[list[str]]
    rows: list[tuple[list[str], list[Slot | None]]]
    note: str
    has_printed: bool


@dataclass(frozen=True)
class Article:
    """One table or figure of the page.

    extent: how much of it there is, for the contents.
    legend: of the picture, in words for narrow screens, where its own would be cut.
    findings: what its numbers say, in sentences.
    notes: what was noted with its cells.
    unprinted: whether the paper prints no numbers for it.
    left_out: why it is not shown; empty if it is.
    """

    name: str
    experiment: str
    anchor: str
    heading: str
    extent: str
    sheet: Sheet | None
    picture: Picture | None
    svg: Markup | None
    legend: Sequence[Sample]
    caption: str
    mixtures: list[str]
    findings: Sequence[str]
    notes: list[str]
    unprinted: bool
    left_out: str


@dataclass(frozen=True)
class Judged:
    """A claim on the page, with the comparisons behind our verdict."""

    row: Row
    comparisons: Sequence[tuple[str, Comparison]]


def report_html(report: Report, svgs: Mapping[str, str]) -> str:
    """The report as one HTML page.

    svgs: the drawn pictures as SVG files, by the names of their exhibits.
    """
    names = [exhibit.name for exhibit in report.exhibits]
    anchors = {name: f"s{place}_{re.sub('[^A-Za-z0-9]', '_', name)}" for place, name in enumerate(names)}
    articles = [_article(exhibit, anchors[exhibit.name], svgs, report) for exhibit in report.exhibits]
    claims = [
        Judged(row, verdict.comparisons) for row, verdict in zip(report.board, report.verdicts, strict=True)
    ]
    return template("page").render(
        title=report.title,
        lead=report.lead,
        budget=report.budget,
        note=report.note,
        groups=_groups(articles),
        anchors=anchors,
        claims=claims,
        counts=counts(report.board),
        missing=report.missing,
        together=report.missing_together,
        provenance=report.provenance,
        glossary=report.glossary,
        stable_below=f"{STABLE_BELOW:g}",
        full_budget=EPOCHS,
        of_paper=report.of_paper,
    )


def _article(exhibit: Exhibit, anchor: str, svgs: Mapping[str, str], report: Report) -> Article:
    from markupsafe import Markup

    own, picture, table = exhibit.cells, exhibit.picture, exhibit.grid()
    computed = {*own, *exhibit.undefined}
    expected = [entry.key for entry in exhibit.entries] or list(exhibit.printed)
    svg = None
    if picture and exhibit.name in svgs:
        # matplotlib escapes what it is given, and the title is escaped here.
        svg = Markup(inline_svg(svgs[exhibit.name], anchor, escape(exhibit.title or exhibit.heading)))
    return Article(
        name=exhibit.name,
        experiment=exhibit.experiment,
        anchor=anchor,
        heading=exhibit.full_title,
        extent="not at this scale" if exhibit.left_out else _extent(computed, expected, picture),
        sheet=_sheet(table, own, exhibit.printed, exhibit.undefined) if table else None,
        picture=picture,
        svg=svg,
        legend=legend_of(picture) if picture and svg else (),
        caption=f"{picture.caption.removesuffix('.')}." if picture else "",
        mixtures=mixtures(own, exhibit.origins),
        notes=[
            *_notes("Paper", [cell.note for cell in exhibit.printed.values()]),
            *_notes("Ours", [*(cell.note for cell in own.values()), *_undefined_notes(exhibit)]),
        ],
        unprinted=report.of_paper and not exhibit.printed,
        findings=report.findings.get(exhibit.name, ()),
        left_out=exhibit.left_out,
    )


def _undefined_notes(exhibit: Exhibit) -> Iterator[str]:
    """Of each cell whose numbers are all undefined what is noted with them."""
    for entry in exhibit.entries:
        if entry.undefined:
            yield "; ".join(dict.fromkeys(number.note for number in entry.numbers if number.note))


def _notes(whose: str, notes: Iterable[str]) -> list[str]:
    """The different notes of some cells, each with the number of cells that have it."""
    counted = Counter(filter(None, notes))
    return [
        f"{whose}, {count} cell{'s' * (count != 1)}: {note.removesuffix('.')}."
        for note, count in counted.items()
    ]


def _extent(own: Collection[Key], expected: Collection[Key], picture: Picture | None) -> str:
    """How much of an exhibit is computed: so many of its cells, or of its lines where it has no cells."""
    panels = picture.panels if picture else ()
    lines = sum(len(panel.lines) for panel in panels)
    if not own and not lines:
        return "not computed yet"
    if expected:
        return f"{sum(key in own for key in expected)} of {many(len(expected), 'cell')}"
    begun = sum(len(panel.begun) for panel in panels)
    return f"{lines - begun} of {many(lines + sum(len(panel.absent) for panel in panels), 'line')}"


def _sheet(
    table: Grid, own: Mapping[Key, Cell], printed: Mapping[Key, Cell], undefined: Mapping[Key, bool]
) -> Sheet:
    """The table of an exhibit with our cells and the paper's."""
    runs = usual_runs(own.values())
    comparisons = {row.key: row for row in side_by_side(own, printed)}
    return Sheet(
        names=[NAMES.get(name, name) for name in table.row_names],
        columns=[table.column_heads(column) for column in table.columns],
        rows=[
            (
                table.row_heads(row),
                [
                    _slot(table.keys.get((row, column)), comparisons, runs, undefined)
                    for column in table.columns
                ],
            )
            for row in table.rows
        ],
        note=table_note(table, own, undefined=undefined),
        has_printed=bool(printed),
    )


def _slot(
    key: Key | None,
    comparisons: Mapping[Key, SideBySide],
    runs: int | None,
    undefined: Mapping[Key, bool],
) -> Slot | None:
    """A cell of the table; None where the layout has none."""
    if key is None:
        return None
    comparison = comparisons.get(key)
    no_value = undefined_text(undefined[key]) if key in undefined else None
    if comparison is None:
        return Slot(no_value, None, "", "")
    return Slot(
        cell_text(comparison.ours, runs) if comparison.ours else no_value,
        cell_text(comparison.theirs) if comparison.theirs else None,
        difference_text(comparison),
        INSIDE_SIGNS[comparison.inside],
    )


def _groups(articles: Sequence[Article]) -> list[tuple[str, list[Article]]]:
    """Articles under the headings of the page; a heading with nothing under it is left out.

    Those of several experiments of chains stand under the name of each.
    """
    experiments = dict.fromkeys(article.experiment for article in articles)
    if len(experiments) > 1 and all(experiments):
        return [(name, [a for a in articles if a.experiment == name]) for name in experiments]
    groups: dict[str, list[Article]] = {"Tables": [], "Figures": [], "Further studies": []}
    for article in articles:
        kind = re.fullmatch(r"(table|fig)\d+", article.name)
        heading = {"table": "Tables", "fig": "Figures"}[kind[1]] if kind else "Further studies"
        groups[heading].append(article)
    if not groups["Tables"] and not groups["Figures"]:
        return [("Results", groups["Further studies"])]
    return [(heading, listed) for heading, listed in groups.items() if listed]
