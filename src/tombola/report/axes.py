"""Lines of a panel with their spread, its scale, and the runs that failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tombola.measures.limits import STABLE_BELOW
from tombola.report.axis_scales import (
    TALL,
    logarithmic_errors,
    logarithmic_x,
    scatter_axes,
    space_by_round,
    space_by_stability,
)
from tombola.report.bars import bar_spread, groups, is_bars
from tombola.report.labels import LONGEST_LABEL, name_axes, name_missing, shortened
from tombola.report.style import PAPER, SOFT, STABLE_LINE, Look, Looking
from tombola.views.picture import Line, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRINTED: dict[str, Any] = {"linestyle": "", "markersize": 8, "markerfacecolor": "none"}
"""How the paper's own numbers stand beside a line, as hollow ones of its markers."""

_STAR = 13  # points
_MARKERS_UP_TO = 12  # points of a line: more would hide it
_CROWDED_FROM = 13  # lines: their bands are paler
_LABELLED_UP_TO = 6  # rounds on an axis: their sparsities are long
_PANEL_POINTS = 190  # about the height of a panel of one row
_NAMED_UP_TO = 24  # names on an axis
_TABULATED_EVERY = 5  # rounds: the paper's tables do


def draw_lines(axes: Axes, panel: Panel, look: Looking) -> None:
    """Lines, bands of one standard deviation, stars on points with failed runs, and vertical marks."""
    if panel.marks:
        axes.grid(visible=False, axis="x")
    if panel.limit is not None:
        axes.axhline(panel.limit, **STABLE_LINE, zorder=1)
    for mark in panel.marks:
        axes.axvline(mark, color=SOFT, linewidth=0.9, alpha=0.45, zorder=0.5)
    _scale_x(axes, panel)
    alpha = 0.13 if len(panel.lines) < _CROWDED_FROM else 0.06
    for line in panel.lines:
        _draw_line(axes, line, look(line), alpha)
    name_axes(axes, panel)
    name_missing(axes, panel)


def scale_y(axes: Axes, panels: Sequence[Panel]) -> None:
    """Set the scale of drawn panels that share it: from zero where that costs little.

    Called when all of them are drawn, for matplotlib follows no line that comes after a limit is set. There
    is room for the line where training begins to count as stable. Failed runs whose values are known one by
    one do not set the scale: they stand on its lower edge. Bars are shown whole all the same.
    """
    lines = [line for panel in panels for line in panel.lines]
    values = [y for line in lines for y in (*line.y, *line.printed) if y is not None and math.isfinite(y)]
    if any(panel.logarithmic_y for panel in panels):
        logarithmic_errors(axes, values)
        return
    bars = any(is_bars(panel) for panel in panels)
    if not bars and any(any(failures) for line in lines for failures in line.failures):
        axes.set_ylim(*_sound_limits(lines))
        return
    if any(panel.scatter for panel in panels):
        axes.margins(y=0.12)
        return
    if values and 0 <= min(values) < 0.5 * max(values):
        axes.set_ylim(bottom=0)
    limits = [panel.limit for panel in panels if panel.limit is not None]
    if limits:
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.5 * max(limits)))
        if max(values, default=0) > TALL:
            # Room for the markers of what is flat and highest, or for the number on the highest bar.
            tallest = max(line.y[0] + bar_spread(line) for line in lines) if bars else max(values)
            space_by_stability(axes, 0 if bars else -0.1 * STABLE_BELOW, (1.9 if bars else 1.3) * tallest)


def _sound_limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Room for every mean and its spread where no run failed, and for every single run that did not."""
    ends: list[float] = []
    for line in lines:
        for place, y in enumerate(line.y):
            failures = line.failures[place] if line.failures else ()
            if failures or not math.isfinite(y):
                runs = line.values[place] if line.values else ()
                ends += [value for value in runs if value not in failures]
            else:
                spread = line.spread[place] if line.spread is not None else 0.0
                ends += [y - spread, y + spread]
    if not ends:
        return 0.0, 100.0
    low, high = min(ends), max(ends)
    margin = max(0.06 * (high - low), 0.2)
    # More room below than above: failed runs stand there, stacked, with their values upon them.
    stacked = max(sum(value < low for value in failures) for line in lines for failures in line.failures)
    share = min(0.4, (1 + stacked * 1.2) * _STAR / _PANEL_POINTS) if stacked else 0.0
    room = max(2 * margin, share / (1 - share) * (high + margin - low))
    return max(0.0, low - room), min(100.0, high + margin)


def draw_failures(axes: Axes, panel: Panel, look: Looking) -> None:
    """A star for each failed run whose value is known, on the lower edge if the scale does not reach it.

    Called when the scale is set.
    """
    places = {id(line): [place] for _, group in groups(panel) for place, line in group}
    on_bars = is_bars(panel) and not panel.runs
    below: dict[float, dict[Look, list[float]]] = {}
    for line in panel.lines:
        appearance = look(line)
        positions = places[id(line)] if panel.runs or on_bars else line.x
        star = _star(appearance)
        if on_bars and appearance.filled:  # a star on a bar of its own colour is seen by its edge
            star["markeredgecolor"] = PAPER
        for x, failures in zip(positions, line.failures, strict=False):
            for value in failures:
                if value >= axes.get_ylim()[0]:
                    axes.plot(x, value, **star)
                else:
                    below.setdefault(x, {}).setdefault(appearance, []).append(value)
    for x, by_look in below.items():
        _draw_stars_on_edge(axes, x, by_look)


def _star(look: Look) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot``; hollow with momentum, as the colour says the batch size only."""
    return {
        "marker": "*", "markersize": _STAR, "color": look.color, "zorder": 4,
        "markerfacecolor": look.color if look.filled else PAPER,
    }  # fmt: skip


def _draw_stars_on_edge(axes: Axes, x: float, by_look: Mapping[Look, Sequence[float]]) -> None:
    """Stars below the scale, side by side by configuration and stacked by run: none may hide another."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    edge = axes.get_xaxis_transform()
    for column, (look, values) in enumerate(by_look.items()):
        right = (column - (len(by_look) - 1) / 2) * _STAR
        for level in range(len(values)):
            moved = ScaledTranslation(right / 72, (0.6 + level) * _STAR / 72, figure.dpi_scale_trans)
            axes.plot(x, 0, **_star(look), transform=edge + moved)
    every = [value for values in by_look.values() for value in values]
    low, high = f"{min(every):.0f}", f"{max(every):.0f}"
    axes.annotate(
        f"{low}%" if low == high else f"{low}\N{EN DASH}{high}%",
        (x, 0),
        (0, (0.4 + max(map(len, by_look.values()))) * _STAR),
        xycoords=edge,
        textcoords="offset points",
        ha="center",
        fontsize=11,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.4},
    )


def _draw_line(axes: Axes, line: Line, look: Look, alpha: float) -> None:
    """The line and its points; alpha: of the band of its spread."""
    starred = _starred(line)
    alone = [math.isfinite(y) and _is_alone(line.y, place) for place, y in enumerate(line.y)]
    axes.plot(line.x, line.y, **look.line(zorder=2))
    every = len(line.x) <= _MARKERS_UP_TO and not _is_alphas(line.x)
    shown = [place for place in range(len(line.x)) if (every or alone[place]) and not starred[place]]
    winning = [place for place in shown if line.winning and line.winning[place]]
    for places, face in ((winning, look.color), ([place for place in shown if place not in winning], PAPER)):
        axes.plot(
            [line.x[place] for place in places],
            [line.y[place] for place in places],
            look.marker,
            markersize=6,
            color=look.color,
            markerfacecolor=face if line.winning else look.color,
            markeredgewidth=1.5 if line.winning else 0,
            zorder=3,
        )
    printed = [(x, y) for x, y in zip(line.x, line.printed, strict=False) if y is not None]
    if printed:
        axes.plot(
            *zip(*printed, strict=True),
            **PRINTED,
            marker=look.marker,
            color=look.color,
            markeredgewidth=1.5,
            zorder=3.5,
        )
    if line.spread is not None:
        _draw_spread(axes, line, look, starred, alpha)
    failed = [place for place in range(len(line.x)) if starred[place]]
    if failed:
        axes.plot(
            [line.x[place] for place in failed],
            [line.y[place] for place in failed],
            "*",
            markersize=_STAR,
            color=look.color,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            zorder=4,
        )


def _draw_spread(axes: Axes, line: Line, look: Look, starred: Sequence[bool], alpha: float) -> None:
    """A band; where a run failed a bar instead, for a band would fill the panel to both neighbours."""
    spread = [value if value is not None else math.nan for value in line.spread or ()]
    alone = [_is_alone(line.y, place) for place in range(len(line.y))]
    failed = [bool(failures) for failures in line.failures] or starred
    band = [math.nan if star else value for value, star in zip(spread, failed, strict=True)]
    low = [y - s for y, s in zip(line.y, band, strict=True)]
    high = [y + s for y, s in zip(line.y, band, strict=True)]
    if any(math.isfinite(value) for value in low):
        axes.fill_between(line.x, low, high, color=look.color, alpha=alpha, linewidth=0, zorder=1)
    barred = [p for p, s in enumerate(spread) if (starred[p] or alone[p]) and math.isfinite(s)]
    barred = [place for place in barred if not (line.failures and failed[place])]
    if barred:
        axes.errorbar(
            [line.x[place] for place in barred],
            [line.y[place] for place in barred],
            [spread[place] for place in barred],
            fmt="none",
            ecolor=look.color,
            elinewidth=1.1,
            alpha=0.6,
            capsize=3,
            zorder=1.5,
        )


def _scale_x(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    values = sorted({float(x) for line in panel.lines for x in line.x} | {float(x) for x in panel.marks})
    if panel.scatter:
        scatter_axes(axes, values)
        return
    if panel.x_names:
        tilt: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        every = -(-len(panel.x_names) // _NAMED_UP_TO)
        names = [shortened(name, LONGEST_LABEL // 2) for name in panel.x_names[::every]]
        axes.set_xticks(range(0, len(panel.x_names), every), names, fontsize=10, **tilt)
        return
    if panel.by_round and values and values[-1] < 100:
        marks = sorted({float(x) for x in panel.marks})
        rounds = marks if len(marks) > 2 else values
        if len(rounds) > _LABELLED_UP_TO:
            least = _TABULATED_EVERY if len(rounds) > 2 * _TABULATED_EVERY + 1 else 1
            rounds = rounds[:: max(least, -(-len(rounds) // _LABELLED_UP_TO))]
        space_by_round(axes, rounds, [f"{sparsity:g}" for sparsity in rounds])
    elif panel.logarithmic_x and values and values[0] > 0:
        logarithmic_x(axes)
        if len(values) <= 10:
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.xaxis.set_minor_locator(NullLocator())
    elif _is_alphas(values):
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    elif 1 < len(values) <= 8:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    elif all(value.is_integer() for value in map(float, panel.marks or values)):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True))


def _starred(line: Line) -> list[bool]:
    """One sign a point; a long line that is starred throughout, such as one by epoch, has it at its end."""
    if line.failures:  # the runs themselves are starred
        return [False] * len(line.x)
    signs = [bool(sign) for sign in line.failed][: len(line.x)]
    signs += [False] * (len(line.x) - len(signs))
    if len(signs) > _MARKERS_UP_TO and all(signs):
        return [False] * (len(signs) - 1) + [True]
    return signs


def _is_alone(values: Sequence[float], place: int) -> bool:
    """Whether a point has no neighbour that a line could join it to."""
    around = [values[near] for near in (place - 1, place + 1) if 0 <= near < len(values)]
    return not any(math.isfinite(value) for value in around)


def _is_alphas(values: Sequence[float]) -> bool:
    """Whether these are positions on a line between two runs."""
    return len(values) > 4 and min(values) == 0 and max(values) == 1
