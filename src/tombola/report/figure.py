"""The picture of an exhibit as a matplotlib figure, and as SVG, PNG and PDF files.

A panel that shows trainings without and with late rewinding is drawn as two beside each other
with one scale, so that a configuration keeps its colour and its line everywhere (reading E6). Bars of both
stand in one panel, in two groups.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tombola.disk import write_whole
from tombola.experiments.paper.settings import EPOCHS
from tombola.report.axes import PRINTED, draw_failures, draw_lines, scale_y
from tombola.report.bars import draw_bars, draw_runs, is_bars
from tombola.report.labels import HALVES, draw_gap, shortened, title_pad
from tombola.report.reliefs import draw_relief
from tombola.report.style import (
    INK,
    PAPER,
    RULE,
    SOFT,
    STABLE_LINE,
    Look,
    Looking,
    drawing,
    grey,
    looks,
    new_figure,
)
from tombola.views.picture import Panel, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec


def svg_bytes(figure: Figure) -> bytes:
    """The same as the bytes of a file."""
    return svg_text(figure).encode()


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=PNG_DOTS_PER_INCH)
    return buffer.getvalue()


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as a PDF file."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def inline_svg(svg: str, name: str, title: str) -> str:
    """That SVG file as an element of a page, whose CSS variables --ink, --paper, --rule and --soft colour it.

    name: unlike that of any other figure of the page; letters, digits and underscores.
    title: what the picture shows, for those who hear the page; plain text without markup.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element)
    element = element.replace("url(#", f"url(#{name}-")
    for color, variable in ((INK, "ink"), (PAPER, "paper"), (RULE, "rule"), (SOFT, "soft")):
        element = element.replace(color, f"var(--{variable})")
    # Width and height in points would keep the picture from following the width of the page.
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}">{rest}'


_MADE: Mapping[str, Callable[[Figure], bytes]] = {"svg": svg_bytes, "png": png_bytes, "pdf": pdf_bytes}
KINDS = tuple(_MADE)
"""The kinds of files that a picture is saved as."""

_WIDTH = 10.0  # inches
_WARNING = "#D55E00"
_HALF_TITLE = 48  # characters of a line above half the width
_LATE = "late rewinding"
_SAMPLE_WIDTH = 60  # points that an entry of the legend needs beside its text
_FACTORED_FROM = 13  # entries: fewer are listed one by one


def draw(picture: Picture) -> Figure:
    """The finished figure; budget and note, such as that of a small scale, stand below the panels."""
    look = looks(picture)
    rows = _rows(picture.panels)
    with drawing():
        figure = new_figure(_WIDTH, _height(rows, picture))
        grid = figure.add_gridspec(len(rows), 2)
        for place, row in enumerate(rows):
            places = [grid[place, :]] if len(row.panels) == 1 else [grid[place, 0], grid[place, 1]]
            _draw_row(figure, places, row, look)
        _add_legend(figure, picture, look)
        if below := _below(picture):
            color, weight = (_WARNING, "bold") if picture.note else (SOFT, "normal")
            figure.supxlabel("\n".join(below), fontsize=11, color=color, weight=weight)
        # Laid out once, where every file of the figure would do it again.
        layout = figure.get_layout_engine()
        assert layout is not None
        layout.execute(figure)
        figure.set_layout_engine(None)
    return figure


def _draw_row(figure: Figure, places: Sequence[SubplotSpec], row: _Row, look: Looking) -> None:
    """Panels beside each other; those that are halves of one share their scale if both have lines."""
    shares = row.halves and all(panel.lines for panel in row.panels)
    # Titles beside each other stand at one height.
    pad = max((pad for panel in row.panels if (pad := title_pad(panel)) is not None), default=None)
    drawn: list[Axes] = []
    for place, panel in zip(places, row.panels, strict=True):
        axes = figure.add_subplot(place, sharey=drawn[0] if shares and drawn else None)
        width = _HALF_TITLE if len(row.panels) > 1 else 2 * _HALF_TITLE
        title = textwrap.fill(shortened(panel.title, 3 * width), width)
        axes.set_title(title, pad=pad)
        if panel.relief is not None:
            draw_relief(axes, panel, panel.relief)
        elif not panel.lines:
            draw_gap(axes, panel)
        elif panel.runs:
            draw_runs(axes, panel, look)
        elif is_bars(panel):
            draw_bars(axes, panel, look)
        else:
            draw_lines(axes, panel, look)
        drawn.append(axes)
    for axes, panel in zip(drawn, row.panels, strict=True):
        if panel.lines:
            scale_y(axes, row.panels if shares else [panel])
            draw_failures(axes, panel, look)
    for axes in drawn[1:] if shares else ():
        axes.set_ylabel("")
        axes.tick_params(axis="y", labelleft=False)


def picture_files(picture: Picture, kinds: Sequence[str] = KINDS) -> dict[str, bytes]:
    """The drawn picture as files of those kinds."""
    figure = draw(picture)
    return {kind: _MADE[kind](figure) for kind in kinds}


def save_picture(picture: Picture, folder: Path, files: Mapping[str, bytes] | None = None) -> list[Path]:
    """Write the picture under its name as SVG, PNG and PDF, and return the paths.

    files: those of :func:`picture_files`, if they are made already.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to.
    """
    paths = []
    for kind, content in (files or picture_files(picture)).items():
        paths.append(folder / f"{picture.name}.{kind}")
        write_whole(paths[-1], content, make_folder=True)
    return paths


@dataclass
class _Row:
    """Panels beside each other; halves: whether they are one panel of the picture, on one scale."""

    panels: list[Panel]
    halves: bool = False


def _rows(panels: Sequence[Panel]) -> list[_Row]:
    """Panels in rows of two; one that shows both starts is a row of its own, and so is one left over."""
    rows: list[_Row] = []
    for panel in panels:
        halves = _halves(panel)
        if len(halves) > 1:
            rows.append(_Row(halves, halves=True))
        elif rows and len(rows[-1].panels) == 1:
            rows[-1].halves = _are_halves(rows[-1].panels[0], halves[0])
            rows[-1].panels += halves
        else:
            rows.append(_Row(halves))
    return rows


def _halves(panel: Panel) -> list[Panel]:
    """A panel with its start named, or the two it is drawn as. Lines of neither start are in both."""
    starts = [half for half in (False, True) if any(line.pretrained is half for line in panel.lines)]
    if is_bars(panel) or panel.runs or (len(starts) == 1 and _LATE in panel.title) or not starts:
        return [panel]
    return [
        replace(
            panel,
            title=f"{panel.title}, {HALVES[half]}" if panel.title else HALVES[half],
            lines=[line for line in panel.lines if line.pretrained in (None, half)],
            missing=_missing(panel, half) if len(starts) > 1 else panel.missing,
        )
        for half in starts
    ]


def _missing(panel: Panel, half: bool) -> list[str]:
    """The labels of missing lines of one half, where labels name the late start; else all of them."""
    labels = [line.label for line in panel.lines]
    if not any(_LATE in label for label in (*labels, *panel.missing)):
        return list(panel.missing)
    return [label for label in panel.missing if (_LATE in label) == half]


def _are_halves(one: Panel, other: Panel) -> bool:
    """Whether two panels are the halves of one: alike but for "without" and "with" in the title."""
    titles = [re.sub(r"^\([a-z]\) ", "", panel.title) for panel in (one, other)]
    same = titles[0].replace(f"without {_LATE}", f"with {_LATE}") == titles[1]
    return same and titles[0] != titles[1] and one.y_label == other.y_label


def _below(picture: Picture) -> list[str]:
    """What is written below the panels, in lines."""
    return [line for text in (picture.note, picture.budget) for line in textwrap.wrap(text, 105)]


def _height(rows: Sequence[_Row], picture: Picture) -> float:
    """Inches: one row has the shape of a slide, more rows are lower each, and gaps are lowest."""
    labels = {line.label for panel in picture.panels for line in panel.lines}
    reliefs = any(panel.relief is not None for panel in picture.panels)
    row = 4.2 if reliefs else 2.2 if not labels else 4.0 if len(rows) == 1 else 3.1
    return row * len(rows) + 0.25 * -(-min(len(labels), _FACTORED_FROM) // 4) + 0.25 * len(_below(picture))


@dataclass(frozen=True)
class Sample:
    """One entry of a legend: a label, and what stands beside it.

    look: of a line, of bars if ``bar``, of single points if ``point``; of a mark that all configurations
    share None, and its ``mark``.
    """

    label: str
    look: Look | None = None
    bar: bool = False
    point: bool = False
    mark: Literal["", "winning", "not winning", "failed", "printed", "limit"] = ""


def legend_of(picture: Picture, look: Looking | None = None) -> list[Sample]:
    """One entry a label, in the order of the lines; then what marks mean."""
    look = look or looks(picture)
    panels = [panel for panel in picture.panels if panel.lines]
    samples: dict[str, Look] = {}
    for line in (line for panel in panels for line in panel.lines):
        # The same look under another label is the same configuration from the other start.
        if look(line) not in samples.values():
            samples.setdefault(line.label, look(line))
    only_bars = all(is_bars(panel) for panel in panels)
    only_points = all(panel.scatter for panel in panels)
    entries = [
        Sample(shortened(label), sample, bar=only_bars, point=only_points)
        for label, sample in _factored(samples).items()
    ]
    if any(any(line.winning) for panel in panels for line in panel.lines):
        entries.append(Sample("winning ticket", mark="winning"))
        entries.append(Sample("not winning, or dense", mark="not winning"))
    if any(any(line.failed) for panel in panels for line in panel.lines):
        failed = [line for panel in panels for line in panel.lines if any(line.failures)]
        hollow = any(not look(line).filled for line in failed)
        entries.append(
            Sample("a run failed (hollow: with momentum)" if hollow else "a run failed", mark="failed")
        )
    if any(y is not None for panel in panels for line in panel.lines for y in line.printed):
        entries.append(Sample(f"hollow: the paper, {EPOCHS} epochs", mark="printed"))
    limits = sorted({panel.limit for panel in panels if panel.limit is not None})
    return [*entries, *(Sample(f"stable below {limit:g} points", mark="limit") for limit in limits)]


def _handle(sample: Sample) -> Any:
    """What matplotlib draws in the legend for an entry."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if sample.look is not None and sample.bar:
        return Patch(**sample.look.bar(), label=sample.label)
    if sample.look is not None and sample.point:
        look = sample.look
        return Line2D(
            [], [], linestyle="", marker=look.marker, markersize=7, color=look.color, label=sample.label
        )
    if sample.look is not None:
        return Line2D([], [], **sample.look.line(label=sample.label))
    if sample.mark == "limit":
        return Line2D([], [], **STABLE_LINE, label=sample.label)
    shape: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 7, "markeredgewidth": 1.5}
    if sample.mark == "failed":
        shape = {"linestyle": "", "marker": "*", "markersize": 12}
    elif sample.mark == "printed":
        shape = {**PRINTED, "marker": "o"}
    elif sample.mark == "not winning":
        shape["markerfacecolor"] = PAPER
    return Line2D([], [], color=INK, label=sample.label, **shape)


def _add_legend(figure: Figure, picture: Picture, look: Looking) -> None:
    """The legend above the panels, read along rows."""
    handles = [_handle(sample) for sample in legend_of(picture, look)]
    if handles:
        columns = _columns(handles)
        figure.legend(handles=_by_rows(handles, columns), loc="outside upper center", ncols=columns)


def _factored(samples: Mapping[str, Look]) -> Mapping[str, Look]:
    """Many labels that are pairs of a configuration and, say, a block: the parts, each once."""
    pairs = [label.rpartition(", ") for label in samples]
    heads, tails = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 2))
    if len(samples) < _FACTORED_FROM or len(heads) * len(tails) != len(samples):
        return samples
    neutral = {tail: samples[f"{heads[0]}, {tail}"] for tail in tails}
    return {head: samples[f"{head}, {tails[-1]}"] for head in heads} | {
        tail: replace(sample, color=grey(place, len(tails)), dashes="-")
        for place, (tail, sample) in enumerate(neutral.items())
    }


def _columns(handles: Sequence[Any]) -> int:
    """As many columns as the width holds, and no more than four."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans")
    texts = [TextPath((0, 0), str(handle.get_label()), size=12, prop=font) for handle in handles]
    widths = [float(text.vertices[:, 0].max()) + _SAMPLE_WIDTH for text in texts]
    for columns in range(min(4, len(handles)), 1, -1):
        if sum(max(widths[column::columns]) for column in range(columns)) <= 72 * _WIDTH:
            return columns
    return 1


def _by_rows(handles: Sequence[Any], columns: int) -> list[Any]:
    """matplotlib fills a legend column by column; in this order it reads along the rows."""
    return [handle for column in range(columns) for handle in handles[column::columns]]


PNG_DOTS_PER_INCH = 150


def svg_text(figure: Figure) -> str:
    """The figure as a complete SVG file."""
    buffer = io.StringIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
