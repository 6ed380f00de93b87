"""The report on studies as one HTML page: tables, figures and claims beside the paper's, and what is missing.

Everything comes as data: cells, pictures, what is missing and what it costs, and where the numbers come from.
The page has no script and loads nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from tombola.report.board import Row, board, counts
from tombola.report.entry import Entry, difference_text, entry, usual_runs
from tombola.report.figure import inline_svg
from tombola.report.layout import NAMES, Grid, column_texts, grid, spoken, value_text
from tombola.report.markup import table_note
from tombola.report.origin import Origin, mixtures
from tombola.report.template import template
from tombola.studies.cells import Cell, Place
from tombola.studies.claims.all_claims import judge_all
from tombola.studies.claims.numbers import Comparison
from tombola.studies.paper.printed import EPOCHS, comparable_cells, printed_cells
from tombola.studies.picture import Picture
from tombola.studies.side_by_side import SideBySide, side_by_side

if TYPE_CHECKING:
    from markupsafe import Markup

PAPER_STUDIES = tuple(f"{kind}{number}" for kind in ("table", "fig") for number in range(1, 24))
"""The paper's tables and figures by name, in its order."""

_INSIDE = {None: "", True: "✓", False: "✗"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    cells: our numbers, of all studies that have some, shown or not; claims are judged on them.
    places: of all cells that belong to our studies, finished or not; what is unfinished shows as a gap.
    titles: of the studies, by name.
    pictures: the figures, as far as anything of them is known.
    missing: studies that are not finished, with the jobs and the epochs of training that each still needs.
    missing_together: the same for all of them; what they share counts once.
    provenance: names and texts, such as ``{"torch": "2.9.0"}``.
    origins: what the runs behind each cell were made with.
    left_out: studies that are not shown at this scale, and why.
    budget: how long and how often is trained.
    note: a warning about all of it, such as that a scale proves only the machinery.
    """

    cells: Mapping[Place, Cell]
    places: Sequence[Place] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    missing: Sequence[tuple[str, int, int]] = ()
    missing_together: tuple[int, int] = (0, 0)
    provenance: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[Place, Collection[Origin]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    budget: str = ""
    note: str = ""


@dataclass(frozen=True)
class Slot:
    """One cell of a table on the page, with the paper's below it; without ours it is a gap."""

    ours: Entry | None
    paper: Entry | None
    difference: str
    inside: str


@dataclass(frozen=True)
class Sheet:
    """A table on the page: headings line by line, and rows of heads and slots."""

    names: list[str]
    columns: list[list[str]]
    rows: list[tuple[list[str], list[Slot | None]]]
    note: str
    beside: bool


@dataclass(frozen=True)
class Exhibit:
    """One table or figure of the page.

    found: how much of it there is, for the contents.
    notes: what was noted with its cells.
    unprinted: whether the paper prints no numbers for it.
    left_out: why it is not shown; empty if it is.
    """

    name: str
    anchor: str
    heading: str
    found: str
    sheet: Sheet | None
    picture: Picture | None
    svg: Markup | None
    caption: str
    mixtures: list[str]
    notes: list[str]
    unprinted: bool
    left_out: str


@dataclass(frozen=True)
class Judged:
    """A claim on the page, with the comparisons behind our verdict."""

    row: Row
    comparisons: Sequence[tuple[str, Comparison]]


def studies_html(report: Report, svgs: Mapping[str, str], studies: Sequence[str] | None = None) -> str:
    """The whole page.

    svgs: the drawn pictures as SVG files, by their names.
    studies: which to show, in order; by default all of the paper and then whatever else there is. Claims are
        judged on all cells in any case.
    """
    theirs = comparable_cells()
    shown = list(studies) if studies is not None else known_studies(report)
    anchors = {name: f"s{place}_{re.sub('[^A-Za-z0-9]', '_', name)}" for place, name in enumerate(shown)}
    exhibits = [_exhibit(name, anchors[name], report, theirs, svgs) for name in shown]
    verdicts = judge_all(printed_cells()), judge_all(report.cells)
    rows = board(*verdicts)
    return template("studies").render(
        budget=report.budget,
        note=report.note,
        groups=_groups(exhibits),
        anchors=anchors,
        claims=[Judged(row, verdict.comparisons) for row, verdict in zip(rows, verdicts[1], strict=True)],
        counts=counts(rows),
        missing=report.missing,
        together=report.missing_together,
        provenance=report.provenance,
        full_budget=EPOCHS,
    )


def known_studies(report: Report) -> list[str]:
    """The paper's tables and figures, then the further studies that have cells or a picture."""
    further = [place.study for place in (*report.places, *report.cells)]
    further += [picture.name for picture in report.pictures]
    return list(dict.fromkeys([*PAPER_STUDIES, *further]))


def _exhibit(
    name: str,
    anchor: str,
    report: Report,
    theirs: Mapping[Place, Cell],
    svgs: Mapping[str, str],
) -> Exhibit:
    from markupsafe import Markup

    printed = {place: cell for place, cell in theirs.items() if place.study == name}
    own = {place: cell for place, cell in report.cells.items() if place.study == name}
    asked = [place for place in report.places if place.study == name]
    expected = asked or list(printed)
    picture = next((picture for picture in report.pictures if picture.name == name), None)
    title = report.titles.get(name) or (picture.title if picture else "")
    table = grid(name, [*printed, *expected, *own], title) if expected or own else None
    svg = None
    if picture and name in svgs:
        # matplotlib escapes what it is given, and the title is escaped here.
        svg = Markup(inline_svg(svgs[name], anchor, escape(title)))
    return Exhibit(
        name=name,
        anchor=anchor,
        heading=": ".join(part for part in (spoken(name), title) if part),
        found="not at this scale" if name in report.left_out else _found(own, expected, picture),
        sheet=_sheet(table, own, printed) if table else None,
        picture=picture,
        svg=svg,
        caption=f"{picture.caption.removesuffix('.')}." if picture else "",
        mixtures=mixtures(own, report.origins),
        notes=[*_notes("Paper", printed.values()), *_notes("Ours", own.values())],
        unprinted=not printed,
        left_out=report.left_out.get(name, ""),
    )


def _notes(whose: str, cells: Iterable[Cell]) -> list[str]:
    """Each different note of some cells once, with the number of cells that carry it."""
    counted = Counter(cell.note for cell in cells if cell.note)
    return [
        f"{whose}, {count} cell{'s' * (count != 1)}: {note.removesuffix('.')}."
        for note, count in counted.items()
    ]


def _found(own: Collection[Place], expected: Collection[Place], picture: Picture | None) -> str:
    """How much there is of what was asked for, by cells where there are such."""
    panels = picture.panels if picture else ()
    lines = sum(len(panel.lines) for panel in panels)
    if not own and not lines:
        return "not computed yet"
    if expected:
        return f"{sum(place in own for place in expected)} of {len(expected)} cells"
    if not lines:
        return f"{len(own)} cells"
    begun = sum(len(panel.begun) for panel in panels)
    return f"{lines - begun} of {lines + sum(len(panel.absent) for panel in panels)} lines"


def _sheet(table: Grid, own: Mapping[Place, Cell], printed: Mapping[Place, Cell]) -> Sheet:
    runs = usual_runs(own.values())
    beside = {row.place: row for row in side_by_side(own, printed)}
    return Sheet(
        names=[NAMES[name] for name in table.row_names],
        columns=[column_texts(table.column_names, column) for column in table.columns],
        rows=[
            (
                [value_text(name, value) for name, value in zip(table.row_names, row, strict=True)],
                [_slot(table.places.get((row, column)), beside, runs) for column in table.columns],
            )
            for row in table.rows
        ],
        note=table_note(table, own),
        beside=bool(printed),
    )


def _slot(place: Place | None, beside: Mapping[Place, SideBySide], runs: int | None) -> Slot | None:
    """A cell of the table; None where no cell belongs."""
    if place is None:
        return None
    row = beside.get(place)
    if row is None:
        return Slot(None, None, "", "")
    return Slot(
        entry(row.ours, runs) if row.ours else None,
        entry(row.theirs) if row.theirs else None,
        difference_text(row),
        _INSIDE[row.inside],
    )


def _groups(exhibits: Sequence[Exhibit]) -> list[tuple[str, list[Exhibit]]]:
    """Exhibits under the headings of the page; a heading with nothing under it is left out."""
    groups: dict[str, list[Exhibit]] = {"Tables": [], "Figures": [], "Further studies": []}
    for exhibit in exhibits:
        kind = re.fullmatch(r"(table|fig)\d+", exhibit.name)
        heading = {"table": "Tables", "fig": "Figures"}[kind[1]] if kind else "Further studies"
        groups[heading].append(exhibit)
    return [(heading, listed) for heading, listed in groups.items() if listed]
