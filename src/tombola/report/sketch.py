"""Lines of a panel as a light SVG in the colours of every other picture, for pages that change by the second.

Pictures of a report are matplotlib's (:mod:`tombola.report.figure`), which takes hundreds of times longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from tombola.report.style import Looking
from tombola.views.picture import Line, Panel

# Of the drawing, in units of its own: the page scales it.
_WIDTH, _HEIGHT = 480.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 14.0, 12.0, 48.0
_TICKS = 5


def sketch(panel: Panel, look: Looking, x_text: Callable[[float], str] = "{:g}".format) -> str:
    """The lines of a panel as an SVG element; the page's CSS variables --ink and --rule colour the rest.

    look: colours and dashes of its lines. x_text: what stands below a tick of the x axis.

    Points that are not finite are left out, and a line is interrupted there. Texts are escaped.
    """
    points = [point for line in panel.lines for point in _finite(line)]
    x_low, x_high, x_ticks = _scale([x for x, _ in points])
    y_low, y_high, y_ticks = _scale([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(panel.title)}" '
        'font-size="15" fill="var(--ink)">'
    ]
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(
            f'<path d="M{_LEFT:g} {y}H{_WIDTH - _RIGHT:g}" stroke="var(--rule)"/>'
            f'<text x="{_LEFT - 8:g}" y="{y + 5:g}" text-anchor="end">{tick:.10g}</text>'
        )
    for tick in x_ticks:
        x, _ = place(tick, y_low)
        parts.append(
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 19:g}" text-anchor="middle">{escape(x_text(tick))}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<path d="M{_LEFT:g} {_TOP:g}V{_HEIGHT - _BOTTOM:g}H{_WIDTH - _RIGHT:g}" fill="none" '
        'stroke="var(--ink)"/>'
        f'<text x="{middle:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">{escape(panel.x_label)}</text>'
        f'<text transform="translate(15 {(_HEIGHT - _BOTTOM + _TOP) / 2:g})rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y_label)}</text>"
    )
    parts += [_stroke(line, look, place) for line in panel.lines]
    return "".join([*parts, "</svg>"])


def _stroke(line: Line, look: Looking, place: Callable[[float, float], tuple[float, float]]) -> str:
    """A line with a dot at its last point."""
    style, path, joined = look(line), [], False
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            path.append("{}{} {}".format("L" if joined else "M", *place(x, y)))
            joined = True
        else:
            joined = False
    finite = _finite(line)
    if not finite:
        return ""
    x, y = place(*finite[-1])
    dashes = f' stroke-dasharray="{style.dash_array}"' if style.dash_array else ""
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{style.color}" stroke-width="2.2" '
        f'stroke-linejoin="round" stroke-linecap="round"{dashes}/>'
        f'<circle cx="{x}" cy="{y}" r="3.2" fill="{style.color}"/>'
    )


def _finite(line: Line) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends of an axis around some values, and round numbers between them; from 0 to 1 without values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if not math.isfinite(high - low):  # a stranger's numbers may be any
        return low / 2, high / 2 or 1.0, []
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return low, high, [tick * step for tick in range(first, last + 1)]
