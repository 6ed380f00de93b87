"""The page of a store at work: jobs under way, learning curves, queue, throughput and the report so far.

The page is made anew only while somebody looks at it. Its curves are light sketches; the figures of the
report, which take seconds of processor time, are drawn again when their numbers changed, and as long as
something trains for at most half a percent of the time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any

from tombola.errors import TombolaError
from tombola.lab.activity import Activity, LiveCurve, Watcher
from tombola.lab.description import TICKET_FUNCTION
from tombola.lab.store import Store
from tombola.lab.training_progress import thinned
from tombola.report.figure import draw, inline_svg, svg_text
from tombola.report.gather import Report
from tombola.report.page import report_html
from tombola.report.sketch import sketch
from tombola.report.style import Look, free_look
from tombola.report.template import template
from tombola.untrusted import OTHER_FORM
from tombola.views.picture import Line, Panel, Picture

if TYPE_CHECKING:
    from markupsafe import Markup

SECTIONS: Mapping[str, str] = {
    "running": "Running",
    "curves": "Learning curves",
    "queue": "Queue",
    "throughput": "Throughput",
    "finished": "Finished",
    "report": "The report so far",
}
"""The sections below the first lines of the page, and their headings."""

# Seconds for which a look is not repeated, however many pages are open.
_FRESH = 1.0
# Points of a curve that are drawn.
_MOST_POINTS = 100
# Functions whose results a report does not wait for: starts and tickets.
_WITHOUT_NUMBERS = ("initialize", "pretrain", TICKET_FUNCTION)
# Seconds between looks after which the course of the throughput is not drawn through.
_GAP = 10.0
# While something trains, looks and reports are made again after so many times the processor time that they
# took: together they cost at most a hundredth of a core.
_REST = 200.0
# Seconds of processor time that a first report may take: some figures. Of the next ones the last tells it.
_FIRST_REPORT = 1.0


@dataclass(frozen=True)
class _DrawnReport:
    """A report: its number, its page, its figures with headings and captions, and when it was made."""

    number: int
    html: str
    figures: Sequence[tuple[str, Markup, str]]
    when: str


class LivePage:
    """The page of a store, made when it is asked for; any thread may ask.

    report: gathers the report of the experiments that are shown; None for none.
    """

    def __init__(self, store: Store, report: Callable[[], Report] | None = None) -> None:
        self._watcher = Watcher(store)
        self._gather = report
        self._lock = threading.Lock()
        self._next_look = float("-inf")
        self._parts: dict[str, str] = {}
        self._colors: dict[str, int] = {}
        self._report: _DrawnReport | None = None
        self._report_error = ""
        self._report_of: frozenset[str] | None = None  # the finished jobs that it was made of
        self._drawn: dict[str, tuple[Picture, str]] = {}  # the figures of the last report, by name
        # What was finished before anybody looked is shown at once.
        self._next_report = float("-inf") if self._finished() else time.monotonic() + _REST * _FIRST_REPORT
        self._awaited = ""  # when the first one is made
        self._drawing: threading.Thread | None = None
        if report is not None:  # loads what draws before anything is watched
            svg_text(
                draw(Picture("first", "", "", [Panel("", "", "", [Line("first", [0.0, 1.0], [0.0, 1.0])])]))
            )

    def parts(self) -> dict[str, str]:
        """The HTML of each section now, by its name; for the report's stands what it changes with."""
        with self._lock:
            self._look()
            number = self._report.number if self._report else 0
            return {**self._parts, "report": f"{number} {self._awaited}{self._report_error}"}

    def report_part(self) -> str:
        """The HTML of the section of the report."""
        with self._lock:
            self._look()
            return self._parts["report"]

    def html(self, nonce: str) -> str:
        """The whole page; nonce: of its own script, the only one that runs."""
        with self._lock:
            self._look()
            return template("live").render(parts=self._parts_as_markup(), sections=SECTIONS, nonce=nonce)

    def report_html(self) -> str | None:
        """The page of the report so far; None if there is none yet."""
        return self._report.html if self._report else None

    def _parts_as_markup(self) -> dict[str, Markup]:
        from markupsafe import Markup

        # Each was made by a template that escapes what is put into it.
        return {name: Markup(part) for name, part in self._parts.items()}

    def _look(self) -> None:
        """Makes the sections anew, unless that was done just now."""
        if time.monotonic() < self._next_look:
            return
        before = time.thread_time()
        activity = self._watcher.look()
        self._draw_report_if_due(activity)
        shown = _SentPage(
            activity,
            time.strftime("%H:%M:%S", time.localtime(activity.moment)),
            *self._charts(activity.curves),
            _course(activity),
            self._report,
            self._report_error,
            self._awaited,
            self._gather is not None,
        )
        module: Any = template("live_parts").module
        self._parts = {name: str(getattr(module, name)(shown)) for name in ("now", *SECTIONS)}
        # The first look of all also loads what draws.
        counted = activity.busy and math.isfinite(self._next_look)
        rest = _REST * (time.thread_time() - before) if counted else 0.0
        self._next_look = time.monotonic() + max(_FRESH, rest)

    def _charts(self, curves: Sequence[LiveCurve]) -> tuple[list[tuple[str, Look]], list[tuple[str, Markup]]]:
        """The legend of some learning curves, and their test accuracies and train losses, each drawn in one.

        A run keeps its colour for as long as it is shown.
        """
        from markupsafe import Markup

        self._colors = {curve.name: self._colors.get(curve.name, -1) for curve in curves}
        for name, color in self._colors.items():
            if color < 0:
                used = set(self._colors.values())
                self._colors[name] = next(place for place in count(1) if place not in used)

        def look(line: Line) -> Look:
            return free_look(self._colors[line.label])

        charts = []
        for title, label, column in (
            ("Test accuracy", "percent", "test_accuracy"),
            ("Train loss", "nats", "train_loss"),
        ):
            lines = [
                Line(
                    curve.name,
                    [point.epoch for point in thinned(curve.points, _MOST_POINTS)],
                    [getattr(point, column) for point in thinned(curve.points, _MOST_POINTS)],
                )
                for curve in curves
            ]
            charts.append((title, Markup(sketch(Panel(title, "epoch", label, lines), look))))
        legend = [(curve.label, free_look(self._colors[curve.name])) for curve in curves]
        return legend, charts if curves else []

    def _draw_report_if_due(self, activity: Activity) -> None:
        """Begins to make the report again, in a thread of its own, if there is anything new."""
        if self._gather is None or (self._drawing is not None and self._drawing.is_alive()):
            return
        finished = self._finished()
        if not finished or finished == self._report_of:
            return
        wait = self._next_report - time.monotonic()
        if activity.busy and wait > 0:
            if self._report is None and math.isfinite(wait) and not self._awaited:
                self._awaited = time.strftime("%H:%M:%S", time.localtime(activity.moment + wait))
            return
        self._awaited = ""
        self._report_of = finished
        self._drawing = threading.Thread(
            target=self._draw_report, args=(self._gather,), name="report", daemon=True
        )
        self._drawing.start()

    def _finished(self) -> frozenset[str]:
        """The finished jobs that a report may be of."""
        return frozenset(row.name for row in self._watcher.rows if row.function not in _WITHOUT_NUMBERS)

    def _svg(self, picture: Picture) -> str:
        """A figure as SVG, drawn anew only if it is not that of the last report."""
        last, svg = self._drawn.get(picture.name, (None, ""))
        return svg if last == picture else svg_text(draw(picture))

    def _draw_report(self, gather: Callable[[], Report]) -> None:
        from markupsafe import Markup

        before = time.thread_time()
        try:
            report = gather()
            pictures = [exhibit.picture for exhibit in report.exhibits if exhibit.picture]
            svgs = {picture.name: self._svg(picture) for picture in pictures}
            self._drawn = {picture.name: (picture, svgs[picture.name]) for picture in pictures}
            figures = [
                # matplotlib escapes what it is given, and the title is escaped here.
                (one.title, Markup(inline_svg(svgs[one.name], f"f{place}", escape(one.title))), one.caption)
                for place, one in enumerate(pictures)
                if any(panel.lines for panel in one.panels)
            ]
            number = self._report.number + 1 if self._report else 1
            self._report = _DrawnReport(number, report_html(report, svgs), figures, time.strftime("%H:%M:%S"))
            self._report_error = ""
        except (TombolaError, OSError, *OTHER_FORM) as error:
            self._report_error = f"The report cannot be made: {' '.join(str(error).split())}"
        finally:
            self._next_report = time.monotonic() + _REST * (time.thread_time() - before)


@dataclass(frozen=True)
class _SentPage:
    """What the sections are made of."""

    activity: Activity
    clock: str
    legend: Sequence[tuple[str, Look]]
    charts: Sequence[tuple[str, Markup]]
    course: Markup | None
    report: _DrawnReport | None
    report_error: str
    awaited: str
    has_experiments: bool


def _course(activity: Activity) -> Markup | None:
    """The throughput since the first look; None before there is any."""
    from markupsafe import Markup

    if not any(images for _, images in activity.course):
        return None
    points: list[tuple[float, float]] = []
    for moment, images in activity.course:
        if points and (moment - activity.moment) / 60 - points[-1][0] > _GAP / 60:
            points.append(((moment - activity.moment) / 60, math.nan))  # nobody looked meanwhile
        points.append(((moment - activity.moment) / 60, images))
    line = Line("throughput", [x for x, _ in points], [y for _, y in points])
    panel = Panel("Throughput", "minutes ago", "images a second", [line])
    return Markup(sketch(panel, lambda _: free_look(5), lambda x: f"{abs(x):g}"))
