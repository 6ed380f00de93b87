"""Bars of a panel, and runs beside their mean: lines of one point, in groups by where training started."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tombola.report.axis_scales import TALL, stability_position
from tombola.report.labels import HALVES, name_axes, name_missing
from tombola.report.style import INK, PAPER, STABLE_LINE, Look, Looking
from tombola.views.picture import Line, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERED_UP_TO = 12  # bars: more leave no room for numbers
_NUMBER_SHARE = 0.15  # of a panel's height that the number on a bar takes


def is_bars(panel: Panel) -> bool:
    """Whether a panel is drawn as bars: each line is one number that stands for a whole configuration.

    A course along sparsities or a logarithmic axis of which a single point is finished stays a course.
    """
    course = panel.logarithmic_x or panel.runs or bool(panel.x_names) or panel.by_round or panel.scatter
    return bool(panel.lines) and not course and all(len(line.x) == 1 for line in panel.lines)


def draw_bars(axes: Axes, panel: Panel, look: Looking) -> None:
    """A bar for each line, in groups by where training started, each with its height written on it."""
    numbered = len(panel.lines) <= _NUMBERED_UP_TO
    feet = _number_feet(panel)
    if panel.limit is not None:
        axes.axhline(panel.limit, **STABLE_LINE, zorder=1)

    def draw_bar(place: float, line: Line) -> None:
        _draw_bar(axes, place, line, look(line), feet[id(line)], numbered=numbered)

    _draw_groups(axes, panel, draw_bar)
    axes.margins(y=0.12)  # for the numbers above the highest bars


def draw_runs(axes: Axes, panel: Panel, look: Looking) -> None:
    """For each line its mean as a dash and its runs as points, in groups by where training started."""

    def draw_line(place: float, line: Line) -> None:
        appearance = look(line)
        axes.plot(
            [place - 0.36, place + 0.36], [line.y[0]] * 2, color=appearance.color, linewidth=3, zorder=2
        )
        failures = list(line.failures[0]) if line.failures else []
        sound = [value for value in (line.values[0] if line.values else ()) if value not in failures]
        for shift, value in zip(_beside_each_other(len(sound)), sound, strict=True):
            face = appearance.color if appearance.filled else PAPER
            axes.plot(
                place + shift, value, appearance.marker, markersize=7, color=appearance.color,
                markerfacecolor=face, markeredgewidth=1.5, zorder=3,
            )  # fmt: skip

    _draw_groups(axes, panel, draw_line)


def _draw_groups(axes: Axes, panel: Panel, draw: Callable[[float, Line], None]) -> None:
    """Draw lines of one point each side by side, in groups by where training started."""
    ticks, names = [], []
    for half, group in groups(panel):
        for place, line in group:
            draw(place, line)
        if HALVES[half]:
            ticks.append(sum(place for place, _ in group) / len(group))
            names.append(HALVES[half])
    axes.grid(visible=False, axis="x")
    axes.set_xticks(ticks, names)
    axes.tick_params(axis="x", length=0)
    name_axes(axes, panel)
    name_missing(axes, panel)


def groups(panel: Panel) -> list[tuple[bool | None, list[tuple[float, Line]]]]:
    """Lines by where training started, each with its place on the x axis."""
    start, groups = 0.0, []
    for half in (None, False, True):
        lines = [line for line in panel.lines if line.pretrained is half]
        if lines:
            groups.append((half, [(start + place, line) for place, line in enumerate(lines)]))
            start += len(lines) + 0.8
    return groups


def _beside_each_other(count: int) -> list[float]:
    """Shifts of so many points around one place."""
    step = min(0.16, 0.6 / max(count - 1, 1))
    return [step * (place - (count - 1) / 2) for place in range(count)]


def _number_feet(panel: Panel) -> dict[int, float]:
    """Where the number of each bar stands: upon it, and clear of the line where training counts as stable."""
    feet = {id(line): max(line.y[0] + bar_spread(line), 0.0) for line in panel.lines}
    limit = panel.limit
    if limit is not None:
        tallest = max(*feet.values(), limit)
        # On either scale the number needs so much of the height.
        position = stability_position if tallest > TALL else float
        room = _NUMBER_SHARE * position(tallest)
        for line, foot in feet.items():
            if position(limit) - room < position(foot) < position(limit):
                feet[line] = limit
    return feet


def bar_spread(line: Line) -> float:
    spread = line.spread[0] if line.spread is not None else math.nan
    return spread if math.isfinite(spread) else 0.0


def _draw_bar(axes: Axes, place: float, line: Line, look: Look, foot: float, *, numbered: bool) -> None:
    """A bar with its spread; foot: where its number stands."""
    height, spread = line.y[0], bar_spread(line)
    axes.bar(place, height, 0.8, **look.bar(), zorder=2)
    if spread:
        axes.errorbar(place, height, spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3, zorder=3)
    text = f"{height:.1f}" if numbered else ""
    if any(line.failed) and not line.failures:  # else the runs themselves are starred
        text += "*"
    axes.annotate(
        text,
        (place, foot),
        (0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=11,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2.5} if text else None,
        zorder=4,
    )
