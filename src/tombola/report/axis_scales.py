"""Scales of axes that pictures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tombola.measures.limits import STABLE_BELOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TALL = 10 * STABLE_BELOW
"""Points: beside such a barrier a low one cannot be read on an even scale."""

_DECADES = 20
"""Ratio of the largest value to the smallest from which an axis of points is logarithmic."""

_EVEN_PART = 0.6
"""Length of the even part of an axis of barriers, in decades of the rest."""


def space_by_round(axes: Axes, ticks: Sequence[float], texts: Sequence[str]) -> None:
    """Space an axis of sparsities in percent evenly by round: logarithmic in what remains.

    ticks, texts: the sparsities that are written at the axis, and how.
    """
    from matplotlib.ticker import NullLocator

    axes.set_xscale("function", functions=(_density_to_position, _position_to_density))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, texts)


def space_by_stability(axes: Axes, low: float, top: float) -> None:
    """Space an axis of barriers evenly up to the limit of stability, and logarithmically above.

    low, top: ends of the axis, in percentage points.
    """
    from matplotlib.ticker import NullLocator

    axes.set_yscale("symlog", linthresh=STABLE_BELOW, linscale=_EVEN_PART)
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= top]
    axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, top)


def stability_position(value: float) -> float:
    """Where a barrier stands on such an axis, in decades, from 0 for none."""
    even = _EVEN_PART / (1 - 1 / 10)  # as matplotlib counts it
    if value <= STABLE_BELOW:
        return even * value / STABLE_BELOW
    return even + math.log10(value / STABLE_BELOW)


def logarithmic_errors(axes: Axes, errors: Sequence[float]) -> None:
    """A logarithmic y axis of errors in percent, unless one is exactly 0: a start at chance hides no end."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not errors or min(errors) <= 0:
        axes.set_ylim(bottom=0)
        return
    decade = 10 ** math.floor(math.log10(min(errors)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    # Down to the next labelled line, so that the lowest error can be read between two of them.
    bottom = max(decade * step for step in (1, 2, 5) if decade * step <= min(errors))
    # Above room for a line that stays highest, such as one at chance.
    axes.set_ylim(bottom, max(errors) * (max(errors) / bottom) ** 0.05)


def logarithmic_x(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers: matplotlib's own are formulas, which stay unparsed here."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def scatter_axes(axes: Axes, values: Sequence[float]) -> None:
    """The axes of points: x logarithmic where the values span decades, a line where y is 0."""
    if values and values[0] > 0 and values[-1] > _DECADES * values[0]:
        logarithmic_x(axes)
    axes.margins(x=0.08)
    axes.axhline(0, color="0.6", linewidth=0.9, zorder=0.5)


def _density_to_position(sparsity: Any) -> Any:
    import numpy as np

    # Bounded because matplotlib also asks about its margins, and 100% has no place on this axis.
    return -np.log(np.maximum(100.0 - np.asarray(sparsity, float), 1e-3) / 100.0)


def _position_to_density(position: Any) -> Any:
    import numpy as np

    return 100.0 * (1.0 - np.exp(-np.asarray(position, float)))
